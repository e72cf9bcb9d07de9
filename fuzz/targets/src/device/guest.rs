//! A small guest in memory: the kernel's tables, an environment that is the driver's, and one that is foreign.

use abi::boot::MemoryRange;
use abi::domain::{DomainEntry, Rights};
use abi::extent::ExtentEntry;
use abi::flow::{Target, table_bytes};
use abi::queue::{QueueOwner, owner_index};
use exovm::tables::{FlowTableWriter, Memory, TableAddresses, Tables, domain};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

/// The driver's environment. The other is 2.
pub(super) const OWN: u32 = 1;
/// Bytes of memory that each has.
pub(super) const BYTES: u64 = 128 << 10;
/// Where the driver's begins.
pub(super) const OWN_GPA: u64 = 0x4_0000;
/// Where the other's begins: right behind it.
const FOREIGN_GPA: u64 = OWN_GPA + BYTES;

/// What foreign memory and foreign blocks hold, again and again. Another number in each process, so that no input can hold it.
fn secret() -> [u8; 8] {
    static SECRET: OnceLock<[u8; 8]> = OnceLock::new();
    *SECRET.get_or_init(|| RandomState::new().hash_one(0).to_le_bytes())
}

/// Whether something of it is among these bytes.
pub(super) fn holds_foreign(bytes: &[u8]) -> bool {
    let secret = secret();
    bytes.windows(8).any(|window| window == secret)
}

/// Fills memory or blocks with it.
pub(super) fn fill_foreign(bytes: &mut [u8]) {
    bytes.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&secret()));
}

/// Whether they hold nothing else.
pub(super) fn is_foreign(bytes: &[u8]) -> bool {
    let secret = secret();
    bytes.chunks_exact(8).all(|chunk| chunk == secret)
}

const TABLES: TableAddresses = TableAddresses {
    domains_gpa: 0x1000,
    queue_owners_gpa: 0x2000,
    extents_gpa: 0x3000,
    flows_gpa: 0x1_0000,
    capabilities_gpa: 0,
};
const BITMAPS_GPA: u64 = 0x3_0000;
const NODES: u32 = 16;

/// An entry of the extent table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    pub(super) environment: u32,
    pub(super) device: u32,
    pub(super) start: u64,
    pub(super) blocks: u64,
    pub(super) rights: u32,
}

/// What is in the extent table, and what the driver's environment may do by it: a block at a time, for those who compare.
#[derive(Debug, Default)]
pub(super) struct Extents(Mutex<[Extent; EXTENTS]>);

/// Entries of the extent table that are used.
pub(super) const EXTENTS: usize = 3;

impl Extents {
    /// Whether one extent allows to touch each of these blocks.
    pub(super) fn allow(&self, mut blocks: Range<u64>, rights: u32) -> bool {
        let extents = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        extents.iter().any(|extent| {
            (extent.environment, extent.device) == (OWN, 0)
                && extent.rights & rights == rights
                && blocks.clone().all(|block| block >= extent.start && block - extent.start < extent.blocks)
        }) && blocks.next().is_some()
    }
}

pub(super) struct Guest {
    pub(super) memory: Arc<Memory>,
    pub(super) tables: Arc<Tables>,
    pub(super) extents: Arc<Extents>,
    flows: FlowTableWriter,
}

impl Guest {
    pub(super) fn new() -> Self {
        assert!(TABLES.flows_gpa + table_bytes(NODES) <= BITMAPS_GPA);
        let bytes = (FOREIGN_GPA + BYTES) as usize;
        let memory = Arc::new(Memory::from_ranges(&[(GuestAddress(0), bytes)]).expect("guest memory"));
        for environment in [OWN, OWN + 1] {
            let gpa = TABLES.domains_gpa + u64::from(environment) * size_of::<DomainEntry>() as u64;
            memory.write_slice(domain_entry(environment).as_bytes(), GuestAddress(gpa)).expect("inside");
        }
        let flows = FlowTableWriter::create(&memory, TABLES.flows_gpa, NODES).expect("inside");
        let tables = Tables::open(Arc::clone(&memory), TABLES).expect("usable tables");
        let guest = Self { memory, tables, extents: Arc::default(), flows };
        guest.grant(OWN_GPA, BYTES, Rights::ReadWrite);
        let mut foreign = vec![0; BYTES as usize];
        fill_foreign(&mut foreign);
        guest.write(FOREIGN_GPA, &foreign);
        guest
    }

    /// Changes what the driver's devices may do with a range.
    pub(super) fn grant(&self, start_gpa: u64, len_bytes: u64, rights: Rights) {
        let range = MemoryRange { start_gpa, len_bytes };
        domain::grant(&self.memory, domain_entry(OWN), range, rights).expect("covered");
    }

    /// Gives a queue of the device to the driver's environment, or to nobody.
    pub(super) fn own(&self, queue: u16, is_own: bool) {
        let index = owner_index(0, queue.into()).expect("a queue") as u64;
        let owner = QueueOwner { environment_plus_one: if is_own { OWN + 1 } else { 0 }, generation: 1 };
        let gpa = TABLES.queue_owners_gpa + index * size_of::<QueueOwner>() as u64;
        self.write(gpa, owner.as_bytes());
    }

    pub(super) fn guardian(&mut self, environment: u16, queue_pair: u16, queue_pairs: u16) {
        self.flows.set_root(Some(Target { environment, queue_pair, queue_pairs, rights: 1 }));
    }

    /// A free entry of the extent table. What was under way by the old one must be waited for before the next.
    pub(super) fn take_extent(&self, index: usize) {
        self.write(extent_gpa(index) + size_of::<u64>() as u64, &0u64.to_le_bytes());
    }

    /// An entry that was free, as the kernel writes it: the number of blocks last. What may be touched says so before the device
    /// can.
    pub(super) fn give_extent(&self, index: usize, extent: Extent) {
        self.extents.0.lock().unwrap_or_else(PoisonError::into_inner)[index] = extent;
        let Extent { environment, device, start, blocks, rights } = extent;
        let gpa = extent_gpa(index);
        self.write(gpa, &start.to_le_bytes());
        self.write(gpa + 16, &(u64::from(environment) | u64::from(device) << 32).to_le_bytes());
        self.write(gpa + 24, &u64::from(rights).to_le_bytes());
        self.write(gpa + 8, &blocks.to_le_bytes());
    }

    pub(super) fn write(&self, gpa: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(gpa)).expect("inside");
    }

    /// Nobody wrote to what is not the driver's.
    pub(super) fn check(&self) {
        let mut foreign = vec![0; BYTES as usize];
        self.memory.read_slice(&mut foreign, GuestAddress(FOREIGN_GPA)).expect("inside");
        assert!(is_foreign(&foreign), "foreign memory was written");
    }
}

fn extent_gpa(index: usize) -> u64 {
    TABLES.extents_gpa + (index * size_of::<ExtentEntry>()) as u64
}

fn domain_entry(environment: u32) -> DomainEntry {
    DomainEntry {
        bitmap_gpa: BITMAPS_GPA + u64::from(environment) * 0x1000,
        pages: (FOREIGN_GPA + BYTES) / abi::layout::PAGE_BYTES,
    }
}

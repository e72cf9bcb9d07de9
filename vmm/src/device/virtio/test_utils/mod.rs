//! A guest in memory: tables as the kernel would write them, a driver's side of the rings, and interrupts that count.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use abi::boot::MemoryRange;
use abi::domain::{DomainEntry, Rights};
use abi::extent::ExtentEntry;
use abi::flow::{NODES, Target, table_bytes};
use abi::queue::{QueueOwner, RingLayout, owner_index};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use crate::device::pci::{Interrupt, MsiMessage, MsixRoutes};
use crate::tables::{FlowTableWriter, Memory, TableAddresses, Tables, domain};

pub(crate) mod bench;
pub(crate) mod console;
pub(crate) mod disk;
mod driver;
pub(crate) mod nic;

pub(crate) use bench::Bench;
pub(crate) use driver::{Driver, Piece};

/// An interrupt that counts.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicUsize);

impl Counter {
    /// How often it was raised.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Interrupt for Counter {
    fn signal(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What was said to the routes.
type Route = (u16, Option<MsiMessage>);

/// Routes that remember.
#[derive(Debug, Default)]
pub(crate) struct Routes(Mutex<Vec<Route>>);

impl Routes {
    /// What was set since the last time.
    pub(crate) fn take(&self) -> Vec<Route> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MsixRoutes for Routes {
    fn set(&self, vector: u16, message: Option<MsiMessage>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((vector, message));
    }
}

/// Where things lie in the test's guest. Environment `e` owns [`ENVIRONMENT_BYTES`] from [`environment_gpa`] on.
const TABLES: TableAddresses = TableAddresses {
    domains_gpa: 0x1000,
    queue_owners_gpa: 0x2000,
    extents_gpa: 0x3000,
    flows_gpa: 0x1_0000,
    capabilities_gpa: 0,
};
const BITMAPS_GPA: u64 = 0x4_0000;
const BITMAP_BYTES: u64 = 0x1000;
/// Bytes that an environment owns.
pub(crate) const ENVIRONMENT_BYTES: u64 = 2 << 20;
/// Environments that there are: 0 to 3.
pub(crate) const ENVIRONMENTS: u32 = 4;

/// First address of an environment's memory.
pub(crate) fn environment_gpa(environment: u32) -> u64 {
    (u64::from(environment) + 1) * ENVIRONMENT_BYTES
}

/// A guest's memory with its tables.
pub(crate) struct Guest {
    pub(crate) memory: Arc<Memory>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) flows: FlowTableWriter,
}

impl Guest {
    /// Each environment may use its own memory and nothing else; no queue has an owner; there is no guardian.
    pub(crate) fn new() -> Self {
        assert!(TABLES.flows_gpa + table_bytes(NODES) <= BITMAPS_GPA);
        let bytes = environment_gpa(ENVIRONMENTS) as usize;
        let memory = Arc::new(Memory::from_ranges(&[(GuestAddress(0), bytes)]).expect("guest memory"));
        for environment in 0..ENVIRONMENTS {
            let entry = domain_entry(environment);
            let gpa = TABLES.domains_gpa + u64::from(environment) * size_of::<DomainEntry>() as u64;
            memory.write_slice(entry.as_bytes(), GuestAddress(gpa)).expect("inside");
        }
        let flows = FlowTableWriter::create(&memory, TABLES.flows_gpa, NODES).expect("inside");
        let tables = Tables::open(Arc::clone(&memory), TABLES).expect("usable tables");
        let guest = Self { memory, tables, flows };
        for environment in 0..ENVIRONMENTS {
            guest.grant(environment, environment_gpa(environment), ENVIRONMENT_BYTES, Rights::ReadWrite);
        }
        guest
    }

    /// Changes what an environment's devices may do with a range.
    pub(crate) fn grant(&self, environment: u32, start_gpa: u64, len_bytes: u64, rights: Rights) {
        let range = MemoryRange { start_gpa, len_bytes };
        domain::grant(&self.memory, domain_entry(environment), range, rights).expect("covered");
    }

    /// Gives a queue of device 0 to an environment, or to nobody.
    pub(crate) fn own(&self, queue: u16, environment: Option<u32>) {
        let index = owner_index(0, queue.into()).expect("a queue") as u64;
        let environment_plus_one = environment.map_or(0, |environment| environment + 1);
        let owner = QueueOwner { environment_plus_one, generation: 1 };
        let gpa = TABLES.queue_owners_gpa + index * size_of::<QueueOwner>() as u64;
        self.memory.write_slice(owner.as_bytes(), GuestAddress(gpa)).expect("inside");
    }

    /// Makes an environment the guardian, with its queue pairs.
    pub(crate) fn guardian(&mut self, environment: u16, queue_pair: u16, queue_pairs: u16) {
        self.flows.set_root(Some(Target { environment, queue_pair, queue_pairs, rights: 0 }));
    }

    /// Writes an entry of the extent table, for device 0.
    pub(crate) fn extent(&self, index: u64, environment: u32, start_block: u64, blocks: u64, rights: u32) {
        let entry = ExtentEntry { start_block, blocks, environment, device: 0, rights, reserved: 0 };
        let gpa = TABLES.extents_gpa + index * size_of::<ExtentEntry>() as u64;
        self.memory.write_slice(entry.as_bytes(), GuestAddress(gpa)).expect("inside");
    }

    /// A driver for a queue whose rings lie at `offset` into the environment's memory.
    pub(crate) fn driver(&self, environment: u32, offset: u64, size: u16) -> Driver {
        let layout = RingLayout::new(size).expect("a power of two");
        Driver::new(Arc::clone(&self.memory), layout, environment_gpa(environment) + offset)
    }

    /// Writes bytes.
    pub(crate) fn write(&self, gpa: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(gpa)).expect("inside");
    }

    /// Reads bytes.
    pub(crate) fn read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(gpa)).expect("inside");
        bytes
    }
}

fn domain_entry(environment: u32) -> DomainEntry {
    DomainEntry {
        bitmap_gpa: BITMAPS_GPA + u64::from(environment) * BITMAP_BYTES,
        pages: environment_gpa(ENVIRONMENTS) / abi::layout::PAGE_BYTES,
    }
}

//! Boot: everything that firmware, a boot loader and a kernel's start would do in the guest is done here, natively,
//! before the first instruction. No firmware, no real mode, no enumeration.

pub mod descriptors;
pub mod pages;
pub mod paging;

use super::MachineError;
use super::memory::{self, Placer};
use crate::tables::{FlowTableWriter, Memory, TableAddresses, Tables};
use abi::boot::{
    ARGUMENTS_BYTES, BOOT_MAGIC, BootPage, DEVICES, Device, ENVIRONMENT_MAGIC, EnvironmentPage, Ipv4Config,
    MemoryRange,
};
use abi::domain::{DOMAINS, DomainEntry, Rights, bitmap_bytes, position};
use abi::extent::{EXTENTS, ExtentEntry};
use abi::fault::FaultRecord;
use abi::flow::{FlowTable, Target};
use abi::header::KernelHeader;
use abi::layout::*;
use abi::log::LogRing;
use abi::queue::{QUEUE_OWNERS, QueueOwner};
use abi::trace::{AccountArea, TraceRing};
use descriptors::Descriptors;
use exovm_image::container::Image;
use exovm_image::program::{Access, Header, Program};
use pages::{PageAddresses, SharedPages};
use paging::{Owner, PageTables};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromZeros, IntoBytes};

/// Where the VMM's own registers lie: the turn register of the first environment ...
pub const TURN_GPA: u64 = 0xD800_1000;
/// ... and the control registers of the kernel.
pub const CONTROL_GPA: u64 = 0xD800_0000;

/// Number of the first environment, and of its DMA domain.
const FIRST: usize = 0;
/// Least memory that an environment is started with.
const HEAP_MIN_BYTES: u64 = 8 << 20;
/// What the kernel, the tables and the program take at most, besides what grows with the machine's memory.
const FIXED_BYTES: u64 = 8 << 20;

/// What the first environment gets.
#[derive(Clone, Debug, Default)]
pub struct EnvironmentConfig {
    /// Address of its interface.
    pub ipv4: Ipv4Config,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
}

/// A device that is ready to have queues bound.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Its line of the device table.
    pub entry: Device,
    /// What the first environment may do with it.
    pub grant: Grant,
}

/// What the first environment may do with a device besides binding its queues.
#[derive(Clone, Copy, Debug)]
pub enum Grant {
    /// No more than that.
    Queues,
    /// It is the guardian of the NIC's flows.
    Flows {
        /// How many queue pairs share its frames.
        queue_pairs: u16,
    },
    /// It holds the disk's blocks from 0 on.
    Extent {
        /// How many.
        blocks: u64,
        /// [`abi::extent::READ`] and [`abi::extent::WRITE`].
        rights: u32,
    },
}

/// A machine's memory, ready for the first instruction.
pub struct Prepared {
    /// Guest memory.
    pub memory: Arc<Memory>,
    /// Where the kernel's tables lie in it.
    pub tables_at: TableAddresses,
    /// The pages shared with the guest.
    pub pages: SharedPages,
    /// Where the kernel reports a fault.
    pub fault_gpa: u64,
    /// Root of the first environment's page tables.
    pub root_gpa: u64,
    /// Goes into `rdi`.
    pub boot_page_gpa: u64,
    /// For each vCPU.
    pub descriptors: Descriptors,
    /// The kernel's header.
    pub kernel: KernelHeader,
}

/// Maps the machine's memory and fills it. `attach` makes the devices, which need the tables.
pub fn prepare(
    image: &Image,
    memory_bytes: u64,
    environment: &EnvironmentConfig,
    attach: impl FnOnce(&Arc<Tables>, &Arc<Memory>) -> Result<Vec<Attached>, MachineError>,
) -> Result<Prepared, MachineError> {
    let Header::Kernel(kernel) = &image.kernel.header else {
        return Err(MachineError::Internal("the image's kernel is not a kernel"));
    };
    let memory_bytes = memory_bytes.next_multiple_of(LARGE_PAGE_BYTES);
    if memory_bytes > memory::MEMORY_MAX_BYTES {
        return Err(MachineError::MemoryTooLarge { mib: memory_bytes >> 20 });
    }
    let least = FIXED_BYTES + HEAP_MIN_BYTES;
    if memory_bytes < least {
        return Err(MachineError::MemoryTooSmall { needed_mib: least >> 20 });
    }
    let memory = Arc::new(memory::map(memory_bytes)?);
    let ram = memory::ranges(memory_bytes);
    let mut low = Placer::new(ram[0].end_gpa());

    // Page tables have a place of their own, since they are made while other things are placed.
    let table_pages = 64 + 4 * memory_bytes.div_ceil(1 << 30);
    let table_start = low.pages(table_pages * PAGE_BYTES)?;
    let mut table_pages = Placer::between(table_start, low.end());
    let mut page_tables = PageTables::new(&memory, &mut table_pages)?;

    let descriptors = Descriptors::place(&memory, &mut low, kernel, DIRECT_MAP_VA)?;
    let boot_page_gpa = low.pages(PAGE_BYTES)?;
    let environment_gpa = low.pages(PAGE_BYTES)?;
    let gate_gpa = low.pages(PAGE_BYTES)?;
    let at = PageAddresses {
        time_gpa: low.pages(PAGE_BYTES)?,
        host_gpa: low.pages(PAGE_BYTES)?,
        status_gpa: low.pages(PAGE_BYTES)?,
        account_gpa: low.pages(size_of::<AccountArea>() as u64)?,
        log_gpa: low.pages(size_of::<LogRing>() as u64)?,
        trace_gpa: low.pages(size_of::<TraceRing>() as u64)?,
        fault_gpa: low.pages(size_of::<FaultRecord>() as u64)?,
    };
    let ram_pages = ram.iter().map(MemoryRange::end_gpa).max().unwrap_or(0) / PAGE_BYTES;
    let domain = DomainEntry { bitmap_gpa: low.pages(bitmap_bytes(ram_pages))?, pages: ram_pages };
    let tables_at = TableAddresses {
        domains_gpa: low.pages((DOMAINS * size_of::<DomainEntry>()) as u64)?,
        queue_owners_gpa: low.pages((QUEUE_OWNERS * size_of::<QueueOwner>()) as u64)?,
        flows_gpa: low.pages(size_of::<FlowTable>() as u64)?,
        extents_gpa: low.pages((EXTENTS * size_of::<ExtentEntry>()) as u64)?,
    };
    memory.write_obj(domain.bitmap_gpa, GuestAddress(tables_at.domains_gpa))?;
    memory.write_obj(domain.pages, GuestAddress(tables_at.domains_gpa + 8))?;

    let mut map =
        |va, gpa, len, owner, access| page_tables.map(&mut table_pages, va, gpa, len, owner, access);
    load(&memory, &mut low, &image.kernel, Owner::Kernel, &mut map)?;
    load(&memory, &mut low, &image.program, Owner::User, &mut map)?;
    let stack_gpa = low.pages(STACK_BYTES)?;
    map(STACK_TOP_VA - STACK_BYTES, stack_gpa, STACK_BYTES, Owner::User, Access::Write)?;
    for range in ram.iter().take_while(|range| range.len_bytes > 0) {
        map(DIRECT_MAP_VA + range.start_gpa, range.start_gpa, range.len_bytes, Owner::Kernel, Access::Write)?;
    }
    map(DIRECT_MAP_VA + MMIO_GPA, MMIO_GPA, HIGH_RAM_GPA - MMIO_GPA, Owner::Kernel, Access::Write)?;
    for (va, gpa, len, access) in [
        (GATE_VA, gate_gpa, PAGE_BYTES, Access::Execute),
        (TIME_VA, at.time_gpa, PAGE_BYTES, Access::Read),
        (ENVIRONMENT_VA, environment_gpa, PAGE_BYTES, Access::Read),
        (HOST_VA, at.host_gpa, PAGE_BYTES, Access::Read),
        (STATUS_VA, at.status_gpa, PAGE_BYTES, Access::Write),
        (TURN_VA, TURN_GPA, PAGE_BYTES, Access::Write),
        (ACCOUNT_VA, at.account_gpa, size_of::<AccountArea>() as u64, Access::Write),
        (LOG_VA, at.log_gpa, size_of::<LogRing>() as u64, Access::Write),
        (TRACE_VA, at.trace_gpa, size_of::<TraceRing>() as u64, Access::Write),
    ] {
        map(va, gpa, len, Owner::User, access)?;
    }

    // The rest is the environment's heap.
    let high = Placer::between(ram[1].start_gpa, ram[1].end_gpa());
    let heap = heap_ranges(&low, &high, &ram)?;
    for range in heap.iter().take_while(|range| range.len_bytes > 0) {
        map(WINDOW_VA + range.start_gpa, range.start_gpa, range.len_bytes, Owner::User, Access::Write)?;
        grant(&memory, &domain, *range, Rights::ReadWrite)?;
    }

    let tables = Tables::open(Arc::clone(&memory), tables_at)?;
    let attached = attach(&tables, &memory)?;
    let mut devices = [Device::default(); DEVICES];
    for (slot, attached) in devices.iter_mut().zip(&attached) {
        *slot = attached.entry;
    }
    for (device, Attached { entry, grant }) in attached.iter().enumerate() {
        for queue in 0..entry.queues {
            let va = doorbell_va(device as u32, queue);
            let va = va.ok_or(MachineError::Internal("a queue without a place for its doorbell"))?;
            let gpa = entry.doorbell_gpa + u64::from(queue) * u64::from(entry.doorbell_stride_bytes);
            map(va, gpa, PAGE_BYTES, Owner::User, Access::Write)?;
        }
        match *grant {
            Grant::Extent { blocks, rights } => {
                let environment = FIRST as u32;
                let extent = ExtentEntry {
                    start_block: 0,
                    blocks,
                    environment,
                    device: device as u32,
                    rights,
                    reserved: 0,
                };
                // There are more entries than devices.
                let gpa = tables_at.extents_gpa + (device * size_of::<ExtentEntry>()) as u64;
                memory.write_slice(extent.as_bytes(), GuestAddress(gpa))?;
            }
            Grant::Queues => {}
            Grant::Flows { queue_pairs } => {
                let rights = abi::flow::SEND_ANY as u16;
                let target = Target { environment: FIRST as u16, queue_pair: 0, queue_pairs, rights };
                FlowTableWriter::open(&memory, tables_at.flows_gpa)?.set_root(Some(target));
            }
        }
    }

    let page = environment_page(environment, &heap, &devices)?;
    memory.write_slice(page.as_bytes(), GuestAddress(environment_gpa))?;
    let mut boot = BootPage::new_zeroed();
    boot.magic = BOOT_MAGIC;
    boot.abi_version = abi::VERSION;
    boot.vcpus = 1;
    boot.tsc_khz = environment.tsc_khz;
    boot.memory = ram;
    boot.free_gpa = low.end();
    boot.domains_gpa = tables_at.domains_gpa;
    boot.queue_owners_gpa = tables_at.queue_owners_gpa;
    boot.flows_gpa = tables_at.flows_gpa;
    boot.extents_gpa = tables_at.extents_gpa;
    boot.fault_gpa = at.fault_gpa;
    boot.gate_gpa = gate_gpa;
    boot.status_gpa = at.status_gpa;
    boot.control_gpa = CONTROL_GPA;
    boot.environment_entry_va = image.program.entry_va;
    boot.environment_stack_va = STACK_TOP_VA;
    boot.environment_root_gpa = page_tables.root_gpa();
    boot.entropy = entropy()?;
    boot.devices = devices;
    memory.write_slice(boot.as_bytes(), GuestAddress(boot_page_gpa))?;

    let pages = SharedPages::open(&memory, &at)?;
    let root_gpa = page_tables.root_gpa();
    Ok(Prepared {
        pages,
        fault_gpa: at.fault_gpa,
        root_gpa,
        boot_page_gpa,
        descriptors,
        kernel: (**kernel),
        tables_at,
        memory,
    })
}

/// Places a program's segments and maps each with its own rights.
fn load(
    memory: &Memory,
    placer: &mut Placer,
    program: &Program,
    owner: Owner,
    map: &mut impl FnMut(u64, u64, u64, Owner, Access) -> Result<(), MachineError>,
) -> Result<(), MachineError> {
    for segment in &program.segments {
        let gpa = placer.pages(segment.len_bytes)?;
        memory.write_slice(&segment.bytes, GuestAddress(gpa))?;
        map(segment.va, gpa, segment.len_bytes.next_multiple_of(PAGE_BYTES), owner, segment.access)?;
    }
    Ok(())
}

/// What is left of RAM, in large pages.
fn heap_ranges(
    low: &Placer,
    high: &Placer,
    ram: &[MemoryRange; 4],
) -> Result<[MemoryRange; 4], MachineError> {
    let mut heap = [MemoryRange::default(); 4];
    let mut used = 0;
    for (placer, range) in [(low, ram[0]), (high, ram[1])] {
        let start_gpa = placer.end().next_multiple_of(LARGE_PAGE_BYTES);
        if start_gpa < range.end_gpa() {
            heap[used] = MemoryRange { start_gpa, len_bytes: range.end_gpa() - start_gpa };
            used += 1;
        }
    }
    let total: u64 = heap.iter().map(|range| range.len_bytes).sum();
    if total < HEAP_MIN_BYTES {
        let ram_bytes: u64 = ram.iter().map(|range| range.len_bytes).sum();
        let needed_mib = (ram_bytes + HEAP_MIN_BYTES - total) >> 20;
        return Err(MachineError::MemoryTooSmall { needed_mib });
    }
    Ok(heap)
}

/// Sets the rights of whole groups of four pages at once; every range here is a multiple of that or ends a domain.
fn grant(
    memory: &Memory,
    domain: &DomainEntry,
    range: MemoryRange,
    rights: Rights,
) -> Result<(), MachineError> {
    let first = range.start_gpa / PAGE_BYTES;
    let pages = range.len_bytes / PAGE_BYTES;
    let whole = vec![rights as u8 * 0b0101_0101; (pages / 4) as usize];
    let (byte, _) = position(first);
    memory.write_slice(&whole, GuestAddress(domain.bitmap_gpa + byte))?;
    let rest = (0..pages % 4).fold(0u8, |bits, page| bits | (rights as u8) << (2 * page));
    if rest != 0 {
        memory.write_obj(rest, GuestAddress(domain.bitmap_gpa + byte + pages / 4))?;
    }
    Ok(())
}

fn environment_page(
    config: &EnvironmentConfig,
    heap: &[MemoryRange; 4],
    devices: &[Device; DEVICES],
) -> Result<EnvironmentPage, MachineError> {
    let mut page = EnvironmentPage::new_zeroed();
    page.magic = ENVIRONMENT_MAGIC;
    page.abi_version = abi::VERSION;
    page.environment = FIRST as u32;
    page.tsc_khz = config.tsc_khz;
    page.heap = *heap;
    page.entropy = entropy()?;
    page.devices =
        devices.map(|device| Device { common_gpa: 0, doorbell_gpa: 0, msix_table_gpa: 0, ..device });
    page.ipv4 = config.ipv4;
    let arguments = config.arguments.join("\0");
    if arguments.len() > ARGUMENTS_BYTES {
        return Err(MachineError::ArgumentsTooLong { len: arguments.len() });
    }
    page.arguments_len = arguments.len() as u32;
    page.arguments[..arguments.len()].copy_from_slice(arguments.as_bytes());
    Ok(page)
}

/// 64 bytes from the host.
fn entropy() -> Result<[u8; 64], MachineError> {
    let mut bytes = [0; 64];
    // SAFETY: the buffer is 64 bytes long.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got != bytes.len() as isize {
        return Err(MachineError::host("getrandom")(std::io::Error::last_os_error()));
    }
    Ok(bytes)
}

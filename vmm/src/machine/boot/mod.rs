//! Boot: everything that firmware, a boot loader and a kernel's start would do in the guest is done here, natively,
//! before the first instruction. No firmware, no real mode, no enumeration; and for each place for an environment whatever
//! the kernel would have to clear, copy or compute.

mod capabilities;
pub mod descriptors;
mod devices;
mod environment_page;
pub mod pages;
pub mod paging;
mod place;
pub(crate) mod probes;
mod program;
mod shares;

#[cfg(test)]
mod tests;

use super::MachineError;
use super::memory::{self, Placer};
use crate::tables::{FlowTableWriter, Memory, TableAddresses, Tables};
use abi::boot::{
    BOOT_MAGIC, BootPage, CHILDREN, DEVICES, Device, Ipv4Config, Ipv6Config, MemoryRange, NameServers,
    VCPUS_MAX,
};
use abi::domain::{DOMAINS, DomainEntry, Rights, bitmap_bytes, position};
use abi::environment::resume;
use abi::extent::{EXTENTS, ExtentEntry};
use abi::fault::FaultRecord;
use abi::flow::table_bytes;
use abi::header::KernelHeader;
use abi::layout::*;
use abi::queue::{QUEUE_OWNERS, QueueOwner};
use capabilities::{Capabilities, TABLE_BYTES};
use descriptors::Descriptors;
use exovm_image::container::Image;
use exovm_image::program::{Access, Header};
use pages::{CommonPages, SharedPages};
use paging::{Mapping, PageTables};
use place::Place;
use probes::ProbePages;
use program::Loader;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromZeros, IntoBytes};

/// Where the VMM's own registers lie: the turn register ...
pub const TURN_GPA: u64 = 0xD800_1000;
/// ... and the control registers of the kernel.
pub const CONTROL_GPA: u64 = 0xD800_0000;

/// Least memory that an environment is started with.
const HEAP_MIN_BYTES: u64 = 8 << 20;
/// What the kernel, the tables and the program take at most, besides what grows with the machine's memory and with the
/// number of places ...
const FIXED_BYTES: u64 = 8 << 20;
/// ... and what each place takes.
const PLACE_BYTES: u64 = 512 << 10;
/// Pages for page tables that the kernel has for each place.
const POOL_PAGES: u64 = 64;
/// Further ones: where there are several environments, one for so many of the machine's pages.
const PAGES_A_POOL_PAGE: u64 = 256;
/// What a machine boots into.
#[derive(Clone, Debug, Default)]
pub struct BootConfig {
    /// Address of its interface.
    pub ipv4: Ipv4Config,
    /// Its IPv6 addresses.
    pub ipv6: Ipv6Config,
    /// Whom it asks for names.
    pub name_servers: NameServers,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The arguments of each environment.
    pub arguments: Vec<String>,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
    /// vCPUs, 1 to [`VCPUS_MAX`].
    pub vcpus: u32,
    /// Environments that run the image's program from the start, at least 1.
    pub environments: u32,
    /// Places for further ones.
    pub spare_environments: u32,
    /// The environment that is the parent of the others that run from the start: it holds them and the root of their memory, and
    /// they end with it. None if there is no such environment.
    pub parent: Option<u32>,
    /// Nodes of the flow table, a power of two.
    pub flows: u32,
    /// Whether the first environment holds all flows and the others may call it.
    pub guardian: bool,
    /// State components that are made initial when somebody else gets the CPU; 0: those of FXRSTOR.
    pub resume_mask: u64,
}

/// A device that is ready to have queues bound.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Its line of the device table.
    pub entry: Device,
    /// What there is to give out of it.
    pub grant: Grant,
}

/// What there is to give out of a device besides its queues.
#[derive(Clone, Copy, Debug)]
pub enum Grant {
    /// No more than that.
    Queues,
    /// Flows; the first environment is their guardian.
    Flows {
        /// How many queue pairs share its frames.
        queue_pairs: u16,
    },
    /// The disk's blocks from 0 on.
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
    /// The pages shared with the environment in each place.
    pub pages: Vec<SharedPages>,
    /// Those for probes.
    pub(crate) probes: ProbePages,
    /// Where the kernel reports a fault of vCPU 0; the records of the others follow.
    pub fault_gpa: u64,
    /// Root of each place's page tables.
    pub roots_gpa: Vec<u64>,
    /// Goes into `rdi`.
    pub boot_page_gpa: u64,
    /// [`abi::vcpu::VcpuTime`] of vCPU 0; those of the others follow.
    pub vcpu_times_gpa: u64,
    /// For each vCPU.
    pub descriptors: Descriptors,
    /// The kernel's header.
    pub kernel: KernelHeader,
}

/// Maps the machine's memory and fills it. `attach` makes the devices, which need the tables.
pub fn prepare(
    image: &Image,
    memory_bytes: u64,
    config: &BootConfig,
    attach: impl FnOnce(&Arc<Tables>, &Arc<Memory>) -> Result<Vec<Attached>, MachineError>,
) -> Result<Prepared, MachineError> {
    let Header::Kernel(kernel) = &image.kernel.header else {
        return Err(MachineError::Internal("the image's kernel is not a kernel"));
    };
    let (environments, spare) = (config.environments, config.spare_environments);
    let places_count = environments.saturating_add(spare);
    if environments == 0 || places_count as usize > DOMAINS {
        return Err(MachineError::Environments { environments, spare });
    }
    if !(1..=VCPUS_MAX as u32).contains(&config.vcpus) {
        return Err(MachineError::Vcpus { vcpus: config.vcpus });
    }
    let memory_bytes = memory_bytes.next_multiple_of(LARGE_PAGE_BYTES);
    if memory_bytes > memory::MEMORY_MAX_BYTES {
        return Err(MachineError::MemoryTooLarge { mib: memory_bytes >> 20 });
    }
    let heaps_min = u64::from(environments) * HEAP_MIN_BYTES;
    let least = FIXED_BYTES + u64::from(places_count - 1) * PLACE_BYTES + heaps_min;
    if memory_bytes < least {
        return Err(MachineError::MemoryTooSmall { needed_mib: least.div_ceil(1 << 20) });
    }
    let memory = Arc::new(memory::map(memory_bytes)?);
    let ram = memory::ranges(memory_bytes);
    let mut low = Placer::new(ram[0].end_gpa());

    // Page tables have a place of their own, since they are made while other things are placed.
    let of_places =
        u64::from(places_count) * place::TABLES + u64::from(environments) * program::tables(&image.program);
    let table_pages = 64 + 4 * memory_bytes.div_ceil(1 << 30) + of_places;
    let table_start = low.pages(table_pages * PAGE_BYTES)?;
    let mut table_pages = Placer::between(table_start, low.end());
    let kernel_half = PageTables::new(&memory, &mut table_pages)?;

    let descriptors = Descriptors::place(&memory, &mut low, kernel, DIRECT_MAP_VA)?;
    let boot_page_gpa = low.pages(PAGE_BYTES)?;
    let common = CommonPages::place(&mut low)?;
    memory.write_slice(&resume::page(config.resume_mask), GuestAddress(common.resume_gpa))?;
    let fault_gpa = low.pages(u64::from(config.vcpus) * size_of::<FaultRecord>() as u64)?;
    let tables_at = TableAddresses {
        domains_gpa: low.pages((DOMAINS * size_of::<DomainEntry>()) as u64)?,
        queue_owners_gpa: low.pages((QUEUE_OWNERS * size_of::<QueueOwner>()) as u64)?,
        flows_gpa: low.pages(table_bytes(config.flows))?,
        extents_gpa: low.pages((EXTENTS * size_of::<ExtentEntry>()) as u64)?,
        capabilities_gpa: low.pages(DOMAINS as u64 * TABLE_BYTES)?,
    };
    let places_gpa = low.pages(u64::from(places_count) * size_of::<abi::environment::Place>() as u64)?;
    let capabilities_gpa = tables_at.capabilities_gpa;
    let mut pool_pages = POOL_PAGES * u64::from(places_count);
    if places_count > 1 {
        pool_pages += memory_bytes / PAGE_BYTES / PAGES_A_POOL_PAGE;
    }
    let table_pool =
        MemoryRange { start_gpa: low.pages(pool_pages * PAGE_BYTES)?, len_bytes: pool_pages * PAGE_BYTES };

    let mut probes = ProbePages::place(&mut low, &kernel_half, &mut table_pages)?;
    program::load_kernel(&memory, &mut low, &image.kernel, &kernel_half, &mut table_pages, &mut probes)?;
    let mut map_direct = |gpa, len| {
        kernel_half.map(&mut table_pages, DIRECT_MAP_VA + gpa, gpa, len, Mapping::kernel(Access::Write))
    };
    for range in ram.iter().take_while(|range| range.len_bytes > 0) {
        map_direct(range.start_gpa, range.len_bytes)?;
    }
    map_direct(MMIO_GPA, HIGH_RAM_GPA - MMIO_GPA)?;

    let mut loader = Loader::new(&memory, &image.program);
    let ram_pages = ram.iter().map(MemoryRange::end_gpa).max().unwrap_or(0) / PAGE_BYTES;
    let mut places = Vec::new();
    let mut domains = Vec::new();
    for number in 0..places_count {
        let place = Place::make(&memory, &kernel_half, &common, &mut low, &mut table_pages)?;
        if number < environments {
            loader.load(&mut low, &place.tables, &mut table_pages, &mut probes)?;
            probes.map(&mut low, &place.tables, &mut table_pages)?;
        }
        domains.push(DomainEntry { bitmap_gpa: low.pages(bitmap_bytes(ram_pages))?, pages: ram_pages });
        places.push(place);
    }
    memory.write_slice(domains.as_bytes(), GuestAddress(tables_at.domains_gpa))?;
    // Nobody else runs as long as nobody was made; with several vCPUs there are no turns.
    if environments == 1 && config.vcpus == 1 {
        places[0].allow_turns(&memory)?;
    }

    // The rest is the environments' heaps, each with a capability for it.
    let high = Placer::between(ram[1].start_gpa, ram[1].end_gpa());
    let heaps = shares::heaps_of(&low, &high, &ram, environments)?;
    let mut capabilities = Vec::new();
    let mut handles = vec![abi::boot::Capabilities::default(); places_count as usize];
    for (number, heap) in heaps.iter().enumerate() {
        let mut own = Capabilities::default();
        let ranges = heap.iter().take_while(|range| range.len_bytes > 0);
        for (handle, range) in handles[number].heap.iter_mut().zip(ranges) {
            *handle = own.memory(*range, (range.len_bytes / LARGE_PAGE_BYTES) as u32);
            let mapping = Mapping { slot: handle.slot(), ..Mapping::fixed(Access::Write) };
            let va = WINDOW_VA + range.start_gpa;
            places[number].tables.map(&mut table_pages, va, range.start_gpa, range.len_bytes, mapping)?;
            grant(&memory, &domains[number], *range, Rights::ReadWrite)?;
        }
        capabilities.push(own);
    }

    if let Some(parent) = config.parent.filter(|&parent| parent < environments) {
        let mut own = std::mem::take(&mut capabilities[parent as usize]);
        let others = (0u32..).zip(&mut capabilities).filter(|(number, _)| *number != parent);
        for (place, (number, child)) in others.take(CHILDREN).enumerate() {
            let theirs = handles[number as usize].heap[0];
            handles[parent as usize].children[place] = own.adopt(parent, number, child, theirs);
        }
        capabilities[parent as usize] = own;
    }

    let mut flows = FlowTableWriter::create(&memory, tables_at.flows_gpa, config.flows)?;
    let tables = Tables::open(Arc::clone(&memory), tables_at)?;
    let attached = attach(&tables, &memory)?;
    let mut devices = [Device::default(); DEVICES];
    for (slot, attached) in devices.iter_mut().zip(&attached) {
        *slot = attached.entry;
    }
    for (device, Attached { entry, .. }) in (0u32..).zip(&attached) {
        for place in &places {
            place.add_doorbells(&mut table_pages, device, entry)?;
        }
    }
    // A guardian guards and serves nothing.
    let shares = shares::queues(&attached, environments, config.guardian.into());
    let extents_gpa = tables_at.extents_gpa;
    let mut giver = devices::Giver { memory: &memory, config, extents_gpa, flows: &mut flows };
    for (number, share) in shares.iter().enumerate() {
        giver.give(number, &attached, share, &mut capabilities[number], &mut handles[number])?;
    }
    for (number, (own, handles)) in (0u32..).zip(capabilities.iter_mut().zip(&mut handles)) {
        for vcpu in 0..config.vcpus {
            let (first, count) = shares::slices(number, environments, vcpu, config.vcpus);
            if count > 0 {
                handles.slices[vcpu as usize] = own.slices(first, count);
            }
        }
    }
    if spare > 0 {
        handles[0].environments = capabilities[0].places(environments, spare);
    }
    for (number, own) in (0u32..).zip(&mut capabilities) {
        let neighbours = &mut handles[number as usize].neighbours;
        neighbours[number as usize] = own.neighbour(number, capabilities::ITSELF);
        match number {
            _ if !config.guardian => {}
            0 => {
                for client in 1..environments {
                    neighbours[client as usize] = own.neighbour(client, capabilities::CLIENT);
                }
            }
            _ => neighbours[0] = own.neighbour(0, capabilities::GUARDIAN),
        }
    }
    for (number, own) in (0u32..).zip(&capabilities) {
        own.write(&memory, capabilities_gpa, number)?;
    }

    let mut records = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let runs = number < environments as usize;
        let share = if runs { shares[number] } else { Default::default() };
        let own_devices = std::array::from_fn(|device| Device {
            common_gpa: 0,
            doorbell_gpa: 0,
            msix_table_gpa: 0,
            first_queue: share[device].first,
            queues: share[device].count,
            ..devices[device]
        });
        let mut page = environment_page::new(config, number as u32)?;
        page.heap = heaps.get(number).copied().unwrap_or_default();
        page.devices = own_devices;
        page.capabilities = handles[number];
        memory.write_slice(page.as_bytes(), GuestAddress(place.pages.environment_gpa))?;
        records.push(abi::environment::Place {
            root_gpa: place.tables.root_gpa(),
            doorbells_gpa: place.doorbells_gpa,
            turn_entry_gpa: place.turn_entry_gpa,
            kernel_page_gpa: place.pages.kernel_page_gpa,
            upcall_gpa: place.pages.upcall_gpa,
            own: place.pages.written(),
            entry_va: if runs { image.program.entry_va } else { 0 },
            stack_va: if runs { STACK_TOP_VA } else { 0 },
            // Together no more than there are: nobody uses up what others need.
            tables_max: (pool_pages / u64::from(places_count)) as u32,
            capabilities: capabilities.get(number).map_or(0, Capabilities::count),
            vcpu: number as u32 % config.vcpus,
            flows_max: shares::flows(number as u32, config),
        });
    }
    memory.write_slice(records.as_bytes(), GuestAddress(places_gpa))?;

    let mut boot = BootPage::new_zeroed();
    boot.magic = BOOT_MAGIC;
    boot.abi_version = abi::VERSION;
    boot.vcpus = config.vcpus;
    boot.tsc_khz = config.tsc_khz;
    boot.memory = ram;
    boot.free_gpa = low.end();
    boot.domains_gpa = tables_at.domains_gpa;
    boot.queue_owners_gpa = tables_at.queue_owners_gpa;
    boot.flows_gpa = tables_at.flows_gpa;
    boot.extents_gpa = tables_at.extents_gpa;
    boot.fault_gpa = fault_gpa;
    boot.gate_gpa = common.gate_gpa;
    boot.host_gpa = common.host_gpa;
    boot.turn_gpa = TURN_GPA;
    boot.vcpu_times_gpa = common.vcpu_times_gpa;
    boot.places_gpa = places_gpa;
    boot.capabilities_gpa = capabilities_gpa;
    boot.table_pool = table_pool;
    boot.places = places_count;
    boot.control_gpa = CONTROL_GPA;
    boot.entropy = environment_page::entropy()?;
    boot.devices = devices;
    memory.write_slice(boot.as_bytes(), GuestAddress(boot_page_gpa))?;

    let pages = places.iter().map(|place| SharedPages::open(&memory, &common, &place.pages));
    let pages = pages.collect::<Result<_, _>>()?;
    let roots_gpa = places.iter().map(|place| place.tables.root_gpa()).collect();
    drop(places);
    Ok(Prepared {
        pages,
        probes,
        fault_gpa,
        roots_gpa,
        boot_page_gpa,
        vcpu_times_gpa: common.vcpu_times_gpa,
        descriptors,
        kernel: (**kernel),
        tables_at,
        memory,
    })
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

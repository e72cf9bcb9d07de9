//! Machines prepared and not run: looked at as the processor and the kernel would.

mod capabilities;
mod tables;

use super::paging::translate;
use super::*;
use abi::boot::EnvironmentPage;
use abi::capability::Capability;
use abi::environment::Place as PlaceRecord;
use abi::paging::{ADDRESS, LARGE, PRESENT, USER, WRITE};
use zerocopy::FromBytes;

const ADDRESS_OF_INTERFACE: [u8; 4] = [10, 0, 0, 2];
const NIC: usize = 0;
const PAIRS: u32 = 4;

fn device(kind: u32, index: u32, queues: u32) -> Device {
    Device {
        kind,
        queues,
        doorbell_gpa: 0xD000_0000 + u64::from(index) * 0x10_0000,
        doorbell_stride_bytes: 4096,
        ..Device::default()
    }
}

/// A NIC of four pairs, so many disks (the last may only be read), a console.
fn devices(disks: u32) -> Vec<Attached> {
    let nic = device(abi::boot::DEVICE_NET, 0, 2 * PAIRS + 1);
    let mut attached = vec![Attached { entry: nic, grant: Grant::Flows { queue_pairs: 1 } }];
    for disk in 1..=disks {
        let rights = if disk == disks { abi::extent::READ } else { abi::extent::READ | abi::extent::WRITE };
        let grant = Grant::Extent { blocks: 100 * u64::from(disk), rights };
        attached.push(Attached { entry: device(abi::boot::DEVICE_BLOCK, disk, 4), grant });
    }
    let console = device(abi::boot::DEVICE_CONSOLE, disks + 1, 6);
    attached.push(Attached { entry: console, grant: Grant::Queues });
    attached
}

/// A prepared machine and what its kernel would read first.
struct Booted {
    prepared: Prepared,
    boot: BootPage,
    places: Vec<PlaceRecord>,
    attached: Vec<Attached>,
}

fn config(environments: u32, spare: u32) -> BootConfig {
    BootConfig {
        ipv4: Ipv4Config { address: ADDRESS_OF_INTERFACE, ..Ipv4Config::default() },
        vcpus: 1,
        environments,
        spare_environments: spare,
        flows: abi::flow::NODES,
        tsc_khz: 1_000_000,
        resume_mask: 7,
        ..BootConfig::default()
    }
}

fn boot(environments: u32, spare: u32, disks: u32) -> Booted {
    boot_with(config(environments, spare), disks)
}

fn boot_with(config: BootConfig, disks: u32) -> Booted {
    let image = crate::images::load("hello").expect("built in");
    let attached = devices(disks);
    let clone = attached.clone();
    let prepared = prepare(&image, 128 << 20, &config, |_, _| Ok(clone)).expect("fits");
    let boot: BootPage = read(&prepared.memory, prepared.boot_page_gpa);
    let record = size_of::<PlaceRecord>() as u64;
    let places =
        (0..boot.places).map(|place| read(&prepared.memory, boot.places_gpa + u64::from(place) * record));
    let places = places.collect();
    Booted { prepared, boot, places, attached }
}

fn read<T: FromBytes>(memory: &Memory, gpa: u64) -> T {
    let mut bytes = vec![0; size_of::<T>()];
    memory.read_slice(&mut bytes, GuestAddress(gpa)).expect("memory");
    T::read_from_bytes(&bytes).expect("the size is right")
}

impl Booted {
    fn memory(&self) -> &Memory {
        &self.prepared.memory
    }

    fn environment_page(&self, place: usize) -> EnvironmentPage {
        let gpa = translate(self.memory(), self.places[place].root_gpa, ENVIRONMENT_VA).expect("mapped");
        read(self.memory(), gpa)
    }

    fn capability(&self, place: usize, slot: u32) -> Capability {
        let number = u64::from(abi::capability::number(place as u32, slot));
        read(self.memory(), self.boot.capabilities_gpa + number * size_of::<Capability>() as u64)
    }

    /// What ring 3 reaches at an address, and whether it may write there; as the processor walks (SDM 4.6).
    fn ring3(&self, place: usize, va: u64) -> Option<(u64, bool)> {
        let (mut table, mut writable) = (self.places[place].root_gpa, true);
        for level in (1..=4).rev() {
            let shift = 12 + 9 * (level - 1);
            let entry: u64 = read(self.memory(), table + 8 * (va >> shift & 511));
            if entry & (PRESENT | USER) != PRESENT | USER {
                return None;
            }
            writable &= entry & WRITE != 0;
            if level == 1 || (level < 4 && entry & LARGE != 0) {
                let offset = (1u64 << shift) - 1;
                return Some((entry & ADDRESS & !offset | va & offset, writable));
            }
            table = entry & ADDRESS;
        }
        None
    }

    /// All pages that ring 3 reaches without going through the tables' own window: address, entry, bytes.
    fn leaves(&self, place: usize) -> Vec<(u64, u64, u64)> {
        let mut leaves = Vec::new();
        for index in (0..256).filter(|&index| index != PAGE_TABLES_VA >> 39) {
            self.leaves_below(self.places[place].root_gpa, 4, 0, index, &mut leaves);
        }
        leaves
    }

    fn leaves_below(&self, table: u64, level: u32, va: u64, index: u64, leaves: &mut Vec<(u64, u64, u64)>) {
        let shift = 12 + 9 * (level - 1);
        let (va, entry) = (va | index << shift, read::<u64>(self.memory(), table + 8 * index));
        if entry & PRESENT == 0 {
        } else if level == 1 || entry & LARGE != 0 {
            leaves.push((va, entry, 1 << shift));
        } else {
            (0..512).for_each(|index| self.leaves_below(entry & ADDRESS, level - 1, va, index, leaves));
        }
    }

    /// The tables of a place that are its own: all but the kernel's.
    fn tables(&self, place: usize) -> Vec<u64> {
        let mut tables = vec![(self.places[place].root_gpa, 4)];
        let mut next = 0;
        while let Some(&(table, level)) = tables.get(next) {
            next += 1;
            for index in 0..if level == 4 { PAGE_TABLES_VA >> 39 } else { 512 } {
                let entry: u64 = read(self.memory(), table + 8 * index);
                if level > 1 && entry & PRESENT != 0 && entry & LARGE == 0 {
                    tables.push((entry & ADDRESS, level - 1));
                }
            }
        }
        tables.into_iter().map(|(table, _)| table).collect()
    }
}

#[test]
fn machine_with_no_environment_or_too_many_returns_environments() {
    let image = crate::images::load("hello").expect("built in");
    for (environments, spare) in [(0, 1), (1, 64), (65, 0), (1, u32::MAX)] {
        let result = prepare(&image, 1 << 30, &config(environments, spare), |_, _| Ok(Vec::new()));
        let error = result.err().expect("refused");
        assert!(matches!(error, MachineError::Environments { .. }), "{error}");
    }
}

#[test]
fn machine_with_as_many_places_as_there_can_be_is_prepared() {
    let image = crate::images::load("hello").expect("built in");
    let prepared = prepare(&image, 1 << 30, &config(2, 62), |_, _| Ok(devices(2))).expect("fits");
    assert_eq!(prepared.pages.len(), 64);
    let prepared = prepare(&image, 1 << 30, &config(64, 0), |_, _| Ok(devices(2))).expect("fits");
    assert_eq!(prepared.roots_gpa.len(), 64);
}

#[test]
fn machine_with_no_vcpu_or_too_many_returns_vcpus() {
    let image = crate::images::load("hello").expect("built in");
    for vcpus in [0, 9, u32::MAX] {
        let config = BootConfig { vcpus, ..config(1, 0) };
        let error = prepare(&image, 1 << 30, &config, |_, _| Ok(Vec::new())).err().expect("refused");
        assert!(matches!(error, MachineError::Vcpus { .. }), "{error}");
    }
}

#[test]
fn environments_are_dealt_out_to_the_vcpus_in_turn() {
    let booted = boot_with(BootConfig { vcpus: 3, ..config(5, 1) }, 0);
    assert_eq!(booted.boot.vcpus, 3);
    let vcpus: Vec<_> = booted.places.iter().map(|place| place.vcpu).collect();
    assert_eq!(vcpus, [0, 1, 2, 0, 1, 2]);
    assert!(boot(3, 1, 0).places.iter().all(|place| place.vcpu == 0));
}

#[test]
fn turn_register_is_not_there_from_the_start_where_others_run() {
    let turn = |booted: Booted| booted.ring3(0, TURN_VA);
    assert_eq!(turn(boot_with(config(1, 0), 0)), Some((TURN_GPA, true)));
    assert_eq!(turn(boot_with(config(2, 0), 0)), None);
    assert_eq!(turn(boot_with(BootConfig { vcpus: 2, ..config(1, 0) }, 0)), None);
}

#[test]
fn fault_records_of_all_vcpus_lie_one_behind_the_other_and_are_nobody_elses() {
    let booted = boot_with(BootConfig { vcpus: 8, ..config(1, 0) }, 0);
    let records = 8 * size_of::<FaultRecord>() as u64;
    let at = booted.boot.fault_gpa;
    for other in [booted.boot.domains_gpa, booted.boot.places_gpa, booted.boot.table_pool.start_gpa] {
        assert!(other >= at + records || other < at, "{other:#x} lies in {at:#x}+{records:#x}");
    }
    assert!(at + records <= booted.boot.free_gpa);
}

#[test]
fn memory_too_small_for_all_says_how_much_would_do() {
    let image = crate::images::load("hello").expect("built in");
    let result = prepare(&image, 36 << 20, &config(4, 2), |_, _| Ok(devices(0)));
    let Err(MachineError::MemoryTooSmall { needed_mib }) = result else { panic!("it fits") };
    assert!(needed_mib > 36);
    prepare(&image, needed_mib << 20, &config(4, 2), |_, _| Ok(devices(0))).expect("would do");
}

#[test]
fn pool_of_page_tables_is_zero_and_nobodys() {
    let booted = boot(2, 3, 0);
    let pool = booted.boot.table_pool;
    assert!(pool.len_bytes >= 5 * 64 * PAGE_BYTES && pool.end_gpa() <= booted.boot.free_gpa);
    assert!(booted.places.iter().all(|place| place.tables_max >= 64));
    let mut bytes = vec![1; pool.len_bytes as usize];
    booted.memory().read_slice(&mut bytes, GuestAddress(pool.start_gpa)).expect("memory");
    assert!(bytes.iter().all(|&byte| byte == 0));
}

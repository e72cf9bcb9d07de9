//! What each place's page tables let ring 3 reach.

use super::*;
use abi::paging::{NO_EXECUTE, NO_SLOT, slot_of};
use abi::queue::owner_index;
use std::collections::BTreeMap;

#[test]
fn every_place_has_its_own_pages_and_shares_those_of_all() {
    let booted = boot(2, 1, 0);
    let gpa =
        |place: usize, va| translate(booted.memory(), booted.places[place].root_gpa, va).expect("mapped");
    for va in
        [ENVIRONMENT_VA, STATUS_VA, UPCALL_VA, KERNEL_PAGE_VA, ACCOUNT_VA, STATISTICS_VA, LOG_VA, TRACE_VA]
    {
        let all = [gpa(0, va), gpa(1, va), gpa(2, va)];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "{va:#x}");
    }
    for va in [GATE_VA, TIME_VA, HOST_VA, RESUME_VA, KERNEL_VA, DIRECT_MAP_VA, DIRECT_MAP_VA + MMIO_GPA] {
        assert_eq!((gpa(0, va), gpa(0, va)), (gpa(1, va), gpa(2, va)), "{va:#x}");
    }
    for (number, place) in booted.places.iter().enumerate() {
        assert_eq!(place.root_gpa, booted.prepared.roots_gpa[number]);
        assert_eq!((place.own.start_gpa, place.upcall_gpa), (gpa(number, STATUS_VA), gpa(number, UPCALL_VA)));
        assert_eq!(place.kernel_page_gpa, gpa(number, KERNEL_PAGE_VA));
        assert_eq!(booted.environment_page(number).environment, number as u32);
    }
    let records = [booted.boot.host_gpa, booted.boot.gate_gpa, booted.boot.turn_gpa];
    assert_eq!(records, [gpa(0, HOST_VA), gpa(0, GATE_VA), TURN_GPA]);
    let entropy = |place| booted.environment_page(place).entropy;
    assert!(entropy(0) != entropy(1) && entropy(1) != entropy(2));
}

#[test]
fn fixed_pages_have_the_rights_that_they_are_said_to_have() {
    let booted = boot(1, 1, 0);
    for place in 0..2 {
        for va in [STATUS_VA, UPCALL_VA, ACCOUNT_VA, STATISTICS_VA, LOG_VA, TRACE_VA] {
            assert_eq!(booted.ring3(place, va).map(|(_, writable)| writable), Some(true), "{va:#x}");
        }
        for va in [GATE_VA, TIME_VA, ENVIRONMENT_VA, HOST_VA, KERNEL_PAGE_VA, RESUME_VA] {
            assert_eq!(booted.ring3(place, va).map(|(_, writable)| writable), Some(false), "{va:#x}");
        }
        let executable: Vec<u64> =
            booted.leaves(place).iter().filter(|leaf| leaf.1 & NO_EXECUTE == 0).map(|leaf| leaf.0).collect();
        let fixed: Vec<u64> = executable.into_iter().filter(|&va| va >= PAGES_VA).collect();
        assert_eq!(fixed, [GATE_VA, RESUME_VA]);
    }
    let resume: [u8; 4096] = read(booted.memory(), booted.ring3(0, RESUME_VA).expect("mapped").0);
    assert_eq!(resume, abi::environment::resume::page(7));
}

#[test]
fn program_runs_in_its_own_data_and_stack_and_in_the_code_of_all() {
    let booted = boot(2, 1, 0);
    let image = crate::images::load("hello").expect("built in");
    let segments = &image.program.segments;
    assert!(segments.iter().any(|segment| segment.access == Access::Write), "or the test shows nothing");
    for segment in segments {
        let [first, second] = [0, 1].map(|place| booted.ring3(place, segment.va).expect("mapped"));
        assert_eq!(first.0 != second.0, segment.access == Access::Write, "{:#x}", segment.va);
        for (gpa, writable) in [first, second] {
            assert_eq!(writable, segment.access == Access::Write);
            let mut bytes = vec![0; segment.bytes.len()];
            booted.memory().read_slice(&mut bytes, GuestAddress(gpa)).expect("memory");
            assert!(bytes == segment.bytes, "{:#x}", segment.va);
        }
        assert_eq!(booted.ring3(2, segment.va), None);
    }
    let stacks = [0, 1].map(|place| booted.ring3(place, STACK_TOP_VA - 8).expect("mapped"));
    assert!(stacks[0].0 != stacks[1].0 && stacks[0].1 && stacks[1].1);
    assert_eq!(booted.ring3(0, STACK_TOP_VA - STACK_BYTES - 8), None);
    let entries: Vec<_> = booted.places.iter().map(|place| (place.entry_va, place.stack_va)).collect();
    let runs = (image.program.entry_va, STACK_TOP_VA);
    assert_eq!(entries, [runs, runs, (0, 0)]);
}

#[test]
fn pages_to_be_cleared_for_the_next_environment_are_those_that_ring_3_writes() {
    let booted = boot(1, 2, 0);
    for (number, place) in booted.places.iter().enumerate().skip(1) {
        let written = booted.leaves(number).into_iter().filter(|leaf| leaf.1 & WRITE != 0);
        let mut written: Vec<u64> = written.map(|leaf| leaf.1 & ADDRESS).collect();
        written.sort_unstable();
        let own: Vec<u64> = (place.own.start_gpa..place.own.end_gpa()).step_by(4096).collect();
        assert_eq!(written, own);
    }
}

/// What is writable in one place is in no other, and no page table can be reached but through its owner's window.
#[test]
fn nothing_that_one_place_writes_is_reached_from_another() {
    let booted = boot(3, 2, 0);
    let mut users: BTreeMap<u64, Vec<(usize, bool)>> = BTreeMap::new();
    for place in 0..5 {
        for (_, entry, len) in booted.leaves(place) {
            let start = entry & ADDRESS & !(len - 1);
            for page in (start..start + len).step_by(4096) {
                users.entry(page).or_default().push((place, entry & WRITE != 0));
            }
        }
    }
    for (page, users) in &users {
        let shared = users.iter().any(|user| user.0 != users[0].0);
        assert!(!shared || users.iter().all(|user| !user.1), "{page:#x}: {users:?}");
    }
    let kernel = [booted.prepared.boot_page_gpa, booted.boot.places_gpa, booted.boot.capabilities_gpa];
    let tables = [booted.boot.domains_gpa, booted.boot.flows_gpa, booted.boot.table_pool.start_gpa];
    let own: Vec<u64> = (0..5).flat_map(|place| booted.tables(place)).collect();
    assert!(own.len() > 30);
    for page in kernel.iter().chain(&tables).chain(&own) {
        assert_eq!(users.get(page), None, "{page:#x}");
    }
}

#[test]
fn owner_reads_its_page_tables_and_cannot_write_them() {
    let booted = boot(2, 1, 0);
    for place in 0..3 {
        let leaves = booted.leaves(place);
        assert!(leaves.len() > 50);
        for (va, entry, len) in leaves {
            if len == PAGE_BYTES {
                let at = PAGE_TABLES_VA + (va >> 12) * 8;
                let (gpa, writable) = booted.ring3(place, at).expect("readable");
                assert_eq!((read::<u64>(booted.memory(), gpa), writable), (entry, false), "{va:#x}");
            }
        }
        // The window of the window of the window of itself is the root.
        let root_va = PAGE_TABLES_VA + (255 << 30) + (255 << 21) + (255 << 12);
        assert_eq!(booted.ring3(place, root_va), Some((booted.places[place].root_gpa, false)));
        let anywhere = (0..512u64).flat_map(|index| {
            let window = PAGE_TABLES_VA + (index << 30);
            [
                window,
                window + (255 << 21),
                PAGE_TABLES_VA + (255 << 30) + (index << 21),
                root_va - (index << 12),
            ]
        });
        for va in anywhere {
            assert!(booted.ring3(place, va).is_none_or(|(_, writable)| !writable), "{va:#x}");
        }
    }
}

#[test]
fn kernel_half_is_reached_neither_directly_nor_through_the_window() {
    let booted = boot(2, 1, 0);
    for place in 0..3 {
        let root = booted.places[place].root_gpa;
        let entries = (256..512).map(|index| (index, read::<u64>(booted.memory(), root + 8 * index)));
        let used: Vec<_> = entries.filter(|(_, entry)| entry & PRESENT != 0).collect();
        assert!(used.len() >= 2, "direct map and kernel");
        assert!(used.iter().all(|(_, entry)| entry & USER == 0));
        for index in 256..512u64 {
            // The tables of the kernel's half as pages of each level that the window shows.
            for va in [
                PAGE_TABLES_VA + (index << 30),
                PAGE_TABLES_VA + (255 << 30) + (index << 21),
                PAGE_TABLES_VA + (255 << 30) + (255 << 21) + (index << 12),
            ] {
                assert_eq!(booted.ring3(place, va), None, "{va:#x}");
            }
        }
        for va in [KERNEL_VA, DIRECT_MAP_VA, DIRECT_MAP_VA + MMIO_GPA] {
            assert_eq!(booted.ring3(place, va), None);
        }
    }
}

#[test]
fn doorbells_are_prepared_and_cannot_be_reached() {
    let booted = boot(2, 1, 2);
    for place in 0..3 {
        for (device, attached) in booted.attached.iter().enumerate() {
            for queue in 0..attached.entry.queues {
                let index = owner_index(device as u32, queue).expect("a queue") as u64;
                let entry: u64 = read(booted.memory(), booted.places[place].doorbells_gpa + 8 * index);
                assert_eq!(entry & ADDRESS, attached.entry.doorbell_gpa + 4096 * u64::from(queue));
                let rights = entry & (PRESENT | WRITE | USER | NO_EXECUTE);
                assert_eq!((rights, slot_of(entry)), (WRITE | USER | NO_EXECUTE, NO_SLOT));
                let va = doorbell_va(device as u32, queue).expect("a queue");
                assert_eq!(booted.ring3(place, va), None);
                // The bit that the kernel sets.
                let gpa = GuestAddress(booted.places[place].doorbells_gpa + 8 * index);
                booted.memory().write_obj(entry | PRESENT, gpa).expect("memory");
                let doorbell = attached.entry.doorbell_gpa + 4096 * u64::from(queue);
                assert_eq!(booted.ring3(place, va), Some((doorbell, true)));
            }
        }
    }
}

#[test]
fn turn_register_is_reached_at_once_only_by_who_is_alone() {
    for (environments, spare, reached) in
        [(1, 0, Some((TURN_GPA, true))), (1, 2, Some((TURN_GPA, true))), (2, 0, None)]
    {
        let booted = boot(environments, spare, 0);
        assert_eq!(booted.ring3(0, TURN_VA), reached);
        for (number, place) in booted.places.iter().enumerate() {
            let entry: u64 = read(booted.memory(), place.turn_entry_gpa);
            assert_eq!((entry & ADDRESS, entry & PRESENT != 0), (TURN_GPA, number == 0 && reached.is_some()));
            booted.memory().write_obj(entry | PRESENT, GuestAddress(place.turn_entry_gpa)).expect("memory");
            assert_eq!(booted.ring3(number, TURN_VA), Some((TURN_GPA, true)));
        }
    }
}

//! What each environment holds at boot, and that the tables which the hardware reads say the same.

use super::*;
use crate::tables::{Flows, FrameKey};
use abi::boot::{EnvironmentPage, Ipv6Config, ipv6};
use abi::capability::{CAPABILITIES, Handle, Kind, rights};
use abi::flow::{ROOT, SEND_ANY, Target};
use abi::paging::{NO_SLOT, slot_of};
use abi::queue::owner_index;
use vm_memory::Permissions;

/// The capability that a handle of the environment page names.
fn named(booted: &Booted, place: usize, handle: Handle) -> Capability {
    assert_ne!(handle, Handle::NONE);
    let capability = booted.capability(place, handle.slot());
    assert_eq!(handle.generation(), capability.generation);
    capability
}

fn handles(page: &EnvironmentPage) -> Vec<Handle> {
    let all = page.capabilities;
    let lists = [
        &all.heap[..],
        &all.queues,
        &all.extents,
        &all.flows,
        &all.slices,
        &[all.environments],
        &all.neighbours,
    ];
    lists.concat().into_iter().filter(|&handle| handle != Handle::NONE).collect()
}

#[test]
fn every_capability_is_a_root_that_its_environment_page_names() {
    let booted = boot(2, 2, 2);
    for place in 0..4 {
        let page = booted.environment_page(place);
        let mut slots: Vec<u32> = handles(&page).iter().map(|handle| handle.slot()).collect();
        slots.sort_unstable();
        let all = (0..CAPABILITIES as u32).map(|slot| (slot, booted.capability(place, slot)));
        let used: Vec<_> = all.filter(|(_, capability)| capability.kind != Kind::None as u8).collect();
        assert_eq!(used.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), slots);
        assert_eq!(booted.places[place].capabilities as usize, slots.len());
        assert_eq!(slots, (0..slots.len() as u32).collect::<Vec<_>>(), "from slot 0 on");
        assert_eq!(slots.is_empty(), place >= 2, "who does not run yet holds nothing");
        for (_, capability) in used {
            assert!(Kind::from_number(capability.kind).is_some() && capability.count > 0);
            assert_ne!(capability.rights & rights::GIVE, 0);
            let links = [
                capability.parent,
                capability.first_child,
                capability.next,
                capability.previous,
                capability.depth.into(),
            ];
            assert_eq!((capability.generation, links), (1, [0; 5]));
        }
        assert_eq!(booted.capability(place, NO_SLOT), Capability::default());
    }
}

#[test]
fn parent_holds_the_others_and_their_memory_comes_from_it() {
    let image = crate::images::load("hello").expect("built in");
    let config = BootConfig { parent: Some(1), ..config(3, 1) };
    let attached = devices(0);
    let prepared = prepare(&image, 128 << 20, &config, |_, _| Ok(attached.clone())).expect("fits");
    let boot: BootPage = read(&prepared.memory, prepared.boot_page_gpa);
    let record = size_of::<PlaceRecord>() as u64;
    let places: Vec<PlaceRecord> =
        (0..4u64).map(|place| read(&prepared.memory, boot.places_gpa + place * record)).collect();
    let booted = Booted { prepared, boot, places, attached };
    let parent = booted.environment_page(1);
    for (nth, place) in [0, 2].into_iter().enumerate() {
        let child = parent.capabilities.children[nth];
        let environment = named(&booted, 1, child.environment);
        assert_eq!(
            (environment.kind, environment.start, environment.object),
            (Kind::Environment as u8, place as u64, 1)
        );
        // It owns it: it hangs below the place.
        let owner = booted.capability(1, u32::from(environment.parent - 1) % CAPABILITIES as u32);
        assert_eq!(
            (owner.kind, owner.start, owner.count, owner.object),
            (Kind::Environment as u8, place as u64, 1, 0)
        );
        assert_eq!(environment.rights & (rights::CREATE | !owner.rights), 0);
        let memory = named(&booted, 1, child.memory);
        assert_eq!(child.theirs, booted.environment_page(place).capabilities.heap[0]);
        let theirs = named(&booted, place, child.theirs);
        assert_eq!((theirs.start, theirs.count, theirs.rights), (memory.start, memory.count, memory.rights));
        let number = |place: usize, handle: Handle| abi::capability::number(place as u32, handle.slot());
        assert_eq!((theirs.parent, theirs.depth), (number(1, child.memory) + 1, 1));
        assert_eq!((memory.first_child, memory.parent), (number(place, child.theirs) + 1, 0));
        assert_eq!(booted.environment_page(place).capabilities.children[0].environment, Handle::NONE);
    }
    let other = parent.capabilities.children[2];
    assert_eq!((other.environment, other.memory), (Handle::NONE, Handle::NONE), "who does not run yet");
}

#[test]
fn heaps_are_held_mapped_and_granted_by_the_same_pages() {
    let booted = boot(2, 1, 0);
    let tables =
        Tables::open(Arc::clone(&booted.prepared.memory), booted.prepared.tables_at).expect("tables");
    let mut total = 0;
    for place in 0..2 {
        let page = booted.environment_page(place);
        let domain = tables.domain(place as u32).expect("a domain");
        let other = tables.domain(1 - place as u32).expect("a domain");
        for (range, handle) in
            page.heap.iter().zip(page.capabilities.heap).take_while(|(range, _)| range.len_bytes > 0)
        {
            let capability = named(&booted, place, handle);
            assert_eq!((capability.kind, capability.object), (Kind::Memory as u8, 1));
            assert_eq!(
                (capability.start * 4096, capability.count * 4096),
                (range.start_gpa, range.len_bytes)
            );
            let own = |leaf: &&(u64, u64, u64)| slot_of(leaf.1) == handle.slot();
            let leaves = booted.leaves(place);
            let mapped: Vec<_> = leaves.iter().filter(own).collect();
            assert_eq!(capability.bound as usize, mapped.len());
            assert_eq!(mapped.iter().map(|leaf| leaf.2).sum::<u64>(), range.len_bytes);
            for (va, entry, _) in mapped {
                assert_eq!(va - WINDOW_VA, entry & ADDRESS);
                assert!((range.start_gpa..range.end_gpa()).contains(&(entry & ADDRESS)));
            }
            let pages = (range.start_gpa, range.len_bytes as usize);
            assert!(domain.allows(pages.0, pages.1, Permissions::ReadWrite));
            for gpa in (range.start_gpa..range.end_gpa()).step_by(4096) {
                assert!(
                    !other.allows(gpa, 1, Permissions::Read) && !other.allows(gpa, 1, Permissions::Write)
                );
            }
            total += range.len_bytes;
        }
        // All else that ring 3 reaches belongs to no capability, and no device may have it.
        for (va, entry, _) in booted
            .leaves(place)
            .iter()
            .filter(|leaf| !(WINDOW_VA..STACK_TOP_VA - STACK_BYTES).contains(&leaf.0))
        {
            assert_eq!(slot_of(*entry), NO_SLOT, "{va:#x}");
            assert!(!domain.allows(entry & ADDRESS, 1, Permissions::Read), "{va:#x}");
        }
    }
    assert!(booted.boot.free_gpa + total <= 128 << 20 && booted.boot.free_gpa + total > 124 << 20);
    let spare = tables.domain(2).expect("a domain");
    assert!((0..(128 << 20) / 4096).all(|page| !spare.allows(page * 4096, 1, Permissions::Read)));
    assert!(tables.domain(3).is_err());
}

#[test]
fn queues_are_held_by_who_is_told_of_them() {
    let booted = boot(2, 1, 2);
    for place in 0..3 {
        let page = booted.environment_page(place);
        for (device, entry) in page.devices.iter().enumerate() {
            let handle = page.capabilities.queues[device];
            assert_eq!(handle == Handle::NONE, entry.queues == 0, "device {device} of {place}");
            if handle != Handle::NONE {
                let capability = named(&booted, place, handle);
                let first = owner_index(device as u32, entry.first_queue).expect("a queue") as u64;
                assert_eq!(capability.kind, Kind::Queues as u8);
                assert_eq!((capability.start, capability.count), (first, entry.queues.into()));
            }
        }
    }
    let queues = |place: usize| {
        let page = booted.environment_page(place);
        [0, 1, 2, 3].map(|device: usize| (page.devices[device].first_queue, page.devices[device].queues))
    };
    assert_eq!(queues(0), [(0, 4), (0, 4), (0, 0), (0, 6)]);
    assert_eq!(queues(1), [(4, 4), (0, 0), (0, 4), (0, 0)]);
    assert_eq!(queues(2), [(0, 0); 4]);
}

#[test]
fn disks_are_held_with_the_rights_that_the_extent_table_has() {
    let booted = boot(2, 0, 2);
    let tables =
        Tables::open(Arc::clone(&booted.prepared.memory), booted.prepared.tables_at).expect("tables");
    let check = |environment, device, blocks, rights| {
        tables.extents().check(environment, device, 0, blocks, rights).is_ok()
    };
    let of = |place: usize, device: usize| {
        let handle = booted.environment_page(place).capabilities.extents[device];
        let capability = named(&booted, place, handle);
        assert_eq!((capability.kind, capability.object), (Kind::Extent as u8, device as u32));
        let entry = capability.bound.checked_sub(1).expect("bound");
        let gpa = booted.boot.extents_gpa + u64::from(entry) * size_of::<ExtentEntry>() as u64;
        let bound: ExtentEntry = read(booted.memory(), gpa);
        assert_eq!(
            (bound.environment, bound.device, bound.blocks),
            (place as u32, device as u32, capability.count)
        );
        (capability.start, capability.count, capability.rights)
    };
    assert_eq!(of(0, 1), (0, 100, rights::READ | rights::WRITE | rights::GIVE));
    assert_eq!(of(1, 2), (0, 200, rights::READ | rights::GIVE));
    let (read, write) = (abi::extent::READ, abi::extent::WRITE);
    assert!(check(0, 1, 100, read | write) && check(1, 2, 200, read));
    assert!(!check(1, 2, 1, write) && !check(1, 1, 1, read) && !check(0, 2, 1, read));
}

#[test]
fn frames_of_each_port_arrive_at_the_environment_that_holds_the_flow() {
    let booted = boot(3, 0, 0);
    let mut flows = Flows::open(&booted.prepared.memory, booted.boot.flows_gpa).expect("a table");
    let address = abi::flow::ipv4(ADDRESS_OF_INTERFACE);
    let mut target = |protocol, port, destination| {
        let ports = Some((50_000, port));
        let source = abi::flow::ipv4([10, 0, 0, 9]);
        let key = FrameKey { source, destination, protocol, ports, forwarder_error: false };
        flows.lookup(Some(&key)).expect("the guardian at least")
    };
    let of = |environment, queue_pair, rights: u32| Target {
        environment,
        queue_pair,
        queue_pairs: 1,
        rights: rights as u16,
    };
    assert_eq!(target(6, 80, address), of(0, 0, SEND_ANY));
    assert_eq!(target(6, 81, address), of(1, 2, 0));
    assert_eq!(target(6, 82, address), of(2, 3, 0));
    assert_eq!(target(6, 83, address), of(0, 0, SEND_ANY));
    assert_eq!(target(17, 81, address), of(0, 0, SEND_ANY));
    assert_eq!(target(6, 81, abi::flow::ipv4([10, 0, 0, 3])), of(0, 0, SEND_ANY));
    assert_eq!(flows.lookup(None), Some(of(0, 0, SEND_ANY)));
    for place in 0..3 {
        let capability = named(&booted, place, booted.environment_page(place).capabilities.flows[NIC]);
        let own = rights::CARVE | rights::DIRECT | rights::GIVE;
        let all = if place == 0 { own | rights::SEND_ANY } else { own };
        assert_eq!((capability.kind, capability.count, capability.rights), (Kind::Flow as u8, 1, all));
        assert_eq!(capability.start == u64::from(ROOT), place == 0);
    }
}

#[test]
fn with_ipv6_the_ports_of_its_addresses_are_given_as_well_and_who_has_one_hears_of_the_link() {
    let given = [0x2001_0db8 << 32, 2];
    let bits = u128::from(given[0]) << 64 | u128::from(given[1]);
    for (mode, arrives_at) in [(ipv6::OFF, 0), (ipv6::GIVEN, 1), (ipv6::AUTOMATIC, 1)] {
        let ipv6 = Ipv6Config { mode, address: bits.to_be_bytes(), ..Ipv6Config::default() };
        let mac = [2, 0, 0, 1, 2, 3];
        let booted = boot_with(BootConfig { ipv6, mac, ..config(2, 0) }, 0);
        let mut flows = Flows::open(&booted.prepared.memory, booted.boot.flows_gpa).expect("a table");
        for destination in [given, [0xFE80 << 48, 0x0000_00FF_FE01_0203]] {
            let (source, ports) = ([0xFE80 << 48, 9], Some((50_000, 81)));
            let key = FrameKey { source, destination, protocol: 6, ports, forwarder_error: false };
            let target = flows.lookup(Some(&key)).expect("the guardian at least");
            assert_eq!(target.environment, arrives_at, "{mode}");
        }
        // The first one has what tells of the link by the root.
        let hearing: Vec<_> = flows.hearing_link().iter().map(|target| target.environment).collect();
        assert_eq!(hearing, if mode == ipv6::OFF { vec![] } else { vec![1] }, "{mode}");
    }
}

#[test]
fn first_environment_holds_the_spare_places_and_nobody_else_does() {
    let booted = boot(2, 3, 0);
    let capability = named(&booted, 0, booted.environment_page(0).capabilities.environments);
    assert_eq!((capability.kind, capability.start, capability.count), (Kind::Environment as u8, 2, 3));
    for right in
        [rights::CREATE, rights::CONTROL, rights::DESTROY, rights::WAKE, rights::RECEIVE, rights::YIELD]
    {
        assert_ne!(capability.rights & right, 0);
    }
    assert_eq!(booted.environment_page(1).capabilities.environments, Handle::NONE);
    assert_eq!(boot(2, 0, 0).environment_page(0).capabilities.environments, Handle::NONE);
}

/// What an environment may do with another one, at boot.
fn towards(booted: &Booted, place: usize, other: usize) -> Option<u16> {
    let handle = booted.environment_page(place).capabilities.neighbours[other];
    (handle != Handle::NONE).then(|| {
        let capability = named(booted, place, handle);
        let whom = (capability.kind, capability.start, capability.count, capability.object);
        assert_eq!(whom, (Kind::Environment as u8, other as u64, 1, abi::environment::FIRST_GENERATION));
        capability.rights
    })
}

#[test]
fn environments_know_themselves_and_nobody_else() {
    let booted = boot(3, 2, 0);
    for place in 0..3 {
        for other in 0..5 {
            let rights = towards(&booted, place, other);
            assert_eq!(rights.is_some(), place == other, "{place} {other}");
            assert!(rights.is_none_or(|rights| rights & rights::CREATE == 0));
        }
    }
}

#[test]
fn guardian_holds_all_flows_and_clients_may_call_it_and_not_each_other() {
    let booted = boot_with(BootConfig { guardian: true, ..config(3, 1) }, 0);
    let mut flows = Flows::open(&booted.prepared.memory, booted.boot.flows_gpa).expect("a table");
    let (source, destination) = (abi::flow::ipv4([10, 0, 0, 9]), abi::flow::ipv4(ADDRESS_OF_INTERFACE));
    for port in 80..84 {
        let ports = Some((50_000, port));
        let key = FrameKey { source, destination, protocol: 6, ports, forwarder_error: false };
        let target = flows.lookup(Some(&key)).expect("the guardian's");
        assert_eq!((target.environment, u32::from(target.rights)), (0, SEND_ANY), "{port}");
    }
    for client in 1..3 {
        let page = booted.environment_page(client);
        assert_eq!(page.capabilities.flows, [Handle::NONE; abi::boot::DEVICES]);
        assert_ne!(page.capabilities.queues[NIC], Handle::NONE, "queues of its own it has");
        let (of_guardian, of_client) =
            (towards(&booted, client, 0).expect("known"), towards(&booted, 0, client).expect("known"));
        let power = rights::CONTROL | rights::DESTROY | rights::CREATE;
        assert_eq!((of_guardian & (power | rights::RECEIVE), of_client & power), (0, 0));
        assert_ne!(of_guardian & rights::CALL, 0);
        assert_ne!(of_client & rights::RECEIVE, 0);
        assert_eq!(towards(&booted, client, 3 - client), None);
    }
    assert_eq!(towards(&booted, 0, 3), None, "a spare place is nobody");
}

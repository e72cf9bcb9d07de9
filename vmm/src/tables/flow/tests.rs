//! The flow table against a model that knows no hash, no probing and no sequence.

use super::*;
use crate::tables::flow_writer::{FlowField, FlowTableError, FlowTableWriter};
use crate::tables::frame::tests::{icmp_error, ip_frame, tcp_frame, tcp_frame6};
use abi::flow::ipv4;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::Ipv6Addr;
use vm_memory::{Bytes, GuestAddress};

const TABLE_GPA: u64 = 0x1000;

fn table() -> (Arc<Memory>, FlowTableWriter, Flows) {
    let memory = Arc::new(Memory::from_ranges(&[(GuestAddress(0), 0x20000)]).expect("memory"));
    let writer = FlowTableWriter::create(&memory, TABLE_GPA, abi::flow::NODES).expect("inside");
    let flows = Flows::open(&memory, TABLE_GPA).expect("inside");
    (memory, writer, flows)
}

fn target(environment: u16) -> Target {
    Target { environment, queue_pair: environment, queue_pairs: 1, rights: 0 }
}

fn host(address: [u8; 4]) -> FlowField {
    FlowField::Destination { address: ipv4(address), prefix_len: 128 }
}

const SERVER: [u8; 4] = [10, 0, 0, 2];
const CLIENT: [u8; 4] = [10, 0, 0, 1];

/// The environment that a frame goes to.
fn receiver(flows: &mut Flows, frame: &[u8]) -> Option<u16> {
    flows.lookup(FrameKey::parse(frame).as_ref()).map(|target| target.environment)
}

#[test]
fn lookup_returns_the_deepest_target() {
    let (_memory, mut writer, mut flows) = table();
    writer.set_root(Some(target(1)));
    let address = writer.insert(ROOT, host(SERVER), Some(target(2))).expect("room");
    let tcp = writer.insert(address, FlowField::Protocol(6), None).expect("room");
    writer.insert(tcp, FlowField::DestinationPort(80), Some(target(3))).expect("room");
    let to = |port| tcp_frame((CLIENT, 4000), (SERVER, port), b"");
    assert_eq!(receiver(&mut flows, &to(80)), Some(3));
    assert_eq!(receiver(&mut flows, &to(81)), Some(2), "the protocol node has no target: the one above");
    assert_eq!(receiver(&mut flows, &ip_frame(17, (CLIENT, 1), (SERVER, 80), b"")), Some(2));
    assert_eq!(receiver(&mut flows, &tcp_frame((CLIENT, 1), ([10, 0, 0, 3], 80), b"")), Some(1));
    assert_eq!(receiver(&mut flows, &[0xff; 60]), Some(1), "not IP");
}

#[test]
fn lookup_icmp_error_follows_the_quoted_packet() {
    let (_memory, mut writer, mut flows) = table();
    writer.set_root(Some(target(1)));
    let address = writer.insert(ROOT, host(SERVER), None).expect("room");
    let tcp = writer.insert(address, FlowField::Protocol(6), None).expect("room");
    writer.insert(tcp, FlowField::DestinationPort(80), Some(target(3))).expect("room");
    let error = icmp_error(CLIENT, SERVER, &tcp_frame((SERVER, 80), (CLIENT, 4000), b"data"));
    assert_eq!(receiver(&mut flows, &error), Some(3));
    let error = icmp_error(CLIENT, SERVER, &tcp_frame((SERVER, 22), (CLIENT, 4000), b"data"));
    assert_eq!(receiver(&mut flows, &error), Some(1));
}

#[test]
fn may_send_only_what_would_come_back() {
    let (_memory, mut writer, mut flows) = table();
    writer.set_root(Some(target(1)));
    let own = tcp_frame((SERVER, 80), (CLIENT, 4000), b"data");
    assert!(flows.may_send(1, &own) && !flows.may_send(3, &own), "undivided: the guardian only");
    let address = writer.insert(ROOT, host(SERVER), None).expect("room");
    let tcp = writer.insert(address, FlowField::Protocol(6), None).expect("room");
    writer.insert(tcp, FlowField::DestinationPort(80), Some(target(3))).expect("room");
    assert!(flows.may_send(3, &own));
    assert!(!flows.may_send(1, &own), "not even the guardian, without the right");
    assert!(!flows.may_send(3, &tcp_frame((SERVER, 81), (CLIENT, 4000), b"")));
    assert!(!flows.may_send(3, &tcp_frame(([10, 0, 0, 3], 80), (CLIENT, 4000), b"")), "a foreign address");
    assert!(!flows.may_send(3, &[0xff; 60]), "ARP and the like are the guardian's");
    assert!(flows.may_send(1, &[0xff; 60]));
    // An error about a packet that arrived at port 80, from the address to which that packet went.
    let about = tcp_frame((CLIENT, 4000), (SERVER, 80), b"GET");
    assert!(flows.may_send(3, &icmp_error(SERVER, CLIENT, &about)));
    assert!(!flows.may_send(3, &icmp_error([10, 0, 0, 3], CLIENT, &about)));
    // The guardian gets the right to send anything, and loses it.
    writer.set_root(Some(Target { rights: SEND_ANY as u16, ..target(1) }));
    assert!(flows.may_send(1, &own));
    assert!(flows.may_send(1, &icmp_error([10, 0, 0, 3], CLIENT, &about)));
    writer.set_root(Some(target(1)));
    assert!(!flows.may_send(1, &own));
}

const MAC: [u8; 6] = [2, 0, 0xff, 1, 2, 3];

fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

/// The port of an IPv6 address becomes an environment's.
fn give_port6(writer: &mut FlowTableWriter, address: [u64; 2], port: u16, environment: u16) {
    let host = FlowField::Destination { address, prefix_len: 128 };
    let node = writer.insert(ROOT, host, None).expect("room");
    let tcp = writer.insert(node, FlowField::Protocol(6), None).expect("room");
    writer.insert(tcp, FlowField::DestinationPort(port), Some(target(environment))).expect("room");
}

#[test]
fn address_made_of_the_hardware_address_has_the_flows_of_the_link_local_one() {
    let (_memory, mut writer, mut flows) = table();
    writer.set_root(Some(target(1)));
    give_port6(&mut writer, [LINK_LOCAL, interface_id(MAC)], 81, 3);
    let address = |text: &str| -> Ipv6Addr { text.parse().expect(text) };
    let client = (address("2001:db8::9"), 4000);
    let link_local = address("fe80::ffff:fe01:203").to_bits();
    assert_eq!(halves(Ipv6Addr::from_bits(link_local)), [LINK_LOCAL, 0x0000_ffff_fe01_0203]);
    let made = |prefix: &str| Ipv6Addr::from_bits(address(prefix).to_bits() | u128::from(interface_id(MAC)));
    let own = made("2001:db8:7::");
    assert_eq!(receiver(&mut flows, &tcp_frame6(client, (own, 81))), Some(1), "nobody said which it has");
    flows.set_hardware_address(MAC);
    for prefix in ["fe80::", "2001:db8:7::", "fd00::"] {
        let to = |port| tcp_frame6(client, (made(prefix), port));
        assert_eq!(
            (receiver(&mut flows, &to(81)), receiver(&mut flows, &to(80))),
            (Some(3), Some(1)),
            "{prefix}"
        );
        let answer = |port| tcp_frame6((made(prefix), port), client);
        assert!(flows.may_send(3, &answer(81)) && !flows.may_send(3, &answer(80)), "{prefix}");
    }
    // Not another host's, no group, and not IPv4's whose last bytes are the same.
    let ipv4_mapped = tcp_frame((CLIENT, 4000), ([0xfe, 1, 2, 3], 81), b"");
    let others = [address("2001:db8:7::1"), made("ff02::")].map(|other| tcp_frame6(client, (other, 81)));
    for frame in others.iter().chain([&ipv4_mapped]) {
        assert_eq!(receiver(&mut flows, frame), Some(1));
    }
    assert!(!flows.may_send(3, &tcp_frame6((address("2001:db8:7::1"), 81), client)));
    // What has flows of its own has no others.
    give_port6(&mut writer, halves(own), 82, 2);
    let to = |port| tcp_frame6(client, (own, port));
    assert_eq!((receiver(&mut flows, &to(82)), receiver(&mut flows, &to(81))), (Some(2), Some(1)));
}

#[test]
fn who_hears_of_the_link_is_known_by_environment_and_as_the_table_is_now() {
    let (_memory, mut writer, mut flows) = table();
    let hearing = |environment| Target { rights: HEAR_LINK as u16, ..target(environment) };
    let environments = |flows: &mut Flows| -> Vec<u16> {
        let mut all: Vec<_> = flows.hearing_link().iter().map(|target| target.environment).collect();
        all.sort_unstable();
        all
    };
    writer.set_root(Some(hearing(1)));
    let address = writer.insert(ROOT, host(SERVER), Some(hearing(2))).expect("room");
    let tcp = writer.insert(address, FlowField::Protocol(6), Some(target(3))).expect("room");
    let port = writer.insert(tcp, FlowField::DestinationPort(80), Some(hearing(2))).expect("room");
    assert_eq!(environments(&mut flows), [1, 2], "once each");
    writer.remove(port).expect("a leaf");
    assert_eq!(environments(&mut flows), [1, 2]);
    writer.remove(tcp).expect("a leaf");
    writer.remove(address).expect("a leaf");
    assert_eq!(environments(&mut flows), [1], "who has no flow hears nothing");
    writer.set_root(Some(target(1)));
    assert!(environments(&mut flows).is_empty(), "and who has lost the right");
    assert!(!flows.may_send_any(1), "it is another right");
}

#[test]
fn lookup_in_a_table_stuck_in_a_change_goes_to_the_guardian_and_is_counted() {
    let (memory, mut writer, mut flows) = table();
    writer.set_root(Some(target(1)));
    writer.insert(ROOT, host(SERVER), Some(target(2))).expect("room");
    let frame = tcp_frame((CLIENT, 4000), (SERVER, 80), b"");
    let sequence: u32 = memory.read_obj(GuestAddress(TABLE_GPA)).expect("inside");
    memory.write_obj(sequence + 1, GuestAddress(TABLE_GPA)).expect("inside");
    assert_eq!(receiver(&mut flows, &frame), Some(1));
    assert_eq!(flows.stuck_lookups(), 1);
    memory.write_obj(sequence + 2, GuestAddress(TABLE_GPA)).expect("inside");
    assert_eq!(receiver(&mut flows, &frame), Some(2), "it recovers");
}

/// A flow becomes somebody else's while a look-up is on its way down: it must not arrive with the old address at the new
/// target.
#[test]
fn lookup_during_changes_sees_one_state_of_the_table() {
    let (_memory, mut writer, mut flows) = table();
    writer.set_root(Some(target(1)));
    let address = writer.insert(ROOT, host(SERVER), None).expect("room");
    let tcp = writer.insert(address, FlowField::Protocol(6), None).expect("room");
    let port = writer.insert(tcp, FlowField::DestinationPort(80), None).expect("room");
    let source = FlowField::Source { address: ipv4(CLIENT), prefix_len: 128 };
    let leaf = writer.insert(port, source, Some(target(2))).expect("room");
    let key = FrameKey::parse(&tcp_frame((CLIENT, 4000), (SERVER, 80), b"")).expect("IP");
    let changing = std::thread::spawn(move || {
        for _ in 0..100_000 {
            // In place, as no writer of ours does it: the widest gap between what belongs together.
            for (field, environment) in [(ipv4([10, 0, 0, 3]), 3), (ipv4(SERVER), 2)] {
                writer.change(|table| {
                    table.nodes[address as usize].field[1].store(field[1], Ordering::Relaxed);
                    table.nodes[leaf as usize].target.store(target(environment).pack(), Ordering::Relaxed);
                });
                for _ in 0..10 {
                    spin_loop();
                }
            }
        }
    });
    let mut seen = [0u32; 4];
    while !changing.is_finished() {
        let found = flows.lookup(Some(&key)).expect("a guardian at least");
        seen[usize::from(found.environment)] += 1;
    }
    assert!(changing.join().is_ok());
    assert_eq!(seen[3], 0, "{seen:?}");
}

#[test]
fn queue_pair_is_the_same_for_both_directions_and_uses_them_all() {
    let shared = Target { environment: 1, queue_pair: 2, queue_pairs: 3, rights: 0 };
    let mut used = [0; 8];
    for port in 1000..1300 {
        let key = FrameKey::parse(&tcp_frame((CLIENT, port), (SERVER, 80), b"")).expect("IP");
        let pair = Flows::queue_pair(&shared, Some(&key));
        assert_eq!(pair, Flows::queue_pair(&shared, Some(&key.reversed())));
        used[usize::from(pair)] += 1;
    }
    assert_eq!(used.iter().sum::<i32>(), used[2..5].iter().sum::<i32>());
    assert!(used[2..5].iter().all(|&frames| frames > 50), "{used:?}");
}

#[test]
fn insert_out_of_order_and_remove_with_children_return_errors() {
    let (_memory, mut writer, mut flows) = table();
    assert_eq!(flows.lookup(None), None, "no guardian");
    let wrong = writer.insert(ROOT, FlowField::Protocol(6), None);
    assert_eq!(wrong, Err(FlowTableError::WrongField { parent: ROOT }));
    let address = writer.insert(ROOT, host(SERVER), None).expect("room");
    assert_eq!(writer.insert(ROOT, host(SERVER), None), Err(FlowTableError::Exists { index: address }));
    let shorter = FlowField::Destination { address: ipv4(SERVER), prefix_len: 120 };
    let expected = FlowTableError::OtherPrefixLen { parent: ROOT, used: 128, asked: 120 };
    assert_eq!(writer.insert(ROOT, shorter, None), Err(expected));
    let tcp = writer.insert(address, FlowField::Protocol(6), None).expect("room");
    assert_eq!(writer.remove(address), Err(FlowTableError::HasChildren { index: address }));
    assert_eq!(writer.remove(tcp), Ok(()));
    assert_eq!(writer.remove(address), Ok(()));
    assert_eq!(writer.remove(address), Err(FlowTableError::NoSuchFlow { index: address }));
    assert!(
        writer.insert(ROOT, shorter, None).is_ok(),
        "the last child is gone: another length is free to choose"
    );
}

#[test]
fn table_whose_number_of_nodes_is_no_power_of_two_is_refused() {
    let memory = Arc::new(Memory::from_ranges(&[(GuestAddress(0), 0x20000)]).expect("memory"));
    for count in [0, 3, 1000, NODES_MAX + 1, 2 * NODES_MAX, u32::MAX] {
        memory.write_obj(count, GuestAddress(TABLE_GPA + 4)).expect("inside");
        let refused = TableError::Count { what: "the flow table", count, max: NODES_MAX };
        assert_eq!(Flows::open(&memory, TABLE_GPA).err(), Some(refused.clone()));
        assert_eq!(FlowTableWriter::create(&memory, TABLE_GPA, count).err(), Some(refused));
    }
    // More than there is memory for.
    memory.write_obj(NODES_MAX, GuestAddress(TABLE_GPA + 4)).expect("inside");
    assert!(matches!(Flows::open(&memory, TABLE_GPA), Err(TableError::NotMemory { .. })));
}

#[test]
fn tables_of_every_size_hold_flows_and_find_them() {
    for bits in [2, 4, 7, 14] {
        let memory = Arc::new(Memory::from_ranges(&[(GuestAddress(0), 2 << 20)]).expect("memory"));
        let mut writer = FlowTableWriter::create(&memory, TABLE_GPA, 1 << bits).expect("inside");
        let mut flows = Flows::open(&memory, TABLE_GPA).expect("inside");
        writer.set_root(Some(target(1)));
        let address = |number: u32| ipv4((0x0A00_0000 + number).to_be_bytes());
        let hosts = 0..1u32 << (bits - 1);
        let held: Vec<u32> = hosts
            .filter(|&number| {
                let field = FlowField::Destination { address: address(number), prefix_len: 128 };
                writer.insert(ROOT, field, Some(target(2))).is_ok()
            })
            .collect();
        assert!(held.len() as u32 >= 1 << (bits - 2), "{} of {}", held.len(), 1 << bits);
        for number in held {
            let key =
                FrameKey::parse(&tcp_frame((CLIENT, 1), ((0x0A00_0000 + number).to_be_bytes(), 80), b""));
            assert_eq!(flows.lookup(key.as_ref()), Some(target(2)));
        }
    }
}

/// The naive model: a flow is the list of fields that lead to it.
type Model = HashMap<Vec<FlowField>, Option<Target>>;

/// Whether a frame fits a field.
fn fits(field: &FlowField, key: &FrameKey) -> bool {
    let same = |a: [u64; 2], b: [u64; 2], len: u32| {
        (0..len).all(|bit| {
            let at = |address: [u64; 2]| address[bit as usize / 64] >> (63 - bit % 64) & 1;
            at(a) == at(b)
        })
    };
    match *field {
        FlowField::Destination { address, prefix_len } => same(address, key.destination, prefix_len),
        FlowField::Protocol(protocol) => key.protocol == protocol,
        FlowField::DestinationPort(port) => key.ports.is_some_and(|ports| ports.1 == port),
        FlowField::Source { address, prefix_len } => same(address, key.source, prefix_len),
        FlowField::SourcePort(port) => key.ports.is_some_and(|ports| ports.0 == port),
    }
}

/// The deepest flow with a target all of whose fields fit.
fn model_lookup(model: &Model, key: &FrameKey) -> Option<Target> {
    let fitting =
        model.iter().filter(|(path, target)| target.is_some() && path.iter().all(|field| fits(field, key)));
    fitting.max_by_key(|(path, _)| path.len()).and_then(|(_, target)| *target)
}

/// A field of the given level out of few values, so that frames meet flows.
fn field(level: usize, value: u8, lens: [u32; 2]) -> FlowField {
    let address = ipv4([10, 0, value % 2, value]);
    match level {
        0 => FlowField::Destination { address: prefix(address, lens[0]), prefix_len: lens[0] },
        1 => FlowField::Protocol([6, 17][usize::from(value) % 2]),
        2 => FlowField::DestinationPort(u16::from(value)),
        3 => FlowField::Source { address: prefix(address, lens[1]), prefix_len: lens[1] },
        _ => FlowField::SourcePort(u16::from(value)),
    }
}

proptest! {
    #[test]
    fn lookup_and_may_send_agree_with_the_model(
        lens in prop::array::uniform2(prop::sample::select(vec![96u32, 112, 120, 127, 128])),
        steps in prop::collection::vec(
            (any::<prop::sample::Index>(), 0u8..4, prop::option::of(1u16..6), any::<bool>()), 0..60),
        frames in prop::collection::vec((any::<bool>(), 0u8..4, 0u8..4, 0u8..4, 0u8..4), 40),
    ) {
        let (_memory, mut writer, mut flows) = table();
        let mut model = Model::new();
        let mut known = vec![(Vec::new(), ROOT)];
        writer.set_root(Some(target(7)));
        model.insert(Vec::new(), Some(target(7)));
        for (which, value, environment, remove) in steps {
            let (path, index) = known[which.index(known.len())].clone();
            if remove && index != ROOT && writer.remove(index).is_ok() {
                model.remove(&path);
                known.retain(|(_, at)| *at != index);
            } else if path.len() < 5 {
                let field = field(path.len(), value, lens);
                let target = environment.map(target);
                if let Ok(child) = writer.insert(index, field, target) {
                    let mut path = path;
                    path.push(field);
                    model.insert(path.clone(), target);
                    known.push((path, child));
                }
            }
        }
        for (udp, source, source_port, destination, port) in frames {
            let protocol = if udp { 17 } else { 6 };
            let source = ([10, 0, source % 2, source], u16::from(source_port));
            let destination = ([10, 0, destination % 2, destination], u16::from(port));
            let frame = ip_frame(protocol, source, destination, b"");
            let key = FrameKey::parse(&frame).expect("IP");
            prop_assert_eq!(flows.lookup(Some(&key)), model_lookup(&model, &key));
            let owner = model_lookup(&model, &key.reversed()).map(|target| target.environment);
            for environment in 0..8 {
                prop_assert_eq!(flows.may_send(environment.into(), &frame), owner == Some(environment));
            }
        }
    }

    #[test]
    fn garbage_in_the_table_never_hangs_a_lookup(
        words in prop::collection::vec((0u64..(16 * 1025 * 4), prop_oneof![0u64..8, any::<u64>()]), 0..400),
        state in prop::sample::select(vec![0u32, 2, 0x0202_0202]),
    ) {
        let (memory, _writer, mut flows) = table();
        for node in 0..1025u64 {
            memory.write_obj(state, GuestAddress(TABLE_GPA + node * 64)).expect("inside");
        }
        for (word, value) in words {
            memory.write_obj(value, GuestAddress(TABLE_GPA + word % (1025 * 8) * 8)).expect("inside");
        }
        let frame = tcp_frame((CLIENT, 4000), (SERVER, 80), b"");
        let key = FrameKey::parse(&frame);
        for _ in 0..4 {
            let _ = flows.lookup(key.as_ref());
            let _ = flows.may_send(1, &frame);
        }
    }
}

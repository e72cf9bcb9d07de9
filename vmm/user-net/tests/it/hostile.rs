//! Frames that no honest guest sends: random ones, and good ones with changes. Whatever comes, nothing panics, memory stays
//! bounded, and a connection beside goes on.

use std::net::{Ipv4Addr, SocketAddrV4};

use exovm_user_net::{GATEWAY_ADDRESS, GATEWAY_MAC, GUEST_ADDRESS, GUEST_MAC, HEADER_BYTES, MTU_BYTES};
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::State;
use smoltcp::wire::{
    IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use crate::guest::World;
use crate::outbound::echo;
use crate::udp::datagram;

/// A frame with a TCP segment of the guest's.
pub(crate) fn segment<'a>(
    to: (Ipv4Addr, u16),
    from_port: u16,
    change: impl FnOnce(&mut TcpRepr<'a>),
) -> Vec<u8> {
    let mut tcp = TcpRepr {
        src_port: from_port,
        dst_port: to.1,
        control: TcpControl::None,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    change(&mut tcp);
    let ip = Ipv4Repr {
        src_addr: GUEST_ADDRESS,
        dst_addr: to.0,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; HEADER_BYTES + 14 + ip.buffer_len() + tcp.buffer_len()];
    let (ethernet, packet) = frame[HEADER_BYTES..].split_at_mut(14);
    ethernet[..6].copy_from_slice(&GATEWAY_MAC);
    ethernet[6..12].copy_from_slice(&GUEST_MAC);
    ethernet[12..].copy_from_slice(&[8, 0]);
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut *packet), &checksums);
    let (from, to) = (IpAddress::from(GUEST_ADDRESS), IpAddress::from(to.0));
    tcp.emit(&mut TcpPacket::new_unchecked(&mut packet[20..]), &from, &to, &checksums);
    frame
}

/// The TCP segment of a frame to the guest.
pub(crate) fn parsed(frame: &[u8]) -> TcpRepr<'_> {
    let packet = TcpPacket::new_checked(&frame[HEADER_BYTES + 34..]).unwrap();
    let (from, to) = (IpAddress::from(GATEWAY_ADDRESS), IpAddress::from(GUEST_ADDRESS));
    TcpRepr::parse(&packet, &from, &to, &ChecksumCapabilities::ignored()).unwrap()
}

/// A SYN to the gateway.
fn syn(port: u16) -> Vec<u8> {
    segment((GATEWAY_ADDRESS, port), 5000, |tcp| tcp.control = TcpControl::Syn)
}

#[test]
fn connection_from_the_guest_is_refused_by_a_reset_and_counted() {
    let mut world = World::new();
    for to in [GATEWAY_ADDRESS, Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 1)] {
        let socket = world.connect((to, 80), 5000);
        world.until_state(socket, State::Closed);
    }
    assert_eq!(world.counters().refused, 3);
    assert_eq!(world.net.connections(), 0);
}

#[test]
fn frame_with_a_wrong_length_or_checksum_is_dropped_and_counted() {
    let mut world = World::new();
    let good = syn(80);
    assert_eq!(world.raw(&good).len(), 1, "a reset");
    let change = |at: usize, to: u8| {
        let mut frame = good.clone();
        frame[HEADER_BYTES + at] = to;
        frame
    };
    let flip = |at: usize| change(at, good[HEADER_BYTES + at] ^ 0x40);
    for (what, frame) in [
        ("nothing", vec![]),
        ("a header only", good[..HEADER_BYTES].to_vec()),
        ("cut in Ethernet", good[..HEADER_BYTES + 13].to_vec()),
        ("cut in IPv4", good[..HEADER_BYTES + 30].to_vec()),
        ("cut in TCP", good[..good.len() - 1].to_vec()),
        ("IPv4 version", change(14, 0x55)),
        ("IPv4 header length", change(14, 0x44)),
        ("IPv4 total length", change(16, 0xFF)),
        ("IPv4 total length too short", change(17, 10)),
        ("TCP port 0", segment((GATEWAY_ADDRESS, 0), 5000, |tcp| tcp.control = TcpControl::Syn)),
        ("UDP port 0", datagram(SocketAddrV4::new(GATEWAY_ADDRESS, 0), 5000, b"x")),
        ("UDP checksum", {
            let mut frame = datagram(SocketAddrV4::new(GATEWAY_ADDRESS, 53), 5000, b"x");
            frame[HEADER_BYTES + 42] ^= 1;
            frame
        }),
        ("ICMP checksum", {
            let mut frame = echo(GATEWAY_ADDRESS, b"x");
            frame[HEADER_BYTES + 42] ^= 1;
            frame
        }),
        ("TTL without checksum", flip(22)),
        ("TCP port without checksum", flip(36)),
        ("segmentation without checksum", [&[0, 1][..], &good[2..]].concat()),
        ("unknown segmentation", [&[1, 3][..], &good[2..]].concat()),
        ("ether type", change(12, 0x86)),
        ("hardware address", change(0, 0x04)),
    ] {
        let before = world.counters();
        assert_eq!(world.raw(&frame), Vec::<Vec<u8>>::new(), "{what}");
        let after = world.counters();
        let dropped = |counters: exovm_user_net::Counters| {
            counters.dropped_malformed + counters.dropped_checksum + counters.dropped_protocol
        };
        assert_eq!(dropped(after), dropped(before) + 1, "{what}: {after:?}");
    }
}

#[test]
fn partial_checksum_is_believed() {
    let mut world = World::new();
    let mut frame = syn(80);
    frame[0] = 1;
    frame[HEADER_BYTES + 34 + 16] ^= 0xFF;
    assert_eq!(world.raw(&frame).len(), 1);
    assert_eq!(world.counters().dropped_checksum, 0);
}

#[test]
fn fragment_and_foreign_source_are_dropped_and_counted() {
    let mut world = World::new();
    let rewritten = |change: fn(&mut Ipv4Packet<&mut [u8]>)| {
        let mut frame = syn(80);
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[HEADER_BYTES + 14..]);
        change(&mut packet);
        packet.fill_checksum();
        frame
    };
    world.raw(&rewritten(|packet| packet.set_more_frags(true)));
    world.raw(&rewritten(|packet| packet.set_frag_offset(800)));
    world.raw(&rewritten(|packet| packet.set_src_addr(Ipv4Addr::new(10, 0, 2, 16))));
    let counters = world.counters();
    assert_eq!((counters.dropped_fragments, counters.dropped_spoofed, counters.refused), (2, 1, 0));
}

/// A client's connection, whose other end is played by hand.
struct ByHand {
    client: std::net::TcpStream,
    port: u16,
    ours: TcpSeqNumber,
    theirs: TcpSeqNumber,
}

impl ByHand {
    /// With this window and maximum segment size in the guest's SYN.
    fn accept(world: &mut World, window: u16, mss: u16) -> Self {
        let client = std::net::TcpStream::connect(world.address()).unwrap();
        client.set_nonblocking(true).unwrap();
        let first = world.until_raw();
        let (theirs, port) = (parsed(&first).seq_number + 1, parsed(&first).src_port);
        let ours = TcpSeqNumber(1_000_000);
        world.raw(&segment((GATEWAY_ADDRESS, port), 80, |tcp| {
            tcp.control = TcpControl::Syn;
            (tcp.seq_number, tcp.ack_number) = (ours, Some(theirs));
            (tcp.window_len, tcp.max_seg_size) = (window, Some(mss));
        }));
        Self { client, port, ours: ours + 1, theirs }
    }

    fn segment<'a>(&self, change: impl FnOnce(&mut TcpRepr<'a>)) -> Vec<u8> {
        segment((GATEWAY_ADDRESS, self.port), 80, |tcp| {
            (tcp.seq_number, tcp.ack_number) = (self.ours, Some(self.theirs));
            change(tcp);
        })
    }
}

#[test]
fn padding_of_a_short_frame_is_no_data() {
    use std::io::Read;
    let mut world = World::new();
    let mut by_hand = ByHand::accept(&mut world, 60_000, 1460);
    for padding in [0, 5] {
        let mut frame = by_hand.segment(|tcp| tcp.payload = b"x");
        frame.resize(frame.len() + padding, 0xA5);
        world.raw(&frame);
        by_hand.ours += 1;
        let mut bytes = [0; 10];
        assert_eq!(by_hand.client.read(&mut bytes).unwrap(), 1, "{padding}");
    }
    assert_eq!(world.counters().dropped_checksum, 0);
}

#[test]
fn frames_are_no_longer_than_the_network_carries_whatever_the_guest_says() {
    use std::io::Write;
    let mut world = World::new();
    let mut by_hand = ByHand::accept(&mut world, 60_000, 9000);
    by_hand.client.write_all(&[0x5A; 20_000]).unwrap();
    let ack = by_hand.segment(|tcp| tcp.window_len = 60_000);
    let longest = world.raw(&ack).iter().map(Vec::len).max();
    assert_eq!(longest, Some(HEADER_BYTES + 14 + MTU_BYTES));
}

#[test]
fn much_that_happens_and_is_nothing_for_the_guest_holds_up_nobody() {
    use std::io::Write;
    // Eight looks at 64 events each.
    const EVENTS: usize = 8 * 64 - 20;
    let mut world = World::new();
    let mut closed: Vec<_> = (0..EVENTS).map(|_| ByHand::accept(&mut world, 0, 1460)).collect();
    let mut open = ByHand::accept(&mut world, 60_000, 1460);
    assert_eq!(world.raw(&[]).len(), 0);
    closed.iter_mut().for_each(|by_hand| by_hand.client.write_all(b"x").unwrap());
    open.client.write_all(b"open").unwrap();
    assert_eq!(world.net.output(world.now()), None, "then others have their turn");
    assert!(world.wait(std::time::Duration::from_secs(5)), "the rest is not forgotten");
    assert_eq!(parsed(&world.until_raw()).payload, b"open");
}

/// A question of the guest who has an address.
fn arp(sender: [u8; 6], own: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    frame.extend([0xFF; 6]);
    frame.extend(GUEST_MAC);
    // RFC 826: Ethernet, IPv4, lengths, a request.
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(sender);
    frame.extend(own.octets());
    frame.extend([0; 6]);
    frame.extend(wanted.octets());
    frame
}

#[test]
fn question_for_an_address_is_answered_for_all_but_the_guests_own_and_foreign_ones() {
    let mut world = World::new();
    let any = Ipv4Addr::new(10, 0, 2, 77);
    for (own, wanted, answers) in [
        (GUEST_ADDRESS, GATEWAY_ADDRESS, 1),
        (GUEST_ADDRESS, any, 1),
        (Ipv4Addr::UNSPECIFIED, any, 1),
        (Ipv4Addr::UNSPECIFIED, GUEST_ADDRESS, 0),
        (GUEST_ADDRESS, Ipv4Addr::new(10, 0, 3, 2), 0),
        (any, GATEWAY_ADDRESS, 0),
    ] {
        assert_eq!(world.raw(&arp(GUEST_MAC, own, wanted)).len(), answers, "{own} {wanted}");
    }
    assert_eq!(world.counters().dropped_spoofed, 1);
    assert!(world.raw(&arp([0xFF; 6], GUEST_ADDRESS, GATEWAY_ADDRESS)).is_empty());
    assert_eq!(world.counters().dropped_malformed, 1);
}

#[test]
fn guest_that_asks_and_takes_no_answer_costs_a_bounded_number_of_them() {
    let mut world = World::new();
    for _ in 0..1000 {
        world.net.input(world.now(), &arp(GUEST_MAC, GUEST_ADDRESS, GATEWAY_ADDRESS));
    }
    let answers = std::iter::from_fn(|| world.net.output(world.now()).map(<[u8]>::len)).count();
    assert_eq!((answers, world.counters().replies_lost), (256, 1000 - 256));
}

/// What to do to a good frame.
#[derive(Clone, Debug)]
enum Mutation {
    Byte { at: usize, to: u8 },
    Cut { to: usize },
    Grow { by: usize },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        6 => (0usize..80, any::<u8>()).prop_map(|(at, to)| Mutation::Byte { at, to }),
        1 => (0usize..80).prop_map(|to| Mutation::Cut { to }),
        1 => (0usize..3000).prop_map(|by| Mutation::Grow { by }),
    ]
}

fn mutated(mut frame: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        match *mutation {
            Mutation::Byte { at, to } => {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = to;
                }
            }
            Mutation::Cut { to } => frame.truncate(to),
            Mutation::Grow { by } => frame.resize(frame.len() + by, 0xA5),
        }
    }
    frame
}

/// A segment for a connection that exists, with anything in its fields.
#[derive(Clone, Debug)]
struct Anything {
    control: u8,
    sequence: i32,
    acknowledgment: Option<i32>,
    window: u16,
    scale: Option<u8>,
    mss: Option<u16>,
    payload: usize,
}

fn anything() -> impl Strategy<Value = Anything> {
    // Numbers near the ones in use are the dangerous ones.
    let near = || prop_oneof![-70_000i32..70_000, any::<i32>()];
    (
        0u8..5,
        near(),
        proptest::option::weighted(0.8, near()),
        any::<u16>(),
        proptest::option::of(any::<u8>()),
        proptest::option::of(any::<u16>()),
        prop_oneof![3 => Just(0usize), 3 => 0usize..3000, 1 => 0usize..60_000],
    )
        .prop_map(|(control, sequence, acknowledgment, window, scale, mss, payload)| Anything {
            control,
            sequence,
            acknowledgment,
            window,
            scale,
            mss,
            payload,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_frames_are_survived(frames in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..200), 1..20))
    {
        let mut world = World::new();
        for frame in frames {
            world.raw(&frame);
        }
        prop_assert_eq!(world.net.connections(), 0);
    }

    #[test]
    fn mutated_frames_are_survived(mutations in proptest::collection::vec(
        proptest::collection::vec(mutation(), 1..4), 1..40))
    {
        let mut world = World::new();
        for mutations in mutations {
            world.raw(&mutated(syn(80), &mutations));
        }
        // It is as good as new.
        let client = std::net::TcpStream::connect(world.address()).unwrap();
        let server = world.listen(80);
        world.until_state(server, State::Established);
        drop(client);
    }

    #[test]
    fn any_segments_for_a_connection_are_survived(segments in proptest::collection::vec(anything(), 1..60)) {
        let mut world = World::new();
        let mut client = std::net::TcpStream::connect(world.address()).unwrap();
        client.set_nonblocking(true).unwrap();
        // Played by hand from the first SYN on.
        let first = world.until_raw();
        let (theirs, port) = (parsed(&first).seq_number, parsed(&first).src_port);
        let ours = TcpSeqNumber(1_000_000);
        world.raw(&segment((GATEWAY_ADDRESS, port), 80, |tcp| {
            tcp.control = TcpControl::Syn;
            tcp.seq_number = ours;
            tcp.ack_number = Some(theirs + 1);
            tcp.window_scale = Some(7);
        }));
        let payload = vec![0x5A; 60_000];
        for (index, anything) in segments.iter().enumerate() {
            let mut frame = segment((GATEWAY_ADDRESS, port), 80, |tcp| {
                tcp.control = [TcpControl::None, TcpControl::Psh, TcpControl::Fin, TcpControl::Syn, TcpControl::Rst]
                    [usize::from(anything.control)];
                tcp.seq_number = TcpSeqNumber(ours.0.wrapping_add(1).wrapping_add(anything.sequence));
                tcp.ack_number =
                    anything.acknowledgment.map(|ack| TcpSeqNumber(theirs.0.wrapping_add(1).wrapping_add(ack)));
                tcp.window_len = anything.window;
                tcp.window_scale = anything.scale;
                tcp.max_seg_size = anything.mss;
                tcp.payload = &payload[..anything.payload];
            });
            frame[0] = 1;
            world.raw(&frame);
            use std::io::{Read, Write};
            let _ = client.write(&payload[..anything.payload / 7]);
            if index % 3 == 0 {
                let _ = client.read(&mut [0; 5000]);
            }
            if index % 10 == 0 {
                world.skip(std::time::Duration::from_millis(700));
            }
        }
    }
}

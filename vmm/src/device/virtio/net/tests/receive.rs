//! Receiving.

use super::*;
use crate::tables::frame::tests::icmpv6_frame;
use abi::flow::HEAR_LINK;
use std::net::Ipv6Addr;

/// Bytes of a receive buffer at `index` of those that lie side by side.
fn buffer(nic: &Nic, environment: u32, index: u64, len: usize) -> Vec<u8> {
    nic.guest.read(buffer_gpa(environment, index * 4096), len)
}

/// The frame as the guest finds it: with the number of buffers in its header.
fn as_received(frame: &[u8], buffers: u16) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[10..12].copy_from_slice(&buffers.to_le_bytes());
    frame
}

#[test]
fn small_frames_take_one_buffer_each_and_show_once_a_batch() {
    let (mut nic, fake) = Nic::new();
    let mut receive = nic.bind(0, 1);
    give_buffers(&mut receive, buffer_gpa(1, 0), 4096, 40);
    for port in 0..5 {
        fake.wire().to_guest.push_back(request(port, b"GET"));
    }
    let worked = nic.work();
    assert_eq!(worked, Worked { received: 5, ..Worked::default() });
    assert_eq!(receive.used_index(), 5);
    for (port, (head, bytes)) in receive.all_used().into_iter().enumerate() {
        let expected = as_received(&request(port as u16, b"GET"), 1);
        assert_eq!((usize::from(head), bytes as usize), (port, expected.len()));
        assert_eq!(buffer(&nic, 1, port as u64, expected.len()), expected);
    }
    assert_eq!(nic.interrupts[0].count(), 1);
    let metrics = nic.function.metrics();
    assert_eq!((metrics.received_frames, metrics.receive_batches, metrics.receive_copied), (5, 1, 0));
}

#[test]
fn large_frame_is_merged_over_buffers() {
    let (mut nic, fake) = Nic::new();
    let mut receive = nic.bind(0, 1);
    give_buffers(&mut receive, buffer_gpa(1, 0), 4096, 20);
    let payload: Vec<u8> = (0..60_000u32).map(|at| (at / 7) as u8).collect();
    let frame = request(80, &payload);
    fake.wire().to_guest.push_back(frame.clone());
    fake.wire().to_guest.push_back(request(81, b"small"));
    assert_eq!(nic.work().received, 2);
    let used = receive.all_used();
    assert_eq!(used.len(), 16);
    assert!(used[..14].iter().all(|&(_, bytes)| bytes == 4096));
    assert_eq!(used[..15].iter().map(|&(_, bytes)| bytes as usize).sum::<usize>(), frame.len());
    // The buffers lie side by side, so the frame does too.
    assert_eq!(buffer(&nic, 1, 0, frame.len()), as_received(&frame, 15));
    let small = request(81, b"small");
    assert_eq!(buffer(&nic, 1, 15, small.len()), as_received(&small, 1));
    assert_eq!(nic.function.metrics().receive_copied, 0);
}

#[test]
fn large_frames_are_taken_where_those_of_either_family_may_be_large() {
    use super::super::bits;
    for (family, received) in [(bits::NET_GUEST_TSO4, 1), (bits::NET_GUEST_TSO6, 1), (0, 0)] {
        let (mut nic, fake) = Nic::with_features(bits::NET_GUEST_CSUM | bits::NET_MRG_RXBUF | family);
        let mut receive = nic.bind(0, 1);
        give_buffers(&mut receive, buffer_gpa(1, 0), 4096, 20);
        fake.wire().to_guest.push_back(request(80, &[5; 20_000]));
        assert_eq!(nic.work().received, received);
        assert_eq!(nic.function.metrics().receive_dropped_length, 1 - u64::from(received));
    }
}

#[test]
fn window_costs_one_buffer_a_small_frame() {
    let (mut nic, fake) = Nic::new();
    let mut receive = nic.bind(0, 1);
    give_buffers(&mut receive, buffer_gpa(1, 0), 4096, 60);
    for at in 0..200 {
        fake.wire().to_guest.push_back(request(at, b"GET"));
        assert_eq!(nic.work().received, 1);
        let (_, bytes) = receive.next_used().expect("one");
        assert_eq!(bytes as usize, request(at, b"GET").len());
        receive.add(&[Piece::into(buffer_gpa(1, u64::from(at) % 60 * 4096), 4096)]);
    }
    assert!(fake.wire().read_pieces.iter().all(|&pieces| pieces == 17), "65 KiB, always");
}

#[test]
fn chains_of_several_pieces_are_buffers_too() {
    let (mut nic, fake) = Nic::new();
    let mut receive = nic.bind(0, 1);
    let gpa = buffer_gpa(1, 0);
    let first =
        receive.add(&[Piece::into(gpa, 4), Piece::into(gpa + 0x1000, 7), Piece::into(gpa + 0x2000, 50)]);
    let second = receive.add(&[Piece::into(gpa + 0x3000, 100)]);
    let frame = request(80, b"a payload that is longer than what is left");
    fake.wire().to_guest.push_back(frame.clone());
    assert_eq!(nic.work().received, 1);
    assert_eq!(receive.all_used(), vec![(first, 61), (second, frame.len() as u32 - 61)]);
    let parts = [(0, 4), (0x1000, 7), (0x2000, 50), (0x3000, frame.len() - 61)];
    let got: Vec<u8> = parts.iter().flat_map(|&(at, len)| nic.guest.read(gpa + at, len)).collect();
    assert_eq!(got, as_received(&frame, 2));
}

#[test]
fn without_merging_a_frame_takes_one_buffer_or_is_dropped() {
    let (mut nic, fake) = Nic::with_features(!super::super::bits::NET_MRG_RXBUF);
    let mut receive = nic.bind(0, 1);
    give_buffers(&mut receive, buffer_gpa(1, 0), 512, 10);
    fake.wire().to_guest.push_back(request(80, &[1; 1000]));
    fake.wire().to_guest.push_back(request(81, b"fits"));
    assert_eq!(nic.work().received, 1);
    assert_eq!(receive.all_used(), vec![(0, request(81, b"fits").len() as u32)]);
    let fits = as_received(&request(81, b"fits"), 1);
    assert_eq!(nic.guest.read(buffer_gpa(1, 0), fits.len()), fits);
    assert_eq!(nic.function.metrics().receive_dropped_buffers, 1);
}

#[test]
fn frame_longer_than_was_negotiated_is_dropped() {
    let (mut nic, fake) = Nic::with_features(super::super::bits::NET_MRG_RXBUF);
    let mut receive = nic.bind(0, 1);
    give_buffers(&mut receive, buffer_gpa(1, 0), 4096, 20);
    fake.wire().to_guest.push_back(request(80, &[1; 1600]));
    fake.wire().to_guest.push_back(request(80, &[1; 1460]));
    fake.wire().to_guest.push_back(vec![0; 13]);
    assert_eq!(nic.work().received, 1);
    assert_eq!(nic.function.metrics().receive_dropped_length, 2);
    assert_eq!(receive.all_used().len(), 1);
}

#[test]
fn frames_wait_in_the_backend_while_there_are_no_buffers() {
    let (mut nic, fake) = Nic::new();
    fake.wire().to_guest.push_back(request(80, b"early"));
    assert!(nic.work().receive_starved, "no queue yet");
    let mut receive = nic.bind(0, 1);
    assert!(nic.work().receive_starved, "no buffers yet");
    assert_eq!(fake.wire().to_guest.len(), 1);
    assert!(!nic.function.arm());
    let old = receive.available;
    give_buffers(&mut receive, buffer_gpa(1, 0), 4096, 20);
    assert!(receive.wants_doorbell(old), "a starved queue asks for its doorbell");
    assert!(nic.function.arm());
    assert_eq!(nic.work(), Worked { received: 1, ..Worked::default() });
    assert!(!nic.function.arm());
    let old = receive.available;
    receive.add(&[Piece::into(buffer_gpa(1, 0), 4096)]);
    assert!(!receive.wants_doorbell(old), "a fed one does not");
}

#[test]
fn frame_too_large_for_the_buffers_is_held_until_there_are_more() {
    let (mut nic, fake) = Nic::new();
    let mut receive = nic.bind(0, 1);
    let gpa = buffer_gpa(1, 0);
    give_buffers(&mut receive, gpa, 4096, 3);
    let frame = request(80, &[5; 20_000]);
    fake.wire().to_guest.push_back(frame.clone());
    fake.wire().to_guest.push_back(request(81, b"next"));
    assert_eq!(nic.work(), Worked { receive_starved: true, ..Worked::default() });
    assert_eq!(nic.work(), Worked { receive_starved: true, ..Worked::default() });
    assert_eq!(receive.used_index(), 0);
    give_buffers(&mut receive, gpa + 3 * 4096, 4096, 17);
    assert_eq!(nic.work().received, 2);
    assert_eq!(receive.all_used().len(), 6);
    assert_eq!(nic.guest.read(gpa, frame.len()), as_received(&frame, 5));
    assert_eq!(nic.function.metrics().receive_copied, 1);
}

#[test]
fn frame_that_never_fits_into_a_full_ring_is_dropped() {
    let (mut nic, fake) = Nic::new();
    let mut receive = nic.bind(0, 1);
    give_buffers(&mut receive, buffer_gpa(1, 0), 64, SIZE.into());
    fake.wire().to_guest.push_back(request(80, &[5; 20_000]));
    fake.wire().to_guest.push_back(request(81, b"next"));
    assert_eq!(nic.work().received, 1);
    assert_eq!(nic.function.metrics().receive_dropped_buffers, 1);
    assert_eq!(receive.all_used().len(), 2, "a small one takes two of them");
}

#[test]
fn divided_flows_take_each_frame_to_its_environment() {
    let (mut nic, fake) = Nic::new();
    let (mut guardian, mut other) = (nic.bind(0, 1), nic.bind(2, 2));
    give_buffers(&mut guardian, buffer_gpa(1, 0), 4096, 20);
    give_buffers(&mut other, buffer_gpa(2, 0), 4096, 20);
    give_port(&mut nic, 80, 2, 1, 1);
    let (web, shell) = (request(80, b"web"), request(22, b"shell"));
    for frame in [&web, &shell, &web] {
        fake.wire().to_guest.push_back(frame.clone());
    }
    assert_eq!(nic.work().received, 3);
    assert_eq!((guardian.all_used().len(), other.all_used().len()), (1, 2));
    assert_eq!(buffer(&nic, 1, 0, shell.len()), as_received(&shell, 1));
    assert_eq!(buffer(&nic, 2, 1, web.len()), as_received(&web, 1));
    assert_eq!((nic.interrupts[0].count(), nic.interrupts[2].count()), (1, 1));
}

/// Advertisements of routers, and what neighbours say in groups, are copied to those that hear of the link; all else has one
/// receiver.
#[test]
fn what_tells_of_the_link_is_copied_to_those_that_hear_it() {
    let (mut nic, fake) = Nic::new();
    let mut queues =
        [(0, 1), (2, 2), (4, 0), (6, 3)].map(|(queue, environment)| nic.bind(queue, environment));
    for (queue, environment) in queues.iter_mut().zip([1, 2, 0]) {
        give_buffers(queue, buffer_gpa(environment, 0), 4096, 20);
    }
    nic.guest.flows.set_root(Some(Target {
        environment: 1,
        queue_pair: 0,
        queue_pairs: 1,
        rights: HEAR_LINK as u16,
    }));
    // Environment 0 has no such right; 3 has, but no buffers; and a sixth one names a queue that is not its.
    for (port, environment, queue_pair, rights) in
        [(80, 2, 1, HEAR_LINK), (81, 0, 2, 0), (82, 3, 3, HEAR_LINK), (83, 6, 2, HEAR_LINK)]
    {
        give_port_with(
            &mut nic,
            port,
            Target { environment, queue_pair, queue_pairs: 1, rights: rights as u16 },
        );
    }
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    let advertisement = with_header(&icmpv6_frame(134, group));
    for frame in [
        advertisement.clone(),
        with_header(&icmpv6_frame(136, own)),
        with_header(&icmpv6_frame(136, group)),
        with_header(&icmpv6_frame(130, group)),
    ] {
        fake.wire().to_guest.push_back(frame);
    }
    nic.work();
    assert_eq!(queues.map(|mut queue| queue.all_used().len()), [4, 2, 0, 0]);
    for environment in [1, 2] {
        assert_eq!(buffer(&nic, environment, 0, advertisement.len()), as_received(&advertisement, 1));
    }
    let metrics = nic.function.metrics();
    assert_eq!((metrics.receive_link_copies, metrics.received_frames), (6, 6));
    assert_eq!((metrics.receive_dropped_buffers, metrics.receive_dropped_queue), (2, 2));
    // Copies are of the budget, too: three are made of an advertisement.
    for _ in 0..2 {
        fake.wire().to_guest.push_back(advertisement.clone());
    }
    let worked = nic.function.work(&nic.ledger, Budget { send_frames: 4, receive_frames: 4 });
    assert!(worked.more_to_receive && fake.wire().to_guest.len() == 1);
}

#[test]
fn environment_without_buffers_loses_its_frames_and_nobody_else_does() {
    let (mut nic, fake) = Nic::new();
    let (mut guardian, other) = (nic.bind(0, 1), nic.bind(2, 2));
    give_buffers(&mut guardian, buffer_gpa(1, 0), 4096, 20);
    give_port(&mut nic, 80, 2, 1, 1);
    fake.wire().to_guest.push_back(request(80, b"web"));
    fake.wire().to_guest.push_back(request(22, b"shell"));
    assert_eq!(nic.work().received, 1);
    assert_eq!((guardian.all_used().len(), other.used_index()), (1, 0));
    assert_eq!(nic.function.metrics().receive_dropped_buffers, 1);
}

#[test]
fn flow_to_a_queue_of_another_environment_delivers_nothing() {
    let (mut nic, fake) = Nic::new();
    let (mut guardian, mut other) = (nic.bind(0, 1), nic.bind(2, 2));
    give_buffers(&mut guardian, buffer_gpa(1, 0), 4096, 20);
    give_buffers(&mut other, buffer_gpa(2, 0), 4096, 20);
    // The flow is environment 3's, the queue environment 2's; port 81's queue does not exist.
    give_port(&mut nic, 80, 3, 1, 1);
    give_port(&mut nic, 81, 3, 100, 1);
    fake.wire().to_guest.push_back(request(80, b"web"));
    fake.wire().to_guest.push_back(request(81, b"web"));
    assert_eq!(nic.work().received, 0);
    assert_eq!(nic.function.metrics().receive_dropped_queue, 2);
    nic.guest.guardian(3, 0, 1);
    fake.wire().to_guest.push_back(request(22, b"shell"));
    assert_eq!(nic.work().received, 0, "the same for the root");
    assert_eq!(nic.function.metrics().receive_dropped_queue, 3);
    nic.guest.flows.set_root(None);
    fake.wire().to_guest.push_back(request(22, b"shell"));
    nic.work();
    assert_eq!(nic.function.metrics().receive_dropped_flow, 1);
    assert_eq!((guardian.used_index(), other.used_index()), (0, 0));
}

#[test]
fn undivided_flow_to_a_queue_of_another_environment_delivers_nothing() {
    let (mut nic, fake) = Nic::new();
    let mut receive = nic.bind(0, 1);
    give_buffers(&mut receive, buffer_gpa(1, 0), 4096, 20);
    nic.guest.guardian(3, 0, 1);
    fake.wire().to_guest.push_back(request(22, b"for three"));
    assert_eq!(nic.work().received, 0);
    assert_eq!(nic.function.metrics().receive_dropped_queue, 1);
    assert_eq!(buffer(&nic, 1, 0, 64), vec![0; 64]);
}

#[test]
fn several_pairs_share_by_connection() {
    let (mut nic, fake) = Nic::new();
    nic.guest.guardian(1, 0, 4);
    let mut receives: Vec<_> = (0..4).map(|pair| nic.bind(2 * pair, 1)).collect();
    for (pair, receive) in receives.iter_mut().enumerate() {
        give_buffers(receive, buffer_gpa(1, pair as u64 * 0x2_0000), 2048, 60);
    }
    let frame = |port| with_header(&tcp_frame((CLIENT, port), (SERVER, 80), b"GET"));
    for round in 0..2 {
        for port in 0..80 {
            fake.wire().to_guest.push_back(frame(port));
        }
        assert_eq!(nic.work().received, 80);
        let counts: Vec<_> = receives.iter_mut().map(|receive| receive.all_used().len()).collect();
        assert!(counts.iter().all(|&count| count > 8), "round {round}: {counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 80);
    }
}

#[test]
fn budget_ends_the_call() {
    let (mut nic, fake) = Nic::new();
    let mut receive = nic.bind(0, 1);
    give_buffers(&mut receive, buffer_gpa(1, 0), 4096, 40);
    for port in 0..10 {
        fake.wire().to_guest.push_back(request(port, b""));
    }
    let worked = nic.function.work(&nic.ledger, Budget { send_frames: 4, receive_frames: 4 });
    assert_eq!((worked.received, worked.more_to_receive), (4, true));
    assert_eq!(nic.work().received, 6);
}

#[test]
fn broken_backend_is_counted_and_survived() {
    let (mut nic, fake) = Nic::new();
    let mut receive = nic.bind(0, 1);
    give_buffers(&mut receive, buffer_gpa(1, 0), 4096, 40);
    fake.wire().broken = true;
    nic.work();
    nic.work();
    assert_eq!(nic.function.metrics().backend_errors, 2);
    fake.wire().broken = false;
    fake.wire().to_guest.push_back(request(80, b""));
    assert_eq!(nic.work().received, 1);
}

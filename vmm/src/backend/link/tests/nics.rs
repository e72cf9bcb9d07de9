//! Two NICs on a pair: from the memory of one guest into the buffers of the other.

use super::*;
use crate::backend::{Filled, Filler};
use crate::device::virtio::features as bits;
use crate::device::virtio::test_utils::nic::{Nic, buffer_gpa, give_buffers};
use crate::device::virtio::test_utils::{Driver, Piece};
use crate::tables::FlowField;
use crate::tables::frame::tests::tcp_frame;
use abi::domain::Rights;
use abi::flow::{ROOT, Target, ipv4};

pub(super) const BUFFER_BYTES: u32 = 4096;
/// Where the sender's frames lie.
pub(super) const FRAMES: u64 = 0x4_0000;

/// The first sends to the second.
struct Bench {
    a: Nic<End>,
    transmit: Driver,
    b: Nic<End>,
    receive: Driver,
    next: u64,
    /// The second's.
    port: Port,
}

impl Bench {
    fn with_features(wanted: u64) -> Self {
        let [first, second] = pair().expect("a pair");
        let mut a = Nic::with_backend(first.plug().expect("free"), !0);
        let mut b = Nic::with_backend(second.plug().expect("free"), wanted);
        let (transmit, receive) = (a.bind(1, 1), b.bind(0, 1));
        Self { a, transmit, b, receive, next: 0, port: second }
    }

    fn new() -> Self {
        Self::with_features(!0)
    }

    /// Gives the receiver so many buffers, side by side, and lets it look at them.
    fn give(&mut self, count: u64) {
        give_buffers(
            &mut self.receive,
            buffer_gpa(1, self.next * u64::from(BUFFER_BYTES)),
            BUFFER_BYTES,
            count,
        );
        self.next += count;
        self.b.work();
    }

    /// Has the sender send a frame.
    fn send(&mut self, frame: &[u8]) {
        self.a.guest.write(buffer_gpa(1, FRAMES), frame);
        self.transmit.add(&[Piece::out(buffer_gpa(1, FRAMES), frame.len() as u32)]);
        self.a.work();
    }

    /// The frames that the receiver's driver finds in its buffers, which lie side by side from the first on.
    fn got(&mut self, lens: &[usize]) -> Vec<Vec<u8>> {
        self.b.work();
        let used = self.receive.all_used();
        let mut at = 0;
        let mut frames = Vec::new();
        let mut used = used.into_iter();
        for &len in lens {
            let buffers = len.div_ceil(BUFFER_BYTES as usize);
            let bytes: usize = used.by_ref().take(buffers).map(|(_, bytes)| bytes as usize).sum();
            assert_eq!(bytes, len);
            frames.push(self.b.guest.read(buffer_gpa(1, at * u64::from(BUFFER_BYTES)), len));
            at += buffers as u64;
        }
        assert_eq!(used.next(), None, "no more than that");
        frames
    }

    /// Divides the receiver's flows: nothing can be lent then.
    fn give_port_81_to_another(&mut self) {
        let flows = &mut self.b.guest.flows;
        let host = FlowField::Destination { address: ipv4([10, 0, 0, 2]), prefix_len: 128 };
        let address = flows.insert(ROOT, host, None).expect("room");
        let tcp = flows.insert(address, FlowField::Protocol(6), None).expect("room");
        let target = Target { environment: 2, queue_pair: 1, queue_pairs: 1, rights: 0 };
        flows.insert(tcp, FlowField::DestinationPort(81), Some(target)).expect("room");
    }

    fn sent_in_place(&self) -> u64 {
        counter(self.a.function.device().backend(), "link_sent_in_place_frames")
    }

    fn of_sender(&self, name: &str) -> u64 {
        counter(self.a.function.device().backend(), name)
    }
}

fn as_received(frame: &[u8], buffers: u16) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[10..12].copy_from_slice(&buffers.to_le_bytes());
    frame
}

#[test]
fn frame_lies_in_the_receivers_buffer_before_the_receiver_does_anything() {
    let mut bench = Bench::new();
    bench.give(8);
    let sent = frame(1, 2, b"straight into the buffer");
    bench.send(&sent);
    assert_eq!(bench.b.guest.read(buffer_gpa(1, 0), sent.len()), sent, "copied by the sender, once");
    assert_eq!(bench.receive.used_index(), 0, "but not shown yet");
    assert_eq!(bench.got(&[sent.len()]), [as_received(&sent, 1)]);
    assert_eq!(bench.sent_in_place(), 1);
    assert_eq!(bench.of_sender("link_sent_queued_frames"), 0);
    assert_eq!(bench.b.function.metrics().receive_copied, 0);
    assert_eq!(bench.b.interrupts[0].count(), 1);
}

#[test]
fn large_frames_are_merged_over_buffers_and_keep_their_header() {
    let mut bench = Bench::new();
    bench.give(40);
    let mut large = frame(1, 2, &(0..60_000u32).map(|at| (at / 9) as u8).collect::<Vec<_>>());
    // NEEDS_CSUM, TCPV4, header length 54, segments of 1448, checksum at 34 + 16.
    large[..10].copy_from_slice(&[1, 1, 54, 0, 0xA8, 5, 34, 0, 16, 0]);
    let small = frame(1, 2, b"small");
    bench.send(&large);
    bench.send(&small);
    let got = bench.got(&[large.len(), small.len()]);
    assert_eq!(got, [as_received(&large, 15), as_received(&small, 1)]);
    assert_eq!(bench.sent_in_place(), 2);
}

#[test]
fn frame_without_room_stays_with_its_sender_until_there_is_some() {
    let mut bench = Bench::new();
    bench.give(2);
    let large = frame(1, 2, &[9; 10_000]);
    bench.send(&large);
    let worked = bench.a.work();
    assert!(worked.backend_full, "held");
    assert_eq!(bench.transmit.used_index(), 0);
    bench.give(2);
    bench.a.work();
    assert_eq!(bench.transmit.used_index(), 1);
    assert_eq!(bench.got(&[large.len()]), [as_received(&large, 3)]);
    assert_eq!((bench.sent_in_place(), bench.of_sender("link_dropped_full")), (1, 0));
}

#[test]
fn guest_that_gives_no_buffers_loses_its_frames_and_holds_its_peer_only_once() {
    let mut bench = Bench::new();
    bench.give(1);
    let fits = frame(1, 2, b"the only buffer");
    bench.send(&fits);
    bench.send(&frame(1, 2, b"held"));
    assert!(bench.a.work().backend_full);
    std::thread::sleep(HOLD);
    for _ in 0..10 {
        bench.send(&frame(1, 2, b"dropped"));
    }
    assert_eq!(bench.transmit.used_index(), 12, "all are off the sender's hands");
    assert_eq!(bench.of_sender("link_dropped_full"), 11);
    assert_eq!(bench.got(&[fits.len()]), [as_received(&fits, 1)]);
}

#[test]
fn frame_that_can_never_fit_is_dropped_at_once() {
    // Without merging, into buffers that are too small for it.
    let mut bench = Bench::with_features(!bits::NET_MRG_RXBUF);
    give_buffers(&mut bench.receive, buffer_gpa(1, 0), 512, 10);
    bench.b.work();
    bench.send(&frame(1, 2, &[1; 1000]));
    bench.send(&frame(1, 2, b"fits"));
    assert_eq!(bench.of_sender("link_dropped_length"), 1);
    assert_eq!(bench.sent_in_place(), 1);
    // Longer than was negotiated.
    let mut bench = Bench::with_features(bits::NET_MRG_RXBUF);
    bench.give(20);
    bench.send(&frame(1, 2, &[1; 1600]));
    assert_eq!(bench.of_sender("link_dropped_length"), 1);
    // Into all the buffers that its driver can ever give.
    let mut bench = Bench::new();
    give_buffers(&mut bench.receive, buffer_gpa(1, 0), 512, 64);
    bench.b.work();
    bench.send(&frame(1, 2, &[1; 60_000]));
    assert_eq!(bench.of_sender("link_dropped_length"), 1);
    assert!(!bench.a.work().backend_full);
}

#[test]
fn frames_from_before_the_first_buffer_come_first() {
    let mut bench = Bench::new();
    let early: Vec<_> = (0..5u8).map(|number| frame(1, 2, &[number; 30])).collect();
    early.iter().for_each(|frame| bench.send(frame));
    assert_eq!(bench.of_sender("link_sent_queued_frames"), 5);
    bench.give(20);
    let late = frame(1, 2, &[9; 30]);
    bench.send(&late);
    let mut expected: Vec<_> = early.iter().map(|frame| as_received(frame, 1)).collect();
    expected.push(as_received(&late, 1));
    assert_eq!(bench.got(&[late.len(); 6]), expected);
    bench.send(&late);
    assert_eq!(bench.sent_in_place(), 2, "then the buffers were lent");
}

#[test]
fn sender_that_never_pauses_does_not_keep_frames_out_of_lent_buffers() {
    let mut bench = Bench::new();
    let frame = frame(1, 2, &[5; 100]);
    for _ in 0..10 {
        bench.send(&frame);
    }
    assert_eq!(bench.of_sender("link_sent_queued_frames"), 10);
    // The receiver takes a frame at a time, and the sender sends the next at once.
    for _ in 0..12 {
        give_buffers(
            &mut bench.receive,
            buffer_gpa(1, bench.next * u64::from(BUFFER_BYTES)),
            BUFFER_BYTES,
            1,
        );
        bench.next += 1;
        bench.b.work();
        bench.send(&frame);
    }
    assert!(bench.sent_in_place() > 0, "still by the queue, and copied twice");
    assert_eq!(bench.of_sender("link_sent_queued_frames"), 10, "what came after was held");
    assert_eq!(bench.of_sender("link_dropped_full"), 0);
}

#[test]
fn queue_that_was_read_empty_is_there_again_where_nothing_is_lent_after_all() {
    let mut bench = Bench::new();
    let frame = frame(1, 2, b"queued");
    bench.send(&frame);
    bench.send(&frame);
    bench.give(1);
    bench.send(&frame);
    assert_eq!(bench.of_sender("link_sent_queued_frames"), 2, "the third waits until these were read");
    bench.give_port_81_to_another();
    bench.give(8);
    bench.a.work();
    assert_eq!(bench.of_sender("link_sent_queued_frames"), 3);
    assert_eq!(bench.sent_in_place(), 0);
}

#[test]
fn frames_in_buffers_that_were_recalled_are_told_while_a_sender_has_the_lock() {
    let mut bench = Bench::new();
    bench.give(8);
    let sent = frame(1, 2, b"in a buffer");
    bench.send(&sent);
    let end = bench.b.function.device_mut().backend_mut();
    end.recall();
    let _sender = bench.port.link.inboxes[1].lock();
    assert_eq!(end.filled(), Filled::Frame(sent.len()));
}

#[test]
fn reset_of_the_queue_takes_its_buffers_back() {
    let mut bench = Bench::new();
    bench.give(8);
    let lost = frame(1, 2, b"in a buffer, not shown");
    bench.send(&lost);
    bench.b.reset_queue(0);
    bench.b.guest.write(buffer_gpa(1, 0), &[0; 4096 * 8]);
    let next = frame(1, 2, b"after the reset");
    bench.send(&next);
    assert_eq!(bench.b.guest.read(buffer_gpa(1, 0), 4096 * 8), vec![0; 4096 * 8], "nobody writes there");
    assert_eq!(counter(bench.b.function.device().backend(), "link_lost_frames"), 1);
    bench.receive = bench.b.bind(0, 1);
    bench.next = 0;
    bench.give(8);
    assert_eq!(bench.got(&[next.len()]), [as_received(&next, 1)], "it waited in the queue");
}

#[test]
fn page_that_was_revoked_is_not_written_and_its_queue_stops() {
    let mut bench = Bench::new();
    bench.give(8);
    bench.b.guest.grant(1, buffer_gpa(1, 0), 4096, Rights::Read);
    bench.b.function.settle();
    bench.send(&frame(1, 2, b"must not arrive"));
    assert_eq!(bench.b.guest.read(buffer_gpa(1, 0), 64), vec![0; 64]);
    assert!(bench.b.work().stopped, "the driver lent what is not its own");
    assert_eq!(bench.b.function.metrics().dma_refusals, 1);
    bench.send(&frame(1, 2, b"nor this"));
    assert_eq!(bench.b.guest.read(buffer_gpa(1, 4096), 64), vec![0; 64]);
}

#[test]
fn revocation_between_the_copy_and_its_showing_stops_the_queue() {
    let mut bench = Bench::new();
    bench.give(8);
    bench.send(&frame(1, 2, b"copied while it was allowed"));
    bench.b.guest.grant(1, buffer_gpa(1, 0), 4096, Rights::None);
    assert!(bench.b.work().stopped);
    assert_eq!(bench.receive.used_index(), 0);
}

#[test]
fn memory_of_a_machine_that_went_is_given_up_and_its_peer_goes_on() {
    let mut bench = Bench::new();
    bench.give(8);
    bench.send(&frame(1, 2, b"x"));
    let memory = std::sync::Arc::downgrade(&bench.b.guest.memory);
    let Bench { mut a, mut transmit, b, receive, .. } = bench;
    drop((b, receive));
    assert_eq!(memory.strong_count(), 0, "the link keeps nothing of it");
    let sent = frame(1, 2, b"for nobody");
    a.guest.write(buffer_gpa(1, FRAMES), &sent);
    transmit.add(&[Piece::out(buffer_gpa(1, FRAMES), sent.len() as u32)]);
    assert_eq!(a.work().sent, 1);
    assert_eq!(counter(a.function.device().backend(), "link_dropped_down"), 1);
}

#[test]
fn sender_that_changes_everything_while_it_is_copied_harms_nobody_else() {
    let mut bench = Bench::new();
    let over = std::sync::atomic::AtomicBool::new(false);
    let memory = std::sync::Arc::clone(&bench.a.guest.memory);
    let table_gpa = bench.transmit.config.descriptors_gpa;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let (mut stopped, mut received) = (0, 0u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use vm_memory::{Bytes, GuestAddress};
            let mut noise = 1u64;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                noise = noise.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                let (at, value) = ((noise >> 33) % 2048, noise >> 50);
                // Of the header's flags and type, what passes the first look now and then.
                let byte = if at % 64 < 2 { value & 1 } else { value };
                memory.write_obj(byte as u8, GuestAddress(buffer_gpa(1, FRAMES) + at % 64)).expect("inside");
                // Lengths and places of descriptors, up to four times longer than what the frame has.
                let entry = table_gpa + 16 * (at % 64);
                memory.write_obj((value % 8000) as u32, GuestAddress(entry + 8)).expect("inside");
            }
        });
        while received < 1000 || stopped < 3 {
            if std::time::Instant::now() >= until {
                over.store(true, std::sync::atomic::Ordering::Relaxed);
                let (a, b) = (bench.a.function.metrics(), bench.b.function.metrics());
                panic!(
                    "{received} received, {stopped} stops: {a:?} {:?} {b:?}",
                    bench.a.function.backend_counters()
                );
            }
            bench.transmit.add(&[Piece::out(buffer_gpa(1, FRAMES), 1000)]);
            if bench.a.work().stopped {
                stopped += 1;
                bench.a.reset_queue(1);
                bench.transmit = bench.a.bind(1, 1);
            }
            bench.b.work();
            let used = bench.receive.all_used();
            for (_, bytes) in used {
                assert!(bytes <= BUFFER_BYTES);
                received += 1;
            }
            // Eight buffers in the first half of the room; what lies behind them is not for frames.
            while bench.receive.available.wrapping_sub(bench.receive.used) < 8 {
                let slot = u64::from(bench.receive.available) % 8;
                bench
                    .receive
                    .add(&[Piece::into(buffer_gpa(1, slot * u64::from(BUFFER_BYTES)), BUFFER_BYTES)]);
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let behind = bench.b.guest.read(buffer_gpa(1, 8 * u64::from(BUFFER_BYTES)), 0x2_0000);
    assert!(behind.iter().all(|&byte| byte == 0), "written outside of the buffers");
    assert!(bench.b.function.metrics().queues_stopped == 0, "the receiver did nothing wrong");
}

#[test]
fn flows_that_become_divided_lose_nothing_and_frames_go_the_other_way() {
    let mut bench = Bench::new();
    bench.give(30);
    let to_port = |port: u16, payload: &[u8]| {
        [&[0; HEADER_BYTES][..], &tcp_frame(([10, 0, 0, 1], 4000), ([10, 0, 0, 2], port), payload)].concat()
    };
    let before = to_port(80, b"before");
    bench.send(&before);
    let mut other = bench.b.bind(2, 2);
    give_buffers(&mut other, buffer_gpa(2, 0), BUFFER_BYTES, 8);
    bench.give_port_81_to_another();
    let (to_first, to_second) = (to_port(80, b"to the first"), to_port(81, b"to the second"));
    bench.send(&to_first);
    bench.send(&to_second);
    let got = bench.got(&[before.len(), to_first.len()]);
    assert_eq!(got, [as_received(&before, 1), as_received(&to_first, 1)]);
    assert_eq!(other.all_used().len(), 1);
    assert_eq!(bench.b.guest.read(buffer_gpa(2, 0), to_second.len()), as_received(&to_second, 1));
    assert_eq!(bench.sent_in_place(), 1, "the sender sees that the buffers are not everybody's any more");
    assert_eq!(bench.b.function.metrics().receive_copied, 2);
}

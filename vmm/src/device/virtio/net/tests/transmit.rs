//! Sending.

use super::*;

/// Puts a frame into the environment's memory and makes it available in one piece.
fn send(
    nic: &Nic,
    driver: &mut crate::device::virtio::test_utils::Driver,
    environment: u32,
    at: u64,
    frame: &[u8],
) -> u16 {
    let gpa = buffer_gpa(environment, at);
    nic.guest.write(gpa, frame);
    driver.add(&[Piece::out(gpa, frame.len() as u32)])
}

#[test]
fn frames_leave_in_order_and_are_gathered_from_their_pieces() {
    let (mut nic, fake) = Nic::new();
    let mut transmit = nic.bind(1, 1);
    let frame = response(80, &[7; 3000]);
    nic.guest.write(buffer_gpa(1, 0), &frame);
    let first = transmit.add(&[
        Piece::out(buffer_gpa(1, 0), 5),
        Piece::out(buffer_gpa(1, 5), 7),
        Piece::out(buffer_gpa(1, 12), 100),
        Piece::out(buffer_gpa(1, 112), frame.len() as u32 - 112),
    ]);
    let second = send(&nic, &mut transmit, 1, 0x2000, &response(81, b"second"));
    let worked = nic.work();
    assert_eq!((worked.sent, worked.more_to_send), (2, false));
    assert_eq!(fake.wire().sent, vec![frame, response(81, b"second")]);
    assert_eq!(transmit.all_used(), vec![(first, 0), (second, 0)]);
    let metrics = nic.function.metrics();
    assert_eq!((metrics.sent_frames, metrics.send_batches), (2, 1));
}

#[test]
fn page_changed_after_queueing_is_sent_as_it_is_when_it_leaves() {
    let (mut nic, fake) = Nic::new();
    let mut transmit = nic.bind(1, 1);
    let before = response(80, b"before");
    let after = response(80, b"after!");
    send(&nic, &mut transmit, 1, 0, &before);
    nic.guest.write(buffer_gpa(1, 0), &after);
    nic.work();
    assert_eq!(fake.wire().sent, vec![after]);
}

/// A backend that looks at the used index while frames leave.
struct Spy {
    memory: Arc<Memory>,
    used_gpa: u64,
    seen: Vec<u16>,
}

impl Backend for Spy {
    fn write_frame(&mut self, _frame: &[IoVec<'_>]) -> Written {
        self.seen.push(self.memory.read_obj(GuestAddress(self.used_gpa + 2)).expect("inside"));
        Written::Sent
    }
    fn read_frame(&mut self, _buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        Ok(None)
    }
    fn set_offloads(&mut self, _offloads: Offloads) -> Result<(), BackendError> {
        Ok(())
    }
    fn event_fd(&self) -> Option<std::os::fd::RawFd> {
        None
    }
}

#[test]
fn used_index_and_interrupt_come_once_a_batch_after_its_last_frame() {
    let guest = crate::device::virtio::test_utils::Guest::new();
    let spy = Spy { memory: guest.memory.clone(), used_gpa: 0, seen: Vec::new() };
    let mut nic = Nic::with_backend(spy, !0);
    let mut transmit = nic.bind(1, 1);
    let memory = nic.guest.memory.clone();
    let backend = nic.function.device_mut().backend_mut();
    (backend.memory, backend.used_gpa) = (memory, transmit.config.used_gpa);
    for batch in 1..=3u16 {
        for _ in 0..10 {
            transmit.add(&[Piece::out(buffer_gpa(1, 0), 100)]);
        }
        transmit.set_used_event((batch - 1) * 10);
        nic.work();
        assert_eq!(nic.function.device_mut().backend_mut().seen.split_off(0), vec![(batch - 1) * 10; 10]);
        assert_eq!(transmit.all_used().len(), 10);
        assert_eq!(nic.interrupts[1].count(), usize::from(batch));
    }
    let metrics = nic.function.metrics();
    assert_eq!(
        (metrics.send_batches, metrics.notifications_sent, metrics.notifications_suppressed),
        (3, 3, 0)
    );
}

#[test]
fn driver_that_wants_no_interrupt_gets_none() {
    let (mut nic, _fake) = Nic::new();
    let mut transmit = nic.bind(1, 1);
    transmit.set_used_event(u16::MAX);
    for _ in 0..5 {
        send(&nic, &mut transmit, 1, 0, &response(80, b""));
        nic.work();
    }
    let metrics = nic.function.metrics();
    assert_eq!((metrics.notifications_sent, metrics.notifications_suppressed), (0, 5));
    assert_eq!(nic.interrupts[1].count(), 0);
}

#[test]
fn backend_without_room_keeps_the_frame_and_nothing_is_lost() {
    let (mut nic, fake) = Nic::new();
    let mut transmit = nic.bind(1, 1);
    let frames: Vec<_> = (0..6).map(|port| response(port, b"data")).collect();
    for (at, frame) in frames.iter().enumerate() {
        send(&nic, &mut transmit, 1, at as u64 * 0x1000, frame);
    }
    fake.wire().room = Some(2);
    let worked = nic.work();
    assert_eq!((worked.sent, worked.backend_full), (2, true));
    assert_eq!(transmit.all_used().len(), 2);
    assert!(nic.work().backend_full);
    assert!(!nic.function.arm(), "frames wait, but not for the driver");
    fake.wire().room = None;
    assert_eq!(nic.work(), Worked { sent: 4, receive_starved: true, ..Worked::default() });
    assert_eq!(fake.wire().sent, frames);
    assert_eq!(transmit.all_used().len(), 4);
}

#[test]
fn frame_refused_by_the_backend_is_dropped_and_counted() {
    let (mut nic, fake) = Nic::new();
    let mut transmit = nic.bind(1, 1);
    fake.wire().refuse = 1;
    send(&nic, &mut transmit, 1, 0, &response(80, b"first"));
    send(&nic, &mut transmit, 1, 0x1000, &response(80, b"second"));
    nic.work();
    assert_eq!(fake.wire().sent, vec![response(80, b"second")]);
    assert_eq!(transmit.all_used().len(), 2, "the driver gets both buffers back");
    assert_eq!(nic.function.metrics().send_dropped_backend, 1);
}

#[test]
fn segmentation_header_passes_and_impossible_ones_are_dropped() {
    let (mut nic, fake) = Nic::new();
    let mut transmit = nic.bind(1, 1);
    let mut large = response(80, &[1; 60_000]);
    large[..12].copy_from_slice(&[1, 1, 54, 0, 0xA8, 5, 34, 0, 16, 0, 0, 0]);
    send(&nic, &mut transmit, 1, 0, &large);
    let mut beyond = response(80, b"");
    beyond[..12].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0xFF, 0, 16, 0, 0, 0]);
    send(&nic, &mut transmit, 1, 0x1_0000, &beyond);
    nic.work();
    assert_eq!(fake.wire().sent, vec![large]);
    assert_eq!(nic.function.metrics().send_dropped_header, 1);
}

#[test]
fn budget_ends_the_call_and_all_queues_get_their_share() {
    let (mut nic, fake) = Nic::new();
    let mut transmits = [nic.bind(1, 1), nic.bind(3, 1)];
    for (port, transmit) in transmits.iter_mut().enumerate() {
        nic.guest.write(buffer_gpa(1, port as u64 * 0x1000), &response(port as u16, b""));
        for _ in 0..10 {
            transmit.add(&[Piece::out(buffer_gpa(1, port as u64 * 0x1000), 66)]);
        }
    }
    let budget = Budget { send_frames: 6, receive_frames: 6 };
    for (sent, more, share) in [(6, true, 0), (6, true, 6), (6, true, 8), (2, false, 10)] {
        let worked = nic.function.work(&nic.ledger, budget);
        assert_eq!((worked.sent, worked.more_to_send), (sent, more));
        let of_the_second = fake.wire().sent.iter().filter(|frame| **frame == response(1, b"")).count();
        assert_eq!(of_the_second, share);
    }
}

#[test]
fn environment_sends_only_what_its_flow_would_get() {
    let (mut nic, fake) = Nic::new();
    let (mut guardian, mut other) = (nic.bind(1, 1), nic.bind(3, 2));
    send(&nic, &mut other, 2, 0, &response(80, b"not yet"));
    nic.work();
    assert_eq!(nic.function.metrics().send_dropped_flow, 1, "undivided: all is the guardian's");
    give_port(&mut nic, 80, 2, 1, 1);
    send(&nic, &mut other, 2, 0, &response(80, b"mine"));
    send(&nic, &mut other, 2, 0x1000, &response(81, b"not mine"));
    let arp = with_header(&[0xFF; 42]);
    send(&nic, &mut other, 2, 0x2000, &arp);
    send(&nic, &mut guardian, 1, 0, &response(80, b"not the guardian's"));
    send(&nic, &mut guardian, 1, 0x1000, &response(81, b"the guardian's"));
    send(&nic, &mut guardian, 1, 0x2000, &arp);
    nic.work();
    let mut sent = fake.wire().sent.clone();
    sent.sort();
    let mut expected = vec![response(80, b"mine"), response(81, b"the guardian's"), arp];
    expected.sort();
    assert_eq!(sent, expected);
    assert_eq!(nic.function.metrics().send_dropped_flow, 4);
    assert_eq!(other.all_used().len(), 4, "dropped frames are given back");
}

#[test]
fn header_is_sent_as_it_was_checked() {
    let (mut nic, fake) = Nic::new();
    let mut transmit = nic.bind(1, 1);
    let mut frame = response(80, b"data");
    // DATA_VALID and unknown flags, lengths without segmentation, a number of buffers: none of it means anything here.
    frame[..12].copy_from_slice(&[0xFE, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    send(&nic, &mut transmit, 1, 0, &frame);
    nic.work();
    assert_eq!(fake.wire().sent, vec![response(80, b"data")]);
}

#[test]
fn queue_enabled_while_somebody_polls_wants_no_doorbell() {
    let (mut nic, _fake) = Nic::new();
    nic.function.disarm();
    let mut transmit = nic.bind(1, 1);
    send(&nic, &mut transmit, 1, 0, &response(80, b""));
    assert!(!transmit.wants_doorbell(0));
    nic.work();
    assert!(!nic.function.arm());
    send(&nic, &mut transmit, 1, 0, &response(80, b""));
    assert!(transmit.wants_doorbell(1));
}

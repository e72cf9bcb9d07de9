//! Bytes through ports: exact, bounded, one publication and at most one interrupt a call.

use super::*;

#[test]
fn bytes_go_both_ways_between_the_right_ports() {
    let mut channel = Channel::new();
    let mut control = Control::ready(&mut channel);
    let mut queues = Vec::new();
    for (port, first) in [(0, 0), (1, 4), (2, 6)] {
        let mut receive = Queue::bind(&mut channel, first, 1);
        receive.give(4);
        let transmit = Queue::bind(&mut channel, first + 1, 1);
        control.say(&mut channel, port, 6, 1);
        queues.push((receive, transmit));
    }
    let sessions: Vec<_> = (0..3).map(|port| attach(&channel.host(port))).collect();
    for (port, (session, (_, transmit))) in sessions.iter().zip(&mut queues).enumerate() {
        transmit.send(&channel, format!("from port {port}").as_bytes());
        session.write(format!("to port {port}").as_bytes());
    }
    channel.work();
    for (port, (session, (receive, transmit))) in sessions.iter().zip(&mut queues).enumerate() {
        assert_eq!(read(session), format!("from port {port}").as_bytes());
        assert_eq!(receive.received(&channel), [format!("to port {port}").into_bytes()]);
        assert_eq!(transmit.driver.all_used().len(), 1);
    }
}

#[test]
fn stream_longer_than_all_buffers_is_exact_both_ways() {
    const LEN: usize = 1 << 20;
    let (mut channel, _control, mut receive, mut transmit) = opened();
    let session = attach(&channel.host(0));
    receive.give(20);
    let sent = pattern(3, LEN);
    let (mut to_guest, mut to_host) = (Vec::new(), Vec::new());
    let (mut written, mut queued, mut in_flight) = (0, 0, 0);
    let mut round = 0;
    while to_guest.len() < LEN || to_host.len() < LEN {
        round += 1;
        assert!(round < 100_000, "it goes on: {} {}", to_guest.len(), to_host.len());
        written += session.write(&sent[written..LEN.min(written + 5000)]);
        while queued < LEN && in_flight < 30 {
            let len = (1 + queued % BUFFER as usize).min(LEN - queued);
            transmit.send(&channel, &sent[queued..queued + len]);
            queued += len;
            in_flight += 1;
        }
        channel.work();
        in_flight -= transmit.driver.all_used().len();
        let received = receive.received(&channel);
        receive.give(received.len());
        to_guest.extend(received.concat());
        let mut bytes = [0; 3000];
        let count = session.peek(&mut bytes);
        session.advance(count);
        to_host.extend_from_slice(&bytes[..count]);
    }
    assert!(to_guest == sent && to_host == sent);
}

#[test]
fn batch_is_published_once_with_one_interrupt() {
    let (mut channel, _control, mut receive, mut transmit) = opened();
    let session = attach(&channel.host(0));
    channel.work();
    receive.give(3);
    session.write(&pattern(0, 3 * BUFFER as usize));
    for _ in 0..10 {
        transmit.send(&channel, b"line\n");
    }
    let before: Vec<_> = channel.interrupts.iter().map(|line| Counter::count(line)).collect();
    let worked = channel.work();
    assert_eq!((worked.taken_bytes, worked.given_bytes), (50, 3 * BUFFER as usize));
    let raised: Vec<_> =
        channel.interrupts.iter().zip(before).map(|(line, before)| line.count() - before).collect();
    assert_eq!(raised[..4], [1, 1, 0, 0]);
    assert_eq!((receive.driver.used_index(), transmit.driver.used_index()), (3, 10));
}

#[test]
fn driver_that_wants_no_interrupt_gets_none() {
    let (mut channel, _control, _receive, mut transmit) = opened();
    transmit.driver.set_used_event(u16::MAX);
    let before = channel.function.metrics().notifications_suppressed;
    transmit.send(&channel, b"quiet");
    assert!(!channel.work().reached_guest);
    assert_eq!(channel.interrupts[1].count(), 0);
    assert_eq!(channel.function.metrics().notifications_suppressed, before + 1);
}

#[test]
fn doorbell_is_asked_for_again_after_each_batch() {
    let (mut channel, _control, mut receive, mut transmit) = opened();
    for _ in 0..5 {
        let old = transmit.driver.available;
        transmit.send(&channel, b"x");
        assert!(transmit.driver.wants_doorbell(old), "nobody polls for a console");
        channel.work();
    }
    let session = attach(&channel.host(0));
    channel.work();
    let old = receive.driver.available;
    receive.give(1);
    assert!(!receive.driver.wants_doorbell(old), "no bytes wait for it");
    session.write(&pattern(0, 2 * BUFFER as usize));
    channel.work();
    let old = receive.driver.available;
    receive.give(1);
    assert!(receive.driver.wants_doorbell(old), "bytes wait for it");
    assert_eq!(channel.work().given_bytes, BUFFER as usize);
}

#[test]
fn slow_client_fills_the_buffer_then_the_ring_and_loses_nothing() {
    let (mut channel, _control, _receive, mut transmit) = opened();
    let session = attach(&channel.host(0));
    let total = BUFFER_BYTES + 20 * BUFFER as usize;
    let mut expected = Vec::new();
    for at in 0..total / BUFFER as usize {
        let bytes = pattern(at * BUFFER as usize, BUFFER as usize);
        transmit.send(&channel, &bytes);
        expected.extend(bytes);
        channel.work();
    }
    assert_eq!(transmit.driver.all_used().len(), BUFFER_BYTES / BUFFER as usize);
    assert_eq!(session.status().unread_bytes, BUFFER_BYTES);
    let blocked = channel.function.metrics().blocked;
    assert_eq!(channel.work(), Worked::default(), "a full buffer costs nothing");
    assert_eq!(channel.function.metrics().blocked, blocked, "nor is it tried again");
    let mut got = Vec::new();
    while got.len() < total {
        got.extend(read(&session));
        channel.work();
    }
    assert!(got == expected);
    assert_eq!(transmit.driver.all_used().len(), 20);
    assert_eq!(channel.function.metrics().discarded_output_bytes, 0);
}

#[test]
fn console_without_a_client_keeps_the_newest_and_counts_the_rest() {
    let (mut channel, _control, _receive, mut transmit) = opened();
    let extra = 10 * BUFFER as usize;
    for at in 0..(BUFFER_BYTES + extra) / BUFFER as usize {
        transmit.send(&channel, &pattern(at * BUFFER as usize, BUFFER as usize));
        channel.work();
        assert_eq!(transmit.driver.all_used().len(), 1, "the guest never waits");
    }
    let session = attach(&channel.host(0));
    assert!(read(&session) == pattern(extra, BUFFER_BYTES));
    assert_eq!(channel.function.metrics().discarded_output_bytes, extra as u64);
}

#[test]
fn stream_without_a_client_keeps_all_and_the_guest_waits() {
    let mut channel = Channel::new();
    let mut control = Control::ready(&mut channel);
    let mut transmit = Queue::bind(&mut channel, 5, 1);
    control.say(&mut channel, 1, 6, 1);
    for at in 0..80 {
        transmit.send(&channel, &pattern(at * BUFFER as usize, BUFFER as usize));
        channel.work();
    }
    assert_eq!(transmit.driver.all_used().len(), 64);
    let session = attach(&channel.host(1));
    let mut got = Vec::new();
    while got.len() < 80 * BUFFER as usize {
        got.extend(read(&session));
        channel.work();
    }
    assert!(got == pattern(0, 80 * BUFFER as usize));
    assert_eq!(channel.function.metrics().discarded_output_bytes, 0);
}

#[test]
fn next_client_begins_where_the_last_one_stopped_or_a_little_before() {
    let (mut channel, _control, _receive, mut transmit) = opened();
    let host = channel.host(0);
    let session = attach(&host);
    for at in 0..10 {
        transmit.send(&channel, &pattern(at * 1000, 1000));
    }
    channel.work();
    assert_eq!(read(&session).len(), 10_000);
    drop(session);
    transmit.send(&channel, b"unseen");
    channel.work();
    let session = attach(&host);
    assert_eq!(read(&session), b"unseen");
    drop(session);
    let session = host.attach(Begin::Recent, TerminalSize::default()).expect("free");
    let recent = read(&session);
    assert_eq!(recent.len(), RECENT_BYTES);
    assert!(recent.ends_with(b"unseen"));
    drop(session);
    assert!(read(&attach(&host)).is_empty());
}

#[test]
fn flooding_client_is_held_back_at_the_bound() {
    let (mut channel, _control, mut receive, _transmit) = opened();
    let session = attach(&channel.host(0));
    channel.work();
    let flood = pattern(0, 3 * BUFFER_BYTES);
    assert_eq!(session.write(&flood), BUFFER_BYTES);
    assert_eq!(session.write(&flood), 0);
    channel.work();
    assert_eq!(session.write(&flood), 0, "the guest has given no buffers");
    let starved = channel.function.metrics().starved;
    channel.work();
    assert_eq!(channel.function.metrics().starved, starved, "nor are they looked for again");
    receive.give(4);
    channel.work();
    assert_eq!(receive.received(&channel).concat(), flood[..4 * BUFFER as usize]);
    assert_eq!(session.write(&flood[BUFFER_BYTES..]), 4 * BUFFER as usize);
}

#[test]
fn what_a_gone_client_left_is_not_the_next_ones() {
    let (mut channel, mut control, mut receive, _transmit) = opened();
    let host = channel.host(0);
    let session = attach(&host);
    session.write(b"half a li");
    drop(session);
    let session = attach(&host);
    session.write(b"whole\n");
    receive.give(4);
    channel.work();
    assert_eq!(receive.received(&channel), [b"whole\n"]);
    assert_eq!(channel.function.metrics().discarded_input_bytes, 9);
    assert_eq!(control.heard(&mut channel), [message(0, 6, 1)], "the driver never heard of the first");
}

#[test]
fn input_of_a_client_comes_after_the_word_of_it() {
    let (mut channel, mut control, mut receive, _transmit) = opened();
    receive.give(4);
    // No buffers for messages: the port stays silent, too.
    channel.reset_queue(2);
    let mut silent = Queue::bind(&mut channel, 2, 1);
    control.say(&mut channel, 0, 0, 1);
    silent.give(3);
    channel.work();
    control.say(&mut channel, 0, 3, 1);
    silent.give(2);
    control.say(&mut channel, 0, 6, 1);
    let session = attach(&channel.host(0));
    session.write(b"hello");
    channel.work();
    assert!(receive.received(&channel).is_empty());
    silent.give(1);
    channel.work();
    assert_eq!(receive.received(&channel), [b"hello"]);
    assert_eq!(silent.received(&channel).last(), Some(&message(0, 6, 1)));
}

#[test]
fn input_of_the_next_client_waits_for_the_word_of_it_and_comes_then() {
    let (mut channel, mut control, mut receive, _transmit) = opened();
    receive.give(4);
    channel.reset_queue(2);
    let mut messages = Queue::bind(&mut channel, 2, 1);
    // Three ports, then kind and name of the first, then its client.
    control.say(&mut channel, 0, 0, 1);
    messages.give(3);
    channel.work();
    control.say(&mut channel, 0, 3, 1);
    messages.give(3);
    control.say(&mut channel, 0, 6, 1);
    let first = attach(&channel.host(0));
    channel.work();
    assert_eq!(messages.received(&channel).last(), Some(&message(0, 6, 1)));
    drop(first);
    let second = attach(&channel.host(0));
    second.write(b"hello");
    for expected in [message(0, 6, 0), message(0, 6, 1)] {
        channel.work();
        assert!(receive.received(&channel).is_empty());
        messages.give(1);
        channel.work();
        assert_eq!(messages.received(&channel), [expected]);
    }
    assert_eq!(receive.received(&channel), [b"hello"]);
}

#[test]
fn driver_that_begins_anew_gets_no_input_before_the_word_of_its_client() {
    let (mut channel, _control, mut receive, _transmit) = opened();
    let session = attach(&channel.host(0));
    channel.work();
    channel.reset_queue(3);
    receive.give(1);
    session.write(b"for whom?");
    channel.work();
    assert!(receive.received(&channel).is_empty());
}

#[test]
fn input_is_given_only_as_that_of_its_session() {
    let (channel, ..) = opened();
    let host = channel.host(0);
    drop(attach(&host));
    let second = attach(&host);
    second.write(b"mine");
    let mut bytes = [0; 8];
    assert_eq!((host.pop_input(Some(1), &mut bytes), host.pop_input(None, &mut bytes)), (0, 0));
    assert_eq!(host.pop_input(Some(2), &mut bytes), 4);
    assert_eq!(&bytes[..4], b"mine");
}

#[test]
fn one_call_takes_its_share_of_a_flood_and_says_that_there_is_more() {
    const LEN: usize = 400_000;
    // A console without a client takes everything.
    let (mut channel, mut control, _receive, mut transmit) = opened();
    transmit.driver.add(&[Piece::out(environment_gpa(1) + 0x10_0000, LEN as u32)]);
    let mut taken = 0;
    loop {
        let worked = channel.work();
        assert!(worked.taken_bytes < 100_000, "the NIC waits meanwhile");
        taken += worked.taken_bytes;
        if !worked.more {
            break;
        }
    }
    assert_eq!(taken, LEN);
    for _ in 0..64 {
        control.transmit.send(&channel, &message(9, 9, 9));
    }
    let worked = channel.work();
    assert_eq!((worked.messages, worked.more), (64, true));
    assert!(!channel.work().more);
}

#[test]
fn transmit_queue_that_is_reset_gives_its_last_bytes() {
    let (mut channel, _control, _receive, mut transmit) = opened();
    let session = attach(&channel.host(0));
    channel.work();
    transmit.send(&channel, b"last words");
    channel.reset_queue(1);
    assert_eq!(read(&session), b"last words");
}

#[test]
fn chain_of_many_pieces_is_one_run_of_bytes() {
    let (mut channel, _control, mut receive, mut transmit) = opened();
    let session = attach(&channel.host(0));
    channel.work();
    let at = transmit.next_gpa();
    channel.guest.write(at, b"one two three");
    transmit.driver.add(&[Piece::out(at, 4), Piece::out(at + 4, 4), Piece::out(at + 8, 5)]);
    let into = receive.next_gpa();
    receive.driver.add(&[Piece::into(into, 2), Piece::into(into + 100, 20)]);
    session.write(b"abcdef");
    channel.work();
    assert_eq!(read(&session), b"one two three");
    assert_eq!(receive.driver.next_used().map(|used| used.1), Some(6));
    assert_eq!(channel.guest.read(into, 2), b"ab");
    assert_eq!(channel.guest.read(into + 100, 4), b"cdef");
}

#[test]
fn chain_longer_than_the_buffer_goes_through_in_parts() {
    let (mut channel, _control, _receive, mut transmit) = opened();
    let session = attach(&channel.host(0));
    let long = pattern(0, 200_000);
    let gpa = environment_gpa(1) + 0x10_0000;
    channel.guest.write(gpa, &long);
    transmit.driver.add(&[Piece::out(gpa, long.len() as u32)]);
    let mut got = Vec::new();
    while got.len() < long.len() {
        assert_eq!(transmit.driver.used_index(), 0, "it is not done with");
        channel.work();
        let bytes = read(&session);
        assert!(!bytes.is_empty(), "it goes on");
        got.extend(bytes);
    }
    channel.work();
    assert!(got == long);
    assert_eq!(transmit.driver.used_index(), 1);
}

//! Control messages: ports are announced, made ready, named, opened and closed (VIRTIO 1.3 5.3.6.2).

use super::*;

/// `struct virtio_console_control` with bytes behind it.
fn with(message: Vec<u8>, more: &[u8]) -> Vec<u8> {
    [&message[..], more].concat()
}

#[test]
fn ports_are_announced_when_the_driver_is_ready_and_not_before() {
    let mut channel = Channel::new();
    let mut control = Control::bind(&mut channel);
    channel.work();
    assert!(control.heard(&mut channel).is_empty());
    control.say(&mut channel, 0, 0, 1);
    let added: Vec<_> = (0..3).map(|port| message(port, 1, 0)).collect();
    assert_eq!(control.heard(&mut channel), added);
    channel.work();
    assert!(control.heard(&mut channel).is_empty(), "it is said once");
}

#[test]
fn ready_port_gets_its_kind_and_its_name() {
    let mut channel = Channel::new();
    let mut control = Control::bind(&mut channel);
    control.say(&mut channel, 0, 0, 1);
    control.heard(&mut channel);
    control.say(&mut channel, 0, 3, 1);
    let expected = [message(0, 4, 1), with(message(0, 7, 1), b"console")];
    assert_eq!(control.heard(&mut channel), expected);
    control.say(&mut channel, 1, 3, 1);
    assert_eq!(control.heard(&mut channel), [with(message(1, 7, 1), b"control")]);
    control.say(&mut channel, 2, 3, 0);
    assert!(control.heard(&mut channel).is_empty(), "the driver cannot use it");
}

#[test]
fn client_is_announced_with_its_terminal_and_so_is_its_end() {
    let (mut channel, mut control, _receive, _transmit) = opened();
    let host = channel.host(0);
    let size = TerminalSize { columns: 80, rows: 25 };
    let session = host.attach(Begin::Unseen, size).expect("open");
    channel.work();
    let resized = with(message(0, 5, 0), &[80, 0, 25, 0]);
    assert_eq!(control.heard(&mut channel), [resized, message(0, 6, 1)]);
    drop(session);
    channel.work();
    assert_eq!(control.heard(&mut channel), [message(0, 6, 0)]);
    let session = host.attach(Begin::Unseen, size).expect("free");
    channel.work();
    assert_eq!(control.heard(&mut channel), [message(0, 6, 1)], "the terminal is as large as the last one");
    // One goes and one comes between two calls: the driver hears of both.
    drop(session);
    let session = attach(&host);
    channel.work();
    let resized = with(message(0, 5, 0), &[0; 4]);
    assert_eq!(control.heard(&mut channel), [message(0, 6, 0), resized, message(0, 6, 1)]);
    drop(session);
}

#[test]
fn client_before_the_driver_is_told_of_later() {
    let mut channel = Channel::new();
    let host = channel.host(1);
    assert_eq!(host.attach(Begin::Unseen, TerminalSize::default()).err(), Some(AttachError::NotOpen));
    let mut control = Control::ready(&mut channel);
    control.say(&mut channel, 1, 6, 1);
    let _session = attach(&host);
    // The driver begins anew while the client is there, as after a fault.
    control.say(&mut channel, 0, 0, 1);
    control.heard(&mut channel);
    control.say(&mut channel, 1, 3, 1);
    let expected = [with(message(1, 7, 1), b"control"), message(1, 6, 1)];
    assert_eq!(control.heard(&mut channel), expected);
}

#[test]
fn second_client_is_refused_and_the_first_not_disturbed() {
    let (mut channel, _control, _receive, mut transmit) = opened();
    let host = channel.host(0);
    let session = attach(&host);
    assert_eq!(host.attach(Begin::Recent, TerminalSize::default()).err(), Some(AttachError::Taken));
    transmit.send(&channel, b"for the first");
    channel.work();
    assert_eq!(read(&session), b"for the first");
    drop(session);
    attach(&host);
}

#[test]
fn port_closed_by_the_guest_gives_its_last_bytes_and_then_refuses() {
    let (mut channel, mut control, _receive, mut transmit) = opened();
    let host = channel.host(0);
    let session = attach(&host);
    transmit.send(&channel, b"last words");
    control.say(&mut channel, 0, 6, 0);
    let closed = SessionStatus { guest_open: false, unread_bytes: 10, unsent_bytes: 0 };
    assert_eq!(session.status(), closed);
    assert_eq!(read(&session), b"last words");
    drop(session);
    assert_eq!(host.attach(Begin::Unseen, TerminalSize::default()).err(), Some(AttachError::NotOpen));
}

#[test]
fn closing_waits_for_what_the_host_has_no_room_for() {
    let (mut channel, mut control, _receive, mut transmit) = opened();
    let session = attach(&channel.host(0));
    let filler = pattern(0, BUFFER as usize);
    for _ in 0..BUFFER_BYTES / BUFFER as usize {
        transmit.send(&channel, &filler);
        channel.work();
    }
    transmit.driver.all_used();
    transmit.send(&channel, b"one too many");
    control.say(&mut channel, 0, 6, 0);
    assert!(session.status().guest_open, "its last bytes are not here yet");
    read(&session);
    channel.work();
    assert!(!session.status().guest_open);
    assert_eq!(read(&session), b"one too many");
}

#[test]
fn ports_opened_and_closed_a_thousand_times_still_work() {
    let (mut channel, mut control, mut receive, mut transmit) = opened();
    let host = channel.host(0);
    receive.give(8);
    for round in 0..1000 {
        let session = attach(&host);
        session.write(b"in");
        transmit.send(&channel, &[round as u8]);
        channel.work();
        assert_eq!(receive.received(&channel), [b"in"]);
        receive.give(1);
        control.say(&mut channel, 0, 6, 0);
        assert_eq!(read(&session), [round as u8]);
        assert!(!session.status().guest_open);
        drop(session);
        control.say(&mut channel, 0, 6, 1);
        assert_eq!(control.heard(&mut channel), [message(0, 6, 1), message(0, 6, 0)]);
        transmit.driver.all_used();
        control.transmit.driver.all_used();
    }
}

#[test]
fn messages_wait_for_buffers_and_none_is_lost() {
    let mut channel = Channel::new();
    let mut receive = Queue::bind(&mut channel, 2, 1);
    let mut control = Queue::bind(&mut channel, 3, 1);
    control.send(&channel, &message(0, 0, 1));
    let old = receive.driver.available;
    channel.work();
    let mut said = Vec::new();
    for _ in 0..3 {
        assert_eq!(channel.work(), Worked::default(), "nothing to do without buffers");
        receive.give(1);
        assert!(receive.driver.wants_doorbell(old), "whoever sleeps must hear of the buffer");
        assert!(channel.work().reached_guest);
        said.extend(receive.received(&channel));
    }
    assert_eq!(said, (0..3).map(|port| message(port, 1, 0)).collect::<Vec<_>>());
    receive.give(1);
    channel.work();
    assert!(receive.received(&channel).is_empty());
}

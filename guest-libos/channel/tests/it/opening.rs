//! Ports are found by name, opened, closed, and come and go.

use crate::harness::{
    Bench, DEVICE_ADD, DEVICE_REMOVE, PORT_NAME, PORT_OPEN, PORT_READY, RESIZE, SMALL, opened_with_all,
};
use exos_channel::fake::{ALL_FEATURES, ConsoleQueue as _, FakeHal, device, message};
use exos_channel::{Channel, Host, OpenError, Terminal};

fn open(device: &abi::boot::Device) -> Option<OpenError> {
    Channel::open(FakeHal::new(), 0, device, SMALL, &["console"]).err()
}

#[test]
fn open_other_device_or_one_without_names_returns_why() {
    let good = device(ALL_FEATURES);
    assert_eq!(open(&good), None);
    let nic = abi::boot::Device { kind: abi::boot::DEVICE_NET, ..good };
    assert_eq!(open(&nic), Some(OpenError::NotAConsole));
    assert_eq!(open(&device(ALL_FEATURES & !2)), Some(OpenError::OnePort));
    let legacy = open(&device(ALL_FEATURES & !(1 << 32)));
    assert_eq!(legacy, Some(OpenError::Queue(exos_virtqueue::OpenError::LegacyDevice)));
}

#[test]
fn wanted_port_is_opened_when_its_name_is_said_and_others_are_left_alone() {
    let mut bench = Bench::new(ALL_FEATURES, &["control", "console"]);
    assert_eq!(bench.heard(), [message(0, 0, 1, &[])], "the driver is ready");
    for port in 0..3 {
        bench.say(port, DEVICE_ADD, 0, &[]);
    }
    let ready: Vec<_> = (0..3).map(|port| message(port, PORT_READY, 1, &[])).collect();
    assert_eq!(bench.heard(), ready);
    bench.say(0, PORT_NAME, 1, b"other");
    bench.say(2, PORT_NAME, 1, b"console");
    assert_eq!(bench.heard(), [message(2, PORT_OPEN, 1, &[])]);
    assert!(bench.channel.is_open(1) && !bench.channel.is_open(0));
    assert_eq!(bench.hal.bound(), [2, 3, 6, 7], "control queues and those of port 2");
    // The same name again is nobody's.
    bench.say(1, PORT_NAME, 1, b"console");
    assert!(bench.heard().is_empty());
}

#[test]
fn name_of_a_port_that_was_not_announced_is_ignored() {
    let mut bench = Bench::new(ALL_FEATURES, &["console"]);
    bench.say(1, PORT_NAME, 1, b"console");
    assert!(!bench.channel.is_open(0));
    assert_eq!(bench.hal.bound(), [2, 3]);
}

#[test]
fn client_and_its_terminal_are_known() {
    let (mut bench, ..) = opened_with_all();
    assert_eq!(bench.channel.host(0), Host::Absent);
    bench.say(1, RESIZE, 0, &[80, 0, 24, 0]);
    bench.say(1, PORT_OPEN, 1, &[]);
    let terminal = Some(Terminal { columns: 80, rows: 24 });
    assert_eq!(bench.channel.host(0), Host::Attached { client: 1, terminal });
    bench.say(1, PORT_OPEN, 0, &[]);
    assert_eq!(bench.channel.host(0), Host::Absent);
    bench.say(1, RESIZE, 0, &[0; 4]);
    bench.say(1, PORT_OPEN, 1, &[]);
    assert_eq!(bench.channel.host(0), Host::Attached { client: 2, terminal: None });
}

#[test]
fn closed_port_takes_nothing_and_what_was_written_goes_before_the_word_of_it() {
    let (mut bench, _receive, mut transmit) = opened_with_all();
    assert_eq!(bench.channel.write(0, b"last"), 4);
    assert!(bench.channel.close_port(0));
    assert_eq!(transmit.drain(), [b"last"]);
    assert_eq!(bench.heard(), [message(1, PORT_OPEN, 0, &[])]);
    assert_eq!(bench.channel.write(0, b"more"), 0);
    assert!(bench.channel.close_port(0), "it is closed already");
    assert!(bench.channel.reopen_port(0));
    assert_eq!(bench.heard(), [message(1, PORT_OPEN, 1, &[])]);
    assert_eq!(bench.channel.write(0, b"more"), 4);
}

#[test]
fn messages_without_room_are_refused_and_not_lost() {
    let (mut bench, ..) = opened_with_all();
    let mut sent = 0;
    let mut open = true;
    while if open { bench.channel.close_port(0) } else { bench.channel.reopen_port(0) } {
        open = !open;
        sent += 1;
    }
    assert_eq!(sent, 16, "as many as there are buffers");
    assert_eq!(bench.heard().len(), 16);
    assert!(if open { bench.channel.close_port(0) } else { bench.channel.reopen_port(0) });
}

#[test]
fn removed_port_is_unbound_and_can_come_again() {
    let (mut bench, ..) = opened_with_all();
    bench.say(1, DEVICE_REMOVE, 0, &[]);
    assert!(!bench.channel.is_open(0));
    assert_eq!(bench.hal.bound(), [2, 3]);
    bench.say(2, DEVICE_ADD, 0, &[]);
    bench.say(2, PORT_NAME, 1, b"console");
    assert!(bench.channel.is_open(0));
    assert_eq!(bench.hal.bound(), [2, 3, 6, 7]);
}

#[test]
fn port_whose_queues_cannot_be_bound_says_why_and_the_channel_goes_on() {
    let mut bench = Bench::new(ALL_FEATURES, &["console", "control"]);
    bench.hal.refuse_bind(5);
    for (port, name) in [(1, &b"console"[..]), (2, b"control")] {
        bench.say(port, DEVICE_ADD, 0, &[]);
        bench.say(port, PORT_NAME, 1, name);
    }
    assert!(matches!(bench.channel.failure(0), Some(OpenError::Queue(_))));
    assert!(bench.channel.is_open(1));
    assert_eq!(bench.hal.bound(), [2, 3, 6, 7], "nothing half bound");
}

#[test]
fn dropped_channel_gives_all_queues_back() {
    let (bench, ..) = opened_with_all();
    let hal = bench.hal.clone();
    drop(bench);
    assert!(hal.bound().is_empty());
}

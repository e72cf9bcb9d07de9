//! The host channel, from a client's socket to the guest and back.

use exovm::device::virtio::console::BUFFER_BYTES;
use exovm::machine::End;
use exovm::placement::IoMode;
use exovm_ci::{Guest, GuestBuilder};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A probe that runs this case.
fn probe(arguments: &[&str]) -> GuestBuilder {
    Guest::image("probe").no_network().arguments(arguments)
}

/// Bytes that say where in their stream they belong.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + (at >> 8) * 13 + (at >> 16) * 5) as u8).collect()
}

/// What `channel-flood` writes.
fn flood(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at % 251) as u8).collect()
}

fn read_exactly(stream: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap_or_else(|error| panic!("{len} bytes should come: {error}"));
    bytes
}

/// Writes all of it from another thread, and says no more.
fn write_behind(stream: &UnixStream, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
    let mut stream = stream.try_clone().expect("a second descriptor");
    std::thread::spawn(move || {
        stream.write_all(&bytes).expect("the guest takes it");
        stream.shutdown(Shutdown::Write).expect("connected");
    })
}

/// A byte goes to the guest and comes back.
fn assert_echoes(stream: &mut UnixStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("the guest takes it");
    assert_eq!(read_exactly(stream, bytes.len()), bytes);
}

fn wait_for_log(guest: &Guest, part: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !guest.log().iter().any(|line| line.contains(part)) {
        assert!(Instant::now() < deadline, "{part:?} is not said: {:#?}", guest.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn core_channel_echoes_megabytes_exactly_wherever_device_work_is_done() {
    for io in [IoMode::Turn, IoMode::Thread, IoMode::Poll, IoMode::Auto] {
        for port in ["console", "control"] {
            let guest = probe(&["channel-echo", port]).io(io).launch();
            let mut stream = guest.attach(port);
            let sent = pattern(3 << 20);
            let writer = write_behind(&stream, sent.clone());
            let started = Instant::now();
            let mut echoed = Vec::new();
            stream.read_to_end(&mut echoed).expect("the session ends by itself");
            writer.join().expect("all was written");
            assert!(echoed == sent, "{io:?} {port}: {} of {} bytes", echoed.len(), sent.len());
            println!("{io:?} {port}: 3 MiB there and back in {:.2?}", started.elapsed());
            guest.stop();
        }
    }
}

#[test]
fn core_channel_wakes_a_guest_that_sleeps() {
    for io in [IoMode::Turn, IoMode::Thread] {
        let guest = probe(&["channel-echo", "console"]).io(io).launch();
        let mut stream = guest.attach("console");
        for round in 0..200u32 {
            if round % 20 == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
            // The guest sleeps without a deadline: a wake-up that is lost would end the test here.
            assert_echoes(&mut stream, &round.to_le_bytes());
        }
        drop(stream);
        guest.stop();
    }
}

#[test]
fn core_channel_slow_reader_gets_every_byte() {
    const LEN: usize = 400_000;
    let guest = probe(&["channel-flood", "control", &LEN.to_string()]).launch();
    let mut stream = guest.attach("control");
    let mut got = Vec::new();
    while got.len() < LEN {
        let mut part = [0; 10_000];
        let count = stream.read(&mut part).expect("more comes");
        assert_ne!(count, 0, "{} of {LEN} bytes", got.len());
        got.extend_from_slice(&part[..count]);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(got == flood(0, LEN));
    drop(stream);
    guest.stop();
}

#[test]
fn core_stream_without_a_reader_holds_the_guest_and_loses_nothing() {
    const LEN: usize = 1 << 20;
    let guest = probe(&["channel-flood", "control", &LEN.to_string()]).launch();
    std::thread::sleep(Duration::from_millis(200));
    assert!(guest.log().is_empty(), "it waits: {:#?}", guest.log());
    let mut stream = guest.attach("control");
    assert!(read_exactly(&mut stream, LEN) == flood(0, LEN));
    wait_for_log(&guest, "1048576 bytes written");
    drop(stream);
    guest.stop();
}

#[test]
fn core_console_without_a_reader_never_holds_the_guest_and_keeps_the_newest() {
    const LEN: usize = 1 << 20;
    let guest = probe(&["channel-flood", "console", &LEN.to_string()]).launch();
    wait_for_log(&guest, "1048576 bytes written");
    let discarded = || guest.machine().placement().channel().metrics().discarded_output_bytes;
    let deadline = Instant::now() + Duration::from_secs(10);
    while discarded() < (LEN - BUFFER_BYTES) as u64 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(discarded(), (LEN - BUFFER_BYTES) as u64);
    let mut stream = guest.attach("console");
    assert!(read_exactly(&mut stream, BUFFER_BYTES) == flood(LEN - BUFFER_BYTES, BUFFER_BYTES));
    drop(stream);
    guest.stop();
}

#[test]
fn core_flooding_client_is_held_back_and_its_bytes_are_exact() {
    let guest = probe(&["channel-echo", "control"]).launch();
    let mut stream = guest.attach("control");
    let sent = pattern(16 << 20);
    // Nobody reads the echo: everything on the way fills up, and then the client waits.
    stream.set_nonblocking(true).expect("a socket");
    let mut written = 0;
    let mut last_progress = Instant::now();
    while last_progress.elapsed() < Duration::from_millis(500) {
        match stream.write(&sent[written..]) {
            Ok(count) => {
                written += count;
                last_progress = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(written < 4 << 20, "{written} bytes were taken, and nobody reads");
    stream.set_nonblocking(false).expect("a socket");
    assert!(read_exactly(&mut stream, written) == sent[..written]);
    assert_echoes(&mut stream, b"and it goes on");
    drop(stream);
    guest.stop();
}

#[test]
fn core_client_that_dies_in_the_middle_is_followed_by_the_next() {
    let guest = probe(&["channel-echo", "console"]).launch();
    for _ in 0..20 {
        let mut stream = attach_freed(&guest);
        let _ = stream.write(&pattern(100_000));
        let _ = stream.read(&mut [0; 1000]);
        // Gone with bytes on the way in both directions.
        drop(stream);
    }
    // What the dead ones had been owed comes first.
    let mut stream = attach_freed(&guest);
    stream.write_all(b"END OF THE TEST").expect("the guest takes it");
    let mut got = Vec::new();
    while !got.ends_with(b"END OF THE TEST") {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).expect("more comes");
        assert_ne!(count, 0, "the session should go on");
        got.extend_from_slice(&part[..count]);
    }
    drop(stream);
    guest.stop();
}

/// Attaches as soon as the last client's session has ended.
fn attach_freed(guest: &Guest) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match guest.try_attach("console") {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn core_second_client_is_refused_and_the_first_not_disturbed() {
    let guest = probe(&["channel-echo", "console"]).launch();
    let mut first = guest.attach("console");
    assert_echoes(&mut first, b"before");
    let refused = guest.try_attach("console").expect_err("one at a time");
    assert!(refused.to_string().contains("another client is attached"), "{refused}");
    let unknown = guest.try_attach("consul").expect_err("no such port");
    assert!(unknown.to_string().contains("console, control"), "{unknown}");
    assert_echoes(&mut first, b"after");
    drop(first);
    guest.stop();
}

#[test]
fn core_image_without_a_console_says_so() {
    let guest = probe(&["turns"]).launch();
    std::thread::sleep(Duration::from_millis(50));
    let refused = guest.try_attach("console").expect_err("nobody opened it");
    assert!(refused.to_string().contains("has not opened it"), "{refused}");
    guest.stop();
}

#[test]
fn core_guest_that_opens_and_closes_its_port_again_and_again_works_after_it() {
    for io in [IoMode::Turn, IoMode::Thread] {
        let guest = probe(&["channel-blink", "100"]).io(io).launch();
        wait_for_log(&guest, "100 rounds");
        wait_for_log(&guest, "the port is open");
        let mut stream = guest.attach("console");
        // The dots of the rounds that got through.
        stream.write_all(b"!").expect("the guest takes it");
        let mut dots = 0;
        loop {
            match read_exactly(&mut stream, 1)[0] {
                b'.' => dots += 1,
                other => {
                    assert_eq!(other, b'!');
                    break;
                }
            }
        }
        assert!(dots <= 100, "{dots}");
        assert_echoes(&mut stream, b"still here");
        drop(stream);
        guest.stop();
    }
}

#[test]
fn core_nonsense_on_the_queues_stops_them_and_nothing_else() {
    for seed in ["1", "77", "123456789"] {
        let guest = probe(&["channel-nonsense", seed, "40"]).launch();
        wait_for_log(&guest, "rounds of nonsense");
        wait_for_log(&guest, "the port is open");
        let mut stream = guest.attach("console");
        stream.write_all(b"END").expect("the guest takes it");
        let mut got = Vec::new();
        while !got.ends_with(b"END") {
            got.extend(read_exactly(&mut stream, 1));
        }
        drop(stream);
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    }
}

#[test]
fn core_last_words_of_a_machine_reach_its_client() {
    const LEN: usize = 50_000;
    let guest = probe(&["channel-bye", "console", &LEN.to_string()]).launch();
    let mut stream = guest.attach("console");
    stream.write_all(b"?").expect("the guest takes it");
    let (end, log) = guest.wait();
    assert_eq!(end, End::PowerOff { status: 0 }, "{log:#?}");
    let mut words = Vec::new();
    stream.read_to_end(&mut words).expect("the end comes");
    assert!(words == [b'.'; LEN], "{} bytes", words.len());
}

#[test]
fn core_ended_machine_leaves_no_client_waiting() {
    let guest = probe(&["channel-echo", "console"]).launch();
    let mut stream = guest.attach("console");
    let reader = std::thread::spawn(move || stream.read_to_end(&mut Vec::new()).expect("the end comes"));
    guest.stop();
    assert_eq!(reader.join().expect("it ends"), 0);
}

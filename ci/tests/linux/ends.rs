//! How connections begin and end: half-close, both closing at once, both opening at once, refusal, windows that close.

use crate::tap_port::{Faults, LINUX, OURS, start};
use crate::{assert_nothing_is_left, patient, patterned, read_and_compare, read_and_compare_ours, write_all};
use exos_net::Duration as Time;
use exos_sockets::Error;
use exovm_netns::in_namespace;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const PORT: u16 = 7_000;

fn listener() -> TcpListener {
    TcpListener::bind(("0.0.0.0", PORT)).expect("free")
}

fn connect() -> TcpStream {
    patient(
        TcpStream::connect_timeout(&SocketAddr::from((OURS, PORT)), Duration::from_secs(30))
            .expect("we listen"),
    )
}

#[test]
fn who_has_closed_one_side_still_reads_the_other() {
    in_namespace!(|| {
        // Ours closes first, the kernel answers afterwards.
        let listener = listener();
        let running = start(
            Faults::default(),
            |_| (),
            |sockets, _| async move {
                let mut stream = sockets.connect((LINUX, PORT).into()).await.expect("listening");
                write_all(&mut stream, &patterned(1, 0, 10_000)).await;
                stream.close_write();
                read_and_compare_ours(&mut stream, 2).await
            },
        );
        let mut socket = patient(listener.accept().expect("we come").0);
        assert_eq!(read_and_compare(&mut socket, 1), 10_000);
        thread::sleep(Duration::from_millis(200));
        socket.write_all(&patterned(2, 0, 300_000)).expect("half open");
        drop(socket);
        let (read, left) = running.join();
        assert_eq!(read, 300_000);
        assert_nothing_is_left(&left);

        // The kernel closes first.
        let running = start(
            Faults::default(),
            |_| (),
            |sockets, _| async move {
                let (mut stream, _) =
                    sockets.listen(PORT, 1).expect("free").accept().await.expect("a client");
                let read = read_and_compare_ours(&mut stream, 1).await;
                sockets.sleep(Time::from_millis(200)).await;
                write_all(&mut stream, &patterned(2, 0, 300_000)).await;
                read
            },
        );
        let mut socket = connect();
        socket.write_all(&patterned(1, 0, 10_000)).expect("open");
        socket.shutdown(Shutdown::Write).expect("open");
        assert_eq!(read_and_compare(&mut socket, 2), 300_000);
        drop(socket);
        let (read, left) = running.join();
        assert_eq!(read, 10_000);
        assert_nothing_is_left(&left);
    });
}

#[test]
fn both_close_at_once() {
    in_namespace!(|| {
        // With the wire's delay both FINs are on their way at the same time.
        let faults = Faults { delay_ms: 30, ..Faults::default() };
        let listener = listener();
        let running = start(
            faults,
            |_| (),
            |sockets, _| async move {
                let mut stream = sockets.connect((LINUX, PORT).into()).await.expect("listening");
                let mut ready = [0; 1];
                assert_eq!(stream.read(&mut ready).await, Ok(1));
                write_all(&mut stream, &ready).await;
                // The echo needs 30 ms; the kernel closes when it has it.
                sockets.sleep(Time::from_millis(30)).await;
                stream.close_write();
                assert_eq!(stream.read(&mut ready).await, Ok(0));
            },
        );
        let mut socket = patient(listener.accept().expect("we come").0);
        socket.write_all(b"x").expect("open");
        assert_eq!(socket.read(&mut [0; 1]).expect("no stall"), 1);
        socket.shutdown(Shutdown::Write).expect("open");
        assert_eq!(socket.read(&mut [0; 1]).expect("no stall"), 0);
        drop(socket);
        let ((), left) = running.join();
        assert_nothing_is_left(&left);
    });
}

/// A kernel's socket bound to a port, which connects to another while the peer does the same.
fn connect_from(port: u16, to: SocketAddrV4) -> TcpStream {
    // SAFETY: no pointers are passed.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(raw >= 0, "a socket");
    // SAFETY: just opened, and owned by nobody else.
    let socket = unsafe { <TcpStream as std::os::fd::FromRawFd>::from_raw_fd(raw) };
    let address = |at: SocketAddrV4| libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: at.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*at.ip()).to_be() },
        sin_zero: [0; 8],
    };
    let len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    let (from, to) = (address(SocketAddrV4::new(LINUX, port)), address(to));
    // SAFETY: the addresses are sockaddr_in of the length given, and live through the calls.
    let results = unsafe {
        [
            libc::bind(socket.as_raw_fd(), (&raw const from).cast(), len),
            libc::connect(socket.as_raw_fd(), (&raw const to).cast(), len),
        ]
    };
    assert_eq!(results, [0, 0], "{}", std::io::Error::last_os_error());
    patient(socket)
}

#[test]
fn both_open_at_once() {
    in_namespace!(|| {
        let faults = Faults { delay_ms: 50, ..Faults::default() };
        let (ours, kernels) = (40_001, 40_002);
        // The kernel's SYN must find nobody who listens, and ours be under way: so it begins a little before.
        let running = start(
            faults,
            move |config| config.ephemeral_ports = ours..=ours,
            move |sockets, _| async move {
                sockets.sleep(Time::from_millis(300)).await;
                let mut stream = sockets.connect((LINUX, kernels).into()).await.expect("opened by both");
                write_all(&mut stream, &patterned(1, 0, 100_000)).await;
                stream.close_write();
                read_and_compare_ours(&mut stream, 2).await
            },
        );
        let mut socket = loop {
            // Refused by the peer's stack until it opens as well: the kernel's SYN that crosses ours is answered.
            match std::panic::catch_unwind(|| connect_from(kernels, SocketAddrV4::new(OURS, ours))) {
                Ok(socket) => break socket,
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        };
        let mut writer = socket.try_clone().expect("a socket");
        let writing = thread::spawn(move || {
            writer.write_all(&patterned(2, 0, 100_000)).expect("no stall");
            writer.shutdown(Shutdown::Write).expect("open");
        });
        assert_eq!(read_and_compare(&mut socket, 1), 100_000);
        writing.join().expect("wrote it all");
        drop(socket);
        let (read, left) = running.join();
        assert_eq!(read, 100_000);
        assert_eq!((left.counters.active_opens, left.counters.opened), (1, 1));
        assert_nothing_is_left(&left);
    });
}

#[test]
fn closed_port_refuses_and_absent_host_is_unreachable() {
    in_namespace!(|| {
        let running = start(
            Faults::default(),
            |_| (),
            |sockets, _| async move {
                let refused = sockets.connect((LINUX, 9).into()).await.map(|_| ());
                let absent = sockets.connect("10.80.0.77:9".parse().expect("an address")).await.map(|_| ());
                (refused, absent)
            },
        );
        let (ends, left) = running.join();
        assert_eq!(ends, (Err(Error::Refused), Err(Error::Unreachable)));
        assert_nothing_is_left(&left);
        // And the kernel is refused by us, who are there for as long as it asks.
        let asked = Arc::new(AtomicBool::new(false));
        let has_asked = Arc::clone(&asked);
        let running = start(
            Faults::default(),
            |_| (),
            |sockets, _| async move {
                while !has_asked.load(Ordering::Relaxed) {
                    sockets.sleep(Time::from_millis(10)).await;
                }
            },
        );
        let refused = TcpStream::connect_timeout(&SocketAddr::from((OURS, 9)), Duration::from_secs(20));
        asked.store(true, Ordering::Relaxed);
        assert_eq!(refused.expect_err("nobody listens").kind(), std::io::ErrorKind::ConnectionRefused);
        assert_nothing_is_left(&running.join().1);
    });
}

#[test]
fn window_that_closes_for_seconds_opens_again_both_ways() {
    in_namespace!(|| {
        // The kernel does not read for two seconds: we probe, and go on.
        let listener = listener();
        let running = start(
            Faults::default(),
            |_| (),
            |sockets, _| async move {
                let mut stream = sockets.connect((LINUX, PORT).into()).await.expect("listening");
                write_all(&mut stream, &patterned(1, 0, 20 << 20)).await;
            },
        );
        let mut socket = patient(listener.accept().expect("we come").0);
        thread::sleep(Duration::from_secs(2));
        assert_eq!(read_and_compare(&mut socket, 1), 20 << 20);
        drop(socket);
        let ((), left) = running.join();
        assert!(left.counters.zero_windows_in > 0 && left.counters.window_probes > 0, "{:?}", left.counters);
        assert_nothing_is_left(&left);

        // We do not read: the kernel probes, and goes on.
        let running = start(
            Faults::default(),
            |_| (),
            |sockets, _| async move {
                let (mut stream, _) =
                    sockets.listen(PORT, 1).expect("free").accept().await.expect("a client");
                sockets.sleep(Time::from_secs(2)).await;
                read_and_compare_ours(&mut stream, 2).await
            },
        );
        let mut socket = connect();
        socket.write_all(&patterned(2, 0, 20 << 20)).expect("no stall");
        drop(socket);
        let (read, left) = running.join();
        assert_eq!(read, 20 << 20);
        assert!(left.counters.zero_windows_out > 0, "{:?}", left.counters);
        assert_nothing_is_left(&left);
    });
}

#[test]
fn kernel_that_reads_little_by_little_with_a_small_buffer_stalls_nobody() {
    in_namespace!(|| {
        let listener = listener();
        let small: libc::c_int = 4_096;
        // SAFETY: the option's value is an int that lives through the call.
        let result = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                (&raw const small).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        assert_eq!(result, 0);
        let running = start(
            Faults::default(),
            |_| (),
            |sockets, _| async move {
                let mut stream = sockets.connect((LINUX, PORT).into()).await.expect("listening");
                write_all(&mut stream, &patterned(1, 0, 500_000)).await;
            },
        );
        let mut socket = patient(listener.accept().expect("we come").0);
        let (mut at, mut size) = (0, 1);
        while at < 500_000 {
            let mut buffer = vec![0; size];
            let len = socket.read(&mut buffer).expect("no stall");
            assert_eq!(crate::difference(1, at, &buffer[..len]), None);
            at += len;
            size = size % 977 + 100;
        }
        drop(socket);
        assert_nothing_is_left(&running.join().1);
    });
}

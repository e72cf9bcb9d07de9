//! The user network with real machines and real clients on the loopback interface: what arrives is what was put in, many
//! clients at once, bad ones beside a good one, and the ends of connections. Nothing here needs a namespace or a TAP.

use exovm::machine::End;
use exovm::placement::IoMode;
use exovm_ci::corpus::{self, Document};
use exovm_ci::http::{Content, request};
use exovm_ci::site::{Pattern, compare};
use exovm_ci::{Client, Guest, Site, host};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const GIB: u64 = 1 << 30;
const CONNECTIONS: usize = 1000;
/// Connections that crawl at once.
const CRAWLERS: usize = 8;
/// What a well-behaved client may have to wait for anything.
const PATIENCE: Duration = Duration::from_secs(1);

fn curl(arguments: &[&str]) -> std::process::Output {
    let output =
        Command::new("curl").args(["--silent", "--show-error", "--max-time", "60"]).args(arguments).output();
    output.expect("this test needs curl")
}

#[test]
fn curl_gets_a_page_and_a_gibibyte_bit_by_bit() {
    let site = Site::new().file("index.html", "home").pattern_file("gigabyte", 42, GIB);
    let guest = Guest::image("cheetah").site(&site).io(IoMode::Auto).user_net().start();
    let url = format!("http://{}/", guest.address());
    let page = curl(&["--include", &url]);
    let text = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nhome"), "{page:?}");
    let mut client = guest.connect();
    client.request("GET", "/gigabyte", "").unwrap();
    let started = Instant::now();
    assert_eq!(client.response_head().unwrap().content_length().unwrap(), GIB);
    compare(client.body(), Pattern::new(42), GIB).unwrap();
    println!("1 GiB, compared: {:.1?}", started.elapsed());
    guest.stop();
}

#[test]
fn documentation_is_served_byte_for_byte() {
    let tree = corpus::documentation();
    let documents = corpus::documents(&tree);
    let guest = Guest::image("cheetah").docroot(&tree).io(IoMode::Auto).user_net().start();
    let next = AtomicUsize::new(0);
    let requests = guest.requests_during(|| {
        std::thread::scope(|scope| {
            for _ in 0..CRAWLERS {
                scope.spawn(|| {
                    let mut client = guest.connect();
                    while let Some(document) = documents.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let Document { path, target } = document;
                        let response = client.get(target).unwrap_or_else(|error| panic!("{target}: {error}"));
                        assert_eq!(response.status(), 200, "{target}");
                        assert!(response.body == std::fs::read(path).unwrap(), "{target} differs");
                    }
                });
            }
        });
    });
    assert_eq!(requests as usize, documents.len());
    guest.stop();
}

#[test]
fn thousand_connections_are_served() {
    host::allow_descriptors(8 * CONNECTIONS as u64);
    let body = Pattern::bytes(1, 20_000);
    let site = Site::new().file("body", &body);
    let guest = Guest::image("cheetah").site(&site).io(IoMode::Auto).user_net().start();
    let requests = guest.requests_during(|| {
        let connect = || (0..CONNECTIONS / 8).map(|_| guest.connect()).collect::<Vec<_>>();
        let mut clients: Vec<Client> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(connect)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(clients.len(), CONNECTIONS);
        for _ in 0..3 {
            clients.iter_mut().for_each(|client| client.request("GET", "/body", "").unwrap());
            for client in &mut clients {
                assert!(client.response(Content::Follows).unwrap().body == body);
            }
        }
    });
    assert_eq!(requests as usize, 3 * CONNECTIONS);
    assert_eq!(guest.machine().account().nic_counter("tcp connections most"), Some(CONNECTIONS as u64));
    guest.stop();
}

/// Sets an integer socket option, as the misbehaviour needs it.
fn set_option<T>(stream: &TcpStream, name: libc::c_int, value: &T) {
    let len = size_of::<T>() as libc::socklen_t;
    let value: *const T = value;
    // SAFETY: the value is readable for the length given during the call.
    let result = unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, name, value.cast(), len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Has the client's end be a reset.
fn reset_at_the_end(stream: &TcpStream) {
    set_option(stream, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 });
}

/// A bad client's connection; its errors are nobody's business.
fn stream(guest: &Guest) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&guest.address(), PATIENCE).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(50))).ok()?;
    stream.set_write_timeout(Some(Duration::from_millis(50))).ok()?;
    Some(stream)
}

/// Stalls, resets and sends garbage, in turn, until it is over. Counts in `all` how often somebody did something.
fn behave_badly(guest: &Guest, over: &AtomicBool, all: &AtomicUsize) {
    let mut stalled = Vec::new();
    let mut deeds = 0;
    while !over.load(Ordering::Relaxed) {
        let Some(mut bad) = stream(guest) else { continue };
        match deeds % 4 {
            // Asks for much and never reads it.
            0 if stalled.len() < 200 => {
                set_option(&bad, libc::SO_RCVBUF, &4096);
                let _ = bad.write_all(request("GET", "/large", "").repeat(4).as_bytes());
                stalled.push(bad);
            }
            // Says nothing, or half of something.
            1 if stalled.len() < 200 => {
                let _ = bad.write_all(b"GET / HT");
                stalled.push(bad);
            }
            // Resets in the middle of an answer.
            2 => {
                reset_at_the_end(&bad);
                let _ = bad.write_all(request("GET", "/large", "").as_bytes());
                let _ = bad.read(&mut [0; 5000]);
            }
            _ => {
                let _ = bad.write_all(&Pattern::bytes(deeds as u64, 3000));
                let _ = bad.read(&mut [0; 500]);
            }
        }
        deeds += 1;
        all.fetch_add(1, Ordering::Relaxed);
    }
}

fn well_behaved_client_beside_bad_ones(mode: IoMode) {
    const ENOUGH: usize = 50;
    host::allow_descriptors(8 * CONNECTIONS as u64);
    let site = Site::new().file("small", "small").pattern_file("large", 5, 1 << 20);
    let guest = Guest::image("cheetah").site(&site).io(mode).user_net().start();
    let (over, deeds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        (0..2).for_each(|_| drop(scope.spawn(|| behave_badly(&guest, &over, &deeds))));
        let good = scope.spawn(|| {
            let mut kept = Client::connect_within(guest.address(), PATIENCE).unwrap();
            let until = Instant::now() + Duration::from_secs(3);
            let mut requests = 0;
            // Longer where a busy host lets neither do much.
            while Instant::now() < until || requests <= ENOUGH || deeds.load(Ordering::Relaxed) <= ENOUGH {
                assert_eq!(kept.get("/small").unwrap().text(), "small");
                let mut new = Client::connect_within(guest.address(), PATIENCE).unwrap();
                assert_eq!(new.get_with("/small", "Connection: close\r\n").unwrap().text(), "small");
                requests += 2;
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let good = good.join();
        over.store(true, Ordering::Relaxed);
        good.expect("the well-behaved client was served");
    });
    assert!(guest.get("/large").body == Pattern::bytes(5, 1 << 20), "it is as good as new");
    assert_eq!(guest.end(), End::PowerOff { status: 0 });
}

#[test]
fn bad_clients_harm_nobody_with_device_work_in_turns() {
    host::undisturbed(|| well_behaved_client_beside_bad_ones(IoMode::Turn));
}

#[test]
fn bad_clients_harm_nobody_wherever_the_load_says() {
    host::undisturbed(|| well_behaved_client_beside_bad_ones(IoMode::Auto));
}

#[test]
fn ends_of_connections_are_passed_on() {
    let site = Site::new().file("small", "small").pattern_file("large", 5, 4 << 20);
    let guest = Guest::image("cheetah").site(&site).user_net().start();
    // Half-closed by the client: the answer comes whole, then the end.
    let mut half = TcpStream::connect(guest.address()).unwrap();
    half.write_all(request("GET", "/large", "").as_bytes()).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    half.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&Pattern::bytes(5, 4 << 20)));
    // Closed by the guest.
    let mut closed = guest.connect();
    assert_eq!(closed.get_with("/small", "Connection: close\r\n").unwrap().text(), "small");
    assert!(closed.is_at_end().unwrap());
    // Reset by the client while an answer is under way: nothing is left of it.
    let mut reset = TcpStream::connect(guest.address()).unwrap();
    reset.write_all(request("GET", "/large", "").as_bytes()).unwrap();
    reset.read_exact(&mut [0; 1000]).unwrap();
    reset_at_the_end(&reset);
    drop((half, closed, reset));
    let deadline = Instant::now() + Duration::from_secs(10);
    let counter = |name: &str| guest.machine().account().nic_counter(name);
    while counter("tcp closed") != counter("tcp accepted") {
        assert!(Instant::now() < deadline, "connections are left: {:?}", guest.machine().account().nic);
        std::thread::sleep(Duration::from_millis(5));
    }
    guest.stop();
}

#[test]
fn port_that_the_guest_does_not_serve_resets_its_clients() {
    let guest = Guest::image("hello").user_net().launch();
    // Before the guest is ready, or on a guest that serves nothing, a client must not wait for nothing.
    let started = Instant::now();
    let mut client = TcpStream::connect(guest.address()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    client.write_all(request("GET", "/", "").as_bytes()).unwrap();
    let mut answer = Vec::new();
    match client.read_to_end(&mut answer) {
        // It was ready in time.
        Ok(_) => assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n")),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert!(matches!(guest.end(), End::PowerOff { status: 0 } | End::Stopped));
}

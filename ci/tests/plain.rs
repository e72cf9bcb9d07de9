//! The HTTP server on sockets: what clients of every kind get from it, and that nothing is left behind of any of them.

use exovm::placement::IoMode;
use exovm::stat::StatSnapshot;
use exovm_ci::sockets::reset;
use exovm_ci::{Client, Guest, Site, host};
use exovm_netns::in_namespace;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// The image's places.
const PLACES: usize = 512;
const LARGE_BYTES: u64 = 64 << 20;
/// How long the end of what was begun may take, on a busy host.
const PATIENCE: Duration = Duration::from_secs(30);

fn site() -> Site {
    Site::new().file("a.txt", "a text").file("sub/index.html", "a page").pattern_file("large", 7, LARGE_BYTES)
}

fn serving(io: IoMode) -> Guest {
    Guest::image("plain").site(&site()).io(io).start()
}

fn value(statistics: &StatSnapshot, layer: &str, name: &str) -> u64 {
    statistics.value(layer, name).unwrap_or_else(|| panic!("no {name} of {layer}"))
}

/// Connections that the server, and the stack below it, still know.
fn left(guest: &Guest) -> [u64; 3] {
    let statistics = guest.machine().statistics();
    let tcp = |name| value(&statistics, "tcp", name);
    [value(&statistics, "http", "connections"), tcp("curr_estab"), tcp("half_open")]
}

/// Waits until nothing is left of connections, and ends the machine.
fn assert_nothing_is_left(guest: Guest) {
    let started = Instant::now();
    while left(&guest) != [0; 3] {
        assert!(started.elapsed() < PATIENCE, "left behind: {:?}", left(&guest));
        // Statistics are published before the guest waits, so somebody has to disturb it.
        assert_eq!(guest.get("/a.txt").text(), "a text");
        std::thread::sleep(Duration::from_millis(10));
    }
    guest.stop();
}

#[test]
fn requests_on_one_connection_are_answered_in_their_order() {
    in_namespace!(|| {
        let guest = serving(IoMode::Turn);
        let mut client = guest.connect();
        for _ in 0..100 {
            client.get("/a.txt").unwrap().assert_status(200).assert_text("a text");
        }
        client.get("/a.txt?query").unwrap().assert_field("Content-Type", "text/plain; charset=utf-8");
        client.get("/sub/").unwrap().assert_text("a page");
        client.get("/none").unwrap().assert_status(404);
        assert_eq!(client.head("/a.txt").unwrap().head.content_length().unwrap(), 6);
        client
            .send(b"GET /a.txt HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\nGET /sub/ HTTP/1.1\r\n\r\n")
            .unwrap();
        for (status, text) in [(200, "a text"), (404, "Not Found\n"), (200, "a page")] {
            let response = client.response(exovm_ci::http::Content::Follows).unwrap();
            response.assert_status(status).assert_text(text);
        }
        let statistics = guest.statistics();
        assert_eq!(value(&statistics, "http", "connections_opened"), 1);
        assert_eq!(value(&statistics, "http", "responses_2xx"), 105);
        assert_eq!(value(&statistics, "http", "responses_4xx"), 2);
        drop(client);
        assert_nothing_is_left(guest);
    });
}

#[test]
fn two_hundred_connections_at_once_are_served_in_turn() {
    in_namespace!(|| {
        host::allow_descriptors(1000);
        let guest = serving(IoMode::Auto);
        let mut clients: Vec<_> = (0..200).map(|_| guest.connect()).collect();
        for round in 0..20 {
            for client in &mut clients {
                client.request("GET", "/a.txt", "").unwrap();
            }
            for client in &mut clients {
                let response = client.response(exovm_ci::http::Content::Follows).unwrap();
                assert_eq!((response.status(), response.text().as_str()), (200, "a text"), "round {round}");
            }
        }
        assert_eq!(value(&guest.statistics(), "http", "connections_opened"), 200);
        drop(clients);
        assert_nothing_is_left(guest);
    });
}

fn large_body_arrives_in(io: IoMode) {
    let guest = serving(io);
    let mut client = guest.connect();
    client.request("GET", "/large", "").unwrap();
    let head = client.response_head().unwrap();
    assert_eq!((head.status, head.content_length().unwrap()), (200, LARGE_BYTES));
    exovm_ci::site::compare(client.body(), exovm_ci::site::Pattern::new(7), LARGE_BYTES).unwrap();
    drop(client);
    assert_nothing_is_left(guest);
}

#[test]
fn large_body_is_bit_identical_with_device_work_in_turns() {
    in_namespace!(|| large_body_arrives_in(IoMode::Turn));
}

#[test]
fn large_body_is_bit_identical_with_device_work_on_a_thread() {
    in_namespace!(|| large_body_arrives_in(IoMode::Thread));
}

#[test]
fn client_that_has_closed_its_side_gets_all_of_its_answer() {
    in_namespace!(|| {
        let guest = serving(IoMode::Turn);
        let mut stream = TcpStream::connect(guest.address()).unwrap();
        stream.write_all(b"GET /large HTTP/1.1\r\n\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let body = exovm_ci::site::Pattern::bytes(7, LARGE_BYTES as usize);
        assert!(all.ends_with(&body), "{} bytes", all.len());
        assert_nothing_is_left(guest);
    });
}

/// Comes for a large file, takes none or a little of it, and is gone.
fn die(guest: &Guest, number: usize) {
    let mut stream = TcpStream::connect(guest.address()).unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\n\r\n").unwrap();
    if !number.is_multiple_of(3) {
        stream.read_exact(&mut vec![0; 1000 * (number % 7)]).unwrap();
    }
    if number.is_multiple_of(2) { reset(stream) } else { drop(stream) }
}

#[test]
fn clients_that_die_in_the_middle_leave_their_places() {
    in_namespace!(|| {
        let guest = serving(IoMode::Turn);
        // Twice as many as there are places.
        for number in 0..2 * PLACES {
            die(&guest, number);
        }
        assert_eq!(guest.get("/a.txt").text(), "a text");
        assert_nothing_is_left(guest);
    });
}

#[test]
fn clients_that_take_nothing_hold_no_more_than_their_buffers() {
    in_namespace!(|| {
        host::allow_descriptors(2 * PLACES as u64);
        let guest = serving(IoMode::Turn);
        let mut held: Vec<_> = (0..PLACES - 8).map(|_| Client::connect(guest.address()).unwrap()).collect();
        for client in &mut held {
            client.request("GET", "/large", "").unwrap();
        }
        // With all but a few places taken and all their buffers full, others are served.
        for _ in 0..20 {
            assert_eq!(guest.get("/a.txt").text(), "a text");
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(held);
        assert_nothing_is_left(guest);
    });
}

#[test]
fn without_a_docroot_it_says_what_to_do() {
    in_namespace!(|| {
        let (_, log) = Guest::image("plain").launch().wait();
        assert!(log.iter().any(|line| line.contains("--docroot DIR")), "{log:?}");
    });
}

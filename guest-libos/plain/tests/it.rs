//! The server on the sockets of this host.

use edge_nal_std::Stack;
use exos_plain::{Counters, File, Files, Unreadable, serve};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

const CHUNK_BYTES: usize = 100_000;
const LARGE_BYTES: usize = 3 << 20;

struct Memory;

struct InMemory {
    bytes: Vec<u8>,
    offset: usize,
    /// Reading fails from here on.
    broken_at: usize,
}

impl Files for Memory {
    type File = InMemory;

    async fn open(&self, path: &str) -> Result<Option<InMemory>, Unreadable> {
        let file = |bytes: Vec<u8>, broken_at| Ok(Some(InMemory { bytes, offset: 0, broken_at }));
        match path {
            "/small" => file(b"small".into(), usize::MAX),
            "/empty" => file(Vec::new(), usize::MAX),
            "/large" => file(large(), usize::MAX),
            "/cut" => file(large(), CHUNK_BYTES),
            "/broken" => Err(Unreadable),
            _ => Ok(None),
        }
    }
}

impl File for InMemory {
    type Chunk = Vec<u8>;

    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn media_type(&self) -> &str {
        "application/octet-stream"
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, Unreadable> {
        if self.offset >= self.broken_at {
            return Err(Unreadable);
        }
        let end = self.bytes.len().min(self.offset + CHUNK_BYTES);
        let chunk = self.bytes[self.offset..end].to_vec();
        self.offset = end;
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }
}

fn large() -> Vec<u8> {
    (0..LARGE_BYTES).map(|at| (at % 251) as u8).collect()
}

/// A server with room for so many connections, on a thread that ends with the test's process.
fn server(connections_max: usize) -> SocketAddr {
    // A port that was free a moment ago.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    std::thread::spawn(move || {
        let counters = Counters::default();
        async_io::block_on(serve(&Stack::new(), address, &Memory, &counters, connections_max))
    });
    while TcpStream::connect(address).is_err() {
        std::thread::yield_now();
    }
    address
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap()
}

/// Sends, closes that side, and reads all that comes.
fn ask(address: SocketAddr, requests: &str) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(requests.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

fn text(address: SocketAddr, requests: &str) -> String {
    String::from_utf8(ask(address, requests)).unwrap()
}

#[test]
fn requests_that_come_together_are_answered_in_their_order() {
    let address = server(4);
    let requests = "GET /small HTTP/1.1\r\n\r\nHEAD /small HTTP/1.1\r\n\r\nGET /empty HTTP/1.1\r\n\r\n\
        GET /none HTTP/1.1\r\n\r\nGET /broken HTTP/1.1\r\n\r\n";
    let answers = text(address, requests);
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect();
    assert_eq!(statuses, ["200", "200", "200", "404", "500"], "{answers}");
    assert_eq!(answers.matches("\r\n\r\nsmall").count(), 1, "{answers}");
    assert_eq!(answers.matches("Content-Length: 5\r\n").count(), 2, "{answers}");
}

#[test]
fn large_file_arrives_whole_after_its_header_came_in_pieces() {
    let address = server(4);
    let mut stream = connect(address);
    for piece in ["GET /la", "rge HTT", "P/1.1\r\nConnection: close\r\n\r", "\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&large()), "{} bytes", answer.len());
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(answer.len() < LARGE_BYTES + 1000);
}

#[test]
fn file_that_cannot_be_read_to_its_end_ends_before_its_length() {
    let address = server(4);
    let mut stream = connect(address);
    stream.write_all(b"GET /cut HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // An end or a reset, and less than was promised.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.len() < LARGE_BYTES, "{}", answer.len());
}

#[test]
fn refused_requests_are_answered_although_the_client_goes_on_sending() {
    let address = server(4);
    let body = "x".repeat(100_000);
    for (request, status) in [
        (format!("POST /small HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{body}"), "405"),
        (format!("nonsense\r\n\r\n{body}"), "400"),
        (format!("GET /small HTTP/1.1\r\nX: {body}"), "431"),
    ] {
        let answer = text(address, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(answer.contains("Connection: close\r\n"), "{answer}");
    }
}

#[test]
fn client_beyond_the_places_waits_for_one() {
    let address = server(2);
    let mut held = [connect(address), connect(address)];
    for stream in &mut held {
        stream.write_all(b"GET /small HTTP/1.1\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    let waiting = std::thread::spawn(move || text(address, "GET /small HTTP/1.1\r\n\r\n"));
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!waiting.is_finished());
    drop(held);
    assert!(waiting.join().unwrap().ends_with("small"));
}

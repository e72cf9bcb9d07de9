//! Runs of webswamp, and the servers that it meets: on Linux sockets, with manners of every kind, and a count of what they did.

use exovm::machine::End;
use exovm_test::{Guest, GuestBuilder};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// The image's exit status.
    pub status: u32,
    /// Its report.
    pub report: Value,
    /// From the start of the machine to its end.
    pub took: Duration,
}

impl Outcome {
    /// A number of the report, such as `"answered"` or `"/errors/refused"`.
    ///
    /// # Panics
    /// If it has none of that name.
    pub fn number(&self, name: &str) -> u64 {
        let pointer = if name.starts_with('/') { name.to_owned() } else { format!("/{name}") };
        let number = self.report.pointer(&pointer).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("no number {name} in {:#}", self.report))
    }

    /// All errors together.
    pub fn errors(&self) -> u64 {
        let errors = self.report["errors"].as_object().expect("errors by kind");
        errors.values().filter_map(Value::as_u64).sum()
    }
}

/// A run of webswamp on TAP 0 with these words, which say the target.
pub fn swamp(words: &str) -> Outcome {
    swamp_of(Guest::image("webswamp"), words)
}

/// The same on a machine to be.
///
/// # Panics
/// If it ends with a fault, or without a report.
pub fn swamp_of(guest: GuestBuilder, words: &str) -> Outcome {
    let words: Vec<&str> = words.split_whitespace().chain(["--json"]).collect();
    let begun = Instant::now();
    let (end, log) = guest.arguments(&words).launch().wait();
    let took = begun.elapsed();
    let End::PowerOff { status } = end else { panic!("{words:?}: {end:?}, after {log:#?}") };
    let report =
        log.iter().find(|line| line.starts_with('{')).and_then(|line| serde_json::from_str(line).ok());
    let report = report.unwrap_or_else(|| panic!("{words:?}: no report in {log:#?}"));
    Outcome { status, report, took }
}

/// What a server does with each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// Answers with so many bytes, and closes if it is asked to.
    Good(usize),
    /// The same, in chunks of 100 bytes.
    Chunked(usize),
    /// Says that more bytes follow than do, and closes.
    SaysMore,
    /// Sends more bytes than it says.
    SaysLess,
    /// Closes in the middle of the head.
    Cuts,
    /// Sends what is no HTTP.
    Garbage,
    /// Resets the connection.
    Resets,
    /// Says nothing.
    Silent,
    /// Has nothing of that name.
    NotFound,
}

/// What a server has done.
#[derive(Debug, Default)]
pub struct Done {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Requests read whole.
    pub requests: AtomicU64,
    /// Bytes sent.
    pub bytes: AtomicU64,
}

/// A server on sockets of this namespace, at any address of it. It ends with the process.
#[derive(Debug)]
pub struct Server {
    /// Its port.
    pub port: u16,
    done: Arc<Done>,
}

impl Server {
    /// Serves from now on.
    pub fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("[::]:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let done = Arc::new(Done::default());
        let of_server = Arc::clone(&done);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                of_server.connections.fetch_add(1, Ordering::Relaxed);
                let done = Arc::clone(&of_server);
                // What becomes of a connection is the client's to say.
                std::thread::spawn(move || serve(stream, manners, &done));
            }
        });
        Self { port, done }
    }

    /// Connections, requests and bytes so far.
    pub fn counts(&self) -> [u64; 3] {
        [&self.done.connections, &self.done.requests, &self.done.bytes]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

fn serve(mut stream: TcpStream, manners: Manners, done: &Done) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut left = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut left)? {
        done.requests.fetch_add(1, Ordering::Relaxed);
        let close = head.contains("\r\nConnection: close\r\n");
        let answer = answer(manners, close);
        // Counted first: the client may be done with it before this goes on.
        done.bytes.fetch_add(answer.len() as u64, Ordering::Relaxed);
        stream.write_all(&answer)?;
        match manners {
            Manners::Good(_) | Manners::Chunked(_) | Manners::NotFound if !close => {}
            Manners::SaysLess if !close => {}
            Manners::Silent => std::thread::sleep(Duration::from_secs(60)),
            Manners::Resets => {
                reset_on_close(&stream);
                return Ok(());
            }
            _ => return stream.shutdown(Shutdown::Write),
        }
    }
    Ok(())
}

/// The head of the next request, up to its empty line; `None`: the client sends no more.
fn read_head(stream: &mut TcpStream, left: &mut Vec<u8>) -> std::io::Result<Option<String>> {
    const END: &[u8] = b"\r\n\r\n";
    loop {
        if let Some(at) = left.windows(END.len()).position(|window| window == END) {
            let head = left.drain(..at + END.len()).collect();
            return Ok(String::from_utf8(head).ok());
        }
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes)? {
            0 => return Ok(None),
            read => left.extend_from_slice(&bytes[..read]),
        }
    }
}

fn answer(manners: Manners, close: bool) -> Vec<u8> {
    let close = if close { "Connection: close\r\n" } else { "" };
    let with = |status: &str, said: usize, sent: usize| {
        let mut answer = format!("HTTP/1.1 {status}\r\n{close}Content-Length: {said}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + sent, b'x');
        answer
    };
    match manners {
        Manners::Good(bytes) => with("200 OK", bytes, bytes),
        Manners::SaysMore => with("200 OK", 100, 90),
        Manners::SaysLess => with("200 OK", 90, 100),
        Manners::NotFound => with("404 Not Found", 3, 3),
        Manners::Cuts => b"HTTP/1.1 200 OK\r\nContent-".to_vec(),
        Manners::Garbage => b"220 mail.example ESMTP\r\n".to_vec(),
        Manners::Resets | Manners::Silent => Vec::new(),
        Manners::Chunked(bytes) => {
            let mut answer =
                format!("HTTP/1.1 200 OK\r\n{close}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            for chunk in vec![b'x'; bytes].chunks(100) {
                answer.extend(format!("{:x}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()));
                answer.extend(b"\r\n");
            }
            answer.extend(b"0\r\n\r\n");
            answer
        }
    }
}

/// Has the end of a connection be a reset.
fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let (value, len) = ((&raw const linger).cast(), size_of_val(&linger) as libc::socklen_t);
    // SAFETY: the value is readable for the length given during the call.
    let result =
        unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// The host's address on TAP 0 with a port, as webswamp sees it.
pub fn host_at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 80, 0, 1], port))
}

//! Our TCP beside Linux's: the same stack that guests run, in this process on a TAP, and the kernel's sockets on the other side, with
//! each of its congestion controls. Every byte is compared; at the end nothing may be left of either.

mod bulk;
mod ecn;
mod ends;
mod short;
mod tap_port;

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

/// How long a test waits for the kernel's side.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that say where they belong, different for each stream.
fn pattern(stream: u64, at: usize) -> u8 {
    let word =
        (at as u64 / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
    (word >> (at % 8 * 8)) as u8
}

fn patterned(stream: u64, from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| pattern(stream, at)).collect()
}

/// Where bytes first differ from what the stream has at `from`.
fn difference(stream: u64, from: usize, bytes: &[u8]) -> Option<usize> {
    bytes.iter().enumerate().find(|(at, byte)| pattern(stream, from + at) != **byte).map(|(at, _)| from + at)
}

/// Patience on a kernel's socket.
fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Reads a kernel's socket to its end and compares; answers how many bytes there were.
fn read_and_compare(socket: &mut TcpStream, stream: u64) -> usize {
    let (mut at, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        let len = socket.read(&mut buffer).expect("no stall");
        assert_eq!(difference(stream, at, &buffer[..len]), None);
        at += len;
        if len == 0 {
            return at;
        }
    }
}

/// Reads a stream of ours to its end and compares; answers how many bytes there were.
async fn read_and_compare_ours(socket: &mut exos_sockets::TcpStream, stream: u64) -> usize {
    let (mut at, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        let len = socket.read(&mut buffer).await.expect("in order");
        assert_eq!(difference(stream, at, &buffer[..len]), None);
        at += len;
        if len == 0 {
            return at;
        }
    }
}

async fn write_all(socket: &mut exos_sockets::TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let len = socket.write(bytes).await.expect("open");
        bytes = &bytes[len..];
    }
}

/// The kernel's TCP sockets on the TAP that are not closed or in TIME-WAIT.
fn kernel_sockets() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("the table of sockets");
    let state = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
    table
        .lines()
        .skip(1)
        .filter(|line| state(line).is_some_and(|state| state != "06" && state != "0A"))
        .map(str::to_owned)
        .collect()
}

/// Our stack goes on until the kernel has no connection to it, or no more patience.
async fn until_the_kernel_has_none(sockets: &exos_sockets::Sockets) {
    let until = std::time::Instant::now() + PATIENCE;
    while !kernel_sockets().is_empty() && std::time::Instant::now() < until {
        sockets.sleep(exos_net::Duration::from_millis(20)).await;
    }
}

/// Nothing is left: neither with us nor, a moment later, with the kernel.
fn assert_nothing_is_left(left: &tap_port::Left) {
    assert_eq!((left.connections, left.streams, left.buffered_bytes), (0, 0, 0), "of ours");
    let until = std::time::Instant::now() + PATIENCE;
    while !kernel_sockets().is_empty() {
        assert!(std::time::Instant::now() < until, "of the kernel's: {:?}", kernel_sockets());
        std::thread::sleep(Duration::from_millis(20));
    }
}

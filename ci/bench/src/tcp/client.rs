//! The client: the kernel's blocking sockets, in a thread on the client's CPU. It believes nothing that it has not compared.

use super::options::Test;
use super::pattern::Pattern;
use super::report::Round;
use super::session::{Order, RECEIPT_BYTES};
use crate::network::{CONGESTION_CONTROL, check_socket};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What one order moves: much more than all buffers, so that filling and draining them does not count.
const BULK_BYTES: u64 = 32 << 20;
/// A read's, and a write's.
const CHUNK_BYTES: usize = 256 << 10;
/// Without progress for so long, the test has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Congestion control where routes have no say, by what a namespace may choose. Without loss they do the same.
const ON_LOOPBACK: [&str; 2] = [CONGESTION_CONTROL, "reno"];

/// What was moved, and in how long.
struct Moved {
    bytes: u64,
    requests: u64,
    time: Duration,
    /// Of each request.
    latencies: Vec<Duration>,
}

/// Does `test` with the stack at `address` for `time` at least, on `cpu`. The processor time of the stack is not in it yet.
pub(crate) fn measure(address: SocketAddr, test: Test, time: Duration, cpu: usize) -> io::Result<Round> {
    let work = move || {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set)?;
        let before = thread_time();
        let moved = match test {
            Test::Send => download(address, time),
            Test::Receive => upload(address, time),
            Test::Exchange1 => exchange(address, time, 1),
            Test::Exchange100 => exchange(address, time, 100),
            Test::Connect => connections(address, time, 100),
        }?;
        Ok(round(moved, thread_time().saturating_sub(before)))
    };
    std::thread::spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn round(mut moved: Moved, client: Duration) -> Round {
    moved.latencies.sort_unstable();
    let quantile = |share: f64| {
        let at = (moved.latencies.len().saturating_sub(1) as f64 * share).round() as usize;
        moved.latencies.get(at).map(|latency| latency.as_nanos() as u64)
    };
    Round {
        bytes: moved.bytes,
        requests: moved.requests,
        time_ns: moved.time.as_nanos() as u64,
        client_cpu_ns: client.as_nanos() as u64,
        stack_cpu_ns: None,
        p50_ns: quantile(0.5),
        p99_ns: quantile(0.99),
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A connection that lasts, with the congestion control that everybody has.
fn connect_and_check(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = connect(address)?;
    choose_congestion_control(&stream, address)?;
    if !address.ip().is_loopback() {
        check_socket(&stream, "the client").map_err(|error| io::Error::other(error.to_string()))?;
    }
    Ok(stream)
}

/// On the loopback interface there is no route of ours that could say it.
pub(crate) fn choose_congestion_control(stream: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    if !peer.ip().is_loopback() {
        return Ok(());
    }
    let tries = ON_LOOPBACK.map(|name| rustix::net::sockopt::set_tcp_congestion(stream, name));
    if tries.iter().any(|tried| tried.is_ok()) { Ok(()) } else { tries[1].map_err(io::Error::from) }
}

fn wrong(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

fn download(address: SocketAddr, time: Duration) -> io::Result<Moved> {
    let pattern = Pattern::get();
    let mut stream = connect_and_check(address)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let (start, mut bytes) = (Instant::now(), 0);
    while start.elapsed() < time {
        stream.write_all(&Order::Send { bytes: BULK_BYTES }.emit())?;
        let mut at = 0;
        while at < BULK_BYTES {
            let room = buffer.len().min((BULK_BYTES - at) as usize);
            let len = stream.read(&mut buffer[..room])?;
            if len == 0 {
                return Err(wrong(format!("it closed after {at} of {BULK_BYTES} bytes")));
            }
            if let Some(position) = pattern.difference(at, &buffer[..len]) {
                return Err(wrong(format!("byte {position} is wrong")));
            }
            at += len as u64;
        }
        bytes += at;
    }
    Ok(Moved { bytes, requests: 0, time: start.elapsed(), latencies: Vec::new() })
}

fn upload(address: SocketAddr, time: Duration) -> io::Result<Moved> {
    let pattern = Pattern::get();
    let mut stream = connect_and_check(address)?;
    let (start, mut bytes) = (Instant::now(), 0);
    while start.elapsed() < time {
        stream.write_all(&Order::Receive { bytes: BULK_BYTES }.emit())?;
        let mut at = 0;
        while at < BULK_BYTES {
            at += stream.write(pattern.piece(at, BULK_BYTES - at))? as u64;
        }
        let mut receipt = [0; RECEIPT_BYTES];
        stream.read_exact(&mut receipt)?;
        let expected = [BULK_BYTES, u64::MAX].map(u64::to_le_bytes).concat();
        if receipt[..] != expected {
            return Err(wrong(format!("its receipt for {BULK_BYTES} bytes says {receipt:?}")));
        }
        bytes += at;
    }
    Ok(Moved { bytes, requests: 0, time: start.elapsed(), latencies: Vec::new() })
}

/// Sends a message that differs from the last one, and compares what comes back.
fn ask(stream: &mut TcpStream, before: &[u8], message: &[u8], answer: &mut [u8]) -> io::Result<()> {
    if before.is_empty() {
        stream.write_all(message)?;
    } else {
        stream.write_all(&[before, message].concat())?;
    }
    stream.read_exact(answer)?;
    if answer != message {
        return Err(wrong(format!("the answer to {message:?} is {answer:?}")));
    }
    Ok(())
}

fn exchange(address: SocketAddr, time: Duration, bytes: u32) -> io::Result<Moved> {
    let pattern = Pattern::get();
    let mut stream = connect_and_check(address)?;
    stream.write_all(&Order::Exchange { bytes }.emit())?;
    let mut answer = vec![0; bytes as usize];
    let (start, mut latencies) = (Instant::now(), Vec::new());
    let mut now = start;
    while now - start < time {
        let message = pattern.piece(latencies.len() as u64, bytes.into());
        ask(&mut stream, &[], message, &mut answer)?;
        let then = std::mem::replace(&mut now, Instant::now());
        latencies.push(now - then);
    }
    let requests = latencies.len() as u64;
    Ok(Moved { bytes: 2 * requests * u64::from(bytes), requests, time: now - start, latencies })
}

fn connections(address: SocketAddr, time: Duration, bytes: u32) -> io::Result<Moved> {
    let pattern = Pattern::get();
    let order = Order::Exchange { bytes }.emit();
    let mut answer = vec![0; bytes as usize];
    let (start, mut latencies) = (Instant::now(), Vec::new());
    let mut now = start;
    while now - start < time {
        let message = pattern.piece(latencies.len() as u64, bytes.into());
        let mut stream = connect(address)?;
        ask(&mut stream, &order, message, &mut answer)?;
        drop(stream);
        let then = std::mem::replace(&mut now, Instant::now());
        latencies.push(now - then);
    }
    let requests = latencies.len() as u64;
    Ok(Moved { bytes: 2 * requests * u64::from(bytes), requests, time: now - start, latencies })
}

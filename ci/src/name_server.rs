//! A name server made by hand, for what dnsmasq does not do: whatever it is asked over UDP has an answer that does not fit (RFC 1035
//! 4.1.1, TC), and over TCP it has manners of every kind.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const HEADER_BYTES: usize = 12;
/// QR, TC, RD and RA; without TC.
const CUT: [u8; 2] = [0x83, 0x80];
const WHOLE: [u8; 2] = [0x81, 0x80];

/// What becomes of a question over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverTcp {
    /// It is answered; the connection stays open for others (RFC 7766 6.2.1).
    Answered,
    /// The same, a byte at a time.
    InPieces,
    /// The same, and more messages follow that nobody asked for.
    AndMore,
    /// The same, without end.
    Endless,
    /// It is answered, and the server's side of the connection is never closed.
    Kept,
    /// Nobody is at the port.
    Refused,
    /// The connection ends with the question.
    Closed,
    /// The same in the middle of the answer.
    ClosedEarly,
    /// Nothing comes.
    Silent,
    /// A length of nothing, and no message.
    NoLength,
    /// The largest length there is, and a few bytes.
    TooLong,
    /// It is cut again.
    Cut,
    /// The answer to another question.
    Another,
}

/// What has been asked, and what became of connections.
#[derive(Debug, Default)]
struct Counts {
    over_udp: AtomicUsize,
    over_tcp: AtomicUsize,
    closed: AtomicUsize,
    reset: AtomicUsize,
}

/// A server at one address. It ends with the process.
#[derive(Debug)]
pub struct NameServer(Arc<Counts>);

impl NameServer {
    /// Has every name be at `found`.
    ///
    /// # Panics
    /// If it cannot listen there.
    pub fn start(at: IpAddr, found: Ipv4Addr, over_tcp: OverTcp) -> Self {
        let counts = Arc::new(Counts::default());
        let at = SocketAddr::new(at, 53);
        let socket = UdpSocket::bind(at).expect("the port is free");
        let of_datagrams = Arc::clone(&counts);
        thread::spawn(move || answer_datagrams(&socket, &of_datagrams));
        if over_tcp != OverTcp::Refused {
            let listener = TcpListener::bind(at).expect("the port is free");
            let of_streams = Arc::clone(&counts);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let counts = Arc::clone(&of_streams);
                    thread::spawn(move || answer_stream(stream, found, over_tcp, &counts));
                }
            });
        }
        Self(counts)
    }

    /// Questions over UDP and over TCP so far.
    pub fn questions(&self) -> (usize, usize) {
        (self.0.over_udp.load(Ordering::Relaxed), self.0.over_tcp.load(Ordering::Relaxed))
    }

    /// Connections that the client has closed in order, and that it has reset.
    pub fn ends(&self) -> (usize, usize) {
        (self.0.closed.load(Ordering::Relaxed), self.0.reset.load(Ordering::Relaxed))
    }
}

fn answer_datagrams(socket: &UdpSocket, counts: &Counts) {
    let mut question = [0; 1_500];
    while let Ok((len, from)) = socket.recv_from(&mut question) {
        counts.over_udp.fetch_add(1, Ordering::Relaxed);
        if let Some(answer) = answer(&question[..len], CUT, None) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn answer_stream(mut stream: TcpStream, found: Ipv4Addr, over_tcp: OverTcp, counts: &Counts) {
    let _ = stream.set_nodelay(true);
    let Some(question) = read_message(&mut stream) else { return };
    counts.over_tcp.fetch_add(1, Ordering::Relaxed);
    let Some(mut answer) = answer(&question, WHOLE, Some(found)) else { return };
    if over_tcp == OverTcp::Cut {
        answer[2..4].copy_from_slice(&CUT);
    }
    if over_tcp == OverTcp::Another {
        answer[0] ^= 1;
    }
    let mut framed = [&(answer.len() as u16).to_be_bytes(), &answer[..]].concat();
    match over_tcp {
        OverTcp::Closed => return,
        OverTcp::ClosedEarly => framed.truncate(framed.len() - 1),
        OverTcp::Silent => framed.clear(),
        OverTcp::NoLength => framed = vec![0, 0],
        OverTcp::TooLong => framed[..2].fill(0xff),
        OverTcp::AndMore => framed = framed.repeat(100),
        _ => {}
    }
    let piece_bytes = if over_tcp == OverTcp::InPieces { 1 } else { framed.len().max(1) };
    for piece in framed.chunks(piece_bytes) {
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    if over_tcp == OverTcp::ClosedEarly {
        return;
    }
    if over_tcp == OverTcp::Endless {
        let more = framed.repeat(100);
        let end = loop {
            if let Err(error) = stream.write_all(&more) {
                break error.kind();
            }
        };
        // The second is said of a connection that the client had closed before.
        if matches!(end, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) {
            counts.reset.fetch_add(1, Ordering::Relaxed);
        }
        return;
    }
    // What the client does now is the end. More from it is none that counts: there is one question a connection.
    let count = match stream.read(&mut [0]) {
        Ok(0) if over_tcp == OverTcp::Kept => {
            // A closed connection is readable for ever, and only its error says that it has been reset.
            while stream.take_error().is_ok_and(|error| error.is_none()) {
                thread::sleep(Duration::from_millis(10));
            }
            &counts.reset
        }
        Ok(0) => &counts.closed,
        Ok(_) => return,
        Err(_) => &counts.reset,
    };
    count.fetch_add(1, Ordering::Relaxed);
}

/// A message behind its length (RFC 1035 4.2.2).
fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

/// An answer with these flags, and with an A record if there is one. `None`: that is no question.
fn answer(question: &[u8], flags: [u8; 2], found: Option<Ipv4Addr>) -> Option<Vec<u8>> {
    let name = question.get(HEADER_BYTES..)?;
    let name_bytes = 1 + name.iter().position(|&byte| byte == 0)?;
    let asked = name.get(..name_bytes + 4)?;
    let records = u8::from(found.is_some());
    let mut bytes = [&question[..2], &flags, &[0, 1, 0, records, 0, 0, 0, 0], asked].concat();
    if let Some(found) = found {
        bytes.extend([0xc0, HEADER_BYTES as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        bytes.extend(found.octets());
    }
    Some(bytes)
}

//! One transfer: our stack with its application, smoltcp with its own, the link between them, and a clock that jumps.

use std::net::SocketAddrV4;

use exos_net::{AckPolicy, Config, ConnId, End, Input, Instant, RxMeta, Stack, TimerEvent, Transmit};
use smoltcp::iface::{Interface, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp;
use smoltcp::time::Instant as PeerInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpEndpoint};

use super::link::{Direction, Faults, Random};
use crate::harness::{CLIENT_IP, CLIENT_MAC, Nic, PORT, SERVER_IP, pattern};
use crate::simulation::smoltcp_device::SmoltcpDevice;

thread_local! {
    static CLIENT_MS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// smoltcp asks for its clock without saying what time it is.
fn client_clock() -> u32 {
    CLIENT_MS.get()
}

/// Who sends the first SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    Peer,
    Us,
}

/// Our application: checks what comes in, at varying appetite; sends a fixed stream; closes after it.
struct App {
    expected: &'static [u8],
    received: usize,
    conn: Option<ConnId>,
    opened: bool,
    peer_closed: bool,
    ended: bool,
}

impl App {
    fn eat(&mut self, bytes: &[u8], appetite: usize) -> usize {
        let len = bytes.len().min(appetite);
        assert!(
            bytes[..len] == self.expected[self.received..self.received + len],
            "wrong bytes at {}",
            self.received
        );
        self.received += len;
        len
    }
}

pub(crate) struct Run {
    pub(crate) faults: Faults,
    /// Whether the client has timestamps. It always permits SACK and reports what it has.
    pub(crate) client_timestamps: bool,
    pub(crate) config: Config,
    pub(crate) upload: usize,
    pub(crate) download: usize,
    pub(crate) seed: u64,
}

impl Run {
    /// Runs to the end of both streams and of the connection, and returns the simulated time in milliseconds.
    pub(crate) fn go(self) -> u64 {
        self.run(Opens::Peer)
    }

    /// The same with our side as the client.
    pub(crate) fn go_active(self) -> u64 {
        self.run(Opens::Us)
    }

    fn run(self, opens: Opens) -> u64 {
        let mut random = Random(self.seed | 1);
        let (upload, download) = (pattern(self.upload), pattern(self.download));
        let mut stack = Stack::new(self.config, Instant::ZERO).unwrap();
        if opens == Opens::Peer {
            stack.listen(PORT).unwrap();
        }
        let mut nic = Nic::default();
        let mut app = App {
            expected: upload,
            received: 0,
            conn: None,
            opened: false,
            peer_closed: false,
            ended: false,
        };

        let mut device = SmoltcpDevice::new(ChecksumCapabilities::default());
        let mac = HardwareAddress::Ethernet(EthernetAddress(CLIENT_MAC.0));
        let mut iface = Interface::new(smoltcp::iface::Config::new(mac), &mut device, PeerInstant::ZERO);
        iface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(CLIENT_IP.into(), 24)).unwrap());
        let buffer = || tcp::SocketBuffer::new(vec![0; 100_000]);
        let mut sockets = SocketSet::new(vec![]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // As it is by itself; a feature that anybody in the build has turns another one on.
        socket.set_congestion_control(tcp::CongestionControl::None);
        let handle = sockets.add(socket);
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        if self.client_timestamps {
            socket.set_tsval_generator(Some(client_clock));
        }
        match opens {
            Opens::Peer => {
                let remote = IpEndpoint::new(SERVER_IP.into(), PORT);
                socket.connect(iface.context(), remote, 49_152).unwrap();
            }
            Opens::Us => {
                socket.listen(PORT).unwrap();
                app.conn = Some(connect(&mut stack, &mut nic, Instant::ZERO, download));
            }
        }
        let (mut uploaded, mut downloaded) = (0, 0);

        let (mut to_server, mut to_client) = (Direction::new(self.faults), Direction::new(self.faults));
        let mut now_us = 0;
        loop {
            assert!(
                now_us < 3_600_000_000,
                "no end after an hour: {app:?} {downloaded} {:?}",
                stack.counters()
            );
            let now = Instant::from_micros(now_us);
            CLIENT_MS.set((now_us / 1_000) as u32);
            // The server.
            while let Some(frame) = to_server.take(now_us) {
                step(&mut stack, &mut nic, &mut app, &frame, now, download, &mut random);
            }
            stack.retry_blocked(now, &mut nic);
            let mut unreachable = false;
            stack.expire(now, &mut nic, |_, event| match event {
                // Three requests or answers in a row were lost.
                TimerEvent::Ended(End::Unreachable) => unreachable = true,
                TimerEvent::Ended(_) => app.ended = true,
                TimerEvent::Retransmitting => {}
                _ => panic!("unknown event"),
            });
            if unreachable {
                app.conn = Some(connect(&mut stack, &mut nic, now, download));
            }
            let appetite = random.next() as usize % 20_000;
            if let Some(conn) = app.conn.filter(|_| !app.ended) {
                let len = app.eat(stack.pending(conn), appetite);
                stack.consume(conn, len).unwrap();
                stack.output(conn, now, &mut nic, AckPolicy::IfDue).unwrap();
            }
            for frame in nic.frames.drain(..) {
                to_client.put(frame, now_us, &mut random);
            }
            // The client.
            while let Some(frame) = to_client.take(now_us) {
                device.received.push_back(frame);
            }
            iface.poll(PeerInstant::from_micros(now_us as i64), &mut device, &mut sockets);
            let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
            if socket.can_send() {
                uploaded += socket.send_slice(&upload[uploaded..]).unwrap();
            }
            if uploaded == upload.len() && socket.may_send() {
                socket.close();
            }
            if socket.can_recv() {
                socket
                    .recv(|bytes| {
                        let len = bytes.len().min(appetite + 1);
                        assert!(bytes[..len] == download[downloaded..downloaded + len]);
                        downloaded += len;
                        (len, ())
                    })
                    .unwrap();
            }
            let socket_readable = socket.can_recv();
            let closed = matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait);
            iface.poll(PeerInstant::from_micros(now_us as i64), &mut device, &mut sockets);
            for frame in device.sent.drain(..) {
                to_server.put(frame, now_us, &mut random);
            }
            if app.ended && closed && !socket_readable {
                break;
            }
            // On to whatever comes next.
            let peer = iface.poll_at(PeerInstant::from_micros(now_us as i64), &sockets);
            let peer_us = peer.map_or(u64::MAX, |at| at.total_micros() as u64);
            let stack_us = stack.next_deadline().map_or(u64::MAX, |at| at.as_nanos().div_ceil(1_000));
            let waiting =
                app.conn.is_some_and(|conn| !stack.pending(conn).is_empty()) || downloaded < download.len();
            let next = to_server.next_us().min(to_client.next_us()).min(peer_us).min(stack_us);
            now_us = next.clamp(now_us + 1, if waiting { now_us + 500 } else { u64::MAX });
        }
        assert_eq!((app.received, downloaded), (upload.len(), download.len()));
        assert_eq!((stack.connections(), stack.buffered_bytes()), (0, 0));
        assert_eq!(stack.counters().optimistic_acks, 0);
        now_us / 1_000
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "received {} peer_closed {} ended {}", self.received, self.peer_closed, self.ended)
    }
}

/// Everything that is to be sent.
fn queue(stack: &mut Stack<&'static [u8]>, conn: ConnId, download: &'static [u8]) {
    for page in download.chunks(4_096) {
        stack.send(conn, page).unwrap();
    }
}

/// Begins a connection to the client's address, with everything queued before it is open.
fn connect(stack: &mut Stack<&'static [u8]>, nic: &mut Nic, now: Instant, download: &'static [u8]) -> ConnId {
    let conn = stack.connect(now, SocketAddrV4::new(CLIENT_IP, PORT)).unwrap();
    queue(stack, conn, download);
    stack.output(conn, now, nic, AckPolicy::IfDue).unwrap();
    conn
}

fn step<T: Transmit<&'static [u8]>>(
    stack: &mut Stack<&'static [u8]>,
    nic: &mut T,
    app: &mut App,
    frame: &[u8],
    now: Instant,
    download: &'static [u8],
    random: &mut Random,
) {
    let events = match stack.input(now, frame, RxMeta::default()) {
        Input::Nothing | Input::Datagram(_) | Input::DatagramError(_) => return,
        Input::Reply(reply) => return nic.transmit_control(&reply).unwrap(),
        Input::Segment(events) => events,
    };
    let conn = events.conn;
    if events.opened {
        assert!(!std::mem::replace(&mut app.opened, true));
        if app.conn.replace(conn).is_none() {
            queue(stack, conn, download);
        }
        stack.close(conn).unwrap();
    }
    let appetite = if random.percent(20) { random.next() as usize % 1_000 } else { usize::MAX };
    if !events.data.is_empty() {
        let appetite = if events.ended.is_some() { usize::MAX } else { appetite };
        let len = app.eat(events.data, appetite);
        if events.ended.is_none() {
            stack.keep(conn, &events.data[len..]).unwrap();
        }
    } else if events.readable {
        let len = app.eat(stack.pending(conn), appetite);
        stack.consume(conn, len).unwrap();
    }
    app.peer_closed |= events.peer_closed;
    if let Some(ack) = &events.last_ack {
        nic.transmit_control(ack).unwrap();
    }
    if events.ended.is_some() {
        app.ended = true;
        return;
    }
    stack.output(conn, now, nic, AckPolicy::IfDue).unwrap();
}

//! Megabytes both ways between the stack and smoltcp as an independent client or server, over a link that loses, repeats
//! and reorders frames. Time is simulated; each seed is one repeatable run.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddrV4;

use exos_net::{
    AckPolicy, Config, ConnId, Duration, End, Input, Instant, RxMeta, Stack, TimerEvent, Transmit, TxChecksum,
};
use proptest::prelude::*;
use smoltcp::iface::{Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as PeerInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpEndpoint};

use crate::harness::{CLIENT_IP, CLIENT_MAC, Nic, PORT, SERVER_IP, config, pattern};

/// What the link does to frames, in percent.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    loss: u64,
    repeat: u64,
    reorder: u64,
}

/// A small generator of repeatable random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}

/// One direction of the link: frames in the order of their arrival.
struct Direction {
    faults: Faults,
    queue: BinaryHeap<Reverse<(u64, u64, Vec<u8>)>>,
    count: u64,
}

const ONE_WAY_US: u64 = 1_000;

impl Direction {
    fn new(faults: Faults) -> Self {
        Self { faults, queue: BinaryHeap::new(), count: 0 }
    }

    fn put(&mut self, frame: Vec<u8>, now_us: u64, random: &mut Random) {
        if random.percent(self.faults.loss) {
            return;
        }
        let copies = 1 + u64::from(random.percent(self.faults.repeat));
        for _ in 0..copies {
            let late = if random.percent(self.faults.reorder) { random.next() % 3_000 } else { 0 };
            self.count += 1;
            self.queue.push(Reverse((now_us + ONE_WAY_US + late, self.count, frame.clone())));
        }
    }

    fn take(&mut self, now_us: u64) -> Option<Vec<u8>> {
        let Reverse((at, ..)) = self.queue.peek()?;
        if *at > now_us { None } else { self.queue.pop().map(|Reverse((_, _, frame))| frame) }
    }

    fn next_us(&self) -> u64 {
        self.queue.peek().map_or(u64::MAX, |Reverse((at, ..))| *at)
    }
}

/// smoltcp's device: two queues.
#[derive(Default)]
struct PeerDevice {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for PeerDevice {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: PeerInstant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: PeerInstant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.max_transmission_unit = 1514;
        capabilities.medium = Medium::Ethernet;
        capabilities
    }
}

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

struct Run {
    faults: Faults,
    /// Whether the client has timestamps. It always permits SACK and reports what it has.
    client_timestamps: bool,
    config: Config,
    upload: usize,
    download: usize,
    seed: u64,
}

impl Run {
    /// Runs to the end of both streams and of the connection, and returns the simulated time in milliseconds.
    fn go(self) -> u64 {
        self.run(Opens::Peer)
    }

    /// The same with our side as the client.
    fn go_active(self) -> u64 {
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

        let mut device = PeerDevice::default();
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

/// Everything that is to be sent, and the end of it.
fn queue(stack: &mut Stack<&'static [u8]>, conn: ConnId, download: &'static [u8]) {
    for page in download.chunks(4_096) {
        stack.send(conn, page).unwrap();
    }
    stack.close(conn).unwrap();
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever the link does and whatever options both sides have: all bytes arrive, both connections end, and the debug
    /// build's invariants of the sending half hold at every step.
    #[test]
    fn any_link_and_any_options_move_everything(
        loss in 0u64..20, repeat in 0u64..20, reorder in 0u64..40, seed: u64, sack: bool, timestamps: bool,
        client_timestamps: bool, tso: bool, withhold_every in 0u8..4, upload in 0usize..60_000, download in 0usize..150_000,
    ) {
        let offload = Config { tso_max_bytes: 65_000, tx_checksum: TxChecksum::Offload, ..scaled() };
        // Without timestamps a doubled timeout stays doubled while everything has to be sent again (RFC 6298 (5.7)), ours and the peer's,
        // for which we wait in FIN-WAIT-2.
        let (user_timeout, fin_wait_2) = (Duration::from_secs(3_000), Duration::from_secs(3_000));
        let config =
            Config { sack, timestamps, user_timeout, fin_wait_2, withhold_every, ..if tso { offload } else { scaled() } };
        let faults = Faults { loss, repeat, reorder };
        Run { faults, client_timestamps, config, upload, download, seed }.go();
    }
}

const MIB: usize = 1 << 20;

fn scaled() -> Config {
    Config { receive_window_bytes: 300_000, delayed_ack: Duration::from_millis(10), ..config() }
}

#[test]
fn perfect_link_moves_everything_without_retransmission() {
    let ms = Run {
        faults: Faults::default(),
        client_timestamps: true,
        config: scaled(),
        upload: 2 * MIB,
        download: 4 * MIB,
        seed: 1,
    }
    .go();
    assert!(ms < 4_000, "{ms} ms");
}

#[test]
fn one_percent_loss_is_repaired() {
    let faults = Faults { loss: 1, ..Faults::default() };
    for seed in 1..4 {
        Run {
            faults,
            client_timestamps: seed % 2 == 0,
            config: scaled(),
            upload: MIB,
            download: 2 * MIB,
            seed,
        }
        .go();
    }
}

#[test]
fn five_percent_loss_is_repaired() {
    let faults = Faults { loss: 5, ..Faults::default() };
    for seed in 1..4 {
        Run {
            faults,
            client_timestamps: seed % 2 == 0,
            config: scaled(),
            upload: MIB / 2,
            download: MIB,
            seed,
        }
        .go();
    }
}

#[test]
fn ten_percent_loss_with_repeats_and_reordering_is_repaired() {
    let faults = Faults { loss: 10, repeat: 5, reorder: 10 };
    for seed in 1..6 {
        Run {
            faults,
            client_timestamps: seed % 2 == 0,
            config: config(),
            upload: MIB / 4,
            download: MIB / 2,
            seed,
        }
        .go();
    }
}

#[test]
fn reordering_and_repeats_alone_are_harmless() {
    let faults = Faults { loss: 0, repeat: 20, reorder: 30 };
    Run { faults, client_timestamps: true, config: scaled(), upload: MIB, download: MIB, seed: 7 }.go();
}

#[test]
fn segmentation_offload_survives_loss() {
    let config = Config { tso_max_bytes: 65_000, tx_checksum: TxChecksum::Offload, ..scaled() };
    for loss in [0, 1, 5] {
        let faults = Faults { loss, ..Faults::default() };
        Run {
            faults,
            client_timestamps: true,
            config: config.clone(),
            upload: MIB / 4,
            download: 3 * MIB,
            seed: 11 + loss,
        }
        .go();
    }
}

#[test]
fn many_seeds_of_short_connections_end_in_order() {
    let faults = Faults { loss: 15, repeat: 10, reorder: 20 };
    for seed in 100..200 {
        Run {
            faults,
            client_timestamps: seed % 2 == 0,
            config: config(),
            upload: 3_000,
            download: 9_000,
            seed,
        }
        .go();
    }
}

#[test]
fn our_connection_moves_everything_over_a_perfect_link() {
    let ms = Run {
        faults: Faults::default(),
        client_timestamps: true,
        config: scaled(),
        upload: 2 * MIB,
        download: 4 * MIB,
        seed: 1,
    }
    .go_active();
    assert!(ms < 4_000, "{ms} ms");
}

#[test]
fn our_connection_survives_loss_repeats_and_reordering() {
    let faults = Faults { loss: 10, repeat: 5, reorder: 10 };
    for seed in 1..6 {
        Run {
            faults,
            client_timestamps: seed % 2 == 0,
            config: config(),
            upload: MIB / 4,
            download: MIB / 2,
            seed,
        }
        .go_active();
    }
}

#[test]
fn many_seeds_of_our_short_connections_end_in_order() {
    let faults = Faults { loss: 15, repeat: 10, reorder: 20 };
    for seed in 100..200 {
        Run {
            faults,
            client_timestamps: seed % 2 == 0,
            config: config(),
            upload: 3_000,
            download: 9_000,
            seed,
        }
        .go_active();
    }
}

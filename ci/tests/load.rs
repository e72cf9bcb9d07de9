//! Many clients, and bad ones: a thousand connections at once, and clients that stall, reset or send garbage while a
//! well-behaved one must not notice.

use exovm::machine::End;
use exovm::placement::IoMode;
use exovm_ci::http::{Content, request};
use exovm_ci::network::Network;
use exovm_ci::site::Pattern;
use exovm_ci::{Client, Guest, Site, host};
use exovm_netns::in_namespace;
use exovm_netns::link_layer::{Wire, internet_checksum, set_tcp_checksum};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 1000;
/// How long bad clients are at it.
const WINDOW: Duration = Duration::from_secs(4);
/// Bad deeds, and requests beside them, that show something.
const ENOUGH: u64 = 50;
/// What a well-behaved client may have to wait for anything.
const PATIENCE: Duration = Duration::from_secs(1);

fn thousand_connections_are_served_in(mode: IoMode) {
    host::allow_descriptors(4 * CONNECTIONS as u64);
    let body = Pattern::bytes(1, 20_000);
    let guest = Guest::image("cheetah").site(&Site::new().file("body", &body)).io(mode).start();
    let requests = guest.requests_during(|| {
        // From several threads, so that many handshakes are under way at once.
        let mut clients: Vec<Client> = std::thread::scope(|scope| {
            let connect = || (0..CONNECTIONS / 8).map(|_| guest.connect()).collect::<Vec<_>>();
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
    guest.stop();
}

#[test]
fn thousand_connections_are_served_in_turns() {
    in_namespace!(|| thousand_connections_are_served_in(IoMode::Turn));
}

#[test]
fn thousand_connections_are_served_by_a_thread() {
    in_namespace!(|| thousand_connections_are_served_in(IoMode::Thread));
}

#[test]
fn thousand_connections_are_served_wherever_the_load_says() {
    in_namespace!(|| thousand_connections_are_served_in(IoMode::Auto));
}

#[test]
fn many_short_connections_are_all_served() {
    in_namespace!(|| {
        let guest = Guest::image("cheetah").site(&Site::new().file("a", "a")).io(IoMode::Auto).start();
        const EACH: u64 = 1000;
        let requests = guest.requests_during(|| {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..EACH {
                            let mut client = guest.connect();
                            assert_eq!(client.get_with("/a", "Connection: close\r\n").unwrap().text(), "a");
                        }
                    });
                }
            });
        });
        assert_eq!(requests, 4 * EACH);
        guest.stop();
    });
}

/// What the bad clients of a test share.
struct Field<'a> {
    guest: &'a Guest,
    over: AtomicBool,
    /// What they did, so that a test knows that they did something.
    deeds: AtomicU64,
}

impl Field<'_> {
    fn address(&self) -> SocketAddr {
        self.guest.address()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn deed(&self) {
        self.deeds.fetch_add(1, Ordering::Relaxed);
    }

    /// A bad client's connection; its errors are nobody's business.
    fn stream(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address(), PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(Duration::from_millis(50))).ok()?;
        Some(stream)
    }
}

/// Deterministic noise.
struct Noise(Pattern);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(Pattern::new(seed))
    }

    fn number(&mut self, below: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes).expect("it never ends");
        (u64::from_le_bytes(bytes) % below as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).expect("it never ends");
        bytes
    }
}

/// Sets an integer socket option, as the misbehaviour needs it.
fn set_option<T>(stream: &TcpStream, name: libc::c_int, value: &T) {
    let len = size_of::<T>() as libc::socklen_t;
    let value: *const T = value;
    // SAFETY: the value is readable for the length given during the call.
    let result = unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, name, value.cast(), len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Ask for much and never read it: their receive windows close.
fn stalled_readers(field: &Field<'_>) {
    let ask = request("GET", "/large", "").repeat(4);
    let mut streams = Vec::new();
    while !field.is_over() {
        if streams.len() < 60
            && let Some(mut stream) = field.stream()
        {
            set_option(&stream, libc::SO_RCVBUF, &4096);
            let _ = stream.write_all(ask.as_bytes());
            streams.push(stream);
            field.deed();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Connect and say nothing, or the half of something.
fn silent_clients(field: &Field<'_>) {
    let mut streams = Vec::new();
    while !field.is_over() {
        if streams.len() < 200
            && let Some(mut stream) = field.stream()
        {
            let beginning =
                &request("GET", "/small", "X-Unfinished: 1\r\n").into_bytes()[..streams.len() % 40];
            let _ = stream.write_all(beginning);
            streams.push(stream);
            field.deed();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ask, and reset the connection at some moment of the answer.
fn resetting_clients(field: &Field<'_>) {
    let mut noise = Noise::new(1);
    while !field.is_over() {
        let Some(mut stream) = field.stream() else { continue };
        set_option(&stream, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 });
        let _ = stream.write_all(request("GET", "/large", "").as_bytes());
        let mut some = vec![0; noise.number(200_000)];
        if noise.number(2) == 0 {
            let _ = stream.read_exact(&mut some);
        }
        // Dropped with unread data and without lingering: RST.
        drop(stream);
        field.deed();
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Random bytes, and almost-requests, to the HTTP port.
fn garbage_clients(field: &Field<'_>) {
    let mut noise = Noise::new(2);
    while !field.is_over() {
        let Some(mut stream) = field.stream() else { continue };
        let len = noise.number(20_000);
        let mut bytes = noise.bytes(len);
        if noise.number(2) == 0 {
            // A request with some bytes changed, then noise.
            let mut almost = request("GET", "/small", "Accept: */*\r\nContent-Length: 7\r\n").into_bytes();
            for _ in 0..noise.number(4) {
                let at = noise.number(almost.len());
                almost[at] = noise.number(256) as u8;
            }
            almost.append(&mut bytes);
            bytes = almost;
        }
        let _ = stream.write_all(&bytes);
        if noise.number(2) == 0 {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
            let _ = stream.read(&mut [0; 4096]);
        }
        field.deed();
    }
}

/// Frames from random bytes, and frames that are right up to some layer.
fn garbage_frames(field: &Field<'_>) {
    let network = field.guest.network();
    let wire = Wire::open(network.interface()).unwrap_or_else(|error| panic!("AF_PACKET: {error}"));
    let mut noise = Noise::new(3);
    while !field.is_over() {
        for _ in 0..50 {
            let len = 14 + noise.number(1486);
            let mut frame = noise.bytes(len);
            let right_up_to = noise.number(5);
            if right_up_to >= 1 {
                frame[..6].copy_from_slice(&network.guest_mac());
            }
            if right_up_to >= 2 {
                let types = [0x0800u16, 0x0806, 0x86DD, 0x8100, 0x88A8, 0x0000, 0x05DC];
                let ether_type = types[noise.number(types.len())];
                frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
            }
            if right_up_to >= 3 && frame.len() >= 54 {
                make_ipv4(&mut noise, &mut frame, network);
            }
            // A queue that is full drops garbage, which is as good.
            let _ = wire.send(&frame);
            field.deed();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An IPv4 header that is right, addressed to the guest, from a neighbour; what it carries is TCP, UDP, ICMP or noise.
fn make_ipv4(noise: &mut Noise, frame: &mut [u8], network: &Network) {
    frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
    let total = (frame.len() - 14) as u16;
    let packet = &mut frame[14..];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    // Now and then a fragment.
    let fragment: u16 = if noise.number(4) == 0 { noise.number(0x4000) as u16 } else { 0 };
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[9] = [6, 17, 1, 41][noise.number(4)];
    let mut source = network.host_address().octets();
    source[3] = 3 + noise.number(250) as u8;
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&network.guest_address().octets());
    packet[10..12].copy_from_slice(&[0, 0]);
    let checksum = internet_checksum(&packet[..20], 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    if packet[9] == 6 {
        // To the port that is served; sometimes even the checksum is right.
        packet[22..24].copy_from_slice(&80u16.to_be_bytes());
        packet[32] = 0x50;
        if noise.number(2) == 0 {
            set_tcp_checksum(packet);
        }
    }
}

/// What the well-behaved client sees.
#[derive(Debug, Default)]
struct Seen {
    requests: u64,
    longest: Duration,
}

/// Asks for a small file again and again, on one connection and on new ones in turn. Any failure is the test's.
fn behave_well(field: &Field<'_>) -> Seen {
    let mut seen = Seen::default();
    let mut kept = Client::connect_within(field.address(), PATIENCE).unwrap();
    let until = Instant::now() + WINDOW;
    // Longer where a busy host lets neither do much.
    while Instant::now() < until || seen.requests <= ENOUGH || field.deeds.load(Ordering::Relaxed) < ENOUGH {
        for new in [false, true] {
            let started = Instant::now();
            let response = if new {
                let client = Client::connect_within(field.address(), PATIENCE);
                let mut client = client.unwrap_or_else(|error| panic!("connect, after {seen:?}: {error}"));
                client.get_with("/small", "Connection: close\r\n")
            } else {
                kept.get("/small")
            };
            let response = response.unwrap_or_else(|error| panic!("get, after {seen:?}: {error}"));
            assert_eq!((response.status(), response.text().as_str()), (200, "small"));
            seen.longest = seen.longest.max(started.elapsed());
            seen.requests += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    seen
}

type BadClient = fn(&Field<'_>);

/// Lets bad clients loose on a guest while a good one is served.
fn well_behaved_client_beside(bad: &[BadClient], mode: IoMode) {
    host::undisturbed(|| good_is_served_beside(bad, mode));
}

fn good_is_served_beside(bad: &[BadClient], mode: IoMode) {
    host::allow_descriptors(4096);
    let site = Site::new().file("small", "small").pattern_file("large", 5, 1 << 20);
    let guest = Guest::image("cheetah").site(&site).io(mode).start();
    let before = guest.machine().account();
    let field = Field { guest: &guest, over: AtomicBool::new(false), deeds: AtomicU64::new(0) };
    let seen = std::thread::scope(|scope| {
        for client in bad {
            scope.spawn(|| client(&field));
        }
        let good = scope.spawn(|| behave_well(&field)).join();
        field.over.store(true, Ordering::Relaxed);
        good
    });
    let seen = seen.expect("the well-behaved client was served");
    let deeds = field.deeds.load(Ordering::Relaxed);
    println!("{deeds} bad deeds, beside which {seen:?}");
    let received = guest.machine().account().since(&before).nic_counter("received frames");
    assert!(received.is_some_and(|frames| frames > deeds / 2), "{received:?} frames for {deeds} deeds");
    assert!(seen.longest < PATIENCE, "{seen:?}");
    // And it is as good as new.
    let large = Pattern::bytes(5, 1 << 20);
    assert!(guest.get("/large").body == large);
    assert_eq!(guest.end(), End::PowerOff { status: 0 });
}

#[test]
fn stalled_and_silent_clients_harm_nobody() {
    in_namespace!(|| well_behaved_client_beside(&[stalled_readers, silent_clients], IoMode::Turn));
}

#[test]
fn resetting_clients_harm_nobody() {
    in_namespace!(|| well_behaved_client_beside(&[resetting_clients, resetting_clients], IoMode::Turn));
}

#[test]
fn garbage_to_the_port_harms_nobody() {
    in_namespace!(|| well_behaved_client_beside(&[garbage_clients, garbage_clients], IoMode::Turn));
}

#[test]
fn garbage_on_the_wire_harms_nobody() {
    in_namespace!(|| well_behaved_client_beside(&[garbage_frames], IoMode::Turn));
}

#[test]
fn all_bad_clients_together_harm_nobody_with_device_work_on_a_thread() {
    in_namespace!(|| {
        let all: [BadClient; 5] =
            [stalled_readers, silent_clients, resetting_clients, garbage_clients, garbage_frames];
        well_behaved_client_beside(&all, IoMode::Thread);
    });
}

#[test]
fn all_bad_clients_together_harm_nobody_wherever_the_load_says() {
    in_namespace!(|| {
        let all: [BadClient; 5] =
            [stalled_readers, silent_clients, resetting_clients, garbage_clients, garbage_frames];
        well_behaved_client_beside(&all, IoMode::Auto);
    });
}

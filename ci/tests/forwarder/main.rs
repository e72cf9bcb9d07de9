//! The forwarder between Linux's sockets, over IPv4 and IPv6, and what passes through it that a relay on sockets
//! ([`exovm_ci::relay`]) hides.

mod capture;
mod host;
mod large;
mod versions;

use capture::{Seen, capture};
use exovm_ci::routed::{Routed, Version, guest, image, router_of_clients, server};
use exovm_ci::sockets::{path_mtu_bytes, reset, state, state_of, unacknowledged_bytes, unread_bytes};
use exovm_ci::{Guest, GuestBuilder, Site, relay};
use exovm_netns::in_namespace;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const LISTEN: u16 = 80;
const SERVER_PORT: u16 = 8080;
/// How long something may take that is to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must happen until it is believed that nothing does.
const STILL: Duration = Duration::from_millis(400);

/// A forwarder on TAP 0 that leads to these servers.
fn forwarder_to(servers: [SocketAddr; 2]) -> GuestBuilder {
    let [ipv4, ipv6] = servers;
    let options = [format!("--listen={LISTEN}"), format!("--to={ipv4},{ipv6}")];
    image("forwarder", 0).arguments(&[&options[0], &options[1]])
}

/// Ports of the servers' host.
fn servers() -> [SocketAddr; 2] {
    Version::ALL.map(|version| server(version, SERVER_PORT))
}

/// A forwarder and relays to the same servers, and where clients find them.
struct Both {
    routed: Routed,
    guest: Guest,
}

/// Where a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Through {
    Forwarder(Version),
    Relay(Version),
}

impl Through {
    /// The forwarder and the relay, over each version.
    fn all() -> impl Iterator<Item = Self> {
        Version::ALL.into_iter().flat_map(|version| [Self::Forwarder(version), Self::Relay(version)])
    }

    fn is_relay(self) -> bool {
        matches!(self, Self::Relay(_))
    }

    fn address(self) -> SocketAddr {
        match self {
            Self::Forwarder(version) => guest(version, 0, LISTEN),
            Self::Relay(version) => router_of_clients(version, LISTEN),
        }
    }
}

impl Both {
    fn start() -> Self {
        let routed = Routed::build();
        let guest = forwarder_to(servers()).start();
        for version in Version::ALL {
            let listener = TcpListener::bind(router_of_clients(version, LISTEN)).expect("a free port");
            relay::relay(listener, server(version, SERVER_PORT));
        }
        Self { routed, guest }
    }

    /// A client's and the server's end of one connection.
    fn connection(&self, through: Through, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = self.routed.connect(through.address()).expect("a connection");
        let (server, _) = listener.accept().expect("a connection");
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        (client, server)
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what} does not come");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes that say where they belong.
fn pattern(seed: usize, len_bytes: usize) -> Vec<u8> {
    (0..len_bytes).map(|i| (seed + i * 7 + (i >> 8) * 13 + (i >> 16)) as u8).collect()
}

#[test]
fn bytes_of_many_connections_arrive_both_ways_as_they_were_sent() {
    const CONNECTIONS: usize = 16;
    const BYTES: usize = 3 << 20;
    in_namespace!(|| {
        let routed = Routed::build();
        let listener = routed.listen(SERVER_PORT);
        let forwarder = forwarder_to(servers()).start();
        thread::scope(|scope| {
            for number in 0..CONNECTIONS {
                let address = guest(Version::ALL[number % 2], 0, LISTEN);
                let mut client = routed.connect(address).expect("a connection");
                let (mut server, from) = listener.accept().expect("a connection");
                assert_eq!(from.ip().to_canonical(), address.ip(), "the server sees the forwarder");
                for (socket, seed) in [(&mut client, number), (&mut server, number + 100)] {
                    let mut writer = socket.try_clone().unwrap();
                    scope.spawn(move || {
                        writer.write_all(&pattern(seed, BYTES)).expect("room");
                        writer.shutdown(Shutdown::Write).expect("open");
                    });
                }
                for (mut reader, seed) in [(client, number + 100), (server, number)] {
                    scope.spawn(move || {
                        let mut got = Vec::new();
                        reader.read_to_end(&mut got).expect("bytes");
                        assert!(got == pattern(seed, BYTES), "connection {number}: {} bytes", got.len());
                    });
                }
            }
        });
        // What it says of itself, against what was done.
        let statistics = forwarder.statistics();
        let forward = |name| statistics.value("forward", name).unwrap_or_else(|| panic!("no {name}"));
        let (connections, bytes) = (CONNECTIONS as u64, (CONNECTIONS * BYTES) as u64);
        assert_eq!([forward("opened"), forward("established")], [connections; 2]);
        assert_eq!([forward("half_open_now"), forward("established_now")], [0; 2]);
        assert_eq!(forward("closing_now"), connections);
        for way in ["to_server", "to_client"] {
            // What a busy host sent again was forwarded again.
            assert!((bytes..2 * bytes).contains(&forward(way)), "{way}: {} of {bytes}", forward(way));
        }
        assert_eq!([forward("not_listened"), forward("no_flow"), forward("nic_refused")], [0; 3]);
        assert!(forward("arp_requests") >= 1 && forward("neighbour_solicitations") >= 1);
        for version in Version::ALL {
            let other = guest(version, 0, LISTEN + 1);
            let nobody =
                routed.clients.run(|| TcpStream::connect_timeout(&other, Duration::from_millis(300)));
            assert!(nobody.expect("in the namespace").is_err());
        }
        let statistics = forwarder.statistics();
        assert_eq!(statistics.value("forward", "not_listened"), Some(2));
        let (_, log) = forwarder.end_with_log();
        let said = format!("{CONNECTIONS} connections; to the server");
        assert!(log.iter().any(|line| line.contains(&said)), "{log:?}");
    });
}

#[test]
fn dead_server_refuses_through_the_forwarder_and_a_relay_accepts_in_its_place() {
    in_namespace!(|| {
        let both = Both::start();
        for version in Version::ALL {
            let through = Through::Forwarder(version).address();
            let refused = both.routed.connect(through).expect_err("nobody listens");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
            let relay = Through::Relay(version).address();
            let mut accepted = both.routed.connect(relay).expect("the relay accepts");
            accepted.set_read_timeout(Some(PATIENCE)).unwrap();
            // What it has to tell comes later, and is another thing: an end without a byte.
            assert_eq!(accepted.read(&mut [0]).unwrap_or(0), 0);
        }
        both.guest.stop();
    });
}

#[test]
fn reset_reaches_the_other_end_and_a_relay_makes_a_good_end_of_it() {
    in_namespace!(|| {
        let both = Both::start();
        let listener = both.routed.listen(SERVER_PORT);
        for through in Through::all() {
            for client_resets in [true, false] {
                let (mut client, mut server) = both.connection(through, &listener);
                client.write_all(b"half of").unwrap();
                server.read_exact(&mut [0; 7]).unwrap();
                server.write_all(b"half of").unwrap();
                client.read_exact(&mut [0; 7]).unwrap();
                let (resets, mut hears) = if client_resets { (client, server) } else { (server, client) };
                reset(resets);
                let heard = hears.read(&mut [0; 8]).map_err(|error| error.kind());
                let expected = if through.is_relay() { Ok(0) } else { Err(ErrorKind::ConnectionReset) };
                assert_eq!(heard, expected, "{through:?}");
            }
        }
        both.guest.stop();
    });
}

#[test]
fn half_closed_connection_goes_on_the_other_way() {
    in_namespace!(|| {
        let both = Both::start();
        let listener = both.routed.listen(SERVER_PORT);
        for version in Version::ALL {
            let (mut client, mut server) = both.connection(Through::Forwarder(version), &listener);
            client.write_all(b"question").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut question = String::new();
            server.read_to_string(&mut question).unwrap();
            assert_eq!(question, "question");
            wait_until("the server's acknowledgment of the FIN", || state_of(&client) == state::FIN_WAIT_2);
            let answer = pattern(3, 1 << 20);
            let sender = thread::spawn({
                let answer = answer.clone();
                move || server.write_all(&answer).expect("the client reads")
            });
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            sender.join().unwrap();
            assert!(got == answer, "{} bytes", got.len());
        }
        both.guest.stop();
    });
}

#[test]
fn data_and_fin_are_acknowledged_when_the_server_has_them_and_by_a_relay_before() {
    in_namespace!(|| {
        let both = Both::start();
        let listener = both.routed.listen(SERVER_PORT);
        for through in Through::all() {
            let state_now = if through.is_relay() { state::FIN_WAIT_2 } else { state::FIN_WAIT_1 };
            let (mut client, mut server) = both.connection(through, &listener);
            // As if the server's network had gone.
            both.routed.to_servers.down().unwrap();
            client.write_all(b"is it there?").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            thread::sleep(STILL);
            let unacknowledged = unacknowledged_bytes(&client);
            assert_eq!(unacknowledged == 0, through.is_relay(), "{through:?}: {unacknowledged}");
            assert_eq!(state_of(&client), state_now, "{through:?}");
            both.routed.to_servers.up().unwrap();
            let mut got = String::new();
            server.read_to_string(&mut got).unwrap();
            assert_eq!(got, "is it there?");
            wait_until("the acknowledgment", || state_of(&client) == state::FIN_WAIT_2);
        }
        both.guest.stop();
    });
}

#[test]
fn closed_window_stops_the_sender_and_a_relay_takes_what_the_server_does_not() {
    in_namespace!(|| {
        let both = Both::start();
        let listener = both.routed.listen(SERVER_PORT);
        for through in Through::all() {
            let (mut client, mut server) = both.connection(through, &listener);
            client.set_write_timeout(Some(STILL)).unwrap();
            let sent = pattern(5, 64 << 20);
            let mut written = 0;
            while let Ok(count) = client.write(&sent[written..]) {
                written += count;
            }
            assert!(written < sent.len(), "nobody reads, and yet all was taken");
            // Its probes are answered, and nothing goes on.
            thread::sleep(STILL);
            let (acknowledged, arrived) = (written - unacknowledged_bytes(&client), unread_bytes(&server));
            if !through.is_relay() {
                assert_eq!(acknowledged, arrived, "what is acknowledged is what the server's host has");
            } else {
                assert!(
                    acknowledged > arrived + 100_000,
                    "{acknowledged} {arrived}: the relay holds the rest"
                );
            }
            assert_eq!(state_of(&client), state::ESTABLISHED);
            // The window opens, and all of it comes.
            drop(client);
            let mut got = Vec::new();
            server.read_to_end(&mut got).unwrap();
            assert!(got == sent[..written], "{} of {written} bytes", got.len());
        }
        both.guest.stop();
    });
}

#[test]
fn path_mtu_messages_reach_the_sender_whose_segments_are_too_large() {
    in_namespace!(|| {
        const MTU_BYTES: u32 = 1300;
        let routed = Routed::build();
        let listener = routed.listen(SERVER_PORT);
        routed.to_servers.set_mtu(MTU_BYTES).unwrap();
        let forwarder = forwarder_to(servers()).start();
        for version in Version::ALL {
            let mut client = routed.connect(guest(version, 0, LISTEN)).expect("a connection");
            let (mut server, _) = listener.accept().unwrap();
            assert_eq!(path_mtu_bytes(&client), 1500, "nobody knows yet");
            let sent = pattern(7, 4 << 20);
            let sender = thread::spawn({
                let sent = sent.clone();
                move || {
                    client.write_all(&sent).expect("the server reads");
                    client
                }
            });
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut got = vec![0; sent.len()];
            server.read_exact(&mut got).unwrap();
            assert!(got == sent);
            assert_eq!(path_mtu_bytes(&sender.join().unwrap()), MTU_BYTES);
        }
        forwarder.stop();
    });
}

#[test]
fn sequence_numbers_options_and_data_are_the_same_at_both_ends() {
    in_namespace!(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("forwarder.pcapng");
        let routed = Routed::build();
        let listener = routed.listen(SERVER_PORT);
        let forwarder = forwarder_to(servers()).pcap(&path).start();
        for version in Version::ALL {
            let mut client = routed.connect(guest(version, 0, LISTEN)).expect("a connection");
            let (mut server, _) = listener.accept().unwrap();
            for size in [1, 100, 1448, 20_000, 200_000] {
                let sent = pattern(size, size);
                client.write_all(&sent).unwrap();
                let mut got = vec![0; size];
                server.read_exact(&mut got).unwrap();
                server.write_all(&got).unwrap();
                client.read_exact(&mut got).unwrap();
                assert!(got == sent);
            }
        }
        thread::sleep(STILL);
        forwarder.stop();
        let mut waiting: Vec<Seen> = Vec::new();
        let mut pairs = Vec::new();
        for frame in capture(&path) {
            if frame.to_guest {
                waiting.push(frame);
                continue;
            }
            pairs.push(frame.version);
            let came = Seen { to_guest: true, time_to_live: frame.time_to_live + 1, ..frame };
            let at = waiting.iter().position(|seen| *seen == came);
            waiting.remove(at.unwrap_or_else(|| panic!("{came:?} never came so")));
        }
        assert!(waiting.is_empty(), "went nowhere: {waiting:?}");
        for version in Version::ALL {
            let count = pairs.iter().filter(|&&of| of == version).count();
            assert!(count > 20, "{count} frames over {version}");
        }
    });
}

#[test]
fn cheetah_serves_through_the_forwarder_in_the_same_process() {
    in_namespace!(|| {
        let routed = Routed::build();
        let body = "x".repeat(300_000);
        let site = Site::new().file("index.html", "behind").file("large", &body);
        let cheetah = image("cheetah", 1).site(&site).start();
        let forwarder = forwarder_to(Version::ALL.map(|version| guest(version, 1, 80))).start();
        for (version, option) in Version::ALL.into_iter().zip(["-4", "-6"]) {
            let address = guest(version, 0, LISTEN);
            for (name, content) in [("", "behind"), ("large", &body)] {
                let url = format!("http://{address}/{name}");
                let mut curl = Command::new("curl");
                curl.args([
                    option,
                    "--silent",
                    "--show-error",
                    "--fail",
                    "--globoff",
                    "--max-time",
                    "60",
                    &url,
                ]);
                let output = routed.clients.start_here(&mut curl).output().expect("this test needs curl");
                assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
                assert!(output.stdout == content.as_bytes(), "{url}: {} bytes", output.stdout.len());
            }
            for _ in 0..20 {
                let connected = routed.clients.run(|| exovm_ci::Client::connect(address));
                let mut client = connected.unwrap().expect("a connection");
                assert_eq!(client.get("/").unwrap().text(), "behind");
                assert_eq!(client.get("/large").unwrap().text(), body);
            }
        }
        forwarder.stop();
        cheetah.stop();
    });
}

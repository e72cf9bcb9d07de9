//! Hosts around a forwarder, and the frames that they send.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use etherparse::{IpFragOffset, IpHeaders, IpNumber, Ipv4Header, PacketBuilder, TcpHeader};
use exos_forward::{Config, Forwarder, HEAD_BYTES, Mac, Meta, Offload, REQUEST_BYTES, Reason, Verdict};

pub const OWN_MAC: Mac = [2, 0, 0, 0, 0, 1];
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 2];
pub const SERVER_MAC: Mac = [2, 0, 0, 0, 0, 3];
pub const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const LISTEN: u16 = 80;
pub const SERVER_PORT: u16 = 8080;
pub const CLIENT_PORT: u16 = 50_000;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

pub fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// A segment on its way between two hosts.
#[derive(Clone, Debug)]
pub struct Frame {
    pub macs: (Mac, Mac),
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub ttl: u8,
    pub identification: u16,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub window: u16,
    pub options: Vec<u8>,
    pub data: Vec<u8>,
}

impl Frame {
    /// From the client to the port that is listened on.
    pub fn of_client(flags: u8) -> Self {
        Self {
            macs: (CLIENT_MAC, OWN_MAC),
            from: SocketAddrV4::new(CLIENT, CLIENT_PORT),
            to: SocketAddrV4::new(OWN, LISTEN),
            ttl: 64,
            identification: 7,
            flags,
            sequence: 1000,
            acknowledgment: 0,
            window: 65_000,
            options: vec![],
            data: vec![],
        }
    }

    /// From the server to the port that the forwarder has chosen.
    pub fn of_server(port: u16, flags: u8) -> Self {
        Self {
            macs: (SERVER_MAC, OWN_MAC),
            from: SocketAddrV4::new(SERVER, SERVER_PORT),
            to: SocketAddrV4::new(OWN, port),
            ..Self::of_client(flags)
        }
    }

    pub fn port(self, port: u16) -> Self {
        Self { from: SocketAddrV4::new(*self.from.ip(), port), ..self }
    }

    pub fn numbers(self, sequence: u32, acknowledgment: u32) -> Self {
        Self { sequence, acknowledgment, ..self }
    }

    /// As it is on the wire, made by the other library.
    pub fn bytes(&self) -> Vec<u8> {
        let ip = Ipv4Header {
            identification: self.identification,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: IpFragOffset::ZERO,
            time_to_live: self.ttl,
            protocol: IpNumber::TCP,
            source: self.from.ip().octets(),
            destination: self.to.ip().octets(),
            ..Ipv4Header::default()
        };
        let has = |flag| self.flags & flag != 0;
        let mut tcp = TcpHeader::new(self.from.port(), self.to.port(), self.sequence, self.window);
        tcp.acknowledgment_number = self.acknowledgment;
        (tcp.fin, tcp.syn, tcp.rst, tcp.psh, tcp.ack) = (has(FIN), has(SYN), has(RST), has(PSH), has(ACK));
        tcp.set_options_raw(&self.options).expect("at most 40 bytes");
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(self.macs.0, self.macs.1)
            .ip(IpHeaders::Ipv4(ip, Default::default()))
            .tcp_header(tcp)
            .write(&mut bytes, &self.data)
            .expect("a packet's length");
        bytes
    }
}

/// A forwarder that is asked one thing after the other.
pub struct Bench {
    pub forwarder: Forwarder,
    pub now: Duration,
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub bytes: Vec<u8>,
    pub offload: Offload,
    pub headers_bytes: usize,
}

pub fn config() -> Config {
    Config::new(OWN_MAC, OWN, 24, LISTEN, SocketAddrV4::new(SERVER, SERVER_PORT), [42; 16])
}

impl Bench {
    /// One that knows where the server is.
    pub fn new(config: &Config) -> Self {
        let mut bench = Self::without_server(config);
        let mut request = [0; REQUEST_BYTES];
        assert!(bench.forwarder.poll(bench.now, &mut request));
        assert_eq!(bench.look(&arp(2, (SERVER_MAC, SERVER), (OWN_MAC, OWN))), Verdict::Heard);
        bench
    }

    pub fn without_server(config: &Config) -> Self {
        Self { forwarder: Forwarder::new(config).expect("a good configuration"), now: Duration::ZERO }
    }

    pub fn look(&mut self, bytes: &[u8]) -> Verdict {
        self.forwarder.forward(self.now, bytes, &mut [0; HEAD_BYTES], Meta::default())
    }

    /// What becomes of a frame that must go on.
    pub fn sent(&mut self, bytes: &[u8], meta: Meta) -> Sent {
        // What was in it before must not matter.
        let mut head = [0xA5; HEAD_BYTES];
        match self.forwarder.forward(self.now, bytes, &mut head, meta) {
            Verdict::Send(out) => {
                let rest = bytes.get(out.headers_bytes..out.len_bytes).unwrap_or_default();
                let sent = [&head[..out.headers_bytes], rest].concat();
                assert_eq!(sent.len(), out.len_bytes);
                Sent { bytes: sent, offload: out.offload, headers_bytes: out.headers_bytes }
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn forwarded(&mut self, frame: &Frame) -> Vec<u8> {
        self.sent(&frame.bytes(), Meta::default()).bytes
    }

    /// What a frame that must go nowhere is dropped for; it is counted there and nowhere else.
    pub fn dropped(&mut self, bytes: &[u8]) -> Reason {
        let before = *self.forwarder.counters();
        let Verdict::Drop(reason) = self.look(bytes) else { panic!("it goes on") };
        let mut expected = before;
        expected.frames_in += 1;
        expected.drops[reason as usize] += 1;
        assert_eq!(*self.forwarder.counters(), expected);
        reason
    }

    /// A connection with its handshake done, and its port towards the server.
    pub fn establish(&mut self, client_port: u16) -> u16 {
        let port = self.open(client_port);
        self.forwarded(&Frame::of_server(port, SYN | ACK).numbers(9000, 1001));
        self.forwarded(&Frame::of_client(ACK).port(client_port).numbers(1001, 9001));
        port
    }

    /// A half-open one.
    pub fn open(&mut self, client_port: u16) -> u16 {
        source_port(&self.forwarded(&Frame::of_client(SYN).port(client_port)))
    }

    /// Half-open, established, closing.
    pub fn connections(&self) -> [u32; 3] {
        self.forwarder.connections()
    }

    pub fn poll(&mut self) -> bool {
        self.forwarder.poll(self.now, &mut [0; REQUEST_BYTES])
    }
}

pub fn source_port(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[34], bytes[35]])
}

pub fn arp(operation: u8, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut bytes = [[0xFF; 6], sender.0].concat();
    bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    for (mac, address) in [sender, target] {
        bytes.extend(mac);
        bytes.extend(address.octets());
    }
    bytes
}

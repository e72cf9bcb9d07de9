//! Hosts around a forwarder, and the frames that they send.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, TcpHeader,
};
use exos_forward::{
    Config, Forwarder, HEAD_BYTES, Mac, Meta, Network, Offload, REQUEST_BYTES, Reason, Verdict, Version,
};
use proptest::prelude::*;

pub const OWN_MAC: Mac = [2, 0, 0, 0, 0, 1];
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 2];
pub const SERVER_MAC: Mac = [2, 0, 0, 0, 0, 3];
pub const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0x77, 0, 0, 0xab77);
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0xffff, 0xfe12, 0x3456, 2);
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

/// The hosts' addresses in one version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hosts {
    pub version: Version,
    pub own: IpAddr,
    pub client: IpAddr,
    pub server: IpAddr,
}

pub const IPV4: Hosts = Hosts {
    version: Version::Ipv4,
    own: IpAddr::V4(OWN),
    client: IpAddr::V4(CLIENT),
    server: IpAddr::V4(SERVER),
};
pub const IPV6: Hosts = Hosts {
    version: Version::Ipv6,
    own: IpAddr::V6(OWN6),
    client: IpAddr::V6(CLIENT6),
    server: IpAddr::V6(SERVER6),
};

/// Either version.
pub fn hosts() -> impl Strategy<Value = Hosts> {
    prop_oneof![Just(IPV4), Just(IPV6)]
}

impl Hosts {
    /// Bytes of an IP header.
    pub fn header_bytes(&self) -> usize {
        if self.version == Version::Ipv4 { 20 } else { 40 }
    }

    /// Where TCP begins in a frame.
    pub fn tcp_at(&self) -> usize {
        14 + self.header_bytes()
    }

    /// Where the time to live is in a frame.
    pub fn ttl_at(&self) -> usize {
        if self.version == Version::Ipv4 { 22 } else { 21 }
    }

    /// From the client to the port that is listened on.
    pub fn of_client(&self, flags: u8) -> Frame {
        Frame {
            macs: (CLIENT_MAC, OWN_MAC),
            from: SocketAddr::new(self.client, CLIENT_PORT),
            to: SocketAddr::new(self.own, LISTEN),
            traffic_class: 0,
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
    pub fn of_server(&self, port: u16, flags: u8) -> Frame {
        Frame {
            macs: (SERVER_MAC, OWN_MAC),
            from: SocketAddr::new(self.server, SERVER_PORT),
            to: SocketAddr::new(self.own, port),
            ..self.of_client(flags)
        }
    }
}

/// A segment on its way between two hosts.
#[derive(Clone, Debug)]
pub struct Frame {
    pub macs: (Mac, Mac),
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub traffic_class: u8,
    pub ttl: u8,
    /// Of IPv4's datagram, or the flow label.
    pub identification: u16,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub window: u16,
    pub options: Vec<u8>,
    pub data: Vec<u8>,
}

impl Frame {
    /// From the client over IPv4.
    pub fn of_client(flags: u8) -> Self {
        IPV4.of_client(flags)
    }

    /// From the server over IPv4.
    pub fn of_server(port: u16, flags: u8) -> Self {
        IPV4.of_server(port, flags)
    }

    pub fn port(self, port: u16) -> Self {
        Self { from: SocketAddr::new(self.from.ip(), port), ..self }
    }

    pub fn numbers(self, sequence: u32, acknowledgment: u32) -> Self {
        Self { sequence, acknowledgment, ..self }
    }

    fn ip(&self) -> IpHeaders {
        let identification = self.identification;
        ip_headers(
            (self.from.ip(), self.to.ip()),
            IpNumber::TCP,
            self.ttl,
            self.traffic_class,
            identification,
        )
    }

    /// As it is on the wire, made by the other library.
    pub fn bytes(&self) -> Vec<u8> {
        let ip = self.ip();
        let has = |flag| self.flags & flag != 0;
        let mut tcp = TcpHeader::new(self.from.port(), self.to.port(), self.sequence, self.window);
        tcp.acknowledgment_number = self.acknowledgment;
        (tcp.fin, tcp.syn, tcp.rst, tcp.psh, tcp.ack) = (has(FIN), has(SYN), has(RST), has(PSH), has(ACK));
        tcp.set_options_raw(&self.options).expect("at most 40 bytes");
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(self.macs.0, self.macs.1)
            .ip(ip)
            .tcp_header(tcp)
            .write(&mut bytes, &self.data)
            .expect("a packet's length");
        bytes
    }
}

pub fn ip_headers(
    addresses: (IpAddr, IpAddr),
    protocol: IpNumber,
    ttl: u8,
    traffic_class: u8,
    identification: u16,
) -> IpHeaders {
    match addresses {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let ip = Ipv4Header {
                identification,
                dscp: (traffic_class >> 2).try_into().expect("6 bits"),
                ecn: (traffic_class & 3).try_into().expect("2 bits"),
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: IpFragOffset::ZERO,
                time_to_live: ttl,
                protocol,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv4Header::default()
            };
            IpHeaders::Ipv4(ip, Default::default())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = Ipv6Header {
                traffic_class,
                flow_label: Ipv6FlowLabel::try_new(identification.into()).expect("20 bits"),
                payload_length: 0,
                next_header: protocol,
                hop_limit: ttl,
                source: source.octets(),
                destination: destination.octets(),
            };
            IpHeaders::Ipv6(ip, Default::default())
        }
        _ => panic!("{addresses:?} are of two versions"),
    }
}

/// A forwarder that is asked one thing after the other, over one version of IP.
pub struct Bench {
    pub forwarder: Forwarder,
    pub now: Duration,
    pub hosts: Hosts,
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub bytes: Vec<u8>,
    pub offload: Offload,
    pub headers_bytes: usize,
}

/// A server over either version of IP.
pub fn config() -> Config {
    let mut config = Config::new(OWN_MAC, LISTEN, [42; 16]);
    config.ipv4 = Some(Network::new(OWN, 24, (SERVER, SERVER_PORT)));
    config.ipv6 = Some(Network::new(OWN6, 64, (SERVER6, SERVER_PORT)));
    config
}

impl Bench {
    /// One that knows where the servers are, asked over IPv4.
    pub fn new(config: &Config) -> Self {
        let mut bench = Self::without_server(config);
        let mut request = [0; REQUEST_BYTES];
        while bench.forwarder.poll(bench.now, &mut request).is_some() {}
        bench.look(&arp(2, (SERVER_MAC, SERVER), (OWN_MAC, OWN)));
        bench.look(&Discovery::advertisement().bytes());
        bench
    }

    /// The same over another version.
    pub fn over(hosts: Hosts, config: &Config) -> Self {
        Self { hosts, ..Self::new(config) }
    }

    pub fn without_server(config: &Config) -> Self {
        let forwarder = Forwarder::new(config).expect("a good configuration");
        Self { forwarder, now: Duration::ZERO, hosts: IPV4 }
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
                let sent = [&head[..out.headers_bytes], out.rest(bytes)].concat();
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
        self.forwarded(&self.hosts.of_server(port, SYN | ACK).numbers(9000, 1001));
        self.forwarded(&self.hosts.of_client(ACK).port(client_port).numbers(1001, 9001));
        port
    }

    /// A half-open one.
    pub fn open(&mut self, client_port: u16) -> u16 {
        source_port(&self.forwarded(&self.hosts.of_client(SYN).port(client_port)))
    }

    /// Half-open, established, closing.
    pub fn connections(&self) -> [u32; 3] {
        self.forwarder.connections()
    }

    pub fn poll(&mut self) -> bool {
        self.forwarder.poll(self.now, &mut [0; REQUEST_BYTES]).is_some()
    }
}

pub fn source_port(bytes: &[u8]) -> u16 {
    let at = if bytes[12..14] == [8, 0] { 34 } else { 54 };
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
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

/// A message of Neighbor Discovery with one option.
#[derive(Clone, Copy, Debug)]
pub struct Discovery {
    pub macs: (Mac, Mac),
    pub addresses: (Ipv6Addr, Ipv6Addr),
    pub hop_limit: u8,
    pub kind: u8,
    pub code: u8,
    pub flags: u8,
    pub target: Ipv6Addr,
    /// Its type and link-layer address.
    pub option: Option<(u8, Mac)>,
}

pub const SOLICITED: u8 = 0x40;
pub const OVERRIDE: u8 = 0x20;
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The group of [`OWN6`].
pub const OWN_GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1);
pub const OWN_GROUP_MAC: Mac = [0x33, 0x33, 0xff, 0, 0, 1];

impl Discovery {
    /// The server's answer.
    pub fn advertisement() -> Self {
        Self {
            macs: (SERVER_MAC, OWN_MAC),
            addresses: (SERVER6, OWN6),
            hop_limit: 255,
            kind: 136,
            code: 0,
            flags: SOLICITED | OVERRIDE,
            target: SERVER6,
            option: Some((2, SERVER_MAC)),
        }
    }

    /// The client asks for us.
    pub fn solicitation() -> Self {
        Self {
            macs: (CLIENT_MAC, OWN_GROUP_MAC),
            addresses: (CLIENT6, OWN_GROUP),
            hop_limit: 255,
            kind: 135,
            code: 0,
            flags: 0,
            target: OWN6,
            option: Some((1, CLIENT_MAC)),
        }
    }

    /// As it is on the wire, its checksum by the other library.
    pub fn bytes(&self) -> Vec<u8> {
        let mut data = self.target.octets().to_vec();
        if let Some((kind, mac)) = self.option {
            data.extend([kind, 1]);
            data.extend(mac);
        }
        let addresses = (self.addresses.0.into(), self.addresses.1.into());
        let ip = ip_headers(addresses, IpNumber::IPV6_ICMP, self.hop_limit, 0, 0);
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(self.macs.0, self.macs.1)
            .ip(ip)
            .icmpv6_raw(self.kind, self.code, [self.flags, 0, 0, 0])
            .write(&mut bytes, &data)
            .expect("a packet's length");
        bytes
    }
}

//! Messages (RFC 2131 2, RFC 2132), read and written by smoltcp's wire module.

use core::net::{Ipv4Addr, SocketAddrV4};

use exos_net::MacAddress;
use smoltcp::wire::ArpHardware;
use smoltcp::wire::{DhcpFlags, DhcpOpCode, DhcpOption, DhcpPacket, EthernetAddress};

/// Where servers listen.
pub const SERVER_PORT: u16 = 67;
/// Where clients listen.
pub const CLIENT_PORT: u16 = 68;
/// Smallest message that everybody takes (RFC 1542 2.1), and the largest of ours.
const MIN_BYTES: usize = 300;
const MAX_BYTES: usize = 400;
/// Where options begin.
const OPTIONS: usize = 240;
/// What the options begin with.
const MAGIC: u32 = 0x6382_5363;
/// The largest message we take: one frame's (option 57).
const MAX_RECEIVED: u16 = 1_472;

/// Numbers of options (RFC 2132, RFC 3442).
pub(crate) mod option {
    pub(crate) const SUBNET_MASK: u8 = 1;
    pub(crate) const ROUTER: u8 = 3;
    pub(crate) const DNS_SERVERS: u8 = 6;
    pub(crate) const HOST_NAME: u8 = 12;
    pub(crate) const DOMAIN_NAME: u8 = 15;
    pub(crate) const MTU: u8 = 26;
    pub(crate) const REQUESTED_ADDRESS: u8 = 50;
    pub(crate) const LEASE_TIME: u8 = 51;
    pub(crate) const MESSAGE_TYPE: u8 = 53;
    pub(crate) const SERVER: u8 = 54;
    pub(crate) const PARAMETERS: u8 = 55;
    pub(crate) const MAX_MESSAGE: u8 = 57;
    pub(crate) const RENEWAL_TIME: u8 = 58;
    pub(crate) const REBINDING_TIME: u8 = 59;
    pub(crate) const CLASSLESS_ROUTES: u8 = 121;
}

/// What we ask for; classless routes before routers (RFC 3442).
const WANTED: [u8; 9] = [
    option::SUBNET_MASK,
    option::CLASSLESS_ROUTES,
    option::ROUTER,
    option::DNS_SERVERS,
    option::DOMAIN_NAME,
    option::MTU,
    option::LEASE_TIME,
    option::RENEWAL_TIME,
    option::REBINDING_TIME,
];

/// Types of messages (RFC 2132 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
}

/// A message to be sent from [`CLIENT_PORT`].
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Our address: unspecified until there is a lease.
    pub from: Ipv4Addr,
    /// A server, or everybody.
    pub to: SocketAddrV4,
    bytes: [u8; MAX_BYTES],
    len: usize,
}

impl Outgoing {
    /// The message.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What a message of ours says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) kind: Kind,
    pub(crate) mac: MacAddress,
    pub(crate) transaction: u32,
    pub(crate) secs: u16,
    /// Our address, while we may use it.
    pub(crate) client: Ipv4Addr,
    /// A server, or everybody.
    pub(crate) to: Ipv4Addr,
    pub(crate) requested: Option<Ipv4Addr>,
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) host_name: &'a str,
}

impl Fields<'_> {
    /// Writes the message.
    pub(crate) fn emit(&self) -> Outgoing {
        let mut bytes = [0; MAX_BYTES];
        let mut len = MIN_BYTES;
        if let Ok(mut packet) = DhcpPacket::new_checked(&mut bytes[..]) {
            packet.set_opcode(DhcpOpCode::Request);
            packet.set_hardware_type(ArpHardware::Ethernet);
            packet.set_hardware_len(6);
            packet.set_transaction_id(self.transaction);
            packet.set_secs(self.secs);
            packet.set_flags(DhcpFlags::empty());
            packet.set_client_ip(self.client);
            packet.set_client_hardware_address(EthernetAddress(self.mac.0));
            packet.set_magic_number(MAGIC);
        }
        let mut at = OPTIONS;
        let mut put = |kind: u8, data: &[u8]| {
            // One byte stays for the end.
            if let Some(out) =
                bytes.get_mut(at..at + 2 + data.len()).filter(|_| at + 3 + data.len() <= MAX_BYTES)
            {
                out[0] = kind;
                out[1] = data.len() as u8;
                out[2..].copy_from_slice(data);
                at += 2 + data.len();
            }
        };
        put(option::MESSAGE_TYPE, &[self.kind as u8]);
        if let Some(requested) = self.requested {
            put(option::REQUESTED_ADDRESS, &requested.octets());
        }
        if let Some(server) = self.server {
            put(option::SERVER, &server.octets());
        }
        if matches!(self.kind, Kind::Discover | Kind::Request) {
            put(option::MAX_MESSAGE, &MAX_RECEIVED.to_be_bytes());
            put(option::PARAMETERS, &WANTED);
            if !self.host_name.is_empty() {
                put(option::HOST_NAME, self.host_name.as_bytes());
            }
        }
        if let Some(end) = bytes.get_mut(at) {
            *end = 0xff;
            len = len.max(at + 1);
        }
        Outgoing { from: self.client, to: SocketAddrV4::new(self.to, SERVER_PORT), bytes, len }
    }
}

/// A message of a server for us.
pub(crate) struct Incoming<'a> {
    pub(crate) kind: Kind,
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) packet: DhcpPacket<&'a [u8]>,
}

impl<'a> Incoming<'a> {
    /// Reads a message. `None`: it is none of a server, or not for this transaction of this client.
    pub(crate) fn read(bytes: &'a [u8], transaction: u32, mac: MacAddress) -> Option<Self> {
        let packet = DhcpPacket::new_checked(bytes).ok()?;
        if bytes.len() < OPTIONS
            || packet.opcode() != DhcpOpCode::Reply
            || packet.magic_number() != MAGIC
            || packet.hardware_type() != ArpHardware::Ethernet
            || packet.hardware_len() != 6
            || packet.transaction_id() != transaction
            || packet.client_hardware_address() != EthernetAddress(mac.0)
        {
            return None;
        }
        let find = |kind: u8| packet.options().find(|option: &DhcpOption<'_>| option.kind == kind);
        let kind = match find(option::MESSAGE_TYPE)?.data {
            [2] => Kind::Offer,
            [5] => Kind::Ack,
            [6] => Kind::Nak,
            _ => return None,
        };
        let server = find(option::SERVER).and_then(|option| option.data.first_chunk::<4>().copied());
        Some(Self { kind, server: server.map(Ipv4Addr::from), packet })
    }
}

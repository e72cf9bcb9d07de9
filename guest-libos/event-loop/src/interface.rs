//! The network interface that a program runs on, as the VMM describes it.

use crate::StartError;
use abi::boot::{DEVICE_NET, Device, IPV6_ADDRESSES, NameServers, ipv6, probing};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use exos_net::{Config, Ipv6Config, MacAddress, OnConflict, Probing, TxChecksum};
use exos_runtime::pages;

/// Of the heap, one part in so many may be taken by what peers have sent and the program has not read.
const BUFFERED_SHARE: u64 = 16;

/// The option of images for explicit congestion notification: `never`, `agree` or `ask`.
const ECN: &str = "ecn";

/// Whether a word of the command line is an option that the stack takes, and nobody else need know.
pub fn is_option_of_stack(word: &str) -> bool {
    word.strip_prefix("--").and_then(|word| word.split_once('=')).is_some_and(|(name, _)| name == ECN)
}

/// The machine's first network interface.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// Its number in the device table.
    pub(crate) index: usize,
    pub(crate) device: &'static Device,
    /// Its hardware address.
    pub mac: MacAddress,
    /// Its address; unspecified if a DHCP server is to be asked for one, or if it has only IPv6.
    pub address: Ipv4Addr,
    /// Bits of the address that all of the link share.
    pub prefix_len: u8,
    /// Where packets for others go.
    pub gateway: Option<Ipv4Addr>,
    /// Its IPv6 addresses, as the VMM tells them.
    ipv6: abi::boot::Ipv6Config,
    name_servers: NameServers,
    asks_dhcp: bool,
    /// A value of [`probing`].
    probing: u32,
    /// What is for nobody in particular, such as ARP, comes to this environment, which speaks for those that share the interface.
    hears_all: bool,
    /// Random bytes of this boot, for what strangers must not guess.
    pub secret: [u8; 16],
}

impl Interface {
    /// The first, which must have an address of its own.
    pub fn first() -> Result<Self, StartError> {
        Self::first_of_any().and_then(|interface| {
            if interface.asks_dhcp() { Err(StartError::NoAddress) } else { Ok(interface) }
        })
    }

    /// Whether a DHCP server is to be asked for its address.
    pub fn asks_dhcp(&self) -> bool {
        self.asks_dhcp
    }

    /// The largest IP packet that the device takes.
    pub(crate) fn mtu(&self) -> u16 {
        self.device.mtu_bytes as u16
    }

    /// Whom the user has said to ask for names.
    pub fn name_servers(&self) -> impl Iterator<Item = IpAddr> + Clone {
        self.name_servers.iter()
    }

    /// Whether it has IPv6.
    pub fn has_ipv6(&self) -> bool {
        self.ipv6.mode != ipv6::OFF
    }

    /// Whether it uses what IPv6 routers advertise.
    pub fn hears_routers(&self) -> bool {
        self.ipv6.mode == ipv6::AUTOMATIC
    }

    /// The IPv6 address that it was given, the bits of it that all of the link share, and where packets for others go.
    pub fn given_ipv6(&self) -> Option<(Ipv6Addr, u8, Option<Ipv6Addr>)> {
        let address = host(self.ipv6.address).filter(|_| self.has_ipv6())?;
        Some((address, self.ipv6.prefix_len as u8, host(self.ipv6.gateway)))
    }

    /// The first, with an address or to ask for one.
    pub(crate) fn first_of_any() -> Result<Self, StartError> {
        let environment = pages::environment();
        let index = pages::device_of_kind(DEVICE_NET).ok_or(StartError::NoNic)?;
        let device = &environment.devices[index];
        let ipv4 = &environment.ipv4;
        if ipv4.address == [0; 4] && ipv4.dhcp == 0 && environment.ipv6.mode == ipv6::OFF {
            return Err(StartError::NoAddress);
        }
        let (mut mac, mut secret) = ([0; 6], [0; 16]);
        mac.copy_from_slice(&device.mac[..6]);
        secret.copy_from_slice(&environment.entropy[..16]);
        Ok(Self {
            index,
            device,
            mac: MacAddress(mac),
            address: ipv4.address.into(),
            prefix_len: ipv4.prefix_len as u8,
            gateway: Some(Ipv4Addr::from(ipv4.gateway)).filter(|gateway| !gateway.is_unspecified()),
            ipv6: environment.ipv6,
            name_servers: environment.name_servers,
            asks_dhcp: ipv4.dhcp != 0,
            probing: ipv4.probing,
            // The first environment has the root of the flows.
            hears_all: environment.environment == 0,
            secret,
        })
    }

    /// What a stack on this interface begins with: the NIC computes checksums and splits segments. An image that declares the
    /// option `ecn` lets its user say what becomes of explicit congestion notification.
    pub fn stack_config(&self, max_connections: u32) -> Result<Config, StartError> {
        let mut config = Config::new(self.mac, self.address, self.prefix_len, self.secret);
        config.gateway = self.gateway;
        (config.probing, config.on_conflict) = match self.probing {
            // Whoever hears all asks for all.
            _ if !self.hears_all => (Probing::None, OnConflict::Keep),
            _ if self.asks_dhcp() => (Probing::Before, OnConflict::GiveUp),
            probing::BEFORE => (Probing::Before, OnConflict::Keep),
            probing::MEANWHILE => (Probing::Meanwhile, OnConflict::Keep),
            _ => (Probing::None, OnConflict::Keep),
        };
        config.ipv6 = self.has_ipv6().then(|| self.ipv6_config());
        // Of several environments only the first may send what is about all of them.
        config.group_reports = self.hears_all;
        config.mtu = self.mtu();
        config.max_connections = max_connections;
        config.max_buffered_bytes = (pages::heap_bytes() / BUFFERED_SHARE) as usize;
        config.tx_checksum = TxChecksum::Offload;
        config.tso_max_bytes = exos_net::MAX_TSO_BYTES;
        config.ecn = pages::options().parse(ECN).map_err(StartError::Option)?.unwrap_or_default();
        Ok(config)
    }

    fn ipv6_config(&self) -> Ipv6Config {
        let prefix_len = self.ipv6.prefix_len as u8;
        let addresses: Vec<_> = host(self.ipv6.address).map(|ip| (ip, prefix_len)).into_iter().collect();
        Ipv6Config {
            addresses,
            gateway: host(self.ipv6.gateway),
            router_advertisements: self.ipv6.mode == ipv6::AUTOMATIC,
            speaks: self.hears_all,
            max_addresses: IPV6_ADDRESSES as u8,
            ..Ipv6Config::default()
        }
    }
}

/// An address, if it is one.
fn host(octets: [u8; 16]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(octets)).filter(|host| !host.is_unspecified())
}

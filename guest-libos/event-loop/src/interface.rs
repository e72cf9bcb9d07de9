//! The network interface that a program runs on, as the VMM describes it.

use crate::StartError;
use abi::boot::{DEVICE_NET, Device};
use core::net::Ipv4Addr;
use exos_net::{Config, MacAddress, OnConflict, Probing, TxChecksum};
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
    /// Its address; unspecified if a DHCP server is to be asked for one.
    pub address: Ipv4Addr,
    /// Bits of the address that all of the link share.
    pub prefix_len: u8,
    /// Where packets for others go.
    pub gateway: Option<Ipv4Addr>,
    /// Random bytes of this boot, for what strangers must not guess.
    pub secret: [u8; 16],
}

impl Interface {
    /// The first, which must have an address.
    pub fn first() -> Result<Self, StartError> {
        Self::first_of_any().and_then(|interface| {
            if interface.asks_dhcp() { Err(StartError::NoAddress) } else { Ok(interface) }
        })
    }

    /// Whether a DHCP server is to be asked for its address.
    pub fn asks_dhcp(&self) -> bool {
        self.address.is_unspecified()
    }

    /// The first, with an address or to ask for one.
    pub(crate) fn first_of_any() -> Result<Self, StartError> {
        let environment = pages::environment();
        let index = pages::device_of_kind(DEVICE_NET).ok_or(StartError::NoNic)?;
        let device = &environment.devices[index];
        let ipv4 = &environment.ipv4;
        if ipv4.address == [0; 4] && ipv4.dhcp == 0 {
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
            secret,
        })
    }

    /// What a stack on this interface begins with: the NIC computes checksums and splits segments. An image that declares the
    /// option `ecn` lets its user say what becomes of explicit congestion notification.
    pub fn stack_config(&self, max_connections: u32) -> Result<Config, StartError> {
        let mut config = Config::new(self.mac, self.address, self.prefix_len, self.secret);
        config.gateway = self.gateway;
        if self.asks_dhcp() {
            (config.probing, config.on_conflict) = (Probing::Before, OnConflict::GiveUp);
        }
        config.mtu = self.device.mtu_bytes as u16;
        config.max_connections = max_connections;
        config.max_buffered_bytes = (pages::heap_bytes() / BUFFERED_SHARE) as usize;
        config.tx_checksum = TxChecksum::Offload;
        config.tso_max_bytes = exos_net::MAX_TSO_BYTES;
        config.ecn = pages::options().parse(ECN).map_err(StartError::Option)?.unwrap_or_default();
        Ok(config)
    }
}

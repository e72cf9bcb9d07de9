//! The machine's NIC.

use super::MachineError;
use super::boot::Grant;
use super::slots::Slots;
use crate::backend::Backend;
use crate::backend::link::End;
use crate::backend::user::User;
use crate::device::virtio::Binder;
use crate::device::virtio::net::{Net, NetConfig};
use crate::placement::Nic;
use crate::tables::{DmaDomain, Tables};
use abi::boot::{Ipv4Config, Ipv6Config, NameServers};
use std::sync::{Arc, Mutex};

/// Largest virtqueue offered.
const QUEUE_SIZE_MAX: u16 = 1024;

/// A machine's network interface.
pub struct NetSetup {
    /// Where frames go.
    pub backend: Box<dyn Backend>,
    /// The guest's address.
    pub ipv4: Ipv4Config,
    /// Its IPv6 addresses.
    pub ipv6: Ipv6Config,
    /// Whom the guest asks for names.
    pub name_servers: NameServers,
    /// The guest's hardware address.
    pub mac: [u8; 6],
    /// Largest IP packet.
    pub mtu_bytes: u16,
    /// Queue pairs offered.
    pub queue_pairs: u16,
}

/// Queue pairs that a NIC has if nobody wants another number.
pub const QUEUE_PAIRS: u16 = 4;

impl NetSetup {
    /// The interface of a guest on a user network, which must have been made for `mac`.
    pub fn user(network: User, mac: [u8; 6]) -> Self {
        Self {
            backend: Box::new(network),
            ipv4: Ipv4Config {
                address: exovm_user_net::GUEST_ADDRESS.octets(),
                gateway: exovm_user_net::GATEWAY_ADDRESS.octets(),
                prefix_len: u32::from(exovm_user_net::PREFIX_LEN),
                ..Ipv4Config::default()
            },
            ipv6: Ipv6Config::default(),
            name_servers: NameServers::default(),
            mac,
            mtu_bytes: exovm_user_net::MTU_BYTES as u16,
            queue_pairs: QUEUE_PAIRS,
        }
    }
}

/// Largest IP packet on a link.
const LINK_MTU_BYTES: u16 = 1500;

impl NetSetup {
    /// The interface of a guest at an end of a link.
    pub fn link(end: End, ipv4: Ipv4Config, mac: [u8; 6]) -> Self {
        Self {
            backend: Box::new(end),
            ipv4,
            ipv6: Ipv6Config::default(),
            name_servers: NameServers::default(),
            mac,
            mtu_bytes: LINK_MTU_BYTES,
            queue_pairs: QUEUE_PAIRS,
        }
    }
}

/// Makes the NIC and puts it into a slot.
pub(super) fn attach(
    net: NetSetup,
    slots: &mut Slots<'_>,
    tables: &Arc<Tables>,
) -> Result<Arc<Mutex<Nic>>, MachineError> {
    let config = NetConfig {
        device_index: slots.next_index(),
        queue_pairs: net.queue_pairs,
        queue_size_max: QUEUE_SIZE_MAX,
        mac: net.mac,
        mtu_bytes: net.mtu_bytes,
    };
    let binder: Arc<dyn Binder<DmaDomain>> = Arc::clone(tables) as _;
    let device = Net::new(config, binder, tables.flows(), net.backend)?;
    // One queue pair is used until the environment binds more.
    slots.attach(device, |function| function.device_entry(), Grant::Flows { queue_pairs: 1 })
}

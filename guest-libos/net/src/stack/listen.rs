//! Passive OPEN (RFC 9293 3.10.1): ports that are listened on, at all our addresses or at one of them.

use core::net::{IpAddr, SocketAddr};

use alloc::vec::Vec;

use super::Stack;
use crate::data::Data;
use crate::events::ListenError;
use crate::tcp::table::FlowKey;

#[derive(Debug, Default)]
pub(super) struct Listening {
    /// Ports at all addresses, in order.
    everywhere: Vec<u16>,
    /// Ports at one address.
    at_one: Vec<SocketAddr>,
}

impl Listening {
    /// Whether anybody listens on `port` anywhere.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.everywhere.binary_search(&port).is_ok() || self.at_one.iter().any(|at| at.port() == port)
    }
}

impl<D: Data> Stack<D> {
    /// Accepts connections to `port` from now on.
    pub fn listen(&mut self, port: u16) -> Result<(), ListenError> {
        if port == 0 {
            return Err(ListenError::PortZero);
        }
        if self.listening.has_port(port) {
            return Err(ListenError::InUse);
        }
        let ports = &mut self.listening.everywhere;
        ports.insert(ports.partition_point(|&other| other < port), port);
        Ok(())
    }

    /// The same at one address of ours, which may still be tentative. When the address goes away, nobody is accepted until it
    /// is there again.
    pub fn listen_at(&mut self, local: impl Into<SocketAddr>) -> Result<(), ListenError> {
        let local = local.into();
        if local.port() == 0 {
            return Err(ListenError::PortZero);
        }
        if !self.is_ours(local.ip()) && !self.is_tentative(local.ip()) {
            return Err(ListenError::NotOurAddress);
        }
        let Listening { everywhere, at_one } = &mut self.listening;
        if everywhere.binary_search(&local.port()).is_ok() || at_one.contains(&local) {
            return Err(ListenError::InUse);
        }
        at_one.push(local);
        Ok(())
    }

    /// Accepts no more connections to `port`; those that exist stay. Returns whether it was open.
    pub fn unlisten(&mut self, port: u16) -> bool {
        let ports = &mut self.listening.everywhere;
        ports.binary_search(&port).map(|place| ports.remove(place)).is_ok()
    }

    /// The same for what [`Self::listen_at`] opened.
    pub fn unlisten_at(&mut self, local: impl Into<SocketAddr>) -> bool {
        let (local, at_one) = (local.into(), &mut self.listening.at_one);
        at_one.iter().position(|&at| at == local).map(|place| at_one.swap_remove(place)).is_some()
    }

    /// Whether a connection between these ends is accepted.
    pub(super) fn is_listening(&self, key: FlowKey) -> bool {
        let Listening { everywhere, at_one } = &self.listening;
        let port = key.local_port();
        if everywhere.binary_search(&port).is_ok() {
            return true;
        }
        let local = || self.table.pairs.get(key).map_or(IpAddr::V4(self.config.ip), |pair| pair.local.into());
        !at_one.is_empty() && at_one.contains(&SocketAddr::new(local(), port))
    }

    /// Whether others are still asked about `address`.
    pub(super) fn is_tentative(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.address.is_wanted(address),
            IpAddr::V6(address) => {
                self.resolver.ipv6.as_ref().is_some_and(|interface| interface.addresses.is_tentative(address))
            }
        }
    }
}

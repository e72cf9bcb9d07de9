//! Next hops: which host on the link a packet is handed to, and at which Ethernet address, by the family's own means.

use core::net::IpAddr;

use alloc::boxed::Box;

use super::arp::arp_request;
use super::ipv6::solicitation;
use super::neighbours::Neighbours;
use crate::config::Config;
use crate::counters::Counters;
use crate::data::Data;
use crate::driver::{Full, Transmit};
use crate::ipv6::Interface;
use crate::tcp::isn::FlowHash;
use crate::time::Instant;
use crate::wire::ethernet::MacAddress;

#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) arp: Neighbours,
    pub(super) ipv6: Option<Box<Interface>>,
}

impl Resolver {
    pub(super) fn new(config: &Config, hash: FlowHash, now: Instant) -> Self {
        let interface = |ipv6| Box::new(Interface::new(config, ipv6, hash.clone(), now));
        let ipv6 = config.ipv6.as_ref().map(interface);
        Self { arp: Neighbours::new(config.max_neighbours as usize, hash), ipv6 }
    }

    /// The link of our IPv4 address is gone with it.
    pub(super) fn forget_ipv4(&mut self, config: &Config) {
        self.arp = Neighbours::new(config.max_neighbours as usize, FlowHash::new(config.secret));
    }

    /// Whether `address` is on our link.
    pub(super) fn is_on_link(&self, config: &Config, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => config.is_on_link(address),
            IpAddr::V6(address) => self.ipv6.as_ref().is_some_and(|interface| interface.is_on_link(address)),
        }
    }

    /// The host on our link that packets to `address` are handed to.
    pub(super) fn hop_to(&self, config: &Config, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(address) => config.hop_to(address).map(IpAddr::V4),
            IpAddr::V6(address) => self.ipv6.as_ref()?.hop_to(address).map(IpAddr::V6),
        }
    }

    /// The Ethernet address to send to, if it is known well enough.
    pub(super) fn lookup(&mut self, hop: IpAddr, now: Instant) -> Option<MacAddress> {
        match hop {
            IpAddr::V4(hop) => self.arp.lookup(hop, now),
            IpAddr::V6(hop) => self.ipv6.as_mut()?.neighbours.lookup(hop, now),
        }
    }

    /// A connection was opened with `hop` at `mac`: it is there.
    pub(super) fn confirm(&mut self, hop: IpAddr, mac: MacAddress, now: Instant) {
        match (hop, &mut self.ipv6) {
            (IpAddr::V4(hop), _) => self.arp.confirm(hop, mac, now),
            (IpAddr::V6(hop), Some(interface)) => interface.neighbours.confirm(hop, mac, now),
            _ => {}
        }
    }

    /// A connection with `peer` gets on through `mac` (RFC 4861 7.3.1).
    pub(super) fn confirm_peer(&mut self, config: &Config, peer: IpAddr, mac: MacAddress, now: Instant) {
        if let Some(hop) = self.hop_to(config, peer) {
            self.confirm(hop, mac, now);
        }
    }

    /// A connection does not get on through `hop`: if it was asked for before, it is asked whether it is still there.
    pub(super) fn suspect<D: Data, T: Transmit<D>>(
        &mut self,
        config: &Config,
        counters: &mut Counters,
        hop: IpAddr,
        now: Instant,
        tx: &mut T,
    ) {
        match (hop, &mut self.ipv6) {
            (IpAddr::V4(address), _) if self.arp.last_known(address).is_some() => {
                let _ = self.ask(config, counters, hop, now, tx);
            }
            (IpAddr::V6(hop), Some(interface)) => interface.neighbours.suspect(hop, now),
            _ => {}
        }
    }

    /// Asks for the Ethernet address of `hop`, unless somebody did within the last second.
    pub(super) fn ask<D: Data, T: Transmit<D>>(
        &mut self,
        config: &Config,
        counters: &mut Counters,
        hop: IpAddr,
        now: Instant,
        tx: &mut T,
    ) -> Result<(), Full> {
        match (hop, &mut self.ipv6) {
            (IpAddr::V4(hop), _) if self.arp.may_ask(hop, now) => {
                tx.transmit_control(&arp_request(config, hop))?;
                self.arp.asked(hop, now);
                counters.arp_requests += 1;
            }
            (IpAddr::V6(hop), Some(interface)) if interface.neighbours.may_ask(hop, now) => {
                let question = interface.question(hop, now).filter(|_| interface.speaks);
                let Some(question) = question else { return Ok(()) };
                tx.transmit_control(&solicitation(config, question))?;
                interface.neighbours.asked(hop, now);
                counters.neighbour_solicitations += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// The size that packets to `destination` keep to: the least of what the link takes, what a router says about it, and
    /// what the path takes.
    pub(super) fn mtu_to(&self, config: &Config, destination: IpAddr, path: Option<u16>) -> u16 {
        let ipv6 = self.ipv6.as_ref().filter(|_| destination.is_ipv6());
        let link = ipv6.map_or(config.mtu, |interface| interface.link_mtu.now(config.mtu));
        path.map_or(link, |path| path.min(link))
    }

    /// The same of segments of connections, which take their time with what a router says.
    pub(super) fn mtu_of_connections_to(
        &self,
        config: &Config,
        destination: IpAddr,
        path: Option<u16>,
    ) -> u16 {
        let ipv6 = self.ipv6.as_ref().filter(|_| destination.is_ipv6());
        let link = ipv6.map_or(config.mtu, |interface| interface.link_mtu.in_use());
        path.map_or(link, |path| path.min(link))
    }

    /// When IPv6 has something to send or to forget.
    pub(super) fn next_deadline(&self) -> Instant {
        self.ipv6.as_ref().map_or(Instant::NEVER, |interface| interface.next_deadline())
    }
}

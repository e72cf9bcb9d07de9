//! Next hops: which host on the link a packet is handed to, and at which Ethernet address, by the family's own means.

use core::net::IpAddr;

use super::arp::arp_request;
use super::neighbours::Neighbours;
use crate::config::Config;
use crate::counters::Counters;
use crate::data::Data;
use crate::driver::{Full, Transmit};
use crate::time::Instant;
use crate::wire::ethernet::MacAddress;

#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) arp: Neighbours,
}

impl Resolver {
    /// Whether `address` is on our link.
    pub(super) fn is_on_link(&self, config: &Config, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => config.is_on_link(address),
            IpAddr::V6(_) => false,
        }
    }

    /// The host on our link that packets to `address` are handed to.
    pub(super) fn hop_to(&self, config: &Config, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(address) => config.hop_to(address).map(IpAddr::V4),
            IpAddr::V6(_) => None,
        }
    }

    /// The Ethernet address to send to, if it is known well enough.
    pub(super) fn lookup(&self, hop: IpAddr, now: Instant) -> Option<MacAddress> {
        match hop {
            IpAddr::V4(hop) => self.arp.lookup(hop, now),
            IpAddr::V6(_) => None,
        }
    }

    /// The Ethernet address that was heard last, however long ago.
    pub(super) fn last_known(&self, hop: IpAddr) -> Option<MacAddress> {
        match hop {
            IpAddr::V4(hop) => self.arp.last_known(hop),
            IpAddr::V6(_) => None,
        }
    }

    /// A connection was opened with `hop` at `mac`: it is there.
    pub(super) fn confirm(&mut self, hop: IpAddr, mac: MacAddress, now: Instant) {
        if let IpAddr::V4(hop) = hop {
            self.arp.confirm(hop, mac, now);
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
        let IpAddr::V4(hop) = hop else { return Ok(()) };
        if !self.arp.may_ask(hop, now) {
            return Ok(());
        }
        tx.transmit_control(&arp_request(config, hop))?;
        self.arp.asked(hop, now);
        counters.arp_requests += 1;
        Ok(())
    }
}

//! How large packets may be on their way to somebody: what the link takes, what routers say about it (RFC 1191), for whom it
//! counts, and for how long.

use core::net::{IpAddr, SocketAddr};

use super::Stack;
use crate::config::ConfigError;
use crate::counters::DropReason;
use crate::data::Data;
use crate::events::{ConnId, DatagramError, Input, SegmentEvents};
use crate::tcp::Context;
use crate::tcp::template::Family;
use crate::time::Instant;
use crate::wire::icmp::{Problem, Quoted};
use crate::wire::ipv4::Protocol;

/// The least path MTU that an ICMP message can make us believe in: IPv4's minimum for receivers (RFC 791) guards against
/// forgeries that would have us send headers only.
const MIN_PATH_MTU: u16 = 576;

impl<D: Data> Stack<D> {
    /// The link takes IP packets of `mtu` bytes from now on ([`Config::mtu`]), as a DHCP server says (RFC 2132 5.1). Handshakes
    /// announce it, and connections that there are send no larger ones.
    pub fn set_mtu(&mut self, now: Instant, mtu: u16) -> Result<(), ConfigError> {
        let before = core::mem::replace(&mut self.config.mtu, mtu);
        if let Err(error) = self.config.check_mtu() {
            self.config.mtu = before;
            return Err(error);
        }
        self.follow_link_mtu(Family::V4, before, mtu, now);
        if let Some(interface) = &mut self.resolver.ipv6 {
            let (was, is) = interface.link_mtu.follow(mtu);
            self.follow_link_mtu(Family::V6, was, is, now);
        }
        Ok(())
    }

    /// A router may have said another MTU of the link (RFC 4861 6.3.4), which is IPv6's alone.
    pub(super) fn link_mtu_advertised(&mut self, now: Instant) {
        let Some(interface) = self.resolver.ipv6.as_deref_mut() else { return };
        if let Some(ipv6) = &mut self.config.ipv6 {
            ipv6.link_mtu = interface.link_mtu.said;
        }
        if let Some((was, is)) = interface.link_mtu.advertised(self.config.mtu, now) {
            self.follow_link_mtu(Family::V6, was, is, now);
        }
    }

    /// It is time for what an advertisement said a while ago.
    pub(super) fn expire_link_mtu(&mut self, now: Instant) {
        let Some(interface) = self.resolver.ipv6.as_deref_mut() else { return };
        if interface.link_mtu.next_deadline() <= now {
            let (was, is) = interface.link_mtu.follow(self.config.mtu);
            self.follow_link_mtu(Family::V6, was, is, now);
        }
    }

    /// For connections of a family the link takes packets of `is` bytes instead of `was`.
    fn follow_link_mtu(&mut self, family: Family, was: u16, is: u16, now: Instant) {
        for index in 0..self.table.places() {
            if let Some((_, connection)) = self.table.at(index)
                && connection.template.family() == family
            {
                let path = self.path_mtus.proven(connection.template.peer(), now);
                connection.agreed.follow_link(was, is, path);
                connection.send.set_mss(connection.agreed.send_mss());
            }
        }
    }

    /// What connections to `destination` keep to.
    fn mtu_of_connections_to(&self, destination: IpAddr, now: Instant) -> u16 {
        let path = self.path_mtus.proven(destination, now);
        self.resolver.mtu_of_connections_to(&self.config, destination, path)
    }

    /// RFC 1191 6.3, believed only if it quotes what is on its way (RFC 5927 7.2), or at least a port that is bound.
    pub(super) fn path_mtu_reduced<'f>(
        &mut self,
        now: Instant,
        next_mtu: u16,
        quoted: &Quoted,
    ) -> Result<Input<'f>, DropReason> {
        let mtu = next_mtu.max(MIN_PATH_MTU);
        match quoted.protocol {
            Protocol::Tcp => self.segment_was_too_large(now, mtu, quoted),
            Protocol::Udp => self.datagram_was_too_large(now, mtu, quoted),
            Protocol::Icmp => Err(DropReason::Unsupported),
        }
    }

    fn segment_was_too_large<'f>(
        &mut self,
        now: Instant,
        mtu: u16,
        quoted: &Quoted,
    ) -> Result<Input<'f>, DropReason> {
        let conn = self.connection_quoted(quoted)?;
        let connection = self.table.get_mut(conn).ok_or(DropReason::Unacceptable)?;
        if !connection.state.is_synchronized() {
            return Err(DropReason::Unacceptable);
        }
        let mut agreed = connection.agreed;
        agreed.set_path_mtu(mtu);
        if agreed.send_mss() >= connection.send.mss {
            return Err(DropReason::Unacceptable);
        }
        connection.agreed = agreed;
        connection.send.reduce_mss(agreed.send_mss());
        self.counters.path_mtu_reduced += 1;
        let ctx = Context {
            config: &self.config,
            counters: &mut self.counters,
            samples: &mut self.samples,
            buffered_bytes: &mut self.buffered_bytes,
            now,
        };
        connection.send.update_timer(&ctx);
        self.wheel.arm(conn.index, connection.deadline(&self.config));
        if self.path_mtus.learn(quoted.destination, mtu, true, now) {
            self.set_path_mtu(quoted.destination, mtu);
        }
        Ok(Input::Segment(SegmentEvents { output_due: true, ..SegmentEvents::none(conn) }))
    }

    fn datagram_was_too_large<'f>(
        &mut self,
        now: Instant,
        mtu: u16,
        quoted: &Quoted,
    ) -> Result<Input<'f>, DropReason> {
        if !self.is_ours(quoted.source) || !self.is_bound_udp(quoted.source_port, quoted.source) {
            return Err(DropReason::Unacceptable);
        }
        if mtu >= self.config.mtu || !self.path_mtus.learn(quoted.destination, mtu, false, now) {
            return Err(DropReason::Unacceptable);
        }
        self.counters.path_mtu_reduced += 1;
        self.counters.datagram_errors_in += 1;
        Ok(Input::DatagramError(DatagramError {
            from: quoted.source,
            port: quoted.source_port,
            to: SocketAddr::new(quoted.destination, quoted.destination_port),
            problem: Problem::FragmentationNeeded,
        }))
    }

    /// Connections to `destination` send segments of a new size from now on. What is on its way in the old one is repaired
    /// like any loss.
    fn set_path_mtu(&mut self, destination: IpAddr, mtu: u16) {
        for index in 0..self.table.places() {
            if let Some((_, connection)) = self.table.at(index)
                && connection.template.peer() == destination
                && connection.is_open()
            {
                connection.agreed.set_path_mtu(mtu);
                connection.send.set_mss(connection.agreed.send_mss());
            }
        }
    }

    /// A connection has opened: what others learned of the path counts for it, too.
    pub(super) fn apply_path_mtu(&mut self, conn: ConnId, now: Instant) {
        if self.path_mtus.is_empty() && self.resolver.ipv6.is_none() {
            return;
        }
        let Some(peer) = self.table.get(conn).map(|connection| connection.template.peer()) else { return };
        let mtu = self.mtu_of_connections_to(peer, now);
        let Some(connection) = self.table.get_mut(conn) else { return };
        connection.agreed.set_path_mtu(mtu);
        connection.send.set_mss(connection.agreed.send_mss());
    }

    /// Paths of which nothing was heard for ten minutes may be wider again.
    pub(super) fn expire_path_mtus(&mut self, now: Instant) {
        while let Some(destination) = self.path_mtus.expire(now) {
            let mtu = self.mtu_of_connections_to(destination, now);
            self.set_path_mtu(destination, mtu);
        }
    }
}

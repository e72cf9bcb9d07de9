//! Connections that we open: a place, a source port and an initial sequence number in `connect`; then the next hop's
//! Ethernet address, if nobody has told it yet, and the SYN. Everything after that is the connection's part.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Stack;
use super::neighbours::{ASK_INTERVAL, Heard};
use super::resolver::Resolver;
use crate::counters::DropReason;
use crate::data::Data;
use crate::driver::{Full, Transmit};
use crate::events::{ConnId, ConnectError, End, Input, Sent, StaleConnection};
use crate::ipv6;
use crate::tcp::connection::{Connection, State};
use crate::tcp::pairs::Pair;
use crate::tcp::table::FlowKey;
use crate::tcp::template::Fields;
use crate::tcp::transmit::TimerOutcome;
use crate::tcp::{Context, Seq};
use crate::time::Instant;
use crate::wire::ethernet::MacAddress;
use crate::wire::ipv4;
use crate::wire::tcp::{Control, Segment, flags};

/// How often a neighbour is asked before those who want it are told that there is none.
const MAX_ASKS: u8 = 3;
/// SYNs without an answer after which the next hop is asked whether it is still where it was.
const SUSPICIOUS_REPETITIONS: u8 = 2;
/// The next hop's address while nobody knows it.
const UNKNOWN: MacAddress = MacAddress([0; 6]);

impl<D: Data> Stack<D> {
    /// Begins a connection to `remote` from a source port of `Config::ephemeral_ports` (RFC 6056 3.3.3). Nothing is sent:
    /// [`Self::output`] sends the SYN, or first asks for the next hop's Ethernet address. Until the handshake is over, data
    /// can be queued; it follows with the acknowledgment that completes it. Then
    /// `SegmentEvents::opened` is reported, or else how it ended, by [`Self::input`] or [`Self::expire`].
    pub fn connect(&mut self, now: Instant, remote: impl Into<SocketAddr>) -> Result<ConnId, ConnectError> {
        let remote = remote.into();
        let any = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        self.connect_from(now, SocketAddr::new(any, 0), remote)
    }

    /// The same from a local address and port (RFC 9293 3.9.1.1: MUST-43). The unspecified address and port 0 leave the
    /// choice to the stack, as [`Self::connect`] does.
    pub fn connect_from(
        &mut self,
        now: Instant,
        local: impl Into<SocketAddr>,
        remote: impl Into<SocketAddr>,
    ) -> Result<ConnId, ConnectError> {
        let (local, remote) = (local.into(), remote.into());
        let hop = self.hop_for(remote)?;
        self.check_source(local.ip(), remote.ip())?;
        if self.table.len() >= self.config.max_connections as usize {
            return Err(ConnectError::ConnectionsFull);
        }
        let ends = match remote {
            SocketAddr::V4(to) => FlowKey::new(*to.ip(), to.port(), 0),
            SocketAddr::V6(to) => {
                let peer = *to.ip();
                let local = match local.ip() {
                    IpAddr::V6(named) if !named.is_unspecified() => named,
                    _ => self.ipv6_source_for(peer, now).ok_or(ConnectError::NoAddress)?,
                };
                FlowKey::of_pair(self.table.pairs.hold(Pair { local, peer }), to.port(), 0)
            }
        };
        let conn = self.connect_between(now, remote, hop, ends, local.port());
        self.table.pairs.remove_user(ends);
        conn
    }

    /// Whether a connection to `remote` can be one from `local`.
    fn check_source(&self, local: IpAddr, remote: IpAddr) -> Result<(), ConnectError> {
        let is_link_local = match (local, remote) {
            (IpAddr::V4(_), IpAddr::V4(_)) => false,
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                ipv6::is_link_local(local) && !ipv6::is_link_local(remote)
            }
            _ => return Err(ConnectError::NotOurAddress),
        };
        if local.is_unspecified() {
            return Ok(());
        }
        if self.is_tentative(local) {
            return Err(ConnectError::AddressTentative);
        }
        if !self.is_ours(local) {
            return Err(ConnectError::NotOurAddress);
        }
        if is_link_local { Err(ConnectError::BeyondScope) } else { Ok(()) }
    }

    /// The same, once it is known between which addresses. `ends` has no port of ours yet; 0 leaves it to us.
    fn connect_between(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        hop: IpAddr,
        ends: FlowKey,
        port: u16,
    ) -> Result<ConnId, ConnectError> {
        let key_from = |port| ends.with_local_port(port);
        let mut is_free = |port| {
            let key = key_from(port);
            self.table.find(key).is_none() && !self.time_wait.contains(self.table.pairs.flow(key), now)
        };
        let port = if port == 0 {
            let listening = &self.listening;
            let may_be_chosen = |port| !listening.has(port) && is_free(port);
            let chosen = self.source_ports.choose(&self.config.ephemeral_ports, remote, may_be_chosen);
            chosen.ok_or(ConnectError::PortsInUse)?
        } else if is_free(port) {
            port
        } else {
            return Err(ConnectError::Exists);
        };
        let key = key_from(port);
        let next_hop = self.resolver.lookup(hop, now);
        let template = self.template(next_hop.unwrap_or(UNKNOWN), key);
        let flow = self.table.pairs.flow(key);
        let isn = self.isn.next(flow, now);
        let timestamp_offset = self.isn.timestamp_offset(flow);
        self.counters.active_opens += 1;
        let ctx = Context {
            config: &self.config,
            counters: &mut self.counters,
            samples: &mut self.samples,
            buffered_bytes: &mut self.buffered_bytes,
            now,
        };
        let (conn, connection) =
            self.table.insert(key, || Connection::connect(key, isn, timestamp_offset, template, &ctx));
        // If `output` is forgotten, the timer sends.
        self.wheel.arm(conn.index, connection.deadline(&self.config));
        self.opening += 1;
        if next_hop.is_none() {
            self.wait_for_neighbour(conn);
        }
        Ok(conn)
    }

    /// Connections that we began and whose handshake is not over.
    pub fn opening(&self) -> usize {
        self.opening as usize
    }

    /// Somebody who hears ARP in our place (a guardian) says that `ip`, on our link, is at `mac`. Connections that waited
    /// for it go on with the next [`Self::retry_blocked`].
    pub fn set_neighbour(&mut self, ip: Ipv4Addr, mac: MacAddress) {
        if mac.is_unicast() && self.config.is_on_link(ip) {
            let heard = self.resolver.arp.set(ip, mac);
            self.neighbour_heard(ip.into(), mac, heard);
        }
    }

    /// The same for the gateway, if there is one.
    pub fn set_gateway_mac(&mut self, mac: MacAddress) {
        if let Some(gateway) = self.config.gateway {
            self.set_neighbour(gateway, mac);
        }
    }

    /// The host on the link through which `remote` is reached.
    fn hop_for(&self, remote: SocketAddr) -> Result<IpAddr, ConnectError> {
        if remote.port() == 0 {
            return Err(ConnectError::PortZero);
        }
        if remote.is_ipv4() && !self.config.has_address() {
            return Err(ConnectError::NoAddress);
        }
        let is_host = match remote.ip() {
            IpAddr::V4(ip) => ipv4::is_host(ip) && !self.config.is_link_broadcast(ip),
            IpAddr::V6(ip) => ipv6::is_host(ip),
        };
        if !is_host || self.is_ours(remote.ip()) {
            return Err(ConnectError::NotAHost);
        }
        self.resolver.hop_to(&self.config, remote.ip()).ok_or(ConnectError::NoRoute)
    }

    /// Remembers a connection that cannot send before its next hop is known.
    fn wait_for_neighbour(&mut self, conn: ConnId) {
        if self.waiting.len() >= 2 * self.table.len() {
            let table = &self.table;
            self.waiting.retain(|&other| table.get(other).is_some());
        }
        self.waiting.push(conn);
    }

    /// `ip` is at `mac`: those that wait for it can send, and those that sent to where it was must send elsewhere.
    pub(super) fn neighbour_heard(&mut self, ip: IpAddr, mac: MacAddress, heard: Heard) {
        if heard == Heard::Nothing {
            return;
        }
        if let Heard::Moved(before) = heard {
            for index in 0..self.table.places() {
                if let Some((_, connection)) = self.table.at(index)
                    && connection.template.next_hop() == before
                    && self.resolver.hop_to(&self.config, connection.template.peer()) == Some(ip)
                {
                    connection.template.set_next_hop(mac);
                }
            }
        }
        let mut waiting = core::mem::take(&mut self.waiting);
        waiting.retain(|&conn| {
            let Some(connection) = self.table.get_mut(conn) else { return false };
            if self.resolver.hop_to(&self.config, connection.template.peer()) != Some(ip) {
                return true;
            }
            if !connection.has_next_hop() {
                connection.template.set_next_hop(mac);
                self.mark_blocked(conn);
            }
            false
        });
        self.waiting = waiting;
    }

    /// [`Self::output`] while the handshake is not over: what has not left yet leaves now, time does the rest.
    #[cold]
    pub(super) fn output_opening<T: Transmit<D>>(
        &mut self,
        conn: ConnId,
        now: Instant,
        tx: &mut T,
    ) -> Result<Sent, StaleConnection> {
        let connection = self.table.get_mut(conn).ok_or(StaleConnection)?;
        let mut sent = Sent::default();
        let is_syn_due = connection.state == State::SynSent
            && !connection.send.has_sent_syn()
            && !connection.is_cancelled();
        if !is_syn_due && !connection.is_early_fin_due() {
            return Ok(sent);
        }
        let mut ctx = Context {
            config: &self.config,
            counters: &mut self.counters,
            samples: &mut self.samples,
            buffered_bytes: &mut self.buffered_bytes,
            now,
        };
        let outcome = if !is_syn_due {
            connection.send_early_fin(&mut ctx, tx, &mut sent)
        } else if connection.has_next_hop() {
            connection.send_syn(&mut ctx, tx).map(|()| sent.segments = 1)
        } else if connection.asks == 0 {
            ask(connection, &mut self.resolver, &mut ctx, tx)
        } else {
            Ok(())
        };
        if outcome.is_err() {
            sent.blocked = true;
            ctx.counters.driver_full += 1;
        }
        self.wheel.arm(conn.index, connection.deadline(&self.config));
        if sent.blocked {
            self.mark_blocked(conn);
        }
        Ok(sent)
    }

    /// A segment for a connection whose SYN has not left, or counts no more: nothing of ours can be acknowledged.
    #[cold]
    pub(super) fn segment_without_syn<'f>(
        &mut self,
        sender_mac: MacAddress,
        key: FlowKey,
        segment: &Segment<'f>,
    ) -> Input<'f> {
        match (segment.control, segment.acknowledgment) {
            // A SYN will come again, and then find ours.
            (Control::Rst, _) | (_, None) => self.dropped(DropReason::Unacceptable),
            (_, Some(sequence)) => {
                let next_hop = match self.hop_back(sender_mac, key) {
                    Ok(next_hop) => next_hop,
                    Err(reason) => return self.dropped(reason),
                };
                self.counters.resets_out += 1;
                let acknowledgment = Seq::new(0);
                let fields =
                    Fields { sequence, acknowledgment, flags: flags::RST, window: 0, timestamps: None };
                self.reply(next_hop, key, &fields)
            }
        }
    }
}

/// The send timer of a connection in SYN-SENT is due.
pub(super) fn on_opening_timer<D: Data, T: Transmit<D>>(
    connection: &mut Connection<D>,
    resolver: &mut Resolver,
    ctx: &mut Context<'_>,
    tx: &mut T,
) -> TimerOutcome {
    if !connection.has_next_hop()
        && let Some(hop) = resolver.hop_to(ctx.config, connection.template.peer())
        && let Some(mac) = resolver.lookup(hop, ctx.now)
    {
        // Somebody else's connection has shown that it is there.
        connection.template.set_next_hop(mac);
    }
    if !connection.has_next_hop() {
        if connection.asks >= MAX_ASKS {
            return TimerOutcome::Ended(End::Unreachable);
        }
        if ask(connection, resolver, ctx, tx).is_err() {
            ctx.counters.driver_full += 1;
        }
        return TimerOutcome::Done;
    }
    if !connection.send.has_sent_syn() {
        return match connection.send_syn(ctx, tx) {
            Ok(()) => TimerOutcome::Done,
            Err(Full) => {
                ctx.counters.driver_full += 1;
                connection.send.timer_at = ctx.now + ASK_INTERVAL;
                TimerOutcome::Blocked
            }
        };
    }
    if connection.send.rto.backoff() >= SUSPICIOUS_REPETITIONS {
        // What is known of the next hop may be wrong (RFC 1122 2.3.2.1 (4)).
        let _ = ask_neighbour(connection, resolver, ctx, tx);
    }
    connection.on_syn_timer(ctx, tx)
}

/// One more round of waiting for the next hop's address.
fn ask<D: Data, T: Transmit<D>>(
    connection: &mut Connection<D>,
    resolver: &mut Resolver,
    ctx: &mut Context<'_>,
    tx: &mut T,
) -> Result<(), Full> {
    connection.send.timer_at = ctx.now + ASK_INTERVAL;
    ask_neighbour(connection, resolver, ctx, tx)?;
    connection.asks += 1;
    Ok(())
}

/// RFC 9293 3.8.3, R1: what is known of the next hop may be wrong. Where it was asked for before, it is asked again; an
/// answer from elsewhere moves the connection there.
#[cold]
pub(super) fn suspect_neighbour<D: Data, T: Transmit<D>>(
    connection: &Connection<D>,
    resolver: &mut Resolver,
    ctx: &mut Context<'_>,
    tx: &mut T,
) {
    let hop = resolver.hop_to(ctx.config, connection.template.peer());
    if let Some(hop) = hop {
        resolver.suspect(ctx.config, ctx.counters, hop, ctx.now, tx);
    }
}

/// Asks for the next hop's address, unless somebody did within the last second.
fn ask_neighbour<D: Data, T: Transmit<D>>(
    connection: &Connection<D>,
    resolver: &mut Resolver,
    ctx: &mut Context<'_>,
    tx: &mut T,
) -> Result<(), Full> {
    let Some(hop) = resolver.hop_to(ctx.config, connection.template.peer()) else { return Ok(()) };
    resolver.ask(ctx.config, ctx.counters, hop, ctx.now, tx)
}

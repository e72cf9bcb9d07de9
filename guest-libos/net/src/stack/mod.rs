//! The stack: one interface with its connections, and the calls that an application makes. Frames come in through
//! `input`, time through `expire`; both are in files of their own.

mod address;
mod arp;
#[cfg(feature = "check")]
mod check;
mod expire;
mod fragments;
mod groups;
mod icmp;
mod input;
mod ipv6;
mod neighbours;
mod open;
mod options;
mod path_mtu;
mod ports;
mod resolver;
mod room;
mod syn_cookies;
mod udp;
mod udp_send;

use core::net::SocketAddr;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::config::{Config, ConfigError};
use crate::counters::{Counters, Samples};
use crate::data::{Data, Queued};
use crate::driver::Transmit;
use crate::events::{AckDue, AckPolicy, ConnId, End, KeepError, SendError, Sent, StaleConnection};
use crate::frame::ControlFrame;
use crate::ip::path_mtu::PathMtus;
use crate::ip::rate_limit::TokenBucket;
use crate::ip::reassembly::Reassembly;
use crate::tcp::Context;
use crate::tcp::connection::State;
use crate::tcp::isn::{FlowHash, IsnGenerator};
use crate::tcp::ports::SourcePorts;
use crate::tcp::reassembly::SpareBuffers;
use crate::tcp::send_queue::SpareBacklogs;
use crate::tcp::syn_cookie::SynCookies;
use crate::tcp::table::Table;
use crate::tcp::timers::TimerWheel;
use crate::tcp::timewait::TimeWaitTable;
use crate::time::Instant;
use address::AddressState;
use fragments::Outbox;
use groups::Groups;
pub use ports::Local;
use ports::Ports;
use resolver::Resolver;

/// A TCP/IP stack on one interface. It does nothing by itself: see [`Stack::input`], [`Stack::output`] and
/// [`Stack::expire`].
#[derive(Debug)]
pub struct Stack<D> {
    config: Config,
    counters: Counters,
    samples: Samples,
    table: Table<D>,
    spare_backlogs: SpareBacklogs<D>,
    spare_buffers: SpareBuffers,
    wheel: TimerWheel,
    time_wait: TimeWaitTable,
    listening: Ports,
    isn: IsnGenerator,
    source_ports: SourcePorts,
    syn_cookies: SynCookies,
    cookie_bucket: TokenBucket,
    half_open: u32,
    /// Begun by us, handshake not over.
    opening: u32,
    /// In ESTABLISHED or CLOSE-WAIT.
    established: u32,
    /// Those that began a handshake, oldest first; stale ones are skipped.
    half_open_order: VecDeque<ConnId>,
    /// Place at which the next search for a silent connection begins.
    search_at: u32,
    buffered_bytes: usize,
    /// Connections that met a full driver; stale ones are skipped.
    blocked: VecDeque<ConnId>,
    resolver: Resolver,
    /// Connections that wait for their next hop's address; stale ones are skipped.
    waiting: Vec<ConnId>,
    address: AddressState,
    bound_udp: Ports,
    groups: Groups,
    /// The datagram that is being sent.
    datagram: VecDeque<Queued<D>>,
    reassembly: Reassembly,
    path_mtus: PathMtus,
    /// Frames that wait for the next `expire`.
    outbox: Outbox,
    /// Counts datagrams sent in fragments.
    identification: u32,
    echo_bucket: TokenBucket,
    error_bucket: TokenBucket,
}

impl<D: Data> Stack<D> {
    /// A stack without connections that listens on no port.
    pub fn new(mut config: Config, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let address = AddressState::begun(now, &mut config);
        let hash = FlowHash::new(config.secret);
        let mut stack = Self {
            counters: Counters::default(),
            samples: Samples::default(),
            table: Table::new(hash.clone()),
            spare_backlogs: SpareBacklogs::new(),
            spare_buffers: SpareBuffers::default(),
            wheel: TimerWheel::new(now),
            time_wait: TimeWaitTable::new(config.max_time_wait as usize, config.secret),
            listening: Ports::default(),
            isn: IsnGenerator::new(config.secret),
            source_ports: SourcePorts::new(config.secret),
            syn_cookies: SynCookies::new(config.secret),
            cookie_bucket: TokenBucket::new(),
            half_open: 0,
            opening: 0,
            established: 0,
            half_open_order: VecDeque::new(),
            search_at: 0,
            buffered_bytes: 0,
            blocked: VecDeque::new(),
            resolver: Resolver::new(&config, hash, now),
            waiting: Vec::new(),
            address,
            bound_udp: Ports::default(),
            groups: Groups::new(&config),
            datagram: VecDeque::new(),
            reassembly: Reassembly::default(),
            path_mtus: PathMtus::new(usize::from(config.max_path_mtus)),
            outbox: Outbox::default(),
            identification: 0,
            echo_bucket: TokenBucket::new(),
            error_bucket: TokenBucket::new(),
            config,
        };
        stack.follow_addresses(now);
        Ok(stack)
    }

    /// Gives back the tail of the data that the last segment lent: what the application cannot use before more arrives.
    /// The bytes are copied to the connection's buffer, where [`Self::pending`] shows them. To be called before the
    /// next [`Self::input`].
    pub fn keep(&mut self, conn: ConnId, rest: &[u8]) -> Result<(), KeepError> {
        let connection = self.table.get_mut(conn).ok_or(KeepError::Stale)?;
        if !rest.is_empty() {
            let max = self.config.max_buffered_bytes.saturating_sub(self.buffered_bytes);
            self.buffered_bytes += self.spare_buffers.give(&mut connection.receive.buffer, max);
        }
        let kept = connection.receive.keep(rest, &mut self.buffered_bytes, self.config.max_buffered_bytes);
        self.counters.dropped_no_buffer += u64::from(kept == Err(KeepError::NoBuffer));
        kept
    }

    /// All bytes in order that were received and not consumed. Nothing for a connection that has ended.
    pub fn pending(&self, conn: ConnId) -> &[u8] {
        self.table.get(conn).map_or(&[], |connection| connection.receive.buffer.ready())
    }

    /// The application is done with the first `bytes` of [`Self::pending`]. With [`AckDue::Now`], the peer should learn
    /// of the room with the next [`Self::output`].
    pub fn consume(&mut self, conn: ConnId, bytes: usize) -> Result<AckDue, StaleConnection> {
        let connection = self.table.get_mut(conn).ok_or(StaleConnection)?;
        let due = connection.receive.consume(bytes, &mut self.buffered_bytes);
        self.buffered_bytes -= self.spare_buffers.collect(&mut connection.receive.buffer);
        connection.leave_time_wait_if_consumed();
        let deadline = connection.deadline(&self.config);
        self.wheel.arm(conn.index, deadline);
        Ok(due)
    }

    /// Queues data; [`Self::output`] sends it.
    pub fn send(&mut self, conn: ConnId, data: D) -> Result<(), SendError> {
        let connection = self.table.get_mut(conn).ok_or(SendError::Stale)?;
        if !connection.can_send() {
            return Err(SendError::Closing);
        }
        connection.send.queue.push(data, &mut self.spare_backlogs);
        Ok(())
    }

    /// Queues data and marks it as urgent up to its end (RFC 9293 3.8.5): segments up to there say so. New applications
    /// should do without (RFC 6093); middleboxes clear the mark, and many receivers take one octet out of the stream.
    pub fn send_urgent(&mut self, conn: ConnId, data: D) -> Result<(), SendError> {
        self.send(conn, data)?;
        if let Some(connection) = self.table.get_mut(conn) {
            connection.send.mark_urgent();
        }
        Ok(())
    }

    /// Bytes until the end of the urgent data that the peer has announced, counted from the first one that the application
    /// has not consumed; those that are yet to come are among them. 0: nothing urgent is left.
    pub fn urgent_bytes(&self, conn: ConnId) -> u32 {
        self.table.get(conn).map_or(0, |connection| connection.receive.urgent_bytes())
    }

    /// From now on `SegmentEvents::low_water` is reported when an acknowledgment leaves no more than `bytes` queued, and
    /// more was queued before it. An application that produces its data piece by piece refills at this mark, so that its
    /// peer never waits for it and the queue stays short. 0, as every connection begins, reports when everything has
    /// arrived.
    pub fn set_low_water(&mut self, conn: ConnId, bytes: usize) -> Result<(), StaleConnection> {
        self.table.get_mut(conn).ok_or(StaleConnection)?.send.low_water_bytes = bytes;
        Ok(())
    }

    /// Whether the connection has not ended.
    pub fn is_alive(&self, conn: ConnId) -> bool {
        self.table.get(conn).is_some()
    }

    /// Closes the sending side: a FIN follows what is queued, on the same segment where possible. [`Self::output`] sends
    /// it. Receiving goes on until the peer closes too. Closing twice is closing once. A connection that we began and whose
    /// SYN has not been answered ends with [`End::Cancelled`] in [`Self::expire`] within a millisecond (RFC 9293
    /// 3.10.4): what was queued does not leave. In SYN-RECEIVED the FIN leaves before the handshake is over if nothing is
    /// queued.
    pub fn close(&mut self, conn: ConnId) -> Result<(), StaleConnection> {
        let connection = self.table.get_mut(conn).ok_or(StaleConnection)?;
        self.established -= u32::from(connection.close());
        if connection.is_cancelled() {
            self.wheel.arm(conn.index, connection.deadline(&self.config));
        }
        Ok(())
    }

    /// Ends the connection at once and forgets it; no event follows. Returns the RST to send, if there is one.
    pub fn abort(&mut self, conn: ConnId) -> Option<ControlFrame<'static>> {
        self.table.get(conn)?;
        let reset = self.reset_frame(conn);
        self.counters.aborted += 1;
        self.forget(conn);
        reset
    }

    /// The RST that ends a connection, in the states that send one.
    fn reset_frame(&mut self, conn: ConnId) -> Option<ControlFrame<'static>> {
        let reset = self.table.get(conn)?.abort_frame()?;
        self.counters.segments_out += 1;
        self.counters.resets_out += 1;
        Some(reset)
    }

    /// Sends what may be sent now: lost segments, then queued data and FIN as far as the windows allow, each carrying
    /// the acknowledgment that is owed; without any, `policy` says what happens to the acknowledgment.
    #[inline]
    pub fn output<T: Transmit<D>>(
        &mut self,
        conn: ConnId,
        now: Instant,
        tx: &mut T,
        policy: AckPolicy,
    ) -> Result<Sent, StaleConnection> {
        let connection = self.table.get_mut(conn).ok_or(StaleConnection)?;
        if !connection.is_open() {
            return self.output_opening(conn, now, tx);
        }
        let mut ctx = Context {
            config: &self.config,
            counters: &mut self.counters,
            samples: &mut self.samples,
            buffered_bytes: &mut self.buffered_bytes,
            now,
        };
        let sent = connection.output(&mut ctx, tx, policy);
        self.wheel.arm(conn.index, connection.deadline(&self.config));
        if sent.blocked {
            self.mark_blocked(conn);
        }
        Ok(sent)
    }

    /// Puts a connection that met a full driver into the list of those to retry, once.
    #[cold]
    fn mark_blocked(&mut self, conn: ConnId) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        if connection.blocked {
            return;
        }
        connection.blocked = true;
        if self.blocked.len() >= 2 * self.table.len() {
            // A driver that is full for long collects connections that have ended since.
            let table = &self.table;
            self.blocked.retain(|&other| table.get(other).is_some());
        }
        self.blocked.push_back(conn);
    }

    /// Calls [`Self::output`] for the connections that met a full driver, in their order, until it is full again. To be
    /// called when the driver has room.
    pub fn retry_blocked<T: Transmit<D>>(&mut self, now: Instant, tx: &mut T) {
        for _ in 0..self.blocked.len() {
            let Some(conn) = self.blocked.pop_front() else { return };
            let Some(connection) = self.table.get_mut(conn) else { continue };
            connection.blocked = false;
            if self.output(conn, now, tx, AckPolicy::IfDue).is_ok_and(|sent| sent.blocked) {
                // It went to the end of the list; its turn stays first.
                self.blocked.rotate_right(1);
                return;
            }
        }
    }

    /// What the stack has seen and done.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What connections were like when round trips were measured.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// What it was configured with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Connections in any state but TIME-WAIT, half-open ones included.
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    /// Connections that peers began and whose handshake is not over.
    pub fn half_open(&self) -> usize {
        self.half_open as usize
    }

    /// Connections in ESTABLISHED or CLOSE-WAIT (RFC 4022's tcpCurrEstab).
    pub fn established(&self) -> usize {
        self.established as usize
    }

    /// TIME-WAIT records.
    pub fn time_wait(&self) -> usize {
        self.time_wait.len()
    }

    /// Pairs of IPv6 addresses that connections have between them.
    pub fn address_pairs(&self) -> usize {
        self.table.pairs.len()
    }

    /// Bytes that receive buffers hold.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// The other end of a connection.
    pub fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        self.table.get(conn).map(|connection| connection.peer())
    }

    /// Our end of a connection.
    pub fn local(&self, conn: ConnId) -> Option<SocketAddr> {
        let connection = self.table.get(conn)?;
        Some(SocketAddr::new(connection.template.local(), connection.key.local_port()))
    }

    /// Our port of a connection.
    pub fn local_port(&self, conn: ConnId) -> Option<u16> {
        self.table.get(conn).map(|connection| connection.key.local_port())
    }

    /// Bytes queued and not sent yet (or to be sent again).
    pub fn unsent_bytes(&self, conn: ConnId) -> usize {
        self.table.get(conn).map_or(0, |connection| connection.send.queue.unsent())
    }

    /// Bytes queued and not acknowledged yet.
    pub fn unacked_bytes(&self, conn: ConnId) -> usize {
        self.table.get(conn).map_or(0, |connection| connection.send.queue.len())
    }

    /// Removes a connection from everywhere.
    fn forget(&mut self, conn: ConnId) {
        match self.table.get(conn).map(|connection| (connection.state, connection.is_active)) {
            Some((State::SynSent, _) | (State::SynReceived, true)) => {
                self.opening -= 1;
                self.counters.opening_failed += 1;
            }
            Some((State::SynReceived, false)) => self.half_open -= 1,
            Some((State::Established | State::CloseWait, _)) => self.established -= 1,
            _ => {}
        }
        self.wheel.disarm(conn.index);
        let (buffered_bytes, spares) = (&mut self.buffered_bytes, &mut self.spare_backlogs);
        self.table.remove(conn, |connection| {
            *buffered_bytes -= connection.receive.buffer.capacity();
            spares.collect_all(&mut connection.send.queue);
        });
    }

    /// Removes a connection that ended by itself.
    fn finish(&mut self, conn: ConnId, end: End) {
        match end {
            End::Closed => self.counters.closed += 1,
            End::Reset => self.counters.reset_by_peer += 1,
            End::TimedOut => self.counters.timed_out += 1,
            End::Refused => self.counters.refused += 1,
            End::Unreachable => self.counters.unreachable += 1,
            End::AddressLost => self.counters.address_lost += 1,
            // Counted where it is found.
            End::OptimisticAck => {}
            // Among `opening_failed`.
            End::Cancelled => {}
        }
        self.forget(conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Full, RxChecksum, RxMeta, TxSegment};
    use crate::events::Input;
    use crate::wire::ethernet::MacAddress;

    struct Stuck;

    impl Transmit<&'static [u8]> for Stuck {
        fn transmit(&mut self, _: TxSegment<'_, &'static [u8]>) -> Result<(), Full> {
            Err(Full)
        }

        fn transmit_control(&mut self, _: &ControlFrame<'_>) -> Result<(), Full> {
            Err(Full)
        }
    }

    /// A segment without valid checksums from port `port` of 10.0.0.2.
    fn frame(port: u16, flags: u8, ack: [u8; 4]) -> [u8; 54] {
        let mut frame = [0; 54];
        frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        frame[14] = 0x45;
        frame[17] = 40;
        frame[23] = 6;
        frame[26..34].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame[37] = 80;
        frame[41] = u8::from(flags == 0x10);
        frame[42..46].copy_from_slice(&ack);
        frame[46..48].copy_from_slice(&[0x50, flags]);
        frame[48] = 0xff;
        frame
    }

    #[test]
    fn blocked_list_does_not_grow_with_ended_connections() {
        let config = Config::new(MacAddress([2, 0, 0, 0, 0, 1]), [10, 0, 0, 1].into(), 24, [5; 16]);
        let mut stack = Stack::<&'static [u8]>::new(config, Instant::ZERO).unwrap();
        stack.listen(80).unwrap();
        let meta = RxMeta { checksum: RxChecksum::AllValid };
        for port in 1..1_000 {
            let syn = frame(port, 0x02, [0; 4]);
            let Input::Reply(syn_ack) = stack.input(Instant::ZERO, &syn, meta) else { panic!("no SYN-ACK") };
            let isn = crate::wire::u32_at(syn_ack.head(), 38);
            let ack = frame(port, 0x10, isn.wrapping_add(1).to_be_bytes());
            let Input::Segment(events) = stack.input(Instant::ZERO, &ack, meta) else { panic!("not opened") };
            stack.send(events.conn, b"x").unwrap();
            assert!(stack.output(events.conn, Instant::ZERO, &mut Stuck, AckPolicy::Merge).unwrap().blocked);
            assert!(stack.abort(events.conn).is_some());
        }
        assert!(stack.blocked.len() <= 2);
    }
}

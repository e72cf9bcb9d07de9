//! One connection: its state, its two sides, its header template. How a segment changes it is in `receive`, what it
//! sends in `transmit`; here are its birth, its small answers and its deadlines.

use core::net::SocketAddr;

use super::ecn;
use super::keep_alive::KeepAliveState;
use super::negotiation::Agreed;
use super::receive_side::ReceiveSide;
use super::send_side::{SendSide, SendTimer};
use super::table::FlowKey;
use super::template::{Fields, HeaderTemplate, PayloadSum};
use super::timestamps::TimestampState;
use super::timewait::TimeWaitRecord;
use super::{Context, Seq};
use crate::config::Config;
use crate::data::Data;
use crate::driver::MAX_HEADER_BYTES;
use crate::frame::ControlFrame;
use crate::time::{Duration, Instant};
use crate::wire::tcp::{Segment, flags};
use crate::wire::tcp_options::{SackBlocks, SynOptions};

/// RFC 5961 7: challenge ACKs are limited; per connection, so that nobody can count somebody else's.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

/// The states of RFC 9293 3.3.2. LISTEN is a port in the stack's list,
/// TIME-WAIT is usually a [`TimeWaitRecord`], CLOSED is nothing at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    /// Only while the application has not consumed what arrived in order before.
    TimeWait,
}

impl State {
    /// RFC 9293 3.3.2's synchronized states.
    pub(crate) fn is_synchronized(self) -> bool {
        !matches!(self, Self::SynSent | Self::SynReceived)
    }
}

/// R2 of one connection in milliseconds: 0 for the stack's, `u32::MAX` for no end.
#[derive(Debug, Default)]
pub(crate) struct UserTimeout(u32);

impl UserTimeout {
    pub(crate) fn set(&mut self, timeout: Option<Duration>) {
        let ms =
            |timeout: Duration| (timeout.as_nanos() / 1_000_000).clamp(1, u64::from(u32::MAX) - 1) as u32;
        self.0 = timeout.map_or(u32::MAX, ms);
    }

    /// Whether data has waited too long for its acknowledgment.
    fn is_over(&self, waited: Duration, config: &Config) -> bool {
        match self.0 {
            0 => waited >= config.user_timeout,
            u32::MAX => false,
            ms => waited >= Duration::from_millis(u64::from(ms)),
        }
    }
}

/// A peer's SYN, as far as a connection is made of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerSyn {
    pub(crate) sequence: Seq,
    pub(crate) options: SynOptions,
    pub(crate) ecn: ecn::Agreed,
}

impl PeerSyn {
    pub(crate) fn of(syn: &Segment<'_>, config: &Config) -> Self {
        let ecn = ecn::Agreed::by_syn(syn, config.ecn);
        Self { sequence: syn.sequence, options: SynOptions::parse(syn.options), ecn }
    }
}

#[derive(Debug)]
pub(crate) struct Connection<D> {
    pub(crate) key: FlowKey,
    pub(crate) state: State,
    pub(crate) send: SendSide<D>,
    pub(crate) receive: ReceiveSide,
    pub(crate) template: HeaderTemplate,
    /// The options that both SYNs had.
    pub(crate) agreed: Agreed,
    pub(crate) timestamps: TimestampState,
    /// End of FIN-WAIT-2 or TIME-WAIT.
    pub(crate) linger_at: Instant,
    pub(super) next_challenge_at: Instant,
    /// When something new last came from the peer or something of ours was acknowledged.
    pub(crate) active_at: Instant,
    pub(crate) keep_alive: KeepAliveState,
    pub(crate) user_timeout: UserTimeout,
    /// The driver was full: the connection is in the stack's list of those to retry.
    pub(crate) blocked: bool,
    /// We opened it: the application knows of it from the beginning (RFC 9293 3.5: MUST-11).
    pub(crate) is_active: bool,
    /// How often the next hop was asked for its address.
    pub(crate) asks: u8,
}

impl<D: Data> Connection<D> {
    /// RFC 9293 3.10.7.2, third: a SYN arrived for a port we listen on.
    pub(crate) fn accept(
        key: FlowKey,
        syn: &PeerSyn,
        isn: Seq,
        timestamp_offset: u32,
        template: HeaderTemplate,
        ctx: &Context<'_>,
    ) -> Self {
        let agreed = Agreed::new(ctx.config, template.family(), &syn.options);
        let peer_timestamps = syn.options.timestamps.filter(|_| agreed.timestamps);
        let receive_mss = agreed.receive_mss(ctx.config);
        let capacity = ctx.config.receive_window_bytes;
        let mut connection = Self {
            key,
            state: State::SynReceived,
            send: SendSide::new(isn, &agreed, ctx),
            receive: ReceiveSide::new(syn.sequence, capacity, receive_mss, agreed.receive_scale, agreed.sack),
            template,
            agreed,
            timestamps: TimestampState::new(timestamp_offset, peer_timestamps, ctx.now),
            linger_at: Instant::NEVER,
            next_challenge_at: Instant::ZERO,
            active_at: ctx.now,
            keep_alive: KeepAliveState::new(ctx.now),
            user_timeout: UserTimeout::default(),
            blocked: false,
            is_active: false,
            asks: 0,
        };
        connection.agree_on_ecn(syn.ecn);
        connection
    }

    /// The other end.
    pub(crate) fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.template.peer(), self.key.peer_port())
    }

    /// Whether the handshake is over.
    pub(crate) fn is_open(&self) -> bool {
        self.state.is_synchronized()
    }

    /// Whether it was closed in SYN-SENT: no segment changes anything, and none leaves.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.state == State::SynSent && self.send.fin_queued
    }

    /// Whether the application may still queue data.
    #[inline]
    pub(crate) fn can_send(&self) -> bool {
        let open = match self.state {
            State::Established | State::CloseWait => true,
            // RFC 9293 3.10.2: queued until the handshake is over.
            State::SynSent | State::SynReceived => self.is_active,
            _ => false,
        };
        open && !self.send.fin_queued
    }

    /// Whether our FIN has left though our SYN is not acknowledged yet: what RFC 9293 3.10.4 calls FIN-WAIT-1.
    pub(crate) fn has_closed_early(&self) -> bool {
        self.state == State::SynReceived && self.send.next == self.send.una + 2
    }

    /// Whether the FIN of a close in SYN-RECEIVED is to leave: it does not wait for the handshake if there is nothing to send
    /// before it (RFC 9293 3.10.4).
    pub(crate) fn is_early_fin_due(&self) -> bool {
        let closed = self.state == State::SynReceived && self.send.fin_queued;
        closed && self.send.queue.len() == 0 && !self.has_closed_early()
    }

    /// RFC 9293 3.10.4: a FIN follows what is queued. The state changes right away, the FIN leaves with the next output. Returns
    /// whether it was open until now.
    pub(crate) fn close(&mut self) -> bool {
        self.state = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            State::SynSent => {
                // Nothing has been agreed on: it ends with the next tick of `expire`.
                self.send.fin_queued = true;
                self.linger_at = Instant::ZERO;
                return false;
            }
            State::SynReceived if self.is_active => {
                // It leaves with the next output, or after what is queued, once the handshake is over.
                self.send.fin_queued = true;
                return false;
            }
            _ => return false,
        };
        self.send.fin_queued = true;
        true
    }

    /// The application has consumed something: a connection that only waited for it can become a record. No clock here:
    /// the next `expire` does it.
    pub(crate) fn leave_time_wait_if_consumed(&mut self) {
        if self.state == State::TimeWait && self.receive.buffer.ready().is_empty() {
            self.linger_at = Instant::ZERO;
        }
    }

    /// Our SYN-ACK.
    pub(crate) fn syn_ack(&self, config: &Config, now: Instant) -> ControlFrame<'static> {
        let options = self.agreed.answer(config, self.timestamps.option(now));
        let mut bytes = [0; SynOptions::MAX_BYTES];
        let len = options.emit(&mut bytes);
        let fields = Fields {
            sequence: self.send.una,
            acknowledgment: self.receive.next,
            flags: flags::SYN | flags::ACK | self.agreed.ecn.answer(),
            window: self.receive.window().min(65_535) as u16,
            // Among the others.
            timestamps: None,
        };
        ControlFrame::build(&[], |out| {
            self.template.fill(out, &fields, &bytes[..len], 0, PayloadSum::Known(0))
        })
    }

    /// The sequence number of a segment without data. The window says nothing before the handshake is over.
    fn pure_sequence(&self) -> Seq {
        if self.is_open() { self.send.sequence_of_pure_ack() } else { self.send.next }
    }

    /// Writes an acknowledgment without data and returns its length.
    pub(crate) fn fill_ack(&mut self, out: &mut [u8; MAX_HEADER_BYTES], ctx: &mut Context<'_>) -> usize {
        let fields = Fields {
            sequence: self.pure_sequence(),
            acknowledgment: self.receive.next,
            flags: flags::ACK | self.receive.ecn.flags(),
            window: self.receive.window_field(ctx),
            timestamps: self.timestamps.option(ctx.now),
        };
        let mut options = [0; SackBlocks::MAX_BYTES];
        let len = self.receive.sack_blocks(self.agreed.max_sack_blocks()).emit(&mut options);
        self.template.fill(out, &fields, &options[..len], 0, PayloadSum::Known(0))
    }

    /// An acknowledgment to be sent now.
    pub(crate) fn ack_frame(&mut self, ctx: &mut Context<'_>) -> ControlFrame<'static> {
        let frame = ControlFrame::build(&[], |out| self.fill_ack(out, ctx));
        self.receive.pure_ack_sent();
        ctx.counters.segments_out += 1;
        ctx.counters.pure_acks_out += 1;
        frame
    }

    /// RFC 5961's challenge ACK, unless there was one a moment ago.
    pub(crate) fn challenge_ack(&mut self, ctx: &mut Context<'_>) -> Option<ControlFrame<'static>> {
        if ctx.now < self.next_challenge_at {
            ctx.counters.challenge_acks_limited += 1;
            return None;
        }
        self.next_challenge_at = ctx.now + CHALLENGE_INTERVAL;
        ctx.counters.challenge_acks += 1;
        Some(self.ack_frame(ctx))
    }

    /// RFC 9293 3.10.5: the RST of an abort, in the states that send one.
    pub(crate) fn abort_frame(&self) -> Option<ControlFrame<'static>> {
        match self.state {
            State::SynSent | State::Closing | State::LastAck | State::TimeWait => None,
            _ => Some(self.reset_frame()),
        }
    }

    /// A RST that the peer believes.
    pub(crate) fn reset_frame(&self) -> ControlFrame<'static> {
        self.control_frame(&Fields {
            sequence: self.pure_sequence(),
            acknowledgment: self.receive.next,
            flags: flags::RST | flags::ACK,
            window: 0,
            // RFC 7323 3.2 would have them, but no receiver looks at those of an RST, and there is no clock here.
            timestamps: None,
        })
    }

    pub(crate) fn control_frame(&self, fields: &Fields) -> ControlFrame<'static> {
        ControlFrame::build(&[], |out| self.template.fill(out, fields, &[], 0, PayloadSum::Known(0)))
    }

    /// What TIME-WAIT must remember.
    pub(crate) fn time_wait_record(&self, ctx: &Context<'_>) -> TimeWaitRecord {
        TimeWaitRecord {
            sequence: self.send.max,
            acknowledgment: self.receive.next,
            expires_at: ctx.now + ctx.config.time_wait,
            timestamps: self.timestamps,
        }
    }

    /// RFC 9293 3.8.3: R2 is reached.
    pub(crate) fn is_given_up(&self, ctx: &Context<'_>) -> bool {
        self.user_timeout.is_over(ctx.now.since(self.send.progress_at), ctx.config)
    }

    /// A probe of the peer's life: a segment without data just before what it expects next, which it must acknowledge
    /// (RFC 9293 3.8.4, SHLD-12).
    pub(crate) fn keep_alive_probe(&mut self, ctx: &mut Context<'_>) -> ControlFrame<'static> {
        let fields = Fields {
            sequence: self.send.max - 1,
            acknowledgment: self.receive.next,
            flags: flags::ACK,
            window: self.receive.window_field(ctx),
            timestamps: self.timestamps.option(ctx.now),
        };
        ctx.counters.segments_out += 1;
        ctx.counters.keep_alive_probes += 1;
        self.control_frame(&fields)
    }

    /// When the connection has been without progress for too long. The states that linger have a time of their own.
    #[inline]
    pub(crate) fn idle_at(&self, config: &Config) -> Instant {
        match (config.idle_timeout, self.state) {
            (None, _) | (_, State::SynSent | State::SynReceived | State::FinWait2 | State::TimeWait) => {
                Instant::NEVER
            }
            (Some(timeout), _) => self.active_at + timeout,
        }
    }

    /// When the peer is to be asked for a sign of life. Never while something is outstanding: the send timer sees to that
    /// (RFC 9293 3.8.4, MUST-26).
    #[inline]
    pub(crate) fn keep_alive_at(&self) -> Instant {
        let open = matches!(self.state, State::Established | State::CloseWait);
        if open && self.send.timer == SendTimer::Off { self.keep_alive.due_at() } else { Instant::NEVER }
    }

    /// When a timer of this connection is due.
    #[inline]
    pub(crate) fn deadline(&self, config: &Config) -> Instant {
        let ends = self.linger_at.min(self.idle_at(config));
        self.send.timer_at.min(self.receive.ack_at).min(self.keep_alive_at()).min(ends)
    }
}

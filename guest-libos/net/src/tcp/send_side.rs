//! The sending half of a connection: SND.UNA, SND.NXT, the peer's window, what may leave now, and the timer that
//! retransmits or probes. What acknowledgments do to it is in `acknowledge`, what time does in
//! `send_timer`. It knows nothing of the connection's state
//! and writes no header.

use super::congestion::{Congestion, WindowUse};
use super::ecn::EcnSender;
use super::loss::LossState;
use super::negotiation::Agreed;
use super::rack::{Arrival, RoundTrips};
use super::recovery::{Frto, Phase};
use super::rto::Rto;
use super::send_queue::SendQueue;
use super::withhold::Examination;
use super::{Context, Seq};
use crate::data::Data;
use crate::options::Coalesce;
use crate::time::{Duration, Instant};
use crate::wire::tcp::{Control, Segment};

/// From a reset that ends what the peer has between our ports to the SYN that comes after it.
const SYN_AFTER_RESET: Duration = Duration::from_millis(2);

/// What the send timer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendTimer {
    /// Nothing.
    Off,
    /// An acknowledgment (RFC 6298, RFC 8985).
    Acknowledgment,
    /// The peer's window to open (RFC 9293 3.8.6.1).
    Persist,
}

#[derive(Debug)]
pub(crate) struct SendSide<D> {
    /// SND.UNA.
    pub(crate) una: Seq,
    /// SND.NXT.
    pub(crate) next: Seq,
    /// The highest sequence number sent: SND.NXT, or beyond the octet that probed a closed window.
    pub(crate) max: Seq,
    /// SND.WND, scaled.
    pub(crate) window: u32,
    /// SND.WL1 and SND.WL2: the segment that brought the window.
    window_sequence: Seq,
    window_ack: Seq,
    /// The largest window the peer ever announced.
    pub(crate) max_window: u32,
    /// Shift of the window field we receive.
    pub(crate) scale: u8,
    /// Eff.snd.MSS (RFC 9293 3.7.1).
    pub(crate) mss: u32,
    pub(crate) queue: SendQueue<D>,
    /// The application is told when no more than this is queued.
    pub(crate) low_water_bytes: usize,
    /// The application has closed and a FIN follows the queue, until the peer has acknowledged it.
    pub(crate) fin_queued: bool,
    /// SND.UP: the octet after the urgent data, until it is acknowledged.
    pub(super) urgent: Option<Seq>,
    /// What becomes of segments that are not full.
    pub(crate) coalesce: Coalesce,
    pub(super) congestion: Congestion,
    pub(crate) loss: LossState,
    /// Whether the peer reports what it has out of order.
    pub(super) sack: bool,
    pub(super) round_trips: RoundTrips,
    pub(crate) rto: Rto,
    /// SND.NXT when a round trip was measured last: the next measurement is of what was sent after it.
    timed_from: Seq,
    pub(crate) timer: SendTimer,
    /// When the timer is due: the earliest of the next two and of RACK's while it waits for an acknowledgment.
    pub(crate) timer_at: Instant,
    /// The retransmission timeout.
    pub(crate) timeout_at: Instant,
    /// When a tail is probed.
    pub(super) probe_at: Instant,
    /// The last time that anything was acknowledged, or sent with nothing before it unacknowledged.
    pub(crate) progress_at: Instant,
    /// Retransmission timeouts since anything was acknowledged.
    pub(crate) timeouts: u8,
    /// When something was sent last.
    last_sent_at: Instant,
    /// Whether the congestion window stopped the last output.
    pub(super) window_use: WindowUse,
    pub(crate) ecn: EcnSender,
    pub(super) examination: Examination,
}

/// A segment to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) len: usize,
    pub(crate) fin: bool,
}

/// How many segments a payload makes; one without data (a FIN) is one, too.
#[inline]
pub(crate) fn segments(len: usize, mss: u32) -> u64 {
    if len <= mss as usize { 1 } else { len.div_ceil(mss as usize) as u64 }
}

impl<D: Data> SendSide<D> {
    /// The side of a connection whose SYN-ACK with sequence number `isn` is about to leave.
    pub(crate) fn new(isn: Seq, agreed: &Agreed, ctx: &Context<'_>) -> Self {
        let rto = Rto::new(ctx.config.min_rto);
        let mss = agreed.send_mss();
        Self {
            una: isn,
            next: isn + 1,
            max: isn + 1,
            window: 0,
            window_sequence: isn,
            window_ack: isn,
            max_window: 0,
            scale: agreed.send_scale,
            mss,
            queue: SendQueue::new(),
            low_water_bytes: 0,
            fin_queued: false,
            urgent: None,
            coalesce: Coalesce::default(),
            congestion: Congestion::new(ctx.config, isn, mss),
            loss: LossState::default(),
            sack: agreed.sack,
            round_trips: RoundTrips::NONE,
            timed_from: isn,
            timer: SendTimer::Acknowledgment,
            timer_at: ctx.now + rto.timeout(),
            timeout_at: Instant::NEVER,
            probe_at: Instant::NEVER,
            rto,
            progress_at: ctx.now,
            timeouts: 0,
            last_sent_at: ctx.now,
            window_use: WindowUse::Spare,
            ecn: EcnSender::new(agreed.ecn),
            examination: Examination::new(),
        }
    }

    /// The SYN has not left yet; the timer runs as if it had.
    pub(crate) fn take_back_syn(&mut self) {
        (self.next, self.max) = (self.una, self.una);
    }

    /// Whether our SYN has left.
    pub(crate) fn has_sent_syn(&self) -> bool {
        self.max != self.una
    }

    /// Our SYN leaves.
    pub(crate) fn syn_sent(&mut self, ctx: &Context<'_>) {
        self.next = self.una + 1;
        self.max = self.next;
        self.timer_at = ctx.now + self.rto.timeout();
        self.progress_at = ctx.now;
        self.last_sent_at = ctx.now;
    }

    /// The peer knows another connection between these ports, which our reset is about to end (RFC 9293 3.5.1, figure 9): a first SYN
    /// need not wait for its timeout.
    pub(crate) fn repeat_syn_soon(&mut self, ctx: &Context<'_>) {
        if self.rto.backoff() == 0 {
            self.timer_at = self.timer_at.min(ctx.now + SYN_AFTER_RESET);
        }
    }

    /// Our SYN leaves once more, as a SYN-ACK, since the peer has opened at the same time.
    pub(crate) fn syn_leaves_again(&mut self, ctx: &Context<'_>) {
        // Which of the two will be acknowledged?
        self.timed_from = self.next;
        self.timer_at = ctx.now + self.rto.timeout();
    }

    /// When the SYN that is about to be acknowledged left is not known.
    pub(crate) fn leave_syn_untimed(&mut self) {
        self.timed_from = self.next;
    }

    /// The peer's SYN says what we did not know when ours left.
    pub(crate) fn agree(&mut self, agreed: &Agreed, ctx: &Context<'_>) {
        self.set_mss(agreed.send_mss());
        (self.scale, self.sack) = (agreed.send_scale, agreed.sack);
        self.ecn = EcnSender::new(agreed.ecn);
        self.congestion = Congestion::new(ctx.config, self.una, self.mss);
        if self.rto.backoff() > 0 {
            self.congestion.on_repeated_timeout(self.mss);
        }
    }

    /// The SYN or SYN-ACK leaves again.
    pub(crate) fn syn_repeated(&mut self, ctx: &Context<'_>) {
        // RFC 6928 2: after a lost SYN-ACK the initial window is one segment.
        self.congestion.on_repeated_timeout(self.mss);
        self.rto.back_off();
        self.timer_at = ctx.now + self.rto.timeout();
        self.early_fin_was_in_vain();
    }

    /// A FIN that came without the SYN was of no use: it follows when the SYN is acknowledged.
    pub(crate) fn early_fin_was_in_vain(&mut self) {
        if self.queue.board().first().is_some() {
            self.loss.touch();
            self.queue.board_mut().mark_lost(|_| true);
        }
    }

    /// Our SYN was acknowledged by `segment`: the window is valid from here on.
    pub(crate) fn open(
        &mut self,
        segment: &Segment<'_>,
        ack: Seq,
        arrival: &Arrival<'_>,
        ctx: &mut Context<'_>,
    ) {
        // Karn's algorithm: the SYN is timed if it was sent once.
        let sent_at = (self.rto.backoff() == 0).then_some(self.last_sent_at);
        self.una = ack;
        self.take_rtt_sample(sent_at, arrival, ctx);
        if self.rto.backoff() > 0 && self.rto.smoothed().is_none() {
            self.rto.syn_was_repeated();
        }
        self.rto.reset_backoff();
        (self.timer, self.timer_at) = (SendTimer::Off, Instant::NEVER);
        self.progress_at = ctx.now;
        self.set_window(segment, ack, ctx);
        if segment.control == Control::Syn {
            // RFC 7323 2.2: the window of a SYN is never scaled.
            self.window = u32::from(segment.window);
            self.max_window = self.window;
        }
    }

    /// RFC 9293 3.10.7.4: the window of the newest segment counts, for `ack` not before SND.UNA. What acknowledges more was
    /// sent later, even if it is a retransmission: with an older window, SND.UNA would move the window's end.
    #[inline]
    pub(crate) fn update_window(&mut self, segment: &Segment<'_>, ack: Seq, ctx: &mut Context<'_>) {
        if self.window_ack.is_before(ack) || self.window_sequence.is_at_or_before(segment.sequence) {
            self.set_window(segment, ack, ctx);
        }
    }

    #[inline]
    fn set_window(&mut self, segment: &Segment<'_>, ack: Seq, ctx: &mut Context<'_>) {
        let before = self.window;
        self.window = u32::from(segment.window) << self.scale;
        ctx.counters.zero_windows_in += u64::from(before > 0 && self.window == 0);
        self.max_window = self.max_window.max(self.window);
        (self.window_sequence, self.window_ack) = (segment.sequence, ack);
    }

    pub(super) fn scaled(&self, field: u16) -> u32 {
        u32::from(field) << self.scale
    }

    /// Takes a measurement a window of data (RFC 6298 3). With the time at which the earliest of what was acknowledged
    /// left, if all of it was sent once, it is exact; else timestamps give it to a tick (RFC 7323 4).
    #[inline]
    pub(super) fn take_rtt_sample(
        &mut self,
        sent_at: Option<Instant>,
        arrival: &Arrival<'_>,
        ctx: &mut Context<'_>,
    ) {
        if !self.una.is_after(self.timed_from) {
            return;
        }
        let exact = sent_at.map(|sent_at| ctx.now.since(sent_at));
        let Some(rtt) = exact.or_else(|| arrival.round_trip()) else { return };
        let smoothed = self.rto.sample(rtt, ctx.config.min_rto);
        // RFC 6298 5, Karn's algorithm: what was sent again says nothing without timestamps.
        self.rto.reset_backoff();
        ctx.samples.smoothed_rtt_ns.add(smoothed.as_nanos());
        ctx.samples.congestion_window_bytes.add(u64::from(self.congestion.window()));
        self.timed_from = self.next;
        self.count_window(ctx);
    }

    /// RFC 6675's pipe: bytes that are on their way, as far as we know.
    #[inline]
    pub(super) fn pipe(&self) -> u32 {
        let flight = self.next.since(self.una);
        if self.loss.is_untouched() {
            return flight;
        }
        let board = self.queue.board();
        flight.saturating_sub(board.sacked() + board.lost() + self.loss.recovery.duplicate_bytes())
    }

    /// Whether the FIN must follow what is between SND.NXT and the end of the queue.
    #[inline]
    pub(super) fn fin_pending(&self) -> bool {
        self.fin_queued && self.next.since(self.una) as usize <= self.queue.len()
    }

    /// Whether anything waits to be sent, windows aside.
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        self.queue.unsent() > 0 || self.fin_pending()
    }

    #[cfg(feature = "check")]
    pub(crate) fn congestion_window(&self) -> u32 {
        self.congestion.window()
    }

    /// The next lost bytes and where they begin, if they may be sent again now.
    #[inline]
    pub(crate) fn plan_again(&self, max_payload: usize) -> Option<(Seq, Planned)> {
        if self.queue.board().lost() == 0 { None } else { self.plan_lost(max_payload) }
    }

    #[cold]
    fn plan_lost(&self, max_payload: usize) -> Option<(Seq, Planned)> {
        let board = self.queue.board();
        if self.loss.recovery.frto == Frto::SendNew && self.plan(max_payload).is_some() {
            return None;
        }
        let (start, end) = board.next_lost(max_payload as u32 + 1)?;
        let offset = start.since(self.una);
        let lost = end.since(start);
        let mut room = self.congestion_room();
        if self.loss.recovery.forced {
            room = room.max(self.mss);
        }
        // Not beyond the edge of a window that has shrunk (RFC 9293 3.8.6).
        let wanted = lost.min(self.window.saturating_sub(offset));
        let mut sendable = wanted.min(room).min(max_payload as u32);
        if sendable < wanted {
            sendable -= sendable % self.mss;
        }
        if sendable == 0 {
            return None;
        }
        let len = self.queue.at(offset as usize, sendable as usize).len();
        let ends_queue = offset as usize + len == self.queue.len();
        Some((start, Planned { len, fin: ends_queue && (sendable as usize) > len }))
    }

    /// `planned` left again, from `start` on.
    pub(crate) fn sent_again(&mut self, start: Seq, planned: Planned, ctx: &mut Context<'_>) {
        let len = planned.len as u32 + u32::from(planned.fin);
        let withheld = self.release_withheld(start, start + len);
        self.leaves_again(start, start + len, ctx);
        self.loss.recovery.sent_again(len, ctx.now);
        self.loss.recovery.prr.sent(len);
        if self.sack && self.loss.recovery.phase == Phase::Fast && start == self.una {
            // RFC 6675 6: recovery may last longer than the timeout, as long as it goes on.
            self.timeout_at = ctx.now + self.rto.timeout();
        }
        if planned.len > withheld as usize {
            self.count_again(planned.len - withheld as usize, ctx);
        }
    }

    /// Bytes `start..end` leave again, by a time later than that of all before, by which alone RACK tells their order: what is
    /// sent at one time is in order only if it is sent for the first time.
    pub(super) fn leaves_again(&mut self, start: Seq, end: Seq, ctx: &Context<'_>) {
        self.last_sent_at = ctx.now.max(self.last_sent_at + Duration::from_nanos(1));
        self.queue.board_mut().sent_again(start, end, self.last_sent_at);
    }

    pub(super) fn count_again(&mut self, len: usize, ctx: &mut Context<'_>) {
        ctx.counters.retransmits += segments(len, self.mss);
        ctx.counters.bytes_retransmitted += len as u64;
    }

    /// The next segment of at most `max_payload` bytes that the windows let out, if there is one.
    #[inline]
    pub(crate) fn plan(&self, max_payload: usize) -> Option<Planned> {
        if !self.loss.is_untouched()
            && self.queue.board().lost() > 0
            && self.loss.recovery.frto != Frto::SendNew
        {
            // RFC 6675 4: what is lost comes first.
            return None;
        }
        let unsent = self.queue.unsent();
        let fin_pending = self.fin_pending();
        let in_flight = self.next.since(self.una);
        let peer = self.window.saturating_sub(in_flight) as usize;
        if unsent == 0 {
            return (fin_pending && peer > 0).then_some(Planned { len: 0, fin: true });
        }
        if self.waits_for_more(unsent) {
            return None;
        }
        let mut len = unsent.min(peer).min(self.congestion_room() as usize).min(max_payload);
        let mss = self.mss as usize;
        if len > mss && (len < unsent || self.coalesces()) {
            len -= len % mss;
        } else if len < unsent && len < mss && (len < self.max_window as usize / 2 || len == 0) {
            // Sender's silly window avoidance (RFC 9293 3.8.6.2.1): neither a full segment, nor all there is, nor half of
            // the largest window.
            return None;
        }
        let len = self.queue.gathered_at_next(len);
        Some(Planned { len, fin: fin_pending && len == unsent })
    }

    /// Whether less than a segment waits for more data to fill it. What was sent before never does.
    #[inline]
    fn waits_for_more(&self, unsent: usize) -> bool {
        let new = unsent < self.mss as usize && self.next == self.max;
        self.coalesces() && new && (self.coalesce == Coalesce::Cork || self.queue.has_small_outstanding())
    }

    /// Whether segments that are not full are held back at all; in front of a FIN they are not.
    #[inline]
    fn coalesces(&self) -> bool {
        self.coalesce != Coalesce::NoDelay && !self.fin_queued
    }

    #[inline]
    pub(super) fn congestion_room(&self) -> u32 {
        let recovers = !self.loss.is_untouched()
            && self.loss.recovery.phase == Phase::Fast
            && !self.congestion.is_uncontrolled();
        let window = if recovers { self.loss.recovery.prr.window() } else { self.congestion.window() };
        window.saturating_sub(self.pipe())
    }

    /// Before the first segment of an output: a connection that was idle for long starts slowly again.
    #[inline]
    pub(crate) fn begin_output(&mut self, ctx: &Context<'_>) {
        if let Some(loss) = self.loss.touched()
            && let Some(mss) = loss.black_hole.on_output(ctx.now)
        {
            self.use_mss(mss);
        }
        if self.una == self.max && ctx.now.since(self.last_sent_at) > self.rto.timeout() {
            self.congestion.on_idle(self.mss);
        }
    }

    /// Whether data at `start` is new, and no probe of a closed window: only that may be marked (RFC 3168 6.1.4 to 6.1.6).
    #[inline]
    pub(super) fn is_new(&self, start: Seq) -> bool {
        start == self.next && start == self.max && self.timer != SendTimer::Persist
    }

    /// After the last segment of an output.
    #[inline]
    pub(crate) fn end_output(&mut self, ctx: &Context<'_>) {
        let limited = self.queue.unsent() > 0 && self.congestion_room() < self.mss;
        self.window_use = if limited { WindowUse::Limiting } else { WindowUse::Spare };
        self.update_timer(ctx);
    }

    /// `planned` left at SND.NXT.
    #[inline]
    pub(crate) fn sent(&mut self, planned: Planned, ctx: &mut Context<'_>) {
        let start = self.next;
        if start == self.una && start == self.max {
            self.progress_at = ctx.now;
        }
        self.queue.advance(planned.len);
        if self.coalesce == Coalesce::Nagle && !planned.len.is_multiple_of(self.mss as usize) {
            self.queue.note_small();
        }
        self.next += planned.len as u32 + u32::from(planned.fin);
        self.last_sent_at = self.last_sent_at.max(ctx.now);
        self.queue.board_mut().sent(start, self.next, self.last_sent_at);
        if let Some(loss) = self.loss.touched() {
            loss.recovery.prr.sent(self.next.since(start));
        }
        self.probe_at = Instant::NEVER;
        if start.is_before(self.max) {
            // The octet that probed a closed window, and what is in the same frame.
            let again = planned.len.min(self.max.since(start) as usize);
            ctx.counters.retransmits += segments(again, self.mss);
            ctx.counters.bytes_retransmitted += again as u64;
        }
        self.max = self.max.max(self.next);
    }

    /// The path takes segments of `mss` bytes only (RFC 1191): send again what was too large, without punishment.
    pub(crate) fn reduce_mss(&mut self, mss: u32) {
        self.set_mss(mss);
        self.loss.touch();
        self.queue.board_mut().mark_lost(|_| true);
    }

    /// The sequence number of a segment without data. RFC 9293 wants SND.NXT; the highest that the peer accepts is
    /// meant, which differs while data is sent again or its window has shrunk.
    #[inline]
    pub(crate) fn sequence_of_pure_ack(&self) -> Seq {
        self.max.min(self.una + self.window)
    }
}

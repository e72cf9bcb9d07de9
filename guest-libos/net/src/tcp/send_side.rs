//! The sending half of a connection: SND.UNA, SND.NXT, the peer's window, what may leave now, and the timer that
//! retransmits or probes. It knows nothing of the connection's state and writes no header.

use super::congestion::{CongestionControl, NewReno, WindowUse};
use super::recovery::{Duplicate, Progress, Recovery};
use super::rto::Rto;
use super::send_queue::SendQueue;
use super::{Context, Seq};
use crate::data::Data;
use crate::time::{Duration, Instant};
use crate::wire::tcp::Segment;

/// What the send timer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendTimer {
    /// Nothing.
    Off,
    /// An acknowledgment (RFC 6298).
    Retransmit,
    /// The peer's window to open (RFC 9293 3.8.6.1).
    Persist,
}

#[derive(Debug)]
pub(crate) struct SendSide<D> {
    /// SND.UNA.
    pub(crate) una: Seq,
    /// SND.NXT; goes back to SND.UNA when all is to be sent again.
    pub(crate) next: Seq,
    /// The highest SND.NXT there was.
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
    congestion: NewReno,
    recovery: Recovery,
    pub(crate) rto: Rto,
    /// The segment whose round trip is being timed: its end, and when it left.
    timed: Option<(Seq, Instant)>,
    pub(crate) timer: SendTimer,
    pub(crate) timer_at: Instant,
    /// The last time that anything was acknowledged, or sent with nothing before it unacknowledged.
    pub(crate) progress_at: Instant,
    last_sent_at: Instant,
    /// Whether the congestion window stopped the last output.
    window_use: WindowUse,
}

/// A segment to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) len: usize,
    pub(crate) fin: bool,
}

/// What an acknowledgment brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acked {
    /// Bytes of data.
    pub(crate) bytes: u32,
    /// What is queued fell to the low-water mark now, and was above it before.
    pub(crate) low_water: bool,
    /// Our FIN has arrived.
    pub(crate) fin: bool,
}

/// How many segments a payload makes; one without data (a FIN) is one, too.
#[inline]
pub(crate) fn segments(len: usize, mss: u32) -> u64 {
    if len <= mss as usize { 1 } else { len.div_ceil(mss as usize) as u64 }
}

impl<D: Data> SendSide<D> {
    /// The side of a connection whose SYN-ACK with sequence number `isn` is about to leave.
    pub(crate) fn new(isn: Seq, mss: u32, scale: u8, queue: SendQueue<D>, ctx: &Context<'_>) -> Self {
        let rto = Rto::new(ctx.config.min_rto);
        Self {
            una: isn,
            next: isn + 1,
            max: isn + 1,
            window: 0,
            window_sequence: isn,
            window_ack: isn,
            max_window: 0,
            scale,
            mss,
            queue,
            low_water_bytes: 0,
            fin_queued: false,
            congestion: NewReno::new(mss),
            recovery: Recovery::new(isn),
            timed: Some((isn + 1, ctx.now)),
            timer: SendTimer::Retransmit,
            timer_at: ctx.now + rto.timeout(),
            rto,
            progress_at: ctx.now,
            last_sent_at: ctx.now,
            window_use: WindowUse::Spare,
        }
    }

    /// The SYN-ACK leaves again.
    pub(crate) fn syn_ack_repeated(&mut self, ctx: &Context<'_>) {
        self.timed = None;
        // RFC 6928 2: after a lost SYN-ACK the initial window is one segment.
        self.congestion.on_repeated_timeout(self.mss);
        self.rto.back_off();
        self.timer_at = ctx.now + self.rto.timeout();
    }

    /// Our SYN was acknowledged by `segment`: the window is valid from here on.
    pub(crate) fn open(
        &mut self,
        segment: &Segment<'_>,
        ack: Seq,
        echo: Option<Duration>,
        ctx: &mut Context<'_>,
    ) {
        self.una = ack;
        self.take_rtt_sample(ack, echo, ctx);
        self.rto.reset_backoff();
        (self.timer, self.timer_at) = (SendTimer::Off, Instant::NEVER);
        self.progress_at = ctx.now;
        self.set_window(segment, ack, ctx);
    }

    /// RFC 9293 3.10.7.4: the window of the newest segment counts.
    #[inline]
    pub(crate) fn update_window(&mut self, segment: &Segment<'_>, ack: Seq, ctx: &mut Context<'_>) {
        if self.window_sequence.is_before(segment.sequence)
            || (self.window_sequence == segment.sequence && self.window_ack.is_at_or_before(ack))
        {
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

    fn scaled(&self, field: u16) -> u32 {
        u32::from(field) << self.scale
    }

    /// Handles SND.UNA < SEG.ACK =< highest sent. `echo` is the round trip that the segment's timestamps show.
    #[inline]
    pub(crate) fn acknowledge(&mut self, ack: Seq, echo: Option<Duration>, ctx: &mut Context<'_>) -> Acked {
        let advanced = ack.since(self.una);
        let flight = self.next.since(self.una);
        let queued = self.queue.len();
        // Sequence numbers beyond the queue are our FIN's.
        let fin = self.fin_queued && advanced as usize > queued;
        self.fin_queued &= !fin;
        let bytes = advanced - u32::from(fin);
        self.queue.acknowledge(bytes as usize);
        self.una = ack;
        self.next = self.next.max(ack);
        self.take_rtt_sample(ack, echo, ctx);
        self.rto.reset_backoff();
        self.progress_at = ctx.now;
        match self.recovery.on_progress(ack, advanced, self.mss) {
            Progress::Normal => {
                let window_use = if self.congestion.in_slow_start() && flight > self.congestion.window() / 2 {
                    WindowUse::Limiting
                } else {
                    self.window_use
                };
                self.congestion.on_ack(advanced, self.mss, window_use);
            }
            Progress::Partial => {}
            Progress::Recovered => self.congestion.on_recovered(self.max.since(ack), self.mss),
        }
        if self.timer == SendTimer::Retransmit {
            // RFC 6298 (5.2), (5.3).
            self.timer_at = ctx.now + self.rto.timeout();
        }
        // Whoever is above the mark has something queued, so this says that some of it has arrived, too.
        let low_water = queued > self.low_water_bytes && self.queue.len() <= self.low_water_bytes;
        Acked { bytes, low_water, fin }
    }

    /// Handles SEG.ACK = SND.UNA: a duplicate in the sense of RFC 5681 2?
    #[inline]
    pub(crate) fn on_same_ack(&mut self, segment: &Segment<'_>, ctx: &mut Context<'_>) {
        if self.timer == SendTimer::Persist {
            // The peer is alive and keeps its window closed: it may do so for ever (RFC 9293 3.8.6.1).
            self.progress_at = ctx.now;
            return;
        }
        let outstanding = self.max != self.una;
        if !outstanding || segment.sequence_len() > 0 || self.scaled(segment.window) != self.window {
            return;
        }
        ctx.counters.duplicate_acks_in += 1;
        if self.recovery.on_duplicate(self.una, self.max, self.mss) == Duplicate::Loss {
            ctx.counters.fast_retransmits += 1;
            self.congestion.on_loss(self.next.since(self.una), self.mss);
            self.timed = None;
        }
    }

    /// A segment that was sent once is timed to the nanosecond; where there is none, because it was sent again, timestamps
    /// give the round trip to a tick (RFC 7323 4).
    #[inline]
    fn take_rtt_sample(&mut self, ack: Seq, echo: Option<Duration>, ctx: &mut Context<'_>) {
        let rtt = match self.timed {
            Some((end, sent_at)) if end.is_at_or_before(ack) => ctx.now.since(sent_at),
            Some(_) => return,
            None => match echo {
                Some(echo) => echo,
                None => return,
            },
        };
        let smoothed = self.rto.sample(rtt, ctx.config.min_rto);
        ctx.samples.smoothed_rtt_ns.add(smoothed.as_nanos());
        ctx.samples.congestion_window_bytes.add(u64::from(self.congestion.window()));
        self.timed = None;
    }

    /// Whether the FIN must (again) follow what is between SND.NXT and the end of the queue.
    #[inline]
    fn fin_pending(&self) -> bool {
        self.fin_queued && self.next.since(self.una) as usize <= self.queue.len()
    }

    /// Whether anything waits to be sent, windows aside.
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        self.queue.unsent() > 0 || self.fin_pending()
    }

    /// The segment at SND.UNA, if recovery wants it sent again.
    #[inline]
    pub(crate) fn plan_fast_retransmit(&self) -> Option<Planned> {
        if !self.recovery.retransmit_due {
            return None;
        }
        let sent = self.max.since(self.una) as usize;
        let len = self.queue.at_head(sent.min(self.mss as usize)).len();
        Some(Planned { len, fin: self.fin_queued && len == self.queue.len() && sent > len })
    }

    /// The segment at SND.UNA left again.
    pub(crate) fn fast_retransmit_sent(&mut self, ctx: &Context<'_>) {
        self.recovery.retransmit_due = false;
        self.timed = None;
        self.last_sent_at = ctx.now;
    }

    /// The next segment of at most `max_payload` bytes that the windows let out, if there is one.
    #[inline]
    pub(crate) fn plan(&self, max_payload: usize) -> Option<Planned> {
        let unsent = self.queue.unsent();
        let fin_pending = self.fin_pending();
        let in_flight = self.next.since(self.una);
        let peer = self.window.saturating_sub(in_flight) as usize;
        if unsent == 0 {
            return (fin_pending && peer > 0).then_some(Planned { len: 0, fin: true });
        }
        let mut len = unsent.min(peer).min(self.congestion_room(in_flight)).min(max_payload);
        let mss = self.mss as usize;
        if len < unsent {
            if len > mss {
                len -= len % mss;
            } else if len < mss && (len < self.max_window as usize / 2 || len == 0) {
                // Sender's silly window avoidance (RFC 9293 3.8.6.2.1): neither a full segment, nor all there is, nor
                // half of the largest window.
                return None;
            }
        }
        let len = self.queue.at_next(len).len();
        Some(Planned { len, fin: fin_pending && len == unsent })
    }

    #[inline]
    fn congestion_room(&self, in_flight: u32) -> usize {
        self.recovery.adjust(self.congestion.window(), self.mss).saturating_sub(in_flight) as usize
    }

    /// Before the first segment of an output: a connection that was idle for long starts slowly again.
    #[inline]
    pub(crate) fn begin_output(&mut self, ctx: &Context<'_>) {
        if self.una == self.max && ctx.now.since(self.last_sent_at) > self.rto.timeout() {
            self.congestion.on_idle(self.mss);
        }
    }

    /// After the last segment of an output.
    #[inline]
    pub(crate) fn end_output(&mut self, ctx: &Context<'_>) {
        let in_flight = self.next.since(self.una);
        let limited = self.queue.unsent() > 0 && self.congestion_room(in_flight) < self.mss as usize;
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
        self.next += planned.len as u32 + u32::from(planned.fin);
        if start.is_before(self.max) {
            // What is beyond was never sent before, also if it is in the same frame.
            let again = planned.len.min(self.max.since(start) as usize);
            ctx.counters.retransmits += segments(again, self.mss);
            ctx.counters.bytes_retransmitted += again as u64;
        } else if self.timed.is_none() {
            // Karn's algorithm: only what was never sent before is timed.
            self.timed = Some((self.next, ctx.now));
        }
        self.max = self.max.max(self.next);
        self.last_sent_at = ctx.now;
    }

    /// Brings the timer in line with what is on its way and what waits (RFC 6298 (5.1), (5.2); RFC 9293 3.8.6.1).
    #[inline]
    pub(crate) fn update_timer(&mut self, ctx: &Context<'_>) {
        let wanted = if self.next != self.una {
            SendTimer::Retransmit
        } else if self.has_unsent() && self.plan(self.mss as usize).is_none() {
            SendTimer::Persist
        } else if self.max != self.una {
            // All is to be sent again, but nothing could leave yet.
            SendTimer::Retransmit
        } else {
            SendTimer::Off
        };
        if wanted == self.timer {
            return;
        }
        if wanted == SendTimer::Persist {
            self.progress_at = ctx.now;
        }
        if wanted == SendTimer::Persist || self.timer == SendTimer::Persist {
            self.rto.reset_backoff();
        }
        self.timer = wanted;
        self.timer_at = if wanted == SendTimer::Off { Instant::NEVER } else { ctx.now + self.rto.timeout() };
    }

    /// RFC 6298 (5.4) to (5.7), RFC 5681 3.1: go back to SND.UNA, slowly.
    pub(crate) fn on_retransmit_timeout(&mut self, ctx: &mut Context<'_>) {
        ctx.counters.timeouts += 1;
        if self.rto.backoff() == 0 {
            self.congestion.on_timeout(self.max.since(self.una), self.mss);
        } else {
            self.congestion.on_repeated_timeout(self.mss);
        }
        self.recovery.on_timeout(self.max);
        self.timed = None;
        self.next = self.una;
        self.queue.rewind();
        self.rto.back_off();
        self.timer_at = ctx.now + self.rto.timeout();
    }

    /// The persist timer expired: what to send, though the window does not allow it. An open but silly window is used
    /// (the override of RFC 9293 3.8.6.2.1); into a closed one goes a single octet.
    pub(crate) fn plan_probe(&self) -> Planned {
        let unsent = self.queue.unsent();
        let len = unsent.min((self.window as usize).clamp(1, self.mss as usize));
        let len = self.queue.at_next(len).len();
        Planned { len, fin: self.fin_pending() && len == unsent }
    }

    /// A probe left, or could not.
    pub(crate) fn probe_sent(&mut self, planned: Planned, ctx: &mut Context<'_>) {
        ctx.counters.window_probes += 1;
        // SND.NXT stays: the peer will most likely not take the octet. If it does, its acknowledgment is welcome.
        self.max = self.max.max(self.next + planned.len as u32 + u32::from(planned.fin));
        self.timed = None;
    }

    /// Arms the persist timer once more.
    pub(crate) fn back_off_persist(&mut self, ctx: &Context<'_>) {
        self.rto.back_off();
        self.timer_at = ctx.now + self.rto.timeout();
    }

    /// The path takes segments of `mss` bytes only (RFC 1191): send again what was too large, without punishment.
    pub(crate) fn reduce_mss(&mut self, mss: u32) {
        self.mss = mss;
        self.timed = None;
        self.next = self.una;
        self.queue.rewind();
    }

    /// The sequence number of a segment without data. RFC 9293 wants SND.NXT; the highest that the peer accepts is
    /// meant, which differs while data is sent again or its window has shrunk.
    #[inline]
    pub(crate) fn sequence_of_pure_ack(&self) -> Seq {
        self.max.min(self.una + self.window)
    }
}

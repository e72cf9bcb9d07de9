//! The timer of the sending half: when to take all for lost, to look again at what may be late, to probe a tail or a closed
//! window, and what that does.

use super::scoreboard::Fate;
use super::send_side::{Planned, SendSide, SendTimer};
use super::tail_probe::TailProbe;
use super::{Context, Seq};
use crate::data::Data;
use crate::time::Instant;

impl<D: Data> SendSide<D> {
    /// What always holds: SND.UNA =< SND.NXT =< the highest sent, no more is lost or has arrived than was sent, and the
    /// records say of each byte between the first two what became of it.
    fn is_sound(&self) -> bool {
        let board = self.queue.board();
        self.una.is_at_or_before(self.next)
            && self.next.is_at_or_before(self.max)
            && board.sacked() + board.lost() <= self.next.since(self.una)
            && board.covers(self.una, self.next)
    }

    /// Whether only the peer's window keeps something from being sent.
    #[inline]
    fn waits_for_window(&self) -> bool {
        self.has_unsent() && self.plan(self.mss as usize).is_none()
    }

    /// Brings the timer in line with what is on its way and what waits (RFC 6298 (5.1), (5.2); RFC 8985 7.2; RFC 9293
    /// 3.8.6.1).
    #[inline]
    pub(crate) fn update_timer(&mut self, ctx: &Context<'_>) {
        debug_assert!(self.is_sound(), "{:?} {:?} {:?}", self.una, self.next, self.queue.board());
        if self.timer != SendTimer::Persist && self.una == self.max && !self.has_unsent() {
            // All has arrived: the most frequent case.
            (self.timer, self.timer_at) = (SendTimer::Off, Instant::NEVER);
            return;
        }
        if self.next == self.una || !self.loss.is_untouched() {
            return self.choose_timer(ctx);
        }
        self.wait_for_acknowledgment(ctx);
    }

    /// Something is on its way.
    #[inline]
    fn wait_for_acknowledgment(&mut self, ctx: &Context<'_>) {
        if self.timer != SendTimer::Acknowledgment {
            self.begin_to_wait(SendTimer::Acknowledgment, ctx);
        }
        self.update_probe(ctx.now);
        self.timer_at = self.timeout_at.min(self.probe_at);
        if !self.loss.is_untouched() {
            self.timer_at = self.timer_at.min(self.loss.reorder_at);
        }
    }

    #[inline]
    fn begin_to_wait(&mut self, wanted: SendTimer, ctx: &Context<'_>) {
        if wanted == SendTimer::Persist {
            self.progress_at = ctx.now;
        }
        if wanted == SendTimer::Persist || self.timer == SendTimer::Persist {
            self.rto.reset_backoff();
        }
        self.timer = wanted;
        self.timeout_at = ctx.now + self.rto.timeout();
    }

    fn choose_timer(&mut self, ctx: &Context<'_>) {
        let lost = self.queue.board().lost();
        let wanted = if self.next.since(self.una) > lost {
            SendTimer::Acknowledgment
        } else if if lost > 0 { self.window == 0 } else { self.waits_for_window() } {
            SendTimer::Persist
        } else if self.max != self.una {
            // Everything is to be sent again, but nothing could leave yet.
            SendTimer::Acknowledgment
        } else {
            SendTimer::Off
        };
        if wanted == SendTimer::Acknowledgment {
            return self.wait_for_acknowledgment(ctx);
        }
        if wanted != self.timer {
            self.begin_to_wait(wanted, ctx);
        }
        self.timer_at = if wanted == SendTimer::Off { Instant::NEVER } else { self.timeout_at };
    }

    /// RFC 6298 (5.4) to (5.7), RFC 5681 3.1, RFC 8985 6.3: what is lost is sent again, slowly.
    pub(crate) fn on_timeout(&mut self, ctx: &mut Context<'_>) {
        ctx.counters.timeouts += 1;
        self.timeouts = self.timeouts.saturating_add(1);
        let outstanding = self.next.since(self.una);
        if let Some(mss) = self.loss.black_hole.on_timeout(self.timeouts, outstanding, self.mss, ctx.now) {
            self.mss = mss;
            ctx.counters.black_holes += 1;
        }
        let repeated = self.loss.recovery.is_repeated_timeout(self.una);
        if repeated {
            self.congestion.on_repeated_timeout(self.mss);
        } else {
            self.congestion.on_timeout(self.max.since(self.una), self.mss);
            self.ecn.reduced(self.next);
        }
        let board = self.queue.board_mut();
        if repeated || board.first().is_some_and(|first| first.fate == Fate::Sacked) {
            // What lies at SND.UNA cannot have arrived, or it would be acknowledged.
            ctx.counters.sacks_forgotten += u64::from(board.sacked() > 0);
            board.forget_sacks();
        }
        if self.sack {
            self.loss.rack.detect_on_timeout(
                board,
                &self.round_trips,
                self.una,
                self.rto.smoothed().unwrap_or_default(),
                self.mss,
                ctx.now,
            );
        } else {
            board.mark_lost(|_| true);
        }
        self.loss.recovery.begin_timeout(self.una, self.next);
        (self.loss.probe, self.probe_at) = (TailProbe::NONE, Instant::NEVER);
        self.loss.reorder_at = Instant::NEVER;
        self.rto.back_off();
        self.timeout_at = ctx.now + self.rto.timeout();
    }

    /// RACK's timer is due: what was only late until now is lost.
    pub(crate) fn on_reorder_timer(&mut self, ctx: &mut Context<'_>) {
        self.loss.reorder_at = Instant::NEVER;
        let lost = self.detect_losses(ctx);
        if lost > 0 {
            ctx.counters.reordering_timeouts += 1;
            self.losses_found(lost, 0, ctx);
            self.update_prr(0, false);
        }
    }

    /// The persist timer expired: what to send, though the window does not allow it, and from where. An open but silly
    /// window is used (the override of RFC 9293 3.8.6.2.1); into a closed one goes a single octet.
    pub(crate) fn plan_probe(&self) -> (Seq, Planned) {
        let most = (self.window as usize).clamp(1, self.mss as usize);
        if self.queue.board().lost() > 0 {
            // The window has shrunk behind what was sent.
            let len = self.queue.at(0, most).len();
            return (self.una, Planned { len, fin: len == 0 });
        }
        let unsent = self.queue.unsent();
        let len = self.queue.at_next(unsent.min(most)).len();
        (self.next, Planned { len, fin: self.fin_pending() && len == unsent })
    }

    /// A probe left, or could not.
    pub(crate) fn probe_sent(&mut self, start: Seq, planned: Planned, ctx: &mut Context<'_>) {
        ctx.counters.window_probes += 1;
        // SND.NXT stays: the peer will most likely not take the octet. If it does, its acknowledgment is welcome.
        let end = start + planned.len as u32 + u32::from(planned.fin);
        self.release_withheld(start, end);
        self.max = self.max.max(end);
    }

    /// Arms the persist timer once more.
    pub(crate) fn back_off_persist(&mut self, ctx: &mut Context<'_>) {
        self.rto.back_off();
        ctx.counters.windows_held += u64::from(self.rto.backoff() == 2);
        self.timeout_at = ctx.now + self.rto.timeout();
        self.timer_at = self.timeout_at;
    }
}

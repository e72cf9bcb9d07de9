//! Tail loss probes (RFC 8985 7): when the end of a flight is lost nothing comes after it that would show the loss; so a
//! segment is sent after about two round trips of silence, and its acknowledgment shows it.

use super::recovery::Phase;
use super::send_side::{Planned, SendSide};
use super::{Context, Seq};
use crate::data::Data;
use crate::time::{Duration, Instant};

/// RFC 8985 7.2: the probe timeout before a round trip was measured.
const INITIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// RFC 8985 7.2: TLP.max_ack_delay, for a single segment, whose acknowledgment may be delayed.
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);
/// Timers tick once a millisecond: a probe after less than two ticks would often be early.
const MIN_TIMEOUT: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(crate) struct TailProbe {
    /// TLP.end_seq: SND.NXT when the one that is on its way was sent.
    pub(super) end: Option<Seq>,
    /// TLP.is_retrans.
    again: bool,
}

impl TailProbe {
    pub(crate) const NONE: Self = Self { end: None, again: false };

    /// Whether the one on its way sent something again that ends there.
    pub(super) fn is_again_until(&self, end: Seq) -> bool {
        self.again && self.end == Some(end)
    }
}

impl<D: Data> SendSide<D> {
    /// RFC 8985 7.2: schedules a probe while there is something whose loss nobody would notice.
    #[inline]
    pub(super) fn update_probe(&mut self, now: Instant) {
        let wanted = self.sack
            && self.next != self.una
            && (self.loss.is_untouched()
                || (self.loss.recovery.phase == Phase::Open
                    && self.loss.probe.end.is_none()
                    && self.queue.board().sacked() + self.queue.board().lost() == 0));
        if !wanted {
            self.probe_at = Instant::NEVER;
        } else if self.probe_at == Instant::NEVER {
            // Not after the retransmission timeout, but instead of it.
            self.probe_at = (now + self.probe_timeout()).min(self.timeout_at);
        }
    }

    #[inline]
    fn probe_timeout(&self) -> Duration {
        let Some(smoothed) = self.rto.smoothed() else { return INITIAL_TIMEOUT };
        let two_round_trips = Duration::from_nanos(2 * smoothed.as_nanos()).max(MIN_TIMEOUT);
        if self.next.since(self.una) > self.mss {
            return two_round_trips;
        }
        Duration::from_nanos(two_round_trips.as_nanos() + MAX_ACK_DELAY.as_nanos())
    }

    /// RFC 8985 7.3: what to probe with, and from where: something new if the peer's window has room, whatever the
    /// congestion window says, else the last segment again.
    pub(crate) fn plan_tail_probe(&self) -> Option<(Seq, Planned)> {
        let room = self.window.saturating_sub(self.next.since(self.una));
        if self.has_unsent() && room > 0 {
            let unsent = self.queue.unsent();
            let len = self.queue.at_next(unsent.min((room.min(self.mss)) as usize)).len();
            return Some((self.next, Planned { len, fin: self.fin_pending() && len == unsent }));
        }
        let last = self.queue.board().last()?;
        // The FIN takes a sequence number and no byte of the queue.
        let fin = u32::from(self.fin_queued && !self.fin_pending());
        let len = (last.len() - fin).min(self.mss);
        let start = last.end - fin - len;
        let read = self.queue.at(start.since(self.una) as usize, len as usize).len();
        // In too many pieces for one segment: from where it does not reach the end it proves nothing.
        (read == len as usize).then_some((start, Planned { len: read, fin: fin > 0 }))
    }

    /// The probe left.
    pub(crate) fn tail_probe_sent(&mut self, start: Seq, planned: Planned, ctx: &mut Context<'_>) {
        ctx.counters.tail_probes += 1;
        let mut again = start != self.next;
        if again {
            let end = start + planned.len as u32 + u32::from(planned.fin);
            // What it repairs then was not lost.
            again = self.release_withheld(start, end) == 0;
            if again {
                self.count_again(planned.len, ctx);
            }
            self.leaves_again(start, end, ctx);
        } else {
            self.sent(planned, ctx);
        }
        self.loss.probe = TailProbe { end: Some(self.next), again };
        self.probe_at = Instant::NEVER;
        self.timeout_at = ctx.now + self.rto.timeout();
    }

    /// RFC 8985 7.4.2, with an acknowledgment of `advanced` bytes, whether it reports blocks, and the end of the duplicate
    /// that it reports. Returns whether the probe has repaired a loss that nobody else has seen.
    pub(super) fn probe_acknowledged(&mut self, advanced: u32, blocks: bool, duplicate: Option<Seq>) -> bool {
        let Some(end) = self.loss.probe.end.filter(|end| end.is_at_or_before(self.una)) else { return false };
        let repaired = self.loss.probe.again && duplicate != Some(end) && self.una.is_after(end);
        let needless = !self.loss.probe.again || duplicate == Some(end) || (advanced == 0 && !blocks);
        if repaired || needless {
            self.loss.probe.end = None;
        }
        repaired && self.loss.recovery.phase == Phase::Open
    }
}

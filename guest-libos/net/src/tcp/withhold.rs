//! Whether the peer acknowledges what it has received, or more (Savage et al. 1999, "TCP Congestion Control with a Misbehaving
//! Receiver"; CERT VU#102014): by acknowledging early it draws data at a rate that no loss slows down. Now and then a segment
//! is withheld: it counts as sent, and those after it leave. Whoever acknowledges it has not waited for it. Everybody
//! else reports what came after the gap, as for a loss; then the segment leaves, and as it is known that nothing was lost, nothing
//! answers to one (Sherwood et al. 2005, "Misbehaving TCP Receivers Can Cause Internet-Wide Congestion Collapse", 5). Who reports gaps
//! where there are none, in order not to be found out, has the losses that he reports.

use core::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::send_side::{Planned, SendSide};
use super::{Context, Seq};
use crate::config::Config;
use crate::data::Data;
use crate::time::Instant;

/// A peer whose window, or whose congestion window, has room for no more segments gains little over the initial window: it is
/// not examined.
const MIN_WINDOW_SEGMENTS: u32 = 24;
/// So many segments follow the one that is withheld: one shows the gap, but a peer without SACK needs three duplicates for it.
const FOLLOWING_SEGMENTS: usize = 1;
const FOLLOWING_SEGMENTS_WITHOUT_SACK: usize = 4;

/// When the next segment is withheld.
#[derive(Debug)]
pub(crate) struct Examination {
    /// Windows of data until then; 0: with the next output.
    windows: u8,
    /// The first one was drawn.
    begun: bool,
}

impl Examination {
    pub(crate) const fn new() -> Self {
        Self { windows: 1, begun: false }
    }

    /// Another window of data was acknowledged, up to `una`. Nobody outside can tell how many it will be: first a few, then as many
    /// as [`Config::withhold_every`] says, in the mean.
    fn window_passed(&mut self, una: Seq, now: Instant, config: &Config) {
        self.windows = self.windows.saturating_sub(1);
        if self.windows > 0 || self.begun {
            return;
        }
        self.begun = true;
        self.draw(config.withhold_every.div_ceil(8), una, now, config);
    }

    /// Between half and one and a half times `mean`.
    fn draw(&mut self, mean: u8, una: Seq, now: Instant, config: &Config) {
        let mut hasher = SipHasher13::new_with_key(&config.secret);
        hasher.write(b"withhold");
        hasher.write_u64(now.as_nanos());
        hasher.write_u32(una.value());
        let mean = u64::from(mean.max(1));
        self.windows = (mean / 2 + hasher.finish() % mean + 1).min(255) as u8;
    }
}

/// Bytes that count as sent and are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Withheld {
    pub(crate) start: Seq,
    pub(crate) end: Seq,
}

impl<D: Data> SendSide<D> {
    /// A round trip was measured, once a window of data.
    #[inline]
    pub(super) fn count_window(&mut self, ctx: &Context<'_>) {
        let window = self.congestion.window().min(self.max_window);
        if window > MIN_WINDOW_SEGMENTS * self.mss && ctx.config.withhold_every > 0 {
            self.examination.window_passed(self.una, ctx.now, ctx.config);
        }
    }

    /// Whether the next segment is to be withheld, if enough others follow it.
    #[inline]
    pub(crate) fn is_withholding_due(&self) -> bool {
        self.examination.windows == 0
    }

    /// Withholds the next segment if it is a full one and enough others wait behind it: what is on its way lets them out.
    #[cold]
    pub(crate) fn withhold(&mut self, ctx: &mut Context<'_>) {
        let mss = self.mss as usize;
        let following = if self.sack { FOLLOWING_SEGMENTS } else { FOLLOWING_SEGMENTS_WITHOUT_SACK };
        let room = self.congestion_room().min(self.window.saturating_sub(self.next.since(self.una)));
        let unsuitable = room < self.mss
            || self.queue.unsent() < (1 + following) * mss
            || self.queue.at_next(mss).len() < mss
            || self.next != self.max
            || self.queue.board().lost() > 0
            || self.loss.withheld.is_some()
            || self.congestion.is_uncontrolled()
            || self.has_urgent();
        if unsuitable {
            return;
        }
        let start = self.next;
        self.sent(Planned { len: mss, fin: false }, ctx);
        self.loss.withheld = Some(Withheld { start, end: self.next });
        ctx.counters.segments_withheld += 1;
        self.examination.draw(ctx.config.withhold_every, self.una, ctx.now, ctx.config);
    }

    /// Whether an acknowledgment up to `ack` is of something withheld.
    #[inline]
    pub(crate) fn is_optimistic(&self, ack: Seq) -> bool {
        !self.loss.is_untouched() && self.loss.withheld.is_some_and(|withheld| ack.is_after(withheld.start))
    }

    /// Whether the `lost` bytes just found are what was withheld and nothing else.
    pub(super) fn is_withheld_only(&self, lost: u32) -> bool {
        self.loss.withheld.is_some_and(|withheld| {
            let withheld_bytes = withheld.end.since(withheld.start);
            withheld.start == self.una && lost == withheld_bytes && self.queue.board().lost() == lost
        })
    }

    /// Bytes `start..end` leave. Returns how many of them were withheld until now.
    pub(super) fn release_withheld(&mut self, start: Seq, end: Seq) -> u32 {
        let Some(loss) = self.loss.touched() else { return 0 };
        let Some(withheld) = loss.withheld else { return 0 };
        if start.is_after(withheld.start) || end.is_at_or_before(withheld.start) {
            return 0;
        }
        loss.withheld =
            Some(Withheld { start: end, ..withheld }).filter(|left| left.start.is_before(left.end));
        end.min(withheld.end).since(withheld.start)
    }
}

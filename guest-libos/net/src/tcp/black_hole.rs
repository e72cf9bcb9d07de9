//! Paths that swallow large segments and say nothing (RFC 4821 7.7, RFC 8899 4.3): when a full segment times out thrice,
//! as Linux has it, smaller ones are tried, in two steps. If those do not arrive either, size was not what was wrong, and the size from before
//! is taken up with the next acknowledgment; otherwise it is tried again after ten minutes.

use super::send_side::SendSide;
use crate::data::Data;
use crate::time::{Duration, Instant};

/// Payloads that are tried: that of 1,200 byte packets, RFC 8899's base size, and that of the least size for receivers.
const SMALLER: [u32; 2] = [1_160, 536];
/// So many timeouts in a row make a full segment suspicious.
const SUSPICIOUS_TIMEOUTS: u8 = 3;
/// After so long the size from before is tried again (RFC 1191 6.3).
const RETRY: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct BlackHole {
    /// The size from before; 0 while nothing is suspected.
    full_mss: u16,
    /// Nothing smaller is left to be tried.
    exhausted: bool,
    /// When the size from before is tried again.
    retry_at: Instant,
}

impl BlackHole {
    /// Nothing is suspected.
    pub(crate) const NONE: Self = Self { full_mss: 0, exhausted: false, retry_at: Instant::NEVER };

    /// The retransmission timer expired for the `timeouts`th time in a row, with `outstanding` bytes on their way. Returns
    /// the size to go on with, if it is another.
    pub(crate) fn on_timeout(
        &mut self,
        timeouts: u8,
        outstanding: u32,
        mss: u32,
        now: Instant,
    ) -> Option<u32> {
        if timeouts < SUSPICIOUS_TIMEOUTS || outstanding < mss {
            self.exhausted |= self.full_mss != 0 && timeouts > SUSPICIOUS_TIMEOUTS;
            return None;
        }
        let Some(&smaller) = SMALLER.iter().find(|&&smaller| smaller < mss) else {
            self.exhausted = self.full_mss != 0;
            return None;
        };
        if self.full_mss == 0 {
            self.full_mss = mss as u16;
        }
        self.retry_at = now + RETRY;
        Some(smaller)
    }

    /// Something arrived. Returns the size to go back to, if size was not what was wrong.
    pub(crate) fn on_progress(&mut self) -> Option<u32> {
        if !self.exhausted {
            return None;
        }
        self.restore()
    }

    /// Something is about to be sent. Returns the size to go back to, if it is time to try it again.
    #[inline]
    pub(crate) fn on_output(&mut self, now: Instant) -> Option<u32> {
        if now < self.retry_at { None } else { self.restore() }
    }

    /// The size to go back to; 0 if there is none.
    #[cfg(feature = "check")]
    pub(crate) fn full_mss(&self) -> u32 {
        self.full_mss.into()
    }

    /// The path takes segments of `full` bytes from now on, and `tried` is the size in use. Returns the size to go on with: while
    /// a larger one is suspected, none larger than what is tried.
    fn on_path_change(&mut self, full: u32, tried: u32) -> u32 {
        if self.full_mss == 0 {
            return full;
        }
        self.full_mss = full as u16;
        tried.min(full)
    }

    fn restore(&mut self) -> Option<u32> {
        let full = core::mem::replace(self, Self::NONE).full_mss;
        (full != 0).then_some(u32::from(full))
    }
}

impl<D: Data> SendSide<D> {
    /// The path takes segments of `mss` bytes from now on: full segments have as many, or fewer while a black hole is suspected.
    pub(crate) fn set_mss(&mut self, mss: u32) {
        let used = self.mss;
        let mss = self.loss.touched().map_or(mss, |loss| loss.black_hole.on_path_change(mss, used));
        self.use_mss(mss);
    }

    /// Segments have `mss` bytes from now on, and there is room for one.
    pub(super) fn use_mss(&mut self, mss: u32) {
        self.mss = mss;
        self.congestion.on_segment_size(mss);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_millis(1_000);

    #[test]
    fn third_timeout_of_full_segments_tries_smaller_ones() {
        let mut hole = BlackHole::NONE;
        assert_eq!(hole.on_timeout(2, 14_600, 1_460, NOW), None);
        assert_eq!(hole.on_timeout(3, 14_600, 1_460, NOW), Some(1_160));
        assert_eq!((hole.on_progress(), hole.on_output(NOW)), (None, None));
        assert_eq!(hole.on_output(NOW + RETRY), Some(1_460));
        assert_eq!(hole.on_output(NOW + RETRY), None);
    }

    #[test]
    fn small_segments_that_time_out_are_no_hint() {
        let mut hole = BlackHole::NONE;
        assert_eq!(hole.on_timeout(5, 100, 1_460, NOW), None);
        assert_eq!(hole.on_progress(), None);
        assert_eq!(hole.on_timeout(5, 5_000, 400, NOW), None);
    }

    #[test]
    fn what_is_tried_outlives_a_change_of_the_path_that_leaves_room_for_it() {
        let mut hole = BlackHole::NONE;
        assert_eq!(hole.on_path_change(1_400, 1_460), 1_400);
        assert_eq!(hole.on_timeout(3, 14_000, 1_400, NOW), Some(1_160));
        assert_eq!((hole.on_path_change(1_460, 1_160), hole.on_path_change(1_300, 1_160)), (1_160, 1_160));
        assert_eq!(hole.on_output(NOW + RETRY), Some(1_300));
        assert_eq!(hole.on_timeout(3, 14_000, 1_300, NOW), Some(1_160));
        assert_eq!((hole.on_path_change(1_160, 1_160), hole.on_path_change(960, 1_160)), (1_160, 960));
        assert_eq!((hole.on_path_change(1_460, 960), hole.on_output(NOW + RETRY)), (960, Some(1_460)));
        assert_eq!(hole.on_path_change(1_500, 1_460), 1_500);
    }

    #[test]
    fn size_comes_back_if_no_size_arrives() {
        let mut hole = BlackHole::NONE;
        assert_eq!(hole.on_timeout(3, 14_600, 1_460, NOW), Some(1_160));
        assert_eq!(hole.on_timeout(4, 14_600, 1_160, NOW), Some(536));
        assert_eq!(hole.on_progress(), None);
        assert_eq!(hole.on_timeout(5, 14_600, 536, NOW), None);
        assert_eq!(hole.on_progress(), Some(1_460));
        assert_eq!(hole.on_progress(), None);
    }
}

//! Congestion control: how much may be on its way. [`CongestionControl`] is what an algorithm must answer; which
//! segments are lost is not its business (see `recovery`). NewReno is here; CUBIC can stand beside it.

/// The largest window that is ever of use: what window scaling can express.
const MAX_WINDOW_BYTES: u32 = 1 << 30;
/// RFC 9406 4.2: slow start grows by at most L segments an acknowledgment; 8 for senders that do not pace. Receivers
/// behind segmentation offload acknowledge up to 64 KiB at a time.
const SLOW_START_LIMIT_SEGMENTS: u32 = 8;

/// Whether the window was what held the sender back. A window that is not used must not grow (RFC 7661 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowUse {
    Limiting,
    Spare,
}

/// A congestion control algorithm. All numbers are bytes.
pub(crate) trait CongestionControl {
    /// The congestion window.
    fn window(&self) -> u32;
    /// Whether the window still grows exponentially.
    fn in_slow_start(&self) -> bool;
    /// New data was acknowledged, outside of loss recovery.
    fn on_ack(&mut self, acked: u32, mss: u32, window_use: WindowUse);
    /// A loss was found by duplicate acknowledgments while `flight` bytes were on their way.
    fn on_loss(&mut self, flight: u32, mss: u32);
    /// Loss recovery is over; `flight` bytes are on their way.
    fn on_recovered(&mut self, flight: u32, mss: u32);
    /// The retransmission timer expired for the first time for these bytes.
    fn on_timeout(&mut self, flight: u32, mss: u32);
    /// The retransmission timer expired again before any progress.
    fn on_repeated_timeout(&mut self, mss: u32);
    /// The last loss or timeout was none.
    fn on_spurious(&mut self);
    /// Nothing was sent for longer than the retransmission timeout.
    fn on_idle(&mut self, mss: u32);
}

/// RFC 6928 2: about ten segments.
pub(crate) fn initial_window(mss: u32) -> u32 {
    (10 * mss).min(14_600.max(2 * mss))
}

/// NewReno's window (RFC 5681 3.1, counting bytes as RFC 3465 does).
#[derive(Debug)]
pub(crate) struct NewReno {
    window: u32,
    slow_start_threshold: u32,
    /// Bytes acknowledged since the window last grew in congestion avoidance.
    acked: u32,
    /// Window and threshold before the last reduction.
    before: Option<(u32, u32)>,
}

impl NewReno {
    pub(crate) fn new(mss: u32) -> Self {
        Self { window: initial_window(mss), slow_start_threshold: u32::MAX, acked: 0, before: None }
    }

    fn halve(&mut self, flight: u32, mss: u32) {
        self.before = Some((self.window, self.slow_start_threshold));
        // RFC 5681 (4).
        self.slow_start_threshold = (flight / 2).max(2 * mss);
        self.acked = 0;
    }
}

impl CongestionControl for NewReno {
    #[inline]
    fn window(&self) -> u32 {
        self.window
    }

    #[inline]
    fn in_slow_start(&self) -> bool {
        self.window < self.slow_start_threshold
    }

    fn on_ack(&mut self, acked: u32, mss: u32, window_use: WindowUse) {
        if window_use == WindowUse::Spare {
            return;
        }
        if self.in_slow_start() {
            // Not beyond the threshold: one large acknowledgment must not undo the caution after a loss.
            let grown = self.window.saturating_add(acked.min(SLOW_START_LIMIT_SEGMENTS * mss));
            self.window = grown.min(self.slow_start_threshold);
        } else {
            self.acked = self.acked.saturating_add(acked);
            if self.acked >= self.window {
                self.acked -= self.window;
                self.window += mss;
            }
        }
        self.window = self.window.min(MAX_WINDOW_BYTES);
    }

    fn on_loss(&mut self, flight: u32, mss: u32) {
        self.halve(flight, mss);
        self.window = self.slow_start_threshold;
    }

    fn on_recovered(&mut self, flight: u32, mss: u32) {
        // RFC 6582 3.2 (3), first option: no burst when little is on its way.
        self.window = self.slow_start_threshold.min(flight.max(mss) + mss);
    }

    fn on_timeout(&mut self, flight: u32, mss: u32) {
        self.halve(flight, mss);
        self.window = mss;
    }

    fn on_repeated_timeout(&mut self, mss: u32) {
        self.window = mss;
    }

    fn on_spurious(&mut self) {
        let Some((window, threshold)) = self.before.take() else { return };
        (self.window, self.slow_start_threshold) = (self.window.max(window), threshold);
    }

    fn on_idle(&mut self, mss: u32) {
        // RFC 5681 4.1.
        self.window = self.window.min(initial_window(mss));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1_000;

    #[test]
    fn initial_window_follows_rfc_6928() {
        assert_eq!(initial_window(1_460), 14_600);
        assert_eq!(initial_window(536), 5_360);
        assert_eq!(initial_window(9_000), 18_000);
    }

    #[test]
    fn slow_start_doubles_and_avoidance_adds_one_segment_a_window() {
        let mut reno = NewReno::new(MSS);
        for _ in 0..10 {
            reno.on_ack(MSS, MSS, WindowUse::Limiting);
        }
        assert_eq!(reno.window(), 20 * MSS);
        reno.on_loss(20 * MSS, MSS);
        assert_eq!((reno.window(), reno.in_slow_start()), (10 * MSS, false));
        for _ in 0..10 {
            reno.on_ack(MSS, MSS, WindowUse::Limiting);
        }
        assert_eq!(reno.window(), 11 * MSS);
    }

    #[test]
    fn spare_window_does_not_grow() {
        let mut reno = NewReno::new(MSS);
        reno.on_ack(MSS, MSS, WindowUse::Spare);
        assert_eq!(reno.window(), 10 * MSS);
    }

    #[test]
    fn timeout_returns_to_one_segment_and_repeated_timeout_keeps_the_threshold() {
        let mut reno = NewReno::new(MSS);
        reno.on_timeout(10 * MSS, MSS);
        reno.on_repeated_timeout(MSS);
        assert_eq!((reno.window(), reno.slow_start_threshold), (MSS, 5 * MSS));
    }

    #[test]
    fn slow_start_growth_of_one_large_ack_is_limited() {
        let mut reno = NewReno::new(MSS);
        reno.on_ack(60 * MSS, MSS, WindowUse::Limiting);
        assert_eq!(reno.window(), 18 * MSS);
    }

    #[test]
    fn slow_start_ends_at_the_threshold() {
        let mut reno = NewReno::new(MSS);
        reno.on_timeout(10 * MSS, MSS);
        reno.on_ack(9 * MSS, MSS, WindowUse::Limiting);
        assert_eq!(reno.window(), 5 * MSS);
    }

    #[test]
    fn idle_restarts_from_the_initial_window() {
        let mut reno = NewReno::new(MSS);
        reno.on_ack(8 * MSS, MSS, WindowUse::Limiting);
        reno.on_idle(MSS);
        assert_eq!(reno.window(), 10 * MSS);
    }
}

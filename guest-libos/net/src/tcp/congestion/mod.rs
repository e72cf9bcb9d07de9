//! Congestion control: how much may be on its way. Which segments are lost is not its business (see `recovery`).
//! [`Congestion`] keeps the window and the threshold, and does slow start; how the window grows in congestion avoidance
//! and how far it falls is an algorithm's: `new_reno` or `cubic`, as [`crate::Config::congestion`] says. When the first
//! slow start ends is `hystart`'s or a loss's, as [`crate::Config::slow_start`] says. All windows are bytes. Without congestion
//! control the window is as large as windows get, and nothing moves it.

mod cubic;
mod hystart;
mod new_reno;

use alloc::boxed::Box;

use super::Seq;
use crate::config::{Config, CongestionControl, SlowStart};
use crate::time::{Duration, Instant};
use cubic::Cubic;
use hystart::{HyStart, Next};
use new_reno::NewReno;

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

/// New data was acknowledged, outside of loss recovery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub(crate) now: Instant,
    /// Bytes that it acknowledges for the first time.
    pub(crate) bytes: u32,
    /// SEG.ACK.
    pub(crate) number: Seq,
    /// The highest sequence number sent so far.
    pub(crate) sent: Seq,
    /// The round trip that it measured, if it did.
    pub(crate) rtt: Option<Duration>,
    pub(crate) smoothed_rtt: Duration,
    pub(crate) window_use: WindowUse,
}

/// How the window grows.
#[derive(Debug)]
enum Phase {
    /// The first slow start, which HyStart++ watches, and what comes after it.
    First(HyStart, CongestionControl),
    /// The same, which ends with a loss only.
    Unwatched(CongestionControl),
    NewReno(NewReno),
    /// Most connections never get here.
    Cubic(Box<Cubic>),
    Uncontrolled,
}

/// The congestion control of one connection.
#[derive(Debug)]
pub(crate) struct Congestion {
    window: u32,
    /// ssthresh.
    threshold: u32,
    /// Window and threshold before the last reduction, a window of 0 if it cannot be taken back.
    before: (u32, u32),
    phase: Phase,
}

/// RFC 6928 2: about ten segments.
pub(crate) fn initial_window(mss: u32) -> u32 {
    (10 * mss).min(14_600.max(2 * mss))
}

impl Phase {
    fn avoidance(algorithm: CongestionControl) -> Self {
        match algorithm {
            CongestionControl::NewReno => Self::NewReno(NewReno::default()),
            CongestionControl::Cubic => Self::Cubic(Box::default()),
            CongestionControl::Uncontrolled => Self::Uncontrolled,
        }
    }

    /// The first slow start is over.
    fn leave_first(&mut self) {
        if let Self::First(_, algorithm) | Self::Unwatched(algorithm) = *self {
            *self = Self::avoidance(algorithm);
        }
    }
}

impl Congestion {
    /// For a connection whose first sequence number is `isn`.
    pub(crate) fn new(config: &Config, isn: Seq, mss: u32) -> Self {
        let phase = match config.slow_start {
            _ if config.congestion == CongestionControl::Uncontrolled => {
                let (window, threshold) = (MAX_WINDOW_BYTES, MAX_WINDOW_BYTES);
                return Self { window, threshold, before: (0, 0), phase: Phase::Uncontrolled };
            }
            SlowStart::HyStart => Phase::First(HyStart::new(isn), config.congestion),
            SlowStart::Standard => Phase::Unwatched(config.congestion),
        };
        Self { window: initial_window(mss), threshold: u32::MAX, before: (0, 0), phase }
    }

    /// The congestion window.
    #[inline]
    pub(crate) fn window(&self) -> u32 {
        self.window
    }

    /// Whether nothing but the peer's window bounds what is on its way.
    #[inline]
    pub(crate) fn is_uncontrolled(&self) -> bool {
        matches!(self.phase, Phase::Uncontrolled)
    }

    fn is_cubic(&self) -> bool {
        matches!(
            self.phase,
            Phase::Cubic(_)
                | Phase::First(_, CongestionControl::Cubic)
                | Phase::Unwatched(CongestionControl::Cubic)
        )
    }

    /// Whether the window still grows exponentially.
    #[inline]
    pub(crate) fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// Whether an acknowledgment can make the window grow or tell something of it. In slow start nothing is learned from a
    /// window that is not used: what HyStart++ looks for is a queue that this window makes.
    #[inline]
    pub(crate) fn heeds(&self, window_use: WindowUse) -> bool {
        window_use == WindowUse::Limiting || !matches!(self.phase, Phase::First(..) | Phase::Unwatched(_))
    }

    #[inline]
    pub(crate) fn on_ack(&mut self, ack: &Ack, mss: u32) {
        if let Phase::First(hystart, _) = &mut self.phase {
            match hystart.on_ack(ack) {
                Next::SlowStart => self.grow_exponentially(ack, 1, mss),
                Next::Conservative => self.grow_exponentially(ack, hystart::CSS_GROWTH_DIVISOR, mss),
                Next::Avoidance => {
                    self.threshold = self.window;
                    self.phase.leave_first();
                }
            }
        } else if self.in_slow_start() {
            self.grow_exponentially(ack, 1, mss);
        } else {
            self.avoid(ack, mss);
        }
    }

    #[inline]
    fn grow_exponentially(&mut self, ack: &Ack, divisor: u32, mss: u32) {
        if ack.window_use == WindowUse::Spare {
            return;
        }
        // Not beyond the threshold: one large acknowledgment must not undo the caution after a loss.
        let grown = self
            .window
            .saturating_add(ack.bytes.min(SLOW_START_LIMIT_SEGMENTS.saturating_mul(mss)) / divisor);
        self.window = grown.min(self.threshold).min(MAX_WINDOW_BYTES);
    }

    fn avoid(&mut self, ack: &Ack, mss: u32) {
        let window = match &mut self.phase {
            Phase::First(..) | Phase::Unwatched(_) | Phase::Uncontrolled => self.window,
            Phase::NewReno(reno) => reno.on_ack(self.window, ack, mss),
            Phase::Cubic(cubic) => cubic.on_ack(self.window, ack, mss),
        };
        self.window = window.min(MAX_WINDOW_BYTES);
    }

    /// Loss recovery begins: a loss was found, while `flight` bytes were sent and not acknowledged.
    pub(crate) fn on_loss(&mut self, flight: u32, window_use: WindowUse, mss: u32) {
        if self.is_uncontrolled() {
            return;
        }
        // RFC 5681 3.2 (2): without what limited transmit has sent.
        let flight = flight.min(self.window);
        // RFC 9438 4.6 lets CUBIC take the window, as it does not grow when something else is the limit: whole segments of it
        // are on their way, and a part that waits to be one would be lost each time.
        self.reduce(
            if self.is_cubic() && window_use == WindowUse::Limiting { self.window } else { flight },
            mss,
        );
        if let Phase::Cubic(cubic) = &mut self.phase {
            cubic.on_loss(self.window);
        }
        self.window = self.threshold;
    }

    /// A mark was echoed (RFC 3168 6.1.2), while `flight` bytes were sent and not acknowledged. It cannot be mistaken.
    pub(crate) fn on_echo(&mut self, flight: u32, window_use: WindowUse, mss: u32) {
        self.on_loss(flight, window_use, mss);
        self.before = Default::default();
    }

    /// Loss recovery is over; `flight` bytes are on their way, and `burst` more may follow at once.
    pub(crate) fn on_recovered(&mut self, flight: u32, burst: u32) {
        if self.is_uncontrolled() {
            return;
        }
        self.window = self.threshold.min(flight.saturating_add(burst));
    }

    /// The retransmission timer expired for the first time for these `flight` bytes.
    pub(crate) fn on_timeout(&mut self, flight: u32, mss: u32) {
        if self.is_uncontrolled() {
            return;
        }
        self.reduce(flight, mss);
        if let Phase::Cubic(cubic) = &mut self.phase {
            cubic.on_timeout(self.window);
        }
        self.window = mss;
    }

    /// The retransmission timer expired again before any progress.
    pub(crate) fn on_repeated_timeout(&mut self, mss: u32) {
        if self.is_uncontrolled() {
            return;
        }
        self.window = mss;
    }

    /// The last loss or timeout was none: what it took is given back (RFC 9438 4.9, RFC 5682).
    pub(crate) fn on_spurious(&mut self) {
        let (window, threshold) = core::mem::take(&mut self.before);
        if window == 0 {
            return;
        }
        self.window = self.window.max(window);
        self.threshold = threshold;
        if let Phase::Cubic(cubic) = &mut self.phase {
            cubic.on_spurious();
        }
    }

    /// Nothing was sent for longer than the retransmission timeout.
    pub(crate) fn on_idle(&mut self, mss: u32) {
        if self.is_uncontrolled() {
            return;
        }
        // RFC 5681 4.1.
        self.window = self.window.min(initial_window(mss));
        if let Phase::Cubic(cubic) = &mut self.phase {
            cubic.on_idle();
        }
    }

    /// Segments have `mss` bytes from now on. RFC 5681 3.1 and its equation (4): the window is never less than one, the threshold
    /// never less than two.
    pub(crate) fn on_segment_size(&mut self, mss: u32) {
        self.window = self.window.max(mss);
        self.threshold = self.threshold.max(2 * mss);
        self.before.1 = self.before.1.max(2 * mss);
    }

    /// Multiplicative decrease of the threshold.
    fn reduce(&mut self, flight: u32, mss: u32) {
        self.before = (self.window, self.threshold);
        self.phase.leave_first();
        let reduced = match &mut self.phase {
            Phase::Cubic(_) => cubic::decrease(flight, mss),
            Phase::NewReno(reno) => reno.decrease(flight),
            Phase::First(..) | Phase::Unwatched(_) | Phase::Uncontrolled => flight,
        };
        self.threshold = reduced.max(2 * mss);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ethernet::MacAddress;

    const MSS: u32 = 1_000;

    pub(super) fn ack(bytes: u32) -> Ack {
        Ack {
            now: Instant::ZERO,
            bytes,
            number: Seq::new(0),
            sent: Seq::new(0),
            rtt: None,
            smoothed_rtt: Duration::from_millis(100),
            window_use: WindowUse::Limiting,
        }
    }

    fn config(congestion: CongestionControl, slow_start: SlowStart) -> Config {
        let config = Config::new(MacAddress([2, 0, 0, 0, 0, 1]), [10, 0, 0, 1].into(), 24, [0; 16]);
        Config { congestion, slow_start, ..config }
    }

    fn congestion(algorithm: CongestionControl) -> Congestion {
        Congestion::new(&config(algorithm, SlowStart::Standard), Seq::new(0), MSS)
    }

    fn new_reno() -> Congestion {
        congestion(CongestionControl::NewReno)
    }

    #[test]
    fn initial_window_follows_rfc_6928() {
        assert_eq!(initial_window(1_460), 14_600);
        assert_eq!(initial_window(536), 5_360);
        assert_eq!(initial_window(9_000), 18_000);
    }

    #[test]
    fn slow_start_doubles_and_avoidance_adds_one_segment_a_window() {
        let mut reno = new_reno();
        for _ in 0..10 {
            reno.on_ack(&ack(MSS), MSS);
        }
        assert_eq!(reno.window(), 20 * MSS);
        reno.on_loss(20 * MSS, WindowUse::Limiting, MSS);
        assert_eq!((reno.window(), reno.in_slow_start()), (10 * MSS, false));
        for _ in 0..10 {
            reno.on_ack(&ack(MSS), MSS);
        }
        assert_eq!(reno.window(), 11 * MSS);
    }

    #[test]
    fn spare_window_does_not_grow() {
        for algorithm in [CongestionControl::NewReno, CongestionControl::Cubic] {
            let mut congestion = congestion(algorithm);
            let spare = Ack { window_use: WindowUse::Spare, ..ack(MSS) };
            congestion.on_ack(&spare, MSS);
            assert_eq!(congestion.window(), 10 * MSS);
            congestion.on_loss(10 * MSS, WindowUse::Limiting, MSS);
            let window = congestion.window();
            for second in 0..100 {
                congestion.on_ack(&Ack { now: Instant::from_millis(1_000 * second), ..spare }, MSS);
            }
            assert_eq!(congestion.window(), window);
        }
    }

    #[test]
    fn cubic_reduces_the_window_if_that_was_the_limit_and_else_what_was_on_its_way() {
        let after = |algorithm, flight, window_use| {
            let windows = [SlowStart::Standard, SlowStart::HyStart].map(|slow_start| {
                let mut congestion = Congestion::new(&config(algorithm, slow_start), Seq::new(0), MSS);
                congestion.on_loss(flight, window_use, MSS);
                congestion.window()
            });
            assert_eq!(windows[0], windows[1]);
            windows[0]
        };
        // Of ten segments' window, six on their way, as when much is lost; of twelve, two are limited transmit's.
        for (flight, limiting, spare) in [(6, 7, 4), (12, 7, 7)] {
            let cubic = |window_use| after(CongestionControl::Cubic, flight * MSS, window_use);
            assert_eq!((cubic(WindowUse::Limiting), cubic(WindowUse::Spare)), (limiting * MSS, spare * MSS));
        }
        // RFC 5681 3.2: what was on its way.
        assert_eq!(after(CongestionControl::NewReno, 6 * MSS, WindowUse::Limiting), 3 * MSS);
        assert_eq!(after(CongestionControl::NewReno, 12 * MSS, WindowUse::Limiting), 5 * MSS);
    }

    #[test]
    fn spare_window_is_watched_only_where_growth_goes_by_time() {
        for algorithm in [CongestionControl::NewReno, CongestionControl::Cubic] {
            let mut congestion = congestion(algorithm);
            assert!(congestion.heeds(WindowUse::Limiting) && !congestion.heeds(WindowUse::Spare));
            congestion.on_loss(10 * MSS, WindowUse::Limiting, MSS);
            assert!(congestion.heeds(WindowUse::Limiting) && congestion.heeds(WindowUse::Spare));
        }
    }

    #[test]
    fn timeout_returns_to_one_segment_and_repeated_timeout_keeps_the_threshold() {
        for (algorithm, threshold) in [(CongestionControl::NewReno, 5), (CongestionControl::Cubic, 7)] {
            let mut congestion = congestion(algorithm);
            congestion.on_timeout(10 * MSS, MSS);
            congestion.on_repeated_timeout(MSS);
            assert_eq!((congestion.window(), congestion.threshold), (MSS, threshold * MSS));
        }
    }

    #[test]
    fn larger_segments_find_room_for_one_now_and_for_two_after_a_loss() {
        for algorithm in [CongestionControl::NewReno, CongestionControl::Cubic] {
            let after = |what: fn(&mut Congestion)| {
                let mut congestion = congestion(algorithm);
                congestion.on_timeout(MSS, MSS);
                congestion.on_segment_size(5 * MSS);
                what(&mut congestion);
                congestion.window() / MSS
            };
            assert_eq!(after(|_| ()), 5);
            assert_eq!(after(|congestion| congestion.on_recovered(0, 20 * MSS)), 10);
            // Those that came before are given back with the threshold that they had, if it is not too little, either.
            let after_two = |congestion: &mut Congestion| {
                congestion.on_timeout(MSS, MSS);
                congestion.on_timeout(MSS, MSS);
                congestion.on_segment_size(50 * MSS);
                congestion.on_spurious();
                congestion.on_recovered(0, 200 * MSS);
            };
            assert_eq!(after(after_two), 100);
        }
    }

    #[test]
    fn slow_start_growth_of_one_large_ack_is_limited() {
        let mut reno = new_reno();
        reno.on_ack(&ack(60 * MSS), MSS);
        assert_eq!(reno.window(), 18 * MSS);
    }

    #[test]
    fn slow_start_ends_at_the_threshold() {
        let mut reno = new_reno();
        reno.on_timeout(10 * MSS, MSS);
        reno.on_ack(&ack(9 * MSS), MSS);
        assert_eq!(reno.window(), 5 * MSS);
    }

    #[test]
    fn uncontrolled_window_is_moved_by_nothing() {
        let mut none = congestion(CongestionControl::Uncontrolled);
        none.on_loss(10 * MSS, WindowUse::Limiting, MSS);
        none.on_recovered(MSS, MSS);
        none.on_timeout(10 * MSS, MSS);
        none.on_repeated_timeout(MSS);
        none.on_idle(MSS);
        none.on_ack(&ack(MSS), MSS);
        none.on_spurious();
        assert_eq!((none.window(), none.in_slow_start()), (MAX_WINDOW_BYTES, false));
    }

    #[test]
    fn idle_restarts_from_the_initial_window() {
        let mut reno = new_reno();
        reno.on_ack(&ack(8 * MSS), MSS);
        reno.on_idle(MSS);
        assert_eq!(reno.window(), 10 * MSS);
    }

    #[test]
    fn spurious_loss_gives_back_what_it_took() {
        for algorithm in [CongestionControl::NewReno, CongestionControl::Cubic] {
            let mut congestion = congestion(algorithm);
            congestion.on_loss(10 * MSS, WindowUse::Limiting, MSS);
            let reduced = (congestion.window, congestion.threshold);
            congestion.on_timeout(7 * MSS, MSS);
            congestion.on_spurious();
            assert_eq!((congestion.window, congestion.threshold), reduced);
            // Only the last reduction can be taken back, and once.
            congestion.on_spurious();
            assert_eq!((congestion.window, congestion.threshold), reduced);
        }
    }

    #[test]
    fn congestion_state_stays_small() {
        assert!(size_of::<Congestion>() <= 40, "{}", size_of::<Congestion>());
    }
}

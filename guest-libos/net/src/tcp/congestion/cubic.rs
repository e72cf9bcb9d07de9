//! CUBIC's congestion avoidance (RFC 9438): the window is a cubic function of the time since the last congestion event,
//! flat around the window at which that happened, and at least what Reno would have. In integers: windows are bytes,
//! times are ticks of 1/1024 s that wrap after 48 days, differences of which are all that counts.

use super::{Ack, MAX_WINDOW_BYTES, WindowUse};
use crate::time::{Duration, Instant};

/// A cubic function's argument beyond this many ticks (512 s) gives the largest window anyway.
const MAX_TICKS: i64 = 1 << 19;

#[derive(Debug, Default)]
pub(super) struct Cubic {
    curve: Curve,
    /// The curve before the last congestion event.
    undo: Curve,
    /// When the last acknowledgment came.
    last_ack: u32,
    /// The part of W_est below one byte, in 1/4096.
    w_est_fraction: u16,
}

/// What RFC 9438 4.9 saves and restores.
#[derive(Clone, Copy, Debug, Default)]
struct Curve {
    /// W_max. Zero where there is none, after a timeout and before the first loss: then the curve begins flat.
    w_max: u32,
    /// cwnd_prior.
    cwnd_prior: u32,
    /// W_est.
    w_est: u32,
    /// K, in ticks.
    k: u32,
    /// When this stage of congestion avoidance began, moved on by the time in which the window was not used.
    epoch: u32,
    /// The stage has begun.
    running: bool,
}

/// RFC 9438 4.6 without its lower bound: beta is 0.7, to the nearest whole segment. Whole segments are what leaves, and of a
/// window of four, 2.8 would be half.
pub(super) fn decrease(flight: u32, mss: u32) -> u32 {
    let exact = flight / 10 * 7 + flight % 10 * 7 / 10;
    exact.saturating_add(mss / 2) / mss * mss
}

impl Cubic {
    /// The window after an acknowledgment.
    pub(super) fn on_ack(&mut self, window: u32, ack: &Ack, mss: u32) -> u32 {
        let now = ticks(ack.now);
        if !self.curve.running {
            self.curve.begin(window, now, mss);
            (self.last_ack, self.w_est_fraction) = (now, 0);
        }
        let since_last = now.wrapping_sub(self.last_ack);
        self.last_ack = now;
        if ack.window_use == WindowUse::Spare {
            // 4.2: t does not include times in which the application or the receiver was the limit.
            self.curve.epoch = self.curve.epoch.wrapping_add(since_last);
            return window;
        }
        // An acknowledgment of more than the window is one of data that was sent with a larger one.
        let bytes = u64::from(ack.bytes.min(window));
        self.grow_reno_estimate(window, bytes, mss);
        let elapsed = now.wrapping_sub(self.curve.epoch);
        if self.curve.at(elapsed, mss) < self.curve.w_est {
            // 4.3: the Reno-friendly region.
            return window.max(self.curve.w_est);
        }
        // 4.4, 4.5: towards where the curve will be one round trip from now, but not faster than slow start with half
        // its speed.
        let target = self.curve.at(elapsed.saturating_add(duration_ticks(ack.smoothed_rtt)), mss);
        let growth = target.clamp(window, window + window / 2) - window;
        window + (u64::from(growth) * bytes / u64::from(window)) as u32
    }

    /// 4.3 (4): W_est grows by alpha segments a window; alpha is 3 (1 - beta) / (1 + beta) = 9/17 until it reaches the
    /// window before the last congestion event, and 1 from there on.
    fn grow_reno_estimate(&mut self, window: u32, bytes: u64, mss: u32) {
        let (numerator, denominator) =
            if self.curve.w_est < self.curve.cwnd_prior { (9, 17) } else { (1, 1) };
        let growth = ((bytes * u64::from(mss)) << 12) * numerator / (u64::from(window) * denominator)
            + u64::from(self.w_est_fraction);
        self.w_est_fraction = (growth & 0xfff) as u16;
        self.curve.w_est = (self.curve.w_est + (growth >> 12) as u32).min(MAX_WINDOW_BYTES);
    }

    /// A loss was found while the window was `window`.
    pub(super) fn on_loss(&mut self, window: u32) {
        let w_max = self.curve.w_max;
        // 4.7, fast convergence: whoever lost below its last maximum makes room for others.
        self.reduced(window, if window < w_max { window / 20 * 17 + window % 20 * 17 / 20 } else { window });
    }

    /// 4.8: what follows is slow start, and then a curve that begins flat.
    pub(super) fn on_timeout(&mut self, window: u32) {
        self.reduced(window, 0);
    }

    fn reduced(&mut self, cwnd_prior: u32, w_max: u32) {
        self.undo = self.curve;
        self.curve = Curve { w_max, cwnd_prior, ..Curve::default() };
    }

    /// 4.9: the last congestion event was none.
    pub(super) fn on_spurious(&mut self) {
        self.curve = self.undo;
    }

    /// The next stage of congestion avoidance is a new one.
    pub(super) fn on_idle(&mut self) {
        self.curve.running = false;
    }
}

impl Curve {
    fn begin(&mut self, window: u32, now: u32, mss: u32) {
        self.w_max = self.w_max.max(window);
        // 4.2 (2), K = cbrt((W_max - cwnd_epoch) / C), with C = 0.4 segments/s^3 and 2^30 cubic ticks a cubic second.
        let rise = u64::from(self.w_max - window);
        self.k = cube_root(((rise * 5) << 29) / u64::from(mss));
        (self.w_est, self.epoch, self.running) = (window, now, true);
    }

    /// 4.2 (1), W_cubic(t) = C (t - K)^3 + W_max.
    fn at(&self, elapsed: u32, mss: u32) -> u32 {
        let ticks = (i64::from(elapsed) - i64::from(self.k)).clamp(-MAX_TICKS, MAX_TICKS);
        // In two shifts, which keeps 57 bits of cube and 17 of 2 * MSS within 63.
        let offset = (((ticks * ticks * ticks) >> 14) * 2 * i64::from(mss) / 5) >> 16;
        (i64::from(self.w_max) + offset).clamp(0, i64::from(MAX_WINDOW_BYTES)) as u32
    }
}

/// The largest whole number whose cube is at most `value`, for values below 2^63.
fn cube_root(value: u64) -> u32 {
    let mut root = 0u64;
    for bit in (0..21).rev() {
        let candidate = root | 1 << bit;
        if candidate * candidate * candidate <= value {
            root = candidate;
        }
    }
    root as u32
}

fn ticks(at: Instant) -> u32 {
    duration_ticks(at.since(Instant::ZERO))
}

/// 1024 / 10^9 = 2 / 1,953,125.
fn duration_ticks(duration: Duration) -> u32 {
    (duration.as_nanos().wrapping_mul(2) / 1_953_125) as u32
}

#[cfg(test)]
mod tests {
    use super::super::tests::ack;
    use super::*;
    use proptest::prelude::*;

    const MSS: u32 = 1_460;

    proptest! {
        #[test]
        fn cube_root_is_the_largest_whole_one(value in 0u64..1 << 62) {
            let root = u128::from(cube_root(value));
            prop_assert!(root.pow(3) <= u128::from(value) && (root + 1).pow(3) > u128::from(value));
        }

        #[test]
        fn decrease_is_seven_tenths_to_the_nearest_segment(flight in 0..=MAX_WINDOW_BYTES, mss in 1u32..=65_535) {
            let decreased = decrease(flight, mss);
            prop_assert_eq!(decreased % mss, 0);
            prop_assert!((10 * i64::from(decreased) - 7 * i64::from(flight)).abs() <= 5 * i64::from(mss) + 10);
        }

        /// Any state, any time: no overflow, and a window within its bounds.
        #[test]
        fn curve_has_no_bad_argument(
            w_max in 0..=MAX_WINDOW_BYTES,
            window in 1..=MAX_WINDOW_BYTES,
            elapsed: u32,
            mss in 1u32..=65_535,
        ) {
            let mut curve = Curve { w_max, ..Curve::default() };
            curve.begin(window, 0, mss);
            prop_assert!(curve.at(elapsed, mss) <= MAX_WINDOW_BYTES);
            let mut cubic = Cubic { curve, ..Cubic::default() };
            let grown = cubic.on_ack(window, &ack(u32::MAX), mss);
            prop_assert!((window..=2 * MAX_WINDOW_BYTES).contains(&grown));
        }
    }

    fn after_loss(window: u32) -> (Cubic, u32) {
        let mut cubic = Cubic::default();
        cubic.on_loss(window);
        let window =
            cubic.on_ack(decrease(window, MSS), &Ack { window_use: WindowUse::Spare, ..ack(MSS) }, MSS);
        (cubic, window)
    }

    #[test]
    fn curve_begins_at_the_window_and_is_flat_at_its_maximum() {
        let (cubic, window) = after_loss(1_000 * MSS);
        let curve = cubic.curve;
        assert!(curve.at(0, MSS).abs_diff(window) <= 1_000, "{} {window}", curve.at(0, MSS));
        assert_eq!(curve.at(curve.k, MSS), 1_000 * MSS);
        // K = cbrt(300 / 0.4) = 9.0856 s.
        assert!(curve.k.abs_diff(9_303) <= 2, "{}", curve.k);
    }

    #[test]
    fn fast_convergence_aims_below_the_last_window() {
        let (mut cubic, _) = after_loss(1_000 * MSS);
        cubic.on_loss(800 * MSS);
        assert_eq!(cubic.curve.w_max, 680 * MSS);
        cubic.on_loss(700 * MSS);
        assert_eq!(cubic.curve.w_max, 700 * MSS);
    }

    #[test]
    fn unused_window_stops_the_curves_clock() {
        let (mut cubic, window) = after_loss(1_000 * MSS);
        let mut at = |seconds: u64, window_use| {
            cubic.on_ack(
                window,
                &Ack { now: Instant::from_millis(1_000 * seconds), window_use, ..ack(MSS) },
                MSS,
            )
        };
        for second in 1..=60 {
            at(second, WindowUse::Spare);
        }
        // Ten milliseconds later the curve has risen by next to nothing, not by what a minute gives.
        assert!(at(60, WindowUse::Limiting) - window < MSS / 10);
    }

    #[test]
    fn spurious_loss_leaves_the_curve_as_it_was() {
        let (mut cubic, _) = after_loss(1_000 * MSS);
        let before = cubic.curve.at(5_000, MSS);
        cubic.on_loss(800 * MSS);
        assert_ne!(cubic.curve.w_max, 1_000 * MSS);
        cubic.on_spurious();
        assert_eq!(cubic.curve.at(5_000, MSS), before);
        assert!(cubic.curve.running);
    }

    #[test]
    fn timeout_is_followed_by_a_curve_that_begins_flat() {
        let mut cubic = Cubic::default();
        cubic.on_timeout(1_000 * MSS);
        cubic.on_ack(700 * MSS, &ack(MSS), MSS);
        assert_eq!((cubic.curve.k, cubic.curve.w_max, cubic.curve.cwnd_prior), (0, 700 * MSS, 1_000 * MSS));
    }

    /// Congestion avoidance at a round trip of `rtt_ms` after a loss at `segments`, an acknowledgment a segment: the window
    /// after each round trip, in segments, beside `model(t)`.
    fn assert_follows(segments: u32, rtt_ms: u64, rounds: u64, model: impl Fn(f64) -> f64) {
        let (mut cubic, mut window) = after_loss(segments * MSS);
        for round in 0..rounds {
            let acks = u64::from(window / MSS);
            for number in 0..acks {
                let now = Instant::from_micros(rtt_ms * 1_000 * round + rtt_ms * 1_000 * number / acks);
                let smoothed_rtt = Duration::from_millis(rtt_ms);
                window = cubic.on_ack(window, &Ack { now, smoothed_rtt, ..ack(MSS) }, MSS);
            }
            let expected = model((round + 1) as f64 * rtt_ms as f64 / 1e3);
            let got = f64::from(window) / f64::from(MSS);
            assert!((got / expected - 1.0).abs() < 0.04, "round {round}: {got} segments, not {expected}");
        }
    }

    #[test]
    fn window_follows_the_cubic_function() {
        // RFC 9438 4.2, with beta = 0.7 and C = 0.4.
        let k = (1_000.0 * 0.3 / 0.4f64).cbrt();
        assert_follows(1_000, 100, 200, |t| 0.4 * (t - k).powi(3) + 1_000.0);
    }

    #[test]
    fn window_follows_reno_where_that_is_faster() {
        // RFC 9438 4.3: from 70 segments by 9/17 a round trip up to 100, by one from there.
        let turn = 30.0 / (9.0 / 17.0) * 0.01;
        assert_follows(100, 10, 200, |t| {
            if t < turn { 70.0 + t / 0.01 * 9.0 / 17.0 } else { 100.0 + (t - turn) / 0.01 }
        });
    }
}

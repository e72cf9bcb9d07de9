//! Timestamps of one connection (RFC 7323 3 to 5): the clock we send, the peer's latest that we echo, and the protection
//! against wrapped sequence numbers (PAWS) that follows from it.

use super::Seq;
use crate::time::{Duration, Instant};
use crate::wire::tcp_options::Timestamps;

/// A tick is 2^20 ns, about a millisecond: RFC 7323 5.4 asks for 1 ms to 1 s.
const TICK_SHIFT: u32 = 20;
/// 2^30 ns, about a second: how finely the age of TS.Recent is known.
const AGE_SHIFT: u32 = 30;
/// RFC 7323 5.5: after 24 days the peer's clock may have wrapped, and TS.Recent says nothing any more.
const OUTDATED_AGE: u32 = ((24 * 24 * 60 * 60 * 1_000_000_000u64) >> AGE_SHIFT) as u32;

/// The state of a connection's timestamps. Inert unless both SYNs had the option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimestampState {
    /// What is added to the clock, so that it tells nobody how long we are up (RFC 7323 5.4, 7.1).
    offset: u32,
    /// TS.Recent.
    recent: u32,
    /// When TS.Recent was confirmed last.
    recent_at: u32,
    /// Whether the option was negotiated.
    pub(crate) enabled: bool,
}

/// Whether TSval `a` is earlier than `b`.
fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

fn age_clock(now: Instant) -> u32 {
    (now.as_nanos() >> AGE_SHIFT) as u32
}

impl TimestampState {
    /// With the peer's SYN's timestamps, if the option is in use.
    pub(crate) fn new(offset: u32, syn: Option<Timestamps>, now: Instant) -> Self {
        Self {
            offset,
            recent: syn.map_or(0, |syn| syn.value),
            recent_at: age_clock(now),
            enabled: syn.is_some(),
        }
    }

    /// The peer's SYN has arrived, with these timestamps if the option is in use.
    pub(crate) fn agree(&mut self, syn: Option<Timestamps>, now: Instant) {
        *self = Self::new(self.offset, syn, now);
    }

    /// Our clock.
    #[inline]
    pub(crate) fn clock(&self, now: Instant) -> u32 {
        ((now.as_nanos() >> TICK_SHIFT) as u32).wrapping_add(self.offset)
    }

    /// The option of a segment that leaves now.
    #[inline]
    pub(crate) fn option(&self, now: Instant) -> Option<Timestamps> {
        self.enabled.then(|| Timestamps { value: self.clock(now), echo: self.recent })
    }

    /// PAWS (RFC 7323 5.3, R1): whether a segment with this TSval is an old duplicate.
    #[inline]
    pub(crate) fn is_old(&self, value: u32, now: Instant) -> bool {
        is_before(value, self.recent) && !self.is_outdated(now)
    }

    fn is_outdated(&self, now: Instant) -> bool {
        age_clock(now).wrapping_sub(self.recent_at) > OUTDATED_AGE
    }

    /// RFC 7323 4.3 (2) and 5.3, R3: an acceptable segment, not old, whose TSval is echoed from now on if it begins at or
    /// before what was acknowledged last; so the echo is that of the earliest segment that waits for its acknowledgment.
    #[inline]
    pub(crate) fn note(&mut self, value: u32, sequence: Seq, last_ack_sent: Seq, now: Instant) {
        if sequence.is_at_or_before(last_ack_sent) {
            self.recent = value;
            self.recent_at = age_clock(now);
        }
    }

    /// The round trip that an echo of ours shows, to a tick; `None` if we cannot have sent it.
    pub(crate) fn round_trip(&self, echo: u32, now: Instant) -> Option<Duration> {
        let ticks = self.clock(now).wrapping_sub(echo);
        (ticks <= i32::MAX as u32).then(|| Duration::from_nanos(u64::from(ticks) << TICK_SHIFT))
    }

    /// Whether an echo is of something that left before our clock showed what it did at `at`.
    pub(crate) fn is_from_before(&self, echo: u32, at: Instant) -> bool {
        is_before(echo, self.clock(at))
    }

    /// RFC 6191 2: whether the SYN of a new connection, with these timestamps, is later than all of this one; `None` if the
    /// sequence numbers must tell.
    pub(crate) fn is_succeeded_by(&self, syn: Option<Timestamps>, now: Instant) -> Option<bool> {
        match (self.enabled, syn) {
            (_, None) => None,
            // What is left of the old connection has no timestamps and is told by that.
            (false, Some(_)) => Some(true),
            (true, Some(syn)) if syn.value == self.recent => None,
            (true, Some(syn)) => Some(!self.is_old(syn.value, now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn state(recent: u32) -> TimestampState {
        TimestampState::new(77, Some(Timestamps { value: recent, echo: 0 }), Instant::ZERO)
    }

    #[test]
    fn older_value_is_old_until_24_days_have_passed_across_the_wrap() {
        let state = state(5);
        assert!(state.is_old(4, Instant::ZERO) && state.is_old(u32::MAX, Instant::ZERO));
        assert!(!state.is_old(5, Instant::ZERO) && !state.is_old(6, Instant::ZERO));
        let mut later = Instant::ZERO;
        for _ in 0..23 {
            later += DAY;
        }
        assert!(state.is_old(4, later));
        assert!(!state.is_old(4, later + DAY + DAY));
    }

    #[test]
    fn value_of_a_segment_beyond_the_last_acknowledgment_is_not_echoed() {
        let mut state = state(5);
        state.note(6, Seq::new(101), Seq::new(100), Instant::ZERO);
        assert_eq!(state.option(Instant::ZERO), Some(Timestamps { value: 77, echo: 5 }));
        state.note(6, Seq::new(100), Seq::new(100), Instant::ZERO);
        assert_eq!(state.option(Instant::ZERO), Some(Timestamps { value: 77, echo: 6 }));
    }

    #[test]
    fn round_trip_of_an_echo_from_the_future_is_none() {
        let now = Instant::from_millis(1_000);
        let clock = state(0).clock(now);
        assert_eq!(state(0).round_trip(clock, now), Some(Duration::ZERO));
        assert_eq!(state(0).round_trip(clock - 100, now), Some(Duration::from_nanos(100 << 20)));
        assert_eq!(state(0).round_trip(clock + 1, now), None);
    }

    #[test]
    fn successor_is_told_by_timestamps_as_rfc_6191_says() {
        let syn = |value| Some(Timestamps { value, echo: 0 });
        let with = state(5);
        let answers = [syn(6), syn(4), syn(5), None].map(|syn| with.is_succeeded_by(syn, Instant::ZERO));
        assert_eq!(answers, [Some(true), Some(false), None, None]);
        let without = TimestampState::new(0, None, Instant::ZERO);
        assert_eq!(without.is_succeeded_by(syn(0), Instant::ZERO), Some(true));
        assert_eq!(without.is_succeeded_by(None, Instant::ZERO), None);
    }
}

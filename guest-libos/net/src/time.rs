//! Time as the stack sees it: nanoseconds on a clock that the caller owns and that never goes back. Nothing here reads
//! a clock; tests pass any numbers they like.

use core::ops::{Add, AddAssign};

/// A point in time: nanoseconds since an origin the caller chose (boot, usually).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

/// A span of time in nanoseconds. Eight bytes and one addition, which is why it is not `core::time::Duration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(u64);

impl Instant {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);
    /// Later than every time the clock will show; a timer set to it is off.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// The instant `millis` milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }
}

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// `nanos` nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// `micros` microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// `millis` milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// `secs` seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// The length in nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The length in whole microseconds.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }
}

/// A length of time up to 18 minutes in 4 bytes, to 256 ns: for what every connection remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(u32);

impl Span {
    pub(crate) const ZERO: Self = Self(0);
    pub(crate) const MAX: Self = Self(u32::MAX);
    const SHIFT: u32 = 8;

    /// Not longer than `duration`.
    #[inline]
    pub(crate) const fn floor(duration: Duration) -> Self {
        let units = duration.0 >> Self::SHIFT;
        Self(if units > u32::MAX as u64 { u32::MAX } else { units as u32 })
    }

    #[inline]
    pub(crate) const fn nearest(duration: Duration) -> Self {
        Self::floor(Duration(duration.0.saturating_add(1 << (Self::SHIFT - 1))))
    }

    /// Not shorter than `duration`, if that is within bounds.
    #[inline]
    pub(crate) const fn ceil(duration: Duration) -> Self {
        Self::floor(Duration(duration.0.saturating_add((1 << Self::SHIFT) - 1)))
    }

    #[inline]
    pub(crate) const fn duration(self) -> Duration {
        Duration((self.0 as u64) << Self::SHIFT)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl From<core::time::Duration> for Duration {
    fn from(value: core::time::Duration) -> Self {
        Self(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Duration> for core::time::Duration {
    fn from(value: Duration) -> Self {
        Self::from_nanos(value.0)
    }
}

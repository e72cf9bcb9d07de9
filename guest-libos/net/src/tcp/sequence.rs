//! Sequence numbers (RFC 9293 3.4): 32 bits that wrap. They have no total order; comparisons hold for numbers less than
//! 2^31 apart, which windows guarantee.

use core::ops::{Add, AddAssign, Sub};

/// A TCP sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq(u32);

impl Seq {
    /// The sequence number with this value on the wire.
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The value on the wire.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// How far `self` lies after `earlier`, modulo 2^32.
    #[inline]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// `self < other`.
    #[inline]
    pub const fn is_before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// `self <= other`.
    #[inline]
    pub const fn is_at_or_before(self, other: Self) -> bool {
        !other.is_before(self)
    }

    /// `self > other`.
    #[inline]
    pub const fn is_after(self, other: Self) -> bool {
        other.is_before(self)
    }

    /// The later of two.
    #[inline]
    #[must_use]
    pub const fn max(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }

    /// The earlier of two.
    #[inline]
    #[must_use]
    pub const fn min(self, other: Self) -> Self {
        if other.is_before(self) { other } else { self }
    }

    /// Whether `self` is one of the `len` numbers from `start` on.
    #[inline]
    pub const fn is_within(self, start: Self, len: u32) -> bool {
        self.since(start) < len
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    #[inline]
    fn add(self, rhs: u32) -> Self {
        Self(self.0.wrapping_add(rhs))
    }
}

impl Sub<u32> for Seq {
    type Output = Self;

    #[inline]
    fn sub(self, rhs: u32) -> Self {
        Self(self.0.wrapping_sub(rhs))
    }
}

impl AddAssign<u32> for Seq {
    #[inline]
    fn add_assign(&mut self, rhs: u32) {
        *self = *self + rhs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_holds_across_the_wrap(start: u32, distance in 1u32..0x8000_0000) {
            let (a, b) = (Seq::new(start), Seq::new(start) + distance);
            prop_assert!(a.is_before(b) || distance == 0x8000_0000);
            prop_assert!(!b.is_before(a));
            prop_assert!(b.is_after(a) && a.is_at_or_before(b) && a.is_at_or_before(a) && !b.is_at_or_before(a));
            prop_assert_eq!((b.since(a), a.max(b), a.min(b), b - distance), (distance, b, a, a));
        }

        #[test]
        fn is_within_equals_reference(start: u32, len in 0u32..0x7fff_ffff, offset in 0u64..0x8000_0000) {
            let at = Seq::new(start) + offset as u32;
            prop_assert_eq!(at.is_within(Seq::new(start), len), offset < u64::from(len));
        }
    }
}

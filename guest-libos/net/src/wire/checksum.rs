//! The Internet checksum (RFC 1071): 16-bit words added in ones' complement. Sums are kept as 64-bit numbers of
//! big-endian words and folded once at the end, so pieces can be added in any order.

/// A sum in progress. 64 KiB of data and all headers together stay far from overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds one 16-bit word.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds the two words of a 32-bit field.
    #[inline]
    #[must_use]
    pub const fn double(self, double: u32) -> Self {
        // 2^16 is 1 modulo 2^16 - 1, so the halves need not be separated.
        Self(self.0 + double as u64)
    }

    /// Adds another sum.
    #[inline]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Adds bytes that begin at an even offset; an odd last byte is padded with zero.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.word(sum_bytes(bytes))
    }

    /// The folded 16-bit sum.
    #[inline]
    pub const fn fold(self) -> u16 {
        // Both halves are added twice, and the carry of the lower sum goes into the upper one: it comes around.
        let sum = (self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32;
        (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
    }

    /// The value of a checksum field that makes the whole sum up to zero.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether a packet that includes its checksum field is intact.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }
}

/// The folded sum of `bytes` as big-endian words, an odd last byte padded with zero. This is also what
/// [`crate::Data::stored_sum`] stores.
#[inline]
pub fn sum_bytes(bytes: &[u8]) -> u16 {
    // Ones' complement addition does not care about byte order (RFC 1071 2 (B)): add in the machine's order, 32 bits at
    // a time so that carries collect in the upper half and the compiler can use vectors, and swap once at the end.
    let (quads, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = quads.iter().map(|quad| u64::from(u32::from_ne_bytes(*quad))).sum();
    let (words, last) = rest.as_chunks::<2>();
    for word in words {
        sum += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = last {
        sum += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    Sum(sum).fold().to_be()
}

/// The sum of bytes at an odd offset, given their sum at an even one (RFC 1071 2 (B)).
#[inline]
pub const fn at_odd_offset(sum: u16) -> u16 {
    sum.swap_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 1, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn sum_of_rfc_1071_example() {
        assert_eq!(sum_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    proptest! {
        #[test]
        fn sum_bytes_equals_reference(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(sum_bytes(&bytes), reference(&bytes));
        }

        #[test]
        fn sum_of_pieces_equals_sum_of_whole(
            bytes in proptest::collection::vec(any::<u8>(), 1..500), cut in any::<prop::sample::Index>()
        ) {
            let cut = cut.index(bytes.len());
            let (left, right) = bytes.split_at(cut);
            let right_sum = if cut % 2 == 0 { sum_bytes(right) } else { at_odd_offset(sum_bytes(right)) };
            let sum = Sum::ZERO.bytes(left).word(right_sum).fold();
            // 0 and 0xffff are both zero in ones' complement.
            prop_assert_eq!(sum % 0xffff, reference(&bytes) % 0xffff);
        }
    }

    #[test]
    fn sum_of_largest_segment_does_not_overflow() {
        let bytes = [0xff; 65_536];
        assert_eq!(sum_bytes(&bytes), 0xffff);
        assert!(Sum::ZERO.bytes(&bytes).double(u32::MAX).double(u32::MAX).word(u16::MAX).is_valid());
    }
}

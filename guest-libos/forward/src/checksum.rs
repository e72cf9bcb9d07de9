//! The Internet checksum (RFC 1071), and how it changes with some of the words that it covers (RFC 1624).

use crate::wire::u16_at;

/// What a checksum changes by when words that it covers change. Nothing is said of whether it was right: one that was wrong stays
/// as wrong as it was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Difference(u32);

impl Difference {
    /// A word that is another now. At most some 30,000 of them go into one difference.
    #[inline(always)]
    pub(crate) fn word(mut self, old: u16, new: u16) -> Self {
        self.0 += u32::from(!old) + u32::from(new);
        self
    }

    /// The checksum that was `old`: RFC 1624 equation 3, HC' = ~(~HC + ~m + m').
    #[inline(always)]
    pub(crate) fn of_checksum(self, old: u16) -> u16 {
        !fold(u32::from(!old) + self.0)
    }

    /// A sum that was `old` and is not complemented yet, as in a frame whose checksum a device completes.
    #[inline(always)]
    pub(crate) fn of_sum(self, old: u16) -> u16 {
        fold(u32::from(old) + self.0)
    }
}

/// Adds the carries of a sum of words until none are left.
#[inline(always)]
fn fold(mut sum: u32) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

/// The sum of `initial` and of bytes that lie in `first` and then in `second`, as words in network order; 0xFFFF if they contain a
/// right checksum.
pub(crate) fn sum(initial: u32, first: &[u8], second: &[u8]) -> u16 {
    let (mut sum, mut high) = (u64::from(initial), true);
    for byte in first.iter().chain(second) {
        sum += u64::from(*byte) << if high { 8 } else { 0 };
        high = !high;
    }
    // A packet's 65,535 bytes are below 2^31 together.
    fold(sum as u32)
}

/// The sum of the words of an IP header.
#[inline(always)]
pub(crate) fn sum_of_header<const BYTES: usize>(header: &[u8; BYTES]) -> u16 {
    let (mut sum, mut at) = (0, 0);
    while at + 1 < BYTES {
        sum += u32::from(u16_at(header, at));
        at += 2;
    }
    fold(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_of_rfc_1624_gives_zero_and_not_minus_zero() {
        // Section 4: a field that changes from 0x5555 to 0x3285 under a checksum of 0xDD2F.
        assert_eq!(Difference::default().word(0x5555, 0x3285).of_checksum(0xDD2F), 0);
    }

    #[test]
    fn sum_of_rfc_1071_example() {
        let bytes = [0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7];
        assert_eq!(sum(0, &bytes, &[]), 0xDDF2);
        assert_eq!(sum(0, &bytes[..3], &bytes[3..]), 0xDDF2, "in two parts, cut within a word");
    }
}

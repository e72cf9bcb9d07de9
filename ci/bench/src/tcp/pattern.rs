//! Bytes that say where they belong: what is sent, and what the receiver compares with.

use std::sync::OnceLock;

/// After so many bytes they repeat: a prime, so that no page, segment or buffer is a multiple of it.
const PERIOD_BYTES: usize = 65_521;
/// Bytes that can be had in one piece, from any position on.
const PIECE_BYTES: usize = 1 << 16;

/// The stream of bytes.
#[derive(Debug)]
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    /// It is made once.
    pub(crate) fn get() -> &'static Self {
        static PATTERN: OnceLock<Pattern> = OnceLock::new();
        PATTERN.get_or_init(|| {
            let byte = |at: usize| {
                let word = (at % PERIOD_BYTES) as u64 + 1;
                (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
            };
            Pattern((0..PERIOD_BYTES + PIECE_BYTES).map(byte).collect())
        })
    }

    /// Bytes from position `at` on: `len` of them, or as many as can be had in one piece.
    pub(crate) fn piece(&self, at: u64, len: u64) -> &[u8] {
        let from = (at % PERIOD_BYTES as u64) as usize;
        let len = len.min(PIECE_BYTES as u64) as usize;
        &self.0[from..from + len]
    }

    /// The position of the first of these bytes that does not belong at `at` and after it.
    pub(crate) fn difference(&self, mut at: u64, mut bytes: &[u8]) -> Option<u64> {
        while !bytes.is_empty() {
            let expected = self.piece(at, bytes.len() as u64);
            let (now, rest) = bytes.split_at(expected.len());
            if now != expected {
                let first = now.iter().zip(expected).take_while(|(got, wanted)| got == wanted).count();
                return Some(at + first as u64);
            }
            at += now.len() as u64;
            bytes = rest;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_finds_the_first_wrong_byte_across_pieces() {
        let pattern = Pattern::get();
        let mut bytes: Vec<u8> =
            (0..4).flat_map(|i| pattern.piece(100 + i * 50_000, 50_000).to_vec()).collect();
        assert_eq!(pattern.difference(100, &bytes), None);
        bytes[170_001] ^= 1;
        assert_eq!(pattern.difference(100, &bytes), Some(170_101));
    }

    #[test]
    fn what_is_lost_repeated_or_moved_is_a_difference() {
        let pattern = Pattern::get();
        let bytes = pattern.piece(0, 1 << 16);
        for moved in [1, 16, 536, 1448, 1460, 4096, 32_768] {
            assert!(pattern.difference(moved, &bytes[..100]).is_some(), "{moved}");
        }
    }
}

//! What a probe has counted, read out of a guest's memory. A guest may have written anything there.

use super::histogram::{BUCKETS, Bucket, buckets};
use super::layout::slot;
use serde::{Deserialize, Serialize};

/// One call that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The how-manyth it was, from 1 on.
    pub number: u64,
    /// When, on the TSC.
    pub tsc: u64,
    /// `rdi`, `rsi`, `rdx`, `rcx`, `r8` and `r9`.
    pub registers: [u64; 6],
}

/// What a probe has counted in one environment, or in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Which environment; `None`: the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<u32>,
    /// Calls.
    pub calls: u64,
    /// Those that have returned and were measured.
    pub returned: u64,
    /// Those whose return was not measured, since too many were under way.
    pub missed: u64,
    /// Cycles from entry to return, of all that were measured.
    pub cycles: u64,
    /// How long they took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub histogram: Vec<Bucket>,
    /// The last calls, the oldest first, where they are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<Call>,
}

fn word(bytes: &[u8], offset: u64) -> u64 {
    let at = offset as usize;
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}

impl Numbers {
    /// From a slot's bytes. Calls that are being written just now are left out.
    pub(crate) fn read(environment: Option<u32>, bytes: &[u8]) -> Self {
        let counts: [u64; BUCKETS] =
            std::array::from_fn(|bucket| word(bytes, slot::HISTOGRAM + 8 * bucket as u64));
        let mut last: Vec<Call> =
            (0..slot::RING_CALLS).filter_map(|place| Call::read(bytes, place)).collect();
        last.sort_unstable_by_key(|call| call.number);
        Self {
            environment,
            calls: word(bytes, slot::COUNT),
            returned: word(bytes, slot::RETURNS),
            missed: word(bytes, slot::MISSED),
            cycles: word(bytes, slot::CYCLES),
            histogram: buckets(&counts),
            last,
        }
    }
}

impl Call {
    fn read(bytes: &[u8], place: u64) -> Option<Self> {
        let at = slot::RING + place * slot::CALL_BYTES;
        let number = word(bytes, at);
        // The number says its place, so that of two halves of different calls at most one is believed.
        let is_whole = number > 0 && (number - 1) % slot::RING_CALLS == place;
        let registers = std::array::from_fn(|index| word(bytes, at + 8 + 8 * index as u64));
        is_whole.then(|| Self { number, tsc: word(bytes, at + 56), registers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn whatever_a_guest_writes_is_read_as_numbers(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..=slot::BYTES as usize)
        ) {
            let numbers = Numbers::read(Some(1), &bytes);
            assert!(numbers.last.len() <= slot::RING_CALLS as usize && numbers.histogram.len() <= BUCKETS);
            let _ = super::super::percentile(&numbers.histogram, 0.99);
        }
    }
}

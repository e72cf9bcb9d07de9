//! The receive buffer: bytes in order that the application has not consumed, and behind them bytes that arrived before
//! their turn. Both lie in one allocation at their final distance, so that filling a hole moves nothing. Empty on the
//! hot path: data in order is lent from the frame.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Seq;
use crate::wire::tcp_options::MAX_SACK_BLOCKS;

/// More separate runs out of order than a window of honest segments with losses makes.
const MAX_RUNS: usize = 64;
/// An empty buffer of this much is kept for the next request that arrives in parts.
const KEPT_BYTES: usize = 2_048;
/// So many of them are.
const MAX_SPARES: usize = 64;

/// Bytes `start..end` of the buffer hold data out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: usize,
    end: usize,
}

/// There are too many separate runs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyRuns;

/// Bytes that have arrived and are not consumed.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    /// `head..tail` is in order and not consumed; RCV.NXT is at `tail`.
    head: usize,
    tail: usize,
    /// Sorted, disjoint, not adjacent, all beyond `tail`.
    runs: Vec<Run>,
    /// Sequence numbers inside the runs that grew last, the latest first.
    recent: [Seq; MAX_SACK_BLOCKS],
}

/// Memory for bytes, only while there are some: an idle connection has none.
#[derive(Debug, Default)]
pub(crate) struct ReceiveBuffer(Option<Box<Held>>);

/// Memory that no connection needs now.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "boxes come and go as they are")]
pub(crate) struct SpareBuffers(Vec<Box<Held>>);

impl SpareBuffers {
    /// Gives memory to a buffer that has none, at most `max` bytes. Returns how much.
    pub(crate) fn give(&mut self, buffer: &mut ReceiveBuffer, max: usize) -> usize {
        if buffer.0.is_some() {
            return 0;
        }
        buffer.0 = self.0.pop_if(|spare| spare.bytes.capacity() <= max);
        buffer.capacity()
    }

    /// Takes the memory of a buffer that is empty. Returns how much.
    pub(crate) fn collect(&mut self, buffer: &mut ReceiveBuffer) -> usize {
        if !buffer.is_empty() {
            return 0;
        }
        let Some(held) = buffer.0.take() else { return 0 };
        let capacity = held.bytes.capacity();
        if self.0.len() < MAX_SPARES && capacity <= KEPT_BYTES {
            self.0.push(held);
        }
        capacity
    }
}

impl ReceiveBuffer {
    /// Whether nothing is here, in order or out of it.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|held| held.is_empty())
    }

    /// Bytes in order that were not consumed.
    #[inline]
    pub(crate) fn ready(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |held| held.ready())
    }

    /// Whether a hole is open.
    #[inline]
    pub(crate) fn has_holes(&self) -> bool {
        self.0.as_ref().is_some_and(|held| !held.runs.is_empty())
    }

    /// The run that has the byte `offset` bytes after RCV.NXT, as offsets of its first byte and the one after its last.
    pub(crate) fn run_at(&self, offset: usize) -> Option<(usize, usize)> {
        self.0.as_ref()?.run_at(offset)
    }

    /// Which of the `len` bytes from `offset` on are here already, out of order: the first stretch of them.
    pub(crate) fn overlap(&self, offset: usize, len: usize) -> Option<(usize, usize)> {
        self.0.as_ref()?.overlap(offset, len)
    }

    /// The runs as [`Self::run_at`] gives them, from the last to the first.
    pub(crate) fn runs_backwards(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.0.iter().flat_map(|held| held.runs_backwards())
    }

    /// The segment that begins at `sequence` was stored out of order.
    pub(crate) fn note_recent(&mut self, sequence: Seq) {
        if let Some(held) = &mut self.0 {
            held.recent.rotate_right(1);
            held.recent[0] = sequence;
        }
    }

    /// Sequence numbers inside the runs that grew last, the latest first.
    pub(crate) fn recent(&self) -> impl Iterator<Item = Seq> + '_ {
        self.0.iter().flat_map(|held| held.recent)
    }

    /// Memory held.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |held| held.bytes.capacity())
    }

    /// How far behind RCV.NXT anything is kept.
    #[cfg(feature = "check")]
    pub(crate) fn beyond(&self) -> usize {
        self.0.as_ref().map_or(0, |held| held.extent() - held.tail)
    }

    /// # Panics
    /// If the runs are not sorted, disjoint and few.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self) {
        let Some(held) = &self.0 else { return };
        assert!(held.head <= held.tail && held.runs.len() <= MAX_RUNS);
        let mut end = held.tail;
        for run in &held.runs {
            assert!(end < run.start && run.start < run.end, "{:?}", held.runs);
            end = run.end;
        }
        assert!(end <= held.bytes.len());
    }

    /// How much memory an insertion would add at most.
    pub(crate) fn growth(&self, offset: usize, len: usize) -> usize {
        let in_use = self.0.as_ref().map_or(0, |held| held.tail - held.head);
        let needed = in_use + offset + len;
        if needed <= self.capacity() { 0 } else { needed.max(2 * self.capacity()) }
    }

    /// Stores `data` whose first byte is `offset` bytes after RCV.NXT. Returns by how much RCV.NXT moves on. The caller
    /// has cut the data to the window, which bounds the buffer.
    pub(crate) fn insert(&mut self, offset: usize, data: &[u8]) -> Result<usize, TooManyRuns> {
        if data.is_empty() {
            return Ok(0);
        }
        self.0.get_or_insert_default().insert(offset, data)
    }

    /// Nothing comes behind what is in order: drops what arrived before its turn.
    pub(crate) fn end(&mut self) {
        let Some(held) = &mut self.0 else { return };
        held.runs.clear();
        self.consume(0);
    }

    /// Drops the first `len` bytes in order.
    pub(crate) fn consume(&mut self, len: usize) {
        let Some(held) = &mut self.0 else { return };
        held.consume(len);
        if held.is_empty() && held.bytes.capacity() > KEPT_BYTES {
            self.0 = None;
        }
    }
}

impl Held {
    #[inline]
    fn is_empty(&self) -> bool {
        self.head == self.tail && self.runs.is_empty()
    }

    #[inline]
    fn ready(&self) -> &[u8] {
        &self.bytes[self.head..self.tail]
    }

    fn run_at(&self, offset: usize) -> Option<(usize, usize)> {
        let at = self.tail.checked_add(offset)?;
        let run = self.runs.get(self.runs.partition_point(|run| run.end <= at))?;
        (run.start <= at).then_some((run.start - self.tail, run.end - self.tail))
    }

    fn overlap(&self, offset: usize, len: usize) -> Option<(usize, usize)> {
        let (start, end) = (self.tail + offset, self.tail + offset + len);
        let run = self.runs.get(self.runs.partition_point(|run| run.end <= start))?;
        let (first, last) = (run.start.max(start), run.end.min(end));
        (first < last).then_some((first - self.tail, last - self.tail))
    }

    fn runs_backwards(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.runs.iter().rev().map(|run| (run.start - self.tail, run.end - self.tail))
    }

    /// Bytes from RCV.NXT to the end of the last run: what is in use behind it.
    fn extent(&self) -> usize {
        self.runs.last().map_or(self.tail, |run| run.end)
    }

    fn insert(&mut self, offset: usize, data: &[u8]) -> Result<usize, TooManyRuns> {
        let start = self.tail + offset;
        let first = self.runs.partition_point(|run| run.end < start);
        let after = self.runs.partition_point(|run| run.start <= start + data.len());
        if offset > 0 && first == after && self.runs.len() == MAX_RUNS {
            return Err(TooManyRuns);
        }
        let moved = self.make_room(start + data.len());
        let (start, end) = (start - moved, start - moved + data.len());
        self.bytes[start..end].copy_from_slice(data);

        let touched = &self.runs[first..after];
        let merged = Run {
            start: touched.first().map_or(start, |run| run.start.min(start)),
            end: touched.last().map_or(end, |run| run.end.max(end)),
        };
        if offset == 0 {
            self.runs.drain(first..after);
            let advanced = merged.end - self.tail;
            self.tail = merged.end;
            return Ok(advanced);
        }
        self.runs.splice(first..after, [merged]);
        Ok(0)
    }

    /// Makes indices up to `end` usable and returns by how much everything moved towards the front.
    fn make_room(&mut self, end: usize) -> usize {
        if end <= self.bytes.len() {
            return 0;
        }
        let mut moved = 0;
        if end > self.bytes.capacity() && self.head > 0 {
            moved = self.head;
            let extent = self.extent();
            self.bytes.copy_within(moved..extent, 0);
            self.head = 0;
            self.tail -= moved;
            for run in &mut self.runs {
                run.start -= moved;
                run.end -= moved;
            }
        }
        if end - moved > self.bytes.len() {
            self.bytes.resize(end - moved, 0);
        }
        moved
    }

    fn consume(&mut self, len: usize) {
        self.head = (self.head + len).min(self.tail);
        if self.is_empty() {
            (self.head, self.tail) = (0, 0);
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hole_filled_returns_everything_behind_it() {
        let mut buffer = ReceiveBuffer::default();
        assert_eq!(buffer.insert(3, b"def"), Ok(0));
        assert!(buffer.has_holes() && buffer.ready().is_empty());
        assert_eq!(buffer.insert(0, b"abc"), Ok(6));
        assert_eq!(buffer.ready(), b"abcdef");
        buffer.consume(6);
        assert!(buffer.is_empty());
    }

    #[test]
    fn run_beyond_limit_returns_too_many_runs_and_changes_nothing() {
        let mut buffer = ReceiveBuffer::default();
        for run in 0..MAX_RUNS {
            assert_eq!(buffer.insert(1 + 2 * run, b"x"), Ok(0));
        }
        assert_eq!(buffer.insert(1 + 2 * MAX_RUNS, b"x"), Err(TooManyRuns));
        assert_eq!(buffer.insert(2, b"y"), Ok(0));
        assert_eq!(buffer.insert(1 + 2 * MAX_RUNS, b"x"), Ok(0));
    }

    #[test]
    fn large_buffer_is_freed_when_consumed() {
        let mut buffer = ReceiveBuffer::default();
        buffer.insert(0, &[0; 60_000]).unwrap();
        buffer.consume(60_000);
        assert_eq!(buffer.capacity(), 0);
    }

    proptest! {
        /// Segments of a string in any order, with overlaps, consumed at any pace, against the string itself.
        #[test]
        fn reassembly_equals_reference(
            segments in proptest::collection::vec((0usize..600, 1usize..80, 0usize..60), 0..120)
        ) {
            const WINDOW: usize = 300;
            let source: Vec<u8> = (0..700u32).map(|i| (i * 7 + i / 256) as u8).collect();
            let mut buffer = ReceiveBuffer::default();
            let mut have = [false; 700];
            let (mut consumed, mut next) = (0, 0);
            for (start, len, eat) in segments {
                let (start, end) = (start.max(next), (start + len).min(consumed + WINDOW));
                if start < end {
                    let advanced = buffer.insert(start - next, &source[start..end]).unwrap();
                    have[start..end].fill(true);
                    let expected = have.iter().position(|&byte| !byte).unwrap_or(700);
                    prop_assert_eq!(next + advanced, expected);
                    next = expected;
                }
                prop_assert_eq!(buffer.ready(), &source[consumed..next]);
                buffer.consume(eat);
                consumed = (consumed + eat).min(next);
                prop_assert_eq!(buffer.has_holes(), have[next..].contains(&true));
                for (run_start, run_end) in buffer.runs_backwards() {
                    prop_assert!(have[next + run_start..next + run_end].iter().all(|&byte| byte));
                    prop_assert!(!have[next + run_start - 1] && !have[next + run_end]);
                }
                for (offset, &here) in have[next..].iter().enumerate() {
                    prop_assert_eq!(buffer.run_at(offset).is_some(), here);
                    prop_assert_eq!(buffer.overlap(offset, 1).is_some(), here);
                }
                prop_assert!(buffer.0.as_ref().is_none_or(|held| held.bytes.len() <= 2 * WINDOW));
            }
        }
    }
}

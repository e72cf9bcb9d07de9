//! Bytes that have arrived and wait for their reader: in chunks that grow with what waits, of which the large ones are used again by
//! whichever stream needs one next. Memory that was just read is in the cache still.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// A large chunk.
const CHUNK_BYTES: usize = 32 << 10;
/// Large chunks that are kept for later.
const KEPT_CHUNKS: usize = 32;

/// Large chunks that nobody uses now.
#[derive(Debug, Default)]
pub(crate) struct Chunks(Vec<Vec<u8>>);

impl Chunks {
    /// An empty chunk that has room for so many bytes, or a large one.
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        if bytes < CHUNK_BYTES {
            return Vec::with_capacity(bytes);
        }
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES))
    }

    fn give_back(&mut self, mut chunk: Vec<u8>) {
        if chunk.capacity() == CHUNK_BYTES && self.0.len() < KEPT_CHUNKS {
            chunk.clear();
            self.0.push(chunk);
        }
    }
}

/// What waits for one reader.
#[derive(Debug, Default)]
pub(crate) struct ReceiveQueue {
    /// None of them is empty but for what was read of the first.
    chunks: VecDeque<Vec<u8>>,
    /// What was read of the first.
    read: usize,
    len: usize,
}

impl ReceiveQueue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8], pool: &mut Chunks) {
        while !bytes.is_empty() {
            let room = self.chunks.back().map_or(0, |chunk| chunk.capacity() - chunk.len());
            if room == 0 {
                self.chunks.push_back(pool.take(bytes.len().max(self.len)));
                continue;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            if let Some(chunk) = self.chunks.back_mut() {
                chunk.extend_from_slice(now);
            }
            self.len += now.len();
            bytes = rest;
        }
    }

    /// The first bytes, as many as lie together.
    pub(crate) fn front(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| &chunk[self.read..])
    }

    /// The first `bytes` of [`Self::front`] were read.
    pub(crate) fn consume(&mut self, bytes: usize, pool: &mut Chunks) {
        let bytes = bytes.min(self.front().len());
        self.read += bytes;
        self.len -= bytes;
        if self.front().is_empty()
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.read = 0;
            pool.give_back(chunk);
        }
    }

    /// Copies the first bytes out, as many as there are and fit.
    pub(crate) fn read(&mut self, out: &mut [u8], pool: &mut Chunks) -> usize {
        let mut done = 0;
        while done < out.len() && !self.is_empty() {
            let front = self.front();
            let len = front.len().min(out.len() - done);
            out[done..done + len].copy_from_slice(&front[..len]);
            self.consume(len, pool);
            done += len;
        }
        done
    }

    /// Copies the first bytes, as many as there are and fit; they stay.
    pub(crate) fn peek(&self, out: &mut [u8]) -> usize {
        let (mut done, mut from) = (0, self.read);
        for chunk in &self.chunks {
            let bytes = &chunk[from..];
            let len = bytes.len().min(out.len() - done);
            out[done..done + len].copy_from_slice(&bytes[..len]);
            (done, from) = (done + len, 0);
        }
        done
    }

    /// Forgets the first bytes, as many as there are.
    pub(crate) fn skip(&mut self, bytes: usize, pool: &mut Chunks) {
        let mut left = bytes.min(self.len);
        while left > 0 {
            let len = left.min(self.front().len());
            self.consume(len, pool);
            left -= len;
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn bytes(from: usize, len: usize) -> Vec<u8> {
        (from..from + len).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn what_is_read_is_what_was_pushed_however_it_is_cut() {
        let (mut queue, mut pool) = (ReceiveQueue::default(), Chunks::default());
        let (mut pushed, mut got) = (0, Vec::new());
        for round in 0..200usize {
            let len = 1 + round * 7_919 % 70_000;
            queue.push(&bytes(pushed, len), &mut pool);
            pushed += len;
            let mut out = vec![0; 1 + round * 104_729 % 71_000];
            let mut peeked = out.clone();
            let shown = queue.peek(&mut peeked);
            let read = if round % 3 > 0 {
                queue.read(&mut out, &mut pool)
            } else {
                out.copy_from_slice(&peeked);
                queue.skip(out.len(), &mut pool);
                shown
            };
            assert!((shown, &peeked) == (read, &out));
            assert_eq!(read, out.len().min(queue.len() + read));
            got.extend_from_slice(&out[..read]);
            assert_eq!(queue.len(), pushed - got.len());
        }
        let mut rest = vec![0; queue.len()];
        assert_eq!(queue.read(&mut rest, &mut pool), rest.len());
        got.extend(rest);
        assert!(queue.is_empty() && queue.front().is_empty() && got == bytes(0, pushed));
    }

    #[test]
    fn little_that_waits_takes_little_and_much_takes_large_chunks_that_are_used_again() {
        let (mut queue, mut pool) = (ReceiveQueue::default(), Chunks::default());
        queue.push(&bytes(0, 100), &mut pool);
        assert_eq!(queue.chunks[0].capacity(), 100);
        queue.push(&bytes(100, 2 * CHUNK_BYTES), &mut pool);
        assert_eq!(queue.chunks.len(), 3);
        queue.read(&mut vec![0; 100 + 2 * CHUNK_BYTES], &mut pool);
        assert_eq!((pool.0.len(), queue.chunks.len()), (2, 0), "the small one is not kept");
        let address = pool.0[1].as_ptr();
        queue.push(&bytes(0, CHUNK_BYTES), &mut pool);
        assert_eq!(queue.front().as_ptr(), address, "the one that was used last");
    }

    #[test]
    fn chunks_that_are_kept_are_bounded() {
        let (mut queue, mut pool) = (ReceiveQueue::default(), Chunks::default());
        let much = bytes(0, (KEPT_CHUNKS + 5) * CHUNK_BYTES);
        queue.push(&much, &mut pool);
        queue.read(&mut vec![0; much.len()], &mut pool);
        assert_eq!(pool.0.len(), KEPT_CHUNKS);
    }

    #[test]
    fn small_segments_share_chunks() {
        let (mut queue, mut pool) = (ReceiveQueue::default(), Chunks::default());
        for _ in 0..1_000 {
            queue.push(&[7; 10], &mut pool);
        }
        assert!(queue.chunks.len() < 20, "{}", queue.chunks.len());
    }
}

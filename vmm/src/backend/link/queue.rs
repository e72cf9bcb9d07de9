//! Frames that wait in the link's own memory, for readers that lend no buffers. Bounded, made once, in one piece of memory.

use crate::backend::IoVec;
use crate::backend::iovec::gather;
use std::collections::VecDeque;

/// Bytes of frames that wait for one port.
pub const QUEUE_BYTES: usize = 1 << 20;
/// Frames that wait for one port.
pub const QUEUE_FRAMES: usize = 1024;

/// Where a frame lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    len: usize,
}

/// The frames. Each lies in one piece, so a reader sees it as a slice.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Made with the first frame.
    bytes: Box<[u8]>,
    frames: VecDeque<Place>,
    /// Where the next one would begin.
    end: usize,
}

impl Queue {
    /// How many frames wait.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Where a frame of this length would begin.
    fn place(&self, len: usize) -> Option<usize> {
        let Some(first) = self.frames.front() else {
            return (len <= QUEUE_BYTES).then_some(0);
        };
        if self.frames.len() >= QUEUE_FRAMES {
            None
        } else if self.end > first.start {
            match self.end + len <= QUEUE_BYTES {
                true => Some(self.end),
                false => (len <= first.start).then_some(0),
            }
        } else {
            (self.end + len <= first.start).then_some(self.end)
        }
    }

    /// Copies a frame of this length to the end; `false`: no room.
    pub(super) fn push(&mut self, frame: &[IoVec<'_>], len: usize) -> bool {
        let Some(start) = self.place(len) else { return false };
        if self.bytes.is_empty() {
            self.bytes = vec![0; QUEUE_BYTES].into_boxed_slice();
            self.frames.reserve(QUEUE_FRAMES);
        }
        gather(frame, 0, &mut self.bytes[start..start + len]);
        self.frames.push_back(Place { start, len });
        self.end = start + len;
        true
    }

    /// The first frame.
    pub(super) fn front(&self) -> Option<&[u8]> {
        let Place { start, len } = *self.frames.front()?;
        Some(&self.bytes[start..start + len])
    }

    /// Takes the first frame off.
    pub(super) fn pop(&mut self) {
        self.frames.pop_front();
    }

    pub(super) fn clear(&mut self) {
        self.frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn push_into_a_full_queue_leaves_it_as_it_was() {
        let mut queue = Queue::default();
        let large = vec![7; QUEUE_BYTES / 2];
        assert!(queue.push(&[IoVec::of(&large)], large.len()));
        assert!(queue.push(&[IoVec::of(&large)], large.len()));
        assert!(!queue.push(&[IoVec::of(b"x")], 1));
        queue.pop();
        assert!(queue.push(&[IoVec::of(b"x")], 1));
        assert_eq!(queue.len(), 2);
        queue.pop();
        assert_eq!(queue.front(), Some(&b"x"[..]));
        for _ in 0..QUEUE_FRAMES - 1 {
            assert!(queue.push(&[IoVec::of(b"y")], 1));
        }
        assert!(!queue.push(&[IoVec::of(b"z")], 1), "the number of frames is bounded too");
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(steps in prop::collection::vec((1usize..70_000, any::<bool>()), 1..300)) {
            let mut queue = Queue::default();
            let mut model = VecDeque::new();
            for (number, (len, push)) in steps.into_iter().enumerate() {
                if push {
                    let bytes = vec![number as u8; len];
                    let fits = queue.push(&[IoVec::of(&bytes[..len / 2]), IoVec::of(&bytes[len / 2..])], len);
                    if fits {
                        model.push_back(bytes);
                    } else {
                        let waiting: usize = model.iter().map(Vec::len).sum();
                        // At most one frame's length is lost at the end, and one where it begins anew.
                        prop_assert!(waiting + 2 * 70_000 > QUEUE_BYTES, "refused with {waiting} bytes waiting");
                    }
                } else {
                    let expected = model.pop_front();
                    prop_assert_eq!(queue.front(), expected.as_deref());
                    queue.pop();
                }
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}

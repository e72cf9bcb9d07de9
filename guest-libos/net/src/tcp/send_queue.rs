//! The send queue: references to the application's bytes from SND.UNA to the end of what it queued, with a cursor at
//! SND.NXT, and the records of what was sent of them. Nothing is copied; acknowledged references are dropped;
//! retransmission reads at any place.

use alloc::collections::VecDeque;

use super::scoreboard::Scoreboard;
use crate::data::{Data, Queued};
use crate::driver::{MAX_PIECES, Payload};

/// Room for this many references stays with an ended connection's place.
const KEPT_PIECES: usize = 64;

/// A place in the queue.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    index: usize,
    offset: usize,
}

#[derive(Debug)]
pub(crate) struct SendQueue<D> {
    pieces: VecDeque<Queued<D>>,
    /// SND.UNA: an offset into the first piece.
    head_offset: usize,
    /// SND.NXT.
    next: Place,
    /// Bytes between SND.UNA and SND.NXT.
    sent: usize,
    /// Bytes between SND.UNA and the end.
    len: usize,
    /// Bytes that were ever queued.
    pushed: u64,
    pub(crate) scoreboard: Scoreboard,
}

impl<D: Data> SendQueue<D> {
    pub(crate) fn new() -> Self {
        Self {
            pieces: VecDeque::new(),
            head_offset: 0,
            next: Place::default(),
            sent: 0,
            len: 0,
            pushed: 0,
            scoreboard: Scoreboard::new(),
        }
    }

    /// Drops all references and keeps the memory for the next connection, unless it is unusually much.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.pieces.shrink_to(KEPT_PIECES);
        (self.head_offset, self.next, self.sent, self.len) = (0, Place::default(), 0, 0);
        self.scoreboard.clear();
    }

    #[inline]
    pub(crate) fn push(&mut self, data: D) {
        let len = data.len();
        if len > 0 {
            self.pieces.push_back(Queued { data, len, start: self.pushed });
            self.len += len;
            self.pushed += len as u64;
        }
    }

    /// Bytes not yet acknowledged.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes after SND.NXT.
    #[inline]
    pub(crate) fn unsent(&self) -> usize {
        self.len - self.sent
    }

    /// Up to `len` bytes from SND.NXT on, fewer if they lie in too many pieces.
    #[inline]
    pub(crate) fn at_next(&self, len: usize) -> Payload<'_, D> {
        self.payload(self.next, len.min(self.unsent()))
    }

    /// Up to `len` bytes from `offset` bytes after SND.UNA on, fewer if they lie in too many pieces.
    pub(crate) fn at(&self, offset: usize, len: usize) -> Payload<'_, D> {
        let offset = offset.min(self.len);
        let position = self.pushed - (self.len - offset) as u64;
        let index = self.pieces.partition_point(|piece| piece.start + piece.len as u64 <= position);
        let offset_in_piece = self.pieces.get(index).map_or(0, |piece| (position - piece.start) as usize);
        self.payload(Place { index, offset: offset_in_piece }, len.min(self.len - offset))
    }

    #[inline]
    fn payload(&self, from: Place, len: usize) -> Payload<'_, D> {
        let mut reachable = 0;
        let mut offset = from.offset;
        for piece in self.pieces.range(from.index.min(self.pieces.len())..).take(MAX_PIECES) {
            reachable += piece.len - offset;
            offset = 0;
            if reachable >= len {
                break;
            }
        }
        Payload::new(&self.pieces, from.index, from.offset, len.min(reachable))
    }

    /// SND.NXT moves `len` bytes on: they were sent.
    #[inline]
    pub(crate) fn advance(&mut self, len: usize) {
        self.sent = (self.sent + len).min(self.len);
        self.next.offset += len;
        while let Some(piece) = self.pieces.get(self.next.index)
            && self.next.offset >= piece.len
        {
            self.next.offset -= piece.len;
            self.next.index += 1;
        }
    }

    /// SND.UNA moves `len` bytes on: they have arrived. SND.NXT is not left behind it.
    #[inline]
    pub(crate) fn acknowledge(&mut self, len: usize) {
        let len = len.min(self.len);
        self.len -= len;
        self.head_offset += len;
        let mut popped = 0;
        while let Some(piece) = self.pieces.front()
            && self.head_offset >= piece.len
        {
            self.head_offset -= piece.len;
            self.pieces.pop_front();
            popped += 1;
        }
        if self.sent >= len {
            self.sent -= len;
            self.next.index -= popped;
        } else {
            self.next = Place { index: 0, offset: self.head_offset };
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    type Queue = SendQueue<&'static [u8]>;

    fn bytes(payload: Payload<'_, &'static [u8]>) -> Vec<u8> {
        payload.flat_map(|piece| piece.bytes().to_vec()).collect()
    }

    #[test]
    fn queue_gathers_at_most_max_pieces() {
        let mut queue = Queue::new();
        for _ in 0..20 {
            queue.push(b"ab");
        }
        assert_eq!(queue.at_next(40).len(), 2 * MAX_PIECES);
        queue.advance(1);
        assert_eq!(queue.at_next(40).len(), 2 * MAX_PIECES - 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Send(usize),
        Acknowledge(usize),
        Read(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..20).prop_map(Step::Push),
            (0usize..50).prop_map(Step::Send),
            (0usize..50).prop_map(Step::Acknowledge),
            (0usize..80, 0usize..50).prop_map(|(offset, len)| Step::Read(offset, len)),
        ]
    }

    proptest! {
        /// The queue against a plain byte string with two numbers.
        #[test]
        fn queue_equals_reference(steps in proptest::collection::vec(step(), 0..200)) {
            let source: &'static [u8] = Box::leak((0..=255u8).cycle().take(4_000).collect::<Vec<_>>().into());
            let mut queue = Queue::new();
            let (mut una, mut next, mut end) = (0, 0, 0);
            for step in steps {
                match step {
                    Step::Push(len) => {
                        queue.push(&source[end..end + len]);
                        end += len;
                    }
                    Step::Send(len) => {
                        let sent = bytes(queue.at_next(len));
                        prop_assert_eq!(&sent[..], &source[next..next + sent.len()]);
                        queue.advance(sent.len());
                        next += sent.len();
                    }
                    Step::Acknowledge(len) => {
                        // A byte that was sent as a probe, beyond SND.NXT, can be acknowledged as well.
                        let len = len.min((next + 1).min(end) - una);
                        queue.acknowledge(len);
                        una += len;
                        next = next.max(una);
                    }
                    Step::Read(offset, len) => {
                        let read = bytes(queue.at(offset, len));
                        let start = (una + offset).min(end);
                        prop_assert_eq!(&read[..], &source[start..start + read.len()]);
                        prop_assert!(read.len() == len.min(end - start) || queue.pieces.len() > MAX_PIECES);
                    }
                }
                prop_assert_eq!((queue.len(), queue.unsent()), (end - una, end - next));
                let head = bytes(queue.at(0, 30));
                prop_assert_eq!(&head[..], &source[una..una + head.len()]);
                prop_assert!(head.len() == 30.min(end - una) || queue.pieces.len() > MAX_PIECES);
            }
        }
    }

    use alloc::boxed::Box;
}

//! The send queue: references to the application's bytes from SND.UNA to the end of what it queued, with a cursor at
//! SND.NXT, and the records of what was sent of them. Nothing is copied; acknowledged references are dropped;
//! retransmission reads at any place. All of it is a backlog that a connection has from the first byte queued until
//! everything has arrived: an idle connection has none.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::scoreboard::Scoreboard;
use crate::data::{Data, Queued};
use crate::driver::{MAX_PIECES, Payload};

/// Room for this many references stays with what is kept for the next connection.
const KEPT_PIECES: usize = 64;
/// So many backlogs are kept.
const MAX_SPARES: usize = 256;

/// A place in the backlog.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    index: usize,
    offset: usize,
}

/// What is queued and not acknowledged, our FIN included.
#[derive(Debug)]
struct Backlog<D> {
    scoreboard: Scoreboard,
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
    /// Where the last segment ended that was not full, counted as `pushed` is.
    small_end: u64,
}

/// Backlogs that no connection needs now. Most connections are idle most of the time and have none.
#[derive(Debug)]
#[expect(clippy::vec_box, reason = "boxes come and go as they are")]
pub(crate) struct SpareBacklogs<D>(Vec<Box<Backlog<D>>>);

impl<D: Data> SpareBacklogs<D> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes the backlog of a queue that is empty.
    #[inline]
    pub(crate) fn collect(&mut self, queue: &mut SendQueue<D>) {
        if let Some(backlog) = queue.backlog.take_if(|backlog| backlog.is_idle()) {
            self.keep(backlog);
        }
    }

    /// Takes the backlog of a queue that nobody needs any more, and drops the references in it.
    #[inline]
    pub(crate) fn collect_all(&mut self, queue: &mut SendQueue<D>) {
        let Some(mut backlog) = queue.backlog.take() else { return };
        backlog.acknowledge(backlog.len);
        backlog.scoreboard.clear();
        self.keep(backlog);
    }

    /// Keeps an idle backlog with its memory, unless that is unusually much.
    #[inline]
    fn keep(&mut self, mut backlog: Box<Backlog<D>>) {
        if self.0.len() == MAX_SPARES {
            return;
        }
        backlog.scoreboard.shrink();
        if backlog.pieces.capacity() > KEPT_PIECES {
            backlog.pieces.shrink_to(KEPT_PIECES);
        }
        self.0.push(backlog);
    }
}

#[derive(Debug)]
pub(crate) struct SendQueue<D> {
    backlog: Option<Box<Backlog<D>>>,
}

/// The records of a connection that has sent nothing that is not acknowledged.
static NOTHING_SENT: Scoreboard = Scoreboard::new();

impl<D: Data> SendQueue<D> {
    pub(crate) fn new() -> Self {
        Self { backlog: None }
    }

    #[inline]
    pub(crate) fn push(&mut self, data: D, spares: &mut SpareBacklogs<D>) {
        if data.len() > 0 {
            self.backlog.get_or_insert_with(|| spares.0.pop().unwrap_or_else(fresh)).push(data);
        }
    }

    /// What became of each byte that was sent.
    #[inline]
    pub(crate) fn board(&self) -> &Scoreboard {
        self.backlog.as_ref().map_or(&NOTHING_SENT, |backlog| &backlog.scoreboard)
    }

    #[inline]
    pub(crate) fn board_mut(&mut self) -> &mut Scoreboard {
        // Without a backlog only a FIN can have been sent.
        &mut self.backlog.get_or_insert_default().scoreboard
    }

    /// Bytes not yet acknowledged.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.len)
    }

    /// Bytes after SND.NXT.
    #[inline]
    pub(crate) fn unsent(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.len - backlog.sent)
    }

    /// Up to `len` bytes from SND.NXT on, fewer if they lie in too many pieces.
    #[inline]
    pub(crate) fn at_next(&self, len: usize) -> Payload<'_, D> {
        self.backlog.as_ref().map_or_else(Payload::empty, |backlog| backlog.at_next(len))
    }

    /// The length of [`Self::at_next`].
    #[inline]
    pub(crate) fn gathered_at_next(&self, len: usize) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.gathered(backlog.next, len.min(backlog.unsent())))
    }

    /// Up to `len` bytes from `offset` bytes after SND.UNA on, fewer if they lie in too many pieces.
    pub(crate) fn at(&self, offset: usize, len: usize) -> Payload<'_, D> {
        self.backlog.as_ref().map_or_else(Payload::empty, |backlog| backlog.at(offset, len))
    }

    /// SND.NXT moves `len` bytes on: they were sent.
    #[inline]
    pub(crate) fn advance(&mut self, len: usize) {
        if let Some(backlog) = &mut self.backlog {
            backlog.advance(len);
        }
    }

    /// What ends at SND.NXT left in a segment that was not full.
    pub(crate) fn note_small(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            backlog.small_end = backlog.pushed - backlog.unsent() as u64;
        }
    }

    /// Whether such a segment is not acknowledged yet.
    pub(crate) fn has_small_outstanding(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.small_end > backlog.pushed - backlog.len as u64)
    }

    /// SND.UNA moves `len` bytes on: they have arrived. SND.NXT is not left behind it.
    #[inline]
    pub(crate) fn acknowledge(&mut self, len: usize) {
        if let Some(backlog) = &mut self.backlog {
            backlog.acknowledge(len);
        }
    }
}

#[cold]
fn fresh<D>() -> Box<Backlog<D>> {
    Box::default()
}

impl<D> Default for Backlog<D> {
    fn default() -> Self {
        Self {
            scoreboard: Scoreboard::new(),
            pieces: VecDeque::new(),
            head_offset: 0,
            next: Place::default(),
            sent: 0,
            len: 0,
            pushed: 0,
            small_end: 0,
        }
    }
}

impl<D: Data> Backlog<D> {
    #[inline]
    fn is_idle(&self) -> bool {
        self.len == 0 && self.scoreboard.first().is_none()
    }

    #[inline]
    fn push(&mut self, data: D) {
        let len = data.len();
        self.pieces.push_back(Queued { data, len, start: self.pushed });
        self.len += len;
        self.pushed += len as u64;
    }

    #[inline]
    fn unsent(&self) -> usize {
        self.len - self.sent
    }

    #[inline]
    fn at_next(&self, len: usize) -> Payload<'_, D> {
        self.payload(self.next, len.min(self.unsent()))
    }

    fn at(&self, offset: usize, len: usize) -> Payload<'_, D> {
        let offset = offset.min(self.len);
        let position = self.pushed - (self.len - offset) as u64;
        let index = self.pieces.partition_point(|piece| piece.start + piece.len as u64 <= position);
        let offset_in_piece = self.pieces.get(index).map_or(0, |piece| (position - piece.start) as usize);
        self.payload(Place { index, offset: offset_in_piece }, len.min(self.len - offset))
    }

    #[inline]
    fn payload(&self, from: Place, len: usize) -> Payload<'_, D> {
        Payload::new(&self.pieces, from.index, from.offset, self.gathered(from, len))
    }

    /// How many of `len` bytes one frame can hold, because they do not lie in too many pieces.
    #[inline]
    fn gathered(&self, from: Place, len: usize) -> usize {
        if self.pieces.len() <= from.index + MAX_PIECES { len } else { self.gathered_of_many(from, len) }
    }

    fn gathered_of_many(&self, from: Place, len: usize) -> usize {
        let mut reachable = 0;
        let mut offset = from.offset;
        for piece in self.pieces.range(from.index..).take(MAX_PIECES) {
            reachable += piece.len - offset;
            offset = 0;
            if reachable >= len {
                break;
            }
        }
        len.min(reachable)
    }

    #[inline]
    fn advance(&mut self, len: usize) {
        if len == self.unsent() {
            self.sent = self.len;
            self.next = Place { index: self.pieces.len(), offset: 0 };
            return;
        }
        self.sent = (self.sent + len).min(self.len);
        self.next.offset += len;
        while let Some(piece) = self.pieces.get(self.next.index)
            && self.next.offset >= piece.len
        {
            self.next.offset -= piece.len;
            self.next.index += 1;
        }
    }

    #[inline]
    fn acknowledge(&mut self, len: usize) {
        if len >= self.len {
            self.pieces.clear();
            (self.head_offset, self.next, self.sent, self.len) = (0, Place::default(), 0, 0);
            return;
        }
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
    use proptest::prelude::*;

    type Queue = SendQueue<&'static [u8]>;

    fn bytes(payload: Payload<'_, &'static [u8]>) -> Vec<u8> {
        payload.flat_map(|piece| piece.bytes().to_vec()).collect()
    }

    #[test]
    fn queue_gathers_at_most_max_pieces() {
        let mut queue = Queue::new();
        for _ in 0..20 {
            queue.push(b"ab", &mut SpareBacklogs::new());
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
            let (mut queue, mut spares) = (Queue::new(), SpareBacklogs::new());
            let (mut una, mut next, mut end) = (0, 0, 0);
            for step in steps {
                match step {
                    Step::Push(len) => {
                        queue.push(&source[end..end + len], &mut spares);
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
                        prop_assert!(read.len() == len.min(end - start) || queue.backlog.as_ref().unwrap().pieces.len() > MAX_PIECES);
                    }
                }
                prop_assert_eq!((queue.len(), queue.unsent()), (end - una, end - next));
                spares.collect(&mut queue);
                prop_assert_eq!(queue.backlog.is_some(), una != end);
                let head = bytes(queue.at(0, 30));
                prop_assert_eq!(&head[..], &source[una..una + head.len()]);
                prop_assert!(head.len() == 30.min(end - una) || queue.backlog.as_ref().unwrap().pieces.len() > MAX_PIECES);
            }
        }
    }
}

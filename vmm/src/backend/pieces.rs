//! Lists of pieces of guest memory that live longer than a borrow: what a queue keeps between two calls.
//!
//! An edge: the lists hold pieces without a lifetime. Their owner, a queue, keeps the memory they lie in mapped for as long
//! as it has the list. For the time of one call, a piece of the VMM's own memory can be put beside them.

use vm_memory::{Permissions, VolatileSlice};

use super::iovec::{IoVec, IoVecMut, PieceList, PinnedMemory};

/// Pieces of one frame to be sent.
#[derive(Debug, Default)]
pub struct Gather {
    /// The first one is a place for the front that is copied.
    pieces: Vec<IoVec<'static>>,
}

impl Gather {
    /// An empty list with room.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { pieces: Vec::with_capacity(capacity + 1) }
    }

    /// Forgets all pieces; to be filled again.
    #[inline]
    pub fn refill(&mut self) -> &mut Self {
        self.pieces.clear();
        self.pieces.push(IoVec::EMPTY);
        self
    }

    /// The pieces.
    #[inline]
    pub fn pieces(&self) -> &[IoVec<'_>] {
        self.pieces.get(1..).unwrap_or(&[])
    }

    /// Calls with a list that begins with `front` instead of the first `front.len()` bytes, and forgets the pieces.
    #[inline]
    pub fn send_with_front<R>(&mut self, front: &[u8], send: impl FnOnce(&[IoVec<'_>]) -> R) -> R {
        let mut skip = front.len();
        let mut at = 0;
        while let Some(piece) = self.pieces.get_mut(at + 1) {
            let len = piece.len_bytes();
            if len > skip {
                *piece = piece.skip(skip);
                break;
            }
            skip -= len;
            at += 1;
        }
        if let Some(place) = self.pieces.get_mut(at) {
            // SAFETY: the list is only shown to `send`, which cannot keep a piece of it, and is emptied before `front`'s
            // borrow ends.
            *place = unsafe { std::mem::transmute::<IoVec<'_>, IoVec<'static>>(IoVec::of(front)) };
        }
        let result = send(self.pieces.get(at..).unwrap_or(&[]));
        self.pieces.clear();
        result
    }
}

impl PieceList for Gather {
    const ACCESS: Permissions = Permissions::Read;

    #[inline]
    unsafe fn append(&mut self, _gpa: u64, slice: &VolatileSlice<'_>) {
        // SAFETY: the caller keeps the memory for as long as the piece is here.
        self.pieces.push(unsafe { IoVec::detached(slice) });
    }
}

/// Pieces of the buffers that received frames go into, in order. Pieces leave at the front and come at the end, and lie in
/// one array all the time.
#[derive(Debug, Default)]
pub struct Scatter {
    pieces: Vec<IoVecMut<'static>>,
    /// Where each piece lies in guest memory.
    gpas: Vec<u64>,
    first: usize,
}

impl Scatter {
    /// An empty list. There is room for twice as many pieces as there ever are at once, so that they seldom move.
    pub fn with_capacity(capacity: usize) -> Self {
        let room = 2 * capacity + 1;
        Self { pieces: Vec::with_capacity(room), gpas: Vec::with_capacity(room), first: 0 }
    }

    /// The pieces.
    #[inline]
    pub fn pieces(&self) -> &[IoVecMut<'_>] {
        &self.pieces[self.first..]
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.pieces.len() - self.first
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for at most `more` pieces, without allocating if the list was made large enough.
    #[inline]
    pub fn refill(&mut self, more: usize) -> &mut Self {
        if self.pieces.len() + more >= self.pieces.capacity() {
            self.pieces.drain(..self.first);
            self.gpas.drain(..self.first);
            self.first = 0;
        }
        self
    }

    /// Takes pieces off the front.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.first = (self.first + count).min(self.pieces.len());
        if self.first == self.pieces.len() {
            self.clear();
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.gpas.clear();
        self.first = 0;
    }

    /// Asks the memory again whether it may be written. `Err`: where and how many bytes not.
    #[inline]
    pub fn check<M: PinnedMemory>(&self, memory: &M) -> Result<(), (u64, u32)> {
        self.check_first(self.len(), |gpa, len| memory.still_allows(gpa, len, Permissions::Write))
    }

    /// Asks whether the first `count` pieces may be written. `Err`: where and how many bytes not.
    #[inline]
    pub fn check_first(&self, count: usize, allows: impl Fn(u64, usize) -> bool) -> Result<(), (u64, u32)> {
        let check = |(gpa, len): (u64, usize)| if allows(gpa, len) { Ok(()) } else { Err((gpa, len as u32)) };
        // Neighbours are asked for together: buffers mostly lie in one run.
        let mut run = (0, 0);
        for (piece, gpa) in self.pieces[self.first..].iter().zip(&self.gpas[self.first..]).take(count) {
            if *gpa == run.0 + run.1 as u64 {
                run.1 += piece.len_bytes();
                continue;
            }
            check(run)?;
            run = (*gpa, piece.len_bytes());
        }
        check(run)
    }

    /// Appends the pieces of another list from `first` on.
    ///
    /// # Safety
    /// The memory in which they lie must stay mapped for as long as they are in this list.
    pub unsafe fn append_from(&mut self, other: &Scatter, first: usize) {
        let first = (other.first + first).min(other.pieces.len());
        self.refill(other.pieces.len() - first);
        self.pieces.extend_from_slice(&other.pieces[first..]);
        self.gpas.extend_from_slice(&other.gpas[first..]);
    }

    /// Calls with the first `count` pieces, followed by memory for what does not fit into them.
    pub fn read_with_overflow<R>(
        &mut self,
        count: usize,
        overflow: &mut [u8],
        read: impl FnOnce(&[IoVecMut<'_>]) -> R,
    ) -> R {
        let at = self.first + count.min(self.len());
        // SAFETY: the list is only shown to `read`, which cannot keep a piece of it, and the piece leaves the list before
        // `overflow`'s borrow ends.
        let piece = unsafe { std::mem::transmute::<IoVecMut<'_>, IoVecMut<'static>>(IoVecMut::of(overflow)) };
        let displaced = self.pieces.get(at).copied();
        match self.pieces.get_mut(at) {
            Some(place) => *place = piece,
            None => self.pieces.push(piece),
        }
        let result = read(&self.pieces[self.first..=at]);
        match displaced {
            Some(displaced) => self.pieces[at] = displaced,
            None => self.pieces.truncate(at),
        }
        result
    }
}

impl PieceList for Scatter {
    const ACCESS: Permissions = Permissions::Write;

    #[inline]
    unsafe fn append(&mut self, gpa: u64, slice: &VolatileSlice<'_>) {
        // SAFETY: the caller keeps the memory for as long as the piece is here.
        self.pieces.push(unsafe { IoVecMut::detached(slice) });
        self.gpas.push(gpa);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::iovec;

    fn bytes(pieces: &[IoVec<'_>]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        let len = iovec::gather(pieces, 0, &mut bytes);
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn send_with_front_replaces_the_first_bytes() {
        let parts: [&'static [u8]; 3] = [b"ab", b"cde", b"fgh"];
        for (front, expected, pieces) in [
            (&b"1"[..], &b"1bcdefgh"[..], 4),
            (b"12", b"12cdefgh", 3),
            (b"123", b"123defgh", 3),
            (b"12345", b"12345fgh", 2),
            (b"12345678", b"12345678", 1),
        ] {
            let mut gather = Gather::with_capacity(3);
            gather.refill().pieces.extend(parts.map(IoVec::of));
            let sent = gather.send_with_front(front, |frame| (bytes(frame), frame.len()));
            assert_eq!(sent, (expected.to_vec(), pieces));
            assert_eq!(gather.pieces().len(), 0);
        }
    }

    /// A list of `count` pieces of `len` bytes each that are never freed.
    fn append(scatter: &mut Scatter, count: usize, len: usize) {
        for _ in 0..count {
            let bytes: &'static mut [u8] = Box::leak(vec![0u8; len].into_boxed_slice());
            scatter.pieces.push(IoVecMut::of(bytes));
            scatter.gpas.push(0);
        }
    }

    #[test]
    fn read_with_overflow_leaves_the_list_as_it_was() {
        let mut scatter = Scatter::with_capacity(3);
        append(&mut scatter, 3, 4);
        scatter.consume(1);
        for (count, expected) in [(1, *b"efghijkl"), (2, *b"ijkl\0\0\0\0")] {
            let mut overflow = [0; 8];
            let filled = scatter.read_with_overflow(count, &mut overflow, |pieces| {
                assert_eq!(pieces.len(), count + 1);
                iovec::scatter(pieces, 0, b"abcdefghijkl")
            });
            assert_eq!((filled, overflow), (12, expected));
            assert_eq!(scatter.len(), 2);
        }
    }

    #[test]
    fn consume_and_refill_keep_order_without_growing() {
        let mut scatter = Scatter::with_capacity(4);
        let capacity = scatter.pieces.capacity();
        for round in 0..100 {
            append(scatter.refill(2), 2, 1);
            assert_eq!(scatter.len(), if round == 0 { 2 } else { 3 });
            scatter.consume(if round == 0 { 1 } else { 2 });
        }
        assert_eq!(scatter.pieces.capacity(), capacity);
    }
}

//! Pieces of guest memory of one disk request, for as long as it takes.
//!
//! An edge: the lists hold pieces without a lifetime. Whoever has a list keeps the memory in which its pieces lie, and, since
//! a request may wait, asks that memory again right before the device touches it ([`Pieces::check`]).

use vm_memory::{Permissions, VolatileSlice};

use crate::backend::iovec::{IoVec, IoVecMut, PieceList, PinnedMemory, gather};

/// What the device reads.
pub type Output = Pieces<IoVec<'static>>;
/// What the device writes.
pub type Input = Pieces<IoVecMut<'static>>;

/// A piece that can be cut.
pub trait Cut: Copy {
    /// Bytes.
    fn len_bytes(&self) -> usize;
    /// The bytes from `start` to `end`; both are cut to the length.
    fn cut(self, start: usize, end: usize) -> Self;
}

impl Cut for IoVec<'static> {
    fn len_bytes(&self) -> usize {
        IoVec::len_bytes(self)
    }

    fn cut(self, start: usize, end: usize) -> Self {
        self.part(start, end)
    }
}

impl Cut for IoVecMut<'static> {
    fn len_bytes(&self) -> usize {
        IoVecMut::len_bytes(self)
    }

    fn cut(self, start: usize, end: usize) -> Self {
        self.part(start, end)
    }
}

/// The pieces, in order, and where each lies in guest memory.
#[derive(Clone, Debug)]
pub struct Pieces<P> {
    list: Vec<P>,
    gpas: Vec<u64>,
    first: usize,
    bytes: usize,
}

impl<P> Default for Pieces<P> {
    fn default() -> Self {
        Self { list: Vec::new(), gpas: Vec::new(), first: 0, bytes: 0 }
    }
}

impl<P: Cut> Pieces<P> {
    /// Forgets all pieces; to be filled again.
    #[inline]
    pub fn refill(&mut self) -> &mut Self {
        self.list.clear();
        self.gpas.clear();
        (self.first, self.bytes) = (0, 0);
        self
    }

    /// The pieces.
    #[inline]
    pub fn list(&self) -> &[P] {
        &self.list[self.first..]
    }

    /// Bytes of all of them.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `bytes`, or all there are, off the front.
    pub fn consume(&mut self, bytes: usize) {
        let mut left = bytes.min(self.bytes);
        self.bytes -= left;
        while left > 0 {
            let piece = &mut self.list[self.first];
            let len = piece.len_bytes();
            if len > left {
                *piece = piece.cut(left, len);
                self.gpas[self.first] += left as u64;
                break;
            }
            left -= len;
            self.first += 1;
        }
    }

    /// Takes the last byte off: where it lies, and its piece. `None`: there are no bytes.
    #[inline]
    fn take_last_byte(&mut self) -> Option<(u64, P)> {
        let piece = self.list.last_mut()?;
        let gpa = *self.gpas.last()?;
        let len = piece.len_bytes().checked_sub(1)?;
        let last = (gpa + len as u64, piece.cut(len, len + 1));
        self.bytes -= 1;
        if len == 0 {
            self.list.pop();
            self.gpas.pop();
        } else {
            *piece = piece.cut(0, len);
        }
        Some(last)
    }

    fn push(&mut self, gpa: u64, piece: P) {
        self.bytes += piece.len_bytes();
        self.list.push(piece);
        self.gpas.push(gpa);
    }
}

impl<P: Cut> Pieces<P>
where
    Self: PieceList,
{
    /// Asks the memory again whether the device may do this. `Err`: where and how many bytes not.
    pub fn check<M: PinnedMemory>(&self, memory: &M) -> Result<(), (u64, u32)> {
        for (piece, &gpa) in self.list().iter().zip(&self.gpas[self.first..]) {
            if !memory.still_allows(gpa, piece.len_bytes(), <Self as PieceList>::ACCESS) {
                return Err((gpa, piece.len_bytes() as u32));
            }
        }
        Ok(())
    }
}

impl Output {
    /// Copies the first bytes out; returns how many there were.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        gather(self.list(), 0, bytes)
    }
}

/// The byte to which the device writes how a request ended. As for the lists, whoever has it keeps its memory.
#[derive(Debug)]
pub struct StatusByte {
    gpa: u64,
    piece: IoVecMut<'static>,
}

impl StatusByte {
    /// Writes it, if the memory still allows. `Err`: where it does not.
    #[inline]
    pub fn write<M: PinnedMemory>(&self, memory: &M, status: u8) -> Result<(), (u64, u32)> {
        if !memory.still_allows(self.gpa, 1, Permissions::Write) {
            return Err((self.gpa, 1));
        }
        self.piece.copy_from(0, &[status]);
        Ok(())
    }
}

impl Input {
    /// Takes the last byte off, for the status. `None`: there are no bytes.
    #[inline]
    pub fn take_status(&mut self) -> Option<StatusByte> {
        self.take_last_byte().map(|(gpa, piece)| StatusByte { gpa, piece })
    }

    /// Copies bytes in; returns how many found room.
    pub fn copy_from(&self, bytes: &[u8]) -> usize {
        crate::backend::iovec::scatter(self.list(), 0, bytes)
    }
}

impl PieceList for Output {
    const ACCESS: Permissions = Permissions::Read;

    #[inline]
    unsafe fn append(&mut self, gpa: u64, slice: &VolatileSlice<'_>) {
        // SAFETY: the caller keeps the memory for as long as the piece is here.
        self.push(gpa, unsafe { IoVec::detached(slice) });
    }
}

impl PieceList for Input {
    const ACCESS: Permissions = Permissions::Write;

    #[inline]
    unsafe fn append(&mut self, gpa: u64, slice: &VolatileSlice<'_>) {
        // SAFETY: the caller keeps the memory for as long as the piece is here.
        self.push(gpa, unsafe { IoVecMut::detached(slice) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(parts: &[&'static [u8]]) -> Output {
        let mut pieces = Output::default();
        for (at, part) in parts.iter().enumerate() {
            pieces.push(0x1000 * at as u64, IoVec::of(part));
        }
        pieces
    }

    fn bytes(pieces: &Output) -> Vec<u8> {
        let mut bytes = vec![0; pieces.bytes()];
        assert_eq!(pieces.copy_to(&mut bytes), bytes.len());
        bytes
    }

    #[test]
    fn consume_and_take_last_byte_cut_where_they_should() {
        for taken in 0..=8 {
            let mut pieces = output(&[b"abc", b"d", b"efgh"]);
            let (gpa, last) = pieces.take_last_byte().expect("bytes");
            let mut byte = [0];
            assert_eq!((gpa, last.copy_to(&mut byte), byte), (0x2003, 1, *b"h"));
            pieces.consume(taken);
            assert_eq!(bytes(&pieces), b"abcdefg"[taken.min(7)..]);
        }
    }

    #[test]
    fn consume_moves_the_address_of_the_piece_that_it_cuts() {
        let mut pieces = output(&[b"abc", b"defg"]);
        pieces.consume(5);
        assert_eq!((pieces.list().len(), &pieces.gpas[pieces.first..]), (1, [0x1002].as_slice()));
    }

    #[test]
    fn take_last_byte_of_nothing_returns_none() {
        assert!(Output::default().take_last_byte().is_none());
        let mut one = output(&[b"x"]);
        assert!(one.take_last_byte().is_some());
        assert_eq!((one.bytes(), one.list().len()), (0, 0));
        assert!(one.take_last_byte().is_none());
    }
}

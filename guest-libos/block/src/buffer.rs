//! Memory that the device reads or writes on behalf of a request. An edge: whoever implements these traits promises what the
//! compiler cannot see.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;

/// A run of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte.
    pub start: NonNull<u8>,
    /// Bytes.
    pub len_bytes: usize,
}

/// Memory that the device may read: what a write to the disk takes.
///
/// # Safety
/// From the moment the value is given away until it is dropped, wherever it is moved to:
/// - [`Self::pieces`] names the same memory each time;
/// - that memory stays allocated, and nobody writes to it through Rust references.
///
/// Memory that changes by other means while the device reads it is written to the disk as the device found it.
pub unsafe trait Buffer {
    /// The pieces, in the order in which their bytes follow each other. They lie where [`exos_virtqueue::Hal`] can find
    /// addresses for them, each on its own without a gap.
    fn pieces(&self) -> impl Iterator<Item = Piece>;
}

/// Memory that the device may write: what a read from the disk takes.
///
/// # Safety
/// As for [`Buffer`]; besides, until the value is dropped or used again, nobody else reads or writes the memory, and any
/// bytes are a value of what lies there.
pub unsafe trait BufferMut: Buffer {}

/// The piece that bytes lie in.
fn piece(bytes: &[u8]) -> Piece {
    Piece { start: NonNull::from(bytes).cast(), len_bytes: bytes.len() }
}

// SAFETY: a box owns its bytes, which do not move with it.
unsafe impl Buffer for Box<[u8]> {
    fn pieces(&self) -> impl Iterator<Item = Piece> {
        core::iter::once(piece(self))
    }
}
// SAFETY: as above; any byte is a byte.
unsafe impl BufferMut for Box<[u8]> {}

// SAFETY: static bytes stay; a shared reference is not written through.
unsafe impl Buffer for &'static [u8] {
    fn pieces(&self) -> impl Iterator<Item = Piece> {
        core::iter::once(piece(self))
    }
}

// SAFETY: the vector owns its buffers, which hold for themselves; moving them inside it does not move their memory.
unsafe impl<B: Buffer> Buffer for Vec<B> {
    fn pieces(&self) -> impl Iterator<Item = Piece> {
        self.iter().flat_map(Buffer::pieces)
    }
}
// SAFETY: as above.
unsafe impl<B: BufferMut> BufferMut for Vec<B> {}

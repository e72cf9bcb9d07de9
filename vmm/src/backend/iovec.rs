//! Pieces of memory for scatter and gather: `struct iovec` with a lifetime.
//!
//! Guest memory has no Rust references, because the guest changes it at will; a piece is an address and a length that stay
//! valid for the lifetime `'m`. Bytes are copied in and out by volatile accesses only.

use std::marker::PhantomData;

use vm_memory::{GuestAddress, GuestMemory, Permissions, VolatileSlice};

/// Guest memory whose slices stay where they are.
///
/// # Safety
/// Every slice that [`GuestMemory::get_slices`] of a value gives out must stay mapped at its address until that value and
/// all its clones are gone, however it is moved. Permissions may change; addresses may not.
pub unsafe trait PinnedMemory: GuestMemory<Bitmap = ()> + Clone + Send + 'static {
    /// Whether a range that was translated before may still be accessed: what may have changed is asked, what cannot is not.
    #[inline]
    fn still_allows(&self, gpa: u64, count: usize, access: Permissions) -> bool {
        self.check_range(GuestAddress(gpa), count, access)
    }
}

// SAFETY: regions are mapped when the object is made and owned by reference counts within; there is no way to replace one.
unsafe impl PinnedMemory for vm_memory::GuestMemoryMmap<()> {}
// SAFETY: its slices lie in the regions of a `GuestMemoryMmap` that it keeps alive.
unsafe impl PinnedMemory for crate::tables::DmaDomain {
    #[inline]
    fn still_allows(&self, gpa: u64, count: usize, access: Permissions) -> bool {
        self.allows(gpa, count, access)
    }
}

/// A piece of memory to read from.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct IoVec<'m> {
    raw: libc::iovec,
    memory: PhantomData<&'m ()>,
}

/// A piece of memory to write to.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct IoVecMut<'m> {
    raw: libc::iovec,
    memory: PhantomData<&'m ()>,
}

// SAFETY: the memory stays mapped for 'm for all threads, and every access to it is volatile or made by the kernel.
unsafe impl Send for IoVec<'_> {}
// SAFETY: as above.
unsafe impl Send for IoVecMut<'_> {}

/// A list to which a walk over descriptors appends the pieces it finds.
pub trait PieceList {
    /// What the DMA domain must allow.
    const ACCESS: Permissions;

    /// Appends a piece of guest memory that lies at `gpa`.
    ///
    /// # Safety
    /// The slice must stem from a [`PinnedMemory`] that exists for as long as the piece is in the list.
    unsafe fn append(&mut self, gpa: u64, slice: &VolatileSlice<'_>);
}

impl<'m> IoVec<'m> {
    /// Nothing.
    pub const EMPTY: IoVec<'static> =
        IoVec { raw: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }, memory: PhantomData };

    /// A piece of memory without a lifetime.
    ///
    /// # Safety
    /// The memory must stay mapped for as long as the result is used.
    pub(super) unsafe fn detached(slice: &VolatileSlice<'_>) -> Self {
        let raw = libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() };
        Self { raw, memory: PhantomData }
    }

    /// Bytes.
    #[inline]
    pub(super) fn len_bytes(&self) -> usize {
        self.raw.iov_len
    }

    /// Ordinary memory.
    pub fn of(bytes: &'m [u8]) -> Self {
        let raw = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        Self { raw, memory: PhantomData }
    }

    /// The bytes from `start` to `end` of the piece; both are cut to its length.
    pub(super) fn part(self, start: usize, end: usize) -> Self {
        let end = end.min(self.raw.iov_len);
        let start = start.min(end);
        let raw = libc::iovec { iov_base: self.raw.iov_base.wrapping_byte_add(start), iov_len: end - start };
        Self { raw, memory: PhantomData }
    }

    /// The rest of the piece from `offset` on; empty if there is none.
    pub fn skip(self, offset: usize) -> Self {
        let offset = offset.min(self.raw.iov_len);
        let raw = libc::iovec {
            iov_base: self.raw.iov_base.wrapping_byte_add(offset),
            iov_len: self.raw.iov_len - offset,
        };
        Self { raw, memory: PhantomData }
    }

    /// Address and length, for tests.
    #[cfg(test)]
    pub(crate) fn place(&self) -> (*const u8, usize) {
        (self.raw.iov_base.cast_const().cast(), self.raw.iov_len)
    }

    /// Copies the beginning of the piece out; returns how many bytes.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        self.volatile().copy_to(bytes)
    }

    fn volatile(&self) -> VolatileSlice<'_> {
        // SAFETY: the piece is mapped for 'm, which outlives the borrow of self.
        unsafe { VolatileSlice::new(self.raw.iov_base.cast(), self.raw.iov_len) }
    }

    /// As the kernel takes it.
    pub(super) fn as_raw(pieces: &[Self]) -> &[libc::iovec] {
        // SAFETY: `IoVec` is transparent over `iovec`.
        unsafe { std::slice::from_raw_parts(pieces.as_ptr().cast(), pieces.len()) }
    }
}

impl<'m> IoVecMut<'m> {
    /// A piece of memory without a lifetime.
    ///
    /// # Safety
    /// The memory must stay mapped for as long as the result is used.
    pub(super) unsafe fn detached(slice: &VolatileSlice<'_>) -> Self {
        let raw = libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() };
        Self { raw, memory: PhantomData }
    }

    /// Bytes.
    #[inline]
    pub(super) fn len_bytes(&self) -> usize {
        self.raw.iov_len
    }

    /// Ordinary memory.
    pub fn of(bytes: &'m mut [u8]) -> Self {
        let raw = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        Self { raw, memory: PhantomData }
    }

    /// The bytes from `start` to `end` of the piece; both are cut to its length.
    pub(super) fn part(self, start: usize, end: usize) -> Self {
        let end = end.min(self.raw.iov_len);
        let start = start.min(end);
        let raw = libc::iovec { iov_base: self.raw.iov_base.wrapping_byte_add(start), iov_len: end - start };
        Self { raw, memory: PhantomData }
    }

    /// Copies into the piece from `offset` on; returns how many bytes found room.
    pub fn copy_from(&self, offset: usize, bytes: &[u8]) -> usize {
        let room = self.raw.iov_len.saturating_sub(offset).min(bytes.len());
        // SAFETY: the piece is mapped for 'm, which outlives the borrow of self; offset and room lie inside it, or room
        // is zero and nothing is touched.
        let slice = unsafe { VolatileSlice::new(self.raw.iov_base.cast::<u8>().wrapping_add(offset), room) };
        slice.copy_from(&bytes[..room]);
        room
    }

    /// Address and length, for tests.
    #[cfg(test)]
    pub(crate) fn place(&self) -> (*const u8, usize) {
        (self.raw.iov_base.cast_const().cast(), self.raw.iov_len)
    }

    /// Copies the beginning of the piece out; returns how many bytes.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        // SAFETY: the piece is mapped for 'm, which outlives the borrow of self.
        let slice: VolatileSlice<'_> =
            unsafe { VolatileSlice::new(self.raw.iov_base.cast(), self.raw.iov_len) };
        slice.copy_to(bytes)
    }

    /// As the kernel takes it.
    pub(super) fn as_raw(pieces: &[Self]) -> &[libc::iovec] {
        // SAFETY: `IoVecMut` is transparent over `iovec`.
        unsafe { std::slice::from_raw_parts(pieces.as_ptr().cast(), pieces.len()) }
    }
}

/// Copies the bytes from `offset` on out of a list of pieces; returns how many there were.
pub fn gather(pieces: &[IoVec<'_>], mut offset: usize, bytes: &mut [u8]) -> usize {
    let mut done = 0;
    for piece in pieces {
        if done == bytes.len() {
            break;
        }
        if offset >= piece.raw.iov_len {
            offset -= piece.raw.iov_len;
            continue;
        }
        done += piece.skip(offset).copy_to(&mut bytes[done..]);
        offset = 0;
    }
    done
}

/// Copies bytes into a list of pieces from `offset` on; returns how many found room.
pub fn scatter(pieces: &[IoVecMut<'_>], mut offset: usize, bytes: &[u8]) -> usize {
    let mut done = 0;
    for piece in pieces {
        if done == bytes.len() {
            break;
        }
        if offset >= piece.raw.iov_len {
            offset -= piece.raw.iov_len;
            continue;
        }
        done += piece.copy_from(offset, &bytes[done..]);
        offset = 0;
    }
    done
}

/// Copies from one list of pieces into another, from both beginnings on; returns how many bytes, which is what the shorter
/// one has.
pub fn copy(from: &[IoVec<'_>], to: &[IoVecMut<'_>]) -> usize {
    let mut done = 0;
    let (mut at, mut offset) = (0, 0);
    for source in from {
        let mut taken = 0;
        while taken < source.raw.iov_len {
            let Some(target) = to.get(at) else { return done };
            let len = (source.raw.iov_len - taken).min(target.raw.iov_len - offset);
            // SAFETY: both parts lie inside their pieces, which are mapped while they are borrowed.
            let (source, target) = unsafe {
                (
                    VolatileSlice::<()>::new(source.raw.iov_base.cast::<u8>().add(taken), len),
                    VolatileSlice::<()>::new(target.raw.iov_base.cast::<u8>().add(offset), len),
                )
            };
            source.copy_to_volatile_slice(target);
            (taken, offset, done) = (taken + len, offset + len, done + len);
            if offset == to[at].raw.iov_len {
                (at, offset) = (at + 1, 0);
            }
        }
    }
    done
}

/// Bytes of a list of pieces.
#[inline]
pub fn bytes_of(pieces: &[IoVec<'_>]) -> usize {
    pieces.iter().map(IoVec::len_bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_crosses_pieces_of_both_lists_and_ends_with_the_shorter() {
        let from = [IoVec::of(b"ab"), IoVec::of(b""), IoVec::of(b"cdefg")];
        for (lens, copied) in [([3, 0, 4], 7), ([1, 1, 1], 3), ([9, 0, 0], 7)] {
            let mut parts = lens.map(|len: usize| vec![b'.'; len]);
            let [first, second, third] = &mut parts;
            let to = [IoVecMut::of(first), IoVecMut::of(second), IoVecMut::of(third)];
            assert_eq!(copy(&from, &to), copied);
            let mut expected = b"abcdefg"[..copied].to_vec();
            expected.resize(lens.iter().sum(), b'.');
            assert_eq!(parts.concat(), expected);
        }
        assert_eq!(bytes_of(&from), 7);
    }

    #[test]
    fn gather_and_scatter_cross_pieces() {
        let pieces = [IoVec::of(b"abc"), IoVec::of(b""), IoVec::of(b"defg")];
        let mut bytes = [0; 4];
        assert_eq!(gather(&pieces, 2, &mut bytes), 4);
        assert_eq!(&bytes, b"cdef");
        assert_eq!(gather(&pieces, 6, &mut bytes), 1);
        assert_eq!(gather(&pieces, 9, &mut bytes), 0);
        let (mut first, mut second) = ([0; 3], [0; 4]);
        let pieces = [IoVecMut::of(&mut first), IoVecMut::of(&mut second)];
        assert_eq!(scatter(&pieces, 2, b"xyz"), 3);
        assert_eq!(scatter(&pieces, 6, b"123"), 1);
        assert_eq!((&first, &second), (b"\0\0x", b"yz\x001"));
    }
}

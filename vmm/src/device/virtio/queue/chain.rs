//! From a head to pieces of memory: the walk over descriptors, direct and indirect (VIRTIO 1.3 2.7.5), each checked against
//! the DMA domain and translated.

use vm_memory::{GuestAddress, Permissions};

use super::RingFeatures;
use super::error::QueueError;
use super::rings::{Descriptor, INDIRECT, NEXT, Rings, WRITE};
use crate::backend::{PieceList, PinnedMemory};

/// A chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its first descriptor: its name in the used ring.
    pub head: u16,
    /// Bytes of all its descriptors.
    pub bytes: u32,
}

/// How much a chain of this queue may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all its descriptors.
    pub bytes: u32,
    /// Pieces of memory; the list that they go to has room for as many.
    pub segments: usize,
}

/// Appends the pieces of a chain that has one direction only. Returns its bytes.
#[inline]
pub(super) fn translate<M: PinnedMemory, L: PieceList>(
    rings: &Rings,
    memory: &M,
    features: RingFeatures,
    head: u16,
    limits: Limits,
    out: &mut L,
) -> Result<u32, QueueError> {
    let mut budget = Budget { bytes: 0, segments: 0, limits };
    walk(rings, memory, features, head, |descriptor| {
        let writable = descriptor.flags & WRITE != 0;
        if writable != (L::ACCESS == Permissions::Write) {
            return Err(QueueError::WrongDirection { writable });
        }
        budget.append(memory, descriptor, out)
    })?;
    Ok(budget.bytes)
}

/// Appends the pieces of a chain that has a part to read and then a part to write. Returns its bytes.
pub(super) fn translate_request<M: PinnedMemory, R: PieceList, W: PieceList>(
    rings: &Rings,
    memory: &M,
    features: RingFeatures,
    head: u16,
    limits: Limits,
    (readable, writable): (&mut R, &mut W),
) -> Result<u32, QueueError> {
    let mut budget = Budget { bytes: 0, segments: 0, limits };
    let mut writing = false;
    walk(rings, memory, features, head, |descriptor| {
        let is_writable = descriptor.flags & WRITE != 0;
        if writing && !is_writable {
            return Err(QueueError::WrongDirection { writable: false });
        }
        writing = is_writable;
        if writing {
            budget.append(memory, descriptor, writable)
        } else {
            budget.append(memory, descriptor, readable)
        }
    })?;
    Ok(budget.bytes)
}

/// What a chain has used up of its limits.
struct Budget {
    bytes: u32,
    segments: usize,
    limits: Limits,
}

impl Budget {
    /// Checks and translates one descriptor.
    #[inline]
    fn append<M: PinnedMemory, L: PieceList>(
        &mut self,
        memory: &M,
        descriptor: &Descriptor,
        out: &mut L,
    ) -> Result<(), QueueError> {
        let Descriptor { gpa, len, .. } = *descriptor;
        if len == 0 {
            return Err(QueueError::Empty);
        }
        let max = self.limits.bytes;
        self.bytes = self
            .bytes
            .checked_add(len)
            .filter(|bytes| *bytes <= max)
            .ok_or(QueueError::TooManyBytes { max })?;
        let foreign = |_| QueueError::Foreign { gpa, len, writable: L::ACCESS == Permissions::Write };
        let mut at = gpa;
        for slice in memory.get_slices(GuestAddress(gpa), len as usize, L::ACCESS).map_err(foreign)? {
            let slice = slice.map_err(foreign)?;
            if self.segments == self.limits.segments {
                return Err(QueueError::TooManySegments { max: self.limits.segments });
            }
            self.segments += 1;
            // SAFETY: the slice stems from the queue's `PinnedMemory`; the queue's owner keeps the list of pieces beside
            // the queue and empties it before the queue goes.
            unsafe { out.append(at, &slice) };
            at += slice.len() as u64;
        }
        Ok(())
    }
}

/// Visits the descriptors of a chain in order.
#[inline]
fn walk<M: PinnedMemory>(
    rings: &Rings,
    memory: &M,
    features: RingFeatures,
    head: u16,
    mut visit: impl FnMut(&Descriptor) -> Result<(), QueueError>,
) -> Result<(), QueueError> {
    let size = rings.config().size;
    let mut index = head;
    for visited in 0..size {
        if index >= size {
            return Err(QueueError::NoSuchDescriptor { index, entries: size });
        }
        let descriptor = rings.descriptor(index);
        if descriptor.flags & INDIRECT != 0 {
            if !features.indirect {
                return Err(QueueError::IndirectNotNegotiated);
            }
            return walk_indirect(memory, descriptor, size, size - visited, visit);
        }
        visit(&descriptor)?;
        if descriptor.flags & NEXT == 0 {
            return Ok(());
        }
        index = descriptor.next;
    }
    Err(QueueError::ChainTooLong { size })
}

/// Visits the descriptors of an indirect table, at most `left` of them.
fn walk_indirect<M: PinnedMemory>(
    memory: &M,
    table: Descriptor,
    size: u16,
    left: u16,
    mut visit: impl FnMut(&Descriptor) -> Result<(), QueueError>,
) -> Result<(), QueueError> {
    let Descriptor { gpa, len, flags, .. } = table;
    if flags & NEXT != 0 {
        return Err(QueueError::IndirectNested);
    }
    if len == 0 || !len.is_multiple_of(16) || len / 16 > u32::from(size) {
        return Err(QueueError::IndirectTable { len });
    }
    let entries = (len / 16) as u16;
    let foreign = QueueError::Foreign { gpa, len, writable: false };
    let mut slices =
        memory.get_slices(GuestAddress(gpa), len as usize, Permissions::Read).map_err(|_| foreign)?;
    let slice = slices.next().and_then(Result::ok).filter(|slice| slice.len() == len as usize);
    let slice = slice.ok_or(foreign)?;
    let mut index = 0;
    for _ in 0..left {
        if index >= entries {
            return Err(QueueError::NoSuchDescriptor { index, entries });
        }
        let mut bytes = [0u8; 16];
        slice.subslice(usize::from(index) * 16, 16).map_err(|_| foreign)?.copy_to(&mut bytes);
        let descriptor = Descriptor::from_words(zerocopy::transmute!(bytes));
        if descriptor.flags & INDIRECT != 0 {
            return Err(QueueError::IndirectNested);
        }
        visit(&descriptor)?;
        if descriptor.flags & NEXT == 0 {
            return Ok(());
        }
        index = descriptor.next;
    }
    Err(QueueError::ChainTooLong { size })
}

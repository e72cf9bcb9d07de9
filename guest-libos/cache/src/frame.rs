//! Frames: the memory of the cache, in pieces of one size, and the references to it that are lent out. A frame whose
//! bytes somebody still refers to, a NIC's descriptor or a connection that may have to send them again, is not used for
//! anything else: the reference count is the proof, and nothing here could break it.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;

use exos_fs::{BLOCK_BYTES, Block};

/// Blocks of a frame. 64 KiB, so that the longest frame a NIC is asked to cut up gathers two or three pieces, a read of
/// the disk is worth its price, and small files that lie beside each other come in together. What it costs where the hot
/// files lie far from each other is in the README, measured.
pub const FRAME_BLOCKS: u64 = 16;
/// Bytes of a frame.
pub const FRAME_BYTES: usize = FRAME_BLOCKS as usize * BLOCK_BYTES;

/// A frame's memory. The device's address for it is that of the boxed slice, which does not move.
pub(crate) type Memory = Box<[u8]>;

/// Memory for `blocks` blocks, or nothing if the heap has no more.
pub(crate) fn allocate(blocks: u64) -> Option<Memory> {
    let bytes = usize::try_from(blocks).ok()?.checked_mul(BLOCK_BYTES)?;
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).ok()?;
    memory.resize(bytes, 0);
    Some(memory.into_boxed_slice())
}

/// The block `index` of a frame.
#[inline]
pub(crate) fn block(memory: &[u8], index: u64) -> Option<&Block> {
    memory.get(index as usize * BLOCK_BYTES..)?.first_chunk()
}

/// Bytes of a file, where they lie in the cache. A clone refers to the same bytes; they stay as they are for as long as
/// there is one.
#[derive(Clone, Debug)]
pub struct Slice {
    frame: Rc<Memory>,
    start: u32,
    len: u32,
}

impl Slice {
    /// The part of a frame; `None` if it does not lie in it.
    pub(crate) fn new(frame: &Rc<Memory>, start: usize, len: usize) -> Option<Slice> {
        frame.get(start..start.checked_add(len)?)?;
        Some(Slice { frame: Rc::clone(frame), start: start as u32, len: len as u32 })
    }

    /// How many bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let start = self.start as usize;
        self.frame.get(start..start + self.len as usize).unwrap_or_default()
    }
}

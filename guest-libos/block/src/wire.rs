//! The bytes of a request (VIRTIO 1.3 5.2.6): the header that the device reads first, the segment of a discard, the status
//! that it writes last. All three lie in a slot of the queue's own memory.

use abi::extent::{BLOCK_BYTES, DISCARD_BLOCKS_MAX};

/// Bytes of a slot.
pub(crate) const SLOT_BYTES: usize = 64;
/// `type`, `reserved`, `sector`.
pub(crate) const HEADER_BYTES: usize = 16;
/// Where a discard's segment lies in the slot.
pub(crate) const SEGMENT_OFFSET: usize = 16;
/// `sector`, `num_sectors`, `flags`.
pub(crate) const SEGMENT_BYTES: usize = 16;
/// Where the status lies: on the slot's last byte, away from what the device reads.
pub(crate) const STATUS_OFFSET: usize = SLOT_BYTES - 1;

/// Positions on the disk are counted in units of 512 bytes, whatever the block size (5.2.4).
pub(crate) const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES / 512;

/// VIRTIO_BLK_S_OK.
pub(crate) const STATUS_OK: u8 = 0;
/// VIRTIO_BLK_S_IOERR.
pub(crate) const STATUS_IOERR: u8 = 1;
/// VIRTIO_BLK_S_UNSUPP.
pub(crate) const STATUS_UNSUPP: u8 = 2;
/// What the status holds while the device has the request: none that there is.
pub(crate) const STATUS_NONE: u8 = 0xFF;

/// Feature bits (5.2.3).
pub(crate) mod feature {
    /// VIRTIO_BLK_F_RO.
    pub(crate) const READ_ONLY: u32 = 5;
    /// VIRTIO_BLK_F_FLUSH.
    pub(crate) const FLUSH: u32 = 9;
    /// VIRTIO_BLK_F_DISCARD.
    pub(crate) const DISCARD: u32 = 13;
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// VIRTIO_BLK_T_IN.
    Read = 0,
    /// VIRTIO_BLK_T_OUT.
    Write = 1,
    /// VIRTIO_BLK_T_FLUSH.
    Flush = 4,
    /// VIRTIO_BLK_T_DISCARD.
    Discard = 11,
}

/// The header of a request from block `start_block` on.
pub(crate) fn header(kind: Kind, start_block: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&(kind as u32).to_le_bytes());
    // A discard says where in its segment; a flush is for all of the disk.
    let sector = if matches!(kind, Kind::Read | Kind::Write) { start_block * SECTORS_PER_BLOCK } else { 0 };
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// The segment of a discard, of at most [`DISCARD_BLOCKS_MAX`] blocks.
pub(crate) fn segment(start_block: u64, blocks: u64) -> [u8; SEGMENT_BYTES] {
    const { assert!(DISCARD_BLOCKS_MAX <= u32::MAX as u64 / SECTORS_PER_BLOCK) };
    let mut bytes = [0; SEGMENT_BYTES];
    bytes[..8].copy_from_slice(&(start_block * SECTORS_PER_BLOCK).to_le_bytes());
    bytes[8..12].copy_from_slice(&((blocks * SECTORS_PER_BLOCK) as u32).to_le_bytes());
    bytes
}

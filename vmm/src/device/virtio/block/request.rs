//! What a request asks for (VIRTIO 1.3 5.2.6), parsed once from the bytes of its chain and checked against the disk. After
//! that it names whole blocks that exist.

use abi::extent::{BLOCK_BYTES, DISCARD_BLOCKS_MAX, READ, WRITE};

use super::super::queue::QueueError;
use crate::backend::disk::{Access, Input, Output, StatusByte, Zeroing};

/// Most bytes of a read or write.
pub const TRANSFER_BYTES_MAX: u64 = 16 << 20;
/// `type`, `reserved`, `sector`.
pub(super) const HEADER_BYTES: usize = 16;
/// `sector`, `num_sectors`, `flags` of a discard or of writing zeros; there is one of them a request.
const SEGMENT_BYTES: usize = 16;
/// Bytes of the answer to VIRTIO_BLK_T_GET_ID.
pub(super) const ID_BYTES: usize = 20;
/// Positions are counted in units of 512 bytes, whatever the block size (5.2.4).
pub(super) const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES / 512;
/// Most sectors of a discard or of writing zeros: what a thread, once it is at it, does to the end.
pub(super) const SEGMENT_SECTORS_MAX: u32 = (DISCARD_BLOCKS_MAX * SECTORS_PER_BLOCK) as u32;

/// The status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    /// VIRTIO_BLK_S_OK.
    Ok = 0,
    /// VIRTIO_BLK_S_IOERR.
    IoError = 1,
    /// VIRTIO_BLK_S_UNSUPP.
    Unsupported = 2,
}

/// Whole blocks on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    pub(super) start: u64,
    pub(super) count: u64,
}

impl Blocks {
    /// Where they begin, in bytes.
    pub(super) fn offset(self) -> u64 {
        self.start * BLOCK_BYTES
    }

    /// How many bytes they are.
    pub(super) fn len_bytes(self) -> u64 {
        self.count * BLOCK_BYTES
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// VIRTIO_BLK_T_IN.
    Read(Blocks),
    /// VIRTIO_BLK_T_OUT.
    Write(Blocks),
    /// VIRTIO_BLK_T_FLUSH.
    Flush,
    /// VIRTIO_BLK_T_DISCARD.
    Discard(Blocks),
    /// VIRTIO_BLK_T_WRITE_ZEROES.
    WriteZeroes(Blocks, Zeroing),
    /// VIRTIO_BLK_T_GET_ID.
    Identify,
}

impl Task {
    /// Which blocks the environment must hold, and with which rights.
    pub(super) fn needs(self) -> Option<(Blocks, u32)> {
        match self {
            Self::Read(blocks) => Some((blocks, READ)),
            Self::Write(blocks) | Self::Discard(blocks) | Self::WriteZeroes(blocks, _) => {
                Some((blocks, WRITE))
            }
            // A flush makes durable what was written by right.
            Self::Flush | Self::Identify => None,
        }
    }
}

/// Why a request is answered with an error right away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("sector {sector} and {bytes} bytes are not one or more whole blocks of {BLOCK_BYTES} bytes")]
    NotWholeBlocks { sector: u64, bytes: u64 },
    #[error("blocks {start}..+{count} are not all on the disk, which has {capacity}")]
    BeyondTheEnd { start: u64, count: u64, capacity: u64 },
    #[error("{bytes} bytes in one request; at most {max} are possible")]
    TooLong { bytes: u64, max: u64 },
    #[error("the chain of a request of type {kind} is not shaped as that type's must be")]
    Shape { kind: u32 },
    #[error("the disk is read-only")]
    ReadOnly,
    #[error("requests of type {kind} do not exist, have flags that do not, or were not negotiated")]
    Unsupported { kind: u32 },
}

impl Refusal {
    pub(super) fn status(self) -> Status {
        if matches!(self, Self::Unsupported { .. }) { Status::Unsupported } else { Status::IoError }
    }
}

/// The disk as requests see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) capacity_blocks: u64,
    pub(super) access: Access,
    /// Which kinds of requests were negotiated.
    pub(super) discard: bool,
    pub(super) write_zeroes: bool,
}

/// Takes header and status off a request's pieces; what is left is its data. An error is the driver's breach of the chain's
/// form, and stops the queue.
pub(super) fn take_frame(
    output: &mut Output,
    input: &mut Input,
) -> Result<([u8; HEADER_BYTES], StatusByte), QueueError> {
    let mut header = [0; HEADER_BYTES];
    let bytes = output.copy_to(&mut header);
    if bytes < HEADER_BYTES {
        return Err(QueueError::TooShort { bytes: bytes as u32, min: HEADER_BYTES as u32 });
    }
    output.consume(HEADER_BYTES);
    let status = input.take_status().ok_or(QueueError::NoStatus)?;
    Ok((header, status))
}

/// What a request asks for. `output` and `input` are its data.
pub(super) fn parse(
    header: [u8; HEADER_BYTES],
    output: &Output,
    input: &Input,
    geometry: &Geometry,
) -> Result<Task, Refusal> {
    let [kind, _reserved, low, high]: [[u8; 4]; 4] = zerocopy::transmute!(header);
    let kind = u32::from_le_bytes(kind);
    let sector = u64::from(u32::from_le_bytes(low)) | u64::from(u32::from_le_bytes(high)) << 32;
    let (read, written) = (output.bytes() as u64, input.bytes() as u64);
    let shape = |fits: bool| if fits { Ok(()) } else { Err(Refusal::Shape { kind }) };
    match kind {
        0 => {
            shape(read == 0)?;
            Ok(Task::Read(geometry.transfer(sector, written)?))
        }
        1 => {
            shape(written == 0)?;
            geometry.writable()?;
            Ok(Task::Write(geometry.transfer(sector, read)?))
        }
        4 => {
            shape(read == 0 && written == 0)?;
            Ok(Task::Flush)
        }
        8 => {
            shape(read == 0 && written == ID_BYTES as u64)?;
            Ok(Task::Identify)
        }
        11 if geometry.discard => match geometry.segment(kind, output, written)? {
            (blocks, 0) => Ok(Task::Discard(blocks)),
            // 5.2.6.2: a discard has no flags.
            _ => Err(Refusal::Unsupported { kind }),
        },
        13 if geometry.write_zeroes => match geometry.segment(kind, output, written)? {
            (blocks, 0) => Ok(Task::WriteZeroes(blocks, Zeroing::KeepAllocated)),
            (blocks, 1) => Ok(Task::WriteZeroes(blocks, Zeroing::MayUnmap)),
            _ => Err(Refusal::Unsupported { kind }),
        },
        _ => Err(Refusal::Unsupported { kind }),
    }
}

impl Geometry {
    fn writable(&self) -> Result<(), Refusal> {
        if self.access == Access::ReadOnly { Err(Refusal::ReadOnly) } else { Ok(()) }
    }

    /// The blocks of a read or write.
    fn transfer(&self, sector: u64, bytes: u64) -> Result<Blocks, Refusal> {
        self.blocks(sector, bytes, TRANSFER_BYTES_MAX)
    }

    /// The blocks from a sector on.
    fn blocks(&self, sector: u64, bytes: u64, max: u64) -> Result<Blocks, Refusal> {
        if bytes > max {
            return Err(Refusal::TooLong { bytes, max });
        }
        if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) || !sector.is_multiple_of(SECTORS_PER_BLOCK) {
            return Err(Refusal::NotWholeBlocks { sector, bytes });
        }
        let (start, count, capacity) =
            (sector / SECTORS_PER_BLOCK, bytes / BLOCK_BYTES, self.capacity_blocks);
        if start > capacity || count > capacity - start {
            return Err(Refusal::BeyondTheEnd { start, count, capacity });
        }
        Ok(Blocks { start, count })
    }

    /// The blocks and flags of a discard or of writing zeros (5.2.6).
    fn segment(&self, kind: u32, output: &Output, written: u64) -> Result<(Blocks, u32), Refusal> {
        let mut bytes = [0; SEGMENT_BYTES];
        if output.bytes() != SEGMENT_BYTES || written != 0 || output.copy_to(&mut bytes) != SEGMENT_BYTES {
            return Err(Refusal::Shape { kind });
        }
        self.writable()?;
        let [low, high, sectors, flags]: [[u8; 4]; 4] = zerocopy::transmute!(bytes);
        let sector = u64::from(u32::from_le_bytes(low)) | u64::from(u32::from_le_bytes(high)) << 32;
        let blocks = self.zone(sector, u32::from_le_bytes(sectors))?;
        Ok((blocks, u32::from_le_bytes(flags)))
    }

    /// The blocks of a discard or of writing zeros.
    fn zone(&self, sector: u64, sectors: u32) -> Result<Blocks, Refusal> {
        self.blocks(sector, u64::from(sectors) * 512, DISCARD_BLOCKS_MAX * BLOCK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than any request may take.
    const VAST: Geometry =
        Geometry { capacity_blocks: 1 << 40, access: Access::ReadWrite, discard: true, write_zeroes: true };

    #[test]
    fn transfers_and_discards_beyond_their_limits_are_too_long() {
        let most = TRANSFER_BYTES_MAX / BLOCK_BYTES;
        assert_eq!(VAST.transfer(8, TRANSFER_BYTES_MAX), Ok(Blocks { start: 1, count: most }));
        let bytes = TRANSFER_BYTES_MAX + BLOCK_BYTES;
        assert_eq!(VAST.transfer(8, bytes), Err(Refusal::TooLong { bytes, max: TRANSFER_BYTES_MAX }));
        assert_eq!(VAST.zone(8, SEGMENT_SECTORS_MAX), Ok(Blocks { start: 1, count: DISCARD_BLOCKS_MAX }));
        for sectors in [SEGMENT_SECTORS_MAX + SECTORS_PER_BLOCK as u32, u32::MAX] {
            assert!(matches!(VAST.zone(8, sectors), Err(Refusal::TooLong { .. })), "{sectors}");
        }
    }
}

//! A disk in memory behind a [`FakeQueue`]: what the VMM does, as plainly as possible, for host tests of this crate's users.
//! Knows the rules of a well-behaved device (VIRTIO 1.3 5.2.6); for hostile ones there is [`FakeQueue`] itself.

use crate::wire::{HEADER_BYTES, SECTORS_PER_BLOCK, STATUS_IOERR, STATUS_OK, STATUS_UNSUPP, feature};
use abi::boot::{DEVICE_BLOCK, Device};
use abi::extent::BLOCK_BYTES;
pub use exos_virtqueue::fake::{EVENT_IDX, FakeHal, FakeQueue, Segment, Signal, TakenChain};
use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

/// Everything a block device can be started with that the driver knows: flush, discard, event index, VIRTIO 1.
pub const ALL_FEATURES: u64 = 1 << feature::FLUSH | 1 << feature::DISCARD | 1 << EVENT_IDX | 1 << 32;
/// The feature of a disk that can only be read.
pub const READ_ONLY: u64 = 1 << feature::READ_ONLY;

/// A line of the device table for a disk with four queues.
pub fn device(features: u64, capacity_blocks: u64) -> Device {
    Device {
        kind: DEVICE_BLOCK,
        queues: 4,
        queue_size_max: 1024,
        features,
        capacity_blocks,
        segments_max: 1022,
        transfer_blocks_max: 4096,
        ..Device::default()
    }
}

/// A disk in memory.
#[derive(Clone, Debug, Default)]
pub struct FakeDisk {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Blocks that cannot be read or written.
    pub bad_blocks: BTreeSet<u64>,
    /// Requests done, by kind of request: reads, writes, flushes, discards.
    pub done: [u64; 4],
}

impl FakeDisk {
    /// A disk of zeros.
    pub fn new(blocks: u64) -> Self {
        Self { bytes: vec![0; (blocks * BLOCK_BYTES) as usize], ..Self::default() }
    }

    /// Does everything that waits in a queue and publishes it. Gives how many requests that were.
    ///
    /// # Panics
    /// If the driver breaks a rule.
    pub fn serve(&mut self, queue: &mut FakeQueue) -> usize {
        let chains: Vec<TakenChain> = core::iter::from_fn(|| queue.take()).collect();
        for chain in &chains {
            self.finish(queue, chain);
        }
        queue.publish();
        chains.len()
    }

    /// Does one request that was taken from the queue, and gives it back unpublished.
    ///
    /// # Panics
    /// If the driver breaks a rule.
    pub fn finish(&mut self, queue: &mut FakeQueue, chain: &TakenChain) {
        let (&status, segments) = chain.segments.split_last().expect("a status");
        assert!(status.device_writes && status.len_bytes == 1, "a status of one byte");
        let input: Vec<Segment> = segments.iter().copied().filter(|segment| segment.device_writes).collect();
        let (result, len_bytes) = match self.request(queue, &chain.gather(), &input) {
            Ok(len_bytes) => (STATUS_OK, len_bytes),
            Err(status) => (status, 0),
        };
        queue.write(status, 0, &[result]);
        queue.give_back(chain.head, len_bytes + 1);
    }

    /// Does what `output`, the bytes that the device reads, asks for. Gives how many bytes went into `input`.
    fn request(&mut self, queue: &mut FakeQueue, output: &[u8], input: &[Segment]) -> Result<u32, u8> {
        let (header, data) = output.split_at(HEADER_BYTES);
        let word = |at: usize, len: usize| {
            header[at..at + len].iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte))
        };
        let (kind, sector) = (word(0, 4), word(8, 8));
        match kind {
            0 => {
                let len: usize = input.iter().map(|segment| segment.len_bytes as usize).sum();
                let start = self.place(sector, len)?;
                let mut at = start;
                for &segment in input {
                    let len = segment.len_bytes as usize;
                    queue.write(segment, 0, &self.bytes[at..at + len]);
                    at += len;
                }
                self.done[0] += 1;
                Ok(len as u32)
            }
            1 => {
                let start = self.place(sector, data.len())?;
                self.bytes[start..start + data.len()].copy_from_slice(data);
                self.done[1] += 1;
                Ok(0)
            }
            4 => {
                self.done[2] += 1;
                Ok(0)
            }
            11 => {
                let sector = u64::from_le_bytes(data[..8].try_into().expect("a segment"));
                let sectors = u32::from_le_bytes(data[8..12].try_into().expect("a segment"));
                let start = self.place(sector, sectors as usize * 512)?;
                self.bytes[start..start + sectors as usize * 512].fill(0);
                self.done[3] += 1;
                Ok(0)
            }
            _ => Err(STATUS_UNSUPP),
        }
    }

    /// Where the bytes of a request begin, if they may be had.
    fn place(&self, sector: u64, len: usize) -> Result<usize, u8> {
        let blocks = len as u64 / BLOCK_BYTES;
        let start = sector / SECTORS_PER_BLOCK;
        assert!(blocks > 0 && len as u64 == blocks * BLOCK_BYTES && sector == start * SECTORS_PER_BLOCK);
        let outside = (start + blocks) * BLOCK_BYTES > self.bytes.len() as u64;
        if outside || self.bad_blocks.range(start..start + blocks).next().is_some() {
            return Err(STATUS_IOERR);
        }
        Ok((start * BLOCK_BYTES) as usize)
    }
}

//! A queue of a disk (VIRTIO 1.3 5.2.6): a request is a chain of descriptors, the header in a slot of the queue's own memory,
//! the caller's buffer where it lies, and the status in the slot again. Buffer and token stay with the queue until the device
//! has given the chain back.
//!
//! A chain's slot is that of its first descriptor, so there is always one. Free descriptors are a stack: the slots that
//! were used last are in the cache.

use crate::buffer::{Buffer, BufferMut, Piece};
use crate::fault::{Fault, OpenError};
use crate::request::{Completion, Failure, Reason, Refused};
use crate::wire::{self, Kind, SLOT_BYTES, feature};
use abi::boot::{DEVICE_BLOCK, Device};
use abi::extent::{BLOCK_BYTES, DISCARD_BLOCKS_MAX};
use abi::trace::subject;
use alloc::vec::Vec;
use exos_virtqueue::ring::{NEXT, WRITE};
use exos_virtqueue::{Arming, Block, Contents, Hal, Notice, Place, Ring, RingFault, ring};

/// Descriptors of a request besides those of its buffer: header and status.
const FRAMING: u16 = 2;

/// What the queue has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStatistics {
    /// Requests taken.
    pub requests: u64,
    /// Requests that came back.
    pub completed: u64,
    /// Requests that came back with a failure.
    pub failed: u64,
    /// Blocks of reads and writes that succeeded.
    pub blocks: u64,
    /// Publications of the index.
    pub batches: u64,
    /// Doorbells rung.
    pub doorbells: u64,
}

/// The disk as the queue sees it.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    capacity_blocks: u64,
    transfer_blocks_max: u64,
    pieces_max: usize,
    features: u64,
}

impl Geometry {
    fn has(&self, feature: u32) -> bool {
        self.features >> feature & 1 == 1
    }

    /// Whether a request for these blocks makes sense.
    fn check(&self, kind: Kind, start_block: u64, blocks: u64, blocks_max: u64) -> Result<(), Reason> {
        if kind != Kind::Read && self.has(feature::READ_ONLY) {
            return Err(Reason::ReadOnly);
        }
        if blocks == 0 {
            return Err(Reason::NotWholeBlocks);
        }
        if start_block.checked_add(blocks).is_none_or(|end| end > self.capacity_blocks) {
            return Err(Reason::BeyondTheEnd);
        }
        if blocks > blocks_max { Err(Reason::TooLong) } else { Ok(()) }
    }
}

/// A request that the device has, or is about to be shown.
#[derive(Debug)]
struct Outstanding<B, K> {
    buffer: Option<B>,
    token: K,
    /// As trace records name it.
    subject: u64,
    kind: Kind,
    /// Blocks read or written.
    blocks: u64,
    /// Its descriptors, and the last of them.
    count: u16,
    last: u16,
    /// Where it is in the available ring.
    position: u16,
}

/// A chain that was written and not yet offered.
struct Written {
    head: u16,
    last: u16,
    count: u16,
}

/// A queue of a disk. `B` is what its reads and writes take as buffers, `K` what a completion is recognised by.
#[derive(Debug)]
pub struct DiskQueue<H: Hal, B, K> {
    hal: H,
    place: Place,
    ring: Ring,
    geometry: Geometry,
    slots: Block,
    requests: Vec<Option<Outstanding<B, K>>>,
    /// The next descriptor in the same chain or in the free stack. The device has a copy; this one it cannot change.
    next: Vec<u16>,
    /// Top of the free stack, and how many are in it.
    free: u16,
    free_count: u16,
    /// Requests that are not back yet.
    pending: u16,
    /// The last that came back, as trace records name it.
    last_done: u64,
    fault: Option<Fault>,
    statistics: DiskStatistics,
}

impl<H: Hal, B, K> DiskQueue<H, B, K> {
    /// Binds queue `queue` of those that are ours, of device number `index`, which the device table describes as `device`, with `size` descriptors, a
    /// power of two. A request takes two and one for each piece of its buffer that does not lie behind the one before.
    /// Dropping it unbinds it.
    pub fn open(hal: H, index: u32, device: &Device, queue: u32, size: u16) -> Result<Self, OpenError> {
        if device.kind != DEVICE_BLOCK {
            return Err(OpenError::NotABlockDevice);
        }
        if queue >= device.queues {
            return Err(OpenError::NoSuchQueue { queues: device.queues });
        }
        let layout = ring::layout(device, size)?;
        if size < FRAMING + 2 {
            return Err(OpenError::TooSmall { size });
        }
        let pieces_max = usize::from(size - FRAMING).min(device.segments_max as usize);
        let geometry = Geometry {
            capacity_blocks: device.capacity_blocks,
            // A descriptor's length, and that of a used entry, have 32 bits.
            transfer_blocks_max: u64::from(device.transfer_blocks_max).min(u32::MAX as u64 / BLOCK_BYTES - 1),
            pieces_max,
            features: device.features,
        };
        let ring = Ring::new(&hal, layout, device.features)?;
        let slots = Block::new(&hal, usize::from(size) * SLOT_BYTES, Contents::Zero)?;
        let mut queue = Self {
            hal,
            place: Place { device: index, queue: device.first_queue + queue },
            ring,
            geometry,
            slots,
            requests: (0..size).map(|_| None).collect(),
            next: (1..=size).collect(),
            free: 0,
            free_count: size,
            pending: 0,
            last_done: 0,
            fault: None,
            statistics: DiskStatistics::default(),
        };
        queue.ring.bind(&mut queue.hal, queue.place)?;
        Ok(queue)
    }

    /// Capacity in blocks.
    pub fn capacity_blocks(&self) -> u64 {
        self.geometry.capacity_blocks
    }

    /// Whether the disk can only be read.
    pub fn is_read_only(&self) -> bool {
        self.geometry.has(feature::READ_ONLY)
    }

    /// Most blocks of a read or write.
    pub fn transfer_blocks_max(&self) -> u64 {
        self.geometry.transfer_blocks_max
    }

    /// Most pieces of a buffer; neighbours count as one.
    pub fn pieces_max(&self) -> usize {
        self.geometry.pieces_max
    }

    /// Reads blocks from `start_block` on into the buffer, as many as it is long. The device sees the request with the next
    /// [`Self::publish`].
    pub fn read(&mut self, start_block: u64, buffer: B, token: K) -> Result<(), Refused<B, K>>
    where
        B: BufferMut,
    {
        self.transfer(Kind::Read, start_block, buffer, token)
    }

    /// Writes the buffer to the blocks from `start_block` on. It is on the disk for good only after a [`Self::flush`] that is
    /// requested when this is completed. The device sees the request with the next [`Self::publish`].
    pub fn write(&mut self, start_block: u64, buffer: B, token: K) -> Result<(), Refused<B, K>>
    where
        B: Buffer,
    {
        self.transfer(Kind::Write, start_block, buffer, token)
    }

    /// Makes durable what completed writes have written. Of a read-only disk there is nothing to make durable.
    pub fn flush(&mut self, token: K) -> Result<(), Refused<(), K>> {
        let check = if self.is_read_only() {
            Err(Reason::ReadOnly)
        } else if !self.geometry.has(feature::FLUSH) {
            Err(Reason::NotNegotiated)
        } else {
            Ok(())
        };
        match check.and_then(|()| self.chain(Kind::Flush, 0, None, core::iter::empty())) {
            Ok(written) => {
                self.commit(&written, Kind::Flush, 0, None, token);
                Ok(())
            }
            Err(reason) => Err(Refused { reason, buffer: (), token }),
        }
    }

    /// Says that the content of these blocks is not needed any more. Until they are written again they hold anything.
    pub fn discard(&mut self, start_block: u64, blocks: u64, token: K) -> Result<(), Refused<(), K>> {
        let check = if self.geometry.has(feature::DISCARD) {
            self.geometry.check(Kind::Discard, start_block, blocks, DISCARD_BLOCKS_MAX)
        } else {
            Err(Reason::NotNegotiated)
        };
        let segment = wire::segment(start_block, blocks.min(DISCARD_BLOCKS_MAX));
        match check.and_then(|()| self.chain(Kind::Discard, 0, Some(segment), core::iter::empty())) {
            Ok(written) => {
                self.commit(&written, Kind::Discard, 0, None, token);
                Ok(())
            }
            Err(reason) => Err(Refused { reason, buffer: (), token }),
        }
    }

    fn transfer(&mut self, kind: Kind, start_block: u64, buffer: B, token: K) -> Result<(), Refused<B, K>>
    where
        B: Buffer,
    {
        let _span = exos_trace::span!("disk request");
        let bytes = buffer.pieces().fold(0u64, |sum, piece| sum.saturating_add(piece.len_bytes as u64));
        let blocks = if bytes.is_multiple_of(BLOCK_BYTES) { bytes / BLOCK_BYTES } else { 0 };
        let check = self.geometry.check(kind, start_block, blocks, self.geometry.transfer_blocks_max);
        match check.and_then(|()| self.chain(kind, start_block, None, buffer.pieces())) {
            Ok(written) => {
                self.commit(&written, kind, blocks, Some(buffer), token);
                Ok(())
            }
            Err(reason) => Err(Refused { reason, buffer, token }),
        }
    }

    /// Writes slot and descriptors of a request on top of the free stack, without taking them from it: a request that turns
    /// out impossible leaves nothing behind.
    fn chain(
        &mut self,
        kind: Kind,
        start_block: u64,
        segment: Option<[u8; wire::SEGMENT_BYTES]>,
        pieces: impl Iterator<Item = Piece>,
    ) -> Result<Written, Reason> {
        if self.fault.is_some() {
            return Err(Reason::Broken);
        }
        if self.free_count < FRAMING {
            return Err(Reason::Full);
        }
        let head = self.free;
        let slot_offset = usize::from(head) * SLOT_BYTES;
        let slot = self.slots.bytes_mut(slot_offset, SLOT_BYTES).ok_or(Reason::Broken)?;
        slot[..wire::HEADER_BYTES].copy_from_slice(&wire::header(kind, start_block));
        let mut read_bytes = wire::HEADER_BYTES;
        if let Some(segment) = segment {
            slot[wire::SEGMENT_OFFSET..][..wire::SEGMENT_BYTES].copy_from_slice(&segment);
            read_bytes += wire::SEGMENT_BYTES;
        }
        slot[wire::STATUS_OFFSET] = wire::STATUS_NONE;
        let slot_address = self.slots.device_address() + slot_offset as u64;

        let mut chain = Chain { ring: &self.ring, next: &self.next, number: head, count: 0 };
        chain.push(slot_address, read_bytes, 0);
        let flags = if kind == Kind::Read { WRITE } else { 0 };
        let room = usize::from(self.free_count - FRAMING);
        // The run of neighbouring pieces that has no descriptor yet.
        let (mut run_address, mut run_bytes, mut runs) = (0u64, 0usize, 0usize);
        for Piece { start, len_bytes } in pieces.filter(|piece| piece.len_bytes > 0) {
            let address = self.hal.device_address(start.as_ptr(), len_bytes).ok_or(Reason::Unreachable)?;
            if run_bytes > 0 && run_address + run_bytes as u64 == address {
                run_bytes += len_bytes;
                continue;
            }
            if run_bytes > 0 {
                chain.push(run_address, run_bytes, flags);
            }
            runs += 1;
            if runs > self.geometry.pieces_max {
                return Err(Reason::TooLong);
            }
            if runs > room {
                return Err(Reason::Full);
            }
            (run_address, run_bytes) = (address, len_bytes);
        }
        if run_bytes > 0 {
            chain.push(run_address, run_bytes, flags);
        }
        let last = chain.end(slot_address + wire::STATUS_OFFSET as u64);
        Ok(Written { head, last, count: chain.count })
    }

    /// Takes the descriptors of a written chain from the free stack and offers it.
    fn commit(&mut self, written: &Written, kind: Kind, blocks: u64, buffer: Option<B>, token: K) {
        self.free = self.next[usize::from(written.last)];
        self.free_count -= written.count;
        self.pending += 1;
        let Place { device, queue } = self.place;
        let subject = subject::of(subject::DISK, device, queue, self.statistics.requests);
        exos_trace::event!("disk request queued", subject, exos_trace::followed());
        let position = self.ring.offer(written.head);
        let Written { count, last, .. } = *written;
        self.requests[usize::from(written.head)] =
            Some(Outstanding { buffer, token, subject, kind, blocks, count, last, position });
        self.statistics.requests += 1;
    }

    /// Makes the requests that were taken visible to the device, all at once, and rings the doorbell if it asked for that.
    pub fn publish(&mut self) {
        if self.ring.unpublished() == 0 || self.fault.is_some() {
            return;
        }
        let _span = exos_trace::span!("disk publish");
        self.statistics.batches += 1;
        if self.ring.publish() == Notice::Doorbell {
            self.statistics.doorbells += 1;
            self.hal.doorbell(self.place.device, self.place.queue);
        }
    }

    /// The next request that is done. `None`: there is none now, or the queue has a fault.
    pub fn poll(&mut self) -> Option<Completion<B, K>> {
        if self.pending == 0 || self.fault.is_some() {
            return None;
        }
        let done = match self.ring.ready() {
            0 => match self.ring.look() {
                Ok(0) => return None,
                Ok(_) => self.complete(),
                Err(fault) => Err(fault.into()),
            },
            _ => self.complete(),
        };
        done.inspect_err(|&fault| self.fail(fault)).ok()
    }

    /// Whether [`Self::poll`] has something to say: a completion, or a fault that is not known yet.
    pub fn is_ready(&mut self) -> bool {
        self.fault.is_none() && (self.ring.ready() > 0 || self.ring.look().map_or(true, |ready| ready > 0))
    }

    /// Takes one used entry: the chain's descriptors are free again, and what it came with goes back.
    fn complete(&mut self) -> Result<Completion<B, K>, Fault> {
        let used = self.ring.take();
        let fault = RingFault::NotOutstanding { id: used.id };
        let place = self.requests.get_mut(used.id as usize).ok_or(fault)?;
        let request =
            place.as_ref().filter(|request| self.ring.was_published(request.position)).ok_or(fault)?;

        let data_bytes = if request.kind == Kind::Read { request.blocks * BLOCK_BYTES } else { 0 };
        let status = self.slots.bytes(used.id as usize * SLOT_BYTES + wire::STATUS_OFFSET, 1);
        let result = match status.map_or(wire::STATUS_NONE, |status| status[0]) {
            wire::STATUS_OK => Ok(()),
            wire::STATUS_IOERR => Err(Failure::Io),
            wire::STATUS_UNSUPP => Err(Failure::Unsupported),
            status => return Err(Fault::BadStatus { status }),
        };
        // The status is written in any case; a read that succeeded has written all of its buffer besides.
        let written_bytes = u64::from(used.len_bytes);
        let least = if result.is_ok() { data_bytes + 1 } else { 1 };
        if !(least..=data_bytes + 1).contains(&written_bytes) {
            return Err(RingFault::BadLength { len_bytes: used.len_bytes }.into());
        }
        let Some(request) = place.take() else { return Err(fault.into()) };
        self.free_count += request.count;
        self.next[usize::from(request.last)] = self.free;
        self.free = used.id as u16;
        self.pending -= 1;
        self.statistics.completed += 1;
        match result {
            Ok(()) => self.statistics.blocks += request.blocks,
            Err(_) => self.statistics.failed += 1,
        }
        self.last_done = request.subject;
        Ok(Completion { token: request.token, buffer: request.buffer, result })
    }

    /// What [`Self::poll`] gave last, as trace records name it; 0: nothing yet.
    pub fn last_done(&self) -> u64 {
        self.last_done
    }

    /// Requests that were taken and have not come back from [`Self::poll`].
    pub fn pending(&self) -> usize {
        usize::from(self.pending)
    }

    /// Free descriptors. A request takes two, and one for each piece of its buffer that does not lie behind the one before.
    pub fn room(&self) -> usize {
        usize::from(self.free_count)
    }

    /// What the device did wrong, if the queue is stopped.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// What the queue has done.
    pub fn statistics(&self) -> &DiskStatistics {
        &self.statistics
    }

    /// Asks for an interrupt before a sleep, at the next completion. Publishes first whatever is still unpublished, so nothing
    /// is left lying. Together with other queues: sleep only if all of them say so ([`Arming::and`]). A queue with a fault
    /// asks for nothing.
    pub fn request_interrupts(&mut self) -> Arming {
        self.publish();
        if self.fault.is_some() || self.pending == 0 {
            return Arming::Sleep;
        }
        self.ring.request_interrupt(0)
    }

    /// Asks for no interrupts: the queue is polled.
    pub fn suppress_interrupts(&mut self) {
        self.ring.suppress_interrupts();
    }

    /// Unbinds the queue and gives back what has not come back otherwise, unfinished: of each request it is unknown whether
    /// the device has done it. Nothing comes back if the device does not let go of the queue; what it may still touch is
    /// leaked.
    pub fn close(mut self) -> Vec<(K, Option<B>)> {
        self.release();
        let requests = core::mem::take(&mut self.requests);
        requests.into_iter().flatten().map(|request| (request.token, request.buffer)).collect()
    }

    /// Takes the queue back from the device. If that fails, the device may still touch what its requests point at, which
    /// must not be used again then.
    fn release(&mut self) {
        if self.ring.unbind(&mut self.hal, self.place).is_err() {
            self.slots.leak();
            core::mem::forget(core::mem::take(&mut self.requests));
        }
    }

    #[cold]
    fn fail(&mut self, fault: Fault) {
        exos_trace::event!("disk fault", u64::from(self.place.queue), 0);
        self.fault = Some(fault);
    }
}

impl<H: Hal, B, K> Drop for DiskQueue<H, B, K> {
    fn drop(&mut self) {
        self.release();
    }
}

/// Writes one descriptor after the other down the free stack.
struct Chain<'a> {
    ring: &'a Ring,
    next: &'a [u16],
    /// The next to be written.
    number: u16,
    count: u16,
}

impl Chain<'_> {
    /// A descriptor that is followed by another.
    fn push(&mut self, address: u64, len_bytes: usize, flags: u16) {
        let next = self.next[usize::from(self.number)];
        self.ring.set_descriptor(self.number, address, len_bytes as u32, flags | NEXT, next);
        self.number = next;
        self.count += 1;
    }

    /// The last one, for the status. Gives its number.
    fn end(&mut self, address: u64) -> u16 {
        self.ring.set_descriptor(self.number, address, 1, WRITE, 0);
        self.count += 1;
        self.number
    }
}

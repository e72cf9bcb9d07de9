//! The transmit queue (VIRTIO 1.3 5.1.6.2): a frame is a chain of descriptors, the first one on a slot of the queue's own
//! memory with the virtio header, the protocol headers and whatever else the caller wants copied, the others on the
//! caller's bytes where they lie. What keeps those bytes in place stays with the queue until the device has sent them.
//!
//! A chain's slot is that of its first descriptor, so there is always one; a frame that is copied as a whole and does not fit takes
//! those of further descriptors. Free descriptors are a stack: the slots that were used last are in the cache.

use crate::chain::{Descriptors, Needs, Piece};
use crate::fault::{Fault, OpenError};
use crate::header::{HEADER_BYTES, Offload, Offloads, transmit_header};
use crate::receive::FRAME_BYTES_MAX;
use abi::boot::Device;
use abi::queue::RingLayout;
use abi::trace::subject;
use alloc::vec::Vec;
use core::fmt;
use exos_virtqueue::{Arming, Block, Contents, Hal, Notice, Place, Ring, RingFault, Used};

/// Bytes of a slot: virtio header, protocol headers and copied pieces of one frame, or a part of one that lends nothing.
pub const SLOT_BYTES: usize = 512;

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too many frames are on their way. Publish, let the device work, try again.
    Full,
    /// What is to be copied beside lent pieces does not fit in a slot, or the frame is longer than an IP packet can be.
    TooLong,
    /// The frame has more pieces than the queue has descriptors.
    TooManyPieces,
    /// The device cannot reach a lent piece: copy it.
    Unreachable,
    /// The device was started without this offload.
    NotNegotiated,
    /// The queue has a [`Fault`].
    Broken,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the transmit queue is full; publish and let the device work",
            Self::TooLong => "the frame is too long, or too much of it is copied; lend the data",
            Self::TooManyPieces => "the frame has too many pieces; send it as several",
            Self::Unreachable => "the device cannot reach a piece; copy it",
            Self::NotNegotiated => "the device does not do this offload; do it in software",
            Self::Broken => "the queue is stopped after a device fault; open the queue pair again",
        })
    }
}

/// A frame that was not taken, with its `keep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<K> {
    /// Why.
    pub reason: Reason,
    /// As it was given.
    pub keep: K,
}

/// What the queue has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransmitStatistics {
    /// Frames taken.
    pub frames: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// Frames that the device has sent.
    pub completed: u64,
    /// Publications of the index.
    pub batches: u64,
    /// Doorbells rung.
    pub doorbells: u64,
    /// Frames refused because the queue was full.
    pub full: u64,
}

/// The chain that begins with a descriptor.
#[derive(Debug)]
struct Chain<K> {
    /// Lives until the device has sent the frame.
    keep: Option<K>,
    /// Descriptors; 0: no chain begins here.
    count: u16,
    /// Its last descriptor.
    last: u16,
    /// Where it is in the available ring.
    position: u16,
}

/// A chain that was written and not yet offered.
struct Written {
    head: u16,
    last: u16,
    count: u16,
    frame_bytes: usize,
}

/// The transmit queue of a pair.
#[derive(Debug)]
pub struct TransmitQueue<H: Hal, K> {
    hal: H,
    place: Place,
    ring: Ring,
    offloads: Offloads,
    slots: Block,
    chains: Vec<Chain<K>>,
    /// The next descriptor in the same chain or in the free stack. The device has a copy; this one it cannot change.
    next: Vec<u16>,
    /// Top of the free stack, and how many are in it.
    free: u16,
    free_count: u16,
    /// Chains that are not back yet.
    pending: u16,
    fault: Option<Fault>,
    statistics: TransmitStatistics,
}

impl<H: Hal, K> TransmitQueue<H, K> {
    pub(crate) fn open(hal: H, place: Place, device: &Device, layout: RingLayout) -> Result<Self, OpenError> {
        let count = usize::from(layout.size);
        let ring = Ring::new(&hal, layout, device.features)?;
        let slots = Block::new(&hal, count * SLOT_BYTES, Contents::Stale)?;
        let mut queue = Self {
            hal,
            place,
            ring,
            offloads: Offloads::of_features(device.features),
            slots,
            chains: (0..count).map(|_| Chain { keep: None, count: 0, last: 0, position: 0 }).collect(),
            next: (1..=layout.size).collect(),
            free: 0,
            free_count: layout.size,
            pending: 0,
            fault: None,
            statistics: TransmitStatistics::default(),
        };
        queue.ring.bind(&mut queue.hal, place)?;
        Ok(queue)
    }

    /// Takes a frame: `header` is the Ethernet, IP and transport header and is copied; `pieces` follow it. `keep` is dropped
    /// when the device has sent the frame, or given back with the reason. The device sees the frame with the next
    /// [`Self::publish`].
    #[inline]
    pub fn transmit(
        &mut self,
        header: &[u8],
        pieces: &[Piece<'_>],
        offload: Offload,
        keep: K,
    ) -> Result<(), Refused<K>> {
        let _span = exos_trace::span!("nic transmit");
        match self.write(header, pieces, offload) {
            Ok(written) => {
                self.commit(&written, keep);
                Ok(())
            }
            Err(reason) => {
                self.statistics.full += u64::from(reason == Reason::Full);
                Err(Refused { reason, keep })
            }
        }
    }

    /// Makes the frames that were taken visible to the device, all at once, and rings the doorbell if it asked for that.
    pub fn publish(&mut self) {
        if self.ring.unpublished() == 0 || self.fault.is_some() {
            return;
        }
        let _span = exos_trace::span!("nic publish");
        self.statistics.batches += 1;
        if self.ring.publish() == Notice::Doorbell {
            self.statistics.doorbells += 1;
            self.hal.doorbell(self.place.device, self.place.queue);
        }
    }

    /// Drops the `keep` of every frame that the device has sent. Gives how many.
    pub fn reclaim(&mut self) -> usize {
        if self.pending == 0 || self.fault.is_some() {
            return 0;
        }
        let _span = exos_trace::span!("nic reclaim");
        let mut sent = 0;
        loop {
            match self.ring.look() {
                Ok(0) => return sent,
                Ok(ready) => {
                    for _ in 0..ready {
                        if let Err(fault) = self.complete() {
                            self.fail(fault.into());
                            return sent;
                        }
                        sent += 1;
                    }
                }
                Err(fault) => {
                    self.fail(fault.into());
                    return sent;
                }
            }
        }
    }

    /// Frames that were taken and are not known to be sent.
    pub fn pending(&self) -> usize {
        usize::from(self.pending)
    }

    /// Free descriptors, without looking at the device. A frame needs one, one for each lent piece, and one for each run of
    /// copied pieces behind a lent one; one that lends nothing needs one for each [`SLOT_BYTES`].
    pub fn room(&self) -> usize {
        usize::from(self.free_count)
    }

    /// What the device did wrong, if the queue is stopped.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// What the queue has done.
    pub fn statistics(&self) -> &TransmitStatistics {
        &self.statistics
    }

    /// Writes slot and descriptors of a frame on top of the free stack, without taking them from it: a frame that turns
    /// out impossible leaves nothing behind.
    #[inline(always)]
    fn write(&mut self, header: &[u8], pieces: &[Piece<'_>], offload: Offload) -> Result<Written, Reason> {
        let needs = Needs::of(header, pieces);
        if needs.frame_bytes > FRAME_BYTES_MAX {
            return Err(Reason::TooLong);
        }
        if needs.copied_bytes > SLOT_BYTES {
            return self.write_copied(header, pieces, offload, &needs);
        }
        if !self.offloads.allow(offload) {
            return Err(Reason::NotNegotiated);
        }
        if needs.descriptors > usize::from(self.free_count) {
            self.make_room(needs.descriptors)?;
        }
        if self.fault.is_some() {
            return Err(Reason::Broken);
        }

        let head = self.free;
        let slot_offset = usize::from(head) * SLOT_BYTES;
        let slot_address = self.slots.device_address() + slot_offset as u64;
        let slot = self.slots.bytes_mut(slot_offset, SLOT_BYTES).ok_or(Reason::Broken)?;
        let mut chain = Descriptors::new(&self.ring, &self.next, head, needs.descriptors);
        slot[..HEADER_BYTES].copy_from_slice(&transmit_header(offload, header.len() as u16));
        let mut filled = HEADER_BYTES + header.len();
        slot[HEADER_BYTES..filled].copy_from_slice(header);
        // The run of copied bytes that has no descriptor yet: from `run` to `filled`.
        let mut run = 0;
        for piece in pieces {
            match *piece {
                Piece::Lend([]) => {}
                Piece::Lend(bytes) => {
                    if run < filled {
                        chain.push(slot_address + run as u64, filled - run);
                        run = filled;
                    }
                    let address =
                        self.hal.device_address(bytes.as_ptr(), bytes.len()).ok_or(Reason::Unreachable)?;
                    chain.push(address, bytes.len());
                }
                Piece::Copy(bytes) => {
                    slot[filled..filled + bytes.len()].copy_from_slice(bytes);
                    filled += bytes.len();
                }
            }
        }
        if run < filled {
            chain.push(slot_address + run as u64, filled - run);
        }
        Ok(Written {
            head,
            last: chain.last(),
            count: needs.descriptors as u16,
            frame_bytes: needs.frame_bytes,
        })
    }

    /// The same of a frame that is copied as a whole, into the slots of as many descriptors as it takes.
    #[cold]
    fn write_copied(
        &mut self,
        header: &[u8],
        pieces: &[Piece<'_>],
        offload: Offload,
        needs: &Needs,
    ) -> Result<Written, Reason> {
        if needs.descriptors > 1 {
            return Err(Reason::TooLong);
        }
        if !self.offloads.allow(offload) {
            return Err(Reason::NotNegotiated);
        }
        let count = needs.copied_bytes.div_ceil(SLOT_BYTES);
        if count > usize::from(self.free_count) {
            self.make_room(count)?;
        }
        if self.fault.is_some() {
            return Err(Reason::Broken);
        }
        let copied = pieces.iter().map(|piece| match *piece {
            Piece::Copy(bytes) => bytes,
            Piece::Lend(_) => &[],
        });
        let virtio = transmit_header(offload, header.len() as u16);
        let mut bytes = [&virtio[..], header].into_iter().chain(copied).flatten();
        let (head, mut number, mut left) = (self.free, self.free, needs.copied_bytes);
        let mut chain = Descriptors::new(&self.ring, &self.next, head, count);
        while left > 0 {
            let (offset, len) = (usize::from(number) * SLOT_BYTES, left.min(SLOT_BYTES));
            let slot = self.slots.bytes_mut(offset, len).ok_or(Reason::Broken)?;
            slot.iter_mut().zip(&mut bytes).for_each(|(to, from)| *to = *from);
            chain.push(self.slots.device_address() + offset as u64, len);
            number = self.next[usize::from(number)];
            left -= len;
        }
        Ok(Written { head, last: chain.last(), count: count as u16, frame_bytes: needs.frame_bytes })
    }

    /// Takes the descriptors of a written chain from the free stack and offers it.
    #[inline(always)]
    fn commit(&mut self, written: &Written, keep: K) {
        self.free = self.next[usize::from(written.last)];
        self.free_count -= written.count;
        self.pending += 1;
        let Place { device, queue, .. } = self.place;
        let frame = subject::of(subject::SENT, device, queue, self.statistics.frames);
        exos_trace::event!("frame queued", frame, exos_trace::followed());
        let position = self.ring.offer(written.head);
        self.chains[usize::from(written.head)] =
            Chain { keep: Some(keep), count: written.count, last: written.last, position };
        self.statistics.frames += 1;
        self.statistics.bytes += written.frame_bytes as u64;
    }

    #[cold]
    fn make_room(&mut self, descriptors: usize) -> Result<(), Reason> {
        if descriptors > usize::from(self.ring.size()) {
            return Err(Reason::TooManyPieces);
        }
        self.reclaim();
        if descriptors > usize::from(self.free_count) { Err(Reason::Full) } else { Ok(()) }
    }

    /// Takes one used entry: the chain's descriptors are free again, its `keep` is dropped.
    #[inline(always)]
    fn complete(&mut self) -> Result<(), RingFault> {
        let Used { id, .. } = self.ring.take();
        let chain = self.chains.get_mut(id as usize).ok_or(RingFault::NotOutstanding { id })?;
        if chain.count == 0 || !self.ring.was_published(chain.position) {
            return Err(RingFault::NotOutstanding { id });
        }
        self.free_count += chain.count;
        chain.count = 0;
        self.next[usize::from(chain.last)] = self.free;
        self.free = id as u16;
        self.pending -= 1;
        self.statistics.completed += 1;
        drop(chain.keep.take());
        Ok(())
    }

    /// Asks for an interrupt when three quarters of what the device has are sent.
    pub(crate) fn request_interrupt(&mut self) -> Arming {
        let outstanding = u32::from(self.ring.outstanding());
        if self.fault.is_some() || outstanding == 0 {
            return Arming::Sleep;
        }
        self.ring.request_interrupt((outstanding * 3 / 4).saturating_sub(1) as u16)
    }

    pub(crate) fn suppress_interrupts(&mut self) {
        self.ring.suppress_interrupts();
    }

    #[cold]
    fn fail(&mut self, fault: Fault) {
        exos_trace::event!("nic transmit fault", u64::from(self.place.queue), 0);
        self.fault = Some(fault);
    }
}

impl<H: Hal, K> Drop for TransmitQueue<H, K> {
    fn drop(&mut self) {
        if self.ring.unbind(&mut self.hal, self.place).is_err() {
            // The device may still read the frames.
            self.slots.leak();
            core::mem::forget(core::mem::take(&mut self.chains));
        }
    }
}

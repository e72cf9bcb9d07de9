//! The receive queue (VIRTIO 1.3 5.1.6.3, 5.1.6.4): buffers go to the device, frames come back. Descriptor `i` is buffer
//! `i`, for ever. A frame that is in one buffer is lent to the caller where it lies; one that the device has merged from
//! several is copied together. Whoever needs a frame's bytes for longer, to send them on from where they lie, keeps its buffer
//! ([`Frame::keep`]); it goes back to the device when that is dropped.

use crate::fault::{Fault, OpenError};
use crate::header::{Checksum, HEADER_BYTES, ReceiveHeader};
use abi::boot::Device;
use abi::queue::RingLayout;
use abi::trace::subject;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use exos_virtqueue::OpenError as QueueError;
use exos_virtqueue::ring::WRITE;
use exos_virtqueue::{Arming, Block, Contents, Hal, Notice, Place, Ring, RingFault, Used};

/// Bytes of the largest frame: an Ethernet header and the largest IP packet, rounded up as VIRTIO 1.3 5.1.6.3.1 has it.
pub(crate) const FRAME_BYTES_MAX: usize = 65_550;

/// Buffers begin on a cache line.
const CACHE_LINE_BYTES: usize = 64;
/// VIRTIO_NET_F_MRG_RXBUF.
const MERGEABLE: u32 = 15;
/// VIRTIO_NET_F_GUEST_TSO4, GUEST_TSO6, GUEST_UFO, GUEST_USO4, GUEST_USO6: frames may be larger than the MTU.
const LARGE_RECEIVE: u64 = 1 << 7 | 1 << 8 | 1 << 10 | 1 << 54 | 1 << 55;
/// Bytes of an Ethernet header with a VLAN tag.
const ETHERNET_BYTES: usize = 18;

/// What the queue has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveStatistics {
    /// Frames received.
    pub frames: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// Frames that were in several buffers and had to be copied together.
    pub merged: u64,
    /// Looks at the device's index that found frames.
    pub batches: u64,
    /// Doorbells rung.
    pub doorbells: u64,
}

/// A received frame. Its buffer goes back to the device with the next call of the queue.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    header: ReceiveHeader,
    subject: u64,
    /// The buffer, as long as nobody keeps it.
    lent: &'a Cell<Option<u16>>,
    returned: &'a Rc<Returned>,
}

/// Buffers that somebody kept, and let go again.
#[derive(Debug, Default)]
struct Returned(RefCell<Vec<u16>>);

/// The buffer of a frame that was received: its bytes stay as they are while this lives.
#[derive(Debug)]
pub struct Kept {
    number: u16,
    returned: Rc<Returned>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        // There is room for all buffers, so this takes no memory.
        self.returned.0.borrow_mut().push(self.number);
    }
}

impl<'a> Frame<'a> {
    /// The frame, from the Ethernet header on.
    #[inline(always)]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// As trace records name it.
    #[inline(always)]
    pub fn subject(&self) -> u64 {
        self.subject
    }

    /// What is known of its transport checksum.
    #[inline(always)]
    pub fn checksum(&self) -> Checksum {
        self.header.checksum
    }

    /// Keeps the frame's buffer from the device. `None`: it was kept before, or the frame was copied together and has none.
    #[inline]
    pub fn keep(&self) -> Option<Kept> {
        let number = self.lent.take()?;
        Some(Kept { number, returned: Rc::clone(self.returned) })
    }

    /// If the frame stands for several segments: bytes of data in each. Written by the device; 0 is possible.
    #[inline(always)]
    pub fn segment_bytes(&self) -> Option<u16> {
        self.header.segment_bytes
    }
}

/// Where a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Buffer {
    /// In the available ring, at this position.
    Posted(u16),
    /// With the driver.
    Here,
}

/// The receive queue of a pair.
#[derive(Debug)]
pub struct ReceiveQueue<H: Hal> {
    hal: H,
    place: Place,
    ring: Ring,
    buffers: Block,
    buffer_bytes: usize,
    states: Vec<Buffer>,
    /// The buffer of the frame that was given out last.
    lent: Cell<Option<u16>>,
    /// Those that were kept and may go back to the device.
    returned: Rc<Returned>,
    mergeable: bool,
    /// Where merged frames are copied together.
    scratch: Vec<u8>,
    fault: Option<Fault>,
    statistics: ReceiveStatistics,
}

impl<H: Hal> ReceiveQueue<H> {
    pub(crate) fn open(
        hal: H,
        place: Place,
        device: &Device,
        layout: RingLayout,
        buffer_bytes: usize,
    ) -> Result<Self, OpenError> {
        let mergeable = device.features >> MERGEABLE & 1 == 1;
        let frame_bytes = if device.features & LARGE_RECEIVE != 0 {
            FRAME_BYTES_MAX
        } else {
            (device.mtu_bytes.max(1500) as usize + ETHERNET_BYTES).min(FRAME_BYTES_MAX)
        };
        let count = usize::from(layout.size);
        let needed = HEADER_BYTES + frame_bytes;
        let buffer_bytes =
            buffer_bytes.checked_next_multiple_of(CACHE_LINE_BYTES).ok_or(QueueError::OutOfMemory)?;
        let all_bytes = buffer_bytes.checked_mul(count).ok_or(QueueError::OutOfMemory)?;
        // A descriptor's length has 32 bits.
        u32::try_from(buffer_bytes).map_err(|_| QueueError::OutOfMemory)?;
        if all_bytes < needed || !mergeable && buffer_bytes < needed || buffer_bytes < CACHE_LINE_BYTES {
            return Err(OpenError::BuffersTooSmall { needed });
        }

        let ring = Ring::new(&hal, layout, device.features)?;
        let buffers = Block::new(&hal, all_bytes, Contents::Stale)?;
        let mut scratch = Vec::new();
        scratch
            .try_reserve_exact(if mergeable { FRAME_BYTES_MAX } else { 0 })
            .map_err(|_| QueueError::OutOfMemory)?;
        let mut queue = Self {
            hal,
            place,
            ring,
            buffers,
            buffer_bytes,
            states: vec![Buffer::Here; count],
            lent: Cell::new(None),
            returned: Rc::new(Returned(RefCell::new(Vec::with_capacity(count)))),
            mergeable,
            scratch,
            fault: None,
            statistics: ReceiveStatistics::default(),
        };
        for number in 0..layout.size {
            let address = queue.buffers.device_address() + (usize::from(number) * buffer_bytes) as u64;
            queue.ring.set_descriptor(number, address, buffer_bytes as u32, WRITE, 0);
            queue.post(number);
        }
        queue.ring.bind(&mut queue.hal, place)?;
        queue.publish();
        Ok(queue)
    }

    /// The next frame. `None`: nothing is there; all buffers are with the device again.
    ///
    /// Buffers go back without a word until a quarter of the queue has come together or nothing more is there, so a batch
    /// costs one index store.
    #[inline]
    pub fn poll(&mut self) -> Option<Frame<'_>> {
        if self.fault.is_some() {
            return None;
        }
        if let Some(number) = self.lent.take() {
            self.post(number);
        }
        if self.ring.ready() == 0 {
            match self.ring.look() {
                Ok(0) => {
                    self.publish();
                    return None;
                }
                Ok(_) => self.statistics.batches += 1,
                Err(fault) => return self.fail(fault.into()),
            }
        } else if self.ring.unpublished() >= self.ring.size() / 4 {
            self.publish();
        }
        match self.take() {
            Ok((place, header)) => {
                let bytes = match place {
                    Bytes::Buffer { offset, len_bytes } => self.buffers.bytes(offset, len_bytes)?,
                    Bytes::Scratch => &self.scratch,
                };
                let number = self.statistics.frames;
                self.statistics.frames += 1;
                self.statistics.bytes += bytes.len() as u64;
                let Place { device, queue, .. } = self.place;
                let subject = subject::of(subject::RECEIVED, device, queue, number);
                Some(Frame { bytes, header, subject, lent: &self.lent, returned: &self.returned })
            }
            Err(fault) => self.fail(fault),
        }
    }

    /// Shows the device the buffers that were let go since [`Self::poll`] found nothing.
    #[inline]
    pub(crate) fn restock(&mut self) {
        if !self.returned.0.borrow().is_empty() {
            self.publish();
        }
    }

    /// Whether [`Self::poll`] has something to say: a frame, or a fault that is not known yet.
    #[inline]
    pub fn is_ready(&mut self) -> bool {
        if self.fault.is_some() {
            return false;
        }
        if self.ring.ready() > 0 {
            return true;
        }
        match self.ring.look() {
            Ok(0) => false,
            Ok(_) => {
                self.statistics.batches += 1;
                true
            }
            Err(_) => true,
        }
    }

    /// What the device did wrong, if the queue is stopped.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// What the queue has done.
    pub fn statistics(&self) -> &ReceiveStatistics {
        &self.statistics
    }

    /// Takes the next frame off the ring.
    #[inline(always)]
    fn take(&mut self) -> Result<(Bytes, ReceiveHeader), Fault> {
        let used = self.ring.take();
        let number = self.claim(used, HEADER_BYTES)?;
        if self.ring.ready() != 0 {
            // The next frame may lie in another core's cache. An id that is no buffer's is not in the block: no harm.
            self.buffers.prefetch((self.ring.peek(0).id as usize).saturating_mul(self.buffer_bytes));
        }
        let offset = usize::from(number) * self.buffer_bytes;
        let len_bytes = used.len_bytes as usize - HEADER_BYTES;
        let header = self.buffers.bytes(offset, HEADER_BYTES).and_then(|bytes| bytes.first_chunk());
        let header = ReceiveHeader::parse(header.ok_or(RingFault::NotOutstanding { id: used.id })?);
        if header.buffers == 1 {
            self.lent.set(Some(number));
            return Ok((Bytes::Buffer { offset: offset + HEADER_BYTES, len_bytes }, header));
        }
        self.merge(number, len_bytes, header.buffers)?;
        Ok((Bytes::Scratch, header))
    }

    /// Checks a used entry against what the device had, and takes the buffer from it.
    #[inline(always)]
    fn claim(&mut self, used: Used, len_bytes_min: usize) -> Result<u16, RingFault> {
        let state = self.states.get_mut(used.id as usize);
        match state {
            Some(state) => match *state {
                Buffer::Posted(position) if self.ring.was_published(position) => *state = Buffer::Here,
                _ => return Err(RingFault::NotOutstanding { id: used.id }),
            },
            None => return Err(RingFault::NotOutstanding { id: used.id }),
        }
        let len_bytes = used.len_bytes as usize;
        if len_bytes < len_bytes_min || len_bytes > self.buffer_bytes {
            return Err(RingFault::BadLength { len_bytes: used.len_bytes });
        }
        Ok(used.id as u16)
    }

    /// Copies a frame together that begins in buffer `first` and goes on in the next `count - 1` used ones, which have no
    /// header of their own. The buffers go back at once.
    #[cold]
    fn merge(&mut self, first: u16, first_bytes: usize, count: u16) -> Result<(), Fault> {
        let bad = Fault::BadBufferCount { count };
        let more = count.checked_sub(1).filter(|_| self.mergeable).ok_or(bad)?;
        if self.ring.ready() < more && self.ring.look()? < more {
            return Err(bad);
        }
        self.scratch.clear();
        self.gather(first, HEADER_BYTES, first_bytes)?;
        for _ in 0..more {
            let used = self.ring.take();
            let number = self.claim(used, 1)?;
            self.gather(number, 0, used.len_bytes as usize)?;
        }
        self.statistics.merged += 1;
        Ok(())
    }

    fn gather(&mut self, number: u16, skip: usize, len_bytes: usize) -> Result<(), Fault> {
        let part = self.buffers.bytes(usize::from(number) * self.buffer_bytes + skip, len_bytes);
        match part {
            Some(part) if part.len() <= FRAME_BYTES_MAX - self.scratch.len() => {
                self.scratch.extend_from_slice(part)
            }
            _ => return Err(Fault::FrameTooLong),
        }
        self.post(number);
        Ok(())
    }

    #[inline(always)]
    fn post(&mut self, number: u16) {
        let position = self.ring.offer(number);
        self.states[usize::from(number)] = Buffer::Posted(position);
    }

    /// Takes back what was kept and let go.
    fn take_back(&mut self) {
        loop {
            let number = self.returned.0.borrow_mut().pop();
            match number {
                Some(number) => self.post(number),
                None => return,
            }
        }
    }

    /// Shows the device the buffers that have come back.
    pub(crate) fn publish(&mut self) {
        if self.fault.is_some() {
            return;
        }
        if let Some(number) = self.lent.take() {
            self.post(number);
        }
        self.take_back();
        if self.ring.publish() == Notice::Doorbell {
            self.statistics.doorbells += 1;
            self.hal.doorbell(self.place.device, self.place.queue);
        }
    }

    pub(crate) fn request_interrupt(&mut self) -> Arming {
        if self.fault.is_some() { Arming::Sleep } else { self.ring.request_interrupt(0) }
    }

    pub(crate) fn suppress_interrupts(&mut self) {
        self.ring.suppress_interrupts();
    }

    #[cold]
    fn fail<T>(&mut self, fault: Fault) -> Option<T> {
        exos_trace::event!("nic receive fault", u64::from(self.place.queue), 0);
        self.fault = Some(fault);
        None
    }
}

impl<H: Hal> Drop for ReceiveQueue<H> {
    fn drop(&mut self) {
        let is_unbound = self.ring.unbind(&mut self.hal, self.place).is_ok();
        // Who keeps a buffer may have given it to another queue.
        if !is_unbound || Rc::strong_count(&self.returned) > 1 {
            self.buffers.leak();
        }
    }
}

/// Where the bytes of a frame are.
#[derive(Clone, Copy, Debug)]
enum Bytes {
    Buffer { offset: usize, len_bytes: usize },
    Scratch,
}

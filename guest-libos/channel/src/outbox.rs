//! A queue whose buffers the device reads. Bytes are copied into buffers of the queue's own; small writes share one until it
//! is published.

use crate::fault::{Fault, OpenError};
use abi::boot::Device;
use alloc::vec;
use alloc::vec::Vec;
use exos_virtqueue::ring;
use exos_virtqueue::{Arming, Block, Contents, Hal, Notice, OpenError as QueueError, Place, Ring, RingFault};

/// The queue.
#[derive(Debug)]
pub(crate) struct Outbox<H: Hal> {
    hal: H,
    place: Place,
    ring: Ring,
    buffers: Block,
    buffer_bytes: usize,
    free: Vec<u16>,
    /// Position in the available ring of each buffer that the device has.
    posted: Vec<Option<u16>>,
    /// The buffer that is being filled, and how much of it is.
    filling: Option<(u16, usize)>,
    /// A write found no room; the next buffer that comes back interrupts.
    crowded: bool,
    fault: Option<Fault>,
}

impl<H: Hal> Outbox<H> {
    /// Binds the queue, with `count` buffers, a power of two.
    pub(crate) fn open(
        hal: H,
        place: Place,
        device: &Device,
        count: u16,
        buffer_bytes: usize,
    ) -> Result<Self, OpenError> {
        let layout = ring::layout(device, count)?;
        u32::try_from(buffer_bytes).map_err(|_| QueueError::OutOfMemory)?;
        let all_bytes = buffer_bytes.checked_mul(count.into()).ok_or(QueueError::OutOfMemory)?;
        let ring = Ring::new(&hal, layout, device.features)?;
        let buffers = Block::new(&hal, all_bytes, Contents::Stale)?;
        let mut outbox = Self {
            hal,
            place,
            ring,
            buffers,
            buffer_bytes,
            free: (0..count).collect(),
            posted: vec![None; count.into()],
            filling: None,
            crowded: false,
            fault: None,
        };
        outbox.ring.bind(&mut outbox.hal, place)?;
        Ok(outbox)
    }

    /// What the device did wrong, if the queue is stopped.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Takes bytes; returns how many there was room for. If that is not all, room interrupts when it comes.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> usize {
        let len = bytes.len();
        while !bytes.is_empty() {
            let Some((number, filled)) = self.filling.or_else(|| self.buffer().map(|number| (number, 0)))
            else {
                break;
            };
            let count = bytes.len().min(self.buffer_bytes - filled);
            let Some(room) = self.buffers.bytes_mut(usize::from(number) * self.buffer_bytes + filled, count)
            else {
                break;
            };
            room.copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.filling = Some((number, filled + count));
            if filled + count == self.buffer_bytes {
                self.offer();
            }
        }
        len - bytes.len()
    }

    /// Whether a message can be written, which needs a buffer of its own.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.free.is_empty() {
            self.wait_for_room();
        }
        !self.free.is_empty() && self.fault.is_none()
    }

    /// Writes a message into a buffer of its own. Only after [`Self::has_room`].
    pub(crate) fn write_message(&mut self, bytes: &[u8]) {
        self.offer();
        self.write(bytes);
        self.offer();
    }

    /// Whether a write that had no room would have some now, or a fault is not known yet.
    #[inline]
    pub(crate) fn is_ready(&mut self) -> bool {
        self.fault.is_none() && self.crowded && !matches!(self.ring.look(), Ok(0))
    }

    /// A free buffer.
    fn buffer(&mut self) -> Option<u16> {
        if self.free.is_empty() {
            self.wait_for_room();
        }
        if self.fault.is_some() { None } else { self.free.pop() }
    }

    /// Takes back what the device has read; if it has read nothing, asks to be told when it does.
    fn wait_for_room(&mut self) {
        self.publish();
        while self.fault.is_none() {
            self.reclaim();
            if !self.free.is_empty() || self.crowded {
                return;
            }
            self.crowded = self.ring.request_interrupt(0) == Arming::Sleep;
        }
    }

    fn reclaim(&mut self) {
        if let Err(fault) = self.take_back() {
            self.fault = Some(fault.into());
        }
    }

    fn take_back(&mut self) -> Result<(), RingFault> {
        while self.ring.ready() > 0 || self.ring.look()? > 0 {
            let id = self.ring.take().id;
            let refused = RingFault::NotOutstanding { id };
            let position = self.posted.get_mut(id as usize).ok_or(refused)?;
            if !position.is_some_and(|position| self.ring.was_published(position)) {
                return Err(refused);
            }
            *position = None;
            self.free.push(id as u16);
            if core::mem::take(&mut self.crowded) {
                self.ring.suppress_interrupts();
            }
        }
        Ok(())
    }

    /// Puts the buffer that is being filled into the ring.
    fn offer(&mut self) {
        let Some((number, filled)) = self.filling.take() else { return };
        let address = self.buffers.device_address() + (usize::from(number) * self.buffer_bytes) as u64;
        self.ring.set_descriptor(number, address, filled as u32, 0, 0);
        let position = self.ring.offer(number);
        if let Some(place) = self.posted.get_mut(usize::from(number)) {
            *place = Some(position);
        }
    }

    /// Shows the device everything that was written.
    pub(crate) fn publish(&mut self) {
        self.offer();
        if self.fault.is_none() && self.ring.publish() == Notice::Doorbell {
            self.hal.doorbell(self.place.device, self.place.queue);
        }
    }
}

impl<H: Hal> Drop for Outbox<H> {
    fn drop(&mut self) {
        if self.ring.unbind(&mut self.hal, self.place).is_err() {
            self.buffers.leak();
        }
    }
}

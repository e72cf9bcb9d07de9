//! A queue whose buffers the device fills. Descriptor `i` is buffer `i`, for ever; a filled buffer is read where it lies and
//! goes back when all of it is read.

use crate::fault::{Fault, OpenError};
use abi::boot::Device;
use alloc::vec;
use alloc::vec::Vec;
use exos_virtqueue::ring::{self, WRITE};
use exos_virtqueue::{Arming, Block, Contents, Hal, Notice, OpenError as QueueError, Place, Ring, RingFault};

/// Where a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Buffer {
    /// In the available ring, at this position.
    Posted(u16),
    /// Here.
    Here,
}

/// What of a filled buffer is still to be read.
#[derive(Clone, Copy, Debug)]
struct Filled {
    number: u16,
    from: usize,
    to: usize,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Inbox<H: Hal> {
    hal: H,
    place: Place,
    ring: Ring,
    buffers: Block,
    buffer_bytes: usize,
    states: Vec<Buffer>,
    filled: Option<Filled>,
    /// Whether the next filled buffer interrupts.
    armed: bool,
    fault: Option<Fault>,
}

impl<H: Hal> Inbox<H> {
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
        let states = vec![Buffer::Here; count.into()];
        let mut inbox =
            Self { hal, place, ring, buffers, buffer_bytes, states, filled: None, armed: false, fault: None };
        for number in 0..count {
            let address = inbox.buffers.device_address() + (usize::from(number) * buffer_bytes) as u64;
            inbox.ring.set_descriptor(number, address, buffer_bytes as u32, WRITE, 0);
            inbox.post(number);
        }
        inbox.ring.bind(&mut inbox.hal, place)?;
        inbox.publish();
        // Nothing is there yet, or it is seen with the first look.
        inbox.armed = inbox.ring.request_interrupt(0) == Arming::Sleep;
        Ok(inbox)
    }

    /// What the device did wrong, if the queue is stopped.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The bytes that are there, in one buffer; empty: none. They stay until [`Self::consume`].
    pub(crate) fn peek(&mut self) -> &[u8] {
        if self.filled.is_none() && self.fault.is_none() {
            match self.next() {
                Ok(filled) => self.filled = filled,
                Err(fault) => self.fault = Some(fault.into()),
            }
        }
        let bytes = self.filled.and_then(|Filled { number, from, to }| {
            self.buffers.bytes(usize::from(number) * self.buffer_bytes + from, to - from)
        });
        bytes.unwrap_or(&[])
    }

    /// Bytes that [`Self::peek`] gave are done with.
    pub(crate) fn consume(&mut self, count: usize) {
        let Some(filled) = &mut self.filled else { return };
        filled.from = (filled.from + count).min(filled.to);
        if filled.from == filled.to {
            let number = filled.number;
            self.filled = None;
            self.post(number);
        }
    }

    /// Whether there is something to read, or a fault that is not known yet.
    #[inline]
    pub(crate) fn is_ready(&mut self) -> bool {
        self.fault.is_none()
            && (self.filled.is_some() || self.ring.ready() > 0 || !matches!(self.ring.look(), Ok(0)))
    }

    /// Asks for an interrupt with the next filled buffer, if nothing is here.
    pub(crate) fn request_interrupt(&mut self) -> Arming {
        if self.fault.is_some() {
            return Arming::Sleep;
        }
        self.publish();
        if !self.armed && self.filled.is_none() {
            self.armed = true;
            return self.ring.request_interrupt(0);
        }
        if self.is_ready() { Arming::WorkArrived } else { Arming::Sleep }
    }

    /// The next buffer that holds bytes. Empty ones go back at once. With `None`, the next filled one interrupts.
    fn next(&mut self) -> Result<Option<Filled>, RingFault> {
        loop {
            if self.ring.ready() == 0 && self.ring.look()? == 0 {
                self.publish();
                if self.armed || self.ring.request_interrupt(0) == Arming::Sleep {
                    self.armed = true;
                    return Ok(None);
                }
                continue;
            }
            self.armed = false;
            let used = self.ring.take();
            let refused = RingFault::NotOutstanding { id: used.id };
            let state = self.states.get_mut(used.id as usize).ok_or(refused)?;
            match *state {
                Buffer::Posted(position) if self.ring.was_published(position) => *state = Buffer::Here,
                _ => return Err(refused),
            }
            let number = used.id as u16;
            let len_bytes = used.len_bytes as usize;
            if len_bytes > self.buffer_bytes {
                return Err(RingFault::BadLength { len_bytes: used.len_bytes });
            }
            if len_bytes > 0 {
                return Ok(Some(Filled { number, from: 0, to: len_bytes }));
            }
            self.post(number);
        }
    }

    fn post(&mut self, number: u16) {
        let position = self.ring.offer(number);
        if let Some(state) = self.states.get_mut(usize::from(number)) {
            *state = Buffer::Posted(position);
        }
    }

    /// Shows the device the buffers that have come back.
    pub(crate) fn publish(&mut self) {
        if self.fault.is_none() && self.ring.publish() == Notice::Doorbell {
            self.hal.doorbell(self.place.device, self.place.queue);
        }
    }
}

impl<H: Hal> Drop for Inbox<H> {
    fn drop(&mut self) {
        if self.ring.unbind(&mut self.hal, self.place).is_err() {
            self.buffers.leak();
        }
    }
}

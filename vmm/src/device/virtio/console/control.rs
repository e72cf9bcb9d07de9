//! The control queues (VIRTIO 1.3 5.3.6.2): what the driver says of ports, and what it is told of them.
//!
//! What has to be said is state of the ports, not a list: however much a driver asks and however little it listens, nothing
//! grows. Messages of the right length that no driver sends (an unknown event, a port that there is not, one out of order)
//! are ignored and counted; a chain that is too short for a message stops its queue.

use super::super::QueueInterrupt;
use super::super::queue::{Limits, QueueError};
use super::super::slot::Slot;
use super::message::{FromDriver, MESSAGE_BYTES, MESSAGE_BYTES_MAX};
use super::port::{Announce, Left, Port};
use super::{Console, Role, Worked};
use crate::backend::PinnedMemory;
use crate::backend::iovec::{gather, scatter};

/// More than any message has.
const LIMITS: Limits = Limits { bytes: 4096, segments: 16 };
/// Messages of one call, each way; the others wait for the next.
const MESSAGES_A_CALL: u32 = 64;

impl<M: PinnedMemory> Console<M> {
    /// Hears what the driver says.
    pub(super) fn take_messages(&mut self, interrupt: &mut impl QueueInterrupt, worked: &mut Worked) {
        let mut taken = 0;
        let result = self.serve_messages(&mut taken);
        self.readable.refill();
        worked.messages += taken;
        self.metrics.messages_taken += u64::from(taken);
        let end = self.end(Role::ControlTransmit, result, interrupt);
        worked.reached_guest |= end.notified;
        worked.more |= end.more;
    }

    fn serve_messages(&mut self, taken: &mut u32) -> Result<Left, QueueError> {
        let Slot::Running(queue) = &mut self.control_transmit else { return Ok(Left::Empty) };
        if !queue.begin()? {
            return Ok(Left::Empty);
        }
        while *taken < MESSAGES_A_CALL {
            let Slot::Running(queue) = &mut self.control_transmit else { return Ok(Left::Empty) };
            let Some(chain) = queue.next_chain(LIMITS, self.readable.refill())? else {
                return Ok(Left::Empty);
            };
            let mut bytes = [0; MESSAGE_BYTES];
            // What follows the structure is no driver's to say, and passed over.
            if gather(self.readable.pieces(), 0, &mut bytes) < MESSAGE_BYTES {
                return Err(QueueError::TooShort { bytes: chain.bytes, min: MESSAGE_BYTES as u32 });
            }
            queue.advance();
            queue.complete(chain.head, 0);
            *taken += 1;
            self.heed(FromDriver::parse(bytes));
        }
        Ok(Left::Budget)
    }

    fn port(&mut self, number: u32) -> Option<&mut Port<M>> {
        self.ports.get_mut(number as usize)
    }

    fn heed(&mut self, message: FromDriver) {
        self.messages_due = true;
        let sensible = match message {
            FromDriver::Ready => {
                self.ports.iter_mut().for_each(|port| port.restart(Announce::Yes));
                true
            }
            FromDriver::NotReady => {
                self.ports.iter_mut().for_each(|port| port.restart(Announce::No));
                true
            }
            FromDriver::PortReady { port } => self.port(port).is_some_and(Port::ready),
            FromDriver::PortNotReady { port } => self.port(port).is_some_and(Port::not_ready),
            FromDriver::PortOpen { port } => self.port(port).is_some_and(Port::open),
            FromDriver::PortClosed { port } => self.port(port).map(Port::close).is_some(),
            FromDriver::Unknown { .. } => false,
        };
        if !sensible {
            if self.metrics.messages_ignored == 0 {
                tracing::warn!(
                    "console: {message:?} makes no sense and is ignored; more of this are only counted"
                );
            }
            self.metrics.messages_ignored += 1;
        }
    }

    /// Says what the driver must know.
    pub(super) fn give_messages(&mut self, interrupt: &mut impl QueueInterrupt, worked: &mut Worked) {
        let mut given = 0;
        let result = self.say_messages(&mut given);
        self.writable.clear();
        worked.messages += given;
        self.metrics.messages_given += u64::from(given);
        // Without buffers, the driver's next one brings us here again.
        self.messages_due = result == Ok(Left::Budget);
        self.messages_starved = result == Ok(Left::Empty);
        let end = self.end(Role::ControlReceive, result, interrupt);
        worked.reached_guest |= given > 0;
        worked.more |= end.more;
    }

    fn say_messages(&mut self, given: &mut u32) -> Result<Left, QueueError> {
        let Self { ports, control_receive, writable, .. } = self;
        let Slot::Running(queue) = control_receive else { return Ok(Left::Empty) };
        if !queue.begin()? {
            let due = ports.iter().any(|port| port.next_message().is_some());
            return Ok(if due { Left::Empty } else { Left::Host });
        }
        for (number, port) in ports.iter_mut().enumerate() {
            while let Some(message) = port.next_message() {
                if *given == MESSAGES_A_CALL {
                    return Ok(Left::Budget);
                }
                let mut bytes = [0; MESSAGE_BYTES_MAX];
                let len = message.encode(number as u32, &mut bytes);
                writable.clear();
                let Some(chain) = queue.next_chain(LIMITS, writable)? else { return Ok(Left::Empty) };
                if (chain.bytes as usize) < len {
                    return Err(QueueError::TooShort { bytes: chain.bytes, min: len as u32 });
                }
                scatter(writable.pieces(), 0, &bytes[..len]);
                queue.advance();
                queue.complete(chain.head, len as u32);
                port.told(message);
                *given += 1;
            }
        }
        Ok(Left::Host)
    }
}

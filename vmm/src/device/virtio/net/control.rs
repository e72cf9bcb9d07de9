//! The control queue (VIRTIO 1.3 5.1.6.5): it is there because VIRTIO_NET_F_MQ requires it, and takes the one command that
//! comes with that feature. Steering does not depend on it: a pair takes part as soon as it is enabled and a flow names it.

use super::super::QueueInterrupt;
use super::super::queue::{Limits, QueueError, Virtqueue};
use super::{Net, Slot, notify, stop};
use crate::backend::iovec::{gather, scatter};
use crate::backend::{Backend, Gather, PinnedMemory, Scatter};

const CLASS_MQ: u8 = 4;
const COMMAND_VQ_PAIRS_SET: u8 = 0;
const OK: u8 = 0;
const ERROR: u8 = 1;
/// More than any command has.
const LIMITS: Limits = Limits { bytes: 4096, segments: 16 };
/// Commands of one call; the others wait for the next.
const COMMANDS: usize = 4;

impl<M: PinnedMemory, B: Backend> Net<M, B> {
    /// Answers commands.
    #[cold]
    pub(super) fn control(&mut self, interrupt: &mut impl QueueInterrupt) {
        let number = 2 * usize::from(self.config.queue_pairs);
        let Slot::Running(queue) = &mut self.control else { return };
        let result = serve(queue, self.config.queue_pairs);
        notify(queue.publish(), number, interrupt, &mut self.metrics);
        if let Err(error) = result {
            let environment = queue.environment();
            stop(&mut self.control, number, environment, error, &mut self.metrics);
        }
    }
}

/// Answers what is there.
fn serve<M: PinnedMemory>(queue: &mut Virtqueue<M>, queue_pairs: u16) -> Result<(), QueueError> {
    if !queue.begin()? {
        return Ok(());
    }
    for _ in 0..COMMANDS {
        let mut command = Gather::with_capacity(LIMITS.segments);
        let mut answer = Scatter::with_capacity(LIMITS.segments);
        let Some(chain) = queue.next_request(LIMITS, command.refill(), &mut answer)? else { break };
        let mut bytes = [0; 4];
        let len = gather(command.pieces(), 0, &mut bytes);
        let ack = match bytes {
            [CLASS_MQ, COMMAND_VQ_PAIRS_SET, low, high] if len == 4 => {
                let pairs = u16::from_le_bytes([low, high]);
                if (1..=queue_pairs).contains(&pairs) { OK } else { ERROR }
            }
            _ => ERROR,
        };
        if scatter(answer.pieces(), 0, &[ack]) == 0 {
            return Err(QueueError::TooShort { bytes: chain.bytes, min: 3 });
        }
        queue.advance();
        queue.complete(chain.head, 1);
    }
    Ok(())
}

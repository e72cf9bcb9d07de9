//! Receiving from a backend that fills buffers by itself, on its senders' threads: the buffers of the pair that gets every frame
//! are lent to it, and what it has filled is shown to the driver here. While flows are divided there is no such pair, and frames
//! go the other way.

use super::super::queue::QueueError;
use super::receive::{Attempt, received};
use super::{Clock, Net};
use crate::backend::{Backend, Filled, Grant, HEADER_BYTES, PinnedMemory};
use crate::tables::Flows;
use crate::trace::Happening;
use abi::flow::Target;
use vm_memory::Permissions;

/// The right to put every frame into the buffers of a pair.
struct Right<M> {
    memory: M,
    flows: Flows,
    environment: u32,
    pair: usize,
}

impl<M: PinnedMemory> Grant for Right<M> {
    #[inline]
    fn allows(&self, gpa: u64, len_bytes: usize) -> bool {
        self.memory.still_allows(gpa, len_bytes, Permissions::Write)
    }

    #[inline]
    fn is_current(&self) -> bool {
        only_target(&self.flows).is_some_and(|target| {
            (u32::from(target.environment), usize::from(target.queue_pair)) == (self.environment, self.pair)
        })
    }
}

/// Who gets every frame, by one queue pair.
#[inline]
pub(super) fn only_target(flows: &Flows) -> Option<Target> {
    flows.undivided()?.filter(|target| target.queue_pairs == 1)
}

impl<M: PinnedMemory, B: Backend> Net<M, B> {
    /// Receives a frame that lies in a lent buffer, or lends more. `None`: the backend must be read.
    #[inline]
    pub(super) fn receive_lent(&mut self, only_pair: Option<usize>, clock: &Clock<'_>) -> Option<Attempt> {
        let Some(pair) = self.receiver.lent else { return self.lend(only_pair?) };
        let stays = only_pair == Some(pair);
        let filler = self.backend.filler()?;
        if !stays {
            filler.recall();
        }
        match filler.filled() {
            Filled::Frame(bytes) => Some(self.complete_lent(pair, bytes, clock)),
            Filled::Nothing if stays => self.lend(pair),
            Filled::Foreign(gpa, len) => {
                self.fail_lent(pair, QueueError::Foreign { gpa, len, writable: true });
                Some(Attempt::Done)
            }
            Filled::Queued | Filled::Nothing => {
                filler.recall();
                self.take_back(pair);
                None
            }
        }
    }

    /// Shows the driver a frame that lies in the first buffers of a pair.
    #[inline]
    fn complete_lent(&mut self, pair: usize, bytes: usize, clock: &Clock<'_>) -> Attempt {
        let from_tsc = clock.since_tsc();
        let Some(queue) = self.receive[pair].running().filter(|queue| queue.failed.is_none()) else {
            self.metrics.receive_dropped_queue += 1;
            return Attempt::Done;
        };
        let begun = &mut self.receiver.begun;
        let result = if *begun & 1 << pair == 0 { queue.ring.begin().map(drop) } else { Ok(()) };
        *begun |= 1 << pair;
        if let Err(error) = result.and_then(|()| queue.window.check_first(&queue.ring)) {
            queue.failed = Some(error);
            return Attempt::Done;
        }
        queue.window.complete(&mut queue.ring, bytes);
        self.metrics.count_received(&mut self.pairs[pair], bytes - HEADER_BYTES);
        let number = queue.number();
        clock.happened(Happening::Received, received(self.config.device_index, pair, number), from_tsc);
        Attempt::Done
    }

    /// Lends the backend what the driver of a pair has given since. `None`: the backend must be read.
    #[inline]
    fn lend(&mut self, pair: usize) -> Option<Attempt> {
        let (merging, bytes_max) = (self.merging(), self.receive_bytes_max());
        let filler = self.backend.filler()?;
        let queue = self.receive.get_mut(pair)?.running().filter(|queue| queue.failed.is_none())?;
        if queue.ring.is_waiting() {
            let begun = &mut self.receiver.begun;
            let result = if *begun & 1 << pair == 0 { queue.ring.begin().map(drop) } else { Ok(()) };
            *begun |= 1 << pair;
            if let Err(error) = result.and_then(|()| queue.window.fill(&mut queue.ring, usize::MAX)) {
                queue.failed = Some(error);
                return Some(Attempt::Done);
            }
        }
        if queue.window.has_unlent() {
            let (memory, environment) = (queue.ring.memory(), queue.ring.environment());
            let flows = &self.flows;
            let grant = || {
                Box::new(Right { memory: memory.clone(), flows: flows.clone(), environment, pair })
                    as Box<dyn Grant>
            };
            if queue.window.lend(&queue.ring, (merging, bytes_max), &grant, filler) {
                self.receiver.lent = Some(pair);
            } else if self.receiver.lent.is_none() {
                return None;
            }
        }
        match (self.receiver.lent, queue.window.buffers()) {
            (None, _) => None,
            (Some(_), 0) => Some(Attempt::Starved),
            (Some(_), _) => Some(Attempt::Nothing),
        }
    }

    fn fail_lent(&mut self, pair: usize, error: QueueError) {
        self.receiver.begun |= 1 << pair;
        if let Some(queue) = self.receive[pair].running() {
            queue.failed = Some(error);
        }
    }

    /// The backend has given up the buffers of a pair: from now on they are filled here.
    fn take_back(&mut self, pair: usize) {
        self.receiver.lent = None;
        let Some(queue) = self.receive[pair].running() else { return };
        queue.window.take_back();
        // What the sender would have asked is asked here from now on.
        if let Err(error) = queue.window.check(&queue.ring) {
            self.fail_lent(pair, error);
        }
    }

    /// A receive queue goes: the backend gives up what it was lent of it, and frames in its buffers are lost.
    pub(super) fn forget_lent(&mut self, pair: usize) {
        if self.receiver.lent == Some(pair) {
            self.receiver.lent = None;
            if let Some(filler) = self.backend.filler() {
                filler.forget();
            }
        }
    }
}

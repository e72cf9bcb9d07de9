//! Receive: from the backend into the guest's buffers.
//!
//! While the flows are undivided and their target is one queue pair, a frame is read straight into that pair's window of
//! buffers. Otherwise it is read into a bounce buffer, looked up, and copied to where it belongs. A frame that does not fit
//! into what the driver has given is held and delivered later while the NIC is undivided (as on a socket, nothing is lost and
//! the backend is left alone meanwhile); with divided flows it is dropped, so that nobody waits for somebody else's buffers.

use super::super::QueueInterrupt;
use super::super::features as bits;
use super::super::queue::{Publication, QueueError, Virtqueue};
use super::lend::only_target;
use super::window::{Merging, Window};
use super::{Clock, Net, Slot, Worked, notify, stop};
use crate::account::ledger::Bucket;
use crate::backend::{Backend, FRAME_BYTES_MAX, HEADER_BYTES, IoVecMut, PinnedMemory};
use crate::tables::frame::tells_of_link;
use crate::tables::{Flows, FrameKey};
use crate::trace::Happening;
use abi::trace::subject;

/// A receive queue and its window. The window's pieces lie in the queue's memory, so they go together.
#[derive(Debug)]
pub(super) struct ReceiveQueue<M> {
    pub(super) window: Window,
    pub(super) ring: Virtqueue<M>,
    /// Frames given to the driver so far.
    frames: u64,
    /// What the driver did wrong in this batch; the queue stops at the batch's end.
    pub(super) failed: Option<QueueError>,
}

impl<M: PinnedMemory> ReceiveQueue<M> {
    pub(super) fn new(ring: Virtqueue<M>) -> Self {
        Self { window: Window::new(ring.size()), ring, frames: 0, failed: None }
    }

    /// The next frame's number.
    #[inline]
    pub(super) fn number(&mut self) -> u64 {
        self.frames += 1;
        self.frames - 1
    }

    /// Begins a batch.
    #[inline]
    fn begin(&mut self) -> Result<(), QueueError> {
        self.ring.begin()?;
        self.window.check(&self.ring)
    }
}

/// What reception keeps between calls.
#[derive(Debug)]
pub(super) struct Receiver {
    /// One byte more than a frame has, so that a longer one is noticed.
    bounce: Box<[u8]>,
    /// Bytes of a frame in `bounce` that waits for buffers.
    held: Option<usize>,
    starved: bool,
    /// Which pairs began a batch in this call.
    pub(super) begun: u32,
    /// Whether the last read failed; the log gets one line.
    backend_failed: bool,
    /// The pair whose buffers the backend was lent (see [`super::lend`]).
    pub(super) lent: Option<usize>,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            bounce: vec![0; FRAME_BYTES_MAX + 1].into_boxed_slice(),
            held: None,
            starved: false,
            begun: 0,
            backend_failed: false,
            lent: None,
        }
    }

    pub(super) fn starved(&self) -> bool {
        self.starved
    }

    pub(super) fn reset(&mut self) {
        self.held = None;
        self.starved = false;
    }
}

/// A frame as records name it.
#[inline]
pub(super) fn received(device: u32, pair: usize, number: u64) -> u64 {
    subject::of(subject::RECEIVED, device, 2 * pair as u32, number)
}

/// What became of one attempt to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// A frame was received or dropped.
    Done,
    /// The guest has no buffers.
    Starved,
    /// The backend has no frame.
    Nothing,
}

impl<M: PinnedMemory, B: Backend> Net<M, B> {
    /// Receives what there is.
    pub(super) fn receive_all(
        &mut self,
        clock: &mut Clock<'_>,
        budget: u32,
        interrupt: &mut impl QueueInterrupt,
        worked: &mut Worked,
    ) {
        let received_before = self.metrics.received_frames;
        self.receiver.begun = 0;
        self.receiver.starved = false;
        clock.enter(Bucket::NetReceive);
        let mut left = budget;
        loop {
            if left == 0 {
                worked.more_to_receive = true;
                break;
            }
            let copies = self.metrics.receive_link_copies;
            match self.receive_one(clock) {
                Attempt::Done => {
                    let copies = self.metrics.receive_link_copies - copies;
                    left = left.saturating_sub(1 + copies as u32);
                }
                Attempt::Nothing => break,
                Attempt::Starved => {
                    self.receiver.starved = true;
                    self.metrics.receive_starved += 1;
                    break;
                }
            }
        }
        for pair in 0..self.receive.len() {
            if self.receiver.begun & 1 << pair == 0 {
                continue;
            }
            let slot = &mut self.receive[pair];
            let Some(queue) = slot.running() else { continue };
            let publication = queue.ring.publish();
            self.metrics.receive_batches += u64::from(publication != Publication::Nothing);
            notify(publication, 2 * pair, interrupt, &mut self.metrics);
            if let Some(error) = queue.failed {
                let environment = queue.ring.environment();
                stop(slot, 2 * pair, environment, error, &mut self.metrics);
                self.forget_lent(pair);
            }
        }
        worked.receive_starved = self.receiver.starved;
        worked.received = (self.metrics.received_frames - received_before) as u32;
    }

    /// Receives one frame.
    #[inline]
    fn receive_one(&mut self, clock: &mut Clock<'_>) -> Attempt {
        if let Some(bytes) = self.receiver.held {
            return self.deliver(bytes, clock, clock.since_tsc());
        }
        let only_pair = self.only_pair();
        if let Some(attempt) = self.receive_lent(only_pair, clock) {
            return attempt;
        }
        match only_pair {
            Some(pair) => self.receive_direct(pair, clock),
            None if self.receive.iter().any(Slot::is_running) => self.receive_bounced(clock),
            // Nobody is there yet: frames wait in the backend.
            None => Attempt::Starved,
        }
    }

    /// The pair that gets every frame, if there is one.
    #[inline]
    pub(super) fn only_pair(&mut self) -> Option<usize> {
        let target = only_target(&self.flows)?;
        let pair = usize::from(target.queue_pair);
        let queue = self.receive.get_mut(pair)?.running()?;
        (queue.ring.environment() == u32::from(target.environment)).then_some(pair)
    }

    pub(super) fn merging(&self) -> Merging {
        if self.features & bits::NET_MRG_RXBUF != 0 { Merging::Allowed } else { Merging::Forbidden }
    }

    /// Begins the pair's batch if it has not begun, and takes buffers for `bytes`. The room that there is then; `None`: the
    /// queue is not in service.
    #[inline]
    fn prepare(&mut self, pair: usize, bytes: usize) -> Option<usize> {
        let merging = self.merging();
        let queue = self.receive.get_mut(pair)?.running().filter(|queue| queue.failed.is_none())?;
        let begun = &mut self.receiver.begun;
        let result = if *begun & 1 << pair == 0 { queue.begin() } else { Ok(()) };
        *begun |= 1 << pair;
        queue.failed = result.and_then(|()| queue.window.fill(&mut queue.ring, bytes)).err();
        queue.failed.is_none().then(|| queue.window.room(merging))
    }

    /// Reads a frame straight into the buffers of a pair.
    #[inline]
    fn receive_direct(&mut self, pair: usize, clock: &mut Clock<'_>) -> Attempt {
        let (merging, bytes_max) = (self.merging(), self.receive_bytes_max());
        // One more than the longest frame: then one that fills all of it was cut.
        let Some(room) = self.prepare(pair, bytes_max + 1) else { return Attempt::Starved };
        let Some(queue) = self.receive[pair].running() else { return Attempt::Starved };
        if room == 0 {
            return Attempt::Starved;
        }
        let overflow = self.receiver.bounce.get_mut(room..).unwrap_or(&mut []);
        let backend = &mut self.backend;
        clock.enter(Bucket::BackendRead);
        let from_tsc = clock.since_tsc();
        let read = queue.window.read(merging, bytes_max + 1, overflow, |pieces| backend.read_frame(pieces));
        clock.enter(Bucket::NetReceive);
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            other => return self.no_frame(other.err()),
        };
        if !(HEADER_BYTES + 14..=bytes_max).contains(&bytes) {
            self.metrics.receive_dropped_length += 1;
        } else if bytes <= room {
            queue.window.complete(&mut queue.ring, bytes);
            self.metrics.count_received(&mut self.pairs[pair], bytes - HEADER_BYTES);
            clock.happened(
                Happening::Received,
                received(self.config.device_index, pair, queue.number()),
                from_tsc,
            );
        } else {
            queue.window.copy_out(&mut self.receiver.bounce[..room]);
            return self.deliver(bytes, clock, from_tsc);
        }
        Attempt::Done
    }

    /// Reads a frame into the bounce buffer and takes it to where it belongs.
    fn receive_bounced(&mut self, clock: &mut Clock<'_>) -> Attempt {
        clock.enter(Bucket::BackendRead);
        let from_tsc = clock.since_tsc();
        let read = self.backend.read_frame(&[IoVecMut::of(&mut self.receiver.bounce)]);
        clock.enter(Bucket::NetReceive);
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            other => return self.no_frame(other.err()),
        };
        if !(HEADER_BYTES + 14..=self.receive_bytes_max()).contains(&bytes) {
            self.metrics.receive_dropped_length += 1;
            return Attempt::Done;
        }
        self.deliver(bytes, clock, from_tsc)
    }

    /// Takes the frame in the bounce buffer, on which work began at `from_tsc`, to its flow's queue.
    fn deliver(&mut self, bytes: usize, clock: &Clock<'_>, from_tsc: u64) -> Attempt {
        self.receiver.held = None;
        let key = FrameKey::parse(&self.receiver.bounce[HEADER_BYTES..bytes]);
        let undivided = self.flows.undivided().is_some();
        let found = self.flows.lookup(key.as_ref());
        self.flow_metrics.counters.lookups += 1;
        let Some(target) = found else {
            self.metrics.receive_dropped_flow += 1;
            self.flow_metrics.counters.unmatched += 1;
            return Attempt::Done;
        };
        if let Some(hits) = self.flow_metrics.hits.get_mut(usize::from(target.environment)) {
            *hits += 1;
        }
        let pair = usize::from(Flows::queue_pair(&target, key.as_ref()));
        let attempt = self.place(bytes, pair, target.environment, undivided, clock, from_tsc);
        if !undivided && tells_of_link(&self.receiver.bounce[HEADER_BYTES..bytes]) {
            self.copy_to_others(bytes, target.environment, clock, from_tsc);
        }
        attempt
    }

    /// Gives copies of the frame in the bounce buffer to who hears of the link, besides `environment`.
    #[cold]
    fn copy_to_others(&mut self, bytes: usize, environment: u16, clock: &Clock<'_>, from_tsc: u64) {
        for target in self.flows.hearing_link() {
            if target.environment != environment {
                self.metrics.receive_link_copies += 1;
                let pair = usize::from(target.queue_pair);
                self.place(bytes, pair, target.environment, false, clock, from_tsc);
            }
        }
    }

    /// Copies the frame in the bounce buffer to a queue, if that is this environment's.
    fn place(
        &mut self,
        bytes: usize,
        pair: usize,
        environment: u16,
        undivided: bool,
        clock: &Clock<'_>,
        from_tsc: u64,
    ) -> Attempt {
        let queue = self.receive.get_mut(pair).and_then(Slot::running);
        if queue.is_none_or(|queue| queue.ring.environment() != u32::from(environment)) {
            self.metrics.receive_dropped_queue += 1;
            return Attempt::Done;
        }
        let merging = self.merging();
        let room = self.prepare(pair, bytes);
        let (Some(room), Some(queue)) = (room, self.receive[pair].running()) else {
            self.metrics.receive_dropped_queue += 1;
            return Attempt::Done;
        };
        if room >= bytes {
            queue.window.copy_in(&self.receiver.bounce[..bytes]);
            queue.window.complete(&mut queue.ring, bytes);
            self.metrics.count_received(&mut self.pairs[pair], bytes - HEADER_BYTES);
            self.metrics.receive_copied += 1;
            clock.happened(
                Happening::Received,
                received(self.config.device_index, pair, queue.number()),
                from_tsc,
            );
            return Attempt::Done;
        }
        // It can never fit if the driver has given all it can, or if buffers are not merged.
        let hopeless = queue.window.buffers() >= usize::from(queue.ring.size())
            || (merging == Merging::Forbidden && queue.window.buffers() > 0);
        if hopeless || !undivided {
            self.metrics.receive_dropped_buffers += 1;
            self.pairs[pair].queue_receive_dropped += 1;
            return Attempt::Done;
        }
        self.receiver.held = Some(bytes);
        Attempt::Starved
    }

    /// The backend had no frame.
    fn no_frame(&mut self, error: Option<crate::backend::BackendError>) -> Attempt {
        if let Some(error) = &error {
            self.metrics.backend_errors += 1;
            if !self.receiver.backend_failed {
                tracing::error!("no frames from the network backend: {error}");
            }
        }
        self.receiver.backend_failed = error.is_some();
        Attempt::Nothing
    }
}

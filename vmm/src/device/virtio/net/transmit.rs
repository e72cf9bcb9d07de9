//! Transmit: from the guest's pages into the backend by one gathering write a frame, without a copy. Only the header, and
//! the fields by which flows are told apart where flows are divided, are copied first, so that what was checked is what is
//! sent.

use super::super::QueueInterrupt;
use super::super::queue::{Limits, QueueError, Virtqueue};
use super::{Clock, FlowMetrics, Net, NetMetrics, PairMetrics, Slot, header, notify, stop};
use crate::account::ledger::Bucket;
use crate::backend::iovec::gather;
use crate::backend::{Backend, FRAME_BYTES_MAX, Gather, HEADER_BYTES, PinnedMemory, SEGMENTS_MAX, Written};
use crate::tables::Flows;
use crate::tables::frame::KEY_BYTES;
use crate::trace::Happening;
use abi::trace::subject;

/// Header and Ethernet header: a frame has no less.
const FRAME_BYTES_MIN: u32 = HEADER_BYTES as u32 + 14;
/// What a chain may have; one piece is left for the copied front.
const LIMITS: Limits = Limits { bytes: FRAME_BYTES_MAX as u32, segments: SEGMENTS_MAX - 1 };

/// What transmission keeps between calls.
#[derive(Debug)]
pub(super) struct Sender {
    pieces: Gather,
}

impl Sender {
    pub(super) fn new() -> Self {
        Self { pieces: Gather::with_capacity(SEGMENTS_MAX) }
    }

    /// A queue goes: its memory may go with it.
    pub(super) fn forget(&mut self) {
        self.pieces.refill();
    }
}

/// Why a queue was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Nothing more to send.
    Empty,
    /// The budget is used up.
    Budget,
    /// The backend has no room.
    Full,
    /// The backend is at it in another thread.
    Busy,
}

/// Everything that sending from one queue needs of the NIC.
struct Transmission<'n, 'c, 'l, B> {
    pieces: &'n mut Gather,
    backend: &'n mut B,
    flows: &'n mut Flows,
    metrics: &'n mut NetMetrics,
    pair: &'n mut PairMetrics,
    flow_metrics: &'n mut FlowMetrics,
    features: u64,
    /// Device and queue, for records.
    place: (u32, u32),
    /// When the frame's write began.
    from_tsc: u64,
    clock: &'c mut Clock<'l>,
}

impl<M: PinnedMemory, B: Backend> Net<M, B> {
    /// Serves all transmit queues, beginning with the one after that at which the last call had to end.
    pub(super) fn transmit_all(
        &mut self,
        clock: &mut Clock<'_>,
        budget: u32,
        interrupt: &mut impl QueueInterrupt,
        worked: &mut super::Worked,
    ) {
        let pairs = self.transmit.len();
        let mut left = budget;
        let first = self.first_pair;
        for pair in (0..pairs).map(|turn| (first + turn) % pairs) {
            let slot = &mut self.transmit[pair];
            let Slot::Running(queue) = slot else { continue };
            let mut transmission = Transmission {
                pieces: &mut self.sender.pieces,
                backend: &mut self.backend,
                flows: &mut self.flows,
                metrics: &mut self.metrics,
                pair: &mut self.pairs[pair],
                flow_metrics: &mut self.flow_metrics,
                features: self.features,
                place: (self.config.device_index, 2 * pair as u32 + 1),
                from_tsc: clock.since_tsc(),
                clock,
            };
            let end = transmission.serve(queue, &mut left);
            let publication = queue.publish();
            self.metrics.send_batches += u64::from(publication != super::Publication::Nothing);
            notify(publication, 2 * pair + 1, interrupt, &mut self.metrics);
            match end {
                Ok(Left::Empty) => {}
                Ok(left) => {
                    if !worked.more_to_send {
                        self.first_pair = (pair + 1) % pairs;
                    }
                    worked.more_to_send |= matches!(left, Left::Budget | Left::Busy);
                    worked.backend_full |= left == Left::Full;
                }
                Err(error) => {
                    let environment = queue.environment();
                    self.sender.forget();
                    stop(slot, 2 * pair + 1, environment, error, &mut self.metrics);
                }
            }
            if worked.backend_full {
                break;
            }
        }
        worked.sent = budget - left;
    }
}

impl<B: Backend> Transmission<'_, '_, '_, B> {
    /// Sends what a queue has.
    #[inline]
    fn serve<M: PinnedMemory>(
        &mut self,
        queue: &mut Virtqueue<M>,
        budget: &mut u32,
    ) -> Result<Left, QueueError> {
        if !queue.begin()? {
            return Ok(Left::Empty);
        }
        self.clock.enter(Bucket::NetTransmit);
        loop {
            if *budget == 0 {
                return Ok(Left::Budget);
            }
            let Some(chain) = queue.next_chain(LIMITS, self.pieces.refill())? else { return Ok(Left::Empty) };
            if chain.bytes < FRAME_BYTES_MIN {
                return Err(QueueError::TooShort { bytes: chain.bytes, min: FRAME_BYTES_MIN });
            }
            match self.send(queue.environment(), chain.bytes as usize) {
                Written::Sent | Written::Dropped => {}
                Written::Busy => return Ok(Left::Busy),
                Written::WouldBlock => {
                    self.metrics.backend_full += 1;
                    return Ok(Left::Full);
                }
            }
            *budget -= 1;
            self.write_down(queue.taken());
            queue.advance();
            queue.complete(chain.head, 0);
        }
    }

    /// The frame with this number has just been sent, or dropped.
    #[inline]
    fn write_down(&self, number: u64) {
        let (device, queue) = self.place;
        let frame = subject::of(subject::SENT, device, queue, number);
        self.clock.happened(Happening::Sent, frame, self.from_tsc);
    }

    /// Sends the frame in `pieces`, if it may be sent. Dropped frames are counted.
    #[inline]
    fn send(&mut self, environment: u32, bytes: usize) -> Written {
        let mut front = [0; HEADER_BYTES + KEY_BYTES];
        // An undivided NIC needs nothing of the frame; whose it is follows from the queue.
        let divided = self.flows.undivided().is_none();
        let front_bytes = if divided { front.len().min(bytes) } else { HEADER_BYTES };
        let front = &mut front[..front_bytes];
        gather(self.pieces.pieces(), 0, front);
        let (header, key_bytes) = front.split_at_mut(HEADER_BYTES);
        let checked = <&mut [u8; HEADER_BYTES]>::try_from(header).ok().and_then(|header| {
            *header = header::check(header, bytes - HEADER_BYTES, self.features)?;
            Some(())
        });
        if checked.is_none() {
            self.metrics.send_dropped_header += 1;
            self.pair.queue_send_dropped += 1;
            return Written::Dropped;
        }
        let may_send = self.flows.may_send(environment, key_bytes);
        self.flow_metrics.counters.send_lookups += u64::from(divided);
        if !may_send {
            self.metrics.send_dropped_flow += 1;
            self.pair.queue_send_dropped += 1;
            self.flow_metrics.counters.send_refused += u64::from(divided);
            return Written::Dropped;
        }
        self.clock.enter(Bucket::BackendWrite);
        self.from_tsc = self.clock.since_tsc();
        let backend = &mut *self.backend;
        let written = self.pieces.send_with_front(front, |frame| backend.write_frame(frame));
        self.clock.enter(Bucket::NetTransmit);
        match written {
            Written::Sent => {
                self.metrics.sent_frames += 1;
                self.metrics.sent_bytes += (bytes - HEADER_BYTES) as u64;
                self.pair.queue_sent_frames += 1;
                self.pair.queue_sent_bytes += (bytes - HEADER_BYTES) as u64;
            }
            Written::Dropped => {
                self.metrics.send_dropped_backend += 1;
                self.pair.queue_send_dropped += 1;
            }
            Written::WouldBlock | Written::Busy => {}
        }
        written
    }
}

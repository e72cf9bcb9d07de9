//! The disk: virtio-blk with many queues over one image (VIRTIO 1.3 5.2).
//!
//! All device work is [`Block::work`]: it takes requests, does at once what the host has at hand, hands over to threads what may
//! have to wait ([`workers`]), and completes what they have finished; within a budget and without blocking, so that it can be
//! called wherever the NIC's can. Queues belong to environments: what memory a request may touch says the DMA domain, which
//! blocks it may read or write the extent table, both at each request.
//!
//! | the driver's mistake | what it gets |
//! | --- | --- |
//! | a chain that leads astray, leaves the DMA domain, has no header or no status byte | the queue stops, with a reason in the log |
//! | blocks outside of its extents or of the disk, no whole blocks, too many, a write to a read-only disk | VIRTIO_BLK_S_IOERR |
//! | an unknown type of request, or a flag that does not exist | VIRTIO_BLK_S_UNSUPP |
//!
//! What fails on the host (an I/O error, no space, an image that was cut short) is VIRTIO_BLK_S_IOERR and a line in the log.

use std::sync::Arc;

use abi::extent::BLOCK_BYTES;
use vmm_sys_util::eventfd::EventFd;

use super::queue::{Publication, QueueError, Virtqueue};
use super::slot::{Binding, Clock, Doorbells, QueueState, Slot};
use super::{Binder, QueueInterrupt};
use crate::account::ledger::{Bucket, Ledger};
use crate::backend::PinnedMemory;
use crate::backend::disk::{Input, Output, Store};
use crate::tables::Extents;
use crate::trace::Happening;

mod device;
mod function;
mod metrics;
mod request;
mod serve;
mod workers;

#[cfg(test)]
mod tests;

pub use metrics::{BlockMetrics, Latencies};
pub use request::TRANSFER_BYTES_MAX;
pub use workers::{InFlight, WORKERS_MAX};

use serve::Service;
use workers::{Done, Workers};

/// Largest queue: a chain may then not have more pieces than a system call takes.
pub const QUEUE_SIZE_MAX: u16 = 1024;

/// What a disk is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// Its number in the device table.
    pub device_index: u32,
    /// Queues, 1 to [`abi::queue::QUEUES_PER_DEVICE`].
    pub queues: u16,
    /// Largest size of a queue, a power of two up to [`QUEUE_SIZE_MAX`].
    pub queue_size_max: u16,
}

/// Why a disk cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Queues.
    #[error("{queues} queues are not possible; use 1 to {max}", max = abi::queue::QUEUES_PER_DEVICE)]
    Queues {
        /// What was asked for.
        queues: u16,
    },
    /// Size.
    #[error("queues of {size} entries are not possible; use a power of two from 4 to {QUEUE_SIZE_MAX}")]
    QueueSize {
        /// What was asked for.
        size: u16,
    },
}

/// How much one call of [`Block::work`] may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Requests to take.
    pub requests: u32,
    /// Bytes to copy out of the host's page cache.
    pub bytes: u64,
}

impl Default for Budget {
    /// A copy of 4 MiB takes a few hundred microseconds: what frames can wait.
    fn default() -> Self {
        Self { requests: 256, bytes: 4 << 20 }
    }
}

/// What one call of [`Block::work`] did, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worked {
    /// Requests taken from the guest.
    pub taken: u32,
    /// Requests given back to the guest.
    pub completed: u32,
    /// The budget ended before the queues did: call again.
    pub more: bool,
    /// A queue stopped for an error during this call.
    pub stopped: bool,
}

/// The disk.
#[derive(Debug)]
pub struct Block<M: PinnedMemory> {
    config: BlockConfig,
    binder: Binding<M>,
    store: Image,
    extents: Extents,
    features: u64,
    queues: Vec<Slot<Virtqueue<M>>>,
    workers: Workers<M>,
    /// Finished jobs on their way from the threads; empty between calls.
    finished: Vec<Done<M>>,
    /// Pieces of the request that is being taken.
    output: Output,
    input: Input,
    metrics: BlockMetrics,
    latencies: Latencies,
    /// The queue that is served first next time.
    first_queue: usize,
    doorbells: Doorbells,
}

/// The store, without demanding that it can be printed.
struct Image(Arc<dyn Store>);

impl std::fmt::Debug for Image {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Image({} bytes, {:?})", self.0.len_bytes(), self.0.access())
    }
}

impl<M: PinnedMemory + Clone> Block<M> {
    /// A disk whose queues are all off. `event` becomes readable when [`Self::work`] has something to complete that it has
    /// handed over.
    pub fn new(
        config: BlockConfig,
        binder: Arc<dyn Binder<M>>,
        extents: Extents,
        store: Arc<dyn Store>,
        event: EventFd,
    ) -> Result<Self, BlockError> {
        let BlockConfig { queues, queue_size_max: size, .. } = config;
        // One vector is for changes of the configuration.
        if !(1..abi::queue::QUEUES_PER_DEVICE as u16).contains(&queues) {
            return Err(BlockError::Queues { queues });
        }
        if !size.is_power_of_two() || !(4..=QUEUE_SIZE_MAX).contains(&size) {
            return Err(BlockError::QueueSize { size });
        }
        let workers = Workers::new(Arc::clone(&store), extents.clone(), config.device_index, event);
        Ok(Self {
            config,
            binder: Binding::new(binder),
            store: Image(store),
            extents,
            features: 0,
            queues: (0..queues).map(|_| Slot::Off).collect(),
            workers,
            finished: Vec::new(),
            output: Output::default(),
            input: Input::default(),
            metrics: BlockMetrics::default(),
            latencies: Latencies::default(),
            first_queue: 0,
            doorbells: Doorbells::Wanted,
        })
    }

    /// What it is like.
    pub fn config(&self) -> &BlockConfig {
        &self.config
    }

    /// Blocks that there are.
    pub fn capacity_blocks(&self) -> u64 {
        self.store.0.len_bytes() / BLOCK_BYTES
    }

    /// The counters now.
    pub fn metrics(&self) -> BlockMetrics {
        self.metrics
    }

    /// How long requests took so far.
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// The requests that threads are at for an environment. All others ask for its rights before they begin.
    pub fn in_flight(&self, environment: u32) -> InFlight<M> {
        self.workers.in_flight(environment)
    }

    /// The ledgers of the threads that it has or may have.
    pub fn ledgers(&self) -> &[Arc<Ledger>] {
        self.workers.ledgers()
    }

    /// The state of each queue, by its number.
    pub fn queue_states(&self) -> Vec<QueueState> {
        self.queues.iter().map(|slot| slot.state(Virtqueue::environment)).collect()
    }

    /// The device work: completes what the threads have finished, takes what the guest made available, within the budget.
    /// Shows each queue's completions by one store and raises at most one interrupt a queue.
    pub fn work(&mut self, ledger: &Ledger, budget: Budget, interrupt: &mut impl QueueInterrupt) -> Worked {
        let mut worked = Worked::default();
        let mut clock = Clock::new(ledger);
        let stopped_before = self.metrics.queues_stopped;
        if self.workers.has_finished() {
            clock.enter(Bucket::Disk(self.config.device_index as u8));
            self.complete_finished(&clock, &mut worked);
        }
        let count = self.queues.len();
        let first = self.first_queue;
        let mut left = budget;
        for number in (0..count).map(|turn| (first + turn) % count) {
            let slot = &mut self.queues[number];
            let Slot::Running(queue) = slot else { continue };
            let mut service = Service {
                number: number as u16,
                device_index: self.config.device_index,
                store: &self.store.0,
                extents: &self.extents,
                workers: &mut self.workers,
                output: &mut self.output,
                input: &mut self.input,
                metrics: &mut self.metrics,
                latencies: &mut self.latencies,
                geometry: serve::geometry(&*self.store.0, self.features),
                clock: &mut clock,
            };
            let end = service.serve(queue, &mut left, &mut worked);
            let publication = queue.publish();
            notify(publication, number, interrupt, &mut self.metrics);
            match end {
                Ok(serve::Left::Empty) => {}
                Ok(serve::Left::Budget) => {
                    if !worked.more {
                        self.first_queue = (number + 1) % count;
                    }
                    worked.more = true;
                }
                Err(error) => {
                    let environment = queue.environment();
                    stop(slot, &self.config, number, environment, error, &mut self.metrics);
                }
            }
        }
        self.output.refill();
        self.input.refill();
        worked.stopped = self.metrics.queues_stopped != stopped_before;
        clock.end();
        worked
    }

    /// Gives back what the threads have finished. Shown with each queue's next publication.
    fn complete_finished(&mut self, clock: &Clock<'_>, worked: &mut Worked) {
        self.workers.take_finished(&mut self.finished);
        for done in self.finished.drain(..) {
            let number = usize::from(done.job.queue);
            let slot = &mut self.queues[number];
            // A queue that stopped meanwhile gets nothing any more.
            let Slot::Running(queue) = slot else { continue };
            let (metrics, latencies) = (&mut self.metrics, &mut self.latencies);
            match serve::complete(queue, &done, self.config.device_index, metrics, latencies) {
                Ok(()) => {
                    worked.completed += 1;
                    clock.happened(Happening::DiskDone, done.job.subject, done.job.taken_tsc);
                }
                Err(error) => {
                    let environment = queue.environment();
                    stop(slot, &self.config, number, environment, error, &mut self.metrics);
                }
            }
        }
    }

    /// Asks for the doorbells of all queues. `true`: there is work already, do not sleep.
    pub fn arm(&mut self) -> bool {
        self.doorbells = Doorbells::Wanted;
        let mut work = self.workers.has_finished();
        for queue in self.queues.iter_mut().filter_map(Slot::running) {
            work |= queue.arm();
        }
        work
    }

    /// Asks for no doorbells: somebody polls.
    pub fn disarm(&mut self) {
        self.doorbells = Doorbells::Suppressed;
        for queue in self.queues.iter_mut().filter_map(Slot::running) {
            queue.disarm();
        }
    }
}

/// Raises the interrupt that a publication asks for, and counts.
#[inline]
fn notify(
    publication: Publication,
    queue: usize,
    interrupt: &mut impl QueueInterrupt,
    metrics: &mut BlockMetrics,
) {
    match publication {
        Publication::Nothing => return,
        Publication::Notify => {
            metrics.notifications_sent += 1;
            interrupt.raise(queue as u16);
        }
        Publication::Quiet => metrics.notifications_suppressed += 1,
    }
    metrics.batches += 1;
}

/// Takes a queue out of service. The one line that the log gets of it.
#[cold]
fn stop<Q>(
    slot: &mut Slot<Q>,
    config: &BlockConfig,
    queue: usize,
    environment: u32,
    error: QueueError,
    metrics: &mut BlockMetrics,
) {
    let device = config.device_index;
    tracing::error!(
        device,
        queue,
        environment,
        "disk queue stopped: {error}; it works again after a queue reset"
    );
    metrics.queues_stopped += 1;
    metrics.dma_refusals += u64::from(error.is_dma_refusal());
    *slot = Slot::Stopped(error);
}

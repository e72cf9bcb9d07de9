//! Requests of one queue: taken, checked, done at once or handed over, and completed.

use std::sync::Arc;

use abi::extent::BLOCK_BYTES;

use super::super::features as bits;
use super::super::queue::{Limits, QueueError, Virtqueue};
use super::super::slot::Clock;
use super::request::{self, Geometry, Refusal, Status, Task};
use super::workers::{Done, Job, Workers};
use super::{BlockMetrics, Budget, Latencies, Worked};
use crate::account::ledger::{Bucket, now_tsc};
use crate::backend::disk::{Input, Output, StatusByte, Store};
use crate::backend::{PinnedMemory, SEGMENTS_MAX};
use crate::tables::Extents;
use crate::trace::Happening;
use abi::trace::subject;

/// What a chain may have. More bytes than a transfer may be are the request's mistake, not the chain's.
const LIMITS: Limits = Limits { bytes: u32::MAX, segments: SEGMENTS_MAX };
/// Largest read that is tried at once: longer ones would keep the frames waiting.
const AT_ONCE_BYTES_MAX: u64 = 1 << 20;

/// Why a queue was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing more to take.
    Empty,
    /// The budget is used up.
    Budget,
}

/// The disk as requests see it.
pub(super) fn geometry(store: &dyn Store, features: u64) -> Geometry {
    Geometry {
        capacity_blocks: store.len_bytes() / BLOCK_BYTES,
        access: store.access(),
        discard: features & bits::BLK_DISCARD != 0,
        write_zeroes: features & bits::BLK_WRITE_ZEROES != 0,
    }
}

/// Everything that serving one queue needs of the disk.
pub(super) struct Service<'d, 'c, 'l, M: PinnedMemory> {
    pub(super) number: u16,
    pub(super) device_index: u32,
    pub(super) store: &'d Arc<dyn Store>,
    pub(super) extents: &'d Extents,
    pub(super) workers: &'d mut Workers<M>,
    pub(super) output: &'d mut Output,
    pub(super) input: &'d mut Input,
    pub(super) metrics: &'d mut BlockMetrics,
    pub(super) latencies: &'d mut Latencies,
    pub(super) geometry: Geometry,
    pub(super) clock: &'c mut Clock<'l>,
}

/// What became of a request that was looked at.
enum Outcome {
    /// Done: its status, and the bytes written besides.
    Now(Status, u64),
    /// Something may wait; so many bytes are there already.
    Later(Task, u64),
}

impl<M: PinnedMemory + Clone> Service<'_, '_, '_, M> {
    /// Takes what a queue has.
    pub(super) fn serve(
        &mut self,
        queue: &mut Virtqueue<M>,
        budget: &mut Budget,
        worked: &mut Worked,
    ) -> Result<Left, QueueError> {
        if !queue.begin()? {
            return Ok(Left::Empty);
        }
        self.clock.enter(Bucket::Disk(self.device_index as u8));
        loop {
            if budget.requests == 0 || budget.bytes == 0 {
                return Ok(Left::Budget);
            }
            let (output, input) = (self.output.refill(), self.input.refill());
            let Some(chain) = queue.next_request(LIMITS, output, input)? else { return Ok(Left::Empty) };
            let (header, status) = request::take_frame(output, input)?;
            let subject =
                subject::of(subject::DISK, self.device_index, u32::from(self.number), queue.taken());
            let taken_tsc = self.clock.since_tsc();
            queue.advance();
            budget.requests -= 1;
            worked.taken += 1;
            match self.handle(queue.environment(), header, budget, taken_tsc) {
                Outcome::Now(how, bytes) => {
                    finish(queue, chain.head, &status, how, bytes)?;
                    worked.completed += 1;
                    self.clock.happened(Happening::DiskDone, subject, taken_tsc);
                }
                Outcome::Later(task, done_bytes) => {
                    self.hand_over(queue, chain.head, (subject, taken_tsc), status, task, done_bytes);
                }
            }
        }
    }

    /// Does what can be done without waiting.
    fn handle(
        &mut self,
        environment: u32,
        header: [u8; request::HEADER_BYTES],
        budget: &mut Budget,
        taken_tsc: u64,
    ) -> Outcome {
        let task = match request::parse(header, self.output, self.input, &self.geometry) {
            Ok(task) => task,
            Err(refusal) => return self.refuse(environment, refusal),
        };
        if let Some((blocks, rights)) = task.needs() {
            let allowed =
                self.extents.check(environment, self.device_index, blocks.start, blocks.count, rights);
            if let Err(error) = allowed {
                self.metrics.refused_extent += 1;
                if self.metrics.refused_extent.is_power_of_two() {
                    let times = self.metrics.refused_extent;
                    tracing::warn!(device = self.device_index, times, "disk request refused: {error}");
                }
                return Outcome::Now(Status::IoError, 0);
            }
        }
        match task {
            Task::Read(blocks) if blocks.len_bytes() <= AT_ONCE_BYTES_MAX => {
                budget.bytes = budget.bytes.saturating_sub(blocks.len_bytes());
                self.clock.enter(Bucket::DiskRead(self.device_index as u8));
                let read = self.store.read_at_once(blocks.offset(), self.input.list());
                self.clock.enter(Bucket::Disk(self.device_index as u8));
                match read {
                    Ok(Some(len)) if len as u64 == blocks.len_bytes() => {
                        self.metrics.reads_at_once += 1;
                        self.latencies.add(&task, self.clock.since_tsc().saturating_sub(taken_tsc));
                        count(&task, self.metrics);
                        Outcome::Now(Status::Ok, blocks.len_bytes())
                    }
                    Ok(Some(len)) => {
                        self.input.consume(len);
                        Outcome::Later(task, len as u64)
                    }
                    // An error is met again, and reported, by the thread that may wait.
                    Ok(None) | Err(_) => Outcome::Later(task, 0),
                }
            }
            Task::Identify => {
                let mut name = [0; request::ID_BYTES];
                let text = format!("exovm-disk-{}", self.device_index);
                for (byte, letter) in name.iter_mut().zip(text.bytes()) {
                    *byte = letter;
                }
                Outcome::Now(Status::Ok, self.input.copy_from(&name) as u64)
            }
            task => Outcome::Later(task, 0),
        }
    }

    /// Answers a request that cannot be.
    fn refuse(&mut self, environment: u32, refusal: Refusal) -> Outcome {
        let counter = match refusal {
            Refusal::Unsupported { .. } => &mut self.metrics.unsupported,
            Refusal::ReadOnly => &mut self.metrics.refused_read_only,
            _ => &mut self.metrics.refused_range,
        };
        *counter += 1;
        // Each time that their number has doubled: an environment cannot flood the log.
        if counter.is_power_of_two() {
            let (device, times) = (self.device_index, *counter);
            tracing::warn!(device, environment, times, "disk request refused: {refusal}");
        }
        Outcome::Now(refusal.status(), 0)
    }

    fn hand_over(
        &mut self,
        queue: &Virtqueue<M>,
        head: u16,
        (subject, taken_tsc): (u64, u64),
        status: StatusByte,
        task: Task,
        done_bytes: u64,
    ) {
        self.metrics.handed_over += 1;
        self.workers.submit(Job {
            queue: self.number,
            environment: queue.environment(),
            head,
            subject,
            taken_tsc,
            task,
            done_bytes,
            output: std::mem::take(self.output),
            input: std::mem::take(self.input),
            status,
            memory: queue.memory().clone(),
        });
    }
}

/// Gives a request back that a thread has finished.
pub(super) fn complete<M: PinnedMemory>(
    queue: &mut Virtqueue<M>,
    done: &Done<M>,
    device: u32,
    metrics: &mut BlockMetrics,
    latencies: &mut Latencies,
) -> Result<(), QueueError> {
    // The rings may have left the domain since.
    queue.begin()?;
    let job = &done.job;
    let (status, bytes) = match &done.result {
        Ok(()) => {
            count(&job.task, metrics);
            latencies.add(&job.task, now_tsc().saturating_sub(job.taken_tsc));
            (Status::Ok, job.done_bytes + job.input.bytes() as u64)
        }
        Err(failure) => {
            metrics.host_errors += 1;
            if metrics.host_errors.is_power_of_two() {
                let (task, times) = (&job.task, metrics.host_errors);
                tracing::error!(device, times, "disk request failed: {task:?}: {failure}");
            }
            (Status::IoError, 0)
        }
    };
    finish(queue, job.head, &job.status, status, bytes)
}

/// Writes the status and gives the chain back, of which `bytes` were written besides.
fn finish<M: PinnedMemory>(
    queue: &mut Virtqueue<M>,
    head: u16,
    place: &StatusByte,
    status: Status,
    bytes: u64,
) -> Result<(), QueueError> {
    place.write(queue.memory(), status as u8).map_err(|(gpa, len)| QueueError::Foreign {
        gpa,
        len,
        writable: true,
    })?;
    queue.complete(head, bytes as u32 + 1);
    Ok(())
}

/// A request has succeeded.
fn count(task: &Task, metrics: &mut BlockMetrics) {
    match task {
        Task::Read(blocks) => {
            metrics.reads += 1;
            metrics.read_bytes += blocks.len_bytes();
        }
        Task::Write(blocks) => {
            metrics.writes += 1;
            metrics.written_bytes += blocks.len_bytes();
        }
        Task::Flush => metrics.flushes += 1,
        Task::Discard(_) => metrics.discards += 1,
        Task::WriteZeroes(..) => metrics.zeroings += 1,
        Task::Identify => {}
    }
}

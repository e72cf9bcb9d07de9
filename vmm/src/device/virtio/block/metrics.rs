//! Counters of a disk. Plain numbers behind the disk's own lock; a snapshot is a copy.

use super::request::Task;
use crate::stat::histogram::CycleHistogram;
use crate::stat::metrics::metrics;

metrics! {
    /// What a disk did since it was made.
    pub struct BlockMetrics {
        /// Reads that succeeded.
        pub reads: u64,
        /// Bytes of the reads that succeeded.
        pub read_bytes: u64,
        /// Reads that succeeded, had their data at hand on the host, and that no thread waited for.
        pub reads_at_once: u64,
        /// Writes that succeeded.
        pub writes: u64,
        /// Bytes of the writes that succeeded.
        pub written_bytes: u64,
        /// Flushes: `fdatasync` calls that succeeded.
        pub flushes: u64,
        /// Discards that succeeded.
        pub discards: u64,
        /// Writes of zeros that succeeded.
        pub zeroings: u64,
        /// Requests refused because they are unaligned, beyond the end, or not shaped as their kind must be.
        pub refused_range: u64,
        /// Requests refused because the environment has no extent for them.
        pub refused_extent: u64,
        /// Requests refused because the disk is read-only.
        pub refused_read_only: u64,
        /// Requests of a kind that does not exist or was not negotiated.
        pub unsupported: u64,
        /// Requests that failed on the host.
        pub host_errors: u64,
        /// Requests that a thread had to wait for.
        pub handed_over: u64,
        /// Used indices published: batches.
        pub batches: u64,
        /// Interrupts raised.
        pub notifications_sent: u64,
        /// Publications of which the driver did not want to hear.
        pub notifications_suppressed: u64,
        /// Queues stopped for an error.
        pub queues_stopped: u64,
        /// Queues stopped because a descriptor or a ring lies outside of the environment's DMA domain.
        pub dma_refusals: u64,
    }
}

/// How long requests that succeeded took, from being taken to being given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    read: CycleHistogram,
    write: CycleHistogram,
    flush: CycleHistogram,
    other: CycleHistogram,
}

impl Latencies {
    /// Each kind of request with its histogram.
    pub fn by_kind(&self) -> [(&'static str, &CycleHistogram); 4] {
        [("read", &self.read), ("write", &self.write), ("flush", &self.flush), ("other", &self.other)]
    }

    pub(super) fn add(&mut self, task: &Task, cycles: u64) {
        let histogram = match task {
            Task::Read(_) => &mut self.read,
            Task::Write(_) => &mut self.write,
            Task::Flush => &mut self.flush,
            Task::Discard(_) | Task::WriteZeroes(..) | Task::Identify => &mut self.other,
        };
        histogram.add(cycles);
    }
}

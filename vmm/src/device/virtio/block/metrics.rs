//! Counters of a disk. Plain numbers behind the disk's own lock; a snapshot is a copy.

/// What a disk did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockMetrics {
    /// Reads that succeeded.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Reads, of these, that the host had at hand and that no thread waited for.
    pub reads_at_once: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Their bytes.
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
}

impl BlockMetrics {
    /// All counters with their names, for tables and JSON.
    pub fn entries(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("reads", self.reads),
            ("read bytes", self.read_bytes),
            ("reads at once", self.reads_at_once),
            ("writes", self.writes),
            ("written bytes", self.written_bytes),
            ("flushes", self.flushes),
            ("discards", self.discards),
            ("zeroings", self.zeroings),
            ("refused range", self.refused_range),
            ("refused extent", self.refused_extent),
            ("refused read-only", self.refused_read_only),
            ("unsupported", self.unsupported),
            ("host errors", self.host_errors),
            ("handed over", self.handed_over),
            ("batches", self.batches),
            ("notifications sent", self.notifications_sent),
            ("notifications suppressed", self.notifications_suppressed),
            ("queues stopped", self.queues_stopped),
        ]
    }
}

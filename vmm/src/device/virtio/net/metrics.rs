//! Counters of a NIC. Plain numbers behind the NIC's own lock; a snapshot is a copy.

/// What a NIC did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetMetrics {
    /// Frames that the backend took.
    pub sent_frames: u64,
    /// Their bytes, without the header.
    pub sent_bytes: u64,
    /// Frames that the guest got.
    pub received_frames: u64,
    /// Their bytes, without the header.
    pub received_bytes: u64,
    /// Guest's frames whose header asks for something impossible or not negotiated.
    pub send_dropped_header: u64,
    /// Guest's frames that their environment may not send.
    pub send_dropped_flow: u64,
    /// Guest's frames that the backend refused.
    pub send_dropped_backend: u64,
    /// Received frames that no flow wants.
    pub receive_dropped_flow: u64,
    /// Received frames whose queue is not enabled, or belongs to another environment than the flow.
    pub receive_dropped_queue: u64,
    /// Received frames whose queue had no buffers.
    pub receive_dropped_buffers: u64,
    /// Received frames that are cut short or too long.
    pub receive_dropped_length: u64,
    /// Reads of the backend that failed.
    pub backend_errors: u64,
    /// How often the backend had no room for a frame; the frame waits.
    pub backend_full: u64,
    /// How often frames had to wait for receive buffers.
    pub receive_starved: u64,
    /// Used indices of transmit queues published: batches.
    pub send_batches: u64,
    /// Used indices of receive queues published: batches.
    pub receive_batches: u64,
    /// Frames that went through the bounce buffer, because the flows are divided or buffers were short.
    pub receive_copied: u64,
    /// Interrupts raised.
    pub notifications_sent: u64,
    /// Publications of which the driver did not want to hear.
    pub notifications_suppressed: u64,
    /// Queues stopped for an error.
    pub queues_stopped: u64,
    /// Look-ups that met a flow table in the middle of a change for too long.
    pub flow_table_stuck: u64,
}

impl NetMetrics {
    /// All counters with their names, for tables and JSON.
    pub fn entries(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("sent frames", self.sent_frames),
            ("sent bytes", self.sent_bytes),
            ("received frames", self.received_frames),
            ("received bytes", self.received_bytes),
            ("send dropped header", self.send_dropped_header),
            ("send dropped flow", self.send_dropped_flow),
            ("send dropped backend", self.send_dropped_backend),
            ("receive dropped flow", self.receive_dropped_flow),
            ("receive dropped queue", self.receive_dropped_queue),
            ("receive dropped buffers", self.receive_dropped_buffers),
            ("receive dropped length", self.receive_dropped_length),
            ("backend errors", self.backend_errors),
            ("backend full", self.backend_full),
            ("receive starved", self.receive_starved),
            ("send batches", self.send_batches),
            ("receive batches", self.receive_batches),
            ("receive copied", self.receive_copied),
            ("notifications sent", self.notifications_sent),
            ("notifications suppressed", self.notifications_suppressed),
            ("queues stopped", self.queues_stopped),
            ("flow table stuck", self.flow_table_stuck),
        ]
    }
}

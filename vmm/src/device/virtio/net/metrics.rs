//! Counters of a NIC. Plain numbers behind the NIC's own lock; a snapshot is a copy.

use crate::stat::metrics::metrics;
use abi::domain::DOMAINS;

metrics! {
    /// What a NIC did since it was made.
    pub struct NetMetrics {
        /// Frames that the backend took.
        pub sent_frames: u64,
        /// Bytes of the frames that the backend took, without the header.
        pub sent_bytes: u64,
        /// Frames that the guest got.
        pub received_frames: u64,
        /// Bytes of the frames that the guest got, without the header.
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
        /// Copies of frames that tell of the link, for environments that share the interface.
        pub receive_link_copies: u64,
        /// Interrupts raised.
        pub notifications_sent: u64,
        /// Publications of which the driver did not want to hear.
        pub notifications_suppressed: u64,
        /// Queues stopped for an error.
        pub queues_stopped: u64,
        /// Queues stopped because a descriptor or a ring lies outside of the environment's DMA domain.
        pub dma_refusals: u64,
        /// Look-ups that met a flow table in the middle of a change for too long.
        pub flow_table_stuck: u64,
    }
}

metrics! {
    /// What one queue pair of a NIC did.
    pub struct PairMetrics {
        /// Frames of this queue pair that the backend took.
        pub queue_sent_frames: u64,
        /// Bytes of the frames of this queue pair that the backend took.
        pub queue_sent_bytes: u64,
        /// Frames of this queue pair that were not sent: not allowed, impossible, or refused by the backend.
        pub queue_send_dropped: u64,
        /// Frames that the guest got from this queue pair.
        pub queue_received_frames: u64,
        /// Bytes of the frames that the guest got from this queue pair.
        pub queue_received_bytes: u64,
        /// Frames for this queue pair that found no buffers in it.
        pub queue_receive_dropped: u64,
    }
}

metrics! {
    /// What was looked up in the flow table.
    pub struct FlowCounters {
        /// Received frames that were looked up. While the flows are undivided none is.
        pub lookups: u64,
        /// Received frames that were looked up and that no flow wants, not even a guardian.
        pub unmatched: u64,
        /// Frames to be sent that were looked up, to see whether their environment may send them.
        pub send_lookups: u64,
        /// Frames to be sent that were looked up and that their environment may not send.
        pub send_refused: u64,
    }
}

impl NetMetrics {
    /// A frame of so many bytes has been given to the guest by a queue pair.
    #[inline]
    pub(super) fn count_received(&mut self, pair: &mut PairMetrics, bytes: usize) {
        self.received_frames += 1;
        self.received_bytes += bytes as u64;
        pair.queue_received_frames += 1;
        pair.queue_received_bytes += bytes as u64;
    }
}

/// Look-ups in the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowMetrics {
    /// How they ended.
    pub counters: FlowCounters,
    /// Frames that each environment got by them.
    pub hits: [u64; DOMAINS],
}

impl Default for FlowMetrics {
    fn default() -> Self {
        Self { counters: FlowCounters::default(), hits: [0; DOMAINS] }
    }
}

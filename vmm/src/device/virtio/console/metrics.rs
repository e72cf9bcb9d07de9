//! Counters of a console. Plain numbers behind the device's own lock; a snapshot is a copy.

use crate::stat::metrics::metrics;

metrics! {
    /// What a console did since it was made.
    pub struct ConsoleMetrics {
        /// Bytes taken from the guest.
        pub taken_bytes: u64,
        /// Bytes given to the guest.
        pub given_bytes: u64,
        /// Control messages of the driver.
        pub messages_taken: u64,
        /// Control messages to the driver.
        pub messages_given: u64,
        /// Control messages that make no sense.
        pub messages_ignored: u64,
        /// Bytes that the guest wrote to a console and nobody read in time.
        pub discarded_output_bytes: u64,
        /// Bytes of clients that went before the guest had taken them.
        pub discarded_input_bytes: u64,
        /// How often the guest's bytes had to wait for a client.
        pub blocked: u64,
        /// How often a client's bytes had to wait for the guest's buffers.
        pub starved: u64,
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

//! What the network did, in numbers.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {
        /// What the network did since it was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// All counters with their names, for tables and JSON.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($text, self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Clients of published TCP ports accepted.
    tcp_accepted: "tcp accepted",
    /// Connections that the guest opened to the outside.
    tcp_outbound: "tcp outbound",
    /// Those of them that came to nothing.
    tcp_outbound_failed: "tcp outbound failed",
    /// Connections that ended.
    tcp_closed: "tcp closed",
    /// Connections ended because others wanted their place.
    tcp_evicted: "tcp evicted",
    /// How often clients had to wait for a place.
    tcp_accept_waits: "tcp accept waits",
    /// Most connections at once.
    tcp_connections_most: "tcp connections most",
    /// Datagrams to the guest.
    udp_to_guest: "udp to guest",
    /// Datagrams from the guest.
    udp_from_guest: "udp from guest",
    /// Datagrams dropped: too long for a frame, or the host did not take them.
    udp_dropped: "udp dropped",
    /// UDP flows ended because others wanted their place.
    udp_evicted: "udp evicted",
    /// Packets of the guest to where it may not go.
    refused: "refused destinations",
    /// Guest's frames that are cut short or contradict themselves.
    dropped_malformed: "dropped malformed",
    /// Guest's frames with a wrong checksum.
    dropped_checksum: "dropped checksum",
    /// Guest's fragments.
    dropped_fragments: "dropped fragments",
    /// Guest's frames with a source address that is not the guest's.
    dropped_spoofed: "dropped spoofed",
    /// Guest's frames of protocols that are not for us.
    dropped_protocol: "dropped protocol",
    /// Answers that found no room.
    replies_lost: "replies lost",
}

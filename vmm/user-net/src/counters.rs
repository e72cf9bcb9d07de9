//! What the network did, in numbers.

macro_rules! counters {
    ($(#[doc = $help:literal] $name:ident,)*) => {
        /// What the network did since it was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(#[doc = $help] pub $name: u64,)*
        }

        impl Counters {
            /// All counters: name, what it counts, value.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $help, self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Clients of published TCP ports accepted.
    tcp_accepted,
    /// Connections that the guest opened to the outside.
    tcp_outbound,
    /// Those of them that came to nothing.
    tcp_outbound_failed,
    /// Connections that ended.
    tcp_closed,
    /// Connections ended because others wanted their place.
    tcp_evicted,
    /// How often clients had to wait for a place.
    tcp_accept_waits,
    /// Most connections at once.
    tcp_connections_most,
    /// Datagrams to the guest.
    udp_to_guest,
    /// Datagrams from the guest.
    udp_from_guest,
    /// Datagrams dropped: too long for a frame, or the host did not take them.
    udp_dropped,
    /// UDP flows ended because others wanted their place.
    udp_evicted,
    /// Packets of the guest to where it may not go.
    refused,
    /// Guest's frames that are cut short or contradict themselves.
    dropped_malformed,
    /// Guest's frames with a wrong checksum.
    dropped_checksum,
    /// Guest's fragments.
    dropped_fragments,
    /// Guest's frames with a source address that is not the guest's.
    dropped_spoofed,
    /// Guest's frames of protocols that are not for us.
    dropped_protocol,
    /// Answers that found no room.
    replies_lost,
}

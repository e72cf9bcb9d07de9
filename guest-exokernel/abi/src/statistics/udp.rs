//! What is counted of UDP.

use super::{Description, Kind};
use core::sync::atomic::AtomicU64;

group! {
    /// UDP. Names are those of RFC 4113 (UDP-MIB) where it has one.
    UdpStatistics, "udp" {
        /// Datagrams for a port that somebody has bound (udpInDatagrams), with those that their socket then drops.
        in_datagrams: Counter of "datagrams",
        /// Dropped: a datagram for a port that nobody has bound (udpNoPorts).
        no_ports: Counter of "datagrams",
        /// Dropped: a datagram that is shorter than it says, or whose checksum is wrong (udpInErrors).
        in_errors: Counter of "datagrams",
        /// Datagrams sent (udpOutDatagrams).
        out_datagrams: Counter of "datagrams",
        /// ICMP errors received about datagrams of ours.
        icmp_errors_in: Counter of "packets",
        /// Dropped: a datagram that found no room in its socket's buffer.
        buffer_full: Counter of "datagrams",
        /// Dropped: a datagram from another than the one that its socket is connected to.
        not_peer: Counter of "datagrams",
        /// Datagrams of sockets that did not leave: nobody knows their next hop, or the NIC had no room for a while.
        unsent: Counter of "datagrams",
        /// Dropped: a datagram to a group that a socket at its port is not in.
        not_member: Counter of "datagrams",
    }
}

//! What is counted below TCP.

use super::{Description, Kind};
use core::sync::atomic::AtomicU64;

group! {
    /// What is below TCP: Ethernet, ARP, IPv4, IPv6, ICMP, Neighbor Discovery.
    LinkStatistics, "ip" {
        /// Frames that the stack was given.
        frames_in: Counter of "frames",
        /// ARP requests answered.
        arp_replies: Counter of "packets",
        /// ARP requests sent, because somebody is to be reached.
        arp_requests: Counter of "packets",
        /// ARP packets by which another host claims our address.
        arp_conflicts: Counter of "packets",
        /// Echo requests answered.
        echo_replies: Counter of "packets",
        /// Dropped: an IPv4, ICMP or TCP checksum is wrong.
        bad_checksums: Counter of "packets",
        /// Dropped: shorter than its headers, or lengths or fields that contradict each other.
        malformed: Counter of "packets",
        /// Dropped: not addressed to us.
        not_for_us: Counter of "packets",
        /// Dropped: a source address that no host can have.
        bad_source: Counter of "packets",
        /// Dropped: an EtherType, IP protocol or ICMP message that we do not handle.
        unsupported: Counter of "packets",
        /// Dropped: an IPv4 fragment that cannot be one, overlaps another, or belongs to a datagram that was given up.
        fragments: Counter of "packets",
        /// Fragments received of datagrams that have to be put together (ipSystemStatsReasmReqds).
        reasm_reqds: Counter of "packets",
        /// Datagrams put together (ipSystemStatsReasmOKs).
        reasm_oks: Counter of "packets",
        /// Datagrams that could not be put together: fragments missing for too long, overlapping, or too many (ipSystemStatsReasmFails).
        reasm_fails: Counter of "packets",
        /// ICMP errors sent.
        icmp_errors_out: Counter of "packets",
        /// ICMP errors that the rate limit kept back.
        icmp_errors_limited: Counter of "packets",
        /// Dropped: the sender is off-link and there is no gateway.
        no_route: Counter of "packets",
        /// ARP probes sent: whether somebody has our address (RFC 5227 2.1.1).
        arp_probes: Counter of "packets",
        /// ARP announcements sent: that we have our address (RFC 5227 2.3, 2.4).
        arp_announcements: Counter of "packets",
        /// Questions sent for the Ethernet addresses of IPv6 neighbours (RFC 4861).
        neighbour_solicitations: Counter of "packets",
        /// Such questions answered.
        neighbour_advertisements: Counter of "packets",
        /// Questions sent whether somebody has an IPv6 address that we are about to use (RFC 4862 5.4.2).
        address_probes: Counter of "packets",
        /// Signs that another host has one of our IPv6 addresses.
        duplicate_addresses: Counter of "packets",
        /// Questions for IPv6 routers sent.
        router_solicitations: Counter of "packets",
        /// Advertisements of IPv6 routers that were believed.
        router_advertisements: Counter of "packets",
        /// Dropped: a message about neighbours or routers that was not sent on this link.
        off_link: Counter of "packets",
        /// Advertised IPv6 prefixes that made no address of ours, because there were as many as there may be.
        prefixes_refused: Counter of "prefixes",
        /// Questions received which groups we are in (IGMP, MLD).
        group_queries: Counter of "packets",
        /// Messages sent that say which groups we are in, or in no more.
        group_reports: Counter of "packets",
    }
}

//! The statistics area: what the library OS of one environment has counted, in one place that the VMM reads at any time.
//!
//! The layers count in plain fields of their own, since they know neither this page nor who reads it; what runs them copies the
//! fields here between two batches. So counting costs an add, publishing some fifty stores a batch, and reading nothing on the
//! guest's side. Kernel calls are counted here directly, where ring 3 makes them.
//!
//! Each group is a list of words with their names, units and help texts; the lists are what the VMM prints, so there is no second
//! table to keep in line. The guest writes all of it: it is shown and never relied on.

use crate::call::CALLS;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How a word changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// What a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The layer that counts it.
    pub layer: &'static str,
    /// Its name in the layer, words joined by `_`.
    pub name: &'static str,
    /// How it changes.
    pub kind: Kind,
    /// What is counted.
    pub unit: &'static str,
    /// A sentence for people.
    pub help: &'static str,
}

macro_rules! group {
    ($(#[$meta:meta])* $group:ident, $layer:literal {
        $(#[doc = $help:literal] $field:ident: $kind:ident of $unit:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        #[repr(C)]
        pub struct $group {
            $(#[doc = $help] pub $field: AtomicU64,)*
        }

        impl $group {
            /// What the words are, in their order.
            pub const DESCRIPTIONS: &[Description] = &[$(Description {
                layer: $layer,
                name: stringify!($field),
                kind: Kind::$kind,
                unit: $unit,
                help: $help,
            }),*];

            /// The words, in the order of [`Self::DESCRIPTIONS`].
            pub fn words(&self) -> impl Iterator<Item = &AtomicU64> {
                [$(&self.$field),*].into_iter()
            }
        }
    };
}

mod link;
mod udp;

pub use link::LinkStatistics;
pub use udp::UdpStatistics;

group! {
    /// TCP. Names are those of RFC 4022 (TCP-MIB) and RFC 4898 (`tcpEStats`) where these have one, for all connections together.
    TcpStatistics, "tcp" {
        /// Connections that we began (tcpActiveOpens).
        active_opens: Counter of "connections",
        /// SYNs that became half-open connections, at once or by a cookie that came back (tcpPassiveOpens).
        passive_opens: Counter of "connections",
        /// Handshakes that came to nothing: reset, refused, never answered, given up, or pushed out by newer ones (tcpAttemptFails).
        attempt_fails: Counter of "connections",
        /// Connections that we began and the peer refused with an RST.
        refused: Counter of "connections",
        /// Connections that we began to somebody who is not there: ARP is not answered, or an ICMP error says so.
        unreachable: Counter of "connections",
        /// Half-open connections that were pushed out by newer ones, as a SYN flood does.
        half_open_evicted: Counter of "connections",
        /// SYNs answered by cookies, because the half-open connections had taken all their places (RFC 4987).
        syn_cookies_sent: Counter of "segments",
        /// Cookies that came back and opened connections.
        syn_cookies_accepted: Counter of "connections",
        /// Acknowledgments that could have been of cookies and were not.
        syn_cookies_failed: Counter of "segments",
        /// Acknowledgments that could have been of cookies and that the rate limit left unchecked.
        syn_cookies_limited: Counter of "segments",
        /// SYNs that were dropped because every place for a connection was taken (tcpListenerTable's ConnectionsFull).
        refused_connections_full: Counter of "segments",
        /// Handshakes that were finished.
        opened: Counter of "connections",
        /// Connections in ESTABLISHED or CLOSE-WAIT now (tcpCurrEstab).
        curr_estab: Gauge of "connections",
        /// Half-open connections now.
        half_open: Gauge of "connections",
        /// Connections that we began and whose handshake is not over, now.
        opening: Gauge of "connections",
        /// Records of connections in TIME-WAIT now.
        time_wait: Gauge of "connections",
        /// Connections that both sides closed.
        closed: Counter of "connections",
        /// Connections that their peer's RST ended.
        reset_by_peer: Counter of "connections",
        /// Connections given up because the peer did not answer or stood still.
        timed_out: Counter of "connections",
        /// Connections that the application ended with an RST.
        aborted: Counter of "connections",
        /// Silent connections that were ended to make room for new ones.
        evicted: Counter of "connections",
        /// Segments received (tcpEStatsPerfSegsIn), also those for no connection; several that the host has merged are one.
        segs_in: Counter of "segments",
        /// Segments received that carry data (tcpEStatsPerfDataSegsIn).
        data_segs_in: Counter of "segments",
        /// Bytes of data taken in order, once each (tcpEStatsAppThruOctetsReceived).
        thru_octets_received: Counter of "bytes",
        /// Segments sent (tcpEStatsPerfSegsOut), each that the device cuts out of a larger one counted.
        segs_out: Counter of "segments",
        /// Segments sent that carry data (tcpEStatsPerfDataSegsOut).
        data_segs_out: Counter of "segments",
        /// Bytes of data sent, what was sent again included (tcpEStatsPerfDataOctetsOut).
        data_octets_out: Counter of "bytes",
        /// Frames handed to the device for the segments sent: fewer, where it cuts them.
        frames_out: Counter of "frames",
        /// Segments with data, SYN or FIN that were sent again (tcpEStatsPerfSegsRetrans).
        segs_retrans: Counter of "segments",
        /// Bytes of data that were sent again (tcpEStatsPerfOctetsRetrans).
        octets_retrans: Counter of "bytes",
        /// Retransmission timeouts (tcpEStatsPerfTimeouts).
        timeouts: Counter of "",
        /// Fast recoveries: losses found by acknowledgments (tcpEStatsStackFastRetran).
        fast_retran: Counter of "",
        /// Segments that acknowledgments showed to be lost: by the time they were sent (RACK), or by duplicates where the peer has no SACK.
        losses_found: Counter of "segments",
        /// Times that segments were found lost because RACK had waited long enough for them to come out of order.
        reordering_timeouts: Counter of "",
        /// Tail loss probes (RFC 8985).
        tail_probes: Counter of "segments",
        /// Losses that a tail loss probe repaired and nothing else showed.
        tail_probe_recoveries: Counter of "",
        /// Retransmission timeouts that turned out to be mistaken and were taken back (tcpEStatsStackSpuriousRtoDetected).
        spurious_rto_detected: Counter of "",
        /// Fast recoveries that turned out to be mistaken and were taken back (tcpEStatsStackSpuriousFrDetected).
        spurious_fr_detected: Counter of "",
        /// Acknowledgments received with SACK blocks (tcpEStatsStackSACKsRcvd).
        sacks_rcvd: Counter of "segments",
        /// Reports received that something has arrived twice, D-SACK (tcpEStatsStackDSACKDups).
        dsack_dups: Counter of "segments",
        /// SACK blocks received that cannot be true: of what was never sent, or is acknowledged.
        sack_blocks_ignored: Counter of "blocks",
        /// Timeouts after which a peer's SACK blocks were believed no more, because it may have thrown away what they report.
        sacks_forgotten: Counter of "",
        /// Duplicate acknowledgments received (tcpEStatsStackDupAcksIn).
        dup_acks_in: Counter of "segments",
        /// Acknowledgments sent without data.
        pure_acks_out: Counter of "segments",
        /// Times that a peer closed its window (tcpEStatsPerfZeroRwinRcvd).
        zero_rwin_rcvd: Counter of "",
        /// Times that we closed our window to a peer (tcpEStatsPerfZeroRwinSent).
        zero_rwin_sent: Counter of "",
        /// Probes of a window that a peer keeps closed.
        window_probes: Counter of "segments",
        /// Segments kept because one before them is missing.
        out_of_order_in: Counter of "segments",
        /// Segments that lie outside the window or bring nothing new.
        out_of_window_in: Counter of "segments",
        /// Segments that RFC 9293 says to drop without an answer.
        unacceptable_in: Counter of "segments",
        /// Segments whose data no receive buffer had room for; the peer sends it again.
        no_buffer_in: Counter of "segments",
        /// RSTs sent (tcpOutRsts).
        out_rsts: Counter of "segments",
        /// Valid RSTs received for a connection.
        in_rsts: Counter of "segments",
        /// Challenge ACKs sent (RFC 5961).
        challenge_acks: Counter of "segments",
        /// Challenge ACKs that the rate limit kept back.
        challenge_acks_limited: Counter of "segments",
        /// SYNs accepted over a record in TIME-WAIT.
        time_wait_reused: Counter of "connections",
        /// Records in TIME-WAIT given up early because all were in use.
        time_wait_evicted: Counter of "connections",
        /// Path MTU reductions (RFC 1191).
        path_mtu_reduced: Counter of "",
        /// Times that the NIC's queue had no room for a segment.
        driver_full: Counter of "",
        /// Segments with data received that a router has marked Congestion Experienced (tcpEStatsPathCERcvd).
        ce_rcvd: Counter of "segments",
        /// Acknowledgments received that echo such a mark (tcpEStatsPathECNsignals).
        ecn_signals: Counter of "segments",
        /// Times that the congestion window was reduced because of one.
        ecn_reductions: Counter of "",
        /// SYNs that announce segments of fewer than 216 bytes (CVE-2019-11479).
        small_mss_in: Counter of "segments",
        /// Segments sent that are not full though more waited, because the peer's window never lets much out.
        small_segs_out: Counter of "segments",
        /// Times that a peer's window stayed closed, or too small, for a second probe.
        windows_held: Counter of "",
        /// Acknowledgments of less than a full segment while the rest of it is on its way; they gain nothing (RFC 3465).
        split_acks_in: Counter of "segments",
        /// Segments withheld for a round trip, to see whether the peer acknowledges what it has not received.
        segs_withheld: Counter of "segments",
        /// Connections that were reset because their peer did.
        optimistic_acks: Counter of "connections",
        /// Connections ended because an address of ours was lost, or its time was over.
        address_lost: Counter of "connections",
    }
}

group! {
    /// HTTP.
    HttpStatistics, "http" {
        /// Responses with a status of 200 to 299.
        responses_2xx: Counter of "responses",
        /// Responses with a status of 300 to 399.
        responses_3xx: Counter of "responses",
        /// Responses with a status of 400 to 499.
        responses_4xx: Counter of "responses",
        /// Responses with a status of 500 to 599.
        responses_5xx: Counter of "responses",
        /// Bytes of the bodies of all responses, as their headers promise them.
        body: Counter of "bytes",
        /// Connections of the server now.
        connections: Gauge of "connections",
        /// Connections that the server was given.
        connections_opened: Counter of "connections",
        /// Files that could not be sent because the disk or what is on it is broken.
        files_broken: Counter of "files",
    }
}

group! {
    /// The cache of file pages, and what it reads through the file system from the disk.
    CacheStatistics, "cache" {
        /// Uses of a frame's data beyond the one for which it was read.
        hits: Counter of "frames",
        /// Frames that were asked for and had to be read.
        misses: Counter of "frames",
        /// Questions that joined a read on its way.
        joined: Counter of "frames",
        /// Frames that were read before anybody asked for them.
        read_ahead: Counter of "frames",
        /// Frames that were thrown out for others.
        evictions: Counter of "frames",
        /// Frames that were thrown out because their memory was asked back.
        given_back: Counter of "frames",
        /// Times that somebody had to wait because every frame was in use.
        room_waits: Counter of "",
        /// Paths that were found among the names.
        name_hits: Counter of "paths",
        /// Paths that had to be looked up in directories.
        name_misses: Counter of "paths",
        /// Reads handed to the disk.
        reads: Counter of "requests",
        /// Bytes that came from the disk.
        read: Counter of "bytes",
        /// Reads that failed.
        read_errors: Counter of "requests",
        /// Blocks that were read and are not what was written.
        bad_blocks: Counter of "blocks",
    }
}

group! {
    /// The forwarder. Whatever it drops has one reason.
    ForwardStatistics, "forward" {
        /// Frames that the forwarder was given.
        frames_in: Counter of "frames",
        /// Connections that a SYN began.
        opened: Counter of "connections",
        /// Of them, those whose handshake was seen to its end.
        established: Counter of "connections",
        /// Connections whose handshake is not over, now.
        half_open_now: Gauge of "connections",
        /// Established connections now.
        established_now: Gauge of "connections",
        /// Connections that have ended and are still remembered, now.
        closing_now: Gauge of "connections",
        /// Half-open connections that gave their place to another, as in a SYN flood.
        half_open_evicted: Counter of "connections",
        /// Ended connections that gave their place to another before their time.
        closing_evicted: Counter of "connections",
        /// Connections forgotten after their time.
        expired: Counter of "connections",
        /// Frames of TCP forwarded to the server; one that stands for several segments is one.
        to_server_frames: Counter of "frames",
        /// Their bytes of data.
        to_server: Counter of "bytes",
        /// ICMP messages translated for the server.
        to_server_icmp: Counter of "packets",
        /// Frames of TCP forwarded to clients; one that stands for several segments is one.
        to_client_frames: Counter of "frames",
        /// Their bytes of data.
        to_client: Counter of "bytes",
        /// ICMP messages translated for clients.
        to_client_icmp: Counter of "packets",
        /// ARP requests sent, for the server or the gateway.
        arp_requests: Counter of "packets",
        /// ARP requests answered.
        arp_replies: Counter of "packets",
        /// Echo requests answered.
        echo_replies: Counter of "packets",
        /// ICMP errors of the forwarder's own: time exceeded, host and port unreachable.
        errors_sent: Counter of "packets",
        /// Dropped: cut short, lengths that do not add up, or flags that no TCP sends.
        malformed: Counter of "frames",
        /// Dropped: the checksum of an IP header or an ICMP message is wrong.
        bad_checksum: Counter of "frames",
        /// Dropped: a source that cannot be a client's address or port.
        bad_source: Counter of "frames",
        /// Dropped: for another Ethernet or IP address.
        not_for_us: Counter of "frames",
        /// Dropped: a fragment.
        fragment: Counter of "frames",
        /// Dropped: an IP header with options or extensions.
        ip_options: Counter of "frames",
        /// Dropped: neither TCP nor ICMP over a version of IP that the forwarder has an address of, nor ARP.
        unsupported: Counter of "frames",
        /// Dropped: for a port that nobody listens on.
        not_listened: Counter of "frames",
        /// Dropped: a segment of a connection that is not known, and that does not begin one.
        no_flow: Counter of "frames",
        /// Dropped: the time to live is over.
        time_to_live: Counter of "frames",
        /// Dropped: where the server is on the link was not known yet.
        unresolved: Counter of "frames",
        /// Dropped: all places are taken by established connections.
        table_full: Counter of "frames",
        /// Dropped: checksum or segment offloads of which nothing can be made that a device could send.
        offload: Counter of "frames",
        /// Dropped: an ICMP message that quotes no packet of a connection.
        icmp: Counter of "frames",
        /// Frames that the NIC did not take.
        nic_refused: Counter of "frames",
        /// Neighbor solicitations sent, for the server or the router.
        neighbour_solicitations: Counter of "packets",
        /// Neighbor solicitations answered.
        neighbour_advertisements: Counter of "packets",
        /// Dropped: for the port that is listened on, by a version of IP that no server has.
        no_server: Counter of "frames",
    }
}

/// Buckets of a histogram.
pub const BUCKETS: usize = 40;

/// The bucket of a value: bucket `k` holds what is at most `2^k` and more than half of that. What no bucket holds goes to the last.
#[inline(always)]
pub const fn bucket(value: u64) -> usize {
    let bits = (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize;
    if bits < BUCKETS { bits } else { BUCKETS - 1 }
}

/// A histogram by powers of two, with the sum of what is in it.
#[derive(Debug)]
#[repr(C)]
pub struct Histogram {
    /// Sum of all values.
    pub sum: AtomicU64,
    /// How many values each [`bucket`] holds.
    pub buckets: [AtomicU64; BUCKETS],
}

impl Histogram {
    /// Writes what has been counted elsewhere.
    #[inline]
    pub fn publish(&self, sum: u64, buckets: &[u64; BUCKETS]) {
        self.sum.store(sum, Relaxed);
        for (word, &count) in self.buckets.iter().zip(buckets) {
            word.store(count, Relaxed);
        }
    }
}

/// Calls of one number.
#[derive(Debug, Default)]
#[repr(C)]
pub struct CallTally {
    /// Calls made.
    pub calls: AtomicU64,
    /// Of these, those that came back with an error.
    pub errors: AtomicU64,
}

/// All of it, at [`crate::layout::STATISTICS_VA`]. One writer; a reader may be a batch behind.
#[derive(Debug)]
#[repr(C)]
pub struct StatisticsArea {
    /// Kernel calls by [`crate::call::Call`].
    pub calls: [CallTally; CALLS],
    /// TCP.
    pub tcp: TcpStatistics,
    /// Smoothed round-trip times in nanoseconds, as of each measurement (tcpEStatsPathSmoothedRTT).
    pub smoothed_rtt_ns: Histogram,
    /// Congestion windows in bytes at the same moments (tcpEStatsPerfCurCwnd).
    pub congestion_window_bytes: Histogram,
    /// Below TCP.
    pub link: LinkStatistics,
    /// HTTP.
    pub http: HttpStatistics,
    /// Cache.
    pub cache: CacheStatistics,
    /// Forwarder.
    pub forward: ForwardStatistics,
    /// UDP.
    pub udp: UdpStatistics,
}

/// Writes a word.
#[inline(always)]
pub fn set(word: &AtomicU64, value: u64) {
    word.store(value, Relaxed);
}

/// Adds to a word that has one writer.
#[inline(always)]
pub fn add(word: &AtomicU64, n: u64) {
    word.store(word.load(Relaxed).wrapping_add(n), Relaxed);
}

#[cfg(test)]
mod tests;

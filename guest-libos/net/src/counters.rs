//! What the stack has seen and done, as plain numbers. They only grow; a reader takes differences.

use crate::wire::WireError;

macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl $name {
            /// Every counter with its name, in declaration order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Numbers for statistics. Bytes are payload bytes unless a name says otherwise.
    Counters {
        /// Frames given to `input`.
        frames_in,
        /// ARP requests answered.
        arp_replies,
        /// ARP requests sent for neighbours that we want to send to.
        arp_requests,
        /// ARP packets by which another host claims our address, or the one that we want.
        arp_conflicts,
        /// ARP probes sent: who has the address that we want (RFC 5227 2.1.1)?
        arp_probes,
        /// ARP announcements sent: we have our address (RFC 5227 2.3, 2.4).
        arp_announcements,
        /// Questions for the Ethernet addresses of IPv6 neighbours.
        neighbour_solicitations,
        /// Such questions answered.
        neighbour_advertisements,
        /// Questions whether somebody has an IPv6 address that we are about to use (RFC 4862 5.4.2).
        address_probes,
        /// Questions for routers sent.
        router_solicitations,
        /// Advertisements of routers believed.
        router_advertisements,
        /// Questions which groups we are in that were for us.
        group_queries_in,
        /// Messages sent that say which groups we are in, or in no more.
        group_reports_out,
        /// Signs that another host has one of our IPv6 addresses.
        duplicate_addresses,
        /// Advertised prefixes that made no address of ours, because there were as many as `Ipv6Config` allows.
        prefixes_refused,
        /// Echo requests answered.
        echo_replies,
        /// Echo requests that the rate limit left unanswered.
        echo_replies_limited,
        /// Fragments of datagrams that had to be put together (RFC 4293's ReasmReqds).
        reassembly_required,
        /// Datagrams put together (ReasmOKs).
        reassembly_ok,
        /// Datagrams that could not be put together: fragments missing for too long, overlapping, or too many (ReasmFails).
        reassembly_fails,
        /// UDP datagrams given to the application.
        datagrams_in,
        /// UDP datagrams handed to the driver.
        datagrams_out,
        /// UDP datagrams that cannot be read, or whose checksum is wrong (RFC 4113's udpInErrors); why is counted with what was dropped.
        datagrams_bad,
        /// ICMP errors about UDP datagrams of ours given to the application.
        datagram_errors_in,
        /// ICMP errors sent.
        icmp_errors_out,
        /// ICMP errors that the rate limit kept back.
        icmp_errors_limited,
        /// TCP segments that reached a connection, a TIME-WAIT record or a listener.
        segments_in,
        /// Of these, those that carry data.
        data_segments_in,
        /// Payload bytes accepted in order.
        bytes_in,
        /// Segments kept out of order.
        out_of_order_in,
        /// Segments that lie outside the window or brought nothing new.
        duplicates_in,
        /// Of these, segments whose timestamps show them to be old (PAWS, RFC 7323 5).
        old_timestamps_in,
        /// Duplicate acknowledgments in the sense of RFC 5681 2.
        duplicate_acks_in,
        /// Times that a peer closed its window.
        zero_windows_in,
        /// Times that we closed our window to a peer.
        zero_windows_out,
        /// TCP frames handed to the driver or returned as replies; one of segmentation offload counts once.
        segments_out,
        /// Segments with data in these frames; one of segmentation offload counts as those that the device cuts it into.
        data_segments_out,
        /// Of these frames, those with data.
        data_frames_out,
        /// Payload bytes handed to the driver, retransmissions included.
        bytes_out,
        /// Payload bytes that were summed here because neither device nor data had the sum.
        bytes_summed,
        /// Acknowledgments sent without data.
        pure_acks_out,
        /// Segments sent again, by timeout or fast retransmit.
        retransmits,
        /// Payload bytes in these.
        bytes_retransmitted,
        /// Data segments that arrived with a mark on connections that use ECN (RFC 3168).
        congestion_marks_in,
        /// Acknowledgments received that echo a mark.
        congestion_echoes_in,
        /// Times that the congestion window was reduced because the peer echoed a mark.
        congestion_echoes_answered,
        /// Retransmission timeouts.
        timeouts,
        /// Fast recoveries: losses found by acknowledgments.
        fast_retransmits,
        /// Segments that acknowledgments show to be lost: by RACK (RFC 8985 6), or by duplicates if the peer has no SACK.
        losses_found,
        /// Times that segments were found lost because RACK's time for reordering was over.
        reordering_timeouts,
        /// Tail loss probes (RFC 8985 7).
        tail_probes,
        /// Losses that a probe has repaired, and nothing else has shown.
        tail_probe_recoveries,
        /// Recoveries and timeouts that turned out to be mistaken and were taken back.
        spurious_recoveries,
        /// Of these, timeouts.
        spurious_timeouts,
        /// Acknowledgments received that report what has arrived out of order or twice (RFC 2018).
        sacks_in,
        /// Reports of duplicates received (RFC 2883).
        duplicates_reported,
        /// SACK blocks that cannot be true: of what was never sent, or is acknowledged.
        sack_blocks_ignored,
        /// Timeouts after which selective acknowledgments were believed no more.
        sacks_forgotten,
        /// Probes of a closed window.
        window_probes,
        /// ICMP errors about segments that were on their way; too large ones are in `path_mtu_reduced`.
        problems_in,
        /// Keep-alive probes sent.
        keep_alive_probes,
        /// Times that the driver was full.
        driver_full,
        /// RSTs sent.
        resets_out,
        /// Valid RSTs received.
        resets_in,
        /// Challenge ACKs sent (RFC 5961).
        challenge_acks,
        /// Challenge ACKs and acknowledgments of unacceptable segments that the rate limit kept back.
        challenge_acks_limited,
        /// SYNs that announce segments of fewer than 216 bytes, which cost as much as large ones (CVE-2019-11479).
        small_mss_in,
        /// Segments sent that are not full though more waited, because the peer never lets much out.
        small_segments_out,
        /// Times that a window stayed closed, or too small, for a second probe.
        windows_held,
        /// Acknowledgments of less than a full segment while the rest of what left with it is on its way.
        split_acks_in,
        /// Segments withheld to see whether the peer acknowledges what it has not received.
        segments_withheld,
        /// Acknowledgments of such a segment, each of which ended its connection with a RST.
        optimistic_acks,
        /// Connections that we began to open.
        active_opens,
        /// Those of them that were refused by a RST.
        refused,
        /// Those of them whose host or network cannot be reached.
        unreachable,
        /// All of them that came to nothing: these two, those that were never answered, and those that the application gave up.
        opening_failed,
        /// SYNs that became half-open connections, at once or by a cookie that came back.
        half_opened,
        /// Half-open connections forgotten: reset, or the SYN-ACK was never answered.
        half_open_dropped,
        /// Half-open connections that gave way to newer ones.
        half_open_evicted,
        /// SYNs answered by cookies (RFC 4987 3.6).
        syn_cookies_sent,
        /// Cookies that came back and opened connections.
        syn_cookies_accepted,
        /// Acknowledgments for nobody that could have been cookies and were none.
        syn_cookies_failed,
        /// Dropped: acknowledgments that could have been cookies and that the rate limit left unchecked.
        syn_cookies_limited,
        /// Connections opened.
        opened,
        /// Connections that ended in order.
        closed,
        /// Connections ended by the peer's RST.
        reset_by_peer,
        /// Connections given up because the peer did not answer.
        timed_out,
        /// Connections ended because our address was given up or removed.
        address_lost,
        /// Connections aborted by the application.
        aborted,
        /// Silent connections that were ended to make room.
        evicted,
        /// SYNs accepted over a TIME-WAIT record (RFC 9293 3.10.7.4).
        time_wait_reused,
        /// TIME-WAIT records given up early because all were in use.
        time_wait_evicted,
        /// Path MTU reductions (RFC 1191).
        path_mtu_reduced,
        /// Times that smaller segments were tried because full ones timed out again and again (RFC 4821).
        black_holes,
        /// Dropped: shorter than its headers, or lengths or fields that contradict each other.
        dropped_malformed,
        /// Dropped: not addressed to us.
        dropped_not_for_us,
        /// Dropped: a source address that no host can have.
        dropped_bad_source,
        /// Dropped: a message about neighbours or routers that was not sent on this link.
        dropped_off_link,
        /// Dropped: an EtherType, IP protocol or ICMP message that we do not handle.
        dropped_unsupported,
        /// Dropped: an IPv4, ICMP or TCP checksum is wrong.
        dropped_checksum,
        /// Dropped: an IPv4 fragment that cannot be one, overlaps another, or belongs to a datagram that was given up.
        dropped_fragment,
        /// Dropped: a UDP datagram for a port that is not bound (RFC 4113's udpNoPorts).
        dropped_no_port,
        /// Dropped: the sender is off-link and there is no gateway.
        dropped_no_route,
        /// Dropped: a TCP segment that RFC 9293 says to drop silently.
        dropped_unacceptable,
        /// Dropped: a SYN, or the acknowledgment of a cookie, while all connections are in use.
        refused_connections_full,
        /// Dropped: data that no receive buffer had room for; the peer sends it again.
        dropped_no_buffer,
    }
}

/// Buckets of a [`Histogram`].
pub const BUCKETS: usize = 40;

/// Values by powers of two: bucket `k` counts those that are at most `2^k` and more than half of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// The sum of all values.
    pub sum: u64,
    /// How many there were.
    pub buckets: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { sum: 0, buckets: [0; BUCKETS] }
    }
}

impl Histogram {
    #[inline]
    pub(crate) fn add(&mut self, value: u64) {
        let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
        self.buckets[(bits as usize).min(BUCKETS - 1)] += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    /// How many values it holds.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// What connections were like, each time that a round trip was measured (once a window of data): all connections together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// Smoothed round-trip times (RFC 6298 2) in nanoseconds.
    pub smoothed_rtt_ns: Histogram,
    /// Congestion windows in bytes.
    pub congestion_window_bytes: Histogram,
}

/// Why a frame was dropped; each has its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    Malformed,
    NotForUs,
    BadSource,
    OffLink,
    Unsupported,
    Checksum,
    Fragment,
    NoPort,
    NoRoute,
    Unacceptable,
    ConnectionsFull,
    CookieLimit,
}

impl From<WireError> for DropReason {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Malformed => Self::Malformed,
            WireError::Checksum => Self::Checksum,
            WireError::Unsupported => Self::Unsupported,
            WireError::Fragment => Self::Fragment,
        }
    }
}

impl Counters {
    #[cold]
    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        let counter = match reason {
            DropReason::Malformed => &mut self.dropped_malformed,
            DropReason::NotForUs => &mut self.dropped_not_for_us,
            DropReason::BadSource => &mut self.dropped_bad_source,
            DropReason::OffLink => &mut self.dropped_off_link,
            DropReason::Unsupported => &mut self.dropped_unsupported,
            DropReason::Checksum => &mut self.dropped_checksum,
            DropReason::Fragment => &mut self.dropped_fragment,
            DropReason::NoPort => &mut self.dropped_no_port,
            DropReason::NoRoute => &mut self.dropped_no_route,
            DropReason::Unacceptable => &mut self.dropped_unacceptable,
            DropReason::ConnectionsFull => &mut self.refused_connections_full,
            DropReason::CookieLimit => &mut self.syn_cookies_limited,
        };
        *counter += 1;
    }
}

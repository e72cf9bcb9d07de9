//! Publishing: what the stack has counted, copied to where the VMM reads it. The stack knows nothing of that place, and the loop
//! nothing of what is counted but the names.
//!
//! It is done before the loop waits and every [`ROUNDS`] rounds while it never does, so it costs a batch some fifty stores, and
//! whoever reads is that far behind at most.

use abi::statistics::{self, LinkStatistics, StatisticsArea, TcpStatistics, UdpStatistics, set};
use core::sync::atomic::Ordering::Relaxed;
use exos_net::counters::{BUCKETS, Counters, Samples};
use exos_net::{Data, Stack};

/// Rounds of a loop that never waits from one publication to the next.
pub(crate) const ROUNDS: u32 = 32;

const _: () = assert!(BUCKETS == statistics::BUCKETS);

/// Brings what the statistics area has of a stack up to date.
pub(crate) fn publish<D: Data>(stack: &mut Stack<D>, area: &StatisticsArea) {
    crate::addresses::tell_conflicts(stack);
    let counters = stack.counters();
    tcp(&area.tcp, counters);
    set(&area.tcp.curr_estab, stack.established() as u64);
    set(&area.tcp.half_open, stack.half_open() as u64);
    set(&area.tcp.opening, stack.opening() as u64);
    set(&area.tcp.time_wait, stack.time_wait() as u64);
    crate::addresses::tell_refused(area.link.prefixes_refused.load(Relaxed), counters.prefixes_refused);
    link(&area.link, counters);
    udp(&area.udp, counters);
    let Samples { smoothed_rtt_ns, congestion_window_bytes } = stack.samples();
    area.smoothed_rtt_ns.publish(smoothed_rtt_ns.sum, &smoothed_rtt_ns.buckets);
    area.congestion_window_bytes.publish(congestion_window_bytes.sum, &congestion_window_bytes.buckets);
}

fn tcp(area: &TcpStatistics, from: &Counters) {
    set(&area.active_opens, from.active_opens);
    set(&area.passive_opens, from.half_opened);
    set(&area.attempt_fails, from.half_open_dropped + from.half_open_evicted + from.opening_failed);
    set(&area.refused, from.refused);
    set(&area.unreachable, from.unreachable);
    set(&area.half_open_evicted, from.half_open_evicted);
    set(&area.syn_cookies_sent, from.syn_cookies_sent);
    set(&area.syn_cookies_accepted, from.syn_cookies_accepted);
    set(&area.syn_cookies_failed, from.syn_cookies_failed);
    set(&area.syn_cookies_limited, from.syn_cookies_limited);
    set(&area.refused_connections_full, from.refused_connections_full);
    set(&area.opened, from.opened);
    set(&area.closed, from.closed);
    set(&area.reset_by_peer, from.reset_by_peer);
    set(&area.timed_out, from.timed_out);
    set(&area.aborted, from.aborted);
    set(&area.evicted, from.evicted);
    set(&area.segs_in, from.segments_in);
    set(&area.data_segs_in, from.data_segments_in);
    set(&area.thru_octets_received, from.bytes_in);
    set(&area.segs_out, from.segments_out + (from.data_segments_out - from.data_frames_out));
    set(&area.data_segs_out, from.data_segments_out);
    set(&area.data_octets_out, from.bytes_out);
    set(&area.frames_out, from.segments_out);
    set(&area.segs_retrans, from.retransmits);
    set(&area.octets_retrans, from.bytes_retransmitted);
    set(&area.timeouts, from.timeouts);
    set(&area.fast_retran, from.fast_retransmits);
    recovery(area, from);
    set(&area.dup_acks_in, from.duplicate_acks_in);
    set(&area.pure_acks_out, from.pure_acks_out);
    set(&area.zero_rwin_rcvd, from.zero_windows_in);
    set(&area.zero_rwin_sent, from.zero_windows_out);
    set(&area.window_probes, from.window_probes);
    set(&area.out_of_order_in, from.out_of_order_in);
    set(&area.out_of_window_in, from.duplicates_in);
    set(&area.unacceptable_in, from.dropped_unacceptable);
    set(&area.no_buffer_in, from.dropped_no_buffer);
    set(&area.out_rsts, from.resets_out);
    set(&area.in_rsts, from.resets_in);
    set(&area.challenge_acks, from.challenge_acks);
    set(&area.challenge_acks_limited, from.challenge_acks_limited);
    set(&area.time_wait_reused, from.time_wait_reused);
    set(&area.time_wait_evicted, from.time_wait_evicted);
    set(&area.path_mtu_reduced, from.path_mtu_reduced);
    set(&area.driver_full, from.driver_full);
    set(&area.ce_rcvd, from.congestion_marks_in);
    set(&area.ecn_signals, from.congestion_echoes_in);
    set(&area.ecn_reductions, from.congestion_echoes_answered);
    set(&area.small_mss_in, from.small_mss_in);
    set(&area.small_segs_out, from.small_segments_out);
    set(&area.windows_held, from.windows_held);
    set(&area.split_acks_in, from.split_acks_in);
    set(&area.segs_withheld, from.segments_withheld);
    set(&area.optimistic_acks, from.optimistic_acks);
    set(&area.address_lost, from.address_lost);
}

fn recovery(area: &TcpStatistics, from: &Counters) {
    set(&area.losses_found, from.losses_found);
    set(&area.reordering_timeouts, from.reordering_timeouts);
    set(&area.tail_probes, from.tail_probes);
    set(&area.tail_probe_recoveries, from.tail_probe_recoveries);
    set(&area.spurious_rto_detected, from.spurious_timeouts);
    set(&area.spurious_fr_detected, from.spurious_recoveries - from.spurious_timeouts);
    set(&area.sacks_rcvd, from.sacks_in);
    set(&area.dsack_dups, from.duplicates_reported);
    set(&area.sack_blocks_ignored, from.sack_blocks_ignored);
    set(&area.sacks_forgotten, from.sacks_forgotten);
}

fn link(area: &LinkStatistics, from: &Counters) {
    set(&area.frames_in, from.frames_in);
    set(&area.arp_replies, from.arp_replies);
    set(&area.arp_requests, from.arp_requests);
    set(&area.arp_conflicts, from.arp_conflicts);
    set(&area.echo_replies, from.echo_replies);
    set(&area.bad_checksums, from.dropped_checksum);
    set(&area.malformed, from.dropped_malformed);
    set(&area.not_for_us, from.dropped_not_for_us);
    set(&area.bad_source, from.dropped_bad_source);
    set(&area.unsupported, from.dropped_unsupported);
    set(&area.fragments, from.dropped_fragment);
    set(&area.reasm_reqds, from.reassembly_required);
    set(&area.reasm_oks, from.reassembly_ok);
    set(&area.reasm_fails, from.reassembly_fails);
    set(&area.icmp_errors_out, from.icmp_errors_out);
    set(&area.icmp_errors_limited, from.icmp_errors_limited);
    set(&area.no_route, from.dropped_no_route);
    set(&area.arp_probes, from.arp_probes);
    set(&area.arp_announcements, from.arp_announcements);
    set(&area.neighbour_solicitations, from.neighbour_solicitations);
    set(&area.neighbour_advertisements, from.neighbour_advertisements);
    set(&area.address_probes, from.address_probes);
    set(&area.duplicate_addresses, from.duplicate_addresses);
    set(&area.router_solicitations, from.router_solicitations);
    set(&area.router_advertisements, from.router_advertisements);
    set(&area.off_link, from.dropped_off_link);
    set(&area.prefixes_refused, from.prefixes_refused);
    set(&area.group_queries, from.group_queries_in);
    set(&area.group_reports, from.group_reports_out);
}

fn udp(area: &UdpStatistics, from: &Counters) {
    set(&area.in_datagrams, from.datagrams_in);
    set(&area.no_ports, from.dropped_no_port);
    set(&area.in_errors, from.datagrams_bad);
    set(&area.out_datagrams, from.datagrams_out);
    set(&area.icmp_errors_in, from.datagram_errors_in);
}

/// The same of what UDP sockets have counted.
#[cfg(feature = "sockets")]
pub(crate) fn publish_udp_sockets(from: exos_sockets::UdpCounters, area: &StatisticsArea) {
    set(&area.udp.buffer_full, from.dropped_full);
    set(&area.udp.not_peer, from.dropped_not_peer);
    set(&area.udp.unsent, from.dropped_unsent);
    set(&area.udp.not_member, from.dropped_not_member);
}

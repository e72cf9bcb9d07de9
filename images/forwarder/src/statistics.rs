//! What the forwarder has counted, where the VMM reads it.

use abi::statistics::{ForwardStatistics, set};
use exos_forward::{Forwarder, Reason};
use exos_net::Counters;

/// Brings the area up to date; `host` has answered for the forwarder's addresses, and `refused` frames were not taken by the NIC.
pub(crate) fn publish(area: &ForwardStatistics, forwarder: &Forwarder, host: &Counters, refused: u64) {
    let from = forwarder.counters();
    set(&area.frames_in, from.frames_in);
    set(&area.opened, from.opened);
    set(&area.established, from.established);
    let [half_open, established, closing] = forwarder.connections();
    set(&area.half_open_now, half_open.into());
    set(&area.established_now, established.into());
    set(&area.closing_now, closing.into());
    set(&area.half_open_evicted, from.evicted_half_open);
    set(&area.closing_evicted, from.evicted_closing);
    set(&area.expired, from.expired);
    set(&area.to_server_frames, from.to_server.frames);
    set(&area.to_server, from.to_server.data_bytes);
    set(&area.to_server_icmp, from.to_server.icmp);
    set(&area.to_client_frames, from.to_client.frames);
    set(&area.to_client, from.to_client.data_bytes);
    set(&area.to_client_icmp, from.to_client.icmp);
    set(&area.arp_requests, from.arp_requests);
    set(&area.arp_replies, host.arp_replies);
    set(&area.neighbour_solicitations, from.neighbour_solicitations);
    set(&area.neighbour_advertisements, host.neighbour_advertisements);
    set(&area.echo_replies, from.echo_replies);
    set(&area.errors_sent, from.errors_sent);
    for (reason, _) in Reason::ALL {
        set(dropped(area, reason), from.dropped(reason));
    }
    set(&area.nic_refused, refused);
}

fn dropped(area: &ForwardStatistics, reason: Reason) -> &core::sync::atomic::AtomicU64 {
    match reason {
        Reason::Malformed => &area.malformed,
        Reason::BadChecksum => &area.bad_checksum,
        Reason::BadSource => &area.bad_source,
        Reason::NotForUs => &area.not_for_us,
        Reason::Fragment => &area.fragment,
        Reason::IpOptions => &area.ip_options,
        Reason::Unsupported => &area.unsupported,
        Reason::NotListened => &area.not_listened,
        Reason::NoFlow => &area.no_flow,
        Reason::TimeToLive => &area.time_to_live,
        Reason::Unresolved => &area.unresolved,
        Reason::TableFull => &area.table_full,
        Reason::Offload => &area.offload,
        Reason::Icmp => &area.icmp,
        Reason::NoServer => &area.no_server,
    }
}

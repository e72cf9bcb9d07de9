//! webswamp against servers that can be trusted to count, and against those that cannot be trusted with anything.

use exovm::machine::End;
use exovm_ci::swamp::{Manners, Outcome, Server, host_at, swamp, swamp_of};
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// Both sides have counted the same.
fn assert_same(server: &Server, outcome: &Outcome, expected: u64) {
    let [connections, requests, bytes] = server.counts();
    assert_eq!((outcome.status, outcome.errors()), (0, 0), "{:#}", outcome.report);
    assert_eq!(
        (requests, outcome.number("answered"), outcome.number("asked")),
        (expected, expected, expected)
    );
    assert_eq!(bytes, outcome.number("bytes"));
    assert_eq!(connections, outcome.number("connections_opened"));
    assert_eq!(outcome.number("/latency_ns/count"), expected);
}

#[test]
fn webswamp_and_a_server_on_sockets_count_the_same_requests_and_bytes() {
    in_namespace!(|| {
        for (manners, body_bytes) in [
            (Manners::Good(0), 0),
            (Manners::Good(64), 64),
            (Manners::Good(100_000), 100_000),
            (Manners::Chunked(5_000), 5_000),
        ] {
            let server = Server::start(manners);
            let outcome = swamp(&format!("--target http://{}/x -c 8 -n 400", host_at(server.port)));
            assert_same(&server, &outcome, 400);
            assert_eq!(outcome.number("body_bytes"), 400 * body_bytes, "{manners:?}");
            assert_eq!(outcome.number("connections_opened"), 8, "they are kept alive");

            let server = Server::start(manners);
            let outcome = swamp(&format!("--target http://{}/x -c 8 -n 100 --close", host_at(server.port)));
            assert_same(&server, &outcome, 100);
            assert_eq!(outcome.number("connections_opened"), 100, "each has its own");
        }
    });
}

#[test]
fn time_ends_a_run_and_both_sides_have_counted_the_same() {
    in_namespace!(|| {
        let server = Server::start(Manners::Good(64));
        let outcome = swamp(&format!("--target http://{} -c 16 -d 1s", host_at(server.port)));
        let answered = outcome.number("answered");
        assert!(answered > 100, "{:#}", outcome.report);
        assert_same(&server, &outcome, answered);
        let elapsed_ns = outcome.number("elapsed_ns");
        assert!((900_000_000..2_000_000_000).contains(&elapsed_ns), "{elapsed_ns}");
        let percentiles = ["min", "p50", "p90", "p99", "p99_9", "max"]
            .map(|name| outcome.number(&format!("/latency_ns/{name}")));
        assert!(percentiles.is_sorted() && percentiles[0] > 0, "{percentiles:?}");
    });
}

/// What the guest sent first on each of its connections: flags and payload bytes of each frame, by source port.
fn sent_by_port(capture: &Path) -> BTreeMap<u16, Vec<(u8, usize)>> {
    const FROM_GUEST: u32 = 2;
    let mut reader = PcapNgReader::new(File::open(capture).unwrap()).unwrap();
    let mut sent: BTreeMap<u16, Vec<(u8, usize)>> = BTreeMap::new();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.unwrap() else { continue };
        let from_guest = packet.options.iter().any(|option| {
            use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption::Flags;
            matches!(option, Flags(flags) if flags & 3 == FROM_GUEST)
        });
        let frame = &packet.data;
        if !from_guest || frame.len() < 54 || frame[12..14] != [8, 0] || frame[23] != 6 {
            continue;
        }
        let header_bytes = 14 + 20 + usize::from(frame[46] >> 4) * 4;
        let ip_bytes = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        let port = u16::from_be_bytes([frame[34], frame[35]]);
        sent.entry(port).or_default().push((frame[47], 14 + ip_bytes - header_bytes));
    }
    sent
}

#[test]
fn acknowledgment_of_the_handshake_rides_on_the_request() {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    in_namespace!(|| {
        let scratch = tempfile::tempdir().unwrap();
        let capture = scratch.path().join("swamp.pcapng");
        let server = Server::start(Manners::Good(64));
        let words = format!("--target http://{}/ -c 8 -n 200 --close", host_at(server.port));
        let outcome = swamp_of(Guest::image("webswamp").pcap(&capture), &words);
        assert_same(&server, &outcome, 200);
        let sent = sent_by_port(&capture);
        assert_eq!(sent.len(), 200, "each connection has a source port of its own");
        for (port, frames) in sent {
            assert_eq!(frames[0], (SYN, 0), "port {port}");
            let (flags, payload_bytes) = frames[1];
            assert!(flags & ACK != 0 && payload_bytes > 0, "port {port} sends {frames:?}");
            assert!(frames.len() <= 4, "port {port} sends {frames:?}");
        }
    });
}

#[test]
fn webswamp_loads_a_cheetah_behind_a_router_and_both_count_the_same() {
    in_namespace!(|| {
        let site = Site::new().pattern_file("large", 7, 300_000);
        let cheetah = Guest::image("cheetah").site(&site).tap(1).gateway([10, 80, 1, 1].into()).start();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("the namespace is ours");
        for words in ["-c 16 -n 600", "-c 16 -n 200 --close"] {
            let mut outcome = None;
            let served = cheetah.requests_during(|| {
                let guest = Guest::image("webswamp").gateway([10, 80, 0, 1].into());
                outcome = Some(swamp_of(guest, &format!("--target http://10.80.1.2/large {words}")));
            });
            let outcome = outcome.expect("it ran");
            assert_eq!((outcome.status, outcome.errors()), (0, 0), "{:#}", outcome.report);
            assert_eq!(served, outcome.number("answered"), "{words}");
            assert_eq!(outcome.number("body_bytes"), served * 300_000, "{words}");
        }
        cheetah.stop();
    });
}

#[test]
fn each_failure_of_a_server_is_counted_as_what_it_is_and_the_run_ends() {
    in_namespace!(|| {
        let cases = [
            (Manners::SaysMore, "cut_short"),
            (Manners::SaysLess, "bad_response"),
            (Manners::Cuts, "cut_short"),
            (Manners::Garbage, "bad_response"),
            (Manners::Resets, "reset"),
            (Manners::Silent, "timed_out"),
            (Manners::NotFound, "status"),
        ];
        for (manners, kind) in cases {
            for close in ["", "--close"] {
                let server = Server::start(manners);
                let target = host_at(server.port);
                let outcome = swamp(&format!("--target http://{target}/ -c 4 -n 12 --timeout 500ms {close}"));
                assert_eq!(outcome.status, 1, "{manners:?}");
                assert_eq!(outcome.number("answered"), 0, "{manners:?} {close}: {:#}", outcome.report);
                assert_eq!(
                    outcome.number(&format!("/errors/{kind}")),
                    12,
                    "{manners:?} {close}: {:#}",
                    outcome.report
                );
                assert_eq!(outcome.errors(), 12, "{manners:?} {close}: {:#}", outcome.report);
                assert!(outcome.took < Duration::from_secs(15), "{manners:?} took {:?}", outcome.took);
            }
        }
    });
}

#[test]
fn server_that_is_not_there_is_told_from_one_that_refuses() {
    in_namespace!(|| {
        let refused = swamp(&format!("--target http://{}/ -c 4 -n 8", host_at(9)));
        assert_eq!((refused.status, refused.number("/errors/refused"), refused.errors()), (1, 8, 8));
        let absent = swamp("--target http://10.80.0.77/ -c 4 -d 1s");
        assert_eq!((absent.status, absent.number("/errors/unreachable"), absent.errors()), (1, 4, 4));
        let no_route = swamp("--target http://192.0.2.1/ -c 4 -n 8");
        assert_eq!((no_route.status, no_route.number("/errors/unreachable"), no_route.errors()), (1, 8, 8));
        assert!(absent.took < Duration::from_secs(15), "{:?}", absent.took);
    });
}

#[test]
fn wrong_words_end_webswamp_with_2_and_what_to_do() {
    for (words, said) in [
        (&["--target=http://exa mple.org/"][..], "neither a name nor an address"),
        (&["--target=http://10.80.0.1/", "-c", "0"], "give a number from 1 to 16384"),
        (&[], "say whom to load"),
    ] {
        let (end, log) = Guest::image("webswamp").no_network().arguments(words).launch().wait();
        assert_eq!(end, End::PowerOff { status: 2 }, "{log:#?}");
        assert!(log.iter().any(|line| line.contains(said)), "{log:#?}");
    }
    let words = ["--target=http://10.80.0.1/"];
    let (end, log) = Guest::image("webswamp").no_network().arguments(&words).launch().wait();
    assert_eq!(end, End::PowerOff { status: 1 }, "{log:#?}");
    assert!(log.iter().any(|line| line.contains("no network interface")), "{log:#?}");
}

#[test]
fn wrong_word_for_congestion_notification_ends_webswamp_and_is_named() {
    in_namespace!(|| {
        let words = ["--target=http://10.80.0.1/", "--ecn=maybe"];
        let (end, log) = Guest::image("webswamp").arguments(&words).launch().wait();
        assert_eq!(end, End::PowerOff { status: 1 }, "{log:#?}");
        assert!(log.iter().any(|line| line.contains("ecn") && line.contains("maybe")), "{log:#?}");
    });
}

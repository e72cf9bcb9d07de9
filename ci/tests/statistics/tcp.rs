//! Requests and connections: what TCP, HTTP, cache, NIC and backend say against what the client did and the eyes saw.

use super::seen::{none, watched};
use super::{assert_become, once, tcp};
use exovm::placement::IoMode;
use exovm::stat::StatSnapshot;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::io::Write;
use std::time::Duration;

const CONNECTIONS: u64 = 10;
const REQUESTS: u64 = 500;
const MISSING: u64 = 7;
const UNMODIFIED: u64 = 5;

/// Whether the stack and the eyes agree on everything that both count, so that nothing is under way.
fn agree(statistics: &StatSnapshot, eyes: &super::seen::Eyes) -> Vec<(&'static str, u64, u64)> {
    let (from, to) = (eyes.of_the_guest(), eyes.to_guest());
    let nic = |name| statistics.value("nic", name).unwrap_or(0);
    // A segment that was withheld leaves behind others, once; to the eyes that is a repetition.
    let withheld = tcp(statistics, "segs_withheld");
    let backend = |name| statistics.value("backend", name).unwrap_or(0);
    [
        ("segs_in", tcp(statistics, "segs_in"), to.tcp_frames),
        ("data_octets_out", tcp(statistics, "data_octets_out"), from.data_bytes),
        ("segs_out", tcp(statistics, "segs_out"), from.segments),
        ("frames_out", tcp(statistics, "frames_out"), from.tcp_frames),
        ("data_segs_out", tcp(statistics, "data_segs_out"), from.data_segments),
        ("pure_acks_out", tcp(statistics, "pure_acks_out"), from.pure_acks),
        ("segs_retrans", tcp(statistics, "segs_retrans") + withheld, from.repeated_segments),
        ("octets_retrans", tcp(statistics, "octets_retrans") + withheld * 1_448, from.repeated_bytes),
        ("out_rsts", tcp(statistics, "out_rsts"), from.resets),
        ("ip frames_in", statistics.value("ip", "frames_in").unwrap_or(0), to.frames),
        ("sent_frames", nic("sent_frames"), from.frames),
        ("sent_bytes", nic("sent_bytes"), from.bytes),
        ("received_frames", nic("received_frames"), to.frames),
        ("received_bytes", nic("received_bytes"), to.bytes),
        ("queue_sent_frames", nic("queue_sent_frames"), from.frames),
        ("queue_received_bytes", nic("queue_received_bytes"), to.bytes),
        ("tap_read_frames", backend("tap_read_frames"), to.frames),
    ]
    .into_iter()
    .filter(|(_, said, seen)| said != seen)
    .collect()
}

/// Waits until they agree.
fn assert_agree(guest: &Guest, eyes: &super::seen::Eyes) -> StatSnapshot {
    let start = std::time::Instant::now();
    loop {
        let statistics = guest.machine().statistics();
        let wrong = agree(&statistics, eyes);
        if wrong.is_empty() {
            return statistics;
        }
        assert!(start.elapsed() < super::PATIENCE, "name, said, seen: {wrong:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn requests_connections_and_segments_are_as_client_and_wire_saw_them() {
    in_namespace!(|| {
        for io in [IoMode::Turn, IoMode::Thread] {
            let site = Site::new().file("a.txt", "a text").pattern_file("large", 1, 200_000);
            let (eyes, wrap) = watched(none, none);
            let guest = Guest::image("cheetah").site(&site).io(io).wrap_backend(wrap).start();
            let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| guest.connect()).collect();
            let mut body_bytes = 0;
            for number in 0..REQUESTS {
                let client = &mut clients[(number % CONNECTIONS) as usize];
                let target = if number % 50 == 0 { "/large" } else { "/a.txt" };
                let response = client.get(target).unwrap();
                assert_eq!(response.status(), 200);
                body_bytes += response.body.len() as u64;
            }
            for _ in 0..MISSING {
                let response = clients[0].get("/missing").unwrap();
                assert_eq!(response.status(), 404);
                body_bytes += response.body.len() as u64;
            }
            let modified = clients[0].get("/a.txt").unwrap();
            let since = format!("If-Modified-Since: {}\r\n", modified.head.field("last-modified").unwrap());
            body_bytes += modified.body.len() as u64;
            for _ in 0..UNMODIFIED {
                assert_eq!(clients[0].get_with("/a.txt", &since).unwrap().status(), 304);
            }
            let expected =
                [("passive_opens", CONNECTIONS), ("opened", CONNECTIONS), ("curr_estab", CONNECTIONS)];
            assert_become(&guest, "tcp", &expected);
            let http = [
                ("responses_2xx", REQUESTS + 1),
                ("responses_4xx", MISSING),
                ("responses_3xx", UNMODIFIED),
                ("responses_5xx", 0),
                ("body", body_bytes),
                ("connections", CONNECTIONS),
                ("connections_opened", CONNECTIONS),
            ];
            assert_become(&guest, "http", &http);
            let statistics = assert_agree(&guest, &eyes);
            assert_eq!(tcp(&statistics, "active_opens"), 0);
            assert_eq!(tcp(&statistics, "segs_retrans"), 0, "a perfect wire");
            let requests = REQUESTS + 1 + MISSING + UNMODIFIED;
            assert_eq!(tcp(&statistics, "data_segs_in"), requests, "a request is a segment");
            assert_eq!(tcp(&statistics, "thru_octets_received"), eyes.to_guest().data_bytes);
            assert!(
                tcp(&statistics, "segs_out") > tcp(&statistics, "frames_out"),
                "the device cuts large ones"
            );
            // A measurement for each connection's handshake at least, and none longer than the test.
            let rtt = statistics.histogram("tcp", "smoothed_rtt", &[]).unwrap();
            assert!(rtt.count() >= CONNECTIONS, "{rtt:?}");
            assert!((1_000..20_000_000_000).contains(&(rtt.value / rtt.count())), "{rtt:?}");
            let window = statistics.histogram("tcp", "congestion_window", &[]).unwrap();
            assert_eq!(window.count(), rtt.count());
            assert!(window.value / window.count() >= 14_600, "the initial window: {window:?}");
            // The pages of two files, each read once, and their names.
            let cache = |name| statistics.value("cache", name).unwrap();
            assert_eq!(cache("name_misses"), 2 + MISSING, "what is not there is not remembered");
            assert!(cache("hits") + cache("misses") >= REQUESTS, "{}", cache("hits"));
            assert!(cache("read") >= 200_000);
            assert!(
                statistics.value("disk", "read_bytes").unwrap() >= cache("read"),
                "the disk gave what was read"
            );
            drop(clients);
            let ended = [("curr_estab", 0), ("closed", CONNECTIONS), ("reset_by_peer", 0), ("time_wait", 0)];
            assert_become(&guest, "tcp", &ended);
            assert_become(&guest, "http", &[("connections", 0)]);
            guest.stop();
        }
    });
}

#[test]
fn lost_segments_are_counted_as_they_were_sent_again() {
    in_namespace!(|| {
        // Long enough for the window to get as large as fast retransmit needs it, at one loss in 37 segments.
        let site = Site::new().pattern_file("large", 1, 12_000_000).file("a", "a");
        // The first answer is lost alone, and the probe for it, which only a timeout finds; later ones in the middle of others.
        let lost = |number: u64| number <= 2 || (number > 20 && number.is_multiple_of(37));
        let (eyes, wrap) = watched(lost, none);
        let guest = Guest::image("cheetah").site(&site).wrap_backend(wrap).start();
        let mut client = guest.connect();
        assert_eq!(client.get("/a").unwrap().text(), "a");
        assert_eq!(client.get("/large").unwrap().body.len(), 12_000_000);
        let statistics = assert_agree(&guest, &eyes);
        let seen = eyes.of_the_guest();
        assert!(seen.repeated_segments >= 2, "something was lost: {seen:?}");
        assert!(tcp(&statistics, "timeouts") >= 1 && tcp(&statistics, "tail_probes") >= 1);
        assert!(tcp(&statistics, "fast_retran") >= 1, "{}", tcp(&statistics, "timeouts"));
        assert!(tcp(&statistics, "dup_acks_in") >= 3, "what fast retransmit goes by");
        guest.stop();
    });
}

#[test]
fn segments_out_of_order_are_counted() {
    in_namespace!(|| {
        let (eyes, wrap) = watched(none, |number| number == 1);
        let guest = Guest::image("cheetah").site(&Site::new().file("a", "a")).wrap_backend(wrap).start();
        let mut client = guest.connect();
        client.socket().write_all(b"GET /a HTTP/1.1\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(2));
        client.socket().write_all(b"Host: x\r\n\r\n").unwrap();
        assert_eq!(client.response(exovm_ci::http::Content::Follows).unwrap().text(), "a");
        once(&guest, "a segment out of order", |statistics| tcp(statistics, "out_of_order_in") == 1);
        assert!(eyes.to_guest().data_segments >= 2);
        guest.stop();
    });
}

#[test]
fn counters_of_two_environments_and_their_flows_are_told_apart() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().unwrap();
        let (guest, servers) = exovm_ci::pair::two_cheetahs(scratch.path(), |builder| builder);
        for (server, requests) in servers.into_iter().zip([3, 5]) {
            let mut client = exovm_ci::Client::connect(server).unwrap();
            (0..requests).for_each(|_| assert_eq!(client.get("/who").unwrap().status(), 200));
        }
        let of = |statistics: &StatSnapshot, layer, name, environment| {
            statistics.labelled(layer, name, &[("environment", environment)]).unwrap()
        };
        // What was for a queue that did not work yet found its flow, too. A frame that comes just now is in one count and not yet in the other.
        let delivered = |statistics: &StatSnapshot| -> u64 {
            let names = ["received_frames", "receive_dropped_queue", "receive_dropped_buffers"];
            names.iter().map(|name| statistics.value("nic", name).unwrap()).sum()
        };
        let statistics = once(&guest, "eight responses, and each frame with its flow", |statistics| {
            of(statistics, "http", "responses_2xx", "0") == 3
                && of(statistics, "http", "responses_2xx", "1") == 5
                && statistics.value("flow", "hits") == Some(delivered(statistics))
        });
        assert_eq!(statistics.value("machine", "environments"), Some(2));
        // Flows are divided: each received frame was looked up, and given to one of the two.
        let flow = |name| statistics.value("flow", name).unwrap();
        assert_eq!(flow("lookups"), flow("hits") + flow("unmatched"));
        for (environment, queue) in [("0", "0"), ("1", "2")] {
            let frames = of(&statistics, "ip", "frames_in", environment);
            assert!(frames > 0 && frames <= of(&statistics, "flow", "hits", environment), "{environment}");
            let received = statistics.labelled("nic", "queue_received_frames", &[("queue", queue)]).unwrap();
            assert!(
                received >= frames && received <= of(&statistics, "flow", "hits", environment),
                "a pair each"
            );
        }
        assert!(flow("send_lookups") >= statistics.value("nic", "sent_frames").unwrap());
        assert_eq!(flow("send_refused"), 0);
        guest.stop();
    });
}

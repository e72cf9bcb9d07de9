//! Reports: numbers for people, JSON for programs.

use exos_load::{ErrorKind, Errors, Histogram, Packets, Plan, Report};

fn with_report(body: impl FnOnce(Report<'_>)) {
    let plan = Plan::from_words("--target http://10.0.0.2/\"x\\ -c 64".split(' ')).unwrap();
    let mut latency_ns = Histogram::new();
    (1..=1000).for_each(|number| latency_ns.record(number * 1000));
    let mut errors = Errors::default();
    errors.add(ErrorKind::CutShort);
    let packets = Packets { frames_in: 5, segments_in: 4, frames_out: 3, acks_out: 2, retransmitted: 1 };
    body(Report {
        plan: &plan,
        elapsed_ns: 2_000_000_000,
        asked: 1001,
        answered: 1000,
        bytes: 123_456,
        body_bytes: 100_000,
        latency_ns: &latency_ns,
        errors,
        connections: 65,
        packets,
    });
}

#[test]
fn text_says_all_in_numbers_for_people() {
    with_report(|report| {
        let mut lines = Vec::new();
        report.write_lines(|line| lines.push(line.to_string()));
        assert_eq!(
            lines,
            [
                "http://10.0.0.2/\"x\\: 64 connections, kept alive, 2.00 s",
                "  answered    1,000: 500 requests/s",
                "  received    123 kB: 61.7 kB/s",
                "  latency     min 1.00 us, 50 % 501 us, 90 % 901 us, 99 % 991 us, 99.9 % 999 us, max 1.00 ms",
                "  packets     4 in, 3 out (2 of them bare acknowledgments, 1 sent again), 65 connections opened",
                "  errors      1 of 1,001 requests",
                "    cut short       1",
            ]
        );
    });
}

#[test]
fn json_is_one_line_with_everything() {
    with_report(|report| {
        let mut json = String::new();
        report.write_json(&mut json).unwrap();
        let report: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(!json.contains('\n'));
        assert_eq!(report["target"], "http://10.0.0.2/\"x\\");
        assert_eq!(report["requests_per_second"], 500.0);
        assert_eq!(report["keep_alive"], true);
        for (name, value) in
            [("connections", 64), ("asked", 1001), ("answered", 1000), ("elapsed_ns", 2_000_000_000u64)]
        {
            assert_eq!(report[name], value, "{name}");
        }
        for (name, value) in [("bytes", 123_456), ("body_bytes", 100_000), ("connections_opened", 65)] {
            assert_eq!(report[name], value, "{name}");
        }
        let latency = &report["latency_ns"];
        assert_eq!(
            (&latency["min"], &latency["max"], &latency["count"]),
            (&1000.into(), &1_000_000.into(), &1000.into())
        );
        for (name, exact) in [("p50", 500_000), ("p90", 900_000), ("p99", 990_000), ("p99_9", 999_000)] {
            let reported = latency[name].as_u64().unwrap();
            assert!(reported >= exact && reported <= exact + exact / 128, "{name} {reported}");
        }
        let errors = report["errors"].as_object().unwrap();
        assert_eq!(errors.len(), ErrorKind::ALL.len());
        assert_eq!(errors.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 1);
        assert_eq!(errors["cut_short"], 1);
        let packets = ["frames_in", "segments_in", "frames_out", "acks_out", "retransmitted"];
        assert_eq!(packets.map(|name| report["packets"][name].as_u64().unwrap()), [5, 4, 3, 2, 1]);
    });
}

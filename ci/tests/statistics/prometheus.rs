//! The text for Prometheus, read by a parser that is not ours, and by the rules of the format (prometheus.io, exposition formats 0.0.4).

use exovm::stat::prometheus::render;
use exovm::stat::{Kind, StatSnapshot, family};
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use nom_openmetrics::parser::prometheus;
use nom_openmetrics::{Family, MetricDescriptor, MetricType, Sample};
use std::collections::{BTreeMap, BTreeSet};

/// The family's name and kind, of which each stands in it once, and a help text that says something.
fn described<'f>(family: &'f Family<'_>) -> (&'f str, &'static str) {
    let (mut kinds, mut helps) = (Vec::new(), Vec::new());
    for descriptor in &family.descriptors {
        match descriptor {
            MetricDescriptor::Type { metric, r#type } => {
                let kind = match r#type {
                    MetricType::Counter => "counter",
                    MetricType::Gauge => "gauge",
                    // The parser knows no histograms by themselves, which are not its grammar's business.
                    MetricType::Histogram | MetricType::Unknown("histogram") => "histogram",
                    other => panic!("{metric}: {other:?}"),
                };
                kinds.push((*metric, kind));
            }
            MetricDescriptor::Help { metric, help } => {
                assert!(help.len() > 5, "{metric}: {help}");
                helps.push(*metric);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((kinds.len(), helps.len()), (1, 1), "{family:?}");
    assert_eq!(kinds[0].0, helps[0]);
    kinds[0]
}

fn labels<'s>(sample: &'s Sample<'_>, without: &str) -> Vec<(&'s str, &'s str)> {
    let labels = sample.labels().iter().filter(|label| label.name != without);
    labels.map(|label| (label.name, label.value.as_str())).collect()
}

/// Names and values.
type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Buckets grow to the last, which is infinite and holds what `_count` says; there is a `_sum`.
fn assert_histogram(name: &str, samples: &[Sample<'_>]) {
    let mut buckets: BTreeMap<Labels<'_>, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.name() == format!("{name}_bucket")) {
        let bound = sample.labels().iter().find(|label| label.name == "le").expect("a bound");
        let bound = bound.value.replace("+Inf", "inf").parse().expect("a number");
        buckets.entry(labels(sample, "le")).or_default().push((bound, sample.number()));
    }
    assert!(!buckets.is_empty(), "{name}");
    for (own, buckets) in buckets {
        assert!(
            buckets.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1),
            "{name}: {buckets:?}"
        );
        let of = |suffix: &str| {
            let named = samples.iter().filter(|sample| sample.name() == format!("{name}{suffix}"));
            let found: Vec<_> = named.filter(|sample| labels(sample, "le") == own).collect();
            assert_eq!(found.len(), 1, "{name}{suffix}");
            found[0].number()
        };
        let (bound, count) = *buckets.last().expect("a bucket");
        assert!(bound.is_infinite() && count == of("_count") && of("_sum") >= 0.0, "{name}: {buckets:?}");
    }
}

/// What the parser finds, which must be all of it and by the rules: HELP and TYPE once a family, no family in two places, no series
/// twice.
fn checked(text: &str) -> Vec<Family<'_>> {
    let (rest, families) = prometheus(text).unwrap_or_else(|error| panic!("{error}"));
    assert!(rest.is_empty(), "not understood: {rest}");
    let (mut names, mut series) = (BTreeSet::new(), BTreeSet::new());
    for family in &families {
        let (name, kind) = described(family);
        assert!(name.starts_with("exovm_") && names.insert(name), "{name} is there twice");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        for sample in &family.samples {
            let known = match kind {
                "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec(),
                _ => vec![name.to_owned()],
            };
            assert!(known.iter().any(|known| known == sample.name()), "{} under {name}", sample.name());
            let mut own = labels(sample, "");
            own.sort_unstable();
            let is_new = series.insert((sample.name().to_owned(), format!("{own:?}")));
            assert!(is_new, "{name} {own:?} is there twice");
            assert!(sample.number().is_finite() && sample.number() >= 0.0, "{sample:?}");
        }
        if kind == "histogram" {
            assert_histogram(name, &family.samples);
        }
    }
    families
}

/// Names as an image may choose them.
const NAMES: [&str; 7] = [
    "plain",
    "a\"quoted\" one",
    "back\\slash\\",
    "two\nlines",
    "\\n is no line's end",
    "{a=\"b\"} 7",
    "wörter, µs\t#",
];

#[test]
fn names_of_every_kind_come_back_as_they_were() {
    let help = "A help with a \\ in it,\nand a line's end, and a # HELP that is none.";
    let mut spans = family::Family::new("guest", "span_cycles", Kind::Counter, "cycles", help);
    let mut times = family::Family::new("disk", "request_time", Kind::Histogram, "nanoseconds", help);
    for (number, name) in (1..).zip(NAMES) {
        spans.push(&[("span", name), ("environment", "0")], number);
        let counts = [(1_000, number), (2_000, 0), (4_000, 1)].into_iter();
        times.push_histogram(&[("disk", name)], 1_500_000_001 * number, counts);
    }
    times.push_histogram(&[("disk", "that nobody used")], 0, [(1_000, 0), (2_000, 0)].into_iter());
    let empty = family::Family::new("tcp", "nobody", Kind::Gauge, "", "Without samples it is not there.");
    let snapshot = StatSnapshot { families: vec![spans, empty, times], ..StatSnapshot::default() };
    let text = render(&snapshot);
    let families = checked(&text);
    assert_eq!(families.len(), 2, "{text}");
    for family in &families {
        let helps: Vec<_> = family
            .descriptors
            .iter()
            .filter_map(|descriptor| match descriptor {
                MetricDescriptor::Help { help, .. } => Some(help.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(helps, [help]);
    }
    let of = |name: &str, label: &str| -> BTreeMap<String, f64> {
        let samples =
            families.iter().flat_map(|family| &family.samples).filter(|sample| sample.name() == name);
        let value = |sample: &Sample<'_>| {
            let label = sample.labels().iter().find(|own| own.name == label).expect("its label");
            (label.value.clone(), sample.number())
        };
        samples.map(value).collect()
    };
    let spans = of("exovm_guest_span_cycles_total", "span");
    let sums = of("exovm_disk_request_time_seconds_sum", "disk");
    let counts = of("exovm_disk_request_time_seconds_count", "disk");
    for (number, name) in (1..).zip(NAMES) {
        assert_eq!(spans.get(name), Some(&f64::from(number)), "{name:?}: {spans:?}");
        assert_eq!(counts.get(name), Some(&f64::from(number + 1)), "{name:?}");
        assert!((sums[name] - 1.500000001 * f64::from(number)).abs() < 1e-9, "{name:?}: {}", sums[name]);
    }
    assert_eq!((spans.len(), counts.len(), counts["that nobody used"]), (NAMES.len(), NAMES.len() + 1, 0.0));
}

/// The check itself notices what it is for.
#[test]
fn text_with_a_family_or_a_series_twice_or_a_histogram_that_shrinks_is_noticed() {
    let family = |name: &str, lines: &str| format!("# HELP {name} Some help.\n# TYPE {name} {lines}");
    let counter = family("exovm_a_total", "counter\nexovm_a_total{x=\"1\"} 1\n");
    let wrong = [
        format!("{counter}{counter}"),
        format!("{counter}exovm_a_total{{x=\"1\"}} 2\n"),
        format!("{counter}{}", family("exovm_b_total", "counter\nexovm_c_total 1\n")),
        family(
            "exovm_h",
            "histogram\nexovm_h_bucket{le=\"1\"} 2\nexovm_h_bucket{le=\"+Inf\"} 1\nexovm_h_sum 1\nexovm_h_count 1\n",
        ),
        family("exovm_h", "histogram\nexovm_h_bucket{le=\"+Inf\"} 1\nexovm_h_sum 1\nexovm_h_count 2\n"),
    ];
    checked(&counter);
    for text in wrong {
        let found = std::panic::catch_unwind(|| drop(checked(&text)));
        assert!(found.is_err(), "not noticed: {text}");
    }
}

#[test]
fn text_is_what_prometheus_reads_and_says_what_happened() {
    in_namespace!(|| {
        let guest = Guest::serving(&Site::new().file("a", "a"));
        let _accounts = guest.machine().accounts();
        (0..3).for_each(|_| drop(guest.get("/a")));
        let text = render(&guest.statistics());
        let families = checked(&text);
        assert!(families.len() > 100, "{} families", families.len());
        let value = |name: &str, own: &[(&str, &str)]| {
            let samples =
                families.iter().flat_map(|family| &family.samples).filter(|sample| sample.name() == name);
            let has = |sample: &&Sample<'_>| own.iter().all(|label| labels(sample, "").contains(label));
            samples
                .filter(has)
                .map(Sample::number)
                .reduce(|sum, number| sum + number)
                .unwrap_or_else(|| panic!("no {name}"))
        };
        let first = [("environment", "0")];
        assert_eq!(value("exovm_tcp_passive_opens_total", &first), 3.0);
        assert_eq!(value("exovm_http_responses_2xx_total", &first), 3.0);
        assert_eq!(value("exovm_http_body_bytes_total", &first), 3.0);
        assert_eq!(value("exovm_guest_counter_total", &[("counter", "requests")]), 3.0);
        assert!(value("exovm_guest_span_cycles_total", &[("span", "tcp input")]) > 0.0);
        assert!(value("exovm_account_cycles_total", &[("thread", "vcpu"), ("bucket", "guest")]) > 0.0);
        assert!(value("exovm_vcpu_exits_total", &[("vcpu", "0"), ("reason", "turn")]) > 0.0);
        assert!(value("exovm_nic_queue_received_frames_total", &[("queue", "0")]) >= 9.0);
        assert!(value("exovm_tcp_smoothed_rtt_seconds_count", &first) >= 3.0);
        assert!(value("exovm_host_resident_bytes", &[]) > 1e6);
        assert!(value("exovm_machine_uptime_seconds", &[]) < 600.0);
        guest.stop();
    });
}

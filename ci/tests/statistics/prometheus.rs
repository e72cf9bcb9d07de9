//! The text for Prometheus, read by a parser that is not ours, and by the rules of the format (prometheus.io, exposition formats 0.0.4).

use exovm::stat::prometheus::render;
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

#[test]
fn text_is_what_prometheus_reads_and_says_what_happened() {
    in_namespace!(|| {
        let guest = Guest::serving(&Site::new().file("a", "a"));
        let _accounts = guest.machine().accounts();
        (0..3).for_each(|_| drop(guest.get("/a")));
        let text = render(&guest.statistics());
        let (rest, families) = prometheus(&text).unwrap_or_else(|error| panic!("{error}"));
        assert!(rest.is_empty() && families.len() > 100, "{} families", families.len());
        let (mut names, mut series) = (BTreeSet::new(), BTreeSet::new());
        for family in &families {
            let (name, kind) = described(family);
            assert!(name.starts_with("exovm_") && names.insert(name), "{name} is there twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            for sample in &family.samples {
                let known = match kind {
                    "histogram" => {
                        ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec()
                    }
                    _ => vec![name.to_owned()],
                };
                assert!(known.iter().any(|known| known == sample.name()), "{} under {name}", sample.name());
                let mut own = labels(sample, "");
                own.sort_unstable();
                assert!(
                    series.insert((sample.name().to_owned(), format!("{own:?}"))),
                    "{name} {own:?} is there twice"
                );
                assert!(sample.number().is_finite() && sample.number() >= 0.0, "{sample:?}");
            }
            if kind == "histogram" {
                assert_histogram(name, &family.samples);
            }
        }
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

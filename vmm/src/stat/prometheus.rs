//! The text format 0.0.4 of Prometheus (prometheus.io/docs/instrumenting/exposition_formats): names as its conventions want them (base
//! units, `_total` behind counters), HELP and TYPE lines, histograms with cumulative buckets.

use super::family::{Family, Kind, Labels, Sample};
use super::snapshot::StatSnapshot;
use std::fmt::Write;

/// The media type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All statistics in the format.
pub fn render(snapshot: &StatSnapshot) -> String {
    let mut text = String::new();
    for family in snapshot.families.iter().filter(|family| !family.samples.is_empty()) {
        render_family(&mut text, family);
    }
    text
}

/// The name under which Prometheus knows a family.
pub fn name(family: &Family) -> String {
    let mut name = format!("exovm_{}_{}", family.layer, legal(&family.name));
    match family.unit.as_str() {
        "bytes" if !name.ends_with("_bytes") && !name.contains("octets") => name.push_str("_bytes"),
        "nanoseconds" => {
            let len = name.strip_suffix("_ns").map_or(name.len(), str::len);
            name.truncate(len);
            name.push_str("_seconds");
        }
        "cycles" if !name.ends_with("_cycles") => name.push_str("_cycles"),
        _ => {}
    }
    if family.kind == Kind::Counter {
        name.push_str("_total");
    }
    name
}

/// A name with nothing in it that a metric's may not have.
fn legal(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

fn render_family(text: &mut String, family: &Family) {
    let name = name(family);
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    // A string takes everything.
    let _ = writeln!(text, "# HELP {name} {}", family.help.replace('\\', "\\\\").replace('\n', "\\n"));
    let _ = writeln!(text, "# TYPE {name} {kind}");
    for sample in &family.samples {
        match family.kind {
            Kind::Histogram => render_histogram(text, &name, family, sample),
            _ => {
                let value = value(family, sample.value);
                let _ = writeln!(text, "{name}{} {value}", labels(&sample.labels, None));
            }
        }
    }
}

fn render_histogram(text: &mut String, name: &str, family: &Family, sample: &Sample) {
    for &(bound, count) in &sample.buckets {
        let bound = if bound == u64::MAX { "+Inf".to_owned() } else { value(family, bound) };
        let _ = writeln!(text, "{name}_bucket{} {count}", labels(&sample.labels, Some(&bound)));
    }
    let plain = labels(&sample.labels, None);
    let _ = writeln!(text, "{name}_sum{plain} {}", value(family, sample.value));
    let _ = writeln!(text, "{name}_count{plain} {}", sample.count());
}

/// A number in the base unit, exactly.
fn value(family: &Family, value: u64) -> String {
    if family.unit != "nanoseconds" {
        return value.to_string();
    }
    let text = format!("{}.{:09}", value / 1_000_000_000, value % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn labels(labels: &Labels, bound: Option<&str>) -> String {
    let own = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let pairs: Vec<String> = own
        .chain(bound.map(|bound| ("le", bound)))
        .map(|(name, value)| format!("{}=\"{}\"", legal(name), escaped(value)))
        .collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(family: Family) -> String {
        render(&StatSnapshot { families: vec![family], ..StatSnapshot::default() })
    }

    #[test]
    fn counter_has_unit_and_total_in_its_name() {
        let family = Family::new("nic", "sent_bytes", Kind::Counter, "bytes", "Their bytes.");
        assert_eq!(
            rendered(family.with(&[("queue", "1")], 5)),
            "# HELP exovm_nic_sent_bytes_total Their bytes.\n# TYPE exovm_nic_sent_bytes_total counter\n\
             exovm_nic_sent_bytes_total{queue=\"1\"} 5\n"
        );
    }

    #[test]
    fn nanoseconds_are_seconds() {
        let family = Family::new("kvm", "halt_wait_ns", Kind::Counter, "nanoseconds", "x");
        let text = rendered(family.with(&[], 1_500_000_001));
        assert!(text.ends_with("\nexovm_kvm_halt_wait_seconds_total 1.500000001\n"), "{text}");
    }

    #[test]
    fn label_values_are_escaped() {
        let family = Family::new("guest", "span_cycles", Kind::Counter, "cycles", "a\nb\\");
        let text = rendered(family.with(&[("span", "a\"b\\c\nd")], 1));
        assert!(text.contains("# HELP exovm_guest_span_cycles_total a\\nb\\\\\n"), "{text}");
        assert!(text.contains(r#"{span="a\"b\\c\nd"} 1"#), "{text}");
    }

    #[test]
    fn histogram_ends_with_infinity_sum_and_count() {
        let mut family = Family::new("disk", "request_time", Kind::Histogram, "nanoseconds", "x");
        family.push_histogram(&[], 3_000, [(1_000, 1), (2_000, 1), (4_000, 0)].into_iter());
        let text = rendered(family);
        let expected = "exovm_disk_request_time_seconds_bucket{le=\"0.000001\"} 1\n\
                        exovm_disk_request_time_seconds_bucket{le=\"0.000002\"} 2\n\
                        exovm_disk_request_time_seconds_bucket{le=\"+Inf\"} 2\n\
                        exovm_disk_request_time_seconds_sum 0.000003\n\
                        exovm_disk_request_time_seconds_count 2\n";
        assert!(text.ends_with(expected), "{text}");
    }
}

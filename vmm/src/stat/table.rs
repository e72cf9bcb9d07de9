//! Statistics as a table for people.

use super::LAYERS;
use super::family::{Family, Kind, Sample};
use super::snapshot::{Absent, StatSnapshot};
use std::fmt::Write;

/// What a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// A difference of two moments, of which rates are to be shown; or else what there was since the start.
    pub rates: bool,
    /// Also what is zero.
    pub zeros: bool,
    /// Help texts.
    pub explain: bool,
}

/// Width of the names.
const NAME: usize = 52;

/// Prints statistics by layer, the layers in their order.
pub fn print(snapshot: &StatSnapshot, shape: Shape) -> String {
    let mut text = String::new();
    let mut hidden = 0;
    for (layer, what) in LAYERS {
        let mut body = String::new();
        let tells_apart = |name: &str| several(snapshot, layer, name);
        for family in snapshot.families.iter().filter(|family| family.layer == layer) {
            let shown: Vec<_> =
                family.samples.iter().filter(|sample| shape.zeros || !sample.is_nothing()).collect();
            hidden += family.samples.len() - shown.len();
            if shape.explain && !shown.is_empty() {
                let _ = writeln!(body, "  # {}", family.help);
            }
            for sample in shown {
                row(&mut body, family, sample, shape, snapshot.seconds(), &tells_apart);
            }
        }
        if !body.is_empty() {
            let column = if shape.rates { "per second" } else { "since start" };
            let separator = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{separator}{layer}: {what}\n  {:<NAME$} {column:>16}", "");
            text.push_str(&body);
        }
    }
    if hidden > 0 {
        let _ = writeln!(text, "\n{hidden} more are zero; --all shows them, --explain says what each counts");
    }
    for Absent { layer, why, todo } in &snapshot.absent {
        let todo = if todo.is_empty() { String::new() } else { format!("; to do: {todo}") };
        let _ = writeln!(text, "\nno {layer}: {why}{todo}");
    }
    text
}

/// Whether a layer's label has more than one value.
fn several(snapshot: &StatSnapshot, layer: &str, label: &str) -> bool {
    let families = snapshot.families.iter().filter(|family| family.layer == layer);
    let mut values =
        families.flat_map(|family| &family.samples).filter_map(|sample| sample.labels.get(label));
    let first = values.next();
    values.any(|other| Some(other) != first)
}

fn row(
    text: &mut String,
    family: &Family,
    sample: &Sample,
    shape: Shape,
    seconds: f64,
    tells_apart: &dyn Fn(&str) -> bool,
) {
    let labels: Vec<String> =
        sample.labels.iter().filter(|(name, _)| tells_apart(name)).map(|(_, value)| value.clone()).collect();
    let labels = if labels.is_empty() { String::new() } else { format!(" [{}]", labels.join(", ")) };
    let name = format!("{}{labels}", family.name.replace('_', " "));
    let per = |number: u64| if shape.rates { number as f64 / seconds.max(1e-9) } else { number as f64 };
    let line = match family.kind {
        Kind::Gauge => format!("{name:<NAME$} {:>16}  {}", exact(sample.value, &family.unit), now(shape)),
        Kind::Counter => {
            let (number, unit) = counted(per(sample.value), &family.unit);
            format!("{name:<NAME$} {number:>16}  {unit}")
        }
        Kind::Histogram => {
            let count = sample.count();
            let mean = sample.value.checked_div(count).unwrap_or(0);
            let quantile = |share| exact(sample.quantile(share), &family.unit);
            format!(
                "{name:<NAME$} {:>16}  values; mean {}, half at most {}, 99 % at most {}",
                rounded(per(count)),
                exact(mean, &family.unit),
                quantile(0.5),
                quantile(0.99)
            )
        }
    };
    let _ = writeln!(text, "  {}", line.trim_end());
}

/// Where rates are shown, what is none of them says so.
fn now(shape: Shape) -> &'static str {
    if shape.rates { "now" } else { "" }
}

/// Three digits at least of a number that may be small.
fn rounded(number: f64) -> String {
    if number == number.trunc() || number >= 100.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

/// A counter's number, time as time: seconds a second are a share.
fn counted(number: f64, unit: &str) -> (String, &str) {
    match unit {
        "nanoseconds" => (format!("{:.6}", number / 1e9), "seconds"),
        _ => (rounded(number), unit),
    }
}

/// A single value with its unit.
fn exact(value: u64, unit: &str) -> String {
    match unit {
        "nanoseconds" if value < 10_000 => format!("{value} ns"),
        "nanoseconds" if value < 10_000_000 => format!("{:.1} us", value as f64 / 1e3),
        "nanoseconds" if value < 10_000_000_000 => format!("{:.1} ms", value as f64 / 1e6),
        "nanoseconds" => format!("{:.1} s", value as f64 / 1e9),
        "bytes" if value >= 10 << 20 => format!("{:.1} MiB", value as f64 / f64::from(1 << 20)),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> StatSnapshot {
        let opened = Family::new("tcp", "opened", Kind::Counter, "connections", "Handshakes.")
            .with(&[("environment", "0")], 20)
            .with(&[("environment", "1")], 0);
        let now = Family::new("tcp", "curr_estab", Kind::Gauge, "connections", "Now.").with(&[], 7);
        let mut times = Family::new("disk", "request_time", Kind::Histogram, "nanoseconds", "Times.");
        times.push_histogram(&[], 3_000, [(1_000, 1), (2_000, 1), (4_000, 0)].into_iter());
        StatSnapshot {
            tsc: 2_000_000,
            tsc_khz: 1_000,
            families: vec![opened, now, times],
            ..StatSnapshot::default()
        }
    }

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    #[test]
    fn rates_are_per_second_and_gauges_are_now() {
        let text = print(&snapshot(), Shape { rates: true, zeros: false, explain: false });
        let lines: Vec<_> = text.lines().map(words).collect();
        assert!(lines.contains(&vec!["opened", "[0]", "10", "connections"]), "{text}");
        assert!(lines.contains(&vec!["curr", "estab", "7", "now"]), "{text}");
        assert!(text.contains("mean 1500 ns, half at most 1000 ns, 99 % at most 2000 ns"), "{text}");
        assert!(text.contains("1 more are zero") && !text.contains("[1]"), "{text}");
    }

    #[test]
    fn layer_that_is_absent_is_one_line_that_says_what_to_do() {
        let absent =
            |todo: &str| Absent { layer: "pmu".to_owned(), why: "no PMU".to_owned(), todo: todo.to_owned() };
        let snapshot = StatSnapshot { absent: vec![absent("get one"), absent("")], ..snapshot() };
        let text = print(&snapshot, Shape { rates: true, zeros: true, explain: false });
        assert!(text.ends_with("\nno pmu: no PMU; to do: get one\n\nno pmu: no PMU\n"), "{text}");
    }

    #[test]
    fn totals_zeros_and_help_texts_are_shown_if_wanted() {
        let text = print(&snapshot(), Shape { rates: false, zeros: true, explain: true });
        let lines: Vec<_> = text.lines().map(words).collect();
        assert!(lines.contains(&vec!["opened", "[0]", "20", "connections"]), "{text}");
        assert!(lines.contains(&vec!["opened", "[1]", "0", "connections"]), "{text}");
        assert!(lines.contains(&vec!["#", "Handshakes."]), "{text}");
    }
}

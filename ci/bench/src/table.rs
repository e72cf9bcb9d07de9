//! A report as text: for each mode and size a table of contenders by connections, then what failed, then the verdicts.

use crate::Machine;
use crate::options::{Contender, Point, SizeName};
use crate::report::{PointReport, Report, Summary};
use std::fmt::{self, Write};

const LABEL_WIDTH: usize = 30;
const CELL_WIDTH: usize = 11;
/// CPUs that were busy for less are not worth a mention.
const BUSY_FROM_PERCENT: f64 = 5.0;

/// From here on a reader must be told that the machine did something else as well.
const OTHER_FROM_PERCENT: f64 = 20.0;

/// What one block of rows shows of a summary.
type Cell = fn(&Summary) -> String;

const BLOCKS: [(&str, Cell); 5] = [
    ("thousands of requests/s, half of their range in %", |s| {
        let mark = if s.errors.total() == 0 { "" } else { "!" };
        format!("{mark}{} ±{:.0}", significant(s.requests_per_s / 1000.0), s.spread_percent)
    }),
    ("latency p50 / p99, us", |s| format!("{} / {}", optional(s.p50_us), optional(s.p99_us))),
    ("us of the server's core a request", |s| significant(s.server_core_us_per_request)),
    ("us of the server's process a request", |s| significant(s.process_us_per_request)),
    ("busy CPUs, % (number:busy)", |s| busy(&s.busy_percent)),
];

pub(crate) fn write(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let machine = &report.machine;
    write_machine(machine, f)?;
    let options = &report.options;
    writeln!(
        f,
        "client on CPU {}, servers on CPU {}; {} on both sides; median of {} rounds of {} s, contenders in turn",
        options.client_cpu,
        options.server_cpu,
        machine.congestion_control,
        options.rounds,
        options.seconds_per_point
    )?;
    for table in tables(&report.points) {
        writeln!(f)?;
        write_table(table, &options.contenders, f)?;
    }
    write_errors(report, f)?;
    let other = report.other_percent();
    if other >= OTHER_FROM_PERCENT {
        writeln!(
            f,
            "warning: interrupts and other programs took {other:.0} % of a CPU from client and servers; \
             end what else runs here and repeat"
        )?;
    }
    writeln!(f)?;
    for bar in &report.bars {
        writeln!(f, "{bar}")?;
    }
    Ok(())
}

/// Where it was measured, and with what.
pub(crate) fn write_machine(machine: &Machine, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let virtualised = if machine.virtualised { ", virtualised" } else { "" };
    writeln!(f, "{}, {} CPUs{virtualised}, Linux {}", machine.cpu_model, machine.cpus, machine.kernel)?;
    let versions: Vec<_> =
        machine.versions.iter().map(|(name, version)| format!("{name}: {version}")).collect();
    writeln!(f, "{}", versions.join("; "))
}

/// Points of the same mode and size, which follow each other.
fn tables(points: &[PointReport]) -> impl Iterator<Item = &[PointReport]> {
    let key = |point: &Point| (point.mode, point.size_bytes);
    points.chunk_by(move |a, b| key(&a.point) == key(&b.point))
}

fn write_table(points: &[PointReport], contenders: &[Contender], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(first) = points.first() else { return Ok(()) };
    let Point { mode, size_bytes, .. } = first.point;
    let title = format!("{mode}, {}", SizeName(size_bytes));
    write_row(&title, points.iter().map(|report| report.point.connections.to_string()), f)?;
    for (name, cell) in BLOCKS {
        writeln!(f, "{name}")?;
        for &contender in contenders {
            let label = format!("  {}", label(first, contender));
            let cells = points.iter().map(|report| report.summary(contender).map_or_else(String::new, cell));
            write_row(&label, cells, f)?;
        }
    }
    if first.ratios.is_empty() {
        return Ok(());
    }
    writeln!(f, "times the best of nginx and lighttpd")?;
    for &contender in contenders.iter().filter(|contender| !contender.is_peer()) {
        let ratio =
            |report: &PointReport| report.ratio(contender).map_or_else(String::new, |r| format!("{r:.2}"));
        write_row(&format!("  {contender}"), points.iter().map(ratio), f)?;
    }
    Ok(())
}

fn label(report: &PointReport, contender: Contender) -> String {
    let configuration = report.series.iter().find(|series| series.contender == contender);
    match configuration.map(|series| series.configuration.as_str()) {
        None | Some("") => contender.to_string(),
        Some(configuration) => format!("{contender} ({configuration})"),
    }
}

/// Trailing blanks are cut, so that a table can be pasted anywhere.
fn write_row(label: &str, cells: impl Iterator<Item = String>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut row = format!("{label:<LABEL_WIDTH$}");
    for cell in cells {
        write!(row, " {cell:>CELL_WIDTH$}")?;
    }
    writeln!(f, "{}", row.trim_end())
}

fn write_errors(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if report.errors().total() == 0 {
        return writeln!(f, "\nerrors: none");
    }
    writeln!(f, "\nerrors (marked ! above; these rows do not count)")?;
    for point in &report.points {
        for (series, summary) in point.series.iter().zip(&point.summaries) {
            let errors = summary.errors;
            if errors.total() > 0 {
                writeln!(
                    f,
                    "  {}, {}: connect {}, read {}, write {}, timeout {}, status {}",
                    point.point,
                    series.contender,
                    errors.connect,
                    errors.read,
                    errors.write,
                    errors.timeout,
                    errors.status
                )?;
            }
        }
    }
    Ok(())
}

fn busy(percent: &[f64]) -> String {
    let busy = percent.iter().enumerate().filter(|(_, percent)| **percent >= BUSY_FROM_PERCENT);
    busy.map(|(cpu, percent)| format!("{cpu}:{percent:.0}")).collect::<Vec<_>>().join(" ")
}

/// Three digits that mean something.
pub(crate) fn significant(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

pub(crate) fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{report, series};
    use crate::{HttpOptions, Mode};

    fn line<'a>(text: &'a str, start: &str) -> &'a str {
        text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no `{start}` in\n{text}"))
    }

    #[test]
    fn table_has_a_column_for_each_number_of_connections() {
        let point = |connections| Point { mode: Mode::KeepAlive, size_bytes: 64, connections };
        let rows =
            |rate: f64| vec![series(Contender::Cheetah, &[rate]), series(Contender::Nginx, &[rate / 2.0])];
        let measured = vec![(point(1), rows(17_123.0)), (point(256), rows(215_900.0))];
        let options =
            HttpOptions { contenders: vec![Contender::Cheetah, Contender::Nginx], ..HttpOptions::default() };
        let text = crate::Report::new(options, Machine::describe(&[]), measured).to_string();
        let words = |start| line(&text, start).split_whitespace().collect::<Vec<_>>();
        assert_eq!(words("keep-alive, 64 B"), ["keep-alive,", "64", "B", "1", "256"]);
        assert_eq!(words("  cheetah"), ["cheetah", "17.1", "±0", "216", "±0"]);
        assert_eq!(words("  nginx"), ["nginx", "8.56", "±0", "108", "±0"]);
        assert!(text.contains("0:98 1:76") && text.contains("100 / -"), "{text}");
        let columns: Vec<_> =
            text.lines().filter(|line| line.starts_with("  ")).map(|l| l.chars().count()).collect();
        assert!(columns.iter().all(|&width| width == columns[0]), "{text}");
    }

    #[test]
    fn bars_and_errors_are_said_in_words() {
        let met = report(Mode::KeepAlive, &[2600.0], &[2000.0]).to_string();
        assert!(line(&met, "met").contains("keep-alive, 64 B, 64 connections: cheetah at least 1.2 times"));
        assert!(line(&met, "met").ends_with(": 1.30"));
        assert!(met.contains("errors: none") && met.contains("took 30 % of a CPU"), "{met}");

        let mut bad = report(Mode::Close, &[2600.0], &[2000.0]);
        bad.points[0].summaries[0].errors.timeout = 7;
        let bad = bad.to_string();
        assert!(line(&bad, "missed").contains("1.8 times"), "{bad}");
        assert!(bad.contains("!2.60") && bad.contains("timeout 7"), "{bad}");
    }

    #[test]
    fn busy_leaves_out_idle_cpus() {
        assert_eq!(busy(&[97.6, 1.0, 55.2]), "0:98 2:55");
    }
}

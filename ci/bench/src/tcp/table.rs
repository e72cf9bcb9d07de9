//! A report as text: a table for each test, then the ratios with their bars.

use super::options::Test;
use super::report::{Bar, Report, Series, TestReport};
use crate::table::{optional, significant, write_machine};
use std::fmt;

const LABEL_WIDTH: usize = 28;
const CELL_WIDTH: usize = 13;

pub(crate) fn write(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write_machine(&report.machine, f)?;
    let options = &report.options;
    writeln!(
        f,
        "client on CPU {}, stacks on CPU {}; {} (the other stacks' buffers: {} KiB); median of {} rounds of {} ms, \
         stacks in turn",
        options.client_cpu,
        options.stack_cpu,
        report.machine.congestion_control,
        options.buffer_bytes >> 10,
        options.rounds,
        options.milliseconds_per_test
    )?;
    for test in &report.tests {
        writeln!(f)?;
        write_test(test, f)?;
    }
    writeln!(f)?;
    for bar in &report.bars {
        writeln!(f, "{bar}")?;
    }
    Ok(())
}

fn write_test(report: &TestReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let bulk = report.test.is_bulk();
    let (rate, per) = if bulk { ("Gbit/s", "KiB") } else { ("requests/s", "request") };
    write!(f, "{}\n{:LABEL_WIDTH$}{rate:>CELL_WIDTH$}{:>CELL_WIDTH$}", report.test, "", "half range")?;
    writeln!(f, "{:>CELL_WIDTH$}  CPU ns a {per}: stack, client", if bulk { "" } else { "p50/p99 us" })?;
    for series in &report.series {
        write_series(series, bulk, f)?;
    }
    let ratios = report.ratios.iter();
    let ratios: Vec<_> =
        ratios.map(|ratio| format!("{} / {}: {:.2}", ratio.stack, ratio.to, ratio.ratio)).collect();
    if ratios.is_empty() { Ok(()) } else { writeln!(f, "{}", ratios.join("; ")) }
}

fn write_series(series: &Series, bulk: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let figure = &series.figure;
    let spread = format!("±{:.0} %", figure.spread_percent);
    write!(f, "  {:<26}{:>CELL_WIDTH$}{spread:>CELL_WIDTH$}", series.stack, significant(figure.rate))?;
    let latency =
        if bulk { String::new() } else { format!("{}/{}", optional(figure.p50_us), optional(figure.p99_us)) };
    let stack = figure.stack_cpu_ns.map_or("-".to_owned(), significant);
    writeln!(f, "{latency:>CELL_WIDTH$}{stack:>CELL_WIDTH$}, {}", significant(figure.client_cpu_ns))
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bar { test, stack, to, measured_ratio, verdict } = self;
        write!(f, "{verdict:<12}  {test}: {stack} at least as fast as {to}")?;
        match measured_ratio {
            Some(ratio) => write!(f, ": {ratio:.2}"),
            None => Ok(()),
        }
    }
}

/// One line about a test, for who waits.
pub(crate) fn summary(test: Test, series: &[Series]) -> String {
    let parts = series.iter().map(|series| format!("{} {}", series.stack, significant(series.figure.rate)));
    format!("{test}: {}", parts.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use crate::tcp::report::tests::report;

    #[test]
    fn table_has_a_row_for_each_stack_and_a_line_for_each_bar() {
        let text = report(&[15.0], &[10.0]).to_string();
        let row = text.lines().find(|line| line.starts_with("  ours, TAP")).unwrap();
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!(words, ["ours,", "TAP", "15.0", "±0", "%", "2000,", "1000"], "{text}");
        assert!(text.contains("ours, TAP / smoltcp, TAP: 1.50"), "{text}");
        assert!(
            text.contains("met           the stack sends: ours, TAP at least as fast as smoltcp, TAP: 1.50"),
            "{text}"
        );
        assert!(text.contains("not measured  the stack receives: "), "{text}");
    }
}

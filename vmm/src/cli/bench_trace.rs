//! `exovm bench trace`: what looking at a machine costs it.

use super::{Failure, say};
use crate::span_costs::{self, SpanCosts};
use exovm_bench::{ClientErrors, Contender, HttpOptions, Mode, Report};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `bench trace`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Cheetah at full load, looked at in different ways that take turns: ratios are of rates within a round. The guest has the
server's CPU alone; the tool that looks runs where the host puts it, as a user's would, so what it takes from the client is in
the figure, too. An exovm whose images have no spans is built by

  EXOVM_WITHOUT_SPANS=1 cargo build --release --target-dir target/without-spans

Examples
  exovm bench trace
  exovm bench trace --without-spans target/without-spans/release/exovm --rounds 15")]
pub(super) struct TraceArguments {
    /// An exovm with images without spans, to compare with.
    #[arg(long, value_name = "PROGRAM")]
    without_spans: Option<PathBuf>,
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: u32,
    /// Seconds for each measurement.
    #[arg(long, value_name = "N", default_value_t = 2)]
    seconds: u32,
    /// How often each is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: u32,
    /// As JSON (schema exovm-bench-trace/1).
    #[arg(long)]
    json: bool,
}

/// What one way of looking costs.
#[derive(Debug, Serialize)]
struct Looked {
    how: Contender,
    requests_per_s: f64,
    /// To the rate of the same round while nobody looks: median, least and most.
    ratio: [f64; 3],
    bar: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Costs {
    schema: &'static str,
    cycles_per_span: SpanCosts,
    looked: Vec<Looked>,
}

pub(super) fn trace(arguments: TraceArguments) -> Result<ExitCode, Failure> {
    let cycles_per_span = span_costs::measure()?;
    let mut contenders = vec![Contender::Cheetah];
    contenders.extend(arguments.without_spans.is_some().then_some(Contender::CheetahWithoutSpans));
    contenders.extend([Contender::CheetahAccounts, Contender::CheetahSample, Contender::CheetahTrace]);
    let options = HttpOptions {
        sizes_bytes: vec![64],
        connections: vec![arguments.connections],
        modes: vec![Mode::KeepAlive],
        seconds_per_point: arguments.seconds,
        rounds: arguments.rounds,
        contenders,
        without_spans: arguments.without_spans.map(std::path::absolute).transpose()?,
        ..HttpOptions::default()
    };
    let report = exovm_bench::run_http(options, &std::env::current_exe()?)?;
    let costs = Costs { schema: "exovm-bench-trace/1", cycles_per_span, looked: looked(&report) };
    if arguments.json {
        say(&serde_json::to_string_pretty(&costs)?);
    } else {
        print(&costs);
    }
    Ok(if report.errors() == ClientErrors::default() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is promised of a way of looking, as a share of the rate while nobody looks.
fn bar(how: Contender) -> Option<f64> {
    match how {
        Contender::CheetahAccounts => Some(0.97),
        Contender::CheetahSample => Some(0.95),
        _ => None,
    }
}

fn looked(report: &Report) -> Vec<Looked> {
    let series = report.points.iter().flat_map(|point| &point.series);
    let Some(alone) = series.clone().find(|series| series.contender == Contender::Cheetah) else {
        return Vec::new();
    };
    let looked = series.map(|series| {
        let rounds = series.rounds.iter().zip(&alone.rounds);
        let mut ratios: Vec<f64> =
            rounds.map(|(own, alone)| own.requests_per_s / alone.requests_per_s).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = [ratios.len() / 2, 0, ratios.len().saturating_sub(1)];
        Looked {
            how: series.contender,
            requests_per_s: series.summary().requests_per_s,
            ratio: ratio.map(|at| ratios.get(at).copied().unwrap_or(0.0)),
            bar: bar(series.contender),
        }
    });
    looked.collect()
}

fn print(costs: &Costs) {
    let SpanCosts { off, accounts, records } = costs.cycles_per_span;
    say(&format!(
        "Cycles to enter and leave a span: {off:.1} while nobody looks, {accounts:.1} with accounts, {records:.1} with records, of which it \
         writes two: {:.1} a record\n",
        (records - off) / 2.0
    ));
    say(&format!("{:<20} {:>12} {:>8}   {:<14}", "", "requests/s", "ratio", "least to most"));
    for Looked { how, requests_per_s, ratio: [median, least, most], bar } in &costs.looked {
        let bar = bar.map_or(String::new(), |bar| {
            format!("  bar {bar}: {}", if *median >= bar { "met" } else { "missed" })
        });
        let name = if *how == Contender::Cheetah { "nobody looks".to_owned() } else { how.to_string() };
        say(&format!("{name:<20} {requests_per_s:>12.0} {median:>8.3}   {least:.3} to {most:.3}{bar}"));
    }
    if !costs.looked.iter().any(|looked| looked.how == Contender::CheetahWithoutSpans) {
        say("\nNot compared with a build without spans: --without-spans, see --help.");
    }
}

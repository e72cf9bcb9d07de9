//! What the benchmark found: rounds, medians, ratios, bars. Serialised as it is; README.md documents the JSON, and [`SCHEMA`]
//! changes with its meaning.

use super::options::{Stack, TcpOptions, Test};
use super::table;
use crate::promises::Verdict;
use crate::report::median;
use crate::{Machine, unix_time_s};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Name and version of the JSON's shape.
pub const SCHEMA: &str = "exovm-bench-tcp/1";

/// Whom our stack must not be slower than, each with what it has to be compared with.
const BARS: [(Stack, Stack); 2] =
    [(Stack::Ours, Stack::Smoltcp), (Stack::OursSegments, Stack::SmoltcpSegments)];
/// Whom our stack is compared with besides.
const COMPARED: [(Stack, Stack); 2] = [(Stack::Ours, Stack::Veth), (Stack::Ours, Stack::Loopback)];

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Bytes that were received and compared, both directions together.
    pub bytes: u64,
    /// Requests that were answered; 0 where bytes count.
    pub requests: u64,
    /// How long it took.
    pub time_ns: u64,
    /// Processor time of the client's thread.
    pub client_cpu_ns: u64,
    /// Processor time of the stack's process.
    pub stack_cpu_ns: Option<u64>,
    /// Median time of a request.
    pub p50_ns: Option<u64>,
    /// 99th percentile.
    pub p99_ns: Option<u64>,
}

impl Round {
    /// Gbit/s where bytes count, else requests a second.
    pub fn rate(&self) -> f64 {
        let time_ns = self.time_ns.max(1) as f64;
        if self.requests == 0 {
            self.bytes as f64 * 8.0 / time_ns
        } else {
            self.requests as f64 * 1e9 / time_ns
        }
    }

    /// What processor time is divided by: KiB, or requests.
    fn units(&self) -> f64 {
        if self.requests == 0 { self.bytes as f64 / 1024.0 } else { self.requests as f64 }.max(1.0)
    }
}

/// Medians over the rounds of a [`Series`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Gbit/s of data where bytes count, else requests a second.
    pub rate: f64,
    /// Half the distance between the slowest and the fastest round, in percent of the median.
    pub spread_percent: f64,
    /// Processor time of the client's thread, for a KiB or a request.
    pub client_cpu_ns: f64,
    /// Processor time of the stack's process, for a KiB or a request.
    pub stack_cpu_ns: Option<f64>,
    /// Median of the rounds' medians.
    pub p50_us: Option<f64>,
    /// Median of the rounds' 99th percentiles.
    pub p99_us: Option<f64>,
}

/// A stack in a test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Which.
    pub stack: Stack,
    /// All measurements, in order.
    pub rounds: Vec<Round>,
    /// Their medians.
    pub figure: Figure,
}

impl Series {
    pub(crate) fn new(stack: Stack, rounds: Vec<Round>) -> Self {
        let of = |value: fn(&Round) -> Option<f64>| median(rounds.iter().filter_map(value));
        let rates = || rounds.iter().map(Round::rate);
        let rate = median(rates()).unwrap_or(0.0);
        let (slowest, fastest) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
        let figure = Figure {
            rate,
            spread_percent: if rate > 0.0 { 50.0 * (fastest - slowest) / rate } else { 0.0 },
            client_cpu_ns: of(|round| Some(round.client_cpu_ns as f64 / round.units())).unwrap_or(0.0),
            stack_cpu_ns: of(|round| Some(round.stack_cpu_ns? as f64 / round.units())),
            p50_us: of(|round| Some(round.p50_ns? as f64 / 1e3)),
            p99_us: of(|round| Some(round.p99_ns? as f64 / 1e3)),
        };
        Series { stack, rounds, figure }
    }
}

/// A stack beside another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Which.
    pub stack: Stack,
    /// Beside which.
    pub to: Stack,
    /// Median over the rounds of the ratio of their rates in that round, which drift does not touch.
    pub ratio: f64,
}

/// Everything about one test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestReport {
    /// Which.
    pub test: Test,
    /// All stacks.
    pub series: Vec<Series>,
    /// Those that are compared, if both took part.
    pub ratios: Vec<Ratio>,
}

impl TestReport {
    fn new(test: Test, series: Vec<Series>) -> Self {
        let ratio = |(stack, to): (Stack, Stack)| {
            let of = |stack: Stack| series.iter().find(|series| series.stack == stack);
            let rounds = of(stack)?.rounds.iter().zip(&of(to)?.rounds);
            let ratio = median(rounds.map(|(own, other)| own.rate() / other.rate()))?;
            Some(Ratio { stack, to, ratio })
        };
        let ratios = BARS.into_iter().chain(COMPARED).filter_map(ratio).collect();
        TestReport { test, series, ratios }
    }
}

/// Our stack is at least as fast as another one on the same kind of TAP.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// In which test.
    pub test: Test,
    /// Ours.
    pub stack: Stack,
    /// The other.
    pub to: Stack,
    /// What was found.
    pub measured_ratio: Option<f64>,
    /// The judgement: at least 1.
    pub verdict: Verdict,
}

fn judge(tests: &[TestReport]) -> Vec<Bar> {
    let bar = |test: Test, (stack, to): (Stack, Stack)| {
        let ratios = tests.iter().filter(|report| report.test == test).flat_map(|report| &report.ratios);
        let mut found = ratios.filter(|ratio| (ratio.stack, ratio.to) == (stack, to));
        let measured_ratio = found.next().map(|ratio| ratio.ratio);
        let verdict = match measured_ratio {
            None => Verdict::NotMeasured,
            Some(ratio) if ratio >= 1.0 => Verdict::Met,
            Some(_) => Verdict::Missed,
        };
        Bar { test, stack, to, measured_ratio, verdict }
    };
    Test::ALL.iter().flat_map(|&test| BARS.map(|pair| bar(test, pair))).collect()
}

/// What [`run_tcp`](crate::run_tcp) returns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it was finished, in seconds since 1970 UTC.
    pub created_unix_s: u64,
    /// What was asked for.
    pub options: TcpOptions,
    /// Where.
    pub machine: Machine,
    /// What was found.
    pub tests: Vec<TestReport>,
    /// What was promised.
    pub bars: Vec<Bar>,
}

impl Report {
    pub(crate) fn new(options: TcpOptions, machine: Machine, measured: Vec<(Test, Vec<Series>)>) -> Self {
        let tests: Vec<_> =
            measured.into_iter().map(|(test, series)| TestReport::new(test, series)).collect();
        let bars = judge(&tests);
        Report { schema: SCHEMA.to_owned(), created_unix_s: unix_time_s(), options, machine, tests, bars }
    }
}

/// The tables and the verdicts.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table::write(self, f)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn series(stack: Stack, gbit_per_s: &[f64]) -> Series {
        let round = |&rate: &f64| Round {
            bytes: 125_000_000,
            requests: 0,
            time_ns: (1e9 / rate) as u64,
            client_cpu_ns: 122_070_312,
            stack_cpu_ns: Some(244_140_625),
            p50_ns: None,
            p99_ns: None,
        };
        Series::new(stack, gbit_per_s.iter().map(round).collect())
    }

    pub(crate) fn report(ours: &[f64], smoltcp: &[f64]) -> Report {
        let measured = vec![(Test::Send, vec![series(Stack::Ours, ours), series(Stack::Smoltcp, smoltcp)])];
        Report::new(TcpOptions::default(), Machine::describe(&[]), measured)
    }

    #[test]
    fn figure_is_median_spread_and_processor_time_a_kib() {
        let figure = series(Stack::Veth, &[9.0, 11.0, 10.0]).figure;
        assert!(
            (figure.rate - 10.0).abs() < 1e-6 && (figure.spread_percent - 10.0).abs() < 1e-3,
            "{figure:?}"
        );
        assert!((figure.client_cpu_ns - 1000.0).abs() < 0.1, "{figure:?}");
        assert!(figure.stack_cpu_ns.is_some_and(|ns| (ns - 2000.0).abs() < 0.1), "{figure:?}");
    }

    #[test]
    fn rate_of_requests_is_requests_a_second() {
        let round =
            Round { requests: 500, time_ns: 500_000_000, ..series(Stack::Ours, &[1.0]).rounds[0].clone() };
        assert_eq!(round.rate(), 1_000.0);
    }

    #[test]
    fn bars_are_judged_by_ratios_of_the_same_round() {
        let verdicts = |report: Report| {
            let of_send = report.bars.iter().filter(|bar| bar.test == Test::Send);
            of_send.map(|bar| bar.verdict).collect::<Vec<_>>()
        };
        // The machine halves its speed from round to round.
        assert_eq!(
            verdicts(report(&[12.0, 6.0, 3.0], &[8.0, 4.0, 2.0])),
            [Verdict::Met, Verdict::NotMeasured]
        );
        assert_eq!(verdicts(report(&[7.0], &[8.0])), [Verdict::Missed, Verdict::NotMeasured]);
    }

    /// The shape that README.md documents: whoever changes it changes [`SCHEMA`] too.
    #[test]
    fn json_has_the_documented_shape_and_reads_back() {
        let report = report(&[15.0], &[10.0]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["schema"], "exovm-bench-tcp/1");
        assert_eq!(json["options"]["stacks"][4], "ours-segments");
        let test = &json["tests"][0];
        assert_eq!(test["test"], "send");
        assert_eq!(test["series"][0]["stack"], "ours");
        assert_eq!(test["series"][0]["rounds"][0]["bytes"], 125_000_000);
        assert!(test["series"][0]["figure"]["rate"].as_f64().unwrap() > 14.9);
        assert_eq!(test["ratios"][0]["to"], "smoltcp");
        assert_eq!(json["bars"][0]["verdict"], "met");
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }
}

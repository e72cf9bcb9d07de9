//! What a benchmark found: rounds, their medians, ratios and whether the promises hold. Serialised as it is; README.md
//! documents the JSON, and [`SCHEMA`] changes with its meaning.

use crate::options::{Contender, HttpOptions, Point};
use crate::promises::{self, Bar};
use crate::wrk::ClientErrors;
use crate::{BenchError, Machine, table, unix_time_s};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// Name and version of the JSON's shape.
pub const SCHEMA: &str = "exovm-bench-http/1";

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Answered requests.
    pub requests_per_s: f64,
    /// Median latency as wrk reports it; `None` where it reports none.
    pub p50_us: Option<u64>,
    /// 99th percentile of the latency.
    pub p99_us: Option<u64>,
    /// Requests without a right answer.
    pub errors: ClientErrors,
    /// Processor time of the server's process, on whatever CPU.
    pub process_us_per_request: f64,
    /// Time in which the server's CPU was not idle, whoever used it: it includes the kernel's work for the network.
    pub server_core_us_per_request: f64,
    /// How busy each CPU was; the index is its number.
    pub busy_percent: Vec<f64>,
    /// Time that the client's and the server's CPU spent on neither of the two, in percent of one CPU: interrupts, and
    /// whatever else runs on this machine.
    pub other_percent: f64,
}

/// A contender at a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Who.
    pub contender: Contender,
    /// In which configuration; empty if there is one only.
    pub configuration: String,
    /// All measurements, in order.
    pub rounds: Vec<Round>,
}

/// Medians over the rounds of a [`Series`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Median.
    pub requests_per_s: f64,
    /// Half the distance between the slowest and the fastest round, in percent of the median.
    pub spread_percent: f64,
    /// Median of the rounds' medians.
    pub p50_us: Option<f64>,
    /// Median of the rounds' 99th percentiles.
    pub p99_us: Option<f64>,
    /// Sum over the rounds.
    pub errors: ClientErrors,
    /// Median.
    pub process_us_per_request: f64,
    /// Median.
    pub server_core_us_per_request: f64,
    /// Median for each CPU.
    pub busy_percent: Vec<f64>,
    /// Median.
    pub other_percent: f64,
}

impl Series {
    /// Medians and spread.
    pub fn summary(&self) -> Summary {
        let of = |value: fn(&Round) -> f64| median(self.rounds.iter().map(value)).unwrap_or(0.0);
        let rates = self.rounds.iter().map(|round| round.requests_per_s);
        let slowest = rates.clone().fold(f64::INFINITY, f64::min);
        let fastest = rates.fold(0.0, f64::max);
        let requests_per_s = of(|round| round.requests_per_s);
        let cpus = self.rounds.iter().map(|round| round.busy_percent.len()).max().unwrap_or(0);
        Summary {
            requests_per_s,
            spread_percent: if requests_per_s > 0.0 {
                50.0 * (fastest - slowest) / requests_per_s
            } else {
                0.0
            },
            p50_us: median(self.rounds.iter().filter_map(|round| round.p50_us).map(|us| us as f64)),
            p99_us: median(self.rounds.iter().filter_map(|round| round.p99_us).map(|us| us as f64)),
            errors: self.rounds.iter().fold(ClientErrors::default(), |sum, round| sum + round.errors),
            process_us_per_request: of(|round| round.process_us_per_request),
            server_core_us_per_request: of(|round| round.server_core_us_per_request),
            busy_percent: (0..cpus)
                .map(|cpu| {
                    let cpu = self.rounds.iter().filter_map(|round| round.busy_percent.get(cpu).copied());
                    median(cpu).unwrap_or(0.0)
                })
                .collect(),
            other_percent: of(|round| round.other_percent),
        }
    }
}

impl std::ops::Add for ClientErrors {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        ClientErrors {
            connect: self.connect + other.connect,
            read: self.read + other.read,
            write: self.write + other.write,
            timeout: self.timeout + other.timeout,
            status: self.status + other.status,
        }
    }
}

/// How a contender compares with the best of nginx and lighttpd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Who.
    pub contender: Contender,
    /// Median over the rounds of its rate divided by the better peer's rate of the same round, which drift does not touch.
    pub to_best_peer: f64,
}

/// Everything about one point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointReport {
    /// The point.
    pub point: Point,
    /// All measurements.
    pub series: Vec<Series>,
    /// Medians, in the order of `series`.
    pub summaries: Vec<Summary>,
    /// For every contender that is no peer, if there was a peer.
    pub ratios: Vec<Ratio>,
}

impl PointReport {
    fn new(point: Point, series: Vec<Series>) -> Self {
        let summaries = series.iter().map(Series::summary).collect();
        let ratios = series.iter().filter(|series| !series.contender.is_peer());
        let ratios = ratios
            .filter_map(|own| {
                let per_round = own.rounds.iter().enumerate().filter_map(|(number, round)| {
                    let peers = series.iter().filter(|series| series.contender.is_peer());
                    let best =
                        peers.filter_map(|peer| peer.rounds.get(number)).map(|peer| peer.requests_per_s);
                    best.reduce(f64::max).map(|best| round.requests_per_s / best)
                });
                Some(Ratio { contender: own.contender, to_best_peer: median(per_round)? })
            })
            .collect();
        PointReport { point, series, summaries, ratios }
    }

    /// The summary of `contender`, if it took part.
    pub fn summary(&self, contender: Contender) -> Option<&Summary> {
        self.series
            .iter()
            .zip(&self.summaries)
            .find(|(series, _)| series.contender == contender)
            .map(|(_, s)| s)
    }

    /// Median over the rounds of the rate of `contender` divided by that of `other` in the same round, if both took part.
    pub fn ratio_to(&self, contender: Contender, other: Contender) -> Option<f64> {
        let rounds = |contender| self.series.iter().find(|series| series.contender == contender);
        let (own, other) = (rounds(contender)?, rounds(other)?);
        let pairs = own.rounds.iter().zip(&other.rounds);
        median(pairs.map(|(own, other)| own.requests_per_s / other.requests_per_s))
    }

    /// The ratio of `contender` to the best peer, if both took part.
    pub fn ratio(&self, contender: Contender) -> Option<f64> {
        self.ratios.iter().find(|ratio| ratio.contender == contender).map(|ratio| ratio.to_best_peer)
    }
}

/// What [`run_http`](crate::run_http) returns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it was finished, in seconds since 1970 UTC.
    pub created_unix_s: u64,
    /// What was asked for.
    pub options: HttpOptions,
    /// Where, and with which programs.
    pub machine: Machine,
    /// What was found.
    pub points: Vec<PointReport>,
    /// What was promised.
    pub bars: Vec<Bar>,
}

impl Report {
    pub(crate) fn new(options: HttpOptions, machine: Machine, measured: Vec<(Point, Vec<Series>)>) -> Self {
        let points: Vec<_> =
            measured.into_iter().map(|(point, series)| PointReport::new(point, series)).collect();
        Report {
            schema: SCHEMA.to_owned(),
            created_unix_s: unix_time_s(),
            bars: promises::judge(&options, &points),
            options,
            machine,
            points,
        }
    }

    /// The median over everything of [`Round::other_percent`]: how much this machine did besides.
    pub fn other_percent(&self) -> f64 {
        let series = self.points.iter().flat_map(|point| &point.series);
        median(series.flat_map(|series| &series.rounds).map(|round| round.other_percent)).unwrap_or(0.0)
    }

    /// Requests that failed, over all measurements. A report with any is suspect.
    pub fn errors(&self) -> ClientErrors {
        self.points
            .iter()
            .flat_map(|point| &point.summaries)
            .fold(ClientErrors::default(), |sum, s| sum + s.errors)
    }
}

/// The tables and the verdicts.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table::write(self, f)
    }
}

/// Writes a report to a file, as people can read it.
pub(crate) fn write_json(report: &impl Serialize, path: &Path) -> Result<(), BenchError> {
    let failed = |source| BenchError::system(format!("write {}", path.display()), source);
    let text = serde_json::to_string_pretty(report).map_err(|error| failed(error.into()))?;
    std::fs::write(path, text + "\n").map_err(failed)
}

/// The middle value; of an even number the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Mode;

    pub(crate) fn series(contender: Contender, rates: &[f64]) -> Series {
        let round = |&requests_per_s: &f64| Round {
            requests_per_s,
            p50_us: Some(100),
            p99_us: None,
            errors: ClientErrors::default(),
            process_us_per_request: 3.0,
            server_core_us_per_request: 4.0,
            busy_percent: vec![98.4, 75.6],
            other_percent: 30.0,
        };
        Series { contender, configuration: String::new(), rounds: rates.iter().map(round).collect() }
    }

    pub(crate) fn report(mode: Mode, guest: &[f64], nginx: &[f64]) -> Report {
        let point = Point { mode, size_bytes: 64, connections: 64 };
        let measured = vec![(
            point,
            vec![
                series(Contender::Cheetah, guest),
                series(Contender::Nginx, nginx),
                series(Contender::Lighttpd, &vec![1000.0; guest.len()]),
            ],
        )];
        Report::new(HttpOptions::default(), Machine::describe(&[]), measured)
    }

    #[test]
    fn summary_is_median_and_half_range() {
        let summary = series(Contender::Bare, &[110.0, 90.0, 100.0]).summary();
        assert_eq!((summary.requests_per_s, summary.spread_percent), (100.0, 10.0));
        assert_eq!((summary.p50_us, summary.p99_us), (Some(100.0), None));
        assert_eq!(summary.busy_percent, [98.4, 75.6]);
    }

    #[test]
    fn median_of_none_odd_and_even() {
        let of = |values: &[f64]| median(values.iter().copied());
        assert_eq!((of(&[]), of(&[3.0, 1.0, 2.0]), of(&[4.0, 1.0, 2.0, 3.0])), (None, Some(2.0), Some(2.5)));
    }

    #[test]
    fn ratio_is_taken_round_by_round() {
        // The machine halves its speed from round to round; each round says 1.5.
        let report = report(Mode::KeepAlive, &[12000.0, 6000.0, 3000.0], &[8000.0, 4000.0, 2000.0]);
        assert_eq!(report.points[0].ratio(Contender::Cheetah), Some(1.5));
        assert_eq!(report.points[0].ratio(Contender::Nginx), None);
    }

    /// The shape that README.md documents: whoever changes it changes [`SCHEMA`] too.
    #[test]
    fn json_has_the_documented_shape_and_reads_back() {
        let report = report(Mode::KeepAlive, &[2400.0], &[2000.0]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["schema"], "exovm-bench-http/1");
        assert!(json["machine"]["cpu_model"].is_string() && json["machine"]["versions"]["exovm"].is_string());
        assert_eq!(json["options"]["modes"][1], "close");
        let point = &json["points"][0];
        assert_eq!(
            point["point"],
            serde_json::json!({"mode": "keep-alive", "size_bytes": 64, "connections": 64})
        );
        assert_eq!(point["series"][0]["contender"], "cheetah");
        assert_eq!(point["series"][0]["rounds"][0]["requests_per_s"], 2400.0);
        assert!(point["series"][0]["rounds"][0]["p99_us"].is_null());
        assert_eq!(point["series"][0]["rounds"][0]["errors"]["timeout"], 0);
        assert_eq!(point["summaries"][0]["busy_percent"][1], 75.6);
        assert_eq!(point["ratios"][0]["to_best_peer"], 1.2);
        assert_eq!(json["bars"][0]["verdict"], "met");
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }
}

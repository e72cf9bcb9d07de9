//! What was promised of the guest beside nginx and lighttpd, and of sockets in a guest beside Linux's; and whether a report keeps it.

use crate::options::{Contender, HttpOptions, Mode, Point, SizeName};
use crate::report::PointReport;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Connections at which the promises are made.
const PROMISED_CONNECTIONS: u32 = 64;
/// The largest document that they are about; the smallest is whatever was measured.
const LARGEST_PROMISED_BYTES: u64 = 1 << 10;

/// Whether a promise holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It does, and no request failed.
    Met,
    /// It does not.
    Missed,
    /// The point, the guest or the peers did not take part.
    NotMeasured,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Met => "met",
            Verdict::Missed => "missed",
            Verdict::NotMeasured => "not measured",
        })
    }
}

/// A promise about a guest's rate beside somebody's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Where.
    pub point: Point,
    /// The least ratio that was promised.
    pub promised_ratio: f64,
    /// What was found.
    pub measured_ratio: Option<f64>,
    /// Which guest.
    pub contender: Contender,
    /// Beside whom; the best of nginx and lighttpd if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Contender>,
    /// The judgement.
    pub verdict: Verdict,
}

pub(crate) fn judge(options: &HttpOptions, points: &[PointReport]) -> Vec<Bar> {
    // The guest that has no more CPUs than its peers is the fair one.
    let guest =
        [Contender::Cheetah, Contender::CheetahBothCpus].into_iter().find(|c| options.contenders.contains(c));
    let guest = guest.unwrap_or(Contender::Cheetah);
    let mut bars = Vec::new();
    for (mode, promised_ratio) in [(Mode::KeepAlive, 1.2), (Mode::Close, 1.8)] {
        for size_bytes in [64, LARGEST_PROMISED_BYTES] {
            bars.push(bar(points, guest, None, mode, size_bytes, promised_ratio));
        }
    }
    // The same program on the sockets of a guest and on Linux's.
    if options.contenders.contains(&Contender::Plain) {
        for size_bytes in [64, LARGEST_PROMISED_BYTES] {
            let beside = Some(Contender::PlainLinux);
            bars.push(bar(points, Contender::Plain, beside, Mode::KeepAlive, size_bytes, 1.0));
        }
    }
    bars
}

fn bar(
    points: &[PointReport],
    contender: Contender,
    beside: Option<Contender>,
    mode: Mode,
    size_bytes: u64,
    promised_ratio: f64,
) -> Bar {
    let point = Point { mode, size_bytes, connections: PROMISED_CONNECTIONS };
    let found = points.iter().find(|report| report.point == point);
    let measured_ratio = found.and_then(|report| match beside {
        Some(other) => report.ratio_to(contender, other),
        None => report.ratio(contender),
    });
    let errors =
        found.and_then(|report| report.summary(contender)).map_or(0, |summary| summary.errors.total());
    let verdict = match measured_ratio {
        None => Verdict::NotMeasured,
        Some(ratio) if ratio >= promised_ratio && errors == 0 => Verdict::Met,
        Some(_) => Verdict::Missed,
    };
    Bar { point, promised_ratio, measured_ratio, contender, beside, verdict }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bar { point, promised_ratio, contender, beside, verdict, .. } = self;
        let size = SizeName(point.size_bytes);
        write!(f, "{verdict:<12}  {}, {size}, {} connections: ", point.mode, point.connections)?;
        write!(f, "{contender} at least {promised_ratio} times ")?;
        match beside {
            Some(other) => write!(f, "{other}")?,
            None => f.write_str("the best of nginx and lighttpd")?,
        }
        match self.measured_ratio {
            Some(ratio) => write!(f, ": {ratio:.2}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{report, series};
    use crate::{Machine, Report};

    fn verdict(report: &Report, mode: Mode, size_bytes: u64) -> Verdict {
        let point = Point { mode, size_bytes, connections: 64 };
        report.bars.iter().find(|bar| bar.point == point).unwrap().verdict
    }

    #[test]
    fn bars_met_missed_and_not_measured() {
        let keep_alive = report(Mode::KeepAlive, &[2400.0], &[2000.0]);
        assert_eq!(verdict(&keep_alive, Mode::KeepAlive, 64), Verdict::Met);
        assert_eq!(verdict(&keep_alive, Mode::KeepAlive, 1024), Verdict::NotMeasured);
        let close = report(Mode::Close, &[3500.0], &[2000.0]);
        assert_eq!(verdict(&close, Mode::Close, 64), Verdict::Missed);
    }

    #[test]
    fn bar_of_sockets_compares_the_same_program_round_by_round() {
        let verdicts = |guest: &[f64], linux: &[f64]| {
            let point = Point { mode: Mode::KeepAlive, size_bytes: 64, connections: 64 };
            let measured =
                vec![(point, vec![series(Contender::Plain, guest), series(Contender::PlainLinux, linux)])];
            let contenders = vec![Contender::Plain, Contender::PlainLinux];
            let options = HttpOptions { contenders, ..HttpOptions::default() };
            let report = Report::new(options, Machine::describe(&[]), measured);
            let bars = report.bars.into_iter().filter(|bar| bar.contender == Contender::Plain);
            bars.map(|bar| (bar.measured_ratio, bar.verdict)).collect::<Vec<_>>()
        };
        let rounds = [100.0, 300.0, 200.0];
        let not_measured = (None, Verdict::NotMeasured);
        assert_eq!(verdicts(&rounds, &[50.0, 300.0, 100.0]), [(Some(2.0), Verdict::Met), not_measured]);
        assert_eq!(verdicts(&rounds, &[200.0, 301.0, 400.0]), [(Some(0.5), Verdict::Missed), not_measured]);
    }

    #[test]
    fn bars_with_failed_requests_are_missed() {
        let mut guest = series(Contender::Cheetah, &[9000.0]);
        guest.rounds[0].errors.read = 1;
        let point = Point { mode: Mode::KeepAlive, size_bytes: 64, connections: 64 };
        let measured = vec![(point, vec![guest, series(Contender::Nginx, &[1000.0])])];
        let report = Report::new(HttpOptions::default(), Machine::describe(&[]), measured);
        assert_eq!(verdict(&report, Mode::KeepAlive, 64), Verdict::Missed);
        assert_eq!(report.errors().read, 1);
    }
}

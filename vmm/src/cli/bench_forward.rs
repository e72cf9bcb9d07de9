//! `exovm bench forward`: the forwarder beside a relay on sockets.

use super::{Failure, say};
use exovm_bench::{ClientErrors, Contender, HttpOptions, Mode, PointReport};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `bench forward`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
wrk and nginx share one CPU; on the other stands what passes their connections on: the forwarder's guest, or haproxy as a TCP relay.
Needs:  sudo apt-get install wrk nginx-light haproxy iproute2
The paper says that an application-level forwarder wins 50 to 300 % over one on sockets; ratios are of rates within a round.

Examples
  exovm bench forward --quick
  exovm bench forward --sizes 64,1048576 --connections 64 --rounds 9 --json result.json")]
pub(super) struct ForwardArguments {
    /// Fewer points and rounds.
    #[arg(long)]
    quick: bool,
    /// Document sizes in bytes.
    #[arg(long, value_delimiter = ',', value_name = "BYTES", default_value = "64,8192,1048576")]
    sizes: Vec<u64>,
    /// Numbers of connections.
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "1,64")]
    connections: Vec<u32>,
    /// Seconds for each measurement.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seconds: u32,
    /// How often each is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Also write the result as JSON (schema exovm-bench-http/1, with contenders `forwarder` and `haproxy`).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What the paper claims at least of the forwarder beside a relay.
const BAR: f64 = 1.5;

pub(super) fn forward(arguments: ForwardArguments) -> Result<ExitCode, Failure> {
    let ForwardArguments { quick, sizes, connections, seconds, rounds, json } = arguments;
    let options = HttpOptions {
        sizes_bytes: if quick { vec![64, 1 << 20] } else { sizes },
        connections: if quick { vec![64] } else { connections },
        modes: vec![Mode::KeepAlive, Mode::Close],
        seconds_per_point: seconds,
        rounds: if quick { 3 } else { rounds },
        contenders: vec![Contender::Forwarder, Contender::Haproxy],
        json_path: json,
        ..HttpOptions::default()
    };
    let mut report = exovm_bench::run_http(options, &std::env::current_exe()?)?;
    // They are about servers, and none took part.
    report.bars.clear();
    say(report.to_string().trim_end());
    say("");
    for point in &report.points {
        if let Some([median, least, most]) = ratio(point) {
            let verdict = if median >= BAR { "met" } else { "missed" };
            say(&format!(
                "{verdict:<8} {}: forwarder at least {BAR} times haproxy: {median:.2} ({least:.2} to {most:.2})",
                point.point
            ));
        }
    }
    Ok(if report.errors() == ClientErrors::default() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The forwarder's rate to the relay's of the same round: median, least and most.
fn ratio(point: &PointReport) -> Option<[f64; 3]> {
    let of = |contender| point.series.iter().find(|series| series.contender == contender);
    let (own, relay) = (of(Contender::Forwarder)?, of(Contender::Haproxy)?);
    let rounds = own.rounds.iter().zip(&relay.rounds);
    let mut ratios: Vec<f64> = rounds.map(|(own, relay)| own.requests_per_s / relay.requests_per_s).collect();
    ratios.sort_by(f64::total_cmp);
    Some([*ratios.get(ratios.len() / 2)?, *ratios.first()?, *ratios.last()?])
}

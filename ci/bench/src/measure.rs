//! The measuring side, in the private network: builds it, starts the servers, checks them, and lets them take turns.

use crate::cpu::{CpuSnapshot, ended_children_time, process_time};
use crate::machine::{self, Machine};
use crate::network::Network;
use crate::options::{Contender, HttpOptions, Point};
use crate::report::{Report, Round, Series};
use crate::servers::{self, Server, Setting};
use crate::{BenchError, check, document, wrk};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a measurement costs beyond its own time: starting wrk, its last tenth of a second, waking and pausing a server.
const OVERHEAD: Duration = Duration::from_millis(150);
/// How long a tool takes until it looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long a server is left alone after it was measured, to see the client's connections close.
const SETTLE: Duration = Duration::from_millis(20);

/// Measures everything that `options` ask for. `folder` is scratch; `exovm` is this program.
pub(crate) fn measure(options: &HttpOptions, exovm: &Path, folder: &Path) -> Result<Report, BenchError> {
    raise_descriptor_limit();
    let points = options.points();
    let taps: Vec<_> =
        options.contenders.iter().filter_map(|&contender| servers::tap_link(contender)).collect();
    let network = Network::build(&taps)?;
    document::write_all(&folder.join("docroot"), &options.sizes_bytes)?;
    let script = folder.join("wrk.lua");
    std::fs::write(&script, wrk::SCRIPT)
        .map_err(|source| BenchError::system(format!("write {}", script.display()), source))?;

    let setting = Setting {
        network: &network,
        folder,
        exovm,
        without_spans: options.without_spans.as_deref(),
        client_cpu: options.client_cpu,
        server_cpu: options.server_cpu,
    };
    let mut bench = Bench { options, exovm, folder, script, servers: Vec::new() };
    let has_between = options.contenders.iter().any(|contender| contender.is_between());
    let behind = has_between.then(|| servers::start_behind(&setting)).transpose()?;
    for &contender in &options.contenders {
        progress(format_args!("starting {contender}"));
        bench.servers.extend(servers::start(contender, &points, &setting)?);
    }
    progress(format_args!("checking that everybody sends the same documents"));
    bench.check_documents(&points)?;
    for server in &bench.servers {
        bench.pause(server)?;
    }

    let measurements = points.len() * options.contenders.len() * options.rounds as usize;
    let each = Duration::from_secs(options.seconds_per_point.into()) + OVERHEAD;
    let minutes = (each * measurements as u32).as_secs_f64() / 60.0;
    progress(format_args!("{measurements} measurements, about {minutes:.0} minutes"));
    let mut measured = Vec::new();
    for (number, point) in points.iter().enumerate() {
        let series = bench.measure_point(point)?;
        progress(format_args!("[{}/{}] {point}: {}", number + 1, points.len(), summary(&series)));
        measured.push((*point, series));
    }
    drop(behind);
    Ok(Report::new(options.clone(), Machine::describe(&machine::tools(&options.contenders)), measured))
}

struct Bench<'a> {
    options: &'a HttpOptions,
    exovm: &'a Path,
    folder: &'a Path,
    script: PathBuf,
    servers: Vec<Server>,
}

impl Bench<'_> {
    fn check_documents(&self, points: &[Point]) -> Result<(), BenchError> {
        let mut checks: Vec<_> = points.iter().map(|point| (point.mode, point.size_bytes)).collect();
        checks.dedup(); // points are sorted by mode and size
        for server in &self.servers {
            for &(mode, size_bytes) in &checks {
                check::document(&server.contender.to_string(), server.address, mode, size_bytes)?;
            }
        }
        Ok(())
    }

    /// All rounds of one point: in each round every contender has its turn, so drift hits all alike.
    fn measure_point(&self, point: &Point) -> Result<Vec<Series>, BenchError> {
        let mut series: Vec<Series> = self
            .options
            .contenders
            .iter()
            .map(|&contender| Series {
                contender,
                configuration: servers::best_configuration(contender, point).to_owned(),
                rounds: Vec::new(),
            })
            .collect();
        for _ in 0..self.options.rounds {
            for series in &mut series {
                let server = self.server(series.contender, &series.configuration)?;
                series.rounds.push(self.measure_once(server, point)?);
            }
        }
        Ok(series)
    }

    fn measure_once(&self, server: &Server, point: &Point) -> Result<Round, BenchError> {
        let name = server.contender.to_string();
        let pid = server.process.pid();
        // Only the server that is measured runs; the others are stopped, so their polling and timers cost nothing.
        server.process.resume()?;
        check::document(&name, server.address, point.mode, point.size_bytes)?;

        let look_seconds = self.options.seconds_per_point + 2;
        let looker = servers::look(server.contender, look_seconds, self.exovm, self.folder)?;
        if looker.is_some() {
            std::thread::sleep(LOOK);
        }
        let client_before = ended_children_time()?;
        let (cpus_before, process_before, started) =
            (CpuSnapshot::now()?, process_time(pid)?, Instant::now());
        let command = wrk::command(
            point,
            server.address,
            self.options.seconds_per_point,
            self.options.client_cpu,
            &self.script,
        );
        let result = wrk::run(command).map_err(|reason| wrk::failed(point, &name, reason))?;
        let (wall, process_after, cpus_after) = (started.elapsed(), process_time(pid)?, CpuSnapshot::now()?);

        if let Some(mut looker) = looker
            && let Some(status) = looker.has_ended()
        {
            let reason = format!("the tool that was to look at it ended ({status})");
            return Err(BenchError::ServerDown { server: name, reason, log: looker.log_tail() });
        }
        std::thread::sleep(SETTLE);
        self.pause(server)?;
        let busy = cpus_after.busy_since(&cpus_before, wall);
        let busy_of = |cpu: usize| busy.get(cpu).copied().unwrap_or_default();
        let process = process_after.saturating_sub(process_before);
        let both = process + ended_children_time()?.saturating_sub(client_before);
        let other =
            (busy_of(self.options.client_cpu) + busy_of(self.options.server_cpu)).saturating_sub(both);
        let requests = result.requests as f64;
        let us_per_request = |time: Duration| time.as_secs_f64() * 1e6 / requests;
        let percent = |time: Duration| 100.0 * time.as_secs_f64() / wall.as_secs_f64();
        Ok(Round {
            requests_per_s: requests / (result.duration_us as f64 / 1e6),
            p50_us: result.p50_us,
            p99_us: result.p99_us,
            errors: result.errors,
            process_us_per_request: us_per_request(process),
            server_core_us_per_request: us_per_request(busy_of(self.options.server_cpu)),
            busy_percent: busy.iter().copied().map(percent).collect(),
            other_percent: percent(other),
        })
    }

    /// Stops a server where it is. Not one that stands before another, which goes on sending to it what nobody wants any more: it
    /// is to hear that, and sleeps after it.
    fn pause(&self, server: &Server) -> Result<(), BenchError> {
        if server.contender.is_between() { Ok(()) } else { server.process.pause() }
    }

    fn server(&self, contender: Contender, configuration: &str) -> Result<&Server, BenchError> {
        self.servers
            .iter()
            .find(|server| server.contender == contender && server.configuration == configuration)
            .ok_or_else(|| {
                BenchError::InvalidOptions(format!("{contender} `{configuration}` was not started"))
            })
    }
}

fn summary(series: &[Series]) -> String {
    let parts = series.iter().map(|series| {
        let summary = series.summary();
        let errors = summary.errors.total();
        let errors = if errors == 0 { String::new() } else { format!(" ({errors} errors)") };
        format!("{} {:.1}k{errors}", series.contender, summary.requests_per_s / 1000.0)
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn progress(text: std::fmt::Arguments<'_>) {
    eprintln!("bench http: {text}");
}

/// wrk and the servers hold a descriptor for each connection. If the limit cannot be raised, wrk says so where it matters.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

//! The client: wrk with one thread on the client's CPU, and the line that peers/wrk.lua prints at its end.

use crate::options::{Mode, PIPELINE_DEPTH, Point};
use crate::{BenchError, document, process};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Requests that got no right answer, by kind. All zero, or the measurement does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientErrors {
    /// Connections that were not made.
    pub connect: u64,
    /// Failed or short reads.
    pub read: u64,
    /// Failed writes.
    pub write: u64,
    /// Answers that took longer than two seconds.
    pub timeout: u64,
    /// Answers with a status of 400 or more.
    pub status: u64,
}

impl ClientErrors {
    /// The sum.
    pub fn total(&self) -> u64 {
        self.connect + self.read + self.write + self.timeout + self.status
    }
}

/// What the client saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ClientResult {
    pub(crate) requests: u64,
    pub(crate) duration_us: u64,
    /// `None`: wrk's correction for pipelined requests leaves some percentiles empty.
    pub(crate) p50_us: Option<u64>,
    pub(crate) p99_us: Option<u64>,
    pub(crate) errors: ClientErrors,
}

/// The script that belongs to [`command`], to be written to where it is told.
pub(crate) const SCRIPT: &str = include_str!("../peers/wrk.lua");

/// The command that measures `point` at `server`.
pub(crate) fn command(
    point: &Point,
    server: SocketAddr,
    seconds: u32,
    client_cpu: usize,
    script: &Path,
) -> Command {
    let mut command = Command::new("wrk");
    // One thread: it has one CPU, and wrk wants at least as many connections as threads.
    command.args(["--threads", "1", "--connections", &point.connections.to_string()]);
    command.args(["--duration", &format!("{seconds}s")]);
    if point.mode == Mode::Close {
        command.args(["--header", "Connection: close"]);
    }
    let depth = if point.mode == Mode::Pipelined { PIPELINE_DEPTH } else { 1 };
    let url = format!("http://{server}{}", document::path(point.size_bytes));
    command.arg("--script").arg(script).args([&url, "--", &depth.to_string()]);
    process::pin(&mut command, &[client_cpu]);
    command
}

/// Reads the result out of wrk's output.
pub(crate) fn parse(output: &str) -> Result<ClientResult, String> {
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("exovm-bench: "))
        .ok_or_else(|| format!("it printed no result; its output was: {}", output.trim()))?;
    let mut words = line.split_whitespace();
    let mut number = |name: &str| match (words.next(), words.next().and_then(|word| word.parse::<u64>().ok()))
    {
        (Some(word), Some(value)) if word == name => Ok(value),
        _ => Err(format!("no number for `{name}` in its result `{line}`")),
    };
    let requests = number("requests")?;
    let duration_us = number("duration_us")?;
    let p50_us = number("p50_us")?;
    let p99_us = number("p99_us")?;
    let errors = ClientErrors {
        connect: number("connect")?,
        read: number("read")?,
        write: number("write")?,
        timeout: number("timeout")?,
        status: number("status")?,
    };
    if requests == 0 || duration_us == 0 {
        return Err(format!("no request was answered ({line})"));
    }
    let some = |us: u64| (us != 0).then_some(us);
    Ok(ClientResult { requests, duration_us, p50_us: some(p50_us), p99_us: some(p99_us), errors })
}

/// Runs the command to its end.
pub(crate) fn run(mut command: Command) -> Result<ClientResult, String> {
    let output = exovm_netns::end_with_parent(&mut command).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// The error that says where a measurement failed.
pub(crate) fn failed(point: &Point, server: &str, reason: String) -> BenchError {
    BenchError::Client { point: point.to_string(), server: server.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 1s test @ http://10.81.0.2:8080/f64
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   105.69us   91.09us   2.97ms   99.02%
    Req/Sec    76.84k     7.84k   86.57k    63.64%
  83885 requests in 1.10s, 24.08MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
Requests/sec:  76281.98
Transfer/sec:     21.90MB
exovm-bench: requests 83885 duration_us 1099670 p50_us 96 p99_us 196 connect 0 read 2 write 0 timeout 1 status 5
";

    #[test]
    fn parse_result_line() {
        let result = parse(OUTPUT).unwrap();
        assert_eq!((result.requests, result.duration_us), (83_885, 1_099_670));
        assert_eq!((result.p50_us, result.p99_us), (Some(96), Some(196)));
        assert_eq!(result.errors, ClientErrors { read: 2, timeout: 1, status: 5, ..ClientErrors::default() });
        assert_eq!(result.errors.total(), 8);
    }

    #[test]
    fn parse_empty_percentile_is_none() {
        let result = parse(&OUTPUT.replace("p99_us 196", "p99_us 0")).unwrap();
        assert_eq!((result.p50_us, result.p99_us), (Some(96), None));
    }

    #[test]
    fn parse_without_result_or_requests_is_an_error() {
        assert!(
            parse("unable to connect to 10.81.0.2:8080 Connection refused\n")
                .unwrap_err()
                .contains("refused")
        );
        assert!(parse(&OUTPUT.replace("p50_us 96", "p50_us -nan")).unwrap_err().contains("`p50_us`"));
        assert!(
            parse(&OUTPUT.replace("requests 83885 dur", "requests 0 dur"))
                .unwrap_err()
                .contains("no request")
        );
    }

    #[test]
    fn command_says_mode_and_depth() {
        let words = |mode| {
            let point = Point { mode, size_bytes: 64, connections: 8 };
            let command = command(&point, "10.0.0.1:80".parse().unwrap(), 1, 0, Path::new("wrk.lua"));
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert!(words(Mode::Close).contains("--header Connection: close"));
        assert!(words(Mode::Pipelined).ends_with("http://10.0.0.1:80/f64 -- 16"));
        assert!(words(Mode::KeepAlive).ends_with("/f64 -- 1"));
    }
}

//! What is measured: which sizes, modes, numbers of connections and contenders, for how long, on which CPUs.

use crate::BenchError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How a client uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One request after the other on each connection (RFC 9112 9.3).
    KeepAlive,
    /// A connection for each request (`Connection: close`).
    Close,
    /// Keep-alive with [`PIPELINE_DEPTH`] requests sent at once (RFC 9112 9.3.2).
    Pipelined,
}

/// Requests that a pipelining client sends before it waits for their responses.
pub const PIPELINE_DEPTH: u32 = 16;

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::KeepAlive => f.write_str("keep-alive"),
            Mode::Close => f.write_str("connection per request"),
            Mode::Pipelined => write!(f, "{PIPELINE_DEPTH} pipelined"),
        }
    }
}

/// A server that takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// `exovm run cheetah` on the server's CPU alone, as the peers.
    Cheetah,
    /// `exovm run cheetah`, free to use the client's CPU too: its adaptive placement may put device work there.
    CheetahBothCpus,
    /// The bare user-space responder on a TAP, without VM and without real TCP: the ceiling.
    Bare,
    /// As `cheetah`, from an `exovm` whose images were built without spans.
    CheetahWithoutSpans,
    /// As `cheetah`, while `exovm account` looks.
    CheetahAccounts,
    /// As `cheetah`, while `exovm trace --sample 1/64` looks.
    CheetahSample,
    /// As `cheetah`, while `exovm trace` looks.
    CheetahTrace,
    /// `exovm run plain` on the server's CPU alone: a program on the sockets of a guest.
    Plain,
    /// The same program on Linux's sockets.
    PlainLinux,
    /// `exovm run forwarder` before nginx, which has the client's CPU.
    Forwarder,
    /// haproxy as a TCP relay before the same nginx, in a namespace of its own.
    Haproxy,
    /// nginx, one worker.
    Nginx,
    /// lighttpd.
    Lighttpd,
}

impl Contender {
    /// Those of `bench http`, in the order in which they take turns.
    pub const ALL: [Contender; 5] = [
        Contender::Cheetah,
        Contender::Nginx,
        Contender::CheetahBothCpus,
        Contender::Lighttpd,
        Contender::Bare,
    ];

    /// Whether this is one of the established servers that a guest is compared with.
    pub fn is_peer(self) -> bool {
        matches!(self, Contender::Nginx | Contender::Lighttpd)
    }

    /// Whether it only passes on what a server behind it sends.
    pub fn is_between(self) -> bool {
        matches!(self, Contender::Forwarder | Contender::Haproxy)
    }

    /// What looks at the guest while it is measured: arguments of `exovm` before its name.
    pub(crate) fn looker(self) -> Option<&'static [&'static str]> {
        match self {
            Contender::CheetahAccounts => Some(&["account", "--json"]),
            Contender::CheetahSample => {
                Some(&["trace", "--json", "--sample", "1/64", "-o", "looked.pftrace"])
            }
            Contender::CheetahTrace => Some(&["trace", "--json", "-o", "looked.pftrace"]),
            _ => None,
        }
    }

    /// Whether this is our guest.
    pub fn is_guest(self) -> bool {
        matches!(self, Contender::Cheetah | Contender::CheetahBothCpus)
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` honours the width that tables ask for.
        f.pad(match self {
            Contender::Cheetah => "cheetah",
            Contender::CheetahBothCpus => "cheetah, both CPUs",
            Contender::CheetahWithoutSpans => "without spans",
            Contender::CheetahAccounts => "accounts",
            Contender::CheetahSample => "trace of 1/64",
            Contender::CheetahTrace => "trace of all",
            Contender::Bare => "bare responder",
            Contender::Plain => "plain",
            Contender::PlainLinux => "plain, Linux sockets",
            Contender::Forwarder => "forwarder",
            Contender::Haproxy => "haproxy",
            Contender::Nginx => "nginx",
            Contender::Lighttpd => "lighttpd",
        })
    }
}

/// Names as in the JSON: `keep-alive`, `close`, `pipelined`.
impl FromStr for Mode {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        from_name(name, "keep-alive, close, pipelined")
    }
}

/// Names as in the JSON: `cheetah`, `cheetah-both-cpus`, `bare`, `plain`, `plain-linux`, `nginx`, `lighttpd`.
impl FromStr for Contender {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        from_name(name, "cheetah, cheetah-both-cpus, bare, plain, plain-linux, nginx, lighttpd")
    }
}

pub(crate) fn from_name<T: serde::de::DeserializeOwned>(name: &str, known: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|_| format!("`{name}` is none of {known}"))
}

/// One cell of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// How connections are used.
    pub mode: Mode,
    /// Bytes of the document.
    pub size_bytes: u64,
    /// Connections that the client holds open.
    pub connections: u32,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.connections == 1 { "" } else { "s" };
        write!(f, "{}, {}, {} connection{plural}", self.mode, SizeName(self.size_bytes), self.connections)
    }
}

/// A size as people write it: `64 B`, `8 KiB`, `1 MiB`.
#[derive(Clone, Copy, Debug)]
pub struct SizeName(pub u64);

impl fmt::Display for SizeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        match self.0 {
            bytes if bytes >= MIB && bytes % MIB == 0 => write!(f, "{} MiB", bytes / MIB),
            bytes if bytes >= 1024 && bytes % 1024 == 0 => write!(f, "{} KiB", bytes / 1024),
            bytes => write!(f, "{bytes} B"),
        }
    }
}

/// What `exovm bench http` measures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpOptions {
    /// Document sizes.
    pub sizes_bytes: Vec<u64>,
    /// Numbers of connections.
    pub connections: Vec<u32>,
    /// Uses of connections.
    pub modes: Vec<Mode>,
    /// How long a contender is measured for one point in one round. wrk counts whole seconds.
    pub seconds_per_point: u32,
    /// How often each point is measured for each contender; they take turns within a round.
    pub rounds: u32,
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// The CPU of the client.
    pub client_cpu: usize,
    /// The CPU of the servers.
    pub server_cpu: usize,
    /// The program of [`Contender::CheetahWithoutSpans`].
    #[serde(default)]
    pub without_spans: Option<PathBuf>,
    /// Where the report is written as JSON.
    pub json_path: Option<PathBuf>,
    /// A choice of points that takes under three minutes, see [`HttpOptions::quick`].
    pub quick: bool,
}

impl Default for HttpOptions {
    /// The whole table: five rounds, about forty minutes.
    fn default() -> Self {
        HttpOptions {
            sizes_bytes: vec![64, 1 << 10, 8 << 10, 64 << 10, 1 << 20],
            connections: vec![1, 2, 4, 8, 16, 32, 64, 256],
            modes: vec![Mode::KeepAlive, Mode::Close, Mode::Pipelined],
            seconds_per_point: 1,
            rounds: 5,
            contenders: Contender::ALL.to_vec(),
            client_cpu: 0,
            server_cpu: 1,
            without_spans: None,
            json_path: None,
            quick: false,
        }
    }
}

/// Pipelining is about small documents; of larger ones a single response already fills the window.
const LARGEST_PIPELINED_BYTES: u64 = 1 << 10;
/// Every document is compared before each measurement, and the bare responder keeps it in memory.
const LARGEST_DOCUMENT_BYTES: u64 = 64 << 20;
/// With larger documents a connection's cost is lost in the document's.
const LARGEST_CLOSE_BYTES: u64 = 8 << 10;

impl HttpOptions {
    /// The points that the promises are about, and enough of the curve to see its shape.
    pub fn quick() -> Self {
        HttpOptions { quick: true, rounds: 3, sizes_bytes: vec![64, 1 << 10], ..HttpOptions::default() }
    }

    /// The points, in the order in which they are measured.
    pub fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for &mode in &self.modes {
            for &size_bytes in &self.sizes_bytes {
                for &connections in &self.connections {
                    points.push(Point { mode, size_bytes, connections });
                }
            }
        }
        points.retain(|point| self.is_worth_measuring(point));
        points
    }

    fn is_worth_measuring(&self, point: &Point) -> bool {
        let size_fits = match point.mode {
            Mode::KeepAlive => true,
            Mode::Close => point.size_bytes <= LARGEST_CLOSE_BYTES,
            Mode::Pipelined => point.size_bytes <= LARGEST_PIPELINED_BYTES,
        };
        let smallest = self.sizes_bytes.iter().min() == Some(&point.size_bytes);
        let in_quick = match (point.mode, point.connections) {
            (Mode::KeepAlive, 1 | 4 | 16 | 256) => smallest,
            (Mode::KeepAlive | Mode::Close, 64) => true,
            (Mode::Pipelined, 64) => smallest,
            _ => false,
        };
        size_fits && (!self.quick || in_quick)
    }

    /// Says what is wrong with the options, before anything is started.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        let refuse = |text: String| Err(BenchError::InvalidOptions(text));
        if self.seconds_per_point == 0 || self.rounds == 0 {
            return refuse("seconds per point and rounds must be at least 1".into());
        }
        if self.contenders.is_empty() {
            return refuse("name at least one contender".into());
        }
        let has_between = self.contenders.iter().any(|contender| contender.is_between());
        if has_between && self.contenders.contains(&Contender::Nginx) {
            return refuse("nginx stands behind forwarder and haproxy, and cannot take part as well".into());
        }
        if self.points().is_empty() {
            return refuse(format!(
                "these sizes, modes and connections leave nothing to measure (close: at most {}, pipelined: at most {}; \
                 quick: 1, 4, 16, 64 or 256 connections)",
                SizeName(LARGEST_CLOSE_BYTES),
                SizeName(LARGEST_PIPELINED_BYTES)
            ));
        }
        if let Some(n) = self.connections.iter().find(|&&n| n == 0 || n > 10_000) {
            return refuse(format!("{n} connections: choose 1 to 10000"));
        }
        if let Some(n) = self.sizes_bytes.iter().find(|&&n| n == 0 || n > LARGEST_DOCUMENT_BYTES) {
            return refuse(format!(
                "a document of {n} bytes: choose 1 byte to {}",
                SizeName(LARGEST_DOCUMENT_BYTES)
            ));
        }
        check_cpus(self.client_cpu, self.server_cpu)
    }
}

/// Refuses CPUs that are one, or that there are not.
pub(crate) fn check_cpus(client: usize, server: usize) -> Result<(), BenchError> {
    let refuse = |text: String| Err(BenchError::InvalidOptions(text));
    if client == server {
        return refuse("client and server need a CPU each; this measurement wants a machine with two".into());
    }
    let allowed = rustix::thread::sched_getaffinity(None)
        .map_err(|error| BenchError::system("read this process's CPU affinity", error.into()))?;
    for cpu in [client, server] {
        if cpu >= rustix::thread::CpuSet::MAX_CPU || !allowed.is_set(cpu) {
            return refuse(format!("CPU {cpu} does not exist or may not be used by this process"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_default_leave_out_large_pipelined_and_large_close() {
        let points = HttpOptions::default().points();
        assert_eq!(points.len(), (5 + 3 + 2) * 8);
        assert!(points.iter().all(|p| p.mode != Mode::Pipelined || p.size_bytes <= 1024));
    }

    #[test]
    fn points_of_quick_hold_what_the_promises_are_about() {
        let points = HttpOptions::quick().points();
        for mode in [Mode::KeepAlive, Mode::Close] {
            for size_bytes in [64, 1024] {
                assert!(points.contains(&Point { mode, size_bytes, connections: 64 }));
            }
        }
        assert_eq!(points.len(), 9);
    }

    #[test]
    fn check_invalid_options_returns_what_is_wrong() {
        let wrong = [
            (HttpOptions { rounds: 0, ..HttpOptions::default() }, "at least 1"),
            (HttpOptions { contenders: vec![], ..HttpOptions::default() }, "at least one contender"),
            (
                HttpOptions {
                    contenders: vec![Contender::Haproxy, Contender::Nginx],
                    ..HttpOptions::default()
                },
                "stands behind",
            ),
            (HttpOptions { server_cpu: 0, ..HttpOptions::default() }, "a CPU each"),
            (HttpOptions { server_cpu: 100_000, ..HttpOptions::default() }, "CPU 100000 does not exist"),
            (HttpOptions { connections: vec![0], ..HttpOptions::default() }, "0 connections"),
            (HttpOptions { sizes_bytes: vec![1 << 40], ..HttpOptions::default() }, "choose 1 byte to 64 MiB"),
            (HttpOptions { sizes_bytes: vec![], ..HttpOptions::default() }, "nothing to measure"),
        ];
        for (options, words) in wrong {
            let message = options.check().unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn from_str_unknown_name_lists_the_known() {
        assert_eq!("close".parse(), Ok(Mode::Close));
        assert_eq!("cheetah-both-cpus".parse(), Ok(Contender::CheetahBothCpus));
        assert!("apache".parse::<Contender>().unwrap_err().contains("lighttpd"));
    }

    #[test]
    fn size_name_uses_the_largest_whole_unit() {
        let names = [64, 1024, 1500, 65536, 1 << 20].map(|bytes| SizeName(bytes).to_string());
        assert_eq!(names, ["64 B", "1 KiB", "1500 B", "64 KiB", "1 MiB"]);
    }
}

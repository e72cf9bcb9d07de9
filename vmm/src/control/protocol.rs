//! What is said over a control socket, and how it is written: a line of JSON each.
//!
//! A client sends `{"v":1,"request":REQUEST}`, one after the other; the machine answers each with one line
//! `{"v":1,"answer":ANSWER}`, except `logs` and `stop`, whose lines go on until an `end`, and `attach`, `trace`, `debug`,
//! `profile` and `probe`, after whose answer the connection is for nothing else. A request line of HTTP instead of JSON is
//! understood for `GET /metrics`. What the machine does not
//! understand (another version, an unknown request, no JSON) it answers with `refused` and the reason, and goes on
//! listening. A new request or a new field that may be missing is no new version.

use crate::account::AccountSnapshot;
use crate::channel::{AttachRequest, ClientError};
use crate::debug::DebugRequest;
use crate::device::virtio::console::AttachError;
use crate::guest_log::Line;
use crate::machine;
use crate::probe::ProbeRequest;
use crate::profile::ProfileRequest;
use crate::stat::StatSnapshot;
use crate::text::make_harmless;
use crate::trace::TraceRequest;
use crate::trace::stream::Header;
use serde::{Deserialize, Serialize};

/// Version of the protocol.
pub const VERSION: u32 = 1;

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What the machine is.
    Info,
    /// The account up to now.
    Account,
    /// What every layer has counted up to now.
    Stat(StatRequest),
    /// The same in the text format of Prometheus. `GET /metrics` of HTTP asks that, too: see `control/http.rs`.
    Metrics,
    /// Lines of the guest's log.
    Logs(LogRequest),
    /// End, as Ctrl-C does.
    Stop,
    /// A port of the host channel. After the answer the connection carries its bytes and nothing else.
    Attach(AttachRequest),
    /// Records of what guest and VMM do. After the answer the connection carries [`crate::trace::stream`] until the client shuts
    /// its side down.
    Trace(TraceRequest),
    /// gdb's remote protocol, or files for its symbols. After [`Answer::Attached`] the connection carries that and nothing else.
    Debug(DebugRequest),
    /// Samples. After the answer the connection carries lines of [`crate::profile::Item`] until the client shuts its side down,
    /// or the machine ends; each way the last line says so.
    Profile(ProfileRequest),
    /// A probe of a function. After the answer the connection carries lines of [`crate::probe::Item`].
    Probe(ProbeRequest),
}

/// Names of all requests, as the wire spells them.
const REQUESTS: [&str; 11] =
    ["info", "account", "stat", "metrics", "logs", "stop", "attach", "trace", "debug", "profile", "probe"];

/// Which statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatRequest {
    /// Those of these layers; none: of all. One that the machine does not know has none.
    pub layers: Vec<String>,
}

impl StatRequest {
    /// Whether this layer is asked for.
    pub(super) fn wants(&self, layer: &str) -> bool {
        self.layers.is_empty() || self.layers.iter().any(|name| name == layer)
    }
}

/// Which lines of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogRequest {
    /// At most that many, the last ones.
    pub last: Option<u64>,
    /// Only those since this moment, in microseconds since the epoch.
    pub since_utc_us: Option<u64>,
    /// And those to come, until the machine ends.
    pub follow: bool,
}

/// What the machine answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Info`].
    Info(Box<Info>),
    /// To [`Request::Account`].
    Account(Box<AccountSnapshot>),
    /// To [`Request::Stat`].
    Stat(Box<StatSnapshot>),
    /// To [`Request::Metrics`].
    Metrics {
        /// The text.
        text: String,
    },
    /// To [`Request::Logs`], many times.
    Log(Line),
    /// To [`Request::Logs`], where lines are missing: not kept any more when this client was ready for them.
    Lost {
        /// How many.
        lines: u64,
    },
    /// To [`Request::Stop`], at once.
    Stopping,
    /// Ends the answer to [`Request::Logs`] and [`Request::Stop`].
    End {
        /// How the machine ended, if it did.
        machine: Option<Ending>,
    },
    /// To [`Request::Attach`] and [`Request::Debug`]: the next byte is the port's, the debugger's or the file's.
    Attached,
    /// To [`Request::Trace`]: what follows is pieces of the stream.
    Tracing(Box<Header>),
    /// To [`Request::Profile`]: the next line is a sample's.
    Profiling,
    /// To [`Request::Probe`]: the next line is the probe's.
    Probing,
    /// The request was not understood, or is not possible.
    Refused(Refusal),
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// For people.
    pub message: String,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// Not a line of JSON of the shape above.
    Malformed,
    /// A line without an end.
    TooLong,
    /// Another version of the protocol.
    Version,
    /// A request of another version of exovm, perhaps.
    UnknownRequest,
    /// More clients than a machine serves at once.
    TooManyClients,
    /// There is no such port.
    NoSuchPort,
    /// Another client is attached to it.
    PortTaken,
    /// The guest has not opened it.
    PortNotOpen,
    /// The machine cannot just now.
    Unable,
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::NoSuchPort { .. } => RefusalKind::NoSuchPort,
            ClientError::Port { error: AttachError::Taken, .. } => RefusalKind::PortTaken,
            ClientError::Port { error: AttachError::NotOpen, .. } => RefusalKind::PortNotOpen,
            ClientError::Ended | ClientError::Host { .. } => RefusalKind::Unable,
        };
        Self { kind, message: error.to_string() }
    }
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The guest switched it off.
    PowerOff {
        /// Its status.
        status: u32,
    },
    /// It was asked to stop.
    Stopped,
    /// A fault.
    Fault {
        /// Several lines for people.
        report: String,
    },
}

impl From<&machine::End> for Ending {
    fn from(end: &machine::End) -> Self {
        match end {
            machine::End::PowerOff { status } => Self::PowerOff { status: *status },
            machine::End::Stopped => Self::Stopped,
            machine::End::Fault { report } => Self::Fault { report: report.clone() },
        }
    }
}

/// What a machine is and how it does. New fields are added with `#[serde(default)]`, so that tools of one version
/// understand machines of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Its name.
    pub name: String,
    /// Process of its VMM.
    pub pid: u32,
    /// Version of its VMM.
    pub version: String,
    /// Name of its image.
    pub image: String,
    /// Whether it has no terminal (`exovm run --detach`).
    #[serde(default)]
    pub detached: bool,
    /// How far it is.
    pub state: State,
    /// When it was started, in microseconds since the epoch.
    pub started_utc_us: u64,
    /// How long it runs.
    pub uptime_ms: u64,
    /// Its memory.
    pub memory_bytes: u64,
    /// Its vCPUs.
    #[serde(default = "one")]
    pub vcpus: u32,
    /// Where device work is done.
    #[serde(default)]
    pub io: String,
    /// Addresses of its interfaces.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Ports of the host that lead to it, as "ADDRESS:PORT -> PORT/PROTOCOL".
    #[serde(default)]
    pub published: Vec<String>,
    /// Its disk images, as `--disk` takes them.
    #[serde(default)]
    pub disks: Vec<String>,
    /// TCP port that the guest says it serves.
    #[serde(default)]
    pub port: Option<u16>,
}

fn one() -> u32 {
    1
}

/// How far a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The guest has not said that it is ready.
    Starting,
    /// It has.
    Ready,
    /// It was asked to end.
    Stopping,
    /// It has ended.
    Ended,
}

impl State {
    /// For tables; as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
        }
    }
}

/// A line from a client.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestLine<R> {
    v: u32,
    request: R,
}

/// A line from a machine. Fields that a later version adds are passed over.
#[derive(Serialize, Deserialize)]
struct AnswerLine<A> {
    v: u32,
    answer: A,
}

impl Request {
    /// Reads a client's line.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let refuse = |kind, message: String| Err(Refusal { kind, message });
        let envelope: RequestLine<serde_json::Value> = match serde_json::from_slice(line) {
            Ok(envelope) => envelope,
            Err(error) => return refuse(RefusalKind::Malformed, format!("not a request: {error}")),
        };
        if envelope.v != VERSION {
            let message = format!("version {} of the protocol; this machine speaks {VERSION}", envelope.v);
            return refuse(RefusalKind::Version, message);
        }
        let name = match &envelope.request {
            serde_json::Value::String(name) => Some(name.clone()),
            serde_json::Value::Object(map) => map.keys().next().cloned(),
            _ => None,
        };
        match (serde_json::from_value(envelope.request), name) {
            (Ok(request), _) => Ok(request),
            (Err(_), Some(name)) if !REQUESTS.contains(&name.as_str()) => {
                let known = REQUESTS.join(", ");
                refuse(RefusalKind::UnknownRequest, format!("unknown request {name:?}; known are {known}"))
            }
            (Err(error), _) => refuse(RefusalKind::Malformed, format!("not a request: {error}")),
        }
    }

    /// The line that asks this, with its end.
    pub fn to_line(&self) -> Vec<u8> {
        to_line(&RequestLine { v: VERSION, request: self })
    }
}

impl Answer {
    /// Reads a machine's line. What it says goes to terminals, which must not obey it.
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        let mut line = serde_json::from_slice(line)?;
        make_harmless(&mut line);
        serde_json::from_value::<AnswerLine<Self>>(line).map(|line| line.answer)
    }

    /// The line that answers this, with its end.
    pub fn to_line(&self) -> Vec<u8> {
        to_line(&AnswerLine { v: VERSION, answer: self })
    }
}

fn to_line(value: &impl Serialize) -> Vec<u8> {
    // Plain structures with string keys: there is nothing in them that JSON could not say.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> RefusalKind {
        Request::parse(line.as_bytes()).expect_err(line).kind
    }

    #[test]
    fn requests_are_read_as_they_are_written() {
        let logs = LogRequest { last: Some(3), since_utc_us: None, follow: true };
        for request in [Request::Info, Request::Account, Request::Logs(logs), Request::Stop] {
            assert_eq!(Request::parse(&request.to_line()).expect("our own"), request);
        }
        assert_eq!(Request::parse(br#"{"v":1,"request":"info"}"#).expect("documented"), Request::Info);
        let logs = Request::parse(br#"{"v":1,"request":{"logs":{"follow":true}}}"#).expect("documented");
        assert_eq!(logs, Request::Logs(LogRequest { follow: true, ..LogRequest::default() }));
    }

    #[test]
    fn every_request_is_in_the_list_of_names() {
        let attach = Request::Attach(AttachRequest::default());
        let logs = Request::Logs(LogRequest::default());
        let trace = Request::Trace(TraceRequest::default());
        let debug = Request::Debug(DebugRequest::default());
        let profile = Request::Profile(ProfileRequest::default());
        let probe = Request::Probe(ProbeRequest::List { pattern: String::new() });
        let stat = Request::Stat(StatRequest::default());
        let others = [Request::Info, Request::Account, Request::Metrics, Request::Stop];
        for request in others.into_iter().chain([stat, logs, attach, trace, debug, profile, probe]) {
            let value = serde_json::to_value(&request).expect("JSON");
            let name = value.as_str().or_else(|| value.as_object()?.keys().next().map(String::as_str));
            assert!(REQUESTS.contains(&name.expect("a name")), "{value}");
        }
    }

    #[test]
    fn request_of_another_kind_returns_why() {
        for (line, kind) in [
            ("", RefusalKind::Malformed),
            ("{}", RefusalKind::Malformed),
            ("\"info\"", RefusalKind::Malformed),
            ("{\"v\":1}", RefusalKind::Malformed),
            ("{\"v\":-1,\"request\":\"info\"}", RefusalKind::Malformed),
            ("{\"v\":1,\"request\":7}", RefusalKind::Malformed),
            ("{\"v\":1,\"request\":{\"logs\":{\"last\":\"x\"}}}", RefusalKind::Malformed),
            ("{\"v\":1,\"request\":{\"logs\":{\"colour\":1}}}", RefusalKind::Malformed),
            ("{\"v\":2,\"request\":\"info\"}", RefusalKind::Version),
            ("{\"v\":1,\"request\":\"destroy\"}", RefusalKind::UnknownRequest),
            ("{\"v\":1,\"request\":{\"destroy\":{}}}", RefusalKind::UnknownRequest),
        ] {
            assert_eq!(refused(line), kind, "{line}");
        }
    }

    #[test]
    fn answer_with_unknown_fields_is_understood() {
        let line = br#"{"v":1,"answer":{"lost":{"lines":3,"why":"?"}},"more":true}"#;
        assert_eq!(Answer::parse(line).expect("newer"), Answer::Lost { lines: 3 });
    }

    #[test]
    fn answer_has_nothing_that_a_terminal_would_obey() {
        let report = "one\n\ttwo \u{1b}[2J \u{9b}2J \r \u{7f}".to_owned();
        let line = Answer::End { machine: Some(Ending::Fault { report }) }.to_line();
        let report = "one\n\ttwo \u{FFFD}[2J \u{FFFD}2J \u{FFFD} \u{FFFD}".to_owned();
        let expected = Answer::End { machine: Some(Ending::Fault { report }) };
        assert_eq!(Answer::parse(&line).expect("our own"), expected);
    }

    proptest::proptest! {
        #[test]
        fn parse_never_panics(line in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Request::parse(&line);
            let _ = Answer::parse(&line);
        }
    }
}

//! What is asked of whom, for how long: the words of a command line, once, as a type.

mod target;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
pub use target::{Host, Target, TargetError};

/// Connections at a time, at most.
pub const MAX_CONNECTIONS: u32 = 16_384;
const DEFAULT_CONNECTIONS: u32 = 10;
const DEFAULT_DURATION_NS: u64 = 10_000_000_000;
const DEFAULT_TIMEOUT_NS: u64 = 5_000_000_000;
/// The longest that a duration or a timeout may be: a year.
const MAX_TIME_NS: u64 = 366 * 24 * 3_600_000_000_000;

/// A run: what is asked, how often, over how many connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whom, and for what.
    pub target: Target,
    /// Requests under way at a time, each on a connection of its own; 1 to [`MAX_CONNECTIONS`].
    pub connections: u32,
    /// No request is asked any more after this; `None`: the number of requests alone ends the run.
    pub duration_ns: Option<u64>,
    /// Requests in all; `None`: as many as the duration allows.
    pub requests: Option<u64>,
    /// Whether a connection is used for the next request.
    pub reuse: Reuse,
    /// How long a request may take, the making of its connection included.
    pub timeout_ns: u64,
    /// How the report is written.
    pub output: Output,
}

/// What becomes of a connection whose request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// The next request goes over it.
    KeepAlive,
    /// It is closed, and the next request has a new one.
    Close,
}

/// How the report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people, with a line each second.
    Text,
    /// One line of JSON, at the end.
    Json,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// Nobody to ask.
    NoTarget,
    /// The target cannot be asked.
    Target(String, TargetError),
    /// A word that means nothing here.
    Unknown(String),
    /// An option at the end that needs a value.
    NoValue(&'static str),
    /// An option that takes no value has one.
    Flag(&'static str),
    /// A number that is none, or out of range.
    Number {
        /// Of which option.
        option: &'static str,
        /// What was given.
        given: String,
        /// The greatest that is allowed.
        max: u64,
    },
    /// A time that is none.
    Time {
        /// Of which option.
        option: &'static str,
        /// What was given.
        given: String,
    },
    /// An option is there twice.
    Twice(&'static str),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTarget => {
                f.write_str("no target; say whom to load, such as --target http://10.80.0.1:8080/index.html")
            }
            Self::Target(given, error) => write!(f, "--target {given:?}: {error}"),
            Self::Unknown(word) => write!(
                f,
                "{word:?} means nothing here; the words are --target URL, -c N, -d TIME, -n N, --close, --timeout TIME, --json"
            ),
            Self::NoValue(option) => {
                write!(f, "{option} needs a value behind it, such as {}", example(option))
            }
            Self::Flag(option) => write!(f, "{option} takes no value; leave out what is behind its `=`"),
            Self::Number { option, given, max } => {
                write!(f, "{option} {given:?}: give a number from 1 to {max}, such as {}", example(option))
            }
            Self::Time { option, given } => write!(
                f,
                "{option} {given:?}: give a number above 0 with ms, s, m or h behind it, such as {}",
                example(option)
            ),
            Self::Twice(option) => write!(f, "{option} is given twice; leave one out"),
        }
    }
}

impl core::error::Error for PlanError {}

const TARGET: &str = "--target";
const CONNECTIONS: &str = "--connections";
const DURATION: &str = "--duration";
const REQUESTS: &str = "--requests";
const TIMEOUT: &str = "--timeout";
const CLOSE: &str = "--close";
const JSON: &str = "--json";

/// An option's value that would be taken.
fn example(option: &str) -> &'static str {
    match option {
        TARGET => "http://10.80.0.1/",
        CONNECTIONS => "64",
        REQUESTS => "100000",
        TIMEOUT => "5s",
        _ => "10s",
    }
}

impl Plan {
    /// The plan that these words make: `--name value`, `--name=value` and `-x value`, in any order.
    pub fn from_words<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, PlanError> {
        let mut words = words;
        let (mut target, mut connections, mut duration_ns, mut requests, mut timeout_ns) =
            (None, None, None, None, None);
        let (mut close, mut json) = (None, None);
        while let Some(word) = words.next() {
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) if word.starts_with("--") => (name, Some(value)),
                _ => (word, None),
            };
            let mut value = |option| attached.or_else(|| words.next()).ok_or(PlanError::NoValue(option));
            match name {
                TARGET => {
                    let given = value(TARGET)?;
                    let parsed =
                        Target::parse(given).map_err(|error| PlanError::Target(given.to_string(), error))?;
                    once(TARGET, &mut target, parsed)?;
                }
                "-c" | CONNECTIONS => {
                    let number = number(CONNECTIONS, value(CONNECTIONS)?, MAX_CONNECTIONS.into())?;
                    once(CONNECTIONS, &mut connections, number as u32)?;
                }
                "-n" | REQUESTS => {
                    once(REQUESTS, &mut requests, number(REQUESTS, value(REQUESTS)?, u64::MAX)?)?;
                }
                "-d" | DURATION => once(DURATION, &mut duration_ns, time_ns(DURATION, value(DURATION)?)?)?,
                TIMEOUT => once(TIMEOUT, &mut timeout_ns, time_ns(TIMEOUT, value(TIMEOUT)?)?)?,
                CLOSE if attached.is_some() => return Err(PlanError::Flag(CLOSE)),
                JSON if attached.is_some() => return Err(PlanError::Flag(JSON)),
                CLOSE => once(CLOSE, &mut close, Reuse::Close)?,
                JSON => once(JSON, &mut json, Output::Json)?,
                _ => return Err(PlanError::Unknown(word.to_string())),
            }
        }
        let unbounded = duration_ns.is_none() && requests.is_none();
        Ok(Self {
            target: target.ok_or(PlanError::NoTarget)?,
            connections: connections.unwrap_or(DEFAULT_CONNECTIONS),
            duration_ns: if unbounded { Some(DEFAULT_DURATION_NS) } else { duration_ns },
            requests,
            reuse: close.unwrap_or(Reuse::KeepAlive),
            timeout_ns: timeout_ns.unwrap_or(DEFAULT_TIMEOUT_NS),
            output: json.unwrap_or(Output::Text),
        })
    }

    /// The bytes of every request (RFC 9112 3).
    pub fn request(&self) -> Vec<u8> {
        let mut text = String::from("GET ");
        text.push_str(&self.target.path);
        text.push_str(" HTTP/1.1\r\nHost: ");
        // A string takes everything.
        let _ = self.target.write_authority(&mut text);
        text.push_str("\r\nUser-Agent: webswamp\r\n");
        if self.reuse == Reuse::Close {
            text.push_str("Connection: close\r\n");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

fn once<T>(option: &'static str, place: &mut Option<T>, value: T) -> Result<(), PlanError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(PlanError::Twice(option)),
    }
}

fn number(option: &'static str, given: &str, max: u64) -> Result<u64, PlanError> {
    let digits = given.bytes().all(|byte| byte.is_ascii_digit());
    let number = given.parse().ok().filter(|number| digits && (1..=max).contains(number));
    number.ok_or_else(|| PlanError::Number { option, given: given.to_string(), max })
}

/// A whole number with its unit; seconds if there is none.
fn time_ns(option: &'static str, given: &str) -> Result<u64, PlanError> {
    let unit_at = given.find(|character: char| !character.is_ascii_digit()).unwrap_or(given.len());
    let (number, unit) = given.split_at(unit_at);
    let unit_ns = match unit {
        "ms" => 1_000_000,
        "" | "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => 0,
    };
    let time = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ns));
    time.filter(|time| (1..=MAX_TIME_NS).contains(time))
        .ok_or_else(|| PlanError::Time { option, given: given.to_string() })
}

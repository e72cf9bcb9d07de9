//! What came of a run: rates, latencies, errors by kind, packets; as text for people and as one line of JSON for programs.

mod text;

use crate::{Histogram, Plan};
use core::fmt::{self, Write};
pub use text::Progress;

/// Why a request was not answered as it should be. Each request that failed is counted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The server refused the connection.
    Refused,
    /// There is no way to the server, or nobody on the link has its address.
    Unreachable,
    /// The server reset the connection.
    Reset,
    /// The answer was not complete in time.
    TimedOut,
    /// The server closed before the answer was complete.
    CutShort,
    /// What came was no HTTP response, or more than it said.
    BadResponse,
    /// The answer was complete, and its status was not 2xx.
    Status,
}

impl ErrorKind {
    /// All of them, in the order in which they are reported.
    pub const ALL: [Self; 7] = [
        Self::Refused,
        Self::Unreachable,
        Self::Reset,
        Self::TimedOut,
        Self::CutShort,
        Self::BadResponse,
        Self::Status,
    ];

    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::CutShort => "cut_short",
            Self::BadResponse => "bad_response",
            Self::Status => "status",
        }
    }

    /// Its name for people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TimedOut => "timed out",
            Self::CutShort => "cut short",
            Self::BadResponse => "bad response",
            Self::Status => "status not 2xx",
            other => other.name(),
        }
    }
}

/// Errors by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors([u64; ErrorKind::ALL.len()]);

impl Errors {
    /// Counts one.
    #[inline]
    pub fn add(&mut self, kind: ErrorKind) {
        self.0[kind as usize] += 1;
    }

    /// How many of a kind.
    pub fn of(&self, kind: ErrorKind) -> u64 {
        self.0[kind as usize]
    }

    /// How many of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// What the network below has counted: frames and segments, whoever counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Frames received.
    pub frames_in: u64,
    /// TCP segments received.
    pub segments_in: u64,
    /// TCP frames sent; one that the device cuts into segments is one.
    pub frames_out: u64,
    /// Of these, acknowledgments without data.
    pub acks_out: u64,
    /// Segments sent again.
    pub retransmitted: u64,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// What was to be done.
    pub plan: &'a Plan,
    /// From the first request to the last answer or error.
    pub elapsed_ns: u64,
    /// Requests that were asked.
    pub asked: u64,
    /// Requests answered completely with a 2xx status.
    pub answered: u64,
    /// Bytes of all responses, heads included.
    pub bytes: u64,
    /// Bytes of the bodies of complete responses.
    pub body_bytes: u64,
    /// From asking to the last byte, in nanoseconds, of those that were answered.
    pub latency_ns: &'a Histogram,
    /// What failed.
    pub errors: Errors,
    /// Connections that were opened.
    pub connections: u64,
    /// Frames and segments.
    pub packets: Packets,
}

/// The percentiles that are reported, in thousandths.
const PER_MILLE: [(u64, &str); 4] = [(500, "p50"), (900, "p90"), (990, "p99"), (999, "p99_9")];

impl Report<'_> {
    /// Whether every request was answered as it should be, and there was at least one.
    pub fn is_good(&self) -> bool {
        self.answered > 0 && self.errors.total() == 0
    }

    /// `value` a second, in thousandths.
    fn rate_milli(&self, value: u64) -> u64 {
        let rate = u128::from(value) * 1_000_000_000_000 / u128::from(self.elapsed_ns.max(1));
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// One line of JSON. Times are in nanoseconds.
    pub fn write_json(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, "{{\"target\":")?;
        text::json_string(out, &self.plan.target)?;
        write!(
            out,
            ",\"connections\":{},\"keep_alive\":{},\"elapsed_ns\":{},\"asked\":{},\"answered\":{}",
            self.plan.connections,
            self.plan.reuse == crate::plan::Reuse::KeepAlive,
            self.elapsed_ns,
            self.asked,
            self.answered
        )?;
        let rate = self.rate_milli(self.answered);
        write!(out, ",\"requests_per_second\":{}.{:03}", rate / 1000, rate % 1000)?;
        write!(out, ",\"bytes\":{},\"body_bytes\":{}", self.bytes, self.body_bytes)?;
        let latency = self.latency_ns;
        write!(out, ",\"latency_ns\":{{\"count\":{},\"min\":{}", latency.count(), latency.min())?;
        for (per_mille, name) in PER_MILLE {
            write!(out, ",\"{name}\":{}", latency.per_mille(per_mille))?;
        }
        write!(out, ",\"max\":{},\"mean\":{}}},\"errors\":{{", latency.max(), latency.mean())?;
        for (place, kind) in ErrorKind::ALL.into_iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(out, "{comma}\"{}\":{}", kind.name(), self.errors.of(kind))?;
        }
        let Packets { frames_in, segments_in, frames_out, acks_out, retransmitted } = self.packets;
        write!(
            out,
            "}},\"connections_opened\":{},\"packets\":{{\"frames_in\":{frames_in},\"segments_in\":{segments_in},\
             \"frames_out\":{frames_out},\"acks_out\":{acks_out},\"retransmitted\":{retransmitted}}}}}",
            self.connections
        )
    }
}

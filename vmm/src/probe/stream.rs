//! What goes over the control socket for a probe: one request, then a line of JSON for each [`Item`].

use super::names::Function;
use super::numbers::Numbers;
use serde::{Deserialize, Serialize};

/// What a client wants. After the answer the connection carries lines of [`Item`] until the client shuts its side down, or the
/// machine ends; with the client the probe goes, however that ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ProbeRequest {
    /// The functions whose names have this in them.
    List {
        /// Whatever the case.
        pattern: String,
    },
    /// A probe.
    Attach {
        /// Name or address.
        function: String,
        /// Measure from entry to return.
        #[serde(default)]
        returns: bool,
        /// Keep the arguments of the last calls.
        #[serde(default)]
        arguments: bool,
    },
}

/// What a client is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// To [`ProbeRequest::List`], all of them.
    Functions(Vec<Function>),
    /// The probe is in place.
    Attached {
        /// What it probes.
        function: Function,
        /// Registers that the function reads as arguments, as far as its code tells.
        #[serde(default)]
        reads: Vec<String>,
        /// TSC ticks per millisecond.
        tsc_khz: u64,
        /// When it was, on the TSC.
        tsc: u64,
    },
    /// What it has counted since, twice a second, and once more after it has gone.
    Numbers {
        /// When, on the TSC.
        tsc: u64,
        /// By environment.
        by: Vec<Numbers>,
        /// Values of the arguments in the calls that were looked at; of each register the most frequent ones.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arguments: Option<Arguments>,
    },
    /// It is not possible; the last line.
    Refused {
        /// For people.
        message: String,
    },
    /// The last line.
    End {
        /// Whether the machine has ended.
        machine_ended: bool,
    },
}

/// Values of arguments. Each call is looked at while there are few; of many, as many as fit between two looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arguments {
    /// Calls that were looked at.
    pub sampled: u64,
    /// For each register, in the order of the ABI.
    pub registers: Vec<Values>,
}

/// Values of one register.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    /// Its name.
    pub name: String,
    /// The most frequent values, with how often they were seen; the most frequent first.
    pub most: Vec<(u64, u64)>,
    /// How often it was another one.
    pub others: u64,
}

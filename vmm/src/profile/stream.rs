//! What a machine tells a profiler: a line of JSON each, after the answer to its request.
//!
//! First [`Item::Begin`]; then samples, with [`Item::Frame`] before the first sample that has it; now and then, and in the last line,
//! the counts so far. A client that reads too slowly gets fewer samples, and is told how many it missed.

use serde::{Deserialize, Serialize};

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProfileRequest {
    /// Samples a second, of each thread.
    pub hz: u32,
}

impl Default for ProfileRequest {
    fn default() -> Self {
        Self { hz: 1000 }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// The first.
    Begin(Begin),
    /// What a number in [`Sample::frames`] is.
    Frame(Frame),
    /// A sample.
    Sample(Sample),
    /// So far.
    Counts(Counts),
    /// The last: the client wanted no more, or the machine has ended.
    End {
        /// Whether it was the machine.
        machine_ended: bool,
        /// Of everything.
        counts: Counts,
    },
}

/// What is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Samples a second.
    pub hz: u32,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
    /// Name of the image.
    pub image: String,
    /// Threads of the machine, as the accounts name them; [`Sample::thread`] is the place here.
    pub threads: Vec<String>,
    /// Whether the image has names for its functions.
    pub has_symbols: bool,
}

/// A place in the code, or what a thread of the VMM does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Its number: they are given one after the other.
    pub id: u32,
    /// Address; 0: what a thread of the VMM does.
    #[serde(default)]
    pub va: u64,
    /// Where the function begins.
    #[serde(default)]
    pub function_va: u64,
    /// Name of the function.
    pub name: String,
    /// As the compiler calls it.
    #[serde(default)]
    pub symbol: String,
}

/// Where a thread was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Which.
    #[serde(rename = "t")]
    pub thread: u32,
    /// In the guest: in the address space of this environment.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<u32>,
    /// In the guest: in this ring.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<u8>,
    /// The innermost first.
    #[serde(rename = "f")]
    pub frames: Vec<u32>,
}

/// What there was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// How long.
    pub elapsed_us: u64,
    /// By thread, in the order of [`Begin::threads`].
    pub threads: Vec<ThreadCounts>,
    /// Samples that the client was too slow for.
    pub unsent: u64,
    /// Cycles that the vCPUs' threads spent on looking, without leaving the guest and entering it again.
    pub looking_cycles: u64,
    /// How often they did.
    pub looks: u64,
    /// How long it took from asking a vCPU to looking, in cycles, all together.
    pub asking_cycles: u64,
    /// CPU time of the thread that takes the samples.
    pub sampler_ns: u64,
}

/// What there was of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThreadCounts {
    /// Moments at which it should have been looked at.
    pub moments: u64,
    /// Samples of what it did.
    pub samples: u64,
    /// Moments at which it waited, or its vCPU was halted.
    pub idle: u64,
    /// Moments for which there is no sample: the host had no CPU for the vCPU or for the sampler.
    pub missed: u64,
}

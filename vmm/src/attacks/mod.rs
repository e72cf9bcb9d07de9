//! The attacks of the image `probe`, each with the answer by which it is refused: the one list from which `exovm attack` and the
//! tests work. What the image tries and the list does not know counts as an attack that got through, so nothing is left out.
//!
//! | module | what |
//! | --- | --- |
//! | [`list`] | attacks by what they are against |
//! | [`machine`] | the machine in which one is tried: the other end of its wire, its disk |
//! | [`trial`] | boots it, and reads off what the attack got |

mod list;
mod machine;
mod trial;

pub use list::{NO_ATTACKS, trials};
pub use trial::{AttackError, run};

/// What an attack gets once what stands against it has been removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// It was removed, and this was seen.
    Seen {
        /// What was removed: from a kernel or a VMM made for that, which are nowhere else.
        removed: &'static str,
        /// What the attack got then.
        got: &'static str,
    },
    /// There is nothing of ours that could be removed: the processor refuses it alone, for this reason.
    Processor(&'static str),
    /// It is no attack but must work, so that being refused beside it means something.
    Works,
    /// Nobody has tried.
    NotTried,
}

impl Without {
    /// Its name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Seen { .. } => "seen",
            Self::Processor(_) => "processor",
            Self::Works => "works",
            Self::NotTried => "not tried",
        }
    }
}

impl std::fmt::Display for Without {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Seen { removed, got } => write!(f, "{removed}: {got}"),
            Self::Processor(why) => write!(f, "(the processor alone: {why})"),
            Self::Works => f.write_str("(must work)"),
            Self::NotTried => f.write_str("(not tried)"),
        }
    }
}

/// One attack.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// What it tries, as the image says it.
    pub what: &'static str,
    /// What it must get; several answers, of which the host decides, are separated by `|`.
    pub refused: &'static str,
    /// What it got when what stands against it had been removed.
    pub without: Without,
}

/// How an attack's outcome shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A line of the log for each: what it tried, and what it got.
    Lines,
    /// The environment ends with a fault.
    Fault,
    /// The machine ends with a status.
    Status,
    /// A queue stops, and the device has done nothing.
    Stop,
}

/// What a machine has besides its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Equipment {
    /// A NIC of four queue pairs.
    pub nic: bool,
    /// Frames come without an end.
    pub frames_come: bool,
    /// A disk.
    pub disk: bool,
    /// Reads take their time.
    pub disk_is_slow: bool,
    /// Places for children.
    pub children: bool,
}

/// One machine, and the attacks in it.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What the attacks are against.
    pub against: &'static str,
    /// The image's arguments: the case and what it takes.
    pub arguments: Vec<String>,
    /// The machine.
    pub equipment: Equipment,
    /// How the outcome shows.
    pub reading: Reading,
    /// In the order in which they are tried.
    pub attacks: Vec<Attack>,
}

impl Trial {
    /// Why it cannot be tried with so many vCPUs, if it cannot.
    pub fn why_not(&self, vcpus: u32) -> Option<&'static str> {
        let of_another = matches!(self.arguments[0].as_str(), "flow-egress" | "extent-attacks");
        let why = "its queue is another's, who does not ring, and with several vCPUs no turn does the work";
        (vcpus > 1 && of_another).then_some(why)
    }
}

/// What an attack got.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it was against.
    pub against: &'static str,
    /// The image's arguments.
    pub arguments: String,
    /// What it tried.
    pub what: String,
    /// What it got.
    pub got: String,
    /// What it should have got.
    pub expected: &'static str,
    /// What it gets without what stands against it.
    pub without: Without,
}

impl Outcome {
    /// Whether it got what it should.
    pub fn is_refused(&self) -> bool {
        !self.expected.is_empty() && self.expected.split('|').any(|answer| answer == self.got)
    }
}

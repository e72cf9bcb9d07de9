//! Why there is no probe.

use super::function::Refused;
use super::layout::SLOTS;
use crate::machine::AskError;

/// Why there is no probe.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No such name.
    #[error(
        "there is no function called {name:?}; what the compiler has inlined everywhere is none any \
         more{closest}; `exovm probe --list PATTERN` prints those that there are"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        closest: String,
    },
    /// No function begins there.
    #[error("no function begins at {va:#x}; `exovm probe --list PATTERN` prints where they do")]
    NoFunctionAt {
        /// Where.
        va: u64,
    },
    /// Names were taken out.
    #[error(
        "there is no function called {name:?}, and the image has no names of functions: it was stripped; build it with \
         `strip = \"none\"`, as `exovm build` does"
    )]
    Stripped {
        /// What was asked for.
        name: String,
    },
    /// More than one.
    #[error("several functions are called {name:?}, say which by its address or more of its name:{matches}")]
    Several {
        /// What was asked for.
        name: String,
        /// One a line.
        matches: String,
    },
    /// Not this one.
    #[error("{function} {refused}")]
    Refused {
        /// Its name.
        function: String,
        /// Why.
        refused: Refused,
    },
    /// Environments may be made that copy the text.
    #[error(
        "{function} is in the image, and this machine has places for environments that its own make as they like: one that was \
         made of a copy of the text would have the probe's jump, and nothing where it leads, and end by a fault; probe the image \
         in a machine without such places (`spare_environments`), or the kernel"
    )]
    Copies {
        /// Its name.
        function: String,
    },
    /// Another client has it.
    #[error("{function} is probed by another client; there can be one probe of a function at a time")]
    Taken {
        /// Its name.
        function: String,
    },
    /// Others have all places.
    #[error(
        "{SLOTS} functions of the {program} are probed already; try again when one of them is not any more"
    )]
    Full {
        /// "image" or "kernel".
        program: &'static str,
    },
    /// Trampolines are never taken away, and there were many.
    #[error(
        "the {program} of this machine has had so many different probes that there is no room for the code of another one; \
         probe what was probed before, or start the machine anew"
    )]
    NoRoom {
        /// "image" or "kernel".
        program: &'static str,
    },
    /// Somebody else has written there.
    #[error("the code of {function} is not what the image says; has a debugger set a breakpoint there?")]
    Altered {
        /// Its name.
        function: String,
    },
    /// An environment does not get on.
    #[error("somebody has been in the first instructions of {function} for {seconds} s; try again")]
    InTheWay {
        /// Its name.
        function: String,
        /// How long.
        seconds: u64,
    },
    /// The machine has ended or does not answer.
    #[error("the machine cannot be stopped for a moment: {0}")]
    Machine(#[from] AskError),
    /// Guest memory cannot be used.
    #[error("the guest's memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// A defect of exovm.
    #[error("the code of the probe cannot be made: {0}; please report this")]
    Assembler(#[from] iced_x86::IcedError),
    /// A defect of exovm, or a program of a strange shape.
    #[error("{0}")]
    Internal(&'static str),
}

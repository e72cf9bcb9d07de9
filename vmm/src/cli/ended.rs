//! How looking at a machine came to its end: one rule for all tools that stay attached to one.
//!
//! A machine that ends says so to whoever looks at it, behind all that it had for them: what there is is complete up to that, as if
//! it had been wanted until then, so that is a success, and a line says that the machine ended. One that is gone without a word (its
//! process was killed), says nothing any more or something that is not understood may have had more to say: that is an error, and what
//! came is printed and written all the same.

use super::exit;
use std::process::ExitCode;
use std::time::Duration;

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The time was over, or Ctrl-C was typed.
    Asked,
    /// The machine ended.
    Machine,
    /// The connection ended without a word.
    Gone,
    /// Nothing came any more.
    Silent,
    /// What came was not understood.
    Garbled,
}

impl Ended {
    /// For scripts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Machine => "machine-ended",
            Self::Gone => "gone",
            Self::Silent => "silent",
            Self::Garbled => "garbled",
        }
    }

    /// Tells a person, if it is not as was wanted.
    pub(super) fn say(self, machine: &str, after: Duration) {
        let how = match self {
            Self::Asked => return,
            Self::Machine => format!("ended after {:.1} s", after.as_secs_f64()),
            Self::Gone => "has gone without a word".to_owned(),
            Self::Silent => "says nothing any more".to_owned(),
            Self::Garbled => "said something else; are it and this exovm of the same version?".to_owned(),
        };
        complain!("exovm: machine {machine} {how}; this is what came until then");
    }

    /// What the command's exit code is.
    pub(super) fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Asked | Self::Machine => exit::SUCCESS,
            Self::Gone | Self::Silent | Self::Garbled => exit::ERROR,
        })
    }
}

impl From<crate::control::LinesError> for Ended {
    fn from(error: crate::control::LinesError) -> Self {
        match error {
            crate::control::LinesError::Gone => Self::Gone,
            crate::control::LinesError::Silent => Self::Silent,
        }
    }
}

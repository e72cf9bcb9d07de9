//! Why a benchmark could not be run, each with what to do about it.

use exovm_netns::NetnsError;
use std::io;
use std::process::ExitStatus;

/// A benchmark that did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// Options that make no measurement.
    #[error("the benchmark's options: {0}")]
    InvalidOptions(String),
    /// Programs that are measured, or measure, are not installed.
    #[error("{} not installed; install with: apt-get install {}", list(.0), .0.join(" "))]
    MissingTools(Vec<&'static str>),
    /// A namespace, an interface or a route.
    #[error(transparent)]
    Network(#[from] NetnsError),
    /// A server ended or did not answer.
    #[error("{server} does not serve: {reason}; the end of what it said:\n{log}")]
    ServerDown {
        /// Which server.
        server: String,
        /// What happened.
        reason: String,
        /// The last lines of its output.
        log: String,
    },
    /// A server answers, but not with the document.
    #[error("{server} does not send `{path}` as it is: {reason}; a comparison with it would mean nothing")]
    WrongAnswer {
        /// Which server.
        server: String,
        /// The document's path.
        path: String,
        /// How the answer differs.
        reason: String,
    },
    /// Connections do not use the congestion control that was set for both sides.
    #[error(
        "{side} uses the congestion control `{found}` instead of `{wanted}`, so the comparison would be unfair"
    )]
    CongestionControl {
        /// Which end.
        side: &'static str,
        /// What its sockets report.
        found: String,
        /// What was set.
        wanted: &'static str,
    },
    /// wrk failed, or printed something else than expected.
    #[error("wrk at {point}, {server}: {reason}")]
    Client {
        /// Which measurement.
        point: String,
        /// Against which server.
        server: String,
        /// What happened.
        reason: String,
    },
    /// A system call or a file.
    #[error("cannot {action}: {source}")]
    System {
        /// What was to be done, in words that follow "cannot".
        action: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The measuring process reported an error; the text is the whole message.
    #[error("{0}")]
    Measuring(String),
    /// The measuring process ended without a result.
    #[error("the measuring process ended without a result ({0})")]
    Ended(ExitStatus),
    /// Ctrl-C or SIGTERM. Everything that was started has ended.
    #[error("interrupted; everything that was started has been ended")]
    Interrupted,
}

impl BenchError {
    pub(crate) fn system(action: impl Into<String>, source: io::Error) -> Self {
        BenchError::System { action: action.into(), source }
    }
}

fn list(tools: &[&str]) -> String {
    match tools {
        [one] => format!("{one} is"),
        [first @ .., last] => format!("{} and {last} are", first.join(", ")),
        [] => "nothing is".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tools_name_the_command_that_installs_them() {
        let one = BenchError::MissingTools(vec!["wrk"]).to_string();
        assert_eq!(one, "wrk is not installed; install with: apt-get install wrk");
        let three = BenchError::MissingTools(vec!["wrk", "nginx", "lighttpd"]).to_string();
        assert_eq!(
            three,
            "wrk, nginx and lighttpd are not installed; install with: apt-get install wrk nginx lighttpd"
        );
    }
}

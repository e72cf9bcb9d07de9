//! The program starts itself again for parts that need a process of their own: the measuring side, which lives in the private
//! network, the bare responder, and the stacks that are measured. All are asked for by environment variables, so the command line stays the
//! user's.

use crate::attack::{self, AttackOptions};
use crate::options::HttpOptions;
use crate::tcp::{self, TcpOptions};
use crate::{BenchError, bare, measure, plain};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, ExitCode};

const ROLE: &str = "EXOVM_BENCH_ROLE";
const ROLE_MEASURE: &str = "measure";
const ROLE_BARE: &str = "bare";
const ROLE_PLAIN: &str = "plain";
const ROLE_END: &str = "tcp-end";
const FOLDER: &str = "EXOVM_BENCH_FOLDER";
const TAP: &str = "EXOVM_BENCH_TAP";
const ADDRESS: &str = "EXOVM_BENCH_ADDRESS";
const END: &str = "EXOVM_BENCH_END";

const TASK_FILE: &str = "task.json";
const OUTCOME_FILE: &str = "outcome.json";

/// What the measuring process is to measure.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Task {
    /// Servers.
    Http(HttpOptions),
    /// Stacks.
    Tcp(TcpOptions),
    /// Attacks.
    Attack(AttackOptions),
}

/// What the measuring process leaves behind.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome<R> {
    /// It came to its end.
    Report(R),
    /// It did not; the message of the error.
    Error(String),
}

/// To be called first in `main` of the program that [`run_http`](crate::run_http) is given, before any thread is started
/// and any argument is read: if the program has been started in one of the roles of a benchmark, plays it and returns how
/// to exit.
pub fn run_role() -> Option<ExitCode> {
    let role = std::env::var_os(ROLE)?;
    let result = if role == ROLE_MEASURE {
        measure_role()
    } else if role == ROLE_BARE {
        bare_role()
    } else if role == ROLE_PLAIN {
        plain_role()
    } else if role == ROLE_END {
        end_role()
    } else {
        Err(BenchError::InvalidOptions(format!("there is no role `{}` ({ROLE})", role.to_string_lossy())))
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("exovm bench: {error}");
            ExitCode::FAILURE
        }
    })
}

/// The command that plays the measuring side, with everything it needs in `folder`.
pub(crate) fn measure_command(exovm: &Path, task: &Task, folder: &Path) -> Result<Command, BenchError> {
    write_json(&folder.join(TASK_FILE), task)?;
    Ok(command(exovm, ROLE_MEASURE, &[(FOLDER, folder.as_os_str())]))
}

/// What the measuring side left in `folder`, if anything.
pub(crate) fn outcome<R: DeserializeOwned>(folder: &Path) -> Option<Outcome<R>> {
    serde_json::from_slice(&std::fs::read(folder.join(OUTCOME_FILE)).ok()?).ok()
}

/// The command that plays the bare responder.
pub(crate) fn bare_command(exovm: &Path, tap: &str, address: Ipv4Addr) -> Command {
    command(exovm, ROLE_BARE, &[(TAP, tap.as_ref()), (ADDRESS, address.to_string().as_ref())])
}

/// The command that plays the server on Linux's sockets.
pub(crate) fn plain_command(exovm: &Path, docroot: &Path, address: SocketAddr) -> Command {
    let address = address.to_string();
    command(exovm, ROLE_PLAIN, &[(FOLDER, docroot.as_os_str()), (ADDRESS, address.as_ref())])
}

/// The command that plays a stack.
pub(crate) fn end_command(exovm: &Path, end: &tcp::End) -> Result<Command, BenchError> {
    let text = serde_json::to_string(end)
        .map_err(|error| BenchError::system("tell a process which stack it is", error.into()))?;
    Ok(command(exovm, ROLE_END, &[(END, text.as_ref())]))
}

fn command(exovm: &Path, role: &str, variables: &[(&str, &OsStr)]) -> Command {
    let mut command = Command::new(exovm);
    command.env(ROLE, role);
    for (name, value) in variables {
        command.env(name, value);
    }
    command
}

fn measure_role() -> Result<(), BenchError> {
    let folder = variable(FOLDER)?;
    let folder = Path::new(&folder);
    let read_task =
        || -> std::io::Result<Task> { Ok(serde_json::from_slice(&std::fs::read(folder.join(TASK_FILE))?)?) };
    let task = read_task().map_err(|source| BenchError::system("read what is to be measured", source))?;
    let exovm = std::env::current_exe()
        .map_err(|source| BenchError::system("find the path of this program", source))?;
    forget_role();
    match task {
        Task::Http(options) => leave(folder, measure::measure(&options, &exovm, folder)),
        Task::Tcp(options) => leave(folder, tcp::measure(&options, &exovm, folder)),
        Task::Attack(options) => leave(folder, attack::measure(&options, &exovm, folder)),
    }
}

fn leave(folder: &Path, result: Result<impl Serialize, BenchError>) -> Result<(), BenchError> {
    let outcome = match result {
        Ok(report) => Outcome::Report(report),
        Err(error) => Outcome::Error(error.to_string()),
    };
    write_json(&folder.join(OUTCOME_FILE), &outcome)
}

/// The guest that is started from here is an ordinary `exovm`.
fn forget_role() {
    // SAFETY: `run_role` is called before any thread is started, so nobody reads the environment at the same time.
    unsafe {
        std::env::remove_var(ROLE);
        std::env::remove_var(FOLDER);
    }
}

fn bare_role() -> Result<(), BenchError> {
    let address = variable(ADDRESS)?;
    let address = address
        .parse()
        .map_err(|_| BenchError::InvalidOptions(format!("`{address}` is no IPv4 address ({ADDRESS})")))?;
    bare::run_bare(&variable(TAP)?, address).map(|never| match never {})
}

fn plain_role() -> Result<(), BenchError> {
    let address = variable(ADDRESS)?;
    let address = address
        .parse()
        .map_err(|_| BenchError::InvalidOptions(format!("`{address}` is no address ({ADDRESS})")))?;
    plain::run_plain(Path::new(&variable(FOLDER)?), address).map(|never| match never {})
}

fn end_role() -> Result<(), BenchError> {
    let end = serde_json::from_str(&variable(END)?)
        .map_err(|error| BenchError::InvalidOptions(format!("{END} says no stack: {error}")))?;
    tcp::play(&end)
}

fn variable(name: &str) -> Result<String, BenchError> {
    std::env::var(name).map_err(|_| BenchError::InvalidOptions(format!("{name} is not set")))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), BenchError> {
    let failed = |source| BenchError::system(format!("write {}", path.display()), source);
    let text = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
    std::fs::write(path, text).map_err(failed)
}

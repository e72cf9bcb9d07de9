//! The outer side of a benchmark: checks what can be checked at once, starts the measuring process in a private network,
//! waits for it, and cleans up whatever happens.

use crate::attack::{self, AttackOptions};
use crate::options::HttpOptions;
use crate::report::write_json;
use crate::role::{self, Outcome, Task};
use crate::tcp::{self, TcpOptions};
use crate::{BenchError, Report, machine};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Measures servers, with `exovm_exe` as the guest's VMM and, by [`run_role`](crate::run_role), as the benchmark's helper processes.
///
/// Ctrl-C and SIGTERM end it with [`BenchError::Interrupted`], after everything it started; the network goes with its
/// last process. Writes the report to `options.json_path` if that is set.
pub fn run_http(options: HttpOptions, exovm_exe: &Path) -> Result<Report, BenchError> {
    options.check()?;
    machine::check_tools(&machine::tools(&options.contenders))?;
    let json_path = options.json_path.clone();
    run(&Task::Http(options), json_path.as_deref(), exovm_exe)
}

/// Measures stacks, as [`run_http`] does servers.
pub fn run_tcp(options: TcpOptions, exovm_exe: &Path) -> Result<tcp::Report, BenchError> {
    options.check()?;
    let json_path = options.json_path.clone();
    run(&Task::Tcp(options), json_path.as_deref(), exovm_exe)
}

/// Attacks a guest, as [`run_http`] measures servers.
pub fn run_attack(options: AttackOptions, exovm_exe: &Path) -> Result<attack::Report, BenchError> {
    options.check()?;
    let json_path = options.json_path.clone();
    run(&Task::Attack(options), json_path.as_deref(), exovm_exe)
}

/// Has `task` done in a private network.
fn run<R: Serialize + DeserializeOwned>(
    task: &Task,
    json_path: Option<&Path>,
    exovm_exe: &Path,
) -> Result<R, BenchError> {
    let folder = tempfile::Builder::new()
        .prefix("exovm-bench-")
        .tempdir()
        .map_err(|source| BenchError::system("make a temporary folder", source))?;
    let mut command = role::measure_command(exovm_exe, task, folder.path())?;
    let interrupted = Interrupted::watch()?;
    let family = Family::start(&mut command)?;
    let status = family.wait(&interrupted)?;
    let report = match role::outcome(folder.path()) {
        Some(Outcome::Report(report)) => report,
        Some(Outcome::Error(message)) => return Err(BenchError::Measuring(message)),
        None => return Err(BenchError::Ended(status)),
    };
    if let Some(path) = json_path {
        write_json(&report, path)?;
    }
    Ok(report)
}

/// The measuring process and everything it starts, as one process group. None of them is left when this value is dropped.
struct Family {
    child: Child,
    group: Pid,
    ended: bool,
}

impl Family {
    fn start(command: &mut Command) -> Result<Self, BenchError> {
        // A Ctrl-C in the terminal is for us alone; we end the others, in order.
        command.process_group(0);
        // Orphans of the family become our children, so that we can wait for their end.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| BenchError::system("become the reaper of orphaned processes", error.into()))?;
        let child = exovm_netns::spawn_in_private_network(command)?;
        let group = Pid::from_child(&child);
        Ok(Family { child, group, ended: false })
    }

    /// Waits for the measuring process, or for a signal.
    fn wait(mut self, interrupted: &Interrupted) -> Result<ExitStatus, BenchError> {
        let failed = |source| BenchError::system("wait for the measuring process", source);
        // Not reaped yet: until `drop` its number, which is the group's too, is nobody else's.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while rustix::process::waitid(WaitId::Pid(self.group), options)
            .map_err(|error| failed(error.into()))?
            .is_none()
        {
            if interrupted.flag.load(Ordering::Relaxed) {
                return Err(BenchError::Interrupted);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.end().map_err(failed)
    }

    /// Kills what is left and waits for its end. A second call finds nothing to do.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if !self.ended {
            // Fails if there is nobody left to kill.
            let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
            self.ended = true;
        }
        let status = self.child.wait();
        while let Ok(Some(_)) = rustix::process::waitpgid(self.group, WaitOptions::empty()) {}
        status
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        // There is nobody to tell, and nothing else to try.
        let _ = self.end();
        let _ = rustix::process::set_child_subreaper(None);
    }
}

/// SIGINT and SIGTERM as a flag, while this value lives.
struct Interrupted {
    flag: Arc<AtomicBool>,
    handlers: Vec<signal_hook::SigId>,
}

impl Interrupted {
    fn watch() -> Result<Self, BenchError> {
        let mut watch = Interrupted { flag: Arc::new(AtomicBool::new(false)), handlers: Vec::new() };
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let handler = signal_hook::flag::register(signal, watch.flag.clone())
                .map_err(|source| BenchError::system("watch for Ctrl-C", source))?;
            watch.handlers.push(handler);
        }
        Ok(watch)
    }
}

impl Drop for Interrupted {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
    }
}

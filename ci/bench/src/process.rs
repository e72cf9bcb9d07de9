//! Processes that a benchmark starts: pinned to CPUs, with their output in a file, paused while another is measured,
//! ended when dropped.

use crate::BenchError;
use rustix::process::{Pid, Signal};
use rustix::thread::CpuSet;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Lines of a server's output that an error shows.
const LOG_TAIL_LINES: usize = 20;

/// Lets `command` run on these CPUs only.
pub(crate) fn pin<'a>(command: &'a mut Command, cpus: &[usize]) -> &'a mut Command {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    // SAFETY: the closure makes one system call on a value it owns; it allocates nothing.
    unsafe { command.pre_exec(move || Ok(rustix::thread::sched_setaffinity(None, &set)?)) }
}

/// A program that runs beside us until this value is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts `command` with its output in `log`. It is killed when this process ends, however it ends.
    ///
    /// To be called from the main thread: the kernel watches the thread that starts.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self, BenchError> {
        let failed = |action: String| move |source| BenchError::system(action, source);
        let file = File::create(log).map_err(failed(format!("create {}", log.display())))?;
        let copy = file.try_clone().map_err(failed("duplicate a descriptor".into()))?;
        command.stdin(Stdio::null()).stdout(file).stderr(copy);
        let program = command.get_program().to_string_lossy().into_owned();
        let child =
            exovm_netns::end_with_parent(command).spawn().map_err(failed(format!("start `{program}`")))?;
        Ok(Background { child, log: log.to_owned() })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it ended, if it did.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Stops it where it is: it takes no processor time until [`resume`](Self::resume).
    pub(crate) fn pause(&self) -> Result<(), BenchError> {
        self.signal(Signal::STOP, "pause")
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> Result<(), BenchError> {
        self.signal(Signal::CONT, "resume")
    }

    /// The last lines of its output.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    fn signal(&self, signal: Signal, action: &str) -> Result<(), BenchError> {
        rustix::process::kill_process(self.pid(), signal).map_err(|error| {
            BenchError::system(format!("{action} process {}", self.child.id()), error.into())
        })
    }
}

/// Waits until the server `name` accepts connections at `address`.
pub(crate) fn wait_until_ready(
    process: &mut Background,
    name: &str,
    address: SocketAddr,
) -> Result<(), BenchError> {
    let deadline = Instant::now() + START_LIMIT;
    let reason = loop {
        if TcpStream::connect_timeout(&address, Duration::from_millis(250)).is_ok() {
            return Ok(());
        }
        if let Some(status) = process.has_ended() {
            break format!("it ended at once ({status})");
        }
        if Instant::now() >= deadline {
            break format!("no connection to {address} in {} s", START_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Err(BenchError::ServerDown { server: name.to_owned(), reason, log: process.log_tail() })
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself, then both are no-ops; there is nobody to tell about anything else.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> (Background, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        (Background::start(pin(&mut command, &[0]), &folder.path().join("log")).unwrap(), folder)
    }

    fn wait(process: &mut Background) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = process.has_ended() {
                return status;
            }
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn background_keeps_output_and_affinity() {
        let (mut process, _folder) =
            start("grep Cpus_allowed_list /proc/self/status; echo words >&2; exit 3");
        assert_eq!(wait(&mut process).code(), Some(3));
        assert_eq!(process.log_tail(), "Cpus_allowed_list:\t0\nwords");
    }

    #[test]
    fn paused_process_takes_no_time() {
        let (process, _folder) = start("while :; do :; done");
        process.pause().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let before = crate::cpu::process_time(process.pid()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(crate::cpu::process_time(process.pid()).unwrap(), before);
        process.resume().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(crate::cpu::process_time(process.pid()).unwrap() > before);
    }

    #[test]
    fn dropped_background_has_ended() {
        let (process, _folder) = start("sleep 600");
        let pid = process.pid();
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}

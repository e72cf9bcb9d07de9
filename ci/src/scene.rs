//! The `exovm` command on a stage: directories of its own for sockets and temporary files, the network namespace of the
//! test, and commands that are played in it. At the end nothing may be left.
//!
//! Only tests of the package that has the binary know where it is, so they say it: `env!("CARGO_BIN_EXE_exovm")`.

use exovm_netns::end_with_parent;
use std::ffi::{CStr, OsStr};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a command may take, on a busy host.
const PATIENCE: Duration = Duration::from_secs(30);
/// The last line that `run` prints once it serves begins so.
const RUNNING: &str = "Ctrl-C ends it";

/// The stage.
#[derive(Debug)]
pub struct Scene {
    /// The command.
    exovm: PathBuf,
    /// XDG_RUNTIME_DIR.
    runtime: TempDir,
    /// TMPDIR.
    temporary: TempDir,
    /// XDG_CACHE_HOME.
    cache: TempDir,
    /// Interfaces that were there before.
    interfaces: Vec<String>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Status or signal.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Scene {
    /// A stage for this binary.
    pub fn new(exovm: &str) -> Self {
        crate::host::require();
        crate::host::require_tap();
        let dir = || tempfile::tempdir().expect("a temporary directory");
        Self { exovm: exovm.into(), runtime: dir(), temporary: dir(), cache: dir(), interfaces: interfaces() }
    }

    /// The command with these arguments, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        self.command_of(&self.exovm, arguments)
    }

    /// The same for a copy of the command.
    pub fn command_of<S: AsRef<OsStr>>(&self, exovm: &Path, arguments: &[S]) -> Command {
        let mut command = Command::new(exovm);
        command
            .args(arguments)
            .env("XDG_RUNTIME_DIR", self.runtime.path())
            .env("TMPDIR", self.temporary.path())
            .env("XDG_CACHE_HOME", self.cache.path())
            .env_remove("EXOVM_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        end_with_parent(&mut command);
        interruptible(&mut command);
        command
    }

    /// Plays a command to its end.
    pub fn play<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        finish(&mut self.command(arguments))
    }

    /// Starts `run` with these arguments and waits until it says that it runs.
    pub fn start<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// Names of the control sockets.
    pub fn sockets(&self) -> Vec<String> {
        list(&self.runtime.path().join("exovm"))
    }

    /// The directory in which control sockets belong.
    pub fn runtime_dir(&self) -> &Path {
        self.runtime.path()
    }

    /// XDG_CACHE_HOME.
    pub fn cache_dir(&self) -> &Path {
        self.cache.path()
    }

    /// Where a test may put its files.
    pub fn dir(&self) -> TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    /// Nothing of what was played is left: no socket, no interface, no temporary file.
    pub fn assert_clean(&self) {
        assert_eq!(self.sockets(), [""; 0], "control sockets are left");
        let beside: Vec<_> = list(self.runtime.path()).into_iter().filter(|name| name != "exovm").collect();
        assert_eq!(beside, [""; 0], "files are left beside the control sockets");
        assert_eq!(interfaces(), self.interfaces, "interfaces are left or gone");
        assert_eq!(list(self.temporary.path()), [""; 0], "temporary files are left");
    }

    /// The command is refused with status 1, and what it says has all `parts`, on one line; and nothing is left.
    pub fn assert_refused<S: AsRef<OsStr>>(&self, arguments: &[S], parts: &[&str]) {
        let outcome = self.play(arguments);
        outcome.assert_error(parts);
        outcome.assert_one_line();
        self.assert_clean();
    }
}

impl Outcome {
    /// It failed as errors fail: status 1, nothing on standard output, a message that has all `parts`.
    pub fn assert_error(&self, parts: &[&str]) {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
        assert!(self.stderr.starts_with("exovm: "), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not said: {self:?}");
        }
    }

    /// It said all of it on one line.
    pub fn assert_one_line(&self) {
        assert_eq!(self.stderr.lines().count(), 1, "one line says it: {self:?}");
    }
}

/// Runs a command until it ends.
pub fn finish(command: &mut Command) -> Outcome {
    finish_within(PATIENCE, command)
}

/// Runs a command that may take longer than others.
pub fn finish_within(patience: Duration, command: &mut Command) -> Outcome {
    let mut child = command.spawn().expect("the command starts");
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let status = wait_within(patience, &mut child);
    let text = |reader: Option<std::thread::JoinHandle<String>>| {
        reader.map_or(String::new(), |reader| reader.join().expect("the reader ends"))
    };
    Outcome { status, stdout: text(stdout), stderr: without_waiting(&text(stderr)) }
}

/// What was complained about, without lines that a command has for whoever waits for a second: on a busy host that may be anybody.
fn without_waiting(stderr: &str) -> String {
    stderr.split_inclusive('\n').filter(|line| !line.starts_with("exovm: waiting for ")).collect()
}

fn collect(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child) -> ExitStatus {
    wait_within(PATIENCE, child)
}

fn wait_within(patience: Duration, child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().expect("our own child");
            panic!("the command did not end within {} s", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A machine that runs. Killed if the test forgets it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Option<std::thread::JoinHandle<String>>,
    /// What it said until it ran.
    pub said: String,
}

impl Running {
    /// Starts it, and waits until it says that it runs.
    ///
    /// # Panics
    /// If it ends before.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the command starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = child.stderr.take().map(collect);
        let mut running = Self { child, stdout, stderr, said: String::new() };
        loop {
            let from = running.said.len();
            let read = running.stdout.read_line(&mut running.said).expect("text");
            if read == 0 {
                let status = wait(&mut running.child);
                let complaints = running.complaints();
                panic!("it ended with {status} and said {:?} {complaints:?}", running.said);
            }
            if running.said[from..].starts_with(RUNNING) {
                return running;
            }
        }
    }

    /// Where it said it serves.
    pub fn address(&self) -> SocketAddr {
        let rest = self.said.split_once("serving http://").expect("it says where it serves").1;
        let address = rest.split_once('/').expect("an address ends with a slash").0;
        let without_port = || SocketAddrV4::new(address.parse().expect("an IPv4 address"), 80).into();
        address.parse().unwrap_or_else(|_| without_port())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends by itself, or by what somebody else did.
    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes its arguments by value; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0, "our own child");
    }

    /// Ends it by a signal. Gives back how it ended and what it had to complain about.
    pub fn end_by(mut self, signal: i32) -> (ExitStatus, String) {
        self.signal(signal);
        let status = wait(&mut self.child);
        (status, self.complaints())
    }

    /// Ctrl-C, after which all must be well.
    pub fn stop(self) {
        let (status, complaints) = self.end_by(libc::SIGINT);
        assert_eq!((status.code(), complaints.as_str()), (Some(0), ""), "it should end well");
    }

    /// Killed without a chance to clean up.
    pub fn kill(self) {
        let (status, _) = self.end_by(libc::SIGKILL);
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }

    fn complaints(&mut self) -> String {
        let stderr = self.stderr.take();
        stderr.map_or(String::new(), |reader| without_waiting(&reader.join().expect("the reader ends")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names in a directory, in order; none if there is no such directory.
fn list(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Interfaces of this network namespace, in order. Not from /sys, which shows those of whoever mounted it.
pub fn interfaces() -> Vec<String> {
    // SAFETY: if_nameindex has no arguments and gives back a list that is freed below.
    let list = unsafe { libc::if_nameindex() };
    assert!(!list.is_null(), "{}", std::io::Error::last_os_error());
    let mut names = Vec::new();
    for at in 0.. {
        // SAFETY: the list ends with an entry of index 0, which is where this loop ends.
        let entry = unsafe { &*list.add(at) };
        if entry.if_index == 0 {
            break;
        }
        // SAFETY: names in the list end with NUL.
        let name = unsafe { CStr::from_ptr(entry.if_name) };
        names.push(name.to_string_lossy().into_owned());
    }
    // SAFETY: the list came from if_nameindex and is not used any more.
    unsafe { libc::if_freenameindex(list) };
    names.sort();
    names
}

/// As a person's shell starts it: who runs tests in the background of a script, or behind `nohup`, may have Ctrl-C and the end of
/// the terminal ignored by all of them.
fn interruptible(command: &mut Command) {
    let listen = || {
        for signal in [libc::SIGINT, libc::SIGHUP] {
            // SAFETY: the default action has no handler.
            if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(listen) };
}

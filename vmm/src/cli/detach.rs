//! `exovm run --detach`: the same command once more as a process of its own session, which goes on when this one has
//! returned.
//!
//! The command starts its own program again (`fork` and `exec`, so there are no threads to lose) with a pipe as
//! standard input. Until the machine is ready the child shares this command's output, so what goes wrong is said as
//! always. Then it exchanges its output for the log file, and writes one byte into the pipe: this command ends with 0.
//! If the pipe ends without that byte the machine failed, and the child's exit code is this command's.

use super::log_file::{self, LogFile};
use super::{Failure, exit};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::AsFd;
use std::fs::OpenOptions;
use std::io::{PipeReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode};

/// Tells the child that it is one.
const CHILD: &str = "EXOVM_DETACHED_CHILD";

/// Whether this process is the one that goes on.
pub(super) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Starts this command again as the process that goes on, and waits until its machine is ready or has failed.
pub(super) fn start() -> Result<ExitCode, Failure> {
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(CHILD, "1").stdin(writer);
    let become_independent = || {
        rustix::process::setsid()?;
        // Pipes and locks that this command was given for its own use must not live on in the machine.
        close_the_rest_on_exec();
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor locks (signal-safety(7)).
    unsafe { command.pre_exec(become_independent) };
    let child = command.spawn()?;
    // With it goes our copy of the pipe's writing end.
    drop(command);
    outcome(child, reader)
}

/// Marks all descriptors but the standard ones to be closed by `exec`. Linux before 5.11 cannot: then they live on.
fn close_the_rest_on_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: numbers by value. The mark alone changes nothing for this process until it executes.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

fn outcome(mut child: Child, mut reader: PipeReader) -> Result<ExitCode, Failure> {
    if matches!(reader.read(&mut [0]), Ok(1)) {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait()?;
    if let Some(signal) = status.signal() {
        complain!("exovm: the machine's process was ended by signal {signal} before it was ready");
    }
    let code = status.code().or(status.signal().map(|signal| i32::from(exit::SIGNAL) + signal)).unwrap_or(1);
    // A machine that ended by itself before it was ready, and well, is a success.
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// In the child: whether the command that started it has gone, so that nobody will learn that the machine runs.
pub(super) fn nobody_waits() -> bool {
    let stdin = rustix::stdio::stdin();
    let mut pipe = [PollFd::new(&stdin, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // The writing end of a pipe that nobody reads is in error.
    rustix::event::poll(&mut pipe, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// In the child: the machine is ready. Output goes to the log file from now on. Returns whether anybody waited.
pub(super) fn ready(name: &str) -> Result<bool, Failure> {
    let file = LogFile::create(name)?;
    std::io::stdout().flush()?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    file.take_stderr()?;
    log_file::install(file);
    let reported = rustix::io::write(rustix::stdio::stdin().as_fd(), b"R").is_ok();
    rustix::stdio::dup2_stdin(&null)?;
    Ok(reported)
}

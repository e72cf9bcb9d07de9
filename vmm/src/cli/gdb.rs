//! `exovm gdb`: a debugger for a running machine. The machine speaks gdb's remote protocol over its control socket; this command
//! starts gdb with the image's symbols, or lends the connection to one elsewhere.

use super::Failure;
use super::supervise::Signals;
use crate::control::{Answer, ControlError, Request, Session, resolve};
use crate::debug::DebugRequest;
use crate::debug::symbols::readable;
use rustix::event::{PollFd, PollFlags};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Arguments of `gdb`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Starts the host's gdb, attached, with the symbols of kernel and program; what
stands behind -- goes to gdb. Without a gdb here, --listen and --socket lend the
connection to one elsewhere, one debugger at a time, until Ctrl-C.

The whole guest stops while the debugger looks at it; the VMM's device threads go
on. Environments are threads: `info threads`, `thread 2`. A breakpoint in text
that several environments share stops all of them. When the debugger detaches,
ends, or is killed, text and registers are as they were, and the guest goes on.

Images have no line tables: break at functions, step by `stepi`. Watchpoints are
gdb's own, by single steps (`set can-use-hw-watchpoints 0`, which is set here).

Examples:
  exovm gdb cheetah
  exovm gdb cheetah -- -ex 'break http' -ex continue
  exovm gdb cheetah -- -batch -ex 'info threads' -ex backtrace
  exovm gdb --listen 127.0.0.1:1234 cheetah
  exovm gdb --symbols /tmp/cheetah cheetah

Exit codes
  gdb's own; 1 there is no such machine, another debugger is attached, or there
  is no gdb here")]
pub(super) struct GdbArguments {
    /// Name of the machine; not needed if only one runs.
    machine: Option<String>,
    /// Lend the connection to who connects there.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["socket", "stdio", "symbols", "gdb"])]
    listen: Option<SocketAddr>,
    /// Lend the connection to who connects to this Unix socket, which is made.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["stdio", "symbols", "gdb"])]
    socket: Option<PathBuf>,
    /// Lend it to standard input and output: `target remote | exovm gdb --stdio cheetah`.
    #[arg(long, conflicts_with_all = ["symbols", "gdb"])]
    stdio: bool,
    /// Write the files with the symbols, program.elf and kernel.elf, into this directory, and nothing else.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "gdb")]
    symbols: Option<PathBuf>,
    /// Arguments for gdb.
    #[arg(last = true)]
    gdb: Vec<String>,
}

/// Files with symbols, as they are called.
const FILES: [(DebugRequest, &str); 2] =
    [(DebugRequest::ProgramFile, "program.elf"), (DebugRequest::KernelFile, "kernel.elf")];

pub(super) fn gdb(arguments: &GdbArguments) -> Result<ExitCode, Failure> {
    let name = resolve(arguments.machine.as_deref())?;
    if let Some(directory) = &arguments.symbols {
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        write_symbols(&name, directory)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.stdio {
        lend_to_stdio(&name)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Before there is a thread, another process, or a file that is to be removed. Ctrl-C is gdb's business, if it runs here.
    let signals = Signals::block()?;
    if let Some(address) = arguments.listen {
        let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            complain!("exovm: whoever can reach {address} can do with {name} what it likes");
        }
        announce(&name, &address.to_string());
        return lend(&name, &Listener::Tcp(listener), &signals);
    }
    if let Some(path) = &arguments.socket {
        let listener = UnixListener::bind(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let _removed_at_end = Removed(path);
        announce(&name, &path.display().to_string());
        return lend(&name, &Listener::Unix(listener), &signals);
    }
    run(&name, &arguments.gdb, &signals)
}

/// Asks a machine for a connection of its debugger's.
fn connect(name: &str, request: DebugRequest) -> Result<(UnixStream, Vec<u8>), ControlError> {
    let mut session = Session::open(name)?;
    match session.ask(&Request::Debug(request))? {
        Answer::Attached => {
            session.set_patience(None)?;
            Ok(session.into_stream())
        }
        other => Err(session.unexpected(&other)),
    }
}

fn write_symbols(name: &str, directory: &Path) -> Result<(), Failure> {
    for (request, file) in FILES {
        let (mut stream, mut bytes) = connect(name, request)?;
        stream.read_to_end(&mut bytes).map_err(|error| format!("machine {name}: {error}"))?;
        let path = directory.join(file);
        let bytes = readable(&bytes).unwrap_or(bytes);
        std::fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Runs the host's gdb, attached.
fn run(name: &str, arguments: &[String], signals: &Signals) -> Result<ExitCode, Failure> {
    let directory = tempfile::Builder::new().prefix("exovm-gdb-").tempdir()?;
    write_symbols(name, directory.path())?;
    let [program, kernel] = FILES.map(|(_, file)| directory.path().join(file));
    let exovm = std::env::current_exe()?;
    let quoted = format!("'{}'", exovm.display().to_string().replace('\'', r"'\''"));
    let commands = [
        "set confirm off".to_owned(),
        format!("add-symbol-file \"{}\"", kernel.display()),
        "set confirm on".to_owned(),
        "set can-use-hw-watchpoints 0".to_owned(),
        format!("target remote | exec {quoted} gdb --stdio {name}"),
    ];
    let mut command = Command::new("gdb");
    command.arg("-q").arg(program);
    command.args(commands.iter().flat_map(|text| ["-ex", text.as_str()])).args(arguments);
    signals.not_blocked_in(&mut command);
    let mut gdb = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(format!(
                "there is no gdb here; install it, or lend the connection to one elsewhere:\n  \
                 exovm gdb --symbols DIRECTORY {name}\n  \
                 exovm gdb --listen 127.0.0.1:1234 {name}\n  \
                 gdb DIRECTORY/program.elf -ex 'target remote 127.0.0.1:1234'"
            )
            .into());
        }
        started => started.map_err(|error| format!("gdb: {error}"))?,
    };
    // This command stays to remove the files.
    let status = gdb.wait()?;
    Ok(ExitCode::from(status.code().map_or(super::exit::ERROR, |code| code as u8)))
}

fn announce(name: &str, at: &str) {
    complain!("[debugger of {name}: gdb -ex 'target remote {at}'; Ctrl-C ends this]");
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A debugger's connection.
enum Peer {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }

    fn accept(&self) -> std::io::Result<Peer> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                // Packets are small, and each is waited for.
                stream.set_nodelay(true)?;
                Ok(Peer::Tcp(stream))
            }
            Self::Unix(listener) => listener.accept().map(|(stream, _)| Peer::Unix(stream)),
        }
    }
}

/// Lends connections until a signal comes or the machine has gone.
fn lend(name: &str, listener: &Listener, signals: &Signals) -> Result<ExitCode, Failure> {
    loop {
        let mut polled = [
            PollFd::from_borrowed_fd(listener.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("waiting for a debugger: {error}").into()),
        }
        if !polled[1].revents().is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        if polled[0].revents().is_empty() {
            continue;
        }
        let Ok(peer) = listener.accept() else { continue };
        match connect(name, DebugRequest::Attach) {
            Ok((machine, first)) => {
                std::thread::spawn(move || match peer {
                    Peer::Tcp(peer) => {
                        pump(&peer, &peer, &machine, &first, |peer| peer.shutdown(Shutdown::Both))
                    }
                    Peer::Unix(peer) => {
                        pump(&peer, &peer, &machine, &first, |peer| peer.shutdown(Shutdown::Both))
                    }
                });
            }
            Err(error @ (ControlError::NotRunning { .. } | ControlError::Gone { .. })) => {
                return Err(error.into());
            }
            Err(error) => complain!("exovm: {error}"),
        }
    }
}

fn lend_to_stdio(name: &str) -> Result<(), Failure> {
    let (machine, first) = connect(name, DebugRequest::Attach)?;
    let from_gdb = machine.try_clone()?;
    // Ends with the process, at the latest.
    std::thread::spawn(move || {
        copy(std::io::stdin().lock(), &from_gdb);
        let _ = from_gdb.shutdown(Shutdown::Both);
    });
    let mut out = std::io::stdout().lock();
    if out.write_all(&first).and_then(|()| out.flush()).is_ok() {
        copy(&machine, out);
    }
    Ok(())
}

/// Moves bytes both ways until one side ends.
fn pump<'a, P: Sync>(
    peer: &'a P,
    mut to_peer: &'a P,
    machine: &UnixStream,
    first: &[u8],
    close: impl Fn(&P) -> std::io::Result<()> + Sync,
) where
    &'a P: Read + Write + Send,
{
    std::thread::scope(|scope| {
        scope.spawn(|| {
            copy(peer, machine);
            let _ = machine.shutdown(Shutdown::Both);
        });
        if to_peer.write_all(first).is_ok() {
            copy(machine, to_peer);
        }
        let _ = close(peer);
        let _ = machine.shutdown(Shutdown::Both);
    });
}

/// All bytes, each as soon as it comes. What ends it is the end of both.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut part = [0; 4096];
    loop {
        match from.read(&mut part) {
            Ok(0) => return,
            Ok(count) if to.write_all(&part[..count]).and_then(|()| to.flush()).is_ok() => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// A file that goes with this.
struct Removed<'a>(&'a Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

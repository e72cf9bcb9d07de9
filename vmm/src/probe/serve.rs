//! A client of a probe, on a thread of its own: the probe lives as long as its connection.

use super::assemble::Wanted;
use super::function::reads;
use super::names::{list, program};
use super::sampled::Sampled;
use super::session::Probe;
use super::stream::{Item, ProbeRequest};
use crate::account::ledger::now_tsc;
use crate::machine::Shared;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the numbers are told.
const TELL_PERIOD: Duration = Duration::from_millis(500);
/// How often the rings of the last calls are looked at, and whether the machine has ended ...
const LOOK_PERIOD: Duration = Duration::from_millis(2);
/// ... and how often only that.
const END_PERIOD: Duration = Duration::from_millis(50);
/// How long a client may take for a line.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves a client from now on.
pub(crate) fn start(machine: Arc<Shared>, request: ProbeRequest, socket: UnixStream) {
    let shared = Arc::clone(&machine);
    machine.tools.start("exovm-probe", move || {
        let client = Client { machine: &shared, socket };
        // An error of the socket: the client has gone, and with it the probe.
        if let Err(error) = client.serve(&request) {
            tracing::debug!("a client of a probe: {error}");
        }
    });
}

struct Client<'m> {
    machine: &'m Arc<Shared>,
    socket: UnixStream,
}

impl Client<'_> {
    fn serve(mut self, request: &ProbeRequest) -> std::io::Result<()> {
        self.socket.set_nonblocking(false)?;
        self.socket.set_write_timeout(Some(PATIENCE))?;
        match request {
            ProbeRequest::List { pattern } => {
                self.say(&Item::Functions(list(self.machine.reporter.image(), pattern)))?;
                self.say(&Item::End { machine_ended: self.machine.has_ended() })
            }
            ProbeRequest::Attach { function, returns, arguments } => {
                let wanted = Wanted { returns: *returns, arguments: *arguments };
                match Probe::attach(self.machine, function, wanted) {
                    Ok(probe) => self.watch(probe, wanted),
                    Err(error) => self.say(&Item::Refused { message: error.to_string() }),
                }
            }
        }
    }

    fn say(&mut self, item: &Item) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(item)?;
        line.push(b'\n');
        self.socket.write_all(&line)
    }

    /// As long as the client listens and the machine runs.
    fn watch(&mut self, mut probe: Probe, wanted: Wanted) -> std::io::Result<()> {
        let function = probe.function().clone();
        let image = self.machine.reporter.image();
        let reads = reads(program(image, function.ring), function.va);
        let tsc_khz = self.machine.tsc_khz;
        let reads = reads.into_iter().map(str::to_owned).collect();
        self.say(&Item::Attached { function, reads, tsc_khz, tsc: now_tsc() })?;
        let mut sampled = wanted.arguments.then(Sampled::default);
        let period = if wanted.arguments { LOOK_PERIOD } else { END_PERIOD };
        let mut told = Instant::now();
        loop {
            let goes = self.client_goes(period)?;
            let ended = self.machine.has_ended();
            if goes || ended {
                probe.detach();
            }
            if let Some(sampled) = &mut sampled {
                probe.numbers().unwrap_or_default().iter().for_each(|numbers| sampled.look(numbers));
            }
            if goes || ended || told.elapsed() >= TELL_PERIOD {
                told = Instant::now();
                let by = probe.numbers().unwrap_or_default();
                self.say(&Item::Numbers {
                    tsc: now_tsc(),
                    by,
                    arguments: sampled.as_ref().map(Sampled::tell),
                })?;
            }
            if goes || ended {
                return self.say(&Item::End { machine_ended: ended });
            }
        }
    }

    /// Waits for that time at most. Whether the client has said all it wants to say, or is gone.
    fn client_goes(&mut self, time: Duration) -> std::io::Result<bool> {
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
        match rustix::event::poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 256];
        match self.socket.read(&mut bytes) {
            Ok(0) => Ok(true),
            // Nothing that it could say means anything.
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }
}

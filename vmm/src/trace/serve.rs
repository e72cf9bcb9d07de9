//! A listener at the control socket: after the answer, which is the header, the connection carries pieces of the stream until the
//! client shuts its side down or the machine ends; then what is left, and an end.

use super::collect::{HostEvents, Listener};
use super::looking::Records;
use super::record::Happening;
use super::stream::{End, Header, Piece, SCHEMA, Site, Source};
use crate::account::ledger::{Bucket, now_tsc};
use crate::machine::Shared;
use abi::trace::{KIND_COUNTER, KIND_SPAN};
use rustix::net::{RecvFlags, recv};
use serde::{Deserialize, Serialize};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often rings are emptied at least if everything is recorded: they hold a few milliseconds of a busy environment.
const PERIOD: Duration = Duration::from_millis(2);
/// How often at least, however little is recorded.
const PERIOD_MAX: Duration = Duration::from_millis(20);
/// A client that takes nothing for so long is not there any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client wants to have recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceRequest {
    /// One received frame in so many, and what follows from it; 0 or 1: everything.
    pub one_in: u32,
    /// Also KVM's tracepoints, where the host offers them.
    pub kvm: bool,
}

impl TraceRequest {
    fn records(self) -> Records {
        if self.one_in > 1 { Records::OneIn(self.one_in) } else { Records::All }
    }

    fn host_events(self) -> HostEvents {
        if self.kvm { HostEvents::Wanted } else { HostEvents::Unwanted }
    }
}

/// Clients at once: each may have records of [`super::collect`]'s feed wait for it.
const CLIENTS_MAX: usize = 4;

/// A client that is served once its connection is there.
pub(crate) struct Serving {
    listener: Listener,
    machine: Arc<Shared>,
}

/// Begins to record. What the client is answered, and who serves it; or why not.
pub(crate) fn begin(
    machine: &Arc<Shared>,
    request: TraceRequest,
    name: &str,
    image: &str,
) -> Result<(Header, Serving), String> {
    if machine.tracing.listeners() >= CLIENTS_MAX {
        return Err(format!("{CLIENTS_MAX} others record it already; try again when one of them has ended"));
    }
    let listener = machine.tracing.listen(request.records(), request.host_events());
    Ok((header(machine, name, image), Serving { listener, machine: Arc::clone(machine) }))
}

/// What the records of a machine are of, now that they are written.
pub(crate) fn header(machine: &Shared, name: &str, image: &str) -> Header {
    let utc = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let threads = machine.ledgers.iter().map(|(name, _)| Source::Thread { name: name.clone() });
    let environments = (0u32..).zip(&machine.pages).map(|(number, _)| Source::Environment { number });
    let kvm = machine.tracing.kvm_threads().map(|thread| Source::Kvm { thread: thread.to_owned() });
    let sites = machine.sites.iter().map(|site| Site {
        name: site.name.clone(),
        kind: match site.kind {
            KIND_SPAN => "span",
            KIND_COUNTER => "counter",
            _ => "event",
        }
        .to_owned(),
    });
    Header {
        schema: SCHEMA.to_owned(),
        machine: name.to_owned(),
        image: image.to_owned(),
        tsc_khz: machine.tsc_khz,
        tsc: now_tsc(),
        utc_us: utc.as_micros() as u64,
        one_in: machine.looking.one_in().unwrap_or(1),
        sources: threads.chain(environments).chain(kvm).collect(),
        sites: sites.collect(),
        buckets: Bucket::all().map(Bucket::title).collect(),
        happenings: Happening::ALL.iter().map(|what| (*what as u32, what.name().to_owned())).collect(),
        kvm: machine.tracing.kvm_header(),
    }
}

impl Serving {
    /// Serves, on a thread of its own.
    pub(crate) fn start(self, socket: UnixStream) {
        let machine = Arc::clone(&self.machine);
        machine.tools.start("exovm-trace", move || {
            if let Err(error) = self.run(socket) {
                tracing::debug!("a trace's client: {error}");
            }
        });
    }

    fn run(self, mut socket: UnixStream) -> std::io::Result<()> {
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let machine = Arc::clone(&self.machine);
        let send = |socket: &mut UnixStream, pieces: Vec<Piece>| {
            let mut bytes = Vec::new();
            pieces.iter().try_for_each(|piece| {
                bytes.clear();
                piece.write(&mut bytes);
                machine.send(socket, &bytes)
            })
        };
        let why = loop {
            // Others may want more than this one, at any time.
            let one_in = machine.looking.one_in().unwrap_or(1);
            send(&mut socket, self.listener.next((PERIOD * one_in).min(PERIOD_MAX)))?;
            if self.machine.has_ended() {
                break End::MachineEnded;
            }
            if said_all(&socket) {
                break End::Asked;
            }
        };
        let mut last = self.listener.last();
        last.push(Piece::End(why));
        send(&mut socket, last)
    }
}

/// Whether the client has shut its side down, or is gone. What it says means nothing.
fn said_all(socket: &UnixStream) -> bool {
    let mut said = [0u8; 64];
    match recv(socket, &mut said, RecvFlags::DONTWAIT) {
        Ok((0, _)) => true,
        Ok(_) => false,
        Err(error) => error != rustix::io::Errno::AGAIN && error != rustix::io::Errno::INTR,
    }
}

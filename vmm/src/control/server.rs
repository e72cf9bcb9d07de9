//! The machine's side of the control socket: who is connected, and what they can be told.

use super::ControlError;
use super::connection::{Connection, Next, Standing};
use super::directory::{Knock, checked_name, knock, listen, lock, runtime_dir};
use super::protocol::{Ending, Info, Refusal, RefusalKind, StatRequest, State};
use crate::account::AccountSnapshot;
use crate::channel::Clients;
use crate::guest_log::GuestLog;
use crate::machine::{Machine, Shared};
use crate::stat::{Family, Kind, StatSnapshot, pmu, prometheus};
use event_manager::{EventOps, Events};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Clients connected at once.
const CLIENTS_MAX: usize = 32;
/// A client that moved nothing for that long may lose its place to another.
const PLACE_KEPT: Duration = Duration::from_secs(1);
/// How long the runtime directory may be locked: many machines may be starting.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How long clients may take for the last words.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A listening socket under a machine's name. Dropping it removes the file.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    name: String,
}

impl ControlSocket {
    /// Listens under `name`, or `name-2`, `name-3` ... if that runs already. What a killed VMM left behind is taken over.
    pub fn bind(name: &str) -> Result<Self, ControlError> {
        let base = checked_name(name)?;
        let dir = runtime_dir()?;
        let _lock = lock(&dir, LOCK_PATIENCE)?;
        for attempt in 1..100 {
            let name = if attempt == 1 { base.to_owned() } else { format!("{base}-{attempt}") };
            if checked_name(&name).is_err() {
                // Nobody could call it so.
                break;
            }
            let path = dir.join(format!("{name}.sock"));
            match knock(&path)? {
                Knock::Alive(_) | Knock::Foreign => continue,
                Knock::Dead => std::fs::remove_file(&path)
                    .map_err(|error| ControlError::Socket { path: path.clone(), error })?,
                Knock::Missing => {}
            }
            let listener = listen(&path)?;
            // Of an earlier machine of this name, which did not end well.
            let _ = std::fs::remove_file(dir.join(format!("{name}.log")));
            return Ok(Self { listener, path, name });
        }
        Err(ControlError::TooMany { name: base.to_owned() })
    }

    /// The machine's name, as clients call it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        /// A lock that cannot be had must not hold up the end.
        const PATIENCE: Duration = Duration::from_secs(1);
        let _lock = self.path.parent().map(|dir| lock(dir, PATIENCE));
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What clients can be told of a machine, and have it do.
pub struct Served {
    machine: Arc<Shared>,
    log: Arc<GuestLog>,
    info: Info,
    stop: EventFd,
}

impl Served {
    /// Of `machine`. What changes while it runs (state, port, leased address, uptime) is put into `info` when somebody asks.
    pub fn new(machine: &Machine, log: Arc<GuestLog>, info: Info) -> Result<Self, ControlError> {
        let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(ControlError::Host)?;
        Ok(Self { machine: Arc::clone(machine.shared()), log, info, stop })
    }

    pub(super) fn info(&self) -> Info {
        let state = if self.machine.has_ended() {
            State::Ended
        } else if self.machine.is_stopping() {
            State::Stopping
        } else if self.machine.is_ready() {
            State::Ready
        } else {
            State::Starting
        };
        let mut info = self.info.clone();
        info.addresses.extend(self.machine.leased_address(0).map(|address| address.to_string()));
        let ipv6 = self.machine.ipv6_addresses(0);
        let used = ipv6.iter().filter(|address| address.is_used());
        info.addresses.extend(used.map(|address| address.ip.to_string()));
        Info { state, port: self.machine.port(0), uptime_ms: self.machine.uptime_ms(), ..info }
    }

    pub(super) fn account(&self) -> AccountSnapshot {
        self.machine.account()
    }

    pub(super) fn statistics(&self, request: &StatRequest) -> StatSnapshot {
        let mut statistics = self.machine.statistics(&request.layers);
        if request.wants(pmu::LAYER) {
            self.machine.pmu.tell(&mut statistics);
        }
        statistics
    }

    /// All statistics as Prometheus wants them.
    pub(super) fn metrics(&self) -> String {
        let Info { name, image, version, .. } = &self.info;
        let labels = [("name", name.as_str()), ("image", image), ("version", version)];
        let info =
            Family::new("machine", "info", Kind::Gauge, "", "1; what the machine is.").with(&labels, 1);
        let mut snapshot = self.machine.statistics(&[]);
        snapshot.families.insert(0, info);
        prometheus::render(&snapshot)
    }

    pub(super) fn machine(&self) -> &Arc<Shared> {
        &self.machine
    }

    pub(super) fn clients(&self) -> &Clients {
        &self.machine.clients
    }

    pub(super) fn log(&self) -> &GuestLog {
        &self.log
    }

    pub(super) fn stop(&self) {
        // A full counter means that somebody asked already.
        let _ = self.stop.write(1);
    }
}

/// A machine's control socket and its clients. Lives in an event loop: the owner passes on what
/// [`Control::watches`] says is its.
pub struct Control {
    socket: ControlSocket,
    served: Served,
    clients: BTreeMap<RawFd, Connection>,
}

impl Control {
    /// Serves a machine's clients.
    pub fn new(socket: ControlSocket, served: Served) -> Self {
        Self { socket, served, clients: BTreeMap::new() }
    }

    /// Readable when a client wants the machine to end.
    pub fn stop_event(&self) -> &EventFd {
        &self.served.stop
    }

    /// Begins to watch its descriptors.
    pub fn init(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        ops.add(Events::new(&self.socket.listener, EventSet::IN))?;
        ops.add(Events::new(self.served.log.news(), EventSet::IN))
    }

    /// Whether an event is for [`Self::process`].
    pub fn watches(&self, fd: RawFd) -> bool {
        fd == self.socket.listener.as_raw_fd()
            || fd == self.served.log.news().as_raw_fd()
            || self.clients.contains_key(&fd)
    }

    /// Serves who is ready. Never waits.
    pub fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let fd = events.fd();
        if fd == self.socket.listener.as_raw_fd() {
            self.accept(ops);
        } else if fd == self.served.log.news().as_raw_fd() {
            let _ = self.served.log.news().read();
            let followers: Vec<RawFd> =
                self.clients.iter().filter(|(_, client)| client.follows_log()).map(|(&fd, _)| fd).collect();
            for fd in followers {
                self.advance(fd, ops);
            }
        } else if events.event_set().intersects(EventSet::HANG_UP | EventSet::ERROR) {
            // It may have asked for something before it went.
            self.advance(fd, ops);
            self.drop_client(fd, ops);
        } else {
            self.advance(fd, ops);
        }
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        while let Ok((socket, _)) = self.socket.listener.accept() {
            let client = match Connection::new(socket) {
                Ok(client) => client,
                Err(error) => {
                    tracing::debug!("control client: {error}");
                    continue;
                }
            };
            if self.clients.len() >= CLIENTS_MAX && !self.make_room(ops) {
                let message = format!("{CLIENTS_MAX} clients are being served already");
                client.turn_away(Refusal { kind: RefusalKind::TooManyClients, message });
                continue;
            }
            let fd = client.as_raw_fd();
            match ops.add(Events::new(&client, EventSet::IN)) {
                Ok(()) => {
                    self.clients.insert(fd, client);
                    self.advance(fd, ops);
                }
                Err(error) => tracing::debug!("control client: {error}"),
            }
        }
    }

    /// Drops the client that needs its place least, if there is one.
    fn make_room(&mut self, ops: &mut EventOps<'_>) -> bool {
        let candidates = self.clients.iter_mut().map(|(&fd, client)| (client.standing(), fd));
        let least = candidates
            .filter(|((standing, still), _)| *standing != Standing::Busy && *still >= PLACE_KEPT)
            .min_by_key(|((standing, still), _)| (*standing, std::cmp::Reverse(*still)));
        if let Some(((standing, _), fd)) = least {
            tracing::debug!("a control client ({standing:?}) loses its place to another");
            self.drop_client(fd, ops);
        }
        least.is_some()
    }

    fn advance(&mut self, fd: RawFd, ops: &mut EventOps<'_>) {
        let Some(client) = self.clients.get_mut(&fd) else { return };
        let mut next = client.advance(&self.served);
        if client.follows_log() {
            // And look again, so that no line comes unnoticed in between.
            self.served.log.watch();
            next = client.advance(&self.served);
        }
        let watched = match next {
            Next::Gone => false,
            Next::HandOver => return self.hand_over(fd, ops),
            Next::Watch(events) => ops.modify(Events::new(client, events)).is_ok(),
        };
        if !watched {
            self.drop_client(fd, ops);
        }
    }

    /// The client is one of a port from now on, and none of this socket.
    fn hand_over(&mut self, fd: RawFd, ops: &mut EventOps<'_>) {
        let Some(client) = self.clients.remove(&fd) else { return };
        match ops.remove(Events::empty(&client)) {
            Ok(()) => client.hand_over(),
            Err(error) => tracing::debug!("control client: {error}"),
        }
    }

    fn drop_client(&mut self, fd: RawFd, ops: &mut EventOps<'_>) {
        if let Some(client) = self.clients.remove(&fd)
            && let Err(error) = ops.remove(Events::empty(&client))
        {
            tracing::debug!("control client: {error}");
        }
    }

    /// The machine has ended: tells those who wait for that, closes all connections and removes the socket.
    pub fn finish(self, ending: &Ending) {
        let deadline = Instant::now() + LAST_WORDS;
        for client in self.clients.into_values() {
            client.finish(&self.served, ending, deadline);
        }
    }
}

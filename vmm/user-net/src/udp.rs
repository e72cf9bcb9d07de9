//! UDP: datagrams are handed over one by one. A session remembers who talked to whom, for a minute after the last datagram,
//! so that answers find back; there is room for so many of each kind, and the one idle for longest makes room for a new one.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use crate::answer::{self, UDP_PAYLOAD_AT, UDP_PAYLOAD_MAX};
use crate::endpoints::Endpoints;
use crate::flow::{Flow, Surroundings};
use crate::host_sockets;
use crate::link::FRAME_BYTES_MAX;
use crate::reactor::{Reactor, Source};
use crate::slab::{Id, Slab};

/// Most sessions of each kind: with clients of published ports, and with the outside.
const SESSIONS_MAX: usize = 256;
/// How long a session lasts after its last datagram.
const SESSION_IDLE: Duration = Duration::from_secs(60);
/// Datagrams dropped in a row, before others have their turn.
const DROPS_MAX: usize = 64;
/// How often ended sessions are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// A published port.
#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    guest_port: u16,
    listed: bool,
}

/// The host's end of a session.
#[derive(Debug)]
enum HostEnd {
    /// A client of a published port.
    Client {
        /// The port, by its number.
        port: u32,
        /// The client.
        address: SocketAddr,
    },
    /// A socket of its own, connected to where the guest wants to go.
    Outside(UdpSocket),
}

#[derive(Debug)]
struct Session {
    flow: Flow,
    host: HostEnd,
    used_at: Duration,
    listed: bool,
}

impl Session {
    fn is_outside(&self) -> bool {
        matches!(self.host, HostEnd::Outside(_))
    }
}

/// All ports and sessions.
#[derive(Debug)]
pub(crate) struct Udp {
    ports: Vec<Port>,
    sessions: Slab<Session>,
    by_flow: HashMap<Flow, Id>,
    by_client: HashMap<(u32, SocketAddr), Id>,
    /// Sockets that may have datagrams.
    ready: VecDeque<Source>,
    endpoints: Endpoints,
    outside: usize,
    sweep_at: Option<Duration>,
}

impl Udp {
    pub(crate) fn new() -> Self {
        Self {
            ports: Vec::new(),
            sessions: Slab::new(),
            by_flow: HashMap::new(),
            by_client: HashMap::new(),
            ready: VecDeque::new(),
            endpoints: Endpoints::default(),
            outside: 0,
            sweep_at: None,
        }
    }

    /// Binds a port of the host that leads to one of the guest. Returns where it is bound.
    pub(crate) fn publish(
        &mut self,
        address: SocketAddr,
        guest_port: u16,
        reactor: &Reactor,
    ) -> io::Result<SocketAddr> {
        let socket = host_sockets::bind_udp(address)?;
        let address = socket.local_addr()?;
        reactor.watch_input(&socket, Source::UdpPort(self.ports.len() as u32))?;
        self.ports.push(Port { socket, guest_port, listed: false });
        Ok(address)
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// When to look again.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        if self.ready.is_empty() { self.sweep_at } else { Some(Duration::ZERO) }
    }

    /// Hands a datagram of the guest over. `false`: it belongs to no session.
    pub(crate) fn input(&mut self, flow: Flow, payload: &[u8], around: &mut Surroundings) -> bool {
        let Some(&id) = self.by_flow.get(&flow) else { return false };
        let Some(session) = self.sessions.get_mut(id) else { return false };
        session.used_at = around.now;
        let sent = match &session.host {
            HostEnd::Client { port, address } => match self.ports.get(*port as usize) {
                Some(port) => port.socket.send_to(payload, address),
                None => return false,
            },
            HostEnd::Outside(socket) => socket.send(payload),
        };
        match sent {
            Ok(_) => around.counters.udp_from_guest += 1,
            // A full queue, an answer that nobody is there: as on any network, it is lost.
            Err(_) => around.counters.udp_dropped += 1,
        }
        true
    }

    /// Opens a session to the outside.
    pub(crate) fn open_outside(
        &mut self,
        flow: Flow,
        target: SocketAddr,
        around: &mut Surroundings,
    ) -> io::Result<()> {
        if self.outside >= SESSIONS_MAX {
            self.evict(Session::is_outside, around);
        }
        let socket = host_sockets::connect_udp(target)?;
        let watched = socket.try_clone()?;
        let session = Session { flow, host: HostEnd::Outside(socket), used_at: around.now, listed: false };
        let id = self.insert(session, around.now);
        self.outside += 1;
        if let Err(error) = around.reactor.watch_input(&watched, Source::Udp(id)) {
            self.remove(id);
            return Err(error.into());
        }
        Ok(())
    }

    /// A socket may have datagrams.
    pub(crate) fn host_event(&mut self, source: Source) {
        let listed = match source {
            Source::UdpPort(index) => self.ports.get_mut(index as usize).map(|port| &mut port.listed),
            Source::Udp(id) => self.sessions.get_mut(id).map(|session| &mut session.listed),
            _ => None,
        };
        if let Some(listed) = listed
            && !std::mem::replace(listed, true)
        {
            self.ready.push_back(source);
        }
    }

    /// Puts the next datagram to the guest into `frame`; returns its length.
    pub(crate) fn output(
        &mut self,
        frame: &mut [u8; FRAME_BYTES_MAX],
        around: &mut Surroundings,
    ) -> Option<usize> {
        let mut drops = 0;
        while drops < DROPS_MAX
            && let Some(source) = self.ready.pop_front()
        {
            // One byte more than fits, so that a longer one is noticed.
            let room = &mut frame[UDP_PAYLOAD_AT..][..UDP_PAYLOAD_MAX + 1];
            let received = match source {
                Source::UdpPort(index) => self.receive_from_client(index, room, around),
                Source::Udp(id) => self.receive_from_outside(id, room, around.now),
                _ => None,
            };
            let Some((flow, payload_bytes)) = received else { continue };
            self.ready.push_back(source);
            let Some(flow) = flow.filter(|_| payload_bytes <= UDP_PAYLOAD_MAX) else {
                around.counters.udp_dropped += 1;
                drops += 1;
                continue;
            };
            let frame_bytes = UDP_PAYLOAD_AT + payload_bytes;
            answer::udp(&around.link, &mut frame[..frame_bytes], flow.peer, flow.guest_port);
            around.counters.udp_to_guest += 1;
            return Some(frame_bytes);
        }
        None
    }

    /// Receives from a published port. `None`: there is nothing more. The flow is `None` if there is no room for it.
    fn receive_from_client(
        &mut self,
        index: u32,
        room: &mut [u8],
        around: &mut Surroundings,
    ) -> Option<(Option<Flow>, usize)> {
        let port = self.ports.get_mut(index as usize)?;
        match port.socket.recv_from(room) {
            Ok((bytes, address)) => Some((self.client(index, address, around), bytes)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                port.listed = false;
                None
            }
            // An earlier datagram to some client was refused: that is its loss.
            Err(_) => Some((None, 0)),
        }
    }

    /// Receives from the outside. `None`: there is nothing more.
    fn receive_from_outside(
        &mut self,
        id: Id,
        room: &mut [u8],
        now: Duration,
    ) -> Option<(Option<Flow>, usize)> {
        let session = self.sessions.get_mut(id)?;
        let HostEnd::Outside(socket) = &session.host else { return None };
        match socket.recv(room) {
            Ok(bytes) => {
                session.used_at = now;
                Some((Some(session.flow), bytes))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                session.listed = false;
                None
            }
            Err(_) => Some((None, 0)),
        }
    }

    /// The session of a client, which is opened if there is none.
    fn client(&mut self, index: u32, address: SocketAddr, around: &mut Surroundings) -> Option<Flow> {
        if let Some(session) = self.by_client.get(&(index, address)).and_then(|&id| self.sessions.get_mut(id))
        {
            session.used_at = around.now;
            return Some(session.flow);
        }
        if self.by_client.len() >= SESSIONS_MAX {
            self.evict(|session| !session.is_outside(), around);
        }
        let guest_port = self.ports.get(index as usize)?.guest_port;
        let by_flow = &self.by_flow;
        let peer: SocketAddrV4 =
            self.endpoints.next(|peer| by_flow.contains_key(&Flow { guest_port, peer }))?;
        let flow = Flow { guest_port, peer };
        let host = HostEnd::Client { port: index, address };
        self.insert(Session { flow, host, used_at: around.now, listed: false }, around.now);
        Some(flow)
    }

    fn insert(&mut self, session: Session, now: Duration) -> Id {
        let flow = session.flow;
        let client = match session.host {
            HostEnd::Client { port, address } => Some((port, address)),
            HostEnd::Outside(_) => None,
        };
        let id = self.sessions.insert(session);
        self.by_flow.insert(flow, id);
        if let Some(client) = client {
            self.by_client.insert(client, id);
        }
        self.sweep_at.get_or_insert(now + SWEEP_EVERY);
        id
    }

    fn remove(&mut self, id: Id) {
        let Some(session) = self.sessions.remove(id) else { return };
        self.by_flow.remove(&session.flow);
        match session.host {
            HostEnd::Client { port, address } => {
                self.by_client.remove(&(port, address));
            }
            HostEnd::Outside(_) => self.outside -= 1,
        }
    }

    /// Ends the session of a kind that was idle for longest.
    fn evict(&mut self, of_kind: impl Fn(&Session) -> bool, around: &mut Surroundings) {
        let sessions = self.sessions.iter().filter(|(_, session)| of_kind(session));
        let idlest = sessions.min_by_key(|(_, session)| session.used_at).map(|(id, _)| id);
        if let Some(id) = idlest {
            around.counters.udp_evicted += 1;
            self.remove(id);
        }
    }

    /// Ends sessions that have been idle for too long, now and then.
    pub(crate) fn expire(&mut self, now: Duration) {
        if self.sweep_at.is_none_or(|at| at > now) {
            return;
        }
        let idle: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| now.saturating_sub(session.used_at) >= SESSION_IDLE)
            .map(|(id, _)| id)
            .collect();
        idle.into_iter().for_each(|id| self.remove(id));
        self.sweep_at = (self.sessions.len() > 0).then_some(now + SWEEP_EVERY);
    }
}

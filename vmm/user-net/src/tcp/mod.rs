//! TCP: it ends here, twice. Towards the guest smoltcp speaks it, one small machine a connection; towards the host the
//! kernel does.
//!
//! smoltcp walks through all sockets of a set for each packet, so each connection has a set of its own and is found here, by
//! one hash, whatever the number of connections.

mod budget;
mod connection;
mod listen;
mod phy;

pub(crate) use listen::TcpPort;

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::tcp::State;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint, IpListenEndpoint};

use crate::counters::Counters;
use crate::endpoints::Endpoints;
use crate::flow::{Flow, Surroundings};
use crate::link::{FRAME_BYTES_MAX, Link};
use crate::reactor::{Readiness, Source};
use crate::slab::{Id, Slab};
use crate::timers::Timers;
use crate::wire::Segment;
use crate::{GATEWAY_ADDRESS, GUEST_ADDRESS, MTU_BYTES, PREFIX_LEN};
use budget::{Budget, Share};
use connection::{Connection, Fate, Machine, Owes};

/// Most connections at once, of both kinds.
pub(crate) const CONNECTIONS_MAX: usize = 2048;
/// Most of them that the guest opened, so that it cannot keep its own clients out.
pub(crate) const OUTBOUND_MAX: usize = 512;
/// When all places are taken, a new client gets that of the connection that was idle for longest, if it was for so long.
const EVICT_IDLE: Duration = Duration::from_millis(200);
/// How long an acknowledgment waits for data to go with (RFC 9293 3.8.6.3: at most 500 ms).
const ACKNOWLEDGMENT_DELAY: Duration = Duration::from_millis(10);
/// How long the guest may take to answer a SYN, or the outside one of the guest's.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The least time between two looks at a connection whose deadline has passed already.
const TICK: Duration = Duration::from_millis(1);
/// Machines kept for connections to come.
const SPARE_MACHINES: usize = 64;

/// All connections.
pub(crate) struct Tcp {
    interface: Interface,
    connections: Slab<Connection>,
    by_flow: HashMap<Flow, Id>,
    /// Those that may have something to send to the guest.
    ready: VecDeque<Id>,
    timers: Timers,
    budget: Budget,
    spare: Vec<Machine>,
    endpoints: Endpoints,
    /// No socket: what is sent to it is refused.
    nobody: SocketSet<'static>,
    outbound: usize,
}

/// smoltcp's clock.
fn instant(now: Duration) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}

/// Our clock.
fn duration(at: Instant) -> Duration {
    Duration::from_micros(at.total_micros().max(0) as u64)
}

/// The interface that all connections share: it knows addresses and capabilities, nothing of any connection.
fn interface(link: &Link, seed: u64) -> Interface {
    struct Capabilities<'a>(&'a Link);
    impl smoltcp::phy::Device for Capabilities<'_> {
        type RxToken<'t>
            = phy::PacketIn<'t>
        where
            Self: 't;
        type TxToken<'t>
            = phy::Reply<'t>
        where
            Self: 't;
        fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
            None
        }
        fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
            None
        }
        fn capabilities(&self) -> smoltcp::phy::DeviceCapabilities {
            self.0.capabilities()
        }
    }
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, &mut Capabilities(link), Instant::ZERO);
    interface.update_ip_addrs(|addresses| {
        // There is room for at least one.
        let _ = addresses.push(IpCidr::new(GATEWAY_ADDRESS.into(), PREFIX_LEN));
    });
    // Whatever address the guest connects to, or sees as its client, is here.
    interface.set_any_ip(true);
    interface
}

impl Tcp {
    /// None yet. `seed`: where initial sequence numbers begin.
    pub(crate) fn new(link: &Link, seed: u64) -> Self {
        Self {
            interface: interface(link, seed),
            connections: Slab::new(),
            by_flow: HashMap::new(),
            ready: VecDeque::new(),
            timers: Timers::default(),
            budget: Budget::default(),
            spare: Vec::new(),
            endpoints: Endpoints::default(),
            nobody: SocketSet::new(Vec::new()),
            outbound: 0,
        }
    }

    /// What the guest can cope with has changed.
    pub(crate) fn set_link(&mut self, link: &Link, seed: u64) {
        self.interface = interface(link, seed);
    }

    /// Whether all places are taken.
    fn is_full(&self) -> bool {
        self.connections.len() >= CONNECTIONS_MAX
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// When to look again.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Takes a segment in. `false`: its connection is not known.
    pub(crate) fn input(&mut self, segment: &Segment<'_>, around: &mut Surroundings) -> bool {
        let flow = Flow { guest_port: segment.guest_port, peer: segment.to };
        let Some(&id) = self.by_flow.get(&flow) else { return false };
        let Some(connection) = self.connections.get_mut(id) else { return false };
        if connection.syn.is_some() {
            // The host's side is not connected yet; the guest only repeats its SYN, or gives up.
            return true;
        }
        let mut device =
            phy::Ingress { link: &around.link, packet: Some(segment.ip), replies: &mut around.replies };
        let now = instant(around.now);
        let before = connection.machine.socket().state();
        let _ = self.interface.poll_ingress_single(now, &mut device, &mut connection.machine.sockets);
        connection.received(segment.payload_bytes, around.now);
        match connection.owes(before) {
            Owes::Now => self.list(id),
            Owes::Acknowledgment => {
                let at = around.now + ACKNOWLEDGMENT_DELAY;
                let at = connection.deadline.at().map_or(at, |deadline| deadline.min(at));
                self.timers.set(&mut connection.deadline, id, Some(at));
            }
            Owes::Nothing => {}
        }
        true
    }

    /// Answers a segment that belongs to no connection: by a reset, unless it is one (RFC 9293 3.10.7.1).
    pub(crate) fn reset(&mut self, segment: &Segment<'_>, around: &mut Surroundings) {
        let mut device =
            phy::Ingress { link: &around.link, packet: Some(segment.ip), replies: &mut around.replies };
        let now = instant(around.now);
        let _ = self.interface.poll_ingress_single(now, &mut device, &mut self.nobody);
    }

    /// A connection's socket has something to say.
    pub(crate) fn host_event(&mut self, id: Id, readiness: Readiness, around: &mut Surroundings) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.syn.is_some() {
            match connection.connect_result(readiness) {
                None => {}
                Some(Ok(())) => self.outbound_connected(id, around),
                Some(Err(error)) => {
                    tracing::debug!("{}: {error}", connection.flow);
                    self.refuse_outbound(id, around);
                }
            }
            return;
        }
        connection.host_event(readiness, around.now);
        self.list(id);
    }

    /// Looks at connections whose time has come. `false`: there was none.
    pub(crate) fn expire(&mut self, around: &mut Surroundings) -> bool {
        let mut any = false;
        while let Some(id) = self.timers.pop(around.now) {
            any = true;
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if !self.timers.is_due(&mut connection.deadline, id, around.now) {
                continue;
            }
            if connection.syn.is_some() {
                // The outside has not answered.
                self.refuse_outbound(id, around);
            } else {
                self.list(id);
            }
        }
        any
    }

    /// Puts the next segment to the guest into `frame`; returns its length.
    pub(crate) fn output(
        &mut self,
        frame: &mut [u8; FRAME_BYTES_MAX],
        around: &mut Surroundings,
    ) -> Option<usize> {
        while let Some(id) = self.ready.pop_front() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.listed = false;
            if !connection.lingers {
                let mut device = phy::Egress { link: &around.link, frame, frame_bytes: None };
                let now = instant(around.now);
                self.interface.poll_egress(now, &mut device, &mut connection.machine.sockets);
                if let Some(frame_bytes) = device.frame_bytes {
                    connection.sent();
                    // It may have more; the others come first.
                    self.list(id);
                    return Some(frame_bytes);
                }
            }
            self.settle(id, around);
        }
        None
    }

    /// A connection has nothing to send to the guest now: it ends, or waits.
    fn settle(&mut self, id: Id, around: &mut Surroundings) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.fate() == Fate::Over {
            self.remove(id, &mut around.counters);
            return;
        }
        let at = if connection.lingers {
            None
        } else {
            let at = self.interface.poll_at(instant(around.now), &connection.machine.sockets);
            at.map(|at| duration(at).max(around.now + TICK))
        };
        self.timers.set(&mut connection.deadline, id, at);
    }

    /// Puts a connection into the list of those that may have something to send.
    fn list(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.listed
        {
            connection.listed = true;
            self.ready.push_back(id);
        }
    }

    fn remove(&mut self, id: Id, counters: &mut Counters) {
        let Some(mut connection) = self.connections.remove(id) else { return };
        self.timers.forget(&mut connection.deadline, id);
        self.by_flow.remove(&connection.flow);
        if connection.is_outbound {
            self.outbound -= 1;
        }
        counters.tcp_closed += 1;
        let machine = connection.end();
        self.budget.give_back(machine.share);
        if machine.share == Share::LARGEST && self.spare.len() < SPARE_MACHINES {
            self.spare.push(machine);
        }
    }

    /// Makes room for one more connection. `false`: there is none.
    fn make_room(&mut self, around: &mut Surroundings) -> bool {
        if !self.is_full() {
            return true;
        }
        let idlest = self.connections.iter().min_by_key(|(_, connection)| connection.used_at);
        let Some((id, used_at)) = idlest.map(|(id, connection)| (id, connection.used_at)) else {
            return false;
        };
        if around.now.saturating_sub(used_at) < EVICT_IDLE {
            return false;
        }
        around.counters.tcp_evicted += 1;
        self.abort(id, around);
        true
    }

    /// Ends a connection at once, with resets on both sides.
    fn abort(&mut self, id: Id, around: &mut Surroundings) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.abort();
            let mut device = phy::Ingress { link: &around.link, packet: None, replies: &mut around.replies };
            let now = instant(around.now);
            self.interface.poll_egress(now, &mut device, &mut connection.machine.sockets);
        }
        self.remove(id, &mut around.counters);
    }

    /// A machine for a new connection.
    fn machine(&mut self) -> Machine {
        let share = self.budget.take();
        match self.spare.pop() {
            Some(machine) if share == Share::LARGEST => machine,
            // Spare ones are large; they make room for this one.
            _ => Machine::new(share),
        }
    }

    /// A client of a published port: connects to the guest for it.
    fn open_inbound(
        &mut self,
        stream: TcpStream,
        guest_port: u16,
        around: &mut Surroundings,
    ) -> std::io::Result<()> {
        let by_flow = &self.by_flow;
        let peer = self.endpoints.next(|peer| by_flow.contains_key(&Flow { guest_port, peer }));
        let Some(peer) = peer else { return Err(std::io::Error::other("no free port towards the guest")) };
        let mut machine = self.machine();
        machine.socket().set_timeout(Some(HANDSHAKE_TIMEOUT.into()));
        let guest = IpEndpoint::new(GUEST_ADDRESS.into(), guest_port);
        let local = IpListenEndpoint { addr: Some((*peer.ip()).into()), port: peer.port() };
        if let Err(error) = machine.socket().connect(self.interface.context(), guest, local) {
            self.budget.give_back(machine.share);
            return Err(std::io::Error::other(error.to_string()));
        }
        let flow = Flow { guest_port, peer };
        self.insert(Connection::inbound(flow, machine, stream, around.now), around)
    }

    /// The guest wants a connection to the outside: connects to `target` for it. The guest gets its answer when that does.
    pub(crate) fn open_outbound(
        &mut self,
        segment: &Segment<'_>,
        target: SocketAddr,
        around: &mut Surroundings,
    ) {
        let opened = if self.outbound >= OUTBOUND_MAX || !self.make_room(around) {
            Err(std::io::Error::other("too many connections"))
        } else if segment.ip.len() > MTU_BYTES {
            // It is kept until the outside answers. No stack sends so much with a SYN.
            Err(std::io::Error::other("a SYN longer than a packet"))
        } else {
            crate::host_sockets::connect(target).and_then(|stream| {
                let flow = Flow { guest_port: segment.guest_port, peer: segment.to };
                let machine = self.machine();
                let connection = Connection::outbound(flow, machine, stream, segment.ip.into(), around.now);
                self.insert(connection, around)
            })
        };
        match opened {
            Ok(()) => around.counters.tcp_outbound += 1,
            Err(error) => {
                around.counters.tcp_outbound_failed += 1;
                tracing::debug!("guest to {target}: {error}");
                self.reset(segment, around);
            }
        }
    }

    fn insert(&mut self, connection: Connection, around: &mut Surroundings) -> std::io::Result<()> {
        let (flow, is_outbound) = (connection.flow, connection.is_outbound);
        let id = self.connections.insert(connection);
        self.by_flow.insert(flow, id);
        self.outbound += usize::from(is_outbound);
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let watched = connection.watch(&around.reactor, Source::Tcp(id));
        if is_outbound {
            self.timers.set(&mut connection.deadline, id, Some(around.now + HANDSHAKE_TIMEOUT));
        }
        if let Err(error) = watched {
            self.remove(id, &mut around.counters);
            return Err(error);
        }
        if !is_outbound {
            self.list(id);
        }
        around.counters.tcp_connections_most = around.counters.tcp_connections_most.max(self.len() as u64);
        Ok(())
    }

    /// The outside has answered: the guest's SYN goes in.
    fn outbound_connected(&mut self, id: Id, around: &mut Surroundings) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(syn) = connection.syn.take() else { return };
        let peer = connection.flow.peer;
        let local = IpListenEndpoint { addr: Some((*peer.ip()).into()), port: peer.port() };
        // The machine is closed and the port is not 0.
        let _ = connection.machine.socket().listen(local);
        let mut device =
            phy::Ingress { link: &around.link, packet: Some(&syn), replies: &mut around.replies };
        let now = instant(around.now);
        let _ = self.interface.poll_ingress_single(now, &mut device, &mut connection.machine.sockets);
        if connection.machine.socket().state() == State::SynReceived {
            connection.host_event(Readiness { writable: true, ..Readiness::default() }, around.now);
            self.list(id);
        } else {
            self.abort(id, around);
        }
    }

    /// The outside does not answer, or refuses: so does the gateway.
    fn refuse_outbound(&mut self, id: Id, around: &mut Surroundings) {
        around.counters.tcp_outbound_failed += 1;
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(syn) = connection.syn.take()
        {
            let mut device =
                phy::Ingress { link: &around.link, packet: Some(&syn), replies: &mut around.replies };
            let now = instant(around.now);
            let _ = self.interface.poll_ingress_single(now, &mut device, &mut self.nobody);
            connection.abort();
        }
        self.remove(id, &mut around.counters);
    }
}

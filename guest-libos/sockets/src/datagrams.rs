//! What UDP sockets are beneath: datagrams that wait for their reader, or to leave.

use crate::address::{is_everybodys, show, unspecified};
use crate::error::Error;
use crate::receive_queue::{Chunks, ReceiveQueue};
use crate::state::Bytes;
use crate::udp::{Received, UdpOption};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem::size_of;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU8;
use core::task::Waker;
use exos_net::{Datagram, DatagramError, DatagramOptions, Instant, Local, Problem};

/// Bytes that wait for a socket's reader at most, unless it says otherwise.
const RECEIVE_BUFFER_BYTES: usize = 256 << 10;
/// Datagrams that wait for it at most, unless it says otherwise.
const RECEIVE_DATAGRAMS: usize = 1_024;
/// Bytes that wait to leave at most, unless it says otherwise.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// A UDP socket's place in the table.
pub(crate) type UdpPlace = u32;

/// A datagram that waits for its reader; its bytes are in the socket's queue.
#[derive(Debug)]
struct Arrival {
    from: SocketAddr,
    to: IpAddr,
    bytes: usize,
}

/// A datagram that waits to leave.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: SocketAddr,
    pub(crate) options: DatagramOptions,
    /// Our own sockets hear it as well.
    pub(crate) loops: bool,
    pub(crate) bytes: Bytes,
    /// When it is tried again, and when it is given up, if its next hop has been asked for.
    pub(crate) again_at: Instant,
    pub(crate) until: Instant,
}

impl Outgoing {
    pub(crate) fn len(&self) -> usize {
        exos_net::Data::len(&self.bytes)
    }

    /// What it counts for: datagrams without data take memory as well.
    pub(crate) fn cost_bytes(&self) -> usize {
        self.len() + size_of::<Self>()
    }
}

/// One socket.
#[derive(Debug)]
pub(crate) struct UdpSocketState {
    pub(crate) local: Local,
    pub(crate) port: u16,
    /// The only one that it hears and speaks to.
    pub(crate) peer: Option<SocketAddr>,
    /// The address of ours that its peer sees.
    pub(crate) source: Option<IpAddr>,
    /// The stack has been asked for `source`.
    pub(crate) source_wanted: bool,
    pub(crate) options: DatagramOptions,
    pub(crate) broadcast: bool,
    /// Groups that it hears.
    pub(crate) groups: Vec<IpAddr>,
    /// How far datagrams to groups go; `None`: over the link.
    multicast_ttl: Option<NonZeroU8>,
    /// Whether sockets of our own hear them.
    multicast_loop: bool,
    received: ReceiveQueue,
    arrivals: VecDeque<Arrival>,
    receive_buffer_bytes: usize,
    receive_datagrams: usize,
    /// Datagrams that found no room.
    pub(crate) dropped_full: u64,
    pub(crate) outgoing: VecDeque<Outgoing>,
    /// Their cost, with that of those whose next hop has been asked for.
    pub(crate) outgoing_bytes: usize,
    send_buffer_bytes: usize,
    error: Option<Error>,
    /// The stack would not have its port.
    refused: Option<Error>,
    pub(crate) problem: Option<(SocketAddr, Problem)>,
    /// Nobody holds the socket any more.
    pub(crate) closed: bool,
    dirty: bool,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl UdpSocketState {
    fn new(local: Local, port: u16) -> Self {
        Self {
            local,
            port,
            peer: None,
            source: match local {
                Local::Address(address) if !address.is_multicast() => Some(address),
                _ => None,
            },
            source_wanted: false,
            options: DatagramOptions { fragment: Some(true), ..DatagramOptions::default() },
            broadcast: false,
            groups: Vec::new(),
            multicast_ttl: None,
            multicast_loop: true,
            received: ReceiveQueue::default(),
            arrivals: VecDeque::new(),
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
            receive_datagrams: RECEIVE_DATAGRAMS,
            dropped_full: 0,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            send_buffer_bytes: SEND_BUFFER_BYTES,
            error: None,
            refused: None,
            problem: None,
            closed: false,
            dirty: false,
            reader: None,
            writer: None,
        }
    }

    pub(crate) fn set(&mut self, option: UdpOption) {
        match option {
            UdpOption::Broadcast(allowed) => self.broadcast = allowed,
            UdpOption::TimeToLive(hops) => self.options.time_to_live = Some(hops),
            UdpOption::MulticastTtl(hops) => self.multicast_ttl = Some(hops),
            UdpOption::MulticastLoop(loops) => self.multicast_loop = loops,
            UdpOption::Dscp(dscp) => self.options.dscp = dscp,
            UdpOption::Fragment(fragment) => self.options.fragment = Some(fragment),
            UdpOption::SendBuffer(bytes) => {
                self.send_buffer_bytes = bytes;
                wake(&mut self.writer);
            }
            UdpOption::ReceiveBuffer(bytes) => self.receive_buffer_bytes = bytes,
            UdpOption::ReceiveDatagrams(count) => self.receive_datagrams = count,
        }
    }

    /// Where it is, for its holder.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        let is_ipv6 = match self.peer {
            Some(peer) => peer.is_ipv6(),
            None => self.local != Local::Ipv4,
        };
        let ip = match self.local {
            Local::Address(address) => address,
            _ => self.source.unwrap_or(unspecified(is_ipv6)),
        };
        show(SocketAddr::new(ip, self.port))
    }

    pub(crate) fn has_arrivals(&self) -> bool {
        !self.arrivals.is_empty()
    }

    /// Whether a read would return at once.
    pub(crate) fn is_readable(&self) -> bool {
        self.has_arrivals() || self.error.is_some() || self.refused.is_some()
    }

    /// Whether a datagram of `len` bytes may wait to leave with those that do. One may always.
    pub(crate) fn has_send_room(&self, len: usize) -> bool {
        self.outgoing_bytes == 0
            || self.outgoing_bytes + len + size_of::<Outgoing>() <= self.send_buffer_bytes
    }

    pub(crate) fn push(&mut self, to: SocketAddr, bytes: &[u8]) {
        let is_group = to.ip().is_multicast();
        let time_to_live = if is_group { self.multicast_ttl } else { self.options.time_to_live };
        let options = DatagramOptions { source: self.source, time_to_live, ..self.options };
        let outgoing = Outgoing {
            to,
            options,
            loops: is_group && self.multicast_loop,
            bytes: Bytes::new(bytes.to_vec()),
            again_at: Instant::ZERO,
            until: Instant::ZERO,
        };
        self.outgoing_bytes += outgoing.cost_bytes();
        self.outgoing.push_back(outgoing);
    }

    /// A datagram has left, or never will.
    pub(crate) fn is_rid_of(&mut self, outgoing: &Outgoing) {
        self.outgoing_bytes -= outgoing.cost_bytes();
        wake(&mut self.writer);
    }

    /// Says it with the next call, once.
    pub(crate) fn fail(&mut self, error: Error) {
        self.error = Some(error);
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.error.take().or(self.refused)
    }

    /// The port is not its own: says so with every call.
    pub(crate) fn refuse(&mut self, error: Error) {
        self.refused = Some(error);
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    pub(crate) const fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    fn hears(&self, from: SocketAddr) -> bool {
        self.peer.is_none_or(|peer| peer == from)
    }

    fn is_in(&self, group: IpAddr) -> bool {
        self.groups.contains(&group) || is_everybodys(group)
    }

    fn receive(&mut self, datagram: &Datagram<'_>, chunks: &mut Chunks) -> bool {
        let bytes = datagram.payload.len();
        let waiting = self.received.len() + self.arrivals.len() * size_of::<Arrival>();
        if self.arrivals.len() >= self.receive_datagrams
            || waiting + bytes + size_of::<Arrival>() > self.receive_buffer_bytes
        {
            self.dropped_full += 1;
            return false;
        }
        self.received.push(&datagram.payload, chunks);
        self.arrivals.push_back(Arrival { from: datagram.from, to: datagram.to.ip(), bytes });
        wake(&mut self.reader);
        true
    }
}

/// What UDP sockets have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpCounters {
    /// Datagrams that found no room in a socket's buffer.
    pub dropped_full: u64,
    /// Datagrams from others than the one that a socket is connected to.
    pub dropped_not_peer: u64,
    /// Datagrams to groups that others of our sockets have joined, and the one at the port has not.
    pub dropped_not_member: u64,
    /// Datagrams of ours whose next hop nobody knows, or that no driver took for a while.
    pub dropped_unsent: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    sockets: Vec<Option<UdpSocketState>>,
    free: Vec<UdpPlace>,
    /// Who is at which port, in the order of the ports.
    ports: Vec<(u16, UdpPlace)>,
    /// Sockets with wishes, each once.
    dirty: VecDeque<UdpPlace>,
    /// Datagrams that wait for their next hop's Ethernet address, oldest first.
    pub(crate) unresolved: VecDeque<(UdpPlace, Outgoing)>,
    /// Sockets that met a full driver, and when it is tried again.
    blocked: Vec<UdpPlace>,
    blocked_until: Instant,
    /// Groups that sockets have joined, each with how many.
    groups: Vec<(IpAddr, u32)>,
    pub(crate) counters: UdpCounters,
}

impl Datagrams {
    pub(crate) fn socket(&mut self, place: UdpPlace) -> &mut UdpSocketState {
        match self.sockets.get_mut(place as usize) {
            Some(Some(socket)) => socket,
            _ => unreachable!("a socket's place is free while somebody holds it"),
        }
    }

    fn at(&self, port: u16) -> impl Iterator<Item = UdpPlace> + '_ {
        let from = self.ports.partition_point(|&(other, _)| other < port);
        self.ports[from..].iter().take_while(move |&&(other, _)| other == port).map(|&(_, place)| place)
    }

    /// Who is at a port at one of these addresses.
    pub(crate) fn find(&self, port: u16, is_meant: impl Fn(Local) -> bool) -> Option<UdpPlace> {
        self.at(port).find(|&place| {
            let socket = self.sockets.get(place as usize).and_then(Option::as_ref);
            socket.is_some_and(|socket| is_meant(socket.local))
        })
    }

    pub(crate) fn insert(&mut self, local: Local, port: u16) -> UdpPlace {
        let socket = Some(UdpSocketState::new(local, port));
        let place = match self.free.pop() {
            Some(place) => {
                self.sockets[place as usize] = socket;
                place
            }
            None => {
                self.sockets.push(socket);
                (self.sockets.len() - 1) as UdpPlace
            }
        };
        let at = self.ports.partition_point(|&(other, _)| other <= port);
        self.ports.insert(at, (port, place));
        place
    }

    /// Nobody holds the socket, and nothing of it waits to leave.
    pub(crate) fn remove(&mut self, place: UdpPlace) -> (Local, u16) {
        let socket = self.socket(place);
        let was = (socket.local, socket.port);
        self.ports.retain(|&(_, other)| other != place);
        self.dirty.retain(|&other| other != place);
        self.unresolved.retain(|&(other, _)| other != place);
        self.blocked.retain(|&other| other != place);
        self.sockets[place as usize] = None;
        self.free.push(place);
        was
    }

    /// Sockets that somebody holds, or that have something to send.
    pub(crate) fn len(&self) -> usize {
        self.ports.len()
    }

    pub(crate) fn mark_dirty(&mut self, place: UdpPlace) {
        if !core::mem::replace(&mut self.socket(place).dirty, true) {
            self.dirty.push_back(place);
        }
    }

    pub(crate) fn next_dirty(&mut self) -> Option<UdpPlace> {
        let place = self.dirty.pop_front()?;
        self.socket(place).dirty = false;
        Some(place)
    }

    pub(crate) fn has_wishes(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The next datagram that is to leave.
    pub(crate) fn next_outgoing(&mut self, place: UdpPlace) -> Option<Outgoing> {
        // It may have been closed with the last one.
        self.sockets.get_mut(place as usize)?.as_mut()?.outgoing.pop_front()
    }

    /// The driver was full for this datagram.
    pub(crate) fn block(&mut self, place: UdpPlace, outgoing: Outgoing, until: Instant) {
        self.socket(place).outgoing.push_front(outgoing);
        self.blocked.push(place);
        self.blocked_until = until;
    }

    pub(crate) fn retry_blocked(&mut self) {
        for place in core::mem::take(&mut self.blocked) {
            self.mark_dirty(place);
        }
    }

    /// When there is something to be tried again.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let unresolved = self.unresolved.iter().map(|(_, outgoing)| outgoing.again_at);
        unresolved.chain((!self.blocked.is_empty()).then_some(self.blocked_until)).min()
    }

    /// A datagram came to a port of ours. Answers whether somebody is there.
    pub(crate) fn arrives(&mut self, datagram: &Datagram<'_>, chunks: &mut Chunks) -> bool {
        let (ip, port) = (datagram.to.ip(), datagram.to.port());
        let Some(place) = self.find(port, |local| local.contains(ip)) else { return false };
        let socket = self.socket(place);
        if socket.closed {
            return false;
        }
        if ip.is_multicast() && !socket.is_in(ip) {
            self.counters.dropped_not_member += 1;
        } else if !socket.hears(datagram.from) {
            self.counters.dropped_not_peer += 1;
        } else if !socket.receive(datagram, chunks) {
            self.counters.dropped_full += 1;
        }
        true
    }

    /// The socket joins a group. Answers whether it is the first.
    pub(crate) fn join(&mut self, place: UdpPlace, group: IpAddr, max: usize) -> Result<bool, Error> {
        if self.socket(place).groups.contains(&group) {
            return Err(Error::AddressInUse);
        }
        let of_family = self.groups.iter().filter(|(other, _)| other.is_ipv4() == group.is_ipv4()).count();
        let known = self.groups.iter_mut().find(|(other, _)| *other == group);
        let is_first = known.is_none();
        match known {
            Some((_, users)) => *users += 1,
            None if of_family >= max => return Err(Error::TooMany),
            None => self.groups.push((group, 1)),
        }
        self.socket(place).groups.push(group);
        Ok(is_first)
    }

    /// The socket leaves a group, or was never in it. Answers whether it was the last.
    pub(crate) fn leave(&mut self, place: UdpPlace, group: IpAddr) -> Result<bool, Error> {
        let groups = &mut self.socket(place).groups;
        let at = groups.iter().position(|other| *other == group).ok_or(Error::AddressNotAvailable)?;
        groups.swap_remove(at);
        Ok(self.release(group))
    }

    /// One socket less is in a group. Answers whether it was the last.
    pub(crate) fn release(&mut self, group: IpAddr) -> bool {
        let Some(at) = self.groups.iter().position(|(other, _)| *other == group) else { return false };
        self.groups[at].1 -= 1;
        let is_last = self.groups[at].1 == 0;
        if is_last {
            self.groups.swap_remove(at);
        }
        is_last
    }

    /// The stack would not join a group: nobody is in it, and those who were to be hear why.
    pub(crate) fn join_failed(&mut self, group: IpAddr, error: Error) {
        self.groups.retain(|&(other, _)| other != group);
        for socket in self.sockets.iter_mut().flatten() {
            if let Some(at) = socket.groups.iter().position(|other| *other == group) {
                socket.groups.swap_remove(at);
                socket.fail(error);
            }
        }
    }

    /// RFC 1122 4.1.3.3: an ICMP error about a datagram of ours. What anybody can make up is an error of the socket only if it
    /// is connected to who it is about, and says that nobody is there; everything else is there for who asks.
    pub(crate) fn problem_arrives(&mut self, error: &DatagramError) {
        let Some(place) = self.find(error.port, |local| local.contains(error.from)) else { return };
        let socket = self.socket(place);
        socket.problem = Some((show(error.to), error.problem));
        let nobody_there = matches!(error.problem, Problem::PortUnreachable | Problem::ProtocolUnreachable);
        if nobody_there && socket.peer == Some(error.to) {
            socket.fail(Error::Refused);
        }
    }

    /// Copies the next datagram out, as far as it fits.
    pub(crate) fn read(&mut self, place: UdpPlace, out: &mut [u8], chunks: &mut Chunks) -> Option<Received> {
        let received = self.peek(place, out)?;
        let socket = self.socket(place);
        socket.received.skip(received.datagram_bytes, chunks);
        socket.arrivals.pop_front();
        Some(received)
    }

    /// The same, and it stays.
    pub(crate) fn peek(&mut self, place: UdpPlace, out: &mut [u8]) -> Option<Received> {
        let socket = self.socket(place);
        let arrival = socket.arrivals.front()?;
        let len = arrival.bytes.min(out.len());
        socket.received.peek(&mut out[..len]);
        let (from, to) = (show(arrival.from), show(SocketAddr::new(arrival.to, socket.port)));
        Some(Received { len, datagram_bytes: arrival.bytes, from, to })
    }
}

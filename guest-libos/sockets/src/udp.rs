//! UDP sockets.

use crate::address::parse;
use crate::datagrams::{UdpCounters, UdpPlace};
use crate::error::Error;
use crate::state::{PortWish, Sockets, State};
use crate::tcp::keep;
use core::future::poll_fn;
use core::net::SocketAddr;
use core::num::NonZeroU8;
use core::task::{Context, Poll};
use exos_net::{Dscp, Local, Problem};

/// The largest datagram's data: what IPv4's total length leaves, and one that both families take.
pub const MAX_DATAGRAM_BYTES: usize = 65_535 - 20 - 8;

/// One choice for a UDP socket. Sockets begin without broadcasts, with fragments, and with the stack's time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpOption {
    /// Whether datagrams may go to everybody on the link (SO_BROADCAST).
    Broadcast(bool),
    /// IP_TTL, IPV6_UNICAST_HOPS.
    TimeToLive(NonZeroU8),
    /// How many links datagrams to groups cross: one, unless it is said otherwise (IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS).
    MulticastTtl(NonZeroU8),
    /// Whether our own sockets that are in the group hear them as well: they do, unless it is said otherwise
    /// (IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP).
    MulticastLoop(bool),
    /// IP_TOS's and IPV6_TCLASS's codepoint.
    Dscp(Dscp),
    /// Whether datagrams that are larger than their path takes go in fragments (IP_MTU_DISCOVER, IPV6_DONTFRAG); else they are
    /// errors.
    Fragment(bool),
    /// Bytes that wait to leave before a writer waits (SO_SNDBUF). One datagram of any size may.
    SendBuffer(usize),
    /// Bytes that wait for the reader, some for each datagram among them, before what arrives is dropped (SO_RCVBUF).
    ReceiveBuffer(usize),
    /// Datagrams that wait for the reader before what arrives is dropped.
    ReceiveDatagrams(usize),
}

/// A datagram that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes that were copied out.
    pub len: usize,
    /// Bytes that it had. If these are more, the others are lost.
    pub datagram_bytes: usize,
    /// Who sent it. Nothing proves that.
    pub from: SocketAddr,
    /// Where to: an address of ours or everybody's (IP_PKTINFO), and our port.
    pub to: SocketAddr,
}

/// A UDP port at all or some of our addresses. Dropping it closes the port; what was sent still leaves.
#[derive(Debug)]
pub struct UdpSocket {
    pub(crate) sockets: Sockets,
    pub(crate) place: UdpPlace,
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.sockets.state().close_udp(self.place);
    }
}

impl Sockets {
    /// Binds a port at the addresses that a socket of other systems would have: 0.0.0.0 is all of IPv4's, `::` is all of both
    /// families'. Port 0 is any that is free (RFC 6056 3.3.1).
    pub fn bind_udp(&self, local: SocketAddr) -> Result<UdpSocket, Error> {
        let local = parse(local)?;
        self.bind_udp_at(local.ip().into(), local.port())
    }

    /// The same at addresses that are said otherwise: all of IPv6's only, say.
    pub fn bind_udp_at(&self, local: Local, port: u16) -> Result<UdpSocket, Error> {
        let place = self.state().bind_udp(local, port)?;
        Ok(UdpSocket { sockets: self.clone(), place })
    }

    /// A socket at any free port that hears and speaks to `peer` only.
    pub fn connect_udp(&self, peer: SocketAddr) -> Result<UdpSocket, Error> {
        let local = if parse(peer)?.is_ipv6() { Local::Ipv6 } else { Local::Ipv4 };
        let mut socket = self.bind_udp_at(local, 0)?;
        socket.connect(peer)?;
        Ok(socket)
    }

    /// What all UDP sockets together have counted.
    pub fn udp_counters(&self) -> UdpCounters {
        self.state().udp.counters
    }

    /// UDP sockets that exist, those included that nobody holds and that have something to send still.
    pub fn udp_sockets(&self) -> usize {
        self.state().udp.len()
    }
}

impl UdpSocket {
    /// Hears and speaks to `peer` only from now on. Datagrams that wait for the reader stay, whoever they are from. That nobody
    /// is at the peer's port is an error of the next call (RFC 1122 4.1.3.3).
    pub fn connect(&mut self, peer: SocketAddr) -> Result<(), Error> {
        self.sockets.state().connect_udp(self.place, peer)
    }

    /// Hears everybody again.
    pub fn disconnect(&mut self) {
        let mut state = self.sockets.state();
        let socket = state.udp.socket(self.place);
        socket.peer = None;
        if !matches!(socket.local, Local::Address(_)) {
            (socket.source, socket.source_wanted) = (None, false);
        }
    }

    /// Our end; the address is unspecified where the socket has several.
    pub fn local_addr(&self) -> SocketAddr {
        self.sockets.state().udp.socket(self.place).local_addr()
    }

    /// The only one that the socket hears.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.sockets.state().udp.socket(self.place).peer.map(crate::address::show)
    }

    /// Chooses something, for datagrams that are sent or arrive from now on.
    pub fn set(&mut self, option: UdpOption) {
        self.sockets.state().udp.socket(self.place).set(option);
    }

    /// The error that the next call would return, which it then does not (SO_ERROR).
    pub fn take_error(&mut self) -> Option<Error> {
        self.sockets.state().udp.socket(self.place).take_error()
    }

    /// The last that an ICMP error said of a datagram of this socket's, and whom that was sent to. Anybody can make it up.
    pub fn take_problem(&mut self) -> Option<(SocketAddr, Problem)> {
        self.sockets.state().udp.socket(self.place).problem.take()
    }

    /// Datagrams that arrived and found no room.
    pub fn dropped(&self) -> u64 {
        self.sockets.state().udp.socket(self.place).dropped_full
    }

    /// Sends a datagram to the peer; waits while too many bytes wait to leave. Returns its length.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        send(&self.sockets, self.place, None, bytes).await
    }

    /// Sends a datagram to `to`, and to nobody else if the socket is connected.
    pub async fn send_to(&mut self, bytes: &[u8], to: SocketAddr) -> Result<usize, Error> {
        send(&self.sockets, self.place, Some(to), bytes).await
    }

    /// [`Self::send`] if it need not wait.
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        self.sockets.state().send_udp(self.place, None, bytes)
    }

    /// [`Self::send_to`] if it need not wait.
    pub fn try_send_to(&mut self, bytes: &[u8], to: SocketAddr) -> Result<Option<usize>, Error> {
        self.sockets.state().send_udp(self.place, Some(to), bytes)
    }

    /// Reads the next datagram: what does not fit is lost. Cancelling loses nothing.
    pub async fn recv(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        Ok(self.receive(out).await?.len)
    }

    /// The same, with who sent it.
    pub async fn recv_from(&mut self, out: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        let received = self.receive(out).await?;
        Ok((received.len, received.from))
    }

    /// The same, with all that is known of it.
    pub async fn receive(&mut self, out: &mut [u8]) -> Result<Received, Error> {
        receive(&self.sockets, self.place, out).await
    }

    /// [`Self::receive`] if something has arrived.
    pub fn try_receive(&mut self, out: &mut [u8]) -> Result<Option<Received>, Error> {
        self.sockets.state().receive_udp(self.place, out)
    }

    /// Copies the next datagram as far as it fits, and leaves it (MSG_PEEK).
    pub async fn peek(&mut self, out: &mut [u8]) -> Result<Received, Error> {
        self.readable().await?;
        let peeked = self.try_peek(out)?;
        peeked.ok_or(Error::NotConnected)
    }

    /// The same if something has arrived.
    pub fn try_peek(&mut self, out: &mut [u8]) -> Result<Option<Received>, Error> {
        let mut state = self.sockets.state();
        match state.udp.socket(self.place).take_error() {
            Some(error) => Err(error),
            None => Ok(state.udp.peek(self.place, out)),
        }
    }

    /// Waits until a read would not.
    pub async fn readable(&mut self) -> Result<(), Error> {
        readable(&self.sockets, self.place).await
    }

    /// Whether a read would return at once.
    pub fn is_readable(&self) -> bool {
        self.sockets.state().udp.socket(self.place).is_readable()
    }

    /// Whether a datagram of so many bytes would be taken at once.
    pub fn is_writable(&self, bytes: usize) -> bool {
        self.sockets.state().udp.socket(self.place).has_send_room(bytes)
    }

    /// Two halves for two tasks.
    pub fn split(&mut self) -> (UdpReceiveHalf<'_>, UdpSendHalf<'_>) {
        let (sockets, place) = (&self.sockets, self.place);
        (UdpReceiveHalf { sockets, place }, UdpSendHalf { sockets, place })
    }
}

/// The reading half of a socket.
#[derive(Debug)]
pub struct UdpReceiveHalf<'s> {
    pub(crate) sockets: &'s Sockets,
    pub(crate) place: UdpPlace,
}

impl UdpReceiveHalf<'_> {
    /// See [`UdpSocket::receive`].
    pub async fn receive(&mut self, out: &mut [u8]) -> Result<Received, Error> {
        receive(self.sockets, self.place, out).await
    }

    /// See [`UdpSocket::readable`].
    pub async fn readable(&mut self) -> Result<(), Error> {
        readable(self.sockets, self.place).await
    }
}

/// The writing half of a socket.
#[derive(Debug)]
pub struct UdpSendHalf<'s> {
    pub(crate) sockets: &'s Sockets,
    pub(crate) place: UdpPlace,
}

impl UdpSendHalf<'_> {
    /// See [`UdpSocket::send`].
    pub async fn send(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        send(self.sockets, self.place, None, bytes).await
    }

    /// See [`UdpSocket::send_to`].
    pub async fn send_to(&mut self, bytes: &[u8], to: SocketAddr) -> Result<usize, Error> {
        send(self.sockets, self.place, Some(to), bytes).await
    }
}

async fn readable(sockets: &Sockets, place: UdpPlace) -> Result<(), Error> {
    poll_fn(|context| {
        let mut state = sockets.state();
        let socket = state.udp.socket(place);
        if socket.is_readable() {
            return Poll::Ready(Ok(()));
        }
        keep(&mut socket.reader, context);
        Poll::Pending
    })
    .await
}

async fn receive(sockets: &Sockets, place: UdpPlace, out: &mut [u8]) -> Result<Received, Error> {
    poll_fn(|context: &mut Context<'_>| {
        let mut state = sockets.state();
        let received = state.receive_udp(place, out).transpose();
        if received.is_none() {
            keep(&mut state.udp.socket(place).reader, context);
        }
        received.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

async fn send(
    sockets: &Sockets,
    place: UdpPlace,
    to: Option<SocketAddr>,
    bytes: &[u8],
) -> Result<usize, Error> {
    poll_fn(|context| {
        let mut state = sockets.state();
        let sent = state.send_udp(place, to, bytes).transpose();
        if sent.is_none() {
            keep(&mut state.udp.socket(place).writer, context);
        }
        sent.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Whether datagrams from `local` can go to an address of this family.
fn speaks(local: Local, to: &SocketAddr) -> bool {
    match local {
        Local::Any => true,
        Local::Ipv4 => to.is_ipv4(),
        Local::Ipv6 => to.is_ipv6(),
        Local::Address(address) => address.is_ipv4() == to.is_ipv4(),
    }
}

impl State {
    pub(crate) fn bind_udp(&mut self, local: Local, port: u16) -> Result<UdpPlace, Error> {
        // Who binds a group hears nothing but that.
        if let Local::Address(address) = local
            && !self.link.has(address)
            && !address.is_multicast()
        {
            return Err(Error::AddressNotAvailable);
        }
        // What the one before still had to say is lost.
        let left = self.udp.find(port, |other| other.overlaps(local));
        if let Some(place) = left.filter(|&place| self.udp.socket(place).closed) {
            self.remove_udp(place);
        }
        if self.udp.len() >= self.link.max_udp_ports() {
            return Err(Error::TooMany);
        }
        let udp = &self.udp;
        let is_free = |port| udp.find(port, |other| other.overlaps(local)).is_none();
        let port = match port {
            0 => self.random.port(self.link.ephemeral_ports(), is_free).ok_or(Error::TooMany)?,
            port if is_free(port) => port,
            _ => return Err(Error::AddressInUse),
        };
        let place = self.udp.insert(local, port);
        self.ports.push_back(PortWish::BindUdp(place, local, port));
        Ok(place)
    }

    pub(crate) fn connect_udp(&mut self, place: UdpPlace, peer: SocketAddr) -> Result<(), Error> {
        let peer = parse(peer)?;
        let socket = self.udp.socket(place);
        if !speaks(socket.local, &peer) || peer.port() == 0 || peer.ip().is_unspecified() {
            return Err(Error::AddressNotAvailable);
        }
        if !socket.broadcast && self.link.is_broadcast(peer.ip()) {
            return Err(Error::BroadcastNotAllowed);
        }
        socket.peer = Some(peer);
        if !matches!(socket.local, Local::Address(_)) {
            (socket.source, socket.source_wanted) = (None, true);
            self.udp.mark_dirty(place);
        }
        Ok(())
    }

    /// Takes a datagram that is to be sent, if there is room; returns its length.
    pub(crate) fn send_udp(
        &mut self,
        place: UdpPlace,
        to: Option<SocketAddr>,
        bytes: &[u8],
    ) -> Result<Option<usize>, Error> {
        let socket = self.udp.socket(place);
        if let Some(error) = socket.take_error() {
            return Err(error);
        }
        let to = match (socket.peer, to) {
            (Some(peer), Some(to)) if peer != parse(to)? => return Err(Error::AddressNotAvailable),
            (Some(peer), _) => peer,
            (None, Some(to)) => parse(to)?,
            (None, None) => return Err(Error::NotConnected),
        };
        if to.port() == 0 || !speaks(socket.local, &to) {
            return Err(Error::AddressNotAvailable);
        }
        if !socket.broadcast && self.link.is_broadcast(to.ip()) {
            return Err(Error::BroadcastNotAllowed);
        }
        let most = if socket.options.fragment == Some(false) {
            self.link.largest_whole(to.ip())
        } else {
            MAX_DATAGRAM_BYTES
        };
        if bytes.len() > most {
            return Err(Error::TooLarge);
        }
        if !socket.has_send_room(bytes.len()) {
            return Ok(None);
        }
        socket.push(to, bytes);
        self.udp.mark_dirty(place);
        Ok(Some(bytes.len()))
    }

    pub(crate) fn receive_udp(&mut self, place: UdpPlace, out: &mut [u8]) -> Result<Option<Received>, Error> {
        match self.udp.socket(place).take_error() {
            Some(error) => Err(error),
            None => Ok(self.udp.read(place, out, &mut self.chunks)),
        }
    }

    /// Nobody holds the socket any more.
    pub(crate) fn close_udp(&mut self, place: UdpPlace) {
        let socket = self.udp.socket(place);
        socket.closed = true;
        (socket.reader, socket.writer) = (None, None);
        self.leave_all(place);
        if self.udp.socket(place).outgoing_bytes == 0 {
            self.remove_udp(place);
        }
    }

    pub(crate) fn remove_udp(&mut self, place: UdpPlace) {
        let is_refused = self.udp.socket(place).is_refused();
        let (local, port) = self.udp.remove(place);
        // One that was refused, or never asked for, is somebody else's.
        if !self.take_back(PortWish::BindUdp(place, local, port)) && !is_refused {
            self.ports.push_back(PortWish::UnbindUdp(local, port));
        }
    }
}

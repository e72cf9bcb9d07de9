//! UDP sockets' wishes to the stack: ports, and datagrams that leave, wait for their next hop, or never will.

use super::Endpoint;
use crate::address::{show, stays_here, unspecified};
use crate::datagrams::{Outgoing, UdpPlace};
use crate::error::Error;
use crate::state::{Bytes, State};
use alloc::borrow::Cow;
use core::net::{IpAddr, SocketAddr};
use exos_net::{
    BindError, Data, Datagram, Duration, Instant, JoinError, Local, Problem, SendDatagramError, Stack,
    Transmit,
};

/// How long a datagram waits for its next hop's Ethernet address: as long as the stack asks three times (RFC 1122 2.3.2.2).
const UNRESOLVED_MAX: Duration = Duration::from_secs(3);
/// How long after a question the next one may be asked.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How long after it was full a driver is tried again.
const FULL_WAIT: Duration = Duration::from_millis(1);

/// What became of a datagram.
enum Sent {
    /// It left, or never will: why.
    Done(Option<(Problem, Error)>),
    /// Its next hop has been asked for.
    Unresolved,
    /// The driver is full.
    Full,
}

fn send<T: Transmit<Bytes>>(
    stack: &mut Stack<Bytes>,
    now: Instant,
    port: u16,
    outgoing: &Outgoing,
    tx: &mut T,
) -> Sent {
    let bytes = outgoing.bytes.clone();
    match stack.send_udp_with(now, port, outgoing.to, &outgoing.options, bytes, tx) {
        Ok(()) => Sent::Done(None),
        Err(SendDatagramError::Unresolved) => Sent::Unresolved,
        Err(SendDatagramError::Full) => Sent::Full,
        Err(SendDatagramError::TooLarge { .. }) => {
            Sent::Done(Some((Problem::FragmentationNeeded, Error::TooLarge)))
        }
        // The socket has a port of the stack's and checked the receiver's, so these are about the way there.
        Err(
            SendDatagramError::NoAddress
            | SendDatagramError::NoRoute
            | SendDatagramError::PortZero
            | SendDatagramError::NotBound,
        ) => Sent::Done(Some((Problem::NetworkUnreachable, Error::Unreachable))),
    }
}

impl State {
    pub(crate) fn datagram_arrives(&mut self, datagram: &Datagram<'_>) {
        self.udp.arrives(datagram, &mut self.chunks);
    }

    /// A datagram of a socket's is for sockets of our own, too. Answers whether somebody is there.
    fn arrives_here(&mut self, stack: &Stack<Bytes>, now: Instant, port: u16, outgoing: &Outgoing) -> bool {
        let to = outgoing.to;
        let source = outgoing.options.source.or_else(|| match to.ip() {
            ip if !ip.is_multicast() => Some(ip),
            IpAddr::V4(_) => stack.address().map(IpAddr::V4),
            IpAddr::V6(group) => stack.ipv6_source_for(group, now).map(IpAddr::V6),
        });
        let from = SocketAddr::new(source.unwrap_or(unspecified(to.is_ipv6())), port);
        let payload = Cow::Borrowed(outgoing.bytes.bytes());
        self.udp.arrives(&Datagram { from, to, payload }, &mut self.chunks)
    }

    /// Sends a datagram over the link, to our own sockets, or both.
    fn send<T: Transmit<Bytes>>(
        &mut self,
        stack: &mut Stack<Bytes>,
        now: Instant,
        port: u16,
        outgoing: &Outgoing,
        tx: &mut T,
    ) -> Sent {
        let to = outgoing.to.ip();
        if self.link.has(to) {
            let is_there = self.arrives_here(stack, now, port, outgoing);
            return Sent::Done((!is_there).then_some((Problem::PortUnreachable, Error::Refused)));
        }
        let sent = if stays_here(to) { Sent::Done(None) } else { send(stack, now, port, outgoing, tx) };
        if outgoing.loops && matches!(sent, Sent::Done(None)) {
            self.arrives_here(stack, now, port, outgoing);
        }
        sent
    }

    /// A datagram of a socket has left, or never will. Why not is an error of the socket if it is connected; who speaks to many
    /// is not to fail for one of them, whose address may be made up.
    fn datagram_done(&mut self, place: UdpPlace, outgoing: &Outgoing, problem: Option<(Problem, Error)>) {
        let socket = self.udp.socket(place);
        socket.is_rid_of(outgoing);
        if let Some((problem, error)) = problem {
            socket.problem = Some((show(outgoing.to), problem));
            if socket.peer == Some(outgoing.to) {
                socket.fail(error);
            }
        }
        if socket.closed && socket.outgoing_bytes == 0 {
            self.remove_udp(place);
        }
        // Nobody at a port of our own: it did arrive.
        let is_lost = problem.is_some_and(|(problem, _)| problem != Problem::PortUnreachable);
        self.udp.counters.dropped_unsent += u64::from(is_lost);
    }
}

impl Endpoint {
    pub(super) fn bind_udp(&mut self, place: UdpPlace, local: Local, port: u16) {
        if let Err(error) = self.stack.bind_udp_at(local, port) {
            // Somebody beside the sockets has it.
            self.sockets.state().udp.socket(place).refuse(match error {
                BindError::TooMany => Error::TooMany,
                BindError::InUse => Error::AddressInUse,
                BindError::PortZero => Error::AddressNotAvailable,
            });
        }
    }

    pub(super) fn join(&mut self, group: IpAddr, now: Instant) {
        if let Err(error) = self.stack.join_group(now, group) {
            self.sockets.state().udp.join_failed(
                group,
                match error {
                    // Somebody beside the sockets has joined too many.
                    JoinError::TooMany => Error::TooMany,
                    JoinError::NotAGroup | JoinError::NoIpv6 => Error::AddressNotAvailable,
                },
            );
        }
    }

    /// Sends what can be sent.
    pub(super) fn send_datagrams<T: Transmit<Bytes>>(&mut self, now: Instant, tx: &mut T) {
        self.retry_unresolved(now, tx);
        self.sockets.state().udp.retry_blocked();
        loop {
            let Some(place) = self.sockets.state().udp.next_dirty() else { return };
            self.send_datagrams_of(place, now, tx);
        }
    }

    fn send_datagrams_of<T: Transmit<Bytes>>(&mut self, place: UdpPlace, now: Instant, tx: &mut T) {
        let mut state = self.sockets.state();
        let peer = state.udp.socket(place).peer.map(|peer| peer.ip());
        let here = peer.filter(|&peer| state.link.has(peer));
        let socket = state.udp.socket(place);
        if core::mem::take(&mut socket.source_wanted) {
            socket.source = here.or_else(|| match peer? {
                IpAddr::V4(_) => self.stack.address().map(IpAddr::V4),
                IpAddr::V6(peer) => self.stack.ipv6_source_for(peer, now).map(IpAddr::V6),
            });
        }
        let port = socket.port;
        while let Some(mut outgoing) = state.udp.next_outgoing(place) {
            match state.send(&mut self.stack, now, port, &outgoing, tx) {
                Sent::Done(problem) => state.datagram_done(place, &outgoing, problem),
                Sent::Unresolved => {
                    outgoing.until = now + UNRESOLVED_MAX;
                    outgoing.again_at = now + ASK_INTERVAL;
                    state.udp.unresolved.push_back((place, outgoing));
                }
                Sent::Full => return state.udp.block(place, outgoing, now + FULL_WAIT),
            }
        }
    }

    /// Datagrams that wait for their next hop: it may have answered.
    fn retry_unresolved<T: Transmit<Bytes>>(&mut self, now: Instant, tx: &mut T) {
        let heard = core::mem::take(&mut self.heard);
        let mut state = self.sockets.state();
        let waiting = core::mem::take(&mut state.udp.unresolved);
        for (place, mut outgoing) in waiting {
            if !heard && outgoing.again_at > now {
                state.udp.unresolved.push_back((place, outgoing));
                continue;
            }
            let port = state.udp.socket(place).port;
            match state.send(&mut self.stack, now, port, &outgoing, tx) {
                Sent::Done(problem) => state.datagram_done(place, &outgoing, problem),
                Sent::Unresolved | Sent::Full if outgoing.until <= now => {
                    let problem = (Problem::HostUnreachable, Error::Unreachable);
                    state.datagram_done(place, &outgoing, Some(problem));
                }
                Sent::Unresolved | Sent::Full => {
                    outgoing.again_at = outgoing.until.min(now + ASK_INTERVAL);
                    state.udp.unresolved.push_back((place, outgoing));
                }
            }
        }
    }
}

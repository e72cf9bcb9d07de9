//! Streams between sockets of this machine. Nothing of them is a segment: what one end has written goes to the other's buffer as
//! far as there is room, so there is no window, no timer and no loss, and no frame leaves.

use crate::error::Error;
use crate::state::{Listener, Phase, Place, State, Stream};
use alloc::vec::Vec;
use core::net::SocketAddr;

impl Stream {
    /// Gives back the memory of what the other end has: no more is moved for it than was handed over.
    fn forget_handed_over(&mut self) {
        if self.handed_over == self.outgoing.len() {
            (self.outgoing, self.handed_over) = (Vec::new(), 0);
        } else if self.handed_over >= self.outgoing.len() / 2 {
            self.outgoing.drain(..self.handed_over);
            self.handed_over = 0;
        }
    }
}

impl State {
    /// A stream wants to be connected to an address of ours.
    pub(crate) fn connect_here(&mut self, place: Place, remote: SocketAddr) {
        let (ip, port) = (remote.ip(), remote.port());
        let is_meant = |local: exos_net::Local| local.contains(ip);
        // Who was refused the port has nobody's streams.
        let listens = |other: &Listener| other.port == port && is_meant(other.local) && other.error.is_none();
        let Some(at) = self.listeners.iter().position(listens) else {
            return self.end(place, Some(Error::Refused));
        };
        if self.listeners[at].ready.len() >= self.listeners[at].backlog {
            return self.end(place, Some(Error::Reset));
        }
        let taken: Vec<_> = self.ends_here().filter(|end| end.ip() == ip).collect();
        let is_free = |port| !taken.iter().any(|end| end.port() == port) && port != remote.port();
        let Some(port) = self.random.port(self.link.ephemeral_ports(), is_free) else {
            return self.end(place, Some(Error::TooMany));
        };
        let local = SocketAddr::new(ip, port);
        let mut accepted = Stream::new(Phase::Open, local);
        (accepted.local, accepted.twin) = (Some(remote), Some(place));
        let twin = self.insert(accepted);
        let stream = self.stream(place);
        (stream.phase, stream.local, stream.twin) = (Phase::Open, Some(local), Some(twin));
        stream.wake_writer();
        let listener = &mut self.listeners[at];
        listener.ready.push_back(twin);
        if let Some(waker) = listener.acceptor.take() {
            waker.wake();
        }
        self.exchange(place);
    }

    /// Carries out the wishes of a stream whose other end is here as well.
    pub(crate) fn exchange(&mut self, place: Place) {
        let Some(twin) = self.stream(place).twin else { return };
        self.stream(place).options.clear();
        // Either may end with the other; the last words of who is gone come before it is said that nobody reads there.
        let (first, second) = if self.stream(twin).dropped { (twin, place) } else { (place, twin) };
        if self.hand_over(first, second) && self.hand_over(second, first) {
            let closed = [place, twin].map(|end| self.stream(end).peer_closed);
            if closed == [true; 2] {
                self.part(place, None, None);
            }
        }
    }

    /// What one end has written goes to the other. Answers whether the stream goes on.
    fn hand_over(&mut self, from: Place, to: Place) -> bool {
        let receiver = self.stream(to);
        let (dropped, room) =
            (receiver.dropped, receiver.receive_buffer_bytes.saturating_sub(receiver.received.len()));
        let sender = self.stream(from);
        let len = (sender.outgoing.len() - sender.handed_over).min(room);
        if dropped && !sender.outgoing.is_empty() {
            // RFC 1122 4.2.2.13: nobody will read it.
            self.part(from, Some(Error::Reset), Some(Error::BrokenPipe));
            return false;
        }
        if len > 0 {
            let (bytes, from_here) = (core::mem::take(&mut sender.outgoing), sender.handed_over);
            self.receive_all(to, &bytes[from_here..][..len]);
            let sender = self.stream(from);
            (sender.outgoing, sender.handed_over) = (bytes, from_here + len);
            sender.forget_handed_over();
            sender.wake_writer();
        }
        let sender = self.stream(from);
        let waits = !sender.outgoing.is_empty();
        let closes = sender.close_wanted && !waits;
        sender.close_wanted &= waits;
        let receiver = self.stream(to);
        receiver.more_in_stack = waits;
        if closes {
            receiver.peer_closed = true;
            receiver.wake_reader();
        }
        true
    }

    /// The stream is over: for this end, and for the other.
    pub(crate) fn part(&mut self, place: Place, error: Option<Error>, twins: Option<Error>) {
        let twin = self.stream(place).twin.take();
        if let Some(twin) = twin {
            let stream = self.stream(twin);
            stream.twin = None;
            stream.more_in_stack = false;
            self.end(twin, twins);
        }
        self.stream(place).more_in_stack = false;
        self.end(place, error);
    }
}

//! Streams between sockets of this machine. Nothing of them is a segment: what one end has written goes to the other's buffer as
//! far as there is room, so there is no window, no timer and no loss, and no frame leaves.

use crate::error::Error;
use crate::state::{Phase, Place, State, Stream};
use core::net::SocketAddr;

impl State {
    /// A stream wants to be connected to an address of ours.
    pub(crate) fn connect_here(&mut self, place: Place, remote: SocketAddr) {
        let (ip, port) = (remote.ip(), remote.port());
        let is_meant = |local: exos_net::Local| local.contains(ip);
        let Some(at) = self.listeners.iter().position(|other| other.port == port && is_meant(other.local))
        else {
            return self.end(place, Some(Error::Refused));
        };
        if self.listeners[at].ready.len() >= self.listeners[at].backlog {
            return self.end(place, Some(Error::Reset));
        }
        let taken: alloc::vec::Vec<_> = self.ends_here().filter(|end| end.ip() == ip).collect();
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
        // Either may end with the other.
        if self.hand_over(place, twin) && self.hand_over(twin, place) {
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
        let len = sender.outgoing.len().min(room);
        if dropped && !sender.outgoing.is_empty() {
            // RFC 1122 4.2.2.13: nobody will read it.
            self.part(from, Some(Error::Reset), Some(Error::BrokenPipe));
            return false;
        }
        if len > 0 {
            let rest = sender.outgoing.split_off(len);
            let bytes = core::mem::replace(&mut sender.outgoing, rest);
            sender.wake_writer();
            self.receive_all(to, &bytes);
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

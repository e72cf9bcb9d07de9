//! One connection: a TCP state machine towards the guest, a socket towards the host, and bytes that go from one to the other.
//!
//! Each direction has one buffer, smoltcp's. If it is full because the host does not read, the guest's window closes; if it is
//! full because the guest does not, the host's socket is not read, and its window closes. Ends are passed on one by one: FIN
//! as shutdown, end of file as FIN, RST as RST.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use super::budget::Share;
use crate::MSS_BYTES;
use crate::flow::Flow;
use crate::reactor::{Reactor, Readiness, Source};
use crate::timers::Deadline;

/// smoltcp's state and buffers of a connection; used again for the next one.
pub(super) struct Machine {
    pub(super) sockets: SocketSet<'static>,
    handle: SocketHandle,
    pub(super) share: Share,
}

impl Machine {
    pub(super) fn new(share: Share) -> Self {
        let buffer = |bytes| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(share.from_guest_bytes), buffer(share.from_host_bytes));
        // Whoever writes to the host's end has decided already what goes together.
        socket.set_nagle_enabled(false);
        // When acknowledgments are sent is decided in `Connection::owes`.
        socket.set_ack_delay(None);
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = sockets.add(socket);
        Self { sockets, handle, share }
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

/// What goes towards the guest next, as far as it is known without asking smoltcp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owes {
    /// Perhaps something at once.
    Now,
    /// An acknowledgment, which can wait for data to go with.
    Acknowledgment,
    /// Nothing.
    Nothing,
}

/// Whether there is still something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// There is.
    GoesOn,
    /// Everything is said on both sides.
    Over,
}

/// The socket of the host.
struct HostEnd {
    stream: TcpStream,
    /// There may be something to read.
    readable: bool,
    /// There may be room to write.
    writable: bool,
    /// The peer sends no more: short reads are no reason to stop.
    ended: bool,
    /// The end of what it sends was seen.
    read_closed: bool,
    /// It was told that the guest sends no more.
    write_closed: bool,
    /// It is broken.
    failed: bool,
}

/// One connection.
pub(super) struct Connection {
    pub(super) flow: Flow,
    pub(super) machine: Machine,
    host: HostEnd,
    /// For a connection that the guest opens: its SYN, while the host's side is being connected.
    pub(super) syn: Option<Box<[u8]>>,
    /// The guest opened it.
    pub(super) is_outbound: bool,
    /// The guest sends no more.
    guest_finished: bool,
    /// Bytes that the guest sent since it last got a segment.
    unacknowledged_bytes: usize,
    /// Nothing goes to the guest any more: it has everything, and only the host's end is still waited for.
    pub(super) lingers: bool,
    /// It is in the list of those that may have something to send to the guest.
    pub(super) listed: bool,
    pub(super) deadline: Deadline,
    /// When bytes last went through it.
    pub(super) used_at: Duration,
}

impl Connection {
    /// A connection from a client of the host to the guest.
    pub(super) fn inbound(flow: Flow, machine: Machine, stream: TcpStream, now: Duration) -> Self {
        Self::new(flow, machine, stream, now)
    }

    /// A connection that the guest opens with `syn`, an IP packet; `stream` is being connected.
    pub(super) fn outbound(
        flow: Flow,
        machine: Machine,
        stream: TcpStream,
        syn: Box<[u8]>,
        now: Duration,
    ) -> Self {
        Self { syn: Some(syn), is_outbound: true, ..Self::new(flow, machine, stream, now) }
    }

    fn new(flow: Flow, machine: Machine, stream: TcpStream, now: Duration) -> Self {
        let host = HostEnd {
            stream,
            readable: false,
            writable: false,
            ended: false,
            read_closed: false,
            write_closed: false,
            failed: false,
        };
        Self {
            flow,
            machine,
            host,
            syn: None,
            is_outbound: false,
            guest_finished: false,
            unacknowledged_bytes: 0,
            lingers: false,
            listed: false,
            deadline: Deadline::default(),
            used_at: now,
        }
    }

    /// Has the socket's events told.
    pub(super) fn watch(&self, reactor: &Reactor, source: Source) -> std::io::Result<()> {
        Ok(reactor.watch_stream(&self.host.stream, source)?)
    }

    /// A segment from the guest with so many bytes was taken in.
    pub(super) fn received(&mut self, payload_bytes: usize, now: Duration) {
        self.unacknowledged_bytes += payload_bytes;
        match self.machine.socket().state() {
            // It was the handshake's; an idle connection may stay for as long as it likes.
            State::Established => self.machine.socket().set_timeout(None),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait => {
                self.guest_finished = true
            }
            _ => {}
        }
        self.pump(now);
    }

    /// A segment went to the guest, with an acknowledgment of everything.
    pub(super) fn sent(&mut self) {
        self.unacknowledged_bytes = 0;
    }

    /// The host's socket has something to say.
    pub(super) fn host_event(&mut self, readiness: Readiness, now: Duration) {
        self.host.readable |= readiness.readable;
        self.host.writable |= readiness.writable;
        self.host.ended |= readiness.ended;
        if readiness.failed
            && let Ok(Some(error)) = self.host.stream.take_error()
        {
            self.fail(&error);
        }
        self.pump(now);
    }

    /// The error of an attempt to connect, if it has come to an end.
    pub(super) fn connect_result(&mut self, readiness: Readiness) -> Option<std::io::Result<()>> {
        if !readiness.writable {
            return None;
        }
        Some(match self.host.stream.take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(error),
        })
    }

    /// Moves bytes both ways, as many as find room.
    pub(super) fn pump(&mut self, now: Duration) {
        if self.syn.is_some() || self.host.failed {
            return;
        }
        if let Err(error) = self.move_to_host(now).and_then(|()| self.move_to_guest(now)) {
            self.fail(&error);
        }
    }

    fn move_to_host(&mut self, now: Duration) -> std::io::Result<()> {
        let (socket, host) =
            (self.machine.sockets.get_mut::<Socket<'_>>(self.machine.handle), &mut self.host);
        while host.writable && socket.can_recv() {
            let written = socket.recv(|bytes| match host.stream.write(bytes) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match written {
                Ok(Ok(_)) => self.used_at = now,
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => host.writable = false,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                // Not reached after `can_recv`.
                Err(_) => break,
            }
        }
        if self.guest_finished && !host.write_closed && socket.recv_queue() == 0 {
            host.write_closed = true;
            host.stream.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    fn move_to_guest(&mut self, now: Duration) -> std::io::Result<()> {
        let (socket, host) =
            (self.machine.sockets.get_mut::<Socket<'_>>(self.machine.handle), &mut self.host);
        while host.readable && !host.read_closed && socket.can_send() {
            let read = socket.send(|room| match host.stream.read(room) {
                Ok(count) => (count, Ok((count, room.len()))),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok((0, _))) => {
                    host.read_closed = true;
                    socket.close();
                }
                Ok(Ok((count, room))) => {
                    self.used_at = now;
                    // Less than there was room for: the rest, or the end, will be announced.
                    host.readable = count == room || host.ended;
                }
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => host.readable = false,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                // Not reached after `can_send`.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// The host's end is broken: the guest gets a reset.
    fn fail(&mut self, error: &std::io::Error) {
        tracing::debug!(flow = %self.flow, "reset: {error}");
        self.host.failed = true;
        self.machine.socket().abort();
    }

    /// Ends the connection by resets on both sides.
    pub(super) fn abort(&mut self) {
        self.host.failed = true;
        self.machine.socket().abort();
    }

    /// What the guest may be owed after a segment from it, before which the state was another, or not.
    pub(super) fn owes(&mut self, before: State) -> Owes {
        let unacknowledged_bytes = self.unacknowledged_bytes;
        let socket = self.machine.socket();
        let state = socket.state();
        // RFC 9293 3.8.6.3: more than a full segment is acknowledged at once; so are SYN and FIN.
        if state != State::Established
            || state != before
            || socket.send_queue() > 0
            || unacknowledged_bytes > MSS_BYTES
        {
            Owes::Now
        } else if unacknowledged_bytes > 0 {
            Owes::Acknowledgment
        } else {
            Owes::Nothing
        }
    }

    /// Whether everything is said. To be asked when there is nothing to send to the guest.
    pub(super) fn fate(&mut self) -> Fate {
        if self.syn.is_some() {
            return Fate::GoesOn;
        }
        let failed = self.host.failed;
        let socket = self.machine.socket();
        let said_to_guest = match socket.state() {
            // With a peer, there is still a reset to send.
            State::Closed => socket.remote_endpoint().is_none(),
            // The guest has everything; if its last FIN should come again, a reset is answer enough. smoltcp would empty
            // the buffer at the end of its TIME-WAIT, however slowly the host's end reads.
            State::TimeWait => true,
            _ => false,
        };
        let said_to_host = failed || socket.recv_queue() == 0;
        self.lingers = said_to_guest;
        if said_to_guest && said_to_host { Fate::Over } else { Fate::GoesOn }
    }

    /// Ends the host's side: in order if both ends were passed on, by a reset if not. Gives back what can be used again.
    pub(super) fn end(self) -> Machine {
        let HostEnd { stream, read_closed, write_closed, failed, .. } = self.host;
        if failed || !read_closed || !write_closed {
            // RST instead of FIN. If that cannot be had, FIN has to do.
            let _ = setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 });
        }
        self.machine
    }
}

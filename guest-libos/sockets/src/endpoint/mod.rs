//! A stack with sockets and tasks on it: frames in, frames out, and between them the tasks run.

mod udp;

use crate::error::Error;
use crate::state::{Bytes, Place, PortWish, SEND_BUFFER_BYTES, Sockets};
use crate::tasks::{Spawner, Tasks};
use alloc::vec::Vec;
use exos_net::{
    AckDue, AckPolicy, Coalesce, Config, ConfigError, ConnId, ConnectError, ControlFrame, Input, Instant,
    ListenError, Local, Problem, RxMeta, SegmentEvents, Stack, TimerEvent, Transmit,
};

/// A writer that waits goes on when so much is left to be acknowledged.
const LOW_WATER_BYTES: usize = SEND_BUFFER_BYTES / 2;

/// A stack, its sockets and the tasks that use them. One round is: [`Self::input`] for each frame that has arrived, then
/// [`Self::work`]; then whoever drives it may sleep until [`Self::next_deadline`] or the next frame.
#[derive(Debug)]
pub struct Endpoint {
    stack: Stack<Bytes>,
    sockets: Sockets,
    tasks: Tasks,
    /// Connections that have something to send, or to acknowledge, when the tasks have run: their data carries it.
    outputs: Vec<(ConnId, AckPolicy)>,
    /// A frame came that no socket was told of: perhaps a neighbour said where it is.
    heard: bool,
}

fn send_control<T: Transmit<Bytes>>(tx: &mut T, frame: Option<ControlFrame<'_>>) {
    if let Some(frame) = frame {
        // Lost is lost: the protocols repair it.
        let _ = tx.transmit_control(&frame);
    }
}

/// What a socket's connection begins with.
fn begin(stack: &mut Stack<Bytes>, conn: ConnId) {
    // It has just been made.
    let _ = stack.set_low_water(conn, LOW_WATER_BYTES);
    let _ = stack.set_coalesce(conn, Coalesce::Nagle);
}

impl Endpoint {
    /// An endpoint without connections and tasks.
    pub fn new(config: Config, now: Instant) -> Result<Self, ConfigError> {
        let sockets = Sockets::new(&config, now);
        let stack = Stack::new(config, now)?;
        sockets.state().link.refresh(&stack, now);
        Ok(Self { stack, sockets, tasks: Tasks::default(), outputs: Vec::new(), heard: false })
    }

    /// For making streams and listeners.
    pub fn sockets(&self) -> Sockets {
        self.sockets.clone()
    }

    /// For starting tasks.
    pub fn spawner(&self) -> Spawner {
        self.tasks.spawner()
    }

    /// Tasks that have not ended.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// The stack, to look at.
    pub fn stack(&self) -> &Stack<Bytes> {
        &self.stack
    }

    /// Somebody who hears ARP in our place says where a neighbour is, and other matters below sockets.
    pub fn stack_mut(&mut self) -> &mut Stack<Bytes> {
        &mut self.stack
    }

    /// When [`Self::work`] is to be called at the latest; at once while tasks are ready.
    pub fn next_deadline(&self) -> Option<Instant> {
        let state = self.sockets.state();
        if self.tasks.is_ready() || state.has_wishes() || !self.outputs.is_empty() {
            return Some(state.now);
        }
        let stack = self.stack.next_deadline();
        let others = [
            state.timers.next_deadline(),
            state.udp.next_deadline(),
            state.names.next_deadline(),
            state.linger_deadline(),
        ];
        others.into_iter().chain([stack]).flatten().min()
    }

    /// Takes one frame that has arrived.
    pub fn input<T: Transmit<Bytes>>(&mut self, now: Instant, frame: &[u8], meta: RxMeta, tx: &mut T) {
        match self.stack.input(now, frame, meta) {
            Input::Nothing => self.heard = true,
            Input::Reply(reply) => {
                self.heard = true;
                send_control(tx, Some(reply));
            }
            Input::Datagram(datagram) => self.sockets.state().datagram_arrives(&datagram),
            Input::DatagramError(error) => self.sockets.state().udp.problem_arrives(&error),
            Input::Segment(events) => self.segment(events, tx),
        }
    }

    fn segment<T: Transmit<Bytes>>(&mut self, events: SegmentEvents<'_>, tx: &mut T) {
        let conn = events.conn;
        if events.opened && !self.opened(conn) {
            return send_control(tx, self.stack.abort(conn));
        }
        let place = self.sockets.state().place_of(conn);
        let Some(place) = place else {
            // Nobody's any more: it was closed and has its last words.
            return self.finish(events, tx);
        };
        let mut state = self.sockets.state();
        let stream = state.stream(place);
        let came = !events.data.is_empty() || events.readable;
        if came && stream.dropped {
            // RFC 1122 4.2.2.13: nobody will read it, and the peer should know.
            drop(state);
            return self.abort(place, tx);
        }
        if let Some(problem) = events.problem {
            stream.error = Some(soft_error(problem));
        }
        if events.acked_bytes > 0 {
            stream.unacknowledged = self.stack.unacked_bytes(conn);
        }
        if events.low_water {
            stream.wake_writer();
        }
        if events.ended.is_some() {
            state.receive_all(place, events.data);
        } else if !events.data.is_empty() {
            let taken = state.receive(place, events.data);
            if taken < events.data.len() && self.stack.keep(conn, &events.data[taken..]).is_err() {
                // Bytes are missing now, and nothing can follow them.
                drop(state);
                return self.abort(place, tx);
            }
        } else if events.readable {
            stream.more_in_stack = true;
        }
        let stream = state.stream(place);
        if events.peer_closed {
            stream.peer_closed = true;
            stream.wake_reader();
        }
        if stream.more_in_stack {
            state.mark_dirty(place);
        }
        drop(state);
        self.finish(events, tx);
    }

    fn finish<T: Transmit<Bytes>>(&mut self, events: SegmentEvents<'_>, tx: &mut T) {
        if let Some(end) = events.ended {
            self.take_kept(events.conn);
            self.sockets.state().ended(events.conn, end);
            send_control(tx, events.last_ack);
        } else if events.reply != AckDue::None || events.output_due || events.low_water {
            let policy = if events.reply == AckDue::Now { AckPolicy::Now } else { AckPolicy::IfDue };
            self.outputs.push((events.conn, policy));
        }
    }

    /// A connection is open. Answers whether somebody wants it.
    fn opened(&mut self, conn: ConnId) -> bool {
        let (Some(peer), Some(local)) = (self.stack.peer(conn), self.stack.local(conn)) else {
            return false;
        };
        let ours = self.sockets.state().place_of(conn).is_some();
        let wanted = self.sockets.state().opened(conn, peer, local);
        // One of ours began when it was asked for, and may have chosen something else since.
        if wanted && !ours {
            begin(&mut self.stack, conn);
        }
        wanted
    }

    /// Ends a connection at once.
    fn abort<T: Transmit<Bytes>>(&mut self, place: Place, tx: &mut T) {
        let mut state = self.sockets.state();
        let stream = state.stream(place);
        if stream.twin.is_some() {
            return state.part(place, Some(Error::BrokenPipe), Some(Error::Reset));
        }
        let conn = stream.conn;
        drop(state);
        send_control(tx, conn.and_then(|conn| self.stack.abort(conn)));
        self.sockets.state().aborted(place);
    }

    /// Has the tasks run and does what they wish; sends what is to be sent, and what timers ask for.
    pub fn work<T: Transmit<Bytes>>(&mut self, now: Instant, tx: &mut T) {
        {
            let mut state = self.sockets.state();
            state.now = now;
            state.timers.expire(now);
            state.link.refresh(&self.stack, now);
            state.run_names();
        }
        if self.tasks.is_ready() {
            self.tasks.run();
        }
        self.sockets.state().run_names();
        self.carry_out(now, tx);
        for (conn, policy) in core::mem::take(&mut self.outputs) {
            // One that has ended has nothing to send.
            let _ = self.stack.output(conn, now, tx, policy);
        }
        self.stack.retry_blocked(now, tx);
        if self.stack.next_deadline().is_some_and(|deadline| deadline <= now) {
            let sockets = &self.sockets;
            self.stack.expire(now, tx, |conn, event| {
                if let TimerEvent::Ended(end) = event {
                    sockets.state().ended(conn, end);
                }
            });
        }
    }

    /// Carries the tasks' wishes to the stack.
    fn carry_out<T: Transmit<Bytes>>(&mut self, now: Instant, tx: &mut T) {
        let ports = core::mem::take(&mut self.sockets.state().ports);
        for wish in ports {
            match wish {
                // Nobody else can connect to those.
                PortWish::Listen(_, Local::Address(address), _) if address.is_loopback() => {}
                PortWish::Listen(id, local, port) => {
                    if let Err(error) = self.stack.listen_at(local, port) {
                        self.listen_failed(id, error);
                    }
                }
                PortWish::Unlisten(local, port) => {
                    self.stack.unlisten_at(local, port);
                }
                PortWish::BindUdp(place, local, port) => self.bind_udp(place, local, port),
                PortWish::UnbindUdp(local, port) => {
                    self.stack.unbind_udp_at(local, port);
                }
                PortWish::Join(group) => self.join(group, now),
                PortWish::Leave(group) => {
                    self.stack.leave_group(now, group);
                }
            }
        }
        self.end_lingering(tx);
        self.send_datagrams(now, tx);
        loop {
            let Some(place) = self.sockets.state().next_dirty() else { return };
            self.carry_out_one(place, now, tx);
        }
    }

    /// Streams that nobody holds and whose bytes were not acknowledged in time.
    fn end_lingering<T: Transmit<Bytes>>(&mut self, tx: &mut T) {
        loop {
            let mut state = self.sockets.state();
            let Some(place) = state.next_impatient() else { return };
            let stream = state.stream(place);
            let unread = stream.twin.is_some() && !stream.outgoing.is_empty();
            let owes = unread || stream.conn.is_some_and(|conn| self.stack.unacked_bytes(conn) > 0);
            drop(state);
            if owes {
                self.abort(place, tx);
            }
        }
    }

    fn listen_failed(&self, id: u32, error: ListenError) {
        let mut state = self.sockets.state();
        let Some(listener) = state.listener(id) else { return };
        listener.error = Some(match error {
            ListenError::PortZero => Error::AddressNotAvailable,
            ListenError::InUse => Error::AddressInUse,
            ListenError::NotOurAddress => Error::AddressNotAvailable,
        });
        if let Some(waker) = listener.acceptor.take() {
            waker.wake();
        }
    }

    fn carry_out_one<T: Transmit<Bytes>>(&mut self, place: Place, now: Instant, tx: &mut T) {
        let mut state = self.sockets.state();
        let stream = state.stream(place);
        if stream.abort_wanted {
            drop(state);
            return self.abort(place, tx);
        }
        if let Some(remote) = stream.connect_to.take() {
            if state.link.has(remote.ip()) {
                return state.connect_here(place, remote);
            }
            match self.stack.connect(now, remote) {
                Ok(conn) => {
                    begin(&mut self.stack, conn);
                    state.bind(place, conn);
                }
                Err(error) => return state.end(place, Some(connect_error(error))),
            }
        }
        let stream = state.stream(place);
        if stream.twin.is_some() {
            return state.exchange(place);
        }
        let Some(conn) = stream.conn else { return };
        for option in core::mem::take(&mut stream.options) {
            option.apply(&mut self.stack, conn);
        }
        if !stream.outgoing.is_empty() {
            let bytes = Bytes::new(core::mem::take(&mut stream.outgoing));
            if self.stack.send(conn, bytes).is_ok() {
                stream.unacknowledged = self.stack.unacked_bytes(conn);
            }
        }
        if core::mem::take(&mut stream.close_wanted) {
            let _ = self.stack.close(conn);
        }
        drop(state);
        self.take_kept(conn);
        self.outputs.push((conn, AckPolicy::IfDue));
    }

    /// Bytes that the stack kept come to the stream, as far as there is room.
    fn take_kept(&mut self, conn: ConnId) {
        let mut state = self.sockets.state();
        let Some(place) = state.place_of(conn) else { return };
        let stream = state.stream(place);
        if !stream.more_in_stack {
            return;
        }
        let taken = state.receive(place, self.stack.pending(conn));
        if taken > 0 {
            let _ = self.stack.consume(conn, taken);
        }
        let stream = state.stream(place);
        if stream.peer_closed {
            stream.wake_reader();
        }
    }
}

/// What an ICMP error means for a connection that lives on (RFC 9293 3.9.2.2).
fn soft_error(problem: Problem) -> Error {
    match problem {
        Problem::PortUnreachable | Problem::ProtocolUnreachable => Error::Refused,
        _ => Error::Unreachable,
    }
}

fn connect_error(error: ConnectError) -> Error {
    match error {
        ConnectError::NoRoute | ConnectError::NoAddress => Error::Unreachable,
        ConnectError::ConnectionsFull | ConnectError::PortsInUse => Error::TooMany,
        ConnectError::Exists => Error::AddressInUse,
        ConnectError::PortZero
        | ConnectError::NotAHost
        | ConnectError::NotOurAddress
        | ConnectError::AddressTentative
        | ConnectError::BeyondScope => Error::AddressNotAvailable,
    }
}

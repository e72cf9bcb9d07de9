//! What sockets are beneath: a table of buffers, wakers and wishes. Tasks change it between rounds; [`super::Endpoint`] carries
//! wishes to the stack and brings back what happened.

use crate::datagrams::{Datagrams, UdpPlace};
use crate::error::Error;
use crate::link::Link;
use crate::names::Names;
use crate::options::SocketOption;
use crate::random::Random;
use crate::receive_queue::{Chunks, ReceiveQueue};
use crate::timer::Timers;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{RefCell, RefMut};
use core::net::{IpAddr, SocketAddr};
use core::task::Waker;
use exos_net::{Config, ConnId, Data, Duration, End, Instant, Local};

/// Bytes a stream holds back for its reader at most, unless it says otherwise; what is more stays in the stack, whose window
/// closes.
const RECEIVE_BUFFER_BYTES: usize = 64 << 10;
/// Bytes a stream takes from its writer before it lets it wait, unless it says otherwise.
pub(crate) const SEND_BUFFER_BYTES: usize = 256 << 10;

/// What sockets send: bytes that were copied once.
#[derive(Clone, Debug)]
pub struct Bytes(Arc<Vec<u8>>);

impl Bytes {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl Data for Bytes {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A stream's place in the table. Streams own their places, so they need no generation.
pub(crate) type Place = u32;

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The handshake has not ended.
    Connecting,
    /// Bytes may flow.
    Open,
    /// The connection is gone: why, unless both sides closed.
    Ended(Option<Error>),
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) phase: Phase,
    pub(crate) conn: Option<ConnId>,
    /// In place of a connection: the other end, if that is ours as well.
    pub(crate) twin: Option<Place>,
    /// Where to, until the stack has been asked to connect.
    pub(crate) connect_to: Option<SocketAddr>,
    pub(crate) peer: SocketAddr,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) received: ReceiveQueue,
    /// The stack keeps bytes that found no room in `received`.
    pub(crate) more_in_stack: bool,
    pub(crate) peer_closed: bool,
    /// Written and not yet given to the stack.
    pub(crate) outgoing: Vec<u8>,
    /// Of that, what the other end has already, if that is ours as well.
    pub(crate) handed_over: usize,
    /// Given to the stack and not yet acknowledged.
    pub(crate) unacknowledged: usize,
    pub(crate) close_wanted: bool,
    pub(crate) abort_wanted: bool,
    /// FIN was asked for: nothing can be written any more.
    pub(crate) write_closed: bool,
    /// Nobody holds the stream any more.
    pub(crate) dropped: bool,
    dirty: bool,
    /// Choices that the stack has not heard of.
    pub(crate) options: Vec<SocketOption>,
    pub(crate) send_buffer_bytes: usize,
    pub(crate) receive_buffer_bytes: usize,
    /// How long what was written may stay unacknowledged once nobody holds the stream; `None`: as long as the stack allows.
    pub(crate) linger: Option<Duration>,
    /// What went wrong last and nobody has asked for.
    pub(crate) error: Option<Error>,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
}

impl Stream {
    pub(crate) fn new(phase: Phase, peer: SocketAddr) -> Self {
        Self {
            phase,
            conn: None,
            twin: None,
            connect_to: None,
            peer,
            local: None,
            received: ReceiveQueue::default(),
            more_in_stack: false,
            peer_closed: false,
            outgoing: Vec::new(),
            handed_over: 0,
            unacknowledged: 0,
            close_wanted: false,
            abort_wanted: false,
            write_closed: false,
            dropped: false,
            dirty: false,
            options: Vec::new(),
            send_buffer_bytes: SEND_BUFFER_BYTES,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
            linger: None,
            error: None,
            reader: None,
            writer: None,
        }
    }

    pub(crate) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(crate) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    /// Bytes that a writer may still add.
    pub(crate) fn send_room(&self) -> usize {
        self.send_buffer_bytes.saturating_sub(self.outgoing.len() - self.handed_over + self.unacknowledged)
    }
}

/// A port that is listened on.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Tells it from others, which may have its port.
    pub(crate) id: u32,
    pub(crate) local: Local,
    pub(crate) port: u16,
    /// Open streams that nobody has accepted yet.
    pub(crate) ready: VecDeque<Place>,
    pub(crate) backlog: usize,
    pub(crate) acceptor: Option<Waker>,
    /// The stack refused the port.
    pub(crate) error: Option<Error>,
}

/// What a listener or a UDP socket wants of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortWish {
    Listen(u32, Local, u16),
    Unlisten(Local, u16),
    BindUdp(UdpPlace, Local, u16),
    UnbindUdp(Local, u16),
    /// For all sockets that have joined it.
    Join(IpAddr),
    Leave(IpAddr),
}

#[derive(Debug)]
pub(crate) struct State {
    streams: Vec<Option<Stream>>,
    free: Vec<Place>,
    /// The stream of a connection, by the connection's index.
    places: Vec<Option<Place>>,
    pub(crate) listeners: Vec<Listener>,
    next_listener: u32,
    /// Streams that nobody holds, and when they are given up.
    lingering: Vec<(Place, Instant)>,
    pub(crate) ports: VecDeque<PortWish>,
    /// Memory for what arrives.
    pub(crate) chunks: Chunks,
    pub(crate) udp: Datagrams,
    pub(crate) link: Link,
    pub(crate) random: Random,
    pub(crate) names: Names,
    /// Streams with wishes, each once.
    dirty: VecDeque<Place>,
    pub(crate) timers: Timers,
    /// What streams begin with.
    pub(crate) defaults: Box<[SocketOption]>,
    pub(crate) now: Instant,
}

impl State {
    fn new(config: &Config, now: Instant) -> Self {
        Self {
            streams: Vec::new(),
            free: Vec::new(),
            places: Vec::new(),
            listeners: Vec::new(),
            next_listener: 0,
            lingering: Vec::new(),
            ports: VecDeque::new(),
            chunks: Chunks::default(),
            udp: Datagrams::default(),
            link: Link::new(config),
            random: Random::new(config.secret),
            names: Names::new(),
            dirty: VecDeque::new(),
            timers: Timers::default(),
            defaults: Box::default(),
            now,
        }
    }

    pub(crate) fn stream(&mut self, place: Place) -> &mut Stream {
        self.stream_and_chunks(place).0
    }

    /// A stream, and the memory for what arrives for it.
    fn stream_and_chunks(&mut self, place: Place) -> (&mut Stream, &mut Chunks) {
        match self.streams.get_mut(place as usize) {
            Some(Some(stream)) => (stream, &mut self.chunks),
            _ => unreachable!("a stream's place is free while somebody holds it"),
        }
    }

    /// Takes what arrived, as far as there is room; answers how much that was.
    pub(crate) fn receive(&mut self, place: Place, bytes: &[u8]) -> usize {
        let stream = self.stream(place);
        let room = stream.receive_buffer_bytes.saturating_sub(stream.received.len());
        let taken = bytes.len().min(room);
        stream.more_in_stack = taken < bytes.len();
        self.receive_all(place, &bytes[..taken]);
        taken
    }

    /// Takes all of what arrived: the connection has ended with it, and nobody else keeps it.
    pub(crate) fn receive_all(&mut self, place: Place, bytes: &[u8]) {
        let (stream, chunks) = self.stream_and_chunks(place);
        stream.received.push(bytes, chunks);
        if !bytes.is_empty() {
            stream.wake_reader();
        }
    }

    /// Copies out what arrived, as far as there is room.
    pub(crate) fn read(&mut self, place: Place, out: &mut [u8]) -> usize {
        let (stream, chunks) = self.stream_and_chunks(place);
        let len = stream.received.read(out, chunks);
        self.was_read(place);
        len
    }

    /// Shows what arrived, as much as lies together, to `reader`, who says how much of it is done with.
    pub(crate) fn read_in_place<R>(&mut self, place: Place, reader: impl FnOnce(&[u8]) -> (usize, R)) -> R {
        let (stream, chunks) = self.stream_and_chunks(place);
        let (len, result) = reader(stream.received.front());
        stream.received.consume(len, chunks);
        self.was_read(place);
        result
    }

    /// There is room again for what waits in the stack.
    fn was_read(&mut self, place: Place) {
        if self.stream(place).more_in_stack {
            self.mark_dirty(place);
        }
    }

    pub(crate) fn insert(&mut self, stream: Stream) -> Place {
        let place = self.insert_bare(stream);
        if !self.defaults.is_empty() {
            let defaults = core::mem::take(&mut self.defaults);
            defaults.iter().for_each(|&option| self.stream(place).set(option));
            self.defaults = defaults;
            self.mark_dirty(place);
        }
        place
    }

    fn insert_bare(&mut self, stream: Stream) -> Place {
        if let Some(place) = self.free.pop() {
            self.streams[place as usize] = Some(stream);
            return place;
        }
        self.streams.push(Some(stream));
        (self.streams.len() - 1) as Place
    }

    /// A stream that wants to be connected.
    pub(crate) fn insert_connecting(&mut self, remote: SocketAddr) -> Place {
        let mut stream = Stream::new(Phase::Connecting, remote);
        stream.connect_to = Some(remote);
        let place = self.insert(stream);
        self.mark_dirty(place);
        place
    }

    /// The stream has wishes.
    pub(crate) fn mark_dirty(&mut self, place: Place) {
        let stream = self.stream(place);
        if !core::mem::replace(&mut stream.dirty, true) {
            self.dirty.push_back(place);
        }
    }

    /// The next stream with wishes.
    pub(crate) fn next_dirty(&mut self) -> Option<Place> {
        let place = self.dirty.pop_front()?;
        self.stream(place).dirty = false;
        Some(place)
    }

    pub(crate) fn has_wishes(&self) -> bool {
        !self.dirty.is_empty() || !self.ports.is_empty() || self.udp.has_wishes()
    }

    /// A stream has its connection now.
    pub(crate) fn bind(&mut self, place: Place, conn: ConnId) {
        if self.places.len() <= conn.index() {
            self.places.resize(conn.index() + 1, None);
        }
        self.places[conn.index()] = Some(place);
        self.stream(place).conn = Some(conn);
    }

    pub(crate) fn place_of(&self, conn: ConnId) -> Option<Place> {
        self.places.get(conn.index()).copied().flatten()
    }

    /// A connection is open: one that we wanted, or one for a listener. Answers whether somebody has it.
    pub(crate) fn opened(&mut self, conn: ConnId, peer: SocketAddr, local: SocketAddr) -> bool {
        if let Some(place) = self.place_of(conn) {
            let stream = self.stream(place);
            stream.phase = Phase::Open;
            stream.local = Some(local);
            stream.wake_writer();
            return true;
        }
        let is_meant = |listener: &Listener| {
            listener.port == local.port() && listener.local.contains(local.ip()) && listener.error.is_none()
        };
        let Some(at) = self.listeners.iter().position(is_meant) else { return false };
        let listener = &mut self.listeners[at];
        if listener.ready.len() >= listener.backlog {
            return false;
        }
        if let Some(waker) = listener.acceptor.take() {
            waker.wake();
        }
        let mut stream = Stream::new(Phase::Open, peer);
        stream.local = Some(local);
        let place = self.insert(stream);
        self.bind(place, conn);
        self.listeners[at].ready.push_back(place);
        true
    }

    /// The connection of a stream is gone.
    pub(crate) fn ended(&mut self, conn: ConnId, end: End) {
        let Some(place) = self.place_of(conn) else { return };
        self.places[conn.index()] = None;
        self.end(place, Error::of_end(end));
    }

    /// A stream has no connection any more.
    pub(crate) fn end(&mut self, place: Place, error: Option<Error>) {
        let stream = self.stream(place);
        stream.conn = None;
        stream.phase = Phase::Ended(error);
        stream.error = error.or(stream.error);
        (stream.outgoing, stream.handed_over) = (Vec::new(), 0);
        stream.unacknowledged = 0;
        stream.wake_reader();
        stream.wake_writer();
        if stream.dropped {
            self.remove(place);
        }
    }

    /// Its connection was aborted; no event follows.
    pub(crate) fn aborted(&mut self, place: Place) {
        if let Some(conn) = self.stream(place).conn {
            self.places[conn.index()] = None;
        }
        self.end(place, Some(Error::BrokenPipe));
    }

    fn remove(&mut self, place: Place) {
        if self.stream(place).dirty {
            self.dirty.retain(|&other| other != place);
        }
        self.lingering.retain(|&(other, _)| other != place);
        self.streams[place as usize] = None;
        self.free.push(place);
    }

    /// Nobody holds the stream any more. What was written is still sent; who still sends to us is reset, and so is a
    /// connection of which something was not read (RFC 1122 4.2.2.13).
    pub(crate) fn drop_stream(&mut self, place: Place) {
        let stream = self.stream(place);
        stream.dropped = true;
        (stream.reader, stream.writer) = (None, None);
        if matches!(stream.phase, Phase::Ended(_)) {
            return self.remove(place);
        }
        let linger = stream.linger;
        let is_unread = !stream.received.is_empty() || stream.more_in_stack;
        if is_unread || stream.phase == Phase::Connecting || linger == Some(Duration::ZERO) {
            stream.abort_wanted = true;
        } else {
            stream.close_wanted = true;
            let until = linger.map(|linger| (place, self.now + linger));
            self.lingering.extend(until);
        }
        self.mark_dirty(place);
    }

    /// A stream that nobody holds and that has lingered long enough.
    pub(crate) fn next_impatient(&mut self) -> Option<Place> {
        let at = self.lingering.iter().position(|&(_, until)| until <= self.now)?;
        Some(self.lingering.swap_remove(at).0)
    }

    /// When there is the next of those.
    pub(crate) fn linger_deadline(&self) -> Option<Instant> {
        self.lingering.iter().map(|&(_, until)| until).min()
    }

    pub(crate) fn insert_listener(&mut self, local: Local, port: u16, backlog: usize) -> u32 {
        let id = self.next_listener;
        self.next_listener = self.next_listener.wrapping_add(1);
        let listener =
            Listener { id, local, port, ready: VecDeque::new(), backlog, acceptor: None, error: None };
        self.listeners.push(listener);
        self.ports.push_back(PortWish::Listen(id, local, port));
        id
    }

    /// Takes back what the stack has not been asked yet. Answers whether that was so.
    pub(crate) fn take_back(&mut self, wish: PortWish) -> bool {
        let at = self.ports.iter().position(|other| *other == wish);
        at.and_then(|at| self.ports.remove(at)).is_some()
    }

    pub(crate) fn listener(&mut self, id: u32) -> Option<&mut Listener> {
        self.listeners.iter_mut().find(|listener| listener.id == id)
    }

    /// Our ends of streams whose other end is here as well.
    pub(crate) fn ends_here(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.streams.iter().flatten().filter(|stream| stream.twin.is_some()).filter_map(|stream| stream.local)
    }

    /// Streams in any state.
    pub(crate) fn len(&self) -> usize {
        self.streams.len() - self.free.len()
    }
}

/// Makes streams and listeners. All clones are the same; they belong to one thread.
#[derive(Clone, Debug)]
pub struct Sockets {
    state: Rc<RefCell<State>>,
}

impl Sockets {
    pub(crate) fn new(config: &Config, now: Instant) -> Self {
        Self { state: Rc::new(RefCell::new(State::new(config, now))) }
    }

    pub(crate) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Time, as of the last round.
    pub fn now(&self) -> Instant {
        self.state().now
    }

    /// Streams that exist, those included that nobody holds and that have something to send still.
    pub fn len(&self) -> usize {
        self.state().len()
    }

    /// Whether there are no streams.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

//! TCP streams and listeners.

use crate::address::{parse, show, unspecified};
use crate::error::Error;
use crate::state::{Phase, Place, PortWish, Sockets, State, Stream};
use core::future::poll_fn;
use core::net::SocketAddr;
use core::task::{Context, Poll, Waker};
use exos_net::Local;

/// Keeps a waker, without cloning one that would wake the same task.
pub(crate) fn keep(slot: &mut Option<Waker>, context: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(context.waker()),
        None => *slot = Some(context.waker().clone()),
    }
}

/// A connection as a stream of bytes. Dropping it closes it in good order, and resets it if something was left unread.
#[derive(Debug)]
pub struct TcpStream {
    pub(crate) sockets: Sockets,
    pub(crate) place: Place,
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.sockets.state().drop_stream(self.place);
    }
}

impl Sockets {
    /// Opens a connection. Cancelling gives it up.
    pub async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, Error> {
        let remote = parse(remote)?;
        let place = self.state().insert_connecting(remote);
        let stream = TcpStream { sockets: self.clone(), place };
        poll_fn(|context| {
            let mut state = self.state();
            let socket = state.stream(place);
            match socket.phase {
                Phase::Connecting => {
                    keep(&mut socket.writer, context);
                    Poll::Pending
                }
                // A peer that was there and has left again is seen by the first read.
                Phase::Open | Phase::Ended(None) => Poll::Ready(Ok(())),
                Phase::Ended(Some(error)) => Poll::Ready(Err(error)),
            }
        })
        .await?;
        Ok(stream)
    }

    /// Accepts connections to `port`, of which up to `backlog` may wait for [`TcpListener::accept`]; more are reset.
    pub fn listen(&self, port: u16, backlog: usize) -> Result<TcpListener, Error> {
        self.listen_at(Local::Any, port, backlog)
    }

    /// The same at some of our addresses. `Local` of an address says what other systems' sockets mean by it: 0.0.0.0 is all of
    /// IPv4's, `::` is all of both families'. Connections that ended before hinder nobody (SO_REUSEADDR is always set).
    pub fn listen_at(&self, local: Local, port: u16, backlog: usize) -> Result<TcpListener, Error> {
        let mut state = self.state();
        let is_foreign = matches!(local, Local::Address(address) if !state.link.has(address));
        if port == 0 || is_foreign {
            return Err(Error::AddressNotAvailable);
        }
        if state.listeners.iter().any(|other| other.port == port && other.local.overlaps(local)) {
            return Err(Error::AddressInUse);
        }
        let id = state.insert_listener(local, port, backlog.max(1));
        Ok(TcpListener { sockets: self.clone(), id, local, port })
    }
}

impl TcpStream {
    /// The other end.
    pub fn peer_addr(&self) -> SocketAddr {
        show(self.sockets.state().stream(self.place).peer)
    }

    /// Our end.
    pub fn local_addr(&self) -> SocketAddr {
        let mut state = self.sockets.state();
        let stream = state.stream(self.place);
        show(stream.local.unwrap_or(SocketAddr::new(unspecified(stream.peer.is_ipv6()), 0)))
    }

    /// What went wrong since the last time (SO_ERROR): how the connection ended, or what an ICMP error said of it while it lives
    /// on, which anybody can make up.
    pub fn take_error(&mut self) -> Option<Error> {
        self.sockets.state().stream(self.place).error.take()
    }

    /// Our port.
    pub fn local_port(&self) -> u16 {
        self.local_addr().port()
    }

    /// Reads some bytes, at least one; 0 when the peer has closed. Cancelling loses nothing.
    pub async fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        read(&self.sockets, self.place, out).await
    }

    /// [`Self::read`] if it need not wait.
    pub fn try_read(&mut self, out: &mut [u8]) -> Result<Option<usize>, Error> {
        let mut state = self.sockets.state();
        match poll_readable(&mut state, self.place, &Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result.map(|()| Some(state.read(self.place, out))),
            Poll::Pending => Ok(None),
        }
    }

    /// Copies the bytes that come next, as many as have arrived and fit, at least one, and leaves them (MSG_PEEK); 0 when the peer
    /// has closed.
    pub async fn peek(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let (sockets, place) = (&self.sockets, self.place);
        poll_fn(|context| poll_readable(&mut sockets.state(), place, context)).await?;
        Ok(sockets.state().stream(place).received.peek(out))
    }

    /// Shows the bytes that have arrived, as many as lie together and at least one, to `reader`, and forgets as many as it says;
    /// none are shown when the peer has closed. Saves [`Self::read`]'s copy. Cancelling loses nothing.
    ///
    /// # Panics
    /// If `reader` uses sockets.
    pub async fn read_in_place<R>(&mut self, reader: impl FnOnce(&[u8]) -> (usize, R)) -> Result<R, Error> {
        let (sockets, place) = (&self.sockets, self.place);
        poll_fn(|context| poll_readable(&mut sockets.state(), place, context)).await?;
        Ok(sockets.state().read_in_place(place, reader))
    }

    /// Takes some of the bytes to be sent, at least one; waits while the peer does not keep up. Cancelling loses nothing.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        write(&self.sockets, self.place, bytes).await
    }

    /// [`Self::write`] if it need not wait.
    pub fn try_write(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let context = Context::from_waker(Waker::noop());
        match poll_write(&mut self.sockets.state(), self.place, bytes, &context) {
            Poll::Ready(result) => result.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    /// Waits until a read would not.
    pub async fn readable(&mut self) -> Result<(), Error> {
        readable(&self.sockets, self.place).await
    }

    /// Whether a read would return at once.
    pub fn is_readable(&self) -> bool {
        is_readable(self.sockets.state().stream(self.place))
    }

    /// Whether a write would return at once.
    pub fn is_writable(&self) -> bool {
        is_writable(self.sockets.state().stream(self.place))
    }

    /// Says that nothing more is sent: FIN follows what was written. Reading goes on.
    pub fn close_write(&mut self) {
        let mut state = self.sockets.state();
        let stream = state.stream(self.place);
        if !core::mem::replace(&mut stream.write_closed, true) && !matches!(stream.phase, Phase::Ended(_)) {
            stream.close_wanted = true;
            state.mark_dirty(self.place);
        }
    }

    /// Ends the connection at once, with a reset.
    pub fn abort(&mut self) {
        let mut state = self.sockets.state();
        let stream = state.stream(self.place);
        stream.write_closed = true;
        stream.received.clear();
        if !matches!(stream.phase, Phase::Ended(_)) {
            stream.abort_wanted = true;
            state.mark_dirty(self.place);
        }
    }

    /// Two halves for two tasks.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        let (sockets, place) = (&self.sockets, self.place);
        (ReadHalf { sockets, place }, WriteHalf { sockets, place })
    }
}

/// The reading half of a stream.
#[derive(Debug)]
pub struct ReadHalf<'s> {
    sockets: &'s Sockets,
    place: Place,
}

impl ReadHalf<'_> {
    /// See [`TcpStream::read`].
    pub async fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        read(self.sockets, self.place, out).await
    }

    /// See [`TcpStream::readable`].
    pub async fn readable(&mut self) -> Result<(), Error> {
        readable(self.sockets, self.place).await
    }
}

/// The writing half of a stream.
#[derive(Debug)]
pub struct WriteHalf<'s> {
    sockets: &'s Sockets,
    place: Place,
}

impl WriteHalf<'_> {
    /// See [`TcpStream::write`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        write(self.sockets, self.place, bytes).await
    }
}

fn is_readable(stream: &Stream) -> bool {
    !stream.received.is_empty() || stream.peer_closed || matches!(stream.phase, Phase::Ended(_))
}

fn is_writable(stream: &Stream) -> bool {
    stream.write_closed || stream.send_room() > 0 || matches!(stream.phase, Phase::Ended(_))
}

async fn readable(sockets: &Sockets, place: Place) -> Result<(), Error> {
    poll_fn(|context| {
        let mut state = sockets.state();
        let stream = state.stream(place);
        if is_readable(stream) {
            return Poll::Ready(Ok(()));
        }
        keep(&mut stream.reader, context);
        Poll::Pending
    })
    .await
}

async fn read(sockets: &Sockets, place: Place, out: &mut [u8]) -> Result<usize, Error> {
    if out.is_empty() {
        return Ok(0);
    }
    poll_fn(|context| poll_readable(&mut sockets.state(), place, context)).await?;
    Ok(sockets.state().read(place, out))
}

/// Waits until there are bytes, or will be none any more.
fn poll_readable(state: &mut State, place: Place, context: &Context<'_>) -> Poll<Result<(), Error>> {
    let stream = state.stream(place);
    if !stream.received.is_empty() {
        return Poll::Ready(Ok(()));
    }
    match stream.phase {
        Phase::Ended(Some(error)) => Poll::Ready(Err(error)),
        Phase::Ended(None) => Poll::Ready(Ok(())),
        _ if stream.peer_closed && !stream.more_in_stack => Poll::Ready(Ok(())),
        _ => {
            keep(&mut stream.reader, context);
            Poll::Pending
        }
    }
}

async fn write(sockets: &Sockets, place: Place, bytes: &[u8]) -> Result<usize, Error> {
    if bytes.is_empty() {
        return Ok(0);
    }
    poll_fn(|context| poll_write(&mut sockets.state(), place, bytes, context)).await
}

/// Takes what there is room for.
fn poll_write(
    state: &mut State,
    place: Place,
    bytes: &[u8],
    context: &Context<'_>,
) -> Poll<Result<usize, Error>> {
    let stream = state.stream(place);
    if let Phase::Ended(error) = stream.phase {
        return Poll::Ready(Err(error.unwrap_or(Error::BrokenPipe)));
    }
    if stream.write_closed {
        return Poll::Ready(Err(Error::BrokenPipe));
    }
    let len = stream.send_room().min(bytes.len());
    if len == 0 && !bytes.is_empty() {
        keep(&mut stream.writer, context);
        return Poll::Pending;
    }
    stream.outgoing.extend_from_slice(&bytes[..len]);
    state.mark_dirty(place);
    Poll::Ready(Ok(len))
}

/// A port that is listened on. Dropping it closes the port; connections that were accepted stay, those that were not are reset.
#[derive(Debug)]
pub struct TcpListener {
    sockets: Sockets,
    id: u32,
    local: Local,
    port: u16,
}

impl TcpListener {
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The addresses at which it listens.
    pub fn local(&self) -> Local {
        self.local
    }

    /// The next connection, and where it comes from.
    pub async fn accept(&self) -> Result<(TcpStream, SocketAddr), Error> {
        poll_fn(|context| {
            let mut state = self.sockets.state();
            let Some(listener) = state.listener(self.id) else {
                return Poll::Ready(Err(Error::AddressNotAvailable));
            };
            if let Some(error) = listener.error {
                return Poll::Ready(Err(error));
            }
            let Some(place) = listener.ready.pop_front() else {
                keep(&mut listener.acceptor, context);
                return Poll::Pending;
            };
            let peer = show(state.stream(place).peer);
            drop(state);
            Poll::Ready(Ok((TcpStream { sockets: self.sockets.clone(), place }, peer)))
        })
        .await
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        let mut state = self.sockets.state();
        let Some(at) = state.listeners.iter().position(|listener| listener.id == self.id) else { return };
        let listener = state.listeners.remove(at);
        // One that was refused, or never asked for, is somebody else's.
        let wish = PortWish::Listen(self.id, self.local, self.port);
        if !state.take_back(wish) && listener.error.is_none() {
            state.ports.push_back(PortWish::Unlisten(self.local, self.port));
        }
        for place in listener.ready {
            state.stream(place).abort_wanted = true;
            state.drop_stream(place);
        }
    }
}

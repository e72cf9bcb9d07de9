//! Sockets whose calls wait: while they do, the network's rounds go on.

mod udp;

use crate::error::Error;
use crate::options::SocketOption;
use crate::state::Sockets;
use crate::tcp;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::Future;
use core::net::{IpAddr, SocketAddr};
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use exos_net::Local;

pub use udp::UdpSocket;

/// What makes the network go on: one round takes what has arrived, sends what is to be sent, and waits for more if neither
/// was the case.
pub trait Rounds {
    /// One round.
    fn round(&mut self);
}

impl<F: FnMut()> Rounds for F {
    fn round(&mut self) {
        self();
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Goes round until the future is done.
pub fn block_on<F: Future>(rounds: &mut impl Rounds, future: F) -> F::Output {
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(flag.clone());
    let mut future = pin!(future);
    loop {
        if flag.0.swap(false, Ordering::Acquire)
            && let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker))
        {
            return output;
        }
        rounds.round();
    }
}

/// The network, for programs that wait in their calls.
#[derive(Debug)]
pub struct Network<R> {
    sockets: Sockets,
    rounds: Rc<RefCell<R>>,
}

impl<R> Clone for Network<R> {
    fn clone(&self) -> Self {
        Self { sockets: self.sockets.clone(), rounds: self.rounds.clone() }
    }
}

impl<R: Rounds> Network<R> {
    /// On sockets whose network is driven by `rounds`.
    pub fn new(sockets: Sockets, rounds: R) -> Self {
        Self { sockets, rounds: Rc::new(RefCell::new(rounds)) }
    }

    fn wait<F: Future>(&self, future: F) -> F::Output {
        block_on(&mut *self.rounds.borrow_mut(), future)
    }

    /// Opens a connection.
    pub fn connect(&self, remote: SocketAddr) -> Result<TcpStream<R>, Error> {
        let stream = self.wait(self.sockets.connect(remote))?;
        Ok(TcpStream { network: self.clone(), stream })
    }

    /// See [`Sockets::resolve`].
    pub fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        self.wait(self.sockets.resolve(name))
    }

    /// See [`Sockets::listen`].
    pub fn listen(&self, port: u16, backlog: usize) -> Result<TcpListener<R>, Error> {
        self.listen_at(Local::Any, port, backlog)
    }

    /// See [`Sockets::listen_at`].
    pub fn listen_at(&self, local: Local, port: u16, backlog: usize) -> Result<TcpListener<R>, Error> {
        Ok(TcpListener { network: self.clone(), listener: self.sockets.listen_at(local, port, backlog)? })
    }
}

/// See [`tcp::TcpStream`].
#[derive(Debug)]
pub struct TcpStream<R> {
    network: Network<R>,
    stream: tcp::TcpStream,
}

impl<R: Rounds> TcpStream<R> {
    /// The other end.
    pub fn peer_addr(&self) -> SocketAddr {
        self.stream.peer_addr()
    }

    /// See [`tcp::TcpStream::local_addr`].
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr()
    }

    /// See [`tcp::TcpStream::take_error`].
    pub fn take_error(&mut self) -> Option<Error> {
        self.stream.take_error()
    }

    /// See [`tcp::TcpStream::peek`].
    pub fn peek(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        self.network.wait(self.stream.peek(out))
    }

    /// See [`tcp::TcpStream::set`].
    pub fn set(&mut self, option: SocketOption) {
        self.stream.set(option);
    }

    /// See [`tcp::TcpStream::close_write`].
    pub fn close_write(&mut self) {
        self.stream.close_write();
    }

    /// See [`tcp::TcpStream::abort`].
    pub fn abort(&mut self) {
        self.stream.abort();
    }
}

impl<R> ErrorType for TcpStream<R> {
    type Error = Error;
}

impl<R: Rounds> Read for TcpStream<R> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        self.network.wait(self.stream.read(buf))
    }
}

impl<R: Rounds> Write for TcpStream<R> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, Error> {
        self.network.wait(self.stream.write(buf))
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl<R: Rounds> ReadReady for TcpStream<R> {
    fn read_ready(&mut self) -> Result<bool, Error> {
        Ok(self.stream.is_readable())
    }
}

impl<R: Rounds> WriteReady for TcpStream<R> {
    fn write_ready(&mut self) -> Result<bool, Error> {
        Ok(self.stream.is_writable())
    }
}

/// See [`tcp::TcpListener`].
#[derive(Debug)]
pub struct TcpListener<R> {
    network: Network<R>,
    listener: tcp::TcpListener,
}

impl<R: Rounds> TcpListener<R> {
    /// The next connection, and where it comes from.
    pub fn accept(&self) -> Result<(TcpStream<R>, SocketAddr), Error> {
        let (stream, peer) = self.network.wait(self.listener.accept())?;
        Ok((TcpStream { network: self.network.clone(), stream }, peer))
    }
}

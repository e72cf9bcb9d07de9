//! Sockets of the host, none of which ever blocks. An edge to system calls.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, connect as connect_to, listen as listen_on,
    setsockopt, socket, sockopt,
};
use std::os::fd::AsRawFd;

/// Descriptors that a network may need: one a connection, some UDP sockets, and what the process has besides.
const DESCRIPTORS: u64 = 4096;

/// Lets this process have as many descriptors open as a network may need, as far as the host allows it. It is the process's
/// business, so nobody but the process's owner should call it.
pub fn allow_descriptors() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = DESCRIPTORS.min(hard);
    // With fewer, clients wait for a place; the log says so when it happens.
    if soft < wanted {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
    }
}

/// A TCP port that is listened on.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // Accepted sockets inherit it: whole segments come from the guest, there is nothing to wait for.
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    // As many clients as the host lets wait: they come a thousand at a time.
    listen_on(&listener, Backlog::MAXALLOWABLE)?;
    Ok(listener)
}

/// The next client.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Whether there is something to read, or a client to accept.
pub(crate) fn is_readable(socket: impl AsFd) -> bool {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// A TCP connection that is being made: it becomes writable when it is there, or has failed.
pub(crate) fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    match connect_to(fd.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(fd)),
        Err(error) => Err(error.into()),
    }
}

/// A UDP socket that sends to and hears from `target` only.
pub(crate) fn connect_udp(target: SocketAddr) -> io::Result<UdpSocket> {
    let any = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = bind_udp(SocketAddr::new(any, 0))?;
    socket.connect(target)?;
    Ok(socket)
}

/// A UDP socket that is bound.
pub(crate) fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

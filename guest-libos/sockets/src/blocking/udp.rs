//! UDP sockets whose calls wait.

use super::{Network, Rounds};
use crate::error::Error;
use crate::udp::{self, Received, UdpOption};
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use exos_net::{Local, Problem};

/// See [`udp::UdpSocket`].
#[derive(Debug)]
pub struct UdpSocket<R> {
    network: Network<R>,
    socket: udp::UdpSocket,
}

impl<R: Rounds> Network<R> {
    /// See [`crate::Sockets::bind_udp`].
    pub fn bind_udp(&self, local: SocketAddr) -> Result<UdpSocket<R>, Error> {
        Ok(UdpSocket { network: self.clone(), socket: self.sockets.bind_udp(local)? })
    }

    /// See [`crate::Sockets::bind_udp_at`].
    pub fn bind_udp_at(&self, local: Local, port: u16) -> Result<UdpSocket<R>, Error> {
        Ok(UdpSocket { network: self.clone(), socket: self.sockets.bind_udp_at(local, port)? })
    }

    /// See [`crate::Sockets::connect_udp`].
    pub fn connect_udp(&self, peer: SocketAddr) -> Result<UdpSocket<R>, Error> {
        Ok(UdpSocket { network: self.clone(), socket: self.sockets.connect_udp(peer)? })
    }
}

impl<R: Rounds> UdpSocket<R> {
    /// See [`udp::UdpSocket::connect`].
    pub fn connect(&mut self, peer: SocketAddr) -> Result<(), Error> {
        self.socket.connect(peer)
    }

    /// See [`udp::UdpSocket::disconnect`].
    pub fn disconnect(&mut self) {
        self.socket.disconnect();
    }

    /// See [`udp::UdpSocket::local_addr`].
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    /// See [`udp::UdpSocket::peer_addr`].
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.socket.peer_addr()
    }

    /// See [`udp::UdpSocket::set`].
    pub fn set(&mut self, option: UdpOption) {
        self.socket.set(option);
    }

    /// See [`udp::UdpSocket::join_multicast_v4`].
    pub fn join_multicast_v4(&mut self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<(), Error> {
        self.socket.join_multicast_v4(group, interface)
    }

    /// See [`udp::UdpSocket::leave_multicast_v4`].
    pub fn leave_multicast_v4(&mut self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<(), Error> {
        self.socket.leave_multicast_v4(group, interface)
    }

    /// See [`udp::UdpSocket::join_multicast_v6`].
    pub fn join_multicast_v6(&mut self, group: Ipv6Addr, interface: u32) -> Result<(), Error> {
        self.socket.join_multicast_v6(group, interface)
    }

    /// See [`udp::UdpSocket::leave_multicast_v6`].
    pub fn leave_multicast_v6(&mut self, group: Ipv6Addr, interface: u32) -> Result<(), Error> {
        self.socket.leave_multicast_v6(group, interface)
    }

    /// See [`udp::UdpSocket::take_error`].
    pub fn take_error(&mut self) -> Option<Error> {
        self.socket.take_error()
    }

    /// See [`udp::UdpSocket::take_problem`].
    pub fn take_problem(&mut self) -> Option<(SocketAddr, Problem)> {
        self.socket.take_problem()
    }

    /// See [`udp::UdpSocket::dropped`].
    pub fn dropped(&self) -> u64 {
        self.socket.dropped()
    }

    /// See [`udp::UdpSocket::send`].
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        self.network.wait(self.socket.send(bytes))
    }

    /// See [`udp::UdpSocket::send_to`].
    pub fn send_to(&mut self, bytes: &[u8], to: SocketAddr) -> Result<usize, Error> {
        self.network.wait(self.socket.send_to(bytes, to))
    }

    /// See [`udp::UdpSocket::recv`].
    pub fn recv(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        self.network.wait(self.socket.recv(out))
    }

    /// See [`udp::UdpSocket::recv_from`].
    pub fn recv_from(&mut self, out: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        self.network.wait(self.socket.recv_from(out))
    }

    /// See [`udp::UdpSocket::receive`].
    pub fn receive(&mut self, out: &mut [u8]) -> Result<Received, Error> {
        self.network.wait(self.socket.receive(out))
    }

    /// See [`udp::UdpSocket::peek`].
    pub fn peek(&mut self, out: &mut [u8]) -> Result<Received, Error> {
        self.network.wait(self.socket.peek(out))
    }

    /// See [`udp::UdpSocket::try_send_to`].
    pub fn try_send_to(&mut self, bytes: &[u8], to: SocketAddr) -> Result<Option<usize>, Error> {
        self.socket.try_send_to(bytes, to)
    }

    /// See [`udp::UdpSocket::try_receive`].
    pub fn try_receive(&mut self, out: &mut [u8]) -> Result<Option<Received>, Error> {
        self.socket.try_receive(out)
    }
}

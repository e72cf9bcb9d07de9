//! `edge-nal`'s traits for UDP.

use crate::datagrams::UdpPlace;
use crate::error::Error;
use crate::groups::{join, leave, on_interface_v4, on_interface_v6};
use crate::state::Sockets;
use crate::udp::{UdpReceiveHalf, UdpSendHalf, UdpSocket};
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use edge_nal::{
    MulticastV4, MulticastV6, Readable, UdpBind, UdpConnect, UdpReceive, UdpSend, UdpSplit, UdpSplitMulticast,
};
use embedded_io_async::ErrorType;

/// Joins and leaves groups for a socket whose halves are somewhere else.
#[derive(Debug)]
pub struct UdpGroups<'s> {
    sockets: &'s Sockets,
    place: UdpPlace,
}

impl ErrorType for UdpSocket {
    type Error = Error;
}

impl ErrorType for UdpReceiveHalf<'_> {
    type Error = Error;
}

impl ErrorType for UdpSendHalf<'_> {
    type Error = Error;
}

impl ErrorType for UdpGroups<'_> {
    type Error = Error;
}

/// The length is the datagram's, of which the buffer holds as much as fits. Cancelling loses nothing.
impl UdpReceive for UdpSocket {
    async fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        let received = Self::receive(self, buffer).await?;
        Ok((received.datagram_bytes, received.from))
    }
}

impl UdpReceive for UdpReceiveHalf<'_> {
    async fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        let received = Self::receive(self, buffer).await?;
        Ok((received.datagram_bytes, received.from))
    }
}

/// A connected socket sends to its peer, whatever `remote` is.
impl UdpSend for UdpSocket {
    async fn send(&mut self, remote: SocketAddr, data: &[u8]) -> Result<(), Error> {
        self.split().1.send_anywhere(remote, data).await
    }
}

impl UdpSend for UdpSendHalf<'_> {
    async fn send(&mut self, remote: SocketAddr, data: &[u8]) -> Result<(), Error> {
        self.send_anywhere(remote, data).await
    }
}

impl UdpSendHalf<'_> {
    async fn send_anywhere(&mut self, remote: SocketAddr, data: &[u8]) -> Result<(), Error> {
        let is_connected = self.sockets.state().udp.socket(self.place).peer.is_some();
        if is_connected {
            self.send(data).await?
        } else {
            self.send_to(data, remote).await?
        };
        Ok(())
    }
}

impl Readable for UdpSocket {
    async fn readable(&mut self) -> Result<(), Error> {
        Self::readable(self).await
    }
}

impl Readable for UdpReceiveHalf<'_> {
    async fn readable(&mut self) -> Result<(), Error> {
        Self::readable(self).await
    }
}

impl UdpSplit for UdpSocket {
    type Receive<'a> = UdpReceiveHalf<'a>;
    type Send<'a> = UdpSendHalf<'a>;

    fn split(&mut self) -> (UdpReceiveHalf<'_>, UdpSendHalf<'_>) {
        Self::split(self)
    }
}

impl UdpSplitMulticast for UdpSocket {
    type MulticastV4<'a> = UdpGroups<'a>;
    type MulticastV6<'a> = UdpGroups<'a>;

    fn split_multicast(&mut self) -> (UdpReceiveHalf<'_>, UdpSendHalf<'_>, UdpGroups<'_>, UdpGroups<'_>) {
        let (sockets, place) = (&self.sockets, self.place);
        let groups = || UdpGroups { sockets, place };
        (UdpReceiveHalf { sockets, place }, UdpSendHalf { sockets, place }, groups(), groups())
    }
}

impl MulticastV4 for UdpGroups<'_> {
    async fn join_v4(&mut self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<(), Error> {
        join(self.sockets, self.place, on_interface_v4(self.sockets, group, interface)?)
    }

    async fn leave_v4(&mut self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<(), Error> {
        leave(self.sockets, self.place, on_interface_v4(self.sockets, group, interface)?)
    }
}

impl MulticastV6 for UdpGroups<'_> {
    async fn join_v6(&mut self, group: Ipv6Addr, interface: u32) -> Result<(), Error> {
        join(self.sockets, self.place, on_interface_v6(group, interface)?)
    }

    async fn leave_v6(&mut self, group: Ipv6Addr, interface: u32) -> Result<(), Error> {
        leave(self.sockets, self.place, on_interface_v6(group, interface)?)
    }
}

impl MulticastV4 for UdpSocket {
    async fn join_v4(&mut self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<(), Error> {
        self.join_multicast_v4(group, interface)
    }

    async fn leave_v4(&mut self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<(), Error> {
        self.leave_multicast_v4(group, interface)
    }
}

impl MulticastV6 for UdpSocket {
    async fn join_v6(&mut self, group: Ipv6Addr, interface: u32) -> Result<(), Error> {
        self.join_multicast_v6(group, interface)
    }

    async fn leave_v6(&mut self, group: Ipv6Addr, interface: u32) -> Result<(), Error> {
        self.leave_multicast_v6(group, interface)
    }
}

impl UdpBind for Sockets {
    type Error = Error;
    type Socket<'a> = UdpSocket;

    async fn bind(&self, local: SocketAddr) -> Result<UdpSocket, Error> {
        self.bind_udp(local)
    }
}

impl UdpConnect for Sockets {
    type Error = Error;
    type Socket<'a> = UdpSocket;

    async fn connect(&self, local: SocketAddr, remote: SocketAddr) -> Result<UdpSocket, Error> {
        let mut socket = self.bind_udp(local)?;
        socket.connect(remote)?;
        Ok(socket)
    }
}

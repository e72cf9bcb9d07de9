//! Groups that UDP sockets are in. A socket hears those that it has joined itself, whatever others have (IP_MULTICAST_ALL is
//! off), and those that everybody on the link is in.

use crate::address::INTERFACE;
use crate::datagrams::UdpPlace;
use crate::error::Error;
use crate::state::{PortWish, Sockets, State};
use crate::udp::UdpSocket;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl UdpSocket {
    /// Hears a group from now on, and has routers and switches told of it; dropping the socket leaves it. `interface` is our
    /// address or 0.0.0.0.
    pub fn join_multicast_v4(&mut self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<(), Error> {
        join(&self.sockets, self.place, on_interface_v4(&self.sockets, group, interface)?)
    }

    /// Hears it no more.
    pub fn leave_multicast_v4(&mut self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<(), Error> {
        leave(&self.sockets, self.place, on_interface_v4(&self.sockets, group, interface)?)
    }

    /// The same for a group of IPv6's; `interface` is [`INTERFACE`] or 0.
    pub fn join_multicast_v6(&mut self, group: Ipv6Addr, interface: u32) -> Result<(), Error> {
        join(&self.sockets, self.place, on_interface_v6(group, interface)?)
    }

    /// Hears it no more.
    pub fn leave_multicast_v6(&mut self, group: Ipv6Addr, interface: u32) -> Result<(), Error> {
        leave(&self.sockets, self.place, on_interface_v6(group, interface)?)
    }
}

/// The group, if that is our interface.
pub(crate) fn on_interface_v4(
    sockets: &Sockets,
    group: Ipv4Addr,
    interface: Ipv4Addr,
) -> Result<IpAddr, Error> {
    if interface.is_unspecified() || (!interface.is_loopback() && sockets.state().link.has(interface.into()))
    {
        return Ok(group.into());
    }
    Err(Error::NoSuchInterface)
}

/// The same by its number.
pub(crate) fn on_interface_v6(group: Ipv6Addr, interface: u32) -> Result<IpAddr, Error> {
    if matches!(interface, 0 | INTERFACE) { Ok(group.into()) } else { Err(Error::NoSuchInterface) }
}

/// A socket joins a group.
pub(crate) fn join(sockets: &Sockets, place: UdpPlace, group: IpAddr) -> Result<(), Error> {
    let mut state = sockets.state();
    let is_nobodys = match group {
        IpAddr::V4(group) => group.octets() == [224, 0, 0, 0],
        IpAddr::V6(group) => group.octets()[1] & 0x0f == 0,
    };
    if !group.is_multicast() || is_nobodys || !state.link.has_groups(group.is_ipv6()) {
        return Err(Error::AddressNotAvailable);
    }
    let max = state.link.max_groups();
    if state.udp.join(place, group, max)? {
        state.ports.push_back(PortWish::Join(group));
    }
    Ok(())
}

/// A socket leaves a group.
pub(crate) fn leave(sockets: &Sockets, place: UdpPlace, group: IpAddr) -> Result<(), Error> {
    let mut state = sockets.state();
    if state.udp.leave(place, group)? {
        state.left(group);
    }
    Ok(())
}

impl State {
    /// The last socket has left a group.
    fn left(&mut self, group: IpAddr) {
        if !self.take_back(PortWish::Join(group)) {
            self.ports.push_back(PortWish::Leave(group));
        }
    }

    /// Nobody holds the socket any more.
    pub(crate) fn leave_all(&mut self, place: UdpPlace) {
        for group in core::mem::take(&mut self.udp.socket(place).groups) {
            if self.udp.release(group) {
                self.left(group);
            }
        }
    }
}

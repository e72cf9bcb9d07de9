//! Frames put on the wire by hand, past the host's network stack: an AF_PACKET socket on a guest's TAP (packet(7)).

use crate::Interface;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A socket that sends whole Ethernet frames from the host to the guest.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// To the guest behind this interface. Needs CAP_NET_RAW, which root of a user namespace has there.
    pub fn open(interface: &Interface) -> io::Result<Self> {
        // This socket receives nothing.
        Self::with_protocol(interface, 0)
    }

    /// One that hears the guest's IPv4 packets, too.
    pub fn hearing_ipv4(interface: &Interface) -> io::Result<Self> {
        Self::with_protocol(interface, libc::ETH_P_IP as u16)
    }

    fn with_protocol(interface: &Interface, protocol: u16) -> io::Result<Self> {
        let name = CString::new(interface.name())?;
        // SAFETY: the name ends with NUL and lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let (kind, protocol) = (libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.to_be());
        // SAFETY: no pointers are passed.
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol)) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: zero is a value of every member of this plain C structure.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        (address.sll_family, address.sll_protocol) = (libc::AF_PACKET as u16, protocol);
        address.sll_ifindex = index as i32;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is a sockaddr_ll of the length given, and lives through the call.
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket })
    }

    /// Sends a frame. A full queue, or a frame that the host refuses, is an error that a test of garbage may ignore.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the frame is readable for its length during the call.
        let sent = unsafe {
            libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits until there is a frame to be received. `false`: none came.
    pub fn wait(&self, patience: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives through the call.
        unsafe { libc::poll(&raw mut poll, 1, patience.as_millis() as i32) > 0 }
    }

    /// Receives the next frame, as much of it as fits; `None`: there is none now.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let (to, size) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the buffer is writable for its length during the call.
        let len = unsafe { libc::recv(self.socket.as_raw_fd(), to, size, libc::MSG_DONTWAIT) };
        usize::try_from(len).ok().map(|len| &buffer[..len])
    }
}

/// Makes the checksum of a TCP segment right, in a packet whose IPv4 header has no options (RFC 9293 3.1).
pub fn set_tcp_checksum(packet: &mut [u8]) {
    packet[36..38].copy_from_slice(&[0, 0]);
    let words = packet[12..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let pseudo_header = words.sum::<u32>() + 6 + (packet.len() - 20) as u32;
    let checksum = internet_checksum(&packet[20..], pseudo_header);
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
}

/// The Internet checksum (RFC 1071) of these bytes, on top of a sum of 16-bit words.
pub fn internet_checksum(bytes: &[u8], initial: u32) -> u16 {
    let mut sum = initial;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

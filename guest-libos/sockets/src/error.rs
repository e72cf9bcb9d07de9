//! Why a call on a socket failed.

use core::fmt;
use embedded_io::ErrorKind;
use exos_dns::Failure;
use exos_net::End;

/// Why a call on a socket failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nobody listens there.
    Refused,
    /// No way to the host.
    Unreachable,
    /// The peer reset the connection.
    Reset,
    /// The peer stopped answering.
    TimedOut,
    /// The writing side is closed, or the connection has ended.
    BrokenPipe,
    /// The port is in use.
    AddressInUse,
    /// Port 0 cannot be listened on or sent to, or the address is not ours.
    AddressNotAvailable,
    /// We lost our address, and the connection with it.
    AddressLost,
    /// No place for another connection or another UDP port, or no source port.
    TooMany,
    /// Not with this stack.
    Unsupported,
    /// The datagram is larger than any may be, or than its path takes and fragments were forbidden.
    TooLarge,
    /// The socket is not connected, and nobody was named.
    NotConnected,
    /// Broadcasts have not been allowed for this socket.
    BroadcastNotAllowed,
    /// The scope of a link-local address is not the interface's.
    NoSuchInterface,
    /// The name has no addresses, or nobody says which.
    Name(Failure),
}

impl Error {
    /// What the end of a connection means for whoever reads from it; `None` is the end of the stream.
    pub(crate) fn of_end(end: End) -> Option<Self> {
        match end {
            End::Closed => None,
            End::Reset => Some(Self::Reset),
            End::TimedOut => Some(Self::TimedOut),
            End::Refused => Some(Self::Refused),
            End::Unreachable => Some(Self::Unreachable),
            End::AddressLost => Some(Self::AddressLost),
            // We did it, and the peer is no more to be spoken to than after its own.
            End::OptimisticAck => Some(Self::Reset),
            End::Cancelled => Some(Self::BrokenPipe),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name(failure) => return failure.fmt(f),
            Self::Refused => "connection refused: nobody listens on this port",
            Self::Unreachable => {
                "host unreachable: nobody on the link answers for it, or there is no gateway"
            }
            Self::Reset => "connection reset by the peer",
            Self::TimedOut => "timed out: the peer stopped answering",
            Self::BrokenPipe => "broken pipe: the sending side is closed",
            Self::AddressInUse => "address in use: close the other socket or choose another port",
            Self::AddressNotAvailable => {
                "address not available: use our own or the unspecified one, and a port above 0"
            }
            Self::AddressLost => "our address was lost, and the connection with it: connect again",
            Self::TooMany => {
                "too many connections or ports: close some, or raise max_connections or max_udp_ports"
            }
            Self::Unsupported => "not supported by this stack",
            Self::TooLarge => "datagram too large: send less, or allow fragments",
            Self::NotConnected => "not connected: connect the socket, or name the receiver",
            Self::BroadcastNotAllowed => "broadcasts are not allowed: set UdpOption::Broadcast first",
            Self::NoSuchInterface => "no such interface: the scope of a link-local address is 1, or 0",
        })
    }
}

impl core::error::Error for Error {}

impl embedded_io::Error for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused => ErrorKind::ConnectionRefused,
            Self::Unreachable => ErrorKind::NotConnected,
            Self::Reset => ErrorKind::ConnectionReset,
            Self::TimedOut => ErrorKind::TimedOut,
            Self::BrokenPipe => ErrorKind::BrokenPipe,
            Self::AddressInUse => ErrorKind::AddrInUse,
            Self::AddressNotAvailable => ErrorKind::AddrNotAvailable,
            Self::AddressLost => ErrorKind::ConnectionAborted,
            Self::TooMany => ErrorKind::OutOfMemory,
            Self::Unsupported => ErrorKind::Unsupported,
            Self::TooLarge => ErrorKind::InvalidInput,
            Self::NotConnected => ErrorKind::NotConnected,
            Self::BroadcastNotAllowed => ErrorKind::PermissionDenied,
            Self::NoSuchInterface => ErrorKind::AddrNotAvailable,
            Self::Name(Failure::BadName) => ErrorKind::InvalidInput,
            Self::Name(Failure::TimedOut) => ErrorKind::TimedOut,
            Self::Name(Failure::NoSuchName | Failure::NoAddress) => ErrorKind::NotFound,
            Self::Name(_) => ErrorKind::Other,
        }
    }
}

//! One rtnetlink request and its acknowledgement (RFC 3549, rtnetlink(7)). Each request opens its own socket: these are
//! settings made a few times a run, and a socket that lives for one request belongs to the caller's network namespace.

use crate::NetnsError;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;

/// Why a request did not take effect.
pub(crate) enum RequestError {
    /// The kernel, or the socket, said no.
    Refused(io::Error),
    /// The answer makes no sense.
    Unreadable(String),
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        RequestError::Refused(error)
    }
}

impl RequestError {
    /// As an error about `interface`; `action` follows the word "cannot".
    pub(crate) fn about(self, interface: &str, action: impl Into<String>) -> NetnsError {
        match self {
            RequestError::Refused(source) => {
                NetnsError::Interface { action: action.into(), interface: interface.to_owned(), source }
            }
            RequestError::Unreadable(text) => NetnsError::Netlink(text),
        }
    }
}

/// Sends `message` and waits until the kernel has acknowledged or refused it.
pub(crate) fn request(message: RouteNetlinkMessage, extra_flags: u16) -> Result<(), RequestError> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | extra_flags;
    header.sequence_number = 1;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| RequestError::Unreadable(error.to_string()))?;
    match answer.payload {
        // RFC 3549 2.3.2.1: an error message with code zero is the acknowledgement.
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => Err(RequestError::Refused(error.to_io())),
        other => Err(RequestError::Unreadable(format!("expected an acknowledgement, got {other:?}"))),
    }
}

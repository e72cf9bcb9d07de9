//! What the stack tells the application: connection identifiers, what a segment meant, how a connection ended.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use alloc::borrow::Cow;

use crate::frame::ControlFrame;
use crate::wire::ethernet::MacAddress;
use crate::wire::icmp::Problem;

/// A connection. Checked by generation: once the connection has ended, the identifier is refused everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// A small number, below `Config::max_connections`, that no other living connection has: the application keeps its
    /// state of a connection in a slab of its own at this place.
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// Tells connections apart that had the same index one after the other.
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

/// What became of a received frame.
#[derive(Debug)]
#[must_use = "a reply must be sent and events must be handled"]
pub enum Input<'f> {
    /// Dropped or consumed; a counter says why.
    Nothing,
    /// Answer with this frame; no application is concerned (ARP, echo, SYN-ACK, RST, challenge ACK).
    Reply(ControlFrame<'f>),
    /// A segment of a connection: what happened, and whether an acknowledgment is owed.
    Segment(SegmentEvents<'f>),
    /// A UDP datagram for a port that was bound by `Stack::bind_udp`.
    Datagram(Datagram<'f>),
    /// A datagram that was sent from such a port did not arrive, says a router or its receiver.
    DatagramError(DatagramError),
}

/// A UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram<'f> {
    /// Who sent it. Nothing proves that; port 0 wants no answer.
    pub from: SocketAddr,
    /// Our address, or the group or broadcast address that it was sent to, and the bound port.
    pub to: SocketAddr,
    /// The data: lent from the frame, or owned if it came in fragments.
    pub payload: Cow<'f, [u8]>,
}

/// What came of a datagram. Anybody can make it up: a hint, not a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramError {
    /// The address of ours that it was sent from.
    pub from: IpAddr,
    /// The port that it was sent from.
    pub port: u16,
    /// Whom it was sent to.
    pub to: SocketAddr,
    /// Why it did not arrive.
    pub problem: Problem,
}

/// What one segment meant for its connection. Handle the fields from the top down; then, unless `ended` is set, call
/// `Stack::output` if `output_due` or the application has queued something.
#[derive(Debug)]
pub struct SegmentEvents<'f> {
    /// The connection.
    pub conn: ConnId,
    /// The handshake is complete: the connection is new to the application. Reported once.
    pub opened: bool,
    /// Bytes acknowledged by the peer with this segment.
    pub acked_bytes: u32,
    /// With this segment, the bytes queued and not acknowledged fell to the connection's low-water mark: all of them have
    /// arrived, unless `Stack::set_low_water` set another mark.
    pub low_water: bool,
    /// New bytes in order, lent from the frame. What is not given back by `Stack::keep` counts as consumed.
    pub data: &'f [u8],
    /// New bytes in order went to the connection's buffer, because older ones wait there: see `Stack::pending`. Never
    /// together with `data`.
    pub readable: bool,
    /// The peer has announced urgent data, or more of it than before (RFC 9293 3.8.5): `Stack::urgent_bytes` says how much
    /// of the stream is still to be read until its end.
    pub urgent: bool,
    /// The peer has sent all it will send (FIN), reported once. Sending is still possible.
    pub peer_closed: bool,
    /// The connection is gone and so is its identifier. Reported once, here or by `Stack::expire`. Data that came with
    /// it cannot be kept.
    pub ended: Option<End>,
    /// To be sent: the acknowledgment of the peer's FIN, when the connection has ended with it and only a TIME-WAIT
    /// record is left; or the RST for a peer that acknowledged what it cannot have.
    pub last_ack: Option<ControlFrame<'static>>,
    /// An ICMP error about something on its way. The connection lives on and sends again: nothing has to be done, but a
    /// user may want to know (RFC 9293 3.9.1.8).
    pub problem: Option<Problem>,
    /// Whether an acknowledgment is owed for this segment.
    pub reply: AckDue,
    /// `Stack::output` has something to send now: data that a window has opened for, a retransmission.
    pub output_due: bool,
}

/// What one segment meant, as far as its connection knows and is not at its end: see [`SegmentEvents`].
#[derive(Debug, Default)]
pub(crate) struct Happened<'f> {
    pub(crate) opened: bool,
    pub(crate) acked_bytes: u32,
    pub(crate) low_water: bool,
    pub(crate) data: &'f [u8],
    pub(crate) readable: bool,
    pub(crate) urgent: bool,
    pub(crate) peer_closed: bool,
    pub(crate) reply: AckDue,
    pub(crate) output_due: bool,
}

impl<'f> Happened<'f> {
    /// It happened on `conn`.
    #[inline]
    pub(crate) fn on(&self, conn: ConnId) -> SegmentEvents<'f> {
        SegmentEvents {
            conn,
            opened: self.opened,
            acked_bytes: self.acked_bytes,
            low_water: self.low_water,
            data: self.data,
            readable: self.readable,
            urgent: self.urgent,
            peer_closed: self.peer_closed,
            ended: None,
            last_ack: None,
            problem: None,
            reply: self.reply,
            output_due: self.output_due,
        }
    }
}

impl SegmentEvents<'_> {
    /// Nothing happened on `conn`.
    pub(crate) fn none(conn: ConnId) -> Self {
        Happened::default().on(conn)
    }

    /// The same without the data.
    pub(crate) fn without_data<'f>(self) -> SegmentEvents<'f> {
        SegmentEvents {
            conn: self.conn,
            opened: self.opened,
            acked_bytes: self.acked_bytes,
            low_water: self.low_water,
            data: &[],
            readable: self.readable,
            peer_closed: self.peer_closed,
            ended: self.ended,
            last_ack: self.last_ack,
            reply: self.reply,
            output_due: self.output_due,
            problem: self.problem,
            urgent: self.urgent,
        }
    }
}

/// The acknowledgment a segment asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AckDue {
    /// None is owed.
    #[default]
    None,
    /// One is owed but may wait for data to ride on; a timer sends it at the latest.
    Delayed,
    /// RFC 9293 or 5681 asks for one at once; data sent now carries it as well.
    Now,
}

/// What `Stack::output` does with an acknowledgment that is owed when there was no data to carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckPolicy {
    /// Wait for data; the delayed-ACK timer sends it at the latest.
    Merge,
    /// Send it if it is due now, leave a delayed one to wait.
    IfDue,
    /// Send whatever is owed.
    Now,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides closed; all data was acknowledged.
    Closed,
    /// The peer sent a valid RST.
    Reset,
    /// Nobody listens there: the answer to our SYN was a RST.
    Refused,
    /// The host or its network cannot be reached: nobody on the link answers for it, or a router says so.
    Unreachable,
    /// The peer stopped answering: the user timeout, FIN-WAIT-2's or the idle timeout; or it was silent and gave way.
    TimedOut,
    /// Our address was given up or removed; the peer has not been told.
    AddressLost,
    /// The peer acknowledged what it cannot have received: a segment that was withheld to find that out.
    OptimisticAck,
    /// We closed it before our SYN was answered: what was queued has not left (RFC 9293 3.10.4, "connection closing").
    Cancelled,
}

/// Somebody else has our address, or the one that we wanted (RFC 5227; RFC 4862 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressConflict {
    /// The address.
    pub address: IpAddr,
    /// The other one's Ethernet address.
    pub by: MacAddress,
    /// What came of it.
    pub outcome: ConflictOutcome,
}

/// What came of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictOutcome {
    /// We keep the address: one of us must get another.
    Kept,
    /// We do not use it, or no more: who leased it declines it.
    GivenUp,
}

/// A connection that gave way.
#[derive(Debug)]
pub struct Evicted {
    /// Which one; the identifier is stale already.
    pub conn: ConnId,
    /// To be sent, so that the peer knows.
    pub reset: Option<ControlFrame<'static>>,
}

/// What a timer did that an application must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimerEvent {
    /// The connection is gone and so is its identifier.
    Ended(End),
    /// Data was sent again three times without an acknowledgment (RFC 9293 3.8.3, R1); the stack goes on until the user
    /// timeout. Said once until something is acknowledged; nothing has to be done.
    Retransmitting,
}

/// What `Stack::output` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Segments handed to the driver.
    pub segments: u32,
    /// Payload bytes in them.
    pub bytes: usize,
    /// The driver was full before all was sent: call `Stack::retry_blocked` when it has room again.
    pub blocked: bool,
}

/// The connection has ended: forget the identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleConnection;

impl fmt::Display for StaleConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection has ended; drop its identifier when an event says so")
    }
}

impl core::error::Error for StaleConnection {}

/// Why data was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The connection has ended.
    Stale,
    /// `Stack::close` was called before: nothing can follow the FIN.
    Closing,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stale => "the connection has ended; drop its identifier when an event says so",
            Self::Closing => "the sending side is closed; send before calling close",
        })
    }
}

impl core::error::Error for SendError {}

/// Why bytes could not be given back by `Stack::keep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepError {
    /// The connection has ended.
    Stale,
    /// More bytes than the last segment lent, or the connection has received since.
    NotLent,
    /// `Config::max_buffered_bytes` is in use. The bytes count as consumed; without them the connection is of no use.
    NoBuffer,
}

impl fmt::Display for KeepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stale => "the connection has ended; drop its identifier when an event says so",
            Self::NotLent => {
                "only the tail of the data just lent can be kept; call keep before the next input"
            }
            Self::NoBuffer => {
                "all receive buffers are in use; abort the connection, or raise max_buffered_bytes"
            }
        })
    }
}

impl core::error::Error for KeepError {}

/// Why a connection was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// Port 0 cannot be connected to.
    PortZero,
    /// The address is our own, a broadcast, a multicast or no host's at all.
    NotAHost,
    /// We have no address yet, or no more.
    NoAddress,
    /// The address is beyond our link, and there is no gateway.
    NoRoute,
    /// `Config::max_connections` are in use.
    ConnectionsFull,
    /// All source ports to this destination are in use, or in TIME-WAIT.
    PortsInUse,
    /// The local address is none of ours, or of the other family.
    NotOurAddress,
    /// Whether the local address can be ours is still being found out.
    AddressTentative,
    /// The local address reaches its link only, and the destination may lie beyond it (RFC 4007).
    BeyondScope,
    /// There is a connection between these addresses and ports, or its TIME-WAIT record.
    Exists,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PortZero => "port 0 cannot be connected to; choose one from 1 to 65535",
            Self::NotAHost => "the address is not another host's; choose a unicast address that is not our own",
            Self::NoAddress => "we have no address of our own; wait until there is one",
            Self::NoRoute => "the address is beyond our link and there is no gateway; set one",
            Self::ConnectionsFull => "too many connections; close some, or raise max_connections",
            Self::PortsInUse => {
                "all source ports to this destination are in use; wait for TIME-WAIT to pass, keep connections open, or \
                 widen ephemeral_ports"
            }
            Self::NotOurAddress => {
                "the local address is not ours; name one that is, of the destination's family, or leave it unspecified"
            }
            Self::AddressTentative => {
                "others are still being asked whether they have the local address; try again in a second"
            }
            Self::BeyondScope => {
                "a link-local address reaches this link only; name another address of ours, or leave it unspecified"
            }
            Self::Exists => {
                "there is such a connection, or it is in TIME-WAIT; name another local port, or leave it 0"
            }
        })
    }
}

impl core::error::Error for ConnectError {}

/// Why a port was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenError {
    /// Port 0 cannot be listened on.
    PortZero,
    /// The port is open already.
    InUse,
    /// The address to listen at is none of ours.
    NotOurAddress,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PortZero => "port 0 cannot be listened on; choose one from 1 to 65535",
            Self::InUse => "the port is open already; close it first or choose another",
            Self::NotOurAddress => "the address is not ours; name one that is, or listen on all of them",
        })
    }
}

impl core::error::Error for ListenError {}

/// Why a port was not bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindError {
    /// Port 0 cannot be bound.
    PortZero,
    /// The port is bound already.
    InUse,
    /// `Config::max_udp_ports` are bound.
    TooMany,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PortZero => "port 0 cannot be bound; choose one from 1 to 65535",
            Self::InUse => "the port is bound already; unbind it first or choose another",
            Self::TooMany => "too many ports are bound; unbind one, or raise max_udp_ports",
        })
    }
}

impl core::error::Error for BindError {}

/// Why a datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendDatagramError {
    /// The port was not bound by `Stack::bind_udp`.
    NotBound,
    /// The receiver's port is 0.
    PortZero,
    /// We have no address yet, or no more.
    NoAddress,
    /// The receiver is not a host that we can reach.
    NoRoute,
    /// The datagram is larger than its path takes, or than any can be.
    TooLarge {
        /// The largest payload.
        max_bytes: u16,
    },
    /// The next hop's Ethernet address is not known; it has been asked for.
    Unresolved,
    /// The driver is full.
    Full,
}

impl fmt::Display for SendDatagramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBound => f.write_str("the port is not bound; call bind_udp first"),
            Self::PortZero => f.write_str("port 0 cannot be sent to; name the receiver's port"),
            Self::NoAddress => f.write_str("we have no address of our own; wait until there is one"),
            Self::NoRoute => f.write_str("the receiver cannot be reached; set a gateway, or another address"),
            Self::TooLarge { max_bytes } => {
                write!(f, "the datagram is too large; send at most {max_bytes} bytes, or set fragment_udp")
            }
            Self::Unresolved => f.write_str("the next hop was just asked for its address; send again soon"),
            Self::Full => f.write_str("the driver is full; send again when it has room"),
        }
    }
}

impl core::error::Error for SendDatagramError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::Segment;

    /// The first two are written once a segment, and the last is moved by whoever takes it: by what they grow, every request
    /// costs more.
    #[test]
    fn what_is_written_for_every_segment_is_small() {
        let sizes = (size_of::<Happened<'_>>(), size_of::<Segment<'_>>(), size_of::<Input<'_>>());
        assert!(sizes.0 <= 32 && sizes.1 <= 64 && sizes.2 <= 176, "{sizes:?}");
    }
}

//! The device's side of the interface: what the stack is told about a received frame, and what it hands out to be sent.
//! Nothing here knows a device; a NIC driver implements [`Transmit`], a test collects bytes with it.

use alloc::collections::VecDeque;
use alloc::collections::vec_deque;

use crate::data::{Data, Queued};
use crate::frame::ControlFrame;

/// The longest header of a [`TxSegment`] or head of a [`ControlFrame`]: Ethernet, IPv6 and TCP with full options.
pub const MAX_HEADER_BYTES: usize = 14 + 40 + 60;
/// The most pieces one segment's payload is gathered from.
pub const MAX_PIECES: usize = 8;
/// The most segments a device is asked to cut one frame into: 64 KiB of the default segment size of RFC 9293, and within
/// what host kernels accept.
pub(crate) const MAX_TSO_SEGMENTS: u32 = 128;

/// How far the device has verified a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RxChecksum {
    /// Nothing is known: IPv4 header and TCP or ICMP checksum are verified here.
    #[default]
    Unknown,
    /// The transport checksum is right or was never needed (virtio-net's DATA_VALID and NEEDS_CSUM, VIRTIO 5.1.6.4).
    TransportValid,
    /// The IPv4 header checksum was verified as well.
    AllValid,
}

/// What the device says about a received frame. Frames may be merged segments of up to 64 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxMeta {
    /// How much of the frame's checksums the device has verified.
    pub checksum: RxChecksum,
}

/// The driver has no room; nothing was sent. The stack keeps its state and offers the segment again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Where frames leave. Both calls either take the whole frame or refuse it with [`Full`]; frames leave in the order of
/// the calls.
pub trait Transmit<D: Data> {
    /// Sends one TCP segment. The header must be copied; of the payload's pieces the driver keeps clones until the
    /// device has read them, so they are gathered without a copy.
    fn transmit(&mut self, segment: TxSegment<'_, D>) -> Result<(), Full>;

    /// Sends a finished frame, by copying it: ARP, ICMP, SYN-ACK, RST and the like. Losing one is repaired by the
    /// protocols, so a caller may ignore [`Full`].
    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full>;
}

/// A TCP segment ready to be sent, as Ethernet, IP and TCP header and references to its payload.
#[derive(Debug)]
pub struct TxSegment<'a, D> {
    /// Ethernet, IP and TCP header, at most [`MAX_HEADER_BYTES`].
    pub header: &'a [u8],
    /// The payload, at most [`MAX_PIECES`] pieces; empty for a pure acknowledgment.
    pub payload: Payload<'a, D>,
    /// Set when the device must finish the TCP checksum.
    pub checksum: Option<ChecksumRequest>,
    /// Set when the device must cut the payload into segments.
    pub gso: Option<Gso>,
}

impl<D: Data> TxSegment<'_, D> {
    /// Length of the frame in bytes.
    pub fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    /// Whether the frame is empty; it never is, there is always a header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the device must do about the checksum: sum from `start` to the frame's end, store at `start + offset`. The field
/// already holds the folded sum of the pseudo-header (VIRTIO 5.1.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumRequest {
    /// Offset of the TCP header in the frame.
    pub start: u16,
    /// Offset of the checksum field in the TCP header.
    pub offset: u16,
}

/// Segmentation offload of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What the segments are.
    pub kind: GsoKind,
    /// Payload bytes of each segment the device makes.
    pub mss: u16,
}

/// The protocols of a frame that the device cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpIpv4,
    /// TCP over IPv6.
    TcpIpv6,
}

/// The payload of a [`TxSegment`]: a run of bytes in a connection's send queue. Iterating yields its pieces in order.
#[derive(Debug)]
pub struct Payload<'a, D> {
    pieces: vec_deque::Iter<'a, Queued<D>>,
    offset: usize,
    remaining: usize,
}

// Derived `Clone` would ask for `D: Clone`, and a reference is cheaper than any clone of `D`.
impl<D> Clone for Payload<'_, D> {
    fn clone(&self) -> Self {
        Self { pieces: self.pieces.clone(), offset: self.offset, remaining: self.remaining }
    }
}

impl<'a, D: Data> Payload<'a, D> {
    /// No bytes.
    pub(crate) fn empty() -> Self {
        Self { pieces: vec_deque::Iter::default(), offset: 0, remaining: 0 }
    }

    /// `len` bytes from `offset` inside piece `index` on. The caller has checked that they exist.
    pub(crate) fn new(queue: &'a VecDeque<Queued<D>>, index: usize, offset: usize, len: usize) -> Self {
        let pieces = queue.range(index.min(queue.len())..);
        Self { pieces, offset, remaining: len }
    }

    /// Bytes left to iterate over: the payload's length on a fresh one.
    pub fn len(&self) -> usize {
        self.remaining
    }

    /// Whether there is no payload.
    pub fn is_empty(&self) -> bool {
        self.remaining == 0
    }

    /// Copies the payload to the beginning of `out` and returns its length, or `None` when it does not fit.
    pub fn copy_to(&self, out: &mut [u8]) -> Option<usize> {
        let mut at = 0;
        for piece in self.clone() {
            let bytes = piece.bytes();
            out.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
            at += bytes.len();
        }
        Some(at)
    }
}

impl<'a, D: Data> Iterator for Payload<'a, D> {
    type Item = Piece<'a, D>;

    #[inline]
    fn next(&mut self) -> Option<Piece<'a, D>> {
        if self.remaining == 0 {
            return None;
        }
        let queued = self.pieces.next()?;
        let len = (queued.len - self.offset).min(self.remaining);
        let piece = Piece { data: &queued.data, offset: self.offset, len };
        self.remaining -= len;
        self.offset = 0;
        Some(piece)
    }
}

/// One run of payload bytes inside one [`Data`].
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a, D> {
    /// The page reference the application queued; clone it to keep it alive while the device reads.
    pub data: &'a D,
    /// First byte in it.
    pub offset: usize,
    /// Number of bytes.
    pub len: usize,
}

impl<'a, D: Data> Piece<'a, D> {
    /// The bytes themselves.
    pub fn bytes(&self) -> &'a [u8] {
        self.data.bytes().get(self.offset..self.offset + self.len).unwrap_or_default()
    }
}

//! Data to send: references to bytes that stay put. The stack never copies them; each transmission and retransmission
//! reads them again where they are.

use alloc::sync::Arc;

/// Bytes that stay put and unchanged until the peer has acknowledged them. `Clone` is cheap: it copies a reference or
/// counts one.
pub trait Data: Clone {
    /// Number of bytes. It never changes.
    fn len(&self) -> usize;

    /// The bytes.
    fn bytes(&self) -> &[u8];

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The Internet checksum's sum of `len` bytes from `offset` on, if it is stored with the data: big-endian 16-bit
    /// words added in ones' complement, folded, not inverted, an odd last byte padded with zero (RFC 1071). Asked only
    /// when the device does not compute checksums.
    fn stored_sum(&self, offset: usize, len: usize) -> Option<u16> {
        let _ = (offset, len);
        None
    }
}

impl Data for &'static [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Data for Arc<[u8]> {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A queued reference with its length as it was when queued, so that an implementation whose length changes can confuse
/// its own connection at most.
#[derive(Debug)]
pub(crate) struct Queued<D> {
    pub(crate) data: D,
    pub(crate) len: usize,
    /// Position of its first byte among all that was ever queued.
    pub(crate) start: u64,
}

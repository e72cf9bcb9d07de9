//! How a frame becomes a chain of descriptors: what it takes, and writing the descriptors one after the other. Owns
//! nothing; the transmit queue decides which descriptors are free.

use crate::header::HEADER_BYTES;
use exos_virtqueue::ring::{NEXT, Ring};

/// A part of a frame behind its headers.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// The device reads the bytes where they are. They stay put and unchanged while the frame's `keep` lives; otherwise
    /// the device sends what it finds there.
    Lend(&'a [u8]),
    /// The bytes are copied now.
    Copy(&'a [u8]),
}

/// What a frame takes.
pub(crate) struct Needs {
    pub(crate) descriptors: usize,
    /// Bytes in the slot, virtio header included.
    pub(crate) copied_bytes: usize,
    /// Bytes from the Ethernet header on.
    pub(crate) frame_bytes: usize,
}

impl Needs {
    #[inline(always)]
    pub(crate) fn of(header: &[u8], pieces: &[Piece<'_>]) -> Self {
        let mut descriptors = 1;
        let mut copied_bytes = HEADER_BYTES.saturating_add(header.len());
        let mut frame_bytes = header.len();
        let mut in_run = true;
        for piece in pieces {
            match *piece {
                Piece::Lend([]) | Piece::Copy([]) => {}
                Piece::Lend(bytes) => {
                    descriptors += 1;
                    frame_bytes = frame_bytes.saturating_add(bytes.len());
                    in_run = false;
                }
                Piece::Copy(bytes) => {
                    descriptors += usize::from(!in_run);
                    copied_bytes = copied_bytes.saturating_add(bytes.len());
                    frame_bytes = frame_bytes.saturating_add(bytes.len());
                    in_run = true;
                }
            }
        }
        Self { descriptors, copied_bytes, frame_bytes }
    }
}

/// Writes one descriptor after the other down the free stack.
pub(crate) struct Descriptors<'a> {
    ring: &'a Ring,
    next: &'a [u16],
    /// The next to be written.
    number: u16,
    /// The one written last.
    last: u16,
    /// How many are still to come.
    left: usize,
}

impl<'a> Descriptors<'a> {
    /// `count` descriptors from `head` on; `next` links the free stack.
    #[inline(always)]
    pub(crate) fn new(ring: &'a Ring, next: &'a [u16], head: u16, count: usize) -> Self {
        Self { ring, next, number: head, last: head, left: count }
    }

    /// The descriptor that was written last.
    #[inline(always)]
    pub(crate) fn last(&self) -> u16 {
        self.last
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, address: u64, len_bytes: usize) {
        self.left -= 1;
        let next = self.next[usize::from(self.number)];
        let flags = if self.left == 0 { 0 } else { NEXT };
        self.ring.set_descriptor(self.number, address, len_bytes as u32, flags, next);
        self.last = self.number;
        self.number = next;
    }
}

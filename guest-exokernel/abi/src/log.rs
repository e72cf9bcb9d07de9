//! The log ring: text from an environment to the VMM, without an exit.

use core::sync::atomic::AtomicU64;

/// Bytes of text in the ring, a whole number of pages.
pub const LOG_BYTES: usize = 60 << 10;
const _: () = assert!(LOG_BYTES.is_multiple_of(4096));

/// The ring, at [`crate::layout::LOG_VA`]. One writer that never waits: byte `n` of the text lies at `n % LOG_BYTES`.
#[derive(Debug)]
#[repr(C)]
pub struct LogRing {
    /// Bytes written since the start; stored after the bytes themselves.
    pub written: AtomicU64,
    /// Zero, to the next cache line.
    pub padding: [AtomicU64; 7],
    /// The text.
    pub text: [core::sync::atomic::AtomicU8; LOG_BYTES],
}

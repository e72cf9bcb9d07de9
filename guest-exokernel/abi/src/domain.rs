//! DMA domains: which guest-physical pages the devices may read and write on behalf of an environment.
//!
//! The table is an array of [`DomainEntry`], indexed by environment. An entry points at a bitmap with two bits a page:
//! four pages a byte, page `n` at byte `n / 4`, bits `2 * (n % 4)` (device may read) and `2 * (n % 4) + 1` (device may
//! write). Granting is one store; revoking clears the bits and then waits for the queues' drain.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entries of the domain table.
pub const DOMAINS: usize = 64;

/// One environment's domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DomainEntry {
    /// Guest-physical address of the bitmap.
    pub bitmap_gpa: u64,
    /// Pages it covers, from guest-physical page 0 on; 0: no such domain.
    pub pages: u64,
}

/// What the device may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rights {
    /// Nothing.
    None = 0,
    /// Read: the page may be sent.
    Read = 1,
    /// Write: the page may be received into.
    Write = 2,
    /// Both.
    ReadWrite = 3,
}

/// Bytes of a bitmap for `pages` pages.
pub const fn bitmap_bytes(pages: u64) -> u64 {
    pages.div_ceil(4)
}

/// Byte and shift of a page's two bits.
pub const fn position(page: u64) -> (u64, u32) {
    (page / 4, 2 * (page % 4) as u32)
}

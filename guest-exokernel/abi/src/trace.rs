//! Spans, events and counters: how a piece of code is named, where its cycles are added up, what a record looks like.
//!
//! Every site is one [`Site`] in the image's section [`crate::header::SITES_SECTION`]; its index there is its id, so
//! nothing is registered at run time and the VMM reads the names from the image. Id 0 is what no span covers.
//!
//! A span's accumulator holds *exclusive* cycles: entering a span takes one time stamp that ends the bucket before it
//! and begins the new one, leaving it does the reverse. The sum over all spans is all the time since the start.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// Most sites that an image may have; later ones are counted under id 0.
pub const SITES: usize = 256;
/// Bytes of a name, padded with zero.
pub const NAME_BYTES: usize = 56;

/// [`Site::kind`]: a stretch of code whose cycles are accounted.
pub const KIND_SPAN: u32 = 1;
/// [`Site::kind`]: something that happened.
pub const KIND_EVENT: u32 = 2;
/// [`Site::kind`]: a number that only grows.
pub const KIND_COUNTER: u32 = 3;

/// One place in the code.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Site {
    /// One of the `KIND_` constants.
    pub kind: u32,
    /// Source line.
    pub line: u32,
    /// Name, UTF-8.
    pub name: [u8; NAME_BYTES],
}

impl Site {
    /// A site; a name that is too long is cut.
    pub const fn new(kind: u32, name: &str, line: u32) -> Self {
        let bytes = name.as_bytes();
        let mut padded = [0; NAME_BYTES];
        let mut i = 0;
        while i < bytes.len() && i < NAME_BYTES {
            padded[i] = bytes[i];
            i += 1;
        }
        Self { kind, line, name: padded }
    }
}

/// What is added up for one site: for a span entries and exclusive cycles, for an event occurrences, for a counter
/// additions and their sum.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Accumulator {
    /// How often.
    pub count: AtomicU64,
    /// Exclusive cycles, or the sum.
    pub total: AtomicU64,
}

/// The accumulators of one environment, at [`crate::layout::ACCOUNT_VA`]. One writer; a reader may be one update behind.
#[derive(Debug)]
#[repr(C)]
pub struct AccountArea {
    /// TSC of the last transition.
    pub last_tsc: AtomicU64,
    /// The span that has been running since then.
    pub current: AtomicU32,
    /// Zero.
    pub reserved: AtomicU32,
    /// One for each site.
    pub sites: [Accumulator; SITES],
}

/// [`Record::kind`]: a span was entered.
pub const RECORD_ENTER: u16 = 1;
/// [`Record::kind`]: a span was left.
pub const RECORD_LEAVE: u16 = 2;
/// [`Record::kind`]: an event.
pub const RECORD_EVENT: u16 = 3;
/// [`Record::kind`]: a counter's new addition.
pub const RECORD_COUNTER: u16 = 4;

/// One trace record: 32 bytes, as four words so that it is written without a lock and read without tearing.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Record {
    /// TSC.
    pub tsc: AtomicU64,
    /// Bits 0-31 site, 32-47 kind, 48-63 environment.
    pub what: AtomicU64,
    /// For a packet or a request: its number, so that it can be followed. Otherwise free.
    pub subject: AtomicU64,
    /// Free.
    pub argument: AtomicU64,
}

/// Packs [`Record::what`].
pub const fn pack_what(site: u32, kind: u16, environment: u16) -> u64 {
    site as u64 | (kind as u64) << 32 | (environment as u64) << 48
}

/// Takes [`Record::what`] apart again.
pub const fn unpack_what(what: u64) -> (u32, u16, u16) {
    (what as u32, (what >> 32) as u16, (what >> 48) as u16)
}

/// Records of a ring, a power of two.
pub const RECORDS: usize = 4096;

/// The trace ring of one environment, at [`crate::layout::TRACE_VA`]. The writer never waits; a reader that is more than
/// [`RECORDS`] behind has lost the difference and can tell from [`Self::written`].
#[derive(Debug)]
#[repr(C)]
pub struct TraceRing {
    /// 1: records are wanted (written by the VMM).
    pub enabled: AtomicU32,
    /// Zero.
    pub reserved: AtomicU32,
    /// Records written since the start; record `n` lies at `n % RECORDS`.
    pub written: AtomicU64,
    /// Zero, to the next cache line.
    pub padding: [AtomicU64; 6],
    /// The records.
    pub records: [Record; RECORDS],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_round_trips() {
        assert_eq!(unpack_what(pack_what(77, RECORD_EVENT, 65535)), (77, RECORD_EVENT, 65535));
    }

    #[test]
    fn site_is_a_cache_line_and_cuts_long_names() {
        assert_eq!(size_of::<Site>(), 64);
        let long = "0123456789012345678901234567890123456789012345678901234567890123";
        assert_eq!(Site::new(KIND_SPAN, long, 1).name.len(), NAME_BYTES);
        assert_eq!(size_of::<Record>(), 32);
    }
}

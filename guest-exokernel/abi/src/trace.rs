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
///
/// Counts and the sums of counters always go on. Cycles are added up while [`Wanted::mode`] says [`mode::ACCOUNT`];
/// otherwise only [`Self::current`] is kept, so that it is right when somebody begins to look.
#[derive(Debug)]
#[repr(C)]
pub struct AccountArea {
    /// TSC of the last transition that was accounted.
    pub last_tsc: AtomicU64,
    /// The span that runs.
    pub current: AtomicU32,
    /// The account's number ([`mode::epoch`]) for which [`Self::last_tsc`] holds.
    pub epoch: AtomicU32,
    /// What the environment works on ([`subject`]), if that is recorded; otherwise 0.
    pub followed: AtomicU64,
    /// What was taken out of spans, because it was not theirs.
    pub taken: Taken,
    /// One for each site.
    pub sites: [Accumulator; SITES],
}

/// Cycles that passed while a span ran and somebody else had the vCPU: [`crate::vcpu`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct Taken {
    /// The sum of the three words below; something else if there is a debt. So one comparison says whether there is anything to do.
    pub seen: AtomicU64,
    /// [`crate::vcpu::VcpuTime::steal_ns`] of its vCPU when it last looked.
    pub seen_steal_ns: AtomicU64,
    /// [`crate::vcpu::VcpuTime::outside_cycles`] then.
    pub seen_outside_cycles: AtomicU64,
    /// [`Self::waited_cycles`] then.
    pub seen_waited_cycles: AtomicU64,
    /// How many cycles the ends of its slices took, and waiting for the next.
    pub waited_cycles: AtomicU64,
    /// What is known to be taken and not yet taken out of any span.
    pub debt_cycles: AtomicU64,
    /// Taken because another thread of the host had the CPU: how often, and cycles.
    pub off_cpu: Accumulator,
    /// Taken because the VMM had the vCPU, in an exit that no span is about.
    pub outside: Accumulator,
    /// Cycles for which it had each vCPU, from getting it to leaving it, whoever else took of them.
    pub ran: [AtomicU64; crate::boot::VCPUS_MAX],
    /// TSC when it got its vCPU, or since when that is counted.
    pub got_tsc: AtomicU64,
    /// Which vCPU that is.
    pub got_vcpu: AtomicU32,
    /// Zero.
    pub reserved: AtomicU32,
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

/// What the VMM wants of all environments, in the page that only it can write. Whoever looks switches it on, so nobody pays
/// for an account that nobody reads.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Wanted {
    /// See [`mode`].
    pub mode: AtomicU32,
    /// With [`mode::SAMPLE`]: one in how many received frames is followed.
    pub sample: AtomicU32,
    /// Since when the account goes that [`Self::mode`] names, on the TSC. Written before the mode.
    pub since_tsc: AtomicU64,
}

/// [`Wanted::mode`]. 0: nothing.
pub mod mode {
    /// Cycles are added up.
    pub const ACCOUNT: u32 = 1;
    /// Records are written.
    pub const RECORD: u32 = 2;
    /// Records are written only of what is followed, see [`super::Wanted::sample`].
    pub const SAMPLE: u32 = 4;

    /// Which account it is: each time that adding up begins it is another number.
    pub const fn epoch(mode: u32) -> u32 {
        mode >> 8
    }

    /// A mode with these flags, in this account.
    pub const fn with_epoch(flags: u32, epoch: u32) -> u32 {
        flags & 0xFF | epoch << 8
    }
}

/// What a record is about: packets and requests, by numbers that VMM and environment count alike, so that one can be followed
/// through both. Bits 56-63 the kind, 48-55 device and queue ([`crate::queue::owner_index`]), 0-47 a number.
pub mod subject {
    /// The `n`th frame that a receive queue has delivered since it was enabled.
    pub const RECEIVED: u8 = 1;
    /// The `n`th frame that was made available in a transmit queue since it was enabled.
    pub const SENT: u8 = 2;
    /// The `n`th request that was made available in a disk's queue since it was enabled.
    pub const DISK: u8 = 3;

    const NUMBER_BITS: u32 = 48;

    /// Puts a subject together.
    #[inline(always)]
    pub const fn of(kind: u8, device: u32, queue: u32, number: u64) -> u64 {
        let place = (device & 7) << 5 | queue & 31;
        (kind as u64) << 56 | (place as u64) << NUMBER_BITS | number & ((1 << NUMBER_BITS) - 1)
    }

    /// Kind, device, queue and number.
    pub const fn parts(subject: u64) -> (u8, u32, u32, u64) {
        let place = (subject >> NUMBER_BITS) as u32 & 0xFF;
        ((subject >> 56) as u8, place >> 5, place & 31, subject & ((1 << NUMBER_BITS) - 1))
    }

    /// Whether it is one of those that are followed if that is one in `one_in`. Both sides must find the same, and regular traffic
    /// must not hide between the samples.
    #[inline]
    pub const fn is_sampled(subject: u64, one_in: u32) -> bool {
        // The finaliser of MurmurHash3: every bit of the number changes half of the bits.
        let hash = (subject ^ subject >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        let hash = (hash ^ hash >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        one_in <= 1 || ((hash >> 33) as u32).is_multiple_of(one_in)
    }
}

/// The trace ring of one environment, at [`crate::layout::TRACE_VA`]. The writer never waits; a reader that is more than
/// [`RECORDS`] behind has lost the difference and can tell from [`Self::written`].
#[derive(Debug)]
#[repr(C)]
pub struct TraceRing {
    /// Records written since the start; record `n` lies at `n % RECORDS`.
    pub written: AtomicU64,
    /// Zero, to the next cache line.
    pub padding: [AtomicU64; 7],
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

    #[test]
    fn subject_round_trips() {
        let number = (1 << 48) - 1;
        assert_eq!(subject::parts(subject::of(subject::SENT, 7, 31, number)), (subject::SENT, 7, 31, number));
        assert_eq!(subject::parts(subject::of(subject::RECEIVED, 0, 2, 5)), (subject::RECEIVED, 0, 2, 5));
    }

    #[test]
    fn samples_are_one_in_n_and_spread_over_regular_numbers() {
        for one_in in [1, 2, 64, 100, 1000] {
            for stride in [1, 2, 3, 8, 64] {
                let all = 200_000;
                let sampled = (0..all)
                    .filter(|n| subject::is_sampled(subject::of(subject::RECEIVED, 0, 0, n * stride), one_in))
                    .count() as f64;
                let expected = all as f64 / f64::from(one_in);
                assert!(
                    (0.8..1.2).contains(&(sampled / expected)),
                    "1 in {one_in}, stride {stride}: {sampled}"
                );
            }
        }
    }
}

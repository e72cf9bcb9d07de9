//! One record, of the guest or of a VMM thread: the same 32 bytes as in the guest's rings ([`abi::trace::Record`]), as plain
//! numbers.
//!
//! | source | kind | site | subject | argument |
//! | --- | --- | --- | --- | --- |
//! | environment | enter, leave | span's site | what it works on, or 0 | the span around it |
//! | environment | event, counter | its site | of the event; for a counter what it works on | free; what was added |
//! | VMM thread | enter | a bucket of the ledger, which ends the one before | 0 | 0 |
//! | VMM thread | event | a [`Happening`] | frame or disk request | TSC of its beginning |
//! | VMM thread | enter, leave | [`FIRST_NAME`] and more: one of the VMM's own `tracing` spans | 0 | number of the span |
//! | VMM thread | event | [`FIRST_NAME`] and more: one of its messages | 0 | 0 |
//! | KVM | enter, leave | an exit, by its number in the header's names | guest address | the processor's reason |
//! | KVM | event | what happened, by the same; in place of the environment stands how often | address, vector, reason | TSC of its beginning |

use crate::account::ledger::Bucket;
use abi::trace::{RECORD_ENTER, RECORD_EVENT, pack_what, unpack_what};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// First site of what is named while the machine runs.
pub const FIRST_NAME: u32 = 1000;

/// What happens to a frame or to a disk request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Happening {
    /// A frame was taken from the backend and given to a receive queue.
    Received = 100,
    /// A frame of a transmit queue was given to the backend, or dropped.
    Sent = 101,
    /// A disk request was done, since it was taken from its queue.
    DiskDone = 102,
}

impl Happening {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Received, Self::Sent, Self::DiskDone];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Received => "frame received",
            Self::Sent => "frame sent",
            Self::DiskDone => "disk request",
        }
    }
}

/// A record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Record {
    /// TSC.
    pub tsc: u64,
    /// Bits 0-31 site, 32-47 kind, 48-63 environment.
    pub what: u64,
    /// See the table above.
    pub subject: u64,
    /// See the table above.
    pub argument: u64,
}

impl Record {
    pub(super) fn bucket(tsc: u64, bucket: Bucket) -> Self {
        Self { tsc, what: pack_what(bucket.index() as u32, RECORD_ENTER, 0), subject: 0, argument: 0 }
    }

    pub(super) fn happening(what: Happening, subject: u64, from_tsc: u64, to_tsc: u64) -> Self {
        Self { tsc: to_tsc, what: pack_what(what as u32, RECORD_EVENT, 0), subject, argument: from_tsc }
    }

    /// Whether it is of this.
    pub(super) fn is(&self, what: Happening) -> bool {
        self.what == pack_what(what as u32, RECORD_EVENT, 0)
    }

    /// Site, kind and environment.
    pub fn parts(&self) -> (u32, u16, u16) {
        unpack_what(self.what)
    }
}

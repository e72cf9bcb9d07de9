//! Accounting from outside the guest: where every cycle of a VM goes.
//!
//! [`ledger`] is the VMM's own clock around KVM_RUN and device work. The guest's spans lie in memory that the guest
//! writes and the VMM reads; both share the TSC, so they lie on one time line. [`snapshot`] takes both at one moment,
//! [`table`] prints the difference of two.

mod away;
mod bucket;
pub mod guest;
pub mod ledger;
pub mod snapshot;
mod switches;
pub mod table;
pub(crate) mod taken;

pub use snapshot::AccountSnapshot;

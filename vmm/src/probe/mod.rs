//! Probes: count and measure the calls of any function of a running machine, in its image or its kernel, without building or
//! starting anything anew.
//!
//! A trap at each call would be far too expensive where ring 0 is interpreted, so a probe is a jump at the function's entry to a
//! trampoline in a page that boot has mapped for that: it counts, does what the jump replaced, and goes back. No exit, no
//! kernel, some ten cycles. The text is written only while no vCPU is in the guest.
//!
//! | module | what |
//! | --- | --- |
//! | [`layout`] | where code and data of probes lie in a guest |
//! | [`function`] | what of a function can be moved, and why not |
//! | [`assemble`] | the trampolines |
//! | [`histogram`] | four buckets for each power of two |
//! | [`names`] | which function is meant |
//! | [`standing`] | whose instruction pointer is where, and how it is put elsewhere |
//! | [`session`] | a probe comes and goes |
//! | [`numbers`], [`sampled`] | what it has counted |
//! | [`stream`], [`serve`] | a client, as long as it is connected |
//! | [`client`] | the tools' side |
//! | [`table`] | the numbers as text |

mod assemble;
pub mod client;
mod error;
mod function;
mod histogram;
pub(crate) mod layout;
mod names;
mod numbers;
mod sampled;
mod serve;
mod session;
mod standing;
pub mod stream;
pub mod table;

#[cfg(test)]
mod tests;

pub use error::ProbeError;
pub use function::Refused;
pub use histogram::{Bucket, percentile};
pub use names::{Function, Ring};
pub use numbers::{Call, Numbers};
pub use stream::{Arguments, Item, ProbeRequest, Values};

pub use assemble::Wanted;
pub(crate) use serve::start;
pub use session::Probe;
pub(crate) use session::Probes;

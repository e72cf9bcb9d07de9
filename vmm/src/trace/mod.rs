//! Looking at a running machine: who wants its accounts and records, and how those get out.
//!
//! | module | what |
//! | --- | --- |
//! | [`looking`] | switches accounts and records on while somebody looks |
//! | [`recorder`] | what a thread of the VMM writes down |
//! | [`record`] | a record, of the guest or of a thread |
//! | [`kvm`] | what KVM's tracepoints say of a machine's threads |
//! | [`collect`] | out of rings and recorders into the feeds of listeners |
//! | [`own`] | the VMM's `tracing` spans on the same time line |
//! | [`perfetto`] | a stream as a file for ui.perfetto.dev |
//! | [`serve`] | a listener at the control socket |
//! | [`stream`] | how records travel to a tool |
//! | [`requests`] | requests, put together by a tool from the stream |

mod collect;
mod kvm;
mod looking;
pub mod own;
pub mod perfetto;
pub mod record;
mod recorder;
pub mod requests;
mod serve;
pub mod stream;

pub use collect::{HostEvents, Listener, Tracing};
pub(crate) use kvm::try_tracepoints;
pub use looking::{Accounts, Looking, Records};
pub(crate) use record::Happening;
pub use recorder::Recorder;
pub use serve::TraceRequest;
pub(crate) use serve::{begin, header};

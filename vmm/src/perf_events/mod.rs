//! What the host's kernel counts and records for whoever asks by perf_event_open(2): the processor's counters, tracepoints,
//! context switches. An edge: system calls and shared memory, and the only place where an event is opened or a ring of records
//! is read.
//!
//! | module | what |
//! | --- | --- |
//! | [`attributes`] | which event, of which thread |
//! | [`counter`] | an event that counts, also when several share one counter of the processor |
//! | [`ring`] | an event that records, into memory shared with the kernel |
//! | [`clock`] | the clock of the records, on the TSC |
//! | [`tracefs`] | which tracepoints there are, and what they record |
//! | [`unavailable`] | why the host does not give something, and what to do about it |

pub(crate) mod attributes;
pub(crate) mod clock;
pub(crate) mod counter;
pub(crate) mod ring;
pub(crate) mod tracefs;
pub(crate) mod unavailable;

pub(crate) use attributes::Attributes;
pub(crate) use unavailable::Unavailable;

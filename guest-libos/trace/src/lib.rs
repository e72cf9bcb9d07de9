//! Spans, events and counters: where the cycles of an environment go, and what happened when.
//!
//! ```no_run
//! let _span = exos_trace::span!("tcp input"); // cycles from here to the end of the scope belong to "tcp input"
//! exos_trace::counter!("tcp bytes in", 1460);
//! exos_trace::event!("tcp retransmission", 7, 1460); // subject 7: the packet's number; argument: free
//! ```
//!
//! With the feature `guest` each use is a site in the image's section `exovm_sites` ([`abi::trace`]); it adds to the
//! account area and, while the VMM asks for it, writes to the trace ring. Both lie at addresses of [`abi::layout`].
//! Without the feature every macro checks its arguments and compiles to nothing, so a protocol crate can use them in
//! host tests.
//!
//! | module | what |
//! | --- | --- |
//! | [`ledger`] | the accounting itself, over any area, ring and clock; safe code |
//! | [`away`] | what passed while a span ran and was not its |
//! | `guest` | the edge: fixed addresses, the TSC, the section's start |
#![no_std]

#[doc(hidden)]
pub use abi;

pub mod away;
pub mod ledger;
mod macros;

#[cfg(feature = "guest")]
#[doc(hidden)]
pub mod guest;

/// Begins the account: what passes from now on is counted, until a span begins under id 0. Called once, before the first
/// span.
#[inline]
pub fn start() {
    #[cfg(feature = "guest")]
    guest::ledger().start();
}

/// The guard that [`span!`] gives. Dropping it ends the span and continues the one around it.
///
/// Guards end in the reverse order of their beginning, as scopes do. A guard does not live across an `.await`: what runs
/// meanwhile would be counted as its.
#[must_use = "a span ends when its guard is dropped: write `let _span = span!(...)`"]
#[derive(Debug)]
pub struct Span {
    /// The span around this one.
    #[cfg(all(feature = "guest", not(exovm_without_spans)))]
    pub(crate) outer: ledger::SiteId,
    /// The account belongs to the one thread of the environment: neither `Send` nor `Sync`.
    #[doc(hidden)]
    pub _not_send: core::marker::PhantomData<*const ()>,
}

impl Drop for Span {
    #[inline(always)]
    fn drop(&mut self) {
        #[cfg(all(feature = "guest", not(exovm_without_spans)))]
        guest::ledger().leave(self.outer);
    }
}

/// From now on, until the guard is dropped, this environment works on `subject` (a packet or a request, [`abi::trace::subject`]):
/// records without a subject of their own are its, and where only samples are recorded, `subject` decides.
#[inline(always)]
pub fn follow(subject: u64) -> Following {
    #[cfg(all(feature = "guest", not(exovm_without_spans)))]
    return guest::follow(subject);
    #[cfg(not(all(feature = "guest", not(exovm_without_spans))))]
    {
        let _ = subject;
        Following { _not_send: core::marker::PhantomData }
    }
}

/// Goes on, until the guard is dropped, with what [`followed`] gave when this work was put aside.
#[inline(always)]
pub fn follow_again(followed: u64) -> Following {
    #[cfg(all(feature = "guest", not(exovm_without_spans)))]
    return guest::follow_again(followed);
    #[cfg(not(all(feature = "guest", not(exovm_without_spans))))]
    {
        let _ = followed;
        Following { _not_send: core::marker::PhantomData }
    }
}

/// What this environment works on, if that is recorded; otherwise 0.
#[inline(always)]
pub fn followed() -> u64 {
    #[cfg(all(feature = "guest", not(exovm_without_spans)))]
    return guest::ledger().followed();
    #[cfg(not(all(feature = "guest", not(exovm_without_spans))))]
    0
}

/// The guard of [`follow`] and [`follow_again`]. Dropping it goes back to what was worked on before.
#[must_use = "the work ends when its guard is dropped: write `let _following = follow(...)`"]
#[derive(Debug)]
pub struct Following {
    #[cfg(all(feature = "guest", not(exovm_without_spans)))]
    pub(crate) before: u64,
    /// As for [`Span`].
    pub(crate) _not_send: core::marker::PhantomData<*const ()>,
}

impl Drop for Following {
    #[inline(always)]
    fn drop(&mut self) {
        #[cfg(all(feature = "guest", not(exovm_without_spans)))]
        guest::ledger().follow_again(self.before);
    }
}

/// A site's name, checked while compiling: not empty, and short enough for [`abi::trace::NAME_BYTES`].
#[doc(hidden)]
pub const fn checked_name(name: &str) -> &str {
    assert!(!name.is_empty(), "a span, event or counter needs a name");
    assert!(name.len() <= abi::trace::NAME_BYTES, "the name is longer than abi::trace::NAME_BYTES");
    name
}

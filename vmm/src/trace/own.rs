//! The VMM's own `tracing` spans and messages on the time line of everything else: a layer for the subscriber of whoever runs
//! machines. A thread of a machine writes them into its ledger's recorder, like what else it does; other threads write nothing.
//!
//! Nobody listens to a machine of this process: spans and messages that nobody else wants are not even made.

use super::record::{FIRST_NAME, Record};
use crate::account::ledger::{Ledger, now_tsc};
use abi::trace::{RECORD_ENTER, RECORD_EVENT, RECORD_LEAVE, pack_what};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber, span};
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

thread_local! {
    /// The ledger of the machine's thread that this is.
    static LEDGER: RefCell<Option<Arc<Ledger>>> = const { RefCell::new(None) };
}

/// What the program's text calls its spans and messages, in the order in which they were first met. They are the program's, not a
/// machine's.
static NAMES: Mutex<Vec<&'static Metadata<'static>>> = Mutex::new(Vec::new());

/// Listeners to machines of this process.
static LISTENERS: AtomicUsize = AtomicUsize::new(0);

/// From now on, what this thread has to say goes into this ledger's recorder, and the host knows it by its id.
pub(crate) fn begin_thread(ledger: &Arc<Ledger>) {
    // SAFETY: no arguments, no memory.
    ledger.recorder().begin_thread(unsafe { libc::gettid() });
    LEDGER.with(|own| *own.borrow_mut() = Some(Arc::clone(ledger)));
}

/// While it is there, spans are made.
#[derive(Debug)]
pub(super) struct Listening(());

impl Listening {
    pub(super) fn new() -> Self {
        if LISTENERS.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::callsite::rebuild_interest_cache();
        }
        Self(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if LISTENERS.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::callsite::rebuild_interest_cache();
        }
    }
}

/// The names from this one on.
pub(super) fn names_from(first: usize) -> Vec<String> {
    names().iter().skip(first).map(|metadata| name(metadata)).collect()
}

fn names() -> MutexGuard<'static, Vec<&'static Metadata<'static>>> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A span has a name; a message only says where it is.
fn name(metadata: &Metadata<'_>) -> String {
    if metadata.is_span() {
        return metadata.name().to_owned();
    }
    let file = metadata.file().unwrap_or("?").rsplit('/').next().unwrap_or_default();
    format!("{} {file}:{}", metadata.level(), metadata.line().unwrap_or(0))
}

/// Its site.
fn site(metadata: &'static Metadata<'static>) -> u32 {
    let mut names = names();
    let known = names.iter().position(|known| known.callsite() == metadata.callsite());
    let index = known.unwrap_or_else(|| {
        names.push(metadata);
        names.len() - 1
    });
    FIRST_NAME + index as u32
}

fn write(metadata: &'static Metadata<'static>, kind: u16, argument: u64) {
    // Not while it is being set, nor at a thread's end.
    let _ = LEDGER.try_with(|own| {
        let Ok(own) = own.try_borrow() else { return };
        let Some(recorder) = own.as_deref().map(Ledger::recorder).filter(|recorder| recorder.is_all()) else {
            return;
        };
        recorder.push(Record {
            tsc: now_tsc(),
            what: pack_what(site(metadata), kind, 0),
            subject: 0,
            argument,
        });
    });
}

/// The layer. With [`WhileListenedTo`] as its filter, it costs nothing while nobody listens.
#[derive(Debug)]
pub struct OwnSpans;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for OwnSpans {
    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        if let Some(metadata) = context.metadata(id) {
            write(metadata, RECORD_ENTER, id.into_u64());
        }
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        if let Some(metadata) = context.metadata(id) {
            write(metadata, RECORD_LEAVE, id.into_u64());
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        write(event.metadata(), RECORD_EVENT, 0);
    }
}

/// Wants everything of this crate's while a machine is listened to.
#[derive(Debug)]
pub struct WhileListenedTo;

impl WhileListenedTo {
    fn wants(metadata: &Metadata<'_>) -> bool {
        LISTENERS.load(Ordering::Relaxed) > 0 && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }
}

impl<S> Filter<S> for WhileListenedTo {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        Self::wants(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Decided anew whenever the first listener comes and the last one goes.
        if Self::wants(metadata) { Interest::always() } else { Interest::never() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn spans_of_a_machines_thread_are_records_while_somebody_listens() {
        let ledger = Arc::new(Ledger::default());
        let subscriber = tracing_subscriber::registry().with(OwnSpans.with_filter(WhileListenedTo));
        tracing::subscriber::with_default(subscriber, || {
            let work = || {
                let _span = tracing::debug_span!("binding a queue").entered();
                tracing::info!("bound");
            };
            ledger.recorder().set(1);
            let listening = Listening::new();
            work();
            assert!(ledger.recorder().take().0.is_empty(), "not a machine's thread");
            begin_thread(&ledger);
            work();
            let records = ledger.recorder().take().0;
            let kinds: Vec<_> = records.iter().map(|record| record.parts().1).collect();
            assert_eq!(kinds, [RECORD_ENTER, RECORD_EVENT, RECORD_LEAVE]);
            let names = names_from(0);
            let named: Vec<_> = records
                .iter()
                .map(|record| names[(record.parts().0 - FIRST_NAME) as usize].as_str())
                .collect();
            assert_eq!((named[0], named[2]), ("binding a queue", "binding a queue"));
            assert!(named[1].starts_with("INFO own.rs:"), "{named:?}");
            // A sample has what happens to frames and no more.
            ledger.recorder().set(64);
            work();
            drop(listening);
            ledger.recorder().set(1);
            work();
            assert!(ledger.recorder().take().0.is_empty(), "nobody listens");
        });
    }
}

//! A store for async tasks: who asks for what is not in memory waits until it is.

use crate::exchange;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};
use exos_cache::{Asked, Broken, CachedFile, Counters, Entry, Next, Slice, Store, Stream, Ticket};
use exos_event_loop::disk::Disk;

/// A store that tasks share; all clones are the same.
#[derive(Clone)]
pub struct Shared(Rc<RefCell<Store<Waker>>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(self.0.borrow().counters()).finish()
    }
}

impl Shared {
    /// Shares a store.
    pub fn new(store: Store<Waker>) -> Self {
        Self(Rc::new(RefCell::new(store)))
    }

    /// See [`exchange`](exchange()). To be called before tasks run, and when they have run.
    pub fn exchange(&self, disk: &mut Disk) {
        exchange(self.0.borrow_mut().cache(), disk, |waker, _| waker.wake());
    }

    /// Memory is asked back: see [`exos_cache::Cache::shrink`].
    pub fn shrink(&self, frames: usize, start_va: usize) {
        self.0.borrow_mut().cache().shrink(frames, start_va);
    }

    /// Calls `look` with what the store has done.
    pub fn counters(&self, look: impl FnOnce(&Counters)) {
        look(self.0.borrow().counters());
    }

    /// What a path names: see [`Store::lookup`].
    pub async fn lookup(&self, path: &[u8], index: &[u8]) -> Result<Option<Entry>, Broken> {
        poll_fn(|context| self.answer(context, |store| store.lookup(path, index))).await
    }

    /// A file from its beginning on, when the first of it is there and checked: see [`Store::begin`].
    pub async fn read(&self, file: CachedFile) -> Result<Reader, Broken> {
        poll_fn(|context| self.answer(context, |store| store.begin(&file))).await?;
        Ok(Reader { store: self.clone(), stream: Stream::new(file) })
    }

    fn answer<T>(
        &self,
        context: &Context<'_>,
        ask: impl FnOnce(&mut Store<Waker>) -> Asked<T>,
    ) -> Poll<Result<T, Broken>> {
        let mut store = self.0.borrow_mut();
        match ask(&mut store) {
            Asked::Done(answer) => Poll::Ready(Ok(answer)),
            Asked::Broken(broken) => Poll::Ready(Err(broken)),
            Asked::Wait(ticket) => {
                wait(&mut store, ticket, context);
                Poll::Pending
            }
        }
    }
}

fn wait(store: &mut Store<Waker>, ticket: Ticket, context: &Context<'_>) {
    // One that has completed meanwhile: ask again.
    if let Err(waker) = store.cache().wait(ticket, context.waker().clone()) {
        waker.wake();
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct Reader {
    store: Shared,
    stream: Stream,
}

impl Reader {
    /// The file.
    pub fn file(&self) -> &CachedFile {
        self.stream.file()
    }

    /// The next bytes, where they lie in the cache; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Slice>, Broken> {
        let Self { store, stream } = self;
        poll_fn(|context| {
            let mut store = store.0.borrow_mut();
            match stream.next(&mut *store) {
                Next::Slice(slice) => Poll::Ready(Ok(Some(slice))),
                Next::End => Poll::Ready(Ok(None)),
                Next::Broken(broken) => Poll::Ready(Err(broken)),
                Next::Wait(ticket) => {
                    wait(&mut store, ticket, context);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

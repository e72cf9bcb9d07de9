//! Runs the futures of a program, on one thread.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use futures_util::stream::{FuturesUnordered, Stream};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Whether some task was woken since the tasks last ran.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Starts tasks; cheap to clone.
#[derive(Clone, Default)]
pub struct Spawner {
    started: Rc<RefCell<Vec<Task>>>,
}

impl Spawner {
    /// Has a future run with the others, from the next round on.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.started.borrow_mut().push(Box::pin(task));
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").field("started", &self.started.borrow().len()).finish()
    }
}

/// The futures of a program. A task that is not woken costs nothing.
#[derive(Debug)]
pub struct Tasks {
    running: FuturesUnordered<Task>,
    spawner: Spawner,
    woken: Arc<Woken>,
    waker: Waker,
}

impl Default for Tasks {
    fn default() -> Self {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        Self { running: FuturesUnordered::new(), spawner: Spawner::default(), woken, waker }
    }
}

impl Tasks {
    /// For starting more.
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Tasks that have not ended.
    pub fn len(&self) -> usize {
        self.running.len() + self.spawner.started.borrow().len()
    }

    /// Whether all have ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether [`Self::run`] has something to do.
    pub fn is_ready(&self) -> bool {
        self.woken.0.load(Ordering::Acquire) || !self.spawner.started.borrow().is_empty()
    }

    /// Polls each task that was woken, and those that they start, about once. Who wakes itself again and again has its next turn
    /// with the next call.
    pub fn run(&mut self) {
        self.woken.0.store(false, Ordering::Release);
        let mut context = Context::from_waker(&self.waker);
        loop {
            let started = core::mem::take(&mut *self.spawner.started.borrow_mut());
            self.running.extend(started);
            match Pin::new(&mut self.running).poll_next(&mut context) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending => {
                    if self.spawner.started.borrow().is_empty() {
                        return;
                    }
                }
            }
        }
    }
}

//! Asking a vCPU's thread to do something between two entries of the guest: only there are the vCPU's registers to be had, and
//! only its own thread may have them.
//!
//! What is asked lies on the vCPU's [`Desk`]. Its thread looks there before it enters the guest, and once it sees that
//! something lies there it enters no more ([`Desk::is_asked`] makes the next KVM_RUN return at once, which also completes
//! what the last exit began); so the vCPU is between two instructions when the job runs. Whoever asks kicks the thread out
//! of KVM_RUN, a halt or the wait in a turn, and kicks again each millisecond until the job was taken: a signal that comes
//! between the look and KVM_RUN interrupts nothing, and nothing else can get lost.
//!
//! A vCPU can also be held: then its thread stays at the desk, does what it is asked and nothing else, until nobody holds it any
//! more ([`super::pause`]).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a thread is asked to do with its vCPU.
pub(super) type Job<V> = Box<dyn FnOnce(&V) + Send>;

/// Why nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The vCPU does not run any more.
    #[error("the machine has ended")]
    Ended,
    /// There is no vCPU of that number.
    #[error("the machine has no such vCPU")]
    NoSuchVcpu,
    /// The job panicked. The machine goes on.
    #[error("what the vCPU was asked to do failed; please report this")]
    Failed,
}

/// What is asked of one vCPU's thread.
pub(crate) struct Desk<V> {
    /// Something may lie here.
    asked: AtomicBool,
    jobs: Mutex<Jobs<V>>,
    /// Something changed that a thread may wait for, here or who holds the vCPU.
    changed: Condvar,
}

struct Jobs<V> {
    waiting: VecDeque<Job<V>>,
    /// How many hold the vCPU.
    holds: u32,
    /// Its thread is here because of that.
    held: bool,
    /// The machine is to end: nobody is held any more.
    ending: bool,
    /// The vCPU has ended.
    closed: bool,
}

impl<V> Default for Desk<V> {
    fn default() -> Self {
        let jobs = Jobs { waiting: VecDeque::new(), holds: 0, held: false, ending: false, closed: false };
        Self { asked: AtomicBool::new(false), jobs: Mutex::new(jobs), changed: Condvar::new() }
    }
}

impl<V> Desk<V> {
    fn jobs(&self) -> MutexGuard<'_, Jobs<V>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the thread has to come out. One relaxed load: who asked kicks, and kicks again.
    #[inline]
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Asks. The thread must be kicked.
    pub(super) fn put(&self, job: Job<V>) -> Result<(), AskError> {
        let mut jobs = self.jobs();
        if jobs.closed {
            return Err(AskError::Ended);
        }
        jobs.waiting.push_back(job);
        self.asked.store(true, Ordering::Relaxed);
        self.changed.notify_all();
        Ok(())
    }

    /// Does what was asked, on the vCPU's thread, between two entries of the guest, and as long as somebody holds it. A job that
    /// panics is that job's end.
    pub(crate) fn serve(&self, vcpu: &V) {
        while let Some(job) = self.take() {
            if catch_unwind(AssertUnwindSafe(|| job(vcpu))).is_err() {
                tracing::error!("a tool's job on a vCPU panicked; please report this");
            }
        }
    }

    /// The next job; waits for one while the vCPU is held. Without one, nothing is asked any more: that is said under the lock that
    /// [`Self::put`] and [`Self::hold`] take.
    fn take(&self) -> Option<Job<V>> {
        let mut jobs = self.jobs();
        loop {
            let job = jobs.waiting.pop_front();
            if job.is_some() {
                return job;
            }
            if jobs.holds == 0 || jobs.ending {
                jobs.held = false;
                self.asked.store(false, Ordering::Relaxed);
                return None;
            }
            jobs.held = true;
            self.changed.notify_all();
            jobs = self.changed.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// One more holds the vCPU. The thread must be kicked.
    pub(crate) fn hold(&self) -> Result<(), AskError> {
        let mut jobs = self.jobs();
        if jobs.closed || jobs.ending {
            return Err(AskError::Ended);
        }
        jobs.holds += 1;
        self.asked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// One less does.
    pub(crate) fn release(&self) {
        let mut jobs = self.jobs();
        jobs.holds = jobs.holds.saturating_sub(1);
        self.changed.notify_all();
    }

    /// Waits until the thread is here because it is held, for some time. Whether it is.
    pub(super) fn wait_held(&self, time: Duration) -> Result<bool, AskError> {
        let waits = |jobs: &mut Jobs<V>| !jobs.held && !jobs.closed && !jobs.ending;
        let waited = self.changed.wait_timeout_while(self.jobs(), time, waits);
        let jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
        if jobs.closed || jobs.ending { Err(AskError::Ended) } else { Ok(jobs.held) }
    }

    /// The machine is to end: who is held goes, to see that, and nobody is held from now on.
    pub(super) fn end_holds(&self) {
        self.jobs().ending = true;
        self.changed.notify_all();
    }

    /// The vCPU has ended: who asked hears of it by the drop of the job.
    pub(super) fn close(&self) {
        let dropped = {
            let mut jobs = self.jobs();
            jobs.closed = true;
            std::mem::take(&mut jobs.waiting)
        };
        self.changed.notify_all();
        drop(dropped);
    }
}

//! Asking a vCPU's thread to do something between two entries of the guest: only there are the vCPU's registers to be had, and
//! only its own thread may have them.
//!
//! What is asked lies on the vCPU's [`Desk`]. Its thread looks there before it enters the guest, and once it sees that
//! something lies there it enters no more ([`Desk::is_asked`] makes the next KVM_RUN return at once, which also completes
//! what the last exit began); so the vCPU is between two instructions when the job runs. Whoever asks kicks the thread out
//! of KVM_RUN, a halt or the wait in a turn, and kicks again each millisecond until the job was taken: a signal that comes
//! between the look and KVM_RUN interrupts nothing, and nothing else can get lost.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
}

struct Jobs<V> {
    waiting: VecDeque<Job<V>>,
    /// The vCPU has ended.
    closed: bool,
}

impl<V> Default for Desk<V> {
    fn default() -> Self {
        let jobs = Jobs { waiting: VecDeque::new(), closed: false };
        Self { asked: AtomicBool::new(false), jobs: Mutex::new(jobs) }
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
        Ok(())
    }

    /// Does what was asked, on the vCPU's thread, between two entries of the guest. A job that panics is that job's end.
    pub(crate) fn serve(&self, vcpu: &V) {
        while let Some(job) = self.take() {
            if catch_unwind(AssertUnwindSafe(|| job(vcpu))).is_err() {
                tracing::error!("a tool's job on a vCPU panicked; please report this");
            }
        }
    }

    /// The next job. Without one, nothing is asked any more: that is said under the lock that [`Self::put`] takes.
    fn take(&self) -> Option<Job<V>> {
        let mut jobs = self.jobs();
        let job = jobs.waiting.pop_front();
        if job.is_none() {
            self.asked.store(false, Ordering::Relaxed);
        }
        job
    }

    /// The vCPU has ended: who asked hears of it by the drop of the job.
    pub(super) fn close(&self) {
        let dropped = {
            let mut jobs = self.jobs();
            jobs.closed = true;
            std::mem::take(&mut jobs.waiting)
        };
        drop(dropped);
    }
}

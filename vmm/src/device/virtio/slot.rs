//! What every device with queues keeps of them: whether each works, for whom, and whether doorbells are wanted.

use std::sync::Arc;

use super::queue::QueueError;
use super::{BindError, Binder};
use crate::account::ledger::{Bucket, Ledger};
use crate::backend::PinnedMemory;
use crate::trace::Happening;

/// What became of a queue.
#[derive(Debug, Default)]
pub(super) enum Slot<Q> {
    /// Not enabled.
    #[default]
    Off,
    /// Working.
    Running(Q),
    /// Stopped by its driver's fault, until it is reset.
    Stopped(QueueError),
}

impl<Q> Slot<Q> {
    pub(super) fn running(&mut self) -> Option<&mut Q> {
        if let Self::Running(queue) = self { Some(queue) } else { None }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    pub(super) fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped(_))
    }

    /// For people; `environment` says whose a working queue is.
    pub(super) fn state(&self, environment: impl Fn(&Q) -> u32) -> QueueState {
        match self {
            Self::Off => QueueState::Off,
            Self::Running(queue) => QueueState::Running { environment: environment(queue) },
            Self::Stopped(error) => QueueState::Stopped(*error),
        }
    }
}

/// A queue's state, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// Not enabled.
    Off,
    /// Working for an environment.
    Running {
        /// Which one.
        environment: u32,
    },
    /// Stopped by its driver's fault, until it is reset.
    Stopped(QueueError),
}

/// Whether somebody polls, so that doorbells are of no use; queues that are enabled later learn it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doorbells {
    Wanted,
    Suppressed,
}

/// The binder, without demanding that it can be printed.
pub(super) struct Binding<M>(Arc<dyn Binder<M>>);

impl<M: PinnedMemory> Binding<M> {
    pub(super) fn new(binder: Arc<dyn Binder<M>>) -> Self {
        Self(binder)
    }

    /// See [`Binder::bind`].
    pub(super) fn bind(&self, device: u32, queue: u16) -> Result<(u32, M), BindError> {
        self.0.bind(device, queue)
    }
}

impl<M> std::fmt::Debug for Binding<M> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Binding")
    }
}

/// Takes the time stamps of one call of a device's work, and none if there was nothing to do.
pub(super) struct Clock<'l> {
    ledger: &'l Ledger,
    before: Option<Bucket>,
}

impl<'l> Clock<'l> {
    pub(super) fn new(ledger: &'l Ledger) -> Self {
        Self { ledger, before: None }
    }

    #[inline]
    pub(super) fn enter(&mut self, bucket: Bucket) {
        let left = self.ledger.enter(bucket);
        self.before.get_or_insert(left);
    }

    /// When the current bucket began.
    #[inline]
    pub(super) fn since_tsc(&self) -> u64 {
        self.ledger.since_tsc()
    }

    /// Writes down what happened to a frame or a request, from `from_tsc` on until the current bucket began.
    #[inline]
    pub(super) fn happened(&self, what: Happening, subject: u64, from_tsc: u64) {
        self.ledger.recorder().happened(what, subject, from_tsc, self.ledger.since_tsc());
    }

    /// Back to what was before.
    #[inline]
    pub(super) fn end(self) {
        if let Some(before) = self.before {
            self.ledger.enter(before);
        }
    }
}

//! Sleeping tasks.

use crate::state::Sockets;
use alloc::collections::BTreeMap;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use exos_net::{Duration, Instant};

/// Who sleeps until when; the number tells those of the same instant apart.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    sleepers: BTreeMap<(Instant, u64), Waker>,
    next_number: u64,
}

impl Timers {
    /// The earliest end of a sleep.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.sleepers.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Wakes who has slept enough.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(first) = self.sleepers.first_entry()
            && first.key().0 <= now
        {
            first.remove().wake();
        }
    }
}

/// A sleep.
#[derive(Debug)]
pub struct Sleep {
    sockets: Sockets,
    at: Instant,
    number: Option<u64>,
}

impl Sockets {
    /// Waits until `at`.
    pub fn sleep_until(&self, at: Instant) -> Sleep {
        Sleep { sockets: self.clone(), at, number: None }
    }

    /// Waits for a while.
    pub fn sleep(&self, time: Duration) -> Sleep {
        self.sleep_until(self.now() + time)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let sockets = self.sockets.clone();
        let mut state = sockets.state();
        if state.now >= self.at {
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            state.timers.next_number += 1;
            state.timers.next_number
        });
        state.timers.sleepers.insert((self.at, number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.sockets.state().timers.sleepers.remove(&(self.at, number));
        }
    }
}

//! Deadlines of many connections. A deadline that moves back costs nothing until the old one passes, because connections
//! move theirs with almost every segment.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::slab::Id;

/// A deadline as its owner keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deadline {
    /// When something is to be done.
    at: Option<Duration>,
    /// Its one entry among all: not later.
    queued: Option<Duration>,
}

impl Deadline {
    /// When something is to be done.
    pub(crate) fn at(&self) -> Option<Duration> {
        self.at
    }
}

/// All entries.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    entries: BTreeSet<(Duration, Id)>,
}

impl Timers {
    /// Moves a deadline.
    pub(crate) fn set(&mut self, deadline: &mut Deadline, id: Id, at: Option<Duration>) {
        deadline.at = at;
        if let Some(at) = at
            && deadline.queued.is_none_or(|queued| at < queued)
        {
            if let Some(queued) = deadline.queued.replace(at) {
                self.entries.remove(&(queued, id));
            }
            self.entries.insert((at, id));
        }
    }

    /// When to look again.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes an entry whose time has come. Its owner then asks [`Self::is_due`].
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Id> {
        if self.next()? > now {
            return None;
        }
        self.entries.pop_first().map(|(_, id)| id)
    }

    /// Whether the deadline has passed, for the owner of an entry that [`Self::pop`] gave. If not, it is queued anew.
    pub(crate) fn is_due(&mut self, deadline: &mut Deadline, id: Id, now: Duration) -> bool {
        deadline.queued = None;
        match deadline.at {
            Some(at) if at <= now => {
                deadline.at = None;
                true
            }
            at => {
                self.set(deadline, id, at);
                false
            }
        }
    }

    /// Its owner goes.
    pub(crate) fn forget(&mut self, deadline: &mut Deadline, id: Id) {
        if let Some(queued) = deadline.queued.take() {
            self.entries.remove(&(queued, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Id = Id { index: 1, generation: 0 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Lets time pass; returns whether the deadline came.
    fn pass(timers: &mut Timers, deadline: &mut Deadline, now: Duration) -> bool {
        let mut due = false;
        while let Some(id) = timers.pop(now) {
            due |= timers.is_due(deadline, id, now);
        }
        due
    }

    #[test]
    fn deadline_that_moved_back_comes_once_and_late() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        for at in 10..20 {
            timers.set(&mut deadline, ID, Some(ms(at)));
        }
        assert_eq!(timers.entries.len(), 1);
        assert!(!pass(&mut timers, &mut deadline, ms(18)));
        assert!(pass(&mut timers, &mut deadline, ms(19)));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn deadline_that_moved_forward_comes_once_and_early() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        timers.set(&mut deadline, ID, Some(ms(100)));
        timers.set(&mut deadline, ID, Some(ms(10)));
        assert_eq!(timers.entries.len(), 1);
        assert!(pass(&mut timers, &mut deadline, ms(10)));
        assert!(!pass(&mut timers, &mut deadline, ms(200)));
    }

    #[test]
    fn deadline_that_was_taken_back_does_not_come() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        timers.set(&mut deadline, ID, Some(ms(10)));
        timers.set(&mut deadline, ID, None);
        assert!(!pass(&mut timers, &mut deadline, ms(20)));
        assert_eq!((deadline.at(), timers.next()), (None, None));
    }
}

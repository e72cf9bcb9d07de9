//! Why a vCPU left the guest, counted by its thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What KVM_RUN came back for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Exit {
    /// The guest takes a turn.
    Turn,
    /// The kernel writes a control register.
    Control,
    /// The kernel reads a control register.
    ControlRead,
    /// A doorbell that was not an event of its own.
    Doorbell,
    /// A register write by which a queue came or went.
    Queues,
    /// Any other write to a device's register.
    Register,
    /// A read of a device's register.
    RegisterRead,
    /// A port.
    Port,
    /// A signal: the thread is asked for something.
    Interrupted,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 9] = [
        Self::Turn,
        Self::Control,
        Self::ControlRead,
        Self::Doorbell,
        Self::Queues,
        Self::Register,
        Self::RegisterRead,
        Self::Port,
        Self::Interrupted,
    ];

    /// Its name in statistics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Control => "control",
            Self::ControlRead => "control_read",
            Self::Doorbell => "doorbell",
            Self::Queues => "queues",
            Self::Register => "register",
            Self::RegisterRead => "register_read",
            Self::Port => "port",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The counts of one vCPU. Only its thread adds; anybody may read.
#[derive(Debug, Default)]
pub(crate) struct Exits([AtomicU64; Exit::ALL.len()]);

impl Exits {
    /// One more.
    #[inline]
    pub(crate) fn count(&self, exit: Exit) {
        // One writer: a plain add is enough.
        let count = &self.0[exit as usize];
        count.store(count.load(Relaxed) + 1, Relaxed);
    }

    /// How many so far.
    pub(crate) fn read(&self, exit: Exit) -> u64 {
        self.0[exit as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exit_is_counted_by_itself() {
        let exits = Exits::default();
        for (times, exit) in (1..).zip(Exit::ALL) {
            (0..times).for_each(|_| exits.count(exit));
        }
        for (times, exit) in (1..).zip(Exit::ALL) {
            assert_eq!(exits.read(exit), times, "{}", exit.name());
        }
    }
}

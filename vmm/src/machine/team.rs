//! The vCPUs of a machine as one: their threads begin together, and the first that ends ends all of them.
//!
//! The first to end waits until the others have left the guest, too, and only then says how the machine ended. So whoever
//! hears of the end knows that no vCPU touches the guest's memory any more.

use super::MachineError;
use super::vcpu::VcpuEnd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The signal that ends KVM_RUN: its handler does nothing, the interruption is all.
const KICK_SIGNAL: i32 = 1;

/// How often those who are still in the guest are interrupted: a signal that comes right before KVM_RUN interrupts nothing.
const KICK_PERIOD: Duration = Duration::from_millis(1);

/// How the vCPUs ended: why, and which of them was the first to have a reason of its own.
#[derive(Debug)]
pub(crate) struct TeamEnd {
    /// Number of the vCPU.
    pub(crate) vcpu: u32,
    /// Its reason.
    pub(crate) end: VcpuEnd,
}

/// What the threads share.
#[derive(Default)]
pub(crate) struct Team {
    /// All are to leave the guest.
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How many threads there are, once all of them were made.
    threads: Option<usize>,
    /// Those in the guest.
    inside: Vec<libc::pthread_t>,
    /// Those that have left for good.
    left: usize,
    end: Option<TeamEnd>,
}

impl Team {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many threads were made: they may begin.
    pub(crate) fn begin(&self, threads: usize) {
        self.state().threads = Some(threads);
        self.changed.notify_all();
    }

    /// Whether all are to leave the guest.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// All are to leave the guest. Those that are in it notice when they are interrupted: see [`Self::kick`].
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Interrupts KVM_RUN of all vCPUs.
    pub(crate) fn kick(&self) {
        Self::interrupt(&self.state());
    }

    fn interrupt(state: &State) {
        for &thread in &state.inside {
            // SAFETY: a thread takes itself off the list, under its lock, before it ends, so its id is valid; the signal's
            // handler does nothing.
            unsafe { libc::pthread_kill(thread, kick_signal()) };
        }
    }

    /// The life of a vCPU's thread: waits until all may begin, is in the guest with `run`, and says why it left. Returns how the
    /// machine ended, on the thread that was the first to leave and after all others have.
    pub(crate) fn live(&self, vcpu: u32, run: impl FnOnce() -> VcpuEnd) -> Option<TeamEnd> {
        self.enter();
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let end = end.unwrap_or_else(|_| VcpuEnd::Broken {
            reason: "its thread panicked; please report this".to_owned(),
            registers: None,
        });
        self.leave(vcpu, end)
    }

    fn enter(&self) {
        let mut state = self.state();
        while state.threads.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // SAFETY: no arguments, no memory.
        state.inside.push(unsafe { libc::pthread_self() });
    }

    fn leave(&self, vcpu: u32, end: VcpuEnd) -> Option<TeamEnd> {
        self.stop();
        let mut state = self.state();
        // SAFETY: as above.
        let own = unsafe { libc::pthread_self() };
        state.inside.retain(|&thread| thread != own);
        state.left += 1;
        let is_first = state.left == 1;
        match &state.end {
            None if !matches!(end, VcpuEnd::Stopped) => state.end = Some(TeamEnd { vcpu, end }),
            Some(first) if !matches!(end, VcpuEnd::Stopped) => {
                tracing::warn!("vCPU {vcpu} ended by itself, too, after vCPU {}: {end:?}", first.vcpu);
            }
            _ => {}
        }
        if !is_first {
            self.changed.notify_all();
            return None;
        }
        while state.threads.is_some_and(|threads| state.left < threads) {
            Self::interrupt(&state);
            let waited = self.changed.wait_timeout(state, KICK_PERIOD);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(state.end.take().unwrap_or(TeamEnd { vcpu, end: VcpuEnd::Stopped }))
    }
}

fn kick_signal() -> i32 {
    vmm_sys_util::signal::SIGRTMIN() + KICK_SIGNAL
}

/// The handler that does nothing; setting it again changes nothing.
pub(super) fn register_kick_signal() -> Result<(), MachineError> {
    extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    vmm_sys_util::signal::register_signal_handler(kick_signal(), ignore)
        .map_err(|error| MachineError::host("signal handler")(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// What a vCPU does in the guest; all but `Halts` end by themselves.
    #[derive(Clone, Copy)]
    enum Guest {
        Halts,
        PowersOff(u32),
        Panics,
    }

    fn run(team: &Team, guest: Guest) -> VcpuEnd {
        match guest {
            Guest::PowersOff(status) => VcpuEnd::PowerOff { status },
            Guest::Panics => panic!("as a defect of the VMM would"),
            Guest::Halts => {
                while !team.is_stopping() {
                    // As KVM_RUN at a halt: nothing but a signal ends it.
                    // SAFETY: waits for a signal; no memory.
                    unsafe { libc::pause() };
                }
                VcpuEnd::Stopped
            }
        }
    }

    /// Lets so many threads live; what those return that were the first.
    fn live(guests: &[Guest]) -> (Arc<Team>, Receiver<Option<TeamEnd>>) {
        super::register_kick_signal().expect("a handler");
        let team = Arc::new(Team::default());
        let (said, ends) = channel();
        for (vcpu, &guest) in (0..).zip(guests) {
            let (team, said) = (Arc::clone(&team), said.clone());
            std::thread::spawn(move || said.send(team.live(vcpu, || run(&team, guest))));
        }
        team.begin(guests.len());
        (team, ends)
    }

    /// The one end of a machine, after all of its threads have left.
    fn the_end(ends: &Receiver<Option<TeamEnd>>, threads: usize) -> TeamEnd {
        let all: Vec<_> = (0..threads).map(|_| ends.recv_timeout(PATIENCE).expect("it ends")).collect();
        let mut ends: Vec<_> = all.into_iter().flatten().collect();
        assert_eq!(ends.len(), 1, "one thread says how the machine ended");
        ends.remove(0)
    }

    #[test]
    fn first_vcpu_that_ends_ends_those_that_are_halted() {
        for ending in 0..4 {
            let mut guests = [Guest::Halts; 4];
            guests[ending] = Guest::PowersOff(7);
            let (_team, ends) = live(&guests);
            let end = the_end(&ends, 4);
            assert_eq!(end.vcpu as usize, ending);
            assert!(matches!(end.end, VcpuEnd::PowerOff { status: 7 }), "{end:?}");
        }
    }

    #[test]
    fn several_that_end_at_once_are_one_end() {
        for _ in 0..50 {
            let (_team, ends) = live(&[Guest::PowersOff(1), Guest::PowersOff(1), Guest::Halts]);
            assert!(matches!(the_end(&ends, 3).end, VcpuEnd::PowerOff { status: 1 }));
        }
    }

    #[test]
    fn panic_of_a_thread_is_an_end_with_its_number() {
        let (_team, ends) = live(&[Guest::Halts, Guest::Panics]);
        let end = the_end(&ends, 2);
        assert!(matches!(&end.end, VcpuEnd::Broken { reason, .. } if reason.contains("panicked")), "{end:?}");
        assert_eq!(end.vcpu, 1);
    }

    #[test]
    fn all_that_are_stopped_from_outside_leave() {
        let (team, ends) = live(&[Guest::Halts; 3]);
        let started = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        assert!(ends.try_recv().is_err());
        team.stop();
        // The others are reached by the first that leaves.
        let end = loop {
            team.kick();
            match ends.recv_timeout(KICK_PERIOD) {
                Ok(Some(end)) => break end,
                _ => assert!(started.elapsed() < PATIENCE),
            }
        };
        assert!(matches!(end.end, VcpuEnd::Stopped));
    }

    #[test]
    fn threads_wait_for_each_other_before_they_begin() {
        let team = Arc::new(Team::default());
        let (said, began) = channel();
        let early = Arc::clone(&team);
        let thread = std::thread::spawn(move || {
            early.live(0, || {
                let _ = said.send(());
                VcpuEnd::Stopped
            })
        });
        assert!(began.recv_timeout(Duration::from_millis(50)).is_err(), "not all were made");
        team.begin(1);
        assert!(thread.join().expect("no panic").is_some());
        assert!(began.recv().is_ok());
    }
}

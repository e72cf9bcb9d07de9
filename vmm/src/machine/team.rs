//! The vCPUs of a machine as one: their threads begin together, and the first that ends ends all of them.
//!
//! The first to end waits until the others have left the guest, too, and only then says how the machine ended. So whoever
//! hears of the end knows that no vCPU touches the guest's memory any more.
//!
//! Tools have the threads do something with their vCPUs by [`Team::ask`]; how that works is in [`super::desk`]. They stop all of
//! them by [`Team::pause`], which is in [`super::pause`].

use super::MachineError;
use super::desk::{AskError, Desk};
use super::vcpu::VcpuEnd;
use kvm_ioctls::VcpuFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The signal that ends KVM_RUN: its handler does nothing, the interruption is all.
const KICK_SIGNAL: i32 = 1;

/// How often those who are still in the guest are interrupted: a signal that comes right before KVM_RUN interrupts nothing.
pub(super) const KICK_PERIOD: Duration = Duration::from_millis(1);

/// How the vCPUs ended: why, and which of them was the first to have a reason of its own.
#[derive(Debug)]
pub(crate) struct TeamEnd {
    /// Number of the vCPU.
    pub(crate) vcpu: u32,
    /// Its reason.
    pub(crate) end: VcpuEnd,
}

/// What the threads share.
pub(crate) struct Team<V = VcpuFd> {
    /// All are to leave the guest.
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    /// By vCPU.
    desks: Vec<Arc<Desk<V>>>,
}

#[derive(Default)]
struct State {
    /// How many threads there are, once all of them were made.
    threads: Option<usize>,
    /// Those in the guest, with their vCPUs' numbers.
    inside: Vec<(u32, libc::pthread_t)>,
    /// Those that have left for good.
    left: usize,
    end: Option<TeamEnd>,
}

impl<V: 'static> Team<V> {
    /// Of so many vCPUs.
    pub(crate) fn new(vcpus: u32) -> Self {
        Self {
            stop: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
            desks: (0..vcpus).map(|_| Arc::default()).collect(),
        }
    }

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
        self.desks.iter().for_each(|desk| desk.end_holds());
    }

    /// How many vCPUs there are.
    pub(crate) fn vcpus(&self) -> u32 {
        self.desks.len() as u32
    }

    /// Where a vCPU's thread finds what it is asked.
    pub(crate) fn desk(&self, vcpu: u32) -> Result<&Arc<Desk<V>>, AskError> {
        self.desks.get(vcpu as usize).ok_or(AskError::NoSuchVcpu)
    }

    /// Has a vCPU's thread run `job`, and waits for what comes of it. Soon, whatever the vCPU does: it is taken out of the guest,
    /// a halt or a turn; device work that is under way is finished first. Never to be called on a vCPU's thread.
    pub(crate) fn ask<R: Send + 'static>(
        &self,
        vcpu: u32,
        job: impl FnOnce(&V) -> R + Send + 'static,
    ) -> Result<R, AskError> {
        let taken = Arc::new(AtomicBool::new(false));
        let (answer, answers) = sync_channel(1);
        let begun = Arc::clone(&taken);
        self.post(vcpu, move |vcpu| {
            begun.store(true, Ordering::Relaxed);
            // Who asked waits for it.
            let _ = answer.send(job(vcpu));
        })?;
        loop {
            match answers.recv_timeout(KICK_PERIOD) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) if taken.load(Ordering::Relaxed) => {}
                Err(RecvTimeoutError::Timeout) => self.kick_one(vcpu),
                Err(RecvTimeoutError::Disconnected) if taken.load(Ordering::Relaxed) => {
                    return Err(AskError::Failed);
                }
                Err(RecvTimeoutError::Disconnected) => return Err(AskError::Ended),
            }
        }
    }

    /// Has a vCPU's thread run `job`, kicks it once and does not wait. Whoever wants to be sure that it is soon calls
    /// [`Self::kick_one`] now and then until the job has begun. It is dropped if the vCPU ends before.
    pub(crate) fn post(&self, vcpu: u32, job: impl FnOnce(&V) + Send + 'static) -> Result<(), AskError> {
        self.desk(vcpu)?.put(Box::new(job))?;
        self.kick_one(vcpu);
        Ok(())
    }

    /// Interrupts one vCPU's KVM_RUN, or its wait in a turn.
    pub(crate) fn kick_one(&self, vcpu: u32) {
        Self::interrupt(&self.state(), |number| number == vcpu);
    }

    /// Interrupts KVM_RUN of all vCPUs.
    pub(crate) fn kick(&self) {
        Self::interrupt(&self.state(), |_| true);
    }

    fn interrupt(state: &State, whom: impl Fn(u32) -> bool) {
        for &(_, thread) in state.inside.iter().filter(|(number, _)| whom(*number)) {
            // SAFETY: a thread takes itself off the list, under its lock, before it ends, so its id is valid; the signal's
            // handler does nothing.
            unsafe { libc::pthread_kill(thread, kick_signal()) };
        }
    }

    /// The life of a vCPU's thread: waits until all may begin, is in the guest with `run`, and says why it left. Returns how the
    /// machine ended, on the thread that was the first to leave and after all others have.
    pub(crate) fn live(&self, vcpu: u32, run: impl FnOnce() -> VcpuEnd) -> Option<TeamEnd> {
        self.enter(vcpu);
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let end = end.unwrap_or_else(|_| VcpuEnd::Broken {
            reason: "its thread panicked; please report this".to_owned(),
            registers: None,
        });
        self.leave(vcpu, end)
    }

    fn enter(&self, vcpu: u32) {
        let mut state = self.state();
        while state.threads.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // SAFETY: no arguments, no memory.
        state.inside.push((vcpu, unsafe { libc::pthread_self() }));
    }

    fn leave(&self, vcpu: u32, end: VcpuEnd) -> Option<TeamEnd> {
        self.stop();
        if let Ok(desk) = self.desk(vcpu) {
            desk.close();
        }
        let mut state = self.state();
        state.inside.retain(|&(number, _)| number != vcpu);
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
            Self::interrupt(&state, |_| true);
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

    /// A vCPU that is a number.
    type Team = super::Team<u32>;

    /// What a vCPU does in the guest; all but `Halts` and `Spins` end by themselves.
    #[derive(Clone, Copy)]
    enum Guest {
        Halts,
        /// Never waits for anything, so no kick gets it out of that.
        Spins,
        PowersOff(u32),
        Panics,
    }

    fn run(team: &Team, vcpu: u32, guest: Guest) -> VcpuEnd {
        let desk = team.desk(vcpu).expect("a desk for each");
        match guest {
            Guest::PowersOff(status) => VcpuEnd::PowerOff { status },
            Guest::Panics => panic!("as a defect of the VMM would"),
            Guest::Spins => {
                while !team.is_stopping() {
                    if desk.is_asked() {
                        desk.serve(&vcpu);
                    }
                    std::hint::spin_loop();
                }
                VcpuEnd::Stopped
            }
            Guest::Halts => {
                while !team.is_stopping() {
                    if desk.is_asked() {
                        desk.serve(&vcpu);
                        continue;
                    }
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
        let team = Arc::new(Team::new(guests.len() as u32));
        let (said, ends) = channel();
        for (vcpu, &guest) in (0..).zip(guests) {
            let (team, said) = (Arc::clone(&team), said.clone());
            std::thread::spawn(move || said.send(team.live(vcpu, || run(&team, vcpu, guest))));
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

    /// Ends a machine whose vCPUs are still there.
    fn stop(team: &Team, ends: &Receiver<Option<TeamEnd>>, threads: usize) {
        team.stop();
        team.kick();
        the_end(ends, threads);
    }

    #[test]
    fn every_ask_is_answered_by_the_thread_of_its_vcpu_whatever_that_does() {
        let (team, ends) = live(&[Guest::Halts, Guest::Spins, Guest::Halts]);
        let mut threads = Vec::new();
        let begun = Instant::now();
        const ROUNDS: u32 = 2000;
        for round in 0..ROUNDS {
            for vcpu in 0..3 {
                let (number, sum, thread) = team
                    .ask(vcpu, move |&number| (number, number + round, std::thread::current().id()))
                    .expect("it runs");
                assert_eq!((number, sum), (vcpu, vcpu + round));
                threads.push(thread);
            }
        }
        println!("{:?} an ask", begun.elapsed() / (3 * ROUNDS));
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        assert!(threads.chunks(3).all(|round| round == &threads[..3]), "one thread is one vCPU");
        assert!(threads[0] != threads[1] && threads[1] != threads[2] && threads[0] != threads[2]);
        stop(&team, &ends, 3);
    }

    #[test]
    fn asks_of_many_at_once_are_all_answered() {
        let (team, ends) = live(&[Guest::Halts, Guest::Halts]);
        std::thread::scope(|scope| {
            for asker in 0..4 {
                let team = &team;
                scope.spawn(move || {
                    for round in 0..500 {
                        assert_eq!(team.ask(round % 2, move |_| (asker, round)), Ok((asker, round)));
                    }
                });
            }
        });
        stop(&team, &ends, 2);
    }

    #[test]
    fn ask_of_a_machine_that_ends_says_so() {
        // Before, at any moment of, and after the end.
        for pause_us in 0..200 {
            let (team, ends) = live(&[Guest::Halts, Guest::Halts]);
            let asking = Arc::clone(&team);
            let asker = std::thread::spawn(move || {
                while asking.ask(1, |_| ()).is_ok() {}
                asking.ask(1, |_| ())
            });
            std::thread::sleep(Duration::from_micros(pause_us));
            stop(&team, &ends, 2);
            assert_eq!(asker.join().expect("no panic"), Err(AskError::Ended));
            assert_eq!(team.ask(0, |_| ()), Err(AskError::Ended));
        }
    }

    #[test]
    fn ask_of_a_vcpu_that_is_not_there_or_of_a_job_that_panics_says_so() {
        let (team, ends) = live(&[Guest::Halts]);
        assert_eq!(team.ask(1, |_| ()), Err(AskError::NoSuchVcpu));
        assert_eq!(team.ask(0, |_| -> u32 { panic!("as a defect of a tool would") }), Err(AskError::Failed));
        assert_eq!(team.ask(0, |_| 7), Ok(7), "and the vCPU goes on");
        stop(&team, &ends, 1);
    }

    #[test]
    fn threads_wait_for_each_other_before_they_begin() {
        let team = Arc::new(Team::new(1));
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

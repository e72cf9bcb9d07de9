//! All vCPUs out of the guest, and no instruction of it executed until the pause is over.
//!
//! A pause holds each vCPU at its desk ([`super::desk`]): between two instructions, whatever it was doing. Pauses nest: as long
//! as one tool holds a vCPU, it stays. While it does, [`Pause::ask`] reads and writes its registers. The machine's other threads
//! go on: device work that is not done in a turn, timers, the service thread; so frames may still arrive in the guest's memory.
//! Stopping the machine ends every pause.

use super::desk::AskError;
use super::team::{KICK_PERIOD, Team};
use kvm_ioctls::VcpuFd;
use std::sync::Arc;

/// All vCPUs of a machine are out of the guest, but for those that were let go. Dropping it ends that.
pub struct Pause<V: 'static = VcpuFd> {
    team: Arc<Team<V>>,
    /// By vCPU, whether it is held.
    held: Vec<bool>,
}

impl<V: 'static> Team<V> {
    /// Stops all vCPUs, and returns when they are. Soon, as [`Self::ask`] is; never to be called on a vCPU's thread.
    pub(crate) fn pause(self: &Arc<Self>) -> Result<Pause<V>, AskError> {
        let mut pause = Pause { team: Arc::clone(self), held: vec![false; self.vcpus() as usize] };
        // All at once, then one wait.
        for vcpu in 0..self.vcpus() {
            pause.begin(vcpu)?;
        }
        for vcpu in 0..self.vcpus() {
            pause.wait(vcpu)?;
        }
        Ok(pause)
    }
}

impl<V: 'static> Pause<V> {
    /// Has a vCPU's thread run `job` where it is held.
    pub fn ask<R: Send + 'static>(
        &self,
        vcpu: u32,
        job: impl FnOnce(&V) -> R + Send + 'static,
    ) -> Result<R, AskError> {
        self.team.ask(vcpu, job)
    }

    /// Lets one vCPU go on, as far as nobody else holds it.
    pub fn release(&mut self, vcpu: u32) {
        if let (Some(held), Ok(desk)) = (self.held.get_mut(vcpu as usize), self.team.desk(vcpu))
            && std::mem::take(held)
        {
            desk.release();
        }
    }

    /// Stops one that was let go, and returns when it is.
    pub fn hold(&mut self, vcpu: u32) -> Result<(), AskError> {
        self.begin(vcpu)?;
        self.wait(vcpu)
    }

    /// Takes over holds that others have on vCPUs, one a number: whether or not all of them are held by this pause then, those holds
    /// are over.
    pub(crate) fn take_over(&mut self, vcpus: impl Iterator<Item = u32>) -> Result<(), AskError> {
        let mut all = Ok(());
        for vcpu in vcpus {
            all = all.and(self.hold(vcpu));
            if let Ok(desk) = self.team.desk(vcpu) {
                desk.release();
            }
        }
        all
    }

    fn begin(&mut self, vcpu: u32) -> Result<(), AskError> {
        let desk = self.team.desk(vcpu)?;
        let held = self.held.get_mut(vcpu as usize).ok_or(AskError::NoSuchVcpu)?;
        if !*held {
            desk.hold()?;
            *held = true;
            self.team.kick_one(vcpu);
        }
        Ok(())
    }

    fn wait(&self, vcpu: u32) -> Result<(), AskError> {
        while !self.team.desk(vcpu)?.wait_held(KICK_PERIOD)? {
            self.team.kick_one(vcpu);
        }
        Ok(())
    }
}

impl<V: 'static> Drop for Pause<V> {
    fn drop(&mut self) {
        for vcpu in 0..self.team.vcpus() {
            self.release(vcpu);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::team::register_kick_signal;
    use crate::machine::vcpu::VcpuEnd;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    /// vCPUs that count as long as they are in the guest.
    struct Guest {
        team: Arc<Team<u32>>,
        counts: Arc<Vec<AtomicU64>>,
        threads: Vec<JoinHandle<()>>,
    }

    impl Guest {
        fn new(vcpus: u32) -> Self {
            register_kick_signal().expect("a handler");
            let team = Arc::new(Team::new(vcpus));
            let counts: Arc<Vec<_>> = Arc::new((0..vcpus).map(|_| AtomicU64::new(0)).collect());
            let threads = (0..vcpus).map(|vcpu| {
                let (team, counts) = (Arc::clone(&team), Arc::clone(&counts));
                std::thread::spawn(move || {
                    team.live(vcpu, || {
                        let desk = team.desk(vcpu).expect("a desk");
                        while !team.is_stopping() {
                            if desk.is_asked() {
                                desk.serve(&vcpu);
                            }
                            counts[vcpu as usize].fetch_add(1, Ordering::Relaxed);
                        }
                        VcpuEnd::Stopped
                    });
                })
            });
            let threads = threads.collect();
            team.begin(vcpus as usize);
            Self { team, counts, threads }
        }

        fn counts(&self) -> Vec<u64> {
            self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
        }

        /// Those vCPUs do something, as soon as they have a CPU, and in a while the others do nothing.
        fn assert_run<const N: usize>(&self, expected: [bool; N]) {
            let (before, begun) = (self.counts(), Instant::now());
            std::thread::sleep(Duration::from_millis(30));
            loop {
                let run: Vec<_> =
                    before.iter().zip(self.counts()).map(|(&before, now)| now != before).collect();
                if run == expected {
                    return;
                }
                assert!(begun.elapsed() < Duration::from_secs(20), "{run:?}, expected {expected:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }

        fn end(self) {
            let begun = Instant::now();
            self.team.stop();
            self.threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
    }

    #[test]
    fn paused_vcpus_do_nothing_but_what_they_are_asked() {
        let guest = Guest::new(3);
        for _ in 0..20 {
            let pause = guest.team.pause().expect("it runs");
            let before = guest.counts();
            for vcpu in 0..3 {
                assert_eq!(pause.ask(vcpu, |&number| number), Ok(vcpu));
            }
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(guest.counts(), before);
            drop(pause);
        }
        guest.assert_run([true; 3]);
        guest.end();
    }

    #[test]
    fn vcpu_stays_as_long_as_one_of_two_pauses_holds_it() {
        let guest = Guest::new(2);
        let mut first = guest.team.pause().expect("it runs");
        let second = guest.team.pause().expect("it runs");
        first.release(0);
        guest.assert_run([false; 2]);
        drop(second);
        guest.assert_run([true, false]);
        first.hold(0).expect("it runs");
        guest.assert_run([false; 2]);
        drop(first);
        guest.assert_run([true; 2]);
        guest.end();
    }

    #[test]
    fn holds_that_are_taken_over_are_over_with_the_pause_also_where_one_cannot_be() {
        let guest = Guest::new(3);
        for vcpu in [0, 2, 2] {
            guest.team.desk(vcpu).and_then(|desk| desk.hold()).expect("it runs");
        }
        let mut pause = guest.team.pause().expect("it runs");
        pause.release(1);
        assert_eq!(pause.take_over([0, 7, 2, 2].into_iter()), Err(AskError::NoSuchVcpu));
        guest.assert_run([false, true, false]);
        drop(pause);
        guest.assert_run([true; 3]);
        guest.end();
    }

    #[test]
    fn pauses_of_many_at_once_all_come_and_go() {
        let guest = Guest::new(2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let pause = guest.team.pause().expect("it runs");
                        assert_eq!(pause.ask(1, |&number| number), Ok(1));
                    }
                });
            }
        });
        guest.assert_run([true; 2]);
        guest.end();
    }

    #[test]
    fn machine_that_ends_while_it_is_paused_ends_at_once_and_says_so() {
        let guest = Guest::new(2);
        let mut pause = guest.team.pause().expect("it runs");
        let team = Arc::clone(&guest.team);
        guest.end();
        assert_eq!(pause.ask(0, |_| ()), Err(AskError::Ended));
        pause.release(0);
        assert_eq!(pause.hold(0), Err(AskError::Ended));
        assert!(matches!(team.pause(), Err(AskError::Ended)));
    }
}

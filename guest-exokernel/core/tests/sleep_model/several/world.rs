//! What happens outside of the vCPUs, and what may not stay as it is.

use super::rules::{Act, CPUS, MOST, NOBODY, Rules, Setup, Then, Wake};
use super::state::{Ask, At, Device, Doing, State, bit};
use crate::explore::{Comes, Step};

/// Who makes the steps of devices and the world.
const DEVICES: usize = CPUS;

impl State {
    /// What happens outside.
    pub(super) fn world(&self, setup: &Setup, rules: &Rules, steps: &mut Vec<Step<Self>>) {
        let mut perhaps = |what, change: &dyn Fn(&mut Self)| {
            self.step(steps, Comes::Perhaps, what, DEVICES, change);
        };
        for number in 0..setup.environments.len() {
            if self.frames_left[number] > 0 && self.device == Device::Idle {
                perhaps("a frame comes", &|state| {
                    state.frames_left[number] -= 1;
                    state.used[number] += 1;
                    state.device = Device::Aims(number as u8);
                });
            }
            if self.deadline_left[number] {
                perhaps("a deadline passes", &|state| {
                    state.deadline_left[number] = false;
                    state.environments[number].due = true;
                });
            }
        }
        if setup.ask_ends && self.ask == Ask::Stands && !self.ask_due {
            perhaps("the ask's deadline passes", &|state| state.ask_due = true);
        }
        if setup.stop && !self.stop {
            perhaps("the user wants the end", &|state| {
                // vmm/src/placement/mod.rs `wake_guest`.
                state.stop = true;
                let vcpus = if rules.stop_interrupts_all { CPUS } else { 1 };
                state.vcpus.iter_mut().take(vcpus).for_each(|vcpu| vcpu.interrupt = true);
            });
        }
        match self.device {
            Device::Idle => {}
            Device::Aims(number) => {
                self.step(steps, Comes::Surely, "device: finds whom to interrupt", DEVICES, |state| {
                    state.device = Device::Signals(state.aim[usize::from(number)]);
                });
            }
            Device::Signals(vcpu) => {
                self.step(steps, Comes::Surely, "device: interrupts", DEVICES, |state| {
                    state.device = Device::Idle;
                    match setup.wake {
                        Wake::Silent => state.vcpu(vcpu).silent = true,
                        Wake::Vector => state.vcpu(vcpu).interrupt = true,
                    }
                })
            }
        }
    }

    /// What may not stay as it is, and whether it is so.
    pub(super) fn owed_bits(&self, setup: &Setup) -> Vec<(usize, bool, &'static str)> {
        let mut owed = Vec::new();
        if self.vcpus.iter().any(|vcpu| vcpu.at == At::Off) {
            return owed;
        }
        for (number, work) in setup.environments.iter().enumerate() {
            let environment = &self.environments[number];
            let lives = matches!(environment.doing, Doing::Runnable | Doing::Asleep);
            let asked = self.ask == Ask::Stands && usize::from(self.holder) == number && !self.ask_seen;
            let to_look = self.used[number] != environment.consumed
                || self.words[number] != environment.word_seen
                || environment.to_look
                || environment.due
                || self.stop
                || asked;
            let is_owed = match work.then {
                Then::Serve => lives && to_look,
                Then::Compute => {
                    lives && asked && work.answers || environment.doing == Doing::Asleep && to_look
                }
                Then::Call => false,
            };
            owed.push((number, is_owed, "something came for it"));
            let waits = environment.doing == Doing::Runnable && self.where_runs(number as u8).is_none();
            owed.push((MOST + number, waits, "it could run"));
            let ends = usize::from(self.to_end) == number && environment.doing != Doing::Gone;
            owed.push((2 * MOST + number, ends, "its end is not complete"));
        }
        for (number, vcpu) in self.vcpus.iter().enumerate() {
            let rests = matches!(vcpu.at, At::Halted) && (0..NOBODY).any(|e| self.is_ready(number as u8, e));
            owed.push((3 * MOST + number, rests, "it halts, and somebody could run there"));
            let stuck = matches!(vcpu.at, At::Waits(_) | At::Flushes { .. });
            owed.push((3 * MOST + CPUS + number, stuck, "it waits for others"));
            let current = self.environments.get(usize::from(vcpu.current));
            let is_guest = current.is_some_and(|current| current.vcpus & bit(number as u8) == 0);
            owed.push((3 * MOST + 2 * CPUS + number, is_guest, "who runs there may not"));
        }
        let not_taken = self.ask == Ask::Stands && self.ask_due;
        owed.push((3 * (MOST + CPUS), not_taken, "nobody takes what was asked for"));
        owed
    }
}

impl Act {
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Sleep => "environment: goes to sleep for a while",
            Self::Wake(_) => "environment: wakes another",
            Self::Write(_) => "environment: writes another's word",
            Self::Start(_) => "environment: starts another",
            Self::Move(..) => "environment: moves another",
            Self::Ask(_) => "environment: asks another",
            Self::End(_) => "environment: ends another",
            Self::Unmap(_) => "environment: takes another's page",
        }
    }
}

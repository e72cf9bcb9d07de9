//! The state of a machine with several vCPUs: what the kernel keeps under its lock, what vCPUs tell each other without it, and
//! the world.
//!
//! Each vCPU has a store buffer, as on x86: a plain store is seen by others late. An instruction with a lock prefix empties it, and so
//! does giving the kernel's lock back, since whoever takes it sees all that was stored before.

use super::rules::{CPUS, MOST, NOBODY, Rules, Setup, Then};
use crate::explore::{Comes, Model, Step};

/// Who makes steps besides the vCPUs and the devices: store buffers, one after the other.
const BUFFERS: usize = CPUS + 1;

/// Where an environment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pc {
    Act(u8),
    /// runtime/src/sleep.rs `Watch::now`.
    Watch,
    /// Takes what there is.
    Look,
    /// `Call::Sleep`.
    Sleep,
    /// `Call::Exit`.
    Exit,
    Compute,
    /// `Call::MessageCall`.
    Call,
}

/// What the kernel thinks of an environment (kernel.rs `State`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Doing {
    /// Made, not started.
    New,
    Runnable,
    Asleep,
    Calling,
    Ending,
    Gone,
}

/// The upcall in which an environment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Upcall {
    None,
    SliceEnd,
    Asks,
}

/// One environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Environment {
    pub(crate) pc: Pc,
    pub(crate) doing: Doing,
    /// `Kernel::ending`: steps until all that it held is taken back.
    pub(crate) ending: u8,
    /// Where it may run.
    pub(crate) vcpus: u8,
    pub(crate) upcall: Upcall,
    /// What it took from the used ring, and what the watch remembers of its index.
    pub(crate) consumed: u8,
    pub(crate) expected: u8,
    /// The same of its word.
    pub(crate) word_seen: u8,
    pub(crate) word_expected: u8,
    /// Somebody called `Wake`, or what it waits for without a term has come, and it has not looked since.
    pub(crate) to_look: bool,
    /// The kernel's mark of that.
    pub(crate) woken: bool,
    /// Its deadline is over; it has not seen that yet.
    pub(crate) due: bool,
}

/// Why a vCPU waits for the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    Call,
    Yield,
    Timer,
    EarlyTimer,
    Kicked,
    AfterHalt,
}

/// What comes when all terms were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum After {
    Choose,
    SliceEnd,
}

/// Where a vCPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum At {
    Ring3,
    /// arch/vcpu.rs `xok_lock`.
    Waits(Entry),
    /// Gives the lock back.
    Leaves,
    /// sleep.rs `wake_up`: whether that one sleeps is known.
    Wake {
        to: u8,
        sleeps: bool,
    },
    /// arch/vcpu.rs `flush_other`.
    Flushes {
        other: u8,
    },
    /// sleep.rs `look`, at this one.
    Looks(u8, After),
    /// schedule.rs `at_slice_end`, behind `look`.
    SliceEnd,
    /// schedule.rs `schedule_but`, behind `look`.
    Chooses,
    /// Without the rule: it has not said yet that it halts.
    BeforeIdle,
    /// entry.rs `xok_halt`, between STI and HLT.
    BeforeHalt,
    Halted,
    Off,
}

/// One vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Vcpu {
    pub(crate) at: At,
    /// Who runs.
    pub(crate) current: u8,
    /// Who was chosen last.
    pub(crate) last: u8,
    /// `Vcpu::slice_end_tsc` is not 0, and the timer is set for it.
    pub(crate) limited: bool,
    pub(crate) timer: bool,
    /// Interrupts that wait in the LAPIC: another vCPU's, and the one with a handler that does nothing.
    pub(crate) kick: bool,
    pub(crate) interrupt: bool,
    /// The silent wake-up that has found no halt yet.
    pub(crate) silent: bool,
    /// For whose deadlines the timer of the halt is set, a bit each; the highest: that of the ask.
    pub(crate) armed: u8,
}

/// The deadline of the ask.
pub(crate) const ASK: u8 = 1 << 7;

/// What becomes of the ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    None,
    Stands,
    Over,
}

/// What another vCPU may see late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stored {
    Look(u8),
    Flush(u8),
    Word(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Device {
    Idle,
    /// The used index is published; whom to interrupt?
    Aims(u8),
    Signals(u8),
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) vcpus: [Vcpu; CPUS],
    pub(crate) environments: [Environment; MOST],
    pub(crate) lock: Option<u8>,
    /// `Kernel::idle`.
    pub(crate) idle: u8,
    /// `Words::look`, `Words::flush`.
    pub(crate) look: u8,
    pub(crate) flush: u8,
    pub(crate) words: [u8; MOST],
    buffers: [[Option<Stored>; 2]; CPUS],
    pub(crate) used: [u8; MOST],
    pub(super) device: Device,
    pub(crate) aim: [u8; MOST],
    pub(crate) ask: Ask,
    pub(crate) asker: u8,
    pub(crate) holder: u8,
    pub(crate) ask_due: bool,
    pub(crate) ask_untold: bool,
    pub(crate) ask_seen: bool,
    /// Whose end somebody wants, and who.
    pub(crate) to_end: u8,
    pub(crate) ender: u8,
    /// `HostPage::stop`.
    pub(crate) stop: bool,
    pub(super) frames_left: [u8; MOST],
    pub(crate) deadline_left: [bool; MOST],
    pub(crate) slice_ends_left: u8,
    pub(crate) early_timers_left: u8,
}

/// The first of a set of vCPUs, or of all.
pub(crate) fn first(vcpus: u8) -> u8 {
    if vcpus == 0 { 0 } else { vcpus.trailing_zeros() as u8 }
}

pub(crate) fn bit(number: u8) -> u8 {
    1 << number
}

impl Model for State {
    type Setup = Setup;
    type Rules = Rules;

    fn start(setup: &Setup) -> Self {
        const NOBODYS: Environment = Environment {
            pc: Pc::Watch,
            doing: Doing::Gone,
            ending: 0,
            vcpus: 0,
            upcall: Upcall::None,
            consumed: 0,
            expected: 0,
            word_seen: 0,
            word_expected: 0,
            to_look: false,
            woken: false,
            due: false,
        };
        // As after main.rs `start`, `start_other`: all look for somebody.
        let vcpu = Vcpu {
            at: At::Waits(Entry::AfterHalt),
            current: NOBODY,
            last: NOBODY,
            limited: false,
            timer: false,
            kick: false,
            interrupt: false,
            silent: false,
            armed: 0,
        };
        let mut state = Self {
            vcpus: [vcpu; CPUS],
            environments: [NOBODYS; MOST],
            lock: None,
            idle: 0,
            look: 0,
            flush: 0,
            words: [0; MOST],
            buffers: Default::default(),
            used: [0; MOST],
            device: Device::Idle,
            aim: [0; MOST],
            ask: Ask::None,
            asker: NOBODY,
            holder: NOBODY,
            ask_due: false,
            ask_untold: false,
            ask_seen: false,
            to_end: NOBODY,
            ender: NOBODY,
            stop: false,
            frames_left: [0; MOST],
            deadline_left: [false; MOST],
            slice_ends_left: setup.slice_ends,
            early_timers_left: setup.early_timers,
        };
        for (number, work) in setup.environments.iter().enumerate() {
            state.environments[number] = Environment {
                pc: after_act(work, 0),
                doing: if work.begins { Doing::Runnable } else { Doing::New },
                vcpus: work.vcpus,
                ..NOBODYS
            };
            state.aim[number] = first(work.vcpus);
            state.frames_left[number] = work.frames;
            state.deadline_left[number] = work.deadline;
        }
        state
    }

    fn steps(&self, setup: &Setup, rules: &Rules, steps: &mut Vec<Step<Self>>) {
        for vcpu in 0..CPUS as u8 {
            if self.buffers[usize::from(vcpu)][0].is_some() {
                let by = BUFFERS + usize::from(vcpu);
                self.step(steps, Comes::Surely, "a store is seen", by, |state| state.drain_one(vcpu));
            }
            super::vcpu::steps(self, setup, rules, steps, vcpu);
        }
        if self.vcpus.iter().all(|vcpu| vcpu.at != At::Off) {
            self.world(setup, rules, steps);
        }
    }

    fn owed(&self, setup: &Setup) -> u32 {
        self.owed_bits(setup)
            .into_iter()
            .filter(|(_, owed, _)| *owed)
            .fold(0, |bits, (bit, ..)| bits | 1 << bit)
    }

    fn what_is_owed(&self, setup: &Setup) -> String {
        let owed = self.owed_bits(setup);
        owed.into_iter()
            .filter(|(_, owed, _)| *owed)
            .map(|(bit, _, what)| format!("{what} ({bit}) "))
            .collect()
    }
}

/// Where an environment goes on when it has done so many acts.
pub(crate) fn after_act(work: &super::rules::Work, acts: u8) -> Pc {
    if usize::from(acts) < work.acts.len() {
        return Pc::Act(acts);
    }
    match work.then {
        Then::Serve => Pc::Watch,
        Then::Compute => Pc::Compute,
        Then::Call => Pc::Call,
    }
}

impl State {
    /// One more step.
    pub(crate) fn step(
        &self,
        steps: &mut Vec<Step<Self>>,
        comes: Comes,
        what: &'static str,
        by: usize,
        change: impl FnOnce(&mut Self),
    ) {
        let mut state = self.clone();
        change(&mut state);
        steps.push(Step { state, what, comes, by });
    }

    /// A plain store of a vCPU.
    pub(crate) fn store(&mut self, vcpu: u8, stored: Stored) {
        if self.buffers[usize::from(vcpu)][1].is_some() {
            self.drain_one(vcpu);
        }
        let slot = self.buffers[usize::from(vcpu)].iter_mut().find(|slot| slot.is_none());
        *slot.expect("one was made free") = Some(stored);
    }

    /// All stores of a vCPU so far are seen.
    pub(crate) fn fence(&mut self, vcpu: u8) {
        while self.buffers[usize::from(vcpu)][0].is_some() {
            self.drain_one(vcpu);
        }
    }

    fn drain_one(&mut self, vcpu: u8) {
        let buffer = &mut self.buffers[usize::from(vcpu)];
        let stored = buffer[0].take();
        buffer.rotate_left(1);
        match stored {
            Some(Stored::Look(other)) => self.look |= bit(other),
            Some(Stored::Flush(other)) => self.flush |= bit(other),
            Some(Stored::Word(environment)) => self.words[usize::from(environment)] += 1,
            None => {}
        }
    }

    /// Whether others do not see all stores of a vCPU yet.
    pub(crate) fn has_stores(&self, vcpu: u8) -> bool {
        self.buffers[usize::from(vcpu)][0].is_some()
    }

    /// Whether they do not see this one.
    pub(crate) fn has_stored(&self, vcpu: u8, store: Stored) -> bool {
        self.buffers[usize::from(vcpu)].contains(&Some(store))
    }

    /// What a vCPU reads of an environment's word.
    pub(crate) fn word(&self, vcpu: u8, environment: u8) -> u8 {
        let own = self.buffers[usize::from(vcpu)].iter();
        let own = own.filter(|stored| **stored == Some(Stored::Word(environment))).count();
        self.words[usize::from(environment)] + own as u8
    }

    pub(crate) fn vcpu(&mut self, vcpu: u8) -> &mut Vcpu {
        &mut self.vcpus[usize::from(vcpu)]
    }

    pub(crate) fn environment(&mut self, number: u8) -> &mut Environment {
        &mut self.environments[usize::from(number)]
    }

    /// The vCPU on which one runs.
    pub(crate) fn where_runs(&self, environment: u8) -> Option<u8> {
        self.vcpus.iter().position(|vcpu| vcpu.current == environment).map(|vcpu| vcpu as u8)
    }

    /// Whether one that may run on this vCPU could, and runs nowhere.
    pub(crate) fn is_ready(&self, vcpu: u8, number: u8) -> bool {
        let environment = self.environments[usize::from(number)];
        let may = environment.vcpus & bit(vcpu) != 0;
        environment.doing == Doing::Runnable && may && self.where_runs(number).is_none()
    }
}

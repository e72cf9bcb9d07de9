//! The state of a machine with one vCPU, one I/O thread and the world around it.
//!
//! Stores are seen by the other side late, in order, as on x86: each of the two threads has a store buffer, which empties a
//! step at a time. A thread sees its own stores at once. Fences, locked instructions and exits to the VMM empty the buffer.

use crate::device::{Io, Turn, Work};
use crate::explore::{Comes, Model, Step};
use crate::rules::{MOST, Mode, Rules, Setup, Wake};
use crate::vcpu::{Kernel, Pc};

/// Places in memory that both threads use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Var {
    /// Index of the used ring.
    Used(u8),
    /// `used_event`.
    UsedEvent(u8),
    /// Index of the available ring.
    Available(u8),
    /// `avail_event`.
    AvailableEvent(u8),
    /// `HostPage::take_turns`.
    TakeTurns,
    /// `Placement::attention`.
    Attention,
}

impl Var {
    fn index(self) -> usize {
        match self {
            Self::Used(e) => usize::from(e),
            Self::UsedEvent(e) => MOST + usize::from(e),
            Self::Available(e) => 2 * MOST + usize::from(e),
            Self::AvailableEvent(e) => 3 * MOST + usize::from(e),
            Self::TakeTurns => 4 * MOST,
            Self::Attention => 4 * MOST + 1,
        }
    }
}

/// Stores that the other side does not see yet, the oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Buffer {
    stores: [Option<(Var, u8)>; 4],
}

/// Which of the two threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Thread {
    Vcpu,
    Io,
}

/// Who has the vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cpu {
    /// The current environment.
    Ring3,
    /// The kernel.
    Ring0(Kernel),
    /// The VMM, in the exit of a write to the turn register.
    Vmm(Turn, After),
    /// Nobody: `hlt`.
    Halted(After),
    /// The machine has ended.
    Off,
}

/// What comes behind a turn or a halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum After {
    /// The environment that is alone goes on.
    Alone,
    /// The kernel goes on scheduling.
    Schedule,
    /// That one gets the CPU; the turn is over at once.
    Resume(u8),
    /// The end of a slice goes on; the turn is over at once.
    SliceEnd,
}

impl After {
    /// Whether the turn has a deadline that has passed.
    pub(crate) fn is_at_once(self) -> bool {
        matches!(self, Self::Resume(_) | Self::SliceEnd)
    }
}

/// What the kernel thinks of an environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Doing {
    #[default]
    Runnable,
    Asleep,
    Ended,
}

/// One environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Environment {
    pub(crate) pc: Pc,
    pub(crate) doing: Doing,
    /// What it took from the used ring, and what the watch remembers of its index.
    pub(crate) consumed: u8,
    pub(crate) expected: u8,
    /// The same of its word.
    pub(crate) word_seen: u8,
    pub(crate) word_expected: u8,
    /// How often it was woken, as far as it knows.
    pub(crate) wakes_seen: u8,
    /// Whom it has still to wake and to write to for what came.
    pub(crate) to_wake: bool,
    pub(crate) to_write: bool,
    /// Requests and slices left.
    pub(crate) requests: u8,
    pub(crate) slices: u8,
    /// The kernel's: somebody called `Wake`.
    pub(crate) woken: bool,
    /// Its deadline is over; it has not seen that yet.
    pub(crate) due: bool,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    memory: [u8; 4 * MOST + 2],
    buffers: [Buffer; 2],
    pub(crate) environments: [Environment; MOST],
    pub(crate) current: u8,
    pub(crate) cpu: Cpu,
    pub(crate) io: Io,
    /// Words of the environments' memory that others of them write: one vCPU, so they see them at once.
    pub(crate) words: [u8; MOST],
    /// How often somebody called `Wake` for each.
    pub(crate) wakes: [u8; MOST],
    /// Event descriptors.
    pub(crate) kick: bool,
    pub(crate) doorbell: bool,
    pub(crate) finished: bool,
    /// Frames that come, or requests that the disk's threads are at.
    pub(crate) under_way: [u8; MOST],
    /// Those that have come or are done.
    pub(crate) ready: [u8; MOST],
    /// The device's place in the available ring.
    pub(crate) taken: [u8; MOST],
    /// Who holds the devices' lock.
    pub(crate) lock: Option<Thread>,
    /// The interrupt that waits in the LAPIC.
    pub(crate) interrupt: bool,
    /// The silent wake-up that has found no halt yet.
    pub(crate) wake_up: bool,
    /// `XOK_WAKE_PENDING`.
    pub(crate) wake_pending: bool,
    /// `HostPage::stop`.
    pub(crate) stop: bool,
    pub(crate) deadlines_left: [bool; MOST],
    pub(crate) changes_left: u8,
    pub(crate) slice_ends_left: u8,
}

impl Model for State {
    type Setup = Setup;
    type Rules = Rules;

    fn start(setup: &Setup) -> Self {
        Self::new(setup)
    }

    fn steps(&self, setup: &Setup, rules: &Rules, steps: &mut Vec<Step<Self>>) {
        self.all_steps(setup, rules, steps);
    }

    fn owed(&self, setup: &Setup) -> u32 {
        u32::from(self.is_owed(setup).is_some())
    }

    fn what_is_owed(&self, setup: &Setup) -> String {
        self.is_owed(setup).unwrap_or_default().to_owned()
    }
}

impl State {
    fn new(setup: &Setup) -> Self {
        let mut state = Self {
            memory: [0; 4 * MOST + 2],
            buffers: Default::default(),
            environments: Default::default(),
            current: 0,
            cpu: Cpu::Ring3,
            io: if setup.mode == Mode::Turn { Io::Absent } else { Io::Check },
            words: [0; MOST],
            wakes: [0; MOST],
            kick: false,
            doorbell: false,
            finished: false,
            under_way: [0; MOST],
            ready: [0; MOST],
            taken: [0; MOST],
            lock: None,
            interrupt: false,
            wake_up: false,
            wake_pending: false,
            stop: false,
            deadlines_left: [false; MOST],
            changes_left: setup.changes,
            slice_ends_left: setup.slice_ends,
        };
        for (number, work) in setup.environments.iter().enumerate() {
            let e = number as u8;
            state.environments[number].requests = work.requests;
            state.environments[number].slices = work.slices;
            state.environments[number].to_wake = work.wakes.is_some();
            state.environments[number].to_write = work.writes.is_some();
            state.under_way[number] = work.frames;
            state.deadlines_left[number] = work.deadline;
            // Neither side has asked for anything.
            state.memory[Var::UsedEvent(e).index()] = u8::MAX;
            state.memory[Var::AvailableEvent(e).index()] = u8::MAX;
        }
        for number in setup.len()..MOST {
            state.environments[number].doing = Doing::Ended;
        }
        state.memory[Var::TakeTurns.index()] = u8::from(setup.mode != Mode::Thread);
        state
    }

    /// What a thread reads.
    pub(crate) fn load(&self, thread: Thread, var: Var) -> u8 {
        let own = self.buffers[thread as usize].stores.iter().rev().flatten();
        own.copied().find(|&(stored, _)| stored == var).map_or(self.memory[var.index()], |(_, value)| value)
    }

    /// A store, seen by the other side some time.
    pub(crate) fn store(&mut self, thread: Thread, var: Var, value: u8) {
        if self.buffers[thread as usize].stores[3].is_some() {
            self.drain_one(thread);
        }
        let slot = self.buffers[thread as usize].stores.iter_mut().find(|slot| slot.is_none());
        *slot.expect("one was made free") = Some((var, value));
    }

    /// All stores so far are seen.
    pub(crate) fn fence(&mut self, thread: Thread) {
        while self.buffers[thread as usize].stores[0].is_some() {
            self.drain_one(thread);
        }
    }

    fn drain_one(&mut self, thread: Thread) {
        let buffer = &mut self.buffers[thread as usize];
        if let Some((var, value)) = buffer.stores[0].take() {
            buffer.stores.rotate_left(1);
            self.memory[var.index()] = value;
        }
    }

    /// All steps that can be made.
    fn all_steps(&self, setup: &Setup, rules: &Rules, steps: &mut Vec<Step<Self>>) {
        for (thread, what) in
            [(Thread::Vcpu, "the vCPU's store is seen"), (Thread::Io, "thread: its store is seen")]
        {
            if self.buffers[thread as usize].stores[0].is_some() {
                self.step(steps, true, what, |state| state.drain_one(thread));
            }
        }
        crate::vcpu::steps(self, setup, rules, steps);
        crate::device::steps(self, setup, rules, steps);
        self.world(setup, rules, steps);
    }

    /// One more step.
    pub(crate) fn step(
        &self,
        steps: &mut Vec<Step<Self>>,
        certain: bool,
        what: &'static str,
        change: impl FnOnce(&mut Self),
    ) {
        let mut state = self.clone();
        change(&mut state);
        let by = match what.split_once(':') {
            Some(("thread", _)) => Thread::Io,
            _ => Thread::Vcpu,
        };
        let comes = if certain { Comes::Surely } else { Comes::Perhaps };
        steps.push(Step { state, what, comes, by: by as usize });
    }

    /// What happens outside.
    fn world(&self, setup: &Setup, rules: &Rules, steps: &mut Vec<Step<Self>>) {
        if self.cpu == Cpu::Off {
            return;
        }
        for (e, work) in setup.environments.iter().enumerate() {
            if self.under_way[e] > 0 {
                self.step(steps, false, "a frame comes or a request is done", |state| {
                    state.under_way[e] -= 1;
                    state.ready[e] += 1;
                    // A disk's thread says so; frames wait in a descriptor that is readable meanwhile.
                    state.finished |= work.requests > 0;
                });
            }
            if self.deadlines_left[e] {
                self.step(steps, false, "a deadline passes", |state| {
                    state.deadlines_left[e] = false;
                    state.environments[e].due = true;
                });
            }
        }
        if setup.stop && !self.stop {
            self.step(steps, false, "the user wants the end", |state| {
                // vmm/src/machine/mod.rs `stop`, placement/mod.rs `wake_guest`: in the order of the code, by a thread whose
                // stores are seen before the system calls that follow.
                state.stop = true;
                if rules.attention_at_stop {
                    state.memory[Var::Attention.index()] = 1;
                }
                if rules.stop_ends_the_turns_wait {
                    state.doorbell = true;
                } else {
                    state.kick = true;
                }
                state.interrupt_guest(setup, rules);
            });
        }
    }

    /// vmm/src/placement/mod.rs `interrupt_guest`: an ordinary interrupt, whose handler leaves a mark.
    pub(crate) fn interrupt_guest(&mut self, setup: &Setup, rules: &Rules) {
        if rules.interrupt_needs_no_queue {
            self.interrupt = true;
        } else if setup.environments.first().is_some_and(|work| work.queue) {
            self.raise(setup, rules);
        }
    }

    /// A device's interrupt, as the kernel set it up at the binding (xok/src/calls/queue.rs `set_interrupt`).
    pub(crate) fn raise(&mut self, setup: &Setup, rules: &Rules) {
        match setup.wake {
            Wake::Vector => self.interrupt = true,
            Wake::Silent => self.wake_up |= rules.sticky_wake || matches!(self.cpu, Cpu::Halted(_)),
        }
    }

    /// Whether frames wait in the backend.
    pub(crate) fn is_backend_readable(&self, setup: &Setup) -> bool {
        setup.environments.iter().enumerate().any(|(e, work)| work.requests == 0 && self.ready[e] > 0)
    }

    /// Who should run, or wait for nothing, and does not: nothing more happens in this state.
    fn is_owed(&self, setup: &Setup) -> Option<&'static str> {
        if self.cpu == Cpu::Off {
            return None;
        }
        for e in 0..setup.len() {
            let environment = &self.environments[e];
            let outstanding = self.taken[e] != environment.consumed;
            let owed = if self.memory[Var::Used(e as u8).index()] != environment.consumed {
                "a used entry waits"
            } else if self.memory[Var::Available(e as u8).index()] != self.taken[e] {
                "a request waits for the device"
            } else if self.ready[e] > 0 {
                "a frame or a completion waits for the device"
            } else if self.words[e] != environment.word_seen {
                "a word has changed"
            } else if self.wakes[e] != environment.wakes_seen {
                "somebody called Wake"
            } else if environment.due {
                "a deadline has passed"
            } else if self.stop {
                "the user waits for the end"
            } else if environment.requests > 0 && !outstanding || environment.slices > 0 {
                "it has work left"
            } else {
                continue;
            };
            return Some(owed);
        }
        None
    }

    pub(crate) fn environment(&mut self, e: u8) -> &mut Environment {
        &mut self.environments[usize::from(e)]
    }

    /// The environment that runs.
    pub(crate) fn own(&mut self) -> &mut Environment {
        self.environment(self.current)
    }

    /// Devices' work begins.
    pub(crate) fn turn(&mut self, after: After) {
        // The write to the turn register is an exit.
        self.fence(Thread::Vcpu);
        self.cpu = Cpu::Vmm(Turn::Work(Work::FIRST), after);
    }
}

//! The VMM's part: the device work, turns, and the I/O thread. vmm/src/placement/mod.rs, and what it calls.

use crate::explore::Step;
use crate::rules::{Mode, Rules, Setup};
use crate::state::{After, Cpu, Doing, State, Thread, Var};
use crate::vcpu::{Kernel, Pc};

/// One round of device work (placement/work.rs `DeviceWork::work`), under the devices' lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Work {
    at: At,
    e: u8,
    /// Entries of the available ring were taken.
    busy: bool,
    /// Something was given to a guest: a frame, or a completion.
    received: bool,
    completed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Lock,
    /// queue/mod.rs `refresh`, `next_chain`: takes what the driver made available.
    Take,
    /// queue/used.rs `publish`: the index.
    Publish,
    /// queue/used.rs `publish`: the driver's wish.
    Ask {
        old: u8,
        new: u8,
    },
}

impl Work {
    pub(crate) const FIRST: Self =
        Self { at: At::Lock, e: 0, busy: false, received: false, completed: false };
}

/// Where a turn is (`Placement::turn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Turn {
    Work(Work),
    /// `received_in_turn`: the flag is written, or the thread kicked, first.
    Kick {
        flag_written: bool,
    },
    /// Stop, deadline or attention?
    Attention,
    /// `wait`.
    Wait,
}

/// Where the I/O thread is (`run_thread`, `serve`, `change`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Io {
    Absent,
    Check,
    Park,
    Work(Work),
    Idle,
    Arm { e: u8, work: bool },
    ArmCheck { e: u8, work: bool },
    Wait,
    Disarm,
    Change { step: u8 },
}

/// True if an index that went from `old` to `new` has passed `event` (queue/used.rs, virtqueue `crossed`).
pub(crate) fn crossed(event: u8, new: u8, old: u8) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// How one round of work goes on.
enum Went {
    On(Work),
    Done(Work),
}

/// One step of a round. `None`: somebody else holds the lock.
fn work(state: &mut State, setup: &Setup, rules: &Rules, thread: Thread, mut work: Work) -> Option<Went> {
    let e = work.e;
    let index = usize::from(e);
    match work.at {
        At::Lock => {
            if state.lock.is_some() {
                return None;
            }
            state.lock = Some(thread);
            work.at = At::Take;
            return Some(Went::On(work));
        }
        At::Take => {
            let new = state.load(thread, Var::Available(e)).wrapping_sub(state.taken[index]);
            state.taken[index] += new;
            state.under_way[index] += new;
            work.busy |= new > 0;
            if state.ready[index] > 0 {
                work.at = At::Publish;
                return Some(Went::On(work));
            }
        }
        At::Publish => {
            let old = state.load(thread, Var::Used(e));
            let new = old + std::mem::take(&mut state.ready[index]);
            state.store(thread, Var::Used(e), new);
            if rules.barrier_after_used {
                state.fence(thread);
            }
            if setup.environments[index].requests > 0 {
                work.completed = true;
            } else {
                work.received = true;
            }
            work.at = At::Ask { old, new };
            return Some(Went::On(work));
        }
        At::Ask { old, new } => {
            if crossed(state.load(thread, Var::UsedEvent(e)), new, old) {
                state.raise(setup, rules);
            }
        }
    }
    work.e += 1;
    work.at = At::Take;
    if usize::from(work.e) < setup.len() {
        return Some(Went::On(work));
    }
    state.lock = None;
    // An unlock and whatever follows it are not a barrier.
    Some(Went::Done(work))
}

pub(crate) fn steps(state: &State, setup: &Setup, rules: &Rules, steps: &mut Vec<Step<State>>) {
    if let Cpu::Vmm(turn, after) = state.cpu {
        turn_steps(state, setup, rules, steps, turn, after);
    }
    if state.cpu != Cpu::Off {
        io_steps(state, setup, rules, steps);
    }
}

fn turn_steps(
    state: &State,
    setup: &Setup,
    rules: &Rules,
    steps: &mut Vec<Step<State>>,
    turn: Turn,
    after: After,
) {
    match turn {
        Turn::Work(round) => {
            let mut next = state.clone();
            match work(&mut next, setup, rules, Thread::Vcpu, round) {
                None => return,
                Some(Went::On(round)) => next.cpu = Cpu::Vmm(Turn::Work(round), after),
                Some(Went::Done(round)) if round.received || round.completed => {
                    if round.received && setup.mode == Mode::Auto && state.changes_left > 0 {
                        next.step(steps, true, "turn: the work is to be the thread's", |state| {
                            state.changes_left -= 1;
                            state.cpu = Cpu::Vmm(Turn::Kick { flag_written: false }, after);
                        });
                    }
                    end_turn(&mut next, rules, after);
                }
                Some(Went::Done(_)) => {
                    if !rules.finished_taken_before_work {
                        next.finished = false;
                    }
                    next.cpu = Cpu::Vmm(Turn::Attention, after);
                }
            }
            next.step(steps, true, "turn: device work", |_| ());
        }
        Turn::Kick { flag_written } => state.step(steps, true, "turn: tells the thread", |state| {
            // Without the rule the kick comes first.
            if flag_written != rules.kick_after_flag {
                state.store(Thread::Vcpu, Var::TakeTurns, 0);
                state.fence(Thread::Vcpu);
            } else {
                state.kick |= rules.kick_at_change;
            }
            if flag_written {
                end_turn(state, rules, after);
            } else {
                state.cpu = Cpu::Vmm(Turn::Kick { flag_written: true }, after);
            }
        }),
        Turn::Attention => state.step(steps, true, "turn: over?", |state| {
            let attention = state.load(Thread::Vcpu, Var::Attention) != 0;
            if after.is_at_once() || attention || is_due(state, rules, after) {
                state.store(Thread::Vcpu, Var::Attention, 0);
                end_turn(state, rules, after);
            } else {
                state.cpu = Cpu::Vmm(Turn::Wait, after);
            }
        }),
        Turn::Wait => {
            let ready = state.kick
                || state.doorbell
                || state.finished
                || state.is_backend_readable(setup)
                || is_due(state, rules, after);
            if ready {
                state.step(steps, true, "turn: ends its wait", |state| {
                    state.doorbell = false;
                    if rules.finished_taken_before_work {
                        state.finished = false;
                    }
                    state.cpu = Cpu::Vmm(Turn::Work(Work::FIRST), after);
                });
            }
        }
    }
}

/// Whether the deadline of a turn or a halt is over.
pub(crate) fn is_due(state: &State, rules: &Rules, after: After) -> bool {
    match after {
        After::Alone => state.environments[usize::from(state.current)].due,
        _ => {
            let mut sleepers =
                state.environments.iter().filter(|environment| environment.doing == Doing::Asleep);
            if rules.earliest_deadline {
                sleepers.any(|sleeper| sleeper.due)
            } else {
                sleepers.next().is_some_and(|sleeper| sleeper.due)
            }
        }
    }
}

fn end_turn(state: &mut State, rules: &Rules, after: After) {
    // The entry of the guest.
    state.fence(Thread::Vcpu);
    match after {
        After::Alone => {
            state.own().pc = Pc::Look;
            state.cpu = Cpu::Ring3;
        }
        After::Schedule => state.cpu = crate::vcpu::after_idle(rules),
        After::Resume(e) => crate::vcpu::resume(state, e),
        After::SliceEnd => state.cpu = Cpu::Ring0(Kernel::SliceEndLook),
    }
}

fn io_steps(state: &State, setup: &Setup, rules: &Rules, steps: &mut Vec<Step<State>>) {
    let thread = Thread::Io;
    match state.io {
        Io::Absent => {}
        Io::Check => state.step(steps, true, "thread: whose is the work?", |state| {
            let turns = state.load(thread, Var::TakeTurns) != 0;
            state.io = if turns { Io::Park } else { Io::Work(Work::FIRST) };
        }),
        Io::Park => {
            if state.kick {
                state.step(steps, true, "thread: kicked", |state| {
                    state.kick = false;
                    state.io = Io::Check;
                });
            }
        }
        Io::Work(round) => {
            let mut next = state.clone();
            match work(&mut next, setup, rules, thread, round) {
                None => return,
                Some(Went::On(round)) => next.io = Io::Work(round),
                Some(Went::Done(round)) => {
                    if !rules.finished_taken_before_work {
                        next.finished = false;
                    }
                    if round.received && setup.mode == Mode::Auto && state.changes_left > 0 {
                        next.step(steps, true, "thread: the work is to be done in turns", begin_change);
                    }
                    let busy = round.busy || round.received || round.completed;
                    next.io = if busy { Io::Work(Work::FIRST) } else { Io::Idle };
                }
            }
            next.step(steps, true, "thread: device work", |_| ());
        }
        Io::Idle => {
            // `policy.idle`: after two milliseconds.
            if setup.mode == Mode::Auto && state.changes_left > 0 {
                state.step(steps, false, "thread: nothing to do for long, turns", begin_change);
            }
            state.step(steps, true, "thread: is going to sleep", |state| {
                state.io = Io::Arm { e: 0, work: false };
            });
        }
        // `DeviceWork::arm`, queue/mod.rs `Virtqueue::arm`.
        Io::Arm { e, work } => state.step(steps, true, "thread: asks for doorbells", |state| {
            state.store(thread, Var::AvailableEvent(e), state.taken[usize::from(e)]);
            state.io = Io::ArmCheck { e, work };
        }),
        Io::ArmCheck { e, work } => state.step(steps, true, "thread: looks again", |state| {
            if rules.device_fence_after_arming {
                state.fence(thread);
            }
            let more = state.load(thread, Var::Available(e)) != state.taken[usize::from(e)];
            let work = work || more && rules.device_recheck_after_arming;
            state.io = if usize::from(e) + 1 < setup.len() {
                Io::Arm { e: e + 1, work }
            } else if work {
                Io::Disarm
            } else {
                Io::Wait
            };
        }),
        Io::Wait => {
            let ready = state.kick || state.doorbell || state.finished || state.is_backend_readable(setup);
            if ready {
                state.step(steps, true, "thread: ends its wait", |state| {
                    state.kick = false;
                    state.doorbell = false;
                    if rules.finished_taken_before_work {
                        state.finished = false;
                    }
                    state.io = Io::Disarm;
                });
            }
            // So that it can ask the policy; nobody may rely on it.
            if setup.mode == Mode::Auto {
                state.step(steps, false, "thread: has waited for long", |state| state.io = Io::Disarm);
            }
        }
        Io::Disarm => state.step(steps, true, "thread: wants no doorbells", |state| {
            for e in 0..setup.len() as u8 {
                let behind = state.taken[usize::from(e)].wrapping_sub(1);
                state.store(thread, Var::AvailableEvent(e), behind);
            }
            state.io = Io::Work(Work::FIRST);
        }),
        Io::Change { step } => state.step(steps, true, "thread: hands over", |state| {
            let attention_first = rules.attention_before_turns;
            match (step, attention_first) {
                (0, true) | (1, false) => {
                    if rules.attention_at_change {
                        state.store(thread, Var::Attention, 1);
                    }
                    // Without the rule the order is lost.
                    if !attention_first {
                        state.fence(thread);
                    }
                }
                (1, true) | (0, false) => {
                    state.store(thread, Var::TakeTurns, 1);
                    state.fence(thread);
                }
                _ => {
                    if rules.interrupt_at_change {
                        state.interrupt_guest(setup, rules);
                    }
                    state.io = Io::Check;
                    return;
                }
            }
            state.io = Io::Change { step: step + 1 };
        }),
    }
}

fn begin_change(state: &mut State) {
    state.changes_left -= 1;
    state.io = Io::Change { step: 0 };
}

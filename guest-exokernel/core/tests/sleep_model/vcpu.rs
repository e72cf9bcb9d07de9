//! The guest's part: an environment's loop (guest-libos/event-loop/src/lib.rs `run`, `idle`, `sleep`), its driver
//! (guest-libos/virtqueue/src/ring.rs), and the kernel (guest-exokernel/xok/src/schedule.rs, arch/entry.rs).

use crate::device::{crossed, is_due};
use crate::explore::Step;
use crate::rules::{MOST, Rules, Setup};
use crate::state::{After, Cpu, Doing, State, Thread, Var};

const CPU: Thread = Thread::Vcpu;

/// Where an environment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Pc {
    /// Computes, if it has slices to compute for; then looks.
    #[default]
    Begin,
    /// `receive`: takes what there is, and with it does what is its work.
    Look,
    /// `Ring::publish`: the index.
    Offer,
    /// `Ring::publish`: the fence, and the device's wish.
    OfferAsk,
    /// `Call::Wake`.
    WakeOther,
    /// A plain store to somebody's word.
    WriteOther,
    /// `idle`, alone: a turn?
    Idle,
    /// `idle`, alone, without turns: one last look before interrupts are asked for. What it waits for is polled meanwhile.
    Poll,
    /// `sleep`: `Watch::now`.
    Watch,
    /// `sleep`: the last look.
    LastLook,
    /// `Ring::request_interrupt`: the wish.
    Arm,
    /// `Ring::request_interrupt`: the fence, and the look behind it.
    ArmCheck,
    /// `Call::Halt` or `Call::Sleep`, if the user does not want the end.
    Sleep,
    /// Behind it: `Ring::suppress_interrupts`.
    Disarm,
}

/// Where the kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    /// schedule.rs `look`, at this environment.
    Look(u8),
    /// `schedule`: who is next?
    Choose,
    /// `idle`: a turn, or a halt?
    Idle,
    /// entry.rs `xok_halt_until`: is a wake-up pending?
    HaltCheck(After),
    /// Without the rule: interrupts are on and the halt comes.
    BeforeHalt(After),
    /// `slice_end`, at the work for others.
    SliceEnd,
    /// `slice_end`: `look`, and whether somebody else wants the CPU.
    SliceEndLook,
}

pub(crate) fn steps(state: &State, setup: &Setup, rules: &Rules, steps: &mut Vec<Step<State>>) {
    match state.cpu {
        Cpu::Ring3 => ring3(state, setup, rules, steps),
        Cpu::Ring0(at) => ring0(state, setup, rules, steps, at),
        Cpu::Halted(after) => {
            // The timer of `xok_halt_until`, or a wake-up.
            if state.interrupt || state.wake_up || is_due(state, rules, after) {
                state.step(steps, true, "the halt ends", |state| end_halt(state, rules, after));
            }
        }
        Cpu::Vmm(..) | Cpu::Off => {}
    }
    // The handler `xok_wake`, where interrupts are on.
    let open = matches!(state.cpu, Cpu::Ring3 | Cpu::Ring0(Kernel::BeforeHalt(_)));
    if state.interrupt && open {
        state.step(steps, true, "interrupt handler", |state| {
            state.interrupt = false;
            state.wake_pending = rules.wake_pending;
        });
    }
}

/// schedule.rs `schedule`, behind `idle`.
pub(crate) fn after_idle(rules: &Rules) -> Cpu {
    Cpu::Ring0(if rules.look_after_idle { Kernel::Look(0) } else { Kernel::Choose })
}

fn end_halt(state: &mut State, rules: &Rules, after: After) {
    state.interrupt = false;
    state.wake_up = false;
    state.wake_pending = false;
    match after {
        After::Alone => {
            state.own().pc = Pc::Disarm;
            state.cpu = Cpu::Ring3;
        }
        _ => state.cpu = after_idle(rules),
    }
}

fn has_others(state: &State) -> bool {
    (0..MOST).any(|e| e != usize::from(state.current) && state.environments[e].doing != Doing::Ended)
}

fn ring3(state: &State, setup: &Setup, rules: &Rules, steps: &mut Vec<Step<State>>) {
    let e = state.current;
    let number = usize::from(e);
    let environment = state.environments[number];
    let work = setup.environments[number];
    // The timer, schedule.rs `begin_slice`: only if there are others. Whoever computes sees every end of a slice.
    let computes = environment.pc == Pc::Begin && environment.slices > 0;
    if has_others(state) && (computes || state.slice_ends_left > 0) {
        state.step(steps, computes, "the slice ends", |state| {
            if computes {
                state.own().slices -= 1;
            } else {
                state.slice_ends_left -= 1;
            }
            state.cpu = Cpu::Ring0(Kernel::SliceEnd);
        });
    }
    let go = |steps: &mut Vec<Step<State>>, what: &'static str, change: &dyn Fn(&mut State)| {
        state.step(steps, true, what, change);
    };
    let used = state.load(CPU, Var::Used(e));
    let turns = state.load(CPU, Var::TakeTurns) != 0;
    match environment.pc {
        Pc::Begin => {
            if environment.slices == 0 {
                go(steps, "environment: begins", &|state| begin_work(state, e, &work));
            } else if !has_others(state) {
                go(steps, "environment: computes alone", &|state| state.own().slices = 0);
            }
        }
        Pc::Look => go(steps, "environment: looks", &|state| {
            if state.stop {
                state.own().doing = Doing::Ended;
                // calls/mod.rs `Exit`: `end`, `schedule`.
                state.cpu = Cpu::Ring0(Kernel::Look(0));
                return;
            }
            let came = used != environment.consumed
                || state.words[number] != environment.word_seen
                || environment.due;
            let (word, wakes) = (state.words[number], state.wakes[number]);
            let own = state.own();
            // Whoever is woken looks around: that is all that a wake-up means.
            own.wakes_seen = wakes;
            own.consumed = used;
            own.word_seen = word;
            own.due = false;
            if came {
                own.to_wake = work.wakes.is_some();
                own.to_write = work.writes.is_some();
                begin_work(state, e, &work);
            } else {
                own.pc = match (setup.alone(), rules.watch_before_look) {
                    (true, _) => Pc::Idle,
                    (false, true) => Pc::Watch,
                    (false, false) => Pc::LastLook,
                };
            }
        }),
        Pc::Offer => go(steps, "environment: makes a request available", &|state| {
            let index = state.load(CPU, Var::Available(e));
            state.store(CPU, Var::Available(e), index + 1);
            state.own().requests -= 1;
            state.own().pc = Pc::OfferAsk;
        }),
        Pc::OfferAsk => go(steps, "environment: rings, if the device wants it", &|state| {
            if rules.fence_after_available {
                state.fence(CPU);
            }
            let new = state.load(CPU, Var::Available(e));
            state.doorbell |= crossed(state.load(CPU, Var::AvailableEvent(e)), new, new - 1);
            begin_work(state, e, &work);
        }),
        Pc::WakeOther => go(steps, "environment: wakes another", &|state| {
            state.own().to_wake = false;
            if let Some(other) = work.wakes {
                state.wakes[usize::from(other)] += 1;
                let other = state.environment(other);
                // schedule.rs `wake`.
                other.woken |= rules.wake_is_kept || other.doing == Doing::Asleep;
            }
            begin_work(state, e, &work);
        }),
        Pc::WriteOther => go(steps, "environment: writes another's word", &|state| {
            state.own().to_write = false;
            if let Some(other) = work.writes {
                state.words[usize::from(other)] += 1;
            }
            begin_work(state, e, &work);
        }),
        Pc::Idle => go(steps, "environment: has nothing to do", &|state| {
            if turns {
                // runtime/src/turn.rs `take`.
                state.turn(After::Alone);
            } else {
                state.own().pc = Pc::Poll;
            }
        }),
        Pc::Poll => go(steps, "environment: polls for the last time", &|state| {
            let ready = used != environment.consumed || turns || state.stop;
            state.own().pc = if ready { Pc::Look } else { Pc::Arm };
        }),
        Pc::Watch => go(steps, "environment: takes the watch", &|state| {
            watch(state, used);
            state.own().pc = if turns && !rules.arm_beside_in_turns { Pc::LastLook } else { Pc::Arm };
        }),
        Pc::Arm => go(steps, "environment: asks for an interrupt", &|state| {
            state.store(CPU, Var::UsedEvent(e), environment.consumed);
            state.own().pc = Pc::ArmCheck;
        }),
        Pc::ArmCheck => go(steps, "environment: looks behind it", &|state| {
            if rules.fence_after_arming {
                state.fence(CPU);
            }
            let arrived = used != environment.consumed && rules.recheck_after_arming;
            state.own().pc = if arrived {
                Pc::Disarm
            } else if setup.alone() || !rules.watch_before_look {
                Pc::Sleep
            } else {
                Pc::LastLook
            };
        }),
        Pc::LastLook => go(steps, "environment: looks for the last time", &|state| {
            // A word is looked at by whoever waits for it, behind its watch.
            let ready = used != environment.consumed
                || state.words[number] != environment.word_seen && rules.watch_before_look;
            state.own().pc = match (ready, rules.watch_before_look) {
                (true, _) => Pc::Disarm,
                (false, true) => Pc::Sleep,
                // Without the rule everything else comes behind the look.
                (false, false) => Pc::Arm,
            };
        }),
        Pc::Sleep => go(steps, "environment: goes to sleep", &|state| {
            if state.stop || setup.alone() && turns {
                state.own().pc = Pc::Disarm;
                return;
            }
            if setup.alone() {
                // entry.rs `xok_call_halt`.
                state.cpu = Cpu::Ring0(Kernel::HaltCheck(After::Alone));
                return;
            }
            if !rules.watch_before_look {
                watch(state, used);
            }
            // schedule.rs `sleep`.
            state.own().pc = Pc::Disarm;
            state.own().doing = Doing::Asleep;
            state.cpu = Cpu::Ring0(if rules.look_before_idle { Kernel::Look(0) } else { Kernel::Choose });
        }),
        Pc::Disarm => go(steps, "environment: wants no interrupt", &|state| {
            state.store(CPU, Var::UsedEvent(e), environment.consumed.wrapping_sub(1));
            state.own().pc = Pc::Look;
        }),
    }
}

/// runtime/src/sleep.rs `Watch::now`.
fn watch(state: &mut State, used: u8) {
    let word = state.words[usize::from(state.current)];
    state.own().expected = used;
    state.own().word_expected = word;
}

/// What an environment has to do before it looks again.
fn begin_work(state: &mut State, e: u8, work: &crate::rules::Work) {
    let available = state.load(CPU, Var::Available(e));
    let own = state.own();
    own.pc = if own.to_wake && work.wakes.is_some() {
        Pc::WakeOther
    } else if own.to_write && work.writes.is_some() {
        Pc::WriteOther
    } else if own.requests > 0 && available == own.consumed {
        Pc::Offer
    } else {
        Pc::Look
    };
}

/// schedule.rs `resume`.
pub(crate) fn resume(state: &mut State, e: u8) {
    state.current = e;
    state.cpu = Cpu::Ring3;
}

fn ring0(state: &State, setup: &Setup, rules: &Rules, steps: &mut Vec<Step<State>>, at: Kernel) {
    let turns = state.load(CPU, Var::TakeTurns) != 0;
    match at {
        Kernel::Look(e) => state.step(steps, true, "kernel: looks at the terms", |state| {
            look(state, e);
            state.cpu = Cpu::Ring0(if usize::from(e) + 1 < setup.len() {
                Kernel::Look(e + 1)
            } else {
                Kernel::Choose
            });
        }),
        Kernel::Choose => {
            let runnable = |e: &u8| state.environments[usize::from(*e)].doing == Doing::Runnable;
            let next = (state.current + 1..MOST as u8).chain(0..=state.current).find(runnable);
            let Some(next) = next else {
                let asleep = state.environments.iter().any(|e| e.doing == Doing::Asleep);
                let to = if asleep { Cpu::Ring0(Kernel::Idle) } else { Cpu::Off };
                return state.step(steps, true, "kernel: nobody can run", |state| state.cpu = to);
            };
            // `work_for_others`, if the last turn was long ago.
            if turns && has_others(state) {
                state.step(steps, true, "kernel: does the devices' work in between", |state| {
                    state.turn(After::Resume(next));
                });
            }
            state.step(steps, true, "kernel: gives the CPU", |state| resume(state, next));
        }
        Kernel::Idle => state.step(steps, true, "kernel: waits", |state| {
            if turns {
                state.turn(After::Schedule);
            } else {
                state.cpu = Cpu::Ring0(Kernel::HaltCheck(After::Schedule));
            }
        }),
        Kernel::HaltCheck(after) => state.step(steps, true, "kernel: halts", |state| {
            if state.wake_pending {
                end_halt_by_mark(state, rules, after);
            } else if rules.halt_is_one_with_sti {
                state.cpu = Cpu::Halted(after);
            } else {
                state.cpu = Cpu::Ring0(Kernel::BeforeHalt(after));
            }
        }),
        Kernel::BeforeHalt(after) => {
            state.step(steps, true, "kernel: halts later", |state| state.cpu = Cpu::Halted(after));
        }
        Kernel::SliceEnd => {
            if turns {
                state.step(steps, true, "kernel: does the devices' work for others", |state| {
                    state.turn(After::SliceEnd);
                });
            }
            state.step(steps, true, "kernel: the slice is over", |state| {
                state.cpu = Cpu::Ring0(Kernel::SliceEndLook);
            });
        }
        Kernel::SliceEndLook => state.step(steps, true, "kernel: who else wants the CPU?", |state| {
            (0..setup.len() as u8).for_each(|e| look(state, e));
            let current = state.current;
            let other = (0..MOST as u8)
                .any(|e| e != current && state.environments[usize::from(e)].doing == Doing::Runnable);
            // The upcall, in which the environment yields: `give_way`, `schedule`.
            state.cpu = if other { Cpu::Ring0(Kernel::Look(0)) } else { Cpu::Ring3 };
        }),
    }
}

/// entry.rs `xok_halt_until`, when the mark was there.
fn end_halt_by_mark(state: &mut State, rules: &Rules, after: After) {
    // What waits is not taken by that.
    let (interrupt, wake_up) = (state.interrupt, state.wake_up);
    end_halt(state, rules, after);
    (state.interrupt, state.wake_up) = (interrupt, wake_up);
}

/// schedule.rs `look`, `holds`, `rouse`.
fn look(state: &mut State, e: u8) {
    let number = usize::from(e);
    let environment = state.environments[number];
    let holds = state.stop
        || environment.due
        || environment.woken
        || state.load(CPU, Var::Used(e)) != environment.expected
        || state.words[number] != environment.word_expected;
    if environment.doing == Doing::Asleep && holds {
        let environment = state.environment(e);
        environment.doing = Doing::Runnable;
        environment.woken = false;
        // Of no use any more: states that differ in nothing else are the same.
        environment.expected = 0;
        environment.word_expected = 0;
    }
}

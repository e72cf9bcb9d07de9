//! What a vCPU does: ring 3, interrupts, the way into the kernel and the halt (xok/src/arch/entry.rs, arch/vcpu.rs).

use super::kernel::Kernel;
use super::rules::{Act, Rules, Setup};
use super::state::{ASK, At, Entry, Pc, State, Stored, Upcall, Vcpu, after_act, bit};
use crate::explore::{Comes, Step};

/// All steps of one vCPU.
pub(crate) fn steps(state: &State, setup: &Setup, rules: &Rules, steps: &mut Vec<Step<State>>, number: u8) {
    let vcpu = state.vcpus[usize::from(number)];
    let by = usize::from(number);
    let go = |steps: &mut Vec<Step<State>>, what: &'static str, change: &dyn Fn(&mut State)| {
        state.step(steps, Comes::Surely, what, by, change);
    };
    let kernel = |steps: &mut Vec<Step<State>>, what: &'static str, change: &dyn Fn(&mut Kernel<'_>)| {
        state.step(steps, Comes::Surely, what, by, |state| {
            change(&mut Kernel { state, setup, rules, vcpu: number });
        });
    };
    match vcpu.at {
        At::Ring3 => ring3(state, setup, steps, number),
        At::Waits(entry) => {
            if state.flush & bit(number) != 0 && rules.lock_waiter_flushes {
                go(steps, "waits for the lock: forgets translations", &|state| state.flush &= !bit(number));
            }
            if state.lock.is_none() || !rules.lock {
                kernel(steps, "takes the lock", &|kernel| {
                    kernel.state.lock = Some(number);
                    kernel.state.fence(number);
                    kernel.enter(entry);
                });
            }
        }
        At::Leaves => kernel(steps, "gives the lock back", &|kernel| kernel.leave_kernel()),
        At::Wake { to, sleeps } => kernel(steps, "kernel: wakes", &|kernel| kernel.wake(to, sleeps)),
        At::Flushes { other } => {
            // It sees its own store before others do.
            if state.flush & bit(other) == 0 && !state.has_stored(number, Stored::Flush(other)) {
                kernel(steps, "kernel: the other one has forgotten", &|kernel| kernel.flushed());
            }
        }
        At::Looks(at, after) => {
            kernel(steps, "kernel: looks at the terms", &|kernel| kernel.look(at, after));
        }
        At::SliceEnd => kernel(steps, "kernel: the slice is over", &|kernel| kernel.slice_end()),
        At::Chooses => kernel(steps, "kernel: chooses", &|kernel| kernel.choose()),
        At::BeforeIdle => go(steps, "says that it halts", &|state| {
            state.idle |= bit(number);
            state.vcpu(number).at = At::BeforeHalt;
        }),
        At::BeforeHalt => {
            go(steps, "halts", &|state| state.vcpu(number).at = At::Halted);
            if vcpu.kick || vcpu.interrupt || is_due(state, vcpu) {
                state.step(steps, Comes::Perhaps, "interrupt between STI and HLT", by, |state| {
                    end_halt(state, number, false);
                    if !rules.halt_skipped {
                        state.vcpu(number).at = At::Halted;
                    }
                });
            }
        }
        At::Halted => {
            if vcpu.kick || vcpu.interrupt || vcpu.silent || is_due(state, vcpu) {
                go(steps, "the halt ends", &|state| end_halt(state, number, true));
            }
        }
        At::Off => {}
    }
}

/// Whether a deadline for which the timer of the halt is set has passed.
fn is_due(state: &State, vcpu: Vcpu) -> bool {
    let passed = state.environments.iter().enumerate().filter(|(_, environment)| environment.due);
    let passed = passed.fold(0, |bits, (number, _)| bits | 1 << number);
    vcpu.armed & (passed | if state.ask_due { ASK } else { 0 }) != 0
}

/// The handlers of all that came have run.
fn end_halt(state: &mut State, number: u8, halted: bool) {
    let vcpu = state.vcpu(number);
    let kick = std::mem::take(&mut vcpu.kick);
    vcpu.interrupt = false;
    vcpu.silent &= !halted;
    vcpu.armed = 0;
    vcpu.at = At::Waits(Entry::AfterHalt);
    if kick {
        state.flush &= !bit(number);
    }
}

fn ring3(state: &State, setup: &Setup, steps: &mut Vec<Step<State>>, number: u8) {
    let vcpu = state.vcpus[usize::from(number)];
    let by = usize::from(number);
    let e = vcpu.current;
    let environment = state.environments[usize::from(e)];
    let work = &setup.environments[usize::from(e)];
    let mut step = |comes, what: &'static str, change: &dyn Fn(&mut State)| {
        state.step(steps, comes, what, by, change);
    };
    let surely = Comes::Surely;
    if vcpu.kick {
        // arch/vcpu.rs `xok_kick`.
        step(surely, "interrupt of another vCPU", &|state| {
            state.vcpu(number).kick = false;
            state.flush &= !bit(number);
            if state.look & bit(number) != 0 {
                state.vcpu(number).at = At::Waits(Entry::Kicked);
            }
        });
    }
    if vcpu.interrupt {
        step(surely, "interrupt handler", &|state| state.vcpu(number).interrupt = false);
    }
    if vcpu.limited && vcpu.timer {
        let computes = environment.pc == Pc::Compute && environment.upcall == Upcall::None;
        if computes && !vcpu.kick && !vcpu.interrupt {
            step(Comes::ByTheClock, "the slice ends", &|state| {
                state.vcpu(number).timer = false;
                state.vcpu(number).at = At::Waits(Entry::Timer);
            });
        } else if state.slice_ends_left > 0 {
            step(Comes::Perhaps, "the slice ends", &|state| {
                state.slice_ends_left -= 1;
                state.vcpu(number).timer = false;
                state.vcpu(number).at = At::Waits(Entry::Timer);
            });
        }
        if state.early_timers_left > 0 {
            step(Comes::Perhaps, "the timer comes early", &|state| {
                state.early_timers_left -= 1;
                state.vcpu(number).timer = false;
                state.vcpu(number).at = At::Waits(Entry::EarlyTimer);
            });
        }
    }
    let call = |state: &mut State, entry| state.vcpu(number).at = At::Waits(entry);
    match environment.upcall {
        Upcall::None => {}
        Upcall::SliceEnd => {
            return step(surely, "environment: yields", &|state| {
                state.environment(e).upcall = Upcall::None;
                call(state, Entry::Yield);
            });
        }
        Upcall::Asks => {
            return step(surely, "environment: is told what it is asked for", &|state| {
                state.environment(e).upcall = Upcall::None;
                state.ask_seen = true;
            });
        }
    }
    match environment.pc {
        Pc::Act(at) => match work.acts[usize::from(at)] {
            act @ Act::Write(to) => step(surely, act.what(), &|state| {
                state.store(number, Stored::Word(to));
                state.environment(e).pc = after_act(work, at + 1);
            }),
            act => step(surely, act.what(), &|state| call(state, Entry::Call)),
        },
        Pc::Watch => step(surely, "environment: takes the watch", &|state| {
            let (used, word) = (state.used[usize::from(e)], state.word(number, e));
            let own = state.environment(e);
            own.expected = used;
            own.word_expected = word;
            own.pc = Pc::Look;
        }),
        Pc::Look => step(surely, "environment: looks", &|state| {
            let (used, word) = (state.used[usize::from(e)], state.word(number, e));
            let asked = state.holder == e && !state.ask_seen;
            state.ask_seen |= state.holder == e;
            let stop = state.stop;
            let own = state.environment(e);
            let came = used != own.consumed || word != own.word_seen || own.due || asked;
            own.to_look = false;
            own.due = false;
            own.consumed = used;
            own.word_seen = word;
            own.pc = match (stop, came) {
                (true, _) => Pc::Exit,
                (false, true) => Pc::Watch,
                (false, false) => Pc::Sleep,
            };
        }),
        Pc::Sleep => step(surely, "environment: goes to sleep", &|state| call(state, Entry::Call)),
        Pc::Exit => step(surely, "environment: ends", &|state| call(state, Entry::Call)),
        Pc::Call => step(surely, "environment: calls somebody", &|state| call(state, Entry::Call)),
        Pc::Compute => {}
    }
}

//! The kernel, by whoever has its lock: the ways in and out, and what calls do to others (xok/src/arch/vcpu.rs, calls, schedule.rs).
//! What one entry does is one step unless something outside the lock can come between.

use super::rules::{Act, MOST, NOBODY, Rules, Setup};
use super::state::{Ask, At, Doing, Entry, Environment, Pc, State, Stored, Upcall, Vcpu};
use super::state::{after_act, bit, first};

/// Steps in which what somebody held is taken back.
const ENDING: u8 = 2;

/// The kernel on one vCPU.
pub(crate) struct Kernel<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) setup: &'a Setup,
    pub(crate) rules: &'a Rules,
    /// The vCPU that is here.
    pub(crate) vcpu: u8,
}

impl Kernel<'_> {
    pub(super) fn own(&mut self) -> &mut Vcpu {
        self.state.vcpu(self.vcpu)
    }

    pub(super) fn current(&self) -> u8 {
        self.state.vcpus[usize::from(self.vcpu)].current
    }

    pub(super) fn environment(&mut self, number: u8) -> &mut Environment {
        self.state.environment(number)
    }

    pub(super) fn of(&self, number: u8) -> Environment {
        self.state.environments[usize::from(number)]
    }

    /// Environments of which this is true.
    pub(super) fn which<F: Fn(Environment) -> bool>(&self, is: F) -> impl Iterator<Item = u8> + use<F> {
        let environments = self.state.environments;
        (0..MOST as u8).filter(move |&number| is(environments[usize::from(number)]))
    }

    /// The lock has just been taken.
    pub(crate) fn enter(&mut self, entry: Entry) {
        match entry {
            // arch/vcpu.rs `xok_call_several`.
            Entry::Call | Entry::Yield if self.is_ended() && self.rules.ended_makes_no_call => {
                self.schedule()
            }
            Entry::Call => self.call(),
            Entry::Yield => self.schedule(),
            Entry::Timer | Entry::EarlyTimer => self.timer(entry == Entry::EarlyTimer),
            Entry::Kicked => self.kicked(),
            Entry::AfterHalt => {
                // schedule.rs `schedule`.
                if self.rules.idle_taken_back {
                    self.state.idle &= !bit(self.vcpu);
                }
                self.repossess();
                self.go_on_if(self.rules.look_after_idle);
            }
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.current() != NOBODY && self.of(self.current()).ending > 0
    }

    fn call(&mut self) {
        let current = self.current();
        match self.of(current).pc {
            Pc::Act(at) => {
                let work = &self.setup.environments[usize::from(current)];
                self.act(work.acts[usize::from(at)]);
            }
            Pc::Sleep => {
                self.environment(current).pc = Pc::Watch;
                self.environment(current).doing = Doing::Asleep;
                self.schedule();
            }
            Pc::Call => {
                self.environment(current).doing = Doing::Calling;
                self.schedule();
            }
            Pc::Exit => {
                self.environment(current).doing = Doing::Ending;
                self.environment(current).ending = ENDING;
                self.schedule();
            }
            Pc::Watch | Pc::Look | Pc::Compute => self.go_back(),
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Sleep => {
                let current = self.current();
                let work = &self.setup.environments[usize::from(current)];
                let own = self.environment(current);
                if let Pc::Act(at) = own.pc {
                    own.pc = after_act(work, at + 1);
                }
                own.expected = own.consumed;
                own.word_expected = own.word_seen;
                own.doing = Doing::Asleep;
                return self.schedule();
            }
            Act::Wake(to) => {
                let sleeps = self.of(to).doing == Doing::Asleep;
                self.own().at = At::Wake { to, sleeps };
                return;
            }
            // kernel.rs `start`.
            Act::Start(number) => {
                self.environment(number).doing = Doing::Runnable;
                if self.rules.start_offers {
                    self.offer(number);
                }
                if !self.own().limited {
                    self.begin_slice();
                }
            }
            Act::Move(number, vcpus) => self.move_to(number, vcpus),
            Act::Ask(number) => self.ask(number),
            Act::End(number) => {
                self.state.to_end = number;
                self.state.ender = self.current();
                self.environment(number).doing = Doing::Ending;
                self.environment(number).ending = ENDING;
                if let Some(other) = self.state.where_runs(number) {
                    if self.rules.end_has_look {
                        self.want(Stored::Look(other), self.rules.look_is_exchanged);
                    }
                    return self.flush(other);
                }
                return self.flushed();
            }
            Act::Unmap(number) => {
                if let Some(other) = self.state.where_runs(number).filter(|&other| other != self.vcpu) {
                    return self.flush(other);
                }
            }
            Act::Write(_) => {}
        }
        self.done();
    }

    /// An act is done.
    fn done(&mut self) {
        let current = self.current();
        let work = &self.setup.environments[usize::from(current)];
        if let Pc::Act(at) = self.of(current).pc {
            self.environment(current).pc = after_act(work, at + 1);
        }
        self.go_back();
    }

    /// Back to ring 3.
    pub(super) fn go_back(&mut self) {
        if self.state.has_stores(self.vcpu) {
            self.own().at = At::Leaves;
        } else {
            self.leave_kernel();
        }
    }

    pub(crate) fn leave_kernel(&mut self) {
        self.give_lock_back();
        self.own().at = At::Ring3;
    }

    pub(super) fn give_lock_back(&mut self) {
        self.state.fence(self.vcpu);
        self.state.lock = None;
    }

    /// A wish to another vCPU, which its interrupt handler sees.
    fn want(&mut self, wish: Stored, exchanged: bool) {
        self.state.store(self.vcpu, wish);
        if exchanged {
            self.state.fence(self.vcpu);
        }
    }

    pub(super) fn have_look(&mut self, other: u8) {
        self.want(Stored::Look(other), self.rules.look_is_exchanged);
        self.state.vcpu(other).kick = true;
    }

    /// arch/vcpu.rs `flush_other`.
    fn flush(&mut self, other: u8) {
        self.want(Stored::Flush(other), self.rules.flush_is_exchanged);
        self.state.vcpu(other).kick = true;
        self.own().at = At::Flushes { other };
    }

    /// Behind `flush_other`, or where it was not needed.
    pub(crate) fn flushed(&mut self) {
        if let Pc::Act(at) = self.of(self.current()).pc {
            let act = self.setup.environments[usize::from(self.current())].acts[usize::from(at)];
            // ending.rs `end`.
            let ends = matches!(act, Act::End(_));
            if ends && self.rules.end_is_seen_to && !self.wake_idle(u8::MAX) && !self.own().limited {
                self.begin_slice();
            }
        }
        self.done();
    }

    /// sleep.rs `wake_up`.
    pub(super) fn wake_up(&mut self, number: u8) {
        let sleeps = self.of(number).doing == Doing::Asleep;
        self.wake_one(number, sleeps);
    }

    fn wake_one(&mut self, number: u8, sleeps: bool) {
        if sleeps {
            self.rouse(number);
        } else {
            self.environment(number).woken = self.rules.wake_is_kept;
        }
    }

    /// The second half of [`Act::Wake`].
    pub(crate) fn wake(&mut self, to: u8, sleeps: bool) {
        self.environment(to).to_look = true;
        self.wake_one(to, sleeps);
        self.done();
    }

    /// calls/slice.rs `move_to`.
    fn move_to(&mut self, number: u8, vcpus: u8) {
        self.environment(number).vcpus = vcpus;
        if self.rules.interrupts_follow {
            self.state.aim[usize::from(number)] = first(vcpus);
        }
        if self.rules.move_notifies {
            self.notify_vcpus(number);
        }
        match self.state.where_runs(number) {
            Some(other) if other != self.vcpu && self.rules.move_has_look => self.have_look(other),
            Some(own) if own == self.vcpu && self.rules.move_ends_own_slice && !self.own().limited => {
                self.begin_slice();
            }
            _ => {}
        }
    }

    /// calls/revocation.rs `capability_ask`.
    fn ask(&mut self, holder: u8) {
        self.state.asker = self.current();
        self.state.holder = holder;
        self.state.ask = Ask::Stands;
        self.state.ask_untold = true;
        if self.rules.ask_wakes {
            self.wake_up(holder);
        }
        if let Some(other) = self.state.where_runs(holder)
            && other != self.vcpu
            && self.rules.ask_has_look
        {
            self.have_look(other);
        }
        if self.rules.ask_begins_slice && !self.own().limited {
            self.begin_slice();
        }
    }

    /// calls/repossession.rs `repossess`, all steps in one.
    pub(super) fn repossess(&mut self) {
        let holder = self.state.holder;
        if self.state.ask != Ask::Stands || !self.state.ask_due || self.of(holder).ending > 0 {
            return;
        }
        self.environment(holder).to_look = true;
        if self.rules.loss_wakes {
            self.wake_up(holder);
        }
        self.answered();
    }

    /// calls/revocation.rs `answered`.
    pub(super) fn answered(&mut self) {
        let asker = self.state.asker;
        self.state.ask = Ask::Over;
        self.environment(asker).to_look = true;
        if self.rules.answer_wakes {
            self.wake_up(asker);
        }
    }

    /// calls/revocation.rs `tell_of_asks`.
    pub(super) fn tell_of_asks(&mut self) {
        let current = self.current();
        let state = &*self.state;
        let concerns = state.ask == Ask::Stands && state.holder == current && state.ask_untold;
        let answers = self.setup.environments[usize::from(current)].answers;
        if concerns && answers && self.of(current).upcall == Upcall::None {
            self.state.ask_untold = false;
            self.environment(current).upcall = Upcall::Asks;
        }
    }

    /// schedule.rs `kicked`.
    fn kicked(&mut self) {
        self.state.look &= !bit(self.vcpu);
        if self.is_ended() && self.rules.leaves_if_ended {
            return self.schedule();
        }
        if !self.own().limited && self.rules.kicked_begins_slice {
            self.begin_slice();
        }
        self.tell_of_asks();
        self.go_back();
    }
}

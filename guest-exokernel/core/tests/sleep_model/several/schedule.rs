//! The kernel, by whoever has its lock: who is told that somebody could run, slices, who runs next, halting, and taking back what one
//! held that ended (xok/src/schedule.rs, sleep.rs, ending.rs).

use super::kernel::Kernel;
use super::rules::{CPUS, MOST, NOBODY};
use super::state::{ASK, After, Ask, At, Doing, Entry, Upcall, Vcpu, bit, first};

impl Kernel<'_> {
    pub(super) fn rouse(&mut self, sleeper: u8) {
        let environment = self.environment(sleeper);
        environment.doing = Doing::Runnable;
        environment.woken = false;
        // Of no use any more: states that differ in nothing else are the same.
        environment.expected = 0;
        environment.word_expected = 0;
        if self.rules.rouse_offers {
            self.offer(sleeper);
        }
    }

    pub(super) fn offer(&mut self, number: u8) {
        if self.current() != NOBODY || self.of(number).vcpus & bit(self.vcpu) == 0 {
            self.notify_vcpus(number);
        }
    }

    pub(super) fn notify_vcpus(&mut self, number: u8) {
        let vcpus = self.of(number).vcpus;
        if self.wake_idle(vcpus) {
            return;
        }
        for other in (0..CPUS as u8).filter(|&other| vcpus & bit(other) != 0) {
            let Vcpu { current, limited, .. } = self.state.vcpus[usize::from(other)];
            if limited || current == NOBODY || current == number {
                continue;
            }
            if other != self.vcpu {
                if self.rules.notify_has_look {
                    self.have_look(other);
                }
            } else if self.rules.notify_begins_slice {
                self.begin_slice();
            }
        }
    }

    pub(super) fn wake_idle(&mut self, vcpus: u8) -> bool {
        let idle = vcpus & self.state.idle;
        if idle == 0 {
            return false;
        }
        self.state.idle &= !bit(first(idle));
        if self.rules.wake_idle_kicks {
            self.state.vcpu(first(idle)).kick = true;
        }
        true
    }

    pub(super) fn begin_slice(&mut self) {
        let (vcpu, current, rules) = (self.vcpu, self.current(), *self.rules);
        let mut others = self.which(|environment| {
            let sleeps =
                matches!(environment.doing, Doing::Asleep | Doing::Calling) && rules.sleepers_limit_slices;
            (environment.doing == Doing::Runnable || sleeps) && environment.vcpus & bit(vcpu) != 0
        });
        let limited = others.any(|other| other != current)
            || rules.guests_have_an_end && self.of(current).vcpus & bit(vcpu) == 0
            || rules.asks_limit_slices && self.state.ask == Ask::Stands
            || rules.endings_limit_slices
                && self.which(|environment| environment.ending > 0).next().is_some();
        self.own().limited = limited;
        self.own().timer = limited;
    }

    /// schedule.rs `at_slice_end`, up to `look`.
    pub(super) fn timer(&mut self, early: bool) {
        if self.is_ended() && self.rules.leaves_if_ended {
            return self.schedule();
        }
        if early || !self.own().limited {
            self.own().timer = self.own().limited && self.rules.early_timer_set_again;
            return self.go_back();
        }
        self.repossess();
        if self.rules.look_at_slice_end {
            self.look_from(0, After::SliceEnd);
        } else {
            self.own().at = At::SliceEnd;
        }
    }

    /// The rest of it.
    pub(crate) fn slice_end(&mut self) {
        let (vcpu, current) = (self.vcpu, self.current());
        let others = (0..NOBODY).any(|other| self.state.is_ready(vcpu, other));
        let may_stay = self.of(current).vcpus & bit(vcpu) != 0;
        if !others && may_stay {
            self.take_back();
        }
        self.begin_slice();
        self.tell_of_asks();
        if (others || !may_stay) && self.of(current).upcall == Upcall::None {
            self.environment(current).upcall = Upcall::SliceEnd;
        }
        self.go_back();
    }

    /// schedule.rs `schedule_but`, up to `look`.
    pub(super) fn schedule(&mut self) {
        self.leave();
        self.repossess();
        self.go_on_if(self.rules.look_before_idle);
    }

    pub(super) fn go_on_if(&mut self, looks: bool) {
        if looks {
            self.look_from(0, After::Choose);
        } else {
            self.own().at = At::Chooses;
        }
    }

    fn leave(&mut self) {
        let was = std::mem::replace(&mut self.own().current, NOBODY);
        if was == NOBODY {
            return;
        }
        let offers = match self.of(was).doing {
            Doing::Runnable => self.rules.leave_offers,
            Doing::Asleep | Doing::Calling => self.rules.leave_offers_sleepers,
            _ => false,
        };
        if offers {
            self.offer(was);
        }
    }

    /// The next sleeper from this number on is looked at, if there is one.
    fn look_from(&mut self, from: u8, after: After) {
        let (vcpu, all) = (self.vcpu, self.rules.look_at_all);
        let mut sleepers = self.which(|environment| {
            environment.doing == Doing::Asleep && (all || environment.vcpus & bit(vcpu) != 0)
        });
        self.own().at = match (sleepers.find(|&sleeper| sleeper >= from), after) {
            (Some(sleeper), _) => At::Looks(sleeper, after),
            (None, After::Choose) => At::Chooses,
            (None, After::SliceEnd) => At::SliceEnd,
        };
    }

    /// sleep.rs `look`, at one.
    pub(crate) fn look(&mut self, at: u8, after: After) {
        let environment = self.of(at);
        let holds = self.state.stop
            || environment.due
            || environment.woken
            || self.state.used[usize::from(at)] != environment.expected
            || self.state.word(self.vcpu, at) != environment.word_expected;
        if environment.doing == Doing::Asleep && holds {
            self.rouse(at);
        }
        self.look_from(at + 1, after);
    }

    /// ending.rs `take_back_step`; whether there was one to make.
    fn take_back(&mut self) -> bool {
        let mut ending = self.which(|environment| environment.ending > 0);
        let Some(ended) = ending.find(|&ended| self.state.where_runs(ended).is_none()) else {
            return false;
        };
        let environment = self.environment(ended);
        environment.ending -= 1;
        if environment.ending > 0 {
            return true;
        }
        if environment.doing == Doing::Ending {
            environment.doing = Doing::Gone;
        }
        if self.state.ask == Ask::Stands && self.state.holder == ended {
            self.answered();
        }
        if self.state.to_end == ended {
            // It waits for that, though it says so in no term.
            let ender = self.state.ender;
            self.environment(ender).to_look = true;
        }
        for number in 0..MOST as u8 {
            match self.of(number).doing {
                Doing::Asleep if self.rules.gone_wakes => self.rouse(number),
                Doing::Runnable if self.rules.gone_is_kept => self.environment(number).woken = true,
                _ => {}
            }
        }
        true
    }

    /// schedule.rs `schedule_but`, behind `look`.
    pub(crate) fn choose(&mut self) {
        let (vcpu, last) = (self.vcpu, self.own().last);
        let more = self.take_back();
        let ready = |number: &u8| self.state.is_ready(vcpu, *number);
        let Some(next) = (last.saturating_add(1)..NOBODY).chain(0..NOBODY).find(ready) else {
            if more {
                // entry.rs `xok_again`.
                self.give_lock_back();
                self.own().at = At::Waits(Entry::AfterHalt);
            } else {
                self.idle();
            }
            return;
        };
        let rest: Vec<u8> = (0..NOBODY).filter(|number| ready(number) && *number != next).collect();
        if self.rules.offer_rest {
            rest.into_iter().for_each(|other| self.notify_vcpus(other));
        }
        self.own().last = next;
        self.own().current = next;
        self.begin_slice();
        self.go_back();
    }

    /// sleep.rs `idle`.
    fn idle(&mut self) {
        if self
            .which(|environment| {
                matches!(environment.doing, Doing::Runnable | Doing::Asleep | Doing::Calling)
            })
            .next()
            .is_none()
        {
            self.own().at = At::Off;
            return;
        }
        let vcpu = self.vcpu;
        let mut armed = 0;
        if self.rules.idle_deadline {
            let sleepers = self.which(|environment| {
                environment.doing == Doing::Asleep && environment.vcpus & bit(vcpu) != 0
            });
            for sleeper in sleepers {
                let index = usize::from(sleeper);
                armed |=
                    if self.state.deadline_left[index] || self.of(sleeper).due { bit(sleeper) } else { 0 };
            }
        }
        if self.rules.idle_deadline_of_asks && self.state.ask == Ask::Stands {
            armed |= ASK;
        }
        self.own().armed = armed;
        if self.rules.idle_said_under_lock {
            self.state.idle |= bit(vcpu);
        }
        self.own().at = if self.rules.idle_said_under_lock { At::BeforeHalt } else { At::BeforeIdle };
        self.give_lock_back();
    }
}

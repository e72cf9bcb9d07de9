//! Who gets the CPU, where, and for how long.

use crate::arch::entry::TrapFrame;
use crate::arch::{apic, entry, tsc, vcpu};
use crate::calls::Answer;
use crate::kernel::{Environment, Kernel};
use crate::machine::{Machine, direct_map};
use crate::vcpus::{NOBODY, Vcpu};
use abi::boot::VCPUS_MAX;
use abi::capability::{CAPABILITIES, rights};
use abi::layout::{PAGE_BYTES, RESUME_VA};
use abi::slice::{SLICE_MS, SLICES};
use abi::upcall::{self, UpcallPage};
use core::sync::atomic::Ordering;

/// How many slices an environment goes on after the end of its own before it is ended. Counted by the timer: while the host
/// does not run the vCPU, it does not count either.
const TOLD_MAX: u32 = 6;
/// Steps of taking back at the end of a slice after which the same one goes on.
const STEPS: u32 = 4;

/// What the gate leaves on the stack.
#[repr(C)]
pub(crate) struct GateFrame {
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

/// [`abi::call::Call::Yield`].
pub(crate) extern "sysv64" fn give_way(to: u64, _: u64, _: u64, _: u64, _: u64, frame: &GateFrame) -> Answer {
    // SAFETY: the gate has just been passed.
    let kernel = unsafe { crate::kernel::enter() };
    let current = kernel.current;
    let mut next = None;
    if to != 0 {
        match kernel.other(to, rights::YIELD) {
            Ok(number) => next = Some(number),
            Err(error) => return Answer::from(Err::<u64, _>(error)),
        }
    }
    kernel.set_resume(current, [frame.rip, frame.rsp, 0, 0, 0]);
    let told = kernel.environment(current).told != 0;
    if let Some(number) = next {
        kernel.look();
        let runnable = kernel.runnable & !kernel.running & kernel.own().allowed;
        // What is left of this slice and no more: else two could give a fresh one to and fro for ever.
        if !told && number != current && runnable & (1 << number) != 0 {
            kernel.hand_over(number);
        }
    }
    // At the end of its slice it is the next one's turn, which may be its own again; otherwise it is for others.
    kernel.schedule_but(if told { 0 } else { 1 << current })
}

/// Whoever ran does not go on, or nobody did. Called with the lock held.
pub(crate) extern "sysv64" fn schedule() -> ! {
    // SAFETY: called at the end of a call or of a halt, when nobody else is in the kernel.
    let kernel = unsafe { crate::kernel::enter() };
    kernel.arrive();
    kernel.idle &= !(1 << kernel.vcpu);
    kernel.schedule()
}

/// Another vCPU had this one look: who runs here may have ended, not be alone any more, or be asked for something. Comes back if it
/// may go on.
pub(crate) extern "sysv64" fn kicked(frame: &TrapFrame) {
    // SAFETY: ring 3 ran until now, and the lock is taken.
    let kernel = unsafe { crate::kernel::lock() };
    vcpu::looks();
    kernel.leave_if_ended();
    if kernel.own().slice_end_tsc == 0 {
        kernel.begin_slice();
    }
    if kernel.revocation.concerns(kernel.current) {
        kernel.tell_of_asks(frame);
    }
    vcpu::unlock();
}

/// The first of a set behind a number, or else the first.
pub(crate) fn behind(set: u64, number: u32) -> u32 {
    let behind = set & (u64::MAX << number << 1);
    if behind != 0 { behind } else { set }.trailing_zeros()
}

/// Whether ring 3 can be entered with this address: anything else faults in ring 0.
pub(crate) fn is_user(va: u64) -> bool {
    va < 1 << 47
}

/// The timer, in ring 3. Comes back if the environment may go on.
pub(crate) extern "sysv64" fn slice_end(frame: &TrapFrame) {
    // SAFETY: ring 3 ran until now, and the lock is taken.
    let kernel = unsafe { crate::kernel::lock() };
    kernel.at_slice_end(frame);
    vcpu::unlock();
}

impl Kernel {
    fn at_slice_end(&mut self, frame: &TrapFrame) {
        let kernel = self;
        kernel.leave_if_ended();
        let end_tsc = kernel.own().slice_end_tsc;
        if end_tsc == 0 {
            // A timer that was set for somebody else; nobody runs yet where the gate is probed.
            return;
        }
        let now = tsc();
        if now < end_tsc {
            // The same, or one that came early: nothing else ends this slice.
            return apic::set_deadline(end_tsc);
        }
        let current = kernel.current;
        kernel.work_for_others(current);
        kernel.repossess();
        // What was taken may be what it lives by.
        kernel.leave_if_ended();
        kernel.look();
        let ready = kernel.ready();
        let may_stay = kernel.own().allowed & (1 << current) != 0;
        if ready == 0 && may_stay {
            // Nobody wants the vCPU but those that are to be taken back.
            if kernel.ending != 0 {
                for _ in 0..STEPS {
                    kernel.take_back_step();
                }
                kernel.leave_if_ended();
            }
            kernel.begin_slice();
            return kernel.tell_of_asks(frame);
        }
        if frame.rip & !(PAGE_BYTES - 1) == RESUME_VA {
            // It has not gone on yet, and will from there when it is its turn again.
            kernel.schedule();
        }
        if may_stay {
            let (next, position) = kernel.next(ready | 1 << current);
            if next == current {
                kernel.take_turn(next, position);
                kernel.environment(current).told = 0;
                kernel.begin_slice();
                return kernel.tell_of_asks(frame);
            }
        }
        kernel.environment(current).told += 1;
        if ready == 0 || kernel.environment(current).told <= TOLD_MAX {
            kernel.begin_slice();
            kernel.tell_of_asks(frame);
            // Comes back if it has no entry, or is in another upcall.
            let slice_end_va = kernel.upcall_page().slice_end_va.load(Ordering::Relaxed);
            return kernel.upcall(slice_end_va, frame, upcall::SLICE_END, now);
        }
        crate::fault::overrun(kernel, frame);
    }

    /// Chooses whoever is next, and never comes back.
    pub(crate) fn schedule(&mut self) -> ! {
        self.schedule_but(0)
    }

    /// The same; these only if nobody else wants the CPU.
    fn schedule_but(&mut self, not: u64) -> ! {
        self.leave();
        self.repossess();
        loop {
            self.look();
            let more = self.take_back_step() && self.take_back_step();
            let ready = self.ready();
            if ready == 0 {
                if more {
                    if self.several {
                        // Others want to get in between two steps.
                        entry::again();
                    }
                    continue;
                }
                if self.runnable | self.asleep == 0 {
                    self.power_off();
                }
                self.idle();
                self.repossess();
                continue;
            }
            let others = ready & !not;
            let (next, position) = self.next(if others != 0 { others } else { ready });
            self.take_turn(next, position);
            self.work_for_others(next);
            self.offer_rest(ready & !(1 << next));
            self.resume(next);
        }
    }

    /// Who could run here now, besides the one that does.
    fn ready(&mut self) -> u64 {
        let others = self.runnable & !self.running & self.own().allowed;
        if self.current == NOBODY { others } else { others & !(1 << self.current) }
    }

    /// The one of these whose slice comes next, or that of its family, and that slice; if none is theirs, whoever comes behind
    /// the last.
    fn next(&mut self, ready: u64) -> (u32, Option<u32>) {
        let &mut Vcpu { bound, position, last, .. } = self.own();
        for mut left in [bound & (u64::MAX << position << 1), bound] {
            while left != 0 {
                let position = left.trailing_zeros();
                left &= left - 1;
                let owner = self.owner_of(position);
                let want = ready & owner.family;
                if want != 0 {
                    return (behind(want, owner.turn.into()), Some(position));
                }
            }
        }
        (behind(ready, last), None)
    }

    /// It is in this slice that it runs.
    fn take_turn(&mut self, number: u32, position: Option<u32>) {
        if let Some(position) = position {
            self.owner_of(position).turn = number as u8;
            self.own().position = position;
        }
    }

    /// Whose slice of this vCPU that is, which is bound.
    fn owner_of(&mut self, position: u32) -> &mut Environment {
        let with = self.own().slices[position as usize % SLICES].wrapping_sub(1);
        self.environment(u32::from(with) / CAPABILITIES as u32)
    }

    /// What the stub of a halt does not know: who is here.
    fn arrive(&mut self) {
        if self.several {
            (self.vcpu, self.current) = vcpu::here();
        }
    }

    /// Whoever ran here does not any more.
    pub(crate) fn leave(&mut self) {
        let was = core::mem::replace(&mut self.current, NOBODY);
        if was == NOBODY {
            return;
        }
        // Said about this one, and of no meaning for whoever comes into the kernel next.
        entry::set_left(false);
        self.account_leaving(was);
        if self.several {
            self.own().running = NOBODY;
            vcpu::set_current(NOBODY);
            self.running &= !(1 << was);
            if (self.runnable | self.asleep) & (1 << was) != 0 {
                self.offer(was);
            }
        }
    }

    /// It was ended by another vCPU while it ran here: then it does not go on.
    pub(crate) fn leave_if_ended(&mut self) {
        if self.ending & (1 << self.current) != 0 {
            self.schedule();
        }
    }

    /// An environment can run, or sleeps with a deadline: a vCPU that may have it looks. This one does so by itself, if it is
    /// choosing.
    pub(crate) fn offer(&mut self, number: u32) {
        if self.current != NOBODY || self.own().allowed & (1 << number) == 0 {
            self.notify_vcpus(number);
        }
    }

    /// These could run and do not here.
    fn offer_rest(&mut self, mut left: u64) {
        while left != 0 && self.idle != 0 {
            let number = left.trailing_zeros();
            left &= left - 1;
            self.notify_vcpus(number);
        }
    }

    /// One that halts looks; if none does, those on which somebody runs without an end limit that.
    #[cold]
    pub(crate) fn notify_vcpus(&mut self, number: u32) {
        if !self.several {
            return;
        }
        let vcpus = self.environment(number).vcpus;
        if self.wake_idle(vcpus) {
            return;
        }
        let mut left = vcpus;
        while left != 0 {
            let other = left.trailing_zeros();
            left &= left - 1;
            let Vcpu { running, slice_end_tsc, .. } = self.vcpus[other as usize % VCPUS_MAX];
            if slice_end_tsc != 0 || running == NOBODY || running == number {
                continue;
            }
            if other == self.vcpu {
                self.begin_slice();
            } else {
                vcpu::have_look(other);
            }
        }
    }

    /// Ends the halt of one of these vCPUs; whether one halts.
    pub(crate) fn wake_idle(&mut self, vcpus: u8) -> bool {
        let idle = vcpus & self.idle;
        if idle == 0 {
            return false;
        }
        self.idle &= !(idle & idle.wrapping_neg());
        vcpu::kick(idle.trailing_zeros());
        true
    }

    /// Gives the CPU to one that can run, for a slice if there are others.
    pub(crate) fn resume(&mut self, number: u32) -> ! {
        self.own().last = number;
        self.enter_environment(number);
        self.begin_slice();
        self.account_entering();
        entry::resume(self.environment(number).root_gpa)
    }

    /// Gives what is left of the slice to `number`, which may be the one that runs, if that can run here and there is something
    /// left. Nobody runs where it has no slices: otherwise who calls it could have it run for him wherever he likes.
    #[inline(always)]
    pub(crate) fn hand_over(&mut self, number: u32) -> ! {
        let current = self.current;
        let elsewhere = self.running & !(1 << current);
        if self.runnable & !elsewhere & self.own().allowed & (1 << number) == 0
            || self.environment(current).told != 0
        {
            if self.runnable & !elsewhere & (1 << number) != 0 {
                self.offer(number);
            }
            self.schedule();
        }
        if self.several {
            self.running = elsewhere;
            if number != current && (self.runnable | self.asleep) & (1 << current) != 0 {
                self.notify_vcpus(current);
            }
        }
        self.account_handing_over();
        self.enter_environment(number);
        if self.own().slice_end_tsc == 0 {
            // Who gave it was alone here and had it without limit.
            self.begin_slice();
        }
        entry::resume(self.environment(number).root_gpa)
    }

    /// From now on an environment runs here.
    #[inline(always)]
    fn enter_environment(&mut self, number: u32) {
        self.current = number;
        if self.several {
            self.own().running = number;
            self.running |= 1 << number;
            vcpu::set_current(number);
            self.kernel_page(number).vcpu.store(self.vcpu, Ordering::Relaxed);
        }
        self.environment(number).told = 0;
    }

    /// The timer comes when it is over; nobody else, no timer.
    pub(crate) fn begin_slice(&mut self) {
        let allowed = self.own().allowed;
        let others = (self.runnable | self.asleep) & allowed & !(1 << self.current) != 0;
        let is_guest = allowed & (1 << self.current) == 0;
        let asked = self.revocation.due_tsc() != u64::MAX;
        if others || is_guest || asked || self.ending != 0 {
            let end_tsc = tsc() + SLICE_MS * Machine::get().boot().tsc_khz;
            self.own().slice_end_tsc = end_tsc;
            apic::set_deadline(end_tsc);
        } else if self.own().slice_end_tsc != 0 {
            self.own().slice_end_tsc = 0;
            apic::set_deadline(0);
        }
    }

    /// Lets the environment that runs go on at one of its entries, if it has one and can take an upcall now.
    pub(crate) fn upcall(&mut self, entry_va: u64, frame: &TrapFrame, reason: u64, address: u64) {
        let page = self.upcall_page();
        let stack_va = page.stack_va.load(Ordering::Relaxed);
        let possible = entry_va != 0 && is_user(entry_va) && is_user(stack_va);
        if !possible || page.busy.load(Ordering::Relaxed) != 0 {
            return;
        }
        page.busy.store(1, Ordering::Relaxed);
        page.reason.store(reason, Ordering::Relaxed);
        page.vector.store(frame.vector, Ordering::Relaxed);
        page.error_code.store(frame.error_code, Ordering::Relaxed);
        page.address.store(address, Ordering::Relaxed);
        for (slot, register) in page.registers.iter().zip(frame.registers) {
            slot.store(register, Ordering::Relaxed);
        }
        let interrupted = [frame.rip, frame.cs, frame.rflags, frame.rsp, frame.ss];
        for (slot, word) in page.frame.iter().zip(interrupted) {
            slot.store(word, Ordering::Relaxed);
        }
        entry::enter_ring3(entry_va, stack_va)
    }

    /// The upcall page of the environment that runs. It writes there what it likes.
    pub(crate) fn upcall_page(&self) -> &'static UpcallPage {
        // SAFETY: RAM that the VMM reserved for this page; all its fields are atomics.
        unsafe { &*direct_map::<UpcallPage>(self.place(self.current).upcall_gpa) }
    }
}

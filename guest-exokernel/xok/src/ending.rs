//! The end of an environment, and taking back what it held: in bounded steps, between which others run.

use crate::arch::{entry, vcpu};
use crate::kernel::{Kernel, State};
use crate::machine::Machine;
use crate::schedule::behind;
use crate::vcpus::NOBODY;
use abi::boot::{MemoryRange, control};
use abi::call::Error;
use abi::capability::Kind;
use abi::layout::PAGE_BYTES;
use xok_core::capability::Slots;
use xok_core::paging::{END_VA, Sweep};

/// Entries of page tables that one step looks at.
const SWEEP_STEP: u32 = 256;

impl Kernel {
    /// [`abi::call::Call::Exit`].
    pub(crate) fn exit(&mut self, status: u64) -> Result<(), Error> {
        self.end(self.current, status as u32);
        Ok(())
    }

    /// An environment ends; what it held is taken back when its turn would come. With the last one the machine ends.
    pub(crate) fn end(&mut self, number: u32, status: u32) {
        let environment = self.environment(number);
        environment.exit_status = status;
        environment.state = State::Ending;
        environment.sweep_va = 0;
        self.leave_messages(number);
        self.runnable &= !(1 << number);
        self.asleep &= !(1 << number);
        if self.runnable | self.asleep == 0 {
            self.power_off();
        }
        self.ending |= 1 << number;
        if number == self.current {
            entry::set_left(true);
        } else if let Some(other) = self.where_runs(number) {
            vcpu::stop(other);
        }
        // Somebody takes back what it held: this vCPU, if it chooses who runs next.
        self.count_alone(None);
        let goes_on = self.current != NOBODY && self.current != number;
        if goes_on && !self.wake_idle(u8::MAX) && self.own().slice_end_tsc == 0 {
            self.begin_slice();
        }
    }

    pub(crate) fn power_off(&mut self) -> ! {
        let status = self.environment(0).exit_status;
        Machine::get().control(control::POWER_OFF, status);
        loop {
            // The VMM does not come back from that.
            core::hint::spin_loop();
        }
    }

    /// The first of an environment's capabilities of this kind.
    fn held(&mut self, number: u32, of_kind: impl Fn(u8) -> bool) -> Option<u16> {
        let unused = self.environment(number).slots.unused;
        let tree = self.tree();
        (abi::capability::number(number, 0)..unused).find(|&capability| of_kind(tree.entry(capability).kind))
    }

    /// A step of taking back what one of those held that have ended and run nowhere; whether there was one.
    pub(crate) fn take_back_step(&mut self) -> bool {
        let ending = self.ending & !self.running;
        let ending = if self.current == NOBODY { ending } else { ending & !(1 << self.current) };
        if ending == 0 {
            return false;
        }
        self.last_ending = behind(ending, self.last_ending);
        self.take_back(self.last_ending);
        true
    }

    /// One step of taking back what an environment held: its capabilities, with all that was bound with them and derived from
    /// them, then its page tables.
    fn take_back(&mut self, number: u32) {
        if self.release_step(number) {
            return;
        }
        // Environments first: they live by what comes after.
        if let Some(capability) = self.held(number, |kind| kind == Kind::Environment as u8) {
            self.drop_step(capability, number);
            return;
        }
        if let Some(capability) = self.held(number, |kind| kind != 0) {
            self.drop_step(capability, number);
            return;
        }
        let root = self.environment(number).root_gpa;
        let from = self.environment(number).sweep_va;
        if from < END_VA {
            let to = xok_core::paging::sweep(
                &mut self.tables(number),
                root,
                from,
                SWEEP_STEP,
                Sweep::Free,
                |_| true,
            );
            self.environment(number).sweep_va = to;
            if to < END_VA {
                return;
            }
            self.begin_drain(number);
        }
        if !self.is_drained(number, self.drains(number)) {
            return;
        }
        let machine = Machine::get();
        machine.clean(self.place(number).own);
        // What was asked of it and taken from it is no business of the next one's.
        machine.clean(MemoryRange { start_gpa: self.place(number).kernel_page_gpa, len_bytes: PAGE_BYTES });
        let environment = self.environment(number);
        environment.state = State::Free;
        environment.slots = Slots::new(number, 0);
        environment.sweep_va = 0;
        environment.woken = false;
        environment.told = 0;
        self.free |= 1 << number;
        self.ending &= !(1 << number);
        self.allow_on(number, 0);
        self.leave_family(number);
        self.forget_starter(number);
        self.count_alone(None);
        // Whoever waits for this looks, or is about to sleep until it comes.
        let mut left = (self.runnable | self.asleep) & !self.calling;
        while left != 0 {
            let other = left.trailing_zeros();
            left &= left - 1;
            self.wake_up(other);
        }
    }
}

//! What the kernel tells of its own time, so that no cycle between two environments is anybody else's: a stamp when one leaves
//! a vCPU, one when the next gets it, and what host and VMM took in between. [`abi::vcpu`] has the words.

use crate::arch::tsc;
use crate::kernel::Kernel;
use crate::machine::Machine;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

impl Kernel {
    /// An environment has left this vCPU.
    pub(crate) fn account_leaving(&mut self, number: u32) {
        let now = tsc();
        self.kernel_page(number).left_tsc.store(now, Relaxed);
        let time = Machine::get().vcpu_time(self.vcpu);
        time.left_tsc.store(now, Relaxed);
        time.left_outside_cycles.store(time.outside_cycles.load(Relaxed), Relaxed);
        time.left_steal_ns.store(time.steal_ns.load(Relaxed), Relaxed);
    }

    /// This vCPU is given to one, after a search.
    pub(crate) fn account_entering(&mut self) {
        let now = tsc();
        let time = Machine::get().vcpu_time(self.vcpu);
        let add = |sum: &AtomicU64, end: u64, start: &AtomicU64| {
            sum.store(sum.load(Relaxed).wrapping_add(end.wrapping_sub(start.load(Relaxed))), Relaxed);
        };
        add(&time.between_cycles, now, &time.left_tsc);
        add(&time.between_outside_cycles, time.outside_cycles.load(Relaxed), &time.left_outside_cycles);
        add(&time.between_steal_ns, time.steal_ns.load(Relaxed), &time.left_steal_ns);
        time.entered_tsc.store(now, Relaxed);
        time.entered_low.store(now as u32, Relaxed);
    }

    /// This vCPU is given from one to the next, at once. Three instructions where there is one vCPU: messages have none to spare.
    #[inline(always)]
    pub(crate) fn account_handing_over(&mut self) {
        let time =
            if self.several { Machine::get().vcpu_time(self.vcpu) } else { Machine::first_vcpu_time() };
        time.entered_low.store(tsc() as u32, Relaxed);
    }
}

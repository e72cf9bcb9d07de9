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
        let time = Machine::get().vcpu_time(self.vcpu);
        let (outside, steal_ns) = (time.outside_cycles.load(Relaxed), time.steal_ns.load(Relaxed));
        time.left_tsc.store(now, Relaxed);
        time.left_outside_cycles.store(outside, Relaxed);
        time.left_steal_ns.store(steal_ns, Relaxed);
        let page = self.kernel_page(number);
        page.left_tsc.store(now, Relaxed);
        page.left_outside_cycles.store(outside, Relaxed);
        page.left_steal_ns.store(steal_ns, Relaxed);
    }

    /// This vCPU is given to one, after a search.
    pub(crate) fn account_entering(&mut self) {
        let now = tsc();
        let time = Machine::get().vcpu_time(self.vcpu);
        let (outside, steal_ns) = (time.outside_cycles.load(Relaxed), time.steal_ns.load(Relaxed));
        let add = |sum: &AtomicU64, end: u64, start: &AtomicU64| {
            sum.store(sum.load(Relaxed).wrapping_add(end.wrapping_sub(start.load(Relaxed))), Relaxed);
        };
        add(&time.between_cycles, now, &time.left_tsc);
        add(&time.between_outside_cycles, outside, &time.left_outside_cycles);
        add(&time.between_steal_ns, steal_ns, &time.left_steal_ns);
        time.entered_tsc.store(now, Relaxed);
        time.entered_low.store(now as u32, Relaxed);
        time.entered_outside_cycles.store(outside, Relaxed);
        time.entered_steal_ns.store(steal_ns, Relaxed);
    }

    /// This vCPU is given from one to the next, at once. Three instructions where there is one vCPU: messages have none to spare.
    #[inline(always)]
    pub(crate) fn account_handing_over(&mut self) {
        let time =
            if self.several { Machine::get().vcpu_time(self.vcpu) } else { Machine::first_vcpu_time() };
        time.entered_low.store(tsc() as u32, Relaxed);
    }
}

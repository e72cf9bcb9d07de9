//! Who runs where: what each vCPU does, whose slices an environment runs in, and forgetting translations wherever it runs.

use crate::arch::vcpu;
use crate::kernel::Kernel;
use crate::machine::{read, write};
use abi::boot::VCPUS_MAX;
use abi::domain::DOMAINS;
use abi::slice::SLICES;
use core::sync::atomic::Ordering;

/// Nobody.
pub(crate) const NOBODY: u32 = DOMAINS as u32;

/// What a vCPU does. A power of two, as [`Environment`].
#[derive(Clone, Copy)]
#[repr(align(128))]
pub(crate) struct Vcpu {
    /// With several vCPUs, who runs; [`NOBODY`] while it looks for somebody.
    pub(crate) running: u32,
    /// Who was chosen last: others come first, also if that one gave its slice on.
    pub(crate) last: u32,
    /// When the slice of whoever runs is over; 0: it is not limited.
    pub(crate) slice_end_tsc: u64,
    /// Environments that may run here, a bit each.
    pub(crate) allowed: u64,
    /// Its slices, in the order in which they come: number plus one of the capability with which each is bound; 0: it is not.
    pub(crate) slices: [u16; SLICES],
    /// Those that are bound, a bit each.
    pub(crate) bound: u64,
    /// The slice that is running, or ran last.
    pub(crate) position: u32,
}

impl Vcpu {
    /// One on which nobody has run.
    pub(crate) const NEW: Self = Self {
        running: NOBODY,
        // The first to be chosen is the first.
        last: NOBODY - 1,
        slice_end_tsc: 0,
        allowed: 0,
        slices: [0; SLICES],
        bound: 0,
        position: 0,
    };
}

impl Kernel {
    /// An environment may run on these vCPUs and no others; its queues' interrupts go to one of them.
    pub(crate) fn allow_on(&mut self, number: u32, vcpus: u8) {
        let before = core::mem::replace(&mut self.environment(number).vcpus, vcpus);
        let mut changes = before ^ vcpus;
        while changes != 0 {
            let vcpu = changes.trailing_zeros() as usize;
            changes &= changes - 1;
            self.vcpus[vcpu % VCPUS_MAX].allowed ^= 1 << number;
        }
        if self.several && before != vcpus && vcpus != 0 {
            self.aim_interrupts(number);
        }
    }

    /// An environment without slices shares those of whoever started it, or whoever that one shares with.
    pub(crate) fn join_starter(&mut self, number: u32) {
        let starter = u32::from(self.environment(number).starter);
        let payer = if starter == NOBODY { NOBODY as u8 } else { self.environment(starter).payer };
        self.join(number, payer.into());
    }

    /// An environment leaves the family that it is in, for another one.
    pub(crate) fn join(&mut self, number: u32, payer: u32) {
        let before = core::mem::replace(&mut self.environment(number).payer, payer as u8);
        if before != NOBODY as u8 {
            self.environment(before.into()).family &= !(1 << number);
        }
        if payer != NOBODY {
            self.environment(payer).family |= 1 << number;
        }
    }

    /// An environment is gone: who shared its slices runs in what is left over.
    pub(crate) fn leave_family(&mut self, number: u32) {
        self.join(number, NOBODY);
        let mut left = core::mem::take(&mut self.environment(number).family);
        while left != 0 {
            let other = left.trailing_zeros();
            left &= left - 1;
            self.environment(other).payer = NOBODY as u8;
        }
    }

    /// A place is free: whoever was started from there was started by nobody.
    pub(crate) fn forget_starter(&mut self, number: u32) {
        for environment in &mut self.environments {
            if u32::from(environment.starter) == number {
                environment.starter = NOBODY as u8;
            }
        }
    }

    /// The vCPU that is here.
    #[inline(always)]
    pub(crate) fn own(&mut self) -> &mut Vcpu {
        &mut self.vcpus[self.vcpu as usize % VCPUS_MAX]
    }

    /// An environment alone on the only vCPU takes its turns by itself; two sleep by kernel calls. Looked at when one starts
    /// and when one is gone.
    pub(crate) fn count_alone(&mut self, started: Option<u32>) {
        let live = self.runnable | self.asleep | self.ending;
        let alone = live & live.wrapping_sub(1) == 0 && !self.several;
        // As long as nothing changes for the others, it is about the new one.
        let mut left = started.map_or(0, |number| 1 << number);
        if alone != self.alone {
            // There were, or are, two at most.
            left = live & !self.ending;
        }
        self.alone = alone;
        crate::arch::entry::set_alone(alone);
        while left != 0 {
            let number = left.trailing_zeros();
            left &= left - 1;
            self.kernel_page(number).alone.store(u32::from(alone), Ordering::Relaxed);
            let at = self.place(number).turn_entry_gpa;
            let entry = read(at);
            write(at, if alone { entry | abi::paging::PRESENT } else { entry & !abi::paging::PRESENT });
            // It may have used the register a moment ago.
            self.flush_page(number, abi::layout::TURN_VA);
        }
    }

    /// What was mapped at this address for an environment is not any more, or otherwise.
    #[inline(always)]
    pub(crate) fn flush_page(&mut self, environment: u32, va: u64) {
        if environment == self.current {
            crate::arch::flush_page(va);
        } else if self.running & (1 << environment) != 0 {
            self.flush_elsewhere(environment);
        }
    }

    /// The same for all that it has.
    pub(crate) fn flush_all(&mut self, environment: u32) {
        if environment == self.current {
            crate::arch::flush_all();
        } else if self.running & (1 << environment) != 0 {
            self.flush_elsewhere(environment);
        }
    }

    #[cold]
    fn flush_elsewhere(&mut self, environment: u32) {
        if let Some(other) = self.where_runs(environment) {
            vcpu::flush_other(other);
        }
    }

    /// The vCPU on which an environment runs.
    pub(crate) fn where_runs(&self, environment: u32) -> Option<u32> {
        self.vcpus.iter().position(|vcpu| vcpu.running == environment).map(|index| index as u32)
    }
}

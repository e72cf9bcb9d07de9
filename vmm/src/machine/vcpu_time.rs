//! What a vCPU's thread tells the guest of its time: when it was last out of the guest, and for how long in all. And the
//! request to KVM to tell, in the same place, for how long the thread had no CPU.

use super::MachineError;
use crate::account::ledger::{Bucket, Ledger, now_tsc};
use crate::tables::shared::Shared;
use abi::vcpu::{MSR_KVM_STEAL_TIME, VcpuTime};
use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// The lowest bit of the register: KVM writes.
const ENABLED: u64 = 1;

/// Asks KVM for steal time. Whether it does.
pub(super) fn ask_for_steal_time(fd: &VcpuFd, number: u32, times_gpa: u64) -> Result<bool, MachineError> {
    let gpa = times_gpa + u64::from(number) * size_of::<VcpuTime>() as u64;
    let entry = kvm_msr_entry { index: MSR_KVM_STEAL_TIME, data: gpa | ENABLED, ..Default::default() };
    let msrs = Msrs::from_entries(&[entry]).map_err(|_| MachineError::Internal("a list of one register"))?;
    Ok(fd.set_msrs(&msrs).map_err(MachineError::kvm("KVM_SET_MSRS"))? == 1)
}

/// Of one vCPU, written by its thread alone.
pub(super) struct OwnTime {
    all: Shared<[VcpuTime]>,
    number: usize,
    exit_tsc: u64,
    off_cpu: u64,
    /// What the guest is told; what it makes of its copy is not believed.
    outside: u64,
}

impl OwnTime {
    pub(super) fn new(all: Shared<[VcpuTime]>, number: u32) -> Self {
        Self { all, number: number as usize, exit_tsc: 0, off_cpu: 0, outside: 0 }
    }

    fn time(&self) -> &VcpuTime {
        &self.all[self.number]
    }

    /// Before the first entry.
    pub(super) fn begin(&mut self) {
        self.exit_tsc = now_tsc();
        self.time().left_tsc.store(self.exit_tsc, Relaxed);
    }

    /// The guest is entered; the ledger's stamp and the guest's words are the same.
    #[inline]
    pub(super) fn enter(&mut self, ledger: &Ledger) {
        let (_, now) = ledger.enter_at(Bucket::Guest);
        // What KVM tells is not told twice.
        let off_cpu = ledger.off_cpu_cycles() - self.off_cpu;
        self.outside += (now - self.exit_tsc).saturating_sub(off_cpu);
        let time = self.time();
        time.entry_tsc.store(now, Relaxed);
        time.outside_cycles.store(self.outside, Release);
    }

    /// It was left.
    #[inline]
    pub(super) fn leave(&mut self, ledger: &Ledger) {
        let (_, now) = ledger.enter_at(Bucket::Exit);
        self.exit_tsc = now;
        self.off_cpu = ledger.off_cpu_cycles();
        self.time().exit_tsc.store(now, Relaxed);
    }
}

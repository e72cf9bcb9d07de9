//! The pages that the VMM shares with a running guest, as references into guest memory.

use crate::machine::MachineError;
use crate::machine::memory::Placer;
use crate::tables::{Memory, TableError, shared::Shared};
use abi::boot::{HostPage, MemoryRange, StatusPage, VCPUS_MAX};
use abi::environment::KernelPage;
use abi::layout::PAGE_BYTES;
use abi::log::LogRing;
use abi::statistics::StatisticsArea;
use abi::time::TimePage;
use abi::trace::{AccountArea, TraceRing};
use abi::vcpu::VcpuTime;
use std::sync::Arc;

/// Pages that are there once and seen by every environment.
#[derive(Clone, Copy, Debug)]
pub struct CommonPages {
    /// The gate.
    pub gate_gpa: u64,
    /// [`TimePage`].
    pub time_gpa: u64,
    /// [`HostPage`].
    pub host_gpa: u64,
    /// [`abi::environment::resume`].
    pub resume_gpa: u64,
    /// [`VcpuTime`] of each vCPU.
    pub vcpu_times_gpa: u64,
}

impl CommonPages {
    /// Places them.
    pub fn place(placer: &mut Placer) -> Result<Self, MachineError> {
        Ok(Self {
            gate_gpa: placer.pages(PAGE_BYTES)?,
            time_gpa: placer.pages(PAGE_BYTES)?,
            host_gpa: placer.pages(PAGE_BYTES)?,
            resume_gpa: placer.pages(PAGE_BYTES)?,
            vcpu_times_gpa: placer.pages(PAGE_BYTES)?,
        })
    }
}

/// A place's own pages. Those from the status page on are what its environment writes; they lie one behind the other, so
/// that they are cleared in one go.
#[derive(Clone, Copy, Debug)]
pub struct OwnPages {
    /// [`abi::boot::EnvironmentPage`].
    pub environment_gpa: u64,
    /// [`KernelPage`].
    pub kernel_page_gpa: u64,
    /// [`StatusPage`].
    pub status_gpa: u64,
    /// [`abi::upcall::UpcallPage`].
    pub upcall_gpa: u64,
    /// [`AccountArea`].
    pub account_gpa: u64,
    /// [`StatisticsArea`].
    pub statistics_gpa: u64,
    /// [`LogRing`].
    pub log_gpa: u64,
    /// [`TraceRing`].
    pub trace_gpa: u64,
}

impl OwnPages {
    /// Places them.
    pub fn place(placer: &mut Placer) -> Result<Self, MachineError> {
        Ok(Self {
            environment_gpa: placer.pages(PAGE_BYTES)?,
            kernel_page_gpa: placer.pages(PAGE_BYTES)?,
            status_gpa: placer.pages(PAGE_BYTES)?,
            upcall_gpa: placer.pages(PAGE_BYTES)?,
            account_gpa: placer.pages(size_of::<AccountArea>() as u64)?,
            statistics_gpa: placer.pages(size_of::<StatisticsArea>() as u64)?,
            log_gpa: placer.pages(size_of::<LogRing>() as u64)?,
            trace_gpa: placer.pages(size_of::<TraceRing>() as u64)?,
        })
    }

    /// Those that the environment writes.
    pub fn written(&self) -> MemoryRange {
        let end_gpa = self.trace_gpa + size_of::<TraceRing>().next_multiple_of(PAGE_BYTES as usize) as u64;
        MemoryRange { start_gpa: self.status_gpa, len_bytes: end_gpa - self.status_gpa }
    }
}

/// The pages of one environment. What the guest writes in them is untrusted.
#[derive(Clone, Debug)]
pub struct SharedPages {
    /// Written by the VMM; of all environments.
    pub time: Shared<TimePage>,
    /// Written by the VMM; of all environments.
    pub host: Shared<HostPage>,
    /// Written by KVM, the VMM and the kernel; of all environments.
    pub vcpus: Shared<[VcpuTime]>,
    /// Written by the kernel.
    pub kernel: Shared<KernelPage>,
    /// Written by kernel and environment.
    pub status: Shared<StatusPage>,
    /// Written by the environment.
    pub account: Shared<AccountArea>,
    /// Written by the environment.
    pub statistics: Shared<StatisticsArea>,
    /// Written by the environment.
    pub log: Shared<LogRing>,
    /// Written by the environment, but for `enabled`.
    pub trace: Shared<TraceRing>,
}

impl SharedPages {
    /// Finds them in guest memory.
    pub fn open(memory: &Arc<Memory>, common: &CommonPages, own: &OwnPages) -> Result<Self, TableError> {
        Ok(Self {
            time: Shared::open(memory, "the time page", common.time_gpa)?,
            host: Shared::open(memory, "the host page", common.host_gpa)?,
            vcpus: Shared::slice(memory, "the vCPUs' times", common.vcpu_times_gpa, VCPUS_MAX)?,
            kernel: Shared::open(memory, "the kernel's page", own.kernel_page_gpa)?,
            status: Shared::open(memory, "the status page", own.status_gpa)?,
            account: Shared::open(memory, "the account area", own.account_gpa)?,
            statistics: Shared::open(memory, "the statistics area", own.statistics_gpa)?,
            log: Shared::open(memory, "the log ring", own.log_gpa)?,
            trace: Shared::open(memory, "the trace ring", own.trace_gpa)?,
        })
    }
}

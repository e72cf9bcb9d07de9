//! The pages that the VMM shares with a running guest, as references into guest memory.

use crate::tables::{Memory, TableError, shared::Shared};
use abi::boot::{HostPage, StatusPage};
use abi::log::LogRing;
use abi::time::TimePage;
use abi::trace::{AccountArea, TraceRing};
use std::sync::Arc;

/// Where they lie.
#[derive(Clone, Copy, Debug)]
pub struct PageAddresses {
    /// [`TimePage`].
    pub time_gpa: u64,
    /// [`HostPage`].
    pub host_gpa: u64,
    /// [`StatusPage`].
    pub status_gpa: u64,
    /// [`AccountArea`].
    pub account_gpa: u64,
    /// [`LogRing`].
    pub log_gpa: u64,
    /// [`TraceRing`].
    pub trace_gpa: u64,
    /// [`abi::fault::FaultRecord`].
    pub fault_gpa: u64,
}

/// The pages of the first environment. What the guest writes in them is untrusted.
#[derive(Clone, Debug)]
pub struct SharedPages {
    /// Written by the VMM.
    pub time: Shared<TimePage>,
    /// Written by the VMM.
    pub host: Shared<HostPage>,
    /// Written by kernel and environment.
    pub status: Shared<StatusPage>,
    /// Written by the environment.
    pub account: Shared<AccountArea>,
    /// Written by the environment.
    pub log: Shared<LogRing>,
    /// Written by the environment, but for `enabled`.
    pub trace: Shared<TraceRing>,
}

impl SharedPages {
    /// Finds them in guest memory.
    pub fn open(memory: &Arc<Memory>, at: &PageAddresses) -> Result<Self, TableError> {
        Ok(Self {
            time: Shared::open(memory, "the time page", at.time_gpa)?,
            host: Shared::open(memory, "the host page", at.host_gpa)?,
            status: Shared::open(memory, "the status page", at.status_gpa)?,
            account: Shared::open(memory, "the account area", at.account_gpa)?,
            log: Shared::open(memory, "the log ring", at.log_gpa)?,
            trace: Shared::open(memory, "the trace ring", at.trace_gpa)?,
        })
    }
}

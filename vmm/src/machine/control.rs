//! The control registers of the kernel: what it cannot do by itself, or not in ring 0, the VMM does natively while the vCPU
//! waits.

use super::report::Reporter;
use super::vcpu::VcpuEnd;
use crate::placement::Placement;
use crate::tables::Memory;
use abi::boot::control;
use abi::fault::FaultRecord;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromBytes, FromZeros};

/// Reports that wait to be logged; an environment that makes others fail cannot fill the VMM's memory.
const REPORTS_MAX: usize = 16;

/// Reports of environments that ended by a fault, on their way to the log.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// With the environments' numbers.
    reports: Vec<(u32, String)>,
    dropped: u64,
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, environment: u32, report: impl FnOnce() -> String) {
        if self.lock().reports.len() < REPORTS_MAX {
            let report = report();
            self.lock().reports.push((environment, report));
        } else {
            self.lock().dropped += 1;
        }
    }

    /// Those that wait, and how many there were besides.
    pub(crate) fn take(&self) -> (Vec<(u32, String)>, u64) {
        let waiting = std::mem::take(&mut *self.lock());
        (waiting.reports, waiting.dropped)
    }
}

/// The registers.
pub(crate) struct Control {
    memory: Arc<Memory>,
    placement: Arc<Placement>,
    reporter: Arc<Reporter>,
    reports: Arc<Reports>,
    fault_gpa: u64,
    clean_start: u32,
}

impl Control {
    /// Those of one machine.
    pub(crate) fn new(
        memory: Arc<Memory>,
        placement: Arc<Placement>,
        reporter: Arc<Reporter>,
        reports: Arc<Reports>,
        fault_gpa: u64,
    ) -> Self {
        Self { memory, placement, reporter, reports, fault_gpa, clean_start: 0 }
    }

    /// A write of the kernel's. `Some`: it was the last.
    pub(crate) fn write(&mut self, register: u64, value: u32) -> Option<VcpuEnd> {
        match register {
            control::POWER_OFF => return Some(VcpuEnd::PowerOff { status: value }),
            control::FAULT => return Some(VcpuEnd::Fault(Box::new(self.fault()))),
            control::ENVIRONMENT_FAULT => {
                let record = self.fault();
                self.reports.push(record.environment, || self.reporter.fault(&self.memory, &record));
            }
            control::DRAIN => self.placement.drain(value),
            control::CLEAN_START => self.clean_start = value,
            control::CLEAN_PAGES => {
                if let Err(error) = super::memory::clean(&self.memory, self.clean_start.into(), value.into())
                {
                    tracing::error!("the kernel asked for pages to be cleared: {error}");
                }
            }
            _ => tracing::error!(
                "the kernel wrote {value:#x} to control register {register:#x}, which there is not"
            ),
        }
        None
    }

    /// The fault record; one that is unreadable reads as zeros: "a fault of unknown kind".
    fn fault(&self) -> FaultRecord {
        let mut bytes = vec![0; size_of::<FaultRecord>()];
        let _ = self.memory.read_slice(&mut bytes, GuestAddress(self.fault_gpa));
        FaultRecord::read_from_bytes(&bytes).unwrap_or_else(|_| FaultRecord::new_zeroed())
    }
}

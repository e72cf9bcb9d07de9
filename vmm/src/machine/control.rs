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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::virtio::test_utils::console;
    use crate::placement::{DeviceWork, IoMode};
    use crate::tables::shared::Shared;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
    use zerocopy::IntoBytes;

    const FAULT_GPA: u64 = 0x2000;
    const HOST_GPA: u64 = 0x3000;
    const MEMORY_BYTES: u64 = 4 << 20;

    /// The registers of a machine with two environments and nothing in it.
    fn control() -> (Control, Arc<Reports>) {
        let memory = Arc::new(crate::machine::memory::map(MEMORY_BYTES).expect("4 MiB"));
        let event = || EventFd::new(EFD_NONBLOCK).expect("an event descriptor");
        let work = DeviceWork {
            nic: None,
            disks: Vec::new(),
            finished: event(),
            channel: Arc::new(Mutex::new(console::Channel::new().function)),
        };
        let host = Shared::open(&memory, "the host page", HOST_GPA).expect("inside");
        let placement =
            Placement::new(IoMode::Turn, work, event(), host, Vec::new(), 1_000_000).expect("possible");
        let image = crate::images::load("hello").expect("built in");
        let reports = Arc::new(Reports::default());
        let reporter = Arc::new(Reporter::new(image, vec![0x10_0000, 0x11_0000]));
        (Control::new(memory, placement, reporter, Arc::clone(&reports), FAULT_GPA), reports)
    }

    #[test]
    fn pages_are_cleared_and_nonsense_is_refused() {
        let (mut control, _) = control();
        let page = |control: &Control, page: u64| {
            let mut bytes = [0; 4096];
            control.memory.read_slice(&mut bytes, GuestAddress(page * 4096)).expect("memory");
            bytes
        };
        for number in 16..20 {
            control.memory.write_slice(&[0xEE; 4096], GuestAddress(number * 4096)).expect("memory");
        }
        assert!(control.write(control::CLEAN_START, 17).is_none());
        assert!(control.write(control::CLEAN_PAGES, 2).is_none());
        let cleared: Vec<_> = (16..20).map(|number| page(&control, number) == [0; 4096]).collect();
        assert_eq!(cleared, [false, true, true, false]);
        for (start, pages) in [(16, 1024), (16, u32::MAX), (u32::MAX, u32::MAX), (1024, 1)] {
            assert!(control.write(control::CLEAN_START, start).is_none());
            assert!(control.write(control::CLEAN_PAGES, pages).is_none());
            assert_eq!(page(&control, 16), [0xEE; 4096]);
        }
    }

    #[test]
    fn environment_that_faults_is_reported_and_the_machine_goes_on() {
        let (mut control, reports) = control();
        let mut record = FaultRecord::new_zeroed();
        record.kind = abi::fault::KIND_ENVIRONMENT;
        record.vector = 14;
        record.address = 0x1234;
        for environment in [1, u32::MAX] {
            record.environment = environment;
            control.memory.write_slice(record.as_bytes(), GuestAddress(FAULT_GPA)).expect("memory");
            assert!(control.write(control::ENVIRONMENT_FAULT, 1).is_none());
            let (waiting, dropped) = reports.take();
            let [(whose, report)] = &waiting[..] else { panic!("{waiting:?}") };
            assert_eq!((*whose, dropped), (environment, 0));
            let first = format!("environment {environment}: page fault reading 0x1234");
            assert!(report.starts_with(&first), "{report}");
        }
    }

    #[test]
    fn reports_that_nobody_reads_are_counted_and_not_kept() {
        let (mut control, reports) = control();
        for _ in 0..REPORTS_MAX + 3 {
            assert!(control.write(control::ENVIRONMENT_FAULT, 1).is_none());
        }
        let (waiting, dropped) = reports.take();
        assert_eq!((waiting.len(), dropped), (REPORTS_MAX, 3));
    }

    #[test]
    fn machine_ends_by_power_off_and_fault_only() {
        let (mut control, _) = control();
        assert!(matches!(control.write(control::POWER_OFF, 7), Some(VcpuEnd::PowerOff { status: 7 })));
        assert!(matches!(control.write(control::FAULT, 1), Some(VcpuEnd::Fault(_))));
        for register in [control::DRAIN, 0x18, 0xFF8, 0xFFF] {
            assert!(control.write(register, u32::MAX).is_none(), "{register:#x}");
        }
    }
}

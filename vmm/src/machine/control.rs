//! The control registers of one vCPU's kernel: what it cannot do by itself, or not in ring 0, the VMM does natively while the vCPU
//! waits.

use super::log::Logs;
use super::report::Reporter;
use super::vcpu::VcpuEnd;
use crate::placement::Placement;
use crate::tables::Memory;
use abi::boot::control;
use abi::fault::FaultRecord;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromBytes, FromZeros};

/// The registers.
#[derive(Clone)]
pub(crate) struct Control {
    vcpu: u32,
    memory: Arc<Memory>,
    placement: Arc<Placement>,
    reporter: Arc<Reporter>,
    logs: Arc<Logs>,
    fault_gpa: u64,
    clean_start: u32,
}

impl Control {
    /// Those of vCPU 0, whose fault record is the first at `fault_gpa`.
    pub(crate) fn new(
        memory: Arc<Memory>,
        placement: Arc<Placement>,
        reporter: Arc<Reporter>,
        logs: Arc<Logs>,
        fault_gpa: u64,
    ) -> Self {
        Self { vcpu: 0, memory, placement, reporter, logs, fault_gpa, clean_start: 0 }
    }

    /// Those of another vCPU of the same machine.
    pub(crate) fn of_vcpu(&self, vcpu: u32) -> Self {
        Self { vcpu, clean_start: 0, ..self.clone() }
    }

    /// A write of the kernel's. `Some`: it was the last.
    pub(crate) fn write(&mut self, register: u64, value: u32) -> Option<VcpuEnd> {
        match register {
            control::POWER_OFF => return Some(VcpuEnd::PowerOff { status: value }),
            control::FAULT => return Some(VcpuEnd::Fault(Box::new(self.fault()))),
            control::ENVIRONMENT_FAULT => {
                let record = self.fault();
                self.logs.report(record.environment, &self.reporter.fault(&self.memory, self.vcpu, &record));
            }
            control::DRAIN => self.placement.begin_drain(value),
            // The vCPU has told the debugger, if there is one.
            control::BREAKPOINT => {}
            control::CLEAN_START => self.clean_start = value,
            control::CLEAN_PAGES => self.clean(value),
            _ => tracing::error!(
                "the kernel wrote {value:#x} to control register {register:#x}, which there is not"
            ),
        }
        None
    }

    /// A read of the kernel's.
    pub(crate) fn read(&self, register: u64) -> u32 {
        let environment = register.checked_sub(control::DRAINED).map(|offset| offset / 4);
        match environment.and_then(|environment| u32::try_from(environment).ok()) {
            Some(environment) => self.placement.drained(environment),
            None => 0,
        }
    }

    /// Clears pages. A log among them is read to its end before, and found to begin anew after.
    fn clean(&self, pages: u32) {
        self.logs.drain();
        if let Err(error) = super::memory::clean(&self.memory, self.clean_start.into(), pages.into()) {
            tracing::error!("the kernel asked for pages to be cleared: {error}");
        }
        self.logs.drain();
    }

    /// The fault record; one that is unreadable reads as zeros: "a fault of unknown kind".
    fn fault(&self) -> FaultRecord {
        let mut bytes = vec![0; size_of::<FaultRecord>()];
        let gpa = self.fault_gpa + u64::from(self.vcpu) * bytes.len() as u64;
        let _ = self.memory.read_slice(&mut bytes, GuestAddress(gpa));
        FaultRecord::read_from_bytes(&bytes).unwrap_or_else(|_| FaultRecord::new_zeroed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::virtio::test_utils::console;
    use crate::machine::boot::pages::{CommonPages, OwnPages, SharedPages};
    use crate::machine::memory::Placer;
    use crate::placement::{DeviceWork, IoMode, Vcpus};
    use std::sync::Mutex;
    use std::sync::atomic::Ordering;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
    use zerocopy::IntoBytes;

    const MEMORY_BYTES: u64 = 4 << 20;

    /// The registers of a machine with two environments and no devices but a console.
    struct Bench {
        control: Control,
        pages: Vec<SharedPages>,
        own: Vec<OwnPages>,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl Bench {
        fn new() -> Self {
            let memory = Arc::new(crate::machine::memory::map(MEMORY_BYTES).expect("4 MiB"));
            let mut placer = Placer::new(MEMORY_BYTES);
            let fault_gpa = placer.pages(2 * size_of::<FaultRecord>() as u64).expect("room");
            let common = CommonPages::place(&mut placer).expect("room");
            let own: Vec<_> = (0..2).map(|_| OwnPages::place(&mut placer).expect("room")).collect();
            let pages = own.iter().map(|own| SharedPages::open(&memory, &common, own).expect("inside"));
            let pages: Vec<_> = pages.collect();
            let event = || EventFd::new(EFD_NONBLOCK).expect("an event descriptor");
            let work = DeviceWork {
                nic: None,
                disks: Vec::new(),
                finished: event(),
                channel: Arc::new(Mutex::new(console::Channel::new().function)),
            };
            let host = pages[0].host.clone();
            let placement =
                Placement::new(IoMode::Turn, &Vcpus::one(), work, event(), host, Vec::new(), 1_000_000);
            let image = crate::images::load("hello").expect("built in");
            let reporter = Arc::new(Reporter::new(image, vec![0x10_0000, 0x11_0000], 1));
            let lines = Arc::new(Mutex::new(Vec::new()));
            let sink = Arc::clone(&lines);
            let sink = Box::new(move |line: &str| sink.lock().expect("lock").push(line.to_owned()));
            let logs = Arc::new(Logs::new(&pages, sink));
            let control = Control::new(memory, placement.expect("possible"), reporter, logs, fault_gpa);
            Self { control, pages, own, lines }
        }

        fn clean(&mut self, start: u32, pages: u32) {
            assert!(self.control.write(control::CLEAN_START, start).is_none());
            assert!(self.control.write(control::CLEAN_PAGES, pages).is_none());
        }

        fn is_filled(&self, page: u64, with: u8) -> bool {
            let mut bytes = [0; 4096];
            self.control.memory.read_slice(&mut bytes, GuestAddress(page * 4096)).expect("memory");
            bytes == [with; 4096]
        }

        fn log(&self, environment: usize, text: &[u8]) {
            let ring = &self.pages[environment].log;
            for &byte in text {
                let at = ring.written.load(Ordering::Relaxed);
                ring.text[at as usize].store(byte, Ordering::Relaxed);
                ring.written.store(at + 1, Ordering::Release);
            }
        }

        fn lines(&self) -> Vec<String> {
            std::mem::take(&mut self.lines.lock().expect("lock"))
        }
    }

    #[test]
    fn pages_are_cleared_and_nonsense_is_refused() {
        let mut bench = Bench::new();
        for page in 1000..1004 {
            bench.control.memory.write_slice(&[0xEE; 4096], GuestAddress(page * 4096)).expect("memory");
        }
        bench.clean(1001, 2);
        assert!(bench.is_filled(1000, 0xEE) && bench.is_filled(1003, 0xEE));
        assert!(bench.is_filled(1001, 0) && bench.is_filled(1002, 0));
        for (start, pages) in [(1000, 25), (1000, u32::MAX), (u32::MAX, u32::MAX), (1024, 1)] {
            bench.clean(start, pages);
            assert!(bench.is_filled(1000, 0xEE));
        }
    }

    #[test]
    fn log_that_is_cleared_was_read_to_its_end_and_begins_anew() {
        let mut bench = Bench::new();
        bench.log(1, b"of the first\nits last words");
        let own = bench.own[1].written();
        bench.clean((own.start_gpa / 4096) as u32, (own.len_bytes / 4096) as u32);
        // Longer than what was there before.
        bench.log(1, b"of the next, who has more to say than the first\n");
        bench.log(0, b"of another\n");
        bench.control.logs.drain();
        assert_eq!(
            bench.lines(),
            [
                "[1] of the first",
                "[1] its last words",
                "[0] of another",
                "[1] of the next, who has more to say than the first"
            ]
        );
    }

    #[test]
    fn environment_that_faults_is_reported_after_its_log_and_the_machine_goes_on() {
        let mut bench = Bench::new();
        let mut record = FaultRecord::new_zeroed();
        record.kind = abi::fault::KIND_ENVIRONMENT;
        record.vector = 14;
        record.address = 0x1234;
        bench.log(1, b"INFO  here\nit comes");
        for environment in [1, u32::MAX] {
            record.environment = environment;
            let gpa = GuestAddress(bench.control.fault_gpa);
            bench.control.memory.write_slice(record.as_bytes(), gpa).expect("memory");
            assert!(bench.control.write(control::ENVIRONMENT_FAULT, 1).is_none());
            let lines = bench.lines();
            let before = if environment == 1 { &["INFO  [1] here", "[1] it comes"][..] } else { &[] };
            assert_eq!(&lines[..before.len()], before);
            let first = format!(
                "ERROR [{environment}] environment {environment}: page fault reading 0x1234: not mapped"
            );
            assert!(lines[before.len()].starts_with(&first), "{lines:#?}");
            assert!(
                lines.len() > before.len() + 3 && lines[before.len() + 1].contains("at 0x0"),
                "{lines:#?}"
            );
        }
    }

    #[test]
    fn registers_of_two_vcpus_do_not_mix() {
        let mut bench = Bench::new();
        for page in 900..902 {
            bench.control.memory.write_slice(&[0xEE; 4096], GuestAddress(page * 4096)).expect("memory");
        }
        let mut other = bench.control.of_vcpu(1);
        assert!(bench.control.write(control::CLEAN_START, 900).is_none());
        assert!(other.write(control::CLEAN_START, 901).is_none());
        assert!(bench.control.write(control::CLEAN_PAGES, 1).is_none());
        assert!(bench.is_filled(900, 0) && bench.is_filled(901, 0xEE));
        let record = bench.control.fault_gpa + size_of::<FaultRecord>() as u64;
        bench.control.memory.write_obj(abi::fault::KIND_PANIC, GuestAddress(record)).expect("memory");
        for (control, kind) in [(&mut bench.control, 0), (&mut other, abi::fault::KIND_PANIC)] {
            let Some(VcpuEnd::Fault(fault)) = control.write(control::FAULT, 1) else { panic!("no fault") };
            assert_eq!(fault.kind, kind);
        }
    }

    #[test]
    fn machine_ends_by_power_off_and_fault_only() {
        let mut control = Bench::new().control;
        assert!(matches!(control.write(control::POWER_OFF, 7), Some(VcpuEnd::PowerOff { status: 7 })));
        assert!(matches!(control.write(control::FAULT, 1), Some(VcpuEnd::Fault(_))));
        for register in [control::DRAIN, 0x18, 0xFF8, 0xFFF] {
            assert!(control.write(register, u32::MAX).is_none(), "{register:#x}");
            assert_eq!(control.read(register), 0, "{register:#x}");
        }
    }
}

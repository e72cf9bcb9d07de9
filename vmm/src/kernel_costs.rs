//! What kernel calls cost, in cycles and in ring 0 instructions. A machine makes one call few times, another one many times; the
//! difference is the call's.
//!
//! Instructions are counted where the host interprets ring 0: KVM counts what it interprets. Where ring 0 runs natively there is
//! nobody to count them, and [`Cost::instructions`] is `None`.

use crate::backend::{Backend, BackendError, IoVec, IoVecMut, Offloads, Written};
use crate::images;
use crate::machine::{End, Machine, MachineConfig, MachineError, NetSetup};
use crate::placement::IoMode;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one machine may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A call, and how it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The probe's name for it.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// How often the two machines make it.
    pub times: (u64, u64),
    /// For a call that does the same little work whatever it is given: ring 0 instructions that it takes at most, so that a test
    /// notices when it becomes more. The aim is [`INSTRUCTIONS_AIM`].
    pub ceiling: Option<f64>,
    /// Of how many kernel calls it consists.
    pub calls: u32,
}

impl Subject {
    /// Whether so many instructions are what the calls should take at most; `None`: they are not of that kind.
    pub fn meets_aim(&self, instructions: f64) -> Option<bool> {
        self.ceiling.map(|_| instructions <= INSTRUCTIONS_AIM * f64::from(self.calls))
    }
}

/// What a call that does the same little work whatever it is given should take at most.
pub const INSTRUCTIONS_AIM: f64 = 150.0;

const fn subject(name: &'static str, what: &'static str, times: (u64, u64), ceiling: Option<f64>) -> Subject {
    Subject { name, what, times, ceiling, calls: 1 }
}

const fn two(subject: Subject) -> Subject {
    Subject { calls: 2, ..subject }
}

/// All that are measured.
pub const SUBJECTS: &[Subject] = &[
    subject("version", "Version", (20, 220), Some(25.0)),
    subject("sleep", "Sleep that is over at once", (20, 120), None),
    subject("yield", "Yield to another and back", (20, 120), None),
    subject("create", "EnvironmentCreate", (2, 12), Some(148.0)),
    subject("start", "EnvironmentStart", (2, 12), None),
    subject("status", "EnvironmentStatus", (20, 120), Some(58.0)),
    subject("wake", "Wake", (20, 120), Some(65.0)),
    subject("map", "MemoryMap, one page", (20, 220), Some(150.0)),
    subject("unmap", "MemoryUnmap, one page", (20, 220), Some(130.0)),
    subject("grant", "DmaGrant, one page", (20, 220), Some(150.0)),
    subject("bind", "QueueBind and QueueUnbind, 256 entries", (5, 25), None),
    subject("carve", "FlowCarve", (20, 120), Some(245.0)),
    subject("direct", "FlowDirect", (20, 120), Some(147.0)),
    subject("derive", "CapabilityDerive", (20, 220), Some(135.0)),
    subject("give", "CapabilityGive", (20, 220), Some(150.0)),
    two(subject("message", "MessageCall and its answer, two calls", (20, 220), Some(300.0))),
    subject("send", "MessageSend; instructions: until it is received", (20, 120), None),
    subject("drop", "CapabilityDrop", (20, 220), Some(148.0)),
    subject("trim", "CapabilityTrim, one page of which nothing is mapped", (20, 220), None),
    subject("ask", "CapabilityAsk", (4, 44), Some(215.0)),
    subject("fault", "Fault upcall and back", (20, 220), None),
];

/// What a call costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Which.
    pub subject: Subject,
    /// Least and median cycles, from before the gate to behind it.
    pub cycles: (u64, u64),
    /// Ring 0 instructions, where they can be counted.
    pub instructions: Option<f64>,
}

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum CostError {
    /// The image.
    #[error(transparent)]
    Image(#[from] images::LoadError),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The probe said no.
    #[error("{what}: the probe did not measure it ({end:?}): {log}")]
    Probe {
        /// Which call.
        what: &'static str,
        /// How the machine ended.
        end: Option<End>,
        /// What it said.
        log: String,
    },
}

/// A NIC's other end with nothing at it: queues and flows are bound to a NIC, and nothing is sent.
struct NoWire;

impl Backend for NoWire {
    fn write_frame(&mut self, _: &[IoVec<'_>]) -> Written {
        Written::Dropped
    }

    fn read_frame(&mut self, _: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        Ok(None)
    }

    fn set_offloads(&mut self, _: Offloads) -> Result<(), BackendError> {
        Ok(())
    }

    fn event_fd(&self) -> Option<RawFd> {
        None
    }
}

/// Measures one.
pub fn measure(subject: Subject) -> Result<Cost, CostError> {
    let (_, few) = run(subject, subject.times.0)?;
    let (cycles, many) = run(subject, subject.times.1)?;
    let calls = (subject.times.1 - subject.times.0) as f64;
    let counted = many.zip(few).map(|(many, few)| many.saturating_sub(few) as f64 / calls);
    // A host that runs ring 0 natively emulates next to nothing of it.
    Ok(Cost { subject, cycles, instructions: counted.filter(|&instructions| instructions >= 5.0) })
}

/// Runs the probe; its cycles, and how many instructions KVM emulated.
fn run(subject: Subject, times: u64) -> Result<((u64, u64), Option<u64>), CostError> {
    let log = Arc::new(Mutex::new(Vec::<String>::new()));
    let sink = Arc::clone(&log);
    let mut machine = Machine::start(MachineConfig {
        memory_bytes: Some(64 << 20),
        net: Some(NetSetup {
            backend: Box::new(NoWire),
            ipv4: abi::boot::Ipv4Config::default(),
            ipv6: abi::boot::Ipv6Config::default(),
            name_servers: abi::boot::NameServers::default(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu_bytes: 1500,
            queue_pairs: 4,
        }),
        io: IoMode::Turn,
        vcpus: Some(1),
        arguments: vec!["cost".to_owned(), subject.name.to_owned(), times.to_string()],
        environments: Some(1),
        spare_environments: Some(16),
        log: Box::new(move |line| sink.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned())),
        ..MachineConfig::new(images::load("probe")?)
    })?;
    let end = machine.wait(Some(PATIENCE));
    let emulated = machine.kvm_statistics(0).ok();
    machine.stop(Duration::ZERO);
    let log = log.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
    let said = log.lines().find_map(|line| line.split_once("probe: cost ").map(|(_, cycles)| cycles));
    let cycles = said.and_then(|cycles| {
        let (least, median) = cycles.split_once(' ')?;
        Some((least.parse().ok()?, median.parse().ok()?))
    });
    match (cycles, &end) {
        (Some(cycles), Some(End::PowerOff { status: 0 })) => {
            let count = |(name, value): (String, u64)| (name == "insn_emulation").then_some(value);
            Ok((cycles, emulated.and_then(|statistics| statistics.into_iter().find_map(count))))
        }
        _ => Err(CostError::Probe { what: subject.what, end, log }),
    }
}

//! Runs the probe: one machine without a network, or with one whose other end is in the test's hands.

use abi::call::gate::KIND_SYSCALL;
use exovm::backend::iovec::{gather, scatter};
use exovm::backend::{Backend, BackendError, FRAME_BYTES_MAX, IoVec, IoVecMut, Offloads, Written};
use exovm::machine::{End, Machine, MachineConfig, NetSetup};
use exovm::placement::IoMode;
use exovm_image::container::Image;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a probe may take. Long, for hosts that are emulated.
const PATIENCE: Duration = Duration::from_secs(60);

/// The image.
pub(crate) fn image() -> Image {
    exovm::images::load("probe").expect("built in")
}

/// Who executes ring 0, by the gate that the kernel's probe chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// The processor: everything is as the manuals say.
    Native,
    /// KVM's emulator. Ring 3 is native there too, and some of its exceptions look a little different: those of
    /// addresses in the upper half, whose error code is that of the host's page tables, and those of `int n`.
    Interpreting,
}

/// How many vCPUs machines have that do not say so: `EXOVM_TEST_VCPUS`, so that all that is tested here can be tested again with
/// several.
fn several_vcpus() -> Option<u32> {
    let wanted = std::env::var("EXOVM_TEST_VCPUS").ok()?;
    Some(wanted.parse().expect("EXOVM_TEST_VCPUS is a number of vCPUs"))
}

/// How a probe ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) host: Host,
    pub(crate) end: End,
    pub(crate) log: Vec<String>,
}

impl Outcome {
    /// The report of a probe that must have ended with a fault.
    pub(crate) fn report(self) -> String {
        match self.end {
            End::Fault { report } => report,
            end => panic!("no fault: {end:?}, {:#?}", self.log),
        }
    }

    /// Its log, if it ended with status 0.
    pub(crate) fn held(self) -> Vec<String> {
        assert_eq!(self.end, End::PowerOff { status: 0 }, "{:#?}", self.log);
        self.log
    }
}

/// What a log line says, without its level and the probe's name.
pub(crate) fn said(log: &[String]) -> impl Iterator<Item = &str> {
    log.iter().filter_map(|line| line.split_once("probe: ").map(|(_, text)| text))
}

/// A running probe and what it has logged.
pub(crate) struct Probe {
    pub(crate) machine: Machine,
    log: Arc<Mutex<Vec<String>>>,
}

impl Probe {
    /// Starts it.
    pub(crate) fn start(arguments: &[&str], configure: impl FnOnce(&mut MachineConfig)) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&log);
        let mut config = MachineConfig {
            io: IoMode::Turn,
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            log: Box::new(move |line| lock(&sink).push(line.to_owned())),
            ..MachineConfig::new(image())
        };
        configure(&mut config);
        if let (None, Some(vcpus)) = (config.vcpus, several_vcpus()) {
            (config.vcpus, config.io) = (Some(vcpus), IoMode::Thread);
        }
        Self { machine: Machine::start(config).expect("the machine starts"), log }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        lock(&self.log).clone()
    }

    /// Waits until it has ended by itself. The machine can still be looked at.
    pub(crate) fn wait(&self) {
        assert!(self.machine.wait(Some(PATIENCE)).is_some(), "still running: {:#?}", lock(&self.log));
    }

    /// Waits until it has ended by itself, and how it did.
    pub(crate) fn finish(mut self) -> Outcome {
        self.wait();
        // Joins the threads, so that the log is complete.
        self.stop(Duration::ZERO)
    }

    /// Waits until it has ended by itself, and how it did; its machine is still there, for its memory.
    pub(crate) fn finish_and_keep(mut self) -> (Outcome, Machine) {
        self.wait();
        let outcome = self.stop(Duration::ZERO);
        (outcome, self.machine)
    }

    /// Asks it to end, and ends it after `grace`.
    pub(crate) fn stop(&mut self, grace: Duration) -> Outcome {
        let end = self.machine.stop(grace);
        let host = match self.machine.pages().status.gate.load(Ordering::Relaxed) {
            KIND_SYSCALL => Host::Native,
            _ => Host::Interpreting,
        };
        Outcome { host, end, log: lock(&self.log).clone() }
    }
}

/// Runs the probe without a network.
pub(crate) fn run(arguments: &[&str]) -> Outcome {
    Probe::start(arguments, |_| {}).finish()
}

/// A probe with a NIC on `wire`.
pub(crate) fn start_with_nic(
    arguments: &[&str],
    wire: &Wire,
    configure: impl FnOnce(&mut MachineConfig),
) -> Probe {
    let setup = NetSetup {
        backend: Box::new(wire.clone()),
        ipv4: abi::boot::Ipv4Config::default(),
        ipv6: abi::boot::Ipv6Config::default(),
        name_servers: abi::boot::NameServers::default(),
        mac: [2, 0, 0, 0, 0, 1],
        mtu_bytes: 1500,
        queue_pairs: 4,
    };
    Probe::start(arguments, |config| {
        config.net = Some(setup);
        configure(config);
    })
}

/// Both directions of a cable.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// What the guest sent, with the virtio header.
    pub(crate) sent: Vec<Vec<u8>>,
    /// What the guest is to receive, with the virtio header.
    pub(crate) to_guest: VecDeque<Vec<u8>>,
}

/// A backend in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire(Arc<Mutex<Frames>>);

impl Wire {
    pub(crate) fn frames(&self) -> MutexGuard<'_, Frames> {
        lock(&self.0)
    }
}

impl Backend for Wire {
    fn write_frame(&mut self, pieces: &[IoVec<'_>]) -> Written {
        let mut frame = vec![0; FRAME_BYTES_MAX];
        let len = gather(pieces, 0, &mut frame);
        frame.truncate(len);
        self.frames().sent.push(frame);
        Written::Sent
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        let Some(frame) = self.frames().to_guest.pop_front() else { return Ok(None) };
        Ok(Some(scatter(buffers, 0, &frame)))
    }

    fn set_offloads(&mut self, _: Offloads) -> Result<(), BackendError> {
        Ok(())
    }

    fn event_fd(&self) -> Option<RawFd> {
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

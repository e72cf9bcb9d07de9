//! No wake-up is lost on a real machine: environments that sleep without a deadline over disks, frames and each other, many
//! times, while the place of the device work changes. What is shown for every order of things by the model of sleeping
//! (guest-exokernel/core/tests/sleep_model) is tried here with the code itself. A wake-up that is lost leaves the machine where
//! it is, and the fixture's patience ends.

use crate::fixture::{Frames, Outcome, Probe, said};
use exovm::backend::disk::Access;
use exovm::backend::iovec::scatter;
use exovm::backend::{Backend, BackendError, IoVec, IoVecMut, Offloads, Written};
use exovm::machine::{DiskSetup, NetSetup};
use exovm::placement::IoMode;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::NamedTempFile;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Rounds of each environment; more with `EXOVM_STORM_ROUNDS`.
const ROUNDS: u64 = 600;

/// A wire whose guest end can be waited for.
#[derive(Clone)]
struct Waited {
    frames: Arc<Mutex<Frames>>,
    event: Arc<EventFd>,
}

impl Waited {
    fn new() -> Self {
        let event = EventFd::new(EFD_NONBLOCK).expect("an event descriptor");
        Self { frames: Arc::default(), event: Arc::new(event) }
    }

    /// A broadcast, with the virtio header: for the guardian of all flows.
    fn push(&self) {
        let mut frame = vec![0; 12 + 60];
        frame[12..18].fill(0xFF);
        frame[24..26].copy_from_slice(&[0x08, 0x06]);
        self.frames.lock().expect("no panics").to_guest.push_back(frame);
        self.event.write(1).expect("room");
    }
}

impl Backend for Waited {
    fn write_frame(&mut self, _: &[IoVec<'_>]) -> Written {
        Written::Sent
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        let mut frames = self.frames.lock().expect("no panics");
        let Some(frame) = frames.to_guest.pop_front() else {
            // Readable as long as there is a frame, as a tap is: under the lock, so that none is passed over.
            let _ = self.event.read();
            return Ok(None);
        };
        Ok(Some(scatter(buffers, 0, &frame)))
    }

    fn set_offloads(&mut self, _: Offloads) -> Result<(), BackendError> {
        Ok(())
    }

    fn event_fd(&self) -> Option<RawFd> {
        Some(self.event.as_raw_fd())
    }
}

fn image_file() -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    file.as_file().set_len(1024 * 4096).expect("room");
    file
}

/// So many environments with a disk each, and a NIC on which now and then a few frames come for the first.
fn storm(io: IoMode, environments: u32) -> (Outcome, u64) {
    let rounds =
        std::env::var("EXOVM_STORM_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let files: Vec<NamedTempFile> = (0..environments).map(|_| image_file()).collect();
    let wire = Waited::new();
    let probe = Probe::start(&["storm", &rounds.to_string()], |config| {
        config.io = io;
        config.environments = Some(environments);
        config.spare_environments = Some(1);
        config.memory_bytes = Some(96 << 20);
        config.disks = files
            .iter()
            .map(|file| DiskSetup::open(file.path(), Access::ReadWrite).expect("an image"))
            .collect();
        config.net = Some(NetSetup {
            backend: Box::new(wire.clone()),
            ipv4: abi::boot::Ipv4Config::default(),
            ipv6: abi::boot::Ipv6Config::default(),
            name_servers: abi::boot::NameServers::default(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu_bytes: 1500,
            queue_pairs: 4,
        });
    });
    let over = Arc::new(AtomicBool::new(false));
    let frames = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let mut gap_us = 0;
            while !over.load(Ordering::Relaxed) {
                (0..1 + gap_us % 3).for_each(|_| wire.push());
                gap_us = (gap_us * 7 + 137) % 4000;
                std::thread::sleep(Duration::from_micros(gap_us));
            }
        }
    });
    probe.wait();
    over.store(true, Ordering::Relaxed);
    let changes = probe.machine.account().nic_counter("changes of place").unwrap_or(0);
    frames.join().expect("no panics");
    (probe.finish(), changes)
}

#[test]
fn no_wake_up_is_lost_in_a_storm() {
    let mut all_changes = 0;
    for io in [IoMode::Turn, IoMode::Thread, IoMode::Auto] {
        for environments in 1..=3 {
            let (outcome, changes) = storm(io, environments);
            let log = outcome.held();
            let ends = said(&log).filter(|line| line.contains(" rounds, disk: true")).count();
            assert_eq!(ends as u32, environments, "{io:?}: {log:#?}");
            println!("{io:?}, {environments} environments: the place changed {changes} times");
            all_changes += changes;
        }
    }
    // How often depends on how busy the host is: on one that is not, some hundred times.
    assert!(all_changes > 0 || exovm::placement::allowed_cpus().len() < 2, "the place never changed");
}

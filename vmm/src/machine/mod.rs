//! A virtual machine: memory, vCPUs, a NIC, disks, and the threads that run them. Nothing here is global to the process, so
//! several machines live side by side.
//!
//! [`Machine::start`] does everything up to the guest's first instruction; [`Machine::wait`] waits for the end;
//! dropping a machine stops it.

mod addresses;
pub mod boot;
mod channel;
mod control;
mod desk;
mod disk;
mod error;
pub(crate) mod exits;
pub mod kvm;
mod log;
pub mod memory;
mod nic;
mod pause;
mod report;
mod service;
mod shared;
mod slots;
mod start;
pub(crate) mod statistics;
mod team;
mod tools;
mod vcpu;
mod vcpu_time;

pub use addresses::{Ipv6Address, Ipv6AddressState};
pub use desk::AskError;
pub use disk::DiskSetup;
pub use error::MachineError;
pub use log::LogSink;
pub use nic::{NetSetup, QUEUE_PAIRS};
pub use pause::Pause;

pub(crate) use report::Reporter;
pub(crate) use shared::Shared;
pub(crate) use team::Team;
pub(crate) use vcpu::share_time_line;

use crate::account::AccountSnapshot;
use crate::channel::Clients;
use crate::debug::{self, DebugError, DebugRequest};
use crate::placement::{IoMode, Placement};
use crate::probe::{Probe, ProbeError, Wanted};
use crate::profile::ProfileRequest;
use crate::stat::StatSnapshot;
use crate::tables::{Memory, TableAddresses};
use crate::trace::stream::Header;
use crate::trace::{self, Accounts, HostEvents, Listener, Records};
use abi::boot::phase;
use boot::pages::SharedPages;
use exovm_image::container::Image;
use kvm_ioctls::VcpuFd;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

/// What a machine is made of.
pub struct MachineConfig {
    /// What it boots.
    pub image: Image,
    /// Its memory; `None`: what the image asks for.
    pub memory_bytes: Option<u64>,
    /// Its network interface.
    pub net: Option<NetSetup>,
    /// Its disks, in the order in which they follow the network interface in the device table.
    pub disks: Vec<DiskSetup>,
    /// Where device work is done.
    pub io: IoMode,
    /// vCPUs, 1 to [`abi::boot::VCPUS_MAX`]; `None`: as many as the image asks for.
    pub vcpus: Option<u32>,
    /// CPUs that the vCPUs' threads are bound to, one for each; empty: to none.
    pub vcpu_cpus: Vec<u32>,
    /// The image's arguments, for each environment.
    pub arguments: Vec<String>,
    /// Environments that run the image's program from the start; `None`: as many as the image asks for.
    pub environments: Option<u32>,
    /// Places for further environments; `None`: as many as the image asks for.
    pub spare_environments: Option<u32>,
    /// Where the guest's log goes, line by line.
    pub log: LogSink,
}

impl MachineConfig {
    /// What the image asks for, without devices; nobody reads its log.
    pub fn new(image: Image) -> Self {
        Self {
            image,
            memory_bytes: None,
            net: None,
            disks: Vec::new(),
            io: IoMode::Auto,
            vcpus: None,
            vcpu_cpus: Vec::new(),
            arguments: Vec::new(),
            environments: None,
            spare_environments: None,
            log: Box::new(|_| ()),
        }
    }
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest switched it off with this status.
    PowerOff {
        /// Exit status.
        status: u32,
    },
    /// It was asked to stop and did.
    Stopped,
    /// A fault; the report is for people, several lines.
    Fault {
        /// The report.
        report: String,
    },
}

/// A moment of the start, in the order of happening.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseStamp {
    /// What was reached.
    pub name: &'static str,
    /// When, on the TSC.
    pub tsc: u64,
}

/// A running machine.
pub struct Machine {
    shared: Arc<Shared>,
    host_phases: Vec<PhaseStamp>,
    vcpus: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    memory_bytes: u64,
}

impl Machine {
    /// Waits until the machine has ended, at most for `timeout`.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<End> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut end = self.shared.end();
        while end.is_none() {
            end = match deadline {
                None => self.shared.ended.wait(end).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let waited = self.shared.ended.wait_timeout(end, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        end.clone()
    }

    /// Waits until all environments that run from the start have said that they are ready, or the guest has ended. Returns whether there is nothing to wait for any
    /// more.
    pub fn is_ready(&self, timeout: Duration) -> bool {
        self.wait_ready(timeout);
        self.shared.is_ready() || self.shared.has_ended()
    }

    /// Waits until all environments that run from the start serve, or the guest has ended. Returns the TCP port that the first
    /// of them serves, if any.
    pub fn wait_ready(&self, timeout: Duration) -> Option<u16> {
        let deadline = Instant::now() + timeout;
        loop {
            if self.shared.is_ready() {
                return self.shared.port(0);
            }
            if Instant::now() >= deadline || self.shared.end().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Asks the guest to finish, and does not wait for it.
    pub fn ask_to_stop(&self) {
        // One page, seen by all.
        self.pages().host.stop.store(1, Ordering::Release);
        // Whom a debugger has stopped could not finish.
        self.shared.debugger.hub.end();
        self.shared.wake_guest();
    }

    /// Asks the guest to finish, and ends the machine when it did or after `grace`.
    pub fn stop(&mut self, grace: Duration) -> End {
        let end = self.end(grace);
        self.join();
        end
    }

    /// As [`Self::stop`], for who shares the machine: its threads may still be finishing.
    pub fn end(&self, grace: Duration) -> End {
        self.ask_to_stop();
        if self.wait(Some(grace)).is_none() {
            self.shared.team.stop();
            self.shared.placement.stop();
            while self.wait(Some(Duration::from_millis(1))).is_none() {
                self.shared.team.kick();
            }
        }
        self.wait(None).unwrap_or(End::Stopped)
    }

    fn join(&mut self) {
        for thread in self.vcpus.drain(..).chain(self.others.drain(..)) {
            if thread.join().is_err() {
                tracing::error!("a thread of the machine panicked");
            }
        }
        self.shared.clients.end();
        self.shared.tools.end();
    }

    /// When each phase of the start was reached: the VMM's, then the guest's so far, by the last environment that has reached
    /// it of those that run from the start.
    pub fn phases(&self) -> Vec<PhaseStamp> {
        let mut phases = self.host_phases.clone();
        for (number, name) in phase::NAMES.into_iter().enumerate() {
            let tsc = |pages: &SharedPages| pages.status.phases[number].load(Ordering::Relaxed);
            let tsc = self.shared.running_pages().map(tsc).max().unwrap_or(0);
            if tsc != 0 {
                phases.push(PhaseStamp { name, tsc });
            }
        }
        phases
    }

    /// What KVM itself has counted of a vCPU so far, by KVM's names.
    pub fn kvm_statistics(&self, vcpu: usize) -> std::io::Result<Vec<(String, u64)>> {
        match self.shared.kvm.vcpus.get(vcpu) {
            Some(Ok(statistics)) => statistics.read(),
            Some(Err(error)) => Err(std::io::Error::new(error.kind(), error.to_string())),
            None => Err(std::io::Error::other(format!("the machine has no vCPU {vcpu}"))),
        }
    }

    /// Has a vCPU's thread run `job` between two instructions of the guest, and waits for what comes of it; for tests and tools.
    /// The vCPU is taken out of the guest, a halt or a turn, and goes on after that.
    pub fn ask<R: Send + 'static>(
        &self,
        vcpu: u32,
        job: impl FnOnce(&VcpuFd) -> R + Send + 'static,
    ) -> Result<R, AskError> {
        self.shared.team.ask(vcpu, job)
    }

    /// Has a debugger at the other end of `socket` attach, by gdb's remote protocol; for tests and tools.
    pub fn attach_debugger(&self, socket: UnixStream) -> Result<(), DebugError> {
        let granted = debug::grant(&self.shared, DebugRequest::Attach)?;
        granted.start(socket, Vec::new());
        Ok(())
    }

    /// Stops all vCPUs until the pause is dropped, for tests and tools.
    pub fn pause(&self) -> Result<Pause, AskError> {
        self.shared.team.pause()
    }

    /// Sends samples to a profiler's socket, as the control socket's `profile` does; for tests. Says why not.
    pub fn profile(&self, request: &ProfileRequest, socket: UnixStream) -> Result<(), String> {
        let admitted = self.shared.profilers.admit(request)?;
        crate::profile::start(Arc::clone(&self.shared), admitted, socket);
        Ok(())
    }

    /// Probes a function of the image or the kernel for as long as the probe lives.
    pub fn probe(&self, function: &str, wanted: Wanted) -> Result<Probe, ProbeError> {
        Probe::attach(&self.shared, function, wanted)
    }

    /// How many vCPUs it has.
    pub fn vcpus(&self) -> u32 {
        self.shared.vcpus
    }

    /// TSC ticks per millisecond.
    pub fn tsc_khz(&self) -> u64 {
        self.shared.tsc_khz
    }

    /// Bytes of guest memory.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Guest memory, for tests and tools.
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// Where the kernel's tables lie in guest memory, for tests and tools.
    pub fn tables_at(&self) -> TableAddresses {
        self.shared.tables_at
    }

    /// The pages shared with the first environment, for tests and tools.
    pub fn pages(&self) -> &SharedPages {
        // A machine without a place does not start.
        &self.shared.pages[0]
    }

    /// The pages shared with the environment in this place, running or not.
    pub fn environment_pages(&self, place: usize) -> Option<&SharedPages> {
        self.shared.pages.get(place)
    }

    /// How many environments run from the start.
    pub fn environments(&self) -> usize {
        self.shared.environments
    }

    /// The TCP port that an environment has said that it serves.
    pub fn port(&self, environment: usize) -> Option<u16> {
        self.shared.port(environment)
    }

    /// The address that an environment has from a DHCP server, as it says.
    pub fn leased_address(&self, environment: usize) -> Option<Ipv4Addr> {
        self.shared.leased_address(environment)
    }

    /// Whether an environment serves at the IPv4 address that it was given, as it says.
    pub fn serves_given_ipv4(&self, environment: usize) -> bool {
        self.shared.serves_given_ipv4(environment)
    }

    /// The IPv6 addresses of an environment's interface, as it says.
    pub fn ipv6_addresses(&self, environment: usize) -> Vec<Ipv6Address> {
        self.shared.ipv6_addresses(environment)
    }

    /// The placement of device work.
    pub fn placement(&self) -> &Placement {
        &self.shared.placement
    }

    /// Who is attached to the ports of the host channel, and how to be.
    pub fn clients(&self) -> &Clients {
        &self.shared.clients
    }

    /// Has the guest's accounts go for as long as the guard lives; otherwise its spans have no cycles.
    pub fn accounts(&self) -> Accounts {
        self.shared.looking.accounts()
    }

    /// Has guest and VMM write records of what they do, for as long as the listener is there.
    pub fn record(&self, records: Records) -> (Header, Listener) {
        self.record_with(records, HostEvents::Unwanted)
    }

    /// The same, and what the host's kernel says of it, if wanted.
    pub fn record_with(&self, records: Records, host: HostEvents) -> (Header, Listener) {
        let listener = self.shared.tracing.listen(records, host);
        (trace::header(&self.shared, "", ""), listener)
    }

    /// The account up to now.
    pub fn account(&self) -> AccountSnapshot {
        self.shared.account()
    }

    /// What every layer has counted up to now.
    pub fn statistics(&self) -> StatSnapshot {
        self.shared.statistics(&[])
    }

    /// A handle for the control socket.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Readable once the machine has ended.
    pub fn end_event(&self) -> &EventFd {
        &self.shared.end_event
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.vcpus.is_empty() {
            self.stop(Duration::ZERO);
        }
    }
}

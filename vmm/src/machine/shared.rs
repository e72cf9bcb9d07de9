//! What a machine's threads and its owner share.

use super::End;
use super::addresses::Ipv6Address;
use super::boot::pages::SharedPages;
use super::exits::Exits;
use super::log::Logs;
use super::report::Reporter;
use super::statistics::KvmStatistics;
use super::team::{Team, TeamEnd};
use super::tools::Tools;
use super::vcpu::VcpuEnd;
use crate::account::{self, AccountSnapshot, ledger::Ledger};
use crate::channel::Clients;
use crate::debug::Debugger;
use crate::placement::Placement;
use crate::probe::Probes;
use crate::profile::Profilers;
use crate::stat::StatSnapshot;
use crate::stat::pmu::Pmu;
use crate::tables::{Memory, TableAddresses};
use crate::trace::{Looking, Tracing};
use abi::boot::{address_state, phase};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// State shared by a machine's threads and its owner.
pub(crate) struct Shared {
    pub(crate) memory: Arc<Memory>,
    /// By place.
    pub(crate) pages: Vec<SharedPages>,
    /// Environments that run from the start.
    pub(super) environments: usize,
    pub(crate) logs: Arc<Logs>,
    pub(super) tables_at: TableAddresses,
    pub(crate) placement: Arc<Placement>,
    pub(crate) clients: Clients,
    /// The image and its symbols.
    pub(crate) reporter: Arc<Reporter>,
    /// Who takes samples.
    pub(crate) profilers: Profilers,
    /// Whose functions are probed.
    pub(crate) probes: Probes,
    /// Who looks at what the guest does.
    pub(crate) looking: Arc<Looking>,
    /// The records of that.
    pub(crate) tracing: Arc<Tracing>,
    pub(crate) debugger: Debugger,
    /// Who serves those that look.
    pub(crate) tools: Tools,
    pub(crate) ledgers: Vec<(String, Arc<Ledger>)>,
    pub(crate) tsc_khz: u64,
    pub(super) started_tsc: u64,
    pub(crate) sites: Vec<exovm_image::program::Site>,
    pub(crate) vcpus: u32,
    /// Why each vCPU left the guest.
    pub(crate) exits: Vec<Arc<Exits>>,
    /// What KVM counts.
    pub(crate) kvm: KvmStatistics,
    /// What the processor counts of the guest, while somebody looks.
    pub(crate) pmu: Arc<Pmu>,
    pub(crate) team: Arc<Team>,
    pub(super) end: Mutex<Option<End>>,
    pub(super) ended: Condvar,
    /// Readable once the machine has ended.
    pub(super) end_event: EventFd,
}

impl Shared {
    pub(super) fn end(&self) -> MutexGuard<'_, Option<End>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All vCPUs have ended: say so, and end everything else.
    pub(super) fn finish(&self, reporter: &Reporter, end: &TeamEnd) {
        let report = reporter.report(&self.memory, end);
        let end = match (&end.end, report) {
            (VcpuEnd::PowerOff { status }, _) => End::PowerOff { status: *status },
            (_, Some(report)) => End::Fault { report },
            (_, None) => End::Stopped,
        };
        self.placement.stop();
        // What the guest wrote last; clients read it before they hear of the end.
        self.placement.take_last_words();
        self.clients.say_end();
        self.profilers.say_end();
        *self.end() = Some(end);
        self.ended.notify_all();
        self.debugger.hub.end();
        let _ = self.end_event.write(1);
    }

    /// How long the machine exists.
    pub(crate) fn uptime_ms(&self) -> u64 {
        account::ledger::now_tsc().saturating_sub(self.started_tsc) / self.tsc_khz.max(1)
    }

    /// Gives bytes to a tool. Once the machine has ended, who takes them slowly does not hold up the end.
    pub(crate) fn send(&self, mut socket: &UnixStream, bytes: &[u8]) -> std::io::Result<()> {
        /// About what a socket takes at once.
        const PART_BYTES: usize = 64 << 10;
        bytes.chunks(PART_BYTES).try_for_each(|part| {
            if self.tools.is_late(self.has_ended()) {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            socket.write_all(part)
        })
    }

    /// Whether the machine has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.end().is_some()
    }

    /// How it ended, if it did.
    pub(crate) fn how_it_ended(&self) -> Option<End> {
        self.end().clone()
    }

    /// The pages of the environments that run from the start.
    pub(super) fn running_pages(&self) -> impl Iterator<Item = &SharedPages> {
        self.pages.iter().take(self.environments)
    }

    /// Whether all of them have said that they are ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.running_pages().all(|pages| pages.status.phases[phase::READY].load(Ordering::Acquire) != 0)
    }

    /// The TCP port that an environment serves.
    pub(crate) fn port(&self, environment: usize) -> Option<u16> {
        let port = self.pages.get(environment)?.status.port.load(Ordering::Relaxed);
        u16::try_from(port).ok().filter(|&port| port != 0)
    }

    /// The address that an environment has leased.
    pub(crate) fn leased_address(&self, environment: usize) -> Option<Ipv4Addr> {
        let bits = self.pages.get(environment)?.status.address.load(Ordering::Relaxed);
        Some(Ipv4Addr::from_bits(bits)).filter(|address| !address.is_unspecified())
    }

    /// Whether an environment serves at the IPv4 address that it was given.
    pub(crate) fn serves_given_ipv4(&self, environment: usize) -> bool {
        let state = self.pages.get(environment).map(|pages| pages.status.given_ipv4.load(Ordering::Relaxed));
        !matches!(state, Some(address_state::UNSERVED | address_state::DUPLICATE))
    }

    /// The IPv6 addresses that an environment has, wants or may not have.
    pub(crate) fn ipv6_addresses(&self, environment: usize) -> Vec<Ipv6Address> {
        let status = self.pages.get(environment).map(|pages| &pages.status.ipv6);
        status.into_iter().flatten().filter_map(Ipv6Address::read).collect()
    }

    /// Whether the guest was asked to finish.
    pub(crate) fn is_stopping(&self) -> bool {
        self.pages.iter().any(|pages| pages.host.stop.load(Ordering::Relaxed) != 0)
    }

    /// Makes a guest that waits look around.
    pub(super) fn wake_guest(&self) {
        self.placement.wake_guest();
    }

    /// How many vCPUs there are.
    pub(crate) fn vcpus(&self) -> u32 {
        self.vcpus
    }

    /// How many environments run from the start.
    pub(crate) fn environments(&self) -> usize {
        self.environments
    }

    /// Where the kernel's tables lie.
    pub(crate) fn tables_at(&self) -> TableAddresses {
        self.tables_at
    }

    /// What the layers of these names have counted so far; no names: all.
    pub(crate) fn statistics(&self, layers: &[String]) -> StatSnapshot {
        StatSnapshot::take(self, layers)
    }

    /// What every thread and every span has taken so far.
    pub(crate) fn account(&self) -> AccountSnapshot {
        AccountSnapshot::take(
            &self.ledgers,
            &self.sites,
            &self.pages,
            (self.started_tsc, self.tsc_khz),
            &self.placement,
            &self.looking,
        )
    }
}

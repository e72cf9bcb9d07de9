//! The edge to the machine: the areas at their fixed addresses, the TSC, and where the section of sites begins. The only
//! unsafe code of the crate. May assume that it runs in an environment (feature `guest`).

#[cfg(not(exovm_without_spans))]
use crate::Span;
use crate::ledger::{Ledger, Machine, SiteId};
use abi::boot::{EnvironmentPage, HostPage, VCPUS_MAX};
use abi::environment::KernelPage;
use abi::layout::{ACCOUNT_VA, ENVIRONMENT_VA, HOST_VA, KERNEL_PAGE_VA, TRACE_VA, VCPUS_VA};
use abi::trace::{AccountArea, Site, TraceRing};
use abi::vcpu::VcpuTime;
#[cfg(not(exovm_without_spans))]
use core::marker::PhantomData;
use core::ptr::with_exposed_provenance;
use core::sync::atomic::Ordering::Relaxed;

unsafe extern "C" {
    /// Start of the section: defined by the linker for every section whose name is a C identifier.
    #[link_name = "__start_exovm_sites"]
    static SITES_START: Site;
}

/// The vCPU and the environment page.
#[derive(Clone, Copy, Debug)]
pub struct Environment;

impl Machine for Environment {
    #[inline(always)]
    fn tsc(&self) -> u64 {
        // SAFETY: RDTSC is in the baseline, and CR4.TSD is clear: the VMM leaves it so for every environment.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    fn environment(&self) -> u16 {
        // SAFETY: the page is mapped read-only before the environment starts and its number does not change.
        unsafe { (*with_exposed_provenance::<EnvironmentPage>(ENVIRONMENT_VA as usize)).environment as u16 }
    }

    #[inline(always)]
    fn vcpu_number(&self) -> u32 {
        self.kernel().vcpu.load(Relaxed) % VCPUS_MAX as u32
    }

    #[inline(always)]
    fn vcpu(&self) -> &VcpuTime {
        // SAFETY: mapped read-only from the start, one for each number below VCPUS_MAX; consists of atomics.
        unsafe { &*with_exposed_provenance::<VcpuTime>(VCPUS_VA as usize).add(self.vcpu_number() as usize) }
    }

    #[inline(always)]
    fn kernel(&self) -> &KernelPage {
        // SAFETY: as above.
        unsafe { &*with_exposed_provenance::<KernelPage>(KERNEL_PAGE_VA as usize) }
    }

    fn ticks(&self, ns: u64) -> u64 {
        // SAFETY: as for `environment`.
        let khz = unsafe { (*with_exposed_provenance::<EnvironmentPage>(ENVIRONMENT_VA as usize)).tsc_khz };
        // An hour at most, so that it fits.
        const LONGEST_NS: u64 = 3_600_000_000_000;
        let (seconds, ns) = (ns.min(LONGEST_NS) / 1_000_000_000, ns.min(LONGEST_NS) % 1_000_000_000);
        seconds * khz * 1000 + ns * khz / 1_000_000
    }
}

/// The ledger of this environment.
#[inline(always)]
pub fn ledger() -> Ledger<'static, Environment> {
    // SAFETY: the areas and the host page are mapped and aligned from before the environment's first instruction to its end, the
    // areas writable, and all consist of atomics only, so the VMM may touch them at any time.
    unsafe {
        Ledger::new(
            &*with_exposed_provenance::<AccountArea>(ACCOUNT_VA as usize),
            &*with_exposed_provenance::<TraceRing>(TRACE_VA as usize),
            &(*with_exposed_provenance::<HostPage>(HOST_VA as usize)).trace,
            Environment,
        )
    }
}

#[inline(always)]
fn id(site: &'static Site) -> SiteId {
    let start = &raw const SITES_START;
    SiteId::at((&raw const *site).addr().wrapping_sub(start.addr()))
}

/// What `span!` calls.
#[inline(always)]
#[cfg(not(exovm_without_spans))]
pub fn enter(site: &'static Site, subject: u64) -> Span {
    Span { outer: ledger().enter(id(site), subject), _not_send: PhantomData }
}

/// What `event!` calls.
#[inline(always)]
#[cfg(not(exovm_without_spans))]
pub fn event(site: &'static Site, subject: u64, argument: u64) {
    ledger().event(id(site), subject, argument);
}

/// What `counter!` calls.
#[inline(always)]
pub fn counter(site: &'static Site, n: u64) {
    ledger().counter(id(site), n);
}

/// What `follow` calls.
#[inline(always)]
#[cfg(not(exovm_without_spans))]
pub fn follow(subject: u64) -> crate::Following {
    crate::Following { before: ledger().follow(subject), _not_send: PhantomData }
}

/// What `follow_again` calls.
#[inline(always)]
#[cfg(not(exovm_without_spans))]
pub fn follow_again(followed: u64) -> crate::Following {
    crate::Following { before: ledger().follow_again(followed), _not_send: PhantomData }
}

/// Sites of one another's time, for the macros.
#[inline(always)]
pub fn parts(going: &'static Site, away: &'static Site, back: &'static Site) -> crate::away::Parts {
    crate::away::Parts { going: id(going), away: id(away), back: id(back) }
}

//! The fixed pages of an environment, as references.

use abi::boot::{EnvironmentPage, HostPage, StatusPage, VCPUS_MAX};
use abi::environment::KernelPage;
use abi::layout::{ENVIRONMENT_VA, HOST_VA, KERNEL_PAGE_VA, STATISTICS_VA, STATUS_VA, TIME_VA, VCPUS_VA};
use abi::options::Options;
use abi::statistics::StatisticsArea;
use abi::time::TimePage;
use abi::vcpu::VcpuTime;
use core::sync::atomic::Ordering;

/// What this environment has.
pub fn environment() -> &'static EnvironmentPage {
    // SAFETY: mapped read-only for the environment's whole life, written before it started and never since.
    unsafe { &*(ENVIRONMENT_VA as *const EnvironmentPage) }
}

/// The first device of a kind of which the environment has queues: its index in the device table.
pub fn device_of_kind(kind: u32) -> Option<usize> {
    environment().devices.iter().position(|device| device.kind == kind && device.queues > 0)
}

/// What the VMM says while the environment runs.
pub fn host() -> &'static HostPage {
    // SAFETY: mapped read-only for the environment's whole life; the VMM writes it, so all fields are atomics.
    unsafe { &*(HOST_VA as *const HostPage) }
}

/// What the kernel says while the environment runs.
pub fn kernel() -> &'static KernelPage {
    // SAFETY: as for `host`; the kernel writes it.
    unsafe { &*(KERNEL_PAGE_VA as *const KernelPage) }
}

/// What was taken of the time of the vCPU that the environment is on.
pub fn vcpu_time() -> &'static VcpuTime {
    let vcpu = kernel().vcpu.load(Ordering::Relaxed) as usize % VCPUS_MAX;
    // SAFETY: as for `host`; there is one for each number below `VCPUS_MAX`.
    unsafe { &*(VCPUS_VA as *const VcpuTime).add(vcpu) }
}

/// What the environment says.
pub fn status() -> &'static StatusPage {
    // SAFETY: mapped for the environment's whole life; the VMM reads it, so all fields are atomics.
    unsafe { &*(STATUS_VA as *const StatusPage) }
}

/// What the environment has counted, for the VMM to read.
#[inline(always)]
pub fn statistics() -> &'static StatisticsArea {
    // SAFETY: as for `status`.
    unsafe { &*(STATISTICS_VA as *const StatisticsArea) }
}

/// TSC and UTC.
pub(crate) fn time() -> &'static TimePage {
    // SAFETY: as for `host`.
    unsafe { &*(TIME_VA as *const TimePage) }
}

/// The image's arguments.
pub fn arguments() -> impl Iterator<Item = &'static str> + Clone {
    let page = environment();
    let len = (page.arguments_len as usize).min(page.arguments.len());
    core::str::from_utf8(&page.arguments[..len])
        .unwrap_or_default()
        .split('\0')
        .filter(|word| !word.is_empty())
}

/// The options that the image declares in its `image.toml`, among its arguments.
pub fn options() -> Options<impl Iterator<Item = &'static str> + Clone> {
    Options::new(arguments())
}

/// How large the heap is.
pub fn heap_bytes() -> u64 {
    environment().heap.iter().map(|range| range.len_bytes).sum()
}

/// Stamps a phase of the start, once.
pub fn stamp(phase: usize) {
    let slot = &status().phases[phase];
    if slot.load(Ordering::Relaxed) == 0 {
        slot.store(crate::clock::tsc(), Ordering::Relaxed);
    }
}

/// Stamps the first response of a service.
pub fn stamp_first_response() {
    stamp(abi::boot::phase::FIRST_RESPONSE);
}

//! The KVM device, and whether guests can share the host's clock.

use super::finding::Finding;
use crate::machine::{kvm, share_time_line};

/// KVM_API_VERSION, the same since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// `/dev/kvm`.
pub(super) fn device() -> Vec<Finding> {
    let kvm = match kvm::open() {
        Ok(kvm) => kvm,
        Err(error) => {
            let means = "without it there are no machines";
            return vec![Finding::bad("kvm", error.to_string(), means)];
        }
    };
    let version = kvm.get_api_version();
    let finding = if version == API_VERSION {
        Finding::good("kvm", format!("/dev/kvm may be used; API version {version}"), "machines can be made")
    } else {
        let found = format!("/dev/kvm speaks API version {version}, not {API_VERSION}");
        Finding::bad("kvm", found, "this is not the KVM that exovm knows")
            .todo("use a Linux kernel's own KVM")
    };
    vec![finding.value("api_version", version)]
}

/// One time line for guest and host.
pub(super) fn clock() -> Vec<Finding> {
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        .map_or("unknown".to_owned(), |source| source.trim().to_owned());
    let invariant = has_invariant_tsc();
    let offset = offset_is_settable();
    let settable = match &offset {
        Ok(()) => "a guest's TSC offset can be set".to_owned(),
        Err(error) => format!("a guest's TSC offset cannot be set ({error})"),
    };
    let rate = if invariant { "invariant" } else { "not invariant" };
    let found = format!("{settable}; the TSC is {rate}; the host's clock is {source}");
    let finding = match (offset.is_ok(), invariant && source == "tsc") {
        (true, true) => {
            Finding::good("clock", found, "guest, kernel and VMM read one clock; times compare to the cycle")
        }
        (true, false) => {
            Finding::odd("clock", found, "guest and VMM read one clock, which the host does not trust")
                .slow("times may jump or drift, most of all across CPUs and frequencies")
        }
        (false, _) => Finding::odd("clock", found, "times of guest and VMM do not compare")
            .slow("accounts and boot phases of the guest are off by a constant"),
    };
    vec![
        finding
            .value("tsc_offset_settable", offset.is_ok())
            .value("tsc_invariant", invariant)
            .value("clocksource", source),
    ]
}

/// Tries it on a machine of its own.
fn offset_is_settable() -> Result<(), String> {
    let kvm = kvm::open().map_err(|_| "no KVM".to_owned())?;
    let vm = kvm::create(&kvm).map_err(|error| error.to_string())?;
    let vcpu = vm.create_vcpu(0).map_err(|error| error.to_string())?;
    share_time_line(&vcpu).map_err(|error| error.to_string())
}

/// CPUID 8000_0007h, EDX bit 8: the TSC runs at a constant rate in all states of the processor.
fn has_invariant_tsc() -> bool {
    const POWER: u32 = 0x8000_0007;
    let highest = core::arch::x86_64::__cpuid(0x8000_0000).eax;
    highest >= POWER && core::arch::x86_64::__cpuid(POWER).edx & 1 << 8 != 0
}

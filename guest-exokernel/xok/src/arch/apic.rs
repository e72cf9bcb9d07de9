//! The local APIC in x2APIC mode: the TSC-deadline timer, and an interrupt to oneself for the probe.

use super::{read_msr, write_msr};
use abi::layout::TIMER_VECTOR;

const IA32_APIC_BASE: u32 = 0x1B;
const X2APIC_SPURIOUS: u32 = 0x80F;
const X2APIC_ICR: u32 = 0x830;
const X2APIC_LVT_TIMER: u32 = 0x832;
const IA32_TSC_DEADLINE: u32 = 0x6E0;

/// Global enable and x2APIC mode.
const APIC_BASE_X2APIC: u64 = 0xC00;
/// Timer mode "TSC deadline" (SDM 10.5.4.1).
const LVT_TSC_DEADLINE: u64 = 0x4_0000;
/// Destination shorthand "self".
const ICR_SELF: u64 = 0x4_0000;
/// Level "assert", as for every fixed interrupt.
const ICR_ASSERT: u32 = 0x4000;

/// Switches the local APIC on, its timer armed by [`set_deadline`].
pub(crate) fn enable() {
    // SAFETY: enabling the APIC and its timer vector changes nothing while interrupts are off; both vectors have gates.
    unsafe {
        write_msr(IA32_APIC_BASE, read_msr(IA32_APIC_BASE) | APIC_BASE_X2APIC);
        write_msr(X2APIC_SPURIOUS, 0x1FF);
        write_msr(X2APIC_LVT_TIMER, LVT_TSC_DEADLINE | TIMER_VECTOR as u64);
    }
}

/// Arms the timer for a moment on the TSC; 0 disarms it.
pub(crate) fn set_deadline(tsc: u64) {
    // SAFETY: the timer's vector has a gate.
    unsafe { write_msr(IA32_TSC_DEADLINE, tsc) }
}

/// Sends an interrupt to another vCPU.
pub(crate) fn send(vcpu: u32, vector: u32) {
    // SAFETY: the vector has a gate, and its handler keeps all registers.
    unsafe { write_msr(X2APIC_ICR, u64::from(vcpu) << 32 | u64::from(vector | ICR_ASSERT)) }
}

/// Sends a message to this processor's own APIC, as a device would with this MSI data.
pub(crate) fn send_self(msi_data: u32) {
    // SAFETY: a message with delivery mode "remote read" delivers nothing.
    unsafe { write_msr(X2APIC_ICR, ICR_SELF | u64::from(msi_data)) }
}

//! How vCPUs begin: what `abi::header` promises a kernel.

use crate::kernel::{Act, Bare, CLEANED_GPA, MANY, MANY_VCPUS};
use abi::boot::{BOOT_MAGIC, BootPage};
use abi::layout::tss_selector;
use exovm::machine::{End, Machine, MachineConfig, MachineError};
use exovm::placement::IoMode;
use std::mem::offset_of;
use std::sync::PoisonError;
use vm_memory::{Bytes, GuestAddress};

const INTERRUPTS_ON: u64 = 1 << 9;

#[test]
fn every_vcpu_begins_as_the_header_says() {
    let _alone = MANY.lock().unwrap_or_else(PoisonError::into_inner);
    for vcpus in [1, 2, 4, MANY_VCPUS] {
        let bare = Bare::start(vcpus, 0, Act::Halt);
        bare.wait_until_alive();
        let found = bare.found();
        assert_eq!(found.len(), vcpus as usize);
        let boot_page = |offset: usize| GuestAddress(found[0].rdi + offset as u64);
        let memory = bare.machine.memory();
        assert_eq!(memory.read_obj::<u64>(boot_page(0)).expect("memory"), BOOT_MAGIC);
        let said: u32 = memory.read_obj(boot_page(offset_of!(BootPage, vcpus))).expect("memory");
        assert_eq!(said, vcpus);
        for (number, one) in (0u64..).zip(&found) {
            let stride = bare.header.stack_stride_bytes;
            let top = bare.header.stack_top_va + number * stride;
            assert_eq!(one.rsp, top, "vCPU {number}");
            assert_eq!(one.kernel_gs_base, top - stride, "vCPU {number}");
            // From anywhere on the stack, by a mask.
            assert_eq!((one.rsp - 1) & !(stride - 1), one.kernel_gs_base, "vCPU {number}");
            assert_eq!(one.rdi, found[0].rdi, "vCPU {number}");
            assert_eq!(one.cr3, found[0].cr3, "vCPU {number}");
            assert_eq!(one.task_register, u64::from(tss_selector(number as u16)), "vCPU {number}");
            assert_eq!(one.rflags & INTERRUPTS_ON, 0, "vCPU {number}");
            assert_eq!(one.x2apic_id, number);
            assert_eq!(one.cpuid_apic_id, number);
        }
    }
}

#[test]
fn double_fault_of_each_vcpu_is_on_its_own_fault_stack() {
    for actor in [0, 1, 3] {
        let bare = Bare::start(4, actor, Act::DoubleFault);
        assert_eq!(bare.end(), End::PowerOff { status: 8 });
        // Five words of the frame and the error code.
        let top = bare.header.fault_stack_top_va + u64::from(actor) * bare.header.stack_stride_bytes;
        assert_eq!(bare.found()[actor as usize].fault_rsp, top - 6 * 8, "vCPU {actor}");
    }
}

#[test]
fn page_that_a_vcpu_named_is_cleared_whatever_another_named_meanwhile() {
    let filled = |bare: &Bare, page: u64| {
        let mut bytes = [0; 4096];
        bare.machine
            .memory()
            .read_slice(&mut bytes, GuestAddress(CLEANED_GPA + 4096 * page))
            .expect("memory");
        bytes.iter().any(|&byte| byte != 0)
    };
    let bare = Bare::start(2, 0, Act::Clean);
    assert_eq!(bare.end(), End::PowerOff { status: 7 });
    assert!(!filled(&bare, 0), "the first page was to be cleared");
    assert!(filled(&bare, 1), "the second was not");
}

#[test]
fn turn_of_one_of_several_returns_at_once() {
    let bare = Bare::start(2, 1, Act::Turn);
    assert_eq!(bare.end(), End::PowerOff { status: 9 });
    assert_eq!(bare.machine.placement().turns(), 0);
}

fn refused(configure: impl FnOnce(&mut MachineConfig)) -> MachineError {
    let mut config = MachineConfig::new(exovm::images::load("hello").expect("built in"));
    configure(&mut config);
    match Machine::start(config) {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

#[test]
fn number_of_vcpus_that_there_cannot_be_returns_vcpus() {
    for vcpus in [0, 9, u32::MAX] {
        let error = refused(|config| config.vcpus = Some(vcpus));
        assert!(matches!(error, MachineError::Vcpus { vcpus: found } if found == vcpus), "{error}");
        assert!(error.to_string().contains("1 to 8"), "{error}");
    }
}

#[test]
fn turns_with_several_vcpus_returns_turns_of_several() {
    let error = refused(|config| (config.vcpus, config.io) = (Some(2), IoMode::Turn));
    assert!(matches!(error, MachineError::TurnsOfSeveral { vcpus: 2 }), "{error}");
    assert!(error.to_string().contains("--io thread"), "{error}");
}

#[test]
fn cpus_for_some_vcpus_only_returns_vcpu_cpus() {
    let error = refused(|config| (config.vcpus, config.vcpu_cpus) = (Some(2), vec![0]));
    assert!(matches!(error, MachineError::VcpuCpus { cpus: 1, vcpus: 2 }), "{error}");
}

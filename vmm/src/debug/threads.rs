//! Who there is: environments, and vCPUs on which none runs, as gdb's threads.
//!
//! An environment is thread `1 + number`, wherever it runs; the kernel on a vCPU that has nobody is thread `1001 + number`.

use super::hub::Event;
use super::memory::GuestMemory;
use super::session::Stop;
use crate::machine::Shared;
use abi::fault::FaultRecord;
use gdbstub::common::Tid;
use kvm_bindings::{kvm_regs, kvm_sregs};
use std::sync::atomic::Ordering;

/// Threads of vCPUs come behind those of environments.
const VCPU_TIDS: usize = 1001;

/// Where the registers of a thread are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this vCPU.
    Vcpu(u32),
    /// In the words of the kernel's page for the environment.
    Waiting(u32),
}

/// One thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thread {
    pub(super) tid: Tid,
    pub(super) place: Place,
    /// Root of its page tables.
    pub(super) root_gpa: u64,
}

/// A vCPU that is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) general: kvm_regs,
    pub(super) system: kvm_sregs,
    /// It is in ring 3, or the kernel shows a debugger what came of that.
    in_ring3: bool,
    /// Who runs on it, in ring 3 or in the kernel.
    pub(super) environment: Option<u32>,
}

impl Held {
    /// What registers tell, and what the vCPU came to.
    pub(super) fn new(
        memory: &GuestMemory,
        vcpu: u32,
        (general, system): (kvm_regs, kvm_sregs),
        stop: Option<&Stop>,
    ) -> Self {
        // Traps of the kernel itself were made something else.
        let in_ring3 =
            system.cs.selector & 3 == 3 || matches!(stop, Some(Stop { event: Event::Trap { .. }, .. }));
        let has_left_ring3 = memory.ring3_flags_va(system.cr3, vcpu).is_some();
        let environment = match stop.and_then(|stop| stop.record.as_ref()) {
            Some(FaultRecord { environment, .. }) => Some(*environment),
            None => memory.environment_of(system.cr3).filter(|_| in_ring3 || has_left_ring3),
        };
        Self { general, system, in_ring3, environment }
    }
}

pub(super) fn tid_of_environment(number: u32) -> Tid {
    Tid::MIN.saturating_add(number as usize)
}

pub(super) fn tid_of_vcpu(number: u32) -> Tid {
    Tid::MIN.saturating_add(VCPU_TIDS - 1 + number as usize)
}

/// The environment that a thread is, if it is one.
pub(super) fn environment_of(tid: Tid) -> Option<u32> {
    (tid.get() < VCPU_TIDS).then_some(tid.get() as u32 - 1)
}

/// All threads: those on vCPUs first.
pub(super) fn threads(memory: &GuestMemory, machine: &Shared, held: &[Option<Held>]) -> Vec<Thread> {
    let mut threads = Vec::new();
    for (vcpu, held) in (0..).zip(held) {
        let Some(held) = held else { continue };
        let tid = held.environment.map_or(tid_of_vcpu(vcpu), tid_of_environment);
        let root_gpa = held.environment.and_then(|number| memory.root_gpa(number)).unwrap_or(held.system.cr3);
        if threads.iter().all(|thread: &Thread| thread.tid != tid) {
            threads.push(Thread { tid, place: Place::Vcpu(vcpu), root_gpa });
        }
    }
    for (number, (pages, &root_gpa)) in (0..).zip(machine.pages.iter().zip(&memory.roots_gpa)) {
        let tid = tid_of_environment(number);
        // Whoever was started goes on somewhere; of one that has ended no page is left.
        let goes_on_va = pages.kernel.resume[0].load(Ordering::Relaxed);
        let lives = goes_on_va != 0 && memory.can_execute(number, goes_on_va);
        if lives && threads.iter().all(|thread| thread.tid != tid) {
            threads.push(Thread { tid, place: Place::Waiting(number), root_gpa });
        }
    }
    threads
}

/// What a person wants to know of a thread.
pub(super) fn describe(thread: &Thread, held: &[Option<Held>]) -> String {
    let who =
        environment_of(thread.tid).map_or("the kernel".to_owned(), |number| format!("environment {number}"));
    match thread.place {
        Place::Waiting(_) => format!("{who}, waits for the CPU"),
        Place::Vcpu(vcpu) => {
            let held = held.get(vcpu as usize).and_then(Option::as_ref);
            let in_ring3 = held.is_some_and(|held| held.in_ring3);
            match (environment_of(thread.tid), in_ring3) {
                (None, _) => format!("{who} on vCPU {vcpu}, nobody to run"),
                (_, true) => format!("{who} on vCPU {vcpu}"),
                _ => format!("{who} on vCPU {vcpu}, in the kernel"),
            }
        }
    }
}

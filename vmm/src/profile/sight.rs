//! Looking at a vCPU, on its own thread, while it stands still between two instructions.

use super::walk::{self, Registers};
use crate::account::ledger::now_tsc;
use crate::machine::Reporter;
use crate::tables::Memory;
use abi::paging::ADDRESS;
use kvm_bindings::KVM_MP_STATE_HALTED;
use kvm_ioctls::VcpuFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What there is to know of a machine to say where its vCPUs are.
pub(super) struct Guest {
    pub(super) memory: Arc<Memory>,
    pub(super) reporter: Arc<Reporter>,
}

/// What a vCPU was at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Halted.
    Halted,
    /// Code of the guest.
    Running {
        /// Whose address space it was in.
        environment: Option<u32>,
        ring: u8,
        /// The innermost first.
        frames: Vec<u64>,
    },
    /// KVM does not say.
    Unknown,
}

/// Where one vCPU's thread leaves what it saw.
#[derive(Default)]
pub(super) struct Mailbox {
    /// It was asked, and has not answered.
    waits: AtomicBool,
    seen: Mutex<Option<Seen>>,
}

/// What was seen, and what that took.
pub(super) struct Seen {
    pub(super) sight: Sight,
    pub(super) asked_tsc: u64,
    pub(super) begun_tsc: u64,
    pub(super) done_tsc: u64,
}

impl Mailbox {
    /// Whether the vCPU has not answered yet.
    pub(super) fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// It is going to be asked.
    pub(super) fn ask(&self) {
        self.waits.store(true, Ordering::Release);
    }

    /// It cannot be asked.
    pub(super) fn give_up(&self) {
        self.waits.store(false, Ordering::Release);
    }

    /// What it saw.
    pub(super) fn take(&self) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the vCPU's thread does.
    pub(super) fn look(&self, guest: &Guest, fd: &VcpuFd, asked_tsc: u64) {
        let begun_tsc = now_tsc();
        let sight = guest.look(fd);
        let seen = Seen { sight, asked_tsc, begun_tsc, done_tsc: now_tsc() };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        self.give_up();
    }
}

impl Guest {
    fn look(&self, fd: &VcpuFd) -> Sight {
        let (Ok(registers), Ok(system)) = (fd.get_regs(), fd.get_sregs()) else { return Sight::Unknown };
        let ring = (system.cs.selector & 3) as u8;
        if ring == 0 && fd.get_mp_state().is_ok_and(|state| state.mp_state == KVM_MP_STATE_HALTED) {
            return Sight::Halted;
        }
        let root_gpa = system.cr3 & ADDRESS;
        let environment = self.reporter.roots_gpa().iter().position(|&root| root == root_gpa);
        let (rip, rsp, rbp) = (registers.rip, registers.rsp, registers.rbp);
        let start = Registers { rip, rsp, rbp, ring, root_gpa };
        let frames = walk::stack(&self.memory, self.reporter.image(), &start);
        Sight::Running { environment: environment.map(|place| place as u32), ring, frames }
    }
}

//! The vCPUs' side: what a vCPU's thread does when its guest comes to something that may be a debugger's.
//!
//! With a debugger attached the thread says what happened, has its vCPU held, and that is all; the debugger's thread decides.
//! Without one, only leftovers are looked at: a breakpoint that was reached before it went, and a step whose debugger has gone.
//! Whatever else arrives here is a fault, as if there were no debuggers.

use super::memory::GuestMemory;
use super::text::{INT, INT3};
use crate::machine::Team;
use abi::fault::{GO_ON, TrapFrame};
use abi::layout::KERNEL_VA;
use kvm_ioctls::VcpuFd;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// RFLAGS.TF: an exception behind the next instruction.
pub(super) const TRAP_FLAG: u64 = 1 << 8;
/// Vector of a step that is done.
pub(super) const VECTOR_DEBUG: u64 = 1;
/// Vector of INT3.
pub(super) const VECTOR_BREAKPOINT: u64 = 3;

/// What a vCPU came to. It is held, as often as there are events of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The kernel shows an exception; the frame lies there.
    Trap { root_gpa: u64, frame_va: u64 },
    /// INT3 in ring 0, where that is interpreted and KVM does not know the instruction.
    KernelBreakpoint,
    /// An instruction of ring 0 is done.
    Stepped,
    /// The kernel has filled the vCPU's fault record; what comes behind that has not been done yet.
    Fault,
}

/// Between the vCPUs of one machine and its debugger.
pub(crate) struct Hub {
    pub(super) memory: GuestMemory,
    team: Arc<Team>,
    inbox: Mutex<Inbox>,
    /// Readable when the debugger's thread has something to look at.
    pub(super) news: EventFd,
    /// Environments that were set to be stepped and may not have noticed yet, a bit each.
    pub(super) stepping: AtomicU64,
}

#[derive(Default)]
struct Inbox {
    attached: bool,
    /// The machine is to end, or has ended.
    ending: bool,
    events: VecDeque<(u32, Event)>,
}

impl Hub {
    pub(super) fn with(memory: GuestMemory, team: Arc<Team>, news: EventFd) -> Self {
        Self { memory, team, inbox: Mutex::default(), news, stepping: AtomicU64::new(0) }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on vCPUs say what they come to. False: another debugger is attached.
    pub(super) fn attach(&self) -> bool {
        !std::mem::replace(&mut self.inbox().attached, true)
    }

    /// From now on they do not any more. What they have said and nobody has heard is not heard.
    pub(super) fn detach(&self) {
        let mut inbox = self.inbox();
        inbox.attached = false;
        for (vcpu, _) in inbox.events.drain(..) {
            if let Ok(desk) = self.team.desk(vcpu) {
                desk.release();
            }
        }
    }

    /// What vCPUs have said.
    pub(super) fn take(&self) -> VecDeque<(u32, Event)> {
        let _ = self.news.read();
        std::mem::take(&mut self.inbox().events)
    }

    /// Whether the machine is to end.
    pub(super) fn is_ending(&self) -> bool {
        self.inbox().ending
    }

    /// The machine is to end, or has ended: a debugger goes, so that the guest can finish.
    pub(crate) fn end(&self) {
        self.inbox().ending = true;
        let _ = self.news.write(1);
    }

    /// Tells the debugger, and has the vCPU held. False: there is none.
    fn say(&self, vcpu: u32, event: Event) -> bool {
        let mut inbox = self.inbox();
        if !inbox.attached || self.team.desk(vcpu).is_ok_and(|desk| desk.hold().is_err()) {
            return false;
        }
        inbox.events.push_back((vcpu, event));
        let _ = self.news.write(1);
        true
    }

    /// The kernel shows an exception: it wrote that to the register [`abi::boot::control::BREAKPOINT`].
    pub(crate) fn exception(&self, vcpu: u32, fd: &VcpuFd, frame_low: u32) {
        let Ok(system) = fd.get_sregs() else { return };
        let (root_gpa, frame_va) = (system.cr3, KERNEL_VA & !0xFFFF_FFFF | u64::from(frame_low));
        if self.say(vcpu, Event::Trap { root_gpa, frame_va }) {
            return;
        }
        if let Some(mut frame) = self.memory.frame(root_gpa, frame_va)
            && self.is_leftover(root_gpa, &mut frame)
        {
            frame.vector = GO_ON;
            self.memory.set_frame(root_gpa, frame_va, &frame);
        }
    }

    /// Whether it is of a debugger that has gone on meanwhile; then the frame is as if it had not been.
    pub(super) fn is_leftover(&self, root_gpa: u64, frame: &mut TrapFrame) -> bool {
        match frame.vector {
            VECTOR_BREAKPOINT => {
                let at = frame.rip.wrapping_sub(1);
                let byte = |va| self.memory.byte(root_gpa, va);
                // INT 3 in two bytes is the program's own: a breakpoint has one.
                let is_long = byte(at) == Some(3) && byte(at.wrapping_sub(1)) == Some(INT);
                let gone = !is_long && byte(at).is_some_and(|byte| byte != INT3);
                if gone {
                    frame.rip = at;
                }
                gone
            }
            VECTOR_DEBUG if frame.cs & 3 == 3 => {
                let bit = self.memory.environment_of(root_gpa).map_or(0, |number| 1 << number);
                let was = self.stepping.fetch_and(!bit, Ordering::Relaxed) & bit != 0;
                if was {
                    frame.rflags &= !TRAP_FLAG;
                }
                was
            }
            _ => false,
        }
    }

    /// KVM says that a step is done, or a debug register matched.
    pub(crate) fn debug_exit(&self, vcpu: u32) {
        self.say(vcpu, Event::Stepped);
    }

    /// KVM met an INT3 in ring 0, which it does not know. Whether it is a breakpoint's, or was.
    pub(crate) fn is_breakpoint(&self, vcpu: u32, fd: &VcpuFd) -> bool {
        let (Ok(registers), Ok(system)) = (fd.get_regs(), fd.get_sregs()) else { return false };
        match self.memory.byte(system.cr3, registers.rip) {
            Some(INT3) => self.say(vcpu, Event::KernelBreakpoint),
            now => now.is_some(),
        }
    }

    /// The kernel has filled its fault record. Whether a debugger looks at that before anything comes of it.
    pub(crate) fn fault(&self, vcpu: u32) -> bool {
        self.say(vcpu, Event::Fault)
    }
}

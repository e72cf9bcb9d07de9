//! Stopping: what vCPUs have come to, and what that is.

use super::{Kind, Session, Stop, debug};
use crate::debug::hub::{Event, TRAP_FLAG, VECTOR_BREAKPOINT, VECTOR_DEBUG};
use crate::debug::registers;
use crate::debug::text::INT3;
use crate::debug::threads::Held;
use crate::machine::AskError;
use abi::fault::{FaultRecord, KIND_PANIC, KIND_SLICE_OVERRUN, TrapFrame};
use gdbstub::common::Signal;
use kvm_ioctls::VcpuFd;
use std::sync::atomic::Ordering;

impl Session {
    /// Holds all vCPUs, and reads off where they are.
    pub(super) fn halt(&mut self) -> Result<(), AskError> {
        for vcpu in 0..self.machine.vcpus {
            self.pause.hold(vcpu)?;
        }
        self.absorb(false)?;
        for vcpu in 0..self.machine.vcpus {
            let state = self.pause.ask(vcpu, |fd| Some((fd.get_regs().ok()?, fd.get_sregs().ok()?)))?;
            let stop = self.stops[vcpu as usize];
            let held = state.map(|state| Held::new(&self.hub.memory, vcpu, state, stop.as_ref()));
            self.held[vcpu as usize] = held;
        }
        Ok(())
    }

    /// Takes what vCPUs have come to. `running`: what is none of the debugger's business goes on at once. Whether something is to be
    /// decided.
    pub(super) fn absorb(&mut self, running: bool) -> Result<bool, AskError> {
        let mut news = false;
        let events = self.hub.take();
        // Each event has a hold. All of them are this session's from here on, so that none is left when it ends, whatever fails meanwhile.
        self.pause.take_over(events.iter().map(|(vcpu, _)| *vcpu))?;
        for (vcpu, event) in events {
            let stop = self.classify(vcpu, event).unwrap_or_else(|error| {
                // The guest gets what it would get without a debugger.
                tracing::warn!("vCPU {vcpu} came to {event:?}, which cannot be looked at: {error}");
                Stop { event, kind: Kind::Foreign, reported: false, record: None }
            });
            self.stops[vcpu as usize] = Some(stop);
            let passes = matches!(stop.kind, Kind::Leftover | Kind::Foreign);
            if passes && running {
                self.settle(vcpu);
                self.pause.release(vcpu);
            }
            news |= !passes;
        }
        Ok(news)
    }

    pub(super) fn classify(&mut self, vcpu: u32, event: Event) -> Result<Stop, AskError> {
        let stop = |kind| Stop { event, kind, reported: false, record: None };
        match event {
            Event::Trap { root_gpa, frame_va } => {
                let Some(mut frame) = self.hub.memory.frame(root_gpa, frame_va) else {
                    return Ok(stop(Kind::Foreign));
                };
                let kind = self.classify_trap(root_gpa, &mut frame);
                if kind != Kind::Foreign {
                    self.hub.memory.set_frame(root_gpa, frame_va, &frame);
                }
                if kind != Kind::Foreign && frame.cs & 3 == 0 {
                    // Ring 0 has no use for the rest of the exception: it goes on from where it was.
                    let mut general = registers::of_frame(&frame);
                    general.eflags = frame.rflags as u32;
                    self.pause
                        .ask(vcpu, move |fd| {
                            let mut regs = fd.get_regs()?;
                            registers::into_vcpu(&general, &mut regs);
                            regs.rflags = frame.rflags & !TRAP_FLAG;
                            fd.set_regs(&regs)
                        })?
                        .map_err(|_| AskError::Failed)?;
                    return Ok(Stop { event: Event::KernelBreakpoint, ..stop(kind) });
                }
                Ok(stop(kind))
            }
            Event::KernelBreakpoint => {
                let at = |fd: &VcpuFd| Some((fd.get_regs().ok()?.rip, fd.get_sregs().ok()?.cr3));
                let (rip, root_gpa) = self.pause.ask(vcpu, at)?.ok_or(AskError::Failed)?;
                Ok(stop(match self.hub.memory.byte(root_gpa, rip) {
                    _ if self.text.has(rip) => Kind::Breakpoint(rip),
                    // Its own, and it would come here again and again.
                    Some(INT3) => Kind::Fault(Signal::SIGTRAP),
                    _ => Kind::Leftover,
                }))
            }
            Event::Stepped => {
                self.pause.ask(vcpu, |fd| debug(fd, 0))?;
                Ok(stop(Kind::Step))
            }
            Event::Fault => {
                let record = self.hub.memory.record(vcpu);
                let signal = record.as_ref().map_or(Signal::SIGABRT, signal_of);
                Ok(Stop { record, ..stop(Kind::Fault(signal)) })
            }
        }
    }

    pub(super) fn classify_trap(&self, root_gpa: u64, frame: &mut TrapFrame) -> Kind {
        let at = frame.rip.wrapping_sub(1);
        let bit = self.hub.memory.environment_of(root_gpa).map_or(0, |number| 1 << number);
        let stepping = self.hub.stepping.load(Ordering::Relaxed) & bit != 0;
        match frame.vector {
            VECTOR_BREAKPOINT if self.text.has(at) => {
                frame.rip = at;
                frame.rflags &= !TRAP_FLAG;
                Kind::Breakpoint(at)
            }
            VECTOR_DEBUG if stepping && frame.cs & 3 == 3 => {
                self.hub.stepping.fetch_and(!bit, Ordering::Relaxed);
                frame.rflags &= !TRAP_FLAG;
                Kind::Step
            }
            VECTOR_BREAKPOINT | VECTOR_DEBUG => {
                if self.hub.is_leftover(root_gpa, frame) {
                    Kind::Leftover
                } else {
                    Kind::Foreign
                }
            }
            _ if stepping => Kind::StepFault,
            _ => Kind::Foreign,
        }
    }
}

fn signal_of(record: &FaultRecord) -> Signal {
    match (record.kind, record.vector) {
        (KIND_SLICE_OVERRUN, _) => Signal::SIGXCPU,
        (KIND_PANIC, _) => Signal::SIGABRT,
        (_, 0 | 16 | 19) => Signal::SIGFPE,
        (_, VECTOR_DEBUG | VECTOR_BREAKPOINT) => Signal::SIGTRAP,
        (_, 6) => Signal::SIGILL,
        (_, 17) => Signal::SIGBUS,
        _ => Signal::SIGSEGV,
    }
}

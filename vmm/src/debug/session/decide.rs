//! All are held: what comes of what they came to, for the debugger or for who goes on.

use super::{Goal, Kind, Reason, Run, Session, Stop, Who, debug};
use crate::debug::hub::TRAP_FLAG;
use crate::debug::threads;
use crate::machine::AskError;
use gdbstub::common::Signal;
use kvm_bindings::{KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP};

impl Session {
    /// All are held: what comes of what they came to. Whether the guest stands still for the debugger.
    pub(super) fn decide(&mut self) -> Result<bool, AskError> {
        if let Run::Alone { vcpu, who, pc, step, .. } = self.run {
            let kind = self.stops[vcpu as usize].map(|stop| stop.kind);
            self.pause.ask(vcpu, |fd| debug(fd, 0))?;
            self.text.lower(&self.hub.memory);
            match kind {
                Some(Kind::Step) => {
                    self.mend_pushed_flags(vcpu, pc);
                    if step {
                        self.report(vcpu);
                        return Ok(true);
                    }
                }
                // The others can get on, which it may be waiting for; breakpoints are where they were.
                None | Some(Kind::StepFault) => {
                    if let (Who::Vcpu(_), None) = (who, kind) {
                        self.pause
                            .ask(vcpu, |fd| debug(fd, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP))?;
                    }
                    if step {
                        self.goal = Goal::Step(who);
                    }
                }
                Some(_) => {}
            }
            self.run = Run::All;
        }
        if let Some(vcpu) = self.arrived() {
            self.report(vcpu);
            return Ok(true);
        }
        if let Some(vcpu) = self.unreported() {
            self.report(vcpu);
            return Ok(true);
        }
        // Whoever came to a breakpoint that is for somebody else gets over it.
        for (vcpu, stop) in (0..).zip(&self.stops) {
            let passes = stop.is_some_and(|stop| matches!(stop.kind, Kind::Breakpoint(_)));
            if passes && !self.over.contains(&vcpu) {
                self.over.push(vcpu);
            }
        }
        self.next()?;
        Ok(false)
    }

    /// The vCPU that has done what all ran for.
    pub(super) fn arrived(&self) -> Option<u32> {
        let done = |vcpu: u32, stop: &Stop| match (self.goal, stop.kind) {
            (Goal::Step(Who::Vcpu(who)), Kind::Step) => who == vcpu,
            (Goal::Step(Who::Environment(who)), Kind::Step) => self.runs(vcpu, who),
            (Goal::Reach(who, va), Kind::Breakpoint(at)) => at == va && self.runs(vcpu, who),
            _ => false,
        };
        let stops = (0..).zip(&self.stops).filter_map(|(vcpu, stop)| Some((vcpu, stop.as_ref()?)));
        stops.filter(|(vcpu, stop)| done(*vcpu, stop)).map(|(vcpu, _)| vcpu).next()
    }

    pub(super) fn runs(&self, vcpu: u32, environment: u32) -> bool {
        self.held[vcpu as usize].is_some_and(|held| held.environment == Some(environment))
    }

    /// PUSHF saves the flag that makes a step: nobody is to see it there.
    pub(super) fn mend_pushed_flags(&self, vcpu: u32, pc: u64) {
        const PUSHF: u8 = 0x9C;
        let (Some((root_gpa, _, frame)), memory) = (self.frame(vcpu), &self.hub.memory) else { return };
        let mut instruction = [0];
        for (_, gpa, _) in memory.pieces(root_gpa, pc, 1) {
            memory.read_physical(gpa, &mut instruction);
            self.text.hide(gpa, &mut instruction);
        }
        if instruction == [PUSHF]
            && let Some(flags) = memory.word(root_gpa, frame.rsp)
        {
            memory.set_word(root_gpa, frame.rsp, flags & !TRAP_FLAG);
        }
    }

    /// Tells the debugger what a vCPU came to.
    pub(super) fn report(&mut self, vcpu: u32) {
        let held = self.held[vcpu as usize];
        let environment = held.and_then(|held| held.environment);
        let tid = environment.map_or(threads::tid_of_vcpu(vcpu), threads::tid_of_environment);
        let asked = &self.asked;
        let Some(stop) = &mut self.stops[vcpu as usize] else { return };
        stop.reported = true;
        let reason = match stop.kind {
            Kind::Breakpoint(at) if asked.contains(&at) => Reason::SwBreak(tid),
            Kind::Fault(signal) => Reason::SignalWithThread { tid, signal },
            _ => Reason::SignalWithThread { tid, signal: Signal::SIGTRAP },
        };
        self.forget_steps();
        self.stand(reason);
    }

    /// Nothing is run for any more.
    pub(super) fn forget_steps(&mut self) {
        if let Goal::Reach(_, va) = std::mem::replace(&mut self.goal, Goal::None) {
            self.text.remove(&self.hub.memory, va);
        }
        self.over.clear();
    }

    pub(super) fn stand(&mut self, reason: Reason) {
        self.run = Run::Halted;
        self.ready = Some(reason);
    }
}

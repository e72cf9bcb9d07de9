//! Going on: all vCPUs, or one of them for one instruction.

use super::{ALONE, Action, Goal, Kind, Run, Session, Stop, Who, debug};
use crate::debug::hub::TRAP_FLAG;
use crate::debug::threads::{self, Held, Place};
use crate::machine::AskError;
use abi::fault::GO_ON;
use abi::layout::{GATE_VA, PAGE_BYTES, PAGES_VA};
use gdbstub::common::Tid;
use kvm_bindings::{KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_regs};
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Session {
    /// Does what [`Self::action`] says.
    pub(in crate::debug) fn resume(&mut self) -> Result<(), AskError> {
        self.over.clear();
        // What happened at the same time as what was told before.
        if let Some(vcpu) = self.unreported() {
            self.report(vcpu);
            return Ok(());
        }
        if let Action::Step(tid) = self.action {
            return self.step(tid);
        }
        let at_breakpoint = |stop: &Option<Stop>| {
            stop.is_some_and(|stop| matches!(stop.kind, Kind::Breakpoint(_) | Kind::Step))
        };
        let over = (0..).zip(&self.stops).filter(|(_, stop)| at_breakpoint(stop)).map(|(vcpu, _)| vcpu);
        self.over = over.collect();
        self.next()
    }

    pub(super) fn unreported(&self) -> Option<u32> {
        let tells = |stop: &Stop| match stop.kind {
            Kind::Breakpoint(at) => self.asked.contains(&at),
            Kind::Fault(_) => true,
            _ => false,
        };
        let found =
            self.stops.iter().position(|stop| stop.is_some_and(|stop| !stop.reported && tells(&stop)));
        found.map(|vcpu| vcpu as u32)
    }

    pub(super) fn step(&mut self, tid: Tid) -> Result<(), AskError> {
        let Some(thread) = self.thread(tid) else { return self.next() };
        let vcpu = match thread.place {
            Place::Vcpu(vcpu) => vcpu,
            Place::Waiting(number) => {
                let pages = self.machine.pages.get(number as usize);
                let word =
                    |at: usize| pages.map_or(0, |pages| pages.kernel.resume[at].load(Ordering::Relaxed));
                return self.reach(number, self.behind_gate(thread.root_gpa, word(0), word(1)));
            }
        };
        let is_fault = matches!(self.stops[vcpu as usize], Some(Stop { kind: Kind::Fault(_), .. }));
        let (Some(registers), false) = (self.registers_on(vcpu), is_fault) else { return self.next() };
        match threads::environment_of(tid) {
            // Some calls give the CPU away, and all registers with it.
            Some(number) if registers.rip == GATE_VA => {
                self.reach(number, self.behind_gate(thread.root_gpa, registers.rip, registers.regs[7]))
            }
            _ => self.alone(vcpu, true),
        }
    }

    /// Where somebody goes on; if that is in the gate page, where the gate returns to.
    pub(super) fn behind_gate(&self, root_gpa: u64, rip: u64, rsp: u64) -> u64 {
        if rip & !(PAGE_BYTES - 1) != GATE_VA {
            return rip;
        }
        self.hub.memory.word(root_gpa, rsp).unwrap_or(0)
    }

    /// All go on until an environment comes to an address.
    pub(super) fn reach(&mut self, number: u32, va: u64) -> Result<(), AskError> {
        // The address may be the environment's own word: nothing is written where it could not go on, the kernel's text least of all.
        let own = va < PAGES_VA && self.hub.memory.can_execute(number, va);
        if own && self.text.add(&self.hub.memory, va).is_ok() {
            self.goal = Goal::Reach(number, va);
        }
        self.next()
    }

    /// The next vCPU that has to get over a breakpoint does; if there is none, all go on.
    pub(super) fn next(&mut self) -> Result<(), AskError> {
        while let Some(vcpu) = self.over.pop() {
            let pc = self.registers_on(vcpu).map(|registers| registers.rip);
            if pc.is_some_and(|pc| self.text.has(pc)) {
                return self.alone(vcpu, false);
            }
        }
        self.all()
    }

    /// All go on.
    pub(super) fn all(&mut self) -> Result<(), AskError> {
        self.text.lower(&self.hub.memory);
        for vcpu in 0..self.machine.vcpus {
            self.settle(vcpu);
        }
        self.run = Run::All;
        for vcpu in 0..self.machine.vcpus {
            self.pause.release(vcpu);
        }
        Ok(())
    }

    /// What a vCPU came to is over: it goes on with what the frame holds.
    pub(super) fn settle(&mut self, vcpu: u32) {
        if let Some((root_gpa, frame_va, mut frame)) = self.frame(vcpu) {
            let kind = self.stops[vcpu as usize].map(|stop| stop.kind);
            if matches!(kind, Some(Kind::Breakpoint(_) | Kind::Step | Kind::Leftover)) {
                frame.vector = GO_ON;
                self.hub.memory.set_frame(root_gpa, frame_va, &frame);
            }
        }
        self.stops[vcpu as usize] = None;
        self.held[vcpu as usize] = None;
    }

    /// One vCPU executes one instruction, without the breakpoint that may be there.
    pub(super) fn alone(&mut self, vcpu: u32, step: bool) -> Result<(), AskError> {
        let (Some(held), Some(registers)) = (self.held[vcpu as usize], self.registers_on(vcpu)) else {
            return self.all();
        };
        let memory = &self.hub.memory;
        let pc = registers.rip;
        let environment = memory.environment_of(held.system.cr3).unwrap_or(0);
        let mut who = Who::Environment(environment);
        let mut control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_BLOCKIRQ;
        self.text.lift(memory, pc);
        let mut general = None;
        if let Some((root_gpa, frame_va, mut frame)) = self.frame(vcpu) {
            frame.rflags |= TRAP_FLAG;
            memory.set_frame(root_gpa, frame_va, &frame);
        } else if held.system.cs.selector & 3 == 3 {
            general = Some(kvm_regs { rflags: held.general.rflags | TRAP_FLAG, ..held.general });
        } else if let Some(flags_va) = self.leaves_kernel(&held) {
            let flags = memory.word(held.system.cr3, flags_va).unwrap_or(0);
            memory.set_word(held.system.cr3, flags_va, flags | TRAP_FLAG);
        } else {
            who = Who::Vcpu(vcpu);
            control |= KVM_GUESTDBG_SINGLESTEP;
        }
        if let Who::Environment(number) = who {
            self.hub.stepping.fetch_or(1 << number, Ordering::Relaxed);
        }
        self.pause.ask(vcpu, move |fd| {
            if let Some(general) = general {
                let _ = fd.set_regs(&general);
            }
            debug(fd, control);
        })?;
        self.settle(vcpu);
        self.run = Run::Alone { vcpu, who, pc, step, deadline: Instant::now() + ALONE };
        self.pause.release(vcpu);
        Ok(())
    }

    /// If the next instruction is the IRETQ to ring 3: where the flags lie that it loads.
    pub(super) fn leaves_kernel(&self, held: &Held) -> Option<u64> {
        const IRETQ: [u8; 2] = [0x48, 0xCF];
        let memory = &self.hub.memory;
        let (root_gpa, rip, rsp) = (held.system.cr3, held.general.rip, held.general.rsp);
        let is = [memory.byte(root_gpa, rip)?, memory.byte(root_gpa, rip.wrapping_add(1))?] == IRETQ;
        (is && memory.word(root_gpa, rsp.wrapping_add(8))? & 3 == 3).then_some(rsp.wrapping_add(16))
    }
}

//! What one debugger does with a machine: stops it, lets it go on, has it take single steps.
//!
//! While the debugger looks, all vCPUs are held. To get over a breakpoint, or to take a step, one vCPU is let go with the
//! instruction in its place and interrupts withheld, and all others stay: nobody runs past a breakpoint that is lifted. If the
//! instruction turns out to be long (a fault that is handled, a kernel call, a turn), the breakpoints are put back and all go on
//! until it is done.
//!
//! Whatever ends a session, dropping it puts everything back.

use super::hub::{Event, Hub, TRAP_FLAG, VECTOR_BREAKPOINT, VECTOR_DEBUG};
use super::registers;
use super::text::{Text, TextError};
use super::threads::{self, Held, Place, Thread};
use crate::machine::{AskError, End, Pause, Shared};
use abi::fault::{FaultRecord, GO_ON, KIND_PANIC, KIND_SLICE_OVERRUN, TrapFrame};
use abi::layout::{GATE_VA, PAGE_BYTES};
use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use kvm_bindings::{KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_guest_debug};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What an instruction may take that is executed alone; all go on with one that takes longer.
const ALONE: Duration = Duration::from_millis(50);

/// Why the guest stopped.
pub(super) type Reason = MultiThreadStopReason<u64>;

/// What a held vCPU came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub(super) event: Event,
    pub(super) kind: Kind,
    /// The debugger knows.
    reported: bool,
    /// Of a fault.
    pub(super) record: Option<FaultRecord>,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A breakpoint at this address.
    Breakpoint(u64),
    /// A step is done.
    Step,
    /// An exception while a step was taken, which is to be handled first.
    StepFault,
    /// Something that ends the environment or the machine.
    Fault(Signal),
    /// Of a breakpoint or step that is not there any more.
    Leftover,
    /// None of a debugger's: a fault will come of it.
    Foreign,
}

/// Who.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Environment(u32),
    Vcpu(u32),
}

/// What all run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Nothing but a breakpoint ends it.
    None,
    /// A step is being taken.
    Step(Who),
    /// An environment comes to an address, where there is a breakpoint for that.
    Reach(u32, u64),
}

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Halted,
    /// One vCPU executes one instruction. To get over a breakpoint, or because a step was asked for.
    Alone {
        vcpu: u32,
        who: Who,
        pc: u64,
        step: bool,
        deadline: Instant,
    },
    All,
}

/// What the debugger wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Continue,
    Step(Tid),
}

/// One debugger's.
pub(super) struct Session {
    pub(super) hub: Arc<Hub>,
    machine: Arc<Shared>,
    pause: Pause,
    text: Text,
    /// Breakpoints that the debugger asked for.
    asked: BTreeSet<u64>,
    stops: Vec<Option<Stop>>,
    /// While halted.
    held: Vec<Option<Held>>,
    run: Run,
    goal: Goal,
    /// vCPUs that have to get over their breakpoint first.
    over: Vec<u32>,
    /// To be told to the debugger.
    ready: Option<Reason>,
    pub(super) action: Action,
    ended: bool,
}

impl Session {
    /// Stops the machine of `hub`, which has been told.
    pub(super) fn begin(hub: Arc<Hub>, machine: Arc<Shared>) -> Result<Self, AskError> {
        let pause = machine.team.pause().inspect_err(|_| hub.detach())?;
        let vcpus = machine.vcpus as usize;
        let mut session = Self {
            hub,
            machine,
            pause,
            text: Text::default(),
            asked: BTreeSet::new(),
            stops: vec![None; vcpus],
            held: vec![None; vcpus],
            run: Run::Halted,
            goal: Goal::None,
            over: Vec::new(),
            ready: None,
            action: Action::Continue,
            ended: false,
        };
        session.halt()?;
        Ok(session)
    }

    /// Whether the guest stands still.
    pub(super) fn is_halted(&self) -> bool {
        self.run == Run::Halted
    }

    /// What is to be told to the debugger.
    pub(super) fn take_ready(&mut self) -> Option<Reason> {
        self.ready.take()
    }

    /// When [`Self::look`] is to be called at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.run {
            Run::Alone { deadline, .. } => Some(deadline),
            _ => None,
        }
    }

    // ---- who and what there is, while the guest stands still

    pub(super) fn threads(&self) -> Vec<Thread> {
        threads::threads(&self.hub.memory, &self.machine, &self.held)
    }

    pub(super) fn thread(&self, tid: Tid) -> Option<Thread> {
        self.threads().into_iter().find(|thread| thread.tid == tid)
    }

    pub(super) fn describe(&self, tid: Tid) -> Option<String> {
        self.thread(tid).map(|thread| threads::describe(&thread, &self.held))
    }

    /// The frame in front of which a vCPU is stopped, and where it lies.
    fn frame(&self, vcpu: u32) -> Option<(u64, u64, TrapFrame)> {
        let Some(Stop { event: Event::Trap { root_gpa, frame_va }, .. }) = self.stops[vcpu as usize] else {
            return None;
        };
        Some((root_gpa, frame_va, self.hub.memory.frame(root_gpa, frame_va)?))
    }

    pub(super) fn registers(&self, tid: Tid) -> Option<X86_64CoreRegs> {
        match self.thread(tid)?.place {
            Place::Waiting(number) => {
                Some(registers::of_waiting(&self.machine.pages.get(number as usize)?.kernel))
            }
            Place::Vcpu(vcpu) => {
                let mut registers = self.registers_on(vcpu)?;
                if let Ok(Ok(area)) = self.pause.ask(vcpu, |fd| fd.get_xsave()) {
                    registers::add_extended(&area, &mut registers);
                }
                Some(registers)
            }
        }
    }

    /// The general ones.
    fn registers_on(&self, vcpu: u32) -> Option<X86_64CoreRegs> {
        let held = self.held[vcpu as usize].as_ref()?;
        let record =
            self.stops[vcpu as usize].and_then(|stop| stop.record).filter(|record| record.kind != KIND_PANIC);
        Some(match (record, self.frame(vcpu)) {
            (Some(record), _) => registers::of_record(&record),
            (None, Some((_, _, frame))) => registers::of_frame(&frame),
            (None, None) => registers::of_vcpu(&held.general, &held.system),
        })
    }

    /// False: they cannot be changed, at least not in this way.
    pub(super) fn set_registers(&mut self, tid: Tid, wanted: &X86_64CoreRegs) -> bool {
        let Some(thread) = self.thread(tid) else { return false };
        let vcpu = match thread.place {
            Place::Waiting(number) => {
                let pages = self.machine.pages.get(number as usize);
                return pages.is_some_and(|pages| registers::into_waiting(wanted, &pages.kernel));
            }
            Place::Vcpu(vcpu) => vcpu,
        };
        if matches!(self.stops[vcpu as usize], Some(Stop { kind: Kind::Fault(_), .. })) {
            return false;
        }
        if let Some((root_gpa, frame_va, mut frame)) = self.frame(vcpu) {
            registers::into_frame(wanted, &mut frame);
            self.hub.memory.set_frame(root_gpa, frame_va, &frame);
        } else {
            let Some(held) = &mut self.held[vcpu as usize] else { return false };
            registers::into_vcpu(wanted, &mut held.general);
            let general = held.general;
            if !matches!(self.pause.ask(vcpu, move |fd| fd.set_regs(&general)), Ok(Ok(()))) {
                return false;
            }
        }
        let wanted = wanted.clone();
        let extended = self.pause.ask(vcpu, move |fd| {
            let mut area = fd.get_xsave()?;
            registers::into_extended(&wanted, &mut area);
            // SAFETY: the area is what KVM gave, with other values in it; KVM checks them.
            unsafe { fd.set_xsave(&area) }
        });
        matches!(extended, Ok(Ok(())))
    }

    /// Reads from `va` on as far as it is mapped; how many bytes that is.
    pub(super) fn read(&self, tid: Tid, va: u64, bytes: &mut [u8]) -> usize {
        let Some(root_gpa) = self.root_gpa(tid) else { return 0 };
        let mut done = 0;
        for (offset, gpa, len) in self.hub.memory.pieces(root_gpa, va, bytes.len()) {
            let piece = &mut bytes[offset..offset + len];
            if !self.hub.memory.read_physical(gpa, piece) {
                break;
            }
            self.text.hide(gpa, piece);
            done += len;
        }
        done
    }

    /// Writes all of it. False: not all of it is memory; nothing was written.
    pub(super) fn write(&mut self, tid: Tid, va: u64, bytes: &[u8]) -> bool {
        let Some(root_gpa) = self.root_gpa(tid) else { return false };
        let memory = &self.hub.memory;
        let pieces: Vec<_> = memory.pieces(root_gpa, va, bytes.len()).collect();
        let covered: usize = pieces.iter().map(|&(_, _, len)| len).sum();
        let is_memory = |&(_, gpa, len): &(usize, u64, usize)| memory.read_physical(gpa, &mut vec![0; len]);
        if covered != bytes.len() || !pieces.iter().all(is_memory) {
            return false;
        }
        for (offset, gpa, len) in pieces {
            let mut piece = bytes[offset..offset + len].to_vec();
            self.text.keep(gpa, &mut piece);
            memory.write_physical(gpa, &piece);
        }
        true
    }

    fn root_gpa(&self, tid: Tid) -> Option<u64> {
        // While it runs, nobody knows where whom; an environment has its page tables all the same.
        let environment = threads::environment_of(tid).and_then(|number| self.hub.memory.root_gpa(number));
        environment.or_else(|| self.thread(tid).map(|thread| thread.root_gpa))
    }

    pub(super) fn add_breakpoint(&mut self, va: u64) -> Result<(), TextError> {
        if !self.asked.contains(&va) {
            self.text.add(&self.hub.memory, va)?;
            self.asked.insert(va);
        }
        Ok(())
    }

    pub(super) fn remove_breakpoint(&mut self, va: u64) -> bool {
        self.asked.remove(&va) && self.text.remove(&self.hub.memory, va)
    }

    // ---- going on

    /// Does what [`Self::action`] says.
    pub(super) fn resume(&mut self) -> Result<(), AskError> {
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

    fn unreported(&self) -> Option<u32> {
        let tells = |stop: &Stop| match stop.kind {
            Kind::Breakpoint(at) => self.asked.contains(&at),
            Kind::Fault(_) => true,
            _ => false,
        };
        let found =
            self.stops.iter().position(|stop| stop.is_some_and(|stop| !stop.reported && tells(&stop)));
        found.map(|vcpu| vcpu as u32)
    }

    fn step(&mut self, tid: Tid) -> Result<(), AskError> {
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
    fn behind_gate(&self, root_gpa: u64, rip: u64, rsp: u64) -> u64 {
        if rip & !(PAGE_BYTES - 1) != GATE_VA {
            return rip;
        }
        self.hub.memory.word(root_gpa, rsp).unwrap_or(0)
    }

    /// All go on until an environment comes to an address.
    fn reach(&mut self, number: u32, va: u64) -> Result<(), AskError> {
        if self.text.add(&self.hub.memory, va).is_ok() {
            self.goal = Goal::Reach(number, va);
        }
        self.next()
    }

    /// The next vCPU that has to get over a breakpoint does; if there is none, all go on.
    fn next(&mut self) -> Result<(), AskError> {
        while let Some(vcpu) = self.over.pop() {
            let pc = self.registers_on(vcpu).map(|registers| registers.rip);
            if pc.is_some_and(|pc| self.text.has(pc)) {
                return self.alone(vcpu, false);
            }
        }
        self.all()
    }

    /// All go on.
    fn all(&mut self) -> Result<(), AskError> {
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
    fn settle(&mut self, vcpu: u32) {
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
    fn alone(&mut self, vcpu: u32, step: bool) -> Result<(), AskError> {
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
            general =
                Some(kvm_bindings::kvm_regs { rflags: held.general.rflags | TRAP_FLAG, ..held.general });
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
    fn leaves_kernel(&self, held: &Held) -> Option<u64> {
        const IRETQ: [u8; 2] = [0x48, 0xCF];
        let memory = &self.hub.memory;
        let (root_gpa, rip, rsp) = (held.system.cr3, held.general.rip, held.general.rsp);
        let is = [memory.byte(root_gpa, rip)?, memory.byte(root_gpa, rip + 1)?] == IRETQ;
        (is && memory.word(root_gpa, rsp + 8)? & 3 == 3).then_some(rsp + 16)
    }

    // ---- stopping

    /// Ctrl-C.
    pub(super) fn interrupt(&mut self) -> Result<(), AskError> {
        self.halt()?;
        if let Run::Alone { vcpu, .. } = self.run {
            // What is left of the step is noticed as a leftover.
            self.pause.ask(vcpu, |fd| debug(fd, 0))?;
        }
        if let Some(vcpu) = self.unreported() {
            self.report(vcpu);
            return Ok(());
        }
        self.forget_steps();
        let first = self.threads().first().map(|thread| thread.tid);
        let tid = first.unwrap_or(threads::tid_of_vcpu(0));
        self.stand(Reason::SignalWithThread { tid, signal: Signal::SIGINT });
        Ok(())
    }

    /// Something happened, or the time of [`Self::deadline`] has come.
    pub(super) fn look(&mut self) -> Result<(), AskError> {
        let news = self.absorb(true)?;
        let late = self.deadline().is_some_and(|deadline| deadline <= Instant::now());
        if news || late {
            self.halt()?;
            self.decide()?;
        }
        Ok(())
    }

    /// Holds all vCPUs, and reads off where they are.
    fn halt(&mut self) -> Result<(), AskError> {
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
    fn absorb(&mut self, running: bool) -> Result<bool, AskError> {
        let mut news = false;
        for (vcpu, event) in self.hub.take() {
            // One hold is the event's.
            self.pause.hold(vcpu)?;
            if let Ok(desk) = self.machine.team.desk(vcpu) {
                desk.release();
            }
            let stop = self.classify(vcpu, event)?;
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

    fn classify(&mut self, vcpu: u32, event: Event) -> Result<Stop, AskError> {
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
                let rip = self.pause.ask(vcpu, |fd| fd.get_regs().map_or(0, |regs| regs.rip))?;
                Ok(stop(if self.text.has(rip) { Kind::Breakpoint(rip) } else { Kind::Leftover }))
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

    fn classify_trap(&self, root_gpa: u64, frame: &mut TrapFrame) -> Kind {
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

    /// All are held: what comes of what they came to. Whether the guest stands still for the debugger.
    fn decide(&mut self) -> Result<bool, AskError> {
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
    fn arrived(&self) -> Option<u32> {
        let done = |vcpu: u32, stop: &Stop| match (self.goal, stop.kind) {
            (Goal::Step(Who::Vcpu(who)), Kind::Step) => who == vcpu,
            (Goal::Step(Who::Environment(who)), Kind::Step) => self.runs(vcpu, who),
            (Goal::Reach(who, va), Kind::Breakpoint(at)) => at == va && self.runs(vcpu, who),
            _ => false,
        };
        let stops = (0..).zip(&self.stops).filter_map(|(vcpu, stop)| Some((vcpu, stop.as_ref()?)));
        stops.filter(|(vcpu, stop)| done(*vcpu, stop)).map(|(vcpu, _)| vcpu).next()
    }

    fn runs(&self, vcpu: u32, environment: u32) -> bool {
        self.held[vcpu as usize].is_some_and(|held| held.environment == Some(environment))
    }

    /// PUSHF saves the flag that makes a step: nobody is to see it there.
    fn mend_pushed_flags(&self, vcpu: u32, pc: u64) {
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
    fn report(&mut self, vcpu: u32) {
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
    fn forget_steps(&mut self) {
        if let Goal::Reach(_, va) = std::mem::replace(&mut self.goal, Goal::None) {
            self.text.remove(&self.hub.memory, va);
        }
        self.over.clear();
    }

    fn stand(&mut self, reason: Reason) {
        self.run = Run::Halted;
        self.ready = Some(reason);
    }

    /// How the machine ended, if it did.
    pub(super) fn machine_end(&self) -> Option<End> {
        self.machine.how_it_ended()
    }

    /// Puts everything back, and lets the machine go on. Once more does nothing.
    pub(super) fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let halted = self.halt();
        self.text.clear(&self.hub.memory);
        if halted.is_ok() {
            for vcpu in 0..self.machine.vcpus {
                let held = self.held[vcpu as usize];
                self.settle(vcpu);
                // If a step was under way: what the vCPU itself has of it. What lies on a stack is noticed as a leftover.
                let _ = self.pause.ask(vcpu, move |fd| {
                    debug(fd, 0);
                    if let Some(Held { mut general, system, .. }) = held
                        && system.cs.selector & 3 == 3
                        && general.rflags & TRAP_FLAG != 0
                    {
                        general.rflags &= !TRAP_FLAG;
                        let _ = fd.set_regs(&general);
                    }
                });
            }
        }
        self.hub.detach();
        for vcpu in 0..self.machine.vcpus {
            self.pause.release(vcpu);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

/// What KVM is to do about a vCPU's steps and interrupts.
fn debug(fd: &kvm_ioctls::VcpuFd, control: u32) {
    let settings = kvm_guest_debug { control, ..Default::default() };
    if let Err(error) = fd.set_guest_debug(&settings) {
        tracing::debug!("KVM_SET_GUEST_DEBUG {control:#x}: {error}");
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

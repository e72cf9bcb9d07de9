//! What a debugger sees of a guest that stands still, and changes: threads, registers, memory, breakpoints.

use super::{Kind, Session, Stop};
use crate::debug::hub::Event;
use crate::debug::registers;
use crate::debug::text::TextError;
use crate::debug::threads::{self, Place, Thread};
use abi::fault::{KIND_PANIC, TrapFrame};
use gdbstub::common::Tid;
use gdbstub_arch::x86::reg::X86_64CoreRegs;

impl Session {
    pub(in crate::debug) fn threads(&self) -> Vec<Thread> {
        threads::threads(&self.hub.memory, &self.machine, &self.held)
    }

    pub(in crate::debug) fn thread(&self, tid: Tid) -> Option<Thread> {
        self.threads().into_iter().find(|thread| thread.tid == tid)
    }

    pub(in crate::debug) fn describe(&self, tid: Tid) -> Option<String> {
        self.thread(tid).map(|thread| threads::describe(&thread, &self.held))
    }

    /// The frame in front of which a vCPU is stopped, and where it lies.
    pub(super) fn frame(&self, vcpu: u32) -> Option<(u64, u64, TrapFrame)> {
        let Some(Stop { event: Event::Trap { root_gpa, frame_va }, .. }) = self.stops[vcpu as usize] else {
            return None;
        };
        Some((root_gpa, frame_va, self.hub.memory.frame(root_gpa, frame_va)?))
    }

    pub(in crate::debug) fn registers(&self, tid: Tid) -> Option<X86_64CoreRegs> {
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
    pub(super) fn registers_on(&self, vcpu: u32) -> Option<X86_64CoreRegs> {
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
    pub(in crate::debug) fn set_registers(&mut self, tid: Tid, wanted: &X86_64CoreRegs) -> bool {
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
    pub(in crate::debug) fn read(&self, tid: Tid, va: u64, bytes: &mut [u8]) -> usize {
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
    pub(in crate::debug) fn write(&mut self, tid: Tid, va: u64, bytes: &[u8]) -> bool {
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

    pub(super) fn root_gpa(&self, tid: Tid) -> Option<u64> {
        // While it runs, nobody knows where whom; an environment has its page tables all the same.
        let environment = threads::environment_of(tid).and_then(|number| self.hub.memory.root_gpa(number));
        environment.or_else(|| self.thread(tid).map(|thread| thread.root_gpa))
    }

    pub(in crate::debug) fn add_breakpoint(&mut self, va: u64) -> Result<(), TextError> {
        if !self.asked.contains(&va) {
            self.text.add(&self.hub.memory, va)?;
            self.asked.insert(va);
        }
        Ok(())
    }

    pub(in crate::debug) fn remove_breakpoint(&mut self, va: u64) -> bool {
        self.asked.remove(&va) && self.text.remove(&self.hub.memory, va)
    }
}

//! What gdb asks, in terms of a session.

use super::session::{Action, Session};
use super::threads;
use crate::machine::AskError;
use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{Breakpoints, BreakpointsOps, SwBreakpoint, SwBreakpointOps};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;

/// What gdb shows for memory that there is not.
const EFAULT: u8 = libc::EFAULT as u8;

impl Session {
    /// Only while the guest stands still; a client that asks meanwhile gets an error.
    fn while_halted(&self) -> TargetResult<(), Self> {
        if self.is_halted() { Ok(()) } else { Err(TargetError::NonFatal) }
    }
}

impl Target for Session {
    type Arch = X86_64_SSE;
    type Error = AskError;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Session {
    fn read_registers(&mut self, registers: &mut X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        self.while_halted()?;
        *registers = self.registers(tid).ok_or(TargetError::NonFatal)?;
        Ok(())
    }

    fn write_registers(&mut self, registers: &X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        self.while_halted()?;
        if self.set_registers(tid, registers) { Ok(()) } else { Err(TargetError::NonFatal) }
    }

    fn read_addrs(&mut self, va: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        match self.read(tid, va, data) {
            0 if !data.is_empty() => Err(TargetError::Errno(EFAULT)),
            count => Ok(count),
        }
    }

    fn write_addrs(&mut self, va: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        self.while_halted()?;
        if self.write(tid, va, data) { Ok(()) } else { Err(TargetError::Errno(EFAULT)) }
    }

    fn list_active_threads(&mut self, register: &mut dyn FnMut(Tid)) -> Result<(), Self::Error> {
        let threads = self.threads();
        threads.iter().for_each(|thread| register(thread.tid));
        if threads.is_empty() {
            // Running, with nobody who waits. There is always one.
            register(threads::tid_of_vcpu(0));
        }
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl ThreadExtraInfo for Session {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        let text = self.describe(tid).unwrap_or_default();
        let len = text.len().min(buffer.len());
        buffer[..len].copy_from_slice(&text.as_bytes()[..len]);
        Ok(len)
    }
}

impl MultiThreadResume for Session {
    fn resume(&mut self) -> Result<(), Self::Error> {
        // Whoever says it twice has been heard.
        if self.is_halted() { Session::resume(self) } else { Ok(()) }
    }

    fn clear_resume_actions(&mut self) -> Result<(), Self::Error> {
        self.action = Action::Continue;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, _: Tid, _: Option<Signal>) -> Result<(), Self::Error> {
        // All go on: who runs is the kernel's business.
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Session {
    fn set_resume_action_step(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Self::Error> {
        self.action = Action::Step(tid);
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Session {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Self::Error> {
        // A step is taken alone in any case, as far as it can be.
        Ok(())
    }
}

impl Breakpoints for Session {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Session {
    fn add_sw_breakpoint(&mut self, va: u64, _: usize) -> TargetResult<bool, Self> {
        self.while_halted()?;
        match self.add_breakpoint(va) {
            Ok(()) => Ok(true),
            Err(error) => {
                tracing::warn!("no breakpoint at {va:#x}: {error}");
                Ok(false)
            }
        }
    }

    fn remove_sw_breakpoint(&mut self, va: u64, _: usize) -> TargetResult<bool, Self> {
        self.while_halted()?;
        Ok(self.remove_breakpoint(va))
    }
}

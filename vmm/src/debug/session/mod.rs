//! What one debugger does with a machine: stops it, lets it go on, has it take single steps.
//!
//! While the debugger looks, all vCPUs are held. To get over a breakpoint, or to take a step, one vCPU is let go with the
//! instruction in its place and interrupts withheld, and all others stay: nobody runs past a breakpoint that is lifted. If the
//! instruction turns out to be long (a fault that is handled, a kernel call, a turn), the breakpoints are put back and all go on
//! until it is done.
//!
//! Whatever ends a session, dropping it puts everything back.
//!
//! | module | what |
//! | --- | --- |
//! | [`seen`] | what a debugger sees while the guest stands still |
//! | [`go`] | all go on, or one for one instruction |
//! | [`stops`] | what vCPUs come to |
//! | [`decide`] | what comes of that |

mod decide;
mod go;
mod seen;
mod stops;

use super::hub::{Event, Hub, TRAP_FLAG};
use super::text::Text;
use super::threads::{self, Held};
use crate::machine::{AskError, End, Pause, Shared};
use abi::fault::FaultRecord;
use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use kvm_bindings::kvm_guest_debug;
use std::collections::BTreeSet;
use std::sync::Arc;
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

//! Asking for what was given, and giving the tail of a range back. What is not given by the deadline is taken: [`super::repossession`].
//!
//! Taking a tail is what a holder does by [`abi::call::Call::CapabilityTrim`], step by step, by the kernel's hand. Each of the two
//! has its own place to remember how far it is: what somebody trims meanwhile does not bring the kernel back to the start.

use crate::arch::entry::TrapFrame;
use crate::kernel::Kernel;
use abi::call::Error;
use abi::capability::{CAPABILITIES, Handle, Kind, LEAVING, TRIMMING};
use abi::domain::DOMAINS;
use abi::layout::{PAGE_BYTES, RESUME_VA};
use abi::revocation::{ASKS, GRACE_MAX_MS, GRACE_MIN_MS};
use core::sync::atomic::Ordering;
use xok_core::refuse;

/// Steps that one call makes.
const STEPS: u32 = 4;
/// On whose behalf the kernel takes what was not given.
pub(super) const NOBODY: u32 = u32::MAX;

/// How far the taking of one tail is.
#[derive(Clone, Copy)]
pub(super) struct Trim {
    /// Number of the capability plus one; 0: none.
    pub(super) capability: u16,
    /// The derived one to look at next.
    pub(super) child: u16,
    /// None of those derived reaches into the tail any more.
    pub(super) children_gone: bool,
    pub(super) keep: u64,
    /// Where the sweep of page tables goes on.
    pub(super) va: u64,
    /// Devices may use nothing from this page on any more.
    pub(super) forbidden: Option<u64>,
    /// What devices have to be through with, as of [`Kernel::begin_drain`].
    pub(super) drain: Option<u32>,
}

/// An ask that stands. The holder's view of it is in its kernel page. A power of two, so that finding one is a shift.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Ask {
    asker: u32,
    pub(super) deadline_tsc: u64,
    /// The deadline has passed, and the taking has begun.
    pub(super) taking: bool,
    pub(super) trim: Trim,
}

/// What the kernel knows of asks and trims.
pub(crate) struct Revocation {
    pub(super) asks: [[Ask; ASKS]; DOMAINS],
    /// For what an environment is asked: capabilities' numbers plus one, 16 bits an ask; 0: it does not stand.
    asked_for: [u64; DOMAINS],
    /// Bits of the asks that stand, and of those that the environment was not told of by an upcall.
    pub(super) stand: [u8; DOMAINS],
    untold: [u8; DOMAINS],
    /// What each environment gives back by itself.
    pub(super) trims: [Trim; DOMAINS],
    /// Environments that are asked, and those that give something back by themselves and are not through with it.
    pub(super) asked: u64,
    pub(super) trimming: u64,
    /// The earliest deadline; the end of time if nobody is asked.
    pub(super) due_tsc: u64,
    /// The environment that had the last step.
    pub(super) last: u32,
}

impl Trim {
    pub(super) const NONE: Self = Self::new(0, 0);

    const fn new(capability_plus_one: u16, keep: u64) -> Self {
        Self {
            capability: capability_plus_one,
            child: 0,
            children_gone: false,
            keep,
            va: 0,
            forbidden: None,
            drain: None,
        }
    }
}

impl Revocation {
    pub(crate) const fn new() -> Self {
        const ASK: Ask = Ask { asker: 0, deadline_tsc: 0, taking: false, trim: Trim::NONE };
        Self {
            asks: [[ASK; ASKS]; DOMAINS],
            asked_for: [0; DOMAINS],
            stand: [0; DOMAINS],
            untold: [0; DOMAINS],
            trims: [Trim::NONE; DOMAINS],
            asked: 0,
            trimming: 0,
            due_tsc: u64::MAX,
            last: 0,
        }
    }

    /// Whether there is anything to look at when a capability of this environment goes.
    #[inline(always)]
    pub(crate) fn concerns(&self, environment: u32) -> bool {
        (self.asked | self.trimming) & (1 << environment) != 0
    }

    /// The slot of the ask for a capability.
    #[inline(always)]
    fn ask_for(&self, environment: usize, capability: u16) -> Option<usize> {
        lane(self.asked_for[environment], capability + 1)
    }

    /// When the kernel must look again.
    pub(crate) fn due_tsc(&self) -> u64 {
        self.due_tsc
    }

    fn count_due(&mut self) {
        self.due_tsc = u64::MAX;
        let mut left = self.asked;
        while left != 0 {
            let environment = left.trailing_zeros() as usize % DOMAINS;
            left &= left - 1;
            for slot in (0..ASKS).filter(|slot| self.stand[environment] & 1 << slot != 0) {
                self.due_tsc = self.due_tsc.min(self.asks[environment][slot].deadline_tsc);
            }
        }
    }
}

/// Which of four 16-bit lanes, the first of them, holds this value.
#[inline(always)]
fn lane(lanes: u64, value: u16) -> Option<usize> {
    const ONES: u64 = 0x0001_0001_0001_0001;
    let differ = lanes ^ (u64::from(value) * ONES);
    // The lowest lane that is zero borrows; what is set above it does not matter.
    let zero = differ.wrapping_sub(ONES) & !differ & (ONES << 15);
    if zero == 0 { None } else { Some(zero.trailing_zeros() as usize / 16) }
}

/// Whose table a capability is in.
pub(super) fn holder(capability: u16) -> usize {
    usize::from(capability) / CAPABILITIES % DOMAINS
}

pub(super) fn handle(capability: u16, generation: u32) -> u64 {
    Handle::new(u32::from(capability) % CAPABILITIES as u32, generation).0
}

impl Kernel {
    /// [`abi::call::Call::CapabilityTrim`].
    #[inline(always)]
    pub(super) fn capability_trim(
        &mut self,
        environment: u64,
        capability: u64,
        keep: u64,
    ) -> Result<u64, Error> {
        let environment = self.subject(environment)?;
        let tree = self.tree();
        let capability = tree.find_any(environment, Handle(capability))?;
        let entry = tree.entry(capability);
        let divides = matches!(
            Kind::from_number(entry.kind),
            Some(Kind::Memory | Kind::Queues | Kind::Extent | Kind::Slices)
        );
        if !divides || keep == 0 || keep > entry.count {
            return refuse(Error::BadArgument);
        }
        if entry.depth & LEAVING != 0 {
            return refuse(Error::Revoked);
        }
        if keep == entry.count && entry.depth & TRIMMING == 0 {
            return Ok(0);
        }
        let index = holder(capability);
        if self
            .revocation
            .ask_for(index, capability)
            .is_some_and(|slot| self.revocation.asks[index][slot].taking)
        {
            // Too late: otherwise it could end what the kernel has begun, and bind behind its back.
            return refuse(Error::Busy);
        }
        let mut trim = self.revocation.trims[index];
        if trim.capability != capability + 1 || trim.keep != keep {
            trim = Trim::new(capability + 1, keep);
        }
        for _ in 0..STEPS {
            if self.trim_step(capability, &mut trim, environment) {
                return Ok(0);
            }
        }
        self.revocation.trims[index] = trim;
        self.revocation.trimming |= 1 << environment;
        Ok(1)
    }

    /// [`abi::call::Call::CapabilityAsk`].
    #[inline(always)]
    pub(super) fn capability_ask(
        &mut self,
        own: u64,
        environment: u64,
        capability: u64,
        keep: u64,
        grace_tsc: u64,
    ) -> Result<u64, Error> {
        let environment = self.other(environment, 0)?;
        let (asker, tree) = (self.current, self.tree());
        let above = tree.find_any(asker, Handle(own))?;
        let number = tree.find_any(environment, Handle(capability))?;
        if !tree.is_below(number, above) {
            return refuse(Error::NotPermitted);
        }
        let entry = tree.entry(number);
        let khz = crate::machine::Machine::get().boot().tsc_khz;
        let divides = keep == 0 || (entry.kind != Kind::Flow as u8 && entry.kind != Kind::Environment as u8);
        let in_bounds = grace_tsc.wrapping_sub(GRACE_MIN_MS * khz) <= (GRACE_MAX_MS - GRACE_MIN_MS) * khz;
        if !divides || !in_bounds {
            return refuse(Error::BadArgument);
        }
        let left = entry.count.saturating_sub(keep);
        let index = environment as usize % DOMAINS;
        let revocation = &mut self.revocation;
        if let Some(slot) = revocation.ask_for(index, number) {
            if revocation.asks[index][slot].trim.keep != keep {
                return refuse(Error::Busy);
            }
            // Should no timer come anywhere: whoever waits for it gets on with it.
            self.repossess();
            return Ok(left);
        }
        if left == 0 {
            return Ok(0);
        }
        let Some(slot) = lane(revocation.asked_for[index], 0) else { return refuse(Error::NoSpace) };
        let deadline_tsc = crate::arch::tsc() + grace_tsc;
        let trim = Trim::new(number + 1, keep);
        revocation.asks[index][slot] = Ask { asker, deadline_tsc, taking: false, trim };
        revocation.asked_for[index] |= u64::from(number + 1) << (16 * slot);
        revocation.stand[index] |= 1 << slot;
        revocation.untold[index] |= 1 << slot;
        revocation.asked |= 1 << environment;
        revocation.due_tsc = revocation.due_tsc.min(deadline_tsc);
        let page = self.kernel_page(environment);
        page.asks[slot].capability.store(capability, Ordering::Relaxed);
        page.asks[slot].keep.store(keep, Ordering::Relaxed);
        page.asks[slot].deadline_tsc.store(deadline_tsc, Ordering::Relaxed);
        page.asked.store(u32::from(self.revocation.stand[index]), Ordering::Release);
        // Who sleeps looks around, who runs somewhere else is told.
        self.wake_up(environment);
        if self.several {
            self.have_told(environment);
        }
        Ok(left)
    }

    /// A capability's range has become shorter, or it is gone: whoever asked for that is told.
    #[cold]
    pub(crate) fn answered(&mut self, capability: u16) {
        let index = holder(capability);
        if self.revocation.trims[index].capability == capability + 1 {
            // What is in the slot next has nothing to do with it.
            self.revocation.trims[index] = Trim::NONE;
            self.revocation.trimming &= !(1 << index);
        }
        let Some(slot) = self.revocation.ask_for(index, capability) else { return };
        let ask = self.revocation.asks[index][slot];
        let tree = self.tree();
        let entry = tree.entry(capability);
        if entry.kind != Kind::None as u8 && entry.count > ask.trim.keep {
            return;
        }
        let revocation = &mut self.revocation;
        revocation.asked_for[index] &= !(0xFFFF << (16 * slot));
        revocation.stand[index] &= !(1 << slot);
        revocation.untold[index] &= !(1 << slot);
        if revocation.stand[index] == 0 {
            revocation.asked &= !(1 << index);
        }
        revocation.count_due();
        let stand = u32::from(revocation.stand[index]);
        self.kernel_page(index as u32).asked.store(stand, Ordering::Release);
        self.wake_up(ask.asker);
    }

    /// The vCPU where an environment runs tells it of what it is asked for. It may run nowhere, and no other vCPU know the deadline:
    /// this one sees to that.
    #[cold]
    fn have_told(&mut self, environment: u32) {
        if let Some(other) = self.where_runs(environment).filter(|&other| other != self.vcpu) {
            crate::arch::vcpu::have_look(other);
        }
        if self.own().slice_end_tsc == 0 {
            self.begin_slice();
        }
    }

    /// Lets the environment that runs go on where it answers asks, if there is one that it was not told of. In the resume page it
    /// has not gone on yet: next time.
    pub(crate) fn tell_of_asks(&mut self, frame: &TrapFrame) {
        if frame.rip & !(PAGE_BYTES - 1) == RESUME_VA {
            return;
        }
        let index = self.current as usize % DOMAINS;
        let untold = core::mem::take(&mut self.revocation.untold[index]);
        if untold != 0 {
            let revoke_va = self.upcall_page().revoke_va.load(Ordering::Relaxed);
            let stand = u64::from(self.revocation.stand[index]);
            self.upcall(revoke_va, frame, abi::upcall::REVOKE, stand);
            // It has no such entry, or is in another upcall: next time.
            self.revocation.untold[index] = untold;
        }
    }
}

const _: () = assert!(ASKS == 4 && size_of::<Ask>() == 64);

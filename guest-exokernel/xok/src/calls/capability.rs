//! Deriving, giving and taking back capabilities.

use crate::kernel::{Kernel, State};
use abi::call::Error;
use abi::capability::{CAPABILITIES, Capability, Handle, Kind, LEAVING, rights};
use abi::paging::slot_of;
use xok_core::capability::Part;
use xok_core::paging::{END_VA, Sweep};

/// Steps of taking back that one call makes.
const STEPS: u32 = 4;
/// Entries of page tables that one step looks at.
const SWEEP_STEP: u32 = 128;

impl Kernel {
    /// [`abi::call::Call::CapabilityDerive`].
    #[inline(always)]
    pub(super) fn capability_derive(
        &mut self,
        environment: u64,
        capability: u64,
        start: u64,
        count: u64,
        rights: u64,
    ) -> Result<u64, Error> {
        let environment = self.subject(environment)?;
        let tree = self.tree();
        let parent = tree.find_any(environment, Handle(capability))?;
        let part = Part { start, count, rights, object: inherited(tree.entry(parent)) };
        self.tree().derive(parent, &mut self.environment(environment).slots, part).map(|handle| handle.0)
    }

    /// [`abi::call::Call::CapabilityGive`].
    #[inline(always)]
    pub(super) fn capability_give(
        &mut self,
        environment: u64,
        capability: u64,
        to: u64,
        rights: u64,
    ) -> Result<u64, Error> {
        let environment = self.subject(environment)?;
        let tree = self.tree();
        let parent = tree.find_any(environment, Handle(capability))?;
        tree.allow(parent, rights::GIVE)?;
        let to = tree.find(environment, Handle(to), Kind::Environment)?;
        let to = self.named(to, rights::RECEIVE)?;
        let entry = tree.entry(parent);
        let part = Part { start: entry.start, count: entry.count, rights, object: inherited(entry) };
        self.tree().hang(parent, &mut self.environment(to).slots, part).map(|handle| handle.0)
    }

    /// [`abi::call::Call::CapabilityRevoke`].
    #[inline(always)]
    pub(super) fn capability_revoke(&mut self, environment: u64, capability: u64) -> Result<u64, Error> {
        let environment = self.subject(environment)?;
        let capability = self.tree().find_any(environment, Handle(capability))?;
        self.tree().begin_revoking(capability);
        for _ in 0..STEPS {
            let Some(leaf) = self.tree().leaf_below(capability) else {
                self.tree().end_revoking(capability);
                return Ok(0);
            };
            self.remove_step(leaf, environment);
        }
        Ok(1)
    }

    /// [`abi::call::Call::CapabilityDrop`].
    #[inline(always)]
    pub(super) fn capability_drop(&mut self, environment: u64, capability: u64) -> Result<u64, Error> {
        let environment = self.subject(environment)?;
        let capability = self.tree().find_any(environment, Handle(capability))?;
        for _ in 0..STEPS {
            if self.drop_step(capability, environment) {
                return Ok(0);
            }
        }
        Ok(1)
    }

    /// A step of taking back a capability and all below it; whether it was the last. Who holds any of it and is not the one on
    /// whose behalf it is done is told.
    pub(crate) fn drop_step(&mut self, capability: u16, by: u32) -> bool {
        self.tree().begin_revoking(capability);
        match self.tree().leaf_below(capability) {
            Some(leaf) => {
                self.remove_step(leaf, by);
                false
            }
            None => self.remove_step(capability, by),
        }
    }

    /// A step of undoing what was bound with a capability that has none below it; when nothing is left, it goes.
    fn remove_step(&mut self, capability: u16, by: u32) -> bool {
        let environment = u32::from(capability) / CAPABILITIES as u32;
        if environment != by && self.tree().entry(capability).depth & LEAVING == 0 {
            self.lose_all(capability, by);
        }
        self.tree().begin_leaving(capability);
        let entry = *self.tree().entry(capability);
        let done = match Kind::from_number(entry.kind) {
            Some(Kind::Memory) => {
                self.unmap_step(environment, capability) && self.forbid_step(environment, capability)
            }
            Some(Kind::Queues) => self.unbind_step(capability),
            Some(Kind::Flow) => self.unflow_step(capability),
            Some(Kind::Extent) => self.unextent_step(environment, capability),
            Some(Kind::Environment) => self.disown(&entry),
            Some(Kind::Slices) => self.unslice_step(capability),
            Some(Kind::None) | None => true,
        };
        if done {
            self.tree().remove(capability, &mut self.environment(environment).slots);
            if self.revocation.concerns(environment) {
                self.answered(capability);
            }
        }
        done
    }

    /// Removes mappings that were made with a memory capability; whether all are gone.
    fn unmap_step(&mut self, environment: u32, capability: u16) -> bool {
        let bound = self.tree().entry(capability).bound;
        // An ending environment's page tables go as a whole, and it does not run any more.
        if bound == 0 || self.environment(environment).state == State::Ending {
            return true;
        }
        let from = self.environment(environment).sweep_va;
        let to = self.unmap_some(environment, capability, from, |_| true);
        self.environment(environment).sweep_va = if to < END_VA { to } else { 0 };
        self.tree().entry(capability).bound == 0
    }

    /// Removes those mappings from `from` on that were made with a memory capability and that `which` wants; where to go on.
    pub(super) fn unmap_some(
        &mut self,
        environment: u32,
        capability: u16,
        from: u64,
        which: impl Fn(u64) -> bool,
    ) -> u64 {
        let slot = u32::from(capability) % CAPABILITIES as u32;
        let root = self.environment(environment).root_gpa;
        let mut removed = 0;
        let to = xok_core::paging::sweep(
            &mut self.tables(environment),
            root,
            from,
            SWEEP_STEP,
            Sweep::Keep,
            |entry| {
                let hit = slot_of(entry) == slot && which(entry);
                removed += u32::from(hit);
                hit
            },
        );
        let mut tree = self.tree();
        let entry = tree.entry_mut(capability);
        entry.bound = entry.bound.saturating_sub(removed);
        if removed > 0 {
            self.flush_all(environment);
        }
        to
    }

    /// What owned an environment goes, and so does the environment.
    fn disown(&mut self, entry: &Capability) -> bool {
        let owns = entry.object != 0
            && entry.parent.checked_sub(1).is_some_and(|parent| self.tree().entry(parent).object == 0);
        let number = entry.start as u32;
        let environment = self.environment(number);
        let lives = environment.state.lives();
        if owns && lives && environment.generation == entry.object {
            const DISOWNED: u32 = 137;
            self.end(number, DISOWNED);
        }
        true
    }
}

/// What of [`Capability::object`] goes on to what is derived.
#[inline(always)]
fn inherited(entry: &Capability) -> u32 {
    let goes_on = entry.kind == Kind::Extent as u8 || entry.kind == Kind::Environment as u8;
    if goes_on { entry.object } else { 0 }
}

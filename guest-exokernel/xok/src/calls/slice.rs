//! Slices: whose turn comes when.

use crate::arch::vcpu;
use crate::kernel::Kernel;
use abi::boot::VCPUS_MAX;
use abi::call::Error;
use abi::capability::{CAPABILITIES, Handle, Kind, number, rights};
use abi::slice::{SLICES, position};
use xok_core::refuse;

/// Slices that one call does something to.
const STEP: u64 = SLICES as u64;

impl Kernel {
    /// [`abi::call::Call::SliceBind`].
    pub(super) fn slice_bind(
        &mut self,
        environment: u64,
        slices: u64,
        first: u64,
        count: u64,
    ) -> Result<u64, Error> {
        let (environment, capability) = self.slices_with(environment, slices, first, count)?;
        for done in 0..count.min(STEP) {
            let (vcpu, at) = place(first + done);
            if self.vcpus[vcpu].slices[at] != 0 {
                return if done == 0 { refuse(Error::Busy) } else { Ok(done) };
            }
            self.bind_slice(environment, capability, vcpu, at);
        }
        Ok(count.min(STEP))
    }

    /// [`abi::call::Call::SliceUnbind`].
    pub(super) fn slice_unbind(
        &mut self,
        environment: u64,
        slices: u64,
        first: u64,
        count: u64,
    ) -> Result<u64, Error> {
        let (_, capability) = self.slices_with(environment, slices, first, count)?;
        for done in 0..count.min(STEP) {
            let (vcpu, at) = place(first + done);
            if self.vcpus[vcpu].slices[at] != capability + 1 {
                return if done == 0 { refuse(Error::NotFound) } else { Ok(done) };
            }
            self.unbind_slice(vcpu, at);
        }
        Ok(count.min(STEP))
    }

    /// For whom, and with what, if the capability is for all of these slices.
    fn slices_with(
        &mut self,
        environment: u64,
        slices: u64,
        first: u64,
        count: u64,
    ) -> Result<(u32, u16), Error> {
        let environment = self.subject(environment)?;
        let tree = self.tree();
        let capability = tree.find(environment, Handle(slices), Kind::Slices)?;
        tree.allow(capability, rights::BIND)?;
        let entry = tree.entry(capability);
        let offset = first.wrapping_sub(entry.start);
        if count == 0 || offset >= entry.count || count > entry.count - offset {
            return refuse(Error::BadArgument);
        }
        Ok((environment, capability))
    }

    fn bind_slice(&mut self, number: u32, capability: u16, vcpu: usize, at: usize) {
        let own = &mut self.vcpus[vcpu % VCPUS_MAX];
        own.slices[at % SLICES] = capability + 1;
        own.bound |= 1 << at;
        self.tree().entry_mut(capability).bound += 1;
        let environment = self.environment(number);
        let had_none = environment.slices == [0; VCPUS_MAX];
        environment.slices[vcpu % VCPUS_MAX] += 1;
        let vcpus = if had_none { 0 } else { environment.vcpus };
        if had_none {
            self.join(number, number);
        }
        self.move_to(number, vcpus | 1 << vcpu);
    }

    fn unbind_slice(&mut self, vcpu: usize, at: usize) {
        let own = &mut self.vcpus[vcpu % VCPUS_MAX];
        let with = core::mem::take(&mut own.slices[at % SLICES]);
        own.bound &= !(1 << at);
        let Some(capability) = with.checked_sub(1) else { return };
        let mut tree = self.tree();
        let entry = tree.entry_mut(capability);
        entry.bound = entry.bound.saturating_sub(1);
        let number = u32::from(capability) / CAPABILITIES as u32;
        let environment = self.environment(number);
        let left = &mut environment.slices[vcpu % VCPUS_MAX];
        *left = left.saturating_sub(1);
        if environment.slices == [0; VCPUS_MAX] {
            // Those who shared them run in what is left over, until they find something better.
            self.leave_family(number);
            self.join_starter(number);
        }
        let environment = self.environment(number);
        // Who has none any more stays where it had the last.
        if environment.slices[vcpu % VCPUS_MAX] == 0 && environment.vcpus != 1 << vcpu {
            let vcpus = environment.vcpus & !(1 << vcpu);
            self.move_to(number, vcpus);
        }
    }

    /// From its next slice on an environment runs on these vCPUs.
    fn move_to(&mut self, number: u32, vcpus: u8) {
        if self.environment(number).vcpus != vcpus {
            self.allow_on(number, vcpus);
            if self.environment(number).state.lives() {
                self.notify_vcpus(number);
                // If it may not stay where it runs, it has an end there now.
                match self.where_runs(number) {
                    Some(other) if other != self.vcpu => vcpu::have_look(other),
                    Some(_) if self.own().slice_end_tsc == 0 => self.begin_slice(),
                    _ => {}
                }
            }
        }
    }

    /// Binds those of the slices that the VMM gave an environment that are of the vCPU on which it begins.
    pub(crate) fn bind_first_slices(&mut self, environment: u32, home: u32) {
        let unused = self.environment(environment).slots.unused;
        for capability in number(environment, 0)..unused {
            let entry = *self.tree().entry(capability);
            if entry.kind == Kind::Slices as u8 && entry.start / SLICES as u64 == u64::from(home) {
                for slice in entry.start..entry.start + entry.count {
                    let (vcpu, at) = place(slice);
                    self.bind_slice(environment, capability, vcpu, at);
                }
            }
        }
    }

    /// Undoes what was bound with a capability for slices.
    pub(super) fn unslice_step(&mut self, capability: u16) -> bool {
        self.unslice_tail(capability, 0)
    }

    /// The same, of the slices from `limit` on.
    pub(super) fn unslice_tail(&mut self, capability: u16, limit: u64) -> bool {
        for vcpu in 0..VCPUS_MAX {
            let mut left = self.vcpus[vcpu].bound;
            while left != 0 && self.tree().entry(capability).bound > 0 {
                let at = left.trailing_zeros() as usize;
                left &= left - 1;
                let slice = (vcpu * SLICES) as u64 + u64::from(position(at as u32));
                if slice >= limit && self.vcpus[vcpu].slices[at % SLICES] == capability + 1 {
                    self.unbind_slice(vcpu, at);
                }
            }
        }
        true
    }
}

/// The vCPU of a slice, and its position there.
fn place(slice: u64) -> (usize, usize) {
    let vcpu = (slice / SLICES as u64) as usize % VCPUS_MAX;
    (vcpu, position(slice as u32 % SLICES as u32) as usize)
}

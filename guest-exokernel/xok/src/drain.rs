//! What an environment's devices have to be through with before anybody else may count on what was taken from it. The devices
//! look at its rights at each access; what is under way at that moment ends when the host's disk likes. Nobody waits for that in
//! the kernel: whoever needs it asks again.

use crate::kernel::Kernel;
use crate::machine::Machine;
use abi::boot::control;
use abi::domain::DOMAINS;

impl Kernel {
    /// Something was taken from an environment that devices may be at. The number is for [`Self::is_drained`].
    pub(crate) fn begin_drain(&mut self, environment: u32) -> u32 {
        Machine::get().control(control::DRAIN, environment);
        let drains = &mut self.drains[environment as usize % DOMAINS];
        *drains = drains.wrapping_add(1);
        *drains
    }

    /// Whether no device is at anything any more that was taken from an environment before that number was given. What it begins
    /// itself meanwhile, or has drained, does not matter.
    pub(crate) fn is_drained(&self, environment: u32, number: u32) -> bool {
        let over = Machine::get().read_control(control::DRAINED + 4 * u64::from(environment));
        over.wrapping_sub(number).cast_signed() >= 0
    }

    /// The last number that was given for an environment.
    pub(crate) fn drains(&self, environment: u32) -> u32 {
        self.drains[environment as usize % DOMAINS]
    }
}

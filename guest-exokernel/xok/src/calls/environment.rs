//! Making, starting and ending environments.

use crate::kernel::{Kernel, State};
use crate::schedule::is_user;
use abi::call::{ANY, Error, state};
use abi::capability::{Handle, Kind, rights};
use xok_core::capability::Part;

impl Kernel {
    /// [`abi::call::Call::EnvironmentCreate`].
    pub(super) fn environment_create(&mut self, places: u64, number: u64) -> Result<u64, Error> {
        let current = self.current;
        let tree = self.tree();
        let capability = tree.find(current, Handle(places), Kind::Environment)?;
        tree.allow(capability, rights::CREATE)?;
        let range = *tree.entry(capability);
        if range.object != 0 {
            return Err(Error::NotPermitted);
        }
        let number = match number {
            ANY => self.free_place(range.start, range.count).ok_or(Error::NoSpace)?,
            number if number < range.start || number - range.start >= range.count => {
                return Err(Error::BadArgument);
            }
            number => number as u32,
        };
        if self.environment(number).state != State::Free {
            return Err(Error::Busy);
        }
        let generation = self.environment(number).generation.wrapping_add(1).max(1);
        let part = Part {
            start: u64::from(number),
            count: 1,
            rights: range.rights & !rights::CREATE,
            object: generation,
        };
        let slots = &mut self.environment(current).slots;
        let mut own = *slots;
        let handle = self.tree().derive(capability, current, &mut own, part)?;
        self.environment(current).slots = own;
        let place = self.place(number);
        self.make(number, place);
        Ok(handle.0)
    }

    fn free_place(&mut self, start: u64, count: u64) -> Option<u32> {
        (start..start + count)
            .map(|number| number as u32)
            .find(|&number| self.environment(number).state == State::Free)
    }

    /// [`abi::call::Call::EnvironmentStart`].
    pub(super) fn environment_start(
        &mut self,
        handle: u64,
        entry_va: u64,
        stack_va: u64,
        argument: u64,
    ) -> Result<u64, Error> {
        let number = self.other(handle, rights::CONTROL)?;
        if self.environment(number).state != State::New {
            return Err(Error::Busy);
        }
        // Anything else would fault in the resume page, which is nobody's.
        if !is_user(entry_va) || !is_user(stack_va) {
            return Err(Error::BadArgument);
        }
        self.start(number, entry_va, stack_va, argument);
        Ok(0)
    }

    /// [`abi::call::Call::EnvironmentDestroy`].
    pub(super) fn environment_destroy(&mut self, handle: u64) -> Result<u64, Error> {
        let number = self.other(handle, rights::DESTROY)?;
        const DESTROYED: u32 = 137;
        self.end(number, DESTROYED);
        Ok(0)
    }

    /// [`abi::call::Call::EnvironmentStatus`].
    pub(super) fn environment_status(&mut self, handle: u64) -> Result<u64, Error> {
        let current = self.current;
        let tree = self.tree();
        let entry = *tree.entry(tree.find(current, Handle(handle), Kind::Environment)?);
        if entry.object == 0 {
            return Err(Error::BadArgument);
        }
        let environment = self.environment(entry.start as u32);
        if environment.generation != entry.object {
            return Ok(state::GONE);
        }
        let state = match environment.state {
            State::Free => state::GONE,
            State::New => state::NEW,
            State::Runnable => state::RUNNABLE,
            State::Asleep => state::ASLEEP,
            State::Ending => state::ENDING,
        };
        Ok(state | u64::from(environment.exit_status) << 32)
    }
}

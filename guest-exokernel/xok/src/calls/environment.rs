//! Making, starting and ending environments.

use crate::kernel::{Kernel, State};
use crate::schedule::is_user;
use abi::call::{ANY, Error, state};
use abi::capability::{Handle, Kind, rights};
use xok_core::capability::Part;
use xok_core::refuse;

impl Kernel {
    /// [`abi::call::Call::EnvironmentCreate`].
    #[inline(always)]
    pub(super) fn environment_create(&mut self, places: u64, number: u64) -> Result<u64, Error> {
        let current = self.current;
        let tree = self.tree();
        let capability = tree.find(current, Handle(places), Kind::Environment)?;
        tree.allow(capability, rights::CREATE)?;
        let range = tree.entry(capability);
        let (start, count, allowed) = (range.start, range.count, range.rights);
        if range.object != 0 {
            return refuse(Error::NotPermitted);
        }
        let free = self.free & (u64::MAX << start);
        let number = if number == ANY {
            let first = u64::from(free.trailing_zeros());
            if first.wrapping_sub(start) >= count {
                return refuse(Error::NoSpace);
            }
            first as u32
        } else {
            if number.wrapping_sub(start) >= count {
                return refuse(Error::BadArgument);
            }
            if free & (1 << number) == 0 {
                return refuse(Error::Busy);
            }
            number as u32
        };
        self.make(number);
        let part = Part {
            start: u64::from(number),
            count: 1,
            rights: u64::from(allowed & !rights::CREATE),
            object: self.environment(number).generation,
        };
        let hung = self.tree().hang(capability, &mut self.environment(current).slots, part);
        if hung.is_err() {
            self.free |= 1 << number;
            self.environment(number).state = State::Free;
        }
        hung.map(|handle| handle.0)
    }

    /// [`abi::call::Call::EnvironmentStart`].
    #[inline(always)]
    pub(super) fn environment_start(
        &mut self,
        handle: u64,
        entry_va: u64,
        stack_va: u64,
        argument: u64,
    ) -> Result<u64, Error> {
        let number = self.other(handle, rights::CONTROL)?;
        if self.environment(number).state != State::New {
            return refuse(Error::Busy);
        }
        // Anything else would fault in the resume page, which is nobody's.
        if !is_user(entry_va) || !is_user(stack_va) {
            return refuse(Error::BadArgument);
        }
        self.start(number, entry_va, stack_va, argument);
        Ok(0)
    }

    /// [`abi::call::Call::EnvironmentDestroy`].
    #[inline(always)]
    pub(super) fn environment_destroy(&mut self, handle: u64) -> Result<u64, Error> {
        let number = self.other(handle, rights::DESTROY)?;
        const DESTROYED: u32 = 137;
        self.end(number, DESTROYED);
        Ok(0)
    }

    /// [`abi::call::Call::EnvironmentStatus`].
    #[inline(always)]
    pub(super) fn environment_status(&mut self, handle: u64) -> Result<u64, Error> {
        let current = self.current;
        let tree = self.tree();
        let entry = *tree.entry(tree.find(current, Handle(handle), Kind::Environment)?);
        if entry.object == 0 {
            return refuse(Error::BadArgument);
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
            State::Receiving => state::RECEIVING,
            State::Calling => state::CALLING,
            State::Ending => state::ENDING,
        };
        Ok(state | u64::from(environment.exit_status) << 32)
    }
}

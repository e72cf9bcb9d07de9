//! The tree of capabilities, over the tables of all environments.
//!
//! What was derived hangs below what it was derived from, in whichever table it is. Revoking removes a subtree leaf by leaf,
//! so that every step leaves a tree; from the first step on nothing new hangs itself below.

use abi::call::Error;
use abi::capability::{CAPABILITIES, Capability, DEPTH_MAX, Handle, Kind, LEAVING, REVOKING, number};
use abi::paging::NO_SLOT;

/// What is derived.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// First of its range.
    pub start: u64,
    /// How many.
    pub count: u64,
    /// Its rights.
    pub rights: u16,
    /// [`Capability::object`].
    pub object: u32,
}

/// The free slots of one environment's table: those never used, from `used` on, and a list of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Slots used at least once.
    pub used: u16,
    /// The first free one of these plus one; the next is in its entry's `next`.
    pub free: u16,
}

/// The tables.
#[derive(Debug)]
pub struct Tree<'a> {
    entries: &'a mut [Capability],
}

impl<'a> Tree<'a> {
    /// Over the entries of all places, in the order of [`number`].
    pub fn new(entries: &'a mut [Capability]) -> Self {
        Self { entries }
    }

    /// The number of the entry that an environment means by a handle.
    #[inline]
    pub fn find(&self, environment: u32, handle: Handle, kind: Kind) -> Result<u16, Error> {
        if handle.slot() >= NO_SLOT {
            return Err(Error::NotFound);
        }
        let number = number(environment, handle.slot());
        let entry = self.entries.get(usize::from(number)).ok_or(Error::NotFound)?;
        // One that is leaving is as good as gone: otherwise its holder could bind as fast as somebody else undoes.
        let same =
            entry.kind == kind as u8 && entry.depth & LEAVING == 0 && entry.generation == handle.generation();
        if same { Ok(number) } else { Err(Error::NotFound) }
    }

    /// The same, of any kind, and also if it is leaving: to derive from it, which is refused then, or to go on taking it back.
    pub fn find_any(&self, environment: u32, handle: Handle) -> Result<u16, Error> {
        if handle.slot() >= NO_SLOT {
            return Err(Error::NotFound);
        }
        let number = number(environment, handle.slot());
        let entry = self.entries.get(usize::from(number)).ok_or(Error::NotFound)?;
        let same = entry.kind != Kind::None as u8 && entry.generation == handle.generation();
        if same { Ok(number) } else { Err(Error::NotFound) }
    }

    /// An entry.
    #[inline]
    pub fn entry(&self, number: u16) -> &Capability {
        &self.entries[usize::from(number)]
    }

    /// An entry, to count what is bound with it. Its links stay as they are.
    #[inline]
    pub fn entry_mut(&mut self, number: u16) -> &mut Capability {
        &mut self.entries[usize::from(number)]
    }

    /// Whether `rights` are all there.
    #[inline]
    pub fn allow(&self, number: u16, rights: u16) -> Result<(), Error> {
        if self.entry(number).rights & rights == rights { Ok(()) } else { Err(Error::NotPermitted) }
    }

    /// Hangs a part of `parent` into the table of `environment`, whose free slots are `slots`.
    pub fn derive(
        &mut self,
        parent: u16,
        environment: u32,
        slots: &mut Slots,
        part: Part,
    ) -> Result<Handle, Error> {
        let above = self.entry(parent);
        let offset = part.start.checked_sub(above.start).ok_or(Error::BadArgument)?;
        if part.count == 0 || offset > above.count || part.count > above.count - offset {
            return Err(Error::BadArgument);
        }
        self.hang(parent, environment, slots, part)
    }

    /// The same, for kinds whose range is not a part of the parent's: a child flow.
    pub fn hang(
        &mut self,
        parent: u16,
        environment: u32,
        slots: &mut Slots,
        part: Part,
    ) -> Result<Handle, Error> {
        let above = *self.entry(parent);
        if part.rights & !above.rights != 0 {
            return Err(Error::NotPermitted);
        }
        if self.is_revoking(parent) {
            return Err(Error::Revoked);
        }
        let depth = (above.depth & !REVOKING) + 1;
        if depth > DEPTH_MAX {
            return Err(Error::NoSpace);
        }
        let slot = self.take_slot(environment, slots)?;
        let own = number(environment, u32::from(slot));
        let generation = self.entry(own).generation.wrapping_add(1).max(1);
        *self.entry_mut(own) = Capability {
            kind: above.kind,
            depth,
            rights: part.rights,
            generation,
            start: part.start,
            count: part.count,
            object: part.object,
            bound: 0,
            parent: parent + 1,
            first_child: 0,
            next: above.first_child,
            previous: 0,
        };
        if let Some(sibling) = above.first_child.checked_sub(1) {
            self.entry_mut(sibling).previous = own + 1;
        }
        self.entry_mut(parent).first_child = own + 1;
        Ok(Handle::new(u32::from(slot), generation))
    }

    /// From now on nothing is derived from it or below it.
    pub fn begin_revoking(&mut self, number: u16) {
        self.entry_mut(number).depth |= REVOKING;
    }

    /// Nothing is left below it.
    pub fn end_revoking(&mut self, number: u16) {
        self.entry_mut(number).depth &= !REVOKING;
    }

    /// From now on nothing is bound with it: it is about to be removed.
    pub fn begin_leaving(&mut self, number: u16) {
        self.entry_mut(number).depth |= LEAVING;
    }

    /// Something below it that has nothing below itself; `None`: nothing is below it.
    pub fn leaf_below(&self, number: u16) -> Option<u16> {
        let mut leaf = self.entry(number).first_child.checked_sub(1)?;
        // Ends: each step goes deeper, and depth is bounded.
        while let Some(child) = self.entry(leaf).first_child.checked_sub(1) {
            leaf = child;
        }
        Some(leaf)
    }

    /// Takes a leaf out, whose environment's free slots are `slots`. Whatever was bound with it must be undone before.
    pub fn remove(&mut self, number: u16, slots: &mut Slots) {
        let Capability { parent, next, previous, generation, .. } = *self.entry(number);
        if let Some(next) = next.checked_sub(1) {
            self.entry_mut(next).previous = previous;
        }
        if let Some(previous) = previous.checked_sub(1) {
            self.entry_mut(previous).next = next;
        } else if let Some(parent) = parent.checked_sub(1) {
            self.entry_mut(parent).first_child = next;
        }
        *self.entry_mut(number) = Capability { generation, next: slots.free, ..Capability::default() };
        slots.free = number % CAPABILITIES as u16 + 1;
    }

    /// Whether it or something above it is being revoked.
    fn is_revoking(&self, mut number: u16) -> bool {
        loop {
            let entry = self.entry(number);
            if entry.depth & REVOKING != 0 {
                return true;
            }
            let Some(parent) = entry.parent.checked_sub(1) else { return false };
            number = parent;
        }
    }

    fn take_slot(&self, environment: u32, slots: &mut Slots) -> Result<u16, Error> {
        if let Some(slot) = slots.free.checked_sub(1) {
            slots.free = self.entry(number(environment, u32::from(slot))).next;
            return Ok(slot);
        }
        if u32::from(slots.used) >= NO_SLOT {
            return Err(Error::NoSpace);
        }
        slots.used += 1;
        Ok(slots.used - 1)
    }
}

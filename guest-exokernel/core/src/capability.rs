//! The tree of capabilities, over the tables of all environments.
//!
//! What was derived hangs below what it was derived from, in whichever table it is. Revoking removes a subtree leaf by leaf,
//! so that every step leaves a tree; from the first step on nothing new hangs itself below.

use crate::refuse;
use abi::call::Error;
use abi::capability::{
    CAPABILITIES, Capability, DEPTH_MAX, Handle, Kind, LEAVING, REVOKING, TRIMMING, number,
};
use abi::domain::DOMAINS;
use abi::paging::NO_SLOT;

/// Entries of all tables.
pub const ENTRIES: usize = DOMAINS * CAPABILITIES;

/// What is derived.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// First of its range.
    pub start: u64,
    /// How many.
    pub count: u64,
    /// Its rights. There are sixteen; nobody has others to give.
    pub rights: u64,
    /// [`Capability::object`].
    pub object: u32,
}

/// What [`Tree::reaching`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaching {
    /// This one.
    Child(u16),
    /// There is none.
    None,
    /// Not all have been looked at.
    Unknown,
}

/// The free entries of one environment's table: those never used, from one on, and a list of others. By number, as of [`number`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// The first that was never used.
    pub unused: u16,
    /// The first free one of the others plus one; the next is in its entry's `next`.
    pub free: u16,
}

impl Slots {
    /// Those of an environment whose first `used` slots are in use.
    pub const fn new(environment: u32, used: u32) -> Self {
        Self { unused: number(environment, used), free: 0 }
    }
}

/// The tables. A number is cut to what there is, so that no access needs to be checked.
#[derive(Debug)]
pub struct Tree<'a> {
    entries: &'a mut [Capability; ENTRIES],
}

impl<'a> Tree<'a> {
    /// Over the entries of all places, in the order of [`number`].
    pub fn new(entries: &'a mut [Capability; ENTRIES]) -> Self {
        Self { entries }
    }

    /// The number of the entry that an environment means by a handle.
    #[inline(always)]
    pub fn find(&self, environment: u32, handle: Handle, kind: Kind) -> Result<u16, Error> {
        if handle.slot() >= NO_SLOT {
            return refuse(Error::NotFound);
        }
        let number = number(environment, handle.slot());
        let entry = self.entry(number);
        // One that is leaving is as good as gone: otherwise its holder could bind as fast as somebody else undoes.
        // The same goes for one whose tail is being taken.
        let same = entry.kind == kind as u8
            && entry.depth & (LEAVING | TRIMMING) == 0
            && entry.generation == handle.generation();
        if same { Ok(number) } else { refuse(Error::NotFound) }
    }

    /// The same, of any kind, and also if it is leaving: to derive from it, which is refused then, or to go on taking it back.
    #[inline(always)]
    pub fn find_any(&self, environment: u32, handle: Handle) -> Result<u16, Error> {
        if handle.slot() >= NO_SLOT {
            return refuse(Error::NotFound);
        }
        let number = number(environment, handle.slot());
        let entry = self.entry(number);
        let same = entry.kind != Kind::None as u8 && entry.generation == handle.generation();
        if same { Ok(number) } else { refuse(Error::NotFound) }
    }

    /// An entry.
    #[inline(always)]
    pub fn entry(&self, number: u16) -> &Capability {
        &self.entries[usize::from(number) % ENTRIES]
    }

    /// An entry, to count what is bound with it. Its links stay as they are.
    #[inline(always)]
    pub fn entry_mut(&mut self, number: u16) -> &mut Capability {
        &mut self.entries[usize::from(number) % ENTRIES]
    }

    /// Whether `rights` are all there.
    #[inline(always)]
    pub fn allow(&self, number: u16, rights: u16) -> Result<(), Error> {
        if self.entry(number).rights & rights == rights { Ok(()) } else { refuse(Error::NotPermitted) }
    }

    /// Hangs a part of `parent` into the table whose free entries are `slots`.
    #[inline(always)]
    pub fn derive(&mut self, parent: u16, slots: &mut Slots, part: Part) -> Result<Handle, Error> {
        let above = self.entry(parent);
        let offset = part.start.checked_sub(above.start).ok_or(Error::BadArgument)?;
        if part.count == 0 || offset > above.count || part.count > above.count - offset {
            return refuse(Error::BadArgument);
        }
        self.hang(parent, slots, part)
    }

    /// The same, for kinds whose range is not a part of the parent's: a child flow.
    #[inline(always)]
    pub fn hang(&mut self, parent: u16, slots: &mut Slots, part: Part) -> Result<Handle, Error> {
        let above = *self.entry(parent);
        if part.rights & !u64::from(above.rights) != 0 {
            return refuse(Error::NotPermitted);
        }
        // One that is being revoked or removed looks as deep as can be.
        if above.depth >= DEPTH_MAX {
            return refuse(if above.depth > DEPTH_MAX { Error::Revoked } else { Error::NoSpace });
        }
        if self.is_revoking(above.parent) {
            return refuse(Error::Revoked);
        }
        let own = self.take(slots)?;
        let entry = self.entry_mut(own);
        // Odd while it is used: never 0, and another one than before.
        let generation = entry.generation.wrapping_add(1);
        *entry = Capability {
            kind: above.kind,
            depth: above.depth + 1,
            rights: part.rights as u16,
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
        self.entry_mut(parent).first_child = own + 1;
        if let Some(sibling) = above.first_child.checked_sub(1) {
            self.entry_mut(sibling).previous = own + 1;
        }
        Ok(Handle::new(u32::from(own) % CAPABILITIES as u32, generation))
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

    /// From now on nothing is bound with it or derived from it.
    pub fn begin_trimming(&mut self, number: u16) {
        self.entry_mut(number).depth |= TRIMMING;
    }

    /// What was bound with its tail or derived from it is undone: its range is shorter now.
    pub fn end_trimming(&mut self, number: u16, keep: u64) {
        let entry = self.entry_mut(number);
        entry.depth &= !TRIMMING;
        entry.count = entry.count.min(keep);
    }

    /// Whether `number` was derived from `above`, directly or not.
    #[inline]
    pub fn is_below(&self, mut number: u16, above: u16) -> bool {
        while let Some(parent) = self.entry(number).parent.checked_sub(1) {
            if parent == above {
                return true;
            }
            number = parent;
        }
        false
    }

    /// One of those derived directly from `number`, which is being trimmed, whose range reaches beyond `limit`, or that is leaving. Looks at
    /// `budget` of them, from `cursor` on, which is 0 at first.
    pub fn reaching(&self, number: u16, limit: u64, cursor: &mut u16, budget: u32) -> Reaching {
        // Nothing new is derived meanwhile, so there are fewer and fewer: starting again for one that is gone ends.
        let known = cursor.checked_sub(1).map(|child| self.entry(child));
        if known.is_none_or(|child| child.kind == Kind::None as u8 || child.parent != number + 1) {
            *cursor = self.entry(number).first_child;
        }
        for _ in 0..budget {
            let Some(child) = cursor.checked_sub(1) else { return Reaching::None };
            let entry = self.entry(child);
            // One that is leaving has no range any more, and devices may still be at what it had.
            if entry.depth & LEAVING != 0 || entry.start + entry.count > limit {
                return Reaching::Child(child);
            }
            *cursor = entry.next;
        }
        if *cursor == 0 { Reaching::None } else { Reaching::Unknown }
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

    /// Takes a leaf out of the table whose free entries are `slots`. Whatever was bound with it must be undone before.
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
        let generation = generation.wrapping_add(1);
        *self.entry_mut(number) = Capability { generation, next: slots.free, ..Capability::default() };
        slots.free = number + 1;
    }

    /// Whether what a link leads to, or something above that, is being revoked.
    #[inline(always)]
    fn is_revoking(&self, mut link: u16) -> bool {
        while let Some(number) = link.checked_sub(1) {
            let entry = self.entry(number);
            if entry.depth & (REVOKING | TRIMMING) != 0 {
                return true;
            }
            link = entry.parent;
        }
        false
    }

    #[inline(always)]
    fn take(&self, slots: &mut Slots) -> Result<u16, Error> {
        if let Some(number) = slots.free.checked_sub(1) {
            slots.free = self.entry(number).next;
            return Ok(number);
        }
        let number = slots.unused;
        if u32::from(number) % CAPABILITIES as u32 == NO_SLOT {
            return refuse(Error::NoSpace);
        }
        slots.unused = number + 1;
        Ok(number)
    }
}

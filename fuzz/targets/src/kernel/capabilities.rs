//! The tree of capabilities: whatever is derived and taken back, it is a tree, and nobody has what was not given.

use crate::input::Input;
use abi::capability::{CAPABILITIES, Capability, DEPTH_MAX, Handle, Kind, LEAVING, REVOKING, TRIMMING};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use xok_core::capability::{ENTRIES, Part, Slots, Tree};

pub(super) const ENVIRONMENTS: usize = 3;

thread_local! {
    /// The entries of the last world: most are never used, and making all of them anew takes longer than the rest.
    static SPARE: Cell<Option<Box<[Capability; ENTRIES]>>> = const { Cell::new(None) };
}

/// Entries of all tables.
#[derive(Debug)]
pub(super) struct Entries(Option<Box<[Capability; ENTRIES]>>);

impl Entries {
    fn take() -> Self {
        let mut entries = SPARE.take().unwrap_or_else(|| {
            vec![Capability::default(); ENTRIES].try_into().expect("as many as there are")
        });
        entries[..ENVIRONMENTS * CAPABILITIES].fill(Capability::default());
        Self(Some(entries))
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        SPARE.set(self.0.take());
    }
}

impl Deref for Entries {
    type Target = [Capability; ENTRIES];

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl DerefMut for Entries {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.0.as_mut().expect("there until it is dropped")
    }
}

/// What is known of a capability.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) environment: usize,
    pub(super) handle: Handle,
    pub(super) number: u16,
    /// Index in the list; `None`: the root.
    pub(super) parent: Option<usize>,
    pub(super) start: u64,
    pub(super) count: u64,
    rights: u16,
    depth: u8,
    pub(super) revoking: bool,
    /// The tail of its range is being taken, or all that was bound with it.
    pub(super) trimming: bool,
    pub(super) leaving: bool,
    pub(super) alive: bool,
}

pub(super) struct World {
    pub(super) entries: Entries,
    pub(super) slots: [Slots; ENVIRONMENTS],
    pub(super) known: Vec<Known>,
}

pub(super) fn capabilities(mut input: Input<'_>) {
    let mut world = World::new();
    let mut steps = 0;
    while !input.is_empty() && steps < 2000 {
        world.step(&mut input);
        steps += 1;
        if steps % 64 == 0 {
            world.check();
        }
    }
    world.check();
    // Everything can be taken back, and then nothing is left.
    world.revoke(0, u32::MAX);
    world.check();
    assert_eq!(world.known.iter().filter(|known| known.alive).count(), 1);
}

impl World {
    pub(super) fn new() -> Self {
        let mut entries = Entries::take();
        let (start, count, rights) = (100, 1000, 0x800F);
        let kind = Kind::Memory as u8;
        entries[0] = Capability { kind, rights, generation: 1, start, count, ..Capability::default() };
        let slots = [Slots::new(0, 1), Slots::new(1, 0), Slots::new(2, 0)];
        let root = Known {
            environment: 0,
            handle: Handle::new(0, 1),
            number: 0,
            parent: None,
            start,
            count,
            rights,
            depth: 0,
            revoking: false,
            trimming: false,
            leaving: false,
            alive: true,
        };
        Self { entries, slots, known: vec![root] }
    }

    pub(super) fn tree(&mut self) -> Tree<'_> {
        Tree::new(&mut self.entries)
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let at = usize::from(input.u16()) % self.known.len();
        let of = self.known[at];
        match input.below(8) {
            0..=4 => self.derive(at, input),
            5 => self.revoke(at, u32::from(input.below(4))),
            6 => {
                // A handle of one's own, of somebody else's, or of nobody's.
                let environment = usize::from(input.below(ENVIRONMENTS as u8));
                let handle = if input.below(2) == 0 { of.handle } else { Handle(input.u64()) };
                self.find(environment, handle);
            }
            _ => {
                // The capability itself, when nothing is below it; the first is nobody's to take.
                if at != 0 && of.alive && self.tree().leaf_below(of.number).is_none() {
                    self.remove(at);
                }
            }
        }
    }

    pub(super) fn find(&mut self, environment: usize, handle: Handle) {
        let found = self.tree().find_any(environment as u32, handle).ok();
        let known = self
            .known
            .iter()
            .find(|known| known.alive && known.environment == environment && known.handle == handle);
        assert_eq!(found, known.map(|known| known.number), "{environment} {handle:?}");
        let other = self.tree().find(environment as u32, handle, Kind::Queues).is_ok();
        assert!(!other, "of another kind");
    }

    fn is_revoking(&self, mut at: usize) -> bool {
        loop {
            let known = self.known[at];
            if known.revoking || known.trimming || known.leaving {
                return true;
            }
            let Some(parent) = self.known[at].parent else { return false };
            at = parent;
        }
    }

    pub(super) fn derive(&mut self, at: usize, input: &mut Input<'_>) {
        let of = self.known[at];
        if !of.alive {
            return;
        }
        let environment = usize::from(input.below(ENVIRONMENTS as u8));
        let (start, count) = match input.below(4) {
            0 => (input.u64(), input.u64()),
            _ => (of.start.wrapping_add(input.u8().into()), 1 + u64::from(input.u8())),
        };
        let rights = if input.below(4) == 0 { input.u64() } else { u64::from(of.rights & input.u16()) };
        let mut slots = self.slots[environment];
        let part = Part { start, count, rights, object: 0 };
        let derived = self.tree().derive(of.number, &mut slots, part);
        let end = start.checked_add(count);
        let inside = start >= of.start && end.is_some_and(|end| end <= of.start + of.count) && count > 0;
        let allowed = rights & !u64::from(of.rights) == 0;
        let Ok(handle) = derived else {
            assert_eq!(slots, self.slots[environment], "a refusal costs nothing");
            let live =
                self.known.iter().filter(|known| known.alive && known.environment == environment).count();
            let full = live >= CAPABILITIES - 1 || of.depth >= DEPTH_MAX;
            assert!(
                !inside || !allowed || full || self.is_revoking(at),
                "refused without a reason: {derived:?}"
            );
            return;
        };
        assert!(inside && allowed && !self.is_revoking(at), "granted what is not there");
        self.slots[environment] = slots;
        let number = abi::capability::number(environment as u32, handle.slot());
        let again = self.known.iter().any(|known| known.environment == environment && known.handle == handle);
        assert!(!again, "a handle was given twice");
        let taken = self.known.iter().any(|known| known.alive && known.number == number);
        assert!(!taken, "a slot was given twice");
        self.known.push(Known {
            environment,
            handle,
            number,
            parent: Some(at),
            start,
            count,
            rights: rights as u16,
            depth: of.depth + 1,
            revoking: false,
            trimming: false,
            leaving: false,
            alive: true,
        });
    }

    pub(super) fn remove(&mut self, at: usize) {
        let Known { number, environment, .. } = self.known[at];
        let mut slots = self.slots[environment];
        self.tree().begin_leaving(number);
        self.tree().remove(number, &mut slots);
        self.slots[environment] = slots;
        self.known[at].alive = false;
    }

    /// Some steps of taking back what is below.
    fn revoke(&mut self, at: usize, steps: u32) {
        if !self.known[at].alive {
            return;
        }
        let number = self.known[at].number;
        self.tree().begin_revoking(number);
        self.known[at].revoking = true;
        for _ in 0..steps {
            let Some(leaf) = self.tree().leaf_below(number) else {
                self.tree().end_revoking(number);
                self.known[at].revoking = false;
                return;
            };
            let found = self.known.iter().position(|known| known.alive && known.number == leaf);
            let found = found.expect("only what is there is taken");
            assert!(self.is_below(found, at), "something else is taken");
            self.remove(found);
        }
    }

    pub(super) fn is_below(&self, mut at: usize, above: usize) -> bool {
        while let Some(parent) = self.known[at].parent {
            if parent == above {
                return true;
            }
            at = parent;
        }
        false
    }

    pub(super) fn check(&mut self) {
        self.check_shares();
        for at in 0..self.known.len() {
            let known = self.known[at];
            if !known.alive {
                assert!(
                    self.tree().find_any(known.environment as u32, known.handle).is_err(),
                    "a dead handle"
                );
                continue;
            }
            let entry = self.entries[usize::from(known.number)];
            assert_eq!((entry.start, entry.count, entry.rights), (known.start, known.count, known.rights));
            assert_eq!(entry.depth & REVOKING != 0, known.revoking);
            assert_eq!(entry.depth & TRIMMING != 0, known.trimming);
            assert_eq!(entry.depth & LEAVING != 0, known.leaving);
            if let Some(parent) = known.parent {
                let parent = self.known[parent];
                assert!(parent.alive, "an orphan");
                assert!(
                    known.start >= parent.start && known.start + known.count <= parent.start + parent.count
                );
                assert_eq!(known.rights & !parent.rights, 0);
                assert_eq!(entry.parent, parent.number + 1);
            }
            let (mut link, mut before) = (entry.first_child, 0);
            while let Some(child) = link.checked_sub(1) {
                let below = self.entries[usize::from(child)];
                assert_eq!((below.parent, below.previous), (known.number + 1, before));
                (before, link) = (link, below.next);
            }
        }
    }

    /// Of each environment's share, what is used and what is free are all there is.
    fn check_shares(&self) {
        for (environment, slots) in self.slots.iter().enumerate() {
            let (mut free, mut link) = (0, slots.free);
            while let Some(number) = link.checked_sub(1) {
                let entry = self.entries[usize::from(number)];
                assert_eq!(entry.kind, Kind::None as u8, "something that is used is free");
                (free, link) = (free + 1, entry.next);
                assert!(free <= CAPABILITIES, "a list that goes round");
            }
            let used = self.known.iter().filter(|known| known.alive && known.environment == environment);
            let begun = usize::from(slots.unused) - environment * CAPABILITIES;
            assert_eq!(used.count() + free, begun, "slots of {environment}");
        }
    }
}

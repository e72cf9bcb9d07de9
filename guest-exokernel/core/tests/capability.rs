//! The tree against a model: whatever is derived and revoked in whatever order, what lives has a living parent that allows it.

use abi::call::Error;
use abi::capability::{CAPABILITIES, Capability, DEPTH_MAX, Handle, Kind, REVOKING, number};
use proptest::prelude::*;
use xok_core::capability::{ENTRIES, Part, Slots, Tree};

const ENVIRONMENTS: u32 = 3;

struct World {
    entries: Box<[Capability; ENTRIES]>,
    slots: [Slots; ENVIRONMENTS as usize],
}

impl World {
    fn new() -> Self {
        let entries = vec![Capability::default(); ENTRIES];
        let mut entries: Box<[Capability; ENTRIES]> = entries.try_into().expect("as many as there are");
        entries[0] = Capability {
            kind: Kind::Memory as u8,
            rights: 0x800F,
            generation: 1,
            start: 100,
            count: 1000,
            ..Capability::default()
        };
        let slots = [Slots::new(0, 1), Slots::new(1, 0), Slots::new(2, 0)];
        Self { entries, slots }
    }

    fn tree(&mut self) -> Tree<'_> {
        Tree::new(&mut self.entries)
    }

    fn derive(
        &mut self,
        parent: u16,
        environment: u32,
        start: u64,
        count: u64,
        rights: u16,
    ) -> Result<Handle, Error> {
        let mut slots = self.slots[environment as usize];
        let part = Part { start, count, rights: rights.into(), object: 0 };
        let result = self.tree().derive(parent, &mut slots, part);
        self.slots[environment as usize] = slots;
        result
    }

    /// One step of revoking; whether something was there to remove.
    fn step(&mut self, of: u16) -> bool {
        let Some(leaf) = self.tree().leaf_below(of) else { return false };
        let environment = usize::from(leaf) / CAPABILITIES;
        let mut slots = self.slots[environment];
        self.tree().remove(leaf, &mut slots);
        self.slots[environment] = slots;
        true
    }

    fn live(&self) -> Vec<u16> {
        (0..(ENVIRONMENTS as usize * CAPABILITIES) as u16)
            .filter(|&n| self.entries[usize::from(n)].kind != 0)
            .collect()
    }

    fn check(&self) {
        for n in self.live() {
            let entry = self.entries[usize::from(n)];
            let mut children = 0;
            let mut link = entry.first_child;
            let mut before = 0;
            while let Some(child) = link.checked_sub(1) {
                let below = self.entries[usize::from(child)];
                assert_eq!((below.parent, below.previous), (n + 1, before));
                assert_eq!(below.depth & !REVOKING, (entry.depth & !REVOKING) + 1);
                assert!(below.start >= entry.start && below.start + below.count <= entry.start + entry.count);
                assert_eq!(below.rights & !entry.rights, 0);
                assert_eq!(below.kind, entry.kind);
                children += 1;
                assert!(children <= self.entries.len(), "a ring of siblings");
                (before, link) = (link, below.next);
            }
            if let Some(parent) = entry.parent.checked_sub(1) {
                assert_ne!(self.entries[usize::from(parent)].kind, 0, "an orphan");
            }
        }
        for (environment, slots) in self.slots.iter().enumerate() {
            let (mut link, mut free) = (slots.free, 0);
            while let Some(number) = link.checked_sub(1) {
                assert_eq!(usize::from(number) / CAPABILITIES, environment, "another's among the free");
                let entry = self.entries[usize::from(number)];
                assert_eq!(entry.kind, 0, "a live entry among the free");
                free += 1;
                link = entry.next;
            }
            let live = self.live().iter().filter(|&&n| usize::from(n) / CAPABILITIES == environment).count();
            assert_eq!(live + free, usize::from(slots.unused) % CAPABILITIES, "a slot is lost");
        }
    }
}

#[test]
fn derive_refuses_what_the_parent_does_not_allow() {
    let mut world = World::new();
    assert_eq!(world.derive(0, 1, 99, 1, 1), Err(Error::BadArgument));
    assert_eq!(world.derive(0, 1, 100, 1001, 1), Err(Error::BadArgument));
    assert_eq!(world.derive(0, 1, 1100, 1, 1), Err(Error::BadArgument));
    assert_eq!(world.derive(0, 1, 100, 0, 1), Err(Error::BadArgument));
    assert_eq!(world.derive(0, 1, 101, u64::MAX, 1), Err(Error::BadArgument));
    assert_eq!(world.derive(0, 1, 100, 1, 0x10), Err(Error::NotPermitted));
    assert!(world.derive(0, 1, 100, 1000, 0x800F).is_ok());
    world.check();
}

#[test]
fn handle_of_a_removed_entry_stays_refused_when_the_slot_is_used_again() {
    let mut world = World::new();
    let first = world.derive(0, 1, 100, 1, 1).expect("derives");
    assert!(world.step(0));
    assert_eq!(world.tree().find(1, first, Kind::Memory), Err(Error::NotFound));
    let second = world.derive(0, 1, 200, 1, 1).expect("derives");
    assert_eq!(first.slot(), second.slot());
    assert_eq!(world.tree().find(1, first, Kind::Memory), Err(Error::NotFound));
    assert!(world.tree().find(1, second, Kind::Memory).is_ok());
}

#[test]
fn handle_is_good_for_its_environment_and_kind_only() {
    let mut world = World::new();
    let handle = world.derive(0, 1, 100, 1, 1).expect("derives");
    assert_eq!(world.tree().find(2, handle, Kind::Memory), Err(Error::NotFound));
    assert_eq!(world.tree().find(1, handle, Kind::Queues), Err(Error::NotFound));
    for nonsense in [0, 255, 256, u64::from(u32::MAX), 1 << 32 | 255, 1 << 32 | 256, u64::MAX] {
        assert_eq!(world.tree().find_any(1, Handle(nonsense)).is_ok(), Handle(nonsense) == handle);
    }
}

#[test]
fn table_full_and_chain_too_long_return_no_space() {
    let mut world = World::new();
    for _ in 0..255 {
        world.derive(0, 1, 100, 1, 1).expect("there are 255 slots");
    }
    assert_eq!(world.derive(0, 1, 100, 1, 1), Err(Error::NoSpace));
    let mut parent = 0;
    for _ in 0..DEPTH_MAX {
        let handle = world.derive(parent, 2, 100, 1, 1).expect("not too deep yet");
        parent = number(2, handle.slot());
    }
    assert_eq!(world.derive(parent, 2, 100, 1, 1), Err(Error::NoSpace));
    world.check();
}

#[test]
fn nothing_is_derived_below_what_is_being_revoked() {
    let mut world = World::new();
    let child = world.derive(0, 1, 100, 10, 1).expect("derives");
    let child = number(1, child.slot());
    let grandchild = number(2, world.derive(child, 2, 100, 10, 1).expect("derives").slot());
    world.tree().begin_revoking(child);
    assert_eq!(world.derive(child, 1, 100, 1, 1), Err(Error::Revoked));
    assert_eq!(world.derive(grandchild, 2, 100, 1, 1), Err(Error::Revoked));
    assert!(world.derive(0, 1, 100, 1, 1).is_ok(), "beside it");
    while world.step(child) {}
    world.tree().end_revoking(child);
    assert!(world.derive(child, 1, 100, 1, 1).is_ok());
    world.check();
}

#[test]
fn nothing_is_bound_with_what_is_leaving() {
    let mut world = World::new();
    let child = world.derive(0, 1, 100, 10, 1).expect("derives");
    let number = number(1, child.slot());
    world.tree().begin_revoking(0);
    assert_eq!(world.tree().find(1, child, Kind::Memory), Ok(number), "not its turn yet");
    world.tree().begin_leaving(number);
    assert_eq!(world.tree().find(1, child, Kind::Memory), Err(Error::NotFound));
    assert_eq!(world.derive(number, 1, 100, 1, 1), Err(Error::Revoked));
    assert_eq!(world.tree().find_any(1, child), Ok(number), "whoever takes it back goes on");
    assert!(world.step(0));
    assert_eq!(world.tree().find_any(1, child), Err(Error::NotFound));
    world.check();
}

proptest! {
    #[test]
    fn tree_stays_a_tree(operations in prop::collection::vec((0..3u8, any::<prop::sample::Index>(), 0..ENVIRONMENTS, 90..1110u64, 0..1010u64, any::<u16>()), 1..200)) {
        let mut world = World::new();
        for (operation, index, environment, start, count, rights) in operations {
            let live = world.live();
            let of = live[index.index(live.len())];
            match operation {
                0 | 1 => { let _ = world.derive(of, environment, start, count, rights & 0x800F); }
                _ => {
                    let below = |world: &World, mut n: u16| loop {
                        match world.entries[usize::from(n)].parent.checked_sub(1) {
                            Some(parent) if parent == of => break true,
                            Some(parent) => n = parent,
                            None => break false,
                        }
                    };
                    let mut gone: Vec<u16> = live.iter().copied().filter(|&n| below(&world, n)).collect();
                    let mut steps = 0;
                    while world.step(of) { steps += 1; world.check(); }
                    assert_eq!(steps, gone.len());
                    gone.retain(|&n| world.entries[usize::from(n)].kind != 0);
                    assert!(gone.is_empty());
                }
            }
            world.check();
        }
    }
}

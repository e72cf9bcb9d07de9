//! Giving the tail of a range back: what was derived and reaches into it is found, whoever drops what meanwhile, and nothing new
//! comes into being there.

use abi::call::Error;
use abi::capability::{Capability, Handle, Kind, number};
use proptest::prelude::*;
use xok_core::capability::{ENTRIES, Part, Reaching, Slots, Tree};

struct World {
    entries: Box<[Capability; ENTRIES]>,
    slots: Slots,
}

impl World {
    fn new() -> Self {
        let mut entries = Box::new([Capability::default(); ENTRIES]);
        let kind = Kind::Memory as u8;
        entries[0] =
            Capability { kind, rights: 1, generation: 1, start: 100, count: 1000, ..Capability::default() };
        Self { entries, slots: Slots::new(0, 1) }
    }

    fn tree(&mut self) -> Tree<'_> {
        Tree::new(&mut self.entries)
    }

    fn derive(&mut self, parent: u16, start: u64, count: u64) -> Result<u16, Error> {
        let mut slots = self.slots;
        let part = Part { start, count, rights: 1, object: 0 };
        let handle = self.tree().derive(parent, &mut slots, part);
        self.slots = slots;
        handle.map(|handle| number(0, handle.slot()))
    }

    fn remove(&mut self, number: u16) {
        let mut slots = self.slots;
        self.tree().remove(number, &mut slots);
        self.slots = slots;
    }
}

#[test]
fn nothing_is_bound_with_or_derived_from_what_is_trimmed_until_that_is_done() {
    let mut world = World::new();
    let handle = Handle::new(0, 1);
    let child = world.derive(0, 100, 10).expect("derives");
    world.tree().begin_trimming(0);
    assert_eq!(world.tree().find(0, handle, Kind::Memory), Err(Error::NotFound));
    assert_eq!(world.derive(0, 100, 1), Err(Error::Revoked));
    assert_eq!(world.derive(child, 100, 1), Err(Error::Revoked));
    assert_eq!(world.tree().find_any(0, handle), Ok(0), "whoever goes on with it");
    // Taking back what is below it is something else, and ends nothing of this.
    world.tree().begin_revoking(0);
    world.tree().end_revoking(0);
    assert_eq!(world.derive(0, 100, 1), Err(Error::Revoked));
    world.tree().end_trimming(0, 20);
    assert_eq!(world.tree().find(0, handle, Kind::Memory), Ok(0));
    assert_eq!(world.tree().entry(0).count, 20);
    assert!(world.derive(0, 100, 20).is_ok());
    assert_eq!(world.derive(0, 119, 2), Err(Error::BadArgument), "behind its new end");
    world.tree().end_trimming(0, 30);
    assert_eq!(world.tree().entry(0).count, 20, "it does not grow again");
}

#[test]
fn derived_means_directly_or_not_and_never_itself() {
    let mut world = World::new();
    let child = world.derive(0, 100, 10).expect("derives");
    let grandchild = world.derive(child, 100, 10).expect("derives");
    let beside = world.derive(0, 100, 10).expect("derives");
    for (number, above, expected) in [
        (grandchild, 0, true),
        (grandchild, child, true),
        (grandchild, beside, false),
        (0, 0, false),
        (0, child, false),
    ] {
        assert_eq!(world.tree().is_below(number, above), expected, "{number} below {above}");
    }
}

#[test]
fn one_that_is_leaving_reaches_into_every_tail_until_it_is_gone() {
    let mut world = World::new();
    let child = world.derive(0, 100, 10).expect("derives");
    world.tree().begin_trimming(0);
    assert_eq!(world.tree().reaching(0, 500, &mut 0, 8), Reaching::None);
    world.tree().begin_leaving(child);
    world.tree().entry_mut(child).count = 0;
    assert_eq!(world.tree().reaching(0, 500, &mut 0, 8), Reaching::Child(child));
    world.remove(child);
    assert_eq!(world.tree().reaching(0, 500, &mut 0, 8), Reaching::None);
}

proptest! {
    /// Whatever the budget, and whoever drops some of them in between: at the end none reaches into the tail, and none went that
    /// does not.
    #[test]
    fn all_that_reach_into_the_tail_are_found(
        ranges in prop::collection::vec((0..1000u64, 1..200u64), 1..100),
        limit in 100..1100u64,
        budget in 1..8u32,
        drops in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let mut world = World::new();
        let mut live: Vec<u16> = ranges
            .iter()
            .map(|&(start, count)| world.derive(0, 100 + start, count.min(1000 - start)).expect("derives"))
            .collect();
        let reaches = |world: &World, number: u16| {
            let entry = world.entries[usize::from(number)];
            entry.start + entry.count > limit
        };
        world.tree().begin_trimming(0);
        let (mut cursor, mut drops) = (0, drops.into_iter());
        for steps in 0.. {
            prop_assert!(steps < 100_000, "no end");
            match world.tree().reaching(0, limit, &mut cursor, budget) {
                Reaching::Child(child) => {
                    prop_assert!(reaches(&world, child));
                    world.remove(child);
                    live.retain(|&other| other != child);
                }
                Reaching::None => break,
                Reaching::Unknown => {}
            }
            if let Some(index) = drops.next() && !live.is_empty() {
                let dropped = live.swap_remove(index.index(live.len()));
                world.remove(dropped);
            }
        }
        for number in live {
            prop_assert!(!reaches(&world, number));
            prop_assert_ne!(world.entries[usize::from(number)].kind, 0);
        }
    }
}

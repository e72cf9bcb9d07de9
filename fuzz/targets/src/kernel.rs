//! The kernel's tables under arbitrary calls: the tree of capabilities over the tables of some environments, and page tables. What
//! they should be is kept beside them, as plainly as possible.

use crate::input::Input;
use abi::capability::{CAPABILITIES, Capability, DEPTH_MAX, Handle, Kind, REVOKING};
use abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES};
use abi::paging::{ADDRESS, LARGE, PRESENT, slot_of, tag};
use std::collections::BTreeMap;
use xok_core::capability::{ENTRIES, Part, Slots, Tree};
use xok_core::paging::{END_VA, FIRST_VA, Sweep, Tables, find, make, range_is_mappable, sweep};

const ENVIRONMENTS: usize = 3;

/// Both, by turns.
pub fn kernel(bytes: &[u8]) {
    let mut input = Input(bytes);
    if input.below(2) == 0 { capabilities(input) } else { page_tables(input) }
}

/// What is known of a capability.
#[derive(Clone, Copy, Debug)]
struct Known {
    environment: usize,
    handle: Handle,
    number: u16,
    /// Index in the list; `None`: a root, or gone.
    parent: Option<usize>,
    start: u64,
    count: u64,
    rights: u16,
    depth: u8,
    revoking: bool,
    alive: bool,
}

struct World {
    entries: Box<[Capability; ENTRIES]>,
    slots: [Slots; ENVIRONMENTS],
    known: Vec<Known>,
}

fn capabilities(mut input: Input<'_>) {
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
    fn new() -> Self {
        let entries = vec![Capability::default(); ENTRIES];
        let mut entries: Box<[Capability; ENTRIES]> = entries.try_into().expect("as many as there are");
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
            alive: true,
        };
        Self { entries, slots, known: vec![root] }
    }

    fn tree(&mut self) -> Tree<'_> {
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

    fn find(&mut self, environment: usize, handle: Handle) {
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
            if self.known[at].revoking {
                return true;
            }
            let Some(parent) = self.known[at].parent else { return false };
            at = parent;
        }
    }

    fn derive(&mut self, at: usize, input: &mut Input<'_>) {
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
            alive: true,
        });
    }

    fn remove(&mut self, at: usize) {
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

    fn is_below(&self, mut at: usize, above: usize) -> bool {
        while let Some(parent) = self.known[at].parent {
            if parent == above {
                return true;
            }
            at = parent;
        }
        false
    }

    fn check(&mut self) {
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
}

const ROOT: u64 = 0x1000;

/// Physical memory that holds page tables, as long as there are some.
struct Memory {
    words: BTreeMap<u64, u64>,
    free: Vec<u64>,
    taken: u32,
}

impl Tables for Memory {
    fn read(&self, gpa: u64) -> u64 {
        assert!(gpa >= ROOT && gpa.is_multiple_of(8));
        self.words.get(&gpa).copied().unwrap_or(0)
    }

    fn write(&mut self, gpa: u64, entry: u64) {
        self.words.insert(gpa, entry);
    }

    fn take(&mut self) -> Option<u64> {
        let gpa = self.free.pop()?;
        assert_eq!(self.words.range(gpa..gpa + PAGE_BYTES).filter(|(_, word)| **word != 0).count(), 0);
        self.taken += 1;
        Some(gpa)
    }

    fn give(&mut self, gpa: u64) {
        self.taken -= 1;
        self.free.push(gpa);
    }
}

/// An address: few regions, and anything.
fn address(input: &mut Input<'_>) -> u64 {
    let page = u64::from(input.u16());
    match input.below(8) {
        0 => input.u64(),
        1 => END_VA.wrapping_sub(page % 8 * PAGE_BYTES),
        2 => FIRST_VA.wrapping_add(page % 8 * PAGE_BYTES),
        3 => (1 << 40) + page * LARGE_PAGE_BYTES,
        _ => (1 << 40) + page % 1024 * PAGE_BYTES,
    }
}

fn page_tables(mut input: Input<'_>) {
    let supply = 1 + u64::from(input.below(24));
    let free = (0..supply).map(|table| 0x10_0000 + table * PAGE_BYTES).collect();
    let mut memory = Memory { words: BTreeMap::new(), free, taken: 0 };
    // What is mapped: first address, bytes, entry.
    let mut mapped = BTreeMap::<u64, (u64, u64)>::new();
    let mut steps = 0;
    while !input.is_empty() && steps < 500 {
        steps += 1;
        let va = address(&mut input);
        match input.below(6) {
            0..=2 => {
                let large = input.below(4) == 0;
                let bytes = if large { LARGE_PAGE_BYTES } else { PAGE_BYTES };
                if !range_is_mappable(va, bytes / PAGE_BYTES, large) {
                    continue;
                }
                assert!(va >= FIRST_VA && va + bytes <= END_VA && va.is_multiple_of(bytes));
                let Ok(at) = make(&mut memory, ROOT, va, large) else { continue };
                let slot = input.u8();
                let entry =
                    u64::from(input.u16()) << 12 | PRESENT | tag(slot.into()) | if large { LARGE } else { 0 };
                memory.write(at, entry);
                let overlaps = mapped
                    .iter()
                    .any(|(&start, &(len, _))| start < va + bytes && va < start + len && len != bytes);
                assert!(!overlaps, "a page inside a large one, or the other way round");
                mapped.insert(va, (bytes, entry));
            }
            3 => {
                if va >= END_VA {
                    continue;
                }
                let known = mapped.range(..=va).next_back().filter(|(start, (len, _))| va < **start + len);
                match (find(&memory, ROOT, va), known) {
                    (Ok((at, bytes)), Some((_, &(len, entry)))) => {
                        assert_eq!((memory.read(at), bytes), (entry, len))
                    }
                    (Err(bytes), None) => {
                        let end = va.saturating_add(bytes);
                        assert!(mapped.range(va..end).next().is_none(), "something is mapped there");
                    }
                    (found, known) => panic!("{found:x?}, and {known:x?}"),
                }
            }
            4 => {
                let va = va.min(END_VA - 1);
                if let Ok((at, _)) = find(&memory, ROOT, va) {
                    memory.write(at, 0);
                    let start = mapped.range(..=va).next_back().map_or(0, |(start, _)| *start);
                    mapped.remove(&start);
                }
            }
            _ => {
                // Everything of one slot, in steps.
                let slot = u32::from(input.u8());
                // As the kernel sweeps; less than a way from the root to a leaf would get nowhere.
                let budget = if input.below(2) == 0 { 128 } else { 256 };
                go_through(&mut memory, budget, Sweep::Keep, |entry| slot_of(entry) == slot);
                mapped.retain(|_, (_, entry)| slot_of(*entry) != slot);
            }
        }
    }
    for (&va, &(bytes, entry)) in &mapped {
        let (at, covers) = find(&memory, ROOT, va).expect("what is mapped is found");
        assert_eq!((memory.read(at) & ADDRESS, covers), (entry & ADDRESS, bytes));
    }
    go_through(&mut memory, 128, Sweep::Free, |_| true);
    assert_eq!(memory.taken, 0, "tables are left");
    assert!(memory.words.values().all(|&word| word == 0), "something is left");
}

fn go_through(memory: &mut Memory, budget: u32, what: Sweep, mut remove: impl FnMut(u64) -> bool) {
    let (mut va, mut steps) = (0, 0);
    while va < END_VA {
        let to = sweep(memory, ROOT, va, budget, what, &mut remove);
        assert!(to >= va);
        va = to;
        steps += 1;
        assert!(steps < 1 << 20, "a sweep that does not end");
    }
}

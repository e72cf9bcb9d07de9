//! Ranges that are given back and taken while they are in use: capabilities with which pages are mapped, in page tables of their
//! holders. The steps are those of the kernel's calls; when one says that it is done, nothing of what was handed over is derived or
//! mapped anywhere, and until then nothing else has gone.

use super::capabilities::{ENVIRONMENTS, World};
use super::page_tables::{Memory, ROOT, go_through};
use crate::input::Input;
use abi::call::Error;
use abi::capability::{CAPABILITIES, Kind};
use abi::layout::PAGE_BYTES;
use abi::paging::{ADDRESS, PRESENT, slot_of, tag};
use std::collections::BTreeMap;
use xok_core::capability::Reaching;
use xok_core::paging::{END_VA, Sweep, Tables, find, make, sweep};

/// Where pages are mapped.
const VA: u64 = 1 << 40;
/// Entries of page tables that one step looks at, as in the kernel.
const SWEEP_STEP: u32 = 128;
/// Asks that stand at a time.
const ASKS: usize = 2;

/// How far the taking of a tail is.
#[derive(Clone, Copy, Debug)]
struct Trim {
    /// Whose: index of what is known.
    at: usize,
    keep: u64,
    child: u16,
    children_gone: bool,
    va: u64,
}

impl Trim {
    fn new(at: usize, keep: u64) -> Self {
        Self { at, keep, child: 0, children_gone: false, va: 0 }
    }
}

/// A page that is mapped: with which capability, and which page.
type Mapped = BTreeMap<u64, (usize, u64)>;

struct Kernel {
    world: World,
    tables: [Memory; ENVIRONMENTS],
    mapped: [Mapped; ENVIRONMENTS],
    /// The least that was asked to be kept of each capability whose tail is being taken.
    least_keep: BTreeMap<usize, u64>,
    /// What each environment gives back by itself, and what the kernel takes.
    trims: [Option<Trim>; ENVIRONMENTS],
    asks: [Option<Trim>; ASKS],
    sweep_va: [u64; ENVIRONMENTS],
    /// Derived capabilities that one step looks at.
    children: u32,
}

pub(super) fn giving_back(mut input: Input<'_>) {
    let supply = 4 + u64::from(input.below(24));
    let mut kernel = Kernel {
        world: World::new(),
        tables: [(); ENVIRONMENTS].map(|()| Memory::new(supply)),
        mapped: Default::default(),
        least_keep: BTreeMap::new(),
        trims: [None; ENVIRONMENTS],
        asks: [None; ASKS],
        sweep_va: [0; ENVIRONMENTS],
        children: 1 + u32::from(input.below(4)),
    };
    let mut steps = 0;
    while !input.is_empty() && steps < 1000 {
        kernel.step(&mut input);
        steps += 1;
        if steps % 32 == 0 {
            kernel.check();
        }
    }
    kernel.check();
    kernel.end();
}

impl Kernel {
    fn step(&mut self, input: &mut Input<'_>) {
        // Few are used at a time, so that things meet.
        let at = self.world.known.len().saturating_sub(1 + usize::from(input.below(24)));
        match input.below(16) {
            0..=2 => self.world.derive(at, input),
            3..=7 => self.map(at, input),
            8 => self.unmap(input),
            9 | 10 => {
                let keep = self.keep(at, input);
                self.trim(at, keep);
            }
            11 => self.ask(at, input),
            12 => self.take(usize::from(input.below(ASKS as u8))),
            13 => {
                // The root is nobody's to take.
                for _ in 0..4 {
                    if at == 0 || !self.world.known[at].alive || self.drop_step(at) {
                        break;
                    }
                }
            }
            14 => self.revoke(at, u32::from(input.below(5))),
            _ => {
                let of = self.world.known[at];
                self.world.find(usize::from(input.below(ENVIRONMENTS as u8)), of.handle);
            }
        }
    }

    fn keep(&self, at: usize, input: &mut Input<'_>) -> u64 {
        let count = self.world.known[at].count;
        match input.below(4) {
            0 => u64::from(input.u8()),
            1 => count.wrapping_sub(u64::from(input.below(4))),
            2 => {
                // Where one that was derived from it ends, or nearly so.
                let nth = usize::from(input.below(4));
                let start = self.world.known[at].start;
                let mut below =
                    self.world.known.iter().rev().filter(|known| known.alive && known.parent == Some(at));
                let end = below.nth(nth).map_or(count, |known| known.start + known.count - start);
                (end + u64::from(input.below(3))).saturating_sub(1)
            }
            _ => u64::from(input.u16()) % (count + 1),
        }
    }

    /// A page of a capability, somewhere.
    fn map(&mut self, at: usize, input: &mut Input<'_>) {
        let of = self.world.known[at];
        let (place, page) = (input.u8(), u64::from(input.u16()));
        let found = self.world.tree().find(of.environment as u32, of.handle, Kind::Memory);
        let may = of.alive && !of.trimming && !of.leaving;
        assert_eq!(found, if may { Ok(of.number) } else { Err(Error::NotFound) }, "bound with what goes");
        if !may {
            return;
        }
        // Some tables, some pages of each.
        let va = VA + (u64::from(place & 7) << 21) + u64::from(place >> 3) * PAGE_BYTES;
        let page = of.start + page % of.count;
        let Ok(entry_gpa) = make(&mut self.tables[of.environment], ROOT, va, false) else { return };
        self.world.tree().entry_mut(of.number).bound += 1;
        let slot = u32::from(of.number) % CAPABILITIES as u32;
        self.replace(of.environment, entry_gpa, (page * PAGE_BYTES) | PRESENT | tag(slot));
        self.mapped[of.environment].insert(va, (at, page));
    }

    fn replace(&mut self, environment: usize, at: u64, entry: u64) {
        let old = self.tables[environment].read(at);
        self.tables[environment].write(at, entry);
        if old & PRESENT != 0 {
            let number = abi::capability::number(environment as u32, slot_of(old));
            self.world.tree().entry_mut(number).bound -= 1;
        }
    }

    fn unmap(&mut self, input: &mut Input<'_>) {
        let (environment, nth) = (usize::from(input.below(ENVIRONMENTS as u8)), usize::from(input.u8()));
        let Some((&va, _)) = self.mapped[environment].iter().nth(nth) else { return };
        if let Ok((entry_gpa, _)) = find(&self.tables[environment], ROOT, va) {
            self.replace(environment, entry_gpa, 0);
        }
        self.mapped[environment].remove(&va);
    }

    /// A call of the holder's: gives the tail back.
    fn trim(&mut self, at: usize, keep: u64) {
        let of = self.world.known[at];
        let taking = self.asks.iter().flatten().any(|ask| ask.at == at);
        // What the call refuses.
        if !of.alive || keep == 0 || keep > of.count || of.leaving || taking {
            return;
        }
        if keep == of.count && !of.trimming {
            return;
        }
        let known = self.trims[of.environment].filter(|trim| (trim.at, trim.keep) == (at, keep));
        let mut trim = known.unwrap_or(Trim::new(at, keep));
        for _ in 0..4 {
            if self.trim_step(&mut trim) {
                self.answered(at);
                return;
            }
        }
        self.trims[of.environment] = Some(trim);
    }

    /// The kernel begins to take what was asked for.
    fn ask(&mut self, at: usize, input: &mut Input<'_>) {
        let keep = self.keep(at, input);
        let of = self.world.known[at];
        let taking = self.asks.iter().flatten().any(|ask| ask.at == at);
        let Some(slot) = self.asks.iter().position(Option::is_none) else { return };
        // The root is nobody's to ask for.
        if at == 0 || !of.alive || taking || keep >= of.count {
            return;
        }
        if self.trims[of.environment].is_some_and(|trim| trim.at == at) {
            self.trims[of.environment] = None;
        }
        self.asks[slot] = Some(Trim::new(at, keep));
    }

    /// A step of that.
    fn take(&mut self, slot: usize) {
        let Some(mut trim) = self.asks[slot] else { return };
        if trim.keep == 0 || self.world.known[trim.at].leaving {
            self.drop_step(trim.at);
        } else if self.trim_step(&mut trim) {
            self.answered(trim.at);
        } else {
            self.asks[slot] = Some(trim);
        }
    }

    /// A capability is shorter, or gone: nobody is at its tail any more, but for those who want still more of it.
    fn answered(&mut self, at: usize) {
        let of = self.world.known[at];
        for trim in &mut self.trims {
            *trim = trim.filter(|trim| trim.at != at);
        }
        for ask in &mut self.asks {
            *ask = ask.filter(|ask| ask.at != at || of.alive && of.count > ask.keep);
        }
    }

    /// A step of taking a tail; whether it was the last.
    fn trim_step(&mut self, trim: &mut Trim) -> bool {
        let Trim { at, keep, .. } = *trim;
        let number = self.world.known[at].number;
        self.world.tree().begin_trimming(number);
        self.world.known[at].trimming = true;
        let least = self.least_keep.entry(at).or_insert(keep);
        *least = keep.min(*least);
        let of = self.world.known[at];
        let limit = of.start + keep;
        if !trim.children_gone {
            let children = self.children;
            match self.world.tree().reaching(number, limit, &mut trim.child, children) {
                Reaching::Child(child) => {
                    let found = self.index_of(child);
                    let below = self.world.known[found];
                    let reaches = below.leaving || below.start + below.count > limit;
                    assert!(below.parent == Some(at) && reaches, "another's child");
                    let next = self.world.tree().entry(child).next;
                    if self.drop_step(found) {
                        trim.child = next;
                    }
                }
                Reaching::None => trim.children_gone = true,
                Reaching::Unknown => {}
            }
            return false;
        }
        if trim.va < END_VA && self.world.tree().entry(number).bound > 0 {
            trim.va = self.unmap_some(at, trim.va, |page| page >= limit);
            return false;
        }
        self.world.tree().end_trimming(number, keep);
        let known = &mut self.world.known[at];
        (known.trimming, known.count) = (false, of.count.min(keep));
        let least = of.start + self.least_keep.remove(&at).expect("begun");
        self.settle(at, |page| page >= least);
        for (index, known) in self.world.known.iter().enumerate().filter(|(_, known)| known.alive) {
            let reaches = known.start + known.count > limit;
            assert!(!reaches || !self.world.is_below(index, at), "{known:?} was derived from what is gone");
        }
        assert!(self.mapped[of.environment].values().all(|&(with, page)| with != at || page < limit));
        true
    }

    fn index_of(&self, number: u16) -> usize {
        let found = self.world.known.iter().position(|known| known.alive && known.number == number);
        found.expect("only what is there is taken")
    }

    /// Removes mappings made with a capability; where to go on.
    fn unmap_some(&mut self, at: usize, from: u64, which: impl Fn(u64) -> bool) -> u64 {
        let of = self.world.known[at];
        let slot = u32::from(of.number) % CAPABILITIES as u32;
        let mut removed = 0;
        let to = sweep(&mut self.tables[of.environment], ROOT, from, SWEEP_STEP, Sweep::Keep, |entry| {
            let hit = slot_of(entry) == slot && which((entry & ADDRESS) / PAGE_BYTES);
            removed += u32::from(hit);
            hit
        });
        self.world.tree().entry_mut(of.number).bound -= removed;
        to
    }

    /// What was mapped with a capability and is not any more: only what might go.
    fn settle(&mut self, at: usize, might: impl Fn(u64) -> bool) {
        let environment = self.world.known[at].environment;
        let tables = &self.tables[environment];
        self.mapped[environment].retain(|&va, &mut (with, page)| {
            let gone = with == at && find(tables, ROOT, va).map_or(0, |(entry, _)| tables.read(entry)) == 0;
            assert!(!gone || might(page), "{va:x} was to stay");
            !gone
        });
    }

    /// A step of taking back a capability and all below it; whether it was the last.
    fn drop_step(&mut self, at: usize) -> bool {
        let number = self.world.known[at].number;
        self.world.tree().begin_revoking(number);
        self.world.known[at].revoking = true;
        match self.world.tree().leaf_below(number) {
            Some(leaf) => {
                let leaf = self.index_of(leaf);
                assert!(self.world.is_below(leaf, at), "something else is taken");
                self.remove_step(leaf);
                false
            }
            None => self.remove_step(at),
        }
    }

    fn remove_step(&mut self, at: usize) -> bool {
        let of = self.world.known[at];
        self.world.tree().begin_leaving(of.number);
        self.world.known[at].leaving = true;
        if self.world.tree().entry(of.number).bound > 0 {
            let to = self.unmap_some(at, self.sweep_va[of.environment], |_| true);
            self.sweep_va[of.environment] = if to < END_VA { to } else { 0 };
            if self.world.tree().entry(of.number).bound > 0 {
                return false;
            }
        }
        self.settle(at, |_| true);
        let left = self.mapped[of.environment].values().filter(|(with, _)| *with == at).count();
        assert_eq!(left, 0, "pages of a capability that is gone are mapped");
        self.world.remove(at);
        self.least_keep.remove(&at);
        self.answered(at);
        true
    }

    fn revoke(&mut self, at: usize, steps: u32) {
        let of = self.world.known[at];
        if !of.alive {
            return;
        }
        self.world.tree().begin_revoking(of.number);
        self.world.known[at].revoking = true;
        for _ in 0..steps {
            let Some(leaf) = self.world.tree().leaf_below(of.number) else {
                self.world.tree().end_revoking(of.number);
                self.world.known[at].revoking = false;
                return;
            };
            let leaf = self.index_of(leaf);
            assert!(self.world.is_below(leaf, at), "something else is taken");
            self.remove_step(leaf);
        }
    }

    /// Each entry of each page table is one that was made, with a capability that is there and for a page of it; what is counted is
    /// what there is; and what was made is there, unless it is being taken.
    fn check(&mut self) {
        self.world.check();
        for environment in 0..ENVIRONMENTS {
            let mut bound = BTreeMap::<u32, u32>::new();
            let mut entries = 0;
            go_through(&mut self.tables[environment], SWEEP_STEP, Sweep::Keep, |entry| {
                *bound.entry(slot_of(entry)).or_default() += 1;
                entries += 1;
                false
            });
            for known in
                self.world.known.iter().filter(|known| known.alive && known.environment == environment)
            {
                let slot = u32::from(known.number) % CAPABILITIES as u32;
                let counted = self.world.entries[usize::from(known.number)].bound;
                assert_eq!(counted, bound.remove(&slot).unwrap_or(0), "bound with {known:?}");
            }
            assert!(bound.is_empty(), "bound with what is not there: {bound:?}");
            let mut seen = 0;
            for (&va, &(at, page)) in &self.mapped[environment] {
                let known = self.world.known[at];
                assert!(known.alive && page >= known.start && page < known.start + known.count);
                let tables = &self.tables[environment];
                let entry = find(tables, ROOT, va).map_or(0, |(entry, _)| tables.read(entry));
                if entry == 0 {
                    let least = self.least_keep.get(&at).map_or(u64::MAX, |keep| known.start + keep);
                    assert!(known.leaving || page >= least, "{va:x} was to stay");
                    continue;
                }
                assert_eq!((entry & ADDRESS) / PAGE_BYTES, page);
                seen += 1;
            }
            assert_eq!(seen, entries, "pages are mapped that nobody mapped");
        }
    }

    /// Everything can be taken back, and nothing is left.
    fn end(&mut self) {
        for _ in 0..1 << 20 {
            self.revoke(0, 1);
            if !self.world.known[0].revoking {
                break;
            }
        }
        self.check();
        assert_eq!(self.world.known.iter().filter(|known| known.alive).count(), 1);
        for environment in 0..ENVIRONMENTS {
            let mapped = std::mem::take(&mut self.mapped[environment]);
            for va in mapped.into_keys() {
                if let Ok((entry, _)) = find(&self.tables[environment], ROOT, va) {
                    self.replace(environment, entry, 0);
                }
            }
            self.tables[environment].end();
        }
        assert_eq!(self.world.entries[0].bound, 0);
    }
}

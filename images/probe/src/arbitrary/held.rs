//! What the one who makes calls holds, as far as its parent can know: handles of each kind, what their ranges are, and who waits for
//! an answer. From this come arguments with which a call succeeds, and those that are wrong in one place.

use super::attacker::Request;
use super::random::Random;
use abi::call::{ANY, Call};
use abi::capability::{Kind, rights};
use abi::layout::*;
use alloc::vec::Vec;

/// Handles that are remembered.
const HANDLES: usize = 300;

/// A handle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) handle: u64,
    pub(super) kind: Kind,
    pub(super) rights: u16,
    pub(super) start: u64,
    pub(super) count: u64,
    /// Of an environment: that there is one, and not only places for some.
    pub(super) lives: bool,
    /// Of a flow: how deep it is.
    pub(super) level: u64,
    /// It was given in the beginning, and most others come from it.
    first: bool,
}

impl Held {
    pub(super) fn new(handle: u64, kind: Kind, rights: u16, (start, count): (u64, u64)) -> Self {
        Self { handle, kind, rights, start, count, lives: false, level: 0, first: false }
    }
}

/// Something that was given to another environment: whose handle names that, the handle there, and what it came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub(super) to: u64,
    pub(super) theirs: u64,
    pub(super) from: u64,
}

/// All of it.
pub(super) struct Holding {
    held: Vec<Held>,
    pub(super) given: Vec<Given>,
    /// Handles of what is gone, and of what goes in steps, of which the last has not been made.
    gone: Vec<u64>,
    going: Vec<u64>,
    /// The call that is made again and again, and for how long still.
    pub(super) insist: (Option<Call>, u64),
    /// Who waits for an answer.
    pub(super) senders: Vec<u64>,
}

impl Holding {
    pub(super) fn new(companions: [(u64, u16); 4]) -> Self {
        let held = companions.map(|(handle, rights)| {
            let companion = Held::new(handle, Kind::Environment, rights, (0, 1));
            Held { lives: true, first: true, ..companion }
        });
        let (given, gone, going, senders) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { held: held.to_vec(), given, gone, going, insist: (None, 0), senders }
    }

    /// It has this from the beginning.
    pub(super) fn begin(&mut self, held: Held) {
        self.held.push(Held { first: true, ..held });
    }

    fn find(&self, handle: u64) -> Option<&Held> {
        self.held.iter().find(|held| held.handle == handle)
    }

    /// A call has succeeded.
    pub(super) fn note(&mut self, request: &Request) {
        let [a, b, c, d, e] = request.arguments;
        let new = request.value;
        let Some(call) = Call::from_number(request.number) else { return };
        match call {
            Call::CapabilityDerive => {
                let part = |held: &Held| Held { first: false, rights: e as u16, start: c, count: d, ..*held };
                match self.find(b).map(part) {
                    Some(part) if a == 0 => self.add(Held { handle: new, ..part }),
                    _ => self.given.push(Given { to: a, theirs: new, from: b }),
                }
            }
            Call::CapabilityGive => self.given.push(Given { to: c, theirs: new, from: b }),
            Call::EnvironmentCreate => {
                let places = self.find(a).map_or((0, 0), |places| (places.rights, places.start));
                // If it was to be in any, in the first.
                let place = if b == ANY { places.1 } else { b };
                let rights = places.0 & !rights::CREATE;
                let environment = Held::new(new, Kind::Environment, rights, (place, 1));
                self.add(Held { lives: true, ..environment });
            }
            Call::FlowCarve if a == 0 => {
                let rights = self.find(b).map_or(0, |flow| flow.rights & !rights::SEND_ANY);
                let flow = Held::new(new, Kind::Flow, rights, (0, 1));
                self.add(Held { level: c & 0xFF, ..flow });
            }
            Call::CapabilityDrop if a == 0 && new == 0 => {
                self.held.retain(|held| held.handle != b);
                self.gone.push(b);
            }
            Call::CapabilityDrop | Call::CapabilityRevoke if a == 0 && new != 0 => self.going.push(b),
            Call::CapabilityTrim if a == 0 && new == 0 => {
                self.held.iter_mut().filter(|held| held.handle == b).for_each(|held| held.count = c);
            }
            Call::MessageReceive | Call::MessageReplyReceive => self.senders.push(request.first),
            _ => {}
        }
        self.forget();
    }

    fn add(&mut self, held: Held) {
        if self.held.len() < HANDLES {
            self.held.push(held);
        }
    }

    fn forget(&mut self) {
        if self.given.len() > 64 {
            self.given.remove(0);
        }
        if self.gone.len() > 32 {
            self.gone.remove(0);
        }
        if self.going.len() > 8 {
            self.going.remove(0);
        }
        if self.senders.len() > 4 {
            self.senders.remove(0);
        }
    }

    /// One of those for which this holds; as often as not the newest.
    pub(super) fn any(&self, random: &mut Random, which: impl Fn(&Held) -> bool) -> Option<Held> {
        let mut fit = self.held.iter().filter(|held| which(held));
        if random.below(3) == 0 {
            return fit.next_back().copied();
        }
        let count = self.held.iter().filter(|held| which(held)).count();
        fit.nth(random.below(count as u64) as usize).copied()
    }

    pub(super) fn of(&self, kind: Kind, random: &mut Random) -> Held {
        let nothing = Held::new(0, kind, 0, (0, 1));
        // As well one that is going.
        let going = random.below(8) == 0;
        let is_going = |held: &Held| self.going.contains(&held.handle);
        let fits = |held: &Held| held.kind == kind && !held.lives && (!going || is_going(held));
        self.any(random, fits)
            .or(self.any(random, |held| held.kind == kind && !held.lives))
            .unwrap_or(nothing)
    }

    /// An environment that is there, with these rights; now and then one without.
    pub(super) fn environment(&self, rights: u16, random: &mut Random) -> u64 {
        let with = if random.below(8) == 0 { 0 } else { rights };
        let fits = |held: &Held| held.lives && held.rights & rights == with;
        self.any(random, fits).map_or(0, |held| held.handle)
    }

    /// One of those around it.
    pub(super) fn companion(&self, random: &mut Random) -> u64 {
        let all = random.below(16) == 0;
        let found = self.any(random, |held| held.lives && (all || held.first));
        found.map_or(0, |held| held.handle)
    }

    /// Something to be taken back: mostly not what everything comes from, and not what it lives by.
    pub(super) fn to_lose(&self, random: &mut Random, which: impl Fn(&Held) -> bool) -> Option<Held> {
        let all = random.below(32) == 0;
        let going = random.below(4) == 0;
        let fits = |held: &Held| which(held) && (all || !held.first);
        let goes = |held: &Held| fits(held) && self.going.contains(&held.handle);
        let found = if going { self.any(random, goes) } else { None };
        found.or(self.any(random, fits))
    }

    /// Something that can be taken in steps, of which not all have been made.
    pub(super) fn going(&self, random: &mut Random) -> Option<Held> {
        self.any(random, |held| self.going.contains(&held.handle))
    }

    /// What is not right there: a handle of another kind, of what is gone, of the same slot in another use, a neighbouring
    /// number, or any.
    pub(super) fn word(&self, before: u64, random: &mut Random) -> u64 {
        const ADDRESSES: [u64; 12] = [
            0,
            IMAGE_VA,
            IMAGE_VA + PAGE_BYTES,
            WINDOW_VA,
            STACK_TOP_VA,
            PAGES_VA,
            GATE_VA,
            RESUME_VA,
            PAGE_TABLES_VA,
            DOORBELL_VA,
            DIRECT_MAP_VA,
            KERNEL_VA,
        ];
        let handle = random.pick(&self.held).map_or(0, |held| held.handle);
        match random.below(16) {
            0..=2 => handle,
            3 => random.pick(&self.gone).copied().unwrap_or(0),
            4 => handle.wrapping_add(1 << 32),
            5 => random.below(260) | random.below(6) << 32,
            6 => self.environment(0, random),
            7 => before.wrapping_add(1),
            8 => before.wrapping_sub(1),
            9 => 0,
            10 => u64::MAX,
            11 => before ^ 1 << random.below(64),
            12 => random.pick(&ADDRESSES).map_or(0, |va| va.wrapping_add(random.number() & 0x1FFF)),
            13 => 1 << random.below(48),
            14 => random.below(1 << 16),
            _ => random.number(),
        }
    }
}

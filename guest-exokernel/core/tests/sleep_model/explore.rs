//! Visits every state that can be reached, and looks for three things among them: a state in which somebody should run and
//! nobody ever will, a way of going on for ever in which that somebody is passed over, and a way of going round without end.

use std::fmt::Debug;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

/// The rules of a model, with doc comments: a set of flags.
macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The rules. Each is one step, order or flag of the code that its comment names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct Rules { $($(#[$doc])* pub(crate) $name: bool,)* }

        impl Rules {
            /// The code as it is.
            pub(crate) const ALL: Self = Self { $($name: true,)* };
            /// Without one of them, and its name.
            pub(crate) const WITHOUT: &[(&str, Self)] =
                &[$((stringify!($name), Self { $name: false, ..Self::ALL }),)*];
        }
    };
}

/// A machine in one of its states.
pub(crate) trait Model: Clone + Debug + Eq + Hash {
    type Setup;
    type Rules;

    fn start(setup: &Self::Setup) -> Self;

    /// All steps that can be made.
    fn steps(&self, setup: &Self::Setup, rules: &Self::Rules, steps: &mut Vec<Step<Self>>);

    /// What may not stay as it is, a bit each: who should run, or be waited for no longer.
    fn owed(&self, setup: &Self::Setup) -> u32;

    /// What these bits are about, for people.
    fn what_is_owed(&self, setup: &Self::Setup) -> String;
}

/// How a step comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comes {
    /// In any case.
    Surely,
    /// In any case, by a timer that goes on and on: no reason to say that somebody goes round in circles. It is slow: whatever
    /// comes surely comes before.
    ByTheClock,
    /// It is the world's doing, or that of a time-out: nobody may rely on it.
    Perhaps,
}

/// A step that can be made.
pub(crate) struct Step<M> {
    pub(crate) state: M,
    /// What was done, for people.
    pub(crate) what: &'static str,
    pub(crate) comes: Comes,
    /// Who makes it: a number below eight.
    pub(crate) by: usize,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Found {
    /// All states were visited, so many, and all is well.
    Nothing { states: usize },
    /// Somebody should run, and never will. How that comes.
    LostWakeUp(Vec<String>),
    /// Round and round, with nothing from outside.
    BusyLoop(Vec<String>),
}

impl Found {
    /// How a lost wake-up comes, if there is one.
    pub(crate) fn lost_wake_up(&self) -> Option<&[String]> {
        if let Self::LostWakeUp(path) = self { Some(path) } else { None }
    }

    /// How many states there are, if all is well; otherwise what is not.
    pub(crate) fn all_is_well(&self) -> Result<usize, String> {
        match self {
            Self::Nothing { states } => Ok(*states),
            Self::LostWakeUp(path) => Err(format!("a lost wake-up:\n{}", path.join("\n"))),
            Self::BusyLoop(path) => Err(format!("a busy loop:\n{}", path.join("\n"))),
        }
    }
}

/// From which state one was found, by what step, and whose.
type FoundBy = (u32, &'static str, usize);

/// Tries everything.
pub(crate) fn explore<M: Model>(setup: &M::Setup, rules: &M::Rules) -> Found {
    let mut numbers = Numbers::default();
    let mut states = Vec::new();
    numbers.number(&mut states, M::start(setup));
    let mut found_by: Vec<FoundBy> = vec![(0, "start", 0)];
    let mut owed = Vec::new();
    let mut edges: Vec<Edge> = Vec::new();
    let mut steps = Vec::new();
    let mut at = 0;
    while at < states.len() {
        let state = states[at].clone();
        steps.clear();
        state.steps(setup, rules, &mut steps);
        owed.push(state.owed(setup));
        let others_come_before = steps.iter().any(|step| step.comes == Comes::Surely);
        if owed[at] != 0 && steps.iter().all(|step| step.comes == Comes::Perhaps) {
            let mut path = path(&states, &found_by, at);
            path.push(format!("and nothing more happens: {}", state.what_is_owed(setup)));
            return Found::LostWakeUp(path);
        }
        for step in steps.drain(..) {
            let next = states.len() as u32;
            let number = numbers.number(&mut states, step.state);
            if number == next {
                found_by.push((at as u32, step.what, step.by));
            }
            if step.comes != Comes::Perhaps {
                let clock = step.comes == Comes::ByTheClock;
                let early = clock && others_come_before;
                edges.push(Edge { from: at as u32, to: number, by: step.by as u8, clock, early });
            }
        }
        at += 1;
    }
    // Where no clock goes on and on, whoever goes on for ever goes round.
    let mut left =
        if edges.iter().any(|edge| edge.clock) { owed.iter().fold(0, |all, own| all | own) } else { 0 };
    while left != 0 {
        let bit = left & left.wrapping_neg();
        left &= left - 1;
        let is_owed = |state: u32| owed[state as usize] & bit != 0;
        let stays = |edge: &Edge| !edge.early && is_owed(edge.from) && is_owed(edge.to);
        if let Some(state) = round(states.len(), &edges, |_| true, stays) {
            let mut path = path(&states, &found_by, state);
            path.push(format!("and so on for ever: {}", states[state].what_is_owed(setup)));
            return Found::LostWakeUp(path);
        }
    }
    match round(states.len(), &edges, |edge| !edge.clock, |edge| !edge.clock) {
        Some(state) => Found::BusyLoop(path(&states, &found_by, state)),
        None => Found::Nothing { states: states.len() },
    }
}

/// The numbers of states: a hash table that holds nothing else, since there are millions of them.
#[derive(Default)]
struct Numbers {
    /// A power of two of them, at most half of them used: number plus one.
    slots: Vec<u32>,
}

impl Numbers {
    /// The number of a state, which becomes the next one if it is new.
    fn number<M: Model>(&mut self, states: &mut Vec<M>, state: M) -> u32 {
        if self.slots.len() <= 2 * states.len() {
            let old = std::mem::take(&mut self.slots);
            self.slots = vec![0; (2 * old.len()).max(1 << 12)];
            for number in old.into_iter().filter(|&number| number != 0) {
                let at = self.find(states, &states[number as usize - 1]);
                self.slots[at] = number;
            }
        }
        let at = self.find(states, &state);
        if self.slots[at] == 0 {
            states.push(state);
            self.slots[at] = states.len() as u32;
        }
        self.slots[at] - 1
    }

    /// Where it is or would be.
    fn find<M: Model>(&self, states: &[M], state: &M) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(state);
        let mut at = hash as usize & (self.slots.len() - 1);
        while self.slots[at] != 0 && states[self.slots[at] as usize - 1] != *state {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }
}

/// A step that comes in any case.
#[derive(Clone, Copy)]
struct Edge {
    from: u32,
    to: u32,
    by: u8,
    clock: bool,
    /// Somebody else could go on before the clock does. So nobody goes this way again and again, but it is not passed over either.
    early: bool,
}

/// A state on a way round of `stays` steps that can go on for ever though nobody is passed over: who could always make one of
/// the `possible` steps, does. Edges come in the order of the states that they leave.
fn round(
    states: usize,
    edges: &[Edge],
    possible: impl Fn(&Edge) -> bool,
    stays: impl Fn(&Edge) -> bool,
) -> Option<usize> {
    let mut starts = vec![0usize; states + 1];
    for edge in edges {
        starts[edge.from as usize + 1] += 1;
    }
    for state in 0..states {
        starts[state + 1] += starts[state];
    }
    let leaving = |state: usize| &edges[starts[state]..starts[state + 1]];
    let component = components(states, &leaving, &stays);
    // For each component, as bits: who can always go on, and who does so without leaving.
    let mut able = vec![u8::MAX; states];
    let mut goes_on = vec![0u8; states];
    for state in 0..states {
        let own = component[state];
        let mut here = 0;
        for edge in leaving(state).iter().filter(|edge| possible(edge)) {
            here |= 1 << edge.by;
            if stays(edge) && component[edge.to as usize] == own {
                goes_on[own as usize] |= 1 << edge.by;
            }
        }
        able[own as usize] &= here;
    }
    (0..states).find(|&state| {
        let own = component[state] as usize;
        goes_on[own] != 0 && able[own] & !goes_on[own] == 0
    })
}

/// The strongly connected component of each state by the steps that stay, as the number of one of its states (Tarjan, without
/// recursion).
fn components<'a>(
    states: usize,
    leaving: &impl Fn(usize) -> &'a [Edge],
    stays: &impl Fn(&Edge) -> bool,
) -> Vec<u32> {
    const NONE: u32 = u32::MAX;
    let (mut index, mut low) = (vec![NONE; states], vec![0u32; states]);
    let mut component = vec![NONE; states];
    let mut stack: Vec<usize> = Vec::new();
    let mut next = 0;
    for root in 0..states {
        if index[root] != NONE {
            continue;
        }
        let mut calls = vec![(root, 0usize)];
        while let Some(&mut (state, ref mut edge)) = calls.last_mut() {
            if *edge == 0 {
                (index[state], low[state]) = (next, next);
                next += 1;
                stack.push(state);
            }
            let next = leaving(state).get(*edge);
            *edge += 1;
            if next.is_some_and(|edge| !stays(edge)) {
                continue;
            }
            let to = next.map(|edge| edge.to as usize);
            match to {
                Some(to) if index[to] == NONE => calls.push((to, 0)),
                Some(to) if component[to] == NONE => low[state] = low[state].min(index[to]),
                Some(_) => {}
                None => {
                    calls.pop();
                    if let Some(&(caller, _)) = calls.last() {
                        low[caller] = low[caller].min(low[state]);
                    }
                    if low[state] == index[state] {
                        while let Some(member) = stack.pop() {
                            component[member] = state as u32;
                            if member == state {
                                break;
                            }
                        }
                    }
                }
            }
        }
    }
    component
}

fn path<M: Model>(states: &[M], found_by: &[FoundBy], mut at: usize) -> Vec<String> {
    let mut path = Vec::new();
    while at != 0 {
        let (from, what, by) = found_by[at];
        path.push(format!("{by}: {what}"));
        if path.len() == 1 {
            path.push(format!("{:?}", states[at]));
        }
        at = from as usize;
    }
    path.reverse();
    path
}

/// Leaves each rule out, in machines in which nothing is found with all of them: something is found then.
pub(crate) fn assert_none_can_be_left_out<M: Model>(
    setups: &[(String, M::Setup)],
    without: &[(&str, M::Rules)],
) {
    let mut not_found = Vec::new();
    for (name, rules) in without {
        let found = setups.iter().find_map(|(what, setup)| {
            explore::<M>(setup, rules).lost_wake_up().map(|path| (what, path.to_vec()))
        });
        match found {
            Some((machine, path)) => {
                let end = path.last().map_or("", |line| line);
                println!("without {name}: {machine}, after {} steps: {end}", path.len());
            }
            None => not_found.push(name),
        }
    }
    assert!(not_found.is_empty(), "nothing is lost without {not_found:?}");
}

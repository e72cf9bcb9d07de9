//! Visits every state that can be reached, and looks for two things among them: a state in which somebody should run and
//! nobody ever will, and a way of going round without end.

use crate::rules::{Rules, Setup};
use crate::state::{State, Thread};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// A step that can be made.
pub(crate) struct Step {
    pub(crate) state: State,
    /// What was done, for people.
    pub(crate) what: &'static str,
    /// Whether it happens in any case. Otherwise it is the world's doing, or that of a time-out: nobody may rely on it.
    pub(crate) certain: bool,
    /// Who makes it.
    pub(crate) by: Thread,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Found {
    /// All states were visited, so many, and all is well.
    Nothing { states: usize },
    /// Somebody should run, and nobody ever will. How that comes.
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

/// Tries everything.
pub(crate) fn explore(setup: &Setup, rules: &Rules) -> Found {
    let mut numbers = Numbers::default();
    let mut states = Vec::new();
    numbers.number(&mut states, State::new(setup));
    // By what step each was found, and from where.
    let mut found_by: Vec<(u32, &'static str)> = vec![(0, "start")];
    let mut certain: Vec<Edge> = Vec::new();
    let mut steps = Vec::new();
    let mut at = 0;
    while at < states.len() {
        let state = states[at].clone();
        steps.clear();
        state.steps(setup, rules, &mut steps);
        if steps.iter().all(|step| !step.certain)
            && let Some(who) = state.is_owed(setup)
        {
            let mut path = path(&states, &found_by, at);
            path.push(format!("and nothing more happens: {who}"));
            return Found::LostWakeUp(path);
        }
        for step in steps.drain(..) {
            let next = states.len() as u32;
            let number = numbers.number(&mut states, step.state);
            if number == next {
                found_by.push((at as u32, step.what));
            }
            if step.certain {
                certain.push(Edge { from: at as u32, to: number, by: step.by });
            }
        }
        at += 1;
    }
    match round(states.len(), &certain) {
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
    fn number(&mut self, states: &mut Vec<State>, state: State) -> u32 {
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
    fn find(&self, states: &[State], state: &State) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(state);
        let mut at = hash as usize & (self.slots.len() - 1);
        while self.slots[at] != 0 && states[self.slots[at] as usize - 1] != *state {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }
}

/// A certain step.
#[derive(Clone, Copy)]
struct Edge {
    from: u32,
    to: u32,
    by: Thread,
}

/// A state on a way round of certain steps that can go on for ever though no thread is passed over: where a thread could
/// always go on, it does. Edges come in the order of the states that they leave.
fn round(states: usize, edges: &[Edge]) -> Option<usize> {
    let mut starts = vec![0usize; states + 1];
    for edge in edges {
        starts[edge.from as usize + 1] += 1;
    }
    for state in 0..states {
        starts[state + 1] += starts[state];
    }
    let leaving = |state: usize| &edges[starts[state]..starts[state + 1]];
    let component = components(states, &leaving);
    // For each component and thread: whether it can always go on, and whether it does so without leaving.
    let mut able = vec![[true; 2]; states];
    let mut stays = vec![[false; 2]; states];
    for state in 0..states {
        let own = component[state] as usize;
        for thread in [Thread::Vcpu, Thread::Io] {
            let mut steps = leaving(state).iter().filter(|edge| edge.by == thread).peekable();
            able[own][thread as usize] &= steps.peek().is_some();
            stays[own][thread as usize] |= steps.any(|edge| component[edge.to as usize] == own as u32);
        }
    }
    (0..states).find(|&state| {
        let own = component[state] as usize;
        let passed_over = |thread: usize| able[own][thread] && !stays[own][thread];
        (stays[own][0] || stays[own][1]) && !passed_over(0) && !passed_over(1)
    })
}

/// The strongly connected component of each state, as the number of one of its states (Tarjan, without recursion).
fn components<'a>(states: usize, leaving: &impl Fn(usize) -> &'a [Edge]) -> Vec<u32> {
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
            let to = leaving(state).get(*edge).map(|edge| edge.to as usize);
            *edge += 1;
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

fn path(states: &[State], found_by: &[(u32, &'static str)], mut at: usize) -> Vec<String> {
    let mut path = Vec::new();
    while at != 0 {
        let (from, what) = found_by[at];
        path.push(what.to_owned());
        if path.len() == 1 {
            path.push(format!("{:?}", states[at]));
        }
        at = from as usize;
    }
    path.reverse();
    path
}

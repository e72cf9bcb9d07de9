//! The client's side: lines of a machine become a profile, stack by stack. What the machine says is not relied on: numbers that
//! make no sense are passed over, names are made harmless for terminals.

use super::stream::{Begin, Counts, Frame, Item, Sample, ThreadCounts};
use crate::text::harmless;
use abi::layout::KERNEL_VA;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Most frames that a machine is believed to have. One of this version has fewer.
const FRAMES_MAX: usize = 1 << 20;
/// Most frames in all stacks that are told apart, 128 MB: a guest's stacks may be different ones each time.
const DEPTHS_MAX: usize = 1 << 25;

/// How the samples ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// Not yet; or the connection broke.
    #[default]
    Open,
    /// As wanted.
    Wanted,
    /// The machine ended.
    MachineEnded,
}

/// Equal stacks are one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stack {
    /// Place in [`Begin::threads`].
    pub thread: u32,
    /// In the guest: in the address space of this environment.
    pub environment: Option<u32>,
    /// In the guest: in this ring.
    pub ring: Option<u8>,
    /// Numbers of frames, the innermost first.
    pub frames: Vec<u32>,
}

/// Which stacks are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those in this environment's address space only.
    pub environment: Option<u32>,
    /// Those in this ring only.
    pub ring: Option<u8>,
}

impl Filter {
    fn wants(&self, stack: &Stack) -> bool {
        self.environment.is_none_or(|wanted| stack.environment == Some(wanted))
            && self.ring.is_none_or(|wanted| stack.ring == Some(wanted))
    }
}

/// All samples so far.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// What is looked at.
    pub begin: Begin,
    /// By number.
    pub frames: Vec<Frame>,
    /// Samples by stack.
    pub stacks: BTreeMap<Stack, u64>,
    /// As the machine said last.
    pub counts: Counts,
    /// Samples that came and are not among these: with more places or stacks than are kept, or not understood.
    pub left_out: u64,
    /// Frames in all stacks.
    depths: usize,
    /// How it ended.
    pub ending: Ending,
}

impl Profile {
    /// Takes a line of the machine's. What is not understood (a later version's) is passed over.
    pub fn take_line(&mut self, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(Item::Begin(begin)) => {
                let threads = begin.threads.iter().map(|name| harmless(name)).collect();
                self.begin = Begin { threads, image: harmless(&begin.image), ..begin };
            }
            Ok(Item::Frame(frame)) => self.take_frame(frame),
            Ok(Item::Sample(sample)) => self.take_sample(sample),
            Ok(Item::Counts(counts)) => self.counts = counts,
            Ok(Item::End { machine_ended, counts }) => {
                self.counts = counts;
                self.ending = if machine_ended { Ending::MachineEnded } else { Ending::Wanted };
            }
            Err(error) => tracing::debug!("a line that is not understood: {error}"),
        }
    }

    fn take_frame(&mut self, frame: Frame) {
        if frame.id as usize == self.frames.len() && self.frames.len() < FRAMES_MAX {
            self.frames.push(Frame { name: harmless(&frame.name), symbol: harmless(&frame.symbol), ..frame });
        }
    }

    fn take_sample(&mut self, sample: Sample) {
        let Sample { thread, environment, ring, frames } = sample;
        let known = (thread as usize) < self.begin.threads.len()
            && frames.iter().all(|&frame| (frame as usize) < self.frames.len());
        if !known || frames.is_empty() {
            self.left_out += 1;
            return;
        }
        let depth = frames.len();
        match self.stacks.entry(Stack { thread, environment, ring, frames }) {
            Entry::Occupied(mut count) => *count.get_mut() += 1,
            Entry::Vacant(new) if self.depths + depth <= DEPTHS_MAX => {
                self.depths += depth;
                new.insert(1);
            }
            Entry::Vacant(_) => self.left_out += 1,
        }
    }

    /// The moments at which threads were idle become samples, too.
    pub fn add_idle(&mut self) {
        let id = self.frames.len() as u32;
        self.frames.push(Frame { id, name: "[idle]".to_owned(), ..Frame::default() });
        for (thread, counts) in (0u32..).zip(&self.counts.threads) {
            if counts.idle > 0 && (thread as usize) < self.begin.threads.len() {
                let stack = Stack { thread, frames: vec![id], ..Stack::default() };
                self.stacks.insert(stack, counts.idle);
            }
        }
    }

    /// Only the stacks that are wanted.
    pub fn keep(&mut self, filter: Filter) {
        self.stacks.retain(|stack, _| filter.wants(stack));
    }

    /// How many samples there are.
    pub fn samples(&self) -> u64 {
        self.stacks.values().sum()
    }

    /// A frame by its number.
    pub fn frame(&self, id: u32) -> &Frame {
        &self.frames[id as usize]
    }

    /// Name of a thread.
    pub fn thread(&self, stack: &Stack) -> &str {
        &self.begin.threads[stack.thread as usize]
    }

    /// The counts of all threads together.
    pub fn totals(&self) -> ThreadCounts {
        let mut sum = ThreadCounts::default();
        for counts in &self.counts.threads {
            sum.moments += counts.moments;
            sum.samples += counts.samples;
            sum.idle += counts.idle;
            sum.missed += counts.missed;
        }
        sum
    }

    /// What a sample of this profile stands for.
    pub fn period_ns(&self) -> u64 {
        1_000_000_000 / u64::from(self.begin.hz.max(1))
    }
}

impl Frame {
    /// Whether it is the kernel's code.
    pub fn is_kernel(&self) -> bool {
        self.va >= KERNEL_VA
    }
}

/// A profile of two threads, for tests of what is made of one.
#[cfg(test)]
pub(super) fn example() -> Profile {
    let mut profile = Profile::default();
    for line in [
        r#"{"begin":{"hz":1000,"tsc_khz":2600000,"image":"cheetah","threads":["vcpu","io"],"has_symbols":true}}"#,
        r#"{"frame":{"id":0,"va":4198410,"function_va":4198400,"name":"<[u8; 4] as app::Leaf>::leaf"}}"#,
        r#"{"frame":{"id":1,"va":4198500,"function_va":4198490,"name":"app::main"}}"#,
        r#"{"sample":{"t":0,"e":0,"r":3,"f":[0,1]}}"#,
        r#"{"sample":{"t":0,"e":0,"r":3,"f":[0,1]}}"#,
        r#"{"sample":{"t":0,"e":1,"r":3,"f":[1]}}"#,
        r#"{"frame":{"id":2,"va":18446744071562067970,"function_va":18446744071562067968,"name":"xok::call"}}"#,
        r#"{"sample":{"t":0,"e":0,"r":0,"f":[2,1]}}"#,
        r#"{"frame":{"id":3,"name":"[vmm] net receive"}}"#,
        r#"{"sample":{"t":1,"f":[3]}}"#,
        r#"{"end":{"machine_ended":false,"counts":{"elapsed_us":10000,"looks":4,"looking_cycles":8000,"asking_cycles":400000,
            "sampler_ns":300000,"threads":[{"moments":10,"samples":4,"idle":5,"missed":1},{"moments":10,"samples":1,"idle":9}]}}}"#,
    ] {
        profile.take_line(line.as_bytes());
    }
    profile
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_stacks_are_one_and_counts_are_the_last() {
        let profile = example();
        assert_eq!((profile.samples(), profile.stacks.len(), profile.ending), (5, 4, Ending::Wanted));
        let stack = Stack { thread: 0, environment: Some(0), ring: Some(3), frames: vec![0, 1] };
        assert_eq!(profile.stacks[&stack], 2);
        assert_eq!(profile.totals(), ThreadCounts { moments: 20, samples: 5, idle: 14, missed: 1 });
    }

    #[test]
    fn filter_keeps_what_is_wanted_and_idle_moments_are_samples_if_asked_for() {
        for (environment, ring, left) in [
            (None, None, 5),
            (Some(0), None, 3),
            (Some(0), Some(3), 2),
            (None, Some(0), 1),
            (Some(7), None, 0),
        ] {
            let mut profile = example();
            profile.keep(Filter { environment, ring });
            assert_eq!(profile.samples(), left, "{environment:?} {ring:?}");
        }
        let mut profile = example();
        profile.add_idle();
        assert_eq!(profile.samples(), 5 + 14);
    }

    #[test]
    fn nonsense_of_a_machine_is_passed_over() {
        let mut profile = example();
        for line in [
            "",
            "{}",
            r#"{"sample":{"t":9,"f":[0]}}"#,
            r#"{"sample":{"t":0,"f":[99]}}"#,
            r#"{"sample":{"t":0,"f":[]}}"#,
            r#"{"frame":{"id":77,"name":"far"}}"#,
            r#"{"frame":{"id":0,"name":"again"}}"#,
            r#"{"later":{"x":1}}"#,
        ] {
            profile.take_line(line.as_bytes());
        }
        assert_eq!((profile.samples(), profile.frames.len()), (5, 4));
        assert_eq!(profile.left_out, 3, "samples that make no sense are counted");
        profile.take_line(br#"{"frame":{"id":4,"name":"a\u001b[2Jb"}}"#);
        assert_eq!(profile.frame(4).name, "a\u{FFFD}[2Jb");
    }

    #[test]
    fn samples_beyond_what_is_kept_are_counted() {
        let mut profile = Profile { depths: DEPTHS_MAX - 1, ..example() };
        for (frames, samples, left_out) in [("[3,3]", 5, 1), ("[0,1]", 6, 1), ("[2]", 7, 1), ("[1,1]", 7, 2)]
        {
            let line = format!(r#"{{"sample":{{"t":0,"e":0,"r":3,"f":{frames}}}}}"#);
            profile.take_line(line.as_bytes());
            assert_eq!((profile.samples(), profile.left_out), (samples, left_out), "{frames}");
        }
        let mut profile = Profile { frames: vec![Frame::default(); FRAMES_MAX], ..example() };
        let id = FRAMES_MAX;
        profile.take_line(format!(r#"{{"frame":{{"id":{id},"name":"one more"}}}}"#).as_bytes());
        profile.take_line(format!(r#"{{"sample":{{"t":0,"f":[{id}]}}}}"#).as_bytes());
        assert_eq!((profile.frames.len(), profile.left_out), (FRAMES_MAX, 1));
    }

    proptest::proptest! {
        #[test]
        fn take_line_never_panics(line in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            example().take_line(&line);
        }
    }
}

//! KVM's own tracepoints as a source of records, where the host offers them: why and when KVM left the guest, what it emulated, how
//! long it slept. They are of the threads of this machine alone, and are recorded while somebody listens who wants them.
//!
//! | module | what |
//! | --- | --- |
//! | [`names`] | what exits are called, as the host's kernel says |
//! | [`points`] | which tracepoints, and what one recorded |
//! | [`story`] | what follows from that: slices and moments of one thread |
//!
//! Unlike rings of guests and recorders of threads, these rings are emptied by listeners' threads only: they are large, and a vCPU
//! that comes by has better things to do.

mod names;
mod points;
mod story;

use super::record::Record;
use super::stream::{KvmHeader, Missing};
use crate::account::ledger::{Ledger, now_tsc};
use crate::perf_events::attributes::{SAMPLE_RAW, record_with};
use crate::perf_events::clock::Clock;
use crate::perf_events::ring::{Entry, Ring, SAMPLE};
use crate::perf_events::{Attributes, Unavailable, attributes};
use names::Names;
use points::{Point, Points};
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use story::Story;

/// Pages of a thread's ring: room for 16,000 events, 50 ms of nothing but emulated instructions. Fewer where the user may not have so
/// many.
const RING_PAGES: [usize; 3] = [256, 64, 16];

/// The tracepoints of one machine's threads.
#[derive(Debug)]
pub(super) struct Kvm {
    /// Those that KVM does anything on.
    threads: Vec<(String, Arc<Ledger>)>,
    tsc_khz: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    holders: usize,
    open: Option<Open>,
    missing: Option<Missing>,
}

/// Whether this process may record KVM's tracepoints: those of its own thread, for a moment.
pub(crate) fn try_tracepoints() -> Result<(), Unavailable> {
    const OWN: libc::pid_t = 0;
    Thread::open(OWN, &Points::find()?, 0).map(drop).map_err(Unavailable::tracepoint)
}

/// While they are recorded.
#[derive(Debug)]
struct Open {
    points: Points,
    names: Names,
    /// In the order of [`Kvm::threads`].
    threads: Vec<Option<Thread>>,
}

#[derive(Debug)]
struct Thread {
    ring: Ring,
    _events: Vec<File>,
    story: Story,
}

/// While it is there, they are recorded.
#[derive(Debug)]
pub(super) struct Held(Arc<Kvm>);

impl Kvm {
    /// Nobody listens. Of all threads of the machine, those that run the guest or interrupt it count.
    pub(super) fn new(threads: &[(String, Arc<Ledger>)], tsc_khz: u64) -> Arc<Self> {
        let is_kvms = |name: &str| name.starts_with("vcpu") || name == "io";
        let threads = threads.iter().filter(|(name, _)| is_kvms(name)).cloned().collect();
        Arc::new(Self { threads, tsc_khz, state: Mutex::default() })
    }

    /// Has them recorded for as long as the guard lives, if the host lets us.
    pub(super) fn hold(self: &Arc<Self>) -> Held {
        let mut state = self.state();
        state.holders += 1;
        if state.open.is_none() {
            match self.open() {
                Ok(open) => (state.open, state.missing) = (Some(open), None),
                Err(error) => {
                    state.missing = Some(Missing { why: error.to_string(), todo: error.todo() });
                }
            }
        }
        Held(Arc::clone(self))
    }

    fn open(&self) -> Result<Open, Unavailable> {
        let points = Points::find()?;
        let names = Names::new(&points);
        let threads = self.threads.iter().map(|(_, ledger)| match ledger.recorder().thread() {
            // It has not begun.
            None => Ok(None),
            Some(thread) => match Thread::open(thread, &points, self.tsc_khz) {
                Ok(thread) => Ok(Some(thread)),
                // It has ended.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
                Err(error) => Err(Unavailable::tracepoint(error)),
            },
        });
        let threads = threads.collect::<Result<_, _>>()?;
        Ok(Open { points, names, threads })
    }

    /// What a listener has to know.
    pub(super) fn header(&self) -> KvmHeader {
        let state = self.state();
        let names = state.open.as_ref().map(|open| open.names.all().to_vec());
        let missing = state.missing.clone().filter(|_| state.holders > 0);
        KvmHeader { names: names.unwrap_or_default(), missing }
    }

    /// The threads, by the names of their ledgers.
    pub(super) fn threads(&self) -> impl Iterator<Item = &str> {
        self.threads.iter().map(|(name, _)| name.as_str())
    }

    /// Gives `each` what is new, thread by thread, with how many events were lost before. Somebody who listens no more wants what is
    /// still held back, too.
    pub(super) fn read(&self, until: Until, mut each: impl FnMut(usize, u64, Vec<Record>)) {
        let mut state = self.state();
        let Some(Open { points, names, threads }) = &mut state.open else { return };
        for (number, thread) in threads.iter_mut().enumerate() {
            let Some(thread) = thread else { continue };
            thread.read(points, names, self.tsc_khz, until, |lost, records| each(number, lost, records));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let closed = {
            let mut state = self.0.state();
            state.holders -= 1;
            if state.holders == 0 { state.open.take() } else { None }
        };
        // Takes the kernel a while, and nobody else need wait for it.
        drop(closed);
    }
}

/// How far is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// What may still go on is told later.
    Now,
    /// All.
    End,
}

impl Thread {
    fn open(thread: libc::pid_t, points: &Points, tsc_khz: u64) -> std::io::Result<Self> {
        let mut events: Vec<File> = Vec::new();
        let mut ring = None;
        for Point { id, .. } in points.all() {
            let attributes = Attributes::new(attributes::Kind::Tracepoint, u64::from(*id));
            let event = attributes.recorded(SAMPLE_RAW).open(thread)?;
            match events.first() {
                None => ring = Some(large_ring(&event)?),
                Some(first) => record_with(&event, first)?,
            }
            events.push(event);
        }
        let ring = ring.ok_or(ErrorKind::NotFound)?;
        Ok(Self { ring, _events: events, story: Story::new(tsc_khz) })
    }

    fn read(
        &mut self,
        points: &Points,
        names: &Names,
        tsc_khz: u64,
        until: Until,
        each: impl FnMut(u64, Vec<Record>),
    ) {
        let clock = Clock::now(tsc_khz);
        let story = &mut self.story;
        let mut telling = Telling { points, names, clock, story, records: Vec::new(), lost: 0, each };
        self.ring.read(|entry| telling.entry(entry));
        telling.end(until);
    }
}

/// What is read of a ring at once, on its way to who listens.
struct Telling<'a, F> {
    points: &'a Points,
    names: &'a Names,
    clock: Clock,
    story: &'a mut Story,
    records: Vec<Record>,
    /// Events that were lost before these records.
    lost: u64,
    each: F,
}

impl<F: FnMut(u64, Vec<Record>)> Telling<'_, F> {
    fn entry(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Record(SAMPLE, _, words) => {
                if let Some((ns, step)) = self.points.step(words) {
                    self.story.step(self.clock.tsc(ns), step, self.names, &mut self.records);
                }
            }
            Entry::Record(..) => {}
            Entry::Lost(lost) => {
                self.story.interrupt(&mut self.records);
                self.tell();
                self.lost = self.lost.saturating_add(lost);
            }
        }
    }

    fn tell(&mut self) {
        if self.lost > 0 || !self.records.is_empty() {
            (self.each)(std::mem::take(&mut self.lost), std::mem::take(&mut self.records));
        }
    }

    fn end(mut self, until: Until) {
        match until {
            Until::Now => self.story.pause(now_tsc(), &mut self.records),
            Until::End => self.story.interrupt(&mut self.records),
        }
        self.tell();
    }
}

/// The largest ring that there may be.
fn large_ring(event: &File) -> std::io::Result<Ring> {
    let mut last = Error::from(ErrorKind::OutOfMemory);
    for pages in RING_PAGES {
        match Ring::new(event, pages) {
            Ok(ring) => return Ok(ring),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::trace::{RECORD_ENTER, RECORD_LEAVE};
    use points::What;

    const EXIT: &str = "ID: 1\nfield:unsigned int exit_reason; offset:8; size:4; signed:0;\n";

    /// An exit as the ring has it: time, length and what was recorded.
    fn exit(ns: u64) -> [u64; 4] {
        [ns, 16 | 1 << 32, 12 << 32, 0]
    }

    /// What is told of these entries: how many were lost, and the kinds of records that follow.
    fn told(entries: &[Entry<'_>], until: Until) -> Vec<(u64, Vec<u16>)> {
        let points = Points::described(&[(What::Exit, EXIT)]);
        let (names, clock, mut story) = (Names::new(&points), Clock::now(1_000_000), Story::new(1_000_000));
        let mut told = Vec::new();
        let each = |lost, records: Vec<Record>| {
            told.push((lost, records.iter().map(|record| record.parts().1).collect()));
        };
        let mut telling = Telling {
            points: &points,
            names: &names,
            clock,
            story: &mut story,
            records: Vec::new(),
            lost: 0,
            each,
        };
        entries.iter().for_each(|&entry| telling.entry(entry));
        telling.end(until);
        told
    }

    #[test]
    fn what_was_lost_is_told_before_what_follows_and_ends_what_was_open() {
        let (first, second) = (exit(1000), exit(2000));
        let [first, second] = [&first, &second].map(|words| Entry::Record(SAMPLE, 0, words));
        let open = vec![RECORD_ENTER];
        let ended = vec![RECORD_ENTER, RECORD_LEAVE];
        assert_eq!(told(&[first], Until::Now), [(0, open.clone())]);
        assert_eq!(told(&[first], Until::End), [(0, ended.clone())]);
        assert_eq!(told(&[first, Entry::Lost(7), second], Until::Now), [(0, ended.clone()), (7, open)]);
        assert_eq!(
            told(&[first, Entry::Lost(7), Entry::Lost(2)], Until::Now),
            [(0, ended), (7, vec![]), (2, vec![])]
        );
        assert_eq!(told(&[Entry::Record(99, 0, &[1])], Until::End), []);
    }
}

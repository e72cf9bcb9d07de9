//! Collecting records: out of the guest's rings and the VMM threads' recorders, into the feed of each who listens.
//!
//! The rings are small and the guest does not wait for them. So they are emptied by whoever comes by: the vCPU's thread at each turn,
//! the I/O thread in its rounds, and the listeners' own threads every few milliseconds. A feed holds what its listener has not
//! taken; what finds no room there, or was overwritten in a ring, is counted, by source.

use super::kvm::{self, Kvm, Until};
use super::looking::{Looking, Records};
use super::own::{self, Listening};
use super::record::{FIRST_NAME, Happening, Record};
use super::stream::{KvmHeader, Piece};
use crate::account::ledger::Ledger;
use crate::machine::boot::pages::SharedPages;
use abi::trace::{RECORD_EVENT, RECORDS, TraceRing, subject};
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// What a feed holds at most.
const FEED_BYTES: usize = 64 << 20;
/// With so much in its feed a listener is woken before its time: to be woken costs the machine's own threads a CPU.
const WAKE_BYTES: usize = 256 << 10;

/// The records of one machine, and who listens.
#[derive(Debug)]
pub struct Tracing {
    looking: Arc<Looking>,
    ledgers: Vec<Arc<Ledger>>,
    rings: Vec<crate::tables::shared::Shared<TraceRing>>,
    kvm: Arc<Kvm>,
    /// Somebody listens.
    on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How far each ring was read.
    read: Vec<u64>,
    feeds: Vec<Arc<Feed>>,
    /// Of a sample: the frames that somebody queued while he worked on what is in it, and that were not sent yet.
    /// Each environment's by itself: one that writes nonsense is not to cost others theirs.
    queued: Vec<HashSet<u64>>,
}

impl Tracing {
    /// Sources are numbered: first the threads, in the order of `ledgers`, then the environments, in the order of `pages`, then what
    /// KVM says of threads.
    pub(crate) fn new(
        looking: Arc<Looking>,
        ledgers: &[(String, Arc<Ledger>)],
        pages: &[SharedPages],
        tsc_khz: u64,
    ) -> Self {
        let rings = pages.iter().map(|pages| pages.trace.clone()).collect();
        let kvm = Kvm::new(ledgers, tsc_khz);
        let ledgers = ledgers.iter().map(|(_, ledger)| Arc::clone(ledger)).collect();
        Self { looking, ledgers, rings, kvm, on: AtomicBool::new(false), state: Mutex::default() }
    }

    /// What is known of KVM's records.
    pub(super) fn kvm_header(&self) -> KvmHeader {
        self.kvm.header()
    }

    /// The threads of which KVM has records.
    pub(super) fn kvm_threads(&self) -> impl Iterator<Item = &str> {
        self.kvm.threads()
    }

    /// Whether anybody listens.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// How many listen.
    pub(super) fn listeners(&self) -> usize {
        self.state().feeds.len()
    }

    /// Begins to listen.
    pub(crate) fn listen(self: &Arc<Self>, records: Records, host: HostEvents) -> Listener {
        let kvm = (host == HostEvents::Wanted).then(|| self.kvm.hold());
        let feed = Arc::new(Feed { wants_kvm: kvm.is_some(), ..Feed::default() });
        let mut state = self.state();
        if state.feeds.is_empty() {
            // What was written for others before is nobody's.
            state.read = self.rings.iter().map(|ring| ring.written.load(Ordering::Acquire)).collect();
            state.queued = vec![HashSet::new(); self.rings.len()];
            for ledger in &self.ledgers {
                ledger.recorder().take();
            }
        }
        state.feeds.push(Arc::clone(&feed));
        self.on.store(true, Ordering::Relaxed);
        drop(state);
        let held = self.looking.records(records, &self.ledgers);
        Listener { tracing: Arc::clone(self), feed, _held: held, _own: Listening::new(), _kvm: kvm }
    }

    /// Moves what was written to the feeds. Returns at once if somebody else is at it.
    pub(crate) fn collect(&self) {
        match self.state.try_lock() {
            Ok(mut state) => self.collect_into(&mut state),
            Err(TryLockError::Poisoned(state)) => self.collect_into(&mut state.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn collect_into(&self, state: &mut State) {
        // In this order: who has a frame sent writes before that it is queued.
        let threads: Vec<_> = self.ledgers.iter().map(|ledger| ledger.recorder().take()).collect();
        let rings = self.rings.iter().zip(&mut state.read);
        let rings: Vec<_> = rings.map(|(ring, read)| empty(ring, read)).collect();
        let is_sample = self.looking.one_in().is_some_and(|one_in| one_in > 1);
        if is_sample {
            let queued = rings.iter().zip(&mut state.queued);
            queued.for_each(|((records, _), queued)| note_queued(records, queued));
        }
        for (source, (mut records, lost)) in (0u16..).zip(threads) {
            if is_sample {
                let mut was_queued = |frame: u64| state.queued.iter_mut().any(|queued| queued.remove(&frame));
                records.retain(|record| !record.is(Happening::Sent) || was_queued(record.subject));
            }
            if records.iter().any(|record| record.parts().0 >= FIRST_NAME) {
                // Before the records that use them.
                state.feeds.iter().for_each(|feed| feed.push_names());
            }
            feed(&state.feeds, source, lost, records);
        }
        let first = self.ledgers.len() as u16;
        for (source, (records, lost)) in (first..).zip(rings) {
            feed(&state.feeds, source, lost, records);
        }
    }

    /// Moves what KVM has said to the feeds.
    fn collect_kvm(&self, until: Until) {
        let first = (self.ledgers.len() + self.rings.len()) as u16;
        self.kvm.read(until, |thread, lost, records| {
            let wanting = |feed: &&Arc<Feed>| feed.wants_kvm;
            let feeds: Vec<_> = self.state().feeds.iter().filter(wanting).cloned().collect();
            feed(&feeds, first + thread as u16, lost, records);
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a listener wants what the host's kernel says, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEvents {
    /// Where the host lets us have it.
    Wanted,
    /// Not at all.
    Unwanted,
}

/// Remembers which frames were queued. Whoever queues more than there can be in flight means none of them.
fn note_queued(records: &[Record], queued: &mut HashSet<u64>) {
    const QUEUED_MAX: usize = 1 << 16;
    let of_frames = records.iter().filter(|record| {
        record.parts().1 == RECORD_EVENT && subject::parts(record.subject).0 == subject::SENT
    });
    for record in of_frames {
        if queued.len() >= QUEUED_MAX {
            queued.clear();
        }
        queued.insert(record.subject);
    }
}

/// Gives records to everybody.
fn feed(feeds: &[Arc<Feed>], source: u16, lost: u64, records: Vec<Record>) {
    if records.is_empty() && lost == 0 {
        return;
    }
    let Some((last, others)) = feeds.split_last() else { return };
    for feed in others {
        feed.push(source, lost, records.clone());
    }
    last.push(source, lost, records);
}

/// Takes what a ring has from `read` on, and how many records were overwritten before. The guest writes meanwhile, whatever it
/// likes.
fn empty(ring: &TraceRing, read: &mut u64) -> (Vec<Record>, u64) {
    let written = ring.written.load(Ordering::Acquire);
    if written < *read {
        // Another environment has the place, and its ring begins anew.
        *read = 0;
    }
    let there = written - *read;
    if there == 0 {
        return (Vec::new(), 0);
    }
    let first = written - there.min(RECORDS as u64);
    let mut records: Vec<Record> = (first..written).map(|number| copy(ring, number)).collect();
    // What was overwritten while it was copied. The one that is being written counts as well.
    let now = ring.written.load(Ordering::Acquire).saturating_add(1);
    let overwritten = now.saturating_sub(RECORDS as u64).saturating_sub(first).min(records.len() as u64);
    records.drain(..overwritten as usize);
    let lost = (first - *read).saturating_add(overwritten);
    *read = written;
    (records, lost)
}

fn copy(ring: &TraceRing, number: u64) -> Record {
    let record = &ring.records[(number % RECORDS as u64) as usize];
    Record {
        tsc: record.tsc.load(Ordering::Relaxed),
        what: record.what.load(Ordering::Relaxed),
        subject: record.subject.load(Ordering::Relaxed),
        argument: record.argument.load(Ordering::Relaxed),
    }
}

/// Who listens. While it is there, records are written.
#[derive(Debug)]
pub struct Listener {
    tracing: Arc<Tracing>,
    feed: Arc<Feed>,
    _held: super::looking::Recording,
    _own: Listening,
    _kvm: Option<kvm::Held>,
}

impl Listener {
    /// The next pieces: what comes in so long, or much.
    pub fn next(&self, timeout: Duration) -> Vec<Piece> {
        self.tracing.collect();
        self.tracing.collect_kvm(Until::Now);
        self.feed.take(timeout)
    }

    /// The last pieces: what is written from now on is not for it.
    pub fn last(&self) -> Vec<Piece> {
        self.tracing.collect_into(&mut self.tracing.state());
        self.tracing.collect_kvm(Until::End);
        self.feed.take(Duration::ZERO)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.tracing.state();
        state.feeds.retain(|feed| !Arc::ptr_eq(feed, &self.feed));
        self.tracing.on.store(!state.feeds.is_empty(), Ordering::Relaxed);
    }
}

/// What one listener has not taken yet.
#[derive(Debug, Default)]
struct Feed {
    wants_kvm: bool,
    waiting: Mutex<Waiting>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Names that it was told.
    names: usize,
    /// By source: those for which there was no room.
    lost: Vec<u64>,
}

impl Feed {
    fn push(&self, source: u16, lost: u64, records: Vec<Record>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = &mut *waiting;
        let place = usize::from(source);
        if waiting.lost.len() <= place {
            waiting.lost.resize(place + 1, 0);
        }
        let lost = lost.saturating_add(std::mem::take(&mut waiting.lost[place]));
        let piece = Piece::Records { source, lost, records };
        match &piece {
            Piece::Records { records, .. } if waiting.bytes + piece.bytes() > FEED_BYTES => {
                waiting.lost[place] = lost.saturating_add(records.len() as u64);
            }
            _ => {
                let woken = waiting.bytes >= WAKE_BYTES;
                waiting.bytes += piece.bytes();
                waiting.pieces.push_back(piece);
                if !woken && waiting.bytes >= WAKE_BYTES {
                    self.came.notify_one();
                }
            }
        }
    }

    /// Names that it was not told yet.
    fn push_names(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let names = own::names_from(waiting.names);
        if !names.is_empty() {
            waiting.names += names.len();
            waiting.pieces.push_back(Piece::Names(names));
        }
    }

    fn take(&self, timeout: Duration) -> Vec<Piece> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.came.wait_timeout_while(waiting, timeout, |waiting| waiting.bytes < WAKE_BYTES);
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        waiting.bytes = 0;
        let mut pieces: Vec<_> = std::mem::take(&mut waiting.pieces).into();
        for (source, lost) in (0u16..).zip(&mut waiting.lost) {
            if *lost > 0 {
                pieces.push(Piece::Records { source, lost: std::mem::take(lost), records: Vec::new() });
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::trace::Record as RingRecord;
    use std::sync::atomic::AtomicU64;

    fn ring() -> Box<TraceRing> {
        Box::new(TraceRing {
            written: AtomicU64::new(0),
            padding: Default::default(),
            records: std::array::from_fn(|_| RingRecord::default()),
        })
    }

    fn write(ring: &TraceRing, count: u64) {
        for _ in 0..count {
            let number = ring.written.load(Ordering::Relaxed);
            ring.records[(number % RECORDS as u64) as usize].tsc.store(number, Ordering::Relaxed);
            ring.written.store(number + 1, Ordering::Release);
        }
    }

    fn stamps(records: &[Record]) -> Vec<u64> {
        records.iter().map(|record| record.tsc).collect()
    }

    #[test]
    fn ring_is_read_in_order_and_once() {
        let (ring, mut read) = (ring(), 0);
        assert_eq!(empty(&ring, &mut read), (vec![], 0));
        write(&ring, 5);
        let (records, lost) = empty(&ring, &mut read);
        assert_eq!((stamps(&records), lost), (vec![0, 1, 2, 3, 4], 0));
        assert_eq!(empty(&ring, &mut read), (vec![], 0));
        write(&ring, 2);
        assert_eq!(stamps(&empty(&ring, &mut read).0), [5, 6]);
    }

    #[test]
    fn listener_is_woken_at_its_time_or_by_much() {
        let feed = Feed::default();
        let records = |count| vec![Record::default(); count];
        let timeout = Duration::from_millis(50);
        feed.push(0, 0, records(1));
        let start = std::time::Instant::now();
        assert_eq!(feed.take(timeout).len(), 1);
        assert!(start.elapsed() >= timeout, "woken by little");
        std::thread::scope(|scope| {
            scope.spawn(|| (0..100).for_each(|_| feed.push(0, 0, records(1000))));
            let start = std::time::Instant::now();
            assert!(!feed.take(Duration::from_secs(60)).is_empty());
            assert!(start.elapsed() < Duration::from_secs(30), "not woken by much");
        });
    }

    #[test]
    fn overwritten_records_are_counted() {
        let (ring, mut read) = (ring(), 0);
        let size = RECORDS as u64;
        write(&ring, 2 * size + 10);
        let (records, lost) = empty(&ring, &mut read);
        // The oldest may be the one that the guest is just writing.
        assert_eq!((records.len() as u64, lost), (size - 1, size + 11));
        assert_eq!(records[0].tsc, size + 11);
        assert_eq!(records.last().map(|record| record.tsc), Some(2 * size + 9));
    }

    #[test]
    fn number_that_went_back_is_another_environment() {
        let (ring, mut read) = (ring(), 0);
        write(&ring, 100);
        empty(&ring, &mut read);
        ring.written.store(0, Ordering::Relaxed);
        write(&ring, 3);
        assert_eq!(stamps(&empty(&ring, &mut read).0), [0, 1, 2]);
    }

    #[test]
    fn numbers_that_no_guest_of_ours_would_write_are_read_within_the_ring() {
        let ring = ring();
        let numbers = [0, 1, 7, 5000, i64::MAX as u64, u64::MAX - 3, u64::MAX];
        let feed = Feed::default();
        for (before, after) in numbers.iter().flat_map(|&one| numbers.map(|other| (one, other))) {
            let mut read = before;
            ring.written.store(after, Ordering::Relaxed);
            let (records, lost) = empty(&ring, &mut read);
            assert!(records.len() <= RECORDS && records.len() as u64 <= after, "{before} {after}");
            assert_eq!(read, after);
            feed.push(0, lost, records);
        }
        let full = vec![Record::default(); FEED_BYTES / size_of::<Record>()];
        for _ in 0..3 {
            feed.push(0, u64::MAX, full.clone());
        }
        assert!(!feed.take(Duration::ZERO).is_empty());
    }

    #[test]
    fn feed_that_is_full_counts_what_it_does_not_hold_by_source() {
        let feed = Feed::default();
        let half = vec![Record::default(); FEED_BYTES / size_of::<Record>() / 2];
        feed.push(1, 0, half.clone());
        feed.push(1, 3, half.clone());
        feed.push(0, 0, half.clone());
        let pieces = feed.take(Duration::ZERO);
        let lost: Vec<_> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Records { source, lost, records } => (*source, *lost, records.is_empty()),
                other => panic!("{other:?}"),
            })
            .collect();
        let len = half.len() as u64;
        assert_eq!(lost, [(1, 0, false), (0, len, true), (1, len + 3, true)]);
        feed.push(1, 0, half);
        assert!(matches!(feed.take(Duration::ZERO)[..], [Piece::Records { source: 1, lost: 0, .. }]));
    }
}

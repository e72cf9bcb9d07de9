//! What one thread of the VMM writes down of what it does, while somebody wants it: the buckets of its ledger as they follow each
//! other, and what happens to frames and disk requests.
//!
//! Nobody wants it: one load at each transition. Only the thread itself writes, and whoever collects takes all there is, so
//! their lock is free nearly always and held for a few instructions.

use super::record::{Happening, Record};
use crate::account::ledger::Bucket;
use abi::trace::subject;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Most records that wait to be collected: 4 MiB.
const RECORDS_MAX: usize = 1 << 17;

/// [`Recorder::one_in`]: nothing.
const OFF: u32 = 0;
/// [`Recorder::one_in`]: everything.
const ALL: u32 = 1;

/// Belongs to one thread's ledger.
#[derive(Debug, Default)]
pub struct Recorder {
    /// 0: nothing is wanted; 1: everything; more: one in that many received frames, what was sent, and no buckets.
    one_in: AtomicU32,
    records: Mutex<Vec<Record>>,
    /// Those for which there was no room, since they were asked for last.
    lost: AtomicU64,
    /// The thread's id; 0: it has not begun.
    thread: AtomicI32,
}

impl Recorder {
    /// From now on: 0 nothing, 1 everything, else a sample.
    pub(super) fn set(&self, one_in: u32) {
        self.one_in.store(one_in, Relaxed);
    }

    /// The thread whose it is has begun.
    pub(super) fn begin_thread(&self, thread: libc::pid_t) {
        self.thread.store(thread, Relaxed);
    }

    /// Id of the thread whose it is; `None`: it has not begun.
    pub(crate) fn thread(&self) -> Option<libc::pid_t> {
        Some(self.thread.load(Relaxed)).filter(|&thread| thread != 0)
    }

    /// Whether anything is wanted.
    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.one_in.load(Relaxed) != OFF
    }

    /// Whether everything is wanted.
    #[inline(always)]
    pub(super) fn is_all(&self) -> bool {
        self.one_in.load(Relaxed) == ALL
    }

    /// The thread begins `bucket`.
    #[inline(always)]
    pub(crate) fn transition(&self, tsc: u64, bucket: Bucket) {
        if self.one_in.load(Relaxed) == ALL {
            self.push(Record::bucket(tsc, bucket));
        }
    }

    /// Something happened to `subject`, from one moment to another.
    #[inline(always)]
    pub(crate) fn happened(&self, what: Happening, subject: u64, from_tsc: u64, to_tsc: u64) {
        if self.is_on()
            && (what != Happening::Received || subject::is_sampled(subject, self.one_in.load(Relaxed)))
        {
            self.push(Record::happening(what, subject, from_tsc, to_tsc));
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn push(&self, record: Record) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() < RECORDS_MAX {
            records.push(record);
        } else {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Takes all there is, and how many were lost before the last of it.
    pub(super) fn take(&self) -> (Vec<Record>, u64) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut records), self.lost.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_while_nobody_wants_it() {
        let recorder = Recorder::default();
        recorder.transition(1, Bucket::Guest);
        recorder.happened(Happening::Sent, 1, 1, 2);
        assert_eq!(recorder.take(), (vec![], 0));
    }

    #[test]
    fn sample_has_the_frames_that_the_guest_follows_and_no_buckets() {
        let recorder = Recorder::default();
        recorder.set(8);
        let frame = |n| subject::of(subject::RECEIVED, 0, 0, n);
        for n in 0..1000 {
            recorder.transition(n, Bucket::Guest);
            recorder.happened(Happening::Received, frame(n), n, n + 1);
        }
        let seen: Vec<u64> = recorder.take().0.iter().map(|record| record.subject).collect();
        let expected: Vec<u64> =
            (0..1000).map(frame).filter(|&frame| subject::is_sampled(frame, 8)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn records_beyond_the_room_are_counted() {
        let recorder = Recorder::default();
        recorder.set(1);
        for n in 0..RECORDS_MAX as u64 + 5 {
            recorder.transition(n, Bucket::Guest);
        }
        let (records, lost) = recorder.take();
        assert_eq!((records.len(), lost), (RECORDS_MAX, 5));
        recorder.transition(0, Bucket::Guest);
        assert_eq!(recorder.take().1, 0);
    }
}

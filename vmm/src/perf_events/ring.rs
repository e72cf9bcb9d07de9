//! The ring in which the kernel records an event: one page of numbers, and pages of records behind it. The kernel writes, this
//! side reads and says how far it has come.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// PERF_RECORD_LOST: its words are an id, and how many.
const LOST: u32 = 2;
/// PERF_RECORD_SAMPLE: the event happened.
pub(crate) const SAMPLE: u32 = 9;

const PAGE_BYTES: usize = 4096;
/// `struct perf_event_mmap_page`: where `data_head` and `data_tail` lie.
const HEAD_AT: usize = 1024;
const TAIL_AT: usize = 1032;

/// The ring of one event, and of those that record with it.
#[derive(Debug)]
pub(crate) struct Ring {
    page: NonNull<u8>,
    data_bytes: usize,
    /// The record that is being read, in one piece.
    record: Vec<u64>,
}

// SAFETY: the mapping belongs to this value alone; the kernel writes it, and it is read through atomics, volatile and behind fences.
unsafe impl Send for Ring {}

/// What is in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// PERF_RECORD_*, `misc` of its header, and the words behind that.
    Record(u32, u16, &'a [u64]),
    /// So many records found no room here.
    Lost(u64),
}

impl Ring {
    /// Of an event that is recorded, with so many pages, which is a power of two.
    pub(crate) fn new(event: &File, pages: usize) -> Result<Self> {
        let data_bytes = pages.checked_mul(PAGE_BYTES).filter(|_| pages.is_power_of_two());
        let data_bytes = data_bytes.ok_or(ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping where the kernel likes; it stays when the descriptor is closed.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES + data_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let page = NonNull::new(page.cast()).ok_or(ErrorKind::OutOfMemory)?;
        Ok(Self { page, data_bytes, record: Vec::new() })
    }

    /// The word that changes whenever something is recorded. It goes with the ring.
    pub(crate) fn head(&self) -> NonNull<AtomicU64> {
        // SAFETY: inside the mapping, and aligned.
        unsafe { self.page.add(HEAD_AT).cast() }
    }

    /// Gives `each` what is new, and says how far that goes, in the numbers of the head.
    pub(crate) fn read(&mut self, mut each: impl FnMut(Entry<'_>)) -> u64 {
        // SAFETY: inside the mapping, and aligned; it outlives the borrow.
        let (head, tail) =
            unsafe { (self.head().as_ref(), self.page.add(TAIL_AT).cast::<AtomicU64>().as_ref()) };
        // Whoever sees the head sees the records before it.
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        let mut record = std::mem::take(&mut self.record);
        while at < end {
            let header = self.word(at);
            let (kind, misc, bytes) = (header as u32, (header >> 32) as u16, header >> 48);
            if bytes < 8 || bytes > end - at {
                // Not what the kernel writes: nothing that follows can be told.
                each(Entry::Lost(1));
                at = end;
                break;
            }
            record.clear();
            record.extend((1..bytes / 8).map(|word| self.word(at + 8 * word)));
            match (kind, record.as_slice()) {
                (LOST, [_, lost, ..]) => each(Entry::Lost(*lost)),
                (_, words) => each(Entry::Record(kind, misc, words)),
            }
            at += bytes;
        }
        self.record = record;
        // What was read is read before the kernel may write there again.
        fence(Ordering::SeqCst);
        tail.store(at, Ordering::Release);
        end
    }

    fn word(&self, at: u64) -> u64 {
        let offset = (at as usize % self.data_bytes) & !7;
        // SAFETY: inside the mapping, whatever a record says of its size, and aligned. The kernel does not write there until the tail
        // is past it.
        unsafe { self.page.add(PAGE_BYTES + offset).cast::<u64>().read_volatile() }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, to which nothing of this value refers any more.
        unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE_BYTES + self.data_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::ledger::now_tsc;
    use crate::perf_events::attributes::{Attributes, Kind, PAGE_FAULTS};
    use crate::perf_events::clock::{Clock, measured_khz};

    /// Page faults of this thread, each of them recorded. They are in ring 3, so everybody may ask for them.
    fn faults(pages: usize) -> (File, Ring) {
        let attributes = Attributes::new(Kind::Software, PAGE_FAULTS).recorded(0).without_kernel();
        let event = attributes.open(0).expect("software events; see kernel.perf_event_paranoid");
        let ring = Ring::new(&event, pages).expect("a mapping");
        (event, ring)
    }

    /// Touches so many pages for the first time, each by itself.
    fn touch(pages: usize) {
        let bytes = pages * PAGE_BYTES;
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping where the kernel likes, written to within its bounds, and unmapped when nothing refers to it.
        unsafe {
            let memory = libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0);
            assert_ne!(memory, libc::MAP_FAILED);
            libc::madvise(memory, bytes, libc::MADV_NOHUGEPAGE);
            (0..pages).for_each(|page| memory.cast::<u8>().add(page * PAGE_BYTES).write_volatile(1));
            libc::munmap(memory, bytes);
        }
    }

    #[test]
    fn what_happened_is_read_once_and_at_its_time_on_the_tsc() {
        let tsc_khz = measured_khz();
        let (_event, mut ring) = faults(8);
        let before = now_tsc();
        touch(100);
        let after = now_tsc();
        let clock = Clock::now(tsc_khz);
        let mut times = Vec::with_capacity(4096);
        ring.read(|entry| match entry {
            Entry::Record(SAMPLE, _, &[ns]) => times.push(clock.tsc(ns)),
            other => panic!("{other:?}"),
        });
        let inside = times.iter().filter(|time| (before..after).contains(time)).count();
        assert!(times.is_sorted() && (100..150).contains(&inside), "{before} {times:?} {after}");
        let mut again = 0;
        ring.read(|_| again += 1);
        assert!(again < 50, "{again} of them read twice");
    }

    #[test]
    fn ring_that_was_full_says_how_much_it_lost_and_goes_on() {
        // 256 records of 16 bytes.
        let (_event, mut ring) = faults(1);
        let counted = |ring: &mut Ring| {
            let (mut there, mut lost) = (0, 0);
            ring.read(|entry| match entry {
                Entry::Record(SAMPLE, ..) => there += 1,
                Entry::Lost(more) => lost += more,
                other @ Entry::Record(..) => panic!("{other:?}"),
            });
            (there, lost)
        };
        touch(400);
        assert!((200..=256).contains(&counted(&mut ring).0));
        // The number comes with the first record that finds room again.
        touch(50);
        let (there, lost) = counted(&mut ring);
        assert!(there >= 50 && (140..300).contains(&lost), "{there} {lost}");
    }

    #[test]
    fn ring_of_an_odd_size_is_refused() {
        let (event, _ring) = faults(1);
        assert_eq!(Ring::new(&event, 3).expect_err("not a power of two").kind(), ErrorKind::InvalidInput);
    }
}

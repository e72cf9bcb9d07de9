//! What waits for the owner of a port, and how senders put it there.
//!
//! One lock, held for the copy of one frame. Nobody waits for it while both sides are at work: who does not get it at once does
//! something else first. It is the innermost lock: who holds it takes no other.

use super::lent::{Lent, NotPut};
use super::queue::Queue;
use super::wake::Wake;
use crate::backend::{IoVec, Offloads};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a frame waits with its sender for a reader that takes nothing.
pub const HOLD: Duration = Duration::from_millis(100);

/// What happens to a frame for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overflow {
    /// It waits with its sender, at most for [`HOLD`].
    Hold,
    /// It goes into the queue behind lent buffers, and is dropped when that is full.
    Drop,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It lies in a buffer of the reader.
    InPlace,
    /// It waits in the queue.
    Queued,
    /// No room: to be offered again.
    Held {
        /// When it will be dropped.
        until: Instant,
    },
    /// The lock was taken: to be offered again, at once.
    Busy,
    /// No room: dropped.
    Full,
    /// Nobody is there: dropped.
    Down,
    /// The reader cannot take a frame of this length: dropped.
    NeverFits,
}

/// Behind the lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) lent: Option<Lent>,
    /// Lengths of the frames that lie in buffers which were lent, in order.
    pub(super) filled: VecDeque<u32>,
    pub(super) queue: Queue,
    /// The owner would lend buffers and reads the queue empty first: on a cable nothing joins it until then.
    pub(super) draining: bool,
    /// A lent buffer that may not be written any more.
    pub(super) foreign: Option<(u64, u32)>,
    /// Ports that wait for room, a bit each.
    waiting: u64,
    /// Since when there is no room.
    full_since: Option<Instant>,
    /// Frames that were lost when the owner was reset or went.
    pub(super) lost: u64,
}

/// The inbox.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// Frames put so far, so that the owner sees without the lock whether there is one.
    arrived: AtomicU64,
    /// A reader is plugged in.
    up: AtomicBool,
    /// What it copes with.
    offloads: AtomicU8,
    pub(super) wake: Wake,
}

const CHECKSUM: u8 = 1;
const TSO4: u8 = 2;
const TSO6: u8 = 4;

impl Inbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            arrived: AtomicU64::new(0),
            up: AtomicBool::new(false),
            offloads: AtomicU8::new(0),
            wake: Wake::new()?,
        })
    }

    /// The lock, for rare occasions.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, if nobody has it.
    #[inline]
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// How many frames were put so far.
    #[inline]
    pub(super) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::SeqCst)
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// A reader is plugged in or out. `false`: one is there already.
    pub(super) fn plug(&self, up: bool) -> bool {
        let before = self.up.swap(up, Ordering::AcqRel);
        before != up
    }

    pub(super) fn set_offloads(&self, offloads: Offloads) {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        let bits = bit(offloads.checksum, CHECKSUM) | bit(offloads.tso4, TSO4) | bit(offloads.tso6, TSO6);
        self.offloads.store(bits, Ordering::Release);
    }

    pub(super) fn offloads(&self) -> Offloads {
        let bits = self.offloads.load(Ordering::Acquire);
        Offloads { checksum: bits & CHECKSUM != 0, tso4: bits & TSO4 != 0, tso6: bits & TSO6 != 0 }
    }

    /// Offers a frame from a port, without waiting for anything.
    #[inline]
    pub(super) fn offer(&self, frame: &[IoVec<'_>], bytes: usize, from: u8, overflow: Overflow) -> Offered {
        if !self.is_up() {
            return Offered::Down;
        }
        match self.try_lock() {
            Some(state) => self.offer_locked(state, frame, bytes, from, overflow),
            None => Offered::Busy,
        }
    }

    /// The same where a frame cannot be offered again: one of several copies. It waits for the lock.
    pub(super) fn offer_once(&self, frame: &[IoVec<'_>], bytes: usize, from: u8) -> Offered {
        if !self.is_up() {
            return Offered::Down;
        }
        self.offer_locked(self.lock(), frame, bytes, from, Overflow::Drop)
    }

    fn offer_locked(
        &self,
        mut state: MutexGuard<'_, State>,
        frame: &[IoVec<'_>],
        bytes: usize,
        from: u8,
        overflow: Overflow,
    ) -> Offered {
        // It may have gone since; what it lent went with it.
        if !self.is_up() {
            return Offered::Down;
        }
        // Whose frames these are may have changed since the buffers were lent.
        if state.lent.as_ref().is_some_and(|lent| !lent.is_current()) {
            state.lent = None;
        }
        let may_queue = (state.lent.is_none() && !state.draining) || overflow == Overflow::Drop;
        let lent = if state.queue.is_empty() { state.lent.as_mut() } else { None };
        let offered = match lent.map(|lent| lent.put(frame, bytes)) {
            Some(Ok(())) => {
                state.filled.push_back(bytes as u32);
                Offered::InPlace
            }
            Some(Err(NotPut::NeverFits)) => return Offered::NeverFits,
            Some(Err(NotPut::Foreign(gpa, len))) => {
                // The owner hears of it once.
                if state.foreign.replace((gpa, len)).is_none() {
                    self.arrived.fetch_add(1, Ordering::SeqCst);
                }
                drop(state);
                self.wake.notify();
                return Offered::Down;
            }
            Some(Err(NotPut::NoRoom)) | None if may_queue && state.queue.push(frame, bytes) => {
                Offered::Queued
            }
            Some(Err(NotPut::NoRoom)) | None => return state.no_room(from, overflow),
        };
        state.full_since = None;
        self.arrived.fetch_add(1, Ordering::SeqCst);
        drop(state);
        self.wake.notify();
        offered
    }
}

impl State {
    #[cold]
    fn no_room(&mut self, from: u8, overflow: Overflow) -> Offered {
        if overflow == Overflow::Drop {
            return Offered::Full;
        }
        let now = Instant::now();
        let until = *self.full_since.get_or_insert(now) + HOLD;
        if now >= until {
            // It takes nothing: until it does, nobody waits for it again.
            return Offered::Full;
        }
        self.waiting |= 1 << from;
        Offered::Held { until }
    }

    /// There is room now: the ports that waited for it.
    pub(super) fn take_waiting(&mut self) -> u64 {
        self.draining = false;
        self.full_since = None;
        std::mem::take(&mut self.waiting)
    }

    /// A frame was taken off the queue: the ports that waited for that.
    pub(super) fn took(&mut self) -> u64 {
        if self.draining {
            // It takes what there is, so it is waited for.
            self.full_since = None;
            return 0;
        }
        self.take_waiting()
    }

    /// Everything that lies here is lost.
    pub(super) fn clear(&mut self) {
        self.lost += (self.filled.len() + self.queue.len()) as u64;
        self.lent = None;
        self.filled.clear();
        self.queue.clear();
        self.foreign = None;
        self.full_since = None;
    }
}

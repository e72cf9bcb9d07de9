//! A disk in memory that does what a test wants of it: waits, fails, does things by halves.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Access, Store, Zeroing};
use crate::backend::iovec::{IoVec, IoVecMut, gather, scatter};

/// How long calls may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtHand {
    /// Everything.
    All,
    /// So many bytes of each read.
    First(usize),
    /// Nothing.
    Nothing,
}

/// State of a [`FakeStore`].
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) bytes: Vec<u8>,
    pub(crate) at_hand: AtHand,
    /// Most bytes that one call moves.
    pub(crate) portion: usize,
    /// What all calls that may wait fail with.
    pub(crate) error: Option<i32>,
    /// Calls that may wait do.
    pub(crate) held: bool,
    /// ... but for so many, the first.
    pub(crate) let_go: usize,
    /// How many wait.
    pub(crate) waiting: usize,
    /// Calls that may wait, by name.
    pub(crate) calls: Vec<&'static str>,
}

/// A disk in memory.
#[derive(Debug)]
pub(crate) struct FakeStore {
    state: Mutex<State>,
    changed: Condvar,
    len_bytes: u64,
    access: Access,
}

impl FakeStore {
    /// Blocks whose bytes say where they belong, all at hand.
    pub(crate) fn new(blocks: u64, access: Access) -> Self {
        let len_bytes = blocks * 4096;
        let state = State {
            bytes: (0..len_bytes).map(|at| (at / 4096 * 11 + at % 251) as u8).collect(),
            at_hand: AtHand::All,
            portion: usize::MAX,
            error: None,
            held: false,
            let_go: 0,
            waiting: 0,
            calls: Vec::new(),
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), len_bytes, access }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the calls that are held.
    pub(crate) fn release(&self) {
        self.state().held = false;
        self.changed.notify_all();
    }

    /// Lets go of the first of the calls that are held.
    pub(crate) fn release_one(&self) {
        self.state().let_go += 1;
        self.changed.notify_all();
    }

    /// Waits until so many calls are held.
    ///
    /// # Panics
    /// If they do not come.
    pub(crate) fn wait_for_held(&self, count: usize) {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |state| state.waiting < count);
        assert!(!waited.unwrap_or_else(PoisonError::into_inner).1.timed_out(), "nobody calls");
    }

    /// A call that may wait.
    fn enter(&self, name: &'static str) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.calls.push(name);
        let number = state.calls.len();
        state.waiting += 1;
        self.changed.notify_all();
        while state.held && number > state.let_go {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        match state.error {
            Some(number) => Err(io::Error::from_raw_os_error(number)),
            None => Ok(state),
        }
    }
}

impl State {
    /// The bytes from `offset` on that one call moves at most.
    fn portion_at(&mut self, offset: u64) -> &mut [u8] {
        let start = (offset as usize).min(self.bytes.len());
        let end = self.bytes.len().min(start.saturating_add(self.portion));
        &mut self.bytes[start..end]
    }
}

impl Store for FakeStore {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn access(&self) -> Access {
        self.access
    }

    fn read_at_once(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<Option<usize>> {
        let state = self.state();
        match state.at_hand {
            AtHand::All => Ok(Some(scatter(pieces, 0, &state.bytes[offset as usize..]))),
            AtHand::First(count) => {
                let start = offset as usize;
                Ok(Some(scatter(pieces, 0, &state.bytes[start..start + count])))
            }
            AtHand::Nothing => Ok(None),
        }
    }

    fn read(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<usize> {
        let mut state = self.enter("read")?;
        Ok(scatter(pieces, 0, state.portion_at(offset)))
    }

    fn write(&self, offset: u64, pieces: &[IoVec<'_>]) -> io::Result<usize> {
        let mut state = self.enter("write")?;
        Ok(gather(pieces, 0, state.portion_at(offset)))
    }

    fn flush(&self) -> io::Result<()> {
        self.enter("flush").map(|_| ())
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        let mut state = self.enter("discard")?;
        state.bytes[offset as usize..(offset + len_bytes) as usize].fill(0);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, zeroing: Zeroing) -> io::Result<()> {
        let name = if zeroing == Zeroing::MayUnmap { "zero and unmap" } else { "zero" };
        let mut state = self.enter(name)?;
        state.bytes[offset as usize..(offset + len_bytes) as usize].fill(0);
        Ok(())
    }
}

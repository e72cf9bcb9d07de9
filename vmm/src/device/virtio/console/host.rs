//! The host's end of a port: a bounded buffer each way, between the device work on one side and one attached client on the
//! other. Knows nothing of queues, and nothing of how the client's bytes come here.
//!
//! Nothing waits here and nothing grows: the device work moves what there is room for and leaves the rest in the guest's
//! ring, the client likewise. Whoever makes room or brings bytes tells the other side: the client rings the [`HostBell`],
//! the device work signals [`Session::news`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Bytes that a port holds at most, each way.
pub const BUFFER_BYTES: usize = 64 << 10;
/// How much of what an earlier client has seen already [`Begin::Recent`] shows again.
pub const RECENT_BYTES: usize = 4 << 10;

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// Text for people. Without a client the oldest of what the guest writes is discarded, and counted: a guest must not
    /// stop because nobody looks at it.
    Console,
    /// Bytes for a program, of which none may be missing: without a client the buffer fills, and then the guest's ring.
    Stream,
}

/// A port to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// By which both sides find it.
    pub name: &'static str,
    /// What it is for.
    pub kind: PortKind,
}

/// The terminal at the host's end; zero for both: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Where a client begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At what no client has read yet.
    Unseen,
    /// There, or [`RECENT_BYTES`] before the end if that is earlier: for people, who want to see where they are.
    Recent,
}

/// Why a client is not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// One at a time.
    #[error("another client is attached; detach it first (Ctrl-] in its terminal)")]
    Taken,
    /// The guest does not serve this port, and has left nothing to be read.
    #[error("the guest has not opened it: its image does not use it, or does not yet")]
    NotOpen,
}

/// How the hosts' ends of all ports tell the device work that one of them has something for it.
#[derive(Debug)]
pub struct HostBell {
    rung: AtomicBool,
    event: EventFd,
}

impl HostBell {
    /// A bell that, besides, makes `event` readable: whoever sleeps over the device work waits for that.
    pub fn new(event: EventFd) -> Self {
        Self { rung: AtomicBool::new(false), event }
    }

    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        // A full counter means that it has been rung already.
        let _ = self.event.write(1);
    }

    /// Whether it was rung since the last time.
    #[inline]
    pub(super) fn take(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel)
    }
}

/// What the device work needs to know of the host's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Number of the attached client's session.
    pub(super) session: Option<u64>,
    /// Its terminal; remains the last one's when that has gone.
    pub(super) size: TerminalSize,
    /// Whether bytes wait for the guest.
    pub(super) has_input: bool,
}

/// What was thrown away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discarded {
    /// Bytes of the guest that nobody read in time.
    pub output_bytes: u64,
    /// Bytes of clients that went before the guest had taken them.
    pub input_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The last bytes that the guest wrote, whether they were read or not.
    output: VecDeque<u8>,
    /// Bytes that the guest has written in all.
    written: u64,
    /// Up to where they were read, or discarded unread.
    read: u64,
    /// Bytes for the guest.
    input: VecDeque<u8>,
    session: Option<u64>,
    sessions: u64,
    size: TerminalSize,
    guest_open: bool,
    discarded: Discarded,
}

impl State {
    /// Bytes that wait for a client.
    fn unread(&self) -> usize {
        (self.written - self.read) as usize
    }
}

/// The host's end of one port.
#[derive(Debug)]
pub struct HostPort {
    config: PortConfig,
    bell: Arc<HostBell>,
    state: Mutex<State>,
    news: EventFd,
}

impl HostPort {
    /// A port that nobody has opened.
    pub(super) fn new(config: PortConfig, bell: Arc<HostBell>) -> std::io::Result<Self> {
        Ok(Self { config, bell, state: Mutex::default(), news: EventFd::new(EFD_NONBLOCK)? })
    }

    /// What it is.
    pub fn config(&self) -> PortConfig {
        self.config
    }

    /// What was thrown away so far.
    pub fn discarded(&self) -> Discarded {
        self.state().discarded
    }

    /// Attaches a client, if there is none and the guest has something to do with it.
    pub fn attach(self: &Arc<Self>, begin: Begin, size: TerminalSize) -> Result<Session, AttachError> {
        let mut state = self.state();
        if state.session.is_some() {
            return Err(AttachError::Taken);
        }
        if !state.guest_open && state.unread() == 0 {
            return Err(AttachError::NotOpen);
        }
        if begin == Begin::Recent {
            let oldest = state.written - state.output.len() as u64;
            let recent = state.written.saturating_sub(RECENT_BYTES as u64).max(oldest);
            state.read = state.read.min(recent);
        }
        state.sessions += 1;
        let number = state.sessions;
        state.session = Some(number);
        state.size = size;
        drop(state);
        self.bell.ring();
        Ok(Session { port: Arc::clone(self) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn view(&self) -> View {
        let state = self.state();
        View { session: state.session, size: state.size, has_input: !state.input.is_empty() }
    }

    /// Takes bytes of the guest; returns how many there was room for.
    pub(super) fn push_output(&self, bytes: &[u8]) -> usize {
        let mut state = self.state();
        let lossless = state.session.is_some() || self.config.kind == PortKind::Stream;
        let room = if lossless { BUFFER_BYTES - state.unread() } else { BUFFER_BYTES };
        let bytes = &bytes[..bytes.len().min(room)];
        let excess = (state.output.len() + bytes.len()).saturating_sub(BUFFER_BYTES);
        state.output.drain(..excess);
        state.output.extend(bytes);
        state.written += bytes.len() as u64;
        let oldest = state.written - state.output.len() as u64;
        if state.read < oldest {
            state.discarded.output_bytes += oldest - state.read;
            state.read = oldest;
        }
        bytes.len()
    }

    /// Gives bytes for the guest; returns how many there were. None of them are another session's.
    pub(super) fn pop_input(&self, session: Option<u64>, bytes: &mut [u8]) -> usize {
        let mut state = self.state();
        if state.session != session {
            return 0;
        }
        let count = bytes.len().min(state.input.len());
        for (to, from) in bytes.iter_mut().zip(state.input.drain(..count)) {
            *to = from;
        }
        count
    }

    /// The guest opened or closed its end.
    pub(super) fn set_guest_open(&self, open: bool) {
        self.state().guest_open = open;
        self.tell_client();
    }

    /// There is something new for the client, if one is attached.
    pub(super) fn tell_client(&self) {
        // A full counter means that it has been told already.
        let _ = self.news.write(1);
    }
}

/// What a client can know of its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// The guest's end is open.
    pub guest_open: bool,
    /// Bytes to be read.
    pub unread_bytes: usize,
    /// Bytes written that the guest has not taken.
    pub unsent_bytes: usize,
}

/// An attached client. Dropping it detaches; what it wrote and the guest has not taken is then discarded, so that the next
/// client does not begin in the middle of its words.
#[derive(Debug)]
pub struct Session {
    port: Arc<HostPort>,
}

impl Session {
    /// Writes for the guest; returns how many bytes there was room for.
    pub fn write(&self, bytes: &[u8]) -> usize {
        let mut state = self.port.state();
        let count = bytes.len().min(BUFFER_BYTES - state.input.len());
        state.input.extend(&bytes[..count]);
        drop(state);
        if count > 0 {
            self.port.bell.ring();
        }
        count
    }

    /// Copies out the next bytes of the guest, which stay there until [`Self::advance`].
    pub fn peek(&self, bytes: &mut [u8]) -> usize {
        let state = self.port.state();
        let first = state.output.len() - state.unread();
        let count = bytes.len().min(state.unread());
        for (to, from) in bytes.iter_mut().zip(state.output.range(first..first + count)) {
            *to = *from;
        }
        count
    }

    /// Bytes that [`Self::peek`] gave are done with.
    pub fn advance(&self, count: usize) {
        let mut state = self.port.state();
        state.read += count.min(state.unread()) as u64;
        drop(state);
        self.port.bell.ring();
    }

    /// How things are.
    pub fn status(&self) -> SessionStatus {
        let state = self.port.state();
        SessionStatus {
            guest_open: state.guest_open,
            unread_bytes: state.unread(),
            unsent_bytes: state.input.len(),
        }
    }

    /// Readable when something has changed.
    pub fn news(&self) -> &EventFd {
        &self.port.news
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut state = self.port.state();
        state.discarded.input_bytes += state.input.len() as u64;
        state.input.clear();
        state.session = None;
        drop(state);
        self.port.bell.ring();
    }
}

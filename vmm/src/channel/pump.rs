//! The thread of one client: bytes between its socket and the port's buffers, in both directions, until one of them ends.

use crate::device::virtio::console::Session;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

/// Bytes that are moved at once.
const PART_BYTES: usize = 16 << 10;
/// How long a client may take for the last words of a machine that has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What came of moving bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// Some were.
    Some,
    /// There were none.
    Nothing,
    /// The other side has no room.
    Blocked,
    /// The client has gone.
    Gone,
}

/// A client.
pub(super) struct Pump {
    session: Session,
    socket: UnixStream,
    wake: Arc<EventFd>,
    machine_ended: Arc<AtomicBool>,
    linger: Duration,
    /// Bytes of the client that the port had no room for yet.
    input: Vec<u8>,
    /// It says no more.
    said_all: bool,
    /// When the last byte moved.
    moved: Instant,
    /// When the machine was seen to have ended.
    ended: Option<Instant>,
}

impl Pump {
    pub(super) fn new(
        session: Session,
        socket: UnixStream,
        first: Vec<u8>,
        linger: Duration,
        wake: Arc<EventFd>,
        machine_ended: Arc<AtomicBool>,
    ) -> Self {
        let moved = Instant::now();
        Self {
            session,
            socket,
            wake,
            machine_ended,
            linger,
            input: first,
            said_all: false,
            moved,
            ended: None,
        }
    }

    /// Until the end of the session. What is dropped then detaches and closes the connection.
    pub(super) fn run(mut self) {
        loop {
            // Cleared before the looks below, so that what comes after them wakes again.
            let _ = self.session.news().read();
            let _ = self.wake.read();
            if self.ended.is_none() && self.machine_ended.load(Ordering::Acquire) {
                self.ended = Some(Instant::now());
            }
            let (input, output) = (self.move_input(), self.move_output());
            if input == Moved::Gone || output == Moved::Gone {
                return;
            }
            if input == Moved::Some || output == Moved::Some {
                self.moved = Instant::now();
                continue;
            }
            let status = self.session.status();
            let over = !status.guest_open || self.ended.is_some();
            if over && status.unread_bytes == 0 {
                return;
            }
            let answered = self.said_all && self.input.is_empty() && status.unsent_bytes == 0;
            let patience = match self.ended {
                Some(since) => Some(LAST_WORDS.saturating_sub(since.elapsed())),
                None if answered && status.unread_bytes == 0 => {
                    Some(self.linger.saturating_sub(self.moved.elapsed()))
                }
                None => None,
            };
            if patience == Some(Duration::ZERO) || !self.wait(output, patience) {
                return;
            }
        }
    }

    /// From the client to the guest.
    fn move_input(&mut self) -> Moved {
        let mut result = Moved::Nothing;
        if self.input.is_empty() && !self.said_all {
            let mut part = [0; PART_BYTES];
            match self.socket.read(&mut part) {
                Ok(0) => {
                    self.said_all = true;
                    self.moved = Instant::now();
                }
                Ok(count) => self.input.extend_from_slice(&part[..count]),
                Err(error) if is_temporary(&error) => {}
                Err(_) => return Moved::Gone,
            }
        }
        if !self.input.is_empty() {
            let count = self.session.write(&self.input);
            self.input.drain(..count);
            result = if count > 0 { Moved::Some } else { Moved::Blocked };
        }
        result
    }

    /// From the guest to the client.
    fn move_output(&mut self) -> Moved {
        let mut part = [0; PART_BYTES];
        let count = self.session.peek(&mut part);
        if count == 0 {
            return Moved::Nothing;
        }
        match self.socket.write(&part[..count]) {
            Ok(written) => {
                self.session.advance(written);
                Moved::Some
            }
            Err(error) if is_temporary(&error) => Moved::Blocked,
            Err(_) => Moved::Gone,
        }
    }

    /// Waits for something to change. False: the client has gone.
    fn wait(&self, output: Moved, patience: Option<Duration>) -> bool {
        let mut interest = PollFlags::empty();
        if self.input.is_empty() && !self.said_all {
            interest |= PollFlags::IN;
        }
        if output == Moved::Blocked {
            interest |= PollFlags::OUT;
        }
        let [news, wake] = [self.session.news(), &*self.wake].map(|event| {
            // SAFETY: the session and this object keep the descriptors open while they are borrowed.
            unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
        });
        let mut polled = [
            PollFd::new(&self.socket, interest),
            PollFd::from_borrowed_fd(news, PollFlags::IN),
            PollFd::from_borrowed_fd(wake, PollFlags::IN),
        ];
        let timeout = patience
            .map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() });
        // Interrupted or not: the next look tells.
        let _ = rustix::event::poll(&mut polled, timeout.as_ref());
        // A client that only said all it had to say is not gone: then there is no hang-up.
        !polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }
}

fn is_temporary(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

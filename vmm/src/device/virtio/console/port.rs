//! One port as the device sees it: its two queues, what the driver was told of it, and the bytes that go through.

use std::sync::Arc;

use super::super::queue::{Limits, QueueError, Virtqueue};
use super::super::slot::Slot;
use super::host::{HostPort, PortKind, TerminalSize, View};
use super::is_waiting;
use super::message::ToDriver;
use crate::backend::iovec::{gather, scatter};
use crate::backend::{Gather, PinnedMemory, Scatter};

/// What one chain of a port may have.
pub(super) const LIMITS: Limits = Limits { bytes: 1 << 20, segments: 64 };
/// Bytes that one call moves through one port, each way: the NIC waits meanwhile.
const BYTES_A_CALL: usize = 64 << 10;
/// Bytes that are copied at once.
const PART_BYTES: usize = 4096;

/// Why a queue was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The driver has to make something available first.
    Empty,
    /// The host has to do something first.
    Host,
    /// Enough for one call.
    Budget,
}

/// What the driver knows of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    /// Nothing.
    #[default]
    No,
    /// It was told that there is one.
    Added,
    /// It has said that it is ready for it.
    Ready,
}

/// A port.
#[derive(Debug)]
pub(super) struct Port<M> {
    pub(super) host: Arc<HostPort>,
    /// The host's end as it was when the bell was last heard.
    pub(super) view: View,
    pub(super) receive: Slot<Virtqueue<M>>,
    pub(super) transmit: Slot<Virtqueue<M>>,
    /// Bytes of the next chain of the transmit queue that the host has already.
    taken: usize,
    /// The host has no room: no use to look at the transmit queue before the bell.
    pub(super) blocked: bool,
    /// Bytes wait for the guest, and there were no buffers for them.
    pub(super) starved: bool,
    known: Known,
    /// Whether the driver is to be told that the port is there, that it is a console, and its name.
    due_add: bool,
    due_console: bool,
    due_name: bool,
    /// What it was told last of the terminal, and the session that it was told of.
    told_size: TerminalSize,
    told_session: Option<u64>,
    /// The driver has closed the port; what it wrote before is still to be taken.
    closing: bool,
    guest_open: bool,
}

impl<M: PinnedMemory> Port<M> {
    pub(super) fn new(host: Arc<HostPort>) -> Self {
        Self {
            host,
            view: View::default(),
            receive: Slot::Off,
            transmit: Slot::Off,
            taken: 0,
            blocked: false,
            starved: false,
            known: Known::No,
            due_add: false,
            due_console: false,
            due_name: false,
            told_size: TerminalSize::default(),
            told_session: None,
            closing: false,
            guest_open: false,
        }
    }

    /// The driver begins anew (`announce`: and wants to be told of the ports).
    pub(super) fn restart(&mut self, announce: Announce) {
        self.known = Known::No;
        self.due_add = announce == Announce::Yes;
        (self.due_console, self.due_name) = (false, false);
        self.told_size = TerminalSize::default();
        self.told_session = None;
        self.closing = false;
        self.set_guest_open(false);
    }

    /// The driver is ready for the port. False: it does not know of it.
    pub(super) fn ready(&mut self) -> bool {
        if self.known == Known::No {
            return false;
        }
        self.known = Known::Ready;
        self.due_console = self.host.config().kind == PortKind::Console;
        self.due_name = true;
        self.told_session = None;
        self.told_size = TerminalSize::default();
        true
    }

    /// The driver cannot use the port. False: it does not know of it.
    pub(super) fn not_ready(&mut self) -> bool {
        let known = self.known != Known::No;
        if known {
            self.known = Known::Added;
            self.told_session = None;
            self.close();
        }
        known
    }

    /// The driver opens the port. False: it is not ready for it.
    pub(super) fn open(&mut self) -> bool {
        if self.known != Known::Ready {
            return false;
        }
        self.closing = false;
        self.set_guest_open(true);
        true
    }

    /// The driver closes the port, after the last of its output. Closed and opened again between two calls of the device
    /// work is as if it had stayed open.
    pub(super) fn close(&mut self) {
        self.closing = self.guest_open;
        // Whoever closed may have written just before.
        self.blocked = false;
    }

    fn set_guest_open(&mut self, open: bool) {
        if self.guest_open != open {
            self.guest_open = open;
            self.host.set_guest_open(open);
        }
    }

    /// The transmit queue goes: takes what it holds and there is room for, as the last of it, and lets go.
    pub(super) fn end_output(&mut self, pieces: &mut Gather) {
        while let (_, Ok(Left::Budget)) = self.take_output(pieces) {}
        self.transmit = Slot::Off;
        self.taken = 0;
        self.blocked = false;
        self.end_if_closing();
    }

    fn end_if_closing(&mut self) {
        if std::mem::take(&mut self.closing) {
            self.set_guest_open(false);
        }
    }

    /// Whether there may be something to take from the guest.
    #[inline]
    pub(super) fn has_output_waiting(&self) -> bool {
        !self.blocked && (self.closing || is_waiting(&self.transmit))
    }

    /// Bytes from the guest's ring to the host's buffer. Returns how many, and why there are no more.
    pub(super) fn take_output(&mut self, pieces: &mut Gather) -> (usize, Result<Left, QueueError>) {
        let mut moved = 0;
        let result = self.move_output(pieces, &mut moved);
        pieces.refill();
        if moved > 0 {
            self.host.tell_client();
        }
        self.blocked = result == Ok(Left::Host);
        if result == Ok(Left::Empty) {
            self.end_if_closing();
        }
        (moved, result)
    }

    fn move_output(&mut self, pieces: &mut Gather, moved: &mut usize) -> Result<Left, QueueError> {
        let Slot::Running(queue) = &mut self.transmit else { return Ok(Left::Empty) };
        if !queue.begin()? {
            return Ok(Left::Empty);
        }
        while let Some(chain) = queue.next_chain(LIMITS, pieces.refill())? {
            while self.taken < chain.bytes as usize {
                let mut part = [0; PART_BYTES];
                let len = gather(pieces.pieces(), self.taken, &mut part);
                let count = self.host.push_output(&part[..len]);
                self.taken += count;
                *moved += count;
                if count < len {
                    return Ok(Left::Host);
                }
                if *moved >= BYTES_A_CALL {
                    return Ok(Left::Budget);
                }
            }
            self.taken = 0;
            queue.advance();
            queue.complete(chain.head, 0);
        }
        Ok(Left::Empty)
    }

    /// Whether bytes wait for the guest that it may be given: those of a client of whom it knows.
    #[inline]
    pub(super) fn has_input(&self) -> bool {
        self.view.has_input
            && self.told_session.is_some()
            && self.told_session == self.view.session
            && (!self.starved || is_waiting(&self.receive))
    }

    /// Bytes from the host's buffer to the guest's buffers. Returns how many, and why there are no more.
    pub(super) fn give_input(&mut self, pieces: &mut Scatter) -> (usize, Result<Left, QueueError>) {
        let mut moved = 0;
        let result = self.move_input(pieces, &mut moved);
        pieces.clear();
        if moved > 0 {
            self.host.tell_client();
        }
        self.view.has_input = result != Ok(Left::Host);
        self.starved = result == Ok(Left::Empty);
        (moved, result)
    }

    fn move_input(&mut self, pieces: &mut Scatter, moved: &mut usize) -> Result<Left, QueueError> {
        let Slot::Running(queue) = &mut self.receive else { return Ok(Left::Empty) };
        if !queue.begin()? {
            return Ok(Left::Empty);
        }
        loop {
            if *moved >= BYTES_A_CALL {
                return Ok(Left::Budget);
            }
            pieces.clear();
            let Some(chain) = queue.next_chain(LIMITS, pieces)? else { return Ok(Left::Empty) };
            let mut filled = 0;
            while filled < chain.bytes as usize {
                let mut part = [0; PART_BYTES];
                let room = part.len().min(chain.bytes as usize - filled);
                let count = self.host.pop_input(self.told_session, &mut part[..room]);
                scatter(pieces.pieces(), filled, &part[..count]);
                filled += count;
                if count < room {
                    break;
                }
            }
            if filled == 0 {
                return Ok(Left::Host);
            }
            *moved += filled;
            queue.advance();
            queue.complete(chain.head, filled as u32);
        }
    }

    /// What the driver must be told next. The order of it is the order in which a driver can make use of it.
    #[inline]
    pub(super) fn next_message(&self) -> Option<ToDriver> {
        if self.due_add {
            return Some(ToDriver::Add);
        }
        if self.known != Known::Ready {
            return None;
        }
        if self.due_console {
            return Some(ToDriver::Console);
        }
        if self.due_name {
            return Some(ToDriver::Name(self.host.config().name));
        }
        if self.told_session != self.view.session {
            // One client after the other: the driver hears of the end of each.
            if self.told_session.is_some() {
                return Some(ToDriver::Closed);
            }
            if self.told_size != self.view.size {
                return Some(ToDriver::Resize(self.view.size));
            }
            return Some(ToDriver::Open);
        }
        None
    }

    /// The driver was told.
    pub(super) fn told(&mut self, message: ToDriver) {
        match message {
            ToDriver::Add => {
                self.due_add = false;
                self.known = Known::Added;
            }
            ToDriver::Console => self.due_console = false,
            ToDriver::Name(_) => self.due_name = false,
            ToDriver::Resize(size) => self.told_size = size,
            ToDriver::Open => self.told_session = self.view.session,
            ToDriver::Closed => self.told_session = None,
        }
    }
}

/// Whether a driver that begins anew is told of the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announce {
    /// It asked for it.
    Yes,
    /// It has gone.
    No,
}

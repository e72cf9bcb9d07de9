//! One end of a link, as the backend of a NIC: its sending half puts frames into the inboxes of others, its receiving half
//! takes them out of its own.

use super::Link;
use super::inbox::{Inbox, Offered};
use super::lent::{LENT_BUFFERS, Lent};
use crate::backend::iovec::{bytes_of, gather, scatter};
use crate::backend::offload::{self, Wanted};
use crate::backend::{
    Awaited, Backend, BackendError, FRAME_BYTES_MAX, Filled, Filler, HEADER_BYTES, IoVec, IoVecMut, Lot,
    Offloads, Written,
};
use crate::stat::metrics::{Metric, metrics};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

/// Header, and the addresses of Ethernet.
const FRONT_BYTES: usize = HEADER_BYTES + 12;
/// Shortest frame, with its header.
const FRAME_BYTES_MIN: usize = HEADER_BYTES + 14;
/// Frames between two looks at the clock, which a switch's table is aged by.
const CLOCK_FRAMES: u32 = 64;

metrics! {
    /// What an end of a link did.
    pub struct LinkMetrics {
        /// Frames copied straight into receive buffers of the other side: their only copy.
        pub link_sent_in_place_frames: u64,
        /// Frames copied into a port's queue, for a reader that lends no buffers.
        pub link_sent_queued_frames: u64,
        /// Frames that a switch sent to all ports, because it had not learned where their destination is.
        pub link_flooded_frames: u64,
        /// Frames made ready in software for a reader without checksum or segmentation offload.
        pub link_finished_frames: u64,
        /// Offers of a frame that found no room and left it with its sender.
        pub link_held_offers: u64,
        /// Offers of a frame that met another thread at the same port.
        pub link_busy_offers: u64,
        /// Frames dropped because the other side took nothing for too long, or its queue was full.
        pub link_dropped_full: u64,
        /// Frames dropped because nobody was at the other side.
        pub link_dropped_down: u64,
        /// Frames dropped for their length: no frame, longer than the other side takes, or than its buffers.
        pub link_dropped_length: u64,
        /// Frames dropped because they could not be made ready: not TCP, or their headers make no sense.
        pub link_dropped_unfinished: u64,
        /// Frames dropped by a switch because their destination is at the port that they came from.
        pub link_dropped_same_port: u64,
        /// Frames received.
        pub link_received_frames: u64,
        /// Frames that were under way to this port when its machine was reset or went.
        pub link_lost_frames: u64,
        /// Times that this side slept and was woken; each is a system call of who had something for it.
        pub link_wakeups: u64,
    }
}

/// An end. Dropping it pulls the plug: what it lent is given up, what was under way to it is lost, and others' frames for it are
/// dropped from then on.
#[derive(Debug)]
pub struct End {
    link: Arc<Link>,
    port: u8,
    metrics: LinkMetrics,
    /// Frames taken from the inbox so far.
    taken: u64,
    /// Lengths of frames in lent buffers, taken from the inbox and not yet told.
    filled: VecDeque<u32>,
    /// The owner sleeps, or was woken and has not said so yet.
    armed: bool,
    /// The queue is to be read empty before buffers are lent.
    draining: bool,
    /// A frame of ours is held, until then.
    held_until: Option<Instant>,
    /// For frames that are made ready in software.
    scratch: Vec<u8>,
    segment: Vec<u8>,
    /// The clock of the table, and frames since it was read.
    now_s: u32,
    frames: u32,
}

impl End {
    pub(super) fn new(link: Arc<Link>, port: u8) -> Self {
        let inbox = &link.inboxes[usize::from(port)];
        inbox.set_offloads(Offloads::default());
        let taken = inbox.arrived();
        // As many as fit into the largest queue: nothing grows while frames move.
        inbox.lock().filled.reserve(LENT_BUFFERS);
        Self {
            link,
            port,
            metrics: LinkMetrics::default(),
            taken,
            filled: VecDeque::with_capacity(LENT_BUFFERS),
            armed: false,
            draining: false,
            held_until: None,
            scratch: Vec::new(),
            segment: Vec::new(),
            now_s: 0,
            frames: 0,
        }
    }

    fn inbox(&self) -> &Inbox {
        &self.link.inboxes[usize::from(self.port)]
    }

    /// Whether anybody is at another port.
    pub fn is_peer_up(&self) -> bool {
        let mut others = self.link.inboxes.iter().enumerate();
        others.any(|(port, inbox)| port != usize::from(self.port) && inbox.is_up())
    }

    /// Frames sent in place and into queues, without the lock that others need.
    #[cfg(test)]
    pub(super) fn sent(&self) -> (u64, u64) {
        (self.metrics.link_sent_in_place_frames, self.metrics.link_sent_queued_frames)
    }

    /// Wakes the ports that waited for room here.
    fn wake_waiting(&self, mut waiting: u64) {
        while waiting != 0 {
            let port = waiting.trailing_zeros() as usize;
            waiting &= waiting - 1;
            self.link.inboxes[port].wake.notify_of_room();
        }
    }

    /// Gives up what was lent and what came, and is still there after that, or not.
    fn lose(&mut self, stays: bool) {
        let inbox = self.inbox();
        let mut state = inbox.lock();
        // Under the lock: what somebody puts from now on finds nobody, or is kept.
        if !stays {
            inbox.plug(false);
        }
        state.clear();
        state.lost += self.filled.len() as u64;
        let (waiting, arrived) = (state.take_waiting(), inbox.arrived());
        drop(state);
        self.wake_waiting(waiting);
        self.taken = arrived;
        self.filled.clear();
    }

    /// The queue is empty and no buffers were lent after all: it is there for senders again.
    fn end_draining(&mut self) {
        if std::mem::take(&mut self.draining) {
            let waiting = self.inbox().lock().take_waiting();
            self.wake_waiting(waiting);
        }
    }

    /// The port to which a frame goes; `None`: to all others.
    fn target(&mut self, front: &[u8; FRONT_BYTES]) -> Option<u8> {
        let Some(table) = &self.link.table else { return Some(1 - self.port) };
        if self.frames.is_multiple_of(CLOCK_FRAMES) {
            self.now_s = self.link.started.elapsed().as_secs() as u32;
        }
        self.frames = self.frames.wrapping_add(1);
        let mac = |at: usize| -> [u8; 6] { std::array::from_fn(|byte| front[HEADER_BYTES + at + byte]) };
        let (destination, source) = (mac(0), mac(6));
        table.learn(source, self.port, self.now_s);
        if destination[0] & 1 != 0 { None } else { table.find(destination, self.now_s) }
    }

    /// Sends to one port.
    #[inline]
    fn send(&mut self, frame: &[IoVec<'_>], bytes: usize, wanted: Wanted, to: u8) -> Written {
        let link = Arc::clone(&self.link);
        let inbox = &link.inboxes[usize::from(to)];
        if !wanted.is_met_by(inbox.offloads()) && inbox.is_up() {
            return self.send_finished(frame, inbox);
        }
        let offered = inbox.offer(frame, bytes, self.port, link.overflow());
        self.count(offered)
    }

    #[inline]
    fn count(&mut self, offered: Offered) -> Written {
        self.held_until = None;
        let metrics = &mut self.metrics;
        let (counter, written) = match offered {
            Offered::InPlace => (&mut metrics.link_sent_in_place_frames, Written::Sent),
            Offered::Queued => (&mut metrics.link_sent_queued_frames, Written::Sent),
            Offered::Busy => (&mut metrics.link_busy_offers, Written::Busy),
            Offered::Full => (&mut metrics.link_dropped_full, Written::Dropped),
            Offered::Down => (&mut metrics.link_dropped_down, Written::Dropped),
            Offered::NeverFits => (&mut metrics.link_dropped_length, Written::Dropped),
            Offered::Held { until } => {
                self.held_until = Some(until);
                (&mut metrics.link_held_offers, Written::WouldBlock)
            }
        };
        *counter += 1;
        written
    }

    /// Sends to a port whose reader does not cope with the frame as it is: as the packets that would be on a wire. They are
    /// offered once each: what finds no room is dropped.
    #[cold]
    fn send_finished(&mut self, frame: &[IoVec<'_>], inbox: &Inbox) -> Written {
        self.scratch.resize(FRAME_BYTES_MAX, 0);
        let bytes = gather(frame, 0, &mut self.scratch);
        let (mut scratch, mut segment) =
            (std::mem::take(&mut self.scratch), std::mem::take(&mut self.segment));
        let mut written = Written::Dropped;
        let finished = offload::finish(&mut scratch[..bytes], &mut segment, |packet| {
            let offered = inbox.offer_once(&[IoVec::of(packet)], packet.len(), self.port);
            if self.count(offered) == Written::Sent {
                self.metrics.link_finished_frames += 1;
                written = Written::Sent;
            }
        });
        (self.scratch, self.segment) = (scratch, segment);
        if finished.is_err() {
            self.metrics.link_dropped_unfinished += 1;
        }
        written
    }

    /// Sends to all other ports.
    #[cold]
    fn flood(&mut self, frame: &[IoVec<'_>], bytes: usize, wanted: Wanted) -> Written {
        let link = Arc::clone(&self.link);
        let mut written = Written::Dropped;
        for (port, inbox) in link.inboxes.iter().enumerate() {
            if port == usize::from(self.port) || !inbox.is_up() {
                continue;
            }
            let sent = if wanted.is_met_by(inbox.offloads()) {
                let offered = inbox.offer_once(frame, bytes, self.port);
                self.count(offered)
            } else {
                self.send_finished(frame, inbox)
            };
            if sent == Written::Sent {
                written = Written::Sent;
            }
        }
        self.metrics.link_flooded_frames += 1;
        written
    }
}

impl Backend for End {
    #[inline]
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        let bytes = bytes_of(frame);
        let mut front = [0; FRONT_BYTES];
        if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&bytes) {
            self.metrics.link_dropped_length += 1;
            return Written::Dropped;
        }
        gather(frame, 0, &mut front);
        let wanted = Wanted::of(&front);
        match self.target(&front) {
            Some(to) if to == self.port => {
                self.metrics.link_dropped_same_port += 1;
                Written::Dropped
            }
            Some(to) => self.send(frame, bytes, wanted, to),
            None => self.flood(frame, bytes, wanted),
        }
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        if self.inbox().arrived() == self.taken {
            self.end_draining();
            return Ok(None);
        }
        let Some(mut state) = self.inbox().try_lock() else { return Ok(None) };
        let Some(frame) = state.queue.front() else { return Ok(None) };
        let bytes = scatter(buffers, 0, frame);
        state.queue.pop();
        let waiting = state.took();
        drop(state);
        self.taken += 1;
        self.metrics.link_received_frames += 1;
        self.wake_waiting(waiting);
        Ok(Some(bytes))
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError> {
        self.inbox().set_offloads(offloads);
        Ok(())
    }

    fn event_fd(&self) -> Option<RawFd> {
        Some(self.inbox().wake.fd())
    }

    fn due(&self) -> Option<Instant> {
        self.held_until
    }

    fn arm(&mut self, awaited: Awaited) -> bool {
        let wake = &self.inbox().wake;
        wake.will_sleep();
        let frames = awaited.frames && (self.inbox().arrived() != self.taken || !self.filled.is_empty());
        let room = awaited.room && wake.take_room();
        if frames || room {
            wake.stay_awake();
        }
        self.armed = !frames && !room;
        !self.armed
    }

    fn disarm(&mut self) {
        if std::mem::take(&mut self.armed) {
            self.inbox().wake.stay_awake();
        }
    }

    fn shows_room_as_writable(&self) -> bool {
        false
    }

    fn filler(&mut self) -> Option<&mut dyn Filler> {
        Some(self)
    }

    fn settle(&self) {
        drop(self.inbox().lock());
    }

    fn counters(&self) -> Vec<Metric> {
        let lost = self.inbox().lock().lost;
        LinkMetrics { link_wakeups: self.inbox().wake.wakeups(), link_lost_frames: lost, ..self.metrics }
            .entries()
    }
}

impl Filler for End {
    unsafe fn lend(&mut self, lot: Lot<'_>) -> bool {
        let Some(mut state) = self.inbox().try_lock() else { return false };
        if !state.queue.is_empty() {
            // Order: these come first, by another way. A sender that refilled the queue would keep it so.
            state.draining = true;
            drop(state);
            self.draining = true;
            return false;
        }
        match &mut state.lent {
            // SAFETY: as the caller says.
            Some(lent) => unsafe { lent.append(lot) },
            // SAFETY: as the caller says.
            lent @ None => *lent = Some(unsafe { Lent::new(lot) }),
        }
        let waiting = state.take_waiting();
        drop(state);
        self.draining = false;
        self.wake_waiting(waiting);
        true
    }

    #[inline]
    fn filled(&mut self) -> Filled {
        if let Some(bytes) = self.filled.pop_front() {
            self.metrics.link_received_frames += 1;
            return Filled::Frame(bytes as usize);
        }
        if self.inbox().arrived() == self.taken {
            return Filled::Nothing;
        }
        // All at once: the lock is for senders.
        let mut filled = std::mem::take(&mut self.filled);
        let (mut foreign, mut queued) = (None, 0);
        if let Some(mut state) = self.inbox().try_lock() {
            std::mem::swap(&mut filled, &mut state.filled);
            foreign = state.foreign.take();
            queued = state.queue.len();
        }
        self.taken += filled.len() as u64 + u64::from(foreign.is_some());
        self.filled = filled;
        match (self.filled.pop_front(), foreign) {
            (Some(bytes), foreign) => {
                if let Some(foreign) = foreign {
                    // Told again by the next sender that meets it.
                    tracing::debug!(?foreign, "a lent buffer may not be written any more");
                }
                self.metrics.link_received_frames += 1;
                Filled::Frame(bytes as usize)
            }
            (None, Some((gpa, len))) => Filled::Foreign(gpa, len),
            (None, None) if queued > 0 => Filled::Queued,
            (None, None) => Filled::Nothing,
        }
    }

    fn recall(&mut self) {
        let mut filled = std::mem::take(&mut self.filled);
        let mut state = self.inbox().lock();
        state.lent = None;
        // From here on they are told without the lock, which a sender may have.
        let before = filled.len();
        filled.append(&mut state.filled);
        // Frames may go into the queue now.
        let waiting = state.take_waiting();
        drop(state);
        self.taken += (filled.len() - before) as u64;
        self.filled = filled;
        self.wake_waiting(waiting);
    }

    fn forget(&mut self) {
        self.lose(true);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.lose(false);
        if let Some(table) = &self.link.table {
            table.forget(self.port);
        }
    }
}

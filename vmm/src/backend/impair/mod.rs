//! A seeded injector of faults around any backend: loss, delay, jitter, reordering, duplication, corruption, a rate and its
//! queue, and the marks of a queue that fills (RFC 3168), for each direction.
//!
//! What passes are packets as on a wire: checksums are filled in and large TCP segments are cut before anything happens to them,
//! so that a lost packet is one packet, and a corrupted one has a checksum that is wrong.
//!
//! The faults are functions of the seed and of a packet's number in its direction. When a packet arrives depends on the clock as
//! well.

mod faults;
mod line;
mod mark;
mod random;

#[cfg(test)]
mod tests;

pub use faults::{Faults, Impairments};
pub use line::{Line, LineCounters, ON_THE_WAY_MAX};

use super::iovec::{gather, scatter};
use super::{
    Awaited, Backend, BackendError, FRAME_BYTES_MAX, HEADER_BYTES, IoVec, IoVecMut, Offloads, Written,
    offload,
};
use crate::stat::metrics::{Metric, metrics};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// Frames taken from the inner backend in one go.
const BATCH: usize = 256;
/// When a packet is offered again for which the inner backend had no room.
const AGAIN: Duration = Duration::from_millis(1);

metrics! {
    /// What was done to packets.
    pub struct ImpairMetrics {
        /// Packets that the guest sent into the injector of faults.
        pub impair_tx_packets: u64,
        /// Of the guest's packets, those that were lost.
        pub impair_tx_lost: u64,
        /// Of the guest's packets, those that found the queue of the line full.
        pub impair_tx_dropped: u64,
        /// Of the guest's packets, those that went twice.
        pub impair_tx_duplicated: u64,
        /// Of the guest's packets, those with a flipped bit.
        pub impair_tx_corrupted: u64,
        /// Of the guest's packets, those marked Congestion Experienced.
        pub impair_tx_marked: u64,
        /// Of the guest's packets, those that were overtaken.
        pub impair_tx_reordered: u64,
        /// Packets of the guest that came out at the other side, duplicates included.
        pub impair_tx_delivered: u64,
        /// Packets for the guest that came into the injector of faults.
        pub impair_rx_packets: u64,
        /// Of the packets for the guest, those that were lost.
        pub impair_rx_lost: u64,
        /// Of the packets for the guest, those that found the queue of the line full.
        pub impair_rx_dropped: u64,
        /// Of the packets for the guest, those that came twice.
        pub impair_rx_duplicated: u64,
        /// Of the packets for the guest, those with a flipped bit.
        pub impair_rx_corrupted: u64,
        /// Of the packets for the guest, those marked Congestion Experienced.
        pub impair_rx_marked: u64,
        /// Of the packets for the guest, those that were overtaken.
        pub impair_rx_reordered: u64,
        /// Packets that the guest was offered, duplicates included.
        pub impair_rx_delivered: u64,
        /// Frames that could not be made into packets: their headers make no sense.
        pub impair_unfinished: u64,
    }
}

/// A backend with faults.
#[derive(Debug)]
pub struct Impair<B> {
    inner: B,
    tx: Line,
    rx: Line,
    started: Instant,
    /// A packet that the inner backend had no room for, and when it is offered again.
    stuck: Option<(Vec<u8>, Instant)>,
    /// Whether the reader wants frames: else those that have arrived are no reason to wake it.
    awaits_frames: bool,
    frame: Box<[u8]>,
    packet: Vec<u8>,
    unfinished: u64,
}

impl<B: Backend> Impair<B> {
    /// Puts faults around a backend.
    pub fn new(inner: B, impairments: &Impairments) -> Self {
        let Impairments { tx, rx, seed } = *impairments;
        Self {
            inner,
            tx: Line::new(tx, seed),
            // Both directions with the same numbers would lose a packet and its answer together.
            rx: Line::new(rx, !seed),
            started: Instant::now(),
            stuck: None,
            awaits_frames: true,
            frame: vec![0; FRAME_BYTES_MAX].into_boxed_slice(),
            packet: Vec::new(),
            unfinished: 0,
        }
    }

    /// Brings what has arrived of the guest's packets to the inner backend.
    fn forward(&mut self, now: Instant) {
        let at = now - self.started;
        if let Some((packet, again)) = self.stuck.take() {
            if now < again {
                self.stuck = Some((packet, again));
                return;
            }
            self.write(packet, now);
        }
        while self.stuck.is_none() {
            let Some(packet) = self.tx.next(at) else { return };
            self.write(packet, now);
        }
    }

    fn write(&mut self, packet: Vec<u8>, now: Instant) {
        match self.inner.write_frame(&[IoVec::of(&packet)]) {
            // The inner backend counts what it drops.
            Written::Sent | Written::Dropped => self.tx.recycle(packet),
            Written::WouldBlock => self.stuck = Some((packet, now + AGAIN)),
            Written::Busy => self.stuck = Some((packet, now)),
        }
    }

    /// Takes what the inner backend has for the guest.
    fn fetch(&mut self, now: Instant) -> Result<(), BackendError> {
        let at = now - self.started;
        for _ in 0..BATCH {
            let read = self.inner.read_frame(&[IoVecMut::of(&mut self.frame)])?;
            let Some(bytes) = read else { break };
            let (rx, frame) = (&mut self.rx, &mut self.frame[..bytes.min(FRAME_BYTES_MAX)]);
            let finished = offload::finish(frame, &mut self.packet, |packet| rx.offer(packet, at));
            self.unfinished += u64::from(finished.is_err());
        }
        Ok(())
    }
}

impl<B: Backend> Backend for Impair<B> {
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        let at = self.started.elapsed();
        let bytes = gather(frame, 0, &mut self.frame);
        let tx = &mut self.tx;
        let finished =
            offload::finish(&mut self.frame[..bytes], &mut self.packet, |packet| tx.offer(packet, at));
        if finished.is_err() {
            self.unfinished += 1;
            return Written::Dropped;
        }
        Written::Sent
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        let now = Instant::now();
        let fetched = self.fetch(now);
        let Some(packet) = self.rx.next(now - self.started) else { return fetched.map(|()| None) };
        let bytes = scatter(buffers, 0, &packet);
        self.rx.recycle(packet);
        Ok(Some(bytes))
    }

    fn set_offloads(&mut self, _: Offloads) -> Result<(), BackendError> {
        // Packets, as on a wire.
        self.inner.set_offloads(Offloads::default())
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.inner.event_fd()
    }

    fn pump(&mut self) {
        let now = Instant::now();
        self.inner.pump();
        self.forward(now);
        // So that the way of a packet begins when it comes, also while the guest has no buffers. An error is told by the next
        // read.
        let _ = self.fetch(now);
    }

    fn due(&self) -> Option<Instant> {
        let at = |due: Duration| self.started + due;
        let tx = match &self.stuck {
            Some((_, again)) => Some(*again),
            None => self.tx.due().map(at),
        };
        let rx = self.rx.due().filter(|_| self.awaits_frames).map(at);
        [tx, rx, self.inner.due()].into_iter().flatten().min()
    }

    fn arm(&mut self, awaited: Awaited) -> bool {
        self.awaits_frames = awaited.frames;
        // Frames are fetched whether the guest has buffers or not.
        let inner = self.inner.arm(Awaited { frames: true, room: awaited.room });
        inner || self.due().is_some_and(|due| due <= Instant::now())
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn shows_room_as_writable(&self) -> bool {
        self.inner.shows_room_as_writable()
    }

    fn counters(&self) -> Vec<Metric> {
        let (tx, rx) = (self.tx.counters(), self.rx.counters());
        let own = ImpairMetrics {
            impair_tx_packets: tx.offered,
            impair_tx_lost: tx.lost,
            impair_tx_dropped: tx.dropped,
            impair_tx_duplicated: tx.duplicated,
            impair_tx_corrupted: tx.corrupted,
            impair_tx_marked: tx.marked,
            impair_tx_reordered: tx.reordered,
            impair_tx_delivered: tx.delivered,
            impair_rx_packets: rx.offered,
            impair_rx_lost: rx.lost,
            impair_rx_dropped: rx.dropped,
            impair_rx_duplicated: rx.duplicated,
            impair_rx_corrupted: rx.corrupted,
            impair_rx_marked: rx.marked,
            impair_rx_reordered: rx.reordered,
            impair_rx_delivered: rx.delivered,
            impair_unfinished: self.unfinished,
        };
        let mut counters = self.inner.counters();
        counters.extend(own.entries());
        counters
    }
}

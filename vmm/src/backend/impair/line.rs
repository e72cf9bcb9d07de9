//! One direction of an impaired interface: packets in, packets out, and a clock that is an argument.
//!
//! A packet waits for the line (rate and queue), then is on its way (delay, jitter, lateness), and on it things happen to it
//! (loss, duplication, corruption, marks). All of it is decided when the packet comes, by random numbers that depend on the seed and
//! on the packet's number alone.

use super::faults::Faults;
use super::mark::mark;
use super::random::Random;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

/// Packets on their way at once. More are dropped: memory is bounded.
pub const ON_THE_WAY_MAX: usize = 100_000;
/// Header of `struct virtio_net_hdr_v1` and of Ethernet: not corrupted. An interface would never show such a frame to anybody.
const WHOLE_BYTES: usize = super::HEADER_BYTES + 14;
/// Room for packets that is kept for the next ones.
const SPARE: usize = 1000;

/// What happened to packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounters {
    /// Packets that came.
    pub offered: u64,
    /// Packets that were lost.
    pub lost: u64,
    /// Packets that found too many waiting for the line, or on their way.
    pub dropped: u64,
    /// Packets that went a second time.
    pub duplicated: u64,
    /// Packets of which a bit was flipped.
    pub corrupted: u64,
    /// Packets that were marked Congestion Experienced.
    pub marked: u64,
    /// Packets that were made late.
    pub reordered: u64,
    /// Packets that arrived.
    pub delivered: u64,
}

/// A packet on its way, by when it arrives.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct OnTheWay {
    due: Duration,
    number: u64,
    bytes: Vec<u8>,
}

/// The random numbers, a stream for each fault.
#[derive(Debug)]
struct Streams {
    loss: Random,
    duplicate: Random,
    corrupt: Random,
    place: Random,
    reorder: Random,
    late: Random,
    jitter: Random,
    mark: Random,
}

/// The direction.
#[derive(Debug)]
pub struct Line {
    faults: Faults,
    streams: Streams,
    /// Packets are being lost (the bad state of Gilbert's model).
    is_bad: bool,
    /// When the line will have sent all that it has, and each packet of that.
    free_at: Duration,
    departures: VecDeque<Duration>,
    /// When the last packet arrives of those that keep order.
    last_due: Duration,
    on_the_way: BinaryHeap<Reverse<OnTheWay>>,
    number: u64,
    spare: Vec<Vec<u8>>,
    counters: LineCounters,
}

impl Line {
    /// A line with these faults.
    pub fn new(faults: Faults, seed: u64) -> Self {
        let stream = |purpose| Random::new(seed, purpose);
        Self {
            faults,
            streams: Streams {
                loss: stream(1),
                duplicate: stream(2),
                corrupt: stream(3),
                place: stream(4),
                reorder: stream(5),
                late: stream(6),
                jitter: stream(7),
                mark: stream(8),
            },
            is_bad: false,
            free_at: Duration::ZERO,
            departures: VecDeque::new(),
            last_due: Duration::ZERO,
            on_the_way: BinaryHeap::new(),
            number: 0,
            spare: Vec::new(),
            counters: LineCounters::default(),
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> LineCounters {
        self.counters
    }

    /// A packet comes, its virtio header first.
    pub fn offer(&mut self, packet: &[u8], now: Duration) {
        self.counters.offered += 1;
        // Each packet takes its numbers, whatever becomes of it.
        let is_lost = self.draw_loss();
        let is_doubled = self.streams.duplicate.chance(self.faults.duplicate);
        let flip = self.streams.place.next();
        let flip = self.streams.corrupt.chance(self.faults.corrupt).then_some(flip);
        let lateness = self.streams.late.below(self.faults.late.as_nanos() as u64 / 2 + 1);
        let is_late = self.streams.reorder.chance(self.faults.reorder);
        let jitter = self.streams.jitter.below(2 * self.faults.jitter.as_nanos() as u64 + 1);
        let is_marked = self.streams.mark.chance(self.faults.mark);
        let Some((departure, waiting)) = self.depart(packet.len(), now) else {
            self.counters.dropped += 1;
            return;
        };
        if is_lost {
            self.counters.lost += 1;
            return;
        }
        let way = (self.faults.delay + Duration::from_nanos(jitter)).saturating_sub(self.faults.jitter);
        let due = if is_late {
            self.counters.reordered += 1;
            // Late, and not waited for by those that follow.
            (departure + way).max(self.last_due) + self.faults.late / 2 + Duration::from_nanos(lateness)
        } else {
            self.last_due = (departure + way).max(self.last_due);
            self.last_due
        };
        let is_marked = is_marked || self.faults.mark_from_packets.is_some_and(|packets| waiting >= packets);
        if self.put(packet, due, is_marked, flip) && flip.is_some() {
            self.counters.corrupted += 1;
        }
        if is_doubled && self.put(packet, due, is_marked, None) {
            self.counters.duplicated += 1;
        }
    }

    /// Whether the next packet is lost. Gilbert's model: runs of losses whose mean length is `burst`, and `loss` of all packets.
    fn draw_loss(&mut self) -> bool {
        let Faults { loss, burst, .. } = self.faults;
        if burst <= 1.0 || loss >= 1.0 {
            return self.streams.loss.chance(loss);
        }
        let (to_good, to_bad) = (1.0 / burst, loss / (burst * (1.0 - loss)));
        let change = if self.is_bad { to_good } else { to_bad };
        self.is_bad ^= self.streams.loss.chance(change);
        self.is_bad
    }

    /// When a packet has left for its way, and how many wait before it; `None`: too many wait already.
    fn depart(&mut self, bytes: usize, now: Duration) -> Option<(Duration, usize)> {
        let Some(rate_bits) = self.faults.rate_bits else { return Some((now, 0)) };
        while self.departures.front().is_some_and(|&departure| departure <= now) {
            self.departures.pop_front();
        }
        let waiting = self.departures.len();
        if waiting >= self.faults.queue_packets {
            return None;
        }
        let bits = 8 * bytes.saturating_sub(super::HEADER_BYTES) as u128;
        let takes = Duration::from_nanos((bits * 1_000_000_000 / u128::from(rate_bits.max(1))) as u64);
        self.free_at = self.free_at.max(now) + takes;
        self.departures.push_back(self.free_at);
        Some((self.free_at, waiting))
    }

    /// Puts a packet on its way. `false`: too many are.
    fn put(&mut self, packet: &[u8], due: Duration, is_marked: bool, flip: Option<u64>) -> bool {
        if self.on_the_way.len() >= ON_THE_WAY_MAX {
            self.counters.dropped += 1;
            return false;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(packet);
        if is_marked && bytes.get_mut(super::HEADER_BYTES..).is_some_and(mark) {
            self.counters.marked += 1;
        }
        if let Some(flip) = flip
            && let Some(open) = bytes.get_mut(WHOLE_BYTES..).filter(|open| !open.is_empty())
        {
            let bit = ((u128::from(flip) * (8 * open.len() as u128)) >> 64) as usize;
            open[bit / 8] ^= 1 << (bit % 8);
        }
        self.on_the_way.push(Reverse(OnTheWay { due, number: self.number, bytes }));
        self.number += 1;
        true
    }

    /// When the next packet arrives.
    pub fn due(&self) -> Option<Duration> {
        self.on_the_way.peek().map(|Reverse(packet)| packet.due)
    }

    /// The next packet that has arrived.
    pub fn next(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.due()? > now {
            return None;
        }
        self.counters.delivered += 1;
        self.on_the_way.pop().map(|Reverse(packet)| packet.bytes)
    }

    /// Takes back the memory of a packet.
    pub fn recycle(&mut self, packet: Vec<u8>) {
        if self.spare.len() < SPARE {
            self.spare.push(packet);
        }
    }
}

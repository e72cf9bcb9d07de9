//! What a wire does to frames, from a seed.

use crate::ecn::{self, Notice};
use exos_net::{Duration, Instant};
use exovm_netns::tap::VNET_HEADER_BYTES;
use std::collections::BTreeMap;

/// What the wire does, each way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Frames lost, of a thousand.
    pub lost: u32,
    /// Frames repeated, of a thousand.
    pub repeated: u32,
    /// Frames held back for [`Self::hold_ms`], of a thousand.
    pub held: u32,
    /// Milliseconds that everything takes.
    pub delay_ms: u64,
    /// Milliseconds more for what is held back.
    pub hold_ms: u64,
    /// A line that is slower than its ends.
    pub bottleneck: Option<Bottleneck>,
    /// SYNs that ask for ECN are lost, as some routers had it (RFC 3168 6.1.1.1).
    pub loses_ecn_setup: bool,
    /// Of the choices.
    pub seed: u64,
}

/// A line with a rate, and the queue before it.
#[derive(Clone, Copy, Debug)]
pub struct Bottleneck {
    /// Bytes a second.
    pub rate_bytes: u64,
    /// Bytes that may wait; what comes then is lost.
    pub queue_bytes: u64,
    /// From so many bytes that wait on, frames that may be marked are (RFC 3168 5).
    pub mark_above_bytes: u64,
}

/// What a wire has seen go one way, and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames that found the bottleneck's queue full.
    pub overflowed: u64,
    /// Frames that came and may be marked (ECT).
    pub capable: u64,
    /// Frames that were marked here.
    pub marked: u64,
    /// SYNs that ask for ECN: with ECE and CWR.
    pub setups: u64,
    /// SYN-ACKs that agree: with ECE alone.
    pub agreements: u64,
    /// Other segments with ECE.
    pub echoes: u64,
    /// Segments with CWR.
    pub reductions: u64,
}

impl Faults {
    /// None.
    pub const NONE: Self = Self {
        lost: 0,
        repeated: 0,
        held: 0,
        delay_ms: 0,
        hold_ms: 0,
        bottleneck: None,
        loses_ecn_setup: false,
        seed: 0,
    };

    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        let slows = self.delay_ms > 0 || self.bottleneck.is_some();
        self.lost + self.repeated + self.held == 0 && !slows && !self.loses_ecn_setup
    }
}

/// The queue of a bottleneck.
#[derive(Clone, Copy)]
struct Line {
    is: Bottleneck,
    /// When all that waits will have left.
    free_at: Instant,
}

impl Line {
    /// When a frame of `len` bytes has left and how many bytes wait before it; `None`: too many.
    fn depart(&mut self, now: Instant, len: u64) -> Option<(Instant, u64)> {
        let nanos = u128::from(self.free_at.since(now).as_nanos());
        let waiting = (nanos * u128::from(self.is.rate_bytes) / 1_000_000_000) as u64;
        if waiting + len > self.is.queue_bytes {
            return None;
        }
        let takes = Duration::from_nanos(len * 1_000_000_000 / self.is.rate_bytes);
        self.free_at = self.free_at.max(now) + takes;
        Some((self.free_at, waiting))
    }
}

impl Tally {
    fn note(&mut self, notice: Notice) {
        let Notice { capable, setup, agreement, echo, reduction } = notice;
        self.capable += u64::from(capable);
        self.setups += u64::from(setup);
        self.agreements += u64::from(agreement);
        self.echoes += u64::from(echo);
        self.reductions += u64::from(reduction);
    }
}

/// A direction of the wire: frames with the time at which they arrive.
pub(crate) struct Way {
    faults: Faults,
    line: Option<Line>,
    tally: Tally,
    random: u64,
    frames: BTreeMap<(Instant, u64), Vec<u8>>,
    number: u64,
}

impl Way {
    pub(crate) fn new(faults: Faults, seed: u64) -> Self {
        Self {
            faults,
            line: faults.bottleneck.map(|is| Line { is, free_at: Instant::ZERO }),
            tally: Tally::default(),
            random: (faults.seed ^ seed) | 1,
            frames: BTreeMap::new(),
            number: 0,
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Of a thousand (xorshift64*).
    fn happens(&mut self, of_thousand: u32) -> bool {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % 1_000 < u64::from(of_thousand)
    }

    /// A frame comes, its virtio-net header first.
    pub(crate) fn push(&mut self, now: Instant, mut frame: Vec<u8>) {
        let notice = ecn::notice(&frame);
        self.tally.note(notice);
        if self.happens(self.faults.lost) || (self.faults.loses_ecn_setup && notice.setup) {
            return;
        }
        let mut left_at = now;
        if let Some(line) = &mut self.line {
            let Some((at, waiting)) = line.depart(now, (frame.len() - VNET_HEADER_BYTES) as u64) else {
                self.tally.overflowed += 1;
                return;
            };
            left_at = at;
            if waiting >= line.is.mark_above_bytes && notice.capable {
                self.tally.marked += 1;
                ecn::mark(&mut frame);
            }
        }
        let copies = 1 + usize::from(self.happens(self.faults.repeated));
        for _ in 0..copies {
            let held_ms = if self.happens(self.faults.held) { self.faults.hold_ms } else { 0 };
            let at = left_at + Duration::from_millis(self.faults.delay_ms + held_ms);
            self.number += 1;
            self.frames.insert((at, self.number), frame.clone());
        }
    }

    pub(crate) fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        let first = self.frames.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.frames.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

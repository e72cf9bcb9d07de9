//! Stacks of ours in simulated time: senders on one side, a receiver on the other, and between them a link with a rate, a
//! delay, a drop-tail queue and random loss. Every byte that arrives is compared. A seed is one repeatable run.

pub(crate) mod link;
pub(crate) mod stations;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use exos_net::{Config, Duration, Instant};

pub(crate) use link::{Link, LinkConfig};
use stations::{Receiver, Sender};

/// A network of `senders.len()` flows to one receiver.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The sender of each flow; its addresses are set here.
    pub(crate) senders: Vec<Config>,
    pub(crate) receiver: Config,
    /// From the senders to the receiver, all through one.
    pub(crate) forward: LinkConfig,
    pub(crate) backward: LinkConfig,
    /// Bytes that a sender's application keeps queued, sent or not.
    pub(crate) send_buffer_bytes: usize,
    pub(crate) seed: u64,
}

/// Where a frame arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Receiver,
    Sender(usize),
}

/// Frames under way, the earliest first.
type UnderWay = BinaryHeap<Reverse<(Instant, u64, Place, Vec<u8>)>>;

pub(crate) struct Network {
    pub(crate) now: Instant,
    pub(crate) senders: Vec<Sender>,
    pub(crate) receiver: Receiver,
    pub(crate) forward: Link,
    pub(crate) backward: Link,
    under_way: UnderWay,
    frames: u64,
}

impl Network {
    /// Every sender has begun to connect.
    pub(crate) fn new(setup: &Setup) -> Self {
        let now = Instant::from_millis(1_000);
        let senders = setup.senders.iter().enumerate();
        let mut network = Self {
            now,
            senders: senders
                .map(|(number, config)| Sender::new(number, config, setup.send_buffer_bytes, now))
                .collect(),
            receiver: Receiver::new(&setup.receiver, setup.senders.len(), now),
            forward: Link::new(setup.forward, 2 * setup.seed + 1),
            backward: Link::new(setup.backward, 2 * setup.seed + 2),
            under_way: BinaryHeap::new(),
            frames: 0,
        };
        network.collect();
        network
    }

    /// Bytes that have arrived, by flow.
    pub(crate) fn received(&self) -> Vec<u64> {
        self.receiver.flows.iter().map(|flow| flow.received).collect()
    }

    /// Goes on for `duration`, or until `most_bytes` more have arrived. Returns how long that took.
    pub(crate) fn run(&mut self, duration: Duration, most_bytes: u64) -> Duration {
        let (begin, end) = (self.now, self.now + duration);
        let enough = self.received().iter().sum::<u64>().saturating_add(most_bytes);
        while self.received().iter().sum::<u64>() < enough {
            let next = self.next_at();
            if next > end {
                self.now = end;
                break;
            }
            self.now = self.now.max(next);
            self.step();
        }
        self.now.since(begin)
    }

    fn next_at(&self) -> Instant {
        let frame = self.under_way.peek().map(|Reverse((at, ..))| *at);
        let timers = self.senders.iter().map(Sender::next_deadline);
        timers.chain([self.receiver.next_deadline(), frame]).flatten().min().expect("something is under way")
    }

    fn step(&mut self) {
        while let Some(Reverse((at, ..))) = self.under_way.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, place, frame))) = self.under_way.pop() else { break };
            match place {
                Place::Receiver => self.receiver.take(self.now, &frame),
                Place::Sender(number) => self.senders[number].take(self.now, &frame),
            }
        }
        self.receiver.expire(self.now);
        for sender in &mut self.senders {
            sender.expire(self.now);
        }
        self.collect();
    }

    /// What devices were given goes on its way.
    fn collect(&mut self) {
        for sender in &mut self.senders {
            for frame in sender.nic.frames.drain(..) {
                if let Some(at) = self.forward.send(self.now, frame.len()) {
                    self.frames += 1;
                    self.under_way.push(Reverse((at, self.frames, Place::Receiver, frame)));
                }
            }
        }
        for frame in self.receiver.nic.frames.drain(..) {
            let number = stations::number_of(&frame);
            if let Some(at) = self.backward.send(self.now, frame.len()) {
                self.frames += 1;
                self.under_way.push(Reverse((at, self.frames, Place::Sender(number), frame)));
            }
        }
    }
}

//! Stacks in simulated time, ours or smoltcp's: senders on one side, a receiver on the other, and between them a link with a
//! rate, a delay, a drop-tail queue and random loss. Every byte that arrives is compared. A seed is one repeatable run.

pub(crate) mod link;
pub(crate) mod smoltcp_device;
pub(crate) mod smoltcp_stations;
pub(crate) mod stations;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use exos_net::{Config, Duration, Instant};

pub(crate) use link::{Link, LinkConfig};
use stations::{Flow, Receiver, Sender};

/// One end of the link.
pub(crate) trait Station {
    /// A frame arrives.
    fn take(&mut self, now: Instant, frame: &[u8]);
    fn next_deadline(&mut self) -> Option<Instant>;
    /// Timers that are due fire.
    fn expire(&mut self, now: Instant);
    /// What its device was given.
    fn frames(&mut self) -> &mut Vec<Vec<u8>>;
}

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

pub(crate) struct Network<S = Sender, R = Receiver> {
    pub(crate) now: Instant,
    pub(crate) senders: Vec<S>,
    pub(crate) receiver: R,
    pub(crate) forward: Link,
    pub(crate) backward: Link,
    under_way: UnderWay,
    frames: u64,
}

/// When simulations begin.
pub(crate) const BEGIN: Instant = Instant::from_millis(1_000);

impl Network {
    /// Every sender has begun to connect.
    pub(crate) fn new(setup: &Setup) -> Self {
        let senders = setup.senders.iter().enumerate();
        let senders = senders
            .map(|(number, config)| Sender::new(number, config, setup.send_buffer_bytes, BEGIN))
            .collect();
        let receiver = Receiver::new(&setup.receiver, setup.senders.len(), BEGIN);
        Self::of(senders, receiver, setup)
    }
}

impl<S: Station, R: Station + AsRef<[Flow]>> Network<S, R> {
    /// These stations, whose configuration in `setup` does not count, on its links.
    pub(crate) fn of(senders: Vec<S>, receiver: R, setup: &Setup) -> Self {
        let mut network = Self {
            now: BEGIN,
            senders,
            receiver,
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
        self.receiver.as_ref().iter().map(|flow| flow.received).collect()
    }

    /// Goes on for `duration`, or until `most_bytes` more have arrived. Returns how long that took.
    pub(crate) fn run(&mut self, duration: Duration, most_bytes: u64) -> Duration {
        self.run_watched(duration, most_bytes, |_, _| {})
    }

    /// The same; `watch` sees the network between two events, and how long nothing happens then.
    pub(crate) fn run_watched(
        &mut self,
        duration: Duration,
        most_bytes: u64,
        mut watch: impl FnMut(&Self, Duration),
    ) -> Duration {
        let (begin, end) = (self.now, self.now + duration);
        let enough = self.received().iter().sum::<u64>().saturating_add(most_bytes);
        while self.received().iter().sum::<u64>() < enough {
            let next = self.next_at();
            if next > end {
                self.now = end;
                break;
            }
            watch(self, next.since(self.now));
            self.now = self.now.max(next);
            self.step();
        }
        self.now.since(begin)
    }

    fn next_at(&mut self) -> Instant {
        let frame = self.under_way.peek().map(|Reverse((at, ..))| *at);
        let timers = self.senders.iter_mut().map(S::next_deadline);
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
            for mut frame in sender.frames().drain(..) {
                if let Some(at) = self.forward.send(self.now, &mut frame) {
                    self.frames += 1;
                    self.under_way.push(Reverse((at, self.frames, Place::Receiver, frame)));
                }
            }
        }
        for mut frame in self.receiver.frames().drain(..) {
            let number = stations::number_of(&frame);
            if let Some(at) = self.backward.send(self.now, &mut frame) {
                self.frames += 1;
                self.under_way.push(Reverse((at, self.frames, Place::Sender(number), frame)));
            }
        }
    }
}

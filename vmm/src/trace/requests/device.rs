//! What the VMM's threads did with frames and disk requests, from their records.

use super::super::record::{Happening, Record};
use super::super::stream::Header;
use abi::trace::{RECORD_ENTER, RECORD_EVENT};
use std::collections::HashMap;

/// Who wants to know of a frame or disk request has asked by then.
const FORGET_MS: u64 = 1000;

/// A packet's way to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// The backend's system call began, and
    pub(super) from: u64,
    /// ended.
    pub(super) to: u64,
    pub(super) published: Published,
}

/// When the guest could see a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    At(u64),
    /// The thread's batch goes on.
    NotYet,
    /// A sample does not say.
    Unknown,
}

impl Received {
    /// Whether all is known that will be.
    pub(super) fn is_whole(&self) -> bool {
        self.published != Published::NotYet
    }
}

/// A frame's way to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// The device's work on it began, if that is known, or the system call.
    pub(super) taken: u64,
    /// The system call began, and
    pub(super) from: u64,
    /// ended.
    pub(super) to: u64,
}

/// A disk request's time in the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiskTimes {
    pub(super) taken: u64,
    pub(super) done: u64,
}

/// One thread.
#[derive(Debug, Default)]
struct Thread {
    /// Its last buckets, the newest first, and when they began.
    buckets: [Option<(u32, u64)>; 3],
    /// Packets of the batch that goes on.
    unpublished: Vec<u64>,
}

/// Numbers of buckets.
#[derive(Clone, Copy, Debug)]
struct Buckets {
    receive: Option<u32>,
    read: Option<u32>,
    transmit: Option<u32>,
}

/// The devices.
#[derive(Debug)]
pub(super) struct Devices {
    buckets: Buckets,
    threads: HashMap<u16, Thread>,
    received: HashMap<u64, Received>,
    sent: HashMap<u64, Sent>,
    disk: HashMap<u64, DiskTimes>,
    forgotten_at: u64,
    /// The latest moment that a thread has written down.
    pub(super) now: u64,
}

impl Devices {
    pub(super) fn new(header: &Header) -> Self {
        let number = |name: &str| header.buckets.iter().position(|own| own == name).map(|place| place as u32);
        let buckets = Buckets {
            receive: number("net receive"),
            read: number("backend read"),
            transmit: number("net transmit"),
        };
        Self {
            buckets,
            threads: HashMap::new(),
            received: HashMap::new(),
            sent: HashMap::new(),
            disk: HashMap::new(),
            forgotten_at: header.tsc,
            now: header.tsc,
        }
    }

    /// Records of a thread are missing here.
    pub(super) fn gap(&mut self, source: u16) {
        let thread = self.threads.entry(source).or_default();
        thread.buckets = [None; 3];
        // The end of their batch may be among them.
        for packet in thread.unpublished.drain(..) {
            if let Some(received) = self.received.get_mut(&packet) {
                received.published = Published::Unknown;
            }
        }
    }

    /// The next record of a thread.
    pub(super) fn record(&mut self, source: u16, record: &Record, buckets: usize) {
        self.now = self.now.max(record.tsc);
        let thread = self.threads.entry(source).or_default();
        match record.parts() {
            (bucket, RECORD_ENTER, _) if (bucket as usize) < buckets => {
                let [last, before, _] = thread.buckets;
                thread.buckets = [Some((bucket, record.tsc)), last, before];
                if Some(bucket) == self.buckets.receive || Some(bucket) == self.buckets.read {
                    return;
                }
                for packet in thread.unpublished.drain(..) {
                    if let Some(received) = self.received.get_mut(&packet) {
                        received.published = Published::At(record.tsc);
                    }
                }
            }
            (what, RECORD_EVENT, _) if what == Happening::Received as u32 => {
                let published = if thread.buckets[0].is_some() {
                    thread.unpublished.push(record.subject);
                    Published::NotYet
                } else {
                    Published::Unknown
                };
                let received = Received { from: record.argument, to: record.tsc, published };
                self.received.insert(record.subject, received);
            }
            (what, RECORD_EVENT, _) if what == Happening::Sent as u32 => {
                let taken = match thread.buckets {
                    [_, Some((_, write)), Some((bucket, taken))]
                        if write == record.argument && Some(bucket) == self.buckets.transmit =>
                    {
                        taken
                    }
                    _ => record.argument,
                };
                self.sent.insert(record.subject, Sent { taken, from: record.argument, to: record.tsc });
            }
            (what, RECORD_EVENT, _) if what == Happening::DiskDone as u32 => {
                self.disk.insert(record.subject, DiskTimes { taken: record.argument, done: record.tsc });
            }
            _ => {}
        }
    }

    /// One whose batch goes on is not there yet. What is told stays: an environment that asks for what is another's must not
    /// take it away.
    pub(super) fn received(&self, packet: u64) -> Option<Received> {
        self.received.get(&packet).copied().filter(Received::is_whole)
    }

    pub(super) fn sent(&self, frame: u64) -> Option<Sent> {
        self.sent.get(&frame).copied()
    }

    pub(super) fn disk(&self, request: u64) -> Option<DiskTimes> {
        self.disk.get(&request).copied()
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self) {
        for source in self.threads.keys().copied().collect::<Vec<_>>() {
            self.gap(source);
        }
    }

    /// Forgets what is old.
    pub(super) fn forget(&mut self, tsc_khz: u64) {
        let ticks = FORGET_MS * tsc_khz;
        if self.now - self.forgotten_at < ticks / 4 {
            return;
        }
        self.forgotten_at = self.now;
        let since = self.now.saturating_sub(ticks);
        self.received.retain(|_, received| received.to >= since);
        self.sent.retain(|_, sent| sent.to >= since);
        self.disk.retain(|_, times| times.done >= since);
    }
}

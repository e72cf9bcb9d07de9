//! One request from the backend's system call that took its first packet to the one that gave its last frame away: put together
//! from what guest and devices wrote down.

use super::device::{DiskTimes, Published};
use super::guest::{Cut, Why, Work};
use super::layers::{Kind, LayerId, Layers};
use super::path::{Claim, Rank, Step, divide};
use std::collections::{HashMap, HashSet};

/// Spans, frames and disk requests of one request, all its packets together, that it is put together from.
const PARTS_MAX: usize = 100_000;

/// Where a [`Bar`] is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// System calls of the network backend.
    Backend,
    /// The NIC's receive queue.
    Receive,
    /// The environment.
    Environment,
    /// The NIC's transmit queue.
    Transmit,
    /// The disk.
    Disk,
}

/// Something that took time for a request, whatever else went on meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Where.
    pub lane: Lane,
    /// What.
    pub layer: LayerId,
    /// TSC of its beginning, and
    pub from: u64,
    /// of its end.
    pub to: u64,
    /// How many spans of this request are around it.
    pub depth: u8,
    /// Frame or disk request ([`abi::trace::subject`]), or 0.
    pub subject: u64,
}

/// One received packet for which the guest counted requests, with the packets before it that were the same request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Source of the environment that answered it.
    pub source: u16,
    /// Its packets, the last of which completed it.
    pub packets: Vec<u64>,
    /// Requests in that packet.
    pub requests: u64,
    /// Frames of the answer.
    pub frames: Vec<u64>,
    /// How often the guest went on with it later: for the disk, or because the client had acknowledged something.
    pub continued: usize,
    /// TSC: the backend's system call for the first packet began.
    pub begin: u64,
    /// TSC: the backend's system call for the last frame ended.
    pub end: u64,
    /// Who had the time, each moment once.
    pub path: Vec<Step>,
    /// What there was, overlapping as it did.
    pub bars: Vec<Bar>,
}

/// Why a request is not among the complete ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incomplete {
    /// It was there before the recording, or its packet's record is missing.
    Beginning,
    /// Records are missing while it was under way.
    Lost,
    /// Nothing was sent for it.
    Unanswered,
    /// The client never acknowledged all of the answer.
    Unacknowledged,
    /// The recording ended.
    UnderWay,
    /// Too many frames or spans to keep.
    TooLong,
    /// Too much was under way at once to keep all of it.
    NoRoom,
}

/// What one layer has of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which.
    pub layer: LayerId,
    /// Cycles, all stretches together.
    pub cycles: u64,
    /// Where its first stretch begins, from the request's beginning on.
    pub first: u64,
}

impl Request {
    /// End to end.
    pub fn cycles(&self) -> u64 {
        self.end - self.begin
    }

    /// The layers that have some of its time, in the order in which they first had it.
    pub fn shares(&self) -> Vec<Share> {
        let mut shares: Vec<Share> = Vec::new();
        let mut places = HashMap::new();
        for step in &self.path {
            let place = *places.entry(step.layer).or_insert(shares.len());
            match shares.get_mut(place) {
                Some(share) => share.cycles += step.cycles(),
                None => shares.push(Share {
                    layer: step.layer,
                    cycles: step.cycles(),
                    first: step.from - self.begin,
                }),
            }
        }
        shares
    }

    /// Without what the client took.
    pub fn cycles_here(&self, layers: &Layers) -> u64 {
        let here = |step: &&Step| layers.get(step.layer).kind != Kind::Client;
        self.path.iter().filter(here).map(Step::cycles).sum()
    }

    /// Puts a request together. `works` are its packets', the last completes it; all that is known of them has been filled in.
    pub(super) fn assemble(layers: &Layers, source: u16, works: &[(u64, Work)]) -> Result<Self, Incomplete> {
        let Some(((_, own), earlier)) = works.split_last() else { return Err(Incomplete::Lost) };
        match works.iter().find_map(|(_, work)| work.cut) {
            Some(Cut::TooLong) => return Err(Incomplete::TooLong),
            Some(Cut::NoRoom) => return Err(Incomplete::NoRoom),
            None => {}
        }
        if works.iter().map(|(_, work)| work.parts()).sum::<usize>() > PARTS_MAX {
            return Err(Incomplete::TooLong);
        }
        let received: Vec<_> = works.iter().filter_map(|(_, work)| work.received).collect();
        let (Some(first), Some(last), true) =
            (received.first(), received.last(), received.len() == works.len())
        else {
            return Err(Incomplete::Beginning);
        };
        if own.frames.is_empty() {
            return Err(Incomplete::Unanswered);
        }
        if !own.is_whole() {
            return Err(Incomplete::Lost);
        }
        let sent = own.frames.iter().filter_map(|frame| frame.sent);
        let end = sent.clone().map(|sent| sent.to).max().unwrap_or(0);
        // The guest said which frames were its: with numbers that do not fit it has no beginning before its end.
        if end <= first.from {
            return Err(Incomplete::Lost);
        }
        let mut parts = Parts { layers, claims: Vec::new(), bars: Vec::new() };
        for (packet, work) in works {
            parts.received(*packet, work);
            parts.worked(work);
            parts.disk(work);
        }
        for (_, work) in earlier {
            parts.sent(work, Whose::Earlier);
        }
        parts.sent(own, Whose::Answer);
        let complete = last.from;
        let mut continued = own.continued.clone();
        continued.sort_by_key(|continued| continued.tsc);
        let path = divide(first.from, end, &parts.claims, |at| {
            if at < complete {
                return LayerId::WAIT_FOR_REST;
            }
            let next = continued.get(continued.partition_point(|continued| continued.tsc < at));
            let by_client = next.is_some_and(|continued| continued.why == Why::Client);
            if by_client { LayerId::WAIT_FOR_CLIENT } else { LayerId::WAIT_IN_GUEST }
        });
        Ok(Self {
            source,
            packets: works.iter().map(|(packet, _)| *packet).collect(),
            requests: own.requests,
            frames: own.frames.iter().map(|frame| frame.subject).collect(),
            continued: own.continued.len(),
            begin: first.from,
            end,
            path,
            bars: parts.bars,
        })
    }
}

/// Whose frames.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The answer's.
    Answer,
    /// Acknowledgments of packets that did not complete the request.
    Earlier,
}

/// What a request is put together from.
struct Parts<'a> {
    layers: &'a Layers,
    claims: Vec<Claim>,
    bars: Vec<Bar>,
}

impl Parts<'_> {
    fn claim(&mut self, from: u64, to: u64, rank: Rank, layer: LayerId) {
        self.claims.push(Claim { from, to, rank, layer });
    }

    fn bar(&mut self, lane: Lane, layer: LayerId, (from, to): (u64, u64), depth: u8, subject: u64) {
        if from < to {
            self.bars.push(Bar { lane, layer, from, to, depth, subject });
        }
    }

    fn received(&mut self, packet: u64, work: &Work) {
        let Some(received) = work.received else { return };
        self.claim(received.from, received.to, Rank::Backend, LayerId::BACKEND_READ);
        self.bar(Lane::Backend, LayerId::BACKEND_READ, (received.from, received.to), 0, packet);
        let published = match received.published {
            Published::At(tsc) => tsc,
            Published::NotYet | Published::Unknown => received.to,
        };
        self.claim(received.to, published, Rank::Device, LayerId::RECEIVE);
        self.bar(Lane::Receive, LayerId::RECEIVE, (received.to, published), 0, packet);
        // A thread publishes while another is in the guest: it may have begun before the batch's last word.
        let taken = work.exclusive.first().map_or(work.first, |stretch| stretch.from);
        self.claim(published, taken, Rank::Derived, LayerId::WAIT_FOR_GUEST);
        self.bar(Lane::Receive, LayerId::WAIT_FOR_GUEST, (published, taken), 0, packet);
    }

    fn worked(&mut self, work: &Work) {
        for stretch in &work.exclusive {
            self.claim(stretch.from, stretch.to, Rank::Work, self.layers.of_span(stretch.site));
        }
        for span in &work.spans {
            let layer = self.layers.of_span(span.site);
            self.bar(Lane::Environment, layer, (span.from, span.to), span.depth, 0);
        }
    }

    fn disk(&mut self, work: &Work) {
        // Those that were asked for while the guest was at this packet.
        for request in &work.disk {
            let Some(times) = request.times else { continue };
            let next = work.exclusive.partition_point(|stretch| stretch.from < times.done);
            let resumed = work.exclusive.get(next).map_or(times.done, |stretch| stretch.from);
            self.disk_request(request.subject, request.queued, times, resumed);
        }
        // Those that it waited for.
        let asked: HashSet<_> = work.disk.iter().map(|request| request.subject).collect();
        for continued in &work.continued {
            let Why::Disk { subject, times: Some(times) } = continued.why else { continue };
            if asked.contains(&subject) {
                continue;
            }
            let before = work.exclusive.partition_point(|stretch| stretch.from < continued.tsc);
            let Some(last) = before.checked_sub(1).and_then(|last| work.exclusive.get(last)) else {
                continue;
            };
            self.disk_request(subject, last.to, times, continued.tsc);
        }
    }

    /// A disk request that was waited for from `since` until the guest went on.
    fn disk_request(&mut self, subject: u64, since: u64, times: DiskTimes, resumed: u64) {
        // It may have been another's before.
        let taken = times.taken.max(since);
        self.claim(since, taken, Rank::Queue, LayerId::WAIT_FOR_DISK);
        self.bar(Lane::Disk, LayerId::WAIT_FOR_DISK, (since, taken), 0, subject);
        self.claim(taken, times.done, Rank::Disk, LayerId::DISK);
        self.bar(Lane::Disk, LayerId::DISK, (taken, times.done), 0, subject);
        self.claim(times.done, resumed, Rank::Derived, LayerId::WAIT_FOR_GUEST);
    }

    fn sent(&mut self, work: &Work, whose: Whose) {
        for frame in &work.frames {
            let Some(sent) = frame.sent else { continue };
            if whose == Whose::Answer {
                self.claim(frame.queued, sent.taken, Rank::Queue, LayerId::WAIT_FOR_DEVICE);
                self.claim(sent.taken, sent.from, Rank::Device, LayerId::TRANSMIT);
                self.claim(sent.from, sent.to, Rank::Backend, LayerId::BACKEND_WRITE);
            }
            self.bar(Lane::Transmit, LayerId::WAIT_FOR_DEVICE, (frame.queued, sent.taken), 0, frame.subject);
            self.bar(Lane::Transmit, LayerId::TRANSMIT, (sent.taken, sent.from), 0, frame.subject);
            self.bar(Lane::Backend, LayerId::BACKEND_WRITE, (sent.from, sent.to), 0, frame.subject);
        }
    }
}

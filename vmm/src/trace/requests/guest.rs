//! What one environment of the guest did, packet by packet, from its records. The guest writes them as it likes: what does not fit
//! together is counted and left out.

use super::super::record::Record;
use super::super::stream::Header;
use super::device::{DiskTimes, Received, Sent};
use super::room::Share;
use abi::trace::{RECORD_COUNTER, RECORD_ENTER, RECORD_EVENT, RECORD_LEAVE, subject};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Spans, frames or disk requests of one packet that are kept at most.
const PARTS_MAX: usize = 20_000;
/// Spans in spans that are followed.
const DEPTH_MAX: usize = 64;

/// What a site of the image means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Counter: requests were answered.
    Requests,
    /// Event: a frame (subject) was queued for the packet (argument).
    FrameQueued,
    /// Event: a disk request (subject) for the packet (argument).
    DiskQueued,
    /// Event: the packet has data, behind another (argument) of its connection.
    Data,
    /// Event: work for the packet begins again.
    GoesOn,
    /// Event: the client has the answer.
    Acknowledged,
    /// Anything else.
    Other,
}

/// What the image's sites mean.
#[derive(Clone, Debug)]
pub(super) struct Meanings(Vec<Meaning>);

impl Meanings {
    pub(super) fn new(header: &Header) -> Self {
        let of_site = |site: &super::super::stream::Site| match (site.kind.as_str(), site.name.as_str()) {
            ("counter", "requests") => Meaning::Requests,
            ("event", "frame queued") => Meaning::FrameQueued,
            ("event", "disk request queued") => Meaning::DiskQueued,
            ("event", "data received") => Meaning::Data,
            ("event", "work goes on") => Meaning::GoesOn,
            ("event", "answer acknowledged") => Meaning::Acknowledged,
            _ => Meaning::Other,
        };
        Self(header.sites.iter().map(of_site).collect())
    }

    fn get(&self, site: u32) -> Meaning {
        let place = (site as usize).checked_sub(1);
        place.and_then(|place| self.0.get(place)).copied().unwrap_or(Meaning::Other)
    }

    /// Whether the image counts requests.
    pub(super) fn count_requests(&self) -> bool {
        self.0.contains(&Meaning::Requests)
    }

    /// Whether it says when an answer is acknowledged.
    pub(super) fn tell_acknowledged(&self) -> bool {
        self.0.contains(&Meaning::Acknowledged)
    }
}

/// A stretch of time in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) site: u32,
    pub(super) from: u64,
    pub(super) to: u64,
    /// How many spans of the same packet are around it.
    pub(super) depth: u8,
}

/// A frame of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameOut {
    pub(super) subject: u64,
    pub(super) queued: u64,
    pub(super) sent: Option<Sent>,
}

/// A disk request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiskRequest {
    pub(super) subject: u64,
    pub(super) queued: u64,
    pub(super) times: Option<DiskTimes>,
}

/// Work that began again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Continued {
    pub(super) tsc: u64,
    pub(super) why: Why,
}

/// Why it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Because of what the client sent.
    Client,
    /// This disk request was done, whoever had asked for it.
    Disk { subject: u64, times: Option<DiskTimes> },
    /// Nobody says.
    Unknown,
}

impl Why {
    fn of(cause: u64) -> Self {
        match subject::parts(cause).0 {
            subject::DISK => Self::Disk { subject: cause, times: None },
            _ if cause != 0 => Self::Client,
            _ => Self::Unknown,
        }
    }
}

/// The VMM's clock: the guest's own is not to be trusted with what is remembered for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Clock {
    /// The latest moment that a thread has written down.
    pub(super) tsc: u64,
    /// How often it has been looked for what is over. The clock may jump; what came before has been fed by the next look.
    pub(super) looks: u64,
}

/// What was done for one packet.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    /// Its way to the guest, once that is known.
    pub(super) received: Option<Received>,
    /// Where the time went, each moment once.
    pub(super) exclusive: Vec<Stretch>,
    /// Spans from beginning to end.
    pub(super) spans: Vec<Stretch>,
    /// Requests that were counted while it was worked on.
    pub(super) requests: u64,
    pub(super) frames: Vec<FrameOut>,
    pub(super) disk: Vec<DiskRequest>,
    /// It has data: the packet before it of the same connection, or 0.
    pub(super) data_behind: Option<u64>,
    /// When the client was known to have the answer.
    pub(super) acknowledged: Option<u64>,
    /// When it was worked on again.
    pub(super) continued: Vec<Continued>,
    pub(super) first: u64,
    pub(super) last: u64,
    /// When something was last heard of it.
    pub(super) heard: Clock,
    /// Not all of it is here.
    pub(super) cut: Option<Cut>,
}

/// Why not all of a packet's work is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It has more spans, frames or disk requests than are kept of one.
    TooLong,
    /// What is at work has taken all the room there is.
    NoRoom,
}

impl Work {
    /// Fills in what the devices have said meanwhile.
    pub(super) fn take(&mut self, packet: u64, devices: &super::device::Devices) {
        if self.received.is_none() {
            self.received = devices.received(packet);
        }
        for frame in self.frames.iter_mut().filter(|frame| frame.sent.is_none()) {
            frame.sent = devices.sent(frame.subject);
        }
        for request in self.disk.iter_mut().filter(|request| request.times.is_none()) {
            request.times = devices.disk(request.subject);
        }
        for continued in &mut self.continued {
            if let Why::Disk { subject, times } = &mut continued.why
                && times.is_none()
            {
                *times = devices.disk(*subject);
            }
        }
    }

    /// Spans, frames and disk requests.
    pub(super) fn parts(&self) -> usize {
        let Self { exclusive, spans, frames, disk, continued, .. } = self;
        exclusive.len() + spans.len() + frames.len() + disk.len() + continued.len()
    }

    /// What it takes of the [`super::room::Room`].
    fn bytes(&self) -> usize {
        let Self { exclusive, spans, frames, disk, continued, .. } = self;
        WORK_BYTES
            + (exclusive.capacity() + spans.capacity()) * size_of::<Stretch>()
            + frames.capacity() * size_of::<FrameOut>()
            + disk.capacity() * size_of::<DiskRequest>()
            + continued.capacity() * size_of::<Continued>()
    }

    /// Whether all that devices will say of it has been said.
    pub(super) fn is_whole(&self) -> bool {
        self.received.is_some_and(|received| received.is_whole())
            && self.frames.iter().all(|frame| frame.sent.is_some())
            && self.disk.iter().all(|request| request.times.is_some())
            && self.continued.iter().all(|continued| !matches!(continued.why, Why::Disk { times: None, .. }))
    }
}

/// A packet's work without its parts; a hash table is up to twice as large as what is in it.
const WORK_BYTES: usize = 2 * size_of::<(u64, Work)>();

fn push<T>(room: &mut Share<'_>, list: &mut Vec<T>, cut: &mut Option<Cut>, part: T) {
    if list.len() >= PARTS_MAX {
        cut.get_or_insert(Cut::TooLong);
    } else if !room.push(list, part) {
        cut.get_or_insert(Cut::NoRoom);
    }
}

/// Where an environment was after its last record.
#[derive(Clone, Copy, Debug)]
struct At {
    tsc: u64,
    site: u32,
    followed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    site: u32,
    from: u64,
    followed: u64,
}

/// One environment.
#[derive(Debug, Default)]
pub(super) struct Environment {
    at: Option<At>,
    open: Vec<Open>,
    pub(super) works: HashMap<u64, Work>,
    /// Records that cannot be.
    pub(super) garbled: u64,
    /// Packets for which there was no room.
    pub(super) crowded: u64,
}

impl Environment {
    /// Records are missing here.
    pub(super) fn gap(&mut self) {
        self.at = None;
        self.open.clear();
    }

    /// What all its packets' work takes of the [`super::room::Room`]; what is over has gone by then.
    pub(super) fn bytes(&mut self) -> usize {
        if self.works.capacity() > 1024.max(4 * self.works.len()) {
            self.works.shrink_to(2 * self.works.len());
        }
        self.works.values().map(Work::bytes).sum()
    }

    /// The next record. `now` is when it came.
    pub(super) fn record(&mut self, meanings: &Meanings, now: Clock, room: &mut Share<'_>, record: &Record) {
        let (site, kind, _) = record.parts();
        let meaning = match kind {
            RECORD_EVENT | RECORD_COUNTER => meanings.get(site),
            _ => Meaning::Other,
        };
        let before = self.at;
        let followed = match (kind, meaning) {
            (RECORD_ENTER | RECORD_LEAVE | RECORD_COUNTER, _) => record.subject,
            (RECORD_EVENT, Meaning::FrameQueued | Meaning::DiskQueued) => record.argument,
            (RECORD_EVENT, Meaning::Data | Meaning::GoesOn) => record.subject,
            // What it goes back to was perhaps never said.
            (RECORD_EVENT, Meaning::Acknowledged) => 0,
            _ => before.map_or(0, |at| at.followed),
        };
        let outer = record.argument as u32;
        let current = match kind {
            RECORD_ENTER => site,
            RECORD_LEAVE => outer,
            _ => before.map_or(0, |at| at.site),
        };
        if let Some(at) = before {
            // Where spans do not fit together something was not recorded: a sample leaves out what is not followed.
            let fits = match kind {
                RECORD_ENTER => at.site == outer,
                RECORD_LEAVE => at.site == site,
                _ => !matches!(meaning, Meaning::GoesOn | Meaning::Acknowledged),
            };
            if record.tsc < at.tsc {
                self.garbled += 1;
            } else if fits && at.followed == followed {
                self.worked(now, room, followed, at, record.tsc);
            }
        }
        match kind {
            RECORD_ENTER if self.open.len() < DEPTH_MAX => {
                self.open.push(Open { site, from: record.tsc, followed });
            }
            RECORD_LEAVE => self.leave(now, room, site, record.tsc),
            _ => {}
        }
        self.happened(now, room, meaning, followed, record);
        self.at = Some(At { tsc: record.tsc, site: current, followed });
    }

    /// The guest was in `at.site` until `to`, for the packet `followed`.
    fn worked(&mut self, now: Clock, room: &mut Share<'_>, followed: u64, at: At, to: u64) {
        let depth = self.open.iter().filter(|open| open.followed == followed).count().saturating_sub(1);
        let Some(work) = self.work(now, room, followed, at.tsc, to) else { return };
        match work.exclusive.last_mut() {
            Some(last) if last.site == at.site && last.to == at.tsc => last.to = to,
            _ if at.tsc == to => {}
            _ => {
                let stretch = Stretch { site: at.site, from: at.tsc, to, depth: depth as u8 };
                push(room, &mut work.exclusive, &mut work.cut, stretch);
            }
        }
    }

    fn leave(&mut self, now: Clock, room: &mut Share<'_>, site: u32, tsc: u64) {
        let Some(open) = self.open.pop() else { return };
        if open.site != site || open.from > tsc {
            self.open.clear();
            return;
        }
        let depth = self.open.iter().filter(|around| around.followed == open.followed).count() as u8;
        let Some(work) = self.work(now, room, open.followed, open.from, tsc) else { return };
        push(room, &mut work.spans, &mut work.cut, Stretch { site, from: open.from, to: tsc, depth });
    }

    fn happened(
        &mut self,
        now: Clock,
        room: &mut Share<'_>,
        meaning: Meaning,
        followed: u64,
        record: &Record,
    ) {
        let (tsc, argument) = (record.tsc, record.argument);
        if meaning == Meaning::Acknowledged {
            self.acknowledge(now, record.subject, tsc);
            return;
        }
        if meaning == Meaning::Other {
            return;
        }
        if meaning == Meaning::Data && argument != 0 {
            self.acknowledge(now, argument, tsc);
        }
        let Some(work) = self.work(now, room, followed, tsc, tsc) else { return };
        match meaning {
            Meaning::Requests => work.requests = work.requests.saturating_add(argument),
            Meaning::FrameQueued => {
                work.acknowledged = None;
                let frame = FrameOut { subject: record.subject, queued: tsc, sent: None };
                push(room, &mut work.frames, &mut work.cut, frame);
            }
            Meaning::DiskQueued => {
                let request = DiskRequest { subject: record.subject, queued: tsc, times: None };
                push(room, &mut work.disk, &mut work.cut, request);
            }
            Meaning::Data => work.data_behind = Some(argument),
            Meaning::GoesOn => {
                work.acknowledged = None;
                let continued = Continued { tsc, why: Why::of(argument) };
                push(room, &mut work.continued, &mut work.cut, continued);
            }
            Meaning::Acknowledged | Meaning::Other => {}
        }
    }

    fn acknowledge(&mut self, now: Clock, packet: u64, tsc: u64) {
        if let Some(work) = self.works.get_mut(&packet) {
            work.acknowledged.get_or_insert(tsc);
            work.heard = now;
        }
    }

    /// The work for a packet, to which something from `from` to `to` belongs. `None`: it is no packet, or there is no room.
    fn work(
        &mut self,
        now: Clock,
        room: &mut Share<'_>,
        packet: u64,
        from: u64,
        to: u64,
    ) -> Option<&mut Work> {
        if subject::parts(packet).0 != subject::RECEIVED {
            return None;
        }
        let work = match self.works.entry(packet) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) if room.take(WORK_BYTES) => {
                new.insert(Work { first: from, ..Work::default() })
            }
            Entry::Vacant(_) => {
                self.crowded += 1;
                return None;
            }
        };
        work.first = work.first.min(from);
        work.last = work.last.max(to);
        work.heard = now;
        Some(work)
    }
}

//! An environment of the guest: spans as nested slices, events, counters, and the arrows to and from the frames it works on. Its
//! records are the guest's own and are not believed.

use super::packets::Event;
use super::proto::{EventType, TrackEvent};
use super::{GUEST, Sink, is_plausible, number};
use crate::trace::record::Record;
use abi::trace::{RECORD_COUNTER, RECORD_ENTER, RECORD_EVENT, RECORD_LEAVE, subject};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{Result, Write};

/// Spans that may be open within each other; deeper ones are garbage.
const DEPTH_MAX: usize = 64;

/// What is known of it.
pub(super) struct Environment {
    sequence: u32,
    name: String,
    /// Made with its first record: most places never hold anybody.
    track: Option<u64>,
    counters: HashMap<u32, (u64, i64)>,
    /// Spans that are open, and what each works on; `None`: one that nobody wants to see.
    open: Vec<(Option<u32>, u64)>,
    last_tsc: u64,
}

impl Environment {
    pub(super) fn new(sequence: u32, name: String) -> Self {
        Self { sequence, name, track: None, counters: HashMap::new(), open: Vec::new(), last_tsc: 0 }
    }

    /// Writes records. How many made no sense.
    pub(super) fn push<W: Write>(
        &mut self,
        sink: &mut Sink<W>,
        sites: &[(String, String)],
        lost: u64,
        records: &[Record],
    ) -> Result<u64> {
        let track = match self.track {
            Some(track) => track,
            None => *self.track.insert(sink.thread_track(GUEST, self.sequence, &self.name)?),
        };
        if lost > 0 {
            let from_tsc = self.last_tsc;
            self.finish(sink)?;
            let first = records.iter().find(|record| is_plausible(sink, record, from_tsc));
            let to_tsc = first.map_or(from_tsc, |record| record.tsc);
            let from_tsc = if from_tsc == 0 { to_tsc } else { from_tsc };
            sink.lost(self.sequence, track, lost, from_tsc, to_tsc)?;
        }
        let mut garbage = 0;
        for record in records {
            let (site, kind, _) = record.parts();
            let named = site.checked_sub(1).and_then(|index| sites.get(index as usize));
            let is_sane =
                is_plausible(sink, record, self.last_tsc) && record.tsc <= crate::account::ledger::now_tsc();
            let Some((name, _)) = named.filter(|_| is_sane) else {
                garbage += 1;
                continue;
            };
            match kind {
                RECORD_ENTER if self.open.len() < DEPTH_MAX => self.enter(sink, track, record, site, name)?,
                RECORD_LEAVE => self.leave(sink, track, record)?,
                RECORD_EVENT => self.event(sink, track, record, name)?,
                RECORD_COUNTER => self.counter(sink, track, record, site, name)?,
                _ => {
                    garbage += 1;
                    continue;
                }
            }
            self.last_tsc = record.tsc;
        }
        Ok(garbage)
    }

    fn enter<W: Write>(
        &mut self,
        sink: &mut Sink<W>,
        track: u64,
        record: &Record,
        site: u32,
        name: &str,
    ) -> Result<()> {
        let around = self.open.last().map_or(0, |(_, followed)| *followed);
        // The first span for a frame gets the arrow; those within it belong to it anyhow.
        let begins = record.subject != 0 && record.subject != around;
        let wanted = sink.only.wants(name);
        self.open.push((wanted.then_some(site), record.subject));
        if !wanted {
            return Ok(());
        }
        let event = TrackEvent {
            flow_ids: if begins { vec![record.subject] } else { vec![] },
            debug_annotations: about(record.subject),
            ..TrackEvent::default()
        };
        sink.event(
            self.sequence,
            record.tsc,
            EventType::SliceBegin,
            Event { track, name, category: "guest", event },
        )
    }

    fn leave<W: Write>(&mut self, sink: &mut Sink<W>, track: u64, record: &Record) -> Result<()> {
        match self.open.pop() {
            Some((Some(_), _)) => sink.end(self.sequence, track, record.tsc),
            // One that was entered before the recording began, or that nobody wants to see.
            _ => Ok(()),
        }
    }

    fn event<W: Write>(&mut self, sink: &mut Sink<W>, track: u64, record: &Record, name: &str) -> Result<()> {
        if !sink.only.wants(name) {
            return Ok(());
        }
        let mut flow_ids = Vec::new();
        if subject::parts(record.subject).0 != 0 {
            flow_ids.push(record.subject);
        }
        // A frame that is sent for another.
        if subject::parts(record.argument).0 == subject::RECEIVED {
            flow_ids.push(record.argument);
        }
        let mut debug_annotations = about(record.subject);
        debug_annotations.push(number("argument", record.argument));
        let event = TrackEvent { flow_ids, debug_annotations, ..TrackEvent::default() };
        sink.event(
            self.sequence,
            record.tsc,
            EventType::Instant,
            Event { track, name, category: "guest", event },
        )
    }

    fn counter<W: Write>(
        &mut self,
        sink: &mut Sink<W>,
        parent: u64,
        record: &Record,
        site: u32,
        name: &str,
    ) -> Result<()> {
        if !sink.only.wants(name) {
            return Ok(());
        }
        let (track, sum) = match self.counters.entry(site) {
            Entry::Occupied(counter) => counter.into_mut(),
            Entry::Vacant(place) => place.insert((sink.counter_track(parent, name)?, 0)),
        };
        *sum = sum.wrapping_add(record.argument as i64);
        let event = TrackEvent { counter_value: Some(*sum), ..TrackEvent::default() };
        let event = Event { track: *track, event, ..Event::default() };
        sink.event(self.sequence, record.tsc, EventType::Counter, event)
    }

    /// Ends what is open.
    pub(super) fn finish<W: Write>(&mut self, sink: &mut Sink<W>) -> Result<()> {
        let Some(track) = self.track else { return Ok(()) };
        while let Some((site, _)) = self.open.pop() {
            if site.is_some() {
                sink.end(self.sequence, track, self.last_tsc)?;
            }
        }
        Ok(())
    }
}

/// What a record is about, for people.
fn about(of: u64) -> Vec<super::proto::DebugAnnotation> {
    let (kind, _, queue, n) = subject::parts(of);
    let what = match kind {
        subject::RECEIVED => "received frame",
        subject::SENT => "sent frame",
        subject::DISK => "disk request",
        _ => return Vec::new(),
    };
    vec![number(what, n), number("queue", u64::from(queue))]
}

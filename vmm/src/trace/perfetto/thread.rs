//! A thread of the VMM: its buckets as slices that follow each other, its own `tracing` spans within them, and frames and requests
//! on the tracks of their queues.

use super::packets::Event;
use super::proto::{EventType, TrackEvent};
use super::{Sink, VMM};
use crate::trace::record::{FIRST_NAME, Happening, Record};
use crate::trace::stream::Header;
use abi::trace::{RECORD_ENTER, RECORD_EVENT, RECORD_LEAVE};
use std::io::{Result, Write};

/// What is known of it.
pub(super) struct Thread {
    sequence: u32,
    track: u64,
    buckets: Vec<String>,
    names: Vec<String>,
    /// The bucket whose slice is open.
    open: Option<u32>,
    /// Spans that are open within it, and whether each has a slice.
    spans: Vec<bool>,
    last_tsc: u64,
}

impl Thread {
    pub(super) fn new(sequence: u32, track: u64, header: &Header) -> Self {
        let buckets = header.buckets.clone();
        Self {
            sequence,
            track,
            buckets,
            names: Vec::new(),
            open: None,
            spans: Vec::new(),
            last_tsc: header.tsc,
        }
    }

    /// Further names.
    pub(super) fn name(&mut self, names: &[String]) {
        self.names.extend_from_slice(names);
    }

    pub(super) fn push<W: Write>(&mut self, sink: &mut Sink<W>, lost: u64, records: &[Record]) -> Result<()> {
        if lost > 0 {
            let from_tsc = self.last_tsc;
            self.finish(sink)?;
            let to_tsc = records.first().map_or(from_tsc, |record| record.tsc);
            sink.lost(self.sequence, self.track, lost, from_tsc, to_tsc)?;
        }
        for record in records {
            let (site, kind, _) = record.parts();
            match kind {
                RECORD_ENTER if site < FIRST_NAME => self.bucket(sink, record.tsc, site)?,
                RECORD_ENTER => self.span(sink, record.tsc, site)?,
                RECORD_LEAVE => {
                    if self.spans.pop() == Some(true) {
                        sink.end(self.sequence, self.track, record.tsc)?;
                    }
                }
                RECORD_EVENT if site < FIRST_NAME => self.happened(sink, record, site)?,
                _ => self.message(sink, record.tsc, site)?,
            }
            self.last_tsc = self.last_tsc.max(record.tsc);
        }
        Ok(())
    }

    /// A bucket ends the one before it.
    fn bucket<W: Write>(&mut self, sink: &mut Sink<W>, tsc: u64, bucket: u32) -> Result<()> {
        if self.open == Some(bucket) || self.spans.contains(&true) {
            // Within a span the buckets go on below it, and slices that cross cannot be drawn.
            return Ok(());
        }
        self.close(sink, tsc)?;
        let name = self.buckets.get(bucket as usize).map_or("?", String::as_str);
        if sink.only.wants(name) {
            self.open = Some(bucket);
            let event = Event { track: self.track, name, category: "vmm", event: TrackEvent::default() };
            sink.event(self.sequence, tsc, EventType::SliceBegin, event)?;
        }
        Ok(())
    }

    fn span<W: Write>(&mut self, sink: &mut Sink<W>, tsc: u64, site: u32) -> Result<()> {
        let name = self.names.get((site - FIRST_NAME) as usize).map_or("?", String::as_str);
        let wanted = sink.only.wants(name);
        self.spans.push(wanted);
        if !wanted {
            return Ok(());
        }
        let event = Event { track: self.track, name, category: "vmm", event: TrackEvent::default() };
        sink.event(self.sequence, tsc, EventType::SliceBegin, event)
    }

    fn message<W: Write>(&mut self, sink: &mut Sink<W>, tsc: u64, site: u32) -> Result<()> {
        let name = self.names.get(site.saturating_sub(FIRST_NAME) as usize).map_or("?", String::as_str);
        if !sink.only.wants(name) {
            return Ok(());
        }
        let event = Event { track: self.track, name, category: "vmm", event: TrackEvent::default() };
        sink.event(self.sequence, tsc, EventType::Instant, event)
    }

    /// Something that happened to a frame or a request goes to its queue's track.
    fn happened<W: Write>(&mut self, sink: &mut Sink<W>, record: &Record, site: u32) -> Result<()> {
        let Some(what) = Happening::ALL.into_iter().find(|what| *what as u32 == site) else { return Ok(()) };
        if !sink.only.wants(what.name()) {
            return Ok(());
        }
        let parent = sink.process[VMM];
        // Writers of a queue's track may be several threads; one after the other holds the device.
        let (sequence, track) = super::queues::lane(sink, parent, record)?;
        let ends = what == Happening::Sent;
        let flow = vec![record.subject];
        let (flow_ids, terminating_flow_ids) = if ends { (vec![], flow) } else { (flow, vec![]) };
        let number = record.subject & ((1 << 48) - 1);
        let event = TrackEvent {
            flow_ids,
            terminating_flow_ids,
            debug_annotations: vec![super::number("number", number)],
            ..TrackEvent::default()
        };
        let event = Event { track, name: what.name(), category: "device", event };
        sink.event(sequence, record.argument.min(record.tsc), EventType::SliceBegin, event)?;
        sink.end(sequence, track, record.tsc)
    }

    fn close<W: Write>(&mut self, sink: &mut Sink<W>, tsc: u64) -> Result<()> {
        if self.open.take().is_some() {
            sink.end(self.sequence, self.track, tsc)?;
        }
        Ok(())
    }

    /// Ends what is open.
    pub(super) fn finish<W: Write>(&mut self, sink: &mut Sink<W>) -> Result<()> {
        while let Some(has_slice) = self.spans.pop() {
            if has_slice {
                sink.end(self.sequence, self.track, self.last_tsc)?;
            }
        }
        self.close(sink, self.last_tsc)
    }
}

//! What KVM says of a thread: exits as slices, what happened within them as slices and moments, all on a track of its own.

use super::packets::Event;
use super::proto::{DebugAnnotation, EventType, TrackEvent};
use super::{Sink, VMM, number};
use crate::trace::record::Record;
use abi::trace::{RECORD_ENTER, RECORD_LEAVE};
use std::io::{Result, Write};

/// What is known of it.
pub(super) struct Kvm {
    sequence: u32,
    name: String,
    /// Made with its first record.
    track: Option<u64>,
    /// An exit is under way; whether it has a slice.
    open: Option<bool>,
    last_tsc: u64,
}

impl Kvm {
    pub(super) fn new(sequence: u32, thread: &str) -> Self {
        Self { sequence, name: format!("KVM, {thread}"), track: None, open: None, last_tsc: 0 }
    }

    /// Writes records. How many of them were exits by the processor's reasons.
    pub(super) fn push<W: Write>(
        &mut self,
        sink: &mut Sink<W>,
        names: &[String],
        lost: u64,
        records: &[Record],
    ) -> Result<u64> {
        let track = match self.track {
            Some(track) => track,
            None => *self.track.insert(sink.named_track(sink.process[VMM], &self.name)?),
        };
        if lost > 0 {
            self.finish(sink)?;
            let to_tsc = records.first().map_or(self.last_tsc, begin);
            let from_tsc = if self.last_tsc == 0 { to_tsc } else { self.last_tsc };
            sink.lost(self.sequence, track, lost, from_tsc, to_tsc)?;
        }
        let mut exits = 0;
        for record in records {
            let (site, kind, times) = record.parts();
            let name = names.get(site as usize).map_or("?", String::as_str);
            match kind {
                RECORD_ENTER => {
                    exits += 1;
                    self.finish(sink)?;
                    let wanted = self.wants(sink, name);
                    self.open = Some(wanted);
                    if wanted {
                        let about =
                            vec![address("guest address", record.subject), number("reason", record.argument)];
                        self.event(sink, record.tsc, EventType::SliceBegin, name, about)?;
                    }
                }
                RECORD_LEAVE => {
                    if self.open.take() == Some(true) {
                        sink.end(self.sequence, track, record.tsc)?;
                    }
                }
                _ if !self.wants(sink, name) => {}
                _ if record.argument >= record.tsc => {
                    let about = vec![address("value", record.subject)];
                    self.event(sink, record.tsc, EventType::Instant, name, about)?;
                }
                _ => {
                    let mut about = vec![number("times", u64::from(times))];
                    if record.subject != 0 {
                        about.push(address("from guest address", record.subject));
                    }
                    self.event(sink, record.argument, EventType::SliceBegin, name, about)?;
                    sink.end(self.sequence, track, record.tsc)?;
                }
            }
            self.last_tsc = record.tsc;
        }
        Ok(exits)
    }

    /// By its own name or by that of the track.
    fn wants<W>(&self, sink: &Sink<W>, name: &str) -> bool {
        sink.only.wants(name) || sink.only.wants(&self.name)
    }

    fn event<W: Write>(
        &self,
        sink: &mut Sink<W>,
        tsc: u64,
        kind: EventType,
        name: &str,
        about: Vec<DebugAnnotation>,
    ) -> Result<()> {
        let Some(track) = self.track else { return Ok(()) };
        let event = TrackEvent { debug_annotations: about, ..TrackEvent::default() };
        sink.event(self.sequence, tsc, kind, Event { track, name, category: "kvm", event })
    }

    /// Ends what is open.
    pub(super) fn finish<W: Write>(&mut self, sink: &mut Sink<W>) -> Result<()> {
        match (self.track, self.open.take()) {
            (Some(track), Some(true)) => sink.end(self.sequence, track, self.last_tsc),
            _ => Ok(()),
        }
    }
}

/// When what a record tells began.
fn begin(record: &Record) -> u64 {
    match record.parts().1 {
        RECORD_ENTER | RECORD_LEAVE => record.tsc,
        _ => record.argument.min(record.tsc),
    }
}

/// A number as people write addresses.
fn address(name: &str, value: u64) -> DebugAnnotation {
    DebugAnnotation {
        name: Some(name.to_owned()),
        uint_value: None,
        string_value: Some(format!("{value:#x}")),
    }
}

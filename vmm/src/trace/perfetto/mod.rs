//! A trace as a file for ui.perfetto.dev: written while it is recorded, packet by packet.
//!
//! | track | what is on it |
//! | --- | --- |
//! | a thread of the VMM ("vcpu", "io", "disk 1.0") | the buckets of its ledger, one after the other |
//! | an environment | its spans, nested, and its events; below it its counters |
//! | a queue of a device | a slice for each frame or request that the device worked on |
//! | what KVM does on a thread ("KVM, vcpu") | its exits and what it did in them, where the host tells |
//!
//! An arrow (a flow) leads from a received frame to what the guest did for it, and from there to the frames that answer it. Records that
//! were lost are a slice of their own on the track from which they are missing, and everything that was open there ends at it.
//! What the guest says is not believed: records out of order or from another time are dropped and counted.

mod environment;
mod kvm;
mod packets;
mod proto;
mod queues;
mod thread;

use super::record::Record;
use super::stream::{Header, Piece, Source};
use environment::Environment;
use kvm::Kvm;
use packets::{Event, Packets, Sequence};
use proto::{
    BOOTTIME, Clock, ClockSnapshot, CounterDescriptor, EventType, ProcessDescriptor, REALTIME,
    ThreadDescriptor, TracePacket, TrackDescriptor, TrackEvent,
};
use queues::Queues;
use std::collections::HashMap;
use std::io::Write;
use thread::Thread;

/// Name of the slice where records are missing.
const LOST: &str = "records lost";
/// Records from before the recording began, by so many ticks, are garbage.
const EARLIEST_MS: u64 = 1_000;

/// Which records are wanted, by parts of their names; none: all.
#[derive(Clone, Debug, Default)]
pub struct Only(Vec<String>);

impl Only {
    /// Names that have one of these words in them, in any case.
    pub fn new(words: &[String]) -> Self {
        Self(words.iter().map(|word| word.to_lowercase()).collect())
    }

    fn wants(&self, name: &str) -> bool {
        self.0.is_empty() || {
            let name = name.to_lowercase();
            self.0.iter().any(|word| name.contains(word))
        }
    }
}

/// What became of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Written, or passed over because nobody wanted them.
    pub records: u64,
    /// Lost before they got here.
    pub lost: u64,
    /// Dropped: they made no sense.
    pub garbage: u64,
    /// Of the records, those that KVM's tracepoints gave.
    pub kvm: u64,
    /// Of these, exits by the processor's reasons.
    pub kvm_exits: u64,
}

/// Writes a file.
pub struct Exporter<W> {
    sink: Sink<W>,
    sources: Vec<Of>,
    sites: Vec<(String, String)>,
    kvm_names: Vec<String>,
    exported: Exported,
}

/// What a source's records become.
enum Of {
    Thread(Thread),
    Environment(Environment),
    Kvm(Kvm),
}

/// Where events go.
struct Sink<W> {
    packets: Packets<W>,
    time: Time,
    only: Only,
    queues: Queues,
    sequences: HashMap<u32, Sequence>,
    /// Tracks made so far.
    tracks: u64,
    process: [u64; 2],
    earliest_tsc: u64,
}

/// The TSC in nanoseconds since the epoch.
#[derive(Clone, Copy, Debug)]
struct Time {
    tsc: u64,
    utc_ns: u64,
    tsc_khz: u64,
}

impl Time {
    fn ns(self, tsc: u64) -> u64 {
        let ticks = i128::from(tsc) - i128::from(self.tsc);
        (i128::from(self.utc_ns) + ticks * 1_000_000 / i128::from(self.tsc_khz.max(1))).max(0) as u64
    }
}

/// Processes of the picture: the VMM with the devices it plays, and the guest.
const VMM: usize = 0;
const GUEST: usize = 1;

impl<W: Write> Exporter<W> {
    /// Begins a file.
    pub fn new(out: W, header: &Header, only: Only) -> std::io::Result<Self> {
        let time = Time { tsc: header.tsc, utc_ns: header.utc_us * 1000, tsc_khz: header.tsc_khz };
        let mut sink = Sink {
            packets: Packets::new(out),
            time,
            only,
            queues: Queues::default(),
            sequences: HashMap::new(),
            tracks: 0,
            process: [0; 2],
            earliest_tsc: header.tsc.saturating_sub(header.tsc_khz * EARLIEST_MS),
        };
        sink.begin(header)?;
        let mut sources = Vec::new();
        for (number, source) in (1u32..).zip(&header.sources) {
            sources.push(match source {
                Source::Thread { name } => {
                    let track = sink.thread_track(VMM, number, name)?;
                    Of::Thread(Thread::new(number, track, header))
                }
                Source::Environment { number: environment } => {
                    let name = format!("environment {environment}");
                    Of::Environment(Environment::new(number, name))
                }
                Source::Kvm { thread } => Of::Kvm(Kvm::new(number, thread)),
            });
        }
        let sites = header.sites.iter().map(|site| (site.name.clone(), site.kind.clone())).collect();
        let kvm_names = header.kvm.names.clone();
        Ok(Self { sink, sources, sites, kvm_names, exported: Exported::default() })
    }

    /// Writes what a piece holds.
    pub fn push(&mut self, piece: &Piece) -> std::io::Result<()> {
        match piece {
            Piece::Records { source, lost, records } => {
                self.exported.lost = self.exported.lost.saturating_add(*lost);
                self.exported.records += records.len() as u64;
                let Some(of) = self.sources.get_mut(usize::from(*source)) else { return Ok(()) };
                match of {
                    Of::Thread(thread) => thread.push(&mut self.sink, *lost, records),
                    Of::Environment(environment) => {
                        let garbage = environment.push(&mut self.sink, &self.sites, *lost, records)?;
                        self.exported.records -= garbage;
                        self.exported.garbage += garbage;
                        Ok(())
                    }
                    Of::Kvm(kvm) => {
                        self.exported.kvm += records.len() as u64;
                        self.exported.kvm_exits +=
                            kvm.push(&mut self.sink, &self.kvm_names, *lost, records)?;
                        Ok(())
                    }
                }
            }
            Piece::Names(names) => {
                for of in &mut self.sources {
                    if let Of::Thread(thread) = of {
                        thread.name(names);
                    }
                }
                Ok(())
            }
            Piece::End(_) => Ok(()),
        }
    }

    /// Ends what is open, and the file. Gives how much of the file is whole in any case.
    pub fn finish(mut self) -> (std::io::Result<Exported>, u64) {
        let result = self.end();
        (result.map(|()| self.exported), self.whole_bytes())
    }

    fn end(&mut self) -> std::io::Result<()> {
        for of in &mut self.sources {
            match of {
                Of::Thread(thread) => thread.finish(&mut self.sink)?,
                Of::Environment(environment) => environment.finish(&mut self.sink)?,
                Of::Kvm(kvm) => kvm.finish(&mut self.sink)?,
            }
        }
        self.sink.packets.flush()
    }

    /// How much of the file is whole, after an error.
    pub fn whole_bytes(&self) -> u64 {
        self.sink.packets.whole_bytes()
    }
}

impl<W: Write> Sink<W> {
    fn begin(&mut self, header: &Header) -> std::io::Result<()> {
        let now = Some(self.time.utc_ns);
        let clock = |id| Clock { clock_id: Some(id), timestamp: now };
        let clocks = vec![clock(BOOTTIME), clock(REALTIME)];
        self.packets.push(TracePacket {
            timestamp: now,
            trusted_packet_sequence_id: Some(u32::MAX),
            clock_snapshot: Some(ClockSnapshot { clocks }),
            ..TracePacket::default()
        })?;
        let name = if header.machine.is_empty() { &header.image } else { &header.machine };
        for (process, what) in [(VMM, "VMM"), (GUEST, "guest")] {
            let descriptor = ProcessDescriptor {
                pid: Some(process as i32 + 1),
                process_name: Some(format!("{name}: {what}")),
            };
            self.process[process] =
                self.track(TrackDescriptor { process: Some(descriptor), ..TrackDescriptor::default() })?;
        }
        Ok(())
    }

    /// Makes a track.
    fn track(&mut self, descriptor: TrackDescriptor) -> std::io::Result<u64> {
        self.tracks += 1;
        let uuid = self.tracks;
        self.packets.push(TracePacket {
            trusted_packet_sequence_id: Some(u32::MAX),
            track_descriptor: Some(TrackDescriptor { uuid: Some(uuid), ..descriptor }),
            ..TracePacket::default()
        })?;
        Ok(uuid)
    }

    /// A thread's.
    fn thread_track(&mut self, process: usize, number: u32, name: &str) -> std::io::Result<u64> {
        let thread = ThreadDescriptor {
            pid: Some(process as i32 + 1),
            tid: Some(100 + number as i32),
            thread_name: Some(name.to_owned()),
        };
        let parent_uuid = Some(self.process[process]);
        self.track(TrackDescriptor { thread: Some(thread), parent_uuid, ..TrackDescriptor::default() })
    }

    /// One below another, or below a process.
    fn named_track(&mut self, parent: u64, name: &str) -> std::io::Result<u64> {
        let (name, parent_uuid) = (Some(name.to_owned()), Some(parent));
        self.track(TrackDescriptor { name, parent_uuid, ..TrackDescriptor::default() })
    }

    fn counter_track(&mut self, parent: u64, name: &str) -> std::io::Result<u64> {
        let (name, parent_uuid, counter) = (Some(name.to_owned()), Some(parent), Some(CounterDescriptor {}));
        self.track(TrackDescriptor { name, parent_uuid, counter, ..TrackDescriptor::default() })
    }

    fn event(&mut self, sequence: u32, tsc: u64, kind: EventType, event: Event<'_>) -> std::io::Result<()> {
        let timestamp = self.time.ns(tsc);
        let sequence = self.sequences.entry(sequence).or_insert_with(|| Sequence::new(sequence));
        let packet = sequence.packet(timestamp, kind, event);
        self.packets.push(packet)
    }

    fn end(&mut self, sequence: u32, track: u64, tsc: u64) -> std::io::Result<()> {
        self.event(sequence, tsc, EventType::SliceEnd, Event { track, ..Event::default() })
    }

    /// A slice where records are missing.
    fn lost(
        &mut self,
        sequence: u32,
        track: u64,
        lost: u64,
        from_tsc: u64,
        to_tsc: u64,
    ) -> std::io::Result<()> {
        let event = TrackEvent { debug_annotations: vec![number("records", lost)], ..TrackEvent::default() };
        self.event(
            sequence,
            from_tsc,
            EventType::SliceBegin,
            Event { track, name: LOST, category: "lost", event },
        )?;
        self.end(sequence, track, to_tsc.max(from_tsc))
    }
}

/// A number that is shown with an event.
fn number(name: &str, value: u64) -> proto::DebugAnnotation {
    proto::DebugAnnotation { name: Some(name.to_owned()), uint_value: Some(value), string_value: None }
}

/// A record's time, if it can be one.
fn is_plausible<W>(sink: &Sink<W>, record: &Record, last_tsc: u64) -> bool {
    record.tsc >= last_tsc.max(sink.earliest_tsc)
}

#[cfg(test)]
mod tests;

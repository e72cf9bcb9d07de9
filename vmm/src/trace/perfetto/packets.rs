//! Packets into a file, whole ones only: whatever happens to the disk, what lies there can be read up to that point.

use super::proto::{
    EventType, Interned, InternedData, NEEDS_STATE, STATE_CLEARED, Trace, TracePacket, TrackEvent,
};
use prost::Message;
use std::collections::HashMap;
use std::io::{ErrorKind, Write};

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// The file.
pub(super) struct Packets<W> {
    out: W,
    buffer: Vec<u8>,
    /// Where in the buffer each packet ends.
    ends: Vec<usize>,
    /// Bytes of whole packets that the file has taken.
    whole_bytes: u64,
}

impl<W: Write> Packets<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, buffer: Vec::with_capacity(BUFFER_BYTES + 4096), ends: Vec::new(), whole_bytes: 0 }
    }

    pub(super) fn push(&mut self, packet: TracePacket) -> std::io::Result<()> {
        // Cannot fail: a vector grows.
        let _ = Trace { packet: vec![packet] }.encode(&mut self.buffer);
        self.ends.push(self.buffer.len());
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        let mut written = 0;
        let result = loop {
            match self.out.write(&self.buffer[written..]) {
                _ if written == self.buffer.len() => break self.out.flush(),
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(len) => written += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.whole_bytes += self.ends.iter().rev().find(|&&end| end <= written).copied().unwrap_or(0) as u64;
        self.buffer.clear();
        self.ends.clear();
        result
    }

    /// How much of the file is whole packets.
    pub(super) fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }
}

/// Names that a sequence of packets has said already: later ones say a number.
#[derive(Debug)]
pub(super) struct Sequence {
    id: u32,
    begun: bool,
    names: HashMap<String, u64>,
    categories: HashMap<&'static str, u64>,
}

/// What an event is about, besides its time.
#[derive(Clone, Debug, Default)]
pub(super) struct Event<'a> {
    pub(super) track: u64,
    pub(super) name: &'a str,
    pub(super) category: &'static str,
    pub(super) event: TrackEvent,
}

impl Sequence {
    pub(super) fn new(id: u32) -> Self {
        Self { id, begun: false, names: HashMap::new(), categories: HashMap::new() }
    }

    /// The packet for an event; ends and counters have no name.
    pub(super) fn packet(&mut self, timestamp: u64, kind: EventType, event: Event<'_>) -> TracePacket {
        let mut interned = InternedData::default();
        let Event { track, name, category, mut event } = event;
        event.track_uuid = Some(track);
        event.r#type = Some(kind as i32);
        if !name.is_empty() {
            let next = self.names.len() as u64 + 1;
            let number = *self.names.entry(name.to_owned()).or_insert_with(|| {
                interned.event_names.push(Interned { iid: Some(next), name: Some(name.to_owned()) });
                next
            });
            event.name_iid = Some(number);
        }
        if !category.is_empty() {
            let next = self.categories.len() as u64 + 1;
            let number = *self.categories.entry(category).or_insert_with(|| {
                interned.event_categories.push(Interned { iid: Some(next), name: Some(category.to_owned()) });
                next
            });
            event.category_iids.push(number);
        }
        let flags =
            if std::mem::replace(&mut self.begun, true) { NEEDS_STATE } else { STATE_CLEARED | NEEDS_STATE };
        let is_news = !interned.event_names.is_empty() || !interned.event_categories.is_empty();
        TracePacket {
            timestamp: Some(timestamp),
            trusted_packet_sequence_id: Some(self.id),
            sequence_flags: Some(flags),
            interned_data: is_news.then_some(interned),
            track_event: Some(event),
            ..TracePacket::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_said_once_a_sequence() {
        let mut sequence = Sequence::new(3);
        let mut said = |name| {
            let event = Event { track: 1, name, category: "vmm", event: TrackEvent::default() };
            let packet = sequence.packet(5, EventType::SliceBegin, event);
            let names = packet.interned_data.map(|data| data.event_names.len()).unwrap_or(0);
            (packet.sequence_flags, packet.track_event.and_then(|event| event.name_iid), names)
        };
        assert_eq!(said("a"), (Some(STATE_CLEARED | NEEDS_STATE), Some(1), 1));
        assert_eq!(said("b"), (Some(NEEDS_STATE), Some(2), 1));
        assert_eq!(said("a"), (Some(NEEDS_STATE), Some(1), 0));
        assert_eq!(said(""), (Some(NEEDS_STATE), None, 0));
    }

    /// Takes so many bytes.
    struct Small(usize);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let len = bytes.len().min(self.0);
            self.0 -= len;
            if len == 0 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(len) }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn full_disk_leaves_whole_packets_known() {
        let packet = || {
            let event = Event { track: 1, name: "a", category: "", event: TrackEvent::default() };
            Sequence::new(1).packet(5, EventType::Instant, event)
        };
        let bytes = Trace { packet: vec![packet()] }.encoded_len();
        for room in [0, bytes - 1, bytes, 10 * bytes + 3, BUFFER_BYTES + 17] {
            let mut packets = Packets::new(Small(room));
            while packets.push(packet()).is_ok() {}
            assert_eq!(packets.whole_bytes() as usize, room / bytes * bytes, "room for {room}");
        }
    }
}

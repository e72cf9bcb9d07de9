//! Tracks of the devices' queues. Slices of one track must not cross, and a disk works on several requests at once: a queue has as
//! many tracks of the same name as it needs.

use super::Sink;
use crate::trace::record::Record;
use abi::trace::subject;
use std::collections::BTreeMap;
use std::io::{Result, Write};

/// First number of a sequence of packets for queues.
const FIRST_SEQUENCE: u32 = 10_000;

/// The tracks made so far, by kind of subject, device and queue.
#[derive(Debug, Default)]
pub(super) struct Queues {
    lanes: BTreeMap<(u8, u32, u32), Vec<Lane>>,
    sequences: u32,
}

#[derive(Debug)]
struct Lane {
    track: u64,
    sequence: u32,
    /// When its last slice ended.
    until_tsc: u64,
}

/// The sequence and the track on which a slice from the record's argument to its time crosses nothing.
pub(super) fn lane<W: Write>(sink: &mut Sink<W>, parent: u64, record: &Record) -> Result<(u32, u64)> {
    let (kind, device, queue, _) = subject::parts(record.subject);
    let key = (kind, device, queue);
    let from_tsc = record.argument.min(record.tsc);
    let lanes = sink.queues.lanes.entry(key).or_default();
    if let Some(lane) = lanes.iter_mut().find(|lane| lane.until_tsc <= from_tsc) {
        lane.until_tsc = record.tsc;
        return Ok((lane.sequence, lane.track));
    }
    let name = match kind {
        subject::RECEIVED => format!("NIC {device} receive queue {queue}"),
        subject::SENT => format!("NIC {device} transmit queue {queue}"),
        _ => format!("disk {device} queue {queue}"),
    };
    let track = sink.named_track(parent, &name)?;
    let sequence = FIRST_SEQUENCE + sink.queues.sequences;
    sink.queues.sequences += 1;
    let lane = Lane { track, sequence, until_tsc: record.tsc };
    sink.queues.lanes.entry(key).or_default().push(lane);
    Ok((sequence, track))
}

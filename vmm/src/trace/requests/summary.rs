//! All requests together.

use super::distribution::Distribution;
use super::layers::Layers;
use super::request::{Incomplete, Request};
use serde::Serialize;

/// Requests that are not among the complete ones, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Incompletes {
    /// They were there before the recording.
    pub begun_before: u64,
    /// They had not ended, or the answer was not acknowledged, when the recording ended.
    pub under_way: u64,
    /// Records are missing while they were under way.
    pub lost_records: u64,
    /// Nothing was sent for their packet.
    pub unanswered: u64,
    /// The client never acknowledged all of the answer.
    pub unacknowledged: u64,
    /// They have more frames or spans than are kept.
    pub too_long: u64,
    /// Too much was under way at once to keep all of it.
    pub no_room: u64,
}

impl Incompletes {
    /// All of them.
    pub fn sum(&self) -> u64 {
        let Self { begun_before, under_way, lost_records, unanswered, unacknowledged, too_long, no_room } =
            *self;
        begun_before + under_way + lost_records + unanswered + unacknowledged + too_long + no_room
    }
}

/// What a layer had of all requests.
#[derive(Clone, Debug, Default)]
pub struct LayerSum {
    /// Cycles a request; those without any are not in it.
    pub cycles: Distribution,
    /// Sum of the moments at which it was first reached, from each request's beginning on.
    pub(super) first_sum: u128,
}

/// Counts and distributions.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The layers.
    pub layers: Layers,
    /// By layer.
    pub by_layer: Vec<LayerSum>,
    /// End to end.
    pub end_to_end: Distribution,
    /// The same without the client's part.
    pub here: Distribution,
    /// Requests of which everything is known. Several in one packet count as one here.
    pub complete: u64,
    /// What the guest counted for those: several may be in one packet.
    pub counted: u64,
    /// Packets with more than one request.
    pub several_in_packet: u64,
    /// Requests in more than one packet.
    pub in_several_packets: u64,
    /// Answers of more than one frame.
    pub in_several_frames: u64,
    /// Requests with which the guest went on later, after a disk read or an acknowledgment.
    pub continued: u64,
    /// Not among the complete ones.
    pub incomplete: Incompletes,
    /// Records that are missing.
    pub lost_records: u64,
    /// Records whose times go backwards.
    pub strange_records: u64,
    /// Records of packets for which there was no room: too many at once.
    pub crowded: u64,
    /// Whether the image counts requests at all.
    pub counts_requests: bool,
}

impl Summary {
    pub(super) fn new(layers: Layers) -> Self {
        Self {
            by_layer: vec![LayerSum::default(); layers.all().len()],
            layers,
            end_to_end: Distribution::default(),
            here: Distribution::default(),
            complete: 0,
            counted: 0,
            several_in_packet: 0,
            in_several_packets: 0,
            in_several_frames: 0,
            continued: 0,
            incomplete: Incompletes::default(),
            lost_records: 0,
            strange_records: 0,
            crowded: 0,
            counts_requests: false,
        }
    }

    pub(super) fn add(&mut self, request: &Request) {
        self.complete += 1;
        self.counted = self.counted.saturating_add(request.requests);
        self.several_in_packet += u64::from(request.requests > 1);
        self.in_several_packets += u64::from(request.packets.len() > 1);
        self.in_several_frames += u64::from(request.frames.len() > 1);
        self.continued += u64::from(request.continued > 0);
        self.end_to_end.add(request.cycles());
        self.here.add(request.cycles_here(&self.layers));
        for share in request.shares() {
            let Some(sum) = self.by_layer.get_mut(share.layer.index()) else { continue };
            sum.cycles.add(share.cycles);
            sum.first_sum += u128::from(share.first);
        }
    }

    pub(super) fn incomplete(&mut self, why: Incomplete) {
        let count = match why {
            Incomplete::Beginning => &mut self.incomplete.begun_before,
            Incomplete::UnderWay => &mut self.incomplete.under_way,
            Incomplete::Lost => &mut self.incomplete.lost_records,
            Incomplete::Unanswered => &mut self.incomplete.unanswered,
            Incomplete::Unacknowledged => &mut self.incomplete.unacknowledged,
            Incomplete::TooLong => &mut self.incomplete.too_long,
            Incomplete::NoRoom => &mut self.incomplete.no_room,
        };
        *count += 1;
    }
}

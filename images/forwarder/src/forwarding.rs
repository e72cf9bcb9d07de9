//! The forwarder as the event loop's tenant: frames from the NIC to the forwarder and back to the NIC, whatever their size without a
//! copy of their data. It is sent from the buffer that it was received in; that buffer goes back to the device when the frame is out.

use crate::statistics;
use abi::statistics::StatisticsArea;
use core::time::Duration;
use exos_event_loop::{Devices, Moment, TRANSMIT_SIZE, Tenant};
use exos_forward::{Forwarder, HEAD_BYTES, Meta, Offload, Outgoing, REQUEST_BYTES, Reason, Verdict, Version};
use exos_net::Instant;
use exos_nic::{Checksum, ChecksumAt, Frame, Kept, Piece, SLOT_BYTES, SegmentKind, TransmitQueue};
use exos_virtqueue::guest::GuestHal;

/// Data of so many bytes goes into the transmit queue's slot, with one descriptor for all of the frame.
const COPY_BYTES_MAX: usize = SLOT_BYTES - exos_nic::header::HEADER_BYTES - HEAD_BYTES;

/// A forwarder, and what the NIC made of its frames.
pub(crate) struct Forwarding {
    forwarder: Forwarder,
    listen: u16,
    /// Frames that were not sent because the NIC did not take them.
    refused: u64,
}

impl Forwarding {
    pub(crate) fn new(forwarder: Forwarder, listen: u16) -> Self {
        Self { forwarder, listen, refused: 0 }
    }

    pub(crate) fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }
}

impl Tenant for Forwarding {
    type Held = Option<Kept>;

    const QUEUES: exos_nic::Config =
        exos_nic::Config { transmit_size: TRANSMIT_SIZE, ..exos_nic::Config::bulk() };

    const FRAME_DESCRIPTORS: usize = 2;

    /// Each may hold a receive buffer, of which there are 128.
    const PENDING_MAX: usize = 64;

    fn console(&self) -> Option<&'static str> {
        Some("forwarder")
    }

    fn port(&self) -> Option<u16> {
        Some(self.listen)
    }

    #[inline]
    fn input(&mut self, frame: &Frame<'_>, at: Moment, devices: &mut Devices<'_, Self::Held>) {
        let _span = exos_trace::span!("forward");
        let mut head = [0; HEAD_BYTES];
        let meta =
            Meta { is_partial: frame.checksum() == Checksum::Partial, segment_bytes: frame.segment_bytes() };
        if let Verdict::Send(outgoing) = self.forwarder.forward(time(at.now), frame.bytes(), &mut head, meta)
            && send(devices.transmit, frame, &head, outgoing).is_none()
        {
            self.refused += 1;
        }
    }

    fn work(&mut self, devices: &mut Devices<'_, Self::Held>) {
        let now = time(devices.now());
        let mut request = [0; REQUEST_BYTES];
        while now >= self.forwarder.deadline() && devices.transmit.room() >= Self::FRAME_DESCRIPTORS {
            let Some(len_bytes) = self.forwarder.poll(now, &mut request) else { break };
            let request = &request[..len_bytes];
            if devices.transmit.transmit(request, &[], exos_nic::Offload::None, None).is_err() {
                self.refused += 1;
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        u64::try_from(self.forwarder.deadline().as_nanos()).ok().map(Instant::from_nanos)
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        let counters = self.forwarder.counters();
        counters.iter().for_each(|(name, value)| each(name, value));
        Reason::ALL.iter().for_each(|&(reason, name)| each(name, counters.dropped(reason)));
        each("nic_refused", self.refused);
        for (name, count) in
            ["half_open_now", "established_now", "closing_now"].into_iter().zip(self.forwarder.connections())
        {
            each(name, count.into());
        }
    }

    fn connections(&self) -> (usize, usize) {
        (self.forwarder.connections().iter().sum::<u32>() as usize, self.forwarder.connections_max() as usize)
    }

    fn publish(&mut self, area: &StatisticsArea) {
        statistics::publish(&area.forward, &self.forwarder, self.refused);
    }
}

/// On the forwarder's clock.
fn time(at: Instant) -> Duration {
    Duration::from_nanos(at.as_nanos())
}

/// Sends a frame on; `None`: the NIC did not take it.
#[inline(always)]
fn send(
    transmit: &mut TransmitQueue<GuestHal, Option<Kept>>,
    frame: &Frame<'_>,
    head: &[u8; HEAD_BYTES],
    outgoing: Outgoing,
) -> Option<()> {
    let Outgoing { headers_bytes, offload, .. } = outgoing;
    let data = outgoing.rest(frame.bytes());
    let (piece, kept) = if data.len() <= COPY_BYTES_MAX {
        (Piece::Copy(data), None)
    } else {
        (Piece::Lend(data), Some(frame.keep()?))
    };
    let offload = match offload {
        Offload::None => exos_nic::Offload::None,
        Offload::Checksum { start, offset } => exos_nic::Offload::Checksum(ChecksumAt { start, offset }),
        Offload::Segment { version, start, offset, mss } => exos_nic::Offload::Segment {
            checksum: ChecksumAt { start, offset },
            kind: match version {
                Version::Ipv4 => SegmentKind::TcpIpv4,
                Version::Ipv6 => SegmentKind::TcpIpv6,
            },
            mss,
        },
    };
    transmit.transmit(&head[..headers_bytes], &[piece], offload, kept).ok()
}

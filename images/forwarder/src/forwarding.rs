//! The forwarder as the event loop's tenant: frames from the NIC to the forwarder and back to the NIC, whatever their size without a
//! copy of their data. It is sent from the buffer that it was received in; that buffer goes back to the device when the frame is out.
//! What is about the link and no connection is its host's.

use crate::statistics;
use abi::statistics::StatisticsArea;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use exos_event_loop::{Devices, Host, Moment, StartError, TRANSMIT_SIZE, Tenant};
use exos_forward::{Forwarder, HEAD_BYTES, Meta, Offload, Outgoing, REQUEST_BYTES, Reason, Verdict, Version};
use exos_net::Instant;
use exos_nic::{Checksum, ChecksumAt, Frame, Kept, Piece, SLOT_BYTES, SegmentKind, TransmitQueue};
use exos_virtqueue::guest::GuestHal;

/// Data of so many bytes goes into the transmit queue's slot, with one descriptor for all of the frame.
const COPY_BYTES_MAX: usize = SLOT_BYTES - exos_nic::header::HEADER_BYTES - HEAD_BYTES;

/// An address of the interface.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    pub(crate) address: IpAddr,
    /// Where connections to it go; `None`: they are refused.
    pub(crate) to: Option<SocketAddr>,
}

/// A forwarder, the host that it is on its link, and what the NIC made of its frames.
pub(crate) struct Forwarding {
    forwarder: Forwarder,
    host: Host,
    listen: u16,
    /// One of each version of IP, in use or not.
    own: [Option<(Own, bool)>; 2],
    /// It is known of each whether somebody else has it.
    is_settled: bool,
    /// Frames that were not sent because the NIC did not take them.
    refused: u64,
}

impl Forwarding {
    /// Of these addresses none is in use yet.
    pub(crate) fn new(forwarder: Forwarder, host: Host, listen: u16, own: [Option<Own>; 2]) -> Self {
        let own = own.map(|own| own.map(|own| (own, false)));
        let mut forwarding = Self { forwarder, host, listen, own, is_settled: false, refused: 0 };
        for version in [Version::Ipv4, Version::Ipv6] {
            forwarding.forwarder.set_used(version, false);
        }
        forwarding
    }

    pub(crate) fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    /// Whether it ended because others have the addresses that there was something to do at.
    pub(crate) fn result(&self) -> Result<(), StartError> {
        if self.is_over() { Err(StartError::AddressesTaken) } else { Ok(()) }
    }

    /// Whether an address is in use whose connections go somewhere.
    fn serves(&self) -> bool {
        self.own.iter().flatten().any(|(own, is_used)| *is_used && own.to.is_some())
    }

    /// Forwards at the addresses that nobody else has.
    #[cold]
    fn look_after_addresses(&mut self, now: Instant) {
        for (own, is_used) in self.own.iter_mut().flatten() {
            if !*is_used && self.host.uses(own.address, now) {
                *is_used = true;
                let version = if own.address.is_ipv4() { Version::Ipv4 } else { Version::Ipv6 };
                self.forwarder.set_used(version, true);
                announce(*own, self.listen);
            }
        }
        self.is_settled = self.host.is_settled();
    }
}

/// Says where connections to an address go.
fn announce(Own { address, to }: Own, listen: u16) {
    let at = SocketAddr::new(address, listen);
    match to {
        Some(to) => log::info!("forwarder: {at} to {to}"),
        None => {
            let version = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            log::info!("forwarder: connections to {at} are refused: --to has no {version} server");
        }
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
        match self.forwarder.forward(time(at.now), frame.bytes(), &mut head, meta) {
            Verdict::Send(outgoing) => {
                self.refused += u64::from(send(devices.transmit, frame, &head, outgoing).is_none());
            }
            Verdict::Heard | Verdict::Drop(Reason::NotForUs) => self.host.input(frame, at, devices),
            Verdict::Drop(_) => {}
        }
    }

    fn is_ready(&self) -> bool {
        self.is_settled && self.serves()
    }

    #[inline]
    fn is_over(&self) -> bool {
        self.is_settled && !self.serves()
    }

    fn work(&mut self, devices: &mut Devices<'_, Self::Held>) {
        let own = self.own;
        self.host.work(devices, |address| {
            own.iter().flatten().any(|(own, _)| own.address == address && own.to.is_some())
        });
        if !self.is_settled {
            self.look_after_addresses(devices.now());
        }
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
        let forwarder = u64::try_from(self.forwarder.deadline().as_nanos()).ok().map(Instant::from_nanos);
        [forwarder, self.host.next_deadline()].into_iter().flatten().min()
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        let counters = self.forwarder.counters();
        counters.iter().for_each(|(name, value)| each(name, value));
        let host = self.host.counters();
        each("arp_replies", host.arp_replies);
        each("neighbour_advertisements", host.neighbour_advertisements);
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
        self.host.publish(area);
        statistics::publish(&area.forward, &self.forwarder, self.host.counters(), self.refused);
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

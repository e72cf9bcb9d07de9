//! smoltcp's view of the wire: a packet in and its answer, or a packet out, one at a time.

use smoltcp::phy::{Device, DeviceCapabilities, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::link::{BEFORE_IP_BYTES, FRAME_BYTES_MAX, Link};
use crate::replies::Replies;

/// One packet from the guest; what smoltcp answers at once goes to the replies.
pub(super) struct Ingress<'a> {
    pub(super) link: &'a Link,
    /// The IP packet, until it is taken.
    pub(super) packet: Option<&'a [u8]>,
    pub(super) replies: &'a mut Replies,
}

pub(super) struct PacketIn<'a>(&'a [u8]);

impl RxToken for PacketIn<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(super) struct Reply<'a> {
    link: &'a Link,
    replies: &'a mut Replies,
}

impl TxToken for Reply<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; BEFORE_IP_BYTES + len];
        let result = f(&mut frame[BEFORE_IP_BYTES..]);
        self.link.complete_ipv4(&mut frame, PacketMeta::default());
        self.replies.push(frame);
        result
    }
}

impl Device for Ingress<'_> {
    type RxToken<'t>
        = PacketIn<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Reply<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let packet = self.packet.take()?;
        Some((PacketIn(packet), Reply { link: self.link, replies: self.replies }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        Some(Reply { link: self.link, replies: self.replies })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.link.capabilities()
    }
}

/// A place for one frame to the guest.
pub(super) struct Egress<'a> {
    pub(super) link: &'a Link,
    pub(super) frame: &'a mut [u8; FRAME_BYTES_MAX],
    /// Its length, once there is one.
    pub(super) frame_bytes: Option<usize>,
}

pub(super) struct PacketOut<'t, 'a> {
    egress: &'t mut Egress<'a>,
    meta: PacketMeta,
}

impl TxToken for PacketOut<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let end = BEFORE_IP_BYTES + len;
        let frame = &mut self.egress.frame[..end];
        let result = f(&mut frame[BEFORE_IP_BYTES..]);
        self.egress.link.complete_ipv4(frame, self.meta);
        self.egress.frame_bytes = Some(end);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

impl<'a> Device for Egress<'a> {
    type RxToken<'t>
        = PacketIn<'t>
    where
        Self: 't;
    type TxToken<'t>
        = PacketOut<'t, 'a>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        if self.frame_bytes.is_some() {
            return None;
        }
        Some(PacketOut { egress: self, meta: PacketMeta::default() })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.link.capabilities()
    }
}

//! The stack's way to the NIC: segments become descriptors that point at the data where it lies.

use exos_net::{ControlFrame, Data, Full, GsoKind, MAX_PIECES, Transmit, TxSegment};
use exos_nic::{ChecksumAt, Offload, Piece, Reason, SegmentKind, TransmitQueue};
use exos_virtqueue::guest::GuestHal;

/// Keeps what a frame refers to until the device has sent it.
pub(crate) type Held<D> = [Option<D>; MAX_PIECES];

/// A transmit queue as the stack sees it.
pub(crate) struct Sender<'a, D: Data>(pub(crate) &'a mut TransmitQueue<GuestHal, Held<D>>);

impl<D: Data> Transmit<D> for Sender<'_, D> {
    fn transmit(&mut self, segment: TxSegment<'_, D>) -> Result<(), Full> {
        let mut held: Held<D> = [const { None }; MAX_PIECES];
        let mut pieces = [Piece::Copy(&[]); MAX_PIECES];
        let mut count = 0;
        for part in segment.payload {
            let bytes = part.bytes();
            // What lies outside the window (texts that are part of the program) is short and goes with the header.
            pieces[count] = match exos_runtime::dma::device_address(bytes.as_ptr(), bytes.len()) {
                Some(_) => Piece::Lend(bytes),
                None => Piece::Copy(bytes),
            };
            held[count] = Some(part.data.clone());
            count += 1;
        }
        let offload = match (segment.checksum, segment.gso) {
            (None, _) => Offload::None,
            (Some(sum), None) => Offload::Checksum(ChecksumAt { start: sum.start, offset: sum.offset }),
            (Some(sum), Some(gso)) => Offload::Segment {
                checksum: ChecksumAt { start: sum.start, offset: sum.offset },
                kind: match gso.kind {
                    GsoKind::TcpIpv4 => SegmentKind::TcpIpv4,
                    GsoKind::TcpIpv6 => SegmentKind::TcpIpv6,
                },
                mss: gso.mss,
            },
        };
        self.send(segment.header, &pieces[..count], offload, held)
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        let body = [Piece::Copy(frame.body())];
        self.send(frame.head(), &body, Offload::None, [const { None }; MAX_PIECES])
    }
}

impl<D: Data> Sender<'_, D> {
    fn send(
        &mut self,
        header: &[u8],
        pieces: &[Piece<'_>],
        offload: Offload,
        held: Held<D>,
    ) -> Result<(), Full> {
        match self.0.transmit(header, pieces, offload, held) {
            Ok(()) => Ok(()),
            Err(refused) if refused.reason == Reason::Full => Err(Full),
            Err(refused) => {
                // As if the wire had lost it: the stack's timers find out, and nobody else suffers.
                log::error!("the NIC refused a frame: {:?}", refused.reason);
                Ok(())
            }
        }
    }
}

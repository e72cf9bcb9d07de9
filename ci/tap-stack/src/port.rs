//! Writes frames to the TAP, gathered from where they lie.

use crate::faults::Way;
use crate::header;
use exos_net::{ControlFrame, Full, Instant, MAX_PIECES, Transmit, TxSegment};
use exos_sockets::Bytes;
use exovm_netns::tap::VNET_HEADER_BYTES;
use std::fs::File;
use std::io::{self, IoSlice, Write};

/// The driver's side of a TAP.
pub(crate) struct Port<'a> {
    pub(crate) tap: &'a File,
    /// With faults, frames take this way first.
    pub(crate) out: Option<(&'a mut Way, Instant)>,
    /// How the TAP refused a frame for another reason than that it is full.
    pub(crate) refused: &'a mut Option<io::Error>,
}

impl Port<'_> {
    pub(crate) fn send(&mut self, parts: &[IoSlice<'_>]) -> Result<(), Full> {
        if let Some((way, now)) = &mut self.out {
            let mut frame = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
            parts.iter().for_each(|part| frame.extend_from_slice(part));
            way.push(*now, frame);
            return Ok(());
        }
        match (&mut &*self.tap).write_vectored(parts) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Full),
            Err(error) => {
                // What does not go now never will; the run ends with this.
                self.refused.get_or_insert(error);
                Ok(())
            }
        }
    }
}

impl Transmit<Bytes> for Port<'_> {
    fn transmit(&mut self, segment: TxSegment<'_, Bytes>) -> Result<(), Full> {
        let vnet = header::emit(segment.checksum, segment.gso, segment.header.len());
        let mut parts = [IoSlice::new(&[]); 2 + MAX_PIECES];
        (parts[0], parts[1]) = (IoSlice::new(&vnet), IoSlice::new(segment.header));
        let mut count = 2;
        for piece in segment.payload {
            parts[count] = IoSlice::new(piece.bytes());
            count += 1;
        }
        self.send(&parts[..count])
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        self.send(&[[0; VNET_HEADER_BYTES].as_slice(), frame.head(), frame.body()].map(IoSlice::new))
    }
}

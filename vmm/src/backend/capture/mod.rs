//! What a guest sends and receives, written down for Wireshark and tshark: a pcapng section with one interface, times in
//! nanoseconds and the direction of each frame. It wraps any backend, and sees frames as the guest does: before segmentation, so
//! up to 64 KiB long, with the checksums that were left to the hardware filled in.
//!
//! A thread writes. Into a regular file nothing is lost: who is faster than the disk waits. A pipe whose reader stops must not
//! stop the machine: what does not fit into a buffer is counted and left out. What cannot be written ends the capture with one
//! warning, and the machine goes on.

mod pcapng;
mod writer;

#[cfg(test)]
mod tests;

use super::iovec::gather;
use super::{
    Awaited, Backend, BackendError, FRAME_BYTES_MAX, HEADER_BYTES, IoVec, IoVecMut, Offloads, Written,
    offload,
};
use crate::stat::metrics::{Metric, metrics};
use pcapng::Direction;
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use writer::{Full, Writer};

/// Why a capture cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file.
    #[error("cannot write frames to {}: {source}; choose another path for the capture", .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

metrics! {
    /// What was captured.
    pub struct CaptureMetrics {
        /// Frames written to the capture, or about to be.
        pub capture_frames: u64,
        /// Frames that are not in the capture, because its reader is slow or it could not be written any more.
        pub capture_missed_frames: u64,
    }
}

/// A backend whose frames are written down.
#[derive(Debug)]
pub struct Capture<B> {
    inner: B,
    writer: Writer,
    frame: Box<[u8]>,
    block: Vec<u8>,
    metrics: CaptureMetrics,
}

impl<B: Backend> Capture<B> {
    /// Begins the file, whatever was in it. A named pipe is waited for until somebody reads it.
    pub fn create(path: &Path, inner: B) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::File { path: path.to_owned(), source };
        let file = File::create(path).map_err(failed)?;
        let full = if file.metadata().map_err(failed)?.is_file() { Full::Wait } else { Full::LeaveOut };
        let writer = Writer::start(file, path.to_owned(), full, pcapng::beginning()).map_err(failed)?;
        Ok(Self {
            inner,
            writer,
            frame: vec![0; FRAME_BYTES_MAX].into_boxed_slice(),
            block: Vec::with_capacity(FRAME_BYTES_MAX + pcapng::BLOCK_BYTES),
            metrics: CaptureMetrics::default(),
        })
    }

    /// Writes down the first bytes of `self.frame`.
    fn write(&mut self, len_bytes: usize, direction: Direction) {
        let Some((header, frame)) = self.frame[..len_bytes].split_at_mut_checked(HEADER_BYTES) else {
            return;
        };
        offload::fill_in_checksum(header, frame);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.block.clear();
        pcapng::append_packet(&mut self.block, now, direction, frame);
        if self.writer.write(&self.block) {
            self.metrics.capture_frames += 1;
        } else {
            self.metrics.capture_missed_frames += 1;
        }
    }
}

impl<B: Backend> Backend for Capture<B> {
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        let written = self.inner.write_frame(frame);
        if written == Written::Sent {
            let len_bytes = gather(frame, 0, &mut self.frame);
            self.write(len_bytes, Direction::FromGuest);
        }
        written
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        let read = self.inner.read_frame(buffers)?;
        if let Some(len_bytes) = read {
            let len_bytes = len_bytes.min(FRAME_BYTES_MAX);
            let mut at = 0;
            for buffer in buffers {
                at += buffer.copy_to(&mut self.frame[at..len_bytes]);
            }
            self.write(at, Direction::ToGuest);
        }
        Ok(read)
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError> {
        self.inner.set_offloads(offloads)
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.inner.event_fd()
    }

    fn pump(&mut self) {
        self.inner.pump();
    }

    fn due(&self) -> Option<Instant> {
        self.inner.due()
    }

    fn arm(&mut self, awaited: Awaited) -> bool {
        self.inner.arm(awaited)
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn shows_room_as_writable(&self) -> bool {
        self.inner.shows_room_as_writable()
    }

    fn counters(&self) -> Vec<Metric> {
        let mut counters = self.inner.counters();
        counters.extend(self.metrics.entries());
        counters
    }
}

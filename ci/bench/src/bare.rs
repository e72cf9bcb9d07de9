//! The ceiling: what a user-space server on a TAP could reach at most. It has no VM and no real TCP (no retransmission, no
//! timers, no reassembly, one client, whole requests in one segment) and answers from prepared bytes; whoever does TCP
//! properly has more to do. Not a server: for a private TAP and wrk only.

mod answer;
mod responder;
mod wire;

use crate::BenchError;
use exovm_netns::tap::VNET_HEADER_BYTES;
use exovm_netns::{Interface, TapQueues, attach_tap};
use responder::{FrameSink, Responder};
use rustix::event::{PollFd, PollFlags, poll};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How long an empty TAP is polled before the responder sleeps: longer than a client takes to answer on another CPU.
const SPIN: Duration = Duration::from_micros(50);

/// The largest frame of a TAP with segmentation offload: an IPv4 packet behind Ethernet and virtio-net headers.
const LARGEST_FRAME_BYTES: usize = VNET_HEADER_BYTES + 14 + 65_535;

impl FrameSink for &File {
    fn send(&mut self, headers: &[u8], payload: &[u8]) {
        // A frame that the host does not take is lost, as on any wire; the client's next request times out and is
        // counted as an error.
        let _ = self.write_vectored(&[IoSlice::new(headers), IoSlice::new(payload)]);
    }
}

/// Answers requests that arrive at `address` on the TAP `tap` until the process ends.
pub fn run_bare(tap: &str, address: Ipv4Addr) -> Result<Infallible, BenchError> {
    let device = attach_tap(&Interface::named(tap)?, TapQueues::Single)?;
    let mut responder = Responder::new(address);
    let mut frame = vec![0; LARGEST_FRAME_BYTES];
    let mut last_frame_at = Instant::now();
    loop {
        match (&device).read(&mut frame) {
            Ok(frame_bytes) => {
                responder.receive(&frame[..frame_bytes], &mut &device);
                last_frame_at = Instant::now();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if last_frame_at.elapsed() > SPIN {
                    wait_for_frame(&device)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(BenchError::system(format!("read the TAP `{tap}`"), error)),
        }
    }
}

fn wait_for_frame(device: &File) -> Result<(), BenchError> {
    match poll(&mut [PollFd::new(device, PollFlags::IN)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(BenchError::system("wait for the TAP", error.into())),
    }
}

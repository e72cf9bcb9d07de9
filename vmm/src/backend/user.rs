//! The user backend: sockets of the host instead of an interface, no privileges needed. The network itself is
//! `exovm-user-net`; this is where its frames meet the NIC's pieces of guest memory.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::RawFd;
use std::time::Instant;

use exovm_user_net::{Config, GuestOffloads, Published, UserNet, UserNetError};

use super::iovec::{gather, scatter};
use super::{Backend, BackendError, FRAME_BYTES_MAX, IoVec, IoVecMut, Offloads, Written};
use crate::stat::metrics::Metric;

/// A user network as a backend.
#[derive(Debug)]
pub struct User {
    net: UserNet,
    started: Instant,
    /// A frame of the guest, copied so that it cannot change while it is looked at.
    frame: Box<[u8]>,
}

impl User {
    /// Makes the network. The seed of `config` is replaced by a random one.
    pub fn new(config: Config) -> Result<Self, UserNetError> {
        // Keyed anew for each value, by the operating system's random numbers.
        let seed = RandomState::new().build_hasher().finish();
        Ok(Self {
            net: UserNet::new(Config { seed, ..config })?,
            started: Instant::now(),
            frame: vec![0; FRAME_BYTES_MAX].into_boxed_slice(),
        })
    }

    /// What is published, and where.
    pub fn published(&self) -> &[Published] {
        self.net.published()
    }
}

impl Backend for User {
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        let bytes = gather(frame, 0, &mut self.frame);
        self.net.input(self.started.elapsed(), &self.frame[..bytes]);
        Written::Sent
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        Ok(self.net.output(self.started.elapsed()).map(|frame| scatter(buffers, 0, frame)))
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError> {
        let Offloads { checksum, tso4, tso6: _ } = offloads;
        self.net.set_offloads(GuestOffloads { checksum, tso4 });
        Ok(())
    }

    fn event_fd(&self) -> Option<RawFd> {
        Some(self.net.event_fd())
    }

    fn counters(&self) -> Vec<Metric> {
        self.net.counters().entries().map(|(name, help, value)| Metric { name, help, value }).collect()
    }
}

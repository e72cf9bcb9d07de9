//! What runs on the loop.

use crate::disk::Disk;
use abi::statistics::StatisticsArea;
use exos_net::{Instant, RxChecksum, RxMeta};
use exos_nic::{Frame, TransmitQueue};
use exos_runtime::clock::{self, Scale};
use exos_virtqueue::guest::GuestHal;

/// Descriptors of the transmit queue.
pub const TRANSMIT_SIZE: u16 = 1024;

/// Who gets the NIC's frames and sends others. One round is: [`Self::input`] for each of a batch of frames, then [`Self::work`]
/// once; then what was sent becomes visible to the devices. If no frame came, the loop waits for one, or for
/// [`Self::next_deadline`]. The first call of all is [`Self::work`].
pub trait Tenant {
    /// What a frame on its way out keeps in place until the device has sent it.
    type Held;

    /// Sizes of the NIC's queues.
    const QUEUES: exos_nic::Config =
        exos_nic::Config { transmit_size: TRANSMIT_SIZE, ..exos_nic::Config::small() };

    /// Descriptors of the transmit queue that must be free for a frame to be offered. Frames for which there are not wait where
    /// they are.
    const FRAME_DESCRIPTORS: usize = 0;

    /// Frames on their way out beyond which the loop does not wait long: for those whose frames hold receive buffers.
    const PENDING_MAX: usize = usize::MAX;

    /// Name in the prompt of the console that the loop opens on the host channel (`exovm console`); `None`: it opens none.
    fn console(&self) -> Option<&'static str> {
        None
    }

    /// The port that is served, for whoever asks the machine.
    fn port(&self) -> Option<u16> {
        None
    }

    /// Whether it can do its work: the machine is said to be ready when it can for the first time.
    fn is_ready(&self) -> bool {
        true
    }

    /// Takes a frame that was received.
    fn input(&mut self, frame: &Frame<'_>, at: Moment, devices: &mut Devices<'_, Self::Held>);

    /// Does what is due, and sends what is to be sent.
    fn work(&mut self, devices: &mut Devices<'_, Self::Held>);

    /// When [`Self::work`] is to be called at the latest; a time that has passed: at once.
    fn next_deadline(&self) -> Option<Instant>;

    /// Whether nothing is left to do, ever: the loop ends.
    fn is_over(&self) -> bool {
        false
    }

    /// Gives each counter with its name, for whoever asks at the console.
    fn counters(&self, each: &mut dyn FnMut(&'static str, u64));

    /// Connections that are open, and that can be.
    fn connections(&self) -> (usize, usize);

    /// Copies what was counted to where the VMM reads it. Called before the loop waits, and now and then when it does not.
    fn publish(&mut self, area: &StatisticsArea);

    /// Memory of the heap is asked back, from an address on, with `frames` frames of [`exos_runtime::heap::FRAME_BYTES`] left before
    /// it: lets go of what it has there and can do without. Called again until nothing is left.
    fn give_up(&mut self, start_va: usize, frames: usize) {
        let _ = (start_va, frames);
    }

    /// Half of the time has passed in which that memory must be given: ends somebody who holds some and takes nothing.
    fn end_stalled(&mut self, devices: &mut Devices<'_, Self::Held>) {
        let _ = devices;
    }
}

/// When a batch of frames was taken.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// On the loop's clock.
    pub now: Instant,
    /// UTC, in seconds since 1970.
    pub unix_seconds: u64,
}

impl Moment {
    #[inline]
    pub(crate) fn now(scale: Scale) -> Self {
        Self { now: now(scale), unix_seconds: clock::unix_seconds() }
    }
}

/// What a tenant works with besides frames.
#[derive(Debug)]
pub struct Devices<'a, K> {
    /// Frames out. The loop reclaims and publishes it.
    pub transmit: &'a mut TransmitQueue<GuestHal, K>,
    /// The disk, if the loop has one.
    pub disk: Option<&'a mut Disk>,
    pub(crate) scale: Scale,
}

impl<K> Devices<'_, K> {
    /// The time, on the clock of [`Tenant::next_deadline`].
    #[inline]
    pub fn now(&self) -> Instant {
        now(self.scale)
    }
}

#[inline]
pub(crate) fn now(scale: Scale) -> Instant {
    Instant::from_nanos(scale.ns(clock::tsc()))
}

/// What the stack should know of a frame.
#[inline]
pub(crate) fn meta(frame: &Frame<'_>) -> RxMeta {
    let checksum =
        if frame.checksum().is_trustworthy() { RxChecksum::TransportValid } else { RxChecksum::Unknown };
    RxMeta { checksum }
}

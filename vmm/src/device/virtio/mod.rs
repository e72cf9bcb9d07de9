//! Virtio 1.x devices on PCI (modern transport only).
//!
//! [`pci`] plays the registers, [`queue`] the rings, [`net`] the NIC, [`block`] the disk,
//! [`console`] the host channel; [`firmware`] drives a device to DRIVER_OK before the machine runs.

use crate::backend::PinnedMemory;
use crate::tables::{DmaDomain, DomainError, Tables};

pub mod block;
pub mod console;
pub mod features;
pub mod firmware;
pub mod net;
pub mod pci;
pub mod queue;
mod slot;

#[cfg(test)]
pub(crate) mod test_utils;

pub use pci::{PciError, PciPlace, VirtioPci};
pub use queue::{QueueConfig, QueueError, Virtqueue};
pub use slot::QueueState;

/// Why a queue was not enabled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The owner table has nobody.
    #[error(
        "queue {queue} belongs to nobody; the kernel must write the owner table before it enables a queue"
    )]
    NoOwner {
        /// Which queue.
        queue: u16,
    },
    /// The owner has no usable DMA domain.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The rings.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// What was under way before its reset is not over.
    #[error("queue {queue} is still being reset; the kernel must wait until queue_reset reads 0")]
    Resetting {
        /// Which queue.
        queue: u16,
    },
    /// There is no such queue.
    #[error("queue {queue} does not exist")]
    NoSuchQueue {
        /// Which queue.
        queue: u16,
    },
}

/// Says in whose memory a queue works.
pub trait Binder<M: PinnedMemory>: Send + Sync {
    /// The environment that owns the queue now, and the memory that it may use.
    fn bind(&self, device: u32, queue: u16) -> Result<(u32, M), BindError>;
}

impl Binder<DmaDomain> for Tables {
    fn bind(&self, device: u32, queue: u16) -> Result<(u32, DmaDomain), BindError> {
        let owner = self.owner(device, queue.into()).ok_or(BindError::NoOwner { queue })?;
        Ok((owner.environment, self.domain(owner.environment)?))
    }
}

/// Takes note that a queue's driver is to be interrupted.
pub trait QueueInterrupt {
    /// The driver of this queue wants to hear of what was published.
    fn raise(&mut self, queue: u16);
}

/// What the PCI transport wants of a device.
pub trait VirtioDevice: Send {
    /// Device identifier (VIRTIO 1.3 5).
    const DEVICE_ID: u16;
    /// PCI class.
    const CLASS: u32;
    /// What its features require of each other.
    const REQUIREMENTS: &'static [features::Requirement];

    /// Feature bits offered.
    fn features(&self) -> u64;
    /// How many queues there are.
    fn queues(&self) -> u16;
    /// Largest size of a queue.
    fn queue_size_max(&self) -> u16;
    /// Reads device configuration.
    fn read_config(&self, offset: usize, data: &mut [u8]);
    /// The driver chose features; only ones that were offered come here. `false`: not this set.
    fn accept_features(&mut self, features: u64) -> bool;
    /// The driver enables a queue.
    fn enable_queue(&mut self, queue: u16, config: QueueConfig) -> Result<(), BindError>;
    /// The driver resets a queue, and does not wait for it: the device may be at its memory for as long as
    /// [`Self::is_resetting`] says so. A reset that is asked for again goes on.
    fn reset_queue(&mut self, queue: u16);
    /// Whether a reset of this queue is not over yet.
    fn is_resetting(&self, _queue: u16) -> bool {
        false
    }
    /// The driver resets the device.
    fn reset(&mut self);
    /// Whether a queue stands still for an error.
    fn needs_reset(&self) -> bool;
}

//! PCI: configuration space, MSI-X, and the bus that takes an access to the function that claims it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

mod bus;
mod config_space;
mod msix;

pub use bus::{Bus, BusError, ECAM_BYTES, MmioWrite};
pub use config_space::{Capability, ConfigSpace, ConfigWrite, Identity};
pub use msix::{Msix, MsixState};

/// Where one interrupt vector leads.
pub trait Interrupt: Send + Sync {
    /// Raises it. Never blocks.
    fn signal(&self);
}

/// What a message-signalled interrupt writes where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Address of the write.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

/// Learns what the MSI-X table says.
pub trait MsixRoutes: Send + Sync {
    /// The message of a vector from now on; `None`: it is masked or was never set. Called before [`Interrupt::signal`] of
    /// that vector is, under the lock of the function.
    fn set(&self, vector: u16, message: Option<MsiMessage>);
}

/// Where a function's memory window lies now: 0 while it does not decode. Readable without the function's lock.
#[derive(Debug, Default)]
pub struct BarWindow {
    /// First guest-physical address, or 0.
    pub start_gpa: AtomicU64,
}

/// What a write to a function's window was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarWrite {
    /// A register.
    Register,
    /// A register that lets queues come or go: whoever does the device work must look again.
    Queues,
    /// The doorbell of a queue; whoever does the device work must hear of it.
    Doorbell {
        /// Which queue.
        queue: u16,
    },
}

/// A function on the bus: one configuration space, one memory window (BAR 0).
pub trait PciFunction: Send {
    /// Reads configuration space.
    fn config_read(&mut self, offset: usize, data: &mut [u8]);
    /// Writes configuration space.
    fn config_write(&mut self, offset: usize, data: &[u8]);
    /// Reads the window.
    fn bar_read(&mut self, offset: u64, data: &mut [u8]);
    /// Writes the window.
    fn bar_write(&mut self, offset: u64, data: &[u8]) -> BarWrite;
    /// Where the window is.
    fn bar_window(&self) -> Arc<BarWindow>;
    /// Length of the window, a power of two.
    fn bar_bytes(&self) -> u64;
}

//! What a driver asks of the machine and the kernel. The guest's runtime implements it with kernel calls and the
//! doorbell pages; the module `fake` implements it for tests.

use abi::call::Error;

/// The machine under a queue. A clone stands for the same machine.
///
/// # Safety
/// The driver lets the device write to its buffers on the strength of these answers:
/// - [`Self::device_address`] gives an address at which the device reaches exactly the bytes asked for, as long as they
///   are allocated;
/// - when [`Self::unbind`] has succeeded, or [`Self::bind`] has failed, the device no longer touches the queue's memory.
pub unsafe trait Hal: Clone {
    /// Where the device finds `len_bytes` from `start` on, without a gap. `None`: the device cannot reach them (the image's
    /// read-only data lies outside the environment's DMA domain).
    fn device_address(&self, start: *const u8, len_bytes: usize) -> Option<u64>;

    /// Binds a queue whose rings lie at device address `base`, as [`abi::queue::RingLayout`] says, and enables it.
    fn bind(&mut self, device: u32, queue: u32, base: u64, size: u16) -> Result<(), Error>;

    /// Resets a queue and gives it back.
    fn unbind(&mut self, device: u32, queue: u32) -> Result<(), Error>;

    /// Tells the device that there are new buffers (VIRTIO 1.3 4.1.5.2). Costs thousands of cycles; the driver calls it
    /// only if the device asked.
    fn doorbell(&self, device: u32, queue: u32);
}

//! The machine under a driver in ring 3: addresses for the device, kernel calls to bind queues, doorbells.

use crate::hal::Hal;
use abi::call::Error;
use abi::layout::doorbell_va;
use exos_runtime::{clock, dma, kernel};

/// How long a device may take to let go of a queue.
const RESET_PATIENCE_MS: u64 = 10_000;

/// Ring 3 of an exovm machine.
#[derive(Clone, Copy, Debug)]
pub struct GuestHal;

// SAFETY: the window maps each guest-physical page at a fixed offset and nobody remaps it, so an address stays the
// same as long as the memory does; the kernel binds only pages of this environment.
unsafe impl Hal for GuestHal {
    #[inline]
    fn device_address(&self, start: *const u8, len_bytes: usize) -> Option<u64> {
        dma::device_address(start, len_bytes)
    }

    fn bind(&mut self, device: u32, queue: u32, base: u64, size: u16) -> Result<(), Error> {
        kernel::queue_bind(device, queue, base, size)
    }

    fn unbind(&mut self, device: u32, queue: u32) -> Result<(), Error> {
        // The device may be at a request; whoever gives up leaks what it points at, so that takes a while.
        let end = clock::tsc() + clock::Scale::new().ticks(RESET_PATIENCE_MS * 1_000_000);
        loop {
            match kernel::queue_unbind(device, queue) {
                Err(Error::Unfinished) if clock::tsc() < end => core::hint::spin_loop(),
                result => return result,
            }
        }
    }

    #[inline]
    fn doorbell(&self, device: u32, queue: u32) {
        let Some(page) = doorbell_va(device, queue) else { return };
        // SAFETY: an address of doorbells only, where nothing lies that the program uses; a ring has no effect on memory
        // but what the bound queues allow.
        unsafe { (page as *mut u16).write_volatile(queue as u16) }
    }
}

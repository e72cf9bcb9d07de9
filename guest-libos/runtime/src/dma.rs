//! What a device needs to know of memory.

use abi::layout::WINDOW_VA;

/// The guest-physical address of bytes in the window (the heap); `None` for anything else, such as
/// constants of the program.
#[inline]
pub fn device_address(start: *const u8, len_bytes: usize) -> Option<u64> {
    // The window ends where the next fixed part of the layout begins.
    const END_VA: u64 = abi::layout::STACK_TOP_VA - abi::layout::STACK_BYTES;
    let start = start as u64;
    let end = start.checked_add(len_bytes as u64)?;
    (start >= WINDOW_VA && end <= END_VA).then(|| start - WINDOW_VA)
}

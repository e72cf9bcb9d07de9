//! What a queue must not be bound to. Each attempt is one line in the log with its answer.

use crate::calls::call_by_number;
use crate::{Case, HELD};
use abi::boot::EnvironmentPage;
use abi::call::Call;
use abi::layout::{MMIO_GPA, PAGE_BYTES, WINDOW_VA};
use abi::queue::RingLayout;
use alloc::alloc::{Layout, alloc_zeroed};
use exos_runtime::pages;

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[("bad-queue-bind", bad_queue_bind)];

/// Size of the queues that would be bound.
const SIZE: u64 = 256;

/// Zeroed pages of the heap, never given back; their guest-physical address.
pub(crate) fn pages_for(len_bytes: u64) -> Option<u64> {
    let layout = Layout::from_size_align(len_bytes as usize, PAGE_BYTES as usize).ok()?;
    // SAFETY: no caller asks for nothing.
    let block = unsafe { alloc_zeroed(layout) };
    if block.is_null() {
        return None;
    }
    exos_runtime::dma::device_address(block, len_bytes as usize)
}

/// The heap's last byte but one page: where a queue no longer fits.
fn end_of_heap(environment: &EnvironmentPage) -> u64 {
    environment.heap.iter().map(abi::boot::MemoryRange::end_gpa).max().unwrap_or(0)
}

fn bad_queue_bind(_: Arguments<'_>) -> Option<u32> {
    let good = pages_for(RingLayout::new(SIZE as u16)?.len_bytes())?;
    let environment = pages::environment();
    let device = environment.devices[0];
    let end = end_of_heap(environment);
    let own = environment.capabilities.queues[0].0;
    let behind = u64::from(device.queues);
    let bind = |what: &str, queues: u64, queue: u64, base: u64, size: u64| {
        let answer = call_by_number(Call::QueueBind as u64, [0, queues, queue, base, size]);
        log::info!("probe: bind {what}: {answer:?}");
    };
    let unbind = |what: &str, queues: u64, queue: u64| {
        let answer = call_by_number(Call::QueueUnbind as u64, [0, queues, queue, 0, 0]);
        log::info!("probe: unbind {what}: {answer:?}");
    };
    bind("no capability", 0, 0, good, SIZE);
    bind("slot of the capability alone", own & 0xFFFF_FFFF, 0, good, SIZE);
    bind("another generation", own + (1 << 32), 0, good, SIZE);
    bind("free slot", (1 << 32) | 200, 0, good, SIZE);
    bind("slot behind the table", (1 << 32) | 256, 0, good, SIZE);
    bind("capability max", u64::MAX, 0, good, SIZE);
    bind("capability for memory", environment.capabilities.heap[0].0, 0, good, SIZE);
    bind("queue behind the last", own, behind, good, SIZE);
    bind("queue of the next device", own, 32, good, SIZE);
    bind("queue 256", own, 256, good, SIZE);
    bind("queue 2^32", own, 1 << 32, good, SIZE);
    bind("queue max", own, u64::MAX, good, SIZE);
    bind("size 0", own, 0, good, 0);
    bind("size 1", own, 0, good, 1);
    bind("size 3", own, 0, good, 3);
    bind("size 255", own, 0, good, 255);
    bind("size twice the largest", own, 0, good, 2 * u64::from(device.queue_size_max));
    bind("size 65536", own, 0, good, 65536);
    bind("size 2^32 + 256", own, 0, good, (1 << 32) + SIZE);
    bind("size max", own, 0, good, u64::MAX);
    bind("base + 1", own, 0, good + 1, SIZE);
    bind("base + 2048", own, 0, good + 2048, SIZE);
    bind("base is a virtual address", own, 0, WINDOW_VA + good, SIZE);
    bind("base + length overflows", own, 0, u64::MAX - PAGE_BYTES + 1, SIZE);
    bind("page 0", own, 0, 0, SIZE);
    bind("page before the heap", own, 0, environment.heap[0].start_gpa - PAGE_BYTES, SIZE);
    bind("end reaches out of the heap", own, 0, end - PAGE_BYTES, SIZE);
    bind("behind the heap", own, 0, end, SIZE);
    bind("device registers", own, 0, MMIO_GPA, SIZE);
    bind("far beyond memory", own, 0, 1 << 60, SIZE);
    unbind("not bound", own, 0);
    unbind("no capability", 0, 0);
    unbind("queue max", own, u64::MAX);
    bind("good", own, 0, good, SIZE);
    bind("again", own, 0, good, SIZE);
    unbind("bound", own, 0);
    unbind("again", own, 0);
    bind("after unbind", own, 0, good, SIZE);
    Some(HELD)
}

//! The cache's reads on the event loop's disk.

use alloc::vec::Vec;
use exos_cache::{Cache, FRAME_BYTES, ReadError, ReadId};
use exos_event_loop::disk::{Disk, Reason, Refused};

/// Gives the cache what the disk has read, and the disk what the cache wants. Who waited for it is passed to `wake`, with the disk
/// request that is why, as trace records name it, or 0.
#[inline]
pub fn exchange<W>(cache: &mut Cache<W>, disk: &mut Disk, mut wake: impl FnMut(W, u64)) {
    // Whoever waited for a read that failed has been told since the round before.
    cache.forget_failures();
    while let Some(done) = disk.poll() {
        let result = done.result.map_err(|_| ReadError);
        let cause = disk.last_done();
        cache.complete(ReadId(done.token), done.buffers, result, |waiter| wake(waiter, cause));
    }
    cache.tell_room_waiters(|waiter| wake(waiter, 0));
    if cache.has_reads() {
        ask(cache, disk, &mut wake);
    }
}

fn ask<W>(cache: &mut Cache<W>, disk: &mut Disk, wake: &mut impl FnMut(W, u64)) {
    let mut failed = Vec::new();
    while disk.has_room() {
        let Some(read) = cache.next_read(disk.max_read_frames(FRAME_BYTES)) else { break };
        match disk.read(read.first_block, read.memory, read.id.0) {
            Ok(()) => {}
            Err(Refused { reason: Reason::Full, buffer, token }) => {
                cache.give_back(ReadId(token), buffer);
                break;
            }
            Err(Refused { reason, buffer, token }) => {
                log::error!("the disk does not take a read of block {}: {reason}", read.first_block);
                failed.push((ReadId(token), buffer));
            }
        }
    }
    for (id, memory) in failed {
        cache.complete(id, memory, Err(ReadError), |waiter| wake(waiter, 0));
    }
}

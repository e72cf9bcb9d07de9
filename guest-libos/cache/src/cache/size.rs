//! Giving memory back while others go on using the rest, and taking more.
//!
//! What lies where memory is asked back is thrown out, whatever the policy thinks of it, unless somebody uses it: then it goes when
//! they are done. Nobody waits for that here: the caller asks again, and its allocator knows what is still in use.

use alloc::rc::Rc;

use super::{Cache, MIN_FRAMES, State, must_go};
use crate::frame::{Memory, allocate};

impl<W> Cache<W> {
    /// Gives all memory from the address `end` on back to the allocator that nobody uses, and has at most `max_frames` frames, at
    /// least 16, until it may [`grow`](Cache::grow). To be called again until the allocator has everything: what is in
    /// use, a page on its way to a client or from the disk, comes back when that is over. The allocator gives out no memory from
    /// there on any more. Returns how many frames came back.
    pub fn shrink(&mut self, max_frames: usize, end: usize) -> usize {
        self.max_frames = max_frames.max(MIN_FRAMES);
        self.end = end;
        let mut back = 0;
        for number in 0..self.places.len() as u32 {
            let Some(place) = self.places.get_mut(number as usize) else { continue };
            match &mut place.state {
                State::Resident { memory, .. } if must_go(memory, end) && Rc::strong_count(memory) == 1 => {
                    self.by_key.remove(&place.key);
                    self.counters.given_back += 1;
                }
                State::Vacant { memory } if must_go(memory, end) => {}
                State::Reading { memory: Some(memory), .. } if must_go(memory, end) => {
                    // Wanted and not begun: it is read to somewhere else, if there is room.
                    let blocks = (memory.len() / exos_fs::BLOCK_BYTES) as u64;
                    if let Some(other) = allocate(blocks) {
                        let old: Memory = core::mem::replace(memory, other);
                        drop(old);
                        back += 1;
                    }
                    continue;
                }
                _ => continue,
            }
            self.retire(number);
            back += 1;
        }
        let Self { policy, places, .. } = self;
        policy.forget(|number| {
            places.get(number as usize).is_some_and(|place| matches!(place.state, State::Gone))
        });
        back
    }

    /// May have up to `max_frames` frames from now on, wherever the allocator finds memory for them.
    pub fn grow(&mut self, max_frames: usize) {
        self.end = usize::MAX;
        self.max_frames = max_frames.clamp(self.max_frames, u32::MAX as usize / 2);
    }

    /// A place loses its memory.
    pub(super) fn retire(&mut self, number: u32) {
        if let Some(place) = self.places.get_mut(number as usize) {
            place.state = State::Gone;
            self.gone.push(number);
        }
    }
}

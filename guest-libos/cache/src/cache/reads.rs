//! Reads on their way: handed out to the disk, several frames together where they follow each other, and what becomes of
//! the frames and of who waits for them when the disk is done, or could not.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use super::{Cache, Fresh, Place, Residence, State};
use crate::frame::{FRAME_BLOCKS, Memory};

/// Frames that one read fills at most: 1 MiB.
pub const MAX_READ_FRAMES: usize = 16;

/// A read to be given to the disk.
#[derive(Debug)]
pub struct Read {
    /// To be given to [`Cache::complete`].
    pub id: ReadId,
    /// The first block to read.
    pub first_block: u64,
    /// Where they go, one behind the other: as many bytes as are to be read.
    pub memory: Vec<Box<[u8]>>,
}

/// Tells reads on their way apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadId(pub u64);

/// The disk could not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadError;

impl<W> Cache<W> {
    /// Whether reads wait to be handed out.
    #[inline]
    pub fn has_reads(&self) -> bool {
        !self.to_read.is_empty()
    }

    /// The next read that the disk should do, of at most `max_frames` frames: frames that follow each other on disk and
    /// were asked for together are read together. It must be given back with [`complete`](Cache::complete).
    pub fn next_read(&mut self, max_frames: usize) -> Option<Read> {
        let mut places = Vec::new();
        let mut memory = Vec::new();
        let mut first_block = 0;
        while memory.len() < max_frames.clamp(1, MAX_READ_FRAMES) {
            let Some(&number) = self.to_read.front() else { break };
            let place = self.places.get_mut(number as usize)?;
            let follows = memory.is_empty()
                || place.key * FRAME_BLOCKS == first_block + memory.len() as u64 * FRAME_BLOCKS;
            if !follows || (!memory.is_empty() && self.single.contains(&number)) {
                break;
            }
            self.to_read.pop_front();
            let State::Reading { memory: waiting, .. } = &mut place.state else { continue };
            let Some(frame) = waiting.take() else { continue };
            if memory.is_empty() {
                first_block = place.key * FRAME_BLOCKS;
            }
            memory.push(frame);
            places.push(number);
            if self.single.remove(&number) {
                break;
            }
        }
        if memory.is_empty() {
            return None;
        }
        let id = self.next_read;
        self.next_read += 1;
        self.in_flight.insert(id, places);
        self.counters.reads += 1;
        Some(Read { id: ReadId(id), first_block, memory })
    }

    /// Takes a read back that the disk had no room for; it comes first next time.
    pub fn give_back(&mut self, id: ReadId, memory: Vec<Box<[u8]>>) {
        let Some(places) = self.in_flight.remove(&id.0) else { return };
        self.counters.reads -= 1;
        self.read_again(places, memory);
    }

    fn read_again(&mut self, places: Vec<u32>, memory: Vec<Box<[u8]>>) {
        for (number, frame) in places.into_iter().zip(memory).rev() {
            if let Some(Place { state: State::Reading { memory, .. }, .. }) =
                self.places.get_mut(number as usize)
            {
                *memory = Some(frame);
                self.to_read.push_front(number);
            }
        }
    }

    /// A read has completed. Who waited for its frames is passed to `tell`, and may ask again. A read of several frames
    /// that failed is done again frame by frame, so that only those fail that cannot be read.
    pub fn complete(
        &mut self,
        id: ReadId,
        memory: Vec<Box<[u8]>>,
        result: Result<(), ReadError>,
        mut tell: impl FnMut(W),
    ) {
        let Some(places) = self.in_flight.remove(&id.0) else { return };
        let (mut memory, mut result) = (memory, result);
        let complete = memory.len() == places.len();
        if !complete {
            // What the disk did not give back is lost; new memory is found when the places are used again.
            memory.resize_with(places.len(), Memory::default);
            result = Err(ReadError);
        }
        if result.is_err() {
            self.counters.read_errors += 1;
            if places.len() > 1 && complete {
                self.single.extend(&places);
                self.read_again(places, memory);
                return;
            }
        }
        for (number, memory) in places.into_iter().zip(memory) {
            let Some(place) = self.places.get_mut(number as usize) else { continue };
            let State::Reading { waiters, .. } = &mut place.state else { continue };
            let waiters = core::mem::take(waiters);
            place.state = match result {
                Ok(()) => {
                    self.counters.bytes_read += memory.len() as u64;
                    State::Resident {
                        memory: Rc::new(memory),
                        metadata: Cell::new(0),
                        data: Cell::new(0),
                        fresh: Cell::new(Fresh::Yes),
                    }
                }
                Err(ReadError) => {
                    self.failed.push(Residence { place: number, generation: place.generation });
                    State::Failed { memory }
                }
            };
            waiters.into_iter().for_each(&mut tell);
        }
    }

    /// All who waited for reads that failed, or brought something else than was written, have been told: from now on, who
    /// asks for the same blocks makes the disk try again.
    pub fn forget_failures(&mut self) {
        for at in self.failed.drain(..) {
            let Some(place) = self.places.get_mut(at.place as usize) else { continue };
            if place.generation != at.generation {
                continue;
            }
            let memory = match &mut place.state {
                State::Failed { memory } => core::mem::take(memory),
                // While other blocks of it are in use it stays; the next to find it wrong says so again.
                State::Resident { memory, .. } => match Rc::get_mut(memory) {
                    Some(memory) => core::mem::take(memory),
                    None => continue,
                },
                _ => continue,
            };
            place.state = State::Vacant { memory };
            self.by_key.remove(&place.key);
        }
    }

    /// A block of the frame is not what it should be: perhaps it is when it is read again.
    pub(crate) fn distrust(&mut self, at: Residence) {
        if !self.failed.contains(&at) {
            self.failed.push(at);
        }
    }
}

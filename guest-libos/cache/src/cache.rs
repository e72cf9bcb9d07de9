//! Frames by their place on disk. Whoever wants a block that is not there gets a ticket and waits; one read goes out for
//! all who want the same frame; when it completes, they are told ([`reads`]). Which frame makes room is `policy`'s part,
//! what the blocks mean is [`store`](crate::store)'s.

pub mod reads;
mod size;

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use exos_fs::Block;
use hashbrown::{HashMap, HashSet};

use crate::counters::Counters;
use crate::frame::{self, FRAME_BLOCKS, Memory, Slice};
use crate::policy::{Fate, KeyHash, Policy};

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ticket {
    /// A frame on its way.
    Arrival(Residence),
    /// A frame that is not in use.
    Room,
}

impl Ticket {
    /// A number that [`from_number`](Ticket::from_number) makes the same ticket of.
    pub fn to_number(self) -> u64 {
        match self {
            Ticket::Arrival(at) => u64::from(at.place) << 32 | u64::from(at.generation),
            // No place has this number.
            Ticket::Room => u64::MAX,
        }
    }

    /// The ticket that was made this number of.
    pub fn from_number(number: u64) -> Ticket {
        match number {
            u64::MAX => Ticket::Room,
            number => Ticket::Arrival(Residence { place: (number >> 32) as u32, generation: number as u32 }),
        }
    }
}

/// Fewer frames than this could not hold what a handful of streams need at once.
const MIN_FRAMES: usize = 16;
/// What became of the wish for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It is there.
    Resident(Residence),
    /// It is on its way, or waits for room.
    Pending(Ticket),
    /// The disk could not read it just now.
    Failed,
}

/// A place, as long as it holds the same frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Residence {
    place: u32,
    generation: u32,
}

/// What blocks of a frame were found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckedAs {
    Metadata,
    Data,
}

/// Whether looking at a block says that its frame is worth keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// It does.
    AsUse,
    /// It does not: checksums are looked at for each piece of the same stream.
    No,
}

#[derive(Debug)]
struct Place<W> {
    key: u64,
    generation: u32,
    state: State<W>,
}

#[derive(Debug)]
enum State<W> {
    /// Wanted; `memory` is here until the read is handed out.
    Reading { memory: Option<Memory>, waiters: Vec<W> },
    /// There. A bit for each block that was checked, by what it was checked as.
    Resident { memory: Rc<Memory>, metadata: Cell<u64>, data: Cell<u64>, fresh: Cell<Fresh> },
    /// The read failed and some who waited may not know yet.
    Failed { memory: Memory },
    /// Nothing.
    Vacant { memory: Memory },
    /// Nothing, nor memory for something: that was given back.
    Gone,
}

/// Whether the one for whom a frame was read has used it: the first use is no sign that there will be others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fresh {
    Yes,
    /// Neither has it used the frame, nor could it be thrown out the first time that would have been its turn.
    Passed,
    No,
}

/// The frames. `W` is whoever waits.
#[derive(Debug)]
pub struct Cache<W> {
    places: Vec<Place<W>>,
    by_key: HashMap<u64, u32, KeyHash>,
    policy: Policy,
    max_frames: usize,
    /// Memory from this address on goes as soon as nobody uses it.
    end: usize,
    /// Places that are [`State::Gone`].
    gone: Vec<u32>,
    device_blocks: u64,
    /// Reads that were not handed out yet.
    to_read: VecDeque<u32>,
    /// Who waits for a frame that is not in use.
    room_waiters: VecDeque<W>,
    /// Frames that could not be read or are not what they should be, as long as those who waited may not know.
    failed: Vec<Residence>,
    /// Places whose frames are to be read alone, because a read together with others failed.
    single: HashSet<u32, KeyHash>,
    /// The places that a read on its way fills.
    in_flight: HashMap<u64, Vec<u32>, KeyHash>,
    next_read: u64,
    pub(crate) counters: Counters,
}

impl<W> Cache<W> {
    /// A cache of up to `max_frames` frames of [`FRAME_BYTES`](crate::FRAME_BYTES), at least 16, for a disk of
    /// `device_blocks` blocks. Memory is taken as it is needed.
    pub fn new(max_frames: usize, device_blocks: u64) -> Cache<W> {
        const { assert!(FRAME_BLOCKS <= u64::BITS as u64) };
        let max_frames = max_frames.clamp(MIN_FRAMES, u32::MAX as usize / 2);
        Cache {
            places: Vec::new(),
            by_key: HashMap::default(),
            policy: Policy::new(max_frames),
            max_frames,
            end: usize::MAX,
            gone: Vec::new(),
            device_blocks,
            to_read: VecDeque::new(),
            room_waiters: VecDeque::new(),
            failed: Vec::new(),
            single: HashSet::default(),
            in_flight: HashMap::default(),
            next_read: 0,
            counters: Counters::default(),
        }
    }

    /// What the cache has done.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Frames that hold memory.
    pub fn frames(&self) -> usize {
        self.places.len() - self.gone.len()
    }

    /// Frames at most.
    pub fn max_frames(&self) -> usize {
        self.max_frames
    }

    /// Waits. A waiter whose ticket has completed meanwhile is given back: it may ask again at once.
    pub fn wait(&mut self, ticket: Ticket, waiter: W) -> Result<(), W> {
        match ticket {
            Ticket::Room => {
                self.counters.room_waits += 1;
                self.room_waiters.push_back(waiter);
                Ok(())
            }
            Ticket::Arrival(at) => match self.places.get_mut(at.place as usize) {
                Some(Place { generation, state: State::Reading { waiters, .. }, .. })
                    if *generation == at.generation =>
                {
                    waiters.push(waiter);
                    Ok(())
                }
                _ => Err(waiter),
            },
        }
    }

    /// Passes those to `tell` who wait for room, one for each frame that is not in use. To be called when references may
    /// have been given back.
    pub fn tell_room_waiters(&mut self, mut tell: impl FnMut(W)) {
        if self.room_waiters.is_empty() {
            return;
        }
        let mut room = self.max_frames.saturating_sub(self.frames());
        room += self.places.iter().filter(|place| fate(place) != Fate::InUse).count();
        for waiter in self.room_waiters.drain(..room.min(self.room_waiters.len())) {
            tell(waiter);
        }
    }

    /// Wants the block, for whoever asks now.
    pub(crate) fn want(&mut self, block: u64) -> Wanted {
        if let Some(number) = self.by_key.get(&(block / FRAME_BLOCKS)).copied() {
            let place = &self.places[number as usize];
            return match &place.state {
                State::Resident { .. } => {
                    Wanted::Resident(Residence { place: number, generation: place.generation })
                }
                State::Failed { .. } => Wanted::Failed,
                _ => {
                    self.counters.joined += 1;
                    Wanted::Pending(Ticket::Arrival(Residence {
                        place: number,
                        generation: place.generation,
                    }))
                }
            };
        }
        match self.begin_read(block / FRAME_BLOCKS) {
            Some(at) => {
                self.counters.misses += 1;
                Wanted::Pending(Ticket::Arrival(at))
            }
            None => Wanted::Pending(Ticket::Room),
        }
    }

    /// Where a block lies that is there.
    #[inline]
    pub(crate) fn residence(&self, block: u64) -> Option<Residence> {
        let number = *self.by_key.get(&(block / FRAME_BLOCKS))?;
        let place = &self.places[number as usize];
        matches!(place.state, State::Resident { .. })
            .then_some(Residence { place: number, generation: place.generation })
    }

    /// Wants the block for later. Returns whether it is there or on its way.
    pub(crate) fn want_ahead(&mut self, block: u64) -> bool {
        let key = block / FRAME_BLOCKS;
        if block >= self.device_blocks || self.by_key.contains_key(&key) {
            return true;
        }
        let begun = self.begin_read(key).is_some();
        self.counters.read_ahead += u64::from(begun);
        begun
    }

    fn begin_read(&mut self, key: u64) -> Option<Residence> {
        let blocks = self.device_blocks.saturating_sub(key * FRAME_BLOCKS).min(FRAME_BLOCKS);
        let number = self.room(blocks)?;
        let place = self.places.get_mut(number as usize)?;
        let State::Vacant { memory } = &mut place.state else { return None };
        let memory = Some(core::mem::take(memory));
        place.key = key;
        place.generation = place.generation.wrapping_add(1);
        place.state = State::Reading { memory, waiters: Vec::new() };
        self.by_key.insert(key, number);
        self.policy.inserted(number, key);
        self.to_read.push_back(number);
        Some(Residence { place: number, generation: place.generation })
    }

    /// A vacant place with memory for so many blocks, that is in no queue.
    fn room(&mut self, blocks: u64) -> Option<u32> {
        loop {
            if self.frames() < self.max_frames {
                if let Some(memory) = frame::allocate(blocks) {
                    return Some(self.place_for(memory));
                }
                // The heap is used up: this is all the room there will be.
                self.max_frames = self.frames();
            }
            let number = self.victim(blocks)?;
            let State::Vacant { memory } = &mut self.places.get_mut(number as usize)?.state else {
                return None;
            };
            if !must_go(memory, self.end) {
                return Some(number);
            }
            // There is one less now, and perhaps room for another.
            drop(core::mem::take(memory));
            self.retire(number);
        }
    }

    /// A place for other memory: one that has none, or a new one.
    fn place_for(&mut self, memory: Memory) -> u32 {
        if let Some(number) = self.gone.pop()
            && let Some(place) = self.places.get_mut(number as usize)
        {
            place.state = State::Vacant { memory };
            return number;
        }
        self.places.push(Place { key: 0, generation: 0, state: State::Vacant { memory } });
        self.places.len() as u32 - 1
    }

    /// Makes a place vacant that is not in use, with memory for so many blocks; it is in no queue then.
    fn victim(&mut self, blocks: u64) -> Option<u32> {
        let Self { policy, places, .. } = self;
        let number = policy.victim(|number| {
            let place = &places[number as usize];
            let fate = fate(place);
            if let (Fate::Awaited, State::Resident { fresh, .. }) = (fate, &place.state) {
                fresh.set(Fresh::Passed);
            }
            fate
        })?;
        let place = &mut self.places[number as usize];
        let vacant = State::Vacant { memory: Memory::default() };
        let mut memory = match core::mem::replace(&mut place.state, vacant) {
            State::Resident { memory, .. } => {
                self.by_key.remove(&place.key);
                self.counters.evictions += 1;
                // `fate` has seen that this is the only reference.
                Rc::try_unwrap(memory).unwrap_or_default()
            }
            State::Vacant { memory } => memory,
            // In use, says `fate`.
            State::Failed { .. } | State::Reading { .. } | State::Gone => Memory::default(),
        };
        let fits = memory.len() as u64 == blocks * exos_fs::BLOCK_BYTES as u64;
        if !fits && !must_go(&memory, self.end) {
            // The disk's last frame is shorter than others. Should the heap be full, the place stays vacant, with what
            // memory it has.
            match frame::allocate(blocks) {
                Some(other) => memory = other,
                None => {
                    place.state = State::Vacant { memory };
                    self.policy.inserted(number, u64::MAX);
                    return None;
                }
            }
        }
        place.state = State::Vacant { memory };
        Some(number)
    }

    /// A block that was checked as metadata, if it is there.
    pub(crate) fn metadata(&self, block: u64, count: Count) -> Option<&Block> {
        let number = *self.by_key.get(&(block / FRAME_BLOCKS))?;
        let place = &self.places[number as usize];
        let State::Resident { memory, metadata, fresh, .. } = &place.state else { return None };
        if metadata.get() & bit(block) == 0 {
            return None;
        }
        if count == Count::AsUse && fresh.replace(Fresh::No) == Fresh::No {
            self.policy.used(number);
        }
        frame::block(memory, block % FRAME_BLOCKS)
    }

    /// The content of a block that is there, checked or not.
    pub(crate) fn content(&self, at: Residence, block: u64) -> Option<&Block> {
        let State::Resident { memory, .. } = self.state(at)? else { return None };
        frame::block(memory, block % FRAME_BLOCKS)
    }

    pub(crate) fn is_checked(&self, at: Residence, block: u64, kind: CheckedAs) -> bool {
        match self.state(at) {
            Some(State::Resident { metadata, data, .. }) => {
                let bits = if kind == CheckedAs::Metadata { metadata } else { data };
                bits.get() & bit(block) != 0
            }
            _ => false,
        }
    }

    pub(crate) fn set_checked(&self, at: Residence, block: u64, kind: CheckedAs) {
        if let Some(State::Resident { metadata, data, .. }) = self.state(at) {
            let bits = if kind == CheckedAs::Metadata { metadata } else { data };
            bits.set(bits.get() | bit(block));
        }
    }

    /// A reference to bytes of the frame with `block`, from `start` in that block on; counts as a use.
    #[inline]
    pub(crate) fn slice(&mut self, at: Residence, block: u64, start: usize, len: usize) -> Option<Slice> {
        let State::Resident { memory, fresh, .. } = self.state(at)? else { return None };
        let slice = Slice::new(memory, (block % FRAME_BLOCKS) as usize * exos_fs::BLOCK_BYTES + start, len)?;
        if fresh.replace(Fresh::No) == Fresh::No {
            self.policy.used(at.place);
            self.counters.hits += 1;
        }
        Some(slice)
    }

    #[inline]
    fn state(&self, at: Residence) -> Option<&State<W>> {
        let place = self.places.get(at.place as usize)?;
        (place.generation == at.generation).then_some(&place.state)
    }
}

/// Whether a place can be taken for something else.
fn fate<W>(place: &Place<W>) -> Fate {
    match &place.state {
        State::Resident { memory, .. } if Rc::strong_count(memory) > 1 => Fate::InUse,
        // Somebody wants it and has not come yet: without this, many streams that read ahead would throw out each other's
        // frames before they are used, and read them again and again.
        State::Resident { fresh, .. } if fresh.get() == Fresh::Yes => Fate::Awaited,
        State::Resident { .. } => Fate::Key(place.key),
        State::Vacant { .. } => Fate::Empty,
        State::Reading { .. } | State::Failed { .. } | State::Gone => Fate::InUse,
    }
}

/// Whether memory lies, with any of its bytes, behind an address from which on everything goes.
fn must_go(memory: &[u8], end: usize) -> bool {
    !memory.is_empty() && memory.as_ptr().addr() + memory.len() > end
}

fn bit(block: u64) -> u64 {
    1 << (block % FRAME_BLOCKS)
}

//! The disk of a service: a queue of the machine's first disk, as the loop polls it and sleeps over it. Buffers are boxes
//! of bytes from the heap, several to a read if they should be filled one behind the other.

use abi::boot::DEVICE_BLOCK;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
pub use exos_block::{BLOCK_BYTES, Reason, Refused};
use exos_block::{DiskQueue, Failure, OpenError};
use exos_nic::Arming;
use exos_runtime::sleep::Watch;
use exos_runtime::{pages, turn};
use exos_virtqueue::guest::GuestHal;

/// What a read fills.
pub type Buffers = Vec<Box<[u8]>>;

type Queue = DiskQueue<GuestHal, Buffers, u64>;

/// Descriptors of the queue.
const SIZE: u16 = 512;
/// Descriptors of a request besides one for each buffer.
const FRAMING: usize = 2;
/// Buffers of one read at most.
const MAX_BUFFERS: usize = 16;

/// Why there is no disk to read from.
#[derive(Debug)]
pub enum DiskError {
    /// The machine has none.
    NoDisk,
    /// Its queue cannot be bound.
    Open(OpenError),
}

impl core::fmt::Display for DiskError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoDisk => {
                f.write_str("the machine has no disk; start it with --docroot DIR or --disk IMAGE")
            }
            Self::Open(error) => write!(f, "the disk's queue cannot be bound: {error}"),
        }
    }
}

/// Why a block cannot be read before anything else happens.
#[derive(Debug)]
pub enum ReadNowError {
    /// The disk does not take the request.
    Refused(Reason),
    /// It reports an error.
    Failed(Failure),
    /// The user wants the machine to end.
    Stopped,
}

impl core::fmt::Display for ReadNowError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "{reason}"),
            Self::Failed(failure) => write!(f, "{failure}"),
            Self::Stopped => f.write_str("the machine is to end"),
        }
    }
}

/// A read that is done.
#[derive(Debug)]
pub struct Done {
    /// As it was given.
    pub token: u64,
    /// As they were given, filled if the read succeeded.
    pub buffers: Buffers,
    /// What became of it.
    pub result: Result<(), Failure>,
}

/// A queue of the machine's first disk.
#[derive(Debug)]
pub struct Disk {
    /// `None` after a fault, if it could not be bound anew.
    queue: Option<Queue>,
    index: usize,
    capacity_blocks: u64,
    /// Reads that the device did not finish before it broke the rules.
    unfinished: Vec<Done>,
    /// What was polled last, as trace records name it; 0: nothing.
    last_done: u64,
}

impl Disk {
    /// Binds a queue of the first disk.
    pub fn first() -> Result<Self, DiskError> {
        let index = pages::device_of_kind(DEVICE_BLOCK).ok_or(DiskError::NoDisk)?;
        let queue = open(index).map_err(DiskError::Open)?;
        Ok(Self {
            capacity_blocks: queue.capacity_blocks(),
            queue: Some(queue),
            index,
            unfinished: Vec::new(),
            last_done: 0,
        })
    }

    /// Blocks of [`BLOCK_BYTES`] bytes.
    pub fn capacity_blocks(&self) -> u64 {
        self.capacity_blocks
    }

    /// Reads one buffer full and waits for it: for what is needed before anything is served.
    pub fn read_now(&mut self, first_block: u64, bytes: usize) -> Result<Box<[u8]>, ReadNowError> {
        let buffer = vec![vec![0; bytes].into_boxed_slice()];
        self.read(first_block, buffer, 0).map_err(|refused| ReadNowError::Refused(refused.reason))?;
        self.publish();
        loop {
            let watch = Watch::now();
            if let Some(mut done) = self.poll() {
                done.result.map_err(ReadNowError::Failed)?;
                return done.buffers.pop().ok_or(ReadNowError::Failed(Failure::Io));
            }
            if turn::stop_wanted() {
                return Err(ReadNowError::Stopped);
            }
            if !turn::wanted() {
                core::hint::spin_loop();
            } else if self.request_interrupts() == Arming::Sleep {
                watch.take_turn(0);
            }
        }
    }

    /// Whether a read of the most buffers would be taken.
    pub fn has_room(&self) -> bool {
        // Without a queue every read is refused, and whoever waits for it told.
        self.queue.as_ref().is_none_or(|queue| queue.room() >= FRAMING + MAX_BUFFERS)
    }

    /// Buffers of so many bytes that one read may have.
    pub fn max_read_frames(&self, buffer_bytes: usize) -> usize {
        let Some(queue) = &self.queue else { return 1 };
        let blocks = (buffer_bytes / BLOCK_BYTES as usize).max(1) as u64;
        let by_length = usize::try_from(queue.transfer_blocks_max() / blocks).unwrap_or(MAX_BUFFERS);
        MAX_BUFFERS.min(by_length).min(queue.pieces_max()).max(1)
    }

    /// Reads blocks from `first_block` on into the buffers, as many as they are long together. The device sees it when the
    /// loop has come round.
    pub fn read(
        &mut self,
        first_block: u64,
        buffers: Buffers,
        token: u64,
    ) -> Result<(), Refused<Buffers, u64>> {
        match &mut self.queue {
            Some(queue) => queue.read(first_block, buffers, token),
            None => Err(Refused { reason: Reason::Broken, buffer: buffers, token }),
        }
    }

    /// A read that is done, if there is one.
    #[inline]
    pub fn poll(&mut self) -> Option<Done> {
        self.last_done = 0;
        let Some(queue) = &mut self.queue else { return self.unfinished.pop() };
        if let Some(done) = queue.poll() {
            self.last_done = queue.last_done();
            return Some(Done {
                token: done.token,
                buffers: done.buffer.unwrap_or_default(),
                result: done.result,
            });
        }
        if queue.fault().is_some() {
            self.recover();
        }
        self.unfinished.pop()
    }

    /// The read that was polled last, as trace records name it; 0: none.
    pub fn last_done(&self) -> u64 {
        self.last_done
    }

    /// Takes back what the device had, unfinished, and binds the queue anew.
    #[cold]
    fn recover(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        if let Some(fault) = queue.fault() {
            log::error!("the disk: {fault}");
        }
        self.unfinished.extend(queue.close().into_iter().map(|(token, buffers)| Done {
            token,
            buffers: buffers.unwrap_or_default(),
            result: Err(Failure::Io),
        }));
        match open(self.index) {
            Ok(queue) => self.queue = Some(queue),
            Err(error) => {
                log::error!("the disk's queue cannot be bound again: {error}; nothing more is read")
            }
        }
    }

    #[inline]
    pub(crate) fn is_ready(&mut self) -> bool {
        !self.unfinished.is_empty() || self.queue.as_mut().is_some_and(Queue::is_ready)
    }

    #[inline]
    pub(crate) fn publish(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.publish();
        }
    }

    pub(crate) fn request_interrupts(&mut self) -> Arming {
        self.queue.as_mut().map_or(Arming::Sleep, Queue::request_interrupts)
    }

    pub(crate) fn suppress_interrupts(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.suppress_interrupts();
        }
    }
}

fn open(index: usize) -> Result<Queue, OpenError> {
    let device = &pages::environment().devices[index];
    DiskQueue::open(GuestHal, index as u32, device, 0, SIZE)
}

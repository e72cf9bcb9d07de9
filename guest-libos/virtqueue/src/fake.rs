//! The machine and the device's side of the queues, for host tests: what the VMM does, played over the same memory.
//! Addresses are the process's own. Knows the rules of a well-behaved device (VIRTIO 1.3 2.7) and, for hostile
//! ones, how to write anything into a used ring.
//!
//! A [`FakeQueue`] checks that its queue is still bound, so it never touches memory that was freed; unbinding while
//! another thread works on the queue is the test's mistake.

use crate::hal::Hal;
use crate::ring::{NEXT, NO_INTERRUPT, NO_NOTIFY, WRITE, crossed};
use abi::call::Error;
use abi::queue::RingLayout;
use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use core::sync::atomic::{
    AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

/// Bit number of VIRTIO_F_EVENT_IDX.
pub const EVENT_IDX: u32 = 29;

#[derive(Clone, Debug)]
struct Bound {
    base: u64,
    size: u16,
    live: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Machine {
    queues: Mutex<BTreeMap<(u32, u32), Bound>>,
    doorbells: Mutex<BTreeMap<u32, u64>>,
    rang: Condvar,
    bind_refused_for: AtomicU32,
    unbind_refused: AtomicBool,
    hidden_start: AtomicUsize,
    hidden_bytes: AtomicUsize,
}

/// A machine without a machine. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct FakeHal {
    machine: Arc<Machine>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeHal {
    /// A machine on which nothing is bound and everything works.
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses to bind this queue.
    pub fn refuse_bind(&self, queue: u32) {
        self.machine.bind_refused_for.store(queue + 1, Relaxed);
    }

    /// Refuses to unbind any queue.
    pub fn refuse_unbind(&self) {
        self.machine.unbind_refused.store(true, Relaxed);
    }

    /// The device reaches nothing from now on.
    pub fn hide_memory(&self) {
        self.machine.hidden_bytes.store(usize::MAX, Relaxed);
    }

    /// The device does not reach these bytes from now on.
    pub fn hide(&self, bytes: &[u8]) {
        self.machine.hidden_start.store(bytes.as_ptr().addr(), Relaxed);
        self.machine.hidden_bytes.store(bytes.len(), Relaxed);
    }

    /// The numbers of the bound queues of the first device.
    pub fn bound(&self) -> Vec<u32> {
        lock(&self.machine.queues).keys().map(|&(_, queue)| queue).collect()
    }

    /// How often the doorbell of a queue was rung.
    pub fn doorbells(&self, queue: u32) -> u64 {
        lock(&self.machine.doorbells).get(&queue).copied().unwrap_or(0)
    }

    /// Waits until the doorbell of a queue was rung more than `seen` times. False: it was not, within five seconds.
    pub fn wait_for_doorbell(&self, queue: u32, seen: u64) -> bool {
        let doorbells = lock(&self.machine.doorbells);
        let more = |rung: &mut BTreeMap<u32, u64>| rung.get(&queue).copied().unwrap_or(0) <= seen;
        match self.machine.rang.wait_timeout_while(doorbells, Duration::from_secs(5), more) {
            Ok((_, result)) => !result.timed_out(),
            Err(_) => false,
        }
    }

    /// The device's side of a bound queue of the first device, as a device with these features plays it.
    ///
    /// # Panics
    /// If the queue is not bound.
    pub fn queue(&self, queue: u32, features: u64) -> FakeQueue {
        let bound = lock(&self.machine.queues).get(&(0, queue)).cloned().expect("the queue is bound");
        FakeQueue {
            layout: RingLayout::new(bound.size).expect("checked by bind"),
            bound,
            event_index: features >> EVENT_IDX & 1 == 1,
            available: 0,
            used: 0,
            signalled: 0,
        }
    }
}

// SAFETY: addresses are the process's own, so they name exactly the bytes; a `FakeQueue` does nothing once its queue is
// unbound.
unsafe impl Hal for FakeHal {
    #[inline]
    fn device_address(&self, start: *const u8, len_bytes: usize) -> Option<u64> {
        let address = start.expose_provenance();
        let hidden_start = self.machine.hidden_start.load(Relaxed);
        let hidden_end = hidden_start.saturating_add(self.machine.hidden_bytes.load(Relaxed));
        let hidden = address < hidden_end && hidden_start < address + len_bytes;
        if hidden { None } else { Some(address as u64) }
    }

    fn bind(&mut self, device: u32, queue: u32, base: u64, size: u16) -> Result<(), Error> {
        if self.machine.bind_refused_for.load(Relaxed) == queue + 1 {
            return Err(Error::NotPermitted);
        }
        if !base.is_multiple_of(4096) || RingLayout::new(size).is_none() {
            return Err(Error::BadArgument);
        }
        let mut queues = lock(&self.machine.queues);
        if queues.contains_key(&(device, queue)) {
            return Err(Error::Busy);
        }
        queues.insert((device, queue), Bound { base, size, live: Arc::new(AtomicBool::new(true)) });
        Ok(())
    }

    fn unbind(&mut self, device: u32, queue: u32) -> Result<(), Error> {
        if self.machine.unbind_refused.load(Relaxed) {
            return Err(Error::DeviceFailed);
        }
        let bound = lock(&self.machine.queues).remove(&(device, queue)).ok_or(Error::NotFound)?;
        bound.live.store(false, SeqCst);
        Ok(())
    }

    fn doorbell(&self, _device: u32, queue: u32) {
        *lock(&self.machine.doorbells).entry(queue).or_default() += 1;
        self.machine.rang.notify_all();
    }
}

/// One descriptor of a chain, as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address.
    pub address: u64,
    /// Length.
    pub len_bytes: u32,
    /// True: the device writes.
    pub device_writes: bool,
}

/// A chain that the device has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenChain {
    /// Its first descriptor: what the device gives back.
    pub head: u16,
    /// Its descriptors.
    pub segments: Vec<Segment>,
}

impl TakenChain {
    /// All bytes of the chain that the device reads.
    pub fn gather(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for segment in self.segments.iter().filter(|segment| !segment.device_writes) {
            let start = with_exposed_provenance::<u8>(segment.address as usize);
            // SAFETY: the driver exposed this memory and keeps it while the chain is with the device.
            bytes
                .extend_from_slice(unsafe { core::slice::from_raw_parts(start, segment.len_bytes as usize) });
        }
        bytes
    }
}

/// Whether the driver asked to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The driver wants an interrupt.
    Interrupt,
    /// It does not.
    Quiet,
}

/// The device's side of one queue.
#[derive(Debug)]
pub struct FakeQueue {
    bound: Bound,
    layout: RingLayout,
    event_index: bool,
    available: u16,
    used: u16,
    signalled: u16,
}

impl FakeQueue {
    #[inline]
    fn word<W>(&self, offset: u64) -> &W {
        assert!(self.bound.live.load(Relaxed), "the queue is bound");
        assert!(offset + size_of::<W>() as u64 <= self.layout.len_bytes());
        let address = with_exposed_provenance::<W>((self.bound.base + offset) as usize);
        // SAFETY: within the ring's block, which the driver keeps while the queue is bound; `W` is an atomic integer at
        // its natural alignment (the offsets are those of `RingLayout`), and the driver accesses it atomically, too.
        unsafe { &*address }
    }

    fn slot(&self, index: u16) -> u64 {
        u64::from(index & (self.layout.size - 1))
    }

    fn available_word(&self, number: u64) -> &AtomicU16 {
        self.word(self.layout.available_offset() + 2 * number)
    }

    fn available_event(&self) -> &AtomicU16 {
        self.word(self.layout.used_offset() + 4 + 8 * u64::from(self.layout.size))
    }

    /// How many chains the driver has published and the device has not taken.
    pub fn waiting(&self) -> u16 {
        self.available_word(1).load(Acquire).wrapping_sub(self.available)
    }

    /// Takes the next chain.
    ///
    /// # Panics
    /// If the driver's chain is longer than the queue or leads out of the table.
    pub fn take(&mut self) -> Option<TakenChain> {
        if self.waiting() == 0 {
            return None;
        }
        let head = self.available_word(2 + self.slot(self.available)).load(Relaxed);
        self.available = self.available.wrapping_add(1);
        let mut segments = Vec::new();
        let mut number = head;
        loop {
            assert!(number < self.layout.size && segments.len() < usize::from(self.layout.size));
            let (address, rest) = self.descriptor(number);
            let flags = (rest >> 32) as u16;
            segments.push(Segment { address, len_bytes: rest as u32, device_writes: flags & WRITE != 0 });
            if flags & NEXT == 0 {
                return Some(TakenChain { head, segments });
            }
            number = (rest >> 48) as u16;
        }
    }

    #[inline]
    fn descriptor(&self, number: u16) -> (u64, u64) {
        let offset = self.layout.descriptors_offset() + 16 * u64::from(number);
        (self.word::<AtomicU64>(offset).load(Relaxed), self.word::<AtomicU64>(offset + 8).load(Relaxed))
    }

    /// Gives a chain back. The driver sees it with the next [`Self::publish`].
    #[inline]
    pub fn give_back(&mut self, head: u16, len_bytes: u32) {
        self.write_used(self.used, u32::from(head), len_bytes);
        self.used = self.used.wrapping_add(1);
    }

    /// Publishes what was given back; says whether the driver wants an interrupt.
    pub fn publish(&mut self) -> Signal {
        self.write_used_index(self.used);
        fence(SeqCst);
        let (old, new) = (self.signalled, self.used);
        self.signalled = new;
        let wanted = if self.event_index {
            crossed(self.available_word(2 + u64::from(self.layout.size)).load(Relaxed), new, old)
        } else {
            old != new && self.available_word(0).load(Relaxed) & NO_INTERRUPT == 0
        };
        if wanted { Signal::Interrupt } else { Signal::Quiet }
    }

    /// Asks for a doorbell with the next published chain, and gives how many are waiting already.
    pub fn request_doorbell(&mut self) -> u16 {
        if self.event_index {
            self.available_event().store(self.available, Relaxed);
        } else {
            self.word::<AtomicU16>(self.layout.used_offset()).store(0, Relaxed);
        }
        fence(SeqCst);
        self.waiting()
    }

    /// Asks for no doorbells.
    pub fn suppress_doorbell(&mut self) {
        if self.event_index {
            self.available_event().store(self.available.wrapping_sub(1), Relaxed);
        } else {
            self.word::<AtomicU16>(self.layout.used_offset()).store(NO_NOTIFY, Relaxed);
        }
    }

    /// Writes any used entry.
    #[inline]
    pub fn write_used(&mut self, index: u16, id: u32, len_bytes: u32) {
        let offset = self.layout.used_offset() + 4 + 8 * self.slot(index);
        self.word::<AtomicU32>(offset).store(id, Relaxed);
        self.word::<AtomicU32>(offset + 4).store(len_bytes, Relaxed);
    }

    /// Writes any used index.
    #[inline]
    pub fn write_used_index(&mut self, index: u16) {
        self.word::<AtomicU16>(self.layout.used_offset() + 2).store(index, Release);
    }

    /// The used index that comes next.
    pub fn used_index(&self) -> u16 {
        self.used
    }

    /// The head and the only descriptor of the chain that is `ahead` of the next one, which is not taken.
    ///
    /// # Panics
    /// If the chain has more descriptors.
    #[inline]
    pub fn peek(&self, ahead: u16) -> (u16, Segment) {
        let head = self.available_word(2 + self.slot(self.available.wrapping_add(ahead))).load(Relaxed);
        let (address, rest) = self.descriptor(head);
        let flags = (rest >> 32) as u16;
        assert!(flags & NEXT == 0, "a buffer is one descriptor");
        (head, Segment { address, len_bytes: rest as u32, device_writes: flags & WRITE != 0 })
    }

    /// Takes the next `count` chains that were looked at with [`Self::peek`].
    #[inline]
    pub fn pass(&mut self, count: u16) {
        self.available = self.available.wrapping_add(count);
    }

    /// Writes into a segment that the device may write.
    ///
    /// # Panics
    /// If the bytes do not fit.
    #[inline]
    pub fn write(&mut self, segment: Segment, offset: usize, bytes: &[u8]) {
        assert!(self.bound.live.load(Relaxed), "the queue is bound");
        assert!(segment.device_writes && offset + bytes.len() <= segment.len_bytes as usize);
        let start = with_exposed_provenance_mut::<u8>(segment.address as usize + offset);
        // SAFETY: the driver exposed the buffer, gave it to the device and keeps it while the queue is bound.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
    }
}

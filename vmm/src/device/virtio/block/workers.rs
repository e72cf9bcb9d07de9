//! The threads that wait for the disk, so that nobody else has to: reads that the host has not at hand, writes, flushes,
//! discards. They start when there is something for them, and end with the disk.
//!
//! A job holds the memory that its pieces lie in. It touches guest memory only through its data pieces, and asks the DMA domain
//! and the extent table before; status and rings are for the device work, which picks finished jobs up.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use vmm_sys_util::eventfd::EventFd;

use abi::queue::QUEUES_PER_DEVICE;

use super::request::Task;
use crate::account::ledger::{Bucket, Ledger};
use crate::backend::PinnedMemory;
use crate::backend::disk::{Input, Output, StatusByte, Store};
use crate::tables::{ExtentError, Extents};

/// Most threads of a disk: requests that wait at the same time.
pub const WORKERS_MAX: usize = 4;

/// A request that may wait.
#[derive(Debug)]
pub(super) struct Job<M> {
    pub(super) queue: u16,
    pub(super) environment: u32,
    pub(super) head: u16,
    /// As records name it, and when it was taken.
    pub(super) subject: u64,
    pub(super) taken_tsc: u64,
    pub(super) task: Task,
    /// Bytes of a read that are there already; `input` is the rest.
    pub(super) done_bytes: u64,
    pub(super) output: Output,
    pub(super) input: Input,
    pub(super) status: StatusByte,
    /// Keeps the pieces' memory.
    pub(super) memory: M,
}

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The host said so.
    #[error("{0}")]
    Host(#[from] io::Error),
    /// The pages were taken from the DMA domain while the request waited.
    #[error("the pages at {gpa:#x} left the environment's DMA domain while the request waited")]
    Revoked { gpa: u64 },
    /// So were its blocks.
    #[error("while the request waited: {0}")]
    Extent(#[from] ExtentError),
}

/// A job that is done.
#[derive(Debug)]
pub(super) struct Done<M> {
    pub(super) job: Job<M>,
    pub(super) result: Result<(), Failure>,
}

struct State<M> {
    jobs: VecDeque<Job<M>>,
    done: Vec<Done<M>>,
    /// Jobs that threads are at.
    running: Vec<Running>,
    /// Jobs that threads have begun so far.
    begun: u64,
    /// Queues whose jobs nobody wants any more that threads were at when they were reset.
    forgotten: [bool; QUEUES_PER_DEVICE],
    /// Threads that wait for a job.
    idle: usize,
    stopping: bool,
}

/// A job that a thread is at.
#[derive(Clone, Copy, Debug)]
struct Running {
    /// Which of all that were begun.
    number: u64,
    queue: u16,
    environment: u32,
}

impl<M> State<M> {
    /// Whether a thread is at a job of this queue.
    fn is_at(&self, queue: u16) -> bool {
        self.running.iter().any(|running| running.queue == queue)
    }
}

struct Shared<M> {
    state: Mutex<State<M>>,
    /// There is a job, or the end.
    work: Condvar,
    /// How many lie in [`State::done`]: what the device work reads at each look.
    finished: AtomicUsize,
    /// Written when a job is finished.
    event: EventFd,
    store: Arc<dyn Store>,
    extents: Extents,
    device_index: u32,
}

impl<M> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads of a disk.
pub(super) struct Workers<M> {
    shared: Arc<Shared<M>>,
    threads: Vec<JoinHandle<()>>,
    ledgers: Vec<Arc<Ledger>>,
}

impl<M> std::fmt::Debug for Workers<M> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Workers({})", self.threads.len())
    }
}

impl<M: PinnedMemory> Workers<M> {
    /// No threads yet. `event` becomes readable when a job is finished.
    pub(super) fn new(store: Arc<dyn Store>, extents: Extents, device_index: u32, event: EventFd) -> Self {
        let state = State {
            jobs: VecDeque::new(),
            done: Vec::new(),
            running: Vec::with_capacity(WORKERS_MAX),
            begun: 0,
            forgotten: [false; QUEUES_PER_DEVICE],
            idle: 0,
            stopping: false,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                work: Condvar::new(),
                finished: AtomicUsize::new(0),
                event,
                store,
                extents,
                device_index,
            }),
            threads: Vec::new(),
            ledgers: (0..WORKERS_MAX).map(|_| Arc::default()).collect(),
        }
    }

    /// One a thread that there is or may be.
    pub(super) fn ledgers(&self) -> &[Arc<Ledger>] {
        &self.ledgers
    }

    /// Whether a finished job waits to be picked up.
    #[inline]
    pub(super) fn has_finished(&self) -> bool {
        self.shared.finished.load(Ordering::Acquire) != 0
    }

    /// Hands a job over.
    pub(super) fn submit(&mut self, job: Job<M>) {
        let mut state = self.shared.lock();
        state.jobs.push_back(job);
        let more = state.jobs.len() > state.idle && self.threads.len() < WORKERS_MAX;
        drop(state);
        if more && let Err(error) = self.start_thread() {
            tracing::error!("a thread for the disk cannot be started: {error}");
            if self.threads.is_empty() {
                self.fail_all(&error);
            }
        }
        self.shared.work.notify_one();
    }

    fn start_thread(&mut self) -> io::Result<()> {
        let (shared, ledger) = (Arc::clone(&self.shared), Arc::clone(&self.ledgers[self.threads.len()]));
        let thread = std::thread::Builder::new().name("exovm-disk".to_owned()).spawn(move || {
            crate::trace::own::begin_thread(&ledger);
            shared.run(&ledger);
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// There is nobody to do them.
    fn fail_all(&self, error: &io::Error) {
        let mut state = self.shared.lock();
        while let Some(job) = state.jobs.pop_front() {
            let result = Err(Failure::Host(io::Error::from(error.kind())));
            state.done.push(Done { job, result });
        }
        self.shared.finished.store(state.done.len(), Ordering::Release);
    }

    /// Moves all finished jobs to `out`.
    pub(super) fn take_finished(&self, out: &mut Vec<Done<M>>) {
        let mut state = self.shared.lock();
        out.append(&mut state.done);
        self.shared.finished.store(0, Ordering::Release);
    }

    /// Forgets the jobs of a queue. Memory of those that threads are at may be touched until [`Self::is_at`] says no; none of
    /// them shows among the finished.
    pub(super) fn forget(&self, queue: u16) {
        let mut state = self.shared.lock();
        state.jobs.retain(|job| job.queue != queue);
        state.done.retain(|done| done.job.queue != queue);
        state.forgotten[usize::from(queue)] = state.is_at(queue);
        self.shared.finished.store(state.done.len(), Ordering::Release);
    }

    /// Whether a thread is at a job of this queue.
    pub(super) fn is_at(&self, queue: u16) -> bool {
        self.shared.lock().is_at(queue)
    }
}

impl<M> Workers<M> {
    /// What threads are at for an environment.
    pub(super) fn in_flight(&self, environment: u32) -> InFlight<M> {
        let state = self.shared.lock();
        let own = state.running.iter().filter(|running| running.environment == environment);
        let numbers = own.map(|running| running.number).collect();
        drop(state);
        InFlight { shared: Arc::clone(&self.shared), numbers }
    }
}

impl<M> Drop for Workers<M> {
    /// What no thread has begun is not done: its driver was never told that it was.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        state.jobs.clear();
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the disk panicked");
            }
        }
    }
}

impl<M: PinnedMemory> Shared<M> {
    /// A thread's life.
    fn run(&self, ledger: &Ledger) {
        ledger.begin_thread();
        ledger.enter(Bucket::Disk(self.device_index as u8));
        while let Some((number, job)) = self.next_job(ledger) {
            let queue = job.queue;
            let result = self.execute(&job, ledger);
            ledger.enter(Bucket::Disk(self.device_index as u8));
            let mut state = self.lock();
            state.running.retain(|running| running.number != number);
            if state.forgotten[usize::from(queue)] {
                state.forgotten[usize::from(queue)] = state.is_at(queue);
                continue;
            }
            state.done.push(Done { job, result });
            self.finished.store(state.done.len(), Ordering::Release);
            drop(state);
            // A full counter means that it is readable already.
            let _ = self.event.write(1);
        }
    }

    /// Does a job if its environment still holds the blocks.
    fn execute(&self, job: &Job<M>, ledger: &Ledger) -> Result<(), Failure> {
        if let Some((blocks, rights)) = job.task.needs() {
            self.extents.check(job.environment, self.device_index, blocks.start, blocks.count, rights)?;
        }
        execute(&*self.store, self.device_index as u8, job, ledger)
    }

    /// Waits for a job, and counts it; `None`: the end.
    fn next_job(&self, ledger: &Ledger) -> Option<(u64, Job<M>)> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                let number = state.begun;
                state.begun += 1;
                state.running.push(Running { number, queue: job.queue, environment: job.environment });
                return Some((number, job));
            }
            state.idle += 1;
            ledger.enter(Bucket::Wait);
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            ledger.enter(Bucket::Disk(self.device_index as u8));
            state.idle -= 1;
        }
    }
}

/// What threads were at when it was asked for.
pub struct InFlight<M> {
    shared: Arc<Shared<M>>,
    numbers: Vec<u64>,
}

impl<M> InFlight<M> {
    /// How many requests it was, besides those that were forgotten since.
    pub fn requests(&self) -> usize {
        self.numbers.len()
    }

    /// Forgets what is done.
    pub fn forget(&mut self) {
        let state = self.shared.lock();
        self.numbers.retain(|number| state.running.iter().any(|running| running.number == *number));
    }
}

/// Does a job, however long it takes.
fn execute<M: PinnedMemory>(
    store: &dyn Store,
    device: u8,
    job: &Job<M>,
    ledger: &Ledger,
) -> Result<(), Failure> {
    let revoked = |(gpa, _)| Failure::Revoked { gpa };
    match job.task {
        Task::Read(blocks) => {
            job.input.check(&job.memory).map_err(revoked)?;
            ledger.enter(Bucket::DiskRead(device));
            let end = blocks.offset() + blocks.len_bytes();
            let mut input = job.input.clone();
            while input.bytes() > 0 {
                match store.read(end - input.bytes() as u64, input.list())? {
                    0 => return Err(ended(store, "read")),
                    len => input.consume(len),
                }
            }
        }
        Task::Write(blocks) => {
            job.output.check(&job.memory).map_err(revoked)?;
            ledger.enter(Bucket::DiskWrite(device));
            let end = blocks.offset() + blocks.len_bytes();
            let mut output = job.output.clone();
            while output.bytes() > 0 {
                match store.write(end - output.bytes() as u64, output.list())? {
                    0 => return Err(ended(store, "write")),
                    len => output.consume(len),
                }
            }
        }
        Task::Flush => {
            ledger.enter(Bucket::DiskFlush(device));
            store.flush()?;
        }
        Task::Discard(blocks) => {
            ledger.enter(Bucket::DiskWrite(device));
            store.discard(blocks.offset(), blocks.len_bytes())?;
        }
        Task::WriteZeroes(blocks, zeroing) => {
            ledger.enter(Bucket::DiskWrite(device));
            store.write_zeroes(blocks.offset(), blocks.len_bytes(), zeroing)?;
        }
        // Answered at once.
        Task::Identify => {}
    }
    Ok(())
}

/// The image ends before its end.
fn ended(store: &dyn Store, what: &str) -> Failure {
    let text =
        format!("{what} met the end of the image before its {} bytes: it was cut short", store.len_bytes());
    Failure::Host(io::Error::new(io::ErrorKind::UnexpectedEof, text))
}

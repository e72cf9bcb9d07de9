//! The threads that wait for the disk, so that nobody else has to: reads that the host has not at hand, writes, flushes,
//! discards. They start when there is something for them, and end with the disk.
//!
//! A job holds the memory that its pieces lie in. It touches guest memory only through its data pieces, and asks the DMA domain
//! before; status and rings are for the device work, which picks finished jobs up.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use abi::queue::QUEUES_PER_DEVICE;
use vmm_sys_util::eventfd::EventFd;

use super::request::Task;
use crate::account::ledger::{Bucket, Ledger};
use crate::backend::PinnedMemory;
use crate::backend::disk::{Input, Output, StatusByte, Store};

/// Most threads of a disk: requests that wait at the same time.
pub const WORKERS_MAX: usize = 4;

/// A request that may wait.
#[derive(Debug)]
pub(super) struct Job<M> {
    pub(super) queue: u16,
    pub(super) head: u16,
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
    /// Jobs that threads are at, by queue.
    running: [usize; QUEUES_PER_DEVICE],
    /// Queues whose jobs nobody wants any more that threads were at when they were reset.
    forgotten: [bool; QUEUES_PER_DEVICE],
    /// Threads that wait for a job.
    idle: usize,
    stopping: bool,
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
    pub(super) fn new(store: Arc<dyn Store>, event: EventFd) -> Self {
        let state = State {
            jobs: VecDeque::new(),
            done: Vec::new(),
            running: [0; QUEUES_PER_DEVICE],
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
        let thread =
            std::thread::Builder::new().name("exovm-disk".to_owned()).spawn(move || shared.run(&ledger))?;
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
        let number = usize::from(queue);
        state.forgotten[number] = state.running[number] > 0;
        self.shared.finished.store(state.done.len(), Ordering::Release);
    }

    /// Whether a thread is at a job of this queue.
    pub(super) fn is_at(&self, queue: u16) -> bool {
        self.shared.lock().running[usize::from(queue)] > 0
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
        ledger.enter(Bucket::Disk);
        while let Some(job) = self.next_job(ledger) {
            let queue = usize::from(job.queue);
            let result = execute(&*self.store, &job, ledger);
            ledger.enter(Bucket::Disk);
            let mut state = self.lock();
            state.running[queue] -= 1;
            if state.forgotten[queue] {
                state.forgotten[queue] = state.running[queue] > 0;
                continue;
            }
            state.done.push(Done { job, result });
            self.finished.store(state.done.len(), Ordering::Release);
            drop(state);
            // A full counter means that it is readable already.
            let _ = self.event.write(1);
        }
    }

    /// Waits for a job; `None`: the end.
    fn next_job(&self, ledger: &Ledger) -> Option<Job<M>> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                state.running[usize::from(job.queue)] += 1;
                return Some(job);
            }
            state.idle += 1;
            ledger.enter(Bucket::Wait);
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            ledger.enter(Bucket::Disk);
            state.idle -= 1;
        }
    }
}

/// Does a job, however long it takes.
fn execute<M: PinnedMemory>(store: &dyn Store, job: &Job<M>, ledger: &Ledger) -> Result<(), Failure> {
    let revoked = |(gpa, _)| Failure::Revoked { gpa };
    match job.task {
        Task::Read(blocks) => {
            job.input.check(&job.memory).map_err(revoked)?;
            ledger.enter(Bucket::DiskRead);
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
            ledger.enter(Bucket::DiskWrite);
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
            ledger.enter(Bucket::DiskFlush);
            store.flush()?;
        }
        Task::Discard(blocks) => {
            ledger.enter(Bucket::DiskWrite);
            store.discard(blocks.offset(), blocks.len_bytes())?;
        }
        Task::WriteZeroes(blocks, zeroing) => {
            ledger.enter(Bucket::DiskWrite);
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

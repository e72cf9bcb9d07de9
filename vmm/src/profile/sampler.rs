//! The thread that takes samples for one client: when, of whom, and what becomes of those that come late.
//!
//! The moments are so many a second, each somewhere in the first half of its period, so that they do not keep step with
//! anything that the guest does regularly. At a moment each thread is looked at: one that has not begun is passed over, one in
//! the VMM's code is told by its ledger, a vCPU in the guest is asked unless it sleeps. A vCPU that has not answered by the
//! next moment is not asked again, but kicked again; that moment is missed.

use super::names::Names;
use super::sight::{Guest, Mailbox, Sight};
use super::stream::{Begin, Counts, Frame, Item, Sample, ThreadCounts};
use super::thread_state::ThreadState;
use crate::account::ledger::{Bucket, Ledger, now_tsc};
use crate::machine::Shared;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

/// Most bytes that wait for the client.
const OUTPUT_BYTES: usize = 256 << 10;
/// Bytes that are worth a system call of their own.
const FLUSH_BYTES: usize = 16 << 10;
/// How often the client hears, whatever there is.
const NEWS: Duration = Duration::from_millis(200);
/// How long a client may take for the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A vCPU that has not answered after so long is kicked again: see [`crate::machine::desk`].
const KICK_AGAIN: Duration = Duration::from_millis(1);

/// A thread that is looked at.
struct Watched {
    ledger: Arc<Ledger>,
    vcpu: Option<Vcpu>,
    counts: ThreadCounts,
}

/// What is there if it is a vCPU's.
struct Vcpu {
    number: u32,
    mailbox: Arc<Mailbox>,
    state: Option<ThreadState>,
}

/// The samples of one client.
pub(super) struct Sampler {
    shared: Arc<Shared>,
    guest: Arc<Guest>,
    names: Names,
    watched: Vec<Watched>,
    period: Duration,
    counts: Counts,
    output: Output,
    wake: Arc<EventFd>,
    machine_ended: Arc<AtomicBool>,
    /// State of the generator of moments.
    random: u64,
}

impl Sampler {
    pub(super) fn new(
        shared: Arc<Shared>,
        hz: u32,
        socket: UnixStream,
        wake: Arc<EventFd>,
        machine_ended: Arc<AtomicBool>,
    ) -> Self {
        let guest = Guest { memory: Arc::clone(&shared.memory), reporter: Arc::clone(&shared.reporter) };
        let vcpus = shared.team.vcpus();
        let watched: Vec<_> = (0u32..)
            .zip(&shared.ledgers)
            .map(|(number, (_, ledger))| Watched {
                ledger: Arc::clone(ledger),
                // The vCPUs come first.
                vcpu: (number < vcpus).then(|| Vcpu::new(number)),
                counts: ThreadCounts::default(),
            })
            .collect();
        let begin = Begin {
            hz,
            tsc_khz: shared.tsc_khz,
            image: shared.reporter.image().manifest.name.clone(),
            threads: shared.ledgers.iter().map(|(name, _)| name.clone()).collect(),
            has_symbols: !shared.reporter.image().program.symbols.is_empty(),
        };
        let mut output = Output { socket, waiting: Vec::new(), gone: false };
        output.put(&Item::Begin(begin));
        Self {
            guest: Arc::new(guest),
            names: Names::default(),
            watched,
            period: Duration::from_secs(1) / hz,
            counts: Counts::default(),
            output,
            wake,
            machine_ended,
            random: now_tsc() | 1,
            shared,
        }
    }

    /// Until the client has enough, or has gone, or the machine ends.
    pub(super) fn run(mut self) {
        for watched in &mut self.watched {
            if let Some(vcpu) = &mut watched.vcpu {
                vcpu.state = vcpu.find_thread(&self.shared);
            }
        }
        let begun = Instant::now();
        let (mut number, mut told) = (0u64, Duration::ZERO);
        self.output.flush();
        let machine_ended = loop {
            let moment = self.moment(number);
            if let Some(ended) = self.wait_until(begun, moment) {
                break ended;
            }
            let elapsed = begun.elapsed();
            // Moments that this thread slept through are missed.
            let now = (elapsed.as_nanos() / self.period.as_nanos()) as u64;
            let skipped = now.saturating_sub(number);
            number += skipped + 1;
            self.look(skipped);
            self.counts.elapsed_us = elapsed.as_micros() as u64;
            if elapsed - told >= NEWS {
                told = elapsed;
                let counts = self.counts();
                self.output.put(&Item::Counts(counts));
                self.output.flush();
            }
        };
        for thread in 0..self.watched.len() {
            let waits = self.gather(thread);
            self.watched[thread].counts.missed += u64::from(waits);
        }
        self.counts.elapsed_us = begun.elapsed().as_micros() as u64;
        let counts = self.counts();
        self.output.put(&Item::End { machine_ended, counts });
        self.output.finish(Instant::now() + LAST_WORDS);
    }

    /// When, from the begin on.
    fn moment(&mut self, number: u64) -> Duration {
        // Marsaglia, "Xorshift RNGs": good enough not to keep step.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let period_ns = self.period.as_nanos() as u64;
        Duration::from_nanos(number * period_ns + self.random % (period_ns / 2).max(1))
    }

    /// Waits for a moment, and kicks meanwhile who should have answered. `Some`: it is over; whether because the machine has ended.
    fn wait_until(&mut self, begun: Instant, moment: Duration) -> Option<bool> {
        loop {
            if self.machine_ended.load(Ordering::Acquire) {
                return Some(true);
            }
            if self.output.gone {
                return Some(false);
            }
            let left = moment.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return None;
            }
            let waits = self.asked().any(|vcpu| vcpu.mailbox.waits());
            let timeout = if waits { left.min(KICK_AGAIN) } else { left };
            if !self.output.wait(&self.wake, timeout) {
                return Some(self.machine_ended.load(Ordering::Acquire));
            }
            if waits && timeout == KICK_AGAIN {
                self.asked()
                    .filter(|vcpu| vcpu.mailbox.waits())
                    .for_each(|vcpu| self.shared.team.kick_one(vcpu.number));
            }
        }
    }

    fn asked(&self) -> impl Iterator<Item = &Vcpu> {
        self.watched.iter().filter_map(|watched| watched.vcpu.as_ref())
    }

    /// Looks at each thread, after `skipped` moments at which nobody did.
    fn look(&mut self, skipped: u64) {
        for thread in 0..self.watched.len() {
            let waits = self.gather(thread);
            let watched = &mut self.watched[thread];
            let Some(bucket) = watched.ledger.current() else { continue };
            watched.counts.moments += skipped + 1;
            watched.counts.missed += skipped;
            match (bucket, &watched.vcpu) {
                (Bucket::Wait, _) => watched.counts.idle += 1,
                (_, Some(vcpu)) if waits => {
                    watched.counts.missed += 1;
                    self.shared.team.kick_one(vcpu.number);
                }
                (Bucket::Guest, Some(vcpu)) if vcpu.sleeps() => watched.counts.idle += 1,
                (Bucket::Guest, Some(vcpu)) => {
                    if !vcpu.ask(&self.shared, &self.guest) {
                        watched.counts.missed += 1;
                    }
                }
                (bucket, _) => self.note_bucket(thread, bucket),
            }
        }
        if self.output.waiting.len() >= FLUSH_BYTES {
            self.output.flush();
        }
    }

    /// Takes what a vCPU has seen. Whether it was asked and has not answered: then it is not to be asked again.
    fn gather(&mut self, thread: usize) -> bool {
        let watched = &mut self.watched[thread];
        let Some(mailbox) = watched.vcpu.as_ref().map(|vcpu| &vcpu.mailbox) else { return false };
        if mailbox.waits() {
            return true;
        }
        let Some(seen) = mailbox.take() else { return false };
        self.counts.looks += 1;
        self.counts.looking_cycles += seen.done_tsc.saturating_sub(seen.begun_tsc);
        self.counts.asking_cycles += seen.begun_tsc.saturating_sub(seen.asked_tsc);
        match seen.sight {
            Sight::Halted => watched.counts.idle += 1,
            Sight::Unknown => watched.counts.missed += 1,
            Sight::Running { environment, ring, frames } => {
                self.note_running(thread, environment, ring, &frames);
            }
        }
        false
    }

    fn note_bucket(&mut self, thread: usize, bucket: Bucket) {
        let mut new = None;
        if !self.has_room(thread) {
            return;
        }
        let id = self.names.of_bucket(bucket.name(), |frame| new = Some(frame));
        self.send(new, Sample { thread: thread as u32, frames: vec![id], ..Sample::default() });
    }

    fn note_running(&mut self, thread: usize, environment: Option<u32>, ring: u8, frames: &[u64]) {
        if !self.has_room(thread) {
            return;
        }
        let mut new = Vec::new();
        let image = self.guest.reporter.image();
        let ids = frames.iter().map(|&va| self.names.of_va(image, va, |frame| new.push(frame))).collect();
        self.send(new, Sample { thread: thread as u32, environment, ring: Some(ring), frames: ids });
    }

    /// Counts a sample; whether there is room for it.
    fn has_room(&mut self, thread: usize) -> bool {
        self.watched[thread].counts.samples += 1;
        let room = self.output.waiting.len() < OUTPUT_BYTES;
        self.counts.unsent += u64::from(!room);
        room
    }

    fn send(&mut self, new: impl IntoIterator<Item = Frame>, sample: Sample) {
        new.into_iter().for_each(|frame| self.output.put(&Item::Frame(frame)));
        self.output.put(&Item::Sample(sample));
    }

    fn counts(&mut self) -> Counts {
        self.counts.threads = self.watched.iter().map(|watched| watched.counts).collect();
        self.counts.sampler_ns = thread_cpu_ns();
        self.counts.clone()
    }
}

impl Vcpu {
    fn new(number: u32) -> Self {
        Self { number, mailbox: Arc::default(), state: None }
    }

    /// Its thread, which only the thread itself knows. Without it, a vCPU that is halted is woken to say so.
    fn find_thread(&self, shared: &Shared) -> Option<ThreadState> {
        // SAFETY: no arguments, no memory.
        let thread = shared.team.ask(self.number, |_| unsafe { libc::gettid() }).ok()?;
        ThreadState::open(thread).ok()
    }

    fn sleeps(&self) -> bool {
        self.state.as_ref().is_some_and(ThreadState::sleeps)
    }

    /// Has it look at itself. Whether it will.
    fn ask(&self, shared: &Shared, guest: &Arc<Guest>) -> bool {
        let (mailbox, guest) = (Arc::clone(&self.mailbox), Arc::clone(guest));
        let asked_tsc = now_tsc();
        self.mailbox.ask();
        let asked = shared.team.post(self.number, move |fd| mailbox.look(&guest, fd, asked_tsc));
        if asked.is_err() {
            self.mailbox.give_up();
        }
        asked.is_ok()
    }
}

/// CPU time of the calling thread.
fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The lines on their way to the client.
struct Output {
    socket: UnixStream,
    waiting: Vec<u8>,
    /// The client wants no more, or is not there any more.
    gone: bool,
}

impl Output {
    fn put(&mut self, item: &Item) {
        // Plain structures: there is nothing in them that JSON could not say.
        let _ = serde_json::to_writer(&mut self.waiting, item);
        self.waiting.push(b'\n');
    }

    /// Writes what the client takes now.
    fn flush(&mut self) {
        let mut written = 0;
        while written < self.waiting.len() {
            match self.socket.write(&self.waiting[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.gone |= error.kind() != ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        self.waiting.drain(..written);
    }

    /// Waits for so long at most, and writes meanwhile. False: the client wants no more, or somebody woke us.
    fn wait(&mut self, wake: &EventFd, timeout: Duration) -> bool {
        // SAFETY: the caller keeps the descriptor open while it is borrowed.
        let wake = unsafe { BorrowedFd::borrow_raw(wake.as_raw_fd()) };
        let interest = match self.waiting.len() >= FLUSH_BYTES {
            true => PollFlags::IN | PollFlags::OUT,
            false => PollFlags::IN,
        };
        let mut polled = [PollFd::new(&self.socket, interest), PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let _ = rustix::event::poll(&mut polled, Some(&timeout));
        let [socket, woken] = [polled[0].revents(), polled[1].revents()];
        if socket.contains(PollFlags::OUT) {
            self.flush();
        }
        let silent =
            !socket.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) || self.says_something();
        silent && woken.is_empty() && !self.gone
    }

    /// Passes over what the client says; false when it has shut its side down.
    fn says_something(&mut self) -> bool {
        match (&self.socket).read(&mut [0; 256]) {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Writes what is left, as long as the client takes it.
    fn finish(mut self, deadline: Instant) {
        loop {
            self.flush();
            let left = deadline.saturating_duration_since(Instant::now());
            if self.waiting.is_empty() || self.gone || left.is_zero() {
                return;
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let _ = rustix::event::poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&timeout));
        }
    }
}

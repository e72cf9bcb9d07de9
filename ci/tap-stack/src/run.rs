//! The loop: frames in, the program's turn, frames out, sleep.

use crate::faults::{Faults, Tally, Way};
use crate::port::Port;
use crate::{FRAME_BYTES_MAX, header};
use exos_net::{Config, ConfigError, Counters, Duration, Instant, RxChecksum, RxMeta};
use exos_sockets::{Endpoint, Sockets, Spawner};
use exovm_netns::tap::VNET_HEADER_BYTES;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use std::cell::RefCell;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSlice, Read};
use std::rc::Rc;

/// Frames that are read before the program has its turn.
const BATCH_FRAMES: usize = 64;
/// After so many bytes it has its turn, too: while they are in the cache.
const BATCH_BYTES: usize = 256 << 10;
/// How long the loop sleeps at most.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// How long what a program leaves behind may take to end.
const LEFT_MAX: Duration = Duration::from_secs(30);

/// A TAP, and how frames go over it.
#[derive(Clone, Copy, Debug)]
pub struct Wire<'a> {
    /// Attached, with [`exovm_netns::attach_tap`]: non-blocking, with the virtio-net header.
    pub tap: &'a File,
    /// On top, each way.
    pub faults: Faults,
    /// How long an empty TAP is polled before the loop sleeps.
    pub spin: Duration,
}

/// What is left of our stack when a program on it has ended.
#[derive(Debug)]
pub struct Left {
    /// What the stack counted.
    pub counters: Counters,
    /// Connections in any state but TIME-WAIT.
    pub connections: usize,
    /// Streams that somebody holds, or that have something to send still.
    pub streams: usize,
    /// Bytes in the stack's receive buffers.
    pub buffered_bytes: usize,
    /// What the wire has seen go to us and from us, if it has faults.
    pub wire: [Tally; 2],
}

/// Why a program could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The stack's configuration.
    #[error("the stack's configuration: {0}")]
    Config(#[from] ConfigError),
    /// A system call on the TAP.
    #[error("cannot {action} the TAP: {source}; check that the interface still exists and is up")]
    Tap {
        /// What was to be done.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// The clock of this process. It does not begin at zero, which would be no time at all for whoever subtracts from it.
struct Clock(std::time::Instant);

impl Clock {
    fn now(&self) -> Instant {
        Instant::from_nanos(1_000_000_000 + self.0.elapsed().as_nanos() as u64)
    }
}

/// Runs `program` on a stack of its own behind a TAP, until it has ended and everything that it leaves behind, or until 30
/// seconds after its end. `ready` is called when frames are carried.
pub fn run<T: 'static, P, F>(
    wire: &Wire<'_>,
    config: Config,
    program: P,
    ready: impl FnOnce(),
) -> Result<(T, Left), RunError>
where
    F: Future<Output = T> + 'static,
    P: FnOnce(Sockets, Spawner) -> F,
{
    let clock = Clock(std::time::Instant::now());
    let mut endpoint = Endpoint::new(config, clock.now())?;
    let done = Rc::new(RefCell::new(None));
    let slot = done.clone();
    let future = program(endpoint.sockets(), endpoint.spawner());
    endpoint.spawner().spawn(async move { *slot.borrow_mut() = Some(future.await) });
    let mut carrier = Carrier {
        wire,
        ways: [Way::new(wire.faults, 1), Way::new(wire.faults, 2)],
        buffer: vec![0; FRAME_BYTES_MAX],
        frame_at: clock.now(),
        refused: None,
    };
    let (mut ready, mut ended_at) = (Some(ready), None);
    loop {
        let now = clock.now();
        carrier.round(&mut endpoint, now)?;
        if let Some(ready) = ready.take() {
            ready();
        }
        if done.borrow().is_some() {
            let since = *ended_at.get_or_insert(now);
            let left = left(&endpoint, carrier.ways.each_ref().map(Way::tally));
            let empty = left.connections == 0 && carrier.ways.iter().all(Way::is_empty);
            if (empty || now.since(since) > LEFT_MAX)
                && let Some(output) = done.borrow_mut().take()
            {
                return Ok((output, left));
            }
        }
        carrier.sleep(endpoint.next_deadline(), &clock)?;
    }
}

struct Carrier<'a> {
    wire: &'a Wire<'a>,
    /// To us, and from us.
    ways: [Way; 2],
    buffer: Vec<u8>,
    /// When the last frame came.
    frame_at: Instant,
    refused: Option<io::Error>,
}

impl Carrier<'_> {
    fn round(&mut self, endpoint: &mut Endpoint, now: Instant) -> Result<(), RunError> {
        let Wire { tap, faults, .. } = *self.wire;
        let [inbound, outbound] = &mut self.ways;
        let (mut frames, mut bytes) = (0, 0);
        while frames < BATCH_FRAMES && bytes < BATCH_BYTES {
            let len = match (&mut &*tap).read(&mut self.buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(source) => return Err(RunError::Tap { action: "read", source }),
            };
            (frames, bytes) = (frames + 1, bytes + len);
            self.frame_at = now;
            if faults.are_none() {
                let mut port = Port { tap, out: None, refused: &mut self.refused };
                deliver(endpoint, now, &self.buffer[..len], &mut port);
            } else {
                inbound.push(now, self.buffer[..len].to_vec());
            }
        }
        let out = (!faults.are_none()).then_some((outbound, now));
        let mut port = Port { tap, out, refused: &mut self.refused };
        while let Some(frame) = inbound.pop(now) {
            deliver(endpoint, now, &frame, &mut port);
        }
        endpoint.work(now, &mut port);
        let [_, outbound] = &mut self.ways;
        while let Some(frame) = outbound.pop(now) {
            // A full queue loses it, as any wire would.
            let _ = Port { tap, out: None, refused: &mut self.refused }.send(&[IoSlice::new(&frame)]);
        }
        match self.refused.take() {
            Some(source) => Err(RunError::Tap { action: "write a frame to", source }),
            None => Ok(()),
        }
    }

    /// Waits until the TAP can be read, or until something is due; not at all while frames may still follow the last one.
    fn sleep(&self, deadline: Option<Instant>, clock: &Clock) -> Result<(), RunError> {
        let now = clock.now();
        if now.since(self.frame_at) < self.wire.spin {
            return Ok(());
        }
        let deadlines = [deadline, self.ways[0].next(), self.ways[1].next()];
        let until = deadlines.into_iter().flatten().min();
        let time = until.map_or(SLEEP_MAX, |at| at.since(now).min(SLEEP_MAX));
        let timeout = Timespec { tv_sec: 0, tv_nsec: time.as_nanos() as i64 };
        match poll(&mut [PollFd::new(self.wire.tap, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(RunError::Tap { action: "wait for", source: error.into() }),
        }
    }
}

fn left(endpoint: &Endpoint, wire: [Tally; 2]) -> Left {
    let stack = endpoint.stack();
    Left {
        counters: *stack.counters(),
        connections: stack.connections(),
        streams: endpoint.sockets().len(),
        buffered_bytes: stack.buffered_bytes(),
        wire,
    }
}

fn deliver(endpoint: &mut Endpoint, now: Instant, frame: &[u8], port: &mut Port<'_>) {
    let Some((vnet, frame)) = frame.split_at_checked(VNET_HEADER_BYTES) else { return };
    let valid = header::transport_is_valid(vnet);
    let checksum = if valid { RxChecksum::TransportValid } else { RxChecksum::Unknown };
    endpoint.input(now, frame, RxMeta { checksum }, port);
}

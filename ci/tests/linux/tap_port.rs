//! Our stack in this process, on a TAP: a thread that carries frames between them, and loses, repeats and delays some if it is
//! told to.

use exos_net::{
    Config, ControlFrame, Counters, Duration, Full, Gso, Instant, MacAddress, RxChecksum, RxMeta, Transmit,
    TxChecksum, TxSegment,
};
use exos_sockets::{Bytes, Endpoint, Sockets, Spawner};
use exovm_netns::tap::VNET_HEADER_BYTES;
use exovm_netns::{Interface, TapQueues, attach_tap, create_tap, switch_offloads_off};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// The kernel's address on the TAP.
pub(crate) const LINUX: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
/// Ours.
pub(crate) const OURS: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 2);
/// The largest frame: what segmentation offload gives, with its headers.
const FRAME_BYTES_MAX: usize = VNET_HEADER_BYTES + 14 + 65_535;

// virtio_net_hdr_v1 (VIRTIO 1.3 5.1.6).
const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;

/// What the wire does, each way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Frames lost, repeated, and held back for `hold`, of a thousand.
    pub(crate) lost: u32,
    /// Of a thousand.
    pub(crate) repeated: u32,
    /// Of a thousand.
    pub(crate) held: u32,
    /// Milliseconds that everything takes.
    pub(crate) delay_ms: u64,
    /// Milliseconds more for what is held back.
    pub(crate) hold_ms: u64,
    pub(crate) seed: u64,
}

impl Faults {
    /// Whether there are none.
    pub(crate) fn are_none(&self) -> bool {
        self.lost + self.repeated + self.held == 0 && self.delay_ms == 0
    }
}

/// A direction of the wire: frames with the time at which they arrive.
struct Way {
    faults: Faults,
    random: u64,
    frames: BTreeMap<(Instant, u64), Vec<u8>>,
    number: u64,
}

impl Way {
    fn new(faults: Faults, seed: u64) -> Self {
        Self { faults, random: (faults.seed ^ seed) | 1, frames: BTreeMap::new(), number: 0 }
    }

    /// Of a thousand (xorshift64*).
    fn happens(&mut self, of_thousand: u32) -> bool {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % 1_000 < u64::from(of_thousand)
    }

    fn push(&mut self, now: Instant, frame: Vec<u8>) {
        if self.happens(self.faults.lost) {
            return;
        }
        let copies = 1 + usize::from(self.happens(self.faults.repeated));
        for _ in 0..copies {
            let held_ms = if self.happens(self.faults.held) { self.faults.hold_ms } else { 0 };
            let at = now + Duration::from_millis(self.faults.delay_ms + held_ms);
            self.number += 1;
            self.frames.insert((at, self.number), frame.clone());
        }
    }

    fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        let first = self.frames.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    fn next(&self) -> Option<Instant> {
        self.frames.first_key_value().map(|((at, _), _)| *at)
    }
}

/// Writes frames to the TAP.
struct Port<'a> {
    tap: &'a File,
    /// With faults, frames take this way first.
    out: Option<(&'a mut Way, Instant)>,
}

impl Port<'_> {
    fn send(&mut self, parts: &[&[u8]]) -> Result<(), Full> {
        if let Some((way, now)) = &mut self.out {
            way.push(*now, parts.concat());
            return Ok(());
        }
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        match (&mut &*self.tap).write_vectored(&slices) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Full),
            Err(error) => panic!("the TAP refused a frame: {error}"),
        }
    }
}

impl Transmit<Bytes> for Port<'_> {
    fn transmit(&mut self, segment: TxSegment<'_, Bytes>) -> Result<(), Full> {
        let mut vnet = [0; VNET_HEADER_BYTES];
        if let Some(request) = segment.checksum {
            vnet[0] = NEEDS_CSUM;
            vnet[6..8].copy_from_slice(&request.start.to_le_bytes());
            vnet[8..10].copy_from_slice(&request.offset.to_le_bytes());
        }
        if let Some(Gso { mss }) = segment.gso {
            vnet[1] = GSO_TCPV4;
            vnet[2..4].copy_from_slice(&(segment.header.len() as u16).to_le_bytes());
            vnet[4..6].copy_from_slice(&mss.to_le_bytes());
        }
        let mut parts: Vec<&[u8]> = vec![&vnet, segment.header];
        parts.extend(segment.payload.map(|piece| piece.bytes()));
        self.send(&parts)
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        self.send(&[&[0; VNET_HEADER_BYTES], frame.head(), frame.body()])
    }
}

/// What is left of our stack when a program on it has ended.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) counters: Counters,
    pub(crate) connections: usize,
    pub(crate) streams: usize,
    pub(crate) buffered_bytes: usize,
}

/// Our stack, running a program in a thread of its own.
pub(crate) struct Running<T> {
    thread: JoinHandle<(T, Left)>,
}

impl<T> Running<T> {
    /// Waits for the program, and for what it leaves behind to end.
    pub(crate) fn join(self) -> (T, Left) {
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// `tap0`, which is made when it is first asked for.
pub(crate) fn interface() -> Interface {
    let interface = Interface::named("tap0").expect("a good name");
    if !interface.exists() {
        create_tap(&interface, TapQueues::Single).expect("a TAP");
        interface.add_address(LINUX.into(), 24).expect("an address");
        interface.up().expect("up");
    }
    interface
}

/// Starts a program on our stack behind `tap0`. It is running when this returns.
pub(crate) fn start<T, P, F>(
    faults: Faults,
    set: impl FnOnce(&mut Config) + Send + 'static,
    program: P,
) -> Running<T>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
    P: FnOnce(Sockets, Spawner) -> F + Send + 'static,
{
    let interface = interface();
    let (ready, is_ready) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let tap = attach_tap(&interface, TapQueues::Single).expect("the TAP");
        if !faults.are_none() {
            switch_offloads_off(&interface, &tap).expect("no offloads");
        }
        let result = run(&tap, faults, set, program, || ready.send(()).expect("somebody waits"));
        drop(tap);
        result
    });
    is_ready.recv().expect("the stack runs");
    Running { thread }
}

fn run<T: 'static, P, F>(
    tap: &File,
    faults: Faults,
    set: impl FnOnce(&mut Config),
    program: P,
    ready: impl FnOnce(),
) -> (T, Left)
where
    F: Future<Output = T> + 'static,
    P: FnOnce(Sockets, Spawner) -> F,
{
    let start = std::time::Instant::now();
    let clock = || Instant::from_nanos(1_000_000_000 + start.elapsed().as_nanos() as u64);
    let mut secret = [0; 16];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut secret)).expect("random bytes");
    let mut config = Config::new(MacAddress([2, 0, 0, 0, 0, 2]), OURS, 24, secret);
    config.tx_checksum = TxChecksum::Offload;
    config.tso_max_bytes = if faults.are_none() { exos_net::MAX_TSO_BYTES } else { 0 };
    set(&mut config);
    let mut endpoint = Endpoint::new(config, clock()).expect("a good configuration");
    let done = Rc::new(RefCell::new(None));
    let slot = done.clone();
    let future = program(endpoint.sockets(), endpoint.spawner());
    endpoint.spawner().spawn(async move { *slot.borrow_mut() = Some(future.await) });
    let mut ways = [Way::new(faults, 1), Way::new(faults, 2)];
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let (mut ready, mut ended_at) = (Some(ready), None);
    loop {
        let now = clock();
        let [inbound, outbound] = &mut ways;
        for _ in 0..64 {
            let len = match (&mut &*tap).read(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("the TAP cannot be read: {error}"),
            };
            let out = (!faults.are_none()).then_some((&mut *outbound, now));
            if faults.are_none() {
                deliver(&mut endpoint, now, &buffer[..len], &mut Port { tap, out });
            } else {
                inbound.push(now, buffer[..len].to_vec());
            }
        }
        while let Some(frame) = inbound.pop(now) {
            let out = Some((&mut *outbound, now));
            deliver(&mut endpoint, now, &frame, &mut Port { tap, out });
        }
        let out = (!faults.are_none()).then_some((&mut *outbound, now));
        endpoint.work(now, &mut Port { tap, out });
        while let Some(frame) = outbound.pop(now) {
            // A full queue loses it, as any wire would.
            let _ = Port { tap, out: None }.send(&[&frame]);
        }
        if let Some(ready) = ready.take() {
            ready();
        }
        if done.borrow().is_some() {
            let since = *ended_at.get_or_insert(now);
            let left = left(&endpoint);
            let empty = left.connections == 0 && ways.iter().all(|way| way.frames.is_empty());
            if empty || now.since(since) > Duration::from_secs(30) {
                let output = done.borrow_mut().take().expect("seen");
                return (output, left);
            }
        }
        let deadlines = [endpoint.next_deadline(), ways[0].next(), ways[1].next()];
        wait(tap, deadlines.into_iter().flatten().min().map(|at| at.since(clock())));
    }
}

fn left(endpoint: &Endpoint) -> Left {
    let stack = endpoint.stack();
    Left {
        counters: *stack.counters(),
        connections: stack.connections(),
        streams: endpoint.sockets().len(),
        buffered_bytes: stack.buffered_bytes(),
    }
}

fn deliver(endpoint: &mut Endpoint, now: Instant, frame: &[u8], port: &mut Port<'_>) {
    let (vnet, frame) = frame.split_at(VNET_HEADER_BYTES);
    let valid = vnet[0] & (NEEDS_CSUM | DATA_VALID) != 0;
    let checksum = if valid { RxChecksum::TransportValid } else { RxChecksum::Unknown };
    endpoint.input(now, frame, RxMeta { checksum }, port);
}

/// Waits until the TAP can be read, or for so long.
fn wait(tap: &File, time: Option<Duration>) {
    let mut poll = libc::pollfd { fd: tap.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let nanos = time.map_or(50_000_000, |time| time.as_nanos().min(50_000_000));
    let timeout = libc::timespec { tv_sec: 0, tv_nsec: nanos as libc::c_long };
    // SAFETY: one pollfd and a timespec, both alive during the call; no signal mask.
    unsafe { libc::ppoll(&mut poll, 1, &timeout, std::ptr::null()) };
}

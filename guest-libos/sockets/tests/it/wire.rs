//! Two endpoints, a wire between them, and a clock that jumps from event to event.

use exos_net::{
    Config, ControlFrame, Duration, Full, Instant, Ipv6Config, MacAddress, RxMeta, Stack, Transmit, TxSegment,
};
use exos_sockets::{Bytes, Endpoint, Sockets, Spawner};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

/// One way.
const DELAY: Duration = Duration::from_millis(1);

/// Frames on their way, each with the time of its arrival.
#[derive(Default)]
struct Outgoing(Vec<Vec<u8>>);

impl Transmit<Bytes> for Outgoing {
    fn transmit(&mut self, segment: TxSegment<'_, Bytes>) -> Result<(), Full> {
        let mut frame = segment.header.to_vec();
        segment.payload.for_each(|piece| frame.extend_from_slice(piece.bytes()));
        self.0.push(frame);
        Ok(())
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        self.0.push([frame.head(), frame.body()].concat());
        Ok(())
    }
}

/// Which frames the wire loses: asked with the number of each.
type Loss = Box<dyn FnMut(u64) -> bool>;

pub(crate) struct Wire {
    pub(crate) ends: [Endpoint; 2],
    on_the_way: [VecDeque<(Instant, Vec<u8>)>; 2],
    pub(crate) now: Instant,
    frames: u64,
    pub(crate) loses: Loss,
    /// Whether frames of the client are kept.
    pub(crate) keeps: bool,
    pub(crate) kept: Vec<Vec<u8>>,
}

pub(crate) const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;

pub(crate) fn config(end: usize) -> Config {
    let mac = MacAddress([2, 0, 0, 0, 0, end as u8 + 1]);
    Config::new(mac, ADDRESSES[end], 24, [end as u8; 16])
}

pub(crate) const OUR_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)];

/// With an address of IPv6's as well, of which nobody is asked.
pub(crate) fn with_ipv6(end: usize) -> Config {
    let addresses = vec![(OUR_V6[end], 64)];
    let ipv6 = Ipv6Config { addresses, probes: 0, router_advertisements: false, ..Ipv6Config::default() };
    Config { ipv6: Some(ipv6), ..config(end) }
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self::with([config(CLIENT), config(SERVER)])
    }

    pub(crate) fn with(configs: [Config; 2]) -> Self {
        let now = Instant::from_millis(1_000);
        let ends = configs.map(|config| Endpoint::new(config, now).expect("a good configuration"));
        Self {
            ends,
            on_the_way: Default::default(),
            now,
            frames: 0,
            loses: Box::new(|_| false),
            keeps: false,
            kept: Vec::new(),
        }
    }

    pub(crate) fn sockets(&self, end: usize) -> Sockets {
        self.ends[end].sockets()
    }

    pub(crate) fn stack(&self, end: usize) -> &Stack<Bytes> {
        self.ends[end].stack()
    }

    pub(crate) fn spawner(&self, end: usize) -> Spawner {
        self.ends[end].spawner()
    }

    fn send(&mut self, from: usize, outgoing: Outgoing) {
        for frame in outgoing.0 {
            self.frames += 1;
            if self.keeps && from == CLIENT {
                self.kept.push(frame.clone());
            }
            if !(self.loses)(self.frames) {
                self.on_the_way[1 - from].push_back((self.now + DELAY, frame));
            }
        }
    }

    /// Time goes on to the next event. Answers whether there was one before `end`.
    pub(crate) fn step(&mut self, end: Instant) -> bool {
        let arrivals = self.on_the_way.iter().filter_map(|queue| queue.front().map(|(at, _)| *at));
        let deadlines = self.ends.iter().filter_map(Endpoint::next_deadline);
        let Some(next) = arrivals.chain(deadlines).min().filter(|&at| at <= end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(next);
        for at in [CLIENT, SERVER] {
            let mut outgoing = Outgoing::default();
            while self.on_the_way[at].front().is_some_and(|(arrival, _)| *arrival <= self.now) {
                let (_, frame) = self.on_the_way[at].pop_front().expect("looked at");
                self.ends[at].input(self.now, &frame, RxMeta::default(), &mut outgoing);
            }
            self.ends[at].work(self.now, &mut outgoing);
            self.send(at, outgoing);
        }
        true
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Runs a task at one end until it is done, for a minute at most.
    pub(crate) fn run<T: 'static>(&mut self, at: usize, task: impl Future<Output = T> + 'static) -> T {
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        self.spawner(at).spawn(async move { *slot.borrow_mut() = Some(task.await) });
        let end = self.now + Duration::from_secs(60);
        while result.borrow().is_none() {
            assert!(self.step(end), "the task is not done after a minute");
        }
        let result = result.borrow_mut().take();
        result.expect("seen")
    }
}

pub(crate) fn address(end: usize, port: u16) -> SocketAddr {
    (ADDRESSES[end], port).into()
}

/// A server that sends back what it gets, until its clients close. Answers how many it has served.
pub(crate) fn echo(wire: &Wire, port: u16) -> Rc<Cell<u32>> {
    let (sockets, spawner) = (wire.sockets(SERVER), wire.spawner(SERVER));
    let served = Rc::new(Cell::new(0));
    let count = served.clone();
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen(port, 64).expect("free");
        loop {
            let (mut stream, _) = listener.accept().await.expect("listening");
            let count = count.clone();
            spawner.spawn(async move {
                let mut buffer = [0; 3_000];
                loop {
                    let len = match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => break,
                        Ok(len) => len,
                    };
                    let mut rest = &buffer[..len];
                    while !rest.is_empty() {
                        let Ok(written) = stream.write(rest).await else { return };
                        rest = &rest[written..];
                    }
                }
                count.set(count.get() + 1);
            });
        }
    });
    served
}

pub(crate) async fn write_all(
    stream: &mut exos_sockets::TcpStream,
    mut bytes: &[u8],
) -> Result<(), exos_sockets::Error> {
    while !bytes.is_empty() {
        let written = stream.write(bytes).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

pub(crate) async fn read_exact(
    stream: &mut exos_sockets::TcpStream,
    mut out: &mut [u8],
) -> Result<(), exos_sockets::Error> {
    while !out.is_empty() {
        let len = stream.read(out).await?;
        assert!(len > 0, "the end");
        out = &mut out[len..];
    }
    Ok(())
}

pub(crate) async fn read_to_end(
    stream: &mut exos_sockets::TcpStream,
) -> Result<Vec<u8>, exos_sockets::Error> {
    let (mut all, mut buffer) = (Vec::new(), [0; 5_000]);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(all),
            len => all.extend_from_slice(&buffer[..len]),
        }
    }
}

/// Bytes that say where they belong.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at >> 8) as u8).collect()
}

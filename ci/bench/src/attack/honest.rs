//! An honest load of a fixed rate: what it gets, with an attack beside it and without, and what the guest counts meanwhile.

use super::{Attack, Victim};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Between two requests on the connection that stays.
const KEPT_EVERY: Duration = Duration::from_millis(5);
/// Between two connections for a request each.
const NEW_EVERY: Duration = Duration::from_millis(20);
/// What one attempt may take: several retransmissions, where a flood fills the line. One that is reset or lost is begun again, and its
/// whole time counts.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at the guest's gauges.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long it is served.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// At least.
    pub least: Duration,
    /// Until so many were answered, on the connection that stays and on new ones.
    pub answered: [usize; 2],
    /// At most.
    pub most: Duration,
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self { least: duration, answered: [0; 2], most: duration }
    }
}

/// How long requests took.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// Each of those that were answered, in order.
    sorted: Vec<Duration>,
    /// Connections that ended before their answer.
    pub broken: u64,
    seconds: f64,
}

impl Latencies {
    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.sorted.len() as f64 / self.seconds.max(0.001)
    }

    /// How many were answered.
    pub fn answered(&self) -> usize {
        self.sorted.len()
    }

    /// What so large a share of requests took at most.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }
}

/// What a statistic of the guest's has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// `tcp` or `ip`.
    pub layer: String,
    /// As `exovm stat` has it.
    pub name: String,
    /// How much.
    pub count: u64,
}

/// A guest that serves, and how to look into it.
pub trait Subject: Sync {
    /// Where it is on the wire.
    fn victim(&self) -> Victim;
    /// What its TCP and IP have counted so far; gauges are among them.
    fn counted(&self) -> io::Result<Vec<Count>>;
    /// The same once it has come to rest.
    fn counted_at_rest(&self) -> io::Result<Vec<Count>>;
    /// Memory of the guest and its VMM.
    fn resident_kib(&self) -> io::Result<i64>;
}

/// What came of a while.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// On one connection that stays.
    pub kept: Latencies,
    /// On a connection each.
    pub new: Latencies,
    /// Frames of the attacker's.
    pub attack_frames: u64,
    /// How long it went on.
    pub seconds: f64,
    /// By which the memory of guest and VMM grew.
    pub grown_kib: i64,
    /// The most connections that the guest had, half-open ones included.
    pub connections: u64,
    /// What each statistic of the guest's TCP and IP has counted.
    pub counted: Vec<Count>,
}

impl Outcome {
    /// What a statistic has counted.
    pub fn count(&self, layer: &str, name: &str) -> u64 {
        count_of(&self.counted, layer, name)
    }
}

fn count_of(counts: &[Count], layer: &str, name: &str) -> u64 {
    counts.iter().find(|count| count.layer == layer && count.name == name).map_or(0, |count| count.count)
}

/// A connection that asks for one document after the other.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn get(&mut self, target: &str) -> io::Result<()> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: exovm\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::new(io::ErrorKind::InvalidData, line));
        }
        let mut length = 0u64;
        while line.trim_end() != "" {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let taken = io::copy(&mut (&mut self.0).take(length), &mut io::sink())?;
        if taken == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

fn load(
    every: Duration,
    (answered, over): (&AtomicUsize, &AtomicBool),
    mut once: impl FnMut() -> io::Result<()>,
) -> Latencies {
    let (begin, mut latencies, mut number) = (Instant::now(), Latencies::default(), 0);
    while !over.load(Ordering::Relaxed) {
        let due = every * number;
        number += 1;
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        // From when it was due: what has to wait behind another has waited, too.
        let due = (begin + due).min(Instant::now());
        while !over.load(Ordering::Relaxed) {
            if once().is_ok() {
                latencies.sorted.push(due.elapsed());
                answered.fetch_add(1, Ordering::Relaxed);
                break;
            }
            latencies.broken += 1;
        }
    }
    latencies.seconds = begin.elapsed().as_secs_f64();
    latencies.sorted.sort();
    latencies
}

/// Serves for a while, attacked or not. `small` is what the honest ask for, `large` what attackers do.
pub fn serve(
    subject: &impl Subject,
    attack: Option<Attack>,
    small: &str,
    large: &str,
    span: impl Into<Span>,
) -> io::Result<Outcome> {
    let guest = &subject.victim();
    let address = SocketAddr::from((guest.guest, 80));
    let mut first = Client::connect(address)?;
    first.get(small)?;
    let SocketAddr::V4(victim) = first.0.get_ref().local_addr()? else {
        return Err(io::Error::other("the honest client's address is none of IPv4"));
    };
    let before = subject.counted()?;
    let (resident, over, connections) =
        (subject.resident_kib()?, &AtomicBool::new(false), &AtomicU64::new(0));
    let (span, answered) = (span.into(), &[const { AtomicUsize::new(0) }; 2]);
    let begin = Instant::now();
    let (kept, new, attack_frames, seconds) = std::thread::scope(|scope| {
        let attacker = attack.map(|attack| scope.spawn(move || attack.run(guest, victim, large, over)));
        let kept = scope.spawn(move || kept_load(first, address, small, (&answered[0], over)));
        let new = scope
            .spawn(move || load(NEW_EVERY, (&answered[1], over), || Client::connect(address)?.get(small)));
        let looked = watch(subject, span, answered, connections);
        let seconds = begin.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        let ended = "neither load nor attacker panics";
        let frames = attacker.map_or(Ok(0), |attacker| attacker.join().expect(ended));
        let loads = (kept.join().expect(ended), new.join().expect(ended));
        looked.and(frames).map(|frames| (loads.0, loads.1, frames, seconds))
    })?;
    let after = subject.counted_at_rest()?;
    let counted = after.into_iter().map(|after| {
        let before = count_of(&before, &after.layer, &after.name);
        Count { count: after.count.saturating_sub(before), ..after }
    });
    let grown_kib = subject.resident_kib()? - resident;
    let connections = connections.load(Ordering::Relaxed);
    Ok(Outcome { kept, new, attack_frames, seconds, grown_kib, connections, counted: counted.collect() })
}

fn kept_load(
    first: Client,
    address: SocketAddr,
    target: &str,
    progress: (&AtomicUsize, &AtomicBool),
) -> Latencies {
    let mut kept = Some(first);
    load(KEPT_EVERY, progress, || {
        let mut client = match kept.take() {
            Some(client) => client,
            None => Client::connect(address)?,
        };
        client.get(target)?;
        kept = Some(client);
        Ok(())
    })
}

/// Notes the most connections that there are.
fn watch(
    subject: &impl Subject,
    span: Span,
    answered: &[AtomicUsize; 2],
    connections: &AtomicU64,
) -> io::Result<()> {
    let begin = Instant::now();
    let is_enough = || {
        let enough =
            answered.iter().zip(span.answered).all(|(got, wanted)| got.load(Ordering::Relaxed) >= wanted);
        begin.elapsed() >= if enough { span.least } else { span.most }
    };
    while !is_enough() {
        std::thread::sleep(LOOK_EVERY);
        let counted = subject.counted()?;
        let gauge = |name| count_of(&counted, "tcp", name);
        connections.fetch_max(gauge("curr_estab") + gauge("half_open"), Ordering::Relaxed);
    }
    Ok(())
}

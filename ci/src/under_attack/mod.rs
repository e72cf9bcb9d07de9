//! A guest that serves an honest load of a fixed rate while it is attacked: what the load gets, with and without, what the guest
//! takes in memory, and what its statistics call the attack. The tests run it for a moment; `cargo run --release -p exovm-ci
//! --example under_attack` prints the table.

mod attack;
mod raw;

pub use attack::Attack;

use crate::{Client, Guest};
use exovm::stat::StatSnapshot;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two requests on the connection that stays.
const KEPT_EVERY: Duration = Duration::from_millis(5);
/// Between two connections for a request each.
const NEW_EVERY: Duration = Duration::from_millis(20);
/// What one attempt may take. One that is reset or lost is begun again, and its whole time counts.
const PATIENCE: Duration = Duration::from_secs(3);

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

/// What came of a while.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// On one connection that stays.
    pub kept: Latencies,
    /// On a connection each.
    pub new: Latencies,
    /// Frames of the attacker's.
    pub attack_frames: u64,
    /// By which the memory of guest and VMM grew.
    pub grown_kib: i64,
    /// The most connections that the guest had, half-open ones included.
    pub connections: u64,
    /// What each statistic of the guest's TCP and IP has counted.
    pub counted: Vec<(String, String, u64)>,
}

impl Outcome {
    /// What a statistic has counted.
    pub fn count(&self, layer: &str, name: &str) -> u64 {
        self.counted
            .iter()
            .find(|(of, known, _)| of == layer && known == name)
            .map_or(0, |(.., count)| *count)
    }
}

/// Resident memory of this process.
fn resident_kib() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok()).expect("statm has numbers") * 4
}

fn counters(statistics: &StatSnapshot) -> Vec<(String, String, u64)> {
    let families = statistics.families.iter().filter(|family| ["tcp", "ip"].contains(&family.layer.as_str()));
    families.map(|family| (family.layer.clone(), family.name.clone(), family.sum(&[]))).collect()
}

fn measure(every: Duration, over: &AtomicBool, mut once: impl FnMut() -> bool) -> Latencies {
    let (begin, mut latencies, mut number) = (Instant::now(), Latencies::default(), 0);
    while !over.load(Ordering::Relaxed) {
        let due = every * number;
        number += 1;
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        // From when it was due: what has to wait behind another has waited, too.
        let due = (begin + due).min(Instant::now());
        while !over.load(Ordering::Relaxed) {
            if once() {
                latencies.sorted.push(due.elapsed());
                break;
            }
            latencies.broken += 1;
        }
    }
    latencies.seconds = begin.elapsed().as_secs_f64();
    latencies.sorted.sort();
    latencies
}

/// Serves for `duration`, attacked or not. `small` is what the honest ask for, `large` what attackers do.
///
/// # Panics
/// If the honest connection that stays is not served at the beginning.
pub fn serve(guest: &Guest, attack: Option<Attack>, small: &str, large: &str, duration: Duration) -> Outcome {
    let mut kept = Some(guest.connect());
    kept.as_mut().expect("just connected").get(small).expect("nobody attacks yet");
    let local = kept.as_ref().and_then(|client| client.socket().local_addr().ok());
    let Some(SocketAddr::V4(victim)) = local else { panic!("an IPv4 socket") };
    let before = counters(&guest.machine().statistics());
    let (resident, over) = (resident_kib(), AtomicBool::new(false));
    let connections = AtomicU64::new(0);
    let (kept, new, attack_frames) = std::thread::scope(|scope| {
        let (over, connections) = (&over, &connections);
        let attacker =
            attack.map(|attack| scope.spawn(move || attack.run(guest.network(), victim, large, over)));
        let address = guest.address();
        let kept_load = scope.spawn(move || {
            measure(KEPT_EVERY, over, || {
                let mut client = match kept.take() {
                    Some(client) => client,
                    None => match Client::connect_within(address, PATIENCE) {
                        Ok(client) => client,
                        Err(_) => return false,
                    },
                };
                let served = client.get(small).is_ok_and(|response| response.status() == 200);
                kept = Some(client).filter(|_| served);
                served
            })
        });
        let new_load = scope.spawn(move || {
            measure(NEW_EVERY, over, || {
                let response =
                    Client::connect_within(address, PATIENCE).and_then(|mut client| client.get(small));
                response.is_ok_and(|response| response.status() == 200)
            })
        });
        let begin = Instant::now();
        while begin.elapsed() < duration {
            std::thread::sleep(Duration::from_millis(20));
            let statistics = guest.machine().statistics();
            let gauge = |name| statistics.value("tcp", name).unwrap_or(0);
            connections.fetch_max(gauge("curr_estab") + gauge("half_open"), Ordering::Relaxed);
        }
        over.store(true, Ordering::Relaxed);
        let join = "measuring does not panic";
        let frames = attacker.map_or(0, |attacker| attacker.join().expect("the attacker can make frames"));
        (kept_load.join().expect(join), new_load.join().expect(join), frames)
    });
    let after = counters(&guest.statistics());
    let counted = after.into_iter().zip(before).map(|((layer, name, after), (.., before))| {
        let grown = after.saturating_sub(before);
        (layer, name, grown)
    });
    let grown_kib = resident_kib() - resident;
    let connections = connections.into_inner();
    Outcome { kept, new, attack_frames, grown_kib, connections, counted: counted.collect() }
}

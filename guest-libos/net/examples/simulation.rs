//! What two of our stacks make of a link, in simulated time: goodput by loss, round trip and buffer, beside what formulas
//! say: the average window of congestion control without timeouts (RFC 9438 5.1), and Reno's rate with them (RFC 5348
//! 3.1); and what single parts cost. Run it with `cargo run --release -p exos-net --example simulation`.

#[path = "../tests/it/simulation/mod.rs"]
mod simulation;

use exos_net::{Config, CongestionControl, Duration};
use simulation::stations::config;
use simulation::{LinkConfig, Network, Setup};

const LOSSES_PERCENT: [u64; 4] = [0, 1, 5, 10];
const ROUND_TRIPS_MS: [u64; 3] = [1, 20, 100];
const BUFFERS: [u32; 3] = [32 << 10, 256 << 10, 4 << 20];
const RUNS: u64 = 10;
const MSS: f64 = 1_448.0;

/// One cell of the table.
#[derive(Clone)]
struct Cell {
    sender: Config,
    receiver: Config,
    loss_percent: u64,
    rtt_ms: u64,
    buffer: u32,
}

#[derive(Default)]
struct Outcome {
    /// Bytes a second.
    goodput: f64,
    fast_recoveries: u64,
    timeouts: u64,
    spurious: u64,
}

impl Cell {
    fn new(congestion: CongestionControl, loss_percent: u64, rtt_ms: u64, buffer: u32) -> Self {
        let sender = Config { congestion, ..config() };
        Self { sender, receiver: config(), loss_percent, rtt_ms, buffer }
    }

    /// The mean of some runs of a minute or 512 MiB.
    fn run(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let delay = LinkConfig::delay(Duration::from_micros(self.rtt_ms * 500));
        // Without loss all runs are one.
        let runs = if self.loss_percent == 0 { 1 } else { RUNS };
        for seed in 0..runs {
            let mut network = Network::new(&Setup {
                senders: vec![self.sender.clone()],
                receiver: Config { receive_window_bytes: self.buffer, ..self.receiver.clone() },
                forward: LinkConfig { loss_ppm: self.loss_percent * 10_000, ..delay },
                backward: delay,
                send_buffer_bytes: self.buffer as usize,
                seed,
            });
            let took = network.run(Duration::from_secs(60), 512 << 20);
            let seconds = took.as_nanos() as f64 / 1e9;
            outcome.goodput += network.received()[0] as f64 / seconds / runs as f64;
            let counters = network.senders[0].stack.counters();
            outcome.fast_recoveries += counters.fast_retransmits;
            outcome.timeouts += counters.timeouts;
            outcome.spurious += counters.spurious_recoveries;
        }
        outcome
    }

    /// RFC 5348 3.1: Reno's rate where timeouts count, with an acknowledgment's growth counted in bytes (b = 1) and the
    /// least timeout.
    fn rate_with_timeouts(&self) -> f64 {
        let (loss, rtt) = (self.loss_percent as f64 / 100.0, self.rtt_ms as f64 / 1e3);
        let timeouts = 0.2 * 3.0 * (3.0 * loss / 8.0).sqrt() * loss * (1.0 + 32.0 * loss * loss);
        (MSS / (rtt * (2.0 * loss / 3.0).sqrt() + timeouts)).min(f64::from(self.buffer) / rtt)
    }

    /// RFC 9438 5.1: the average window of a sender that nothing but loss limits, or what the buffer lets it be.
    fn formula(&self) -> f64 {
        let (loss, rtt) = (self.loss_percent as f64 / 100.0, self.rtt_ms as f64 / 1e3);
        let reno = (1.5 / loss).sqrt();
        let segments = match self.sender.congestion {
            CongestionControl::NewReno => reno,
            CongestionControl::Cubic => {
                { (0.4 * 3.7 / 1.2f64).powf(0.25) * (rtt / loss).powf(0.75) }.max(reno)
            }
        };
        (segments * MSS).min(f64::from(self.buffer)) / rtt
    }
}

fn table(algorithm: CongestionControl) {
    println!(
        "{algorithm:?}: goodput in kB/s; its share of the average window's formula and of the rate with timeouts"
    );
    println!("     buffer  round trip{}", LOSSES_PERCENT.map(|loss| format!("{loss:>23} %")).concat());
    for buffer in BUFFERS {
        for rtt_ms in ROUND_TRIPS_MS {
            print!("  {:>5} KiB  {rtt_ms:>7} ms", buffer >> 10);
            for loss in LOSSES_PERCENT {
                let cell = Cell::new(algorithm, loss, rtt_ms, buffer);
                let goodput = cell.run().goodput;
                let (window, timeouts) = (goodput / cell.formula(), goodput / cell.rate_with_timeouts());
                print!("  {:>9.1} ({:>3.0} %, {:>4.0} %)", goodput / 1e3, 100.0 * window, 100.0 * timeouts);
            }
            println!();
        }
    }
}

/// What single parts cost at 100 ms and 32 KiB.
fn stages() {
    println!(
        "CUBIC at 100 ms and 32 KiB, goodput in kB/s (fast recoveries, timeouts, mistaken ones in {RUNS} minutes)"
    );
    let usual = Cell::new(CongestionControl::Cubic, 0, 100, 32 << 10);
    let mut prompt = usual.clone();
    prompt.receiver.delayed_ack = Duration::from_nanos(1);
    let mut patient = usual.clone();
    patient.sender.min_rto = Duration::from_secs(1);
    let large = Cell { buffer: 4 << 20, ..usual.clone() };
    let reno = Cell::new(CongestionControl::NewReno, 0, 100, 32 << 10);
    for (name, cell) in [
        ("as configured", usual),
        ("acknowledgments wait for nothing", prompt),
        ("timeout of at least 1 s, not 200 ms", patient),
        ("buffers of 4 MiB", large),
        ("NewReno", reno),
    ] {
        print!("  {name:<36}");
        for loss_percent in LOSSES_PERCENT {
            let outcome = Cell { loss_percent, ..cell.clone() }.run();
            let Outcome { goodput, fast_recoveries, timeouts, spurious } = outcome;
            print!(
                "  {loss_percent:>2} %: {:>8.1} ({fast_recoveries}, {timeouts}, {spurious})",
                goodput / 1e3
            );
        }
        println!();
    }
}

fn main() {
    for algorithm in [CongestionControl::Cubic, CongestionControl::NewReno] {
        table(algorithm);
    }
    stages();
}

//! What two of our stacks make of a link, in simulated time: goodput by loss, round trip and buffer, beside what formulas
//! say: the average window of congestion control without timeouts (RFC 9438 5.1), and Reno's rate with them (RFC 5348
//! 3.1); where the time goes and what single parts cost; and what smoltcp makes of the same link. Run it with
//! `cargo run --release -p exos-net --example simulation`; `-- --short` prints the first table only, `-- --stages` that and where
//! the time goes.

#[path = "../tests/it/simulation/mod.rs"]
mod simulation;

use exos_net::{Config, CongestionControl, Duration, Recovery};
use simulation::stations::config;
use simulation::{LinkConfig, Network, Setup, smoltcp_stations};

const LOSSES_PERCENT: [u64; 4] = [0, 1, 5, 10];
const ROUND_TRIPS_MS: [u64; 3] = [1, 20, 100];
const BUFFERS: [u32; 3] = [32 << 10, 256 << 10, 4 << 20];
const RUNS: u64 = 10;
const MSS: f64 = 1_448.0;
/// What is wanted at 100 ms and 32 KiB, in kB/s.
const WANTED: [f64; 4] = [325.0, 230.0, 90.0, 45.0];

/// One cell of the table.
#[derive(Clone)]
struct Cell {
    sender: Config,
    receiver: Config,
    loss_percent: u64,
    rtt_ms: u64,
    buffer: u32,
    /// Acknowledgments are lost as often as data.
    both_ways: bool,
}

#[derive(Default)]
struct Outcome {
    /// Bytes a second.
    goodput: f64,
    fast_recoveries: u64,
    timeouts: u64,
    spurious: u64,
    stages: Stages,
}

/// Where a sender's time went, in seconds of simulated time.
#[derive(Default)]
struct Stages {
    total: f64,
    /// In fast recovery, and in that after a timeout.
    fast: f64,
    timeout: f64,
    /// The congestion window, and what was on its way, in segments times seconds.
    window: f64,
    pipe: f64,
}

impl Stages {
    /// Nothing happens for this long.
    fn note(&mut self, network: &Network, lasted: Duration) {
        let sender = &network.senders[0];
        let Some(numbers) = sender.stack.numbers(sender.conn) else { return };
        let seconds = lasted.as_nanos() as f64 / 1e9;
        self.total += seconds;
        match numbers.recovery {
            Recovery::Open => {}
            Recovery::Fast => self.fast += seconds,
            Recovery::Timeout => self.timeout += seconds,
        }
        self.window += seconds * f64::from(numbers.congestion_window) / MSS;
        self.pipe += seconds * f64::from(numbers.pipe) / MSS;
    }
}

impl Cell {
    fn new(congestion: CongestionControl, loss_percent: u64, rtt_ms: u64, buffer: u32) -> Self {
        let sender = Config { congestion, ..config() };
        Self { sender, receiver: config(), loss_percent, rtt_ms, buffer, both_ways: false }
    }

    /// Without loss all runs are one.
    fn runs(&self) -> u64 {
        if self.loss_percent == 0 { 1 } else { RUNS }
    }

    /// The link's two directions.
    fn links(&self) -> (LinkConfig, LinkConfig) {
        let delay = LinkConfig::delay(Duration::from_micros(self.rtt_ms * 500));
        let lossy = LinkConfig { loss_ppm: self.loss_percent * 10_000, ..delay };
        (lossy, if self.both_ways { lossy } else { delay })
    }

    /// What smoltcp makes of it, in bytes a second.
    fn run_smoltcp(&self) -> f64 {
        let (forward, backward) = self.links();
        let goodput = |seed| {
            let mut network = smoltcp_stations::network(self.buffer as usize, forward, backward, seed);
            let took = network.run(Duration::from_secs(60), 512 << 20);
            network.received()[0] as f64 / (took.as_nanos() as f64 / 1e9)
        };
        (0..self.runs()).map(goodput).sum::<f64>() / self.runs() as f64
    }

    /// The mean of some runs of a minute or 512 MiB.
    fn run(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let (forward, backward) = self.links();
        let runs = self.runs();
        for seed in 0..runs {
            let mut network = Network::new(&Setup {
                senders: vec![self.sender.clone()],
                receiver: Config { receive_window_bytes: self.buffer, ..self.receiver.clone() },
                forward,
                backward,
                send_buffer_bytes: self.buffer as usize,
                seed,
            });
            let took = network.run_watched(Duration::from_secs(60), 512 << 20, |network, lasted| {
                outcome.stages.note(network, lasted);
            });
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

    /// RFC 9438 5.1: the average window of a sender that nothing but loss limits, or what the buffer lets it be; without
    /// congestion control, the buffer. Of what it sends in a round trip, the lost share does not arrive.
    fn formula(&self) -> f64 {
        let (loss, rtt) = (self.loss_percent as f64 / 100.0, self.rtt_ms as f64 / 1e3);
        let reno = (1.5 / loss).sqrt();
        let segments = match self.sender.congestion {
            CongestionControl::NewReno => reno,
            CongestionControl::Cubic => {
                { (0.4 * 3.7 / 1.2f64).powf(0.25) * (rtt / loss).powf(0.75) }.max(reno)
            }
            CongestionControl::Uncontrolled => f64::INFINITY,
        };
        (1.0 - loss) * (segments * MSS).min(f64::from(self.buffer)) / rtt
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
        "100 ms and 32 KiB, {RUNS} minutes each: goodput in kB/s; fast recoveries and timeouts, with their share of the"
    );
    println!(
        "time; mistaken ones; the average congestion window, and of that what was on its way, in segments"
    );
    let usual = Cell::new(CongestionControl::Cubic, 0, 100, 32 << 10);
    let mut prompt = usual.clone();
    prompt.receiver.delayed_ack = Duration::from_nanos(1);
    let mut patient = usual.clone();
    patient.sender.min_rto = Duration::from_secs(1);
    let large = Cell { buffer: 4 << 20, ..usual.clone() };
    let reno = Cell::new(CongestionControl::NewReno, 0, 100, 32 << 10);
    let uncontrolled = Cell::new(CongestionControl::Uncontrolled, 0, 100, 32 << 10);
    for (name, cell) in [
        ("CUBIC", usual),
        ("CUBIC, acknowledgments wait for nothing", prompt),
        ("CUBIC, timeout of at least 1 s, not 200 ms", patient),
        ("CUBIC, buffers of 4 MiB", large),
        ("NewReno", reno),
        ("without congestion control", uncontrolled),
    ] {
        println!("  {name}");
        for loss_percent in LOSSES_PERCENT {
            let Outcome { goodput, fast_recoveries, timeouts, spurious, stages } =
                Cell { loss_percent, ..cell.clone() }.run();
            let of_time = |seconds: f64| 100.0 * seconds / stages.total;
            println!(
                "    {loss_percent:>2} %  {:>8.1}  {fast_recoveries:>5} ({:>4.1} %)  {timeouts:>4} ({:>4.1} %)  {spurious:>4}  {:>9.2}  {:>7.2}",
                goodput / 1e3,
                of_time(stages.fast),
                of_time(stages.timeout),
                (stages.window / stages.total).min(99_999.99),
                stages.pipe / stages.total
            );
        }
    }
}

/// All there are at 100 ms and 32 KiB, smoltcp among them, which has no congestion control unless it is asked for.
fn beside_smoltcp() {
    let algorithms = [CongestionControl::Uncontrolled, CongestionControl::Cubic, CongestionControl::NewReno];
    for (both_ways, what) in [(false, "data is lost"), (true, "data and acknowledgments are lost")] {
        println!(
            "100 ms and 32 KiB, goodput in kB/s and its share of the average window's formula, when {what}"
        );
        let row = |name: &str, figures: [String; 4]| {
            println!("  {name:<36}{}", figures.map(|figure| format!("{figure:>17}")).concat());
        };
        row("", LOSSES_PERCENT.map(|loss| format!("{loss} %")));
        row("wanted", WANTED.map(|goodput| format!("{goodput:.0}       ")));
        let cell = |algorithm, loss| Cell { both_ways, ..Cell::new(algorithm, loss, 100, 32 << 10) };
        let beside = |name: &str, algorithm, run: &dyn Fn(&Cell) -> f64| {
            row(
                name,
                LOSSES_PERCENT.map(|loss| {
                    let cell = cell(algorithm, loss);
                    let goodput = run(&cell);
                    format!("{:.1} ({:>3.0} %)", goodput / 1e3, 100.0 * goodput / cell.formula())
                }),
            );
        };
        beside("smoltcp, without congestion control", CongestionControl::Uncontrolled, &Cell::run_smoltcp);
        for algorithm in algorithms {
            beside(&format!("{algorithm:?}"), algorithm, &|cell| cell.run().goodput);
        }
        row(
            "CUBIC's formula",
            LOSSES_PERCENT
                .map(|loss| format!("{:.1}        ", cell(CongestionControl::Cubic, loss).formula() / 1e3)),
        );
    }
}

fn main() {
    let asked = std::env::args().nth(1);
    beside_smoltcp();
    if asked.is_none() {
        for algorithm in [CongestionControl::Cubic, CongestionControl::NewReno] {
            table(algorithm);
        }
    }
    if asked.as_deref() != Some("--short") {
        stages();
    }
}

//! Flows of ours through a bottleneck in simulated time: how they share it, how slow start meets its queue, and what loss
//! leaves of it beside what the congestion control's formula allows (RFC 9438 5.1).

use exos_net::{Config, CongestionControl, Duration, Ecn, SlowStart};

use crate::simulation::stations::config;
use crate::simulation::{LinkConfig, Network, Setup, smoltcp_stations};

const MIB: u32 = 1 << 20;

/// `flows` through a link of `rate_bytes` a second and a queue as long as a round trip of 40 ms takes.
fn bottleneck(senders: Vec<Config>, rate_bytes: u64, seed: u64) -> Setup {
    let delay = LinkConfig::delay(Duration::from_millis(20));
    Setup {
        senders,
        receiver: Config { receive_window_bytes: 4 * MIB, ..config() },
        forward: LinkConfig { rate_bytes: Some(rate_bytes), queue_bytes: rate_bytes / 25, ..delay },
        backward: delay,
        send_buffer_bytes: 4 * MIB as usize,
        seed,
    }
}

/// What two flows of one algorithm get in two minutes after half a minute, in bytes, the second beginning as the first,
/// through a queue of `rate / queue_part` bytes.
fn share(algorithm: CongestionControl, queue_part: u64) -> (u64, u64) {
    let sender = Config { congestion: algorithm, ..config() };
    let mut setup = bottleneck(vec![sender.clone(), sender], 1_250_000, 1);
    setup.forward.queue_bytes = 1_250_000 / queue_part;
    let mut network = Network::new(&setup);
    network.run(Duration::from_secs(30), u64::MAX);
    let before = network.received();
    network.run(Duration::from_secs(120), u64::MAX);
    let after = network.received();
    (after[0] - before[0], after[1] - before[1])
}

/// How far apart two are, as a share of the larger.
fn apart((first, second): (u64, u64)) -> f64 {
    first.abs_diff(second) as f64 / first.max(second) as f64
}

/// Several queues about as long as a round trip: in a world without chance, whose segment finds one queue full is a question
/// of phase that may be answered the same way for minutes.
fn assert_share(algorithm: CongestionControl) {
    let shares = [24, 25, 26, 27, 28].map(|part| share(algorithm, part));
    let sum = shares.iter().fold((0, 0), |sum, share| (sum.0 + share.0, sum.1 + share.1));
    println!("{algorithm:?}: {:.3} apart, {:.3?} by queue", apart(sum), shares.map(apart));
    assert!(apart(sum) < 0.1 && shares.iter().all(|&share| apart(share) < 0.2), "{shares:?}");
    // And they use it: 1,448 of 1,514 bytes of a frame are data.
    let whole = 5.0 * 120.0 * 1_250_000.0 * 1_448.0 / 1_514.0;
    assert!((sum.0 + sum.1) as f64 > 0.95 * whole, "{sum:?}");
}

#[test]
fn two_cubic_flows_share_a_bottleneck() {
    assert_share(CongestionControl::Cubic);
}

#[test]
fn two_new_reno_flows_share_a_bottleneck() {
    assert_share(CongestionControl::NewReno);
}

/// Frames that found a queue of `round_trips` full in the first six seconds of a flow, and the bytes that arrived.
fn beginning(slow_start: SlowStart, round_trips: u64) -> (u64, u64) {
    let mut setup = bottleneck(vec![Config { slow_start, ..config() }], 2_500_000, 1);
    setup.forward.queue_bytes *= round_trips;
    let mut network = Network::new(&setup);
    network.run(Duration::from_secs(6), u64::MAX);
    (network.forward.overflowed, network.received()[0])
}

/// The rise is seen when the window is four times what fills the link, because a round's first segments meet little of
/// the queue that its last ones make; then conservative slow start triples it (1.25^5) before it ends.
#[test]
fn hystart_ends_slow_start_before_a_long_queue_overflows() {
    let (standard, hystart) = (beginning(SlowStart::Standard, 16), beginning(SlowStart::HyStart, 16));
    println!("overflowed and received: {standard:?} in standard slow start, {hystart:?} with HyStart++");
    assert!(standard.0 > 100, "{standard:?}");
    assert_eq!(hystart.0, 0);
    // And not at the price of the link: 15 MB fit in six seconds.
    assert!(hystart.1 > 13_000_000, "{hystart:?}");
}

#[test]
fn hystart_loses_less_where_the_queue_is_shorter() {
    let (standard, hystart) = (beginning(SlowStart::Standard, 8), beginning(SlowStart::HyStart, 8));
    println!("overflowed and received: {standard:?} in standard slow start, {hystart:?} with HyStart++");
    assert!(hystart.0 * 3 < standard.0 && hystart.1 >= standard.1, "{standard:?} {hystart:?}");
}

#[test]
fn equal_seeds_are_equal_runs_and_others_are_not() {
    let run = |seed| {
        let mut setup = bottleneck(vec![config(), config()], 1_250_000, seed);
        setup.forward.loss_ppm = 10_000;
        let mut network = Network::new(&setup);
        network.run(Duration::from_secs(20), u64::MAX);
        let counters = network.senders.iter().map(|sender| *sender.stack.counters()).collect::<Vec<_>>();
        (network.received(), counters)
    };
    assert!(run(1) == run(1));
    assert!(run(1) != run(2));
}

/// A link with a round trip of 100 ms: its way with random loss, and its way back.
fn lossy_link(loss_percent: u64) -> (LinkConfig, LinkConfig) {
    let delay = LinkConfig::delay(Duration::from_millis(50));
    (LinkConfig { loss_ppm: loss_percent * 10_000, ..delay }, delay)
}

/// Goodput there, in bytes a second; the mean of ten minutes.
fn lossy(algorithm: CongestionControl, loss_percent: u64, buffer: u32) -> f64 {
    let (forward, backward) = lossy_link(loss_percent);
    let runs = (0..10).map(|seed| {
        let mut network = Network::new(&Setup {
            senders: vec![Config { congestion: algorithm, ..config() }],
            receiver: Config { receive_window_bytes: buffer, ..config() },
            forward,
            backward,
            send_buffer_bytes: buffer as usize,
            seed,
        });
        network.run(Duration::from_secs(60), u64::MAX);
        network.received()[0] as f64 / 60.0
    });
    let goodput = runs.sum::<f64>() / 10.0;
    println!("{algorithm:?}, {loss_percent} % of loss, {buffer} bytes: {:.1} kB/s", goodput / 1e3);
    goodput
}

/// What smoltcp makes of it.
fn smoltcp(loss_percent: u64, buffer: u32) -> f64 {
    let (forward, backward) = lossy_link(loss_percent);
    let runs = (0..10).map(|seed| {
        let mut network = smoltcp_stations::network(buffer as usize, forward, backward, seed);
        network.run(Duration::from_secs(60), u64::MAX);
        network.received()[0] as f64 / 60.0
    });
    runs.sum::<f64>() / 10.0
}

#[test]
fn small_buffer_is_used_as_far_as_loss_lets_it() {
    // RFC 9438 5.1 allows 176, 75 and 50 kB/s to arrive. Hardly more: who sends faster through loss does not answer to it.
    for (loss, least, most) in [(0, 325e3, 328e3), (1, 180e3, 190e3), (5, 74e3, 79e3), (10, 45e3, 50e3)] {
        let goodput = lossy(CongestionControl::Cubic, loss, 32 << 10);
        assert!((least..=most).contains(&goodput), "{loss} %: {goodput}");
    }
}

/// smoltcp has no congestion control either, unless it is asked for.
#[test]
fn without_congestion_control_a_small_buffer_is_used_better_than_by_smoltcp() {
    for (loss, least) in [(0, 325e3), (1, 230e3), (5, 90e3), (10, 45e3)] {
        let (ours, theirs) =
            (lossy(CongestionControl::Uncontrolled, loss, 32 << 10), smoltcp(loss, 32 << 10));
        println!("smoltcp, {loss} %: {:.1} kB/s", theirs / 1e3);
        assert!(ours >= least && ours > theirs && theirs > 30e3, "{loss} %: {ours} {theirs}");
    }
}

#[test]
fn large_buffer_gives_what_the_formula_allows() {
    // Both are sqrt(3 / 2p) segments a round trip: Reno's average window, which CUBIC's Reno-friendly region equals.
    let formula = (1.5f64 / 0.01).sqrt() * 1_448.0 / 0.1;
    for algorithm in [CongestionControl::Cubic, CongestionControl::NewReno] {
        let goodput = lossy(algorithm, 1, 4 * MIB);
        let share = goodput / formula;
        assert!((0.9..1.2).contains(&share), "{algorithm:?}: {goodput}, the formula says {formula}");
    }
}

#[test]
fn much_loss_leaves_what_the_rate_with_timeouts_allows() {
    for loss_percent in [5, 10] {
        // RFC 5348 3.1, with a round trip of 100 ms, a timeout of 200 ms and growth counted in bytes (b = 1).
        let p = loss_percent as f64 / 100.0;
        let timeouts = 0.2 * 3.0 * (3.0 * p / 8.0).sqrt() * p * (1.0 + 32.0 * p * p);
        let rate = 1_448.0 / (0.1 * (2.0 * p / 3.0).sqrt() + timeouts);
        for algorithm in [CongestionControl::Cubic, CongestionControl::NewReno] {
            let goodput = lossy(algorithm, loss_percent, 4 * MIB);
            let share = goodput / rate;
            assert!((0.9..1.4).contains(&share), "{algorithm:?}, {loss_percent} %: {goodput}, not {rate}");
        }
    }
}

/// Two flows of half a minute through a queue that marks from a quarter of it on: frames marked, frames dropped, segments
/// sent again, and bytes that arrived.
fn marked(algorithm: CongestionControl, ecn: Ecn) -> [u64; 4] {
    let sender = Config { congestion: algorithm, ecn, ..config() };
    let mut setup = bottleneck(vec![sender.clone(), sender], 1_250_000, 1);
    setup.forward.mark_above_bytes = setup.forward.queue_bytes / 4;
    let mut network = Network::new(&setup);
    network.run(Duration::from_secs(30), u64::MAX);
    let retransmits = network.senders.iter().map(|sender| sender.stack.counters().retransmits).sum();
    [network.forward.marked, network.forward.overflowed, retransmits, network.received().iter().sum()]
}

#[test]
fn marks_take_the_place_of_losses() {
    // A quarter of a round trip is little for who halves the window.
    for (algorithm, percent) in [(CongestionControl::Cubic, 95), (CongestionControl::NewReno, 80)] {
        let [without, with] = [Ecn::Agree, Ecn::Ask].map(|ecn| marked(algorithm, ecn));
        println!(
            "{algorithm:?}, marked, dropped, sent again, received: {without:?} without, {with:?} with ECN"
        );
        // What either flow lost last is not sent again yet.
        assert!(without[0] == 0 && without[1] > 0 && without[2] + 2 >= without[1], "{without:?}");
        assert!(with[0] > 0, "{with:?}");
        assert_eq!(with[1..3], [0, 0]);
        // And not at the price of the link.
        assert!(with[3] * 100 > without[3] * percent, "{without:?} {with:?}");
    }
}

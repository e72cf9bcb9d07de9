//! What is done to packets is what was asked for, and the same for the same seed.

mod around;
mod marks;
mod text;

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const MS: Duration = Duration::from_millis(1);

/// A packet with its number, and some bytes behind it.
fn packet(number: u32) -> Vec<u8> {
    let mut packet = vec![0; HEADER_BYTES + 14];
    packet.extend(number.to_be_bytes());
    packet.extend([0x55; 42]);
    packet
}

fn number_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes(std::array::from_fn(|at| packet[HEADER_BYTES + 14 + at]))
}

/// Sends so many packets, `spacing` apart, and gives back what arrives: when, and what.
fn run(
    faults: Faults,
    seed: u64,
    packets: u32,
    spacing: Duration,
) -> (Vec<(Duration, Vec<u8>)>, LineCounters) {
    let mut line = Line::new(faults, seed);
    let mut arrived = Vec::new();
    let mut take = |line: &mut Line, until: Duration| {
        while let Some(due) = line.due().filter(|&due| due <= until) {
            arrived.push((due, line.next(due).expect("it is due")));
        }
    };
    for number in 0..packets {
        let now = spacing * number;
        take(&mut line, now);
        line.offer(&packet(number), now);
    }
    take(&mut line, Duration::MAX);
    (arrived, line.counters())
}

fn numbers(arrived: &[(Duration, Vec<u8>)]) -> Vec<u32> {
    arrived.iter().map(|(_, packet)| number_of(packet)).collect()
}

/// Five standard deviations of a share among so many: a test that fails by chance once in a million runs, were it not seeded.
fn tolerance(share: f64, packets: u32) -> f64 {
    5.0 * (share * (1.0 - share) / f64::from(packets)).sqrt()
}

#[test]
fn line_without_faults_passes_everything_at_once() {
    let (arrived, counters) = run(Faults::default(), 7, 1000, MS);
    assert_eq!(numbers(&arrived), (0..1000).collect::<Vec<_>>());
    assert!(
        arrived
            .iter()
            .enumerate()
            .all(|(number, (due, bytes))| { *due == MS * number as u32 && *bytes == packet(number as u32) })
    );
    assert_eq!(counters, LineCounters { offered: 1000, delivered: 1000, ..LineCounters::default() });
}

#[test]
fn shares_are_what_was_asked_for() {
    const PACKETS: u32 = 100_000;
    for share in [0.001, 0.02, 0.5] {
        let near = |count: u64| (count as f64 / f64::from(PACKETS) - share).abs() < tolerance(share, PACKETS);
        let of = |faults| run(faults, 7, PACKETS, MS).1;
        let lost = of(Faults { loss: share, ..Faults::default() });
        assert!(near(lost.lost) && lost.delivered + lost.lost == u64::from(PACKETS), "{share}: {lost:?}");
        let doubled = of(Faults { duplicate: share, ..Faults::default() });
        assert!(near(doubled.duplicated), "{share}: {doubled:?}");
        assert_eq!(doubled.delivered, u64::from(PACKETS) + doubled.duplicated);
        let late = of(Faults { reorder: share, ..Faults::default() });
        assert!(near(late.reordered), "{share}: {late:?}");
        let (arrived, corrupted) = run(Faults { corrupt: share, ..Faults::default() }, 7, PACKETS, MS);
        assert!(near(corrupted.corrupted), "{share}: {corrupted:?}");
        // By the bytes, not by the counter: one bit each, never in the Ethernet header, and everywhere else.
        let mut places = HashMap::new();
        let mut changed = 0;
        for (number, (_, got)) in (0..).zip(&arrived) {
            let bits: Vec<_> = packet(number)
                .iter()
                .zip(got)
                .enumerate()
                .filter(|(_, (want, got))| want != got)
                .map(|(at, (want, got))| (at, want ^ got))
                .collect();
            assert!(bits.len() <= 1 && bits.iter().all(|(_, bit)| bit.is_power_of_two()), "{bits:?}");
            changed += bits.len() as u64;
            bits.iter().for_each(|&(at, _)| *places.entry(at).or_insert(0) += 1);
        }
        assert_eq!(changed, corrupted.corrupted);
        assert!(places.keys().all(|&at| at >= HEADER_BYTES + 14));
        assert!(share < 0.5 || places.len() == 46, "every byte was hit");
    }
}

#[test]
fn losses_without_bursts_are_independent_and_bursts_have_their_length() {
    const PACKETS: u32 = 400_000;
    for (loss, burst) in [(0.05, 1.0), (0.05, 4.0), (0.01, 20.0)] {
        let (arrived, counters) = run(Faults { loss, burst, ..Faults::default() }, 3, PACKETS, MS);
        let mut next = 0;
        let mut runs = Vec::new();
        for number in numbers(&arrived) {
            if number > next {
                runs.push(number - next);
            }
            next = number + 1;
        }
        let mean = runs.iter().sum::<u32>() as f64 / runs.len() as f64;
        // Independent losses follow each other too.
        let expected = if burst > 1.0 { burst } else { 1.0 / (1.0 - loss) };
        assert!((mean / expected - 1.0).abs() < 0.05, "loss {loss}, burst {burst}: runs of {mean}");
        let share = counters.lost as f64 / f64::from(PACKETS);
        assert!((share / loss - 1.0).abs() < 0.1, "loss {loss}, burst {burst}: {share}");
    }
    let everything = run(Faults { loss: 1.0, burst: 3.0, ..Faults::default() }, 3, 100, MS);
    assert_eq!(everything.1.lost, 100);
}

#[test]
fn delay_is_kept_and_jitter_is_uniform_around_it() {
    let faults = Faults { delay: 20 * MS, jitter: 2 * MS, ..Faults::default() };
    let (arrived, _) = run(faults, 9, 50_000, 5 * MS);
    let ways: Vec<f64> =
        (0..).zip(&arrived).map(|(number, (due, _))| (*due - 5 * MS * number).as_secs_f64() * 1e3).collect();
    assert!(ways.iter().all(|way| (18.0..=22.0).contains(way)));
    let mean = ways.iter().sum::<f64>() / ways.len() as f64;
    assert!((mean - 20.0).abs() < 0.03, "{mean} ms");
    for (from, to) in [(18.0, 19.0), (19.0, 20.0), (20.0, 21.0), (21.0, 22.0)] {
        let share = ways.iter().filter(|&&way| way >= from && way < to).count() as f64 / ways.len() as f64;
        assert!(
            (share - 0.25).abs() < tolerance(0.25, 50_000),
            "{share} of the packets take {from} to {to} ms"
        );
    }
}

#[test]
fn jitter_keeps_order_and_reordering_does_not() {
    let jitter = Faults { delay: 20 * MS, jitter: 20 * MS, ..Faults::default() };
    let (arrived, _) = run(jitter, 9, 10_000, MS / 10);
    assert!(numbers(&arrived).is_sorted());
    let reorder = Faults { reorder: 0.1, delay: 10 * MS, ..Faults::default() };
    let (arrived, counters) = run(reorder, 9, 10_000, MS);
    let order = numbers(&arrived);
    let overtaken = order.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(overtaken > 900 / 2 && counters.reordered > 900, "{overtaken} of {counters:?}");
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..10_000).collect::<Vec<_>>(), "each once");
    for (due, packet) in &arrived {
        let way = *due - MS * number_of(packet);
        assert!((10 * MS..=15 * MS).contains(&way), "{way:?}");
    }
}

#[test]
fn rate_spaces_packets_and_its_queue_drops_what_comes_too_fast() {
    // 60 bytes of frame are 480 bits: 480 us at 1 Mbit/s.
    let faults = Faults { rate_bits: Some(1_000_000), queue_packets: 10, ..Faults::default() };
    let (arrived, counters) = run(faults, 5, 1000, MS / 10);
    let gaps: Vec<_> = arrived.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_micros(480)), "never faster than the line");
    assert!(
        gaps[..100].iter().all(|gap| *gap == Duration::from_micros(480)),
        "and never slower while packets wait"
    );
    assert_eq!(counters.dropped + counters.delivered, 1000);
    let expected = 100.0 / 0.48 + 10.0;
    assert!((counters.delivered as f64 - expected).abs() < 3.0, "{counters:?}");
    // A packet waits for ten before it at most.
    assert!(
        (0..).zip(&arrived).all(|(_, (due, packet))| {
            *due - MS / 10 * number_of(packet) <= Duration::from_micros(480 * 11)
        })
    );
}

#[test]
fn same_seed_same_faults_and_another_seed_others() {
    let faults = Faults {
        loss: 0.1,
        duplicate: 0.1,
        corrupt: 0.1,
        reorder: 0.1,
        delay: 5 * MS,
        jitter: 2 * MS,
        ..Faults::default()
    };
    assert_eq!(run(faults, 7, 1000, MS), run(faults, 7, 1000, MS));
    assert_ne!(run(faults, 7, 1000, MS).0, run(faults, 8, 1000, MS).0);
    // One fault more does not change what the others do.
    let lost = |faults| {
        let arrived = numbers(&run(faults, 7, 1000, 20 * MS).0);
        (0..1000).filter(|number| !arrived.contains(number)).collect::<Vec<_>>()
    };
    let uncorrupted = Faults { corrupt: 0.0, ..faults };
    assert_eq!(lost(uncorrupted), lost(Faults { loss: 0.1, ..Faults::default() }));
}

#[test]
fn packets_on_their_way_are_bounded() {
    let faults = Faults { delay: Duration::from_secs(10), duplicate: 1.0, ..Faults::default() };
    let (arrived, counters) = run(faults, 7, 80_000, Duration::from_micros(1));
    assert_eq!(arrived.len(), ON_THE_WAY_MAX);
    assert_eq!(counters.delivered + counters.dropped, 160_000);
}

fn any_faults() -> impl Strategy<Value = Faults> {
    let share = || prop_oneof![Just(0.0), 0.0..1.0f64, Just(1.0)];
    let ms = || (0u64..50).prop_map(Duration::from_millis);
    let rate = prop::option::of(10_000u64..1_000_000_000);
    (share(), 1.0..20.0f64, share(), share(), share(), ms(), ms(), 0u64..50, rate, 1usize..50).prop_map(
        |(loss, burst, duplicate, corrupt, reorder, late, delay, jitter, rate_bits, queue_packets)| Faults {
            loss,
            burst,
            duplicate,
            corrupt,
            mark: 0.0,
            reorder,
            late,
            delay,
            jitter: Duration::from_millis(jitter).min(delay),
            rate_bits,
            queue_packets,
            mark_from_packets: None,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn delivered_is_sent_less_what_was_counted_as_lost_and_more_what_was_doubled(
        faults in any_faults(),
        seed: u64,
        packets in 1u32..400,
        spacing_us in 0u64..3000,
    ) {
        let spacing = Duration::from_micros(spacing_us);
        let (arrived, counters) = run(faults, seed, packets, spacing);
        prop_assert_eq!(counters.offered, u64::from(packets));
        prop_assert_eq!(counters.delivered, arrived.len() as u64);
        prop_assert_eq!(counters.delivered, counters.offered + counters.duplicated - counters.lost - counters.dropped);
        prop_assert!(arrived.is_sorted_by_key(|(due, _)| *due));
        if faults.corrupt == 0.0 {
            let mut times = HashMap::new();
            for (due, bytes) in &arrived {
                let number = number_of(bytes);
                prop_assert_eq!(bytes, &packet(number));
                prop_assert!(*due + faults.jitter >= spacing * number + faults.delay, "before it can be there");
                *times.entry(number).or_insert(0) += 1;
            }
            prop_assert!(times.values().all(|&times| times <= 2));
            prop_assert_eq!(times.values().filter(|&&times| times == 2).count() as u64, counters.duplicated);
            if faults.reorder == 0.0 {
                prop_assert!(numbers(&arrived).is_sorted());
            }
        }
    }
}

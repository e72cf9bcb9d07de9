//! An adversary who owns the wire between two stacks, seeded: each seed is one repeatable run. A short form runs always; more
//! with `EXOS_NET_SEEDS=100000`, one alone with `EXOS_NET_SEED=17`.

mod wire;

use wire::{Adversary, Summary, run};

/// Seeds of the short form.
const SEEDS: u64 = 4_000;
/// Most bytes of decisions in a run.
const MOST_BYTES: usize = 3_000;

/// SplitMix64's output for a state.
fn mix(state: u64) -> u64 {
    let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn bytes(seed: u64) -> Vec<u8> {
    let word = |place: u64| mix((seed * 1_000_003 + place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // Some adversaries are busier than others: 0 is the harmless decision.
    let busy = word(0) % 256;
    let len = (word(1) as usize % MOST_BYTES).max(16);
    (2..).map(word).map(|word| if word >> 32 & 0xff <= busy { word as u8 } else { 0 }).take(len).collect()
}

fn number(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// All seeds against one kind of adversary; panics name the seed.
fn seeds(adversary: Adversary) -> Summary {
    let one = number("EXOS_NET_SEED");
    let all = 0..number("EXOS_NET_SEEDS").unwrap_or(SEEDS);
    let mut total = Summary::default();
    for seed in one.map_or(all, |seed| seed..seed + 1) {
        let bytes = bytes(seed);
        let outcome = std::panic::catch_unwind(|| run(adversary, &bytes));
        let summary = outcome.unwrap_or_else(|panic| {
            eprintln!("{adversary:?}: seed {seed}");
            std::panic::resume_unwind(panic)
        });
        total.frames += summary.frames;
        total.forged += summary.forged;
        total.connections += summary.connections;
        total.bytes += summary.bytes;
    }
    println!("{adversary:?}: {total:?}");
    total
}

#[test]
fn unreliable_wire_delivers_every_byte_and_ends() {
    let total = seeds(Adversary::Unreliable);
    assert!(total.forged == 0 && total.bytes > 0 && total.connections > 0);
}

#[test]
fn forging_adversary_breaks_no_rule() {
    let total = seeds(Adversary::Forging);
    assert!(total.forged > 0 && total.connections > 0);
}

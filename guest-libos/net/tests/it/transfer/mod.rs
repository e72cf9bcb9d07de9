//! Megabytes both ways between the stack and smoltcp as an independent client or server, over a link that loses, repeats
//! and reorders frames. Time is simulated; each seed is one repeatable run.

mod link;
mod run;

use exos_net::{Config, Duration, TxChecksum};
use proptest::prelude::*;

use crate::harness::config;
use link::Faults;
use run::Run;

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever the link does and whatever options both sides have: all bytes arrive, both connections end, and the debug
    /// build's invariants of the sending half hold at every step.
    #[test]
    fn any_link_and_any_options_move_everything(
        loss in 0u64..20, repeat in 0u64..20, reorder in 0u64..40, seed: u64, sack: bool, timestamps: bool,
        client_timestamps: bool, tso: bool, withhold_every in 0u8..4, upload in 0usize..60_000, download in 0usize..150_000,
    ) {
        let offload = Config { tso_max_bytes: 65_000, tx_checksum: TxChecksum::Offload, ..scaled() };
        // Without timestamps a doubled timeout stays doubled while everything has to be sent again (RFC 6298 (5.7)), ours and the peer's,
        // for which we wait in FIN-WAIT-2.
        let (user_timeout, fin_wait_2) = (Duration::from_secs(3_000), Duration::from_secs(3_000));
        let config =
            Config { sack, timestamps, user_timeout, fin_wait_2, withhold_every, ..if tso { offload } else { scaled() } };
        let faults = Faults { loss, repeat, reorder };
        Run { faults, client_timestamps, config, upload, download, seed }.go();
    }
}

const MIB: usize = 1 << 20;

fn scaled() -> Config {
    Config { receive_window_bytes: 300_000, delayed_ack: Duration::from_millis(10), ..config() }
}

/// Every second client has timestamps.
fn transfer(faults: Faults, config: Config, (upload, download): (usize, usize), seed: u64) -> Run {
    Run { faults, client_timestamps: seed.is_multiple_of(2), config, upload, download, seed }
}

/// Who opens a connection.
const OPENED: [fn(Run) -> u64; 2] = [Run::go, Run::go_active];

#[test]
fn perfect_link_moves_everything_without_retransmission() {
    for go in OPENED {
        let ms = go(transfer(Faults::default(), scaled(), (2 * MIB, 4 * MIB), 2));
        assert!(ms < 4_000, "{ms} ms");
    }
}

#[test]
fn one_percent_loss_is_repaired() {
    for seed in 1..4 {
        transfer(Faults { loss: 1, ..Faults::default() }, scaled(), (MIB, 2 * MIB), seed).go();
    }
}

#[test]
fn five_percent_loss_is_repaired() {
    for seed in 1..4 {
        transfer(Faults { loss: 5, ..Faults::default() }, scaled(), (MIB / 2, MIB), seed).go();
    }
}

#[test]
fn ten_percent_loss_with_repeats_and_reordering_is_repaired() {
    for (go, seed) in OPENED.into_iter().flat_map(|go| (1..6).map(move |seed| (go, seed))) {
        let faults = Faults { loss: 10, repeat: 5, reorder: 10 };
        go(transfer(faults, config(), (MIB / 4, MIB / 2), seed));
    }
}

#[test]
fn reordering_and_repeats_alone_are_harmless() {
    transfer(Faults { loss: 0, repeat: 20, reorder: 30 }, scaled(), (MIB, MIB), 8).go();
}

#[test]
fn segmentation_offload_survives_loss() {
    let config = Config { tso_max_bytes: 65_000, tx_checksum: TxChecksum::Offload, ..scaled() };
    for (loss, seed) in [(0, 12), (1, 13), (5, 16)] {
        transfer(Faults { loss, ..Faults::default() }, config.clone(), (MIB / 4, 3 * MIB), seed).go();
    }
}

#[test]
fn many_seeds_of_short_connections_end_in_order() {
    for (go, seed) in OPENED.into_iter().flat_map(|go| (100..200).map(move |seed| (go, seed))) {
        go(transfer(Faults { loss: 15, repeat: 10, reorder: 20 }, config(), (3_000, 9_000), seed));
    }
}

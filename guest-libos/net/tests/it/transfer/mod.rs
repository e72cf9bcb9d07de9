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

#[test]
fn perfect_link_moves_everything_without_retransmission() {
    let ms = Run {
        faults: Faults::default(),
        client_timestamps: true,
        config: scaled(),
        upload: 2 * MIB,
        download: 4 * MIB,
        seed: 1,
    }
    .go();
    assert!(ms < 4_000, "{ms} ms");
}

#[test]
fn one_percent_loss_is_repaired() {
    let faults = Faults { loss: 1, ..Faults::default() };
    for seed in 1..4 {
        Run {
            faults,
            client_timestamps: seed % 2 == 0,
            config: scaled(),
            upload: MIB,
            download: 2 * MIB,
            seed,
        }
        .go();
    }
}

#[test]
fn five_percent_loss_is_repaired() {
    let faults = Faults { loss: 5, ..Faults::default() };
    for seed in 1..4 {
        Run {
            faults,
            client_timestamps: seed % 2 == 0,
            config: scaled(),
            upload: MIB / 2,
            download: MIB,
            seed,
        }
        .go();
    }
}

#[test]
fn ten_percent_loss_with_repeats_and_reordering_is_repaired() {
    let faults = Faults { loss: 10, repeat: 5, reorder: 10 };
    for seed in 1..6 {
        Run {
            faults,
            client_timestamps: seed % 2 == 0,
            config: config(),
            upload: MIB / 4,
            download: MIB / 2,
            seed,
        }
        .go();
    }
}

#[test]
fn reordering_and_repeats_alone_are_harmless() {
    let faults = Faults { loss: 0, repeat: 20, reorder: 30 };
    Run { faults, client_timestamps: true, config: scaled(), upload: MIB, download: MIB, seed: 7 }.go();
}

#[test]
fn segmentation_offload_survives_loss() {
    let config = Config { tso_max_bytes: 65_000, tx_checksum: TxChecksum::Offload, ..scaled() };
    for loss in [0, 1, 5] {
        let faults = Faults { loss, ..Faults::default() };
        Run {
            faults,
            client_timestamps: true,
            config: config.clone(),
            upload: MIB / 4,
            download: 3 * MIB,
            seed: 11 + loss,
        }
        .go();
    }
}

#[test]
fn many_seeds_of_short_connections_end_in_order() {
    let faults = Faults { loss: 15, repeat: 10, reorder: 20 };
    for seed in 100..200 {
        Run {
            faults,
            client_timestamps: seed % 2 == 0,
            config: config(),
            upload: 3_000,
            download: 9_000,
            seed,
        }
        .go();
    }
}

#[test]
fn our_connection_moves_everything_over_a_perfect_link() {
    let ms = Run {
        faults: Faults::default(),
        client_timestamps: true,
        config: scaled(),
        upload: 2 * MIB,
        download: 4 * MIB,
        seed: 1,
    }
    .go_active();
    assert!(ms < 4_000, "{ms} ms");
}

#[test]
fn our_connection_survives_loss_repeats_and_reordering() {
    let faults = Faults { loss: 10, repeat: 5, reorder: 10 };
    for seed in 1..6 {
        Run {
            faults,
            client_timestamps: seed % 2 == 0,
            config: config(),
            upload: MIB / 4,
            download: MIB / 2,
            seed,
        }
        .go_active();
    }
}

#[test]
fn many_seeds_of_our_short_connections_end_in_order() {
    let faults = Faults { loss: 15, repeat: 10, reorder: 20 };
    for seed in 100..200 {
        Run {
            faults,
            client_timestamps: seed % 2 == 0,
            config: config(),
            upload: 3_000,
            download: 9_000,
            seed,
        }
        .go_active();
    }
}

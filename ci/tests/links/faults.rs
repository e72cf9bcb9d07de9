//! Every fault, each direction: pages come out identical, and the counters say that the fault happened.

use exovm::backend::link;
use exovm_ci::site::Pattern;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use exovm_test::link::Host;

const LARGE_BYTES: usize = 200_000;

/// Fetches pages through these faults, and gives the guest back for its counters.
fn pages_survive(faults: &str, rounds: usize) -> Guest {
    let large = Pattern::bytes(3, LARGE_BYTES);
    let site = Site::new().file("small", "small").file("large", &large);
    let [to_guest, to_host] = link::pair().expect("a pair");
    let host = Host::plug(&to_host, 0);
    let guest =
        Guest::image("cheetah").site(&site).link(&to_guest, host.guest_address()).impair(faults).start();
    for _ in 0..rounds {
        let mut client = guest.connect();
        for _ in 0..5 {
            assert_eq!(client.get("/small").expect("served").text(), "small");
        }
        assert!(client.get("/large").expect("served").body == large, "the large page differs");
    }
    drop(host);
    guest
}

/// The same, and this counter moved in both directions.
fn pages_survive_counted(faults: &str, rounds: usize, counter: &str) {
    let guest = pages_survive(faults, rounds);
    for direction in ["tx", "rx"] {
        let count = guest.backend_counter(&format!("impair_{direction}_{counter}"));
        let packets = guest.backend_counter(&format!("impair_{direction}_packets"));
        assert!(count > 0, "{faults}: of {packets} packets {direction}, none was {counter}");
    }
}

#[test]
fn pages_survive_loss() {
    in_namespace!(|| pages_survive_counted("loss=2%,seed=7", 6, "lost"));
}

#[test]
fn pages_survive_bursts_of_loss() {
    in_namespace!(|| pages_survive_counted("loss=2%,burst=3,seed=7", 6, "lost"));
}

#[test]
fn pages_survive_reordering() {
    in_namespace!(|| pages_survive_counted("reorder=5%,late=2ms,seed=7", 6, "reordered"));
}

#[test]
fn pages_survive_duplication() {
    in_namespace!(|| pages_survive_counted("duplicate=10%,seed=7", 6, "duplicated"));
}

#[test]
fn pages_survive_corruption() {
    in_namespace!(|| pages_survive_counted("corrupt=2%,seed=7", 6, "corrupted"));
}

#[test]
fn pages_survive_a_slow_line_with_a_short_queue() {
    in_namespace!(|| {
        let guest = pages_survive("tx:rate=50mbit,tx:queue=20,seed=7", 6);
        assert!(guest.backend_counter("impair_tx_dropped") > 0, "the queue was never full");
    });
}

#[test]
fn pages_survive_delay_with_jitter_and_take_their_time() {
    in_namespace!(|| {
        let from = std::time::Instant::now();
        let guest = pages_survive("delay=3ms,jitter=1ms,seed=7", 3);
        // A handshake and six requests each round, 4 ms there and back at least.
        assert!(from.elapsed() >= std::time::Duration::from_millis(3 * 7 * 4));
        assert_eq!(guest.backend_counter("impair_tx_lost"), 0);
    });
}

#[test]
fn pages_survive_everything_at_once() {
    in_namespace!(|| {
        let faults =
            "loss=1%,burst=2,delay=2ms,jitter=1ms,reorder=2%,duplicate=2%,corrupt=1%,rate=100mbit,seed=7";
        let guest = pages_survive(faults, 4);
        for counter in ["lost", "reordered", "duplicated", "corrupted"] {
            let count = |direction| guest.backend_counter(&format!("impair_{direction}_{counter}"));
            assert!(count("tx") + count("rx") > 0, "{counter}");
        }
    });
}

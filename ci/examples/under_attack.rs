//! What an honest load gets from Cheetah while its TCP/IP is attacked: rates, latencies, memory, and what the guest counts. For each
//! attack a while without it and a while with it, on the same machine.
//!
//!     cargo run --release -p exovm-ci --example under_attack                    5 s of each
//!     cargo run --release -p exovm-ci --example under_attack -- 20 SynFlood     20 s of one

use exovm_ci::under_attack::{Attack, Latencies, Outcome, serve};
use exovm_ci::{Guest, Site};
use exovm_netns::enter_private_network;
use std::time::Duration;

fn load(latencies: &Latencies) -> String {
    let ms = |share| latencies.quantile(share).as_secs_f64() * 1e3;
    format!(
        "{:5.0} {:6.2} {:7.2} {:7.1} {:4}",
        latencies.rate(),
        ms(0.5),
        ms(0.99),
        ms(1.0),
        latencies.broken
    )
}

fn row(name: &str, seconds: u64, outcome: &Outcome) {
    let kframes = outcome.attack_frames as f64 / seconds as f64 / 1e3;
    println!(
        "{name:22} {kframes:7.1} | {} | {} | {:6} {:8}",
        load(&outcome.kept),
        load(&outcome.new),
        outcome.connections,
        outcome.grown_kib
    );
}

fn main() {
    enter_private_network().unwrap_or_else(|error| panic!("{error}"));
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(5, |text| text.parse().expect("seconds, such as 5"));
    let only = arguments.next();
    println!(
        "{:22} {:>7} | {:>33} | {:>33} | {:>6} {:>8}",
        "", "attack", "one connection, 200 a second", "a connection each, 50 a second", "most", "memory"
    );
    let columns = format!("{:>5} {:>6} {:>7} {:>7} {:>4}", "1/s", "p50", "p99", "max ms", "lost");
    println!("{:22} {:>7} | {columns} | {columns} | {:>6} {:>8}", "", "k/s", "conns", "+ KiB");
    let site = Site::new().file("small", "small").pattern_file("large", 1, 1 << 20);
    for attack in Attack::ALL {
        let name = format!("{attack:?}");
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let guest = Guest::serving(&site);
        let duration = Duration::from_secs(seconds);
        row("  (nobody attacks)", seconds, &serve(&guest, None, "/small", "/large", duration));
        let outcome = serve(&guest, Some(attack), "/small", "/large", duration);
        row(&name, seconds, &outcome);
        let grown = outcome.counted.iter().filter(|(.., count)| *count > 0);
        let counted: Vec<_> = grown.map(|(_, name, count)| format!("{name} {count}")).collect();
        println!("    {}", counted.join(", "));
        guest.end();
    }
}

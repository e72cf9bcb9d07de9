//! A guardian and its clients on one NIC, with real traffic.
//!
//! | file | what |
//! | --- | --- |
//! | `ports` | ports, and the tables' page |
//! | `ndisc` | neighbours, with Linux on the other side of the link |
//! | `quotas` | a greedy client and a modest one |
//! | `image` | what users run |

mod image;
mod ndisc;
mod ports;
mod quotas;

use exovm_ci::{Client, Guest, GuestBuilder};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A guardian, and clients that do these things.
pub(crate) fn guarded(clients: &[&str]) -> GuestBuilder {
    let arguments: Vec<&str> = ["guarded"].into_iter().chain(clients.iter().copied()).collect();
    Guest::image("probe")
        .guardian()
        .environments(1 + clients.len() as u32)
        .memory_mib(192)
        .arguments(&arguments)
}

pub(crate) fn at(guest: &Guest, port: u16) -> SocketAddr {
    (guest.network().guest_address(), port).into()
}

/// Who answers there.
pub(crate) fn who(server: SocketAddr) -> Option<String> {
    let mut client = Client::connect_within(server, Duration::from_secs(5)).ok()?;
    client.get("/").ok().map(|response| response.text().to_owned())
}

pub(crate) fn wait_for(server: SocketAddr, expected: &str) {
    let begun = Instant::now();
    while who(server).as_deref() != Some(expected) {
        assert!(begun.elapsed() < PATIENCE, "{server} does not answer {expected:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

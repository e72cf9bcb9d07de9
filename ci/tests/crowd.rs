//! More clients than there are places: silent ones, and SYNs that nobody completes. Somebody who comes with a request must
//! find a place all the same.

use exovm_ci::network::Network;
use exovm_ci::{Client, Guest, Site, host};
use exovm_netns::in_namespace;
use exovm_netns::link_layer::{Wire, internet_checksum, set_tcp_checksum};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Cheetah's places.
const PLACES: usize = 8192;
/// What a client that has a request may have to wait: one repetition of a lost SYN, and a busy host.
const PATIENCE: Duration = Duration::from_secs(3);

#[test]
fn silent_clients_beyond_all_places_keep_nobody_out() {
    in_namespace!(|| host::undisturbed(|| {
        host::allow_descriptors(2 * PLACES as u64);
        let guest = Guest::serving(&Site::new().file("a", "a"));
        let connect = || {
            (0..PLACES / 4 + 100)
                .filter_map(|_| TcpStream::connect_timeout(&guest.address(), PATIENCE).ok())
                .collect::<Vec<_>>()
        };
        let silent: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(connect)).collect();
            let streams: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            for _ in 0..10 {
                let started = Instant::now();
                assert_eq!(guest.get("/a").text(), "a");
                assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
            }
            streams.iter().map(Vec::len).sum()
        });
        assert!(silent > PLACES, "only {silent} clients connected: the places were not all taken");
        guest.stop();
    }));
}

/// Sends SYNs from ever new addresses and ports until it is over.
fn flood(network: &Network, over: &AtomicBool, sent: &AtomicU64) {
    let wire = Wire::open(network.interface()).unwrap_or_else(|error| panic!("AF_PACKET: {error}"));
    let mut frame = [0u8; 54];
    frame[..6].copy_from_slice(&network.guest_mac());
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
    let packet = &mut frame[14..];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&40u16.to_be_bytes());
    packet[8..10].copy_from_slice(&[64, 6]);
    packet[16..20].copy_from_slice(&network.guest_address().octets());
    packet[22..24].copy_from_slice(&80u16.to_be_bytes());
    packet[32..36].copy_from_slice(&[0x50, 0x02, 0xFF, 0xFF]);
    for number in 0u32.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let mut source = network.host_address().octets();
        source[3] = 3 + (number / 60_000 % 250) as u8;
        frame[26..30].copy_from_slice(&source);
        frame[34..36].copy_from_slice(&((number % 60_000) as u16 + 1).to_be_bytes());
        frame[24..26].copy_from_slice(&[0, 0]);
        let checksum = internet_checksum(&frame[14..34], 0);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        set_tcp_checksum(&mut frame[14..]);
        sent.fetch_add(u64::from(wire.send(&frame).is_ok()), Ordering::Relaxed);
        if number % 64 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn syn_flood_keeps_nobody_out() {
    in_namespace!(|| host::undisturbed(|| {
        let guest = Guest::serving(&Site::new().file("a", "a"));
        const SYNS: u64 = 20_000;
        let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| flood(guest.network(), &over, &sent));
            let started = Instant::now();
            let (mut longest, mut served) = (Duration::ZERO, 0);
            let mut failed = None;
            // Far more than half-open connections may be, however long a busy host takes for that.
            while (started.elapsed() < Duration::from_secs(4)
                || (sent.load(Ordering::Relaxed) <= SYNS && started.elapsed() < Duration::from_secs(60)))
                && failed.is_none()
            {
                let begun = Instant::now();
                match Client::connect(guest.address()).and_then(|mut client| client.get("/a")) {
                    Ok(response) if response.text() == "a" => served += 1,
                    other => failed = Some(format!("{other:?}")),
                }
                longest = longest.max(begun.elapsed());
            }
            // Before anything that may panic: the other thread waits for it.
            over.store(true, Ordering::Relaxed);
            // However busy the host is, nobody who has a cookie is pushed out.
            assert_eq!(failed, None);
            assert!(longest < PATIENCE && served > 0, "{longest:?}, {served} served");
        });
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent > SYNS, "the flood was a trickle of {sent} SYNs");
        guest.stop();
    }));
}

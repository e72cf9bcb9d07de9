//! Machines that talk over links without faults.

use exovm::backend::link;
use exovm::placement::IoMode;
use exovm_ci::site::Pattern;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use exovm_test::link::Host;
use std::net::Ipv4Addr;

const LARGE_BYTES: usize = 3_000_000;

fn pages_cross_a_pair_in_mode(mode: IoMode) {
    let large = Pattern::bytes(3, LARGE_BYTES);
    let site = Site::new().file("small", "small").file("large", &large);
    let [to_guest, to_host] = link::pair().expect("a pair");
    let host = Host::plug(&to_host, 0);
    let guest = Guest::image("cheetah").site(&site).io(mode).link(&to_guest, host.guest_address()).start();
    let mut client = guest.connect();
    for _ in 0..50 {
        assert_eq!(client.get("/small").expect("served").text(), "small");
        assert!(client.get("/large").expect("served").body == large, "the large page differs");
    }
    let sent = guest.backend_counter("link_sent_queued_frames");
    assert!(sent > 100, "{sent}");
    for dropped in ["full", "down", "length", "unfinished"] {
        assert_eq!(guest.backend_counter(&format!("link_dropped_{dropped}")), 0, "{dropped}");
    }
    let copied = guest.machine().placement().nic().expect("a NIC").metrics().receive_copied;
    assert!(copied <= 2, "{copied} frames went to the guest by another way than into its buffers");
    guest.stop();
}

#[test]
fn pages_cross_a_pair_in_turns() {
    in_namespace!(|| pages_cross_a_pair_in_mode(IoMode::Turn));
}

#[test]
fn pages_cross_a_pair_by_a_thread() {
    in_namespace!(|| pages_cross_a_pair_in_mode(IoMode::Thread));
}

#[test]
fn pages_cross_a_pair_wherever_the_load_says() {
    in_namespace!(|| pages_cross_a_pair_in_mode(IoMode::Auto));
}

#[test]
fn three_servers_at_a_switch_serve_their_own_at_once() {
    in_namespace!(|| {
        let ports = link::switch(4).expect("a switch");
        let host = Host::plug(&ports[3], 0);
        let bodies: Vec<_> = (0..3).map(|number| Pattern::bytes(number, 300_000)).collect();
        let sites: Vec<_> = bodies.iter().map(|body| Site::new().file("body", body)).collect();
        let guests: Vec<_> = (0..3u8)
            .map(|number| {
                let address = Ipv4Addr::new(10, 80, 0, 2 + number);
                let site = &sites[usize::from(number)];
                Guest::image("cheetah").site(site).link(&ports[usize::from(number)], address).start()
            })
            .collect();
        std::thread::scope(|scope| {
            for (guest, body) in guests.iter().zip(&bodies) {
                scope.spawn(move || {
                    let mut client = guest.connect();
                    for _ in 0..30 {
                        assert!(
                            client.get("/body").expect("served").body == *body,
                            "a body of another machine"
                        );
                    }
                });
            }
        });
        // The switch has learned where everybody is: a guest hears others' broadcasts and nothing else of them.
        for guest in &guests {
            let flooded = guest.backend_counter("link_flooded_frames");
            assert!(flooded <= 3, "{flooded} frames went to everybody");
        }
        drop(host);
        guests.into_iter().for_each(Guest::stop);
    });
}

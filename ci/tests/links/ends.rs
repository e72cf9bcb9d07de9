//! Machines that go, under load, and come again.

use exovm::backend::link;
use exovm_ci::site::Pattern;
use exovm_ci::{Client, Guest, Site};
use exovm_netns::in_namespace;
use exovm_test::link::Host;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// How long for what takes a moment on a quiet host.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn machine_killed_under_load_is_replaced_at_its_port_and_its_neighbour_notices_nothing() {
    in_namespace!(|| {
        let ports = link::switch(3).expect("a switch");
        let host = Host::plug(&ports[2], 0);
        let body = Pattern::bytes(1, 500_000);
        let site = Site::new().file("body", &body);
        let start = |port: usize| {
            let address = Ipv4Addr::new(10, 80, 0, 2 + port as u8);
            Guest::image("cheetah").site(&site).link(&ports[port], address).start()
        };
        let survivor = start(0);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = survivor.connect();
                let mut times = 0;
                while !over.load(Ordering::Relaxed) || times == 0 {
                    assert!(client.get("/body").expect("the neighbour serves on").body == body);
                    times += 1;
                }
            });
            for _ in 0..5 {
                let victim = start(1);
                let address = victim.address();
                let (said, served) = mpsc::channel();
                scope.spawn(move || {
                    let mut client = Client::connect_within(address, PATIENCE).expect("it serves");
                    assert!(client.get("/body").is_ok());
                    said.send(()).expect("it is waited for");
                    client.socket().set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
                    while client.get("/body").is_ok() {}
                });
                served.recv_timeout(PATIENCE).expect("it serves until then");
                std::thread::sleep(Duration::from_millis(50));
                // Without being asked: in the middle of it.
                drop(victim);
            }
            over.store(true, Ordering::Relaxed);
        });
        drop(host);
        survivor.stop();
    });
}

#[test]
fn machine_without_anybody_at_the_other_end_serves_who_comes_later() {
    in_namespace!(|| {
        let [to_guest, to_host] = link::pair().expect("a pair");
        let site = Site::new().file("a", "a");
        let guest = Guest::image("cheetah").site(&site).link(&to_guest, Ipv4Addr::new(10, 80, 0, 2)).start();
        for _ in 0..3 {
            let host = Host::plug(&to_host, 0);
            guest.get("/a").assert_text("a");
            drop(host);
        }
        guest.stop();
    });
}

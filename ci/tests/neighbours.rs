//! Two Cheetahs in two environments of one machine, on one NIC, with a disk each. They share the vCPU and know nothing of each
//! other; when one dies in the middle of its work the other does not notice.

use exovm::backend::disk::Access;
use exovm::machine::End;
use exovm_ci::{Client, Guest, Site, make_image};
use exovm_netns::in_namespace;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Clients of each.
const CLIENTS: usize = 8;
/// How long the survivor is measured, before and after.
const WINDOW: Duration = Duration::from_secs(2);
/// How long until the victim has ended.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Count {
    served: AtomicU64,
    failed: AtomicU64,
}

/// GETs over one connection after the other, until it is over.
fn load(server: SocketAddr, expected: &str, count: &Count, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::connect_within(server, Duration::from_secs(5)) else {
            count.failed.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        for _ in 0..100 {
            match client.get("/who") {
                Ok(response) if response.text() == expected => count.served.fetch_add(1, Ordering::Relaxed),
                _ => {
                    count.failed.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            };
            if over.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

#[test]
fn neighbour_that_dies_under_load_costs_the_other_no_request() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let images = ["first", "second"].map(|who| {
            let path = scratch.path().join(who);
            make_image(Site::new().file("who", who).path(), &path);
            path
        });
        let guest = Guest::image("cheetah")
            .environments(2)
            .memory_mib(512)
            .disk(&images[0], Access::ReadOnly)
            .disk(&images[1], Access::ReadOnly)
            .start();
        let first = guest.address();
        let second = SocketAddr::new(first.ip(), first.port() + 1);
        let over = AtomicBool::new(false);
        let (survivor, victim) = (Count::default(), Count::default());
        let (before, after) = std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| load(first, "first", &survivor, &over));
                scope.spawn(|| load(second, "second", &victim, &over));
            }
            let measure = || {
                let begun = survivor.served.load(Ordering::Relaxed);
                std::thread::sleep(WINDOW);
                survivor.served.load(Ordering::Relaxed) - begun
            };
            let before = measure();
            let both_served = victim.served.load(Ordering::Relaxed);
            let failed_before = victim.failed.load(Ordering::Relaxed);
            // Where it goes on when it gets the CPU, as the kernel noted it: nowhere.
            let pages = guest.machine().environment_pages(1).expect("a second environment");
            let begun = Instant::now();
            while victim.failed.load(Ordering::Relaxed) == failed_before && begun.elapsed() < PATIENCE {
                pages.kernel.resume[0].store(0, Ordering::Relaxed);
                std::hint::spin_loop();
            }
            let after = measure();
            over.store(true, Ordering::Relaxed);
            assert!(both_served > 0 && failed_before == 0, "{both_served} served, {failed_before} failed");
            assert!(victim.failed.load(Ordering::Relaxed) > 0, "the second environment goes on");
            (before, after)
        });
        assert_eq!(survivor.failed.load(Ordering::Relaxed), 0, "requests of the survivor failed");
        assert!(after * 2 > before, "{before} requests before, {after} after");
        let log = guest.log();
        assert!(log.iter().any(|line| line.contains("environment 1: page fault executing 0x0")), "{log:#?}");
        assert_eq!(guest.machine().end(Duration::from_secs(10)), End::PowerOff { status: 0 });
    });
}

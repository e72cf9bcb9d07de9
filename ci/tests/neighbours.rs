//! Two environments of one machine, on one NIC, with a disk each: two Cheetahs that know nothing of each other, of which one dies in
//! the middle of its work; a Cheetah and its parent, who asks it for half of its memory in the middle of its work.

use exovm::backend::disk::Access;
use exovm::machine::End;
use exovm_ci::pair::two_cheetahs;
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
        let (guest, [first, second]) = two_cheetahs(scratch.path(), |guest| guest);
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
            // A busy host may take the CPU for some of these times.
            let mut after = measure();
            for _ in 0..4 {
                if after * 2 <= before {
                    after = measure();
                }
            }
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

/// Files of the site that is served while its memory is asked back: more than the cache has afterwards.
const FILES: usize = 48;
const FILE_BYTES: usize = 2 << 20;

fn file(number: usize) -> Vec<u8> {
    let word = |at: usize| (at * 31 + number).wrapping_mul(0x9E37_79B9);
    (0..FILE_BYTES / 4).flat_map(|at| (word(at) as u32).to_le_bytes()).collect()
}

/// GETs of all files, from one on, until it is over: each must be whole and right.
fn read_all(server: SocketAddr, first: usize, files: &[Vec<u8>], count: &Count, over: &AtomicBool) {
    let Ok(mut client) = Client::connect_within(server, Duration::from_secs(10)) else {
        count.failed.fetch_add(1, Ordering::Relaxed);
        return;
    };
    for number in (first..).map(|number| number % FILES) {
        if over.load(Ordering::Relaxed) {
            return;
        }
        match client.get(&format!("/{number}")) {
            Ok(response) if response.body == files[number] => {
                count.served.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                count.failed.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

#[test]
fn cheetah_that_is_asked_for_half_of_its_memory_under_load_gives_it_and_loses_no_request() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let files: Vec<Vec<u8>> = (0..FILES).map(file).collect();
        let mut site = Site::new();
        for (number, content) in files.iter().enumerate() {
            site = site.file(&number.to_string(), content);
        }
        let images = ["site", "nothing"].map(|name| scratch.path().join(name));
        make_image(site.path(), &images[0]);
        make_image(Site::new().file("nothing", "").path(), &images[1]);
        let guest = Guest::image("landlord")
            .memory_mib(448)
            .disk(&images[0], Access::ReadOnly)
            .disk(&images[1], Access::ReadOnly)
            .arguments(&["6000", "50", "10000"])
            .start();
        let server = guest.address();
        let (count, over) = (Count::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (files, count, over) = (&files, &count, &over);
                scope.spawn(move || read_all(server, client * FILES / CLIENTS, files, count, over));
            }
            // All files have been read: what came last lies where memory will be asked back.
            while count.served.load(Ordering::Relaxed) < FILES as u64 {
                std::thread::sleep(Duration::from_millis(1));
                assert_eq!(count.failed.load(Ordering::Relaxed), 0, "{:#?}", guest.log());
            }
            // Some take nothing of what they asked for, and hold pages of it.
            let stalled: Vec<Client> = (0..CLIENTS)
                .map(|client| {
                    let mut stalled = Client::connect_within(server, PATIENCE).expect("it serves");
                    stalled
                        .request("GET", &format!("/{}", (client + 1) * FILES / CLIENTS - 1), "")
                        .expect("it takes it");
                    stalled
                })
                .collect();
            guest.wait_for_log("what came back can be used");
            drop(stalled);
            // And it goes on with less.
            let served = count.served.load(Ordering::Relaxed);
            let begun = Instant::now();
            while count.served.load(Ordering::Relaxed) < served + 2 * FILES as u64
                && begun.elapsed() < PATIENCE
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            let after = count.served.load(Ordering::Relaxed) - served;
            over.store(true, Ordering::Relaxed);
            assert!(served > 0 && after >= 2 * FILES as u64, "{served} served before, {after} after");
        });
        let log = guest.log();
        assert_eq!(count.failed.load(Ordering::Relaxed), 0, "requests failed: {log:#?}");
        let said = |what: &str| log.iter().any(|line| line.contains(what));
        assert!(said("Ok(0) before the deadline"), "{log:#?}");
        assert!(said("what came back can be used: Ok(true)"), "{log:#?}");
        assert!(said("memory was asked back and given"), "{log:#?}");
        assert!(!said("page fault"), "{log:#?}");
    });
}

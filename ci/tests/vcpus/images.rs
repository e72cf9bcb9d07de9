//! xok and its programs on machines with several vCPUs.

use exovm::placement::IoMode;
use exovm_ci::{Client, Guest, Site, pair};
use exovm_test::in_namespace;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn hello_serves_with_one_two_and_four_vcpus() {
    in_namespace!(|| {
        for vcpus in [1, 2, 4] {
            let guest = Guest::image("hello").vcpus(vcpus).io(IoMode::Thread).start();
            assert_eq!(guest.machine().vcpus(), vcpus);
            guest.get("/").assert_status(200).assert_text("hello from ring 3\n");
            guest.stop();
        }
    });
}

#[test]
fn cheetah_serves_a_thousand_requests_with_two_vcpus_and_takes_no_turn() {
    in_namespace!(|| {
        let site = Site::new().pattern_file("page", 1, 10_000);
        let guest = Guest::image("cheetah").docroot(site.path()).vcpus(2).io(IoMode::Auto).start();
        let mut client = guest.connect();
        let account = guest.account_of(|| {
            for _ in 0..1000 {
                assert_eq!(client.get("/page").unwrap().body.len(), 10_000);
            }
        });
        assert_eq!(account.io, "thread");
        assert_eq!(account.nic_counter("turns"), Some(0));
        // One account for each, whatever the vCPUs did.
        for thread in ["vcpu", "vcpu1", "io"] {
            assert!(account.threads.iter().any(|sum| sum.name == thread), "{thread}");
        }
        assert_eq!(account.threads.iter().filter(|sum| sum.name.starts_with("vcpu")).count(), 2);
        for vcpu in 0..2 {
            let statistics = guest.machine().kvm_statistics(vcpu).expect("KVM counts");
            assert!(statistics.iter().any(|(name, exits)| name == "exits" && *exits > 0), "vCPU {vcpu}");
        }
        assert!(guest.machine().kvm_statistics(2).is_err());
        guest.stop();
    });
}

/// Two for each term of a sleep are watched: the NIC's, the disk's and the console's.
#[test]
fn idle_cheetah_sleeps_over_all_its_queues_and_does_not_look_around() {
    in_namespace!(|| {
        let site = Site::new().file("page", "page");
        let guest = Guest::image("cheetah").docroot(site.path()).vcpus(2).io(IoMode::Thread).start();
        guest.get("/page").assert_text("page");
        let account = guest.account_of(|| std::thread::sleep(Duration::from_secs(2)));
        let sleeps = account.site("asleep").map_or(0, |site| site.count);
        // A segment that comes late, an ARP entry of the host's that is confirmed; looking around every 20 ms would be 100.
        assert!(sleeps <= 12, "{sleeps} sleeps in two seconds");
        guest.stop();
    });
}

/// Two cheetahs in one machine with two vCPUs, one on each, and where they serve.
fn two_cheetahs(scratch: &Path) -> (Guest, [SocketAddr; 2]) {
    pair::two_cheetahs(scratch, |guest| guest.vcpus(2).io(IoMode::Thread))
}

/// How often a vCPU has left the guest.
fn exits(guest: &Guest, vcpu: usize) -> u64 {
    let statistics = guest.machine().kvm_statistics(vcpu).expect("KVM counts");
    statistics.into_iter().find(|(name, _)| name == "exits").expect("KVM counts exits").1
}

#[test]
fn frame_for_one_on_another_vcpu_wakes_that_vcpu() {
    in_namespace!(|| {
        const REQUESTS: u64 = 20;
        /// A busy host may be who is late.
        const ATTEMPTS: usize = 5;
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let (guest, servers) = two_cheetahs(scratch.path());
        for (vcpu, (server, expected)) in servers.into_iter().zip(["first", "second"]).enumerate() {
            let mut client = Client::connect(server).unwrap();
            assert_eq!(client.get("/who").unwrap().text(), expected);
            // One that is woken by chance only, by a deadline of its own or another's interrupt, takes longer, each time.
            let (median, woken) = (0..ATTEMPTS)
                .map(|_| {
                    let before = exits(&guest, vcpu);
                    let mut times: Vec<_> = (0..REQUESTS)
                        .map(|_| {
                            // Until it sleeps.
                            std::thread::sleep(Duration::from_millis(30));
                            let started = Instant::now();
                            assert_eq!(client.get("/who").unwrap().text(), expected);
                            started.elapsed()
                        })
                        .collect();
                    times.sort();
                    (times[times.len() / 2], exits(&guest, vcpu) - before)
                })
                .find(|(median, _)| *median < Duration::from_millis(25))
                .unwrap_or_else(|| panic!("{expected} is answered late"));
            println!("{expected}: {median:?}, {woken} exits of vCPU {vcpu}");
            assert!(woken >= REQUESTS, "vCPU {vcpu} left the guest {woken} times in {REQUESTS} requests");
        }
        guest.stop();
    });
}

#[test]
fn two_servers_on_two_vcpus_at_once_lose_no_request() {
    in_namespace!(|| {
        const CLIENTS: usize = 4;
        const REQUESTS: usize = 500;
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let (guest, servers) = two_cheetahs(scratch.path());
        std::thread::scope(|scope| {
            for (server, expected) in servers.into_iter().zip(["first", "second"]) {
                for _ in 0..CLIENTS {
                    scope.spawn(move || {
                        let mut client = Client::connect(server).unwrap();
                        for _ in 0..REQUESTS {
                            assert_eq!(client.get("/who").unwrap().text(), expected);
                        }
                    });
                }
            }
        });
        guest.stop();
    });
}

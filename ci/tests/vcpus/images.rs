//! xok and its programs on machines with several vCPUs.

use exovm::placement::IoMode;
use exovm_ci::{Guest, Site};
use exovm_test::in_namespace;

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

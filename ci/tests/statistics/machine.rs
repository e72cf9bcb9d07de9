//! What is below the guest's network: kernel calls, exits, KVM, disks, DMA, the host.

use exovm::backend::disk::Access;
use exovm::machine::End;
use exovm::placement::IoMode;
use exovm::stat::StatSnapshot;
use exovm_ci::{Guest, GuestBuilder, Site};
use exovm_netns::in_namespace;
use exovm_test::builder::make_image;
use std::time::{Duration, Instant};

/// Runs the probe until it ends. What was counted by then, and what it logged.
fn probe(builder: GuestBuilder, arguments: &[&str]) -> (StatSnapshot, Vec<String>) {
    let guest = builder.arguments(arguments).launch();
    assert!(guest.machine().wait(Some(super::PATIENCE)).is_some(), "{:#?}", guest.log());
    let statistics = guest.machine().statistics();
    let (end, log) = guest.wait();
    assert_eq!(end, End::PowerOff { status: 0 }, "{log:#?}");
    (statistics, log)
}

fn calls(statistics: &StatSnapshot, name: &str, call: &str) -> u64 {
    statistics.labelled("kernel", name, &[("call", call), ("environment", "0")]).unwrap()
}

#[test]
fn kernel_calls_are_counted_as_the_probe_made_them() {
    for (case, call) in [
        ("version", "version"),
        ("derive", "capability_derive"),
        ("message", "message_call"),
        ("send", "message_send"),
        ("yield", "yield"),
        ("sleep", "sleep"),
    ] {
        let counted = |times: u64| {
            let builder = Guest::image("probe").no_network().spare_environments(16);
            probe(builder, &["cost", case, &times.to_string()]).0
        };
        let (few, many) = (counted(3), counted(40));
        assert_eq!(calls(&many, "calls", call) - calls(&few, "calls", call), 37, "{call}");
        assert_eq!(calls(&many, "call_errors", call), 0, "{call}");
        assert_eq!(calls(&many, "calls", "exit"), 1);
    }
}

#[test]
fn refused_kernel_calls_are_counted_as_the_probe_heard_of_them() {
    let (statistics, log) =
        probe(Guest::image("probe").no_network().spare_environments(16), &["family-refusals"]);
    let refused = log.iter().filter(|line| line.contains("Err(")).count() as u64;
    assert!(refused > 3, "{log:#?}");
    // Setting the scene is refused something, too, that it does not mind.
    let errors = statistics.value("kernel", "call_errors").unwrap();
    assert!((refused..refused + 3).contains(&errors), "{errors} errors, {refused} refusals: {log:#?}");
}

#[test]
fn descriptors_outside_the_domain_are_dma_refusals_and_others_are_not() {
    for (offer, refusals) in [(["0x1000", "64"], 1), (["0x1000000", "0"], 0)] {
        let arguments = ["send", offer[0], offer[1], "0", "0", "0", "1"];
        let (statistics, log) = probe(Guest::image("probe").user_net(), &arguments);
        let nic = |name| statistics.value("nic", name).unwrap();
        assert_eq!((nic("queues_stopped"), nic("dma_refusals")), (1, refusals), "{log:#?}");
    }
}

#[test]
fn exits_by_reason_are_those_that_kvm_and_the_placement_count() {
    in_namespace!(|| {
        let guest = Guest::image("cheetah").site(&Site::new().file("a", "a")).io(IoMode::Turn).start();
        let mut client = guest.connect();
        (0..200).for_each(|_| assert_eq!(client.get("/a").unwrap().status(), 200));
        // Between two turns all three agree; while they change they are read one after the other.
        let start = Instant::now();
        loop {
            let statistics = guest.machine().statistics();
            let exits = |reason| statistics.labelled("vcpu", "exits", &[("reason", reason)]).unwrap();
            let mmio = ["turn", "control", "control_read", "doorbell", "queues", "register", "register_read"];
            let ours: u64 = mmio.iter().map(|reason| exits(reason)).sum();
            let of_kvm = statistics.labelled("kvm", "mmio_exits", &[("vcpu", "0")]);
            let turns = statistics.value("machine", "turns").unwrap();
            if of_kvm == Some(ours) && turns == exits("turn") && turns > 0 {
                let signals = statistics.value("kvm", "signal_exits").unwrap();
                assert!(exits("interrupted") >= signals.min(1), "{signals}");
                break;
            }
            assert!(
                start.elapsed() < super::PATIENCE,
                "we served {ours} exits, of which {} turns of {turns}; KVM says {of_kvm:?}",
                exits("turn")
            );
            std::thread::sleep(Duration::from_millis(3));
        }
        let statistics = guest.machine().statistics();
        assert!(statistics.value("kvm", "exits") >= statistics.value("kvm", "mmio_exits"));
        assert!(statistics.value("kvm", "vm_pages_2m").is_some(), "KVM's numbers of the machine");
        assert_eq!(statistics.value("vcpu", "exits"), statistics.labelled("vcpu", "exits", &[("vcpu", "0")]));
        guest.stop();
    });
}

#[test]
fn disk_requests_and_their_times_are_those_that_the_probe_made() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("disk");
    make_image(Site::new().pattern_file("large", 1, 4 << 20).path(), &path);
    let start = Instant::now();
    let builder = Guest::image("probe").no_network().disk(&path, Access::ReadWrite);
    let operations = ["disk", "0", "0", "read:0:1", "read:3:256", "batch:7:20", "write:5:1:3", "flush"];
    let (statistics, log) = probe(builder, &operations);
    let elapsed_ns = start.elapsed().as_nanos() as u64;
    let disk = |name| statistics.value("disk", name).unwrap();
    assert_eq!((disk("reads"), disk("writes"), disk("flushes")), (22, 1, 1), "{log:#?}");
    assert_eq!((disk("read_bytes"), disk("written_bytes")), ((1 + 256 + 20) * 4096, 4096));
    assert_eq!((disk("host_errors"), disk("refused_extent"), disk("dma_refusals")), (0, 0, 0));
    for (kind, count) in [("read", 22), ("write", 1), ("flush", 1), ("other", 0)] {
        let times = statistics.histogram("disk", "request_time", &[("kind", kind), ("disk", "0")]).unwrap();
        assert_eq!(times.count(), count, "{kind}");
        assert!(times.value <= 20 * elapsed_ns && (times.value > 1_000) == (count > 0), "{kind}: {times:?}");
    }
}

#[test]
fn what_the_process_takes_of_the_host_is_what_the_host_says() {
    // In a process of its own, where no other test takes anything.
    in_namespace!(|| {
        let guest = Guest::image("probe").no_network().arguments(&["spin"]).launch();
        let before = guest.machine().statistics();
        let mut touched = vec![1u8; 64 << 20];
        touched[1 << 20] = 2;
        let used = rusage_ns();
        let statistics = guest.machine().statistics();
        let host = |statistics: &StatSnapshot, name| statistics.value("host", name).unwrap();
        assert!(host(&statistics, "resident") >= host(&before, "resident") + (60 << 20), "{}", touched[5]);
        assert!(host(&statistics, "thread_minor_faults") > host(&before, "thread_minor_faults"));
        // Threads that have ended are in the host's sum and not in ours.
        let ours = host(&statistics, "thread_cpu");
        assert!(ours <= rusage_ns() + 50_000_000 && ours > 0, "{ours} ns in threads, {used} ns in all");
        let vcpu = |name| statistics.labelled("host", name, &[("thread", "exovm-vcpu")]);
        assert!(vcpu("thread_cpu").unwrap() > 0 && vcpu("threads") >= Some(1));
        drop(guest);
    });
}

/// CPU time of this process.
fn rusage_ns() -> u64 {
    // SAFETY: zero is a value of this plain structure, which the call fills.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is writable.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) }, 0);
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}

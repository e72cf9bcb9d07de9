//! Machines: boot, placements of device work, several at once, the end.

use abi::boot::{phase, wake};
use abi::call::gate;
use exovm::machine::End;
use exovm::placement::IoMode;
use exovm_ci::pair::two_cheetahs;
use exovm_ci::site::Pattern;
use exovm_ci::{Client, Guest, Site, host};
use exovm_netns::in_namespace;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const HELLO: &str = "hello from ring 3\n";
/// How long for what takes a moment on a quiet host.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn core_hello_serves_its_page() {
    in_namespace!(|| {
        let guest = Guest::image("hello").start();
        let mut client = guest.connect();
        let response = client.get("/").unwrap();
        assert_eq!((response.status(), response.text().as_str()), (200, HELLO));
        assert!(client.is_at_end().unwrap(), "hello said it would close");
        guest.stop();
    });
}

#[test]
fn core_hello_serves_its_page_with_two_vcpus() {
    in_namespace!(|| {
        let guest = Guest::image("hello").vcpus(2).io(IoMode::Thread).start();
        guest.get("/").assert_status(200).assert_text(HELLO);
        guest.stop();
    });
}

/// The same under load, and with figures, is `neighbours`.
#[test]
fn core_two_cheetahs_of_one_machine_serve_their_own_and_one_outlives_the_other() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let (guest, [first, second]) = two_cheetahs(scratch.path(), |guest| guest);
        let connect = |server| Client::connect_within(server, Duration::from_secs(30)).expect("connected");
        let (mut survivor, mut victim) = (connect(first), connect(second));
        for _ in 0..20 {
            assert_eq!(survivor.get("/who").expect("served").text(), "first");
            assert_eq!(victim.get("/who").expect("served").text(), "second");
        }
        // Where it goes on when it gets the CPU, as the kernel noted it: nowhere.
        let pages = guest.machine().environment_pages(1).expect("a second environment");
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while victim.get("/who").is_ok() {}
                over.store(true, Ordering::Relaxed);
            });
            while !over.load(Ordering::Relaxed) {
                pages.kernel.resume[0].store(0, Ordering::Relaxed);
                assert_eq!(survivor.get("/who").expect("served").text(), "first");
            }
        });
        for _ in 0..20 {
            assert_eq!(survivor.get("/who").expect("served").text(), "first");
        }
        assert!(guest.log().iter().any(|line| line.contains("environment 1: page fault executing 0x0")));
        assert_eq!(guest.machine().end(Duration::from_secs(10)), End::PowerOff { status: 0 });
    });
}

#[test]
fn core_log_of_the_guest_arrives() {
    in_namespace!(|| {
        let guest = Guest::image("hello").start();
        let mut waited = 0;
        while !guest.log().iter().any(|line| line.contains("hello: serving port 80")) {
            assert!(waited < 100, "the log is {:?}", guest.log());
            std::thread::sleep(Duration::from_millis(50));
            waited += 1;
        }
        guest.stop();
    });
}

#[test]
fn core_gate_is_probed_and_kernel_calls_work() {
    in_namespace!(|| {
        let guest = Guest::image("hello").io(IoMode::Thread).start();
        let status = &guest.machine().pages().status;
        let (gate, wake) = (status.gate.load(Ordering::Relaxed), status.wake.load(Ordering::Relaxed));
        println!("gate {gate} (1: int3, 2: syscall), wake {wake} (1: silent, 2: interrupt)");
        // Where the host is known, the answer is known too.
        let expected = match std::env::var("EXOVM_EXPECT_GATE").as_deref() {
            Ok("syscall") => &[gate::KIND_SYSCALL][..],
            Ok("int3") => &[gate::KIND_INT3],
            Ok(other) => panic!("EXOVM_EXPECT_GATE is int3 or syscall, not {other:?}"),
            Err(_) => &[gate::KIND_INT3, gate::KIND_SYSCALL],
        };
        assert!(expected.contains(&gate), "the gate is {gate}, expected was one of {expected:?}");
        assert!(wake == wake::SILENT || wake == wake::INTERRUPT, "{wake}");
        // With device work on a thread, an idle guest halts by a kernel call; a request wakes it.
        let account = guest.account_of(|| {
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(guest.get("/").text(), HELLO);
            }
        });
        let halts = account.site("halt").map_or(0, |site| site.count);
        assert!(halts >= 5, "{halts} halts while the guest slept five times");
        guest.stop();
    });
}

#[test]
fn core_boot_phases_come_in_order() {
    in_namespace!(|| {
        let guest = Guest::image("hello").start();
        let phases = guest.machine().phases();
        let names: Vec<_> = phases.iter().map(|phase| phase.name).collect();
        assert!(names.ends_with(&phase::NAMES[..=phase::READY]), "{names:?}");
        let mut last_tsc = 0;
        for phase in &phases {
            assert!(phase.tsc > last_tsc, "{phases:?}: guest and host share one time line");
            last_tsc = phase.tsc;
        }
        guest.stop();
    });
}

/// Serves small and large files, closes and keep-alive, idles, serves again.
fn serve_some(guest: &Guest, large: &[u8]) {
    for _ in 0..2 {
        let mut client = guest.connect();
        for _ in 0..20 {
            assert_eq!(client.get("/small").unwrap().text(), "small");
        }
        assert!(client.get("/large").unwrap().body == large, "the large file differs");
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn serves_in_mode(mode: IoMode) {
    let large = Pattern::bytes(3, 300_000);
    let site = Site::new().file("small", "small").file("large", &large);
    let guest = Guest::image("cheetah").site(&site).io(mode).start();
    let requests = guest.requests_during(|| serve_some(&guest, &large));
    assert_eq!(requests, 42);
    guest.stop();
}

#[test]
fn core_io_turn_serves() {
    in_namespace!(|| serves_in_mode(IoMode::Turn));
}

#[test]
fn core_io_thread_serves() {
    in_namespace!(|| serves_in_mode(IoMode::Thread));
}

#[test]
fn core_io_poll_serves() {
    in_namespace!(|| serves_in_mode(IoMode::Poll));
}

#[test]
fn core_io_auto_serves() {
    in_namespace!(|| serves_in_mode(IoMode::Auto));
}

#[test]
fn core_four_machines_in_one_process_serve_at_once() {
    in_namespace!(|| {
        let modes = [IoMode::Turn, IoMode::Thread, IoMode::Auto, IoMode::Turn];
        let bodies: Vec<_> = (0..4).map(|number| Pattern::bytes(number, 200_000)).collect();
        let sites: Vec<_> = bodies.iter().map(|body| Site::new().file("body", body)).collect();
        let guests: Vec<_> = (0..4)
            .map(|n| Guest::image("cheetah").site(&sites[n]).tap(n as u8).io(modes[n]).start())
            .collect();
        std::thread::scope(|scope| {
            for (guest, body) in guests.iter().zip(&bodies) {
                scope.spawn(move || {
                    let requests = guest.requests_during(|| {
                        let mut client = guest.connect();
                        for _ in 0..25 {
                            assert!(client.get("/body").unwrap().body == *body, "a body of another machine");
                        }
                    });
                    assert_eq!(requests, 25, "each machine has an account of its own");
                });
            }
        });
        for guest in guests {
            guest.stop();
        }
    });
}

#[test]
fn core_ended_machine_leaves_no_thread_and_no_descriptor_behind() {
    in_namespace!(|| {
        let run = |mode| {
            let guest = Guest::image("hello").io(mode).start();
            assert_eq!(guest.get("/").text(), HELLO);
            guest.stop();
        };
        run(IoMode::Turn);
        let before = host::threads_and_descriptors();
        [IoMode::Turn, IoMode::Thread, IoMode::Poll, IoMode::Auto].into_iter().for_each(run);
        // Dropped without being asked to stop.
        drop(Guest::image("hello").start());
        // The kernel may list a thread for a moment after it has been joined.
        let deadline = Instant::now() + PATIENCE;
        while host::threads_and_descriptors() != before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(host::threads_and_descriptors(), before);
    });
}

#[test]
fn core_idle_machine_stops_at_once() {
    in_namespace!(|| {
        for mode in [IoMode::Turn, IoMode::Thread] {
            let guest = Guest::image("hello").io(mode).start();
            std::thread::sleep(Duration::from_millis(100));
            guest.stop();
        }
    });
}

#[test]
fn core_image_without_a_network_ends_with_its_own_status_and_says_why() {
    let (end, log) = Guest::image("hello").no_network().launch().wait();
    assert_eq!(end, End::PowerOff { status: 1 });
    let said = log.iter().any(|line| line.starts_with("ERROR") && line.contains("--net tap="));
    assert!(said, "{log:?}");
}

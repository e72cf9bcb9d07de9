//! Probes come and go while the machine works, and machines end while they are probed.

use crate::count::{ALL, COUNTED, INPUT, RETURNS, cheetah, requests};
use crate::text::Text;
use exovm::machine::End;
use exovm::placement::IoMode;
use exovm::probe::ProbeError;
use exovm_ci::Guest;
use exovm_netns::in_namespace;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Also if the test fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_thousand_probes_come_and_go_under_load() {
    in_namespace!(|| {
        for io in [IoMode::Turn, IoMode::Thread] {
            let guest = cheetah(io);
            let machine = guest.machine();
            let text = Text::of_image(machine, "cheetah");
            let (over, served, calls) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
            std::thread::scope(|scope| {
                let _over = SetOnDrop(&over);
                for _ in 0..4 {
                    scope.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            requests(&guest, 10);
                            served.fetch_add(10, Ordering::Relaxed);
                        }
                    });
                }
                let functions = [INPUT, "service_round", "memcpy", "close_if_done"];
                for number in 0..500 {
                    let wanted = [COUNTED, RETURNS, ALL][number % 3];
                    let function = functions[number % functions.len()];
                    let probe =
                        machine.probe(function, wanted).unwrap_or_else(|error| panic!("{function}: {error}"));
                    if number % 10 == 0 {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    calls.fetch_add(probe.numbers().expect("memory")[0].calls, Ordering::Relaxed);
                    drop(probe);
                    text.assert_restored(machine);
                }
            });
            assert!(served.load(Ordering::Relaxed) > 100 && calls.load(Ordering::Relaxed) > 100);
            // Every frame that was on a shadow stack has found its way: all of them are empty but for what never returns.
            let probe = machine.probe(INPUT, RETURNS).expect("once more");
            requests(&guest, 300);
            let seen = &probe.numbers().expect("memory")[0];
            assert_eq!((seen.calls, seen.returned, seen.missed), (300, 300, 0));
            drop(probe);
            guest.stop();
        }
    });
}

#[test]
fn core_machine_ends_while_it_is_probed() {
    in_namespace!(|| {
        let guest = cheetah(IoMode::Turn);
        requests(&guest, 1);
        let probe = guest.machine().probe(INPUT, ALL).expect("probed");
        requests(&guest, 50);
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
        assert_eq!(probe.numbers().expect("memory is there as long as somebody looks")[0].calls, 50);
        drop(probe);
    });
}

#[test]
fn probe_of_a_machine_that_has_ended_says_so() {
    let guest = Guest::image("hello").no_network().launch();
    let machine = guest.machine();
    assert!(machine.wait(Some(Duration::from_secs(30))).is_some(), "hello ends by itself without a network");
    let error = machine.probe("exos_main", COUNTED).err().expect("nothing to probe");
    assert!(matches!(error, ProbeError::Machine(_)) && error.to_string().contains("ended"), "{error}");
}

#[test]
fn stripped_image_is_said_to_be_that_and_its_kernel_is_probed() {
    in_namespace!(|| {
        let guest = Guest::image("cheetah").site(&exovm_ci::Site::new().file("a", "a")).stripped().start();
        let error = guest.machine().probe(INPUT, COUNTED).err().expect("no names").to_string();
        assert!(error.contains("stripped"), "{error}");
        let probe = guest.machine().probe("xok::sleep::sleep", COUNTED).expect("the kernel has names");
        drop(probe);
        requests(&guest, 10);
        guest.stop();
    });
}

#[test]
fn image_that_may_be_copied_is_not_probed_and_its_kernel_is() {
    in_namespace!(|| {
        let site = exovm_ci::Site::new().file("a", "a");
        let guest = Guest::image("cheetah").site(&site).spare_environments(1).start();
        let error = guest.machine().probe(INPUT, COUNTED).err().expect("copies would fault").to_string();
        assert!(error.contains("spare_environments") && error.contains("copy"), "{error}");
        drop(guest.machine().probe("xok::sleep::sleep", COUNTED).expect("nobody copies the kernel"));
        guest.stop();
    });
}

#[test]
fn core_functions_that_cannot_be_probed_are_refused_with_a_reason() {
    in_namespace!(|| {
        let guest = cheetah(IoMode::Turn);
        let machine = guest.machine();
        let text = Text::of_image(machine, "cheetah");
        for (name, wanted, parts) in [
            ("no_such_function", COUNTED, &["no function called", "inlined", "--list"][..]),
            ("0x400001", COUNTED, &["0x400001", "--list"]),
            ("drop_in_place", COUNTED, &["several", "0x4"]),
            ("exos_start", RETURNS, &["--ret"]),
            ("exos_slice_end", RETURNS, &["--ret"]),
            ("xok_syscall", COUNTED, &["assembly"]),
            ("", COUNTED, &["no function"]),
        ] {
            let error =
                machine.probe(name, wanted).err().unwrap_or_else(|| panic!("{name} was probed")).to_string();
            for part in parts {
                assert!(error.contains(part), "{name}: {error:?} without {part:?}");
            }
        }
        text.assert_restored(machine);
        requests(&guest, 10);
        guest.stop();
    });
}

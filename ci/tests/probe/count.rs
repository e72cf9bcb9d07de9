//! What probes count: every call, in the environment in which it was, for as long as it took.

use crate::text::Text;
use exovm::account::ledger::now_tsc;
use exovm::placement::IoMode;
use exovm::probe::{Numbers, Probe, ProbeError, Wanted};
use exovm_ci::pair::two_cheetahs;
use exovm_ci::{Client, Guest, Site};
use exovm_netns::in_namespace;
use std::net::SocketAddr;
use std::time::Duration;

/// The function of Cheetah that takes what a client has sent: one call for each segment with a request in it.
pub(crate) const INPUT: &str = "cheetah::service::Cheetah as exos_event_loop::service::Service>::input";
pub(crate) const COUNTED: Wanted = Wanted { returns: false, arguments: false };
pub(crate) const RETURNS: Wanted = Wanted { returns: true, arguments: false };
pub(crate) const ALL: Wanted = Wanted { returns: true, arguments: true };

pub(crate) fn cheetah(io: IoMode) -> Guest {
    Guest::image("cheetah").site(&Site::new().file("a", "a")).io(io).start()
}

pub(crate) fn requests(guest: &Guest, count: u64) {
    let mut client = guest.connect();
    for _ in 0..count {
        assert_eq!(client.get("/a").expect("an answer").text(), "a");
    }
}

fn ask(address: SocketAddr, count: u64) {
    let mut client = Client::connect(address).expect("it serves");
    for _ in 0..count {
        assert_eq!(client.get("/who").expect("an answer").status(), 200);
    }
}

fn numbers(probe: &Probe) -> Numbers {
    let mut numbers = probe.numbers().expect("memory");
    assert_eq!(numbers.len(), 1);
    numbers.remove(0)
}

fn measured(numbers: &Numbers) -> u64 {
    numbers.histogram.iter().map(|bucket| bucket.count).sum()
}

#[test]
fn every_request_is_counted_and_none_fails() {
    in_namespace!(|| {
        for (io, wanted) in
            [(IoMode::Turn, COUNTED), (IoMode::Turn, ALL), (IoMode::Thread, RETURNS), (IoMode::Auto, ALL)]
        {
            let guest = cheetah(io);
            let text = Text::of_image(guest.machine(), "cheetah");
            requests(&guest, 10);
            let mut probe = guest.machine().probe(INPUT, wanted).unwrap_or_else(|error| panic!("{error}"));
            assert!((1..=5).contains(&text.changed(guest.machine()).len()));
            let counted = guest.requests_during(|| {
                std::thread::scope(|scope| {
                    for _ in 0..8 {
                        scope.spawn(|| requests(&guest, 250));
                    }
                });
            });
            assert_eq!(counted, 2000);
            let seen = numbers(&probe);
            assert_eq!((seen.calls, seen.missed), (counted, 0), "{io:?} {wanted:?}");
            assert_eq!(measured(&seen), if wanted.returns { counted } else { 0 });
            assert_eq!(seen.last.len(), if wanted.arguments { 16 } else { 0 });
            probe.detach();
            text.assert_restored(guest.machine());
            requests(&guest, 10);
            assert_eq!(numbers(&probe).calls, counted, "nothing is counted any more");
            guest.stop();
        }
    });
}

/// A program that does nothing else: half of the time in `outer` itself, three tenths in `middle`, which it calls, and two tenths
/// in `inner`, which that calls.
#[test]
fn functions_take_the_time_that_they_take() {
    let guest = Guest::image("probe").no_network().arguments(&["profile-shares"]).io(IoMode::Turn).launch();
    let machine = guest.machine();
    assert!(machine.is_ready(Duration::from_secs(20)), "{:?}", guest.log());
    let probes = ["outer", "middle", "inner"].map(|name| {
        let name = format!("probe::profile::{name}");
        machine.probe(&name, RETURNS).unwrap_or_else(|error| panic!("{name}: {error}"))
    });
    // There is no moment at which it is not in `outer`; one call may be under way at either end. Whoever loses the CPU for a moment
    // took longer: a second in which that falls as the parts do is among ten.
    let mut found = Vec::new();
    let fit = |[outer, middle, inner]: &[f64; 3]| {
        (0.95..1.02).contains(outer) && (0.425..0.575).contains(middle) && (0.17..0.23).contains(inner)
    };
    while found.len() < 10 && !found.last().is_some_and(fit) {
        let (before, begun_tsc) = (probes.each_ref().map(numbers), now_tsc());
        std::thread::sleep(Duration::from_secs(1));
        let (after, elapsed) = (probes.each_ref().map(numbers), now_tsc() - begun_tsc);
        let means = std::array::from_fn::<_, 3, _>(|which| {
            let (seen, before) = (&after[which], &before[which]);
            assert!(seen.returned - before.returned > 100 && seen.calls - seen.returned <= 1, "{seen:?}");
            (seen.cycles - before.cycles) as f64 / (seen.returned - before.returned) as f64
        });
        let share = (after[0].cycles - before[0].cycles) as f64 / elapsed as f64;
        found.push([share, means[1] / means[0], means[2] / means[0]]);
    }
    assert!(found.last().is_some_and(fit), "not 1, 0.5 and 0.2: {found:?}");
    drop(probes);
    guest.stop();
}

#[test]
fn core_each_environment_counts_its_own_calls() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().expect("a directory");
        let (guest, addresses) = two_cheetahs(scratch.path(), |builder| builder.io(IoMode::Turn));
        // The first one waits for the disk, and is looked at twice.
        addresses.into_iter().for_each(|address| ask(address, 1));
        let probe = guest.machine().probe(INPUT, ALL).unwrap_or_else(|error| panic!("{error}"));
        for (address, count) in addresses.into_iter().zip([300, 700]) {
            ask(address, count);
        }
        let seen = probe.numbers().expect("memory");
        let seen: Vec<_> = seen
            .iter()
            .map(|numbers| (numbers.environment, numbers.calls, measured(numbers), numbers.missed))
            .collect();
        assert_eq!(seen, [(Some(0), 300, 300, 0), (Some(1), 700, 700, 0)]);
        drop(probe);
        guest.stop();
    });
}

#[test]
fn core_functions_of_the_kernel_are_counted_on_every_vcpu() {
    in_namespace!(|| {
        for vcpus in [1, 2] {
            let scratch = tempfile::tempdir().expect("a directory");
            let io = if vcpus == 1 { IoMode::Turn } else { IoMode::Thread };
            let (guest, addresses) = two_cheetahs(scratch.path(), |builder| builder.io(io).vcpus(vcpus));
            let image = exovm::images::load("cheetah").expect("built in");
            let text = Text::find(guest.machine(), &image.kernel);
            // What every sleep goes through, and what never comes back.
            let sleep =
                guest.machine().probe("xok::sleep::sleep", COUNTED).unwrap_or_else(|error| panic!("{error}"));
            let look = guest
                .machine()
                .probe("xok::kernel::Kernel>::look", ALL)
                .unwrap_or_else(|error| panic!("{error}"));
            addresses.into_iter().for_each(|address| ask(address, 200));
            let (slept, looked) = (numbers(&sleep), numbers(&look));
            assert!(slept.calls > 5 && slept.environment.is_none(), "{slept:?}");
            // Called from `sleep`, and from elsewhere.
            assert!(looked.calls > 5 && looked.missed == 0, "{looked:?}");
            assert!(looked.calls - measured(&looked) <= u64::from(vcpus), "it returns: {looked:?}");
            assert!(!text.changed(guest.machine()).is_empty());
            drop((sleep, look));
            text.assert_restored(guest.machine());
            addresses.into_iter().for_each(|address| ask(address, 20));
            guest.stop();
        }
    });
}

#[test]
fn core_several_functions_are_probed_at_once_and_none_twice() {
    in_namespace!(|| {
        let guest = cheetah(IoMode::Turn);
        let machine = guest.machine();
        let text = Text::of_image(machine, "cheetah");
        requests(&guest, 10);
        let functions = [INPUT, "memcpy", "service_round", "close_if_done"];
        let mut probes: Vec<_> = functions
            .iter()
            .map(|name| machine.probe(name, ALL).unwrap_or_else(|error| panic!("{name}: {error}")))
            .collect();
        assert!(matches!(machine.probe(INPUT, COUNTED), Err(ProbeError::Taken { .. })));
        assert!(matches!(machine.probe("memmove", COUNTED), Err(ProbeError::Full { .. })));
        let counted = guest.requests_during(|| requests(&guest, 500));
        assert_eq!(numbers(&probes[0]).calls, counted);
        assert!(numbers(&probes[2]).calls > 0);
        for probe in &probes {
            let seen = numbers(probe);
            let under_way = seen.calls - seen.missed - measured(&seen);
            assert!(under_way <= 2, "{}: {seen:?}", probe.function().name);
        }
        // The place of one that has gone is another's.
        probes.remove(1);
        let memmove = machine.probe("memmove", COUNTED).expect("there is room again");
        requests(&guest, 10);
        drop(memmove);
        drop(probes);
        text.assert_restored(machine);
        guest.stop();
    });
}

//! The profiler, of machines that do something known: it finds what they do, and what they do to it does nothing.

use exovm::account::ledger::Bucket;
use exovm::placement::IoMode;
use exovm::profile::ProfileRequest;
use exovm::profile::collect::{Ending, Profile, Stack};
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::io::{BufRead, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A profiler that is attached.
struct Attached(BufReader<UnixStream>);

impl Attached {
    fn to(guest: &Guest, hz: u32) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        ours.set_read_timeout(Some(PATIENCE)).expect("a socket");
        guest.machine().profile(&ProfileRequest { hz }, theirs).expect("there is room");
        Self(BufReader::new(ours))
    }

    /// Everything up to the end of the connection, after it was asked to end.
    fn finish(self) -> Profile {
        let _ = self.0.get_ref().shutdown(Shutdown::Write);
        self.read()
    }

    fn read(mut self) -> Profile {
        let (mut profile, mut line) = (Profile::default(), Vec::new());
        while self.0.read_until(b'\n', &mut line).expect("it says something") > 0 {
            profile.take_line(&line);
            line.clear();
        }
        assert_ne!(profile.ending, Ending::Open, "the last line says why");
        profile
    }
}

/// Samples of a guest for so long, read as they come.
fn profile(guest: &Guest, hz: u32, time: Duration) -> Profile {
    let attached = Attached::to(guest, hz);
    let socket = attached.0.get_ref().try_clone().expect("a socket");
    let ender = std::thread::spawn(move || {
        std::thread::sleep(time);
        let _ = socket.shutdown(Shutdown::Write);
    });
    let profile = attached.read();
    ender.join().expect("no panic");
    profile
}

/// The probe image doing this, once it is at it.
fn probe(case: &str, vcpus: u32, environments: u32) -> Guest {
    let guest = Guest::image("probe").arguments(&[case]).no_network().io(IoMode::Auto);
    let guest = guest.vcpus(vcpus).environments(environments).launch();
    assert!(guest.machine().is_ready(PATIENCE), "{:?}", guest.log());
    guest
}

/// Names of a stack's functions, from the outside in.
fn names<'a>(profile: &'a Profile, stack: &Stack) -> Vec<&'a str> {
    stack.frames.iter().rev().map(|&frame| profile.frame(frame).name.as_str()).collect()
}

/// Percent of the samples of an environment in ring 3 whose innermost functions are these, the innermost last.
fn share(profile: &Profile, environment: u32, functions: &[&str]) -> f64 {
    let of = |wanted: &dyn Fn(&Stack) -> bool| -> u64 {
        profile.stacks.iter().filter(|(stack, _)| wanted(stack)).map(|(_, count)| count).sum()
    };
    let is_environment = |stack: &Stack| (stack.environment, stack.ring) == (Some(environment), Some(3));
    let all = of(&is_environment);
    assert!(all > 300, "{all} samples of environment {environment}: {:?}", profile.counts);
    let found = of(&|stack| is_environment(stack) && names(profile, stack).ends_with(functions));
    100.0 * found as f64 / all as f64
}

/// Every moment is a sample, an idle one or missed.
fn assert_complete(profile: &Profile) {
    for (thread, counts) in profile.begin.threads.iter().zip(&profile.counts.threads) {
        assert_eq!(counts.moments, counts.samples + counts.idle + counts.missed, "{thread}: {counts:?}");
    }
    let totals = profile.totals();
    assert_eq!((profile.counts.unsent, totals.samples), (0, profile.samples()));
}

/// What is wrong with the shares of the nested functions in each environment.
fn wrong_shares(profile: &Profile, environments: u32) -> Vec<String> {
    let [outer, middle, inner] = ["probe::profile::outer", "probe::profile::middle", "probe::profile::inner"];
    let functions = [&[outer][..], &[outer, middle], &[outer, middle, inner]];
    let mut wrong = Vec::new();
    for environment in 0..environments {
        let mut shares = [50.0, 30.0, 20.0];
        if environment % 2 == 1 {
            shares.reverse();
        }
        for (functions, expected) in functions.iter().zip(shares) {
            let found = share(profile, environment, functions);
            println!("environment {environment} of {environments}: {functions:?} {found:.1} %");
            if (found - expected).abs() >= 4.0 {
                wrong.push(format!("{functions:?}: {found:.1} instead of {expected} %"));
            }
        }
    }
    wrong
}

#[test]
fn known_shares_in_nested_functions_are_found_in_each_environment_on_each_vcpu() {
    for (vcpus, environments) in [(1, 1), (1, 2), (2, 2)] {
        let guest = probe("profile-shares", vcpus, environments);
        // Samples of slices are few and go together, so a profile is off by more than that once in some hundred. One that is biased is
        // so each time.
        let mut profile = self::profile(&guest, 1000, Duration::from_secs(3));
        let mut wrong = wrong_shares(&profile, environments);
        if !wrong.is_empty() {
            assert_complete(&profile);
            profile = self::profile(&guest, 1000, Duration::from_secs(6));
            wrong = wrong_shares(&profile, environments);
        }
        assert!(wrong.is_empty(), "{vcpus} vCPUs, {environments} environments, twice: {wrong:?}");
        assert_complete(&profile);
        for environment in 0..environments {
            let main = "probe::main";
            // The whole way, up to the first function.
            let whole = profile.stacks.keys().filter(|stack| {
                let names = names(&profile, stack);
                stack.environment == Some(environment)
                    && names.first() == Some(&"exos_start")
                    && names.contains(&main)
            });
            assert!(whole.count() > 0, "no stack begins at the program's begin");
        }
        if vcpus == 2 {
            for environment in 0..2 {
                let elsewhere = profile.stacks.iter().filter(|(stack, _)| {
                    (stack.environment, stack.ring) == (Some(environment), Some(3))
                        && stack.thread != environment
                });
                assert_eq!(elsewhere.count(), 0, "each environment is on the vCPU of its number");
            }
        }
        guest.stop();
    }
}

#[test]
fn kernel_calls_are_seen_in_ring_0_with_who_makes_them() {
    let guest = probe("profile-calls", 1, 1);
    let profile = profile(&guest, 1000, Duration::from_secs(3));
    assert_complete(&profile);
    let in_kernel: Vec<_> = profile.stacks.iter().filter(|(stack, _)| stack.ring == Some(0)).collect();
    let samples: u64 = in_kernel.iter().map(|(_, count)| **count).sum();
    let from = |name: &str| -> u64 {
        let is_from = |stack: &Stack| names(&profile, stack).contains(&name);
        in_kernel.iter().filter(|(stack, _)| is_from(stack)).map(|(_, count)| **count).sum()
    };
    let (gate, caller, begin) = (from("[gate]"), from("probe::profile::call_much"), from("exos_start"));
    println!(
        "{samples} of {} in ring 0: {gate} by the gate, {caller} with their caller, {begin} whole",
        profile.samples()
    );
    assert!(samples * 5 > profile.samples(), "{samples} of {} in ring 0", profile.samples());
    for (what, found) in [("the gate", gate), ("their caller", caller), ("the whole stack", begin)] {
        assert!(found * 10 > samples * 9, "{found} of {samples} samples of ring 0 have {what}");
    }
    guest.stop();
}

#[test]
fn frame_pointers_that_lead_nowhere_or_round_and_round_do_nothing() {
    let guest = probe("profile-frames", 1, 1);
    let profile = profile(&guest, 2000, Duration::from_secs(2));
    assert_complete(&profile);
    let longest = profile.stacks.keys().map(|stack| stack.frames.len()).max();
    assert!(longest.is_some_and(|frames| frames <= 64), "{longest:?}");
    let here = share(&profile, 0, &["probe::profile::with_base"]);
    let others: Vec<_> = profile.stacks.keys().map(|stack| names(&profile, stack)).collect();
    assert!(here > 80.0, "{here:.1} % in the function that computes: {others:?}");
    let kernel = profile
        .stacks
        .keys()
        .filter(|stack| stack.ring == Some(3))
        .any(|stack| stack.frames.iter().any(|&frame| profile.frame(frame).is_kernel()));
    assert!(!kernel, "no frame of ring 3 is the kernel's");
    guest.stop();
}

#[test]
fn vcpus_that_are_halted_are_idle_and_are_not_woken() {
    let guest = Guest::image("probe").arguments(&["halt-forever"]).no_network().io(IoMode::Auto);
    let guest = guest.vcpus(2).launch();
    // Until they are at their halts.
    std::thread::sleep(Duration::from_millis(500));
    let exits = || {
        let statistics = guest.machine().kvm_statistics(1).expect("KVM counts");
        statistics.into_iter().find(|(name, _)| name == "exits").map_or(0, |(_, value)| value)
    };
    let before = exits();
    let profile = profile(&guest, 1000, Duration::from_secs(1));
    assert_complete(&profile);
    for vcpu in 0..2 {
        let counts = profile.counts.threads[vcpu];
        // On a busy host its thread may be about to halt for a while.
        assert!(counts.samples * 10 < counts.moments && counts.idle * 2 > counts.moments, "{counts:?}");
    }
    let woken = exits() - before;
    assert!(woken < 250, "left the guest {woken} times in a second, with a thousand samples");
}

#[test]
fn threads_of_the_vmm_are_told_by_what_their_accounts_say() {
    in_namespace!(|| {
        for (io, thread) in [(IoMode::Turn, "vcpu"), (IoMode::Poll, "io")] {
            let site = Site::new().pattern_file("page", 1, 100_000);
            let guest = Guest::image("cheetah").site(&site).io(io).start();
            let mut client = guest.connect();
            let attached = Attached::to(&guest, 1000);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(2) {
                assert_eq!(client.get("/page").unwrap().body.len(), 100_000);
            }
            let profile = attached.finish();
            assert_complete(&profile);
            let of = |bucket: Bucket| -> u64 {
                let name = format!("[vmm] {}", bucket.name());
                let is_it = |stack: &Stack| {
                    profile.thread(stack) == thread && names(&profile, stack) == [name.as_str()]
                };
                profile.stacks.iter().filter(|(stack, _)| is_it(stack)).map(|(_, count)| count).sum()
            };
            println!("{io:?}: {} writes, {} reads", of(Bucket::BackendWrite), of(Bucket::BackendRead));
            assert!(of(Bucket::BackendWrite) > 5, "{:?}", profile.stacks);
            // What looking cost the vCPU is in its account.
            let tools = guest.machine().account();
            assert!(tools.bucket("vcpu", "tools").is_some_and(|sum| sum.entries > 0 && sum.cycles > 0));
            guest.stop();
        }
    });
}

#[test]
fn profilers_at_once_see_the_same_up_to_four_and_make_room_when_they_go() {
    let guest = probe("profile-shares", 1, 1);
    let attached: Vec<_> = (0..4).map(|_| Attached::to(&guest, 500)).collect();
    let (_ours, theirs) = UnixStream::pair().expect("sockets");
    let refused = guest.machine().profile(&ProfileRequest { hz: 500 }, theirs);
    assert!(refused.is_err_and(|message| message.contains("4 profilers")));
    std::thread::sleep(Duration::from_secs(2));
    for attached in attached {
        let profile = attached.finish();
        assert_complete(&profile);
        assert!(share(&profile, 0, &["probe::profile::outer"]) > 40.0);
    }
    let begun = Instant::now();
    loop {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        if guest.machine().profile(&ProfileRequest { hz: 500 }, theirs).is_ok() {
            break drop(ours);
        }
        assert!(begun.elapsed() < PATIENCE, "there is room again");
        std::thread::sleep(Duration::from_millis(10));
    }
    guest.stop();
}

#[test]
fn profiler_hears_of_the_machines_end_and_has_what_was_until_then() {
    let guest = probe("profile-shares", 2, 2);
    let attached = Attached::to(&guest, 1000);
    std::thread::sleep(Duration::from_secs(1));
    guest.stop();
    let profile = attached.read();
    assert_eq!(profile.ending, Ending::MachineEnded);
    assert!(profile.samples() > 300 && profile.counts.elapsed_us > 800_000, "{:?}", profile.counts);
    assert_complete(&profile);
}

#[test]
fn profiler_that_does_not_read_misses_samples_and_hears_how_many() {
    let guest = probe("profile-frames", 2, 2);
    let attached = Attached::to(&guest, 10_000);
    // The socket and the sampler hold a few hundred KiB each.
    std::thread::sleep(Duration::from_secs(10));
    let profile = attached.finish();
    let counts = profile.totals();
    println!("{counts:?}, unsent {}", profile.counts.unsent);
    assert!(profile.counts.unsent > 0, "{counts:?}");
    assert_eq!(profile.samples() + profile.counts.unsent, counts.samples);
    guest.stop();
}

#[test]
fn stripped_image_has_addresses_for_names_and_says_so() {
    let guest = Guest::image("probe").arguments(&["profile-shares"]).no_network().without_symbols().launch();
    assert!(guest.machine().is_ready(PATIENCE));
    let profile = profile(&guest, 1000, Duration::from_secs(1));
    assert!(!profile.begin.has_symbols);
    let named = profile.frames.iter().filter(|frame| frame.va != 0 && frame.va < 1 << 46);
    assert!(
        named.clone().count() > 3 && named.clone().all(|frame| frame.name.starts_with("0x")),
        "{:?}",
        profile.frames
    );
    guest.stop();
}

//! A server under load and one that idles: everything adds up, and next to nothing is unexplained.

use crate::fixture::{ALONE, lock, undisturbed};
use exovm::account::AccountSnapshot;
use exovm::placement::IoMode;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::time::{Duration, Instant};

/// Long against the moments that the host may put between two looks at the machine.
const WINDOW: Duration = Duration::from_secs(3);

fn check(what: &str, account: &AccountSnapshot) {
    for thread in account.threads.iter().filter(|thread| !thread.name.starts_with("disk")) {
        let sum: u64 = thread.buckets.iter().map(|bucket| bucket.cycles).sum();
        let ratio = sum as f64 / account.tsc as f64;
        assert!((0.995..1.005).contains(&ratio), "{what}, {}: buckets cover {ratio}", thread.name);
        assert_eq!(thread.lost_switches, 0, "{what}, {}", thread.name);
    }
    let unattributed = account.unattributed.expect("accounted all the time");
    let share = |cycles: f64| cycles / account.tsc as f64;
    let text = exovm::account::table::print(account);
    let in_guest = share(unattributed.in_guest_cycles as f64);
    assert!(in_guest.abs() < 0.01, "{what}: {in_guest} of the guest's time unattributed\n{text}");
    let no_span = share(unattributed.in_no_span_cycles as f64);
    assert!(no_span < 0.01, "{what}: {no_span} in no span\n{text}");
    if std::env::var_os("EXOVM_TEST_SHOW").is_some() {
        eprintln!("{what}\n{text}");
    }
}

#[test]
fn next_to_nothing_is_unattributed_under_load_and_at_idle() {
    let _alone = lock(&ALONE);
    in_namespace!(|| {
        for io in [IoMode::Turn, IoMode::Thread, IoMode::Auto] {
            undisturbed(|| {
                let guest = Guest::image("cheetah").site(&Site::new().file("a", "a")).io(io).start();
                let idle = guest.account_of(|| std::thread::sleep(WINDOW));
                check(&format!("{io:?}, idle"), &idle);
                let account = guest.account_of(|| {
                    let end = Instant::now() + WINDOW;
                    std::thread::scope(|scope| {
                        for _ in 0..2 {
                            scope.spawn(|| {
                                let mut clients: Vec<_> = (0..16).map(|_| guest.connect()).collect();
                                while Instant::now() < end {
                                    clients
                                        .iter_mut()
                                        .for_each(|client| client.request("GET", "/a", "").unwrap());
                                    for client in &mut clients {
                                        client.response(exovm_ci::http::Content::Follows).unwrap();
                                    }
                                }
                            });
                        }
                    });
                });
                check(&format!("{io:?}, under load"), &account);
                guest.stop();
            });
        }
    });
}

//! The control socket itself, and clients that do what the tools would not: garbage, other versions, floods, silence.

use crate::machines::{Detached, RawClient, wait_for};
use crate::scene;
use exovm::control::{Answer, LogRequest, RefusalKind, Request};
use exovm_ci::host::private_mappings;
use exovm_ci::scene::Scene;
use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn machine(scene: &Scene) -> Detached {
    Detached::start(scene, &["probe", "--net", "none", "--", "chatter", "1000", "100"])
}

fn stop(scene: &Scene, machine: &Detached) {
    assert!(scene.play(&["stop", &machine.name]).status.success());
    scene.assert_clean();
}

/// The machine answers somebody new, whoever else is there.
fn assert_answers(scene: &Scene) {
    let answer = RawClient::connect(scene, "probe").ask(&Request::Info);
    assert!(matches!(answer, Answer::Info(_)), "{answer:?}");
}

fn refusal(answer: Option<Answer>) -> RefusalKind {
    match answer {
        Some(Answer::Refused(refusal)) => refusal.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_that_are_not_understood_are_refused_and_the_next_is_served() {
    let scene = scene();
    let machine = machine(&scene);
    let mut client = RawClient::connect(&scene, "probe");
    for (line, kind) in [
        (&b"\n"[..], RefusalKind::Malformed),
        (b"account\n", RefusalKind::Malformed),
        (b"\xFF\xFE\x00\n", RefusalKind::Malformed),
        (b"{\"v\":1,\"request\":\"destroy\"}\n", RefusalKind::UnknownRequest),
        (b"{\"v\":1,\"request\":{\"destroy\":{\"seconds\":5}}}\n", RefusalKind::UnknownRequest),
        (b"{\"v\":2,\"request\":\"info\"}\n", RefusalKind::Version),
    ] {
        client.send(line);
        assert_eq!(refusal(client.answer()), kind, "{line:?}");
    }
    assert!(matches!(client.ask(&Request::Info), Answer::Info(_)));
    stop(&scene, &machine);
}

#[test]
fn request_in_pieces_and_several_at_once_are_answered_in_order() {
    let scene = scene();
    let machine = machine(&scene);
    let mut client = RawClient::connect(&scene, "probe");
    for byte in Request::Info.to_line() {
        client.send(&[byte]);
    }
    assert!(matches!(client.answer(), Some(Answer::Info(_))));
    let logs = Request::Logs(LogRequest { last: Some(0), ..LogRequest::default() });
    let both = [Request::Info.to_line(), logs.to_line(), Request::Account.to_line()].concat();
    client.send(&both);
    // As `nc -N` does when its input ends.
    client.0.get_ref().shutdown(Shutdown::Write).unwrap();
    assert!(matches!(client.answer(), Some(Answer::Info(_))));
    assert!(matches!(client.answer(), Some(Answer::End { machine: None })));
    assert!(matches!(client.answer(), Some(Answer::Account(_))));
    assert_eq!(client.answer(), None, "nothing more was asked");
    stop(&scene, &machine);
}

#[test]
fn half_closed_client_still_follows_the_log() {
    let scene = scene();
    let machine = machine(&scene);
    let mut client = RawClient::connect(&scene, "probe");
    client.send(&Request::Logs(LogRequest { follow: true, ..LogRequest::default() }).to_line());
    client.0.get_ref().shutdown(Shutdown::Write).unwrap();
    for _ in 0..300 {
        assert!(matches!(client.answer(), Some(Answer::Log(_))));
    }
    stop(&scene, &machine);
}

#[test]
fn request_of_a_client_that_has_gone_is_still_heard() {
    let scene = scene();
    let machine = machine(&scene);
    let mut client = RawClient::connect(&scene, "probe");
    client.send(&Request::Stop.to_line());
    drop(client);
    machine.assert_ends();
    wait_for("the socket to go", || scene.sockets().is_empty().then_some(()));
}

#[test]
fn line_without_an_end_is_refused() {
    let scene = scene();
    let machine = machine(&scene);
    for len in [4097, 100_000] {
        let mut client = RawClient::connect(&scene, "probe");
        // It may have been refused before all is written.
        let _ = client.0.get_mut().write_all(&vec![b'x'; len]);
        assert_eq!(refusal(client.answer()), RefusalKind::TooLong);
        assert_eq!(client.answer(), None);
    }
    assert_answers(&scene);
    stop(&scene, &machine);
}

#[test]
fn client_that_floods_and_never_reads_costs_a_bounded_amount_and_holds_up_nobody() {
    let scene = scene();
    let machine = machine(&scene);
    let private = || private_mappings(machine.pid).iter().map(|mapping| mapping.private_bytes).sum::<u64>();
    assert_answers(&scene);
    let before = private();
    let floods: Vec<_> = [Request::Account.to_line(), b"{\"v\":1}\n".to_vec(), vec![b'\n'; 4096]]
        .into_iter()
        .map(|line| {
            let client = RawClient::connect(&scene, "probe");
            client.0.get_ref().set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            std::thread::spawn(move || {
                let started = Instant::now();
                let mut client = client;
                while started.elapsed() < Duration::from_secs(3) {
                    // Blocks once the machine does not read on.
                    let _ = client.0.get_mut().write_all(&line);
                }
                client
            })
        })
        .collect();
    for _ in 0..20 {
        assert_answers(&scene);
        std::thread::sleep(Duration::from_millis(100));
    }
    let grown = private().saturating_sub(before);
    println!("{} KiB more", grown >> 10);
    assert!(grown < 4 << 20, "{grown} bytes more");
    let clients: Vec<_> = floods.into_iter().map(|flood| flood.join().unwrap()).collect();
    stop(&scene, &machine);
    drop(clients);
}

#[test]
fn client_that_follows_and_floods_costs_a_bounded_amount_and_goes_on_to_follow() {
    let scene = scene();
    let machine = machine(&scene);
    let private = || private_mappings(machine.pid).iter().map(|mapping| mapping.private_bytes).sum::<u64>();
    let mut client = RawClient::connect(&scene, "probe");
    client.send(&Request::Logs(LogRequest { follow: true, ..LogRequest::default() }).to_line());
    assert!(matches!(client.answer(), Some(Answer::Log(_))));
    let before = private();
    for _ in 0..200 {
        client.send(&vec![b'x'; 64 << 10]);
        assert!(matches!(client.answer(), Some(Answer::Log(_))));
    }
    let grown = private().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more, of {} sent", 200 * (64 << 10));
    stop(&scene, &machine);
}

#[test]
fn clients_that_wait_for_lines_keep_their_places() {
    let scene = scene();
    let machine = Detached::start(&scene, &["probe", "--net", "none", "--", "chatter", "60000000", "10"]);
    let follow = Request::Logs(LogRequest { follow: true, ..LogRequest::default() });
    let mut followers: Vec<_> = (0..32).map(|_| RawClient::connect(&scene, "probe")).collect();
    for follower in &mut followers {
        follower.send(&follow.to_line());
        assert!(matches!(follower.answer(), Some(Answer::Log(_))));
    }
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(refusal(RawClient::connect(&scene, "probe").answer()), RefusalKind::TooManyClients);
    drop(followers);
    stop(&scene, &machine);
}

#[test]
fn silent_clients_give_their_place_to_those_who_ask() {
    let scene = scene();
    let machine = machine(&scene);
    let silent: Vec<_> = (0..100).map(|_| RawClient::connect(&scene, "probe")).collect();
    // A second after they have come, which a busy machine notices late.
    wait_for("a place", || {
        let mut client = RawClient::connect(&scene, "probe");
        // It may be turned away before it has asked.
        let _ = client.0.get_mut().write_all(&Request::Info.to_line());
        match client.answer() {
            Some(Answer::Info(_)) => Some(()),
            answer => {
                assert!(answer.is_none_or(|answer| refusal(Some(answer)) == RefusalKind::TooManyClients));
                None
            }
        }
    });
    assert_answers(&scene);
    drop(silent);
    stop(&scene, &machine);
}

/// Clients that take all places and read what they asked for, until it is over or the machine ends.
fn busy_followers(scene: &Scene, over: &Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<RawClient>> {
    let follow = Request::Logs(LogRequest { last: Some(0), follow: true, ..LogRequest::default() });
    let mut followers: Vec<_> = (0..32).map(|_| RawClient::connect(scene, "probe")).collect();
    for follower in &mut followers {
        follower.send(&follow.to_line());
        assert!(matches!(follower.answer(), Some(Answer::Log(_))));
    }
    let over = Arc::clone(over);
    let read = move || {
        while !over.load(Ordering::Relaxed) {
            for follower in &mut followers {
                match follower.answer() {
                    Some(Answer::Log(_)) => {}
                    None => return followers,
                    other => panic!("{other:?}"),
                }
            }
        }
        followers
    };
    let busy = std::thread::spawn(read);
    std::thread::sleep(Duration::from_millis(300));
    busy
}

#[test]
fn clients_beyond_the_places_are_told_so_and_those_served_go_on() {
    let scene = scene();
    let machine = machine(&scene);
    let over = Arc::new(AtomicBool::new(false));
    let busy = busy_followers(&scene, &over);
    assert_eq!(refusal(RawClient::connect(&scene, "probe").answer()), RefusalKind::TooManyClients);
    let outcome = scene.play(&["logs"]);
    outcome.assert_error(&["probe", "32 clients are being served already"]);
    over.store(true, Ordering::Relaxed);
    drop(busy.join().unwrap());
    assert_answers(&scene);
    stop(&scene, &machine);
}

#[test]
fn machine_without_a_place_for_one_more_client_is_stopped_by_force() {
    let scene = scene();
    let machine = machine(&scene);
    let busy = busy_followers(&scene, &Arc::default());
    scene.play(&["stop", "probe"]).assert_error(&["probe", "32 clients are being served already"]);
    let outcome = scene.play(&["stop", "--force", "probe"]);
    assert!(outcome.status.success(), "{outcome:?}");
    assert!(outcome.stdout.starts_with("probe: killed, because 32 clients"), "{outcome:?}");
    machine.assert_ends();
    drop(busy.join().unwrap());
}

//! `exovm top`: on a terminal, without one, and what it leaves behind.

use crate::scene;
use crate::terminal::Terminal;
use exovm_ci::scene::Scene;
use exovm_ci::{Client, Site};
use exovm_netns::in_namespace;
use rustix::termios::{Termios, tcgetattr};

/// Ended with success, and the terminal is as it was.
fn assert_ends(terminal: &mut Terminal, before: &Termios) {
    assert_eq!(terminal.status(), Some(0));
    let after = tcgetattr(&terminal.slave).expect("a terminal");
    assert_eq!((after.local_modes, after.input_modes), (before.local_modes, before.input_modes));
    terminal.expect_screen("nothing", |screen| screen.trim().is_empty());
    assert!(!terminal.is_alternate());
}

#[test]
fn top_without_a_terminal_says_what_to_do() {
    let scene = scene();
    scene.assert_refused(&["top"], &["--once"]);
    scene.assert_refused(&["top", "--once"], &["no machine is running"]);
    scene.assert_refused(&["top", "--once", "ghost"], &["\"ghost\""]);
    scene.assert_refused(&["top", "../ghost"], &["name"]);
    let outcome = scene.play(&["top", "--interval", "never"]);
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
}

fn serve(scene: &Scene, name: &str, site: &Site) -> exovm_ci::scene::Running {
    let docroot = site.path().to_str().expect("a path");
    scene.start(&["run", "cheetah", "--docroot", docroot, "--net", "tap=auto", "--name", name])
}

#[test]
fn one_frame_as_text_shows_machines_and_their_buckets() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("a", "a");
        let (first, second) = (serve(&scene, "first", &site), serve(&scene, "second", &site));
        let mut client = Client::connect(first.address()).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(client.get("/a").unwrap().status(), 200);
                }
            });
            let outcome = scene.play(&["top", "--once", "--interval", "300ms"]);
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            outcome
        });
        assert!(outcome.status.success(), "{outcome:?}");
        let line = |start: &str| {
            let found = outcome.stdout.lines().find(|line| line.starts_with(start));
            found
                .unwrap_or_else(|| panic!("{start}: {}", outcome.stdout))
                .split_whitespace()
                .collect::<Vec<_>>()
        };
        // Name, image, state, requests a second, share of a CPU.
        let (busy, idle) = (line("first "), line("second "));
        assert_eq!(
            (busy[..3].to_vec(), idle[..4].to_vec()),
            (vec!["first", "cheetah", "ready"], vec!["second", "cheetah", "ready", "0"])
        );
        assert_ne!(busy[3], "0", "{busy:?}");
        assert!(busy[4].ends_with('%') && busy[4] != "0%", "{busy:?}");
        line("first: cycles by share");
        line("second: cycles by share");
        assert_ne!(line("  ring 3: tcp input")[3], "0.00%", "{}", outcome.stdout);
        line("vcpu: guest");
        assert!(!outcome.stdout.contains('\u{1b}'), "no terminal: {:?}", outcome.stdout);
        first.stop();
        second.stop();
        scene.assert_clean();
    });
}

#[test]
fn terminal_shows_machines_obeys_keys_and_is_left_as_it_was() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("a", "a");
        let running = serve(&scene, "first", &site);
        let (mut terminal, before) = Terminal::open(&scene, &["top", "--interval", "100ms"]);
        terminal.expect_screen("a frame", |screen| {
            screen.starts_with("exovm top: 1 machine, every 100ms") && screen.contains("vcpu: guest")
        });
        assert!(terminal.is_alternate());
        terminal.press(b"?");
        terminal.expect_screen("help", |screen| screen.contains("close this help"));
        terminal.press(b"x/ring");
        terminal.expect_screen("a filter", |screen| {
            screen.contains("only names with: ring_")
                && !screen.contains("vcpu: guest")
                && !screen.contains("close this help")
        });
        terminal.press(b"\r");
        terminal.expect_screen("the filter is kept", |screen| {
            screen.contains("names with: ring") && !screen.contains("ring_")
        });
        terminal.press(b"s");
        terminal.expect_screen("another order", |screen| screen.contains("cycles by entries"));
        terminal.resize(12, 60);
        terminal.expect_screen("the other size", |screen| {
            screen.lines().count() == 12 && screen.lines().last().is_some_and(|keys| keys.contains("quit"))
        });
        terminal.resize(30, 100);
        // One that comes is shown, and one that ends stays.
        let second = serve(&scene, "second", &site);
        terminal.expect_screen("two", |screen| screen.contains("2 machines") && screen.contains("\nsecond "));
        second.stop();
        let ended = |line: &str| line.starts_with("second ") && line.contains(" ended ");
        terminal.expect_screen("one ended", |screen| screen.lines().any(ended));
        terminal.press(b"q");
        assert_ends(&mut terminal, &before);
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn terminal_is_left_as_it_was_by_control_c_and_by_signals() {
    in_namespace!(|| {
        let scene = scene();
        let running = scene.start(&["run", "hello", "--net", "tap=auto"]);
        let start = || {
            let (mut terminal, before) = Terminal::open(&scene, &["top", "hello"]);
            terminal.expect_screen("a frame", |screen| screen.starts_with("exovm top: 1 machine"));
            (terminal, before)
        };
        let (mut terminal, before) = start();
        terminal.press(&[3]);
        assert_ends(&mut terminal, &before);
        for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
            let (mut terminal, before) = start();
            // SAFETY: our own child, which has not been waited for.
            assert_eq!(unsafe { libc::kill(terminal.child.id() as i32, signal) }, 0);
            assert_ends(&mut terminal, &before);
        }
        // The machine ends while it is looked at: the frame says so and stays.
        let (mut terminal, before) = start();
        running.stop();
        terminal.expect_screen("its end", |screen| screen.contains("machine hello ended"));
        terminal.press(b"q");
        assert_ends(&mut terminal, &before);
        scene.assert_clean();
    });
}

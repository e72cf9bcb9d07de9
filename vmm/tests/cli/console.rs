//! `exovm console`: on a terminal, in a pipe, refused, killed.

use crate::machines::wait_for;
use crate::scene;
use crate::terminal::Terminal;
use exovm_ci::Site;
use exovm_ci::scene::{Running, Scene, finish};
use exovm_netns::in_namespace;
use rustix::termios::tcgetattr;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

const CTRL_C: u8 = 3;
const DETACH: u8 = 0x1D;

/// Plays `exovm console` with this input.
fn piped(scene: &Scene, machine: &str, input: &[u8]) -> std::process::Output {
    // A busy guest may be silent for a while before it answers.
    let arguments = ["console", "--linger", "1000", machine];
    let mut child = scene.command(&arguments).stdin(Stdio::piped()).spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // It may refuse and be gone before it has read.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it was written");
    output
}

fn cheetah(scene: &Scene, site: &Site) -> Running {
    let docroot = site.path().to_str().expect("a path");
    scene.start(&["run", "cheetah", "--docroot", docroot, "--net", "tap=auto"])
}

#[test]
fn piped_command_is_answered() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("index.html", "home");
        let running = cheetah(&scene, &site);
        let mut client = exovm_ci::Client::connect(running.address()).unwrap();
        assert_eq!(client.get("/").unwrap().status(), 200);
        let output = piped(&scene, "cheetah", b"help\nconnections\ncounters\nnonsense\n");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        for part in
            ["quit  ", "1 open, 8192 at most", &format!("{:<24} 1", "requests"), "\"nonsense\" is no command"]
        {
            assert!(text.contains(part), "{part:?}: {text}");
        }
        assert!(!text.contains("cheetah> "), "no prompt in a pipe: {text}");
        // The answer was read; the next client gets its own and nothing else.
        let again = piped(&scene, "cheetah", b"connections");
        assert_eq!(again.stdout, b"", "a line without an end is no command");
        let again = piped(&scene, "cheetah", b"connections\n");
        assert_eq!(again.stdout, b"1 open, 8192 at most\n");
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn terminal_gets_prompt_and_echo_and_is_left_as_it_was() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("index.html", "home");
        let running = cheetah(&scene, &site);
        let (mut terminal, before) = Terminal::open(&scene, &["console", "cheetah"]);
        terminal.expect("Ctrl-] detaches");
        terminal.expect("cheetah> ");
        terminal.press(b"connectionz\x7fs\r");
        terminal.expect("connectionz\x08 \x08s");
        terminal.expect("0 open, 8192 at most");
        terminal.expect("cheetah> ");
        terminal.press(b"quit");
        terminal.press(&[CTRL_C]);
        terminal.expect("^C");
        terminal.expect("cheetah> ");
        // Another client is refused meanwhile.
        let refused = piped(&scene, "cheetah", b"help\n");
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(message.contains("another client is attached"), "{message}");
        terminal.press(b"help\r");
        terminal.expect("quit   ");
        terminal.expect("cheetah> ");
        terminal.press(&[DETACH]);
        terminal.expect("[detached]");
        assert_eq!(terminal.status(), Some(0));
        let after = tcgetattr(&terminal.slave).expect("a terminal");
        assert_eq!(after.local_modes, before.local_modes);
        assert_eq!(after.input_modes, before.input_modes);
        // What was shown last is shown again to the next one.
        let (mut terminal, _) = Terminal::open(&scene, &["console", "cheetah"]);
        terminal.expect("connections   how many are open");
        terminal.press(&[DETACH]);
        assert_eq!(terminal.status(), Some(0));
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn terminal_is_left_as_it_was_by_a_signal() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("index.html", "home");
        let running = cheetah(&scene, &site);
        let (mut terminal, before) = Terminal::open(&scene, &["console", "cheetah"]);
        terminal.expect("cheetah> ");
        // SAFETY: kill takes its arguments by value; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(terminal.child.id() as i32, libc::SIGTERM) }, 0);
        terminal.status();
        let after = tcgetattr(&terminal.slave).expect("a terminal");
        assert_eq!(after.local_modes, before.local_modes);
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn quit_ends_the_machine_and_the_console() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("index.html", "home");
        let mut running = cheetah(&scene, &site);
        let output = piped(&scene, "cheetah", b"quit\n");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(running.wait().code(), Some(0));
        scene.assert_clean();
    });
}

#[test]
fn bytes_of_any_kind_pass_through_a_pipe_unchanged() {
    let scene = scene();
    let running = scene.start(&["run", "probe", "--net", "none", "--", "channel-echo", "console"]);
    let bytes: Vec<u8> = (0..1_000_000u32).map(|at| (at * 7 + (at >> 8)) as u8).collect();
    let output = piped(&scene, "probe", &bytes);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
    // One that dies in the middle is followed by the next.
    let mut killed = scene.command(&["console", "probe"]).stdin(Stdio::piped()).spawn().unwrap();
    killed.stdin.as_mut().expect("piped").write_all(b"half a ").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let output = wait_for("the end of its session", || {
        let output = piped(&scene, "probe", b"whole\n");
        let refused = String::from_utf8_lossy(&output.stderr).contains("another client is attached");
        (!refused).then_some(output)
    });
    assert!(output.stdout.ends_with(b"whole\n"), "{output:?}");
    running.stop();
    scene.assert_clean();
}

#[test]
fn console_that_is_not_there_is_an_error_that_says_why() {
    in_namespace!(|| {
        let scene = scene();
        scene.assert_refused(&["console"], &["no machine is running"]);
        scene.assert_refused(&["console", "ghost"], &["\"ghost\""]);
        let running = scene.start(&["run", "hello", "--net", "tap=auto"]);
        let outcome = finish(&mut scene.command(&["console", "hello"]));
        outcome.assert_error(&["hello has no console", "exovm logs hello"]);
        running.stop();
        scene.assert_clean();
    });
}

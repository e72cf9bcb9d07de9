//! What the command says about itself: help, exit codes, suggestions, colours, completions, manual pages.

use crate::machines::wait_for;
use crate::scene;
use exovm_ci::scene::{Scene, finish};
use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

#[test]
fn exit_codes_are_as_the_help_says() {
    let scene = scene();
    let help = scene.play(&["--help"]).stdout;
    let documented = |code: &str| help.lines().any(|line| line.trim_start().starts_with(&format!("{code} ")));
    for code in ["0", "1", "2", "3", "128+N"] {
        assert!(documented(code), "{code} is not in {help}");
    }
    let probe = |case| scene.play(&["run", "probe", "--net", "none", "--", case]).status.code();
    assert_eq!(scene.play(&["ps"]).status.code(), Some(0));
    assert_eq!(scene.play(&["run", "nonsense"]).status.code(), Some(1));
    assert_eq!(scene.play(&["ps", "--colour"]).status.code(), Some(2));
    assert_eq!(probe("invalid-opcode"), Some(3));
    let own = scene.play(&["run", "probe", "--net", "none", "--", "exit", "77"]);
    assert_eq!(own.status.code(), Some(77), "the image's own status");
    scene.assert_clean();
}

#[test]
fn detached_machine_ended_by_a_signal_before_it_is_ready_returns_128_and_the_signal() {
    let scene = scene();
    let mut command =
        scene.command(&["run", "-d", "probe", "--net", "none", "--", "halt-forever"]).spawn().unwrap();
    wait_for("the start", || scene.sockets().first().cloned());
    // Its only child.
    let path = format!("/proc/{0}/task/{0}/children", command.id());
    let child: i32 = wait_for("the child", || std::fs::read_to_string(&path).ok()?.trim().parse().ok());
    // SAFETY: kill takes its arguments by value; the child's parent has not yet waited for it.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    assert_eq!(command.wait().unwrap().code(), Some(128 + 9));
    assert!(scene.play(&["ps"]).stderr.contains("probe did not end by itself"));
    scene.assert_clean();
}

#[test]
fn slips_are_answered_with_what_was_meant() {
    let scene = scene();
    for (arguments, code, expected) in [
        (&["runn"][..], 2, "run"),
        (&["dcotor"], 2, "doctor"),
        (&["image", "lst"], 2, "list"),
        (&["run", "hello", "--detatch"], 2, "--detach"),
        (&["run", "hello", "--io", "trun"], 2, "turn"),
        (&["completions", "bahs"], 2, "bash"),
        (&["run", "chetah"], 1, "did you mean cheetah?"),
        (&["image", "info", "helo"], 1, "did you mean hello?"),
        (&["man", "image", "lost"], 1, "list"),
    ] {
        let outcome = scene.play(arguments);
        assert_eq!(outcome.status.code(), Some(code), "{outcome:?}");
        assert!(outcome.stderr.contains(expected), "{expected}: {outcome:?}");
    }
}

/// What a command prints to a terminal.
fn on_a_terminal(command: &mut Command) -> String {
    let (mut master, mut slave) = (-1, -1);
    let (name, settings, size) = (std::ptr::null_mut(), std::ptr::null(), std::ptr::null());
    // SAFETY: fills the two numbers; the other pointers may be null.
    assert_eq!(unsafe { libc::openpty(&mut master, &mut slave, name, settings, size) }, 0);
    // SAFETY: openpty gave both descriptors to us alone.
    let (mut master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
    command.env("TERM", "xterm").stdout(slave.try_clone().unwrap()).stderr(slave);
    let status = command.status().unwrap();
    assert!(status.code().is_some(), "{:?}", status.signal());
    // What the command holds of the terminal goes with it.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut text = String::new();
    // A terminal that nobody holds any more ends with an error.
    let _ = master.read_to_string(&mut text);
    text
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let scene = scene();
    let command = |no_color: Option<&str>| {
        let mut command = scene.command(&["image", "list"]);
        command.env_remove("NO_COLOR");
        no_color.map(|value| command.env("NO_COLOR", value));
        command
    };
    let coloured = on_a_terminal(&mut command(None));
    assert!(coloured.contains("\x1b[1m") && coloured.contains("cheetah"), "{coloured:?}");
    let plain = on_a_terminal(&mut command(Some("1")));
    assert!(!plain.contains('\x1b') && plain.contains("cheetah"), "{plain:?}");
    let piped = exovm_ci::scene::finish(&mut command(None));
    assert!(!piped.stdout.contains('\x1b') && piped.stdout.contains("cheetah"), "{piped:?}");
}

fn completions(scene: &Scene, shell: &str) -> String {
    let outcome = scene.play(&["completions", shell]);
    assert!(outcome.status.success() && outcome.stderr.is_empty(), "{outcome:?}");
    outcome.stdout
}

#[test]
fn completions_of_every_shell_know_every_command() {
    let scene = scene();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = completions(&scene, shell);
        for word in
            ["run", "ps", "stop", "logs", "account", "image", "doctor", "man", "http", "info", "detach"]
        {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn completions_for_bash_complete() {
    let scene = scene();
    let dir = scene.dir();
    let path = dir.path().join("exovm.bash");
    std::fs::write(&path, completions(&scene, "bash")).unwrap();
    let complete = |words: &[&str]| {
        let (last, line) = (words[words.len() - 1], words.join(" "));
        let script = format!(
            "source {}; COMP_WORDS=({line}{}); COMP_CWORD={}; _exovm exovm '{last}' '{}'; echo \"${{COMPREPLY[@]}}\"",
            path.display(),
            if last.is_empty() { " ''" } else { "" },
            words.len() - 1,
            words[words.len() - 2],
        );
        let output = Command::new("bash").args(["--norc", "-c", &script]).output().expect("bash is there");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete(&["exovm", "sto"]).trim(), "stop");
    assert_eq!(complete(&["exovm", "run", "--det"]).trim(), "--detach");
    let io = complete(&["exovm", "run", "--io", ""]);
    assert!(io.contains("turn") && io.contains("auto"), "{io:?}");
}

/// Of the machines that run; words that are no command's place for one get none.
#[test]
fn completions_for_bash_know_the_names_of_machines() {
    let scene = scene();
    let machines = ["web", "web-2", "cache"].map(|name| scene.play(&["run", "-dq", "hello", "--name", name]));
    machines.iter().for_each(|machine| assert!(machine.status.success(), "{machine:?}"));
    assert_eq!(scene.play(&["ps", "--names"]).stdout, "cache\nweb\nweb-2\n");
    let dir = scene.dir();
    let path = dir.path().join("exovm.bash");
    std::fs::write(&path, completions(&scene, "bash")).unwrap();
    let exovm = env!("CARGO_BIN_EXE_exovm");
    let complete = |words: &str| {
        // As bash calls the function that it finds for the command.
        let script = format!(
            "source {}; COMP_WORDS=({exovm} {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            set -- $(complete -p exovm); while [ \"$1\" != -F ]; do shift; done
            \"$2\" {exovm} \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\"",
            path.display(),
        );
        let outcome = finish(&mut scene.command_of(Path::new("/bin/bash"), &["--norc", "-c", &script]));
        assert_eq!(outcome.stderr, "", "{words}");
        outcome.stdout.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for command in ["stop", "logs", "console", "account", "trace", "gdb", "stat", "top"] {
        assert_eq!(complete(&format!("{command} w")), ["web", "web-2"]);
        let all = complete(&format!("{command} ''"));
        assert!(["cache", "web", "web-2"].iter().all(|name| all.iter().any(|word| word == name)), "{all:?}");
        assert!(!all.iter().any(|word| word.starts_with('[')), "{all:?}");
    }
    assert_eq!(complete("stop web c"), ["cache"]);
    assert_eq!(complete("stop --fo"), ["--force"]);
    assert_eq!(complete("sto"), ["stop"]);
    assert!(!complete("run w").iter().any(|word| word == "web"));
    scene.play(&["stop", "--all"]);
    scene.assert_clean();
}

#[test]
fn completions_for_zsh_and_fish_ask_for_the_names_of_machines() {
    let scene = scene();
    let zsh = completions(&scene, "zsh");
    let places = zsh.matches(":_exovm_machines'").count();
    assert!(places >= 8, "stop, logs, console, account, trace, gdb, stat, top: {places}");
    assert!(zsh.find("_exovm_machines() {") < zsh.find("if [ \"$funcstack[1]\""), "{zsh}");
    let fish = completions(&scene, "fish");
    assert!(
        fish.contains("stop logs console account trace gdb stat top\" -f -a \"(exovm ps --names"),
        "{fish}"
    );
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let scene = scene();
    let dir = scene.dir();
    let out = dir.path().join("man/man1");
    let outcome = scene.play(&["man", "--out", out.to_str().unwrap()]);
    assert!(outcome.status.success(), "{outcome:?}");
    for (page, expected) in [
        ("exovm.1", "EXIT CODES"),
        ("exovm-run.1", "THE TAP"),
        ("exovm-bench-http.1", "EXAMPLES"),
        ("exovm-image-info.1", "EXAMPLES"),
        ("exovm-doctor.1", "EXIT CODES"),
    ] {
        let text = std::fs::read_to_string(out.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        for part in [".TH", ".SH NAME", ".SH SYNOPSIS", expected] {
            assert!(text.contains(part), "{page}: {part}: {text}");
        }
    }
    let one = scene.play(&["man", "bench", "http"]);
    assert!(one.status.success() && one.stdout.contains("bench\\-http"), "{one:?}");
    scene.play(&["man", "--out", "/dev/null/x"]).assert_error(&["/dev/null/x"]);
}

//! `exovm gdb`: with the host's gdb, lent to others, and refused. What a debugger does is tested in ci/tests/gdb.

use crate::machines::wait_for;
use crate::scene;
use exovm_ci::Site;
use exovm_ci::scene::{Outcome, Scene, finish_within};
use exovm_netns::in_namespace;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// gdb, without the symbols of its own that it would look for, to its end.
fn gdb(scene: &Scene, commands: &[&str]) -> Outcome {
    let mut arguments = vec!["gdb", "--", "-nx", "-batch"];
    for command in commands {
        arguments.extend(["-ex", command]);
    }
    // The end of the one before may not have been noticed.
    wait_for("the end of another debugger", || {
        let outcome = finish_within(PATIENCE, &mut scene.command(&arguments));
        (!outcome.stderr.contains("another debugger is attached")).then_some(outcome)
    })
}

#[test]
fn gdb_stops_at_a_function_shows_who_called_it_and_leaves_the_machine_as_it_was() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().pattern_file("page", 1, 1000);
        let docroot = site.path().to_str().expect("text");
        let machine = scene.start(&["run", "cheetah", "--docroot", docroot, "--publish", "0:80"]);
        let address = machine.address();
        let page = || {
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            stream
                .write_all(b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .expect("it listens");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("an answer");
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        };
        page();
        let begun = Instant::now();
        let done = AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    page();
                }
            });
            let outcome = gdb(
                &scene,
                &[
                    "break exos_http::serve::respond_with_file",
                    "continue",
                    "info threads",
                    "backtrace",
                    "stepi",
                    "info registers rip",
                    "x/2i 0xffffffff80000000",
                    "delete",
                    // The next call writes there.
                    "watch *(long *)($sp - 8)",
                    "continue",
                    "delete",
                    "detach",
                ],
            );
            done.store(true, Ordering::Relaxed);
            client.join().expect("late, and served");
            outcome
        });
        println!("{:?}: {}", begun.elapsed(), outcome.stdout);
        assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
        for part in [
            "Breakpoint 1, ",
            "environment 0 on vCPU 0",
            "#0 ",
            "respond_with_file",
            "#1 ",
            "Cheetah",
            "New value",
        ] {
            assert!(outcome.stdout.contains(part), "{part}: {outcome:?}");
        }
        page();
        machine.stop();
        scene.assert_clean();
    });
}

#[test]
fn machine_that_gdb_kills_goes_on() {
    let scene = scene();
    let machine = scene.start(&["run", "hello"]);
    let outcome = gdb(&scene, &["stepi", "kill"]);
    assert!(outcome.stdout.contains("exos_"), "{outcome:?}");
    let outcome = gdb(&scene, &["info threads"]);
    assert!(outcome.stdout.contains("environment 0"), "{outcome:?}");
    machine.stop();
    scene.assert_clean();
}

#[test]
fn connection_is_lent_to_one_debugger_after_the_other() {
    let scene = scene();
    let machine = scene.start(&["run", "hello"]);
    let path = scene.dir().path().join("gdb.sock");
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("writable");
    let path = path.to_str().expect("text").to_owned();
    let mut lending = scene.command(&["gdb", "--socket", &path]).spawn().expect("the command starts");
    let mut said = String::new();
    let mut stderr = BufReader::new(lending.stderr.take().expect("piped"));
    stderr.read_line(&mut said).expect("text");
    assert!(said.contains("debugger of hello") && said.contains(&path), "{said}");
    let mut first = UnixStream::connect(&path).expect("it listens");
    assert_eq!(ask(&mut first, "qAttached"), "1");
    // One at a time.
    let mut second = UnixStream::connect(&path).expect("it listens");
    assert_eq!(second.read(&mut [0; 100]).expect("closed"), 0);
    let refused = scene.play(&["gdb", "--stdio"]);
    refused.assert_error(&["hello", "another debugger is attached"]);
    drop(first);
    let begun = Instant::now();
    loop {
        let mut third = UnixStream::connect(&path).expect("it listens");
        // Closed at once while the first has not gone.
        if third.write_all(b"$qAttached#8f").is_ok() && matches!(third.read(&mut [0; 100]), Ok(1..)) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    // SAFETY: kill takes its arguments by value; the child is ours and not yet waited for.
    assert_eq!(unsafe { libc::kill(lending.id() as i32, libc::SIGINT) }, 0);
    assert_eq!(lending.wait().expect("our own child").code(), Some(0));
    assert!(!std::path::Path::new(&path).exists(), "the socket is removed");
    machine.stop();
    scene.assert_clean();
}

fn ask(socket: &mut UnixStream, packet: &str) -> String {
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let sum = packet.bytes().fold(0u8, u8::wrapping_add);
    socket.write_all(format!("${packet}#{sum:02x}").as_bytes()).expect("it listens");
    let mut answer = Vec::new();
    while !answer.contains(&b'#') {
        let mut part = [0; 100];
        let count = socket.read(&mut part).expect("an answer");
        assert!(count > 0, "closed");
        answer.extend_from_slice(&part[..count]);
    }
    let text = String::from_utf8(answer).expect("text");
    text.trim_start_matches('+').trim_start_matches('$').split('#').next().expect("a body").to_owned()
}

#[test]
fn symbols_are_elf_files_of_the_image() {
    let scene = scene();
    let machine = scene.start(&["run", "hello"]);
    let dir = scene.dir();
    let into = dir.path().join("symbols");
    let outcome = scene.play(&["gdb", "--symbols", into.to_str().expect("text")]);
    assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
    for (file, symbol) in [("program.elf", "event_loop"), ("kernel.elf", "xok")] {
        let bytes = std::fs::read(into.join(file)).expect("written");
        assert!(bytes.starts_with(b"\x7fELF"), "{file}");
        assert!(bytes.windows(symbol.len()).any(|window| window == symbol.as_bytes()), "{file}");
    }
    machine.stop();
}

#[test]
fn debugger_of_nothing_is_refused_and_no_gdb_is_said() {
    let scene = scene();
    scene.assert_refused(&["gdb"], &["no machine is running"]);
    let machine = scene.start(&["run", "hello"]);
    scene.play(&["gdb", "nobody"]).assert_error(&["nobody", "hello"]);
    scene.play(&["gdb", "--listen", "203.0.113.1:1"]).assert_error(&["203.0.113.1:1"]);
    let mut command: Command = scene.command(&["gdb"]);
    command.env("PATH", "/nonexistent");
    let outcome = finish_within(PATIENCE, &mut command);
    outcome.assert_error(&["there is no gdb here", "--listen", "target remote"]);
    machine.stop();
    scene.assert_clean();
}

/// Ctrl-C and other signals are gdb's, and whatever they do to it, no file stays.
#[test]
fn signals_reach_gdb_and_leave_no_files() {
    use std::os::unix::fs::PermissionsExt;
    let scene = scene();
    let machine = crate::machines::Detached::start(&scene, &["hello"]);
    let dir = scene.dir();
    let temporary = dir.path().join("tmp");
    std::fs::create_dir(&temporary).expect("room");
    let script = dir.path().join("gdb");
    // One that has Ctrl-C typed as soon as it is there. No shell: those set the mask that they are started with anew.
    let text = "#!/usr/bin/perl\n$| = 1; open(my $own, '<', '/proc/self/status'); print(grep(/SigBlk/, <$own>));\n\
                opendir(my $files, $ENV{TMPDIR}); print(join(' ', readdir($files)), \"\\n\");\n\
                kill('INT', getppid(), $$); sleep(20);\n";
    std::fs::write(&script, text).expect("room");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a file");
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").expect("set"));
    let begun = Instant::now();
    let outcome =
        finish_within(PATIENCE, scene.command(&["gdb"]).env("PATH", path).env("TMPDIR", &temporary));
    assert!(outcome.stdout.contains("SigBlk:\t0000000000000000"), "nothing is blocked in gdb: {outcome:?}");
    assert!(outcome.stdout.contains("exovm-gdb-"), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "Ctrl-C ended it");
    assert_eq!(outcome.status.code(), Some(1), "it waited for gdb, which a signal ended: {outcome:?}");
    assert_eq!(std::fs::read_dir(&temporary).expect("there").count(), 0, "the files are gone");
    assert!(scene.play(&["stop", &machine.name]).status.success());
    scene.assert_clean();
}

//! Output that nobody takes: closed pipes, full disks, and what machines say that a terminal would obey.

use crate::host::{Change, change};
use crate::machines::wait_for;
use crate::scene;
use exovm_ci::Client;
use exovm_ci::scene::{Scene, finish};
use exovm_netns::in_namespace;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;

const ADDRESS: &str = "127.0.0.1:8080";

/// Where output goes that nobody takes.
fn nowhere() -> [(&'static str, Stdio); 2] {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    [("a closed pipe", writer.into()), ("a full disk", full.into())]
}

#[test]
fn commands_end_as_always_where_nobody_takes_their_messages() {
    let scene = scene();
    for (arguments, status) in [
        (&["ps"][..], 0),
        (&["stop", "--all"], 0),
        (&["stop", "ghost"], 1),
        (&["logs", "ghost"], 1),
        (&["run", "nonsense"], 1),
        (&["run", "probe", "--net", "none", "--", "invalid-opcode"], 3),
        (&["run", "-d", "probe", "--net", "none", "--", "invalid-opcode"], 3),
    ] {
        for (what, stderr) in nowhere() {
            let outcome = finish(scene.command(arguments).stderr(stderr));
            assert_eq!(outcome.status.code(), Some(status), "{arguments:?}, {what}: {outcome:?}");
        }
    }
    scene.assert_clean();
}

#[test]
fn answers_that_cannot_be_printed_are_an_error_and_those_that_nobody_wants_are_none() {
    let scene = scene();
    for arguments in [&["ps", "--json"][..], &["image", "list"], &["doctor", "--only", "cpus"]] {
        let [(_, closed), (_, full)] = nowhere();
        let outcome = finish(scene.command(arguments).stdout(closed));
        assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        let outcome = finish(scene.command(arguments).stdout(full));
        outcome.assert_error(&["standard output", "No space left"]);
    }
}

#[test]
fn disk_image_commands_do_not_succeed_with_an_answer_that_is_cut_off() {
    let scene = scene();
    let dir = scene.dir();
    std::fs::create_dir(dir.path().join("site")).unwrap();
    std::fs::write(dir.path().join("site/index.html"), "x").unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    assert!(scene.play(&["mkfs", &path("site"), "-q", "-o", &path("image")]).status.success());
    let image = path("image");
    for command in ["ls", "df", "fsck"] {
        for json in [&[][..], &["--json"]] {
            let arguments = [&[command, &image][..], json].concat();
            let [(_, closed), (_, full)] = nowhere();
            let outcome = finish(scene.command(&arguments).stdout(closed));
            assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(0), ""), "{arguments:?}");
            let outcome = finish(scene.command(&arguments).stdout(full));
            outcome.assert_error(&["standard output", "No space left"]);
        }
    }
}

#[test]
fn account_is_not_a_success_when_it_is_cut_off() {
    let scene = scene();
    let _machine =
        crate::machines::Detached::start(&scene, &["probe", "--net", "none", "--", "chatter", "9999", "1"]);
    for arguments in [&["account", "--for", "0", "--json"][..], &["account", "--for", "0"]] {
        let [_, (_, full)] = nowhere();
        finish(scene.command(arguments).stdout(full)).assert_error(&["standard output", "No space left"]);
    }
    assert!(scene.play(&["stop", "--all"]).status.success());
}

/// Has the machine's threads say something: clients that go with a reset, which the user network says at the level debug.
fn make_noise() {
    let address: SocketAddr = ADDRESS.parse().unwrap();
    for _ in 0..5 {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
        // The request has arrived: the connection is there on both sides.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let reset = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: the value and its size are those that SO_LINGER takes.
        let set = unsafe {
            let value = std::ptr::from_ref(&reset).cast();
            let fd = std::os::fd::AsRawFd::as_raw_fd(&client.as_fd());
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, value, size_of_val(&reset) as u32)
        };
        assert_eq!(set, 0);
    }
}

/// It has said so, and serves.
fn assert_serves_after_noise(scene: &Scene) {
    wait_for("a message of the user network", || {
        scene.play(&["logs"]).stdout.contains("reset: ").then_some(())
    });
    let address: SocketAddr = ADDRESS.parse().unwrap();
    assert_eq!(Client::connect(address).unwrap().get("/").unwrap().status(), 200);
}

#[test]
fn machine_goes_on_where_nobody_takes_its_messages() {
    in_namespace!(|| {
        for (what, stderr) in nowhere() {
            let scene = scene();
            let mut command = scene.command(&["run", "hello", "--publish", "8080:80", "--net", "user"]);
            let mut running =
                exovm_ci::scene::Running::start(command.env("EXOVM_LOG", "debug").stderr(stderr));
            make_noise();
            assert_serves_after_noise(&scene);
            running.signal(libc::SIGINT);
            assert_eq!(running.wait().code(), Some(0), "{what}");
            scene.assert_clean();
        }
    });
}

#[test]
fn detached_machine_goes_on_when_the_disk_of_its_log_file_is_full() {
    in_namespace!(|| {
        let scene = scene();
        let script = "EXOVM_LOG=debug \"$0\" run -d -q hello --publish 8080:80 || exit 9
            ! head -c 1000000 /dev/zero >\"$XDG_RUNTIME_DIR/fill\" 2>/dev/null || exit 8
            echo full; read -r line
            \"$0\" logs; \"$0\" stop hello";
        let exovm = env!("CARGO_BIN_EXE_exovm");
        let mut command = scene.command_of(Path::new("/bin/sh"), &["-c", script, exovm]);
        change(&mut command, vec![Change::Small(scene.runtime_dir().to_str().unwrap().to_owned(), 64)]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        for expected in ["hello\n", "full\n"] {
            line.clear();
            stdout.read_line(&mut line).unwrap();
            assert_eq!(line, expected);
        }
        make_noise();
        let address: SocketAddr = ADDRESS.parse().unwrap();
        assert_eq!(Client::connect(address).unwrap().get("/").unwrap().status(), 200);
        child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
        let said = std::io::read_to_string(stdout).unwrap();
        assert!(said.contains("reset: ") && said.ends_with("hello: stopped\n"), "{said}");
        assert!(child.wait().unwrap().success());
    });
}

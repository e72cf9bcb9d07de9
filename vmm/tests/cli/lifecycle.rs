//! Start, end, and what remains: signals, kills, several machines of one user.

use crate::scene;
use exovm_ci::scene::interfaces;
use exovm_ci::{Client, Site};
use exovm_netns::in_namespace;

const HELLO: [&str; 4] = ["run", "hello", "--net", "tap=auto"];

#[test]
fn run_says_where_it_serves_and_how_it_started() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("index.html", "home").file("a/b.txt", "b");
        let docroot = site.path().to_str().unwrap();
        let running = scene.start(&["run", "cheetah", "--docroot", docroot, "--net", "tap=auto"]);
        for part in ["serving http://10.80.0.2/", "2 files", "machine: cheetah", "boot phase"] {
            assert!(running.said.contains(part), "{part} is not said: {}", running.said);
        }
        assert_eq!(
            phases(&running.said),
            ["image", "disk image"].into_iter().chain(MACHINE).collect::<Vec<_>>()
        );
        assert_eq!(Client::connect(running.address()).unwrap().get("/a/b.txt").unwrap().text(), "b");
        running.stop();
        scene.assert_clean();
    });
}

/// The boot phases of a machine with a network, after those of the command.
const MACHINE: [&str; 8] =
    ["virtual machine", "memory", "devices", "kernel", "environment", "library OS", "network", "ready"];

/// Names in the table of boot phases. Its numbers add up: what a phase took is in no other.
fn phases(said: &str) -> Vec<&str> {
    let rows = said.lines().skip_while(|line| !line.contains("boot phase")).skip(1);
    let mut sum_ms = 0.0;
    rows.take_while(|line| !line.is_empty())
        .map(|row| {
            let (name, numbers) = row.trim().split_once("  ").expect("a name, and columns");
            let numbers: Vec<f64> = numbers.split_whitespace().map(|text| text.parse().unwrap()).collect();
            sum_ms += numbers[0];
            assert!(numbers[0] > 0.0 && (sum_ms - numbers[1]).abs() < 0.01, "{row}: {said}");
            name
        })
        .collect()
}

#[test]
fn machine_without_a_docroot_has_no_disk_image_among_its_phases() {
    in_namespace!(|| {
        let scene = scene();
        let running = scene.start(&HELLO);
        assert_eq!(phases(&running.said), ["image"].into_iter().chain(MACHINE).collect::<Vec<_>>());
        running.stop();
    });
}

#[test]
fn signals_end_it_with_success_and_nothing_left() {
    in_namespace!(|| {
        let scene = scene();
        for (signal, io) in [
            (libc::SIGINT, "turn"),
            (libc::SIGTERM, "turn"),
            (libc::SIGHUP, "turn"),
            (libc::SIGINT, "thread"),
            (libc::SIGTERM, "poll"),
            (libc::SIGINT, "auto"),
        ] {
            let running = scene.start(&["run", "hello", "--net", "tap=auto", "--io", io]);
            assert_eq!(Client::connect(running.address()).unwrap().get("/").unwrap().status(), 200);
            assert_eq!(scene.sockets(), ["hello.sock"]);
            let (status, complaints) = running.end_by(signal);
            assert_eq!((status.code(), complaints.as_str()), (Some(0), ""), "signal {signal}, {io}");
            scene.assert_clean();
        }
    });
}

#[test]
fn signal_under_load_ends_it_with_success() {
    in_namespace!(|| {
        let scene = scene();
        let running = scene.start(&HELLO);
        let address = running.address();
        let loaders: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    let patience = std::time::Duration::from_millis(300);
                    let exchange = || Client::connect_within(address, patience)?.get("/");
                    while exchange().is_ok() {}
                })
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(300));
        running.stop();
        loaders.into_iter().for_each(|loader| loader.join().unwrap());
        scene.assert_clean();
    });
}

#[test]
fn killed_machine_is_followed_by_a_clean_start() {
    in_namespace!(|| {
        let scene = scene();
        let before = interfaces();
        scene.start(&HELLO).kill();
        assert_eq!(interfaces(), before, "the tap goes with its last descriptor");
        assert_eq!(scene.sockets(), ["hello.sock"], "a killed process cannot remove its socket");
        let none = scene.play(&["account"]);
        none.assert_error(&["no machine is running"]);
        let running = scene.start(&HELLO);
        running.kill();
        // Also where no other command has looked: the leftover is taken over. The same name, and no name-2.
        let running = scene.start(&HELLO);
        assert!(running.said.contains("machine: hello,"), "{}", running.said);
        assert_eq!(scene.sockets(), ["hello.sock"]);
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn machines_of_the_same_name_are_numbered() {
    in_namespace!(|| {
        let scene = scene();
        let machines: Vec<_> = (0..3).map(|_| scene.start(&HELLO)).collect();
        assert_eq!(scene.sockets(), ["hello-2.sock", "hello-3.sock", "hello.sock"]);
        for (machine, name) in machines.iter().zip(["hello", "hello-2", "hello-3"]) {
            assert!(machine.said.contains(&format!("machine: {name},")), "{}", machine.said);
            assert_eq!(Client::connect(machine.address()).unwrap().get("/").unwrap().status(), 200);
        }
        machines.into_iter().for_each(|machine| machine.stop());
        scene.assert_clean();
    });
}

#[test]
fn runtime_directory_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let scene = scene();
    let dir = scene.runtime_dir().join("exovm");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    scene.play(&["account"]).assert_error(&["only you can write to", "XDG_RUNTIME_DIR"]);
    let outcome = scene.play(&["run", "hello", "--net", "none", "--quiet"]);
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("XDG_RUNTIME_DIR"), "{outcome:?}");
    scene.assert_clean();
}

#[test]
fn control_socket_is_of_its_user_alone_whatever_the_umask_and_the_directory() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let scene = scene();
    let dir = scene.runtime_dir().join("exovm");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command =
        scene.command(&["run", "-d", "-q", "probe", "--net", "none", "--", "chatter", "9999", "1"]);
    // SAFETY: one system call, with a number.
    unsafe {
        command.pre_exec(|| {
            libc::umask(0);
            Ok(())
        })
    };
    let outcome = exovm_ci::scene::finish(&mut command);
    assert!(outcome.status.success(), "{outcome:?}");
    let mode = |name| std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("probe.sock"), mode("probe.log")), (0o600, 0o600));
    assert!(scene.play(&["stop", "probe"]).status.success());
    scene.assert_clean();
}

#[test]
fn machine_whose_name_has_no_room_for_a_number_is_refused() {
    let scene = scene();
    let name = "x".repeat(48);
    let arguments =
        ["run", "-d", "-q", "probe", "--net", "none", "--name", &name, "--", "chatter", "9999", "1"];
    assert!(scene.play(&arguments).status.success());
    scene.play(&arguments).assert_error(&[&name, "choose another --name"]);
    let stopped = scene.play(&["stop", "--all"]);
    assert_eq!(stopped.stdout, format!("{name}: stopped\n"), "{stopped:?}");
    scene.assert_clean();
}

#[test]
fn runtime_directory_that_is_too_long_or_relative_is_said_or_ignored() {
    let scene = scene();
    let long = scene.dir();
    let long = long.path().join("x".repeat(100));
    std::fs::create_dir(&long).unwrap();
    let mut command = scene.command(&["run", "probe", "--net", "none", "--", "exit", "0"]);
    let outcome = exovm_ci::scene::finish(command.env("XDG_RUNTIME_DIR", &long));
    outcome.assert_error(&["longer than a socket's path", "XDG_RUNTIME_DIR"]);
    outcome.assert_one_line();
    let here = scene.dir();
    let mut command = scene.command(&["ps"]);
    let outcome =
        exovm_ci::scene::finish(command.env("XDG_RUNTIME_DIR", "relative").current_dir(here.path()));
    assert!(outcome.status.success(), "{outcome:?}");
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0, "it belongs to no working directory");
}

#[test]
fn runtime_directory_that_a_process_keeps_locked_holds_up_nobody_for_good() {
    let scene = scene();
    scene.play(&["ps"]);
    let lock = std::fs::File::open(scene.runtime_dir().join("exovm")).unwrap();
    lock.lock().unwrap();
    scene.play(&["ps"]).assert_error(&["is locked by a process that does not go on", "fuser"]);
    // A machine waits for it with its socket.
    let mut command =
        scene.command(&["run", "-d", "-q", "probe", "--net", "none", "--", "chatter", "9999", "1"]);
    let start = std::thread::spawn(move || exovm_ci::scene::finish(&mut command));
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(scene.sockets(), [""; 0], "it is locked");
    drop(lock);
    let outcome = start.join().unwrap();
    assert!(outcome.status.success(), "{outcome:?}");
    assert!(scene.play(&["stop", "probe"]).status.success());
    scene.assert_clean();
}

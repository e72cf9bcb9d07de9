//! The user network from the command line: where it serves, what it says when it cannot, and that nothing is left of it.

use crate::scene;
use exovm_ci::Client;
use exovm_netns::in_namespace;
use std::net::TcpListener;

#[test]
fn run_without_net_serves_on_the_published_port_and_says_where() {
    in_namespace!(|| {
        let scene = scene();
        let running = scene.start(&["run", "hello", "--publish", "8080:80"]);
        // What the guest logs may come before it.
        let serving = |line: &str| line == "serving http://127.0.0.1:8080/";
        assert!(running.said.lines().any(serving), "{}", running.said);
        assert_eq!(
            Client::connect(running.address()).unwrap().get("/").unwrap().text(),
            "hello from ring 3\n"
        );
        let table = scene.play(&["ps"]);
        assert!(table.stdout.contains("127.0.0.1:8080 -> 80/tcp"), "{table:?}");
        running.stop();
        scene.assert_clean();
        assert!(TcpListener::bind("127.0.0.1:8080").is_ok(), "the port is free again");
    });
}

#[test]
fn run_without_publish_says_which_flag_to_use() {
    in_namespace!(|| {
        let scene = scene();
        let running = scene.start(&["run", "hello"]);
        assert!(running.said.contains("--publish 8080:80"), "{}", running.said);
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn run_with_port_0_takes_a_free_one_for_each_machine() {
    in_namespace!(|| {
        let scene = scene();
        let start = |name| scene.start(&["run", "hello", "--publish", "0:80", "--name", name]);
        let machines = [start("one"), start("two")];
        assert_ne!(machines[0].address(), machines[1].address());
        for machine in &machines {
            assert_eq!(Client::connect(machine.address()).unwrap().get("/").unwrap().status(), 200);
        }
        machines.into_iter().for_each(|machine| machine.stop());
        scene.assert_clean();
    });
}

#[test]
fn run_on_a_port_in_use_names_it_and_proposes_another() {
    in_namespace!(|| {
        let scene = scene();
        let first = scene.start(&["run", "hello", "--publish", "8080:80", "--name", "first"]);
        let outcome = scene.play(&["run", "hello", "--publish", "8080:80", "--name", "second"]);
        outcome.assert_error(&["port 8080/tcp of 127.0.0.1 is in use", "--publish 8081:80", "ss -tlnp"]);
        outcome.assert_one_line();
        assert_eq!(Client::connect(first.address()).unwrap().get("/").unwrap().status(), 200);
        first.stop();
        scene.assert_clean();
    });
}

#[test]
fn run_with_an_address_of_another_machine_says_so() {
    in_namespace!(|| {
        let scene = scene();
        scene.assert_refused(
            &["run", "hello", "--publish", "192.0.2.1:8080:80"],
            &["192.0.2.1 is no address of this machine", "0.0.0.0"],
        );
    });
}

#[test]
fn run_with_a_badly_written_publication_shows_the_form() {
    let scene = scene();
    for text in ["80", "8080:0", "localhost:8080:80", "8080:80/sctp"] {
        let outcome = scene.play(&["run", "hello", "--publish", text]);
        assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains("8080:80"), "{text}: {outcome:?}");
    }
    scene.assert_refused(
        &["run", "hello", "--net", "none", "--publish", "8080:80"],
        &["--publish is for --net user"],
    );
}

#[test]
fn killed_machine_leaves_its_port_free() {
    in_namespace!(|| {
        let scene = scene();
        let running = scene.start(&["run", "hello", "--publish", "8080:80"]);
        let _client = Client::connect(running.address()).unwrap();
        running.kill();
        let again = scene.start(&["run", "hello", "--publish", "8080:80"]);
        assert_eq!(Client::connect(again.address()).unwrap().get("/").unwrap().status(), 200);
        again.stop();
        scene.assert_clean();
    });
}

#[test]
fn help_says_where_tcp_ends_and_what_the_guest_reaches() {
    let help = scene().play(&["run", "--help"]).stdout;
    for part in ["TCP ends in this process", "allow-host=PORT", "--publish 8080:80", "10.0.2.15", "use a tap"]
    {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn machine_may_have_the_descriptors_that_its_connections_need() {
    use std::os::unix::process::CommandExt;
    let scene = scene();
    let mut command = scene.command(&["run", "hello"]);
    // SAFETY: the closure makes two system calls, on memory of its own.
    unsafe {
        command.pre_exec(|| {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
            limit.rlim_cur = 256;
            match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        })
    };
    let running = exovm_ci::scene::Running::start(&mut command);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard] =
        [3, 4].map(|at| files.split_whitespace().nth(at).unwrap().parse::<u64>().unwrap_or(u64::MAX));
    assert_eq!(soft, hard.min(4096), "{files}");
    running.stop();
    scene.assert_clean();
}

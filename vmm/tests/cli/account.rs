//! `exovm account`: of one machine, of one among several, of none.

use crate::machines::cheetah_that_served;
use crate::scene;
use exovm::account::AccountSnapshot;
use exovm_ci::Client;
use exovm_netns::in_namespace;

#[test]
fn account_without_a_machine_says_how_to_start_one() {
    let scene = scene();
    scene.assert_refused(&["account"], &["no machine is running", "exovm run"]);
    scene.assert_refused(&["account", "ghost"], &["no machine called \"ghost\""]);
    for name in ["../ghost", "", "/"] {
        scene.assert_refused(&["account", name], &["name"]);
    }
}

#[test]
fn account_for_an_impossible_time_is_refused() {
    let scene = scene();
    for time in ["nan", "inf", "86401", "-1", "0s", "soon"] {
        let outcome = scene.play(&["account", &format!("--for={time}")]);
        assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains("--for"), "{outcome:?}");
    }
}

#[test]
fn account_of_the_only_machine_needs_no_name() {
    in_namespace!(|| {
        let scene = scene();
        let (running, _client) = cheetah_that_served(&scene, 25);

        // Seconds, or a time with its unit, as everywhere.
        assert!(scene.play(&["account", "--for", "0.1"]).status.success());
        let table = scene.play(&["account", "--for", "100ms"]);
        assert!(table.status.success(), "{table:?}");
        for part in ["requests/s", "share", "vcpu: where its time went", "unattributed:"] {
            assert!(table.stdout.contains(part), "{part}: {}", table.stdout);
        }
        let json = scene.play(&["account", "cheetah", "--for", "0", "--json"]);
        let account: AccountSnapshot = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(account.schema, "exovm-account/1");
        assert_eq!(account.site("requests").map(|site| site.total), Some(25));
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn account_of_several_machines_asks_which() {
    in_namespace!(|| {
        let scene = scene();
        let start = |name| scene.start(&["run", "hello", "--net", "tap=auto", "--name", name]);
        let (first, second) = (start("first"), start("second"));
        scene.play(&["account"]).assert_error(&["several machines", "first", "second"]);
        scene.play(&["account", "third"]).assert_error(&["\"third\"", "first", "second"]);
        for name in ["first", "second"] {
            let outcome = scene.play(&["account", name, "--for", "0"]);
            assert!(outcome.status.success() && outcome.stdout.contains("vcpu"), "{outcome:?}");
        }
        second.stop();
        assert!(scene.play(&["account", "--for", "0"]).status.success(), "only one is left");
        first.stop();
        scene.assert_clean();
    });
}

#[test]
fn machine_serves_while_its_control_socket_is_misused() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    in_namespace!(|| {
        let scene = scene();
        let running = scene.start(&["run", "hello", "--net", "tap=auto"]);
        let socket = scene.runtime_dir().join("exovm/hello.sock");
        let silent: Vec<_> = (0..3).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        for nonsense in [&b"\n"[..], b"{}\n", b"\"destroy\"\n", &[0xFF; 10_000], b"\"account\""] {
            let mut stream = UnixStream::connect(&socket).unwrap();
            // The machine may have closed already.
            let _ = stream.write_all(nonsense);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_string(&mut String::new());
        }
        assert_eq!(Client::connect(running.address()).unwrap().get("/").unwrap().status(), 200);
        drop(silent);
        assert!(scene.play(&["account", "--for", "0"]).status.success());
        running.stop();
        scene.assert_clean();
    });
}

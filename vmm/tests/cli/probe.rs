//! `exovm probe`: what it prints, and that the machine is as before however it ends.

use crate::scene;
use exovm_ci::scene::{Running, Scene, finish};
use exovm_ci::{Client, Site};
use exovm_netns::in_namespace;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

const INPUT: &str = "cheetah::service::Cheetah as exos_event_loop::service::Service>::input";

fn cheetah(scene: &Scene, site: &Site) -> Running {
    let docroot = site.path().to_str().expect("UTF-8");
    let running = scene.start(&["run", "cheetah", "--docroot", docroot, "--net", "tap=auto"]);
    // The first one waits for the disk, and is looked at twice.
    requests(&running, 1);
    running
}

fn requests(running: &Running, count: u64) {
    let mut client = Client::connect(running.address()).expect("it serves");
    for _ in 0..count {
        assert_eq!(client.get("/a").expect("an answer").text(), "a");
    }
}

/// Whether a function can be probed now, which it cannot as long as another probe is there.
fn is_free(scene: &Scene) -> bool {
    scene.play(&["probe", INPUT, "--for", "1ms"]).status.success()
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A command that probes, once it does.
fn probing(scene: &Scene, arguments: &[&str]) -> Child {
    let begin = || {
        let child = scene.command(arguments).spawn().expect("the command starts");
        std::thread::sleep(Duration::from_secs(1));
        child
    };
    let mut child = begin();
    // Looks seldom, since it probes for a moment itself. Whom it comes before is refused, and begins anew.
    wait_until("it is probed", || {
        if child.try_wait().expect("our own child").is_some_and(|status| !status.success()) {
            child = begin();
        }
        let is_probed = !is_free(scene);
        std::thread::sleep(Duration::from_millis(if is_probed { 0 } else { 700 }));
        is_probed
    });
    child
}

#[test]
fn probe_prints_calls_times_and_arguments() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("a", "a");
        let running = cheetah(&scene, &site);
        let output = (0..5)
            .find_map(|_| {
                let arguments = ["probe", "cheetah", INPUT, "--ret", "--args", "--for", "8s", "--json"];
                let mut probe = probing(&scene, &arguments);
                requests(&running, 250);
                // A host may be too busy for all of them to come in that time.
                let came_in_time = probe.try_wait().expect("our own child").is_none();
                let output = probe.wait_with_output().expect("it ends");
                assert!(output.status.success(), "{output:?}");
                came_in_time.then_some(output)
            })
            .expect("250 requests in 8 s");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&json["schema"], &json["machine"]), (&"exovm-probe/1".into(), &"cheetah".into()));
        assert_eq!((&json["calls"], &json["by"][0]["returned"]), (&250.into(), &250.into()));
        assert_eq!(json["complete"], true);
        assert!(json["seconds"].as_f64().is_some_and(|seconds| (7.9..15.0).contains(&seconds)), "{json}");
        for name in ["p50_cycles", "p99_cycles", "max_cycles", "mean_cycles"] {
            assert!(json["by"][0][name].as_u64().is_some_and(|cycles| cycles > 100), "{name}: {json}");
        }
        let registers = json["arguments"]["registers"].as_array().expect("registers");
        let self_register = &registers[0]["most"];
        assert_eq!(self_register.as_array().map(Vec::len), Some(1), "there is one Cheetah: {json}");

        let text = finish(&mut scene.command(&["probe", INPUT, "--ret", "--for", "0.05"]));
        assert!(text.status.success() && text.stdout.contains("environment 0: 0 calls"), "{text:?}");
        requests(&running, 10);
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn machine_is_as_before_after_its_client_was_killed() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("a", "a");
        let running = cheetah(&scene, &site);
        for _ in 0..3 {
            let mut probe = probing(&scene, &["probe", INPUT, "--ret", "--for", "1h"]);
            scene.play(&["probe", INPUT, "--for", "1ms"]).assert_error(&["probed by another client"]);
            requests(&running, 100);
            probe.kill().expect("SIGKILL");
            probe.wait().expect("it ends");
            wait_until("the text is restored", || is_free(&scene));
            requests(&running, 100);
        }
        // Ctrl-C prints what there is.
        let probe = probing(&scene, &["probe", INPUT, "--for", "1h"]);
        requests(&running, 70);
        // SAFETY: a process of this test, by its id.
        assert_eq!(unsafe { libc::kill(probe.id() as i32, libc::SIGINT) }, 0);
        let output = probe.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("70 calls"), "{output:?}");
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn machine_that_ends_while_it_is_probed_ends_the_probe_with_its_numbers() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("a", "a");
        let running = cheetah(&scene, &site);
        let probe = probing(&scene, &["probe", INPUT, "--for", "1h", "--json"]);
        requests(&running, 30);
        running.stop();
        let output = probe.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("ended after"), "{output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&json["calls"], &json["complete"]), (&30.into(), &false.into()));
        scene.assert_clean();
    });
}

#[test]
fn machine_whose_process_is_killed_while_it_is_probed_is_an_error_with_the_numbers_until_then() {
    let scene = scene();
    let machine =
        crate::machines::Detached::start(&scene, &["probe", "--net", "none", "--", "profile-shares"]);
    let arguments = ["probe", "probe::profile::outer", "--for", "1h", "--json"];
    let probe = scene.command(&arguments).spawn().expect("the command starts");
    std::thread::sleep(Duration::from_secs(2));
    machine.signal(rustix::process::Signal::KILL);
    let output = probe.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr.contains("has gone without a word") && stderr.contains("until then"), "{stderr}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(json["calls"].as_u64() > Some(10) && json["complete"] == false, "{json}");
    machine.assert_ends();
}

#[test]
fn list_prints_functions_and_bad_input_says_what_to_do() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("a", "a");
        scene.assert_refused(&["probe", "ghost", "memcpy"], &["no machine called \"ghost\""]);
        scene.assert_refused(&["probe", "memcpy"], &["no machine is running"]);
        let running = cheetah(&scene, &site);
        let list = scene.play(&["probe", "cheetah", "--list", "SERVICE>::"]);
        assert!(
            list.status.success() && list.stdout.contains(INPUT) && list.stdout.contains("0x4"),
            "{list:?}"
        );
        let json = scene.play(&["probe", "--list", "slice_end", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
        assert!(json.as_array().is_some_and(|all| all.iter().any(|one| one["ring"] == "kernel")), "{json}");
        for (arguments, parts) in [
            (&["probe"][..], &["which function", "--list"][..]),
            (&["probe", "cheetah", "nonsuch"], &["no function called \"nonsuch\"", "inlined"]),
            (&["probe", "memcpi"], &["did you mean", "memcpy"]),
            (&["probe", "drop_in_place"], &["several functions"]),
            (&["probe", "exos_start", "--ret"], &["without --ret"]),
            (&["probe", "--list", "nonsuch"], &["no function"]),
            (&["probe", "a", "b", "--list", "c"], &["no function"]),
            (&["probe", "memcpy", "--environment", "7", "--for", "1ms"], &["no environment 7"]),
            (
                &["probe", "kernel:slice_end", "--environment", "0", "--for", "1ms"],
                &["all environments together"],
            ),
        ] {
            scene.play(arguments).assert_error(parts);
        }
        for time in ["0", "-1", "x", "25h"] {
            let outcome = scene.play(&["probe", "memcpy", &format!("--for={time}")]);
            assert_eq!(outcome.status.code(), Some(2), "{time}: {outcome:?}");
        }
        requests(&running, 10);
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn client_that_says_nonsense_or_does_not_read_harms_nobody() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("a", "a");
        let running = cheetah(&scene, &site);
        let socket = scene.runtime_dir().join("exovm/cheetah.sock");
        let ask = |request: &str| {
            let mut stream = UnixStream::connect(&socket).expect("a client");
            stream.write_all(format!("{{\"v\":1,\"request\":{request}}}\n").as_bytes()).expect("asked");
            stream
        };
        for nonsense in [
            "\"probe\"",
            "{\"probe\":7}",
            "{\"probe\":{\"attach\":{}}}",
            "{\"probe\":{\"attach\":{\"function\":9}}}",
        ] {
            let mut line = String::new();
            BufReader::new(ask(nonsense)).read_line(&mut line).expect("an answer");
            assert!(line.contains("refused") && line.contains("malformed"), "{nonsense}: {line}");
        }
        let attach = format!("{{\"probe\":{{\"attach\":{{\"function\":\"{INPUT}\",\"returns\":true}}}}}}");
        let mut deaf = ask(&attach);
        let mut heard = BufReader::new(&deaf).lines();
        assert!(heard.any(|line| line.expect("an answer").contains("\"attached\"")));
        deaf.write_all(&[b'x'; 5000]).expect("nobody minds");
        requests(&running, 100);
        drop(deaf);
        wait_until("the text is restored", || is_free(&scene));
        requests(&running, 10);
        running.stop();
        scene.assert_clean();
    });
}

//! `--vcpus`: what there can be, what is said of it, and that several run and end like one.

use crate::machines::ps;
use crate::scene;
use exovm::account::AccountSnapshot;
use exovm_ci::Client;
use exovm_ci::scene::Running;
use exovm_netns::in_namespace;

const HELLO: [&str; 4] = ["run", "hello", "--net", "tap=auto"];

/// The arguments of `run hello` and further ones.
fn hello<'a>(further: &[&'a str]) -> Vec<&'a str> {
    [&HELLO, further].concat()
}

/// Ctrl-C, after which all must be well; that the host has fewer CPUs is all that may be complained about.
fn end(running: Running, vcpus: u32) {
    let (status, complaints) = running.end_by(libc::SIGINT);
    assert_eq!(status.code(), Some(0), "{complaints}");
    let cpus = exovm::placement::allowed_cpus().len();
    if (vcpus as usize) <= cpus {
        assert_eq!(complaints, "");
    } else {
        let warning = format!("exovm: warning: {vcpus} vCPUs share {cpus} of the host's CPUs");
        assert!(complaints.starts_with(&warning) && complaints.lines().count() == 1, "{complaints}");
    }
}

#[test]
fn number_of_vcpus_that_there_cannot_be_is_wrong_usage() {
    let scene = scene();
    for vcpus in ["0", "9", "-1", "two", "", "1.5", "4294967297"] {
        let outcome = scene.play(&hello(&[&format!("--vcpus={vcpus}")]));
        assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
        for part in ["--vcpus", &format!("'{vcpus}'")] {
            // Clap's words for nothing at all are others.
            assert!(outcome.stderr.contains(part) || vcpus.is_empty(), "{part}: {outcome:?}");
        }
        scene.assert_clean();
    }
    let outcome = scene.play(&hello(&["--vcpus", "9"]));
    assert!(outcome.stderr.contains("1..=8"), "{outcome:?}");
}

#[test]
fn turns_with_several_vcpus_are_refused_and_it_is_said_what_to_do() {
    in_namespace!(|| {
        let scene = scene();
        let outcome = scene.play(&hello(&["--vcpus", "2", "--io", "turn"]));
        outcome.assert_error(&["--io turn", "this one has 2", "--io thread", "--vcpus 1"]);
        scene.assert_clean();
    });
}

#[test]
fn cpus_for_vcpus_must_be_as_many_and_be_there() {
    in_namespace!(|| {
        let scene = scene();
        for (vcpus, cpus, parts) in [
            ("2", "0", &["--vcpu-cpu names 1", "2 vCPUs", "one for each"][..]),
            ("1", "0,0", &["--vcpu-cpu names 2", "one for each"]),
            ("2", "0,1023", &["--vcpu-cpu 1023", "may not use"]),
        ] {
            scene.assert_refused(&hello(&["--vcpus", vcpus, "--vcpu-cpu", cpus]), parts);
        }
        let outcome = scene.play(&hello(&["--vcpu-cpu", "0,x"]));
        assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
        let bound = scene.start(&hello(&["--vcpus", "2", "--vcpu-cpu", "0,0"]));
        assert_eq!(Client::connect(bound.address()).unwrap().get("/").unwrap().status(), 200);
        bound.stop();
        scene.assert_clean();
    });
}

#[test]
fn several_vcpus_serve_are_told_of_and_end_on_request() {
    in_namespace!(|| {
        let scene = scene();
        for vcpus in ["2", "4"] {
            let running = scene.start(&hello(&["--vcpus", vcpus]));
            assert!(running.said.contains(&format!("{vcpus} vCPUs, ")), "{}", running.said);
            assert!(running.said.contains("device work: thread"), "{}", running.said);
            assert_eq!(Client::connect(running.address()).unwrap().get("/").unwrap().status(), 200);

            let number: u32 = vcpus.parse().unwrap();
            assert_eq!(ps(&scene)["machines"][0]["vcpus"], number);
            let table = scene.play(&["ps"]).stdout;
            let row: Vec<_> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
            assert!(table.contains("VCPUS") && row.contains(&vcpus), "{table}");

            let json = scene.play(&["account", "--for", "0", "--json"]).stdout;
            let account: AccountSnapshot = serde_json::from_str(&json).unwrap();
            let names: Vec<_> = account.threads.iter().map(|thread| thread.name.as_str()).collect();
            let expected = ["vcpu", "vcpu1", "vcpu2", "vcpu3", "io"];
            let expected: Vec<_> = (0..number as usize).map(|vcpu| expected[vcpu]).chain(["io"]).collect();
            assert_eq!(names, expected);
            let table = scene.play(&["account", "--for", "0"]).stdout;
            assert!(
                table.contains("vcpu1: where its time went")
                    && table.contains(&format!("in the guest, all {vcpus} vCPUs")),
                "{table}"
            );
            end(running, number);
            scene.assert_clean();
        }
    });
}

#[test]
fn more_vcpus_than_cpus_is_a_warning() {
    in_namespace!(|| {
        let scene = scene();
        let several = scene.start(&hello(&["--vcpus", "8"]));
        assert_eq!(Client::connect(several.address()).unwrap().get("/").unwrap().status(), 200);
        end(several, 8);
        let one = scene.start(&hello(&["--vcpus", "1"]));
        assert!(!one.said.contains("vCPUs"), "{}", one.said);
        one.stop();
        scene.assert_clean();
    });
}

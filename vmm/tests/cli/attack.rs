//! `exovm attack`: what it tries, what it prints, and how it ends.

use crate::scene;
use exovm_netns::in_namespace;
use serde_json::Value;

fn attacks(text: &str) -> Vec<Value> {
    let report: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(report["schema"], "exovm-attack/1");
    report["attacks"].as_array().expect("a list").clone()
}

#[test]
fn attack_tries_what_it_is_told_to_and_says_what_each_got() {
    in_namespace!(|| {
        let scene = scene();
        // On standard error the VMM says what it refused.
        let outcome = scene.play(&["attack", "--only", "extent-attacks", "--json"]);
        assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
        let attacks = attacks(&outcome.stdout);
        assert!(attacks.len() > 20, "{attacks:#?}");
        assert!(attacks.iter().all(|attack| attack["refused"] == true && attack["against"] == "extents"));
        let what = "read across the end";
        let one = attacks.iter().find(|attack| attack["attack"] == what).expect("in the list");
        assert_eq!((&one["got"], &one["expected"][0]), (&"status 1".into(), &"status 1".into()));
        let outcome = scene.play(&["attack", "--only", "extent-attacks"]);
        assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
        let line = outcome.stdout.lines().find(|line| line.contains(what)).expect("a line for each");
        assert!(line.contains("status 1") && line.ends_with("ok"), "{line}");
        let last = outcome.stdout.lines().last().unwrap_or_default();
        assert_eq!(last, format!("{} attacks, all refused", attacks.len()));
        scene.assert_clean();
    });
}

#[test]
fn attack_list_is_printed_without_a_machine() {
    in_namespace!(|| {
        let scene = scene();
        let outcome = scene.play(&["attack", "--list", "--json"]);
        assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
        let attacks = attacks(&outcome.stdout);
        assert!(attacks.len() > 250 && attacks.iter().all(|attack| attack.get("got").is_none()));
        scene
            .assert_refused(&["attack", "--only", "nothing of the kind"], &["nothing of the kind", "--list"]);
    });
}

#[test]
fn attack_with_several_vcpus_says_what_it_does_not_try() {
    in_namespace!(|| {
        let scene = scene();
        let outcome = scene.play(&["attack", "--vcpus", "2", "--only", "extents", "--json"]);
        assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
        assert!(outcome.stderr.contains("extent-attacks is not tried with 2 vCPUs: "), "{outcome:?}");
        let outcome = scene.play(&["attack", "--vcpus", "2", "--only", "slice-refusals", "--json"]);
        assert_eq!(outcome.status.code(), Some(0), "{outcome:?}");
        assert!(attacks(&outcome.stdout).iter().all(|attack| attack["refused"] == true), "{outcome:?}");
        let outcome = scene.play(&["attack", "--vcpus", "9"]);
        assert!(outcome.status.code() == Some(2) && outcome.stderr.contains("1..=8"), "{outcome:?}");
    });
}

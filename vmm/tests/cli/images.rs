//! Image files: unknown, damaged, of another version, and a guest that fails.

use crate::image_file::hello_image;
use crate::scene;
use exovm_netns::in_namespace;
use std::fs;

#[test]
fn image_unknown_says_which_there_are() {
    scene()
        .assert_refused(&["run", "nonsense", "--net", "none"], &["\"nonsense\"", "cheetah", "hello", "'/'"]);
}

#[test]
fn image_file_missing_is_refused() {
    let scene = scene();
    scene.assert_refused(&["run", "./no.image", "--net", "none"], &["./no.image", "No such file"]);
    scene.assert_refused(&["run", "/", "--net", "none"], &["/: "]);
}

#[test]
fn image_file_damaged_is_refused() {
    let scene = scene();
    let dir = scene.dir();
    let path = dir.path().join("a.image");
    let image = hello_image();
    let mut longer = image.clone();
    longer.push(0);
    let mut other_version = image.clone();
    other_version[12] ^= 0x40;
    let mut other_format = image.clone();
    other_format[8] ^= 0x40;
    for (bytes, expected) in [
        (&image[..0], "not an exovm image"),
        (&image[..39], "not an exovm image"),
        (&image[..40], "truncated or damaged"),
        (&image[..image.len() / 2], "truncated or damaged"),
        (&image[..image.len() - 1], "truncated or damaged"),
        (&longer, "truncated or damaged"),
        (b"#!/bin/sh\necho this is something else, and long enough\n", "not an exovm image"),
        (&other_version, "build the image and exovm from the same sources"),
        (&other_format, "build the image and exovm from the same sources"),
    ] {
        fs::write(&path, bytes).unwrap();
        scene.assert_refused(&["run", path.to_str().unwrap(), "--net", "none"], &["a.image", expected]);
    }
}

#[test]
fn image_file_is_run() {
    in_namespace!(|| {
        let scene = scene();
        let dir = scene.dir();
        let path = dir.path().join("a.image");
        fs::write(&path, hello_image()).unwrap();
        let running = scene.start(&["run", path.to_str().unwrap(), "--net", "tap=auto"]);
        let mut client = exovm_ci::Client::connect(running.address()).unwrap();
        assert_eq!(client.get("/").unwrap().text(), "hello from ring 3\n");
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn image_that_ends_by_itself_gives_its_status_and_its_last_words() {
    let scene = scene();
    let outcome = scene.play(&["run", "hello", "--net", "none", "--quiet"]);
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert!(outcome.stdout.contains("no network interface"), "{outcome:?}");
    scene.assert_clean();
}

#[test]
fn image_that_faults_returns_3_and_a_report() {
    let scene = scene();
    let dir = scene.dir();
    let path = dir.path().join("faulting.image");
    let image = crate::image_file::with_entry_code(hello_image(), &[0x0F, 0x0B]); // ud2
    fs::write(&path, image).unwrap();
    let outcome = scene.play(&["run", path.to_str().unwrap(), "--net", "none"]);
    assert_eq!(outcome.status.code(), Some(3), "{outcome:?}");
    for part in ["exovm: environment 0: invalid opcode", "exos_start+0x0", "rax", "rip"] {
        assert!(outcome.stderr.contains(part), "{part}: {outcome:?}");
    }
    scene.assert_clean();
}

//! `--disk`: images that cannot be attached are refused with what to do, before anything is made; images that are attached are
//! locked, and not longer than their machine lives.

use crate::host::respect_permissions;
use crate::scene;
use exovm_ci::scene::finish;
use exovm_netns::in_namespace;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// An image of this many bytes.
fn image(path: &Path, len_bytes: u64) -> String {
    File::create(path).unwrap().set_len(len_bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn run_with<'a>(net: &'a str, disk: &'a str, name: &'a str) -> [&'a str; 8] {
    ["run", "hello", "--net", net, "--disk", disk, "--name", name]
}

#[test]
fn images_that_cannot_be_attached_are_refused_with_what_to_do() {
    let scene = scene();
    let dir = scene.dir();
    let missing = dir.path().join("missing.img");
    let missing = missing.to_str().unwrap();
    scene.assert_refused(&run_with("none", missing, "a"), &[missing, "no such file", "truncate -s"]);
    assert!(!Path::new(missing).exists());
    let option = format!("{missing},rw");
    scene.assert_refused(&run_with("none", &option, "a"), &["no such file", "only option", ",ro"]);
    let directory = dir.path().to_str().unwrap();
    scene.assert_refused(&run_with("none", directory, "a"), &[directory, "a directory", "regular file"]);
    let odd = image(&dir.path().join("odd.img"), 10_000);
    scene.assert_refused(&run_with("none", &odd, "a"), &[&odd, "10000 bytes", "truncate -s 12288"]);
    let empty = image(&dir.path().join("empty.img"), 0);
    scene.assert_refused(&run_with("none", &empty, "a"), &[&empty, "empty", "truncate -s"]);
}

#[test]
fn image_without_permission_is_refused_and_readable_ones_can_be_read() {
    in_namespace!(|| {
        let scene = scene();
        let dir = scene.dir();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("disk.img");
        let disk = image(&path, 1 << 20);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        let mut command = scene.command(&run_with("none", &disk, "a"));
        respect_permissions(&mut command);
        let outcome = finish(&mut command);
        outcome.assert_error(&[&disk, "no permission to read and write it", ",ro"]);
        outcome.assert_one_line();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let readable = format!("{disk},ro");
        let mut command = scene.command(&run_with("none", &readable, "a"));
        respect_permissions(&mut command);
        finish(&mut command).assert_error(&[&disk, "no permission to read it"]);
    });
}

#[test]
fn writable_image_is_attached_to_one_machine_until_that_ends_or_is_killed() {
    in_namespace!(|| {
        let scene = scene();
        let dir = scene.dir();
        let disk = image(&dir.path().join("disk.img"), 1 << 20);
        let readable = format!("{disk},ro");
        let first = scene.start(&run_with("tap=auto", &disk, "first"));
        let holder = format!("process {}", first.pid());
        for other in [&disk, &readable] {
            let outcome = scene.play(&run_with("none", other, "second"));
            outcome.assert_error(&[&disk, &holder, "stop that machine"]);
            outcome.assert_one_line();
        }
        first.kill();
        let again = scene.start(&run_with("tap=auto", &disk, "first"));
        again.stop();
        let reader = scene.start(&run_with("tap=auto", &readable, "first"));
        scene.play(&run_with("none", &disk, "second")).assert_error(&[&disk, "has it attached", ",ro"]);
        reader.stop();
        scene.assert_clean();
    });
}

#[test]
fn nine_devices_are_too_many() {
    let scene = scene();
    let dir = scene.dir();
    let mut arguments: Vec<String> = ["run", "hello", "--net", "none"].map(str::to_owned).into();
    for number in 0..9 {
        let disk = image(&dir.path().join(format!("{number}.img")), 4096);
        arguments.extend(["--disk".to_owned(), disk]);
    }
    scene.assert_refused(&arguments, &["at most 8 devices"]);
}

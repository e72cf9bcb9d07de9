//! Options that an image declares: on the command line, in the help, and refused.

use crate::image_file::hello_image;
use crate::scene;
use exovm_ci::scene::Scene;
use exovm_image::container::{self, Image};
use std::path::PathBuf;

const OPTIONS: &str = r#"
[[options]]
name = "to"
short = "d"
value = "ADDRESS"
help = "Where connections go"
required = true
"#;

/// An image file with options: hello, which does not look at them.
fn with_options(dir: &tempfile::TempDir) -> PathBuf {
    let Image { files, .. } = Image::parse(&hello_image()).unwrap();
    let manifest =
        format!("name = \"hello\"\ndescription = \"x\"\nprogram = \"hello\"\nmemory_mib = 32\n{OPTIONS}");
    let path = dir.path().join("a.image");
    std::fs::write(&path, container::pack(&manifest, &files.kernel, &files.program).unwrap()).unwrap();
    path
}

/// Wrong usage, and what is said of it.
fn assert_wrong(scene: &Scene, arguments: &[&str], part: &str) {
    let outcome = scene.play(arguments);
    assert_eq!(outcome.status.code(), Some(2), "{arguments:?}: {outcome:?}");
    assert!(outcome.stderr.contains(part), "{part:?} is not said: {outcome:?}");
}

#[test]
fn image_options_are_taken_and_wrong_ones_are_wrong_usage() {
    let scene = scene();
    let dir = scene.dir();
    let path = with_options(&dir);
    let path = path.to_str().unwrap();
    for (options, part) in [
        (&[][..], "Usage: exovm run [OPTIONS] hello --to <ADDRESS>"),
        (&["--to"], "a value is required"),
        (&["--too", "x"], "a similar argument exists: '--to'"),
        (&["--to", "x", "--to", "y"], "cannot be used multiple times"),
        (&["--to", "x", "word"], "unexpected argument 'word'"),
    ] {
        assert_wrong(&scene, &[&["run", "--net", "none", path], options].concat(), part);
    }
    assert_wrong(&scene, &["run", "--to", "x", path], "unexpected argument '--to'");
    assert_wrong(&scene, &["run", "hello", "--to", "x"], "unexpected argument '--to'");
    // It boots, and ends by itself as it finds no network interface.
    for options in [["--to", "x"], ["-d", "x"]] {
        let outcome = scene.play(&[&["run", "-q", path, "--net", "none"], &options[..]].concat());
        assert!(
            outcome.status.code() == Some(1) && outcome.stdout.contains("no network interface"),
            "{outcome:?}"
        );
    }
    scene.assert_clean();
}

#[test]
fn image_options_are_in_the_help_of_that_image_only() {
    let scene = scene();
    let dir = scene.dir();
    let path = with_options(&dir);
    let help = |arguments: &[&str]| {
        let outcome = scene.play(arguments);
        assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
        outcome.stdout
    };
    let of_image = help(&["run", path.to_str().unwrap(), "--help"]);
    for part in ["Options of hello:", "-d, --to <ADDRESS>", "Where connections go", "--memory <MIB>"] {
        assert!(of_image.contains(part), "{part}: {of_image}");
    }
    for other in [&["run", "--help"][..], &["run", "hello", "--help"]] {
        assert!(!help(other).contains("Options of hello:"));
    }
}

#[test]
fn options_of_an_unknown_image_are_not_what_is_complained_of() {
    scene().assert_refused(&["run", "nonsense", "--to", "x", "-d", "10s"], &["\"nonsense\"", "built in are"]);
}

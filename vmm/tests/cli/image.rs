//! `exovm image`: the list, and what is in one.

use crate::image_file::hello_image;
use crate::scene;
use serde_json::Value;

fn json(arguments: &[&str]) -> Value {
    let outcome = scene().play(arguments);
    assert!(outcome.status.success() && outcome.stderr.is_empty(), "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

#[test]
fn image_list_has_the_built_in_ones() {
    let list = json(&["image", "list", "--json"]);
    assert_eq!(list["schema"], "exovm-images/1");
    let images = list["images"].as_array().unwrap();
    let hello = images.iter().find(|image| image["name"] == "hello").expect("it is built in");
    assert_eq!(hello["file_bytes"], hello_image().len());
    assert_eq!((&hello["memory_bytes"], &hello["docroot"]), (&(32u64 << 20).into(), &false.into()));
    let table = scene().play(&["image", "list"]);
    for image in images {
        let description = image["description"].as_str().unwrap();
        let line = table.stdout.lines().find(|line| line.ends_with(description)).expect(description);
        assert!(line.starts_with(image["name"].as_str().unwrap()), "{line}");
    }
}

#[test]
fn image_info_says_what_is_in_a_file() {
    let scene = scene();
    let dir = scene.dir();
    let path = dir.path().join("a.image");
    std::fs::write(&path, hello_image()).unwrap();
    let path = path.to_str().unwrap();
    let (file, built_in) =
        (json(&["image", "info", path, "--json"]), json(&["image", "info", "hello", "--json"]));
    assert_eq!(file["schema"], "exovm-image/1");
    assert_eq!(file, built_in, "it is the same image");
    let code = file["program"]["code_bytes"].as_u64().unwrap();
    assert!(code > 10_000 && code < hello_image().len() as u64, "{file}");
    assert!(file["kernel"]["functions"].as_u64().unwrap() > 5, "{file}");
    assert!(file["spans"].as_array().unwrap().contains(&"kernel call".into()), "{file}");
    let text = scene.play(&["image", "info", path]);
    for part in ["hello: ", "32 MiB", "KiB code in", "kernel call", "connections aborted"] {
        assert!(text.stdout.contains(part), "{part}: {text:?}");
    }
}

#[test]
fn image_info_of_something_else_is_refused() {
    let scene = scene();
    scene.assert_refused(&["image", "info", "nonsense"], &["\"nonsense\"", "built in are"]);
    scene.assert_refused(&["image", "info", "./missing.image"], &["./missing.image", "No such file"]);
    scene.assert_refused(&["image", "info", "/dev/null"], &["/dev/null", "not an exovm image"]);
}

//! What a user can get wrong: directories, sizes, names, flags. One line says what to do, and nothing is left behind.

use crate::host::respect_permissions;
use crate::scene;
use exovm_ci::scene::finish;
use exovm_ci::{Client, Site};
use exovm_netns::in_namespace;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn cheetah(docroot: &str) -> [String; 6] {
    ["run", "cheetah", "--net", "none", "--docroot", docroot].map(str::to_owned)
}

#[test]
fn docroot_missing_is_refused() {
    scene()
        .assert_refused(&cheetah("/there/is/no/such"), &["/there/is/no/such", "does not exist", "create it"]);
}

#[test]
fn docroot_empty_is_refused() {
    let scene = scene();
    let dir = scene.dir();
    scene.assert_refused(&cheetah(dir.path().to_str().unwrap()), &["holds no file", "index.html"]);
    fs::create_dir(dir.path().join("only a directory")).unwrap();
    scene.assert_refused(&cheetah(dir.path().to_str().unwrap()), &["holds no file"]);
}

#[test]
fn docroot_that_is_a_file_is_refused() {
    let scene = scene();
    let dir = scene.dir();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    scene.assert_refused(&cheetah(file.to_str().unwrap()), &["is not a directory", "name the directory"]);
}

#[test]
fn docroot_with_something_unreadable_is_refused_by_its_name() {
    in_namespace!(|| {
        let scene = scene();
        for (locked, is_dir) in [("secret.txt", false), ("secrets", true)] {
            let site = Site::new().file("index.html", "x");
            let path = site.path().join(locked);
            if is_dir {
                fs::create_dir(&path).unwrap()
            } else {
                fs::write(&path, "x").unwrap()
            };
            fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
            let mut command = scene.command(&cheetah(site.path().to_str().unwrap()));
            respect_permissions(&mut command);
            let outcome = finish(&mut command);
            outcome.assert_error(&[locked, "make it readable"]);
            outcome.assert_one_line();
            scene.assert_clean();
        }
    });
}

#[test]
fn docroot_for_an_image_that_takes_none_is_refused() {
    let scene = scene();
    scene.assert_refused(&["run", "hello", "--net", "none", "--docroot", "/"], &["hello", "no --docroot"]);
}

#[test]
fn sample_site_is_served_where_no_docroot_is_given() {
    in_namespace!(|| {
        let scene = scene();
        let running = scene.start(&["run", "cheetah", "--net", "tap=auto"]);
        assert!(running.said.contains("sample site"), "{}", running.said);
        let mut client = Client::connect(running.address()).unwrap();
        let page = client.get("/").unwrap().text();
        for file in ["style.css", "counters.js", "mark.svg", "path.svg"] {
            assert!(page.contains(&format!("\"{file}\"")), "the page refers to {file}");
            assert_eq!(client.get(&format!("/{file}")).unwrap().status(), 200);
        }
        // What the page shows live, by the names that it asks for.
        let counters: serde_json::Value =
            serde_json::from_str(&client.get("/.exovm/counters.json").unwrap().text()).unwrap();
        let script = client.get("/counters.js").unwrap().text();
        for name in ["requests", "body_bytes", "connections", "uptime_ms"] {
            assert!(script.contains(name) && counters[name].is_u64(), "{name}: {counters}");
        }
        assert_eq!(counters["requests"], 5, "the files; not yet this one");
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn docroot_with_spaces_and_utf_8_is_served() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("mit Leerzeichen/größe ☃.txt", "found");
        let renamed = site.path().parent().unwrap().join("Döcument root 日本");
        fs::rename(site.path(), &renamed).unwrap();
        let docroot = renamed.to_str().unwrap();
        let running = scene.start(&["run", "cheetah", "--net", "tap=auto", "--docroot", docroot]);
        let target = exovm_ci::corpus::target_of("mit Leerzeichen/größe ☃.txt".as_ref());
        let response = Client::connect(running.address()).unwrap().get(&target).unwrap();
        assert_eq!((response.status(), response.text().as_str()), (200, "found"));
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn docroot_with_link_loops_is_served_with_a_warning_for_each() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new()
            .file("index.html", "home")
            .link("self", "self")
            .link("up", "..")
            .link("here", ".")
            .link("dangling", "nothing");
        let docroot = site.path().to_str().unwrap().to_owned();
        let running = scene.start(&["run", "cheetah", "--net", "tap=auto", "--docroot", &docroot]);
        let mut client = Client::connect(running.address()).unwrap();
        assert_eq!(client.get("/").unwrap().text(), "home");
        assert_eq!(client.get("/self").unwrap().status(), 404);
        let (status, complaints) = running.end_by(libc::SIGINT);
        assert_eq!(status.code(), Some(0));
        for name in ["self", "here", "dangling"] {
            assert!(complaints.contains(&format!("/{name}\" left out")), "{name}: {complaints}");
        }
        scene.assert_clean();
    });
}

#[test]
fn memory_too_small_says_how_much_would_do_and_that_does() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().pattern_file("body", 1, 20 << 20);
        let docroot = site.path().to_str().unwrap();
        for memory in ["1", "7"] {
            let arguments = ["run", "cheetah", "--net", "none", "--docroot", docroot, "--memory", memory];
            scene.assert_refused(&arguments, &["memory is too small", "--memory"]);
        }
        // What is enough for a machine is not enough for this image, and it says by how much.
        let outcome =
            scene.play(&["run", "cheetah", "--net", "none", "--docroot", docroot, "--memory", "20"]);
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        let (_, behind) =
            outcome.stdout.split_once("give the machine ").unwrap_or_else(|| panic!("{outcome:?}"));
        let missing: u64 = behind.split_whitespace().next().unwrap().parse().unwrap();
        let needed = (20 + missing).to_string();
        let running =
            scene.start(&["run", "cheetah", "--net", "tap=auto", "--docroot", docroot, "--memory", &needed]);
        let mut client = Client::connect(running.address()).unwrap();
        assert_eq!(client.get("/body").unwrap().body.len(), 20 << 20);
        running.stop();
        scene.assert_clean();
    });
}

#[test]
fn memory_that_no_machine_can_have_is_wrong_usage() {
    let scene = scene();
    for memory in ["0", "524289", "18446744073709551615", "much", "-1"] {
        let outcome = scene.play(&["run", "hello", "--net", "none", &format!("--memory={memory}")]);
        assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains("--memory") && outcome.stderr.contains(memory), "{outcome:?}");
        scene.assert_clean();
    }
}

#[test]
fn name_that_is_no_file_name_is_refused() {
    let scene = scene();
    let long = "x".repeat(200);
    for name in ["../outside", "a/b", "", ".", "..", "with space", &long] {
        let outcome = scene.play(&["run", "hello", "--net", "none", "--name", name]);
        assert!(matches!(outcome.status.code(), Some(1 | 2)), "{name:?}: {outcome:?}");
        assert!(outcome.stderr.contains("name"), "{name:?}: {outcome:?}");
        assert!(!outcome.stdout.contains("machine:"), "{name:?} was run: {outcome:?}");
        scene.assert_clean();
    }
}

#[test]
fn cpu_that_is_not_there_is_refused() {
    scene().assert_refused(&["run", "hello", "--net", "none", "--vcpu-cpu", "1023"], &["--vcpu-cpu 1023"]);
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let long = "x".repeat(2000);
    scene().assert_refused(&["run", "hello", "--net", "none", "--", &long], &["2000 bytes", "1024"]);
}

#[test]
fn wrong_usage_returns_2_and_says_what_there_is() {
    let scene = scene();
    for (arguments, expected) in [
        (&["run"][..], "<IMAGE>"),
        (&["walk"], "walk"),
        (&["run", "hello", "--io", "fast"], "turn, thread, poll, auto"),
        (&["run", "hello", "--colour"], "--colour"),
        (&[], "Usage"),
    ] {
        let outcome = scene.play(arguments);
        assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(expected), "{outcome:?}");
        scene.assert_clean();
    }
}

#[test]
fn version_and_help_are_printed() {
    let scene = scene();
    let version = scene.play(&["--version"]);
    assert_eq!(version.stdout, format!("exovm {}\n", env!("CARGO_PKG_VERSION")));
    let help = scene.play(&["--help"]);
    assert!(
        help.status.success() && help.stdout.contains("run") && help.stdout.contains("account"),
        "{help:?}"
    );
    scene.assert_clean();
}

#[test]
fn reader_that_goes_away_is_no_panic() {
    let scene = scene();
    // As in `exovm run --help | true`.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for arguments in [&["run", "hello", "--net", "none"][..], &["run", "--help"]] {
        let mut command = scene.command(arguments);
        command.stdout(writer.try_clone().unwrap());
        let outcome = finish(&mut command);
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
        assert_ne!(outcome.status.code(), Some(101), "{outcome:?}");
        scene.assert_clean();
    }
}

#[test]
fn file_without_an_end_that_is_no_image_is_refused() {
    scene().assert_refused(&["run", "/dev/zero"], &["/dev/zero", "not an exovm image"]);
}

//! An image of one's own: `new` and `build`, on a machine that has Rust and the binary and not this repository.

use crate::host::{Change, change};
use crate::scene;
use exovm_ci::Client;
use exovm_ci::scene::{Outcome, Running, Scene, finish, finish_within};
use exovm_netns::in_namespace;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a build may take on a busy host.
const BUILD_PATIENCE: Duration = Duration::from_secs(300);

/// A home without anything but Rust.
struct Home {
    scene: Scene,
    dir: tempfile::TempDir,
    exovm: PathBuf,
}

/// This repository.
fn repository() -> &'static str {
    env!("CARGO_MANIFEST_DIR").strip_suffix("/vmm").expect("the folder of this package")
}

impl Home {
    fn new() -> Self {
        let scene = scene();
        let dir = scene.dir();
        let exovm = dir.path().join("exovm");
        fs::copy(env!("CARGO_BIN_EXE_exovm"), &exovm).unwrap();
        Self { scene, dir, exovm }
    }

    /// The command, started in a folder of this home, where the repository is hidden.
    fn command(&self, folder: &str, arguments: &[&str]) -> Command {
        let mut command = self.scene.command_of(&self.exovm, arguments);
        let rust = |variable: &str, folder: &str| {
            let home = std::env::var_os("HOME").expect("a home");
            std::env::var_os(variable).unwrap_or_else(|| Path::new(&home).join(folder).into())
        };
        command
            .current_dir(self.path(folder))
            .env("CARGO_HOME", rust("CARGO_HOME", ".cargo"))
            .env("RUSTUP_HOME", rust("RUSTUP_HOME", ".rustup"))
            .env("HOME", self.dir.path())
            .env_remove("CARGO")
            .env_remove("XDG_CACHE_HOME");
        change(&mut command, vec![Change::Empty(repository())]);
        command
    }

    fn play(&self, folder: &str, arguments: &[&str]) -> Outcome {
        finish_within(BUILD_PATIENCE, &mut self.command(folder, arguments))
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// The unpacked sources.
    fn sources(&self) -> PathBuf {
        let cache = fs::read_dir(self.path(".cache/exovm")).unwrap();
        let folders: Vec<_> = cache.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(folders.len(), 1, "{folders:?}");
        folders[0].clone()
    }
}

/// It succeeded, and said all of this.
fn assert_said(outcome: &Outcome, parts: &[&str]) {
    assert!(outcome.status.success(), "{outcome:?}");
    for part in parts {
        assert!(outcome.stdout.contains(part), "{part:?} is not said: {outcome:?}");
    }
}

/// Files below a folder, links followed.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn project_of_ones_own_is_made_built_and_run_without_the_repository() {
    in_namespace!(within 3 * BUILD_PATIENCE, || {
        let home = Home::new();
        assert_said(
            &home.play("", &["new", "webby"]),
            &["made webby", "exovm build", "exovm run ./webby.image"],
        );
        // The versions are the tested ones: nothing is left to choose.
        assert_said(&home.play("webby", &["build", "--locked"]), &["built ./webby.image", "KiB"]);
        let project = home.path("webby");
        for path in files(&project).iter().filter(|path| !path.starts_with(project.join("target"))) {
            let content = fs::read(path).unwrap();
            let found = content.windows(repository().len()).any(|window| window == repository().as_bytes());
            assert!(!found, "{} names the repository", path.display());
        }
        let mut run = home.command("webby", &["run", "./webby.image", "--net", "tap=auto"]);
        let running = Running::start(&mut run);
        assert!(running.said.contains("machine: webby"), "{}", running.said);
        assert_eq!(
            Client::connect(running.address()).unwrap().get("/").unwrap().text(),
            "hello from ring 3\n"
        );
        running.stop();

        // One's own change is in the image; one's own mistake is cargo's to explain.
        let main = project.join("src/main.rs");
        let text = fs::read_to_string(&main).unwrap();
        fs::write(&main, text.replace("hello from ring 3", "moin from ring 3!")).unwrap();
        assert_said(&home.play("", &["build", "webby"]), &["built ./webby/webby.image"]);
        let running = Running::start(&mut run);
        assert_eq!(
            Client::connect(running.address()).unwrap().get("/").unwrap().text(),
            "moin from ring 3!\n"
        );
        running.stop();
        fs::write(&main, text.replace("u16 = 80", "u16 = 80.5")).unwrap();
        let outcome = home.play("webby", &["build"]);
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        for part in ["error[E0308]", "src/main.rs:", "exovm: building webby failed"] {
            assert!(outcome.stderr.contains(part), "{part:?} is not said: {outcome:?}");
        }
        home.scene.assert_clean();
    });
}

#[test]
fn new_where_something_is_or_with_a_bad_name_is_refused_and_leaves_nothing() {
    in_namespace!(|| {
        let home = Home::new();
        fs::create_dir(home.path("full")).unwrap();
        fs::write(home.path("full/file"), "").unwrap();
        for (arguments, part) in [
            (&["new", "full"][..], "full exists and is not an empty folder"),
            (&["new", "a", "--dir", "full/file"], "full/file exists"),
            (&["new", "a", "--dir", "full/file/b"], "full/file"),
            (&["new", "../a"], "\"../a\" cannot be a project's name"),
            (&["new", "log"], "it is a library"),
            (&["new", "fn"], "a word of Rust's"),
        ] {
            let outcome = home.play("", arguments);
            outcome.assert_error(&[part]);
            outcome.assert_one_line();
        }
        let mut left: Vec<_> =
            fs::read_dir(home.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["exovm", "full"]);
        assert_eq!(fs::read_dir(home.path("full")).unwrap().count(), 1);
    });
}

#[test]
fn build_without_project_cargo_or_a_new_enough_toolchain_says_what_to_do() {
    in_namespace!(|| {
        let home = Home::new();
        home.play("", &["build"]).assert_error(&["no image.toml", "exovm new NAME"]);
        assert_said(&home.play("", &["new", "webby", "--dir", "deep/er"]), &["made deep/er"]);

        let mut without = home.command("deep/er", &["build"]);
        finish(without.env("PATH", "/nonexistent"))
            .assert_error(&["no `cargo` in PATH", "https://rustup.rs"]);
        let bin = home.path("bin");
        fs::create_dir(&bin).unwrap();
        for (script, parts) in [
            ("echo 'cargo 1.63.0 (fd9c4297c 2022-07-01)'", &["1.63.0", "rustup toolchain install 1.95"][..]),
            (
                "echo 'error: toolchain is not installed' >&2; exit 1",
                &["toolchain is not installed", "cargo --version"],
            ),
        ] {
            fs::write(bin.join("cargo"), format!("#!/bin/sh\n{script}\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(bin.join("cargo"), mode).unwrap();
            finish(home.command("deep/er", &["build"]).env("PATH", &bin)).assert_error(parts);
        }
        home.scene.assert_clean();
    });
}

#[test]
fn build_renews_a_link_to_other_sources_and_refuses_changed_ones() {
    in_namespace!(|| {
        let home = Home::new();
        home.play("", &["new", "webby"]);
        let link = home.path("webby/.exovm/sources");
        let sources = home.sources();
        assert_eq!(fs::read_link(&link).unwrap(), sources);
        // As after `git clone`, or with an exovm of another version.
        for other in [None, Some("/nonexistent/sources-0.0.9")] {
            fs::remove_file(&link).unwrap();
            if let Some(other) = other {
                std::os::unix::fs::symlink(other, &link).unwrap();
            }
            // The link is put right before cargo is asked for.
            finish(home.command("webby", &["build"]).env("PATH", "/nonexistent"))
                .assert_error(&["no `cargo`"]);
            assert_eq!(fs::read_link(&link).unwrap(), sources);
        }
        let changed = sources.join("guest-libos/net/src/lib.rs");
        fs::remove_file(&changed).unwrap();
        fs::write(&changed, "").unwrap();
        home.play("webby", &["build"]).assert_error(&[
            "guest-libos/net/src/lib.rs",
            "remove ",
            "unpacked again",
        ]);
        fs::remove_dir_all(&sources).unwrap();
        finish(home.command("webby", &["build"]).env("PATH", "/nonexistent")).assert_error(&["no `cargo`"]);
        assert!(fs::read_to_string(&changed).unwrap().contains("//!"), "unpacked again");
    });
}

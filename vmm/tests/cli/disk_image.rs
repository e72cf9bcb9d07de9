//! `mkfs`, `fsck`, `ls`, `cat` and `df`: that they agree with each other, what they say about damage, and that an mkfs that
//! does not come to its end leaves nothing.

use crate::host::{Change, change, limit_file_size};
use crate::scene;
use exovm_ci::scene::{Outcome, Scene, finish};
use exovm_netns::in_namespace;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A scene with a directory `site` and the path of an image that is not there yet.
struct Stage {
    scene: Scene,
    dir: TempDir,
}

impl Stage {
    fn new() -> Stage {
        let scene = scene();
        let dir = scene.dir();
        fs::create_dir_all(dir.path().join("site/css")).unwrap();
        let stage = Stage { scene, dir };
        fs::write(stage.site().join("index.html"), "<p>hello</p>").unwrap();
        fs::write(stage.site().join("css/style.css"), "p { color: red }".repeat(1000)).unwrap();
        stage
    }

    fn site(&self) -> PathBuf {
        self.dir.path().join("site")
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("site.img")
    }

    /// Plays a command with the image's path behind its name, and further arguments.
    fn on_image(&self, command: &str, more: &[&str]) -> Outcome {
        let image = self.image();
        let mut arguments = vec![command, image.to_str().unwrap()];
        arguments.extend(more);
        self.scene.play(&arguments)
    }

    fn mkfs(&self) -> Outcome {
        let (site, image) = (self.site(), self.image());
        self.scene.play(&["mkfs", site.to_str().unwrap(), "-o", image.to_str().unwrap()])
    }

    fn json(&self, command: &str, more: &[&str]) -> serde_json::Value {
        let outcome = self.on_image(command, &[more, &["--json"]].concat());
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn mkfs_then_ls_cat_df_and_fsck_agree() {
    let stage = Stage::new();
    let made = stage.mkfs();
    assert!(made.status.success(), "{made:?}");
    assert!(made.stdout.contains("2 files and 2 directories"), "{made:?}");
    assert_eq!(stage.on_image("ls", &[]).stdout, "css/\nindex.html\n");
    assert_eq!(stage.on_image("ls", &["-R"]).stdout, "/css/\n/index.html\n/css/style.css\n");
    let long = stage.on_image("ls", &["-l", "css"]).stdout;
    assert!(long.contains("16000") && long.contains("text/css; charset=utf-8"), "{long}");
    assert_eq!(stage.on_image("cat", &["css/style.css"]).stdout, "p { color: red }".repeat(1000));
    let fsck = stage.on_image("fsck", &[]);
    assert_eq!(fsck.status.code(), Some(0));
    assert!(fsck.stdout.contains("clean; 2 files and 2 directories"), "{fsck:?}");
    let df = stage.json("df", &[]);
    assert_eq!(df["total_bytes"], fs::metadata(stage.image()).unwrap().len());
    assert_eq!((&df["files"], &df["directories"], &df["free_bytes"]), (&2.into(), &2.into(), &0.into()));
    let list = stage.json("ls", &["-R"]);
    assert_eq!(list["entries"][2]["path"], "/css/style.css");
    assert_eq!(list["entries"][2]["size_bytes"], 16_000);
}

#[test]
fn one_file_is_no_files() {
    let stage = Stage::new();
    fs::remove_dir_all(stage.site().join("css")).unwrap();
    let made = stage.mkfs();
    assert!(made.stdout.contains(": 1 file and 1 directory, image of"), "{made:?}");
    let fsck = stage.on_image("fsck", &[]);
    assert!(fsck.stdout.ends_with("clean; 1 file and 1 directory, 5 blocks checked\n"), "{fsck:?}");
}

#[test]
fn mkfs_with_a_size_leaves_room_and_refuses_too_little() {
    let stage = Stage::new();
    let (site, image) = (stage.site(), stage.image());
    let mkfs = |size: &str| {
        let arguments = ["mkfs", site.to_str().unwrap(), "-o", image.to_str().unwrap(), "--size", size];
        stage.scene.play(&arguments)
    };
    mkfs("8K").assert_error(&["40960 bytes", "8192"]);
    assert!(!image.exists());
    assert!(mkfs("1M").status.success());
    let df = stage.json("df", &[]);
    assert_eq!(df["total_bytes"], 1 << 20);
    assert_eq!(df["free_bytes"], (1 << 20) - 40_960);
    assert_eq!(stage.on_image("fsck", &[]).status.code(), Some(0));
}

#[test]
fn fsck_of_a_damaged_image_returns_1_and_names_block_and_file() {
    let stage = Stage::new();
    stage.mkfs();
    let block = stage.json("ls", &["/css"])["entries"][0]["extents"][0]["first_block"].as_u64().unwrap() + 1;
    let file = fs::File::options().write(true).open(stage.image()).unwrap();
    file.write_all_at(b"?", block * 4096 + 7).unwrap();
    let outcome = stage.on_image("fsck", &[]);
    assert_eq!(outcome.status.code(), Some(1));
    assert!(
        outcome.stdout.starts_with(&format!("block {block}: /css/style.css: its data is not")),
        "{outcome:?}"
    );
    let json = stage.json("fsck", &[]);
    assert_eq!((&json["clean"], &json["problem_count"]), (&false.into(), &1.into()));
    assert_eq!(json["problems"][0]["block"], block);
    assert_eq!(json["problems"][0]["path"], "/css/style.css");
    assert_eq!(stage.on_image("fsck", &["--quick"]).status.code(), Some(0));
    let cat = stage.on_image("cat", &["/css/style.css"]);
    assert_eq!(cat.status.code(), Some(1));
    assert!(
        cat.stderr.contains(&format!("block {block} is damaged")) && cat.stderr.contains("fsck"),
        "{cat:?}"
    );
    assert_eq!(stage.on_image("cat", &["/index.html"]).stdout, "<p>hello</p>");
}

#[test]
fn image_that_was_cut_off_is_read_as_far_as_it_goes() {
    let stage = Stage::new();
    stage.mkfs();
    let file = fs::File::options().write(true).open(stage.image()).unwrap();
    let blocks = file.metadata().unwrap().len() / 4096;
    file.set_len((blocks - 2) * 4096).unwrap();
    let outcome = stage.on_image("cat", &["index.html"]);
    assert_eq!((outcome.stdout.as_str(), outcome.status.code()), ("<p>hello</p>", Some(0)));
    assert!(outcome.stderr.contains("cut off"), "{outcome:?}");
    let outcome = stage.on_image("cat", &["css/style.css"]);
    assert!(outcome.stderr.lines().last().unwrap().contains("missing"), "{outcome:?}");
    assert_eq!(outcome.status.code(), Some(1));
    assert_eq!(stage.on_image("fsck", &[]).status.code(), Some(1));
}

#[test]
fn images_and_paths_that_are_not_there_are_said_in_one_line() {
    let stage = Stage::new();
    for command in ["fsck", "ls", "df"] {
        let outcome = stage.on_image(command, &[]);
        outcome.assert_error(&["site.img", "No such file"]);
        outcome.assert_one_line();
    }
    fs::write(stage.image(), "GIF89a".repeat(5000)).unwrap();
    for command in ["fsck", "ls", "df"] {
        let outcome = stage.on_image(command, &[]);
        outcome.assert_error(&["site.img", "no exos file system here", "exovm mkfs"]);
        outcome.assert_one_line();
    }
    stage.mkfs();
    stage.on_image("cat", &["nothing"]).assert_error(&["there is no /nothing", "exovm ls -R"]);
    stage.on_image("cat", &["css"]).assert_error(&["css", "is a directory"]);
    let dir = stage.dir.path().to_str().unwrap();
    stage.scene.play(&["ls", dir]).assert_error(&["is a directory"]);
    stage.scene.play(&["mkfs", dir, "-o", dir]).assert_error(&["is not a file and will not be replaced"]);
    stage.scene.play(&["mkfs", "/no/such", "-o", "x.img"]).assert_error(&["/no/such", "does not exist"]);
}

/// The image is complete or not there: on a disk that gets full, the old one stays.
#[test]
fn mkfs_on_a_full_disk_leaves_nothing_new() {
    in_namespace!(|| {
        let stage = Stage::new();
        fs::create_dir(stage.dir.path().join("large")).unwrap();
        // Not zeros, which would become a hole.
        fs::write(stage.dir.path().join("large/file"), vec![b'x'; 3 << 20]).unwrap();
        let disk = stage.dir.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let script = "\"$0\" mkfs site -q -o disk/old.img && cp disk/old.img old.img || exit 9
            \"$0\" mkfs large -o disk/new.img; first=$?
            \"$0\" mkfs large -o disk/old.img; second=$?
            ls -A disk; cmp old.img disk/old.img && echo same; echo $first $second";
        let exovm = env!("CARGO_BIN_EXE_exovm");
        let mut command = stage.scene.command_of(Path::new("/bin/sh"), &["-c", script, exovm]);
        command.current_dir(stage.dir.path());
        change(&mut command, vec![Change::Small(disk.to_str().unwrap().to_owned(), 2048)]);
        let outcome = finish(&mut command);
        assert_eq!(outcome.stdout, "old.img\nsame\n1 1\n", "{outcome:?}");
        for line in outcome.stderr.lines() {
            assert!(
                line.contains("no room for the image") && line.contains("nothing was left"),
                "{outcome:?}"
            );
        }
        assert_eq!(outcome.stderr.lines().count(), 2, "{outcome:?}");
    });
}

/// The limit of a shell (`ulimit -f`) is answered like a full disk, by mkfs and by a run that needs an image.
#[test]
fn image_beyond_the_file_size_limit_is_an_error_and_leaves_nothing() {
    in_namespace!(|| {
        let stage = Stage::new();
        fs::write(stage.site().join("large"), vec![b'x'; 3 << 20]).unwrap();
        let before = names_in(stage.dir.path());
        let (site, image) = (stage.site(), stage.image());
        let (site, image) = (site.to_str().unwrap(), image.to_str().unwrap());
        for arguments in [&["mkfs", site, "-o", image][..], &["run", "cheetah", "--docroot", site]] {
            let mut command = stage.scene.command(arguments);
            limit_file_size(&mut command, 1 << 20);
            let outcome = finish(&mut command);
            outcome.assert_error(&["more than a file may have there", "ulimit -f", "nothing was left"]);
            outcome.assert_one_line();
            assert_eq!(names_in(stage.dir.path()), before);
        }
        stage.scene.assert_clean();
    });
}

#[test]
fn mkfs_that_is_interrupted_leaves_nothing() {
    let stage = Stage::new();
    // A hole: it costs no disk, and its checksums take longer than this test.
    let large = fs::File::create(stage.site().join("large")).unwrap();
    large.set_len(1 << 43).unwrap();
    let before = names_in(stage.dir.path());
    let (site, image) = (stage.site(), stage.image());
    for signal in [libc::SIGINT, libc::SIGKILL] {
        let arguments = ["mkfs", site.to_str().unwrap(), "-o", image.to_str().unwrap()];
        let mut child = stage.scene.command(&arguments).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("copying: "), "{line}");
        // SAFETY: the process is this test's child and has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        assert_eq!(child.wait().unwrap().signal(), Some(signal));
        assert_eq!(names_in(stage.dir.path()), before);
    }
}

//! The cache over real directories.

use super::*;
use exos_fs::image::Image;
use std::sync::mpsc;
use std::time::UNIX_EPOCH;

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(site.root()).unwrap();
        site.write("index.html", "one");
        site
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("site")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache/exovm/images")
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.root().join(name), content).unwrap();
    }

    fn prepare(&self) -> Prepared {
        prepare(&self.root(), &self.cache(), &mut |_| {}).unwrap()
    }

    fn content(&self, prepared: &Prepared, path: &str) -> Option<String> {
        let mut image = Image::open(&prepared.path).unwrap();
        let node = image.lookup(path.as_bytes()).unwrap()?;
        let mut bytes = Vec::new();
        image.copy(&node, &mut bytes).unwrap();
        Some(String::from_utf8(bytes).unwrap())
    }
}

#[test]
fn prepare_reuses_the_image_until_something_changes() {
    let site = Site::new();
    let first = site.prepare();
    assert_eq!(first.origin, Origin::Made);
    assert_eq!(site.content(&first, "/index.html").as_deref(), Some("one"));
    let made = fs::metadata(&first.path).unwrap().modified().unwrap();
    let second = site.prepare();
    assert_eq!((second.origin, &second.path), (Origin::Reused, &first.path));
    assert_eq!(fs::metadata(&first.path).unwrap().modified().unwrap(), made);
}

#[test]
fn prepare_makes_the_image_again_after_each_kind_of_change() {
    type Change = (&'static str, fn(&Site));
    let changes: [Change; 8] = [
        ("content of another size", |site| site.write("index.html", "longer")),
        ("a new file", |site| site.write("new.html", "new")),
        ("a new empty directory", |site| fs::create_dir(site.root().join("empty")).unwrap()),
        ("a new name", |site| {
            fs::rename(site.root().join("new.html"), site.root().join("old.html")).unwrap()
        }),
        ("a file less", |site| fs::remove_file(site.root().join("old.html")).unwrap()),
        ("another time", |site| {
            let file = File::options().write(true).open(site.root().join("index.html")).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        }),
        ("content of the same size and time", |site| {
            site.write("index.html", "LONGER");
            let file = File::options().write(true).open(site.root().join("index.html")).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        }),
        ("another file of the same size and time", |site| {
            site.write("../other", "Longer");
            let other = site.root().join("../other");
            let file = File::options().write(true).open(&other).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
            fs::rename(other, site.root().join("index.html")).unwrap();
        }),
    ];
    let site = Site::new();
    site.prepare();
    for (what, change) in changes {
        change(&site);
        assert_eq!(site.prepare().origin, Origin::Remade, "{what}");
        assert_eq!(site.prepare().origin, Origin::Reused, "{what}");
    }
}

#[test]
fn prepare_finds_one_image_by_whatever_path() {
    let site = Site::new();
    let first = site.prepare();
    let link = site.dir.path().join("link");
    std::os::unix::fs::symlink(site.root(), &link).unwrap();
    let second = prepare(&link, &site.cache(), &mut |_| {}).unwrap();
    assert_eq!((second.origin, second.path), (Origin::Reused, first.path));
}

#[test]
fn open_image_stays_what_it_is_when_it_is_made_again() {
    let site = Site::new();
    let mut first = site.prepare();
    site.write("index.html", "another one");
    let second = site.prepare();
    assert_eq!(first.path, second.path);
    let mut old = Vec::new();
    first.file.read_to_end(&mut old).unwrap();
    assert_eq!(old.len() as u64, first.image_bytes);
    assert!(old != fs::read(&second.path).unwrap());
    assert_eq!(site.content(&second, "/index.html").as_deref(), Some("another one"));
}

/// What an interrupted run can leave: an image without fingerprint, or a fingerprint without image.
#[test]
fn prepare_makes_an_image_without_fingerprint_again() {
    let site = Site::new();
    let first = site.prepare();
    fs::remove_file(first.path.with_extension("fingerprint")).unwrap();
    assert_eq!(site.prepare().origin, Origin::Remade);
    fs::remove_file(&first.path).unwrap();
    assert_eq!(site.prepare().origin, Origin::Made);
    assert_eq!(site.prepare().origin, Origin::Reused);
}

/// What was true of the old image is not said of the new one, at whatever moment the run ends.
#[test]
fn prepare_that_is_interrupted_leaves_no_fingerprint() {
    let site = Site::new();
    let first = site.prepare();
    site.write("index.html", "longer");
    let interrupted = std::panic::catch_unwind(|| {
        prepare(&site.root(), &site.cache(), &mut |event| match event {
            Event::Making(_) => panic!("interrupted"),
            Event::Waiting => {}
        })
    });
    assert!(interrupted.is_err());
    assert!(!first.path.with_extension("fingerprint").exists());
    assert_eq!(site.prepare().origin, Origin::Remade);
}

#[test]
fn prepare_waits_for_another_run_on_the_directory() {
    let site = Site::new();
    let place = keep::Place::of(&site.cache(), &fs::canonicalize(site.root()).unwrap());
    keep::make_private(&site.cache()).unwrap();
    let lock = place.lock(&mut || panic!("nobody has it")).unwrap();
    let (tell, told) = mpsc::channel();
    let (root, cache) = (site.root(), site.cache());
    let other = std::thread::spawn(move || {
        let mut waited = false;
        let prepared = prepare(&root, &cache, &mut |event| {
            if matches!(event, Event::Waiting) {
                waited = true;
                tell.send(()).unwrap();
            }
        });
        (prepared.unwrap().origin, waited)
    });
    told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(place.open().is_none());
    drop(lock);
    assert_eq!(other.join().unwrap(), (Origin::Made, true));
}

#[test]
fn prepare_keeps_the_images_used_last() {
    let site = Site::new();
    let mut paths = Vec::new();
    for number in 0..KEPT_IMAGES + 3 {
        let root = site.dir.path().join(format!("site-{number}"));
        fs::create_dir(&root).unwrap();
        fs::write(root.join("index.html"), "x").unwrap();
        let prepared = prepare(&root, &site.cache(), &mut |_| {}).unwrap();
        // Times on disk are coarser than this loop.
        let lock = File::options().write(true).open(prepared.path.with_extension("lock")).unwrap();
        lock.set_modified(UNIX_EPOCH + Duration::from_secs(number as u64)).unwrap();
        paths.push(prepared.path);
    }
    let there: Vec<_> = paths.iter().map(|path| path.exists()).collect();
    // The last one, and the eight used before it.
    assert_eq!(there, [vec![false; 2], vec![true; KEPT_IMAGES + 1]].concat());
}

#[test]
fn prepare_of_a_directory_without_files_is_refused() {
    let site = Site::new();
    fs::remove_file(site.root().join("index.html")).unwrap();
    let error = prepare(&site.root(), &site.cache(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("holds no file: put at least an index.html there"), "{error}");
}

#[test]
fn cache_that_cannot_be_made_says_what_to_set() {
    let site = Site::new();
    let error = prepare(&site.root(), Path::new("/proc/no/such"), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("XDG_CACHE_HOME"), "{error}");
}

#[test]
fn images_are_for_their_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    site.prepare();
    assert_eq!(fs::metadata(site.cache()).unwrap().permissions().mode() & 0o777, 0o700);
}

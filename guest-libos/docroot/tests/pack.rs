//! Packing real directories and reading them back: what goes in comes out, what cannot go in is said.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use exos_docroot::pack::{PackError, Plan, ScanError, Warning};
use exos_docroot::{Archive, Lookup};
use proptest::prelude::*;

fn write(root: &Path, name: impl AsRef<Path>, content: &[u8]) -> PathBuf {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn pack(plan: &Plan) -> Vec<u8> {
    // Not clear, as memory may be.
    let mut memory = vec![0xa5; usize::try_from(plan.packed_bytes()).unwrap()];
    plan.pack_into(&mut memory).unwrap();
    memory
}

fn content(archive: &Archive<'_>, path: &[u8]) -> Option<Vec<u8>> {
    match archive.lookup(path) {
        Lookup::File(file) => Some(file.data().to_vec()),
        _ => None,
    }
}

#[test]
fn pack_then_parse_returns_every_file() {
    let root = tempfile::tempdir().unwrap();
    let names: [&[u8]; 9] = [
        b"index.html",
        b"with space.txt",
        "übergröße/日本.css".as_bytes(),
        b"not-utf8-\xff\xfe.bin",
        b"a/b/c/d/e.png",
        b"a-b/x.js",
        b"a.b",
        b"empty",
        b"exactly-a-page.bin",
    ];
    let size_of = |number: usize| [5, 4095, 4097, 1, 20_000, 3, 2, 0, 4096][number];
    for (number, name) in names.iter().enumerate() {
        write(root.path(), OsStr::from_bytes(name), &vec![b'0' + number as u8; size_of(number)]);
    }
    let plan = Plan::scan(root.path()).unwrap();
    let memory = pack(&plan);
    let archive = Archive::parse(&memory).unwrap();
    assert_eq!(archive.file_count(), 9);
    assert_eq!(plan.file_count(), 9);
    assert_eq!(archive.files().count(), 9);
    for (number, name) in names.iter().enumerate() {
        let found = content(&archive, &[b"/", *name].concat());
        assert_eq!(found, Some(vec![b'0' + number as u8; size_of(number)]), "{name:?}");
    }
    assert!(plan.warnings().is_empty());
}

#[test]
fn packed_file_has_size_time_type_and_aligned_data() {
    let root = tempfile::tempdir().unwrap();
    let path = write(root.path(), "dir/page.html", b"<p>hi</p>");
    let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777);
    fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    let memory = pack(&Plan::scan(root.path()).unwrap());
    let archive = Archive::parse(&memory).unwrap();
    let Lookup::File(file) = archive.lookup(b"/dir/page.html") else { panic!("not found") };
    assert_eq!(file.path(), b"dir/page.html");
    assert_eq!(file.size_bytes(), 9);
    assert_eq!(file.mtime_unix_seconds(), 784_111_777);
    assert_eq!(file.media_type(), b"text/html; charset=utf-8");
    assert_eq!((file.data().as_ptr() as usize - memory.as_ptr() as usize) % 4096, 0);
    assert_eq!(archive.file_by_number(file.number()).unwrap().path(), b"dir/page.html");
}

#[test]
fn packed_file_with_time_before_1970_gets_1970() {
    let root = tempfile::tempdir().unwrap();
    let path = write(root.path(), "old", b"x");
    let modified = std::time::UNIX_EPOCH - std::time::Duration::from_secs(1000);
    fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    let memory = pack(&Plan::scan(root.path()).unwrap());
    let archive = Archive::parse(&memory).unwrap();
    assert_eq!(archive.files().next().unwrap().mtime_unix_seconds(), 0);
}

#[test]
fn lookup_of_directories_files_and_nonsense() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "index.html", b"root");
    write(root.path(), "docs/index.html", b"docs");
    write(root.path(), "docs/file", b"file");
    fs::create_dir_all(root.path().join("bare/index.html")).unwrap();
    let memory = pack(&Plan::scan(root.path()).unwrap());
    let archive = Archive::parse(&memory).unwrap();
    let index_of = |path: &[u8]| match archive.lookup(path) {
        Lookup::Directory(directory) => Some(directory.index().map(|file| file.data())),
        _ => None,
    };
    assert_eq!(index_of(b"/"), Some(Some(&b"root"[..])));
    assert_eq!(index_of(b"/docs"), Some(Some(&b"docs"[..])));
    assert_eq!(index_of(b"/docs/"), Some(Some(&b"docs"[..])));
    // A directory that is called index.html is no index page.
    assert_eq!(index_of(b"/bare/"), Some(None));
    assert_eq!(index_of(b"/bare/index.html"), Some(None));
    for path in [
        &b""[..],
        b"docs",
        b"//",
        b"/docs//",
        b"/docs/file/",
        b"/docs/../docs",
        b"/nothing",
        b"/doc",
        b"/docs/fil",
    ] {
        assert!(matches!(archive.lookup(path), Lookup::NotFound), "{path:?}");
    }
}

#[test]
fn packing_is_deterministic() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..300 {
        write(root.path(), format!("{}/{number}.txt", number % 7), number.to_string().as_bytes());
    }
    assert!(pack(&Plan::scan(root.path()).unwrap()) == pack(&Plan::scan(root.path()).unwrap()));
}

#[test]
fn write_to_equals_pack_into() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "a", &[7; 9000]);
    write(root.path(), "b/c", b"");
    let plan = Plan::scan(root.path()).unwrap();
    let mut written = Vec::new();
    plan.write_to(&mut written).unwrap();
    assert!(written == pack(&plan));
}

#[test]
fn pack_into_larger_memory_leaves_the_rest_and_parses() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "a", b"a");
    let plan = Plan::scan(root.path()).unwrap();
    let mut memory = vec![0xa5; plan.packed_bytes() as usize + 100];
    plan.pack_into(&mut memory).unwrap();
    assert!(memory.ends_with(&[0xa5; 100]));
    let archive = Archive::parse(&memory).unwrap();
    assert_eq!(archive.total_bytes() as u64, plan.packed_bytes());
}

#[test]
fn pack_into_too_little_memory_returns_both_sizes() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "a", b"a");
    let plan = Plan::scan(root.path()).unwrap();
    let error = plan.pack_into(&mut vec![0; 4096]).unwrap_err();
    assert!(matches!(error, PackError::TooLittleMemory { needed_bytes: 8192, found_bytes: 4096 }), "{error}");
}

#[test]
fn scan_missing_root_returns_missing() {
    let root = tempfile::tempdir().unwrap();
    let error = Plan::scan(root.path().join("no such")).unwrap_err();
    assert!(matches!(error, PackError::Scan(ScanError::Missing { .. })));
    assert!(error.to_string().contains("no such\" does not exist: create it"), "{error}");
}

#[test]
fn scan_file_as_root_returns_not_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let file = write(root.path(), "file", b"");
    assert!(matches!(Plan::scan(file).unwrap_err(), PackError::Scan(ScanError::NotADirectory { .. })));
}

#[test]
fn scan_without_files_returns_empty() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("a/b")).unwrap();
    symlink("gone", root.path().join("dangling")).unwrap();
    let error = Plan::scan(root.path()).unwrap_err();
    assert!(matches!(error, PackError::Empty { left_out: 1, .. }), "{error}");
}

#[test]
fn scan_follows_links_inside_and_outside() {
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "shared/style.css", b"css");
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "real.txt", b"real");
    symlink("real.txt", root.path().join("alias.txt")).unwrap();
    symlink(outside.path().join("shared"), root.path().join("shared")).unwrap();
    let plan = Plan::scan(root.path()).unwrap();
    let memory = pack(&plan);
    let archive = Archive::parse(&memory).unwrap();
    assert_eq!(content(&archive, b"/alias.txt").unwrap(), b"real");
    assert_eq!(content(&archive, b"/shared/style.css").unwrap(), b"css");
    assert!(plan.warnings().is_empty());
}

#[test]
fn scan_link_loops_are_warnings_and_the_rest_is_packed() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "a/b/file", b"x");
    symlink("..", root.path().join("a/up")).unwrap();
    symlink(".", root.path().join("a/b/here")).unwrap();
    symlink("self", root.path().join("self")).unwrap();
    symlink("gone", root.path().join("dangling")).unwrap();
    symlink("a/b/file/deeper", root.path().join("through-file")).unwrap();
    let plan = Plan::scan(root.path()).unwrap();
    let mut warnings = plan.warnings().to_vec();
    warnings.sort_by_key(|warning| warning.to_string());
    assert_eq!(
        warnings,
        [
            Warning::LinkLoop(root.path().join("a/b/here")),
            Warning::LinkLoop(root.path().join("a/up")),
            Warning::LeadsNowhere(root.path().join("dangling")),
            Warning::LinkLoop(root.path().join("self")),
            Warning::LeadsNowhere(root.path().join("through-file")),
        ]
    );
    assert_eq!(plan.file_count(), 1);
}

#[test]
fn scan_sockets_and_pipes_are_warnings() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "file", b"x");
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    symlink("/dev/null", root.path().join("device")).unwrap();
    let plan = Plan::scan(root.path()).unwrap();
    let mut warnings = plan.warnings().to_vec();
    warnings.sort_by_key(|warning| warning.to_string());
    let expected = ["device", "pipe", "socket"].map(|name| Warning::NotAFile(root.path().join(name)));
    assert_eq!(warnings, expected);
}

/// Runs `check` without root's right to read everything. User ids are per thread in Linux, so a thread can give
/// them up and the rest of the test program keeps them.
fn as_ordinary_user(check: impl FnOnce() + Send + 'static) {
    let drop_rights = rustix::process::geteuid().is_root();
    std::thread::spawn(move || {
        if drop_rights {
            let nobody = rustix::fs::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        }
        check();
    })
    .join()
    .unwrap();
}

#[test]
fn scan_unreadable_file_or_directory_returns_its_path() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    write(root.path(), "good", b"x");
    let file = write(root.path(), "secret file", b"x");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let directory = root.path().to_path_buf();
    as_ordinary_user(move || {
        let error = Plan::scan(&directory).unwrap_err();
        assert!(
            matches!(&error, PackError::Scan(ScanError::Unreadable { path, .. }) if *path == file),
            "{error}"
        );
        assert!(error.to_string().contains("secret file"), "{error}");
    });
    fs::remove_file(root.path().join("secret file")).unwrap();
    let closed = root.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let directory = root.path().to_path_buf();
    as_ordinary_user(move || {
        let error = Plan::scan(&directory).unwrap_err();
        assert!(
            matches!(&error, PackError::Scan(ScanError::Unreadable { path, .. }) if *path == closed),
            "{error}"
        );
    });
}

#[test]
fn pack_file_that_grew_shrank_or_was_rewritten_returns_file_changed() {
    let root = tempfile::tempdir().unwrap();
    let path = write(root.path(), "log", b"0123456789");
    let change = |content: &[u8], seconds: u64| {
        let plan = Plan::scan(root.path()).unwrap();
        fs::write(&path, content).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        plan.pack_into(&mut vec![0; plan.packed_bytes() as usize]).unwrap_err()
    };
    let grown = change(b"0123456789ab", 1);
    assert!(matches!(grown, PackError::FileChanged { scanned_bytes: 10, found_bytes: 12, .. }), "{grown}");
    let shrunk = change(b"0123", 2);
    assert!(matches!(shrunk, PackError::FileChanged { scanned_bytes: 12, found_bytes: 4, .. }), "{shrunk}");
    let rewritten = change(b"abcd", 3);
    assert!(
        matches!(rewritten, PackError::FileChanged { scanned_bytes: 4, found_bytes: 4, .. }),
        "{rewritten}"
    );
    assert!(rewritten.to_string().contains("modified while"), "{rewritten}");
}

#[test]
fn pack_file_that_went_away_or_became_a_pipe_returns_an_error_at_once() {
    let root = tempfile::tempdir().unwrap();
    let path = write(root.path(), "x", b"x");
    let plan = Plan::scan(root.path()).unwrap();
    fs::remove_file(&path).unwrap();
    let mut memory = vec![0; plan.packed_bytes() as usize];
    assert!(matches!(
        plan.pack_into(&mut memory).unwrap_err(),
        PackError::Scan(ScanError::Unreadable { .. })
    ));
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(matches!(plan.pack_into(&mut memory).unwrap_err(), PackError::FileChanged { .. }));
}

#[test]
fn pack_deep_tree_returns_every_level() {
    let root = tempfile::tempdir().unwrap();
    let mut deep = PathBuf::new();
    let mut expected = 0;
    // As deep as the host lets a path be, in directories of one letter; far more levels than file handles.
    while root.path().join(&deep).as_os_str().len() < 4000 {
        deep.push("d");
        expected += 1;
    }
    fs::create_dir_all(root.path().join(&deep)).unwrap();
    write(root.path(), deep.join("leaf.txt"), b"deep");
    let memory = pack(&Plan::scan(root.path()).unwrap());
    let archive = Archive::parse(&memory).unwrap();
    assert_eq!(archive.entry_count(), expected + 2);
    let path = [b"/", deep.as_os_str().as_bytes(), b"/leaf.txt"].concat();
    assert_eq!(content(&archive, &path).unwrap(), b"deep");
}

#[test]
fn pack_path_longer_than_the_host_opens_is_a_warning() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "file", b"x");
    let name = "n".repeat(250);
    let mut at =
        rustix::fs::open(root.path(), rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..20 {
        rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &name, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    }
    let plan = Plan::scan(root.path()).unwrap();
    assert!(matches!(plan.warnings(), [Warning::PathTooLong(_)]), "{:?}", plan.warnings());
    assert_eq!(plan.file_count(), 1);
}

fn component() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(b'a'), Just(b'-'), Just(b'.'), Just(b'b'), 1..=255u8], 1..12)
        .prop_map(|mut name| {
            name.iter_mut().for_each(|byte| *byte = if *byte == b'/' { b'_' } else { *byte });
            if name.iter().all(|&byte| byte == b'.') {
                name.push(b'x');
            }
            name
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn pack_then_parse_any_tree_returns_every_file(
        files in prop::collection::vec((prop::collection::vec(component(), 1..4), 0..9000usize), 1..40)
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut expected = BTreeMap::new();
        for (number, (components, size)) in files.iter().enumerate() {
            let name = components.join(&b'/');
            let path = root.path().join(OsStr::from_bytes(&name));
            // Names may contradict each other (file and directory of one name): those are not written.
            let written = fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.is_dir();
            if written && fs::write(&path, vec![number as u8; *size]).is_ok() {
                expected.insert(name, vec![number as u8; *size]);
            }
        }
        let plan = Plan::scan(root.path()).unwrap();
        let memory = pack(&plan);
        let archive = Archive::parse(&memory).unwrap();
        let found: BTreeMap<_, _> =
            archive.files().map(|file| (file.path().to_vec(), file.data().to_vec())).collect();
        prop_assert!(found == expected);
        for (name, data) in expected {
            prop_assert_eq!(content(&archive, &[b"/", &name[..]].concat()), Some(data));
        }
    }
}

//! Images on the host's file system.

use super::*;
use crate::backend::iovec::IoVec;
use std::io::Write;
use tempfile::NamedTempFile;

fn image(blocks: u64) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    for block in 0..blocks {
        file.write_all(&[block as u8 + 1; BLOCK_BYTES as usize]).expect("room");
    }
    file
}

fn open(file: &NamedTempFile, access: Access) -> RawFile {
    RawFile::open(file.path(), access).expect("an image")
}

/// Opens an image that was closed a moment ago. A process that another test was starting meanwhile has its descriptors, and so
/// its lock, until it is the other program.
fn open_soon(file: &NamedTempFile, access: Access) -> RawFile {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match RawFile::open(file.path(), access) {
            Err(DiskError::Locked { .. }) if std::time::Instant::now() < end => std::thread::yield_now(),
            result => return result.expect("an image"),
        }
    }
}

fn message(path: &Path, access: Access) -> String {
    RawFile::open(path, access).expect_err("no image").to_string()
}

#[test]
fn open_missing_or_odd_files_returns_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("missing.img");
    assert!(message(&missing, Access::ReadWrite).contains("truncate -s 64M"));
    assert!(!missing.exists());
    let text = message(&dir.path().join("disk.img,rw"), Access::ReadWrite);
    assert!(text.contains("the only option behind a comma is `,ro`"), "{text}");
    for access in [Access::ReadOnly, Access::ReadWrite] {
        assert!(message(dir.path(), access).contains("a directory"));
    }
    let fifo = dir.path().join("fifo");
    let name = std::ffi::CString::new(fifo.to_str().expect("UTF-8")).expect("no NUL");
    // SAFETY: a valid string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert!(message(&fifo, Access::ReadOnly).contains("a special file"), "and it does not wait for a writer");
    let mut odd = image(1);
    odd.write_all(b"x").expect("room");
    let text = message(odd.path(), Access::ReadWrite);
    assert!(text.contains("4097 bytes") && text.contains("truncate -s 8192"), "{text}");
    assert!(message(image(0).path(), Access::ReadOnly).contains("is empty"));
}

#[test]
fn open_without_permission_returns_permission() {
    let denied = io::Error::from_raw_os_error(libc::EACCES);
    let error = open_error(Path::new("a.img"), Access::ReadWrite, denied).to_string();
    assert!(error.contains("no permission to read and write it") && error.contains("`,ro`"), "{error}");
}

#[test]
fn writer_excludes_everybody_and_readers_only_writers() {
    let file = image(1);
    let writer = open(&file, Access::ReadWrite);
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let text = message(file.path(), access);
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    }
    drop(writer);
    let readers = [open_soon(&file, Access::ReadOnly), open(&file, Access::ReadOnly)];
    assert!(matches!(RawFile::open(file.path(), Access::ReadWrite), Err(DiskError::Locked { .. })));
    drop(readers);
    open_soon(&file, Access::ReadWrite);
}

#[test]
fn image_is_closed_on_exec() {
    let file = image(1);
    let opened = open(&file, Access::ReadWrite);
    // SAFETY: no memory is passed.
    let flags = unsafe { libc::fcntl(opened.file.as_raw_fd(), libc::F_GETFD) };
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
}

#[test]
fn written_bytes_are_read_back_in_pieces() {
    let file = image(4);
    let opened = open(&file, Access::ReadWrite);
    let (first, second) = ([7; 4096], [8; 4096]);
    assert_eq!(opened.write(4096, &[IoVec::of(&first), IoVec::of(&second)]).expect("written"), 8192);
    opened.flush().expect("flushed");
    let (mut head, mut tail) = ([0; 100], [0; 8192]);
    let read = |head: &mut [u8], tail: &mut [u8]| {
        opened.read(4096, &[IoVecMut::of(head), IoVecMut::of(tail)]).expect("read")
    };
    assert_eq!(read(&mut head, &mut tail), 8292);
    assert_eq!(([&head[..], &tail[..8092]].concat()), [first, second].concat());
    assert_eq!(tail[8092..], [4; 100]);
}

#[test]
fn read_at_once_gives_what_is_cached_or_nothing() {
    let file = image(2);
    let opened = open(&file, Access::ReadOnly);
    let mut bytes = [0; 8192];
    // Written just now, so it is in the cache; file systems that cannot say give nothing.
    match opened.read_at_once(0, &[IoVecMut::of(&mut bytes)]).expect("no error") {
        Some(len) => assert!(bytes[..len] == [[1; 4096], [2; 4096]].concat()[..len]),
        None => assert_eq!(bytes, [0; 8192]),
    }
}

#[test]
fn discarded_and_zeroed_blocks_read_as_zeros_and_keep_the_length() {
    let file = image(8);
    let opened = open(&file, Access::ReadWrite);
    opened.discard(4096, 8192).expect("discarded");
    opened.write_zeroes(4 * 4096, 4096, Zeroing::KeepAllocated).expect("zeroed");
    opened.write_zeroes(5 * 4096, 4096, Zeroing::MayUnmap).expect("zeroed");
    write_zeros(&opened.file, 6 * 4096, 4096).expect("zeroed");
    let bytes = std::fs::read(file.path()).expect("readable");
    let firsts: Vec<u8> = bytes.chunks(4096).map(|block| block[0]).collect();
    assert_eq!(firsts, [1, 0, 0, 4, 0, 0, 0, 8]);
    assert!(bytes.chunks(4096).all(|block| block.iter().all(|byte| *byte == block[0])));
}

#[test]
fn file_cut_short_underneath_is_an_error_and_not_made_longer() {
    let file = image(4);
    let opened = open(&file, Access::ReadWrite);
    file.as_file().set_len(4096).expect("cut");
    let error = opened.write(2 * 4096, &[IoVec::of(&[1; 4096])]).expect_err("cut short").to_string();
    assert!(error.contains("cut to 4096 bytes"), "{error}");
    assert!(opened.discard(0, 4096).is_err());
    assert!(opened.write_zeroes(0, 4096, Zeroing::KeepAllocated).is_err());
    assert_eq!(opened.read(2 * 4096, &[IoVecMut::of(&mut [0; 4096])]).expect("the end"), 0);
    assert_eq!(file.as_file().metadata().expect("metadata").len(), 4096);
}

//! `exovm mkfs`, `fsck`, `ls`, `cat` and `df`: disk images on the host. What they do is in `exos-fs`; here are their flags
//! and how they speak.

mod cat;
mod df;
mod fsck;
mod ls;
mod mkfs;

use super::Failure;
use super::style::counted;
use exos_fs::Node;
use exos_fs::image::Image;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(super) use cat::{CatArguments, cat};
pub(super) use df::{DfArguments, df};
pub(super) use fsck::{FsckArguments, fsck};
pub(super) use ls::{LsArguments, ls};
pub(super) use mkfs::{MkfsArguments, mkfs, show};

/// Opens an image, and says if not all of it is there.
fn open(path: &Path) -> Result<Image, Failure> {
    let image = Image::open(path)?;
    if image.uses_backup() {
        complain!("exovm: {path:?}: the superblock is damaged; its backup is used (`exovm fsck` says more)");
    }
    if let Err(error) = image.check_complete() {
        complain!("exovm: {error}");
    }
    Ok(image)
}

/// What a person means by a path: with or without a slash at its beginning, doubled ones count once.
fn absolute(path: &OsStr) -> Vec<u8> {
    let mut absolute = Vec::new();
    for component in path.as_bytes().split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
        absolute.push(b'/');
        absolute.extend_from_slice(component);
    }
    match absolute.is_empty() {
        true => b"/".to_vec(),
        false => absolute,
    }
}

/// What the path names in the image.
fn find(image: &mut Image, path: &OsStr) -> Result<Node, Failure> {
    let absolute = absolute(path);
    image.lookup(&absolute)?.ok_or_else(|| {
        format!("there is no {} in the image: `exovm ls -R IMAGE` lists what there is", shown(&absolute))
            .into()
    })
}

/// A name for a terminal: what is not printable, or no UTF-8, is escaped.
fn shown(name: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter.is_control() {
                true => shown.extend(letter.escape_default()),
                false => shown.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|byte| shown.push_str(&format!("\\x{byte:02x}")));
    }
    shown
}

/// A number of bytes for a person.
pub(super) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    // So that what would be printed as 1024.0 goes to the next unit.
    while value >= 1023.95 && units.len() > 0 {
        value /= 1024.0;
        unit = units.next();
    }
    format!("{value:.1} {}", unit.unwrap_or(&"EiB"))
}

/// How much is in an image, for a person.
fn files_and_directories(files: u64, directories: u64) -> String {
    format!("{} and {}", counted(files, "file", "files"), counted(directories, "directory", "directories"))
}

/// A UUID in its usual form.
fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::new();
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// A time as `2026-11-25 23:05:00`, UTC.
fn time_text(unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Years that begin in March, in eras of 400 years, since 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next_year;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_takes_what_a_person_types() {
        for (typed, path) in [("", "/"), ("/", "/"), ("a/b", "/a/b"), ("/a//b/", "/a/b"), ("./a/.", "/a")] {
            assert_eq!(absolute(OsStr::new(typed)), path.as_bytes(), "{typed}");
        }
    }

    #[test]
    fn shown_escapes_what_a_terminal_would_obey() {
        assert_eq!(shown("grün\x1b[2J".as_bytes()), "grün\\u{1b}[2J");
        assert_eq!(shown(b"a\xff\nb"), "a\\xff\\nb");
    }

    #[test]
    fn human_bytes_rounds_into_the_next_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 29, "2.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn time_text_knows_leap_years() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (253_402_300_799, "9999-12-31 23:59:59"),
        ] {
            assert_eq!(time_text(seconds), text);
        }
    }
}

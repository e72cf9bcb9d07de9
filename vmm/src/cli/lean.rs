//! Memory that starting a machine needed and running it does not: the parts of the program's own file that were read for it (the
//! command line, the image, its checks). The host keeps them in its page cache anyway; the process gives its hold on them up, and
//! what it needs again comes back at the first touch.

use rustix::mm::{Advice, madvise};
use std::ffi::c_void;

/// Gives up all pages of the program that nobody has written to.
pub(super) fn give_up_what_starting_needed() {
    // Without it, nothing is given up.
    let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    let Ok(program) = std::env::current_exe() else { return };
    for (start, len_bytes) in unwritten(&maps, &program.to_string_lossy()) {
        let address = std::ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: a mapping of the program's file that may not be written, and of which no page was: dropping its pages changes no byte
        // that anybody reads, they are read from the file again.
        let _ = unsafe { madvise(address, len_bytes, Advice::LinuxDontNeed) };
    }
}

/// Address and length of each mapping of `program` that may not be written and has no page of its own, as relocated ones have. (Pages of
/// a file that was written a moment ago count as dirty, and are the file's all the same.)
fn unwritten(smaps: &str, program: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in smaps.lines() {
        if let Some(range) = head(line) {
            let is_it =
                line.ends_with(program) && line.split(' ').nth(1).is_some_and(|rights| !rights.contains('w'));
            mapping = is_it.then_some(range);
        } else if let (Some(range), Some(own)) = (mapping, line.strip_prefix("Anonymous:")) {
            if own.trim() == "0 kB" {
                found.push(range);
            }
            mapping = None;
        }
    }
    found
}

/// The range of a mapping's first line, "START-END RIGHTS ...".
fn head(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    let parse = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (parse(start)?, parse(end)?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_wrote_is_given_up() {
        let smaps = "\
1000-3000 r--p 00000000 fe:00 1 /bin/exovm
Private_Dirty:        8 kB
Anonymous:            0 kB
3000-4000 r-xp 00002000 fe:00 1 /bin/exovm
Anonymous:            0 kB
4000-5000 r--p 00003000 fe:00 1 /bin/exovm
Anonymous:            4 kB
5000-6000 rw-p 00004000 fe:00 1 /bin/exovm
Anonymous:            0 kB
6000-7000 r-xp 00000000 fe:00 2 /lib/libc.so.6
Anonymous:            0 kB
";
        assert_eq!(unwritten(smaps, "/bin/exovm"), [(0x1000, 0x2000), (0x3000, 0x1000)]);
    }
}

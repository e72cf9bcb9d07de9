//! The kernel stays small enough to be read. What counts is what does something: comments, blank lines and tests do not.

use std::path::{Path, PathBuf};

/// Of `xok` and `xok-core` together.
const LINES_MAX: usize = 5_000;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

fn lines(text: &str) -> usize {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn kernel_has_fewer_lines_than_it_may_have() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in [core.join("src"), core.join("../xok/src")] {
        sources(&folder, &mut found);
    }
    let count: usize =
        found.iter().map(|source| lines(&std::fs::read_to_string(source).expect("readable"))).sum();
    println!("{count} lines in {} files", found.len());
    assert!(found.len() > 20, "all of it");
    assert!(count < LINES_MAX, "{count} lines");
}

#[test]
fn comments_blank_lines_and_tests_are_no_lines_of_the_kernel() {
    assert_eq!(
        lines("//! What.\n\nfn one() {\n    // Why.\n    two();\n}\n\n#[cfg(test)]\nmod tests {}\n"),
        3
    );
}

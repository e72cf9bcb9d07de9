//! Packet-exact tests of the stack: every script in the folders beside this file, the tests of the script language, and
//! the table of RFC 9293's requirements that is made of what the scripts cover. README.md describes the language.

mod application;
mod coverage;
mod language;
mod packet;
mod parse;
mod run;

use std::fs;
use std::path::{Path, PathBuf};

use exos_net::{Config, MacAddress};

use parse::Script;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}

pub(crate) fn config() -> Config {
    Config::new(MacAddress(packet::HOST_MAC), packet::HOST_IP, 24, *b"0123456789abcdef")
}

/// All scripts, or what keeps one from being read, in the order of their names.
pub(crate) fn scripts() -> Vec<Result<Script, String>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let entry = entry.unwrap().path();
        if entry.is_dir() {
            paths.extend(fs::read_dir(entry).unwrap().map(|file| file.unwrap().path()));
        }
    }
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(folder()).unwrap().display().to_string();
        let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        if path.extension().is_none_or(|extension| extension != "pkt") {
            return Err(format!("{name}: only scripts (*.pkt) belong here"));
        }
        parse::parse(&name, &text, config())
    };
    paths.iter().map(read).collect()
}

/// `EXOS_NET_SCRIPT=close/` runs those whose path has this in it.
#[test]
fn every_script_passes() {
    let only = std::env::var("EXOS_NET_SCRIPT").unwrap_or_default();
    let (mut count, mut failures) = (0, Vec::new());
    for script in scripts() {
        if script.as_ref().is_ok_and(|script| !script.path.contains(&only)) {
            continue;
        }
        count += 1;
        if let Err(failure) = script.and_then(|script| run::run(&script)) {
            failures.push(failure);
        }
    }
    assert!(count > 0, "no script has {only:?} in its path");
    assert!(
        failures.is_empty(),
        "{} of {count} scripts failed:\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

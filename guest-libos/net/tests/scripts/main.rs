//! Packet-exact tests of the stack: every script in the folders beside this file, the tests of the script language, and
//! the table of RFC 9293's requirements that is made of what the scripts cover. README.md describes the language.

mod application;
mod calls;
mod coverage;
mod ip;
mod ipv6;
mod language;
mod packet;
mod parse;
mod run;
mod words;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use exos_net::{Config, MacAddress};

use ip::Family;
use parse::Script;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}

pub(crate) fn config() -> Config {
    let IpAddr::V4(host) = Family::V4.host() else { unreachable!("it is of IPv4") };
    Config::new(MacAddress(ip::HOST_MAC), host, ip::PREFIX_LEN_V4, *b"0123456789abcdef")
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

/// Runs a script over IPv4 and IPv6, or over the one that it says; over the other it must fail, or else nothing keeps it from it.
fn run_over_both(script: &Script) -> Result<(), String> {
    run::run(script)?;
    let over_ipv6 = || script.over_ipv6().and_then(|script| run::run(&script)).map(drop);
    match (&script.only, script.family) {
        (None, _) => over_ipv6().map_err(|error| format!("over IPv6, {error}")),
        (Some(_), Family::V4) if over_ipv6().is_ok() => {
            Err(format!("{}: says \"only ipv4\", but it passes over IPv6", script.path))
        }
        (Some(_), _) => Ok(()),
    }
}

/// `EXOS_NET_SCRIPT=close/` runs those whose path has this in it.
#[test]
fn every_script_passes() {
    let only = std::env::var("EXOS_NET_SCRIPT").unwrap_or_default();
    let (mut count, mut over_both, mut failures) = (0, 0, Vec::new());
    for script in scripts() {
        if script.as_ref().is_ok_and(|script| !script.path.contains(&only)) {
            continue;
        }
        count += 1;
        over_both += usize::from(script.as_ref().is_ok_and(|script| script.only.is_none()));
        if let Err(failure) = script.and_then(|script| run_over_both(&script)) {
            failures.push(failure);
        }
    }
    println!("{count} scripts, {over_both} of them over IPv4 and IPv6");
    assert!(count > 0, "no script has {only:?} in its path");
    assert!(
        failures.is_empty(),
        "{} of {count} scripts failed:\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

//! The machine and the programs on it, as a report describes them; and what is not installed.

use crate::BenchError;
use crate::options::Contender;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// What a reader must know to repeat a measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// As /proc/cpuinfo names it.
    pub cpu_model: String,
    /// CPUs online.
    pub cpus: usize,
    /// Whether this machine is itself a guest (the CPUID bit that hypervisors set).
    pub virtualised: bool,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Congestion control on both sides.
    pub congestion_control: String,
    /// What each program says about its version.
    pub versions: BTreeMap<String, String>,
}

impl Machine {
    /// Looks at this machine and asks the programs that take part.
    pub(crate) fn describe(tools: &[&str]) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu_information = read("/proc/cpuinfo");
        let mut versions = BTreeMap::from([("exovm".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        for &tool in tools {
            versions.insert(tool.to_owned(), version(tool));
        }
        Machine {
            cpu_model: field(&cpu_information, "model name").unwrap_or("unknown").to_owned(),
            cpus: cpu_information.lines().filter(|line| line.starts_with("processor")).count(),
            virtualised: field(&cpu_information, "flags").is_some_and(|flags| flags.contains("hypervisor")),
            memory_mib: field(&read("/proc/meminfo"), "MemTotal")
                .and_then(|text| text.trim_end_matches("kB").trim().parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            congestion_control: crate::network::CONGESTION_CONTROL.to_owned(),
            versions,
        }
    }
}

/// The programs of other people that a measurement of `contenders` needs; Debian packages of the same names hold them.
pub(crate) fn tools(contenders: &[Contender]) -> Vec<&'static str> {
    let mut tools = vec!["wrk"];
    let has_nginx = contenders.iter().any(|one| *one == Contender::Nginx || one.is_between());
    tools.extend(has_nginx.then_some("nginx"));
    tools.extend(contenders.contains(&Contender::Haproxy).then_some("haproxy"));
    tools.extend(contenders.contains(&Contender::Lighttpd).then_some("lighttpd"));
    tools
}

/// Refuses if a program is missing, naming all that are.
pub(crate) fn check_tools(tools: &[&'static str]) -> Result<(), BenchError> {
    let folders: Vec<PathBuf> = std::env::split_paths(&search_path()).collect();
    let missing: Vec<_> = tools
        .iter()
        .copied()
        .filter(|tool| !folders.iter().any(|folder| folder.join(tool).is_file()))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(BenchError::MissingTools(missing)) }
}

/// PATH, with the folders in which Debian puts servers and which an ordinary user's PATH lacks.
pub(crate) fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// The first line in which a program names a version, wherever it prints it.
fn version(tool: &str) -> String {
    let Ok(output) = Command::new(tool).arg("-v").env("PATH", search_path()).output() else {
        return "unknown".into();
    };
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let line = text.lines().next().unwrap_or("unknown");
    line.trim_start_matches("nginx version: ").split(" Copyright").next().unwrap_or(line).trim().to_owned()
}

/// The value of `name : value` or `name: value` lines.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_reads_both_forms_of_proc() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC\nMemTotal:       24105 kB\n";
        assert_eq!(field(text, "model name"), Some("AMD EPYC"));
        assert_eq!(field(text, "MemTotal"), Some("24105 kB"));
        assert_eq!(field(text, "model"), None);
    }

    #[test]
    fn describe_knows_this_machine() {
        let machine = Machine::describe(&[]);
        assert!(machine.cpus > 0 && machine.memory_mib > 0 && !machine.kernel.is_empty(), "{machine:?}");
    }
}

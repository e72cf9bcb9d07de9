//! Taps: whether this user can make one, in a namespace of its own at least, and which there are already.

use super::finding::Finding;
use crate::backend::tap::{Tap, TapError, commands};
use exovm_netns::{NetnsError, spawn_in_private_network};
use std::path::Path;
use std::process::{Command, Stdio};

/// A tap that is made to see whether that works. It has no address and goes at once.
const TRIAL: &str = "exovm-doctor";
/// Without taps.
const USER_INSTEAD: &str = "run --net tap=auto does not work here; --net user, which run takes if not told otherwise, does, but is slower";

pub(super) fn taps() -> Vec<Finding> {
    vec![make(), own()]
}

fn make() -> Finding {
    let finding = match Tap::create(TRIAL) {
        Ok(_) => {
            return Finding::good("tap", "this process can make taps", "run --net tap=auto works here")
                .value("make", true);
        }
        Err(TapError::NoTun { source }) => {
            let found = format!("/dev/net/tun cannot be opened: {source}");
            Finding::odd("tap", found, USER_INSTEAD)
                .todo("sudo modprobe tun, or pass the device into the container")
        }
        Err(TapError::NoPermission { .. }) => {
            let found = "this process cannot make taps (it takes root or CAP_NET_ADMIN)";
            Finding::odd("tap", found, USER_INSTEAD).todo(format!(
                "let root make one for you and use --net tap=tap0:\n{}\n\
                 or use a network namespace of your own: unshare -rn exovm run ...",
                commands("tap0")
            ))
        }
        Err(error) => Finding::odd("tap", error.to_string(), USER_INSTEAD),
    };
    finding.value("make", false)
}

/// Taps on this host that belong to this user.
fn own() -> Finding {
    let uid = rustix::process::getuid().as_raw();
    let taps = own_taps(Path::new("/sys/class/net"), uid);
    let means = "use one with run --net tap=NAME";
    let finding = if taps.is_empty() {
        Finding::good(
            "own-taps",
            "no tap belongs to this user",
            "there is none to use with run --net tap=NAME",
        )
    } else {
        Finding::good("own-taps", format!("taps of this user: {}", taps.join(", ")), means)
    };
    finding.value("taps", taps)
}

/// Interfaces that have the attributes of a tap (`tun_flags`, `owner`), with this owner.
fn own_taps(class: &Path, uid: u32) -> Vec<String> {
    let entries = std::fs::read_dir(class).into_iter().flatten().flatten();
    let is_own = |dir: &Path| {
        let owner = std::fs::read_to_string(dir.join("owner")).ok();
        dir.join("tun_flags").exists() && owner.is_some_and(|owner| owner.trim() == uid.to_string())
    };
    let own = entries.filter(|entry| is_own(&entry.path()));
    let mut names: Vec<String> = own.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs this command's own check of taps inside a user and network namespace of its own.
pub(super) fn namespaces() -> Vec<Finding> {
    let finding = match in_namespace() {
        Ok(true) => Finding::good(
            "namespaces",
            "user and network namespaces can be made, and taps inside them",
            "unshare -rn exovm run ... --net tap=auto works without root, and so do the tests",
        ),
        Ok(false) => Finding::odd(
            "namespaces",
            "user and network namespaces can be made, but no taps inside them",
            "taps need root here",
        )
        .todo("see tap above"),
        Err(error) => Finding::odd("namespaces", error, "without root there is no network of one's own here")
            .todo("sudo sysctl user.max_user_namespaces=10000; on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0"),
    };
    vec![finding]
}

fn in_namespace() -> Result<bool, String> {
    let exovm = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(exovm);
    command.args(["doctor", "--only", "tap", "--json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = spawn_in_private_network(&mut command).map_err(|error: NetnsError| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("the check inside failed: {error}"))?;
    Ok(report["findings"][0]["values"]["make"] == true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_taps_are_those_with_this_owner() {
        let class = tempfile::tempdir().expect("a directory");
        let interface = |name: &str, files: &[(&str, &str)]| {
            let dir = class.path().join(name);
            std::fs::create_dir(&dir).expect("new");
            files.iter().for_each(|(file, text)| std::fs::write(dir.join(file), text).expect("new"));
        };
        interface("tap1", &[("tun_flags", "0x1002\n"), ("owner", "1000\n")]);
        interface("tap0", &[("tun_flags", "0x1002\n"), ("owner", "1000\n")]);
        interface("other", &[("tun_flags", "0x1002\n"), ("owner", "-1\n")]);
        interface("eth0", &[("owner", "1000\n")]);
        assert_eq!(own_taps(class.path(), 1000), ["tap0", "tap1"]);
        assert_eq!(own_taps(Path::new("/no/such"), 1000), [""; 0]);
    }
}

//! Why the host does not give an event, and what to do about it: a line each.

use super::attributes::{Attributes, DUMMY, Kind};
use std::io::Error;
use std::path::{Path, PathBuf};

/// Where the kernel lists who offers events.
const SOURCES: &str = "/sys/bus/event_source/devices";
/// What processors' counters are called there; the second and third are of processors with two kinds of cores.
const PMUS: [&str; 3] = ["cpu", "cpu_core", "cpu_atom"];
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// Why there is nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unavailable {
    /// No counters at all.
    #[error(
        "this host has no PMU: it is a virtual machine without a virtual one, or its kernel has no driver for it"
    )]
    NoPmu,
    /// Counters, but none that can be had for a guest alone.
    #[error("this host's PMU cannot count a guest alone ({0})")]
    NotOfGuests(Error),
    /// Somebody has all of it.
    #[error("this host's PMU is in use by somebody who does not share it")]
    Busy,
    /// The kernel was built without, or a sandbox says so.
    #[error("this host's kernel has no perf events, or a sandbox says so")]
    NoPerfEvents,
    /// A sandbox, most likely a container's.
    #[error("perf_event_open is forbidden here altogether, as by the seccomp profile of a container")]
    Sandboxed,
    /// The administrator's setting.
    #[error("this user may not have it (kernel.perf_event_paranoid is {paranoid})")]
    Permission {
        /// The setting.
        paranoid: i32,
        /// What it must be at most.
        wanted: i32,
    },
    /// Not mounted.
    #[error("tracefs is not mounted")]
    NoTracefs,
    /// Mounted, for others.
    #[error("{} may not be read by this user", .0.display())]
    Unreadable(PathBuf),
    /// Without KVM.
    #[error("this host's kernel has no tracepoints in KVM")]
    NoTracepoints,
    /// Anything else.
    #[error(transparent)]
    Other(Error),
}

impl Unavailable {
    /// What to do about it; empty: nothing.
    pub(crate) fn todo(&self) -> String {
        match self {
            Self::NoPmu => "give the virtual machine one, or measure on hardware".to_owned(),
            Self::NotOfGuests(_) => String::new(),
            Self::Busy => "end the other, or free a counter: sudo sysctl kernel.nmi_watchdog=0".to_owned(),
            Self::NoPerfEvents => "use a kernel with CONFIG_PERF_EVENTS".to_owned(),
            Self::Sandboxed => {
                "run outside of it, or give the container CAP_PERFMON (docker run --cap-add PERFMON)"
                    .to_owned()
            }
            Self::Permission { wanted, .. } => format!(
                "run the machine as root or with CAP_PERFMON, or: sudo sysctl kernel.perf_event_paranoid={wanted}"
            ),
            Self::NoTracefs => "sudo mount -t tracefs tracefs /sys/kernel/tracing".to_owned(),
            Self::Unreadable(root) => format!(
                "run the machine as root, or: sudo mount -o remount,gid=$(id -g),mode=750 {}",
                root.display()
            ),
            Self::NoTracepoints => "use a kernel with CONFIG_FTRACE, and load kvm".to_owned(),
            Self::Other(_) => String::new(),
        }
    }

    /// Why a counter of the processor could not be opened.
    pub(crate) fn counter(error: Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV) if !has_pmu(Path::new(SOURCES)) => Self::NoPmu,
            Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP | libc::EINVAL) => Self::NotOfGuests(error),
            Some(libc::EBUSY) => Self::Busy,
            _ => Self::any(error, 2),
        }
    }

    /// Why a tracepoint could not be recorded.
    pub(crate) fn tracepoint(error: Error) -> Self {
        Self::any(error, -1)
    }

    fn any(error: Error, wanted: i32) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Self::NoPerfEvents,
            Some(libc::EACCES | libc::EPERM) => {
                let paranoid =
                    std::fs::read_to_string(PARANOID).ok().and_then(|text| text.trim().parse().ok());
                Self::refused(paranoid, wanted, may_have_anything())
            }
            _ => Self::Other(error),
        }
    }

    /// A refusal that the setting explains is the setting's; one of what everybody may have is a sandbox's.
    fn refused(paranoid: Option<i32>, wanted: i32, anything: bool) -> Self {
        match paranoid {
            Some(paranoid) if paranoid > wanted && (anything || paranoid > 2) => {
                Self::Permission { paranoid, wanted }
            }
            _ => Self::Sandboxed,
        }
    }
}

/// Whether the kernel gives what counts nothing, in ring 3 only.
fn may_have_anything() -> bool {
    Attributes::new(Kind::Software, DUMMY).without_kernel().open(0).is_ok()
}

/// Whether the processor's counters are there.
fn has_pmu(sources: &Path) -> bool {
    PMUS.iter().any(|name| sources.join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_that_the_setting_explains_says_which_one_it_must_be() {
        let permission = |paranoid, wanted, anything| match Unavailable::refused(paranoid, wanted, anything) {
            Unavailable::Permission { paranoid, wanted } => Some((paranoid, wanted)),
            Unavailable::Sandboxed => None,
            other => panic!("{other:?}"),
        };
        // Tracepoints at what most hosts have; a counter at what Debian has, which refuses everything.
        assert_eq!(permission(Some(2), -1, true), Some((2, -1)));
        assert_eq!(permission(Some(3), 2, false), Some((3, 2)));
        // Nothing is forbidden, or less than that, and yet all is refused.
        assert_eq!(permission(Some(-1), -1, false), None);
        assert_eq!(permission(Some(2), -1, false), None);
        assert_eq!(permission(Some(1), 2, false), None);
        assert_eq!(permission(None, 2, false), None);
    }

    #[test]
    fn every_errno_of_a_counter_is_told_apart() {
        let of = |errno| Unavailable::counter(Error::from_raw_os_error(errno));
        assert!(matches!(of(libc::EBUSY), Unavailable::Busy));
        assert!(matches!(of(libc::ENOSYS), Unavailable::NoPerfEvents));
        assert!(matches!(of(libc::EMFILE), Unavailable::Other(_)));
        assert!(matches!(of(libc::EOPNOTSUPP), Unavailable::NoPmu | Unavailable::NotOfGuests(_)));
    }

    #[test]
    fn pmu_is_looked_for_by_the_names_that_processors_have() {
        let sources = tempfile::tempdir().expect("a directory");
        for other in ["breakpoint", "msr", "software", "tracepoint"] {
            std::fs::create_dir(sources.path().join(other)).expect("new");
        }
        assert!(!has_pmu(sources.path()));
        std::fs::create_dir(sources.path().join("cpu_core")).expect("new");
        assert!(has_pmu(sources.path()));
    }
}

//! What can go wrong, each with what to do about it.

use std::io;

/// An operation on a namespace or an interface that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// The kernel refuses to make a user namespace or its network namespace.
    #[error(
        "this host does not let us make a user and network namespace ({0}): as root, allow it with \
         `sysctl -w user.max_user_namespaces=10000` (Debian: also kernel.unprivileged_userns_clone=1; \
         Ubuntu: also kernel.apparmor_restrict_unprivileged_userns=0; in a container: start it with --privileged)"
    )]
    NamespacesForbidden(#[source] io::Error),
    /// `unshare(CLONE_NEWUSER)` needs a process with one thread (unshare(2), EINVAL).
    #[error(
        "a process with {threads} threads cannot enter a user namespace: enter it before the first thread is started"
    )]
    SeveralThreads {
        /// Threads of this process when it tried.
        threads: usize,
    },
    /// A step after the namespace exists failed.
    #[error("the new namespace cannot be set up: {step}: {source}")]
    SetUp {
        /// Which step.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program that should run in the namespace cannot be started.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// The program's path as given.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An interface name that Linux would not take.
    #[error("`{0}` is no interface name: 1 to 15 bytes without `/`, `:`, `%` and white space")]
    InvalidInterfaceName(String),
    /// No interface of this name in this network namespace.
    #[error("there is no interface `{0}` in this network namespace: create it first, or check the name")]
    NoSuchInterface(String),
    /// A request about an interface was refused.
    #[error("cannot {action} `{interface}`: {source}")]
    Interface {
        /// What was asked, in words that follow "cannot".
        action: String,
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel answered a netlink request with something that is not netlink.
    #[error("the kernel's netlink answer cannot be read: {0}")]
    Netlink(String),
    /// `/dev/net/tun` cannot be opened.
    #[error(
        "cannot open /dev/net/tun: {0}; load the module with `modprobe tun`, and give this user read and write access"
    )]
    TunDevice(#[source] io::Error),
    /// Another process holds the TAP (or this queue of it).
    #[error("TAP `{0}` is in use by another process: end that one or choose another name")]
    TapBusy(String),
    /// The TAP exists with other properties.
    #[error(
        "TAP `{0}` exists, but not as an Ethernet TAP with the wanted kind of queues: delete it, \
         or make it with `ip tuntap add dev {0} mode tap multi_queue vnet_hdr` (without `multi_queue` for one queue)"
    )]
    TapMismatch(String),
    /// The congestion control exists, but namespaces may not use it as their default.
    #[error(
        "`{0}` may not be a namespace's default congestion control: set it on routes instead \
         (Interface::set_route_congestion_control), or as root of the host add it to net.ipv4.tcp_allowed_congestion_control"
    )]
    CongestionControlRestricted(String),
    /// The kernel does not know the congestion control.
    #[error("this kernel has no congestion control `{0}`: `modprobe tcp_{0}`, or choose one of: {1}")]
    CongestionControlUnknown(String, String),
    /// A sysctl cannot be read or written.
    #[error("cannot {access} {path}: {source}")]
    Sysctl {
        /// "read" or "write".
        access: &'static str,
        /// The file below /proc/sys.
        path: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

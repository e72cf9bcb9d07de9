//! Which TCP congestion control a namespace uses.
//!
//! A new namespace takes the host's default with it, and a root that lives only in a user namespace may change that
//! default only to an algorithm that the host lists in `tcp_allowed_congestion_control`. On a route any algorithm may be
//! named without that list ([`Interface::set_route_congestion_control`](crate::Interface::set_route_congestion_control)),
//! so that is the way that leaves the host alone.

use crate::NetnsError;
use std::fs;

const DEFAULT: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// The default of the calling thread's network namespace.
pub fn default() -> Result<String, NetnsError> {
    read(DEFAULT)
}

/// Makes `algorithm` the default of the calling thread's network namespace.
pub fn set_default(algorithm: &str) -> Result<(), NetnsError> {
    let available = read(AVAILABLE)?;
    if !available.split_whitespace().any(|name| name == algorithm) {
        return Err(NetnsError::CongestionControlUnknown(algorithm.to_owned(), available));
    }
    fs::write(DEFAULT, algorithm).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM) => NetnsError::CongestionControlRestricted(algorithm.to_owned()),
        _ => NetnsError::Sysctl { access: "write", path: DEFAULT, source },
    })
}

/// Adds `algorithm` to the host's list of what namespaces may choose. Needs root of the host, and stays until someone
/// changes it back: a change to the whole machine that a caller should announce.
pub fn allow(algorithm: &str) -> Result<(), NetnsError> {
    let allowed = read(ALLOWED)?;
    if allowed.split_whitespace().any(|name| name == algorithm) {
        return Ok(());
    }
    fs::write(ALLOWED, format!("{allowed} {algorithm}")).map_err(|source| NetnsError::Sysctl {
        access: "write",
        path: ALLOWED,
        source,
    })
}

fn read(path: &'static str) -> Result<String, NetnsError> {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|source| NetnsError::Sysctl {
        access: "read",
        path,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Interface, TapQueues, create_tap, in_namespace};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn set_default_unknown_algorithm_lists_the_available() {
        let error = set_default("no-such-algorithm").unwrap_err().to_string();
        assert!(error.contains("reno"), "{error}");
    }

    #[test]
    fn set_default_allowed_algorithm_takes_effect() {
        in_namespace!(|| {
            set_default("reno").unwrap();
            assert_eq!(default().unwrap(), "reno");
        });
    }

    #[test]
    fn route_congestion_control_applies_to_its_connections() {
        in_namespace!(|| {
            set_default("reno").unwrap();
            let interface = Interface::named("tap0").unwrap();
            create_tap(&interface, TapQueues::Single).unwrap();
            let local = "10.80.0.1".parse().unwrap();
            interface.add_address(std::net::IpAddr::V4(local), 24).unwrap();
            interface.up().unwrap();
            interface.set_route_congestion_control(local, 24, "cubic").unwrap();

            // A connection into the prefix: nobody answers, but the socket has chosen its algorithm with the SYN.
            let socket = connecting_socket([10, 80, 0, 2]);
            assert_eq!(algorithm_of(&socket), "cubic");
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let loopback = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert_eq!(algorithm_of(&loopback), "reno");
        });
    }

    fn connecting_socket(address: [u8; 4]) -> TcpStream {
        use std::os::fd::{FromRawFd, OwnedFd};
        let to = libc::sockaddr_in {
            sin_family: libc::AF_INET as _,
            sin_port: 9u16.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address) },
            sin_zero: [0; 8],
        };
        // SAFETY: constants in, a descriptor out that `OwnedFd` owns alone; connect reads `to` with its size.
        unsafe {
            let fd =
                libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0);
            libc::connect(fd, (&raw const to).cast(), size_of_val(&to) as _);
            TcpStream::from(OwnedFd::from_raw_fd(fd))
        }
    }

    fn algorithm_of(socket: &TcpStream) -> String {
        let mut name = [0u8; 16];
        let mut bytes = name.len() as libc::socklen_t;
        // SAFETY: `name` and `bytes` are valid for writing and agree on the size.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_CONGESTION,
                name.as_mut_ptr().cast(),
                &mut bytes,
            )
        };
        assert_eq!(result, 0);
        String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
    }
}

//! The kernel as a router: it forwards nothing, but has addresses beyond the link, and this advertises it (RFC 4861 4.2).

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, ipproto, netdevice, sendto, socket_with, sockopt,
};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const INTERVAL: Duration = Duration::from_millis(200);
const ROUTER_LIFETIME_S: u16 = 1_800;
const VALID_LIFETIME_S: u32 = 86_400;
const PREFERRED_LIFETIME_S: u32 = 14_400;
/// On the link, and for addresses that hosts make (RFC 4861 4.6.2).
const ON_LINK_AUTONOMOUS: u8 = 0xc0;

/// A /64 prefix that is advertised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    /// An address in it.
    pub(crate) address: Ipv6Addr,
    pub(crate) valid_s: u32,
    pub(crate) preferred_s: u32,
}

impl Prefix {
    /// One that is good for as long as they usually are.
    pub(crate) fn lasting(address: Ipv6Addr) -> Self {
        Self { address, valid_s: VALID_LIFETIME_S, preferred_s: PREFERRED_LIFETIME_S }
    }
}

/// A router until it is told to stop.
pub(crate) struct Router {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Router {
    /// Advertises the /64 prefix of `address` on an interface whose link-local address this is.
    pub(crate) fn advertise(interface: &str, link_local: Ipv6Addr, address: Ipv6Addr) -> Self {
        Self::advertise_all(interface, link_local, &[Prefix::lasting(address)])
    }

    /// Advertises several prefixes.
    pub(crate) fn advertise_all(interface: &str, link_local: Ipv6Addr, prefixes: &[Prefix]) -> Self {
        let message = advertisement(prefixes);
        let kind = (AddressFamily::INET6, SocketType::RAW);
        // The kernel writes checksums of such sockets.
        let raw = socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, Some(ipproto::ICMPV6)).unwrap();
        sockopt::set_ipv6_multicast_hops(&raw, 255).unwrap();
        let scope = netdevice::name_to_index(&raw, interface).unwrap();
        bind(&raw, &SocketAddrV6::new(link_local, 0, 0, scope)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let over = stop.clone();
        let thread = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                sendto(&raw, &message, SendFlags::empty(), &SocketAddrV6::new(ALL_NODES, 0, 0, scope))
                    .unwrap();
                thread::sleep(INTERVAL);
            }
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

fn advertisement(prefixes: &[Prefix]) -> Vec<u8> {
    let mut bytes = vec![134, 0, 0, 0, 64, 0];
    bytes.extend(ROUTER_LIFETIME_S.to_be_bytes());
    bytes.extend([0; 8]);
    for prefix in prefixes {
        bytes.extend([3, 4, 64, ON_LINK_AUTONOMOUS]);
        bytes.extend(prefix.valid_s.to_be_bytes());
        bytes.extend(prefix.preferred_s.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend((prefix.address.to_bits() >> 64 << 64).to_be_bytes());
    }
    bytes
}

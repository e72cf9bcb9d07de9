//! Both ends of a TAP: the kernel's addresses on one, our stack on the other.

use exos_net::{Config, Ipv6Config, MAX_TSO_BYTES, MacAddress, TxChecksum};
use exos_sockets::Sockets;
use exovm_netns::{Interface, TapQueues, attach_tap, create_tap, switch_offloads_off};
use exovm_tap_stack::{Faults, Left, Wire, run};
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

pub(crate) const LINUX_V4: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
pub(crate) const OURS_V4: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 2);
pub(crate) const LINUX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 80, 0, 0, 0, 1);
pub(crate) const LINUX_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The kernel's as well, but on no link that we are on.
pub(crate) const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 99, 0, 0, 0, 1);
pub(crate) const OURS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 80, 0, 0, 0, 2);
pub(crate) const OUR_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
/// What we make of [`OUR_MAC`].
pub(crate) const OUR_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 2);
pub(crate) const OUR_MADE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 80, 0, 0xff, 0xfe00, 2);
pub(crate) const PORT: u16 = 7_000;

pub(crate) fn interface() -> Interface {
    let interface = Interface::named("tap0").expect("a good name");
    create_tap(&interface, TapQueues::Single).expect("a TAP");
    for (address, prefix_bits) in [(LINUX_V4.into(), 24), (LINUX.into(), 64), (LINUX_LINK_LOCAL.into(), 64)] {
        interface.add_address(address, prefix_bits).expect("an address");
    }
    interface.up().expect("up");
    let loopback = Interface::named("lo").expect("a good name");
    loopback.add_address(FAR.into(), 128).expect("an address");
    interface
}

/// Starts a program on our stack behind the TAP.
pub(crate) fn start<F: Future<Output = ()> + 'static>(
    interface: &Interface,
    ipv6: Ipv6Config,
    faults: Faults,
    program: impl FnOnce(Sockets) -> F + Send + 'static,
) -> JoinHandle<Left> {
    start_with(interface, ipv6, faults, |_| {}, program)
}

/// The same with another configuration of ours.
pub(crate) fn start_with<F: Future<Output = ()> + 'static>(
    interface: &Interface,
    ipv6: Ipv6Config,
    faults: Faults,
    change: impl FnOnce(&mut Config) + Send + 'static,
    program: impl FnOnce(Sockets) -> F + Send + 'static,
) -> JoinHandle<Left> {
    let (ready, is_ready) = mpsc::channel();
    let name = interface.name().to_owned();
    let thread = thread::spawn(move || {
        let interface = Interface::named(&name).expect("a good name");
        let tap = attach_tap(&interface, TapQueues::Single).expect("the TAP");
        let mut config = Config::new(OUR_MAC, OURS_V4, 24, [7; 16]);
        config.tx_checksum = TxChecksum::Offload;
        if faults.are_none() {
            config.tso_max_bytes = MAX_TSO_BYTES;
        } else {
            switch_offloads_off(&interface, &tap).expect("no offloads");
        }
        config.ipv6 = Some(ipv6);
        change(&mut config);
        let wire = Wire { tap: &tap, faults, spin: exos_net::Duration::ZERO };
        let ready = || ready.send(()).expect("somebody waits");
        run(&wire, config, |sockets, _| program(sockets), ready).expect("a TAP that carries frames").1
    });
    is_ready.recv().expect("the stack runs");
    thread
}

pub(crate) fn given() -> Ipv6Config {
    Ipv6Config { addresses: vec![(OURS, 64)], router_advertisements: false, ..Ipv6Config::default() }
}

pub(crate) fn index_of(interface: &Interface) -> u32 {
    let path = format!("/sys/class/net/{}/ifindex", interface.name());
    match std::fs::read_to_string(path) {
        Ok(index) => index.trim().parse().expect("a number"),
        // Another namespace's /sys: the first lines of /proc tell the same.
        Err(_) => {
            let table = std::fs::read_to_string("/proc/self/net/if_inet6").expect("the table of addresses");
            let line =
                table.lines().find(|line| line.ends_with(interface.name())).expect("tap0 has addresses");
            let index = line.split_whitespace().nth(1).expect("its number");
            u32::from_str_radix(index, 16).expect("a number")
        }
    }
}

pub(crate) fn assert_nothing_is_left(left: &Left) {
    assert_eq!((left.connections, left.streams, left.buffered_bytes), (0, 0, 0));
    assert_eq!(left.counters.duplicate_addresses, 0);
    assert_eq!((left.counters.dropped_malformed, left.counters.dropped_checksum), (0, 0));
}

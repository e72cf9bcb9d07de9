//! Linux's TCP while every window of ours begins with a segment that is withheld (`Config::withhold_every: 1`): the kernel
//! acknowledges what it has received and no more, so it is never reset, whatever is lost, delayed, repeated or reordered, with SACK
//! and without.

use crate::ends::*;
use crate::ipv6::{BAD, connect, kernel_connects, kernels_part, our_part};
use exos_net::Config;
use exovm_netns::{Interface, in_namespace};
use exovm_tap_stack::{Faults, Left};
use std::net::{IpAddr, Ipv6Addr, TcpListener};

/// Of either family: an address of the kernel's and one of ours.
const FAMILIES: [(IpAddr, IpAddr); 2] =
    [(IpAddr::V4(LINUX_V4), IpAddr::V4(OURS_V4)), (IpAddr::V6(LINUX), IpAddr::V6(OURS))];

/// Both ends send so many bytes, over a connection that we open and one that the kernel does.
fn bulk(interface: &Interface, (kernel, us): (IpAddr, IpAddr), faults: Faults, bytes: usize) -> [Left; 2] {
    let densest = |config: &mut Config| config.withhold_every = 1;
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("free");
    let running = start_with(interface, given(), faults, densest, move |sockets| async move {
        our_part(connect(&sockets, kernel).await, bytes).await;
    });
    kernels_part(listener.accept().expect("we come").0, bytes);
    let opened_by_us = running.join().expect("our part");
    drop(listener);
    let running = start_with(interface, given(), faults, densest, move |sockets| async move {
        let listener = sockets.listen(PORT, 1).expect("free");
        our_part(listener.accept().await.expect("the kernel comes").0, bytes).await;
    });
    kernels_part(kernel_connects((us, PORT).into()), bytes);
    [opened_by_us, running.join().expect("our part")]
}

/// Over both families, to a kernel that reports what comes out of order and to one that does not; every byte is compared.
fn matrix(faults: Faults, bytes: usize) {
    let interface = interface();
    for (sack, ends) in each_with(["1", "0"], FAMILIES) {
        std::fs::write("/proc/sys/net/ipv4/tcp_sack", sack).expect("a namespace of our own");
        for left in bulk(&interface, ends, faults, bytes) {
            assert_nothing_is_left(&left);
            let counters = &left.counters;
            println!("SACK {sack}, {}: {} segments withheld", ends.0, counters.segments_withheld);
            assert_eq!(counters.optimistic_acks, 0, "an honest kernel was reset: {counters:?}");
            assert!(counters.segments_withheld > 0, "the kernel was not examined: {counters:?}");
        }
    }
}

/// Each of these with each of those.
fn each_with<A: Copy, B>(
    these: impl IntoIterator<Item = A>,
    those: impl IntoIterator<Item = B> + Clone,
) -> impl Iterator<Item = (A, B)> {
    these.into_iter().flat_map(move |this| those.clone().into_iter().map(move |that| (this, that)))
}

#[test]
fn kernel_is_not_reset_when_every_window_is_examined() {
    in_namespace!(|| matrix(Faults { delay_ms: 3, ..Faults::NONE }, 2_000_000));
}

#[test]
fn kernel_is_not_reset_when_every_window_is_examined_without_a_round_trip() {
    in_namespace!(|| matrix(Faults::NONE, 6_000_000));
}

#[test]
fn kernel_is_not_reset_when_every_window_is_examined_on_a_bad_wire() {
    let few = Faults { lost: 1, held: 3, repeated: 3, ..BAD };
    in_namespace!(|| matrix(few, 2_000_000));
}

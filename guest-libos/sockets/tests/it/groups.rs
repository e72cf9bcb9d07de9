//! Groups of UDP sockets: who hears what, here and over the wire.

use crate::wire::{ADDRESSES, CLIENT, OUR_V6, SERVER, Wire, with_ipv6};
use exos_net::{Config, Duration, Local};
use exos_sockets::{Error, INTERFACE, Sockets, UdpOption, UdpSocket};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU8;

const PORT: u16 = 5_000;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const OTHER: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 4);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 7);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const SHORT: Duration = Duration::from_millis(20);

fn wire() -> Wire {
    Wire::with([with_ipv6(CLIENT), with_ipv6(SERVER)])
}

fn bound(sockets: &Sockets, port: u16) -> UdpSocket {
    sockets.bind_udp_at(Local::Any, port).expect("free")
}

/// What has arrived at a socket: from whom, where to, and what.
fn heard(socket: &mut UdpSocket) -> Vec<(SocketAddr, IpAddr, Vec<u8>)> {
    let mut heard = Vec::new();
    let mut buffer = [0; 100];
    while let Some(received) = socket.try_receive(&mut buffer).expect("nothing is wrong") {
        heard.push((received.from, received.to.ip(), buffer[..received.len].to_vec()));
    }
    heard
}

#[test]
fn sockets_hear_the_groups_that_they_have_joined_and_no_others() {
    let mut wire = wire();
    let mut speaker = bound(&wire.sockets(CLIENT), 700);
    let (mut member, mut neighbour) =
        (bound(&wire.sockets(SERVER), PORT), bound(&wire.sockets(SERVER), 6_000));
    member.join_multicast_v4(GROUP, ANY).expect("room");
    member.join_multicast_v6(GROUP_V6, INTERFACE).expect("room");
    neighbour.join_multicast_v4(OTHER, ADDRESSES[SERVER]).expect("room");
    wire.run_for(SHORT);
    let groups: [IpAddr; 3] = [GROUP.into(), GROUP_V6.into(), OTHER.into()];
    let say = |speaker: &mut UdpSocket| {
        for group in groups {
            speaker.try_send_to(b"hello", (group, PORT).into()).expect("room");
        }
    };
    say(&mut speaker);
    wire.run_for(SHORT);
    let from: [SocketAddr; 2] = [(ADDRESSES[CLIENT], 700).into(), (OUR_V6[CLIENT], 700).into()];
    let expected = [(from[0], groups[0], b"hello".to_vec()), (from[1], groups[1], b"hello".to_vec())];
    assert_eq!(heard(&mut member), expected);
    assert_eq!(wire.sockets(SERVER).udp_counters().dropped_not_member, 1);
    member.leave_multicast_v4(GROUP, ANY).expect("joined");
    member.leave_multicast_v6(GROUP_V6, 0).expect("joined");
    wire.run_for(SHORT);
    say(&mut speaker);
    wire.run_for(SHORT);
    assert_eq!(heard(&mut member), []);
}

#[test]
fn stack_is_in_a_group_from_the_first_socket_to_the_last() {
    let mut wire = wire();
    let groups = |wire: &Wire| wire.stack(SERVER).groups().collect::<Vec<_>>();
    let [mut first, mut second] = [PORT, 6_000].map(|port| bound(&wire.sockets(SERVER), port));
    first.join_multicast_v4(GROUP, ANY).expect("room");
    second.join_multicast_v4(GROUP, ANY).expect("room");
    first.join_multicast_v6(GROUP_V6, 0).expect("room");
    wire.run_for(SHORT);
    assert_eq!(groups(&wire), [IpAddr::V4(GROUP), GROUP_V6.into()]);
    first.leave_multicast_v4(GROUP, ANY).expect("joined");
    // One that is dropped leaves all of its groups.
    drop(first);
    wire.run_for(SHORT);
    assert_eq!(groups(&wire), [IpAddr::V4(GROUP)]);
    wire.run_for(Duration::from_secs(3));
    let reports = wire.stack(SERVER).counters().group_reports_out;
    drop(second);
    wire.run_for(Duration::from_secs(3));
    assert!(groups(&wire).is_empty());
    assert_eq!(wire.stack(SERVER).counters().group_reports_out - reports, 2);
}

#[test]
fn group_that_the_stack_refuses_is_nobodys_and_can_be_joined_later() {
    let mut wire = Wire::with([with_ipv6(CLIENT), Config { max_groups: 1, ..with_ipv6(SERVER) }]);
    let now = wire.now;
    wire.ends[SERVER].stack_mut().join_group(now, OTHER.into()).expect("room");
    let sockets = wire.sockets(SERVER);
    let mut members = [PORT, 6_000].map(|port| bound(&sockets, port));
    members.iter_mut().for_each(|member| member.join_multicast_v4(GROUP, ANY).expect("not known yet"));
    wire.run_for(SHORT);
    for member in &mut members {
        assert_eq!(member.try_receive(&mut [0; 9]), Err(Error::TooMany));
        assert_eq!(member.leave_multicast_v4(GROUP, ANY), Err(Error::AddressNotAvailable));
    }
    // What is joined and left in one round is not asked for, whoever leaves room after it.
    members[0].join_multicast_v4(GROUP, ANY).expect("not known yet");
    members[0].leave_multicast_v4(GROUP, ANY).expect("joined");
    wire.run_for(SHORT);
    assert_eq!(members[0].try_receive(&mut [0; 9]), Ok(None));
    let now = wire.now;
    assert!(wire.ends[SERVER].stack_mut().leave_group(now, OTHER.into()));
    members[1].join_multicast_v4(GROUP, ANY).expect("room");
    wire.run_for(SHORT);
    assert_eq!(members[1].try_receive(&mut [0; 9]), Ok(None));
    assert_eq!(wire.stack(SERVER).groups().collect::<Vec<_>>(), [IpAddr::V4(GROUP)]);
}

#[test]
fn groups_that_cannot_be_joined_or_left_say_why() {
    let mut wire = Wire::with([with_ipv6(CLIENT), Config { max_groups: 2, ..with_ipv6(SERVER) }]);
    let mut socket = bound(&wire.sockets(SERVER), PORT);
    let foreign = ADDRESSES[CLIENT];
    assert_eq!(socket.join_multicast_v4(ADDRESSES[SERVER], ANY), Err(Error::AddressNotAvailable));
    assert_eq!(socket.join_multicast_v4(Ipv4Addr::new(224, 0, 0, 0), ANY), Err(Error::AddressNotAvailable));
    for interface in [foreign, Ipv4Addr::LOCALHOST] {
        assert_eq!(socket.join_multicast_v4(GROUP, interface), Err(Error::NoSuchInterface));
    }
    assert_eq!(socket.join_multicast_v6(GROUP_V6, 2), Err(Error::NoSuchInterface));
    let nobodys = Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 7);
    assert_eq!(socket.join_multicast_v6(nobodys, 0), Err(Error::AddressNotAvailable));
    assert_eq!(socket.leave_multicast_v4(GROUP, ANY), Err(Error::AddressNotAvailable));
    assert_eq!(socket.join_multicast_v4(GROUP, ANY), Ok(()));
    assert_eq!(socket.join_multicast_v4(GROUP, ANY), Err(Error::AddressInUse));
    assert_eq!(socket.join_multicast_v4(OTHER, ANY), Ok(()));
    assert_eq!(socket.join_multicast_v4(Ipv4Addr::new(224, 0, 0, 251), ANY), Err(Error::TooMany));
    assert_eq!(socket.join_multicast_v6(GROUP_V6, 0), Ok(()), "of the other family");
    wire.run_for(SHORT);
    assert_eq!(wire.stack(SERVER).groups().count(), 3);
    let mut without = Wire::new();
    let mut socket = bound(&without.sockets(SERVER), PORT);
    assert_eq!(socket.join_multicast_v6(GROUP_V6, 0), Err(Error::AddressNotAvailable));
    without.run_for(SHORT);
}

#[test]
fn own_sockets_hear_what_is_said_to_their_group_unless_the_speaker_does_not_want_that() {
    let mut wire = wire();
    let sockets = wire.sockets(SERVER);
    let (mut speaker, mut member) = (bound(&sockets, 700), bound(&sockets, PORT));
    member.join_multicast_v4(GROUP, ANY).expect("room");
    member.join_multicast_v6(GROUP_V6, 0).expect("room");
    let mut other = bound(&wire.sockets(CLIENT), PORT);
    other.join_multicast_v4(GROUP, ANY).expect("room");
    wire.run_for(SHORT);
    for (group, from) in
        [(IpAddr::V4(GROUP), IpAddr::V4(ADDRESSES[SERVER])), (GROUP_V6.into(), OUR_V6[SERVER].into())]
    {
        for loops in [true, false] {
            speaker.set(UdpOption::MulticastLoop(loops));
            speaker.try_send_to(b"hello", (group, PORT).into()).expect("room");
            wire.run_for(SHORT);
            let expected = [((from, 700).into(), group, b"hello".to_vec())];
            assert_eq!(heard(&mut member), expected[..usize::from(loops)]);
        }
    }
    assert_eq!(heard(&mut other).len(), 2, "others hear it in either case");
}

#[test]
fn group_of_the_host_alone_is_heard_here_and_leaves_no_frame() {
    let mut wire = wire();
    let alone = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 7);
    let mut socket = bound(&wire.sockets(CLIENT), PORT);
    socket.join_multicast_v6(alone, 0).expect("room");
    wire.run_for(Duration::from_secs(3));
    let before = *wire.stack(CLIENT).counters();
    socket.try_send_to(b"me", (alone, PORT).into()).expect("room");
    wire.run_for(SHORT);
    assert_eq!(heard(&mut socket).len(), 1);
    let after = wire.stack(CLIENT).counters();
    assert_eq!(
        (before.datagrams_out, before.group_reports_out),
        (after.datagrams_out, after.group_reports_out)
    );
}

#[test]
fn datagrams_to_groups_have_a_time_to_live_of_their_own() {
    let mut wire = wire();
    wire.keeps = true;
    let mut socket = bound(&wire.sockets(CLIENT), PORT);
    socket.set(UdpOption::TimeToLive(NonZeroU8::new(77).expect("not zero")));
    let groups: [IpAddr; 2] = [GROUP.into(), GROUP_V6.into()];
    let mut hops = Vec::new();
    for ttl in [None, NonZeroU8::new(9)] {
        ttl.into_iter().for_each(|hops| socket.set(UdpOption::MulticastTtl(hops)));
        for group in groups {
            wire.kept.clear();
            socket.try_send_to(b"x", (group, PORT).into()).expect("room");
            wire.run_for(SHORT);
            let frame = wire.kept.iter().find(|frame| frame.ends_with(b"x")).expect("it leaves");
            hops.push(if group.is_ipv4() { frame[22] } else { frame[21] });
        }
    }
    assert_eq!(hops, [1, 1, 9, 9]);
}

#[test]
fn socket_bound_to_a_group_hears_that_only() {
    let mut wire = wire();
    let mut member = wire.sockets(SERVER).bind_udp((GROUP, PORT).into()).expect("free");
    member.join_multicast_v4(GROUP, ANY).expect("room");
    assert_eq!(member.local_addr(), (GROUP, PORT).into());
    wire.run_for(SHORT);
    let mut speaker = bound(&wire.sockets(CLIENT), 700);
    for to in [GROUP, ADDRESSES[SERVER]] {
        speaker.try_send_to(b"x", (to, PORT).into()).expect("room");
        wire.run_for(SHORT);
    }
    assert_eq!(heard(&mut member).len(), 1);
    // What it sends is from our address.
    member.try_send_to(b"back", (ADDRESSES[CLIENT], 700).into()).expect("room");
    wire.run_for(SHORT);
    assert_eq!(heard(&mut speaker)[0].0, (ADDRESSES[SERVER], PORT).into());
}

//! Published TCP ports: what goes in on one side comes out on the other, ends included.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use exovm_user_net::{HEADER_BYTES, MTU_BYTES};
use nix::sys::socket::{setsockopt, sockopt};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use crate::guest::{Offloads, World, pattern, publishing};

/// A client of the host that does not block.
fn client(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// A client and the guest's socket that it is connected to.
fn connected(world: &mut World) -> (TcpStream, SocketHandle) {
    let server = world.listen(80);
    let client = client(world.address());
    world.until_state(server, State::Established);
    (client, server)
}

/// Reads in the host until there are so many bytes or the end.
#[track_caller]
fn read(world: &mut World, client: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    world.until(&format!("{count} bytes"), |_| {
        let mut part = [0; 65536];
        loop {
            match client.read(&mut part) {
                Ok(0) => return Some(()),
                Ok(len) => bytes.extend_from_slice(&part[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        (bytes.len() >= count).then_some(())
    });
    bytes
}

/// How the client's connection ends: `Ok` in order, or the error.
fn end(world: &mut World, client: &mut TcpStream) -> Result<(), ErrorKind> {
    world.until("an end", |_| match client.read(&mut [0; 4096]) {
        Ok(0) => Some(Ok(())),
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => Some(Err(error.kind())),
    })
}

fn all_gone(world: &mut World) {
    world.until("no connection left", |world| (world.net.connections() == 0).then_some(()));
}

fn megabytes_go_both_ways(offloads: Offloads) {
    let mut world = World::with(publishing(&["0:80"]), offloads);
    let (mut client, server) = connected(&mut world);
    let sent = pattern(4 << 20);
    let (mut to_guest, mut to_host) = (0, 0);
    let (mut at_guest, mut at_host) = (Vec::new(), Vec::new());
    world.until("everything", |world| {
        to_guest += client.write(&sent[to_guest..]).unwrap_or(0);
        let mut part = [0; 65536];
        while let Ok(len) = client.read(&mut part) {
            at_host.extend_from_slice(&part[..len]);
        }
        let socket = world.tcp(server);
        while socket.can_recv() {
            socket.recv(|new| (new.len(), at_guest.extend_from_slice(new))).unwrap();
        }
        to_host += socket.send_slice(&sent[to_host..]).unwrap();
        (at_guest.len() == sent.len() && at_host.len() == sent.len()).then_some(())
    });
    assert!(at_guest == sent && at_host == sent);
}

#[test]
fn megabytes_go_both_ways_unharmed_without_offloads() {
    megabytes_go_both_ways(Offloads::None);
}

#[test]
fn megabytes_go_both_ways_unharmed_with_offloads() {
    megabytes_go_both_ways(Offloads::All);
}

#[test]
fn data_sent_before_the_handshake_ends_is_not_lost() {
    let mut world = World::new();
    let mut client = client(world.address());
    client.write_all(b"early").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let server = world.listen(80);
    assert_eq!(world.receive(server, 5), b"early");
    world.until_state(server, State::CloseWait);
}

#[test]
fn half_close_by_the_client_leaves_the_other_direction_open() {
    let mut world = World::new();
    let (mut client, server) = connected(&mut world);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(world.receive(server, 8), b"question");
    world.until_state(server, State::CloseWait);
    let answer = pattern(500_000);
    let mut sent = 0;
    let mut got = Vec::new();
    world.until("the answer", |world| {
        sent += world.tcp(server).send_slice(&answer[sent..]).unwrap();
        let mut part = [0; 65536];
        while let Ok(len) = client.read(&mut part) {
            got.extend_from_slice(&part[..len]);
        }
        (got.len() == answer.len()).then_some(())
    });
    assert!(got == answer);
    world.tcp(server).close();
    assert_eq!(end(&mut world, &mut client), Ok(()));
    all_gone(&mut world);
}

#[test]
fn half_close_by_the_guest_leaves_the_other_direction_open() {
    let mut world = World::new();
    let (mut client, server) = connected(&mut world);
    world.tcp(server).send_slice(b"bye").unwrap();
    world.tcp(server).close();
    assert_eq!(read(&mut world, &mut client, 4), b"bye");
    client.write_all(b"still here").unwrap();
    assert_eq!(world.receive(server, 10), b"still here");
    drop(client);
    all_gone(&mut world);
    assert_eq!(world.state(server), State::TimeWait);
}

#[test]
fn reset_by_the_client_is_a_reset_for_the_guest() {
    let mut world = World::new();
    let (client, server) = connected(&mut world);
    setsockopt(&client, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(client);
    world.until_state(server, State::Closed);
    all_gone(&mut world);
}

#[test]
fn reset_by_the_guest_is_a_reset_for_the_client() {
    let mut world = World::new();
    let (mut client, server) = connected(&mut world);
    world.tcp(server).abort();
    assert_eq!(end(&mut world, &mut client), Err(ErrorKind::ConnectionReset));
    all_gone(&mut world);
}

#[test]
fn connection_that_the_guest_refuses_is_reset() {
    let mut world = World::new();
    let mut client = client(world.address());
    assert_eq!(end(&mut world, &mut client), Err(ErrorKind::ConnectionReset));
    all_gone(&mut world);
}

#[test]
fn connection_that_the_guest_never_answers_is_reset_after_ten_seconds() {
    let mut world = World::new();
    world.guest_is_deaf = true;
    let mut client = client(world.address());
    world.until("a connection", |world| (world.net.connections() == 1).then_some(()));
    world.skip(Duration::from_secs(9));
    world.exchange();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    world.skip(Duration::from_secs(2));
    assert_eq!(end(&mut world, &mut client), Err(ErrorKind::ConnectionReset));
    all_gone(&mut world);
}

#[test]
fn client_that_does_not_read_closes_the_guests_window() {
    let mut world = World::new();
    let (mut client, server) = connected(&mut world);
    let sent = pattern(32 << 20);
    let mut taken = 0;
    // Until nothing moves for a while.
    let mut quiet = 0;
    while quiet < 20 {
        let more = world.tcp(server).send_slice(&sent[taken..]).unwrap();
        taken += more;
        quiet = if world.exchange() == 0 && more == 0 { quiet + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(1));
    }
    // The rest waits in the guest, the buffers here, and the host's kernel.
    assert!(taken < 16 << 20, "{taken}");
    let mut got = Vec::new();
    world.until("the rest", |world| {
        taken += world.tcp(server).send_slice(&sent[taken..]).unwrap();
        let mut part = [0; 65536];
        while let Ok(len) = client.read(&mut part) {
            got.extend_from_slice(&part[..len]);
        }
        (got.len() == sent.len()).then_some(())
    });
    assert!(got == sent);
}

#[test]
fn guest_that_does_not_read_closes_the_clients_window() {
    let mut world = World::new();
    let (mut client, server) = connected(&mut world);
    let sent = pattern(32 << 20);
    let (mut taken, mut quiet) = (0, 0);
    while quiet < 20 {
        let more = client.write(&sent[taken..]).unwrap_or(0);
        taken += more;
        quiet = if world.exchange() == 0 && more == 0 { quiet + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(taken < 16 << 20, "{taken}");
    let mut got = Vec::new();
    world.until("the rest", |world| {
        taken += client.write(&sent[taken..]).unwrap_or(0);
        let socket = world.tcp(server);
        while socket.can_recv() {
            socket.recv(|new| (new.len(), got.extend_from_slice(new))).unwrap();
        }
        (got.len() == sent.len()).then_some(())
    });
    assert!(got == sent);
}

#[test]
fn end_of_the_guest_waits_for_a_client_that_reads_slowly() {
    let mut world = World::new();
    let (mut client, server) = connected(&mut world);
    client.shutdown(Shutdown::Write).unwrap();
    world.until_state(server, State::CloseWait);
    let sent = pattern(8 << 20);
    let mut taken = 0;
    let mut quiet = 0;
    while quiet < 20 {
        let more = world.tcp(server).send_slice(&sent[taken..]).unwrap();
        taken += more;
        quiet = if world.exchange() == 0 && more == 0 { quiet + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(1));
    }
    // Everything that was taken, and the guest's end, are now on this side of the guest; a minute passes.
    world.tcp(server).close();
    let mut got = Vec::new();
    let mut part = [0; 65536];
    world.until("all but the end", |world| {
        if world.state(server) != State::Closed {
            let len = client.read(&mut part).unwrap_or(0);
            got.extend_from_slice(&part[..len]);
        }
        (world.state(server) == State::Closed).then_some(())
    });
    world.skip(Duration::from_secs(60));
    world.exchange();
    got.append(&mut read(&mut world, &mut client, taken - got.len()));
    assert_eq!(got.len(), taken);
    assert!(got == sent[..taken]);
    assert_eq!(end(&mut world, &mut client), Ok(()));
    all_gone(&mut world);
}

/// Sends in the guest until so many bytes are taken or no more find room. Returns how many were.
fn fill(world: &mut World, server: SocketHandle, bytes: &[u8]) -> usize {
    let (mut taken, mut quiet) = (0, 0);
    while quiet < 20 && taken < bytes.len() {
        let more = world.tcp(server).send_slice(&bytes[taken..]).unwrap();
        taken += more;
        quiet = if world.exchange() == 0 && more == 0 { quiet + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(1));
    }
    taken
}

#[test]
fn what_the_guest_said_before_its_end_reaches_a_client_that_reads_later() {
    let mut world = World::new();
    let sent = pattern(8 << 20);
    let half_closed = |world: &mut World| {
        let (client, server) = connected(world);
        setsockopt(&client, sockopt::RcvBuf, &(64 << 10)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        world.until_state(server, State::CloseWait);
        (client, server)
    };
    let (client, server) = half_closed(&mut world);
    let room = fill(&mut world, server, &sent);
    assert!(room < sent.len(), "it has to wait in the end");
    world.tcp(server).abort();
    drop(client);
    all_gone(&mut world);
    // Nothing of it waits in the guest (256 KiB), and half of what can wait on this side does.
    let count = room - (256 << 10) - (128 << 10);
    let (mut client, server) = half_closed(&mut world);
    assert_eq!(fill(&mut world, server, &sent[..count]), count);
    world.tcp(server).close();
    world.until_state(server, State::Closed);
    world.skip(Duration::from_secs(60));
    world.exchange();
    assert!(read(&mut world, &mut client, count) == sent[..count]);
    assert_eq!(end(&mut world, &mut client), Ok(()));
    all_gone(&mut world);
}

#[test]
fn guest_that_speaks_first_is_heard_at_once() {
    let mut world = World::new();
    let server = world.listen(80);
    let mut client = client(world.address());
    // Nothing waits for a timer.
    world.stop_clock();
    world.until_state(server, State::Established);
    world.tcp(server).send_slice(b"220 ready").unwrap();
    assert_eq!(read(&mut world, &mut client, 9), b"220 ready");
}

#[test]
fn lone_request_is_acknowledged_within_the_delay_and_not_at_once() {
    let mut world = World::new();
    let (mut client, server) = connected(&mut world);
    client.write_all(b"x").unwrap();
    assert_eq!(world.receive(server, 1), b"x");
    world.exchange();
    world.stop_clock();
    world.tcp(server).send_slice(b"answer").unwrap();
    world.exchange();
    assert_eq!(world.tcp(server).send_queue(), 6, "the acknowledgment waits for data to go with");
    world.start_clock();
    // Nothing else happens: the timer in the descriptor has to wake us.
    assert!(world.wait(Duration::from_secs(1)), "the descriptor becomes readable");
    world.exchange();
    assert_eq!(world.tcp(server).send_queue(), 0);
}

#[test]
fn frames_to_the_guest_are_no_longer_than_its_driver_can_cope_with() {
    const PACKET: usize = HEADER_BYTES + 14 + MTU_BYTES;
    for (offloads, segment_sizes) in [(Offloads::None, vec![0]), (Offloads::All, vec![0, 1460])] {
        let mut world = World::with(publishing(&["0:80"]), offloads);
        let (mut client, server) = connected(&mut world);
        client.write_all(&pattern(60_000)).unwrap();
        world.receive(server, 60_000);
        assert_eq!(Vec::from_iter(world.segment_sizes.clone()), segment_sizes, "{offloads:?}");
        match offloads {
            Offloads::None => assert_eq!(world.longest_bytes, PACKET),
            Offloads::All => {
                assert!((2 * PACKET..=65_600).contains(&world.longest_bytes), "{}", world.longest_bytes)
            }
        }
    }
}

#[test]
fn idle_connection_stays_for_as_long_as_it_likes() {
    let mut world = World::new();
    let (mut client, server) = connected(&mut world);
    for _ in 0..20 {
        world.skip(Duration::from_secs(60));
        world.exchange();
    }
    client.write_all(b"still there").unwrap();
    assert_eq!(world.receive(server, 11), b"still there");
}

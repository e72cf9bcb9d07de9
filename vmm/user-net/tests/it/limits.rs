//! Many clients, and ports that cannot be had.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use exovm_user_net::{UserNet, UserNetError};
use smoltcp::socket::tcp::State;

use crate::guest::{World, publishing};

fn refused(publish: &[&str]) -> UserNetError {
    match UserNet::new(publishing(publish)) {
        Ok(_) => panic!("{publish:?} is possible"),
        Err(error) => error,
    }
}

#[test]
fn port_in_use_is_named_and_another_proposed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = format!("{port}:80");
    let error = refused(&[&text]);
    assert!(matches!(error, UserNetError::InUse(_)), "{error:?}");
    for part in [&format!("port {port}/tcp of 127.0.0.1 is in use"), "--publish", "ss -tlnp"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[test]
fn port_published_twice_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let texts = [format!("{free}:80"), format!("{free}:81")];
    let error = refused(&[&texts[0], &texts[1]]);
    assert!(matches!(error, UserNetError::Twice(_)), "{error:?}");
    // The same number of another protocol is another port. Somebody else may have taken one that was free a moment ago.
    let both = || {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        UserNet::new(publishing(&[&format!("{free}:80"), &format!("{free}:80/udp")]))
    };
    assert!((0..10).any(|_| both().is_ok()));
}

#[test]
fn address_of_another_machine_is_named() {
    for text in ["192.0.2.1:0:80", "192.0.2.1:0:80/udp"] {
        let error = refused(&[text]);
        assert!(matches!(error, UserNetError::NotLocal(_)), "{error:?}");
        assert!(error.to_string().contains("192.0.2.1 is no address of this machine"), "{error}");
    }
}

#[test]
fn clients_beyond_all_places_take_those_of_clients_that_say_nothing() {
    const PLACES: usize = 2048;
    // Both ends are in this process.
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 8192, 8192).unwrap();
    let mut world = World::new();
    for _ in 0..PLACES {
        let socket = world.socket(64);
        world.tcp(socket).listen(80).unwrap();
    }
    let mut silent = Vec::new();
    for _ in 0..PLACES / 64 {
        silent.extend((0..64).map(|_| TcpStream::connect(world.address()).unwrap()));
        world.exchange();
    }
    world.until("all places taken", |world| (world.net.connections() == PLACES).then_some(()));
    assert_eq!(world.counters().tcp_evicted, 0);
    // All have just said something: nobody has to give way.
    world.stop_clock();
    silent.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
    world.exchange();
    let server = world.listen(80);
    let mut good = TcpStream::connect(world.address()).unwrap();
    world.exchange();
    let counters = world.counters();
    assert_eq!((counters.tcp_evicted, counters.tcp_accept_waits), (0, 1), "{counters:?}");
    // A quarter of a second later it is served.
    world.skip(Duration::from_millis(250));
    world.until_state(server, State::Established);
    good.write_all(b"hello").unwrap();
    assert_eq!(world.receive(server, 5), b"hello");
    world.start_clock();
    assert_eq!((world.counters().tcp_evicted, world.net.connections()), (1, PLACES));
    let is_reset = |mut stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        stream.read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    };
    // A busy host may deliver it later.
    let reset = world.until("a reset", |_| {
        Some(silent.iter().filter(|stream| is_reset(stream)).count()).filter(|&count| count > 0)
    });
    assert_eq!(reset, 1, "the one whose place it was");
}

//! What streams and listeners answer beside reading and writing: addresses, errors, what is there without waiting, lingering.

use crate::wire::{CLIENT, SERVER, Wire, address, echo, pattern, read_exact, write_all};
use exos_net::{Config, Duration, Local};
use exos_sockets::{Error, SocketOption, TcpStream};
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;

#[test]
fn both_ends_have_the_same_addresses() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    let seen = Rc::new(Cell::new(None));
    let note = seen.clone();
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen_at(Local::Ipv4, 80, 1).expect("free");
        assert_eq!((listener.port(), listener.local()), (80, Local::Ipv4));
        let (stream, from) = listener.accept().await.expect("a client");
        assert_eq!(stream.peer_addr(), from);
        note.set(Some((stream.local_addr(), from)));
    });
    let sockets = wire.sockets(CLIENT);
    let ends = wire.run(CLIENT, async move {
        let stream = sockets.connect(address(SERVER, 80)).await.expect("listening");
        (stream.peer_addr(), stream.local_addr())
    });
    wire.run_for(Duration::from_millis(10));
    assert_eq!((ends.0, ends.1.ip()), (address(SERVER, 80), address(CLIENT, 0).ip()));
    assert_eq!(seen.get(), Some(ends));
}

#[test]
fn what_is_peeked_stays_and_what_would_wait_is_not_tried() {
    let mut wire = Wire::new();
    echo(&wire, 7);
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut stream = sockets.connect(address(SERVER, 7)).await.expect("listening");
        let mut buffer = [0; 100];
        assert_eq!(stream.try_read(&mut buffer), Ok(None));
        stream.set(SocketOption::SendBuffer(1_000));
        assert_eq!(stream.try_write(&pattern(1_500)), Ok(Some(1_000)));
        assert_eq!(stream.try_write(b"more"), Ok(None));
        for _ in 0..2 {
            assert_eq!(stream.peek(&mut buffer).await, Ok(100));
            assert!(buffer == pattern(100)[..]);
        }
        let mut all = vec![0; 1_000];
        read_exact(&mut stream, &mut all).await.expect("it comes back");
        assert!(all == pattern(1_000));
        stream.close_write();
        assert_eq!(stream.try_write(b"more"), Err(Error::BrokenPipe));
        assert_eq!((stream.peek(&mut buffer).await, stream.try_read(&mut buffer)), (Ok(0), Ok(Some(0))));
    });
}

#[test]
fn error_is_taken_once_and_calls_still_fail() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen(80, 1).expect("free");
        listener.accept().await.expect("a client").0.abort();
    });
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut stream = sockets.connect(address(SERVER, 80)).await.expect("listening");
        assert_eq!(stream.take_error(), None);
        stream.readable().await.expect("an end");
        assert_eq!((stream.take_error(), stream.take_error()), (Some(Error::Reset), None));
        assert_eq!(stream.read(&mut [0; 1]).await, Err(Error::Reset));
    });
}

/// A stream to a server that reads and never closes, with 10,000 bytes written.
fn written(wire: &mut Wire, linger: Option<Duration>) -> TcpStream {
    let sockets = wire.sockets(SERVER);
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen(80, 1).expect("free");
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut buffer = [0; 20_000];
        while stream.read(&mut buffer).await.is_ok_and(|len| len > 0) {}
        std::future::pending::<()>().await;
    });
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut stream = sockets.connect(address(SERVER, 80)).await.expect("listening");
        stream.set(SocketOption::Linger(linger));
        write_all(&mut stream, &pattern(10_000)).await.expect("room");
        stream
    })
}

#[test]
fn stream_that_does_not_linger_resets_and_one_that_does_gives_up_in_time() {
    let mut wire = Wire::new();
    let stream = written(&mut wire, Some(Duration::ZERO));
    wire.run_for(Duration::from_millis(100));
    drop(stream);
    wire.run_for(Duration::from_millis(10));
    assert_eq!((wire.sockets(CLIENT).len(), wire.stack(SERVER).counters().resets_in), (0, 1));

    // The bytes arrive in time: what follows is as without.
    let mut wire = Wire::new();
    drop(written(&mut wire, Some(Duration::from_secs(2))));
    wire.run_for(Duration::from_secs(3));
    assert_eq!((wire.sockets(CLIENT).len(), wire.stack(SERVER).counters().resets_in), (1, 0));

    // Nothing arrives any more.
    let mut wire = Wire::new();
    let stream = written(&mut wire, Some(Duration::from_secs(2)));
    wire.loses = Box::new(|_| true);
    drop(stream);
    wire.run_for(Duration::from_millis(1_900));
    assert_eq!(wire.sockets(CLIENT).len(), 1);
    wire.run_for(Duration::from_millis(200));
    assert_eq!(wire.sockets(CLIENT).len(), 0);
}

#[test]
fn listener_is_refused_where_another_listens_and_at_addresses_that_are_not_ours() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    wire.run(SERVER, async move {
        let ours = Local::Address(address(SERVER, 0).ip());
        let first = sockets.listen_at(ours, 80, 1).expect("free");
        for local in [Local::Any, Local::Ipv4, ours] {
            assert_eq!(sockets.listen_at(local, 80, 1).map(|_| ()), Err(Error::AddressInUse), "{local:?}");
        }
        let _beside = sockets.listen_at(Local::Ipv6, 80, 1).expect("another family's");
        drop(first);
        let _again = sockets.listen_at(Local::Ipv4, 80, 1).expect("free again");
        let foreign = Local::Address(Ipv4Addr::new(10, 0, 0, 77).into());
        for (local, port) in [(foreign, 81), (Local::Any, 0)] {
            let refused = sockets.listen_at(local, port, 1).map(|_| ());
            assert_eq!(refused, Err(Error::AddressNotAvailable), "{local:?}");
        }
    });
}

#[test]
fn port_of_a_connection_in_time_wait_can_be_listened_on() {
    let narrow = Config { ephemeral_ports: 8_080..=8_080, ..crate::wire::config(CLIENT) };
    let mut wire = Wire::with([narrow, crate::wire::config(SERVER)]);
    echo(&wire, 7);
    let sockets = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut stream = sockets.connect(address(SERVER, 7)).await.expect("listening");
        stream.close_write();
        assert_eq!(stream.read(&mut [0; 1]).await, Ok(0));
    });
    wire.run_for(Duration::from_millis(100));
    assert_eq!(wire.stack(CLIENT).time_wait(), 1);
    let sockets = wire.sockets(CLIENT);
    wire.spawner(CLIENT).spawn(async move {
        let listener = sockets.listen(8_080, 1).expect("nobody has it");
        write_all(&mut listener.accept().await.expect("a client").0, b"hello").await.expect("room");
    });
    let sockets = wire.sockets(SERVER);
    let read = wire.run(SERVER, async move {
        sockets.sleep(Duration::from_millis(1)).await;
        let mut stream = sockets.connect(address(CLIENT, 8_080)).await.expect("listening");
        let mut hello = [0; 5];
        read_exact(&mut stream, &mut hello).await.map(|()| hello)
    });
    assert_eq!(read, Ok(*b"hello"));
}

//! Streams and listeners: what each call does, and when it waits.

use crate::wire::{CLIENT, SERVER, Wire, address, config, echo, pattern, read_to_end, write_all};
use exos_net::Duration;
use exos_sockets::{Error, SocketOption};
use std::cell::RefCell;
use std::rc::Rc;

/// More than both buffers and the window together.
const MUCH: usize = 2 << 20;

#[test]
fn echo_returns_all_bytes_over_a_wire_that_loses() {
    let mut wire = Wire::new();
    wire.loses = Box::new(|number| number % 50 == 7);
    let served = echo(&wire, 7);
    let sockets = wire.sockets(CLIENT);
    let spawner = wire.spawner(CLIENT);
    let echoed = wire.run(CLIENT, async move {
        let mut stream = sockets.connect(address(SERVER, 7)).await.expect("somebody listens");
        assert_eq!(stream.peer_addr(), address(SERVER, 7));
        let _ = &spawner;
        let (sent, mut echoed) = (pattern(MUCH), Vec::new());
        let mut buffer = [0; 10_000];
        for part in sent.chunks(20_000) {
            write_all(&mut stream, part).await.expect("open");
            while echoed.len() + 60_000 < part.as_ptr() as usize - sent.as_ptr() as usize {
                let len = stream.read(&mut buffer).await.expect("open");
                assert!(len > 0);
                echoed.extend_from_slice(&buffer[..len]);
            }
        }
        stream.close_write();
        echoed.extend(read_to_end(&mut stream).await.expect("in order"));
        echoed
    });
    assert!(echoed == pattern(MUCH));
    wire.run_for(Duration::from_secs(1));
    assert_eq!(served.get(), 1);
    assert!(wire.sockets(SERVER).is_empty() && wire.sockets(CLIENT).is_empty(), "nothing is left");
}

#[test]
fn writer_waits_for_a_reader_that_does_not_read() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    let served = Rc::new(RefCell::new(None));
    let slot = served.clone();
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen(9, 1).expect("free");
        *slot.borrow_mut() = Some(listener.accept().await.expect("a client").0);
        std::future::pending::<()>().await;
    });
    let sockets = wire.sockets(CLIENT);
    let written = Rc::new(RefCell::new(0));
    let count = written.clone();
    wire.spawner(CLIENT).spawn(async move {
        let mut stream = sockets.connect(address(SERVER, 9)).await.expect("somebody listens");
        let bytes = pattern(MUCH);
        while *count.borrow() < MUCH {
            let from = *count.borrow();
            let len = stream.write(&bytes[from..]).await.expect("open");
            *count.borrow_mut() += len;
        }
    });
    wire.run_for(Duration::from_secs(5));
    let blocked_at = *written.borrow();
    assert!(blocked_at < 600 << 10, "{blocked_at} bytes are somewhere");
    wire.run_for(Duration::from_secs(5));
    assert_eq!(*written.borrow(), blocked_at, "a writer that waits");

    let mut stream = served.borrow_mut().take().expect("connected");
    let all = wire.run(SERVER, async move { read_to_end(&mut stream).await });
    assert!(all.expect("in order") == pattern(MUCH));
}

#[test]
fn connect_to_a_closed_port_returns_refused() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(CLIENT);
    let result = wire.run(CLIENT, async move { sockets.connect(address(SERVER, 81)).await.map(|_| ()) });
    assert_eq!(result, Err(Error::Refused));
    assert!(wire.sockets(CLIENT).is_empty());
}

#[test]
fn connect_to_nobody_returns_unreachable() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(CLIENT);
    let nobody = "10.0.0.77:80".parse().expect("an address");
    let result = wire.run(CLIENT, async move { sockets.connect(nobody).await.map(|_| ()) });
    assert_eq!(result, Err(Error::Unreachable));
}

#[test]
fn connect_over_ipv6_without_it_returns_unreachable() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(CLIENT);
    let result = wire.run(CLIENT, async move {
        sockets.connect("[2001:db8::1]:80".parse().expect("an address")).await.map(|_| ())
    });
    assert_eq!(result, Err(Error::Unreachable));
}

#[test]
fn connect_beyond_the_stacks_places_returns_too_many() {
    let mut configuration = config(CLIENT);
    configuration.max_connections = 2;
    let mut wire = Wire::with([configuration, config(SERVER)]);
    echo(&wire, 7);
    let sockets = wire.sockets(CLIENT);
    let result = wire.run(CLIENT, async move {
        let first = sockets.connect(address(SERVER, 7)).await.expect("room");
        let second = sockets.connect(address(SERVER, 7)).await.expect("room");
        let third = sockets.connect(address(SERVER, 7)).await.map(|_| ());
        drop((first, second));
        third
    });
    assert_eq!(result, Err(Error::TooMany));
}

#[test]
fn listen_twice_returns_address_in_use_until_the_first_is_dropped() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    let first = sockets.listen(80, 1).expect("free");
    assert_eq!(first.port(), 80);
    assert_eq!(sockets.listen(80, 1).map(|_| ()).unwrap_err(), Error::AddressInUse);
    assert_eq!(sockets.listen(0, 1).map(|_| ()).unwrap_err(), Error::AddressNotAvailable);
    drop(first);
    let second = sockets.listen(80, 1).expect("free again");
    let clients = wire.sockets(CLIENT);
    wire.run(CLIENT, async move { clients.connect(address(SERVER, 80)).await.map(|_| ()) })
        .expect("listening");
    drop(second);
    let clients = wire.sockets(CLIENT);
    let result = wire.run(CLIENT, async move { clients.connect(address(SERVER, 80)).await.map(|_| ()) });
    assert_eq!(result, Err(Error::Refused), "nobody listens any more");
}

#[test]
fn connections_beyond_the_backlog_are_reset() {
    let mut wire = Wire::new();
    let listener = wire.sockets(SERVER).listen(80, 2).expect("free");
    let clients = wire.sockets(CLIENT);
    let ends = wire.run(CLIENT, async move {
        let mut ends = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(clients.connect(address(SERVER, 80)).await.expect("the handshake is the stack's"));
        }
        let late = clients.sleep(Duration::from_millis(50));
        late.await;
        for stream in &mut streams {
            ends.push(if stream.is_readable() { stream.read(&mut [0; 1]).await.err() } else { None });
        }
        ends
    });
    assert_eq!(ends, [None, None, Some(Error::Reset)]);
    drop(listener);
}

#[test]
fn dropping_a_listener_resets_who_was_not_accepted() {
    let mut wire = Wire::new();
    let listener = wire.sockets(SERVER).listen(80, 2).expect("free");
    let clients = wire.sockets(CLIENT);
    let mut stream =
        wire.run(CLIENT, async move { clients.connect(address(SERVER, 80)).await }).expect("listening");
    wire.run_for(Duration::from_millis(10));
    drop(listener);
    let result = wire.run(CLIENT, async move { stream.read(&mut [0; 1]).await });
    assert_eq!(result, Err(Error::Reset));
    assert!(wire.sockets(SERVER).is_empty());
}

#[test]
fn dropping_a_stream_with_unread_bytes_resets_it_and_one_without_closes_it() {
    for (sends, end) in [(true, Err(Error::Reset)), (false, Ok(0))] {
        let mut wire = Wire::new();
        let sockets = wire.sockets(SERVER);
        wire.spawner(SERVER).spawn(async move {
            let listener = sockets.listen(80, 1).expect("free");
            let (stream, _) = listener.accept().await.expect("a client");
            sockets.sleep(Duration::from_millis(20)).await;
            drop(stream);
            std::future::pending::<()>().await;
        });
        let clients = wire.sockets(CLIENT);
        let result = wire.run(CLIENT, async move {
            let mut stream = clients.connect(address(SERVER, 80)).await.expect("listening");
            if sends {
                write_all(&mut stream, b"unread").await.expect("open");
            }
            stream.read(&mut [0; 1]).await
        });
        assert_eq!(result, end);
    }
}

#[test]
fn bytes_for_a_stream_that_nobody_holds_reset_it() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen(80, 1).expect("free");
        drop(listener.accept().await.expect("a client"));
        std::future::pending::<()>().await;
    });
    let clients = wire.sockets(CLIENT);
    let result = wire.run(CLIENT, async move {
        let mut stream = clients.connect(address(SERVER, 80)).await.expect("listening");
        assert_eq!(stream.read(&mut [0; 1]).await, Ok(0), "closed in good order");
        write_all(&mut stream, b"is anybody there?").await.expect("half open");
        clients.sleep(Duration::from_millis(20)).await;
        stream.write(b"x").await
    });
    assert_eq!(result, Err(Error::Reset));
    assert!(wire.sockets(SERVER).is_empty());
}

#[test]
fn what_was_written_before_a_drop_arrives() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen(80, 1).expect("free");
        let (mut stream, _) = listener.accept().await.expect("a client");
        write_all(&mut stream, &pattern(100_000)).await.expect("open");
        drop(stream);
        std::future::pending::<()>().await;
    });
    let clients = wire.sockets(CLIENT);
    let all = wire.run(CLIENT, async move {
        let mut stream = clients.connect(address(SERVER, 80)).await.expect("listening");
        read_to_end(&mut stream).await
    });
    assert!(all.expect("in order") == pattern(100_000));
}

#[test]
fn closed_write_side_refuses_writes_and_reads_on() {
    let mut wire = Wire::new();
    echo(&wire, 7);
    let clients = wire.sockets(CLIENT);
    wire.run(CLIENT, async move {
        let mut stream = clients.connect(address(SERVER, 7)).await.expect("listening");
        write_all(&mut stream, b"last words").await.expect("open");
        stream.close_write();
        assert!(stream.is_writable(), "a write would not wait");
        assert_eq!(stream.write(b"x").await, Err(Error::BrokenPipe));
        assert_eq!(read_to_end(&mut stream).await.expect("in order"), b"last words");
    });
}

#[test]
fn aborted_stream_is_reset_at_the_peer() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    let end = Rc::new(RefCell::new(None));
    let slot = end.clone();
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen(80, 1).expect("free");
        let (mut stream, _) = listener.accept().await.expect("a client");
        *slot.borrow_mut() = Some(stream.read(&mut [0; 1]).await);
    });
    let clients = wire.sockets(CLIENT);
    let after = wire.run(CLIENT, async move {
        let mut stream = clients.connect(address(SERVER, 80)).await.expect("listening");
        clients.sleep(Duration::from_millis(10)).await;
        stream.abort();
        clients.sleep(Duration::from_millis(10)).await;
        stream.read(&mut [0; 1]).await
    });
    assert_eq!(*end.borrow(), Some(Err(Error::Reset)));
    assert_eq!(after, Err(Error::BrokenPipe));
}

#[test]
fn cancelled_connect_leaves_nothing() {
    let mut wire = Wire::new();
    let clients = wire.sockets(CLIENT);
    {
        let mut connecting = Box::pin(clients.connect("10.0.0.77:80".parse().expect("an address")));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(connecting.as_mut().poll(&mut context).is_pending());
        wire.run_for(Duration::from_millis(5));
        assert_eq!((clients.len(), wire.ends[CLIENT].stack().connections()), (1, 1));
    }
    wire.run_for(Duration::from_millis(5));
    assert_eq!((clients.len(), wire.ends[CLIENT].stack().connections()), (0, 0));
}

#[test]
fn many_streams_at_once_keep_their_bytes_apart() {
    let mut wire = Wire::new();
    let served = echo(&wire, 7);
    let done = Rc::new(RefCell::new(0));
    for client in 0..64u8 {
        let (sockets, done) = (wire.sockets(CLIENT), done.clone());
        wire.spawner(CLIENT).spawn(async move {
            let mut stream = sockets.connect(address(SERVER, 7)).await.expect("listening");
            for length in 1..40 {
                let bytes = vec![client; length * 37];
                write_all(&mut stream, &bytes).await.expect("open");
                let (mut echoed, mut buffer) = (0, [0; 900]);
                while echoed < bytes.len() {
                    let len = stream.read(&mut buffer).await.expect("open");
                    assert!(buffer[..len].iter().all(|&byte| byte == client));
                    echoed += len;
                }
            }
            *done.borrow_mut() += 1;
        });
    }
    wire.run_for(Duration::from_secs(10));
    assert_eq!(*done.borrow(), 64);
    assert_eq!(served.get(), 64);
    assert_eq!(wire.ends[CLIENT].tasks(), 0);
}

#[test]
fn last_bytes_of_a_connection_arrive_though_the_buffer_has_no_room_for_them() {
    let mut wire = Wire::new();
    let servers = wire.sockets(SERVER);
    wire.spawner(SERVER).spawn(async move {
        let listener = servers.listen(9, 1).expect("free");
        let (mut stream, _) = listener.accept().await.expect("a client");
        assert_eq!(read_to_end(&mut stream).await.expect("in order"), b"");
        // The end leaves with the bytes.
        write_all(&mut stream, &pattern(1_400)).await.expect("open");
    });
    let clients = wire.sockets(CLIENT);
    let got = wire.run(CLIENT, async move {
        let mut stream = clients.connect(address(SERVER, 9)).await.expect("listening");
        stream.set(SocketOption::ReceiveBuffer(1_000));
        stream.close_write();
        clients.sleep(Duration::from_secs(1)).await;
        read_to_end(&mut stream).await
    });
    assert!(got.expect("in order") == pattern(1_400));
}

#[test]
fn reader_in_place_sees_every_byte_once_and_none_at_the_end() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen(9, 1).expect("free");
        let (mut stream, _) = listener.accept().await.expect("a client");
        write_all(&mut stream, &pattern(MUCH)).await.expect("open");
    });
    let sockets = wire.sockets(CLIENT);
    let got = wire.run(CLIENT, async move {
        let mut stream = sockets.connect(address(SERVER, 9)).await.expect("somebody listens");
        let (mut got, mut copied) = (Vec::new(), [0; 777]);
        loop {
            // Some of it stays: for a reader that copies, or for the next one.
            let taken = stream.read_in_place(|bytes| {
                let taken = bytes.len().div_ceil(2);
                got.extend_from_slice(&bytes[..taken]);
                (taken, taken)
            });
            if taken.await.expect("in order") == 0 {
                return got;
            }
            if stream.is_readable() {
                let len = stream.read(&mut copied).await.expect("in order");
                got.extend_from_slice(&copied[..len]);
            }
        }
    });
    assert!(got == pattern(MUCH), "{} bytes", got.len());
}

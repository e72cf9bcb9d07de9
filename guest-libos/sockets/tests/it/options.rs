//! What a program chooses for a stream shows on the wire.

use crate::wire::{CLIENT, SERVER, Wire, address, pattern, write_all};
use exos_net::{Coalesce, Duration, KeepAlive};
use exos_sockets::{Error, SocketOption, TcpStream};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A server that notes when bytes arrive, in milliseconds.
fn arrivals(wire: &Wire) -> Rc<RefCell<Vec<(u64, usize)>>> {
    let sockets = wire.sockets(SERVER);
    let arrivals = Rc::new(RefCell::new(Vec::new()));
    let notes = arrivals.clone();
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen(80, 1).expect("free");
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut buffer = [0; 10_000];
        while let Ok(len @ 1..) = stream.read(&mut buffer).await {
            notes.borrow_mut().push((sockets.now().as_nanos() / 1_000_000, len));
        }
    });
    arrivals
}

/// Three small writes, a tenth of a millisecond apart.
fn small_writes(option: Option<SocketOption>) -> Vec<(u64, usize)> {
    let mut wire = Wire::new();
    let arrivals = arrivals(&wire);
    let (sockets, start) = (wire.sockets(CLIENT), Rc::new(Cell::new(0)));
    let begin = start.clone();
    wire.run(CLIENT, async move {
        let mut stream = sockets.connect(address(SERVER, 80)).await.expect("listening");
        option.into_iter().for_each(|option| stream.set(option));
        sockets.sleep(Duration::from_millis(10)).await;
        begin.set(sockets.now().as_nanos() / 1_000_000);
        for part in [1, 2, 3] {
            write_all(&mut stream, &pattern(part)).await.expect("open");
            sockets.sleep(Duration::from_micros(100)).await;
        }
        sockets.sleep(Duration::from_millis(500)).await;
    });
    let arrived = arrivals.borrow();
    arrived.iter().map(|&(at, len)| (at - start.get(), len)).collect()
}

#[test]
fn small_writes_leave_at_once_wait_for_acknowledgments_or_for_more() {
    let nodelay = small_writes(Some(SocketOption::Coalesce(Coalesce::NoDelay)));
    assert_eq!(nodelay, [(1, 1), (1, 2), (1, 3)]);
    // The first is acknowledged after the peer's 40 ms; then both others leave together.
    let nagle = small_writes(None);
    assert_eq!(nagle.iter().map(|&(_, len)| len).collect::<Vec<_>>(), [1, 5]);
    assert!(nagle[1].0 >= 40, "{nagle:?}");
    let cork = small_writes(Some(SocketOption::Coalesce(Coalesce::Cork)));
    assert_eq!(cork.len(), 1, "{cork:?}");
    assert_eq!(cork[0].1, 6);
}

/// What a client's stream ends with when the wire dies, and after how many milliseconds.
fn end_on_a_dead_wire(option: SocketOption, writes: bool) -> (Result<usize, Error>, u64) {
    let mut wire = Wire::new();
    let _arrivals = arrivals(&wire);
    let sockets = wire.sockets(CLIENT);
    let mut stream: TcpStream = wire.run(CLIENT, async move {
        let mut stream = sockets.connect(address(SERVER, 80)).await.expect("listening");
        stream.set(option);
        stream
    });
    wire.run_for(Duration::from_millis(100));
    wire.loses = Box::new(|_| true);
    let start = wire.now;
    let result = wire.run(CLIENT, async move {
        if writes {
            write_all(&mut stream, b"is anybody there?").await?;
        }
        stream.read(&mut [0; 1]).await
    });
    (result, wire.now.since(start).as_nanos() / 1_000_000)
}

#[test]
fn keep_alive_finds_a_peer_that_is_gone() {
    let keep_alive = KeepAlive { idle: Duration::from_secs(2), interval: Duration::from_secs(1), probes: 3 };
    let (end, ms) = end_on_a_dead_wire(SocketOption::KeepAlive(Some(keep_alive)), false);
    assert_eq!(end, Err(Error::TimedOut));
    assert!((4_800..5_200).contains(&ms), "{ms}");
}

#[test]
fn user_timeout_ends_a_write_that_nobody_acknowledges() {
    let (end, ms) = end_on_a_dead_wire(SocketOption::UserTimeout(Some(Duration::from_secs(3))), true);
    assert_eq!(end, Err(Error::TimedOut));
    // Looked at when the retransmission timer expires.
    assert!((3_000..7_000).contains(&ms), "{ms}");
}

#[test]
fn streams_begin_with_the_defaults_of_their_sockets_at_both_ends() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    sockets.set_defaults(&[SocketOption::ReceiveBuffer(1_000)]);
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen(80, 1).expect("free");
        let _held = listener.accept().await.expect("a client");
        std::future::pending::<()>().await;
    });
    let sockets = wire.sockets(CLIENT);
    sockets.set_defaults(&[SocketOption::SendBuffer(5_000)]);
    let written = Rc::new(Cell::new(0));
    let count = written.clone();
    wire.spawner(CLIENT).spawn(async move {
        let mut stream = sockets.connect(address(SERVER, 80)).await.expect("listening");
        loop {
            count.set(count.get() + stream.write(&pattern(1_000)).await.expect("open"));
        }
    });
    wire.run_for(Duration::from_secs(5));
    // The stack's window of 64 KiB and the two buffers.
    assert!((60_000..=65_535 + 1_000 + 5_000).contains(&written.get()), "{}", written.get());
}

#[test]
fn buffers_bound_what_a_writer_gets_rid_of() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(SERVER);
    wire.spawner(SERVER).spawn(async move {
        let listener = sockets.listen(80, 1).expect("free");
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.set(SocketOption::ReceiveBuffer(1_000));
        std::future::pending::<()>().await;
    });
    let sockets = wire.sockets(CLIENT);
    let written = Rc::new(Cell::new(0));
    let count = written.clone();
    wire.spawner(CLIENT).spawn(async move {
        let mut stream = sockets.connect(address(SERVER, 80)).await.expect("listening");
        stream.set(SocketOption::SendBuffer(5_000));
        loop {
            let len = stream.write(&pattern(1_000)).await.expect("open");
            count.set(count.get() + len);
        }
    });
    wire.run_for(Duration::from_secs(5));
    // The stack's window of 64 KiB, the two buffers, and what came with the handshake, before the server could choose.
    let most = 65_535 + 1_000 + 5_000 + 5_000;
    assert!((60_000..=most).contains(&written.get()), "{}", written.get());
}

//! Calls that wait.

use crate::wire::{CLIENT, SERVER, Wire, address, echo, pattern};
use embedded_io::{Read, Write};
use exos_net::Duration;
use exos_sockets::Error;
use exos_sockets::blocking::Network;

#[test]
fn blocking_client_writes_and_reads() {
    let mut wire = Wire::new();
    echo(&wire, 7);
    let sockets = wire.sockets(CLIENT);
    let end = wire.now + Duration::from_secs(60);
    let network = Network::new(sockets, move || assert!(wire.step(end), "nothing goes on"));
    let mut stream = network.connect(address(SERVER, 7)).expect("listening");
    let (sent, mut echoed) = (pattern(50_000), vec![0; 50_000]);
    stream.write_all(&sent).expect("open");
    stream.read_exact(&mut echoed).expect("all of it");
    assert!(echoed == sent);
    stream.close_write();
    assert_eq!(stream.read(&mut [0; 1]), Ok(0));
    assert_eq!(network.connect(address(SERVER, 8)).map(|_| ()).unwrap_err(), Error::Refused);
}

#[test]
fn blocking_server_accepts() {
    let mut wire = Wire::new();
    let sockets = wire.sockets(CLIENT);
    wire.spawner(CLIENT).spawn(async move {
        sockets.sleep(Duration::from_millis(5)).await;
        let mut stream = sockets.connect(address(SERVER, 7)).await.expect("listening");
        crate::wire::write_all(&mut stream, b"hello").await.expect("open");
        std::future::pending::<()>().await;
    });
    let sockets = wire.sockets(SERVER);
    let end = wire.now + Duration::from_secs(60);
    let network = Network::new(sockets, move || assert!(wire.step(end), "nothing goes on"));
    let listener = network.listen(7, 1).expect("free");
    let (mut stream, _) = listener.accept().expect("a client");
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).expect("all of it");
    assert_eq!(&hello, b"hello");
}

#[test]
fn blocking_datagrams_are_sent_awaited_and_refused() {
    let mut wire = Wire::new();
    let mut server = wire.sockets(SERVER).bind_udp(address(SERVER, 7)).expect("free");
    wire.spawner(SERVER).spawn(async move {
        let mut buffer = [0; 100];
        loop {
            let (len, from) = server.recv_from(&mut buffer).await.expect("nothing is wrong");
            server.send_to(&buffer[..len], from).await.expect("room");
        }
    });
    let sockets = wire.sockets(CLIENT);
    let end = wire.now + Duration::from_secs(60);
    let network = Network::new(sockets, move || assert!(wire.step(end), "nothing goes on"));
    let mut socket = network.bind_udp(address(CLIENT, 0)).expect("a port is free");
    assert_eq!(socket.send_to(b"hello", address(SERVER, 7)), Ok(5));
    let mut buffer = [0; 10];
    assert_eq!(socket.peek(&mut buffer[..2]).map(|peeked| peeked.datagram_bytes), Ok(5));
    assert_eq!(socket.recv_from(&mut buffer), Ok((5, address(SERVER, 7))));
    assert_eq!(&buffer[..5], b"hello");
    let mut refused = network.connect_udp(address(SERVER, 8)).expect("a port is free");
    assert_eq!(refused.send(b"hello"), Ok(5));
    assert_eq!(refused.recv(&mut buffer), Err(Error::Refused));
}

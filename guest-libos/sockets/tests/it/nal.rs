//! A program that knows only the ecosystem's traits.

use crate::wire::{CLIENT, SERVER, Wire, address, pattern};
use edge_nal::{Close, Readable, TcpAccept, TcpBind, TcpConnect, TcpShutdown, TcpSplit};
use embedded_io_async::{Read, Write};
use std::net::SocketAddr;

async fn serve<S: TcpBind>(stack: S, local: SocketAddr) {
    let acceptor = stack.bind(local).await.expect("free");
    let (_, mut socket) = acceptor.accept().await.expect("a client");
    {
        let (mut read, mut write) = socket.split();
        let mut buffer = [0; 700];
        loop {
            read.readable().await.expect("open");
            match read.read(&mut buffer).await.expect("open") {
                0 => break,
                len => write.write_all(&buffer[..len]).await.expect("open"),
            }
        }
        write.flush().await.expect("open");
    }
    socket.close(Close::Both).await.expect("open");
}

async fn ask<S: TcpConnect>(stack: S, remote: SocketAddr) -> Vec<u8> {
    let mut socket = stack.connect(remote).await.expect("listening");
    socket.write_all(&pattern(10_000)).await.expect("open");
    let mut echoed = vec![0; 10_000];
    socket.read_exact(&mut echoed).await.expect("all of it");
    socket.close(Close::Both).await.expect("open");
    echoed
}

#[test]
fn program_that_knows_only_the_traits_runs() {
    let mut wire = Wire::new();
    wire.spawner(SERVER).spawn(serve(wire.sockets(SERVER), address(SERVER, 7)));
    wire.run_for(exos_net::Duration::from_millis(1));
    let echoed = wire.run(CLIENT, ask(wire.sockets(CLIENT), address(SERVER, 7)));
    assert!(echoed == pattern(10_000));
}

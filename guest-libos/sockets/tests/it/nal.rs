//! A program that knows only the ecosystem's traits.

use crate::wire::{CLIENT, SERVER, Wire, address, pattern};
use edge_nal::{
    Close, MulticastV4, Readable, TcpAccept, TcpBind, TcpConnect, TcpShutdown, TcpSplit, UdpBind, UdpConnect,
    UdpReceive, UdpSend, UdpSplit, UdpSplitMulticast,
};
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

async fn serve_datagrams<S: UdpBind>(stack: S, local: SocketAddr) {
    let mut socket = stack.bind(local).await.expect("free");
    let (mut receive, mut send) = socket.split();
    let mut buffer = [0; 100];
    loop {
        receive.readable().await.expect("no error");
        let (len, from) = receive.receive(&mut buffer).await.expect("no error");
        send.send(from, &buffer[..len.min(100)]).await.expect("room");
    }
}

async fn ask_datagrams<S: UdpConnect>(stack: S, remote: SocketAddr) -> (usize, SocketAddr) {
    let any = "0.0.0.0:0".parse().expect("an address");
    let mut socket = stack.connect(any, remote).await.expect("a port is free");
    // It is connected: the address does not matter.
    UdpSend::send(&mut socket, any, &pattern(300)).await.expect("room");
    let mut small = [0; 10];
    let received = UdpReceive::receive(&mut socket, &mut small).await.expect("it comes back");
    assert_eq!(small, pattern(10)[..]);
    let (_, _, mut v4, _) = socket.split_multicast();
    let (group, any) = ([224, 0, 0, 251].into(), [0, 0, 0, 0].into());
    v4.join_v4(group, any).await.expect("a group");
    v4.join_v4(group, any).await.expect_err("it is in it");
    v4.leave_v4(group, any).await.expect("it is in it");
    received
}

#[test]
fn program_that_knows_only_the_traits_of_datagrams_runs() {
    let mut wire = Wire::new();
    wire.spawner(SERVER).spawn(serve_datagrams(wire.sockets(SERVER), address(SERVER, 7)));
    wire.run_for(exos_net::Duration::from_millis(1));
    let received = wire.run(CLIENT, ask_datagrams(wire.sockets(CLIENT), address(SERVER, 7)));
    assert_eq!(received, (100, address(SERVER, 7)), "the length is the datagram's, not the buffer's");
}

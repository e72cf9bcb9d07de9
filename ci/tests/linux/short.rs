//! Thousands of short connections, opened by either side, many at a time.

use crate::tap_port::{Faults, LINUX, OURS, start};
use crate::{PATIENCE, assert_nothing_is_left, patient, patterned};
use exovm_netns::in_namespace;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

const PORT: u16 = 7_000;
const CONNECTIONS: u32 = 3_000;
const AT_A_TIME: u32 = 32;

fn question(number: u32) -> Vec<u8> {
    patterned(u64::from(number), 0, 4 + number as usize % 200)
}

#[test]
fn thousands_of_connections_that_we_open() {
    in_namespace!(|| {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("free");
        let served = Arc::new(AtomicU32::new(0));
        for _ in 0..4 {
            let (listener, served) = (listener.try_clone().expect("a socket"), served.clone());
            thread::spawn(move || {
                while let Ok((socket, _)) = listener.accept() {
                    let mut socket = patient(socket);
                    let mut asked = Vec::new();
                    if socket.read_to_end(&mut asked).is_ok() && socket.write_all(&asked).is_ok() {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let running = start(
            Faults::default(),
            |_| (),
            |sockets, spawner| async move {
                let (begun, done) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
                for _ in 0..AT_A_TIME {
                    let (sockets, begun, done) = (sockets.clone(), begun.clone(), done.clone());
                    spawner.spawn(async move {
                        while begun.get() < CONNECTIONS {
                            let number = begun.replace(begun.get() + 1);
                            let mut stream = sockets.connect((LINUX, PORT).into()).await.expect("listening");
                            crate::write_all(&mut stream, &question(number)).await;
                            stream.close_write();
                            let mut answered = Vec::new();
                            let mut buffer = [0; 300];
                            while let len @ 1.. = stream.read(&mut buffer).await.expect("in order") {
                                answered.extend_from_slice(&buffer[..len]);
                            }
                            assert_eq!(answered, question(number));
                            done.set(done.get() + 1);
                        }
                    });
                }
                while done.get() < CONNECTIONS {
                    sockets.sleep(exos_net::Duration::from_millis(10)).await;
                }
            },
        );
        let ((), left) = running.join();
        assert_eq!(served.load(Ordering::Relaxed), CONNECTIONS);
        assert_eq!(left.counters.active_opens, u64::from(CONNECTIONS));
        assert_nothing_is_left(&left);
    });
}

#[test]
fn thousands_of_connections_that_the_kernel_opens() {
    in_namespace!(|| {
        let running = start(
            Faults::default(),
            |_| (),
            |sockets, spawner| async move {
                let listener = sockets.listen(PORT, AT_A_TIME as usize).expect("free");
                let done = Rc::new(Cell::new(0));
                for _ in 0..CONNECTIONS {
                    let (mut stream, _) = listener.accept().await.expect("a client");
                    let done = done.clone();
                    spawner.spawn(async move {
                        let mut asked = Vec::new();
                        let mut buffer = [0; 300];
                        while let len @ 1.. = stream.read(&mut buffer).await.expect("in order") {
                            asked.extend_from_slice(&buffer[..len]);
                        }
                        crate::write_all(&mut stream, &asked).await;
                        drop(stream);
                        done.set(done.get() + 1);
                    });
                }
                while done.get() < CONNECTIONS {
                    sockets.sleep(exos_net::Duration::from_millis(10)).await;
                }
            },
        );
        let numbers = Arc::new(AtomicU32::new(0));
        let clients: Vec<_> = (0..AT_A_TIME)
            .map(|_| {
                let numbers = numbers.clone();
                thread::spawn(move || {
                    loop {
                        let number = numbers.fetch_add(1, Ordering::Relaxed);
                        if number >= CONNECTIONS {
                            return;
                        }
                        let address = SocketAddr::from((OURS, PORT));
                        let mut socket =
                            patient(TcpStream::connect_timeout(&address, PATIENCE).expect("we listen"));
                        socket.write_all(&question(number)).expect("open");
                        socket.shutdown(std::net::Shutdown::Write).expect("open");
                        let mut answered = Vec::new();
                        socket.read_to_end(&mut answered).expect("no stall");
                        assert_eq!(answered, question(number));
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("all answered"));
        let ((), left) = running.join();
        assert_eq!(left.counters.opened, u64::from(CONNECTIONS));
        assert_nothing_is_left(&left);
    });
}

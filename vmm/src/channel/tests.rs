//! Clients that are slow, silent, dead or in the way, with a fake guest at the other end of the port.

use super::*;
use crate::device::virtio::console::BUFFER_BYTES;
use crate::device::virtio::test_utils::console::{BUFFER, Channel, Control, Queue};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc::channel;
use std::time::Instant;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A guest that has opened its console, and a client of that.
struct Scene {
    channel: Channel,
    control: Control,
    receive: Queue,
    transmit: Queue,
    clients: Arc<Clients>,
    client: UnixStream,
}

/// `linger_ms` as in [`AttachRequest`].
fn scene(linger_ms: u64) -> Scene {
    let mut channel = Channel::new();
    let mut control = Control::ready(&mut channel);
    let receive = Queue::bind(&mut channel, 0, 1);
    let transmit = Queue::bind(&mut channel, 1, 1);
    control.say(&mut channel, 0, 6, 1);
    let clients = Arc::new(Clients::new((0..3).map(|port| channel.host(port)).collect()));
    let request = AttachRequest { port: "console".to_owned(), linger_ms, ..AttachRequest::default() };
    let attached = clients.attach(&request).expect("open and free");
    let (client, theirs) = UnixStream::pair().expect("sockets");
    keep_little(&theirs);
    clients.start(attached, theirs, Vec::new()).expect("a thread");
    channel.work();
    Scene { channel, control, receive, transmit, clients, client }
}

/// A socket that holds little: how much exactly depends on how its bytes come, and shall not matter beside the port's buffer.
fn keep_little(socket: &UnixStream) {
    let bytes: libc::c_int = 4096;
    // SAFETY: the option takes an integer, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

impl Scene {
    /// The guest writes until nothing more is taken: the client's socket, the port and half of the ring are full. How much
    /// that is.
    fn fill(&mut self) -> usize {
        let (mut written, mut in_flight) = (0, 0);
        let mut last_taken = Instant::now();
        while last_taken.elapsed() < Duration::from_millis(200) {
            if in_flight < 32 {
                self.transmit.send(&self.channel, &[written as u8; BUFFER as usize]);
                written += BUFFER as usize;
                in_flight += 1;
            }
            self.channel.work();
            let taken = self.transmit.driver.all_used().len();
            in_flight -= taken;
            if taken > 0 {
                last_taken = Instant::now();
            }
        }
        written
    }

    /// Ends the clients, which must not take long.
    fn end(&self) {
        let clients = Arc::clone(&self.clients);
        let (ended, wait) = channel();
        std::thread::spawn(move || {
            clients.end();
            let _ = ended.send(());
        });
        assert!(wait.recv_timeout(PATIENCE / 2).is_ok(), "a client holds up the machine's end");
    }
}

#[test]
fn slow_client_gets_all_that_a_guest_wrote_before_it_closed_the_port() {
    // As much as the client's socket and half of the port hold, so that the guest can close it.
    let room = scene(0).fill() - 32 * BUFFER as usize - BUFFER_BYTES / 2;
    let mut scene = scene(0);
    let mut written = 0;
    let begun = Instant::now();
    while written < room {
        scene.transmit.send(&scene.channel, &[7; BUFFER as usize]);
        written += BUFFER as usize;
        while scene.transmit.driver.all_used().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{written} of {room} bytes");
            scene.channel.work();
        }
    }
    scene.control.say(&mut scene.channel, 0, 6, 0);
    // Time for the client's thread to see that there is nobody any more.
    std::thread::sleep(Duration::from_millis(50));
    let mut bytes = Vec::new();
    scene.client.read_to_end(&mut bytes).expect("connected");
    assert_eq!(bytes.len(), written);
}

#[test]
fn client_that_does_not_read_holds_up_the_end_of_the_machine_only_briefly() {
    let mut scene = scene(0);
    scene.fill();
    scene.end();
    let refused =
        scene.clients.attach(&AttachRequest { port: "control".to_owned(), ..AttachRequest::default() });
    assert!(matches!(refused, Err(ClientError::Ended)));
}

#[test]
fn port_of_a_client_that_has_died_is_free_at_once_however_long_it_wanted_to_linger() {
    let scene = scene(60_000);
    drop(scene.client);
    let begun = Instant::now();
    let request = AttachRequest { port: "console".to_owned(), ..AttachRequest::default() };
    while scene.clients.attach(&request).is_err() {
        assert!(begun.elapsed() < PATIENCE, "it is still taken");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn flooding_client_is_read_no_faster_than_the_guest_takes_it() {
    const ROUNDS: usize = 300;
    let mut scene = scene(0);
    scene.client.set_nonblocking(true).expect("a socket");
    let mut written = 0;
    for _ in 0..ROUNDS {
        scene.receive.give(1);
        scene.channel.work();
        scene.receive.received(&scene.channel);
        std::thread::sleep(Duration::from_millis(1));
        loop {
            match scene.client.write(&[0x55; 8192]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    let taken = ROUNDS * BUFFER as usize;
    assert!(
        written > taken && written < taken + (1 << 20),
        "{written} bytes, of which the guest took {taken}"
    );
}

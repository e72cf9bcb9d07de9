//! Much at once, and question and answer, in both directions, opened by either side, with each congestion control of the kernel's
//! and each of ours, over a good wire and over a bad one.

use crate::tap_port::{Faults, LINUX, Left, OURS, interface, start};
use crate::{
    assert_nothing_is_left, patient, patterned, read_and_compare, read_and_compare_ours,
    until_the_kernel_has_none, write_all,
};
use exos_net::CongestionControl;
use exos_sockets::{Sockets, TcpStream};
use exovm_netns::in_namespace;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const PORT: u16 = 7_000;
/// A megabyte and a little, several windows; over a good wire several times that.
const BAD_BYTES: usize = (1 << 20) + 12_345;
const GOOD_BYTES: usize = 8 * BAD_BYTES;
const EXCHANGES: usize = 200;

const BAD: Faults =
    Faults { lost: 10, repeated: 10, held: 20, delay_ms: 2, hold_ms: 3, seed: 7, ..Faults::NONE };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opens {
    We,
    Linux,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// We send, the kernel reads.
    Out,
    /// The kernel sends, we read.
    In,
    /// Both send at once.
    Both,
    /// Questions of any size and answers of another, one after the other.
    Exchange,
}

/// A stream of ours, opened by whom.
pub(crate) async fn ours(sockets: &Sockets, opens: Opens) -> TcpStream {
    match opens {
        Opens::We => sockets.connect((LINUX, PORT).into()).await.expect("the kernel listens"),
        Opens::Linux => sockets.listen(PORT, 1).expect("free").accept().await.expect("the kernel comes").0,
    }
}

/// The kernel's socket of the same connection.
pub(crate) fn kernels(listener: Option<TcpListener>) -> std::net::TcpStream {
    patient(match listener {
        Some(listener) => listener.accept().expect("we come").0,
        None => {
            std::net::TcpStream::connect_timeout(&SocketAddr::from((OURS, PORT)), Duration::from_secs(30))
                .expect("we listen")
        }
    })
}

/// What the kernel's socket really uses.
fn congestion_control_of(socket: &std::net::TcpStream) -> String {
    let (mut name, mut len) = ([0u8; 16], 16);
    // SAFETY: name and length live through the call, and the kernel writes no more than the length says.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_mut_ptr().cast(),
            &mut len,
        )
    };
    assert_eq!(result, 0);
    String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
}

fn question(number: usize) -> usize {
    1 + number * 7_919 % 3_000
}

fn answer(number: usize) -> usize {
    1 + number * 104_729 % 20_000
}

pub(crate) async fn our_part(sockets: Sockets, opens: Opens, traffic: Traffic, bytes: usize) {
    let mut stream = ours(&sockets, opens).await;
    match traffic {
        Traffic::Out | Traffic::Both => {
            // What comes meanwhile waits in the buffers: they are smaller, so both sides must keep up in turn.
            let mut received = 0;
            for part in 0..bytes.div_ceil(50_000) {
                let from = part * 50_000;
                write_all(&mut stream, &patterned(1, from, 50_000.min(bytes - from))).await;
                while traffic == Traffic::Both && received < from {
                    let mut buffer = vec![0; 50_000];
                    let len = stream.read(&mut buffer).await.expect("in order");
                    assert!(len > 0, "the end after {received} bytes");
                    assert_eq!(crate::difference(2, received, &buffer[..len]), None);
                    received += len;
                }
            }
            stream.close_write();
            let mut rest = vec![0; 50_000];
            while let len @ 1.. = stream.read(&mut rest).await.expect("in order") {
                assert_eq!(crate::difference(2, received, &rest[..len]), None);
                received += len;
            }
            assert_eq!(received, if traffic == Traffic::Both { bytes } else { 0 });
        }
        Traffic::In => assert_eq!(read_and_compare_ours(&mut stream, 2).await, bytes),
        Traffic::Exchange => {
            stream.set_nodelay(true);
            for number in 0..EXCHANGES {
                write_all(&mut stream, &patterned(number as u64, 0, question(number))).await;
                let (mut at, mut buffer) = (0, vec![0; 4_096]);
                while at < answer(number) {
                    let len = stream.read(&mut buffer).await.expect("in order");
                    assert_eq!(crate::difference(number as u64, at, &buffer[..len]), None);
                    at += len;
                }
            }
        }
    }
}

pub(crate) fn kernels_part(mut socket: std::net::TcpStream, traffic: Traffic, bytes: usize) {
    match traffic {
        Traffic::Out => assert_eq!(read_and_compare(&mut socket, 1), bytes),
        Traffic::In => {
            socket.write_all(&patterned(2, 0, bytes)).expect("no stall");
            socket.shutdown(std::net::Shutdown::Write).expect("open");
            assert_eq!(socket.read(&mut [0; 1]).expect("no stall"), 0);
        }
        Traffic::Both => {
            let mut writer = socket.try_clone().expect("a socket");
            let writing = thread::spawn(move || {
                writer.write_all(&patterned(2, 0, bytes)).expect("no stall");
                writer.shutdown(std::net::Shutdown::Write).expect("open");
            });
            assert_eq!(read_and_compare(&mut socket, 1), bytes);
            writing.join().expect("wrote it all");
        }
        Traffic::Exchange => {
            socket.set_nodelay(true).expect("a socket");
            for number in 0..EXCHANGES {
                let mut asked = vec![0; question(number)];
                socket.read_exact(&mut asked).expect("no stall");
                assert_eq!(crate::difference(number as u64, 0, &asked), None);
                socket.write_all(&patterned(number as u64, 0, answer(number))).expect("no stall");
            }
            assert_eq!(socket.read(&mut [0; 1]).expect("no stall"), 0);
        }
    }
}

/// One cell of the matrix. Answers how long it took and what we counted.
fn cell(
    kernels_control: &str,
    control: CongestionControl,
    opens: Opens,
    traffic: Traffic,
    faults: Faults,
) -> (Duration, Left) {
    interface()
        .set_route_congestion_control(LINUX, 24, kernels_control)
        .expect("a congestion control of the kernel's");
    let bytes = if faults.are_none() { GOOD_BYTES } else { BAD_BYTES };
    let listener = (opens == Opens::We).then(|| TcpListener::bind(("0.0.0.0", PORT)).expect("free"));
    let began = Instant::now();
    let running = start(
        faults,
        move |config| config.congestion = control,
        move |sockets, _| async move {
            our_part(sockets.clone(), opens, traffic, bytes).await;
            // Our last acknowledgment may have been lost: the kernel asks for it again.
            until_the_kernel_has_none(&sockets).await;
        },
    );
    let socket = kernels(listener);
    assert_eq!(congestion_control_of(&socket), kernels_control);
    kernels_part(socket, traffic, bytes);
    let took = began.elapsed();
    let ((), left) = running.join();
    assert_nothing_is_left(&left);
    (took, left)
}

/// All cells with one congestion control of the kernel's, as a row each.
fn matrix(kernels_control: &'static str) {
    println!("kernel with {kernels_control}: MB/s or exchanges/s, and what we sent again");
    for control in [CongestionControl::Cubic, CongestionControl::NewReno] {
        for (wire, faults) in [("good", Faults::default()), ("bad", BAD)] {
            for opens in [Opens::We, Opens::Linux] {
                let mut row = format!("  {control:?}, {wire} wire, opened by {opens:?}:");
                for traffic in [Traffic::Out, Traffic::In, Traffic::Both, Traffic::Exchange] {
                    let (took, left) = cell(kernels_control, control, opens, traffic, faults);
                    let bytes = if faults.are_none() { GOOD_BYTES } else { BAD_BYTES };
                    let rate = match traffic {
                        Traffic::Exchange => format!("{:.0}/s", EXCHANGES as f64 / took.as_secs_f64()),
                        _ => format!("{:.1} MB/s", bytes as f64 / took.as_secs_f64() / 1e6),
                    };
                    row += &format!("  {traffic:?} {rate} ({})", left.counters.retransmits);
                    let lossless = faults.are_none();
                    assert!(!lossless || left.counters.timeouts == 0, "{row}: a timeout on a good wire");
                }
                println!("{row}");
            }
        }
    }
}

#[test]
fn kernel_with_cubic_and_we_exchange_every_byte() {
    in_namespace!(|| matrix("cubic"));
}

#[test]
fn kernel_with_reno_and_we_exchange_every_byte() {
    in_namespace!(|| matrix("reno"));
}

#[test]
fn kernel_with_bbr_and_we_exchange_every_byte() {
    in_namespace!(|| matrix("bbr"));
}

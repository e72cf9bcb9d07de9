//! Two threads at a link: nothing is lost, nobody sleeps for good, and while both are at work nobody asks the kernel.

use super::nics::{BUFFER_BYTES, FRAMES};
use super::*;
use crate::device::virtio::test_utils::nic::{Nic, buffer_gpa, give_buffers};
use crate::device::virtio::test_utils::{Driver, Piece};
use crate::placement::wait::{Interest, wait};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Sends a frame, and sleeps where it finds no room.
fn send_all(end: &mut End, frames: u64, pause_every: u64) {
    for number in 0..frames {
        let frame = frame(1, 2, &number.to_le_bytes());
        if pause_every != 0 && number % pause_every == 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
        loop {
            match send(end, &frame) {
                Written::Sent => break,
                Written::Busy => std::hint::spin_loop(),
                Written::WouldBlock => sleep(end, Awaited { frames: false, room: true }),
                Written::Dropped => panic!("frame {number} was dropped"),
            }
        }
    }
}

/// Sleeps as device work does. Much longer than any wake-up takes: a lost one fails the test.
fn sleep(end: &mut End, awaited: Awaited) {
    if !end.arm(awaited) {
        let fd = end.event_fd().expect("links have events");
        let woken = wait(&[(fd, Interest::Readable)], Some(Duration::from_secs(20)));
        assert_eq!(woken, 1, "nobody woke this side");
    }
    end.disarm();
}

fn receive_all(end: &mut End, frames: u64) {
    for number in 0..frames {
        let got = loop {
            match receive(end) {
                Some(got) => break got,
                None => sleep(end, Awaited { frames: true, room: false }),
            }
        };
        assert_eq!(got, frame(1, 2, &number.to_le_bytes()));
    }
}

#[test]
fn no_wakeup_is_lost_between_threads_that_sleep_all_the_time() {
    for pause_every in [0, 1, 7] {
        let [first, second] = pair().expect("a pair");
        let (mut a, mut b) = (first.plug().expect("free"), second.plug().expect("free"));
        let frames = if pause_every == 0 { 100_000 } else { 3000 };
        std::thread::scope(|scope| {
            scope.spawn(|| send_all(&mut a, frames, pause_every));
            receive_all(&mut b, frames);
        });
        assert_eq!(counter(&b, "link_received_frames"), frames);
    }
}

#[test]
fn ends_that_come_and_go_under_load_break_nothing() {
    let [first, second] = pair().expect("a pair");
    let mut a = first.plug().expect("free");
    let until = Instant::now() + Duration::from_millis(300);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let large = frame(1, 2, &[3; 3000]);
            while Instant::now() < until {
                if send(&mut a, &large) == Written::WouldBlock {
                    std::thread::yield_now();
                }
            }
        });
        let mut times = 0;
        while Instant::now() < until {
            let mut b = second.plug().expect("free again");
            for _ in 0..5 {
                if let Some(got) = receive(&mut b) {
                    assert_eq!(got, frame(1, 2, &[3; 3000]), "a whole frame, or none");
                }
            }
            times += 1;
            drop(b);
            std::thread::sleep(Duration::from_micros(100));
        }
        assert!(times > 20, "{times}");
    });
    assert!(counter(&a, "link_dropped_down") > 0);
}

/// A guest that sends as fast as it can, and takes what comes.
struct Busy<B: Backend> {
    nic: Nic<B>,
    transmit: Driver,
    receive: Driver,
    frame_bytes: u32,
    received: u64,
    /// Buffers given.
    given: u64,
}

/// Frames that a guest has under way, and buffers that it has given. They lie below the frame that it sends.
const UNDER_WAY: u64 = 32;
const BUFFERS: u64 = 48;
const _: () = assert!(BUFFERS * BUFFER_BYTES as u64 <= FRAMES);

impl<B: Backend> Busy<B> {
    fn with_frame(backend: B, frame: &[u8]) -> Self {
        let mut nic = Nic::with_backend(backend, !0);
        let (mut receive, transmit) = (nic.bind(0, 1), nic.bind(1, 1));
        nic.guest.write(buffer_gpa(1, FRAMES), frame);
        give_buffers(&mut receive, buffer_gpa(1, 0), BUFFER_BYTES, BUFFERS);
        Self { nic, transmit, receive, frame_bytes: frame.len() as u32, received: 0, given: BUFFERS }
    }

    /// The guest sends as much as it may.
    fn send(&mut self) {
        while self.transmit.next_used().is_some() {}
        while u64::from(self.transmit.available.wrapping_sub(self.transmit.used)) < UNDER_WAY {
            self.transmit.add(&[Piece::out(buffer_gpa(1, FRAMES), self.frame_bytes)]);
        }
    }

    /// The guest takes what came, and gives the buffers again.
    fn receive(&mut self) {
        let buffers_of_a_frame = u64::from(self.frame_bytes.div_ceil(BUFFER_BYTES));
        let mut taken = 0;
        while self.receive.next_used().is_some() {
            let buffer = self.given % BUFFERS;
            self.receive.add(&[Piece::into(buffer_gpa(1, buffer * u64::from(BUFFER_BYTES)), BUFFER_BYTES)]);
            self.given += 1;
            taken += 1;
        }
        // Whole frames only are shown.
        self.received += taken / buffers_of_a_frame;
    }

    /// Device work.
    fn work(&mut self) {
        self.nic.work();
    }

    fn round(&mut self) {
        self.send();
        self.receive();
        self.work();
    }
}

/// From now on a system call of this thread is the end of the process (seccomp(2)). Where the host's vDSO has no clock, reading
/// the clock is one; that is the host's business.
fn forbid_system_calls() {
    const ALLOWED: [libc::c_long; 2] = [libc::SYS_clock_gettime, libc::SYS_exit_group];
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (number, allowed) in ALLOWED.into_iter().enumerate() {
        let to_allow = (ALLOWED.len() - number) as u8;
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, allowed as u32, to_allow, 0));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS, 0, 0));
    program.push(step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the filter and its program live through the call, which copies them.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// What the child does in place of the test: two threads, which may ask the kernel for nothing once they have warmed up.
fn busy_without_system_calls() -> ! {
    const WARM: u64 = 2000;
    const MEASURED: u64 = 300_000;
    let ports = pair().expect("a pair");
    let (ready, done, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for port in &ports {
            let mut busy = Busy::with_frame(port.plug().expect("free"), &frame(1, 2, &[7; 1400]));
            let (ready, done, over) = (&ready, &done, &over);
            scope.spawn(move || {
                while busy.received < WARM {
                    busy.round();
                }
                ready.fetch_add(1, Ordering::SeqCst);
                while ready.load(Ordering::SeqCst) < 2 {
                    busy.round();
                }
                let (in_place, queued) = busy.nic.function.device().backend().sent();
                forbid_system_calls();
                while busy.received < WARM + MEASURED {
                    busy.round();
                }
                done.fetch_add(1, Ordering::SeqCst);
                while !over.load(Ordering::SeqCst) {
                    busy.round();
                }
                // No return: ending a thread is a system call.
                let (in_place_after, queued_after) = busy.nic.function.device().backend().sent();
                if in_place_after - in_place < MEASURED / 2 || queued_after != queued {
                    // SAFETY: ends the process, and returns never.
                    unsafe { libc::_exit(3) };
                }
                done.fetch_add(1, Ordering::SeqCst);
                loop {
                    std::hint::spin_loop();
                }
            });
        }
        while done.load(Ordering::SeqCst) < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        over.store(true, Ordering::SeqCst);
        while done.load(Ordering::SeqCst) < 4 {
            std::thread::sleep(Duration::from_millis(5));
        }
        // SAFETY: ends the process, and returns never.
        unsafe { libc::_exit(0) }
    })
}

#[test]
fn two_busy_guests_exchange_frames_without_a_system_call() {
    const CHILD: &str = "EXOVM_TEST_WITHOUT_SYSTEM_CALLS";
    if std::env::var_os(CHILD).is_some() {
        busy_without_system_calls();
    }
    let name = "backend::link::tests::threads::two_busy_guests_exchange_frames_without_a_system_call";
    let status = Command::new(std::env::current_exe().expect("this program"))
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .status()
        .expect("a child");
    // 31 is SIGSYS: a thread asked the kernel for something. 3: frames did not go straight into the other's buffers.
    assert_eq!((status.code(), std::os::unix::process::ExitStatusExt::signal(&status)), (Some(0), None));
}

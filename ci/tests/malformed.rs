//! Malformed virtqueues. The rings lie in guest memory, so the test plays a driver gone wrong by writing into them: that
//! queue stops, with a reason in the log, and neither the machine nor the VMM nor another machine does.

use abi::layout::MMIO_GPA;
use exovm::device::pci::PciFunction;
use exovm::device::virtio::QueueState;
use exovm::device::virtio::pci::offset;
use exovm::machine::End;
use exovm::placement::IoMode;
use exovm_ci::http::exchange;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// Queues of the first pair (VIRTIO 1.3 5.1.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A queue of a running guest, as its driver sees it.
struct Rings<'a> {
    guest: &'a Guest,
    queue: u16,
    size: u16,
    descriptors_gpa: u64,
    available_gpa: u64,
}

impl<'a> Rings<'a> {
    /// Asks the device where they are, as a driver could.
    fn of(guest: &'a Guest, queue: u16) -> Self {
        let mut nic = guest.machine().placement().nic().expect("a NIC");
        nic.bar_write(offset::QUEUE_SELECT as u64, &queue.to_le_bytes());
        let mut size = [0; 2];
        nic.bar_read(offset::QUEUE_SIZE as u64, &mut size);
        let mut address = |at: usize| {
            let mut halves = [[0; 4]; 2];
            nic.bar_read(at as u64, &mut halves[0]);
            nic.bar_read(at as u64 + 4, &mut halves[1]);
            u64::from(u32::from_le_bytes(halves[0])) | u64::from(u32::from_le_bytes(halves[1])) << 32
        };
        let descriptors_gpa = address(offset::QUEUE_DESC);
        let available_gpa = address(offset::QUEUE_DRIVER);
        Self { guest, queue, size: u16::from_le_bytes(size), descriptors_gpa, available_gpa }
    }

    fn write<T: vm_memory::ByteValued>(&self, gpa: u64, value: T) {
        self.guest.machine().memory().write_obj(value, GuestAddress(gpa)).expect("rings lie in memory");
    }

    fn available_index(&self) -> u16 {
        let index = GuestAddress(self.available_gpa + 2);
        self.guest.machine().memory().read_obj(index).expect("rings lie in memory")
    }

    fn set_available_index(&self, index: u16) {
        self.write(self.available_gpa + 2, index);
    }

    fn set_descriptor(&self, index: u16, gpa: u64, len: u32, flags: u16, next: u16) {
        let at = self.descriptors_gpa + 16 * u64::from(index);
        self.write(at, gpa);
        self.write(at + 8, len);
        self.write(at + 12, flags);
        self.write(at + 14, next);
    }

    /// Makes a chain available that begins at this descriptor.
    fn offer(&self, head: u16) {
        let index = self.available_index();
        self.write(self.available_gpa + 4 + 2 * u64::from(index % self.size), head);
        self.set_available_index(index.wrapping_add(1));
    }

    /// The buffer of a descriptor as it is.
    fn buffer_gpa(&self, index: u16) -> u64 {
        let at = GuestAddress(self.descriptors_gpa + 16 * u64::from(index));
        self.guest.machine().memory().read_obj(at).expect("rings lie in memory")
    }

    fn state(&self) -> QueueState {
        self.guest.machine().placement().nic().expect("a NIC").queue_states()[usize::from(self.queue)]
    }

    /// Sabotages the queue and has the device look at it, until it has stopped it: a guest that was not quite idle may
    /// have written over the sabotage. Gives back the reason.
    fn reason_of_stop(&self, sabotage: impl Fn(&Self)) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            sabotage(self);
            // Any frame makes the device work; nobody expects an answer.
            let _ = exchange(self.guest.address(), b"", Duration::from_millis(20));
            if let QueueState::Stopped(reason) = self.state() {
                return reason.to_string();
            }
        }
        panic!("queue {} is still {:?}", self.queue, self.state());
    }

    /// Keeps the available index half its range away from where it is while frames come, until the device stops the queue. The
    /// driver of a receive queue writes the index with every frame, so a sabotage that is done once may be gone before the
    /// device looks, which it does when it has used up what it knows of.
    fn reason_of_stop_by_a_far_index(&self) -> String {
        let far = self.available_index().wrapping_add(1 << 15);
        let stopped = AtomicBool::new(false);
        let address = self.guest.address();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    let _ = exchange(address, b"", Duration::from_millis(20));
                }
            });
            let deadline = Instant::now() + Duration::from_secs(60);
            let reason = loop {
                self.set_available_index(far);
                if let QueueState::Stopped(reason) = self.state() {
                    break Some(reason.to_string());
                }
                if Instant::now() > deadline {
                    break None;
                }
            };
            stopped.store(true, Ordering::Relaxed);
            reason.unwrap_or_else(|| panic!("queue {} is still {:?}", self.queue, self.state()))
        })
    }
}

/// A page that is the kernel's: the VMM places kernel, tables and pages at the bottom of memory.
const KERNEL_PAGE_GPA: u64 = 0x1000;

type Sabotage = fn(&Rings<'_>);

/// What a driver can do wrong on the transmit queue, and what the log must say.
const TRANSMIT_SABOTAGE: &[(Sabotage, &str)] = &[
    (|rings| rings.set_available_index(rings.available_index().wrapping_add(rings.size + 1)), "runs ahead"),
    (|rings| rings.set_available_index(rings.available_index().wrapping_sub(1)), "runs ahead"),
    (|rings| rings.offer(rings.size), "does not exist"),
    (|rings| rings.offer(u16::MAX), "does not exist"),
    (
        |rings| {
            rings.set_descriptor(0, rings.buffer_gpa(0), 64, NEXT, 0);
            rings.offer(0);
        },
        "a chain has more than",
    ),
    (
        |rings| {
            rings.set_descriptor(0, rings.buffer_gpa(0), 64, NEXT, rings.size);
            rings.offer(0);
        },
        "does not exist",
    ),
    (
        |rings| {
            rings.set_descriptor(0, KERNEL_PAGE_GPA, 64, 0, 0);
            rings.offer(0);
        },
        "DMA domain for reading",
    ),
    (
        |rings| {
            rings.set_descriptor(0, MMIO_GPA, 64, 0, 0);
            rings.offer(0);
        },
        "DMA domain for reading",
    ),
    (
        |rings| {
            rings.set_descriptor(0, u64::MAX - 10, 64, 0, 0);
            rings.offer(0);
        },
        "DMA domain for reading",
    ),
    (
        |rings| {
            rings.set_descriptor(0, rings.descriptors_gpa, u32::MAX, 0, 0);
            rings.offer(0);
        },
        "",
    ),
    (
        |rings| {
            rings.set_descriptor(0, rings.descriptors_gpa, 0, 0, 0);
            rings.offer(0);
        },
        "length 0",
    ),
    (
        |rings| {
            rings.set_descriptor(0, rings.descriptors_gpa, 64, WRITE, 0);
            rings.offer(0);
        },
        "for the device to write",
    ),
    (
        |rings| {
            rings.set_descriptor(0, rings.descriptors_gpa, 5, 0, 0);
            rings.offer(0);
        },
        "less than",
    ),
    (
        |rings| {
            rings.set_descriptor(0, rings.descriptors_gpa, 17, INDIRECT, 0);
            rings.offer(0);
        },
        "indirect",
    ),
    (
        |rings| {
            rings.set_descriptor(0, KERNEL_PAGE_GPA, 32, INDIRECT, 0);
            rings.offer(0);
        },
        "DMA domain",
    ),
];

fn site() -> Site {
    Site::new().file("index.html", "home")
}

/// Lets the sabotage happen to a guest that was just served, and is idle.
fn stops_its_queue(queue: u16, sabotage: impl Fn(&Rings<'_>) -> String, expected: &str) {
    let guest = Guest::image("cheetah").site(&site()).tap(0).start();
    assert_eq!(guest.get("/").text(), "home");
    std::thread::sleep(Duration::from_millis(20));
    let rings = Rings::of(&guest, queue);
    assert!(matches!(rings.state(), QueueState::Running { environment: 0 }), "{:?}", rings.state());
    let reason = sabotage(&rings);
    assert!(reason.contains(expected), "{reason:?} should say {expected:?}");
    let stopped = guest.machine().account().nic_counter("queues stopped");
    assert_eq!(stopped, Some(1), "only that queue");
    assert_eq!(guest.machine().wait(Some(Duration::ZERO)), None, "the machine runs");
    guest.stop();
}

#[test]
fn malformed_transmit_queue_stops_with_its_reason() {
    in_namespace!(|| {
        for (sabotage, expected) in TRANSMIT_SABOTAGE {
            stops_its_queue(TRANSMIT, |rings| rings.reason_of_stop(sabotage), expected);
        }
    });
}

#[test]
fn malformed_receive_queue_stops_with_its_reason() {
    in_namespace!(|| {
        stops_its_queue(RECEIVE, |rings| rings.reason_of_stop_by_a_far_index(), "runs ahead");
    });
}

/// Everything that is traced, as text.
#[derive(Clone, Default)]
struct Traced(Arc<Mutex<Vec<u8>>>);

impl Write for Traced {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn malformed_queue_is_logged_once_and_harms_no_other_machine() {
    in_namespace!(|| {
        let traced = Traced::default();
        let writer = traced.clone();
        tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).init();
        let victim = Guest::image("cheetah").site(&site()).tap(0).start();
        let bystander = Guest::image("cheetah").site(&site()).tap(1).start();
        assert_eq!(victim.get("/").text(), "home");
        let rings = Rings::of(&victim, TRANSMIT);
        rings.reason_of_stop(|rings| rings.offer(u16::MAX));
        // It does not answer any more; the other one does.
        let silence =
            exchange(victim.address(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Duration::from_millis(200));
        assert!(silence.is_err() || silence.is_ok_and(|bytes| bytes.is_empty()));
        for _ in 0..100 {
            assert_eq!(bystander.get("/").text(), "home");
        }
        victim.stop();
        bystander.stop();
        let text = String::from_utf8(traced.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("queue stopped")).collect();
        assert_eq!(lines.len(), 1, "one line says it: {text}");
        for part in ["ERROR", "queue=1", "environment=0", "descriptor 65535 does not exist"] {
            assert!(lines[0].contains(part), "{part}: {text}");
        }
    });
}

#[test]
fn scribbled_rings_never_stop_the_vmm() {
    in_namespace!(|| {
        use std::io::Read;
        let mut noise = exovm_ci::site::Pattern::new(99);
        for mode in [IoMode::Turn, IoMode::Thread] {
            for round in 0..6 {
                let guest = Guest::image("cheetah").site(&site()).io(mode).start();
                assert_eq!(guest.get("/").text(), "home");
                for queue in [TRANSMIT, RECEIVE] {
                    let rings = Rings::of(&guest, queue);
                    let len = 16 * usize::from(rings.size);
                    let mut bytes = vec![0; len];
                    noise.read_exact(&mut bytes).unwrap();
                    let memory = guest.machine().memory();
                    memory.write_slice(&bytes, GuestAddress(rings.descriptors_gpa)).unwrap();
                    if round % 2 == 0 {
                        let some = &bytes[..2 * usize::from(rings.size) + 6];
                        memory.write_slice(some, GuestAddress(rings.available_gpa)).unwrap();
                    }
                }
                // Whatever the guest makes of it: the VMM lives, and ends the machine when asked.
                let _ = exchange(guest.address(), b"GET / HTTP/1.1\r\n\r\n", Duration::from_millis(100));
                assert_eq!(guest.end(), End::PowerOff { status: 0 });
            }
        }
    });
}

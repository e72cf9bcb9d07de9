//! What the device work costs without system calls. Not asserted: run it on a quiet machine with
//! `cargo test --release -p exovm measure -- --ignored --nocapture --test-threads=1`.

use std::time::Instant;

use super::*;
use crate::backend::Gather;
use crate::backend::iovec::scatter;
use crate::device::virtio::queue::{Limits, RingFeatures};
use crate::device::virtio::test_utils::{Driver, Guest};

/// A backend that costs as little as possible.
#[derive(Default)]
struct Sink {
    waiting: u32,
    frame: Vec<u8>,
    sent: u64,
}

impl Backend for Sink {
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        self.sent += frame.len() as u64;
        Written::Sent
    }
    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        if self.waiting == 0 {
            return Ok(None);
        }
        self.waiting -= 1;
        Ok(Some(scatter(buffers, 0, &self.frame)))
    }
    fn set_offloads(&mut self, _offloads: Offloads) -> Result<(), BackendError> {
        Ok(())
    }
    fn event_fd(&self) -> Option<std::os::fd::RawFd> {
        None
    }
}

/// Makes the same `count` heads available again.
fn again(driver: &mut Driver, count: u16) {
    driver.available = driver.available.wrapping_add(count);
    driver.set_available_index(driver.available);
}

/// Prints nanoseconds of one request and one response at several batch sizes.
fn pairs(name: &str, divide: impl Fn(&mut Nic<Sink>)) {
    for batch in [1u16, 4, 16, 32] {
        let mut nic = Nic::with_backend(Sink { frame: request(80, &[1; 40]), ..Sink::default() }, !0);
        divide(&mut nic);
        let (mut receive, mut transmit) = (nic.bind(0, 1), nic.bind(1, 1));
        give_buffers(&mut receive, buffer_gpa(1, 0), 4096, SIZE.into());
        receive.available = SIZE / 2;
        receive.set_available_index(SIZE / 2);
        // A response is a header and a payload, as a server sends it; the descriptors are used again and again.
        let gpa = buffer_gpa(1, 0x5_0000);
        nic.guest.write(gpa, &response(80, &[1; 200]));
        for _ in 0..SIZE / 2 {
            transmit.add(&[Piece::out(gpa, 66), Piece::out(gpa + 0x1000, 200)]);
        }
        for slot in 0..SIZE {
            let head = slot % (SIZE / 2) * 2;
            let at = transmit.config.available_gpa + 4 + 2 * u64::from(slot);
            nic.guest.memory.write_obj(head, GuestAddress(at)).expect("inside");
        }
        nic.function.disarm();
        receive.set_used_event(u16::MAX / 2);
        nic.work();
        let mut best_ns = f64::MAX;
        for part in 0..2000 {
            let start = Instant::now();
            for _ in 0..100 {
                again(&mut transmit, batch);
                again(&mut receive, batch);
                nic.function.device_mut().backend_mut().waiting = batch.into();
                let worked = nic.work();
                assert_eq!((worked.sent, worked.received), (batch.into(), batch.into()), "{part}");
            }
            // The best of many parts: whatever else runs on the machine only adds.
            best_ns = best_ns.min(start.elapsed().as_nanos() as f64 / 100.0 / f64::from(batch));
        }
        println!("{name}: {best_ns:6.1} ns a request and response, {batch} a batch");
    }
}

#[test]
#[ignore = "a measurement"]
fn measure_request_and_response() {
    pairs("undivided", |_| {});
    pairs("divided", |nic| {
        let host = FlowField::Destination { address: ipv4(SERVER), prefix_len: 128 };
        let target = Target { environment: 1, queue_pair: 0, queue_pairs: 1, rights: 0 };
        nic.guest.flows.insert(ROOT, host, Some(target)).expect("room");
    });
}

#[test]
#[ignore = "a measurement"]
fn measure_chain_walk() {
    for pieces in [1u16, 2, 4, 8] {
        let guest = Guest::new();
        let mut driver = guest.driver(1, 0, SIZE);
        let domain = guest.tables.domain(1).expect("usable");
        let features = RingFeatures { event_index: true, indirect: true };
        let mut queue = Virtqueue::new(domain, 1, driver.config, features).expect("usable");
        for _ in 0..SIZE {
            let chain: Vec<_> =
                (0..pieces).map(|at| Piece::out(buffer_gpa(1, u64::from(at) * 8192), 1000)).collect();
            driver.add(&chain);
        }
        let mut list = Gather::with_capacity(16);
        let limits = Limits { bytes: 1 << 17, segments: 16 };
        let mut best_ns = f64::MAX;
        for _ in 0..20_000 {
            let start = Instant::now();
            queue.begin().expect("good");
            for _ in 0..SIZE {
                let chain = queue.next_chain(limits, list.refill()).expect("good").expect("one");
                queue.advance();
                queue.complete(chain.head, 0);
            }
            queue.publish();
            best_ns = best_ns.min(start.elapsed().as_nanos() as f64 / f64::from(SIZE));
            again(&mut driver, SIZE);
        }
        println!("chain of {pieces}: {best_ns:5.1} ns, used ring included");
    }
}

#[test]
#[ignore = "a measurement"]
fn measure_time_stamp() {
    let ledger = crate::account::ledger::Ledger::default();
    let mut best_ns = f64::MAX;
    for _ in 0..2000 {
        let start = Instant::now();
        for _ in 0..100 {
            ledger.enter(Bucket::NetTransmit);
        }
        best_ns = best_ns.min(start.elapsed().as_nanos() as f64 / 100.0);
    }
    println!("a time stamp of the ledger: {best_ns:4.1} ns");
}

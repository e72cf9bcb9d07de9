//! What devices have to be through with after something was taken from an environment. The kernel counts, begins and asks; nobody
//! waits here.

use super::work::InFlight;
use abi::domain::DOMAINS;
use std::collections::VecDeque;

/// The drains of all environments.
pub(super) struct Drains(Vec<Drain>);

/// Those of one.
#[derive(Default)]
struct Drain {
    /// How many were begun.
    begun: u32,
    /// Those that are not over, in order: the first of each group, and what is under way. What was under way when a later group
    /// began holds all of an earlier one's that still is, so there are no more groups than requests.
    pending: VecDeque<(u32, InFlight)>,
}

impl Drains {
    pub(super) fn new() -> Self {
        Self((0..DOMAINS).map(|_| Drain::default()).collect())
    }

    /// Another one, over when all of this is done.
    pub(super) fn begin(&mut self, environment: u32, in_flight: InFlight) {
        let Some(drain) = self.0.get_mut(environment as usize) else { return };
        drain.begun = drain.begun.wrapping_add(1);
        drain.forget();
        let more = drain.pending.back().is_none_or(|(_, last)| in_flight.requests() > last.requests());
        if in_flight.requests() > 0 && more {
            drain.pending.push_back((drain.begun, in_flight));
        }
    }

    /// Up to which number all are over.
    pub(super) fn over(&mut self, environment: u32) -> u32 {
        let Some(drain) = self.0.get_mut(environment as usize) else { return 0 };
        drain.forget();
        drain.pending.front().map_or(drain.begun, |(first, _)| first.wrapping_sub(1))
    }
}

impl Drain {
    /// Forgets what is done.
    fn forget(&mut self) {
        self.pending.iter_mut().for_each(|(_, in_flight)| in_flight.forget());
        self.pending.retain(|(_, in_flight)| in_flight.requests() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::work::{DeviceWork, lock};
    use super::*;
    use crate::account::ledger::Ledger;
    use crate::backend::disk::fake::AtHand;
    use crate::device::virtio::block;
    use crate::device::virtio::test_utils::disk::{Disk, page_gpa};
    use crate::device::virtio::test_utils::{Driver, Piece, console};
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A disk whose image does not answer, of which environment 1 has read so many blocks, and a console.
    struct Hanging {
        disk: Disk,
        driver: Driver,
        reads: u64,
    }

    impl Hanging {
        fn new() -> Self {
            let mut disk = Disk::new();
            let driver = disk.bind(0, 1);
            disk.store.state().at_hand = AtHand::Nothing;
            disk.store.state().held = true;
            Self { disk, driver, reads: 0 }
        }

        fn read(&mut self) {
            let piece = Piece::into(page_gpa(1, self.reads), 4096);
            self.driver.add(&self.disk.request(1, self.reads, 0, 8 * self.reads, &[piece]));
            self.reads += 1;
            self.disk.work();
            self.disk.store.wait_for_held(self.reads as usize);
        }
    }

    #[test]
    fn what_is_in_flight_is_known_when_the_batch_is_over_and_nobody_waits_for_the_disk() {
        let mut hanging = Hanging::new();
        hanging.read();
        // What is left of it lets go of the image at the end.
        let Disk { function, store, .. } = hanging.disk;
        let work = Arc::new(DeviceWork {
            nic: None,
            disks: vec![Arc::new(Mutex::new(function))],
            finished: EventFd::new(EFD_NONBLOCK).expect("an event descriptor"),
            channel: Arc::new(Mutex::new(console::Channel::new().function)),
        });
        let batch = lock(&work.channel);
        let (done, returned) = channel();
        let other = Arc::clone(&work);
        std::thread::spawn(move || done.send(other.in_flight(1).requests()));
        let moment = Duration::from_millis(50);
        assert!(returned.recv_timeout(moment).is_err(), "a batch was running");
        drop(batch);
        assert_eq!(returned.recv_timeout(PATIENCE), Ok(1));
        assert_eq!(work.in_flight(2).requests(), 0);
        assert_eq!(lock(&work.disks[0]).work(&Ledger::default(), block::Budget::default()).completed, 0);
        store.release();
    }

    #[test]
    fn drains_of_one_are_over_in_order_and_those_of_others_do_not_matter() {
        let mut hanging = Hanging::new();
        let mut drains = Drains::new();
        assert_eq!(drains.over(1), 0);
        hanging.read();
        let in_flight = |hanging: &Hanging, environment| {
            super::super::work::InFlight::of(vec![hanging.disk.function.in_flight(environment)])
        };
        drains.begin(2, in_flight(&hanging, 2));
        assert_eq!(drains.over(2), 1);
        // Again and again: that does not grow.
        for _ in 0..1000 {
            drains.begin(1, in_flight(&hanging, 1));
        }
        assert_eq!((drains.over(1), drains.0[1].pending.len()), (0, 1));
        // Another request belongs to those drains that begin later.
        hanging.read();
        for _ in 0..1000 {
            drains.begin(1, in_flight(&hanging, 1));
        }
        assert_eq!((drains.over(1), drains.0[1].pending.len()), (0, 2));
        hanging.disk.store.release_one();
        let end = Instant::now() + PATIENCE;
        while drains.over(1) == 0 {
            assert!(Instant::now() < end, "one request is done");
            std::thread::yield_now();
        }
        assert_eq!((drains.over(1), drains.0[1].pending.len()), (1000, 1));
        hanging.disk.store.release();
        hanging.disk.work_until_completed(2);
        assert_eq!((drains.over(1), drains.0[1].pending.len()), (2000, 0));
        drains.begin(u32::MAX, in_flight(&hanging, 1));
        assert_eq!(drains.over(u32::MAX), 0);
    }
}

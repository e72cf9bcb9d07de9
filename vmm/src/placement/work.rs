//! The device work of a machine: that of the NIC, of each disk and of the host channel, one after the other, as one function. Whoever calls holds the
//! lock of the device that it is at, so a change of place never lets two at it.

use crate::account::ledger::Ledger;
use crate::backend::Backend;
use crate::device::virtio::VirtioPci;
use crate::device::virtio::block::{self, Block};
use crate::device::virtio::console::{self, Console};
use crate::device::virtio::net::{self, Net};
use crate::tables::DmaDomain;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// The machine's NIC.
pub type Nic = VirtioPci<Net<DmaDomain, Box<dyn Backend>>>;
/// One of the machine's disks.
pub type Disk = VirtioPci<Block<DmaDomain>>;

/// The machine's host channel.
pub type Channel = VirtioPci<Console<DmaDomain>>;

/// The devices that have work.
pub struct DeviceWork {
    /// The NIC, if there is one.
    pub nic: Option<Arc<Mutex<Nic>>>,
    /// The disks.
    pub disks: Vec<Arc<Mutex<Disk>>>,
    /// Readable when a disk has something to complete that had to wait.
    pub finished: EventFd,
    /// The host channel.
    pub channel: Arc<Mutex<Channel>>,
}

/// What one round of device work did, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worked {
    /// The NIC's part.
    pub net: net::Worked,
    /// Requests taken from the guest by all disks.
    pub disk_taken: u32,
    /// Requests given back to the guest by all disks.
    pub disk_completed: u32,
    /// A disk's budget ended before its queues did.
    pub disk_more: bool,
    /// The host channel's part.
    pub channel: console::Worked,
}

impl Worked {
    /// Whether the guest was given something that it may wait for.
    pub fn is_news(&self) -> bool {
        self.net.received > 0 || self.disk_completed > 0 || self.channel.reached_guest
    }

    /// Whether anything was done at all.
    pub fn is_anything(&self) -> bool {
        self.is_news() || self.net.sent > 0 || self.disk_taken > 0 || self.channel.is_busy()
    }

    /// Whether the same call would do more at once.
    pub fn is_more(&self) -> bool {
        self.net.is_more() || self.disk_more || self.channel.more
    }
}

impl DeviceWork {
    /// The NIC's lock.
    pub(super) fn nic(&self) -> Option<MutexGuard<'_, Nic>> {
        self.nic.as_deref().map(lock)
    }

    /// One round, within each device's budget.
    #[inline]
    pub(super) fn work(&self, ledger: &Ledger) -> Worked {
        let mut worked = Worked::default();
        if let Some(nic) = &self.nic {
            worked.net = lock(nic).work(ledger, net::Budget::default());
        }
        for disk in &self.disks {
            let done = lock(disk).work(ledger, block::Budget::default());
            worked.disk_taken += done.taken;
            worked.disk_completed += done.completed;
            worked.disk_more |= done.more;
        }
        worked.channel = lock(&self.channel).work(ledger);
        worked
    }

    /// Asks for doorbells; the host channel's are always asked for. `true`: there is work already, do not sleep.
    pub(super) fn arm(&self) -> bool {
        let mut work = self.nic.as_deref().is_some_and(|nic| lock(nic).arm());
        for disk in &self.disks {
            work |= lock(disk).arm();
        }
        work
    }

    /// Asks for no doorbells.
    pub(super) fn disarm(&self) {
        if let Some(nic) = &self.nic {
            lock(nic).disarm();
        }
        for disk in &self.disks {
            lock(disk).disarm();
        }
    }

    /// Readable when frames wait in the NIC's backend.
    pub(super) fn backend_fd(&self) -> Option<RawFd> {
        self.nic.as_deref().and_then(|nic| lock(nic).event_fd())
    }

    /// Readable when a disk has something to complete.
    pub(super) fn finished_fd(&self) -> RawFd {
        self.finished.as_raw_fd()
    }

    /// See [`super::Placement::drain`]. The devices' work asks for rights at each batch, under the device's lock; the disks'
    /// threads at each request.
    pub(super) fn drain(&self, environment: u32) {
        drop(self.nic());
        drop(lock(&self.channel));
        for disk in &self.disks {
            // The disk goes on meanwhile.
            let in_flight = lock(disk).in_flight(environment);
            in_flight.wait();
        }
    }

    /// The ledgers of the disks' threads, with their names.
    pub fn disk_ledgers(&self) -> Vec<(String, Arc<Ledger>)> {
        let mut ledgers = Vec::new();
        for disk in &self.disks {
            let disk = lock(disk);
            let device = disk.device().config().device_index;
            for (number, ledger) in disk.ledgers().iter().enumerate() {
                ledgers.push((format!("disk {device}.{number}"), Arc::clone(ledger)));
            }
        }
        ledgers
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::disk::fake::AtHand;
    use crate::device::virtio::test_utils::disk::page_gpa;
    use crate::device::virtio::test_utils::{Piece, console, disk};
    use std::sync::mpsc::channel;
    use std::time::Duration;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    #[test]
    fn drain_returns_when_batch_and_request_in_flight_are_done() {
        let mut disk = disk::Disk::new();
        let mut driver = disk.bind(0, 1);
        disk.store.state().at_hand = AtHand::Nothing;
        disk.store.state().held = true;
        driver.add(&disk.request(1, 0, 0, 8, &[Piece::into(page_gpa(1, 0), 4096)]));
        disk.work();
        disk.store.wait_for_held(1);
        let disk::Disk { function, store, .. } = disk;
        let work = Arc::new(DeviceWork {
            nic: None,
            disks: vec![Arc::new(Mutex::new(function))],
            finished: EventFd::new(EFD_NONBLOCK).expect("an event descriptor"),
            channel: Arc::new(Mutex::new(console::Channel::new().function)),
        });
        let batch = lock(&work.channel);
        let (done, returned) = channel();
        for environment in [1, 2] {
            let (work, done) = (Arc::clone(&work), done.clone());
            std::thread::spawn(move || {
                work.drain(environment);
                done.send(environment)
            });
        }
        let (moment, patience) = (Duration::from_millis(50), Duration::from_secs(10));
        assert!(returned.recv_timeout(moment).is_err(), "a batch was running");
        drop(batch);
        // The disk has nothing of this one's; meanwhile it can be worked on.
        assert_eq!(returned.recv_timeout(patience), Ok(2));
        assert!(returned.recv_timeout(moment).is_err(), "a request was in flight");
        assert_eq!(lock(&work.disks[0]).work(&Ledger::default(), block::Budget::default()).completed, 0);
        store.release();
        assert_eq!(returned.recv_timeout(patience), Ok(1));
    }
}

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
use std::time::Instant;
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

    /// Says to the NIC's backend that the caller is about to sleep. `true`: there is something already.
    pub(super) fn arm_backend(&self) -> bool {
        self.nic.as_deref().is_some_and(|nic| lock(nic).arm_backend())
    }

    /// The caller is awake again.
    pub(super) fn disarm_backend(&self) {
        if let Some(nic) = &self.nic {
            lock(nic).disarm_backend();
        }
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

    /// What tells that frames, or room for them, are to be had from the NIC's backend: a descriptor, whether it is writable when
    /// there is room, and the moment when there is something to do in any case.
    pub(super) fn backend_events(&self) -> Option<(RawFd, bool, Option<Instant>)> {
        let nic = lock(self.nic.as_deref()?);
        Some((nic.event_fd()?, nic.shows_room_as_writable(), nic.backend_due()))
    }

    /// Readable when a disk has something to complete.
    pub(super) fn finished_fd(&self) -> RawFd {
        self.finished.as_raw_fd()
    }

    /// See [`super::Placement::begin_drain`]. The devices' work asks for rights at each batch, under the device's lock: so a batch is
    /// over when this returns. The disks' threads ask at each request.
    pub(super) fn in_flight(&self, environment: u32) -> InFlight {
        // Senders at the other end of a link write into lent buffers, and ask at each frame.
        if let Some(nic) = self.nic() {
            nic.settle();
        }
        drop(lock(&self.channel));
        InFlight::of(self.disks.iter().map(|disk| lock(disk).in_flight(environment)).collect())
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

/// Requests of an environment that disks' threads are at.
pub(super) struct InFlight(Vec<block::InFlight<DmaDomain>>);

impl InFlight {
    /// Those of each disk.
    pub(super) fn of(disks: Vec<block::InFlight<DmaDomain>>) -> Self {
        Self(disks)
    }

    /// How many there are.
    pub(super) fn requests(&self) -> usize {
        self.0.iter().map(block::InFlight::requests).sum()
    }

    /// Forgets those that are done.
    pub(super) fn forget(&mut self) {
        self.0.iter_mut().for_each(block::InFlight::forget);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

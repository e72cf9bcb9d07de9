//! Waking the thread at the other end, if it sleeps and only then: who is awake looks by itself, and costs nobody a system call.
//!
//! Two phases, so that no event is lost. The sleeper says that it will sleep, then looks once more; who has something shows it,
//! then asks whether the other sleeps. Both steps of both are sequentially consistent, so one of the two sees the other.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// How the owner of a port is woken.
#[derive(Debug)]
pub(super) struct Wake {
    event: EventFd,
    sleeps: AtomicBool,
    /// Where this port found no room, there is some now.
    has_room: AtomicBool,
    wakeups: AtomicU64,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            event: EventFd::new(EFD_NONBLOCK)?,
            sleeps: AtomicBool::new(false),
            has_room: AtomicBool::new(false),
            wakeups: AtomicU64::new(0),
        })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Something was shown to the owner: wakes it if it sleeps.
    #[inline]
    pub(super) fn notify(&self) {
        if self.sleeps.load(Ordering::SeqCst) && self.sleeps.swap(false, Ordering::SeqCst) {
            self.wakeups.fetch_add(1, Ordering::Relaxed);
            // A full counter means that it is readable already.
            let _ = self.event.write(1);
        }
    }

    /// There is room for what the owner could not send.
    pub(super) fn notify_of_room(&self) {
        self.has_room.store(true, Ordering::SeqCst);
        self.notify();
    }

    /// The owner will sleep. Whoever calls looks once more what there is, and calls [`Self::stay_awake`] if there is something.
    pub(super) fn will_sleep(&self) {
        self.sleeps.store(true, Ordering::SeqCst);
    }

    /// Whether there is room again; asked once.
    pub(super) fn take_room(&self) -> bool {
        self.has_room.swap(false, Ordering::SeqCst)
    }

    /// The owner is awake.
    pub(super) fn stay_awake(&self) {
        if !self.sleeps.swap(false, Ordering::SeqCst) {
            // Somebody has written, or is about to: then the next sleep ends at once, for nothing.
            let _ = self.event.read();
        }
    }

    /// How often it was woken: each time is a system call of the other side.
    pub(super) fn wakeups(&self) -> u64 {
        self.wakeups.load(Ordering::Relaxed)
    }
}

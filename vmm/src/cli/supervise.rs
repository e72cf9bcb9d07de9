//! While a machine runs: signals, clients of the control socket, and its end, in one event loop that never waits for
//! anything else.

use super::Failure;
use crate::control::Control;
use crate::machine::Machine;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use rustix::fd::AsFd;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// How long a guest may take to finish when it is asked to.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// SIGINT, SIGTERM and SIGHUP, taken away from their default.
pub(super) struct Signals(OwnedFd);

impl Signals {
    /// For this thread and all started from now on.
    pub(super) fn block() -> Result<Self, Failure> {
        let set = Self::set();
        // SAFETY: the calls only read the set given.
        let fd = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(format!("signal descriptor: {}", std::io::Error::last_os_error()).into());
        }
        // SAFETY: signalfd returned a descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn set() -> libc::sigset_t {
        // SAFETY: an all-zero set is a value that sigemptyset overwrites; the calls only touch the set given.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::sigaddset(&mut set, signal);
            }
            set
        }
    }

    /// They end a process that is started, or are what it makes of them.
    pub(super) fn not_blocked_in(&self, command: &mut std::process::Command) {
        let set = Self::set();
        let unblock = move || {
            // SAFETY: reads the set given, and is async-signal-safe.
            match unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()) } {
                0 => Ok(()),
                error => Err(std::io::Error::from_raw_os_error(error)),
            }
        };
        // SAFETY: it allocates nothing and takes no lock.
        unsafe { std::os::unix::process::CommandExt::pre_exec(command, unblock) };
    }

    /// Readable when one has come.
    pub(super) fn fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes those that came.
    pub(super) fn take(&self) {
        let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(self.0.as_fd(), &mut bytes).is_ok() {}
    }
}

/// What a machine's life has come to.
pub(super) struct Supervised {
    /// Clients that want to know how it ended.
    pub(super) control: Control,
    /// Whether somebody asked it to end: then that is a success, whatever the guest's status.
    pub(super) asked: bool,
}

/// Serves signals and the control socket until the machine has ended. The first signal, or a client's wish, asks the guest
/// to finish; a second one, or impatience, ends it.
pub(super) fn supervise(
    machine: &Machine,
    control: Control,
    signals: Signals,
) -> Result<Supervised, Failure> {
    let failed = |error: event_manager::Error| format!("event loop: {error}");
    let mut manager = EventManager::new().map_err(failed)?;
    let end = machine.end_event().as_raw_fd();
    let supervisor = Supervisor { control, signals, end, wishes: 0, ended: false };
    let id = manager.add_subscriber(supervisor);
    let mut asked_at: Option<Instant> = None;
    loop {
        let left = asked_at.map(|at| STOP_GRACE.saturating_sub(at.elapsed()).as_millis() as i32 + 1);
        manager.run_with_timeout(left.unwrap_or(-1)).map_err(failed)?;
        let supervisor = manager.subscriber_mut(id).map_err(failed)?;
        if supervisor.ended {
            let supervisor = manager.remove_subscriber(id).map_err(failed)?;
            return Ok(Supervised { control: supervisor.control, asked: asked_at.is_some() });
        }
        if supervisor.wishes > 0 && asked_at.is_none() {
            asked_at = Some(Instant::now());
            machine.ask_to_stop();
        }
        let impatient = supervisor.wishes > 1 || asked_at.is_some_and(|at| at.elapsed() >= STOP_GRACE);
        if asked_at.is_some() && impatient {
            machine.end(Duration::ZERO);
        }
    }
}

struct Supervisor {
    control: Control,
    signals: Signals,
    end: RawFd,
    /// How often somebody wanted the machine to end.
    wishes: u32,
    ended: bool,
}

impl MutEventSubscriber for Supervisor {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        let fd = events.fd();
        if fd == self.end {
            self.ended = true;
        } else if fd == self.signals.0.as_raw_fd() {
            self.signals.take();
            self.wishes += 1;
        } else if fd == self.control.stop_event().as_raw_fd() {
            let _ = self.control.stop_event().read();
            // A client repeating itself is no reason for haste.
            self.wishes = self.wishes.max(1);
        } else {
            self.control.process(events, ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        let mut add = |fd: RawFd| ops.add(Events::new_raw(fd, EventSet::IN));
        let own = add(self.signals.0.as_raw_fd())
            .and(add(self.end))
            .and(add(self.control.stop_event().as_raw_fd()));
        if let Err(error) = own.and(self.control.init(ops)) {
            tracing::error!("cannot watch a descriptor: {error}");
        }
    }
}

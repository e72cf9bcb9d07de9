//! What the host has to say: one epoll descriptor with all sockets and a timer in it. An edge to system calls.
//!
//! Sockets are watched edge-triggered: each change is told once and remembered by its socket, so a socket that is not looked
//! at for want of room does not keep the descriptor readable.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::slab::Id;

/// Events taken from the kernel at once.
const BATCH: usize = 64;

/// Who has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Time has passed.
    Timer,
    /// A published TCP port, by its number in the list.
    TcpListener(u32),
    /// A TCP connection.
    Tcp(Id),
    /// A published UDP port, by its number in the list.
    UdpPort(u32),
    /// A UDP flow from the guest to the outside.
    Udp(Id),
}

impl Source {
    fn to_token(self) -> u64 {
        let (kind, Id { index, generation }) = match self {
            Self::Timer => (0, Id { index: 0, generation: 0 }),
            Self::TcpListener(index) => (1, Id { index, generation: 0 }),
            Self::Tcp(id) => (2, id),
            Self::UdpPort(index) => (3, Id { index, generation: 0 }),
            Self::Udp(id) => (4, id),
        };
        kind << 56 | u64::from(generation) << 32 | u64::from(index)
    }

    fn from_token(token: u64) -> Self {
        let id = Id { index: token as u32, generation: (token >> 32) as u32 & 0x00FF_FFFF };
        match token >> 56 {
            0 => Self::Timer,
            1 => Self::TcpListener(id.index),
            2 => Self::Tcp(id),
            3 => Self::UdpPort(id.index),
            _ => Self::Udp(id),
        }
    }
}

/// What happened to a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// There may be something to read.
    pub(crate) readable: bool,
    /// There may be room to write.
    pub(crate) writable: bool,
    /// The peer sends no more, or there was an error: a read will tell.
    pub(crate) ended: bool,
    /// There was an error, which the socket keeps.
    pub(crate) failed: bool,
}

/// The descriptor and its timer.
#[derive(Debug)]
pub(crate) struct Reactor {
    epoll: Epoll,
    timer: TimerFd,
    /// When the timer fires.
    armed: Option<Duration>,
    events: Vec<EpollEvent>,
}

impl Reactor {
    /// Nothing but the timer yet.
    pub(crate) fn new() -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Timer.to_token());
        epoll.add(&timer, event)?;
        Ok(Self { epoll, timer, armed: None, events: vec![EpollEvent::empty(); BATCH] })
    }

    /// Readable when there are events.
    pub(crate) fn event_fd(&self) -> RawFd {
        self.epoll.0.as_raw_fd()
    }

    /// Watches a socket that only receives or accepts.
    pub(crate) fn watch_input(&self, socket: impl AsFd, source: Source) -> nix::Result<()> {
        self.watch(socket.as_fd(), EpollFlags::EPOLLIN, source)
    }

    /// Watches a connected stream.
    pub(crate) fn watch_stream(&self, socket: impl AsFd, source: Source) -> nix::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP;
        self.watch(socket.as_fd(), flags, source)
    }

    fn watch(&self, socket: BorrowedFd<'_>, flags: EpollFlags, source: Source) -> nix::Result<()> {
        self.epoll.add(socket, EpollEvent::new(flags | EpollFlags::EPOLLET, source.to_token()))
    }

    /// Takes events, without waiting. They are then read with [`Self::event`]; returns how many there are.
    pub(crate) fn poll(&mut self) -> usize {
        // EINTR is as good as nothing: it is asked again.
        self.epoll.wait(&mut self.events, EpollTimeout::ZERO).unwrap_or(0)
    }

    /// One of the events of the last [`Self::poll`].
    pub(crate) fn event(&mut self, index: usize) -> Option<(Source, Readiness)> {
        let event = self.events.get(index)?;
        let flags = event.events();
        let failed = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
        let source = Source::from_token(event.data());
        if source == Source::Timer {
            // It has fired; reading it makes it quiet. Should it have been armed anew meanwhile, there is nothing to read.
            let _ = nix::unistd::read(&self.timer, &mut [0; 8]);
            self.armed = None;
        }
        let readiness = Readiness {
            readable: flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | failed),
            writable: flags.intersects(EpollFlags::EPOLLOUT | failed),
            ended: flags.intersects(EpollFlags::EPOLLRDHUP | failed),
            failed: flags.contains(EpollFlags::EPOLLERR),
        };
        Some((source, readiness))
    }

    /// Makes the descriptor readable at `deadline` at the latest. It may become readable earlier.
    pub(crate) fn wake_at(&mut self, deadline: Duration, now: Duration) {
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return;
        }
        // Zero would disarm it.
        let after = deadline.saturating_sub(now).max(Duration::from_nanos(1));
        let expiration = Expiration::OneShot(TimeSpec::from_duration(after));
        match self.timer.set(expiration, TimerSetTimeFlags::empty()) {
            Ok(()) => self.armed = Some(deadline),
            Err(error) => tracing::error!("timer of the user network: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_who_it_was() {
        let id = Id { index: 0xFFFF_FFFF, generation: 0x00FF_FFFE };
        let sources =
            [Source::Timer, Source::TcpListener(7), Source::Tcp(id), Source::UdpPort(0), Source::Udp(id)];
        for source in sources {
            assert_eq!(Source::from_token(source.to_token()), source);
        }
    }

    #[test]
    fn timer_makes_the_descriptor_readable_once() {
        let mut reactor = Reactor::new().unwrap();
        assert_eq!(reactor.poll(), 0);
        reactor.wake_at(Duration::from_secs(5), Duration::ZERO);
        reactor.wake_at(Duration::from_millis(1005), Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(8));
        assert_eq!(reactor.poll(), 1);
        assert_eq!(reactor.event(0).unwrap().0, Source::Timer);
        assert_eq!(reactor.poll(), 0);
    }
}

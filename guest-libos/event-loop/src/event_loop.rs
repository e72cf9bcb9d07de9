//! The loop itself.

use crate::StartError;
use crate::console::{Answers, Console, Next};
use crate::disk::Disk;
use crate::interface::Interface;
use crate::statistics;
use crate::tenant::{Devices, Moment, Tenant};
use abi::boot::phase;
use abi::call::Error;
use core::sync::atomic::Ordering;
use exos_nic::QueuePair;
use exos_runtime::clock::{self, Scale};
use exos_runtime::{heap, pages, revocation, turn};
use exos_virtqueue::guest::GuestHal;

/// Frames handled before transmit queue and timers get their turn.
const BATCH: usize = 64;
/// Descriptors that must be free for a batch to begin; otherwise the device gets time first.
pub(crate) const TRANSMIT_ROOM: usize = 256;

/// A tenant and its devices.
pub(crate) struct EventLoop<'t, T: Tenant> {
    pub(crate) tenant: &'t mut T,
    pub(crate) nic: QueuePair<GuestHal, T::Held>,
    pub(crate) disk: Option<Disk>,
    pub(crate) console: Option<Console>,
    pub(crate) scale: Scale,
    /// Rounds since the statistics were last published.
    rounds: u32,
    /// Since when memory is asked back.
    asked_since_tsc: Option<u64>,
    /// Somebody at the console wants the machine to end.
    quit: bool,
    /// The tenant does its work.
    is_ready: bool,
}

/// What the console's commands ask for.
struct Numbers<'a, T>(&'a T);

impl<T: Tenant> Answers for Numbers<'_, T> {
    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        self.0.counters(each);
    }

    fn connections(&self) -> (usize, usize) {
        self.0.connections()
    }
}

impl<'t, T: Tenant> EventLoop<'t, T> {
    pub(crate) fn open(
        tenant: &'t mut T,
        interface: &Interface,
        disk: Option<Disk>,
    ) -> Result<Self, StartError> {
        let Interface { index, device, .. } = *interface;
        let nic = QueuePair::open(GuestHal, index as u32, device, 0, &T::QUEUES).map_err(StartError::Nic)?;
        pages::stamp(phase::NETWORK);
        let console = match tenant.console() {
            Some(name) => Console::open(name).map_err(StartError::Console)?,
            None => None,
        };
        let scale = Scale::new();
        let (rounds, asked_since_tsc, quit, is_ready) = (0, None, false, false);
        Ok(Self { tenant, nic, disk, console, scale, rounds, asked_since_tsc, quit, is_ready })
    }

    pub(crate) fn run(&mut self) {
        self.work();
        self.look_whether_ready();
        while !turn::stop_wanted() && !self.quit && !self.tenant.is_over() {
            let received = self.receive();
            self.work();
            if !self.is_ready {
                self.look_whether_ready();
            }
            if self.is_console_ready() {
                self.answer_console();
            }
            if revocation::is_asked() {
                self.answer_asks();
            } else {
                self.asked_since_tsc = None;
            }
            self.rounds += 1;
            if received == 0 || self.rounds >= statistics::ROUNDS {
                self.rounds = 0;
                self.tenant.publish(pages::statistics());
            }
            if received == 0 {
                self.idle();
            } else if self.nic.transmit.room() < TRANSMIT_ROOM && turn::wanted() {
                // Answers pile up: let the device send them before more is asked for. A deadline in the past: come back
                // at once.
                turn::take(1);
            }
        }
    }

    /// Says once that the tenant does its work.
    #[cold]
    fn look_whether_ready(&mut self) {
        self.is_ready = self.tenant.is_ready();
        if self.is_ready {
            if let Some(port) = self.tenant.port() {
                pages::status().port.store(u32::from(port), Ordering::Relaxed);
            }
            pages::stamp(phase::READY);
        }
    }

    /// Handles up to [`BATCH`] received frames.
    fn receive(&mut self) -> usize {
        let _span = exos_trace::span!("event loop");
        let at = Moment::now(self.scale);
        let (receive, transmit) = (&mut self.nic.receive, &mut self.nic.transmit);
        let mut devices = Devices { transmit, disk: self.disk.as_mut(), scale: self.scale };
        let mut frames = 0;
        while frames < BATCH && devices.transmit.room() >= T::FRAME_DESCRIPTORS {
            let Some(frame) = receive.poll() else { break };
            frames += 1;
            let _following = exos_trace::follow(frame.subject());
            self.tenant.input(&frame, at, &mut devices);
        }
        frames
    }

    /// The tenant's own work; then what was queued is published.
    fn work(&mut self) {
        let _span = exos_trace::span!("event loop");
        self.nic.transmit.reclaim();
        let transmit = &mut self.nic.transmit;
        self.tenant.work(&mut Devices { transmit, disk: self.disk.as_mut(), scale: self.scale });
        self.nic.publish();
        if let Some(disk) = &mut self.disk {
            disk.publish();
        }
    }

    #[inline]
    pub(crate) fn is_console_ready(&mut self) -> bool {
        self.console.as_mut().is_some_and(Console::is_ready)
    }

    /// Answers what was typed at the console.
    #[cold]
    fn answer_console(&mut self) {
        let Some(console) = &mut self.console else { return };
        self.quit |= console.work(&Numbers(&*self.tenant)) == Next::Quit;
        if console.is_broken() {
            self.console = None;
        }
    }

    /// Gives back what is asked of the heap as soon as nobody uses it any more. What is on its way to a client, or from the disk,
    /// comes back when that is over; each of these ends the loop's sleep.
    #[cold]
    fn answer_asks(&mut self) {
        for ask in revocation::asks() {
            let Some(tail) = heap::tail(&ask) else { continue };
            if tail.close() > 0 {
                self.tenant.give_up(tail.start_va, tail.frames_before);
            }
            // Whoever takes nothing of what it asked for holds pages for as long as it likes. It is ended when half of the time has
            // passed.
            let now_tsc = clock::tsc();
            let since = *self.asked_since_tsc.get_or_insert(now_tsc);
            if tail.close() > 0 && now_tsc - since > ask.deadline_tsc.saturating_sub(now_tsc) {
                let transmit = &mut self.nic.transmit;
                let disk = self.disk.as_mut();
                self.tenant.end_stalled(&mut Devices { transmit, disk, scale: self.scale });
            }
            match tail.give_back() {
                Ok(()) => {
                    log::info!("memory was asked back and given: {} frames are left", tail.frames_before)
                }
                // Some of it is in use, and the loop comes round.
                Err(Error::Busy) => {}
                Err(error) => log::error!("memory cannot be given back: {error:?}"),
            }
        }
    }
}

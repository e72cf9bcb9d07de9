//! What the loop does when nothing is left to do.

use crate::disk::Disk;
use crate::event_loop::{EventLoop, TRANSMIT_ROOM};
use crate::tenant::Tenant;
use exos_nic::{Arming, Interest};
use exos_runtime::clock;
use exos_runtime::sleep::{self, Watch};
use exos_runtime::{kernel, revocation, turn};

/// How long the loop polls before it halts, when device work runs elsewhere: longer than a small request takes there and
/// back, or every request pays for a halt and an interrupt. With 20 us instead, one keep-alive connection got 13 k requests/s
/// and four 35 k where this gives 40 k and 59 k.
const POLL_US: u64 = 200;
/// How long to wait at most while the transmit queue has no room, or holds too many frames.
const CROWDED_WAIT_US: u64 = 100;
/// How often the loop comes round at least while memory is asked back.
const ASKED_WAIT_MS: u64 = 10;

impl<T: Tenant> EventLoop<'_, T> {
    /// Nothing to do: a turn, or poll and halt, as the VMM wants it.
    pub(crate) fn idle(&mut self) {
        if self.tenant.is_over() {
            return;
        }
        let mut deadline = self.tenant.next_deadline().map_or(0, |at| self.scale.ticks(at.as_nanos()).max(1));
        // Without room to send, or for what comes, what is waited for is not only frames.
        let crowded =
            self.nic.transmit.room() < TRANSMIT_ROOM || self.nic.transmit.pending() > T::PENDING_MAX;
        if deadline != 0 && deadline <= clock::tsc() && !crowded {
            // What is due may need the room that only the device makes; here there is some.
            return;
        }
        if crowded {
            let soon = clock::tsc() + self.scale.ticks(CROWDED_WAIT_US * 1000);
            deadline = if deadline == 0 { soon } else { deadline.min(soon) };
        }
        if revocation::is_asked() {
            let soon = clock::tsc() + self.scale.ticks(ASKED_WAIT_MS * 1_000_000);
            deadline = if deadline == 0 { soon } else { deadline.min(soon) };
        }
        if !sleep::alone() {
            self.sleep(deadline);
            return;
        }
        if turn::wanted() {
            turn::take(deadline);
            return;
        }
        {
            let _span = exos_trace::span!("idle poll");
            let until = clock::tsc() + self.scale.ticks(POLL_US * 1000);
            loop {
                if self.is_ready() || turn::wanted() || turn::stop_wanted() {
                    return;
                }
                let now = clock::tsc();
                if now >= until || (deadline != 0 && now >= deadline) {
                    break;
                }
                core::hint::spin_loop();
            }
        }
        let interest = if crowded { Interest::ReceiveAndTransmit } else { Interest::Receive };
        if self.arm(interest) == Arming::Sleep && !turn::wanted() && !turn::stop_wanted() {
            kernel::halt(deadline);
        }
        self.disarm();
    }

    /// Nothing to do beside other environments: they have the CPU until something comes.
    fn sleep(&mut self, deadline: u64) {
        let watch = Watch::now();
        // Also where turns do the devices' work: while we sleep that may become a thread's, which wakes who asked for it.
        if self.arm(Interest::Receive) != Arming::Sleep {
            return self.disarm();
        }
        if !self.is_ready() && !turn::stop_wanted() {
            watch.sleep(deadline);
        }
        self.disarm();
    }

    #[inline]
    fn is_ready(&mut self) -> bool {
        self.nic.receive.is_ready()
            || self.disk.as_mut().is_some_and(Disk::is_ready)
            || self.is_console_ready()
    }

    /// Asks the devices to interrupt.
    fn arm(&mut self, interest: Interest) -> Arming {
        let mut arming = self.nic.request_interrupts(interest);
        if let Some(disk) = &mut self.disk {
            arming = arming.and(disk.request_interrupts());
        }
        if let Some(console) = &mut self.console {
            arming = arming.and(console.request_interrupts());
        }
        arming
    }

    /// Asks them not to.
    fn disarm(&mut self) {
        self.nic.suppress_interrupts();
        if let Some(disk) = &mut self.disk {
            disk.suppress_interrupts();
        }
    }
}

//! What the loop does when nothing is left to do: a turn, or poll and halt, as the VMM wants it.

use crate::forwarding::Forwarding;
use core::time::Duration;
use exos_event_loop::console::Console;
use exos_nic::{Arming, Interest};
use exos_runtime::sleep::{self, Watch};
use exos_runtime::{clock, kernel, turn};

/// How long the loop polls before it halts, when device work runs elsewhere.
const POLL_US: u64 = 200;
/// Frames on their way out, each of which may hold a receive buffer, of which there are 128: with more, the wait is short.
const PENDING_MAX: usize = 64;
/// How long it is then at most.
const CROWDED_WAIT_US: u64 = 100;

/// Waits until a frame comes, somebody types, or for `deadline`.
pub(crate) fn idle(forwarding: &mut Forwarding, deadline: Duration) {
    let scale = forwarding.scale;
    let mut deadline = scale.ticks(deadline.as_nanos() as u64).max(1);
    // Buffers that are on their way out are not there for frames that come.
    let crowded = forwarding.nic.transmit.pending() > PENDING_MAX;
    if crowded {
        deadline = deadline.min(clock::tsc() + scale.ticks(CROWDED_WAIT_US * 1000));
    }
    if !sleep::alone() {
        let watch = Watch::now();
        if arm(forwarding, Interest::Receive) == Arming::Sleep
            && !is_ready(forwarding)
            && !turn::stop_wanted()
        {
            watch.sleep(deadline);
        }
        return forwarding.nic.suppress_interrupts();
    }
    if turn::wanted() {
        return turn::take(deadline);
    }
    {
        let _span = exos_trace::span!("idle poll");
        let until = (clock::tsc() + scale.ticks(POLL_US * 1000)).min(deadline);
        loop {
            if is_ready(forwarding) || turn::wanted() || turn::stop_wanted() {
                return;
            }
            if clock::tsc() >= until {
                break;
            }
            core::hint::spin_loop();
        }
    }
    let interest = if crowded { Interest::ReceiveAndTransmit } else { Interest::Receive };
    if arm(forwarding, interest) == Arming::Sleep && !turn::wanted() && !turn::stop_wanted() {
        kernel::halt(deadline);
    }
    forwarding.nic.suppress_interrupts();
}

fn is_ready(forwarding: &mut Forwarding) -> bool {
    forwarding.nic.receive.is_ready() || forwarding.console.as_mut().is_some_and(Console::is_ready)
}

/// Asks the devices to interrupt.
fn arm(forwarding: &mut Forwarding, interest: Interest) -> Arming {
    let arming = forwarding.nic.request_interrupts(interest);
    match &mut forwarding.console {
        Some(console) => arming.and(console.request_interrupts()),
        None => arming,
    }
}

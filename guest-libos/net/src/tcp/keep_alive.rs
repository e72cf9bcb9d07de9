//! Keep-alive of one connection (RFC 9293 3.8.4): when a probe is due and when the peer counts as gone.

use alloc::boxed::Box;

use crate::options::KeepAlive;
use crate::time::{Duration, Instant};

/// Small, as every connection has one and few use it.
#[derive(Debug)]
pub(crate) struct KeepAliveState {
    /// When something last came from the peer, or the last probe left since.
    since: Instant,
    on: Option<Box<On>>,
}

/// While keep-alive is on.
#[derive(Debug)]
struct On {
    idle_ms: u32,
    interval_ms: u32,
    probes: u8,
    /// Probes that were not answered.
    sent: u8,
}

fn whole_ms(time: Duration) -> u32 {
    (time.as_nanos() / 1_000_000).clamp(1, u64::from(u32::MAX)) as u32
}

impl KeepAliveState {
    /// Off, as every connection begins (MUST-25).
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, on: None }
    }

    pub(crate) fn set(&mut self, keep_alive: Option<KeepAlive>) {
        self.on = keep_alive.map(|on| {
            let (idle_ms, interval_ms) = (whole_ms(on.idle), whole_ms(on.interval));
            Box::new(On { idle_ms, interval_ms, probes: on.probes.max(1), sent: 0 })
        });
    }

    /// A segment of the peer's arrived.
    #[inline]
    pub(crate) fn heard(&mut self, now: Instant) {
        self.since = now;
        if let Some(on) = &mut self.on {
            on.sent = 0;
        }
    }

    /// When the next probe is due, or the end.
    #[inline]
    pub(crate) fn due_at(&self) -> Instant {
        let Some(on) = &self.on else { return Instant::NEVER };
        let wait_ms = if on.sent == 0 { on.idle_ms } else { on.interval_ms };
        self.since + Duration::from_millis(u64::from(wait_ms))
    }

    /// It is due. Whether to send a probe; else enough were not answered, and the connection ends.
    pub(crate) fn probe(&mut self, now: Instant) -> bool {
        let Some(on) = self.on.as_mut().filter(|on| on.sent < on.probes) else { return false };
        on.sent += 1;
        self.since = now;
        true
    }
}

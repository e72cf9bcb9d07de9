//! Keep-alive of one connection (RFC 9293 3.8.4): when a probe is due and when the peer counts as gone.

use crate::options::KeepAlive;
use crate::time::{Duration, Instant};

/// Small, as every connection has one and few use it.
#[derive(Debug)]
pub(crate) struct KeepAliveState {
    /// When something last came from the peer, or the last probe left since.
    since: Instant,
    /// 0 while keep-alive is off.
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
        Self { since: now, idle_ms: 0, interval_ms: 0, probes: 0, sent: 0 }
    }

    pub(crate) fn set(&mut self, keep_alive: Option<KeepAlive>) {
        self.sent = 0;
        self.idle_ms = keep_alive.map_or(0, |on| whole_ms(on.idle));
        if let Some(on) = keep_alive {
            (self.interval_ms, self.probes) = (whole_ms(on.interval), on.probes.max(1));
        }
    }

    /// A segment of the peer's arrived.
    #[inline]
    pub(crate) fn heard(&mut self, now: Instant) {
        self.since = now;
        self.sent = 0;
    }

    /// When the next probe is due, or the end.
    #[inline]
    pub(crate) fn due_at(&self) -> Instant {
        if self.idle_ms == 0 {
            return Instant::NEVER;
        }
        let wait_ms = if self.sent == 0 { self.idle_ms } else { self.interval_ms };
        self.since + Duration::from_millis(u64::from(wait_ms))
    }

    /// It is due. Whether to send a probe; else enough were not answered, and the connection ends.
    pub(crate) fn probe(&mut self, now: Instant) -> bool {
        if self.sent >= self.probes {
            return false;
        }
        self.sent += 1;
        self.since = now;
        true
    }
}

//! NewReno's congestion avoidance (RFC 5681 3.1, counting bytes as RFC 3465 does): one segment more a round trip, half
//! after a loss.

use super::{Ack, WindowUse};

#[derive(Debug, Default)]
pub(super) struct NewReno {
    /// Bytes acknowledged since the window last grew.
    acked: u32,
}

impl NewReno {
    /// The window after an acknowledgment.
    pub(super) fn on_ack(&mut self, window: u32, ack: &Ack, mss: u32) -> u32 {
        if ack.window_use == WindowUse::Spare {
            return window;
        }
        self.acked = self.acked.saturating_add(ack.bytes);
        if self.acked < window {
            return window;
        }
        self.acked -= window;
        window + mss
    }

    /// RFC 5681 (4), without its lower bound.
    pub(super) fn decrease(&mut self, flight: u32) -> u32 {
        self.acked = 0;
        flight / 2
    }
}

//! One direction of a link: serialization at a rate behind a drop-tail queue, then a delay; frames are lost at random,
//! independently of each other.

use exos_net::{Duration, Instant};

/// Offset of the octet in a frame whose lower two bits are the ECN field.
const TYPE_OF_SERVICE: usize = 15;

#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkConfig {
    /// Bytes a second; `None` for a link that takes no time.
    pub(crate) rate_bytes: Option<u64>,
    /// Bytes that may wait for the rate, the frame on its way out included.
    pub(crate) queue_bytes: u64,
    /// From the end of a frame's departure to its arrival.
    pub(crate) delay: Duration,
    /// Frames lost in a million.
    pub(crate) loss_ppm: u64,
    /// From so many bytes that wait on, frames that may be marked are (RFC 3168 5).
    pub(crate) mark_above_bytes: u64,
}

impl LinkConfig {
    /// A link that does nothing but take time.
    pub(crate) fn delay(delay: Duration) -> Self {
        Self { rate_bytes: None, queue_bytes: u64::MAX, delay, loss_ppm: 0, mark_above_bytes: u64::MAX }
    }
}

#[derive(Debug)]
pub(crate) struct Link {
    config: LinkConfig,
    /// When the last frame that was taken has left.
    busy_until: Instant,
    random: u64,
    /// Frames given to the link.
    pub(crate) frames: u64,
    /// Of these, those lost at random, and those that found the queue full.
    pub(crate) lost: u64,
    pub(crate) overflowed: u64,
    /// Those marked.
    pub(crate) marked: u64,
}

impl Link {
    pub(crate) fn new(config: LinkConfig, seed: u64) -> Self {
        // Seeds that are close to each other must not give random numbers that are.
        let random = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { config, busy_until: Instant::ZERO, random, frames: 0, lost: 0, overflowed: 0, marked: 0 }
    }

    /// xorshift64*.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    /// When a frame arrives, if it does.
    pub(crate) fn send(&mut self, now: Instant, frame: &mut [u8]) -> Option<Instant> {
        let len = frame.len();
        self.frames += 1;
        let mut left_at = now;
        if let Some(rate) = self.config.rate_bytes {
            let waiting =
                u128::from(self.busy_until.since(now).as_nanos()) * u128::from(rate) / 1_000_000_000;
            if waiting as u64 + len as u64 > self.config.queue_bytes {
                self.overflowed += 1;
                return None;
            }
            if waiting as u64 >= self.config.mark_above_bytes && frame[TYPE_OF_SERVICE] & 3 != 0 {
                // Nobody on the way verifies the header's checksum.
                frame[TYPE_OF_SERVICE] |= 3;
                self.marked += 1;
            }
            let takes = Duration::from_nanos(len as u64 * 1_000_000_000 / rate);
            left_at = self.busy_until.max(now) + takes;
            self.busy_until = left_at;
        }
        if self.random() % 1_000_000 < self.config.loss_ppm {
            self.lost += 1;
            return None;
        }
        Some(left_at + self.config.delay)
    }
}

//! Where device work is done, as a state machine driven by load. No clock, no threads: numbers in, decisions out.
//!
//! While batches are small, a turn's fixed cost (tens of microseconds where leaving the guest is expensive) is paid for
//! few frames, and a thread on a free core serves them sooner. When batches grow, turns amortise and need no second
//! core. The thresholds are those of the measured prototype; see vmm/README.md.

/// Where device work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the guest's turn, on the vCPU's thread.
    Turn,
    /// On the I/O thread, with the guest polling.
    Thread,
}

/// Average received batch, in frames, above which the thread hands over to turns.
const TO_TURNS_ABOVE: u32 = 14;
/// Average received batch, in frames, below which turns hand over to the thread.
const TO_THREAD_BELOW: u32 = 6;
/// Idle time after which the thread hands over to turns, which can block for good.
const TO_TURNS_AFTER_IDLE_US: u64 = 2000;
/// Fixed-point factor of the average.
const ONE: u32 = 256;

/// The state machine.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    place: Place,
    /// Exponential average of received batches, times [`ONE`].
    average: u32,
}

impl Policy {
    /// Begins with turns: a machine that has nothing to do must not need a thread.
    pub fn new() -> Self {
        Self { place: Place::Turn, average: TO_TURNS_ABOVE * ONE }
    }

    /// Where the work is done now.
    pub fn place(&self) -> Place {
        self.place
    }

    /// A batch of `frames` (at least one) was received. Returns the new place if it changes.
    pub fn received(&mut self, frames: u32) -> Option<Place> {
        // A single step forgets an eighth (turns) or a sixteenth (thread, where batches come more often).
        let weight = if self.place == Place::Turn { 8 } else { 16 };
        let frames = frames.min(1 << 16) * ONE;
        self.average = self.average - self.average / weight + frames / weight;
        match self.place {
            Place::Turn if self.average < TO_THREAD_BELOW * ONE => {
                // A little head room, so that the first batches do not send it back at once.
                self.average = (TO_TURNS_ABOVE - 4) * ONE;
                Some(self.go(Place::Thread))
            }
            Place::Thread if self.average > TO_TURNS_ABOVE * ONE => Some(self.go(Place::Turn)),
            _ => None,
        }
    }

    /// Nothing happened for `idle_us`.
    pub fn idle(&mut self, idle_us: u64) -> Option<Place> {
        let change = self.place == Place::Thread && idle_us >= TO_TURNS_AFTER_IDLE_US;
        change.then(|| {
            self.average = TO_THREAD_BELOW * ONE;
            self.go(Place::Turn)
        })
    }

    fn go(&mut self, place: Place) -> Place {
        self.place = place;
        place
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(policy: &mut Policy, frames: u32, times: u32) -> u32 {
        (0..times).filter(|_| policy.received(frames).is_some()).count() as u32
    }

    #[test]
    fn small_batches_go_to_the_thread_and_stay_there() {
        let mut policy = Policy::new();
        assert_eq!(feed(&mut policy, 1, 1000), 1);
        assert_eq!(policy.place(), Place::Thread);
    }

    #[test]
    fn large_batches_go_to_turns_and_stay_there() {
        let mut policy = Policy::new();
        feed(&mut policy, 1, 1000);
        assert_eq!(feed(&mut policy, 60, 1000), 1);
        assert_eq!(policy.place(), Place::Turn);
    }

    #[test]
    fn batches_between_the_thresholds_change_nothing() {
        for start in [1, 60] {
            let mut policy = Policy::new();
            feed(&mut policy, start, 1000);
            let place = policy.place();
            assert_eq!(feed(&mut policy, 10, 10_000), 0);
            assert_eq!(policy.place(), place);
        }
    }

    #[test]
    fn idle_thread_goes_to_turns_after_two_milliseconds() {
        let mut policy = Policy::new();
        assert_eq!(policy.idle(1_000_000), None, "turns are where idle machines are");
        feed(&mut policy, 1, 1000);
        assert_eq!(policy.idle(1999), None);
        assert_eq!(policy.idle(2000), Some(Place::Turn));
        assert_eq!(policy.received(1), Some(Place::Thread), "the next frame brings it back");
    }
}

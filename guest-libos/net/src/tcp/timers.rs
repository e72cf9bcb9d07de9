//! A hierarchical timer wheel: one timer a connection, armed and disarmed in constant time, at the price of ticks of a
//! millisecond. A timer fires after its time, never before; whoever is woken checks what is really due and arms again,
//! so that postponing (which every acknowledgment does) costs nothing.

use alloc::vec::Vec;

use crate::time::Instant;

/// A tick is 2^20 ns, about a millisecond.
const TICK_SHIFT: u32 = 20;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 64^5 ticks: twelve days.
const LEVELS: usize = 5;
/// The farthest a timer is put: one turn of the highest level, without the slot of the present.
const MAX_TICKS: u64 = (SLOTS as u64 - 1) << (SLOT_BITS * (LEVELS as u32 - 1));
const NONE: u32 = u32::MAX;
const NO_LIST: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Timer {
    /// When it fires, without the upper half: never before the present, and by far less than 2^32 ticks after it.
    tick: u32,
    next: u32,
    previous: u32,
    /// `level * SLOTS + slot` of the list that the timer is in; `NO_LIST` if not armed.
    list: u16,
}

/// What the timer of one connection takes.
#[cfg(test)]
pub(crate) const TIMER_BYTES: usize = size_of::<Timer>();

#[derive(Debug)]
pub(crate) struct TimerWheel {
    timers: Vec<Timer>,
    heads: [u32; LEVELS * SLOTS],
    occupied: [u64; LEVELS],
    /// Everything up to this tick has fired.
    elapsed: u64,
}

impl TimerWheel {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            timers: Vec::new(),
            heads: [NONE; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            elapsed: now.as_nanos() >> TICK_SHIFT,
        }
    }

    /// Makes sure that the timer `index` fires soon after `deadline`. Firing earlier than that is allowed and used: a
    /// timer that is armed for an earlier time stays.
    #[inline]
    pub(crate) fn arm(&mut self, index: u32, deadline: Instant) {
        if deadline == Instant::NEVER {
            return;
        }
        // The first tick that begins after the deadline.
        let tick = (deadline.as_nanos() >> TICK_SHIFT) + 1;
        match self.timers.get(index as usize) {
            Some(timer) if timer.list != NO_LIST && self.tick_of(timer) <= tick => {}
            _ => self.link(index, tick),
        }
    }

    /// When an armed timer fires.
    #[inline]
    fn tick_of(&self, timer: &Timer) -> u64 {
        self.elapsed + u64::from(timer.tick.wrapping_sub(self.elapsed as u32))
    }

    pub(crate) fn disarm(&mut self, index: u32) {
        let Some(&Timer { next, previous, list, .. }) = self.timers.get(index as usize) else { return };
        if list == NO_LIST {
            return;
        }
        self.timers[index as usize].list = NO_LIST;
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
        if previous != NONE {
            self.timers[previous as usize].next = next;
        } else {
            self.heads[list as usize] = next;
            if next == NONE {
                self.occupied[list as usize / SLOTS] &= !(1 << (list as usize % SLOTS));
            }
        }
    }

    /// Whether the timer `index` fires soon after `deadline` at the latest.
    #[cfg(feature = "check")]
    pub(crate) fn fires_by(&self, index: u32, deadline: Instant) -> bool {
        let latest = ((deadline.as_nanos() >> TICK_SHIFT) + 1).max(self.elapsed + 1);
        let armed = |timer: &Timer| timer.list != NO_LIST && self.tick_of(timer) <= latest;
        self.timers.get(index as usize).is_some_and(armed) || deadline == Instant::NEVER
    }

    fn link(&mut self, index: u32, tick: u64) {
        self.disarm(index);
        if self.timers.len() <= index as usize {
            let unarmed = Timer { tick: 0, next: NONE, previous: NONE, list: NO_LIST };
            self.timers.resize(index as usize + 1, unarmed);
        }
        // The past fires with the next tick; what is too far away fires early and is armed again.
        self.place(index, tick.clamp(self.elapsed + 1, self.elapsed + MAX_TICKS));
    }

    /// Puts a timer that is in no list where `tick`, not before the present, belongs.
    fn place(&mut self, index: u32, tick: u64) {
        // The level is that of the highest digit in which the tick differs from the present.
        let differing = 63 - ((self.elapsed ^ tick) | 1).leading_zeros();
        let level = ((differing / SLOT_BITS) as usize).min(LEVELS - 1);
        let slot = (tick >> (level as u32 * SLOT_BITS)) as usize % SLOTS;
        let list = level * SLOTS + slot;
        let head = self.heads[list];
        self.timers[index as usize] =
            Timer { tick: tick as u32, next: head, previous: NONE, list: list as u16 };
        if head != NONE {
            self.timers[head as usize].previous = index;
        }
        self.heads[list] = index;
        self.occupied[level] |= 1 << slot;
    }

    /// The first occupied list and the tick at which it is due.
    fn next_list(&self) -> Option<(usize, u64)> {
        (0..LEVELS).find_map(|level| {
            let shift = level as u32 * SLOT_BITS;
            let present = (self.elapsed >> shift) % SLOTS as u64;
            let occupied = self.occupied[level];
            if occupied == 0 {
                return None;
            }
            // Slots are counted from the present one; behind it lies the next turn of the wheel.
            let ahead = u64::from(occupied.rotate_right(present as u32).trailing_zeros());
            let slot = (present + ahead) % SLOTS as u64;
            let tick = ((self.elapsed >> shift) + ahead) << shift;
            Some((level * SLOTS + slot as usize, tick))
        })
    }

    /// When to call [`Self::pop_expired`] next.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Instant {
        self.next_list().map_or(Instant::NEVER, |(_, tick)| Instant::from_nanos(tick << TICK_SHIFT))
    }

    /// Disarms and returns a timer whose time has come. Call it until it returns `None`.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<u32> {
        let present = now.as_nanos() >> TICK_SHIFT;
        while let Some((list, tick)) = self.next_list()
            && tick <= present
        {
            self.elapsed = self.elapsed.max(tick);
            let index = self.heads[list];
            if list < SLOTS {
                // All timers of a list of the lowest level are due at its tick.
                self.disarm(index);
                return Some(index);
            }
            // A list of a higher level: its time has come near, all of it moves down.
            let mut next = index;
            while next != NONE {
                let index = next;
                let timer = self.timers[index as usize];
                next = timer.next;
                let tick = self.tick_of(&timer);
                self.disarm(index);
                self.place(index, tick);
            }
        }
        self.elapsed = self.elapsed.max(present);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(tick: u64) -> Instant {
        Instant::from_nanos(tick << TICK_SHIFT)
    }

    #[test]
    fn timer_armed_earlier_stays() {
        let mut wheel = TimerWheel::new(Instant::ZERO);
        wheel.arm(0, at(5));
        wheel.arm(0, at(9));
        assert_eq!(wheel.next_deadline(), at(6));
        wheel.arm(0, at(2));
        assert_eq!(wheel.next_deadline(), at(3));
        assert_eq!(wheel.pop_expired(at(3)), Some(0));
        assert_eq!(wheel.next_deadline(), Instant::NEVER);
    }

    #[test]
    fn timer_in_the_past_fires_with_the_next_tick() {
        let mut wheel = TimerWheel::new(at(1000));
        wheel.arm(3, Instant::ZERO);
        assert_eq!(wheel.pop_expired(at(1000)), None);
        assert_eq!(wheel.pop_expired(at(1001)), Some(3));
    }

    proptest! {
        /// Any arming, disarming and waiting, against a plain list.
        #[test]
        fn wheel_equals_reference(
            steps in proptest::collection::vec((0u32..20, 0u64..100_000_000, any::<bool>(), 0u64..3_000_000), 0..100),
            start in 0u64..1 << 40,
        ) {
            let mut wheel = TimerWheel::new(at(start));
            let mut reference = [None::<u64>; 20];
            let mut now = start;
            for (index, delay, arm, wait) in steps {
                if arm {
                    wheel.arm(index, at(now + delay));
                    let tick = now + delay + 1;
                    reference[index as usize] = Some(reference[index as usize].map_or(tick, |old| old.min(tick)));
                } else {
                    wheel.disarm(index);
                    reference[index as usize] = None;
                }
                let earliest = reference.iter().flatten().min().copied();
                // Never later than the earliest timer, and not silent when there is one.
                prop_assert_eq!(wheel.next_deadline() == Instant::NEVER, earliest.is_none());
                prop_assert!(earliest.is_none_or(|tick| wheel.next_deadline() <= at(tick)));
                now += wait;
                let mut fired = alloc::vec::Vec::new();
                while let Some(index) = wheel.pop_expired(at(now)) {
                    fired.push(index);
                }
                fired.sort_unstable();
                let expected: alloc::vec::Vec<u32> =
                    (0..20).filter(|&i| reference[i as usize].is_some_and(|tick| tick <= now)).collect();
                for &index in &expected {
                    reference[index as usize] = None;
                }
                prop_assert_eq!(fired, expected);
            }
        }
    }
}

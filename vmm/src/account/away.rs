//! What is taken out of a bucket: the stretches of time in which the thread was not on a CPU, until the transition comes that
//! they belong before.

use super::bucket::Bucket;
use super::switches::{Interval, Switches};

/// How often the host is asked for how long a thread waited for a CPU, at most: that is a system call. What it says goes to the
/// waits since the last time.
const DELAY_PERIOD_US: u64 = 100;

/// Of one thread.
#[derive(Debug)]
pub(super) struct Away {
    switches: Switches,
    pending: Pending,
    delay_period: u64,
}

/// What was read and belongs to the bucket that runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    preempted: Stretches,
    blocked: Stretches,
    /// The latest one, which may lie behind the transition that is being made.
    last: Option<Interval>,
    /// The host's count of waiting for a CPU when it was last asked, and when that was.
    delay: u64,
    delay_tsc: u64,
    /// What of it were preemptions since then.
    delay_known: i64,
    /// What of it is still to be taken out of waits.
    debt: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stretches {
    cycles: u64,
    count: u64,
}

impl Away {
    pub(super) fn new(switches: Switches) -> Self {
        let delay = switches.delay_ticks().unwrap_or(0);
        let delay_period = DELAY_PERIOD_US * switches.tsc_khz() / 1000;
        Self { switches, pending: Pending { delay, ..Pending::default() }, delay_period }
    }

    pub(super) fn switches(&self) -> &Switches {
        &self.switches
    }

    pub(super) fn lost(&self) -> u64 {
        self.switches.lost()
    }

    /// Reads what is new; gives the head up to which that is.
    pub(super) fn take_records(&mut self) -> u64 {
        let pending = &mut self.pending;
        self.switches.take(|interval| pending.push(interval))
    }

    /// Asks the host for how long the thread waited for a CPU, if it blocked and that was some time ago.
    pub(super) fn read_delay(&mut self, now: u64) {
        if self.pending.has_blocked() && now.saturating_sub(self.pending.delay_tsc) > self.delay_period {
            self.pending.take_delay(&self.switches, now);
        }
    }

    /// See [`Pending::leave`].
    pub(super) fn leave(
        &mut self,
        ended: Bucket,
        now: u64,
        left: &mut u64,
        add: impl FnMut(Bucket, u64, u64),
    ) -> bool {
        self.pending.leave(ended, now, left, add)
    }

    /// Since when its thread has been able to run and had no CPU, if that is so as far as it was read.
    pub(super) fn preempted_since(&self) -> Option<u64> {
        self.switches.out().and_then(|(since, preempted)| preempted.then_some(since))
    }

    /// What would be taken out of a bucket that ended now. Of a thread that may be off the CPU at this moment.
    pub(super) fn copy_until(&self, now: u64) -> Pending {
        let mut pending = self.pending;
        if let Some((start, preempted)) = self.switches.out() {
            pending.push(Interval { start, end: now.max(start), preempted });
        }
        if pending.has_blocked() {
            pending.take_delay(&self.switches, now);
        }
        pending
    }
}

impl Pending {
    fn push(&mut self, interval: Interval) {
        if let Some(before) = self.last.replace(interval) {
            self.count(before);
        }
    }

    fn count(&mut self, interval: Interval) {
        let cycles = interval.end - interval.start;
        if interval.preempted {
            self.delay_known += cycles as i64;
        }
        let stretches = if interval.preempted { &mut self.preempted } else { &mut self.blocked };
        stretches.cycles += cycles;
        stretches.count += 1;
    }

    fn has_blocked(&self) -> bool {
        self.blocked.count > 0 || self.last.is_some_and(|last| !last.preempted)
    }

    fn take_delay(&mut self, switches: &Switches, now: u64) {
        let Some(delay) = switches.delay_ticks() else { return };
        let latest = self.last.filter(|last| last.preempted).map_or(0, |last| last.end - last.start);
        let latest = latest as i64;
        self.debt += delay.saturating_sub(self.delay) as i64 - (self.delay_known + latest);
        // Counted again with the interval itself.
        self.delay_known = -latest;
        (self.delay, self.delay_tsc) = (delay, now);
    }

    /// The bucket `ended` ends at `now`, with so many cycles: `add` gets what goes to others, with how often, and `left` what stays.
    /// `true`: something lies behind.
    pub(super) fn leave(
        &mut self,
        ended: Bucket,
        now: u64,
        left: &mut u64,
        mut add: impl FnMut(Bucket, u64, u64),
    ) -> bool {
        // The host's clock is known to a microsecond or so: what lies about the transition is on either side of it.
        if let Some(last) = self.last.filter(|last| last.start < now) {
            self.count(Interval { end: last.end.min(now), ..last });
            self.last = (last.end > now).then_some(Interval { start: now, ..last });
        }
        let preempted = std::mem::take(&mut self.preempted);
        let blocked = std::mem::take(&mut self.blocked);
        let off = preempted.cycles.min(*left);
        *left -= off;
        let waited = blocked.cycles.min(*left);
        // Woken, and not running yet.
        let late = (self.debt.max(0) as u64).min(waited);
        self.debt -= late as i64;
        if off + late > 0 {
            add(Bucket::OffCpu, off + late, preempted.count);
            *left -= late;
        }
        let whose = ended.blocked();
        if whose != ended && waited > 0 {
            add(whose, waited - late, blocked.count);
            *left -= waited - late;
        }
        self.last.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(start: u64, end: u64, preempted: bool) -> Interval {
        Interval { start, end, preempted }
    }

    /// What a bucket of so many cycles that ends at 1000 is divided into.
    fn divided(pending: &mut Pending, ended: Bucket, cycles: u64) -> (Vec<(Bucket, u64, u64)>, u64, bool) {
        let (mut left, mut others) = (cycles, Vec::new());
        let behind = pending.leave(ended, 1000, &mut left, |bucket, cycles, count| {
            others.push((bucket, cycles, count));
        });
        (others, left, behind)
    }

    #[test]
    fn preemption_is_off_cpu_and_a_halt_is_halted() {
        let mut pending = Pending::default();
        [interval(100, 150, true), interval(200, 400, false), interval(500, 510, true)]
            .into_iter()
            .for_each(|interval| pending.push(interval));
        let (others, left, behind) = divided(&mut pending, Bucket::Guest, 1000);
        assert_eq!(others, [(Bucket::OffCpu, 60, 2), (Bucket::Halted, 200, 1)]);
        assert_eq!((left, behind), (740, false));
        assert_eq!(divided(&mut pending, Bucket::Guest, 10), (Vec::new(), 10, false), "taken out once");
    }

    #[test]
    fn wait_stays_a_wait_and_a_lock_in_device_work_is_blocked() {
        for (ended, expected) in
            [(Bucket::Wait, Vec::new()), (Bucket::NetReceive, vec![(Bucket::Blocked, 200, 1)])]
        {
            let mut pending = Pending::default();
            pending.push(interval(200, 400, false));
            let (others, left, _) = divided(&mut pending, ended, 300);
            assert_eq!(left, 300 - others.iter().map(|(_, cycles, _)| cycles).sum::<u64>());
            assert_eq!(others, expected);
        }
    }

    #[test]
    fn interval_behind_the_transition_belongs_to_the_next_bucket() {
        let mut pending = Pending::default();
        pending.push(interval(1001, 1200, true));
        assert_eq!(divided(&mut pending, Bucket::Exit, 500), (Vec::new(), 500, true));
        let mut left = 300;
        let mut off = 0;
        assert!(!pending.leave(Bucket::Poll, 1300, &mut left, |_, cycles, _| off = cycles));
        assert_eq!((off, left), (199, 101));
    }

    #[test]
    fn interval_about_the_transition_belongs_to_both_buckets() {
        let mut pending = Pending::default();
        pending.push(interval(990, 1200, true));
        assert_eq!(divided(&mut pending, Bucket::Exit, 500), (vec![(Bucket::OffCpu, 10, 1)], 490, true));
        let mut left = 300;
        let mut off = 0;
        assert!(!pending.leave(Bucket::Poll, 1300, &mut left, |_, cycles, _| off = cycles));
        assert_eq!((off, left), (200, 100));
    }

    #[test]
    fn what_passed_between_waking_and_running_is_off_cpu() {
        let mut pending = Pending { debt: 30, ..Pending::default() };
        pending.push(interval(200, 400, false));
        let (others, left, _) = divided(&mut pending, Bucket::Wait, 500);
        assert_eq!((others, left), (vec![(Bucket::OffCpu, 30, 0)], 470));
    }

    #[test]
    fn more_than_there_was_is_not_taken_out() {
        let mut pending = Pending::default();
        pending.push(interval(0, 900, true));
        let (others, left, _) = divided(&mut pending, Bucket::Poll, 100);
        assert_eq!((others, left), (vec![(Bucket::OffCpu, 100, 1)], 0));
    }
}

//! A request's time, divided: at each moment between its beginning and its end exactly one layer has it, so the layers of a request
//! add up to its end-to-end time and none is a remainder.

use super::layers::LayerId;

/// Who says that a stretch of time is a layer's. Where several do, the one that is first here is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The guest works on the request.
    Work,
    /// The disk has it.
    Disk,
    /// A system call of the backend.
    Backend,
    /// Other work of a device.
    Device,
    /// It lies in a queue.
    Queue,
    /// It follows from what is known before and after.
    Derived,
}

const RANKS: usize = Rank::Derived as usize + 1;

/// A stretch of time that a layer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) rank: Rank,
    pub(super) layer: LayerId,
}

/// A stretch of time that a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// TSC of its beginning, and
    pub from: u64,
    /// of its end.
    pub to: u64,
    /// Whose it is.
    pub layer: LayerId,
}

impl Step {
    /// How long it is.
    pub fn cycles(&self) -> u64 {
        self.to - self.from
    }
}

/// Divides the time from `begin` to `end`. What nobody claims is what `unclaimed` says of its beginning.
pub(super) fn divide(
    begin: u64,
    end: u64,
    claims: &[Claim],
    unclaimed: impl Fn(u64) -> LayerId,
) -> Vec<Step> {
    let mut edges: Vec<(u64, usize, bool)> = Vec::with_capacity(2 * claims.len());
    for (number, claim) in claims.iter().enumerate() {
        let (from, to) = (claim.from.max(begin), claim.to.min(end));
        if from < to {
            edges.extend([(from, number, true), (to, number, false)]);
        }
    }
    edges.sort_unstable_by_key(|(tsc, ..)| *tsc);
    // Those that have begun, the latest last; one that is over goes when it is the last: a guest decides how many there are at once.
    let mut running: [Vec<usize>; RANKS] = Default::default();
    let mut over = vec![false; claims.len()];
    let mut steps: Vec<Step> = Vec::new();
    let mut at = begin;
    let mut until = |to: u64, running: &[Vec<usize>; RANKS]| {
        if at < to {
            let first = running.iter().find_map(|claims| claims.last());
            let layer = first.map_or_else(|| unclaimed(at), |&number| claims[number].layer);
            match steps.last_mut() {
                Some(step) if step.layer == layer && step.to == at => step.to = to,
                _ => steps.push(Step { from: at, to, layer }),
            }
            at = to;
        }
    };
    for (tsc, number, begins) in edges {
        until(tsc, &running);
        let same = &mut running[claims[number].rank as usize];
        if begins {
            same.push(number);
        } else {
            over[number] = true;
            while same.pop_if(|last| over[*last]).is_some() {}
        }
    }
    until(end, &running);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(from: u64, to: u64, rank: Rank, layer: u16) -> Claim {
        Claim { from, to, rank, layer: LayerId(layer) }
    }

    fn divided(begin: u64, end: u64, claims: &[Claim]) -> Vec<(u64, u64, u16)> {
        let steps = divide(begin, end, claims, |_| LayerId(99));
        steps.iter().map(|step| (step.from, step.to, step.layer.0)).collect()
    }

    #[test]
    fn work_is_before_waiting_and_what_nobody_claims_is_said() {
        let claims =
            [claim(10, 50, Rank::Queue, 1), claim(20, 30, Rank::Work, 2), claim(60, 70, Rank::Disk, 3)];
        let expected =
            [(0, 10, 99), (10, 20, 1), (20, 30, 2), (30, 50, 1), (50, 60, 99), (60, 70, 3), (70, 80, 99)];
        assert_eq!(divided(0, 80, &claims), expected);
    }

    #[test]
    fn claims_are_cut_at_beginning_and_end_and_reversed_ones_are_none() {
        let claims =
            [claim(0, 15, Rank::Work, 1), claim(18, 90, Rank::Work, 2), claim(17, 16, Rank::Work, 3)];
        assert_eq!(divided(10, 20, &claims), [(10, 15, 1), (15, 18, 99), (18, 20, 2)]);
        assert_eq!(divided(20, 10, &claims), []);
    }

    #[test]
    fn time_to_divide_grows_with_the_claims_and_not_with_their_square() {
        // All begin before any ends, the first is over first: whoever looks through those that have begun looks through all.
        let many = 400_000;
        let claims: Vec<_> = (0..many).map(|n| claim(n, many + n, Rank::Work, (n % 2) as u16)).collect();
        let begun = std::time::Instant::now();
        assert_eq!(divided(0, 2 * many, &claims).len() as u64, many + 1);
        // Square, this takes minutes.
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    proptest::proptest! {
        #[test]
        fn steps_follow_each_other_and_fill_the_time(
            claims in proptest::collection::vec((0u64..1000, 0u64..1000, 0usize..RANKS), 0..40)
        ) {
            let ranks = [Rank::Work, Rank::Disk, Rank::Backend, Rank::Device, Rank::Queue, Rank::Derived];
            let claims: Vec<_> =
                claims.iter().map(|(from, to, rank)| claim(*from, *to, ranks[*rank], *rank as u16)).collect();
            let steps = divided(100, 900, &claims);
            proptest::prop_assert_eq!(steps.first().map(|step| step.0), Some(100));
            proptest::prop_assert_eq!(steps.last().map(|step| step.1), Some(900));
            for pair in steps.windows(2) {
                proptest::prop_assert_eq!(pair[0].1, pair[1].0);
                proptest::prop_assert_ne!(pair[0].2, pair[1].2);
            }
            for at in 100..900 {
                let best = claims.iter().filter(|claim| claim.from <= at && at < claim.to).map(|claim| claim.rank).min();
                let step = steps.iter().find(|step| step.0 <= at && at < step.1).map(|step| step.2);
                proptest::prop_assert_eq!(step, Some(best.map_or(99, |rank| rank as u16)));
            }
        }
    }
}

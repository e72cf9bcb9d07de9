//! Memory for the data of connections: a budget, of which each connection gets a share when it opens. The more there are,
//! the smaller the shares, down to a least one, so the whole is bounded by the budget and the least shares of all
//! connections together.

/// Memory that is shared out.
pub(crate) const BUDGET_BYTES: usize = 64 << 20;
/// A share is this part of what is left.
const PART: usize = 64;

/// What goes to the guest and to the host for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Buffer of what the guest sent: its window.
    pub(super) from_guest_bytes: usize,
    /// Buffer of what the host's end sent.
    pub(super) from_host_bytes: usize,
}

impl Share {
    /// Large enough that a turn's worth of segments of 64 KiB does not close the window.
    pub(super) const LARGEST: Self = Self { from_guest_bytes: 256 << 10, from_host_bytes: 64 << 10 };
    /// Enough for a request and a part of an answer.
    pub(super) const LEAST: Self = Self { from_guest_bytes: 16 << 10, from_host_bytes: 8 << 10 };

    pub(super) const fn bytes(self) -> usize {
        self.from_guest_bytes + self.from_host_bytes
    }
}

/// What was given out.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// More than [`BUDGET_BYTES`] where least shares had to be given out although nothing was left.
    taken_bytes: usize,
}

impl Budget {
    /// A share for a new connection.
    pub(super) fn take(&mut self) -> Share {
        let part = BUDGET_BYTES.saturating_sub(self.taken_bytes) / PART;
        let of =
            |largest: usize, least: usize| (part * largest / Share::LARGEST.bytes()).clamp(least, largest);
        let share = Share {
            from_guest_bytes: of(Share::LARGEST.from_guest_bytes, Share::LEAST.from_guest_bytes),
            from_host_bytes: of(Share::LARGEST.from_host_bytes, Share::LEAST.from_host_bytes),
        };
        self.taken_bytes += share.bytes();
        share
    }

    /// A share that [`Self::take`] gave out comes back.
    pub(super) fn give_back(&mut self, share: Share) {
        self.taken_bytes -= share.bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_many_connections_stay_within_budget_and_least_shares() {
        for count in [1usize, 64, 1000, 2048] {
            let mut budget = Budget::default();
            let total: usize = (0..count).map(|_| budget.take().bytes()).sum();
            assert!(total <= BUDGET_BYTES + count * Share::LEAST.bytes(), "{count}: {total}");
        }
    }

    #[test]
    fn shares_of_connections_that_come_and_go_stay_within_budget_and_least_shares() {
        let mut budget = Budget::default();
        let mut held: Vec<_> = (0..2048).map(|_| budget.take()).collect();
        for _ in 0..50 {
            // Those with the least go, and as many new ones come.
            let before = held.len();
            held.retain(|share| *share != Share::LEAST);
            (held.len()..before).for_each(|_| budget.give_back(Share::LEAST));
            held.extend((held.len()..2048).map(|_| budget.take()));
            let total: usize = held.iter().map(|share| share.bytes()).sum();
            assert!(total <= BUDGET_BYTES + 2048 * Share::LEAST.bytes(), "{total}");
        }
    }

    #[test]
    fn first_connections_get_large_shares_and_the_last_one_the_least() {
        let mut budget = Budget::default();
        let shares: Vec<_> = (0..2048).map(|_| budget.take()).collect();
        assert!(shares[..64].iter().all(|share| *share == Share::LARGEST), "{:?}", &shares[..64]);
        assert_eq!(shares[2047], Share::LEAST);
    }
}

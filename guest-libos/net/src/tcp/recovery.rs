//! Finding losses by duplicate acknowledgments and repairing them: fast retransmit and fast recovery of NewReno
//! (RFC 5681 3.2, RFC 6582 3.2), limited transmit (RFC 3042). It keeps the arithmetic on top of the congestion window;
//! the window itself is the congestion control's.

use super::Seq;

/// RFC 5681 3.2: so many duplicates mean loss, not reordering.
const DUPLICATE_ACK_THRESHOLD: u8 = 3;

/// Loss recovery of one connection.
#[derive(Debug)]
pub(crate) struct Recovery {
    duplicate_acks: u8,
    active: bool,
    /// RFC 6582: the highest sequence number sent when the last recovery began.
    recover: Seq,
    /// What fast recovery adds to the congestion window, in bytes; a partial acknowledgment can make it negative.
    inflation: i64,
    /// The segment at SND.UNA must be sent again.
    pub(crate) retransmit_due: bool,
}

/// What a duplicate acknowledgment means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duplicate {
    /// One segment has left the network.
    Noted,
    /// The segment at SND.UNA is lost: recovery begins.
    Loss,
}

/// What an acknowledgment of new data means for recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is no recovery.
    Normal,
    /// More was lost: the next hole is to be sent again.
    Partial,
    /// Everything from before the loss has arrived.
    Recovered,
}

impl Recovery {
    pub(crate) fn new(initial: Seq) -> Self {
        Self { duplicate_acks: 0, active: false, recover: initial, inflation: 0, retransmit_due: false }
    }

    #[cfg(test)]
    fn is_active(&self) -> bool {
        self.active
    }

    /// A duplicate acknowledgment for `una` arrived while bytes up to `max` had been sent.
    pub(crate) fn on_duplicate(&mut self, una: Seq, max: Seq, mss: u32) -> Duplicate {
        if self.active {
            self.inflation += i64::from(mss);
            return Duplicate::Noted;
        }
        self.duplicate_acks = self.duplicate_acks.saturating_add(1);
        // RFC 6582 3.2 (2): duplicates that go-back-N after a timeout provokes are not a new loss.
        if self.duplicate_acks == DUPLICATE_ACK_THRESHOLD && una.is_after(self.recover) {
            self.active = true;
            self.recover = max;
            self.inflation = i64::from(DUPLICATE_ACK_THRESHOLD) * i64::from(mss);
            self.retransmit_due = true;
            return Duplicate::Loss;
        }
        Duplicate::Noted
    }

    /// `acked` new bytes were acknowledged, up to `ack`.
    #[inline]
    pub(crate) fn on_progress(&mut self, ack: Seq, acked: u32, mss: u32) -> Progress {
        self.duplicate_acks = 0;
        self.retransmit_due = false;
        if !self.active {
            return Progress::Normal;
        }
        if ack.is_before(self.recover) {
            self.inflation -= i64::from(acked);
            if acked >= mss {
                self.inflation += i64::from(mss);
            }
            self.retransmit_due = true;
            return Progress::Partial;
        }
        self.active = false;
        self.inflation = 0;
        // A loss right after this one is a new one.
        self.recover = ack - 1;
        Progress::Recovered
    }

    /// The retransmission timer expired: everything up to `max` will be sent again.
    pub(crate) fn on_timeout(&mut self, max: Seq) {
        *self = Self { recover: max, ..Self::new(max) };
    }

    /// The congestion window with what recovery and limited transmit add to it.
    #[inline]
    pub(crate) fn adjust(&self, window: u32, mss: u32) -> u32 {
        if self.active {
            return (i64::from(window) + self.inflation).clamp(i64::from(mss), 1 << 30) as u32;
        }
        // RFC 3042: the first two duplicates let one new segment out each.
        window + u32::from(self.duplicate_acks.min(2)) * mss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 100;

    fn seq(value: u32) -> Seq {
        Seq::new(value)
    }

    #[test]
    fn third_duplicate_begins_recovery() {
        let mut recovery = Recovery::new(seq(0));
        assert_eq!(recovery.on_duplicate(seq(1), seq(1001), MSS), Duplicate::Noted);
        assert_eq!(recovery.adjust(500, MSS), 600);
        assert_eq!(recovery.on_duplicate(seq(1), seq(1001), MSS), Duplicate::Noted);
        assert_eq!(recovery.adjust(500, MSS), 700);
        assert_eq!(recovery.on_duplicate(seq(1), seq(1001), MSS), Duplicate::Loss);
        assert!(recovery.retransmit_due);
        assert_eq!(recovery.adjust(500, MSS), 800);
        assert_eq!(recovery.on_duplicate(seq(1), seq(1001), MSS), Duplicate::Noted);
        assert_eq!(recovery.adjust(500, MSS), 900);
    }

    #[test]
    fn partial_ack_asks_for_the_next_hole_and_full_ack_ends_recovery() {
        let mut recovery = Recovery::new(seq(0));
        for _ in 0..3 {
            recovery.on_duplicate(seq(1), seq(1001), MSS);
        }
        recovery.retransmit_due = false;
        assert_eq!(recovery.on_progress(seq(201), 200, MSS), Progress::Partial);
        assert!(recovery.retransmit_due);
        assert_eq!(recovery.adjust(500, MSS), 500 + 300 - 200 + 100);
        assert_eq!(recovery.on_progress(seq(1001), 800, MSS), Progress::Recovered);
        assert_eq!((recovery.is_active(), recovery.adjust(500, MSS)), (false, 500));
    }

    #[test]
    fn loss_right_after_recovery_is_found_again() {
        let mut recovery = Recovery::new(seq(0));
        for _ in 0..3 {
            recovery.on_duplicate(seq(1), seq(1001), MSS);
        }
        assert_eq!(recovery.on_progress(seq(1001), 1000, MSS), Progress::Recovered);
        let second = [0; 3].map(|_| recovery.on_duplicate(seq(1001), seq(2001), MSS));
        assert_eq!(second[2], Duplicate::Loss);
    }

    #[test]
    fn duplicates_after_a_timeout_do_not_begin_recovery() {
        let mut recovery = Recovery::new(seq(0));
        recovery.on_timeout(seq(1001));
        for _ in 0..5 {
            assert_eq!(recovery.on_duplicate(seq(501), seq(1001), MSS), Duplicate::Noted);
        }
    }
}

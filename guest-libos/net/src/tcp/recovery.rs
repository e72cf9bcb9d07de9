//! Loss recovery of one connection: whether one is under way, how far it goes, and whether it turns out to have been
//! mistaken (RFC 6582, RFC 6675, RFC 5682 and RFC 3522 share this state). Which bytes are lost, `rack` says, or duplicate
//! acknowledgments if the peer has no SACK; the window is the congestion control's, and `prr`'s during fast recovery.

use super::Seq;
use super::prr::Prr;
use crate::time::Instant;

/// RFC 5681 3.2: so many duplicates mean loss, not reordering.
pub(crate) const DUPLICATE_ACK_THRESHOLD: u8 = 3;

/// Which recovery is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// None.
    Open,
    /// After a loss found by acknowledgments.
    Fast,
    /// After a retransmission timeout.
    Timeout,
}

/// F-RTO (RFC 5682 2.1, 3.1): was the timeout spurious?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frto {
    /// Not under examination.
    Off,
    /// Step 2: the first segment was sent again, nothing else.
    SentAgain,
    /// Step 3: new data goes out before anything else is sent again.
    SendNew,
}

#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) phase: Phase,
    /// RFC 6582's recover, RFC 6675's RecoveryPoint: SND.NXT when the last recovery began. `None`: there was none.
    recover: Option<Seq>,
    /// SND.UNA when it began.
    pub(crate) began_at: Seq,
    /// Bytes that it sent again and the peer has not reported as duplicates.
    sent_again: u32,
    /// When it first sent something again; `NEVER` if it has not, or is known to be right or mistaken.
    first_sent_again_at: Instant,
    pub(crate) frto: Frto,
    pub(crate) prr: Prr,
    /// The next retransmission leaves whatever the congestion window says.
    pub(crate) forced: bool,
    /// Without SACK: duplicate acknowledgments in a row, and the bytes that they stand for.
    duplicates: u8,
    duplicate_bytes: u32,
    /// RFC 6582 3.2 (3): an acknowledgment of some of what was lost has been seen.
    partial_seen: bool,
}

impl Recovery {
    pub(crate) const NONE: Self = Self {
        phase: Phase::Open,
        recover: None,
        began_at: Seq::new(0),
        sent_again: 0,
        first_sent_again_at: Instant::NEVER,
        frto: Frto::Off,
        prr: Prr::NONE,
        forced: false,
        duplicates: 0,
        duplicate_bytes: 0,
        partial_seen: false,
    };

    fn begin(&mut self, phase: Phase, una: Seq, next: Seq) {
        *self = Self { phase, recover: Some(next), began_at: una, forced: true, ..Self::NONE };
    }

    /// Whether everything before `end` was sent before the last recovery began.
    #[inline]
    pub(crate) fn is_of_before(&self, end: Seq) -> bool {
        self.recover.is_some_and(|recover| end.is_at_or_before(recover))
    }

    /// Whether everything that the last recovery was about has arrived when everything before `una` has.
    pub(crate) fn is_complete(&self, una: Seq) -> bool {
        self.recover.is_none_or(|recover| recover.is_at_or_before(una))
    }

    /// Whether a loss at `una` is none that the last recovery was about.
    fn is_beyond(&self, una: Seq) -> bool {
        self.recover.is_none_or(|recover| una.is_after(recover))
    }

    /// Fast recovery begins with `flight` bytes on their way or lost.
    pub(crate) fn begin_fast(&mut self, una: Seq, next: Seq, flight: u32) {
        let duplicate_bytes = self.duplicate_bytes;
        self.begin(Phase::Fast, una, next);
        (self.prr, self.duplicate_bytes) = (Prr::begin(flight), duplicate_bytes);
    }

    /// The retransmission timer expired.
    pub(crate) fn begin_timeout(&mut self, una: Seq, next: Seq) {
        // In fast recovery new data leaves all the time: what of it arrives after the timeout tells nothing of what was lost.
        let examined = self.phase != Phase::Fast && !self.is_repeated_timeout(una);
        let frto = if examined { Frto::SentAgain } else { Frto::Off };
        self.begin(Phase::Timeout, una, next);
        self.frto = frto;
    }

    /// Whether the timer had expired for the bytes at `una` before.
    pub(crate) fn is_repeated_timeout(&self, una: Seq) -> bool {
        self.phase == Phase::Timeout && self.began_at == una
    }

    /// Everything from before has arrived, or the recovery was mistaken. What it sent again may yet be reported.
    pub(crate) fn end(&mut self, una: Seq) {
        if self.phase == Phase::Fast {
            // A loss right after this one is a new one.
            self.recover = Some(una - 1);
        }
        (self.phase, self.frto, self.forced) = (Phase::Open, Frto::Off, false);
        self.forget_duplicates();
    }

    /// `len` bytes were sent again.
    pub(crate) fn sent_again(&mut self, len: u32, now: Instant) {
        self.forced = false;
        if self.phase != Phase::Open {
            self.sent_again = self.sent_again.saturating_add(len);
            self.first_sent_again_at = self.first_sent_again_at.min(now);
        }
    }

    /// The peer reports bytes `start..end` as duplicates. Returns whether all that recovery sent again was needless
    /// (RFC 3708, RFC 8985 6.2).
    pub(crate) fn duplicate_reported(&mut self, start: Seq, end: Seq) -> bool {
        if self.first_sent_again_at == Instant::NEVER
            || start.is_before(self.began_at)
            || end.is_after(self.recover.map_or(self.began_at, |recover| self.began_at.max(recover)))
        {
            return false;
        }
        self.sent_again = self.sent_again.saturating_sub(end.since(start));
        self.sent_again == 0
    }

    /// When recovery first sent something again, if its being mistaken can still be found out.
    pub(crate) fn first_sent_again_at(&self) -> Instant {
        self.first_sent_again_at
    }

    /// It was mistaken: that is to be found out once.
    pub(crate) fn settle(&mut self) {
        self.first_sent_again_at = Instant::NEVER;
    }

    /// A duplicate acknowledgment of a peer without SACK, with `flight` bytes unacknowledged from `una` on. Returns how
    /// many bytes it tells of.
    pub(crate) fn duplicate_arrived(&mut self, una: Seq, flight: u32, mss: u32) -> u32 {
        self.duplicates = self.duplicates.saturating_add(1);
        // No more than there can be: duplicates that a peer invents let nothing out (RFC 5681 3.2, step 4).
        let most = match self.phase {
            // RFC 3042: two let new segments out, the third begins recovery where it may.
            Phase::Open if self.is_beyond(una) => flight.min(4 * mss),
            Phase::Open => flight.min(3 * mss),
            Phase::Fast => self.recover.map_or(0, |recover| recover.since(una)),
            Phase::Timeout => 0,
        };
        let before = self.duplicate_bytes;
        self.duplicate_bytes = before.max((before + mss).min(most.saturating_sub(mss)));
        self.duplicate_bytes - before
    }

    /// Whether duplicates mean a loss now. RFC 6582 3.2 (2): those that retransmission after a timeout provokes do not.
    pub(crate) fn duplicates_mean_loss(&self, una: Seq) -> bool {
        self.phase == Phase::Open && self.duplicates == DUPLICATE_ACK_THRESHOLD && self.is_beyond(una)
    }

    /// An acknowledgment of `advanced` bytes of a peer without SACK. Returns how many of them are news: duplicates told of
    /// the others (RFC 6937 3).
    pub(crate) fn partial_arrived(&mut self, advanced: u32, mss: u32) -> u32 {
        let told = self.duplicate_bytes.min(advanced.saturating_sub(mss));
        self.duplicate_bytes -= told;
        self.duplicates = 0;
        advanced - told
    }

    pub(crate) fn forget_duplicates(&mut self) {
        (self.duplicates, self.duplicate_bytes) = (0, 0);
    }

    /// Bytes that duplicates stand for.
    #[inline]
    pub(crate) fn duplicate_bytes(&self) -> u32 {
        self.duplicate_bytes
    }

    /// RFC 6582 3.2 (3): of the acknowledgments of part of a flight, the first restarts the retransmission timer; so that a
    /// flight of many losses is not repaired one a round trip for longer than the timeout.
    pub(crate) fn restarts_timer(&mut self) -> bool {
        self.phase != Phase::Fast || !core::mem::replace(&mut self.partial_seen, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(value: u32) -> Seq {
        Seq::new(value)
    }

    #[test]
    fn recovery_is_mistaken_when_all_that_it_sent_again_is_reported_and_nothing_else() {
        let mut recovery = Recovery::NONE;
        assert!(!recovery.duplicate_reported(seq(100), seq(200)), "nothing was sent again");
        recovery.begin_fast(seq(100), seq(900), 800);
        recovery.sent_again(200, Instant::from_millis(5));
        // Of before the recovery, and of after it.
        assert!(
            !recovery.duplicate_reported(seq(0), seq(100)) && !recovery.duplicate_reported(seq(0), seq(100))
        );
        assert!(!recovery.duplicate_reported(seq(800), seq(1_000)));
        assert!(!recovery.duplicate_reported(seq(100), seq(200)));
        assert!(recovery.duplicate_reported(seq(300), seq(400)));
    }

    #[test]
    fn timeout_is_examined_unless_it_interrupts_fast_recovery_or_is_a_repeated_one() {
        let mut recovery = Recovery::NONE;
        recovery.begin_timeout(seq(100), seq(900));
        assert_eq!(recovery.frto, Frto::SentAgain);
        recovery.begin_timeout(seq(100), seq(900));
        assert_eq!(recovery.frto, Frto::Off);
        recovery.begin_fast(seq(200), seq(900), 700);
        recovery.begin_timeout(seq(200), seq(900));
        assert_eq!(recovery.frto, Frto::Off);
    }

    #[test]
    fn timer_restarts_with_the_first_partial_acknowledgment_only() {
        let mut recovery = Recovery::NONE;
        assert!(recovery.restarts_timer() && recovery.restarts_timer());
        recovery.begin_fast(seq(100), seq(900), 800);
        assert!(recovery.restarts_timer());
        assert!(!recovery.restarts_timer());
        recovery.end(seq(900));
        assert!(recovery.restarts_timer());
    }
}

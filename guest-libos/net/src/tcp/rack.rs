//! RACK (RFC 8985 6): what was sent sufficiently long before something that has arrived is lost. The time allowed for
//! reordering adapts to what the path shows.

use super::Seq;
use super::scoreboard::{Fate, Record, Scoreboard};
use super::timestamps::TimestampState;
use crate::time::{Duration, Instant, Span};

/// RFC 8985 6.2 step 4: so many recoveries without a duplicate report forget the widened window.
const RECOVERIES_TO_FORGET: u8 = 16;
/// RFC 8985 6.2 step 4: so many segments beyond a hole mean loss.
const SACKED_SEGMENTS: u32 = 3;
/// How long a least round trip is believed in.
const MIN_RTT_LIFE: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(crate) struct Rack {
    /// RACK.xmit_ts and RACK.end_seq: what has arrived and was sent last. `None`: something before all that is on its way.
    latest: Option<(Instant, Seq)>,
    /// RACK.fack: the highest sequence number that has arrived. `None`: SND.UNA.
    highest: Option<Seq>,
    /// RACK.reordering_seen.
    pub(crate) reordering_seen: bool,
    /// RACK.reo_wnd_mult and RACK.reo_wnd_persist.
    multiplier: u8,
    recoveries_left: u8,
    /// RACK.dsack_round.
    duplicate_round: Option<Seq>,
}

/// The round trips of a connection, as RACK wants them.
#[derive(Debug)]
pub(crate) struct RoundTrips {
    /// RACK.rtt: the last one.
    last: Span,
    /// RACK.min_RTT, and when it was measured.
    min: Span,
    min_at: Instant,
}

impl RoundTrips {
    pub(crate) const NONE: Self = Self { last: Span::ZERO, min: Span::ZERO, min_at: Instant::ZERO };

    /// Something that was sent once has arrived.
    #[inline]
    pub(crate) fn measured(&mut self, rtt: Duration, now: Instant) {
        if Span::floor(rtt) <= self.min
            || self.min_at == Instant::ZERO
            || now.since(self.min_at) > MIN_RTT_LIFE
        {
            (self.min, self.min_at) = (Span::floor(rtt), now);
        }
        self.last = Span::floor(rtt);
    }
}

/// What is known of the acknowledgment that tells of an arrival.
#[derive(Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) now: Instant,
    /// TSecr, if there are timestamps, and the clock it is of.
    pub(crate) echo: Option<u32>,
    pub(crate) timestamps: &'a TimestampState,
}

impl Arrival<'_> {
    /// The round trip that timestamps show.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.timestamps.round_trip(self.echo?, self.now)
    }

    /// Whether the acknowledgment is certainly of something sent before `at` (RFC 3522).
    pub(crate) fn is_of_before(&self, at: Instant) -> bool {
        self.echo.is_some_and(|echo| self.timestamps.is_from_before(echo, at))
    }
}

/// RACK_sent_after: by the time of sending, and by sequence number at the same time.
#[inline]
fn sent_after((at, end): (Instant, Seq), (other_at, other_end): (Instant, Seq)) -> bool {
    at > other_at || (at == other_at && end.is_after(other_end))
}

impl Rack {
    pub(crate) const NONE: Self = Self {
        latest: None,
        highest: None,
        reordering_seen: false,
        multiplier: 1,
        recoveries_left: RECOVERIES_TO_FORGET,
        duplicate_round: None,
    };

    /// Steps 1 to 3 for a piece of what has arrived.
    #[inline]
    pub(crate) fn arrived(&mut self, piece: &Record, trips: &mut RoundTrips, arrival: &Arrival<'_>) {
        let rtt = arrival.now.since(piece.sent_at);
        if self.highest.is_none_or(|highest| piece.end.is_after(highest)) {
            self.highest = Some(piece.end);
        } else if self.highest != Some(piece.end) && !piece.again {
            self.reordering_seen = true;
        }
        if !piece.again {
            trips.measured(rtt, arrival.now);
        } else if rtt < trips.min.duration() || arrival.is_of_before(piece.sent_at) {
            // Too early to be an answer to the retransmission: it is the original that has arrived.
            return;
        }
        trips.last = Span::floor(rtt);
        let piece = (piece.sent_at, piece.end);
        if self.latest.is_none_or(|latest| sent_after(piece, latest)) {
            self.latest = Some(piece);
        }
    }

    /// Whether what has arrived was sent after the record.
    #[inline]
    fn is_after(&self, record: &Record) -> bool {
        self.latest.is_some_and(|latest| sent_after(latest, (record.sent_at, record.end)))
    }

    /// The acknowledgment reports a duplicate, when `una` and `next` are SND.UNA and SND.NXT (step 4). Where everything has
    /// arrived in order, it was not too short a wait for what is late that made it.
    pub(crate) fn duplicate_reported(&mut self, una: Seq, next: Seq) {
        if !self.reordering_seen {
            return;
        }
        if self.duplicate_round.is_some_and(|round| una.is_before(round)) {
            return;
        }
        self.duplicate_round = Some(next);
        self.multiplier = self.multiplier.saturating_add(1);
        self.recoveries_left = RECOVERIES_TO_FORGET;
    }

    /// A recovery is over (step 4).
    pub(crate) fn recovered(&mut self) {
        self.recoveries_left = self.recoveries_left.saturating_sub(1);
        if self.recoveries_left == 0 {
            (self.multiplier, self.recoveries_left) = (1, RECOVERIES_TO_FORGET);
        }
    }

    /// RACK.reo_wnd: how much later than expected something may arrive and not be lost (step 4).
    fn reordering_window(
        &self,
        board: &Scoreboard,
        trips: &RoundTrips,
        recovering: bool,
        smoothed_rtt: Duration,
        mss: u32,
    ) -> Duration {
        if !self.reordering_seen {
            let segments = |record: &Record| record.len().div_ceil(mss);
            let sacked = board.iter().filter(|record| record.fate == Fate::Sacked).map(segments);
            if recovering || sacked.sum::<u32>() >= SACKED_SEGMENTS {
                return Duration::ZERO;
            }
        }
        let window = trips.min.duration().as_nanos() / 4 * u64::from(self.multiplier);
        Duration::from_nanos(window).min(smoothed_rtt)
    }

    /// Step 5: marks what is lost. Returns how many bytes that are, and when to look again.
    pub(crate) fn detect(
        &self,
        board: &mut Scoreboard,
        trips: &RoundTrips,
        recovering: bool,
        smoothed_rtt: Duration,
        mss: u32,
        now: Instant,
    ) -> (u32, Instant) {
        if board.is_plain() && !board.first().is_some_and(|first| self.is_after(first)) {
            return (0, Instant::NEVER);
        }
        let allowance = self.reordering_window(board, trips, recovering, smoothed_rtt, mss);
        let mut look_again_at = Instant::NEVER;
        let lost = board.mark_lost(|record| {
            if !self.is_after(record) {
                return false;
            }
            let lost_at = record.sent_at + trips.last.duration() + allowance;
            if lost_at > now {
                look_again_at = look_again_at.min(lost_at);
            }
            lost_at <= now
        });
        (lost, look_again_at)
    }

    /// The retransmission timer expired (RFC 8985 6.3): the first record is lost, and what was due before now.
    pub(crate) fn detect_on_timeout(
        &self,
        board: &mut Scoreboard,
        trips: &RoundTrips,
        una: Seq,
        smoothed_rtt: Duration,
        mss: u32,
        now: Instant,
    ) {
        let allowance = self.reordering_window(board, trips, true, smoothed_rtt, mss);
        board.mark_lost(|record| {
            record.start == una || record.sent_at + trips.last.duration() + allowance <= now
        });
    }
}

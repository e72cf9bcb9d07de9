//! What an acknowledgment does to the sending half: bytes that have arrived leave the queue, SACK blocks and duplicates
//! tell of others, losses are found, recovery begins, goes on, ends or proves mistaken, and the congestion window moves.

use super::congestion::{Ack, WindowUse, initial_window};
use super::rack::Arrival;
use super::recovery::{Frto, Phase};
use super::send_side::{SendSide, SendTimer};
use super::{Context, Seq};
use crate::data::Data;
use crate::time::Instant;
use crate::wire::tcp::Segment;
use crate::wire::tcp_options::{SackBlock, SackBlocks, TIMESTAMPS_BYTES};

/// What an acknowledgment brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acked {
    /// Bytes of data.
    pub(crate) bytes: u32,
    /// What is queued fell to the low-water mark now, and was above it before.
    pub(crate) low_water: bool,
    /// Our FIN has arrived.
    pub(crate) fin: bool,
}

/// What an acknowledgment told that was not known.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    /// Bytes by which SND.UNA moves.
    advanced: u32,
    /// Bytes that have arrived, in order or not.
    delivered: u32,
    /// Some of them were on their way when recovery began and were not sent again.
    original: bool,
    /// It reports blocks.
    blocks: bool,
    /// The end of the duplicate that it reports.
    duplicate: Option<Seq>,
    /// All that recovery sent again was needless.
    needless: bool,
}

impl<D: Data> SendSide<D> {
    /// Handles SND.UNA < SEG.ACK =< highest sent.
    #[inline]
    pub(crate) fn acknowledge(
        &mut self,
        ack: Seq,
        segment: &Segment<'_>,
        arrival: &Arrival<'_>,
        ctx: &mut Context<'_>,
    ) -> Acked {
        let (pipe, queued) = (self.pipe(), self.queue.len());
        let mut news = News { advanced: ack.since(self.una), ..News::default() };
        // Sequence numbers beyond the queue are our FIN's.
        let fin = self.fin_queued && news.advanced as usize > queued;
        self.fin_queued &= !fin;
        let bytes = news.advanced - u32::from(fin);
        // When the latest of what arrived left, and when the earliest did, if all of it was sent once.
        let (latest_sent_at, earliest_sent_at) = if self.loss.is_untouched() {
            self.take_plainly(ack, &mut news, ctx.now)
        } else {
            self.take_carefully(ack, &mut news, arrival)
        };
        if news.advanced < self.mss && latest_sent_at.is_some() {
            // The next bytes left with these: it ends within a segment. As bytes are counted, the window gains nothing (RFC 3465 2.1).
            let next_sent_at = self.queue.board().first().map(|next| next.sent_at);
            ctx.counters.split_acks_in += u64::from(next_sent_at == latest_sent_at);
        }
        self.queue.acknowledge(bytes as usize);
        self.una = ack;
        if self.has_urgent() {
            self.urgent = self.urgent.filter(|end| end.is_after(ack));
        }
        self.next = self.next.max(ack);
        self.take_rtt_sample(earliest_sent_at, arrival, ctx);
        if latest_sent_at.is_some() {
            // RFC 8961 4 (4): something has arrived that was sent once, though perhaps beside what was sent again.
            self.rto.reset_backoff();
        }
        self.progress_at = ctx.now;
        self.timeouts = 0;
        if let Some(loss) = self.loss.touched()
            && let Some(mss) = loss.black_hole.on_progress()
        {
            self.use_mss(mss);
        }
        let window_use = if self.congestion.in_slow_start() && pipe > self.congestion.window() / 2 {
            WindowUse::Limiting
        } else {
            self.window_use
        };
        let grows = if self.is_quiet() && !self.has_blocks(segment, arrival) {
            if let Some(loss) = self.loss.touched() {
                loss.recovery.forget_duplicates();
                loss.reorder_at = Instant::NEVER;
            }
            true
        } else {
            !self.learn(news, segment, arrival, ctx)
        };
        let echoed = self.ecn.concerns(segment) && self.take_echo(segment, news.advanced, ctx);
        if grows && !echoed && self.congestion.heeds(window_use) {
            let (sent, smoothed_rtt) = (self.max, self.rto.smoothed().unwrap_or_default());
            let (now, bytes) = (ctx.now, news.advanced);
            let rtt = latest_sent_at.map(|sent_at| now.since(sent_at));
            self.congestion
                .on_ack(&Ack { now, bytes, number: ack, sent, rtt, smoothed_rtt, window_use }, self.mss);
        }
        if self.una != self.max
            && self.timer == SendTimer::Acknowledgment
            && (self.sack || self.loss.touched().is_none_or(|loss| loss.recovery.restarts_timer()))
        {
            // RFC 6298 (5.2), (5.3).
            self.timeout_at = ctx.now + self.rto.timeout();
        }
        self.probe_at = Instant::NEVER;
        // Whoever is above the mark has something queued, so this says that some of it has arrived, too.
        let low_water = queued > self.low_water_bytes && self.queue.len() <= self.low_water_bytes;
        Acked { bytes, low_water, fin }
    }

    /// Takes what has arrived off the records while nothing was lost, and measures its round trip. Returns when the latest
    /// and the earliest of it left.
    #[inline]
    fn take_plainly(
        &mut self,
        ack: Seq,
        news: &mut News,
        now: Instant,
    ) -> (Option<Instant>, Option<Instant>) {
        news.delivered = ack.min(self.next).since(self.una);
        let single = self.queue.board_mut().acknowledge_single(ack);
        let (mut latest, mut earliest) = (single, single);
        if single.is_none() {
            self.queue.board_mut().acknowledge(ack, |piece| {
                latest = Some(piece.sent_at);
                earliest = earliest.or(latest);
            });
        }
        if let Some(sent_at) = latest {
            self.round_trips.measured(now.since(sent_at), now);
        }
        (latest, earliest)
    }

    /// The same while something was lost, reported or sent again.
    #[cold]
    fn take_carefully(
        &mut self,
        ack: Seq,
        news: &mut News,
        arrival: &Arrival<'_>,
    ) -> (Option<Instant>, Option<Instant>) {
        let (mut latest, mut earliest) = (None, Some(Instant::NEVER));
        let (loss, trips) = (&mut *self.loss, &mut self.round_trips);
        self.queue.board_mut().acknowledge(ack, |piece| {
            earliest = earliest.filter(|_| !piece.again).map(|sent_at| sent_at.min(piece.sent_at));
            news.delivered += piece.len();
            if !piece.again {
                latest = Some(piece.sent_at);
            }
            news.original |= !piece.again && loss.recovery.is_of_before(piece.end);
            loss.rack.arrived(piece, trips, arrival);
        });
        (latest, earliest.filter(|&at| at != Instant::NEVER))
    }

    /// Handles SEG.ACK = SND.UNA: a duplicate in the sense of RFC 5681 2, or of RFC 6675 2 if it has SACK blocks.
    #[inline]
    pub(crate) fn on_same_ack(
        &mut self,
        segment: &Segment<'_>,
        arrival: &Arrival<'_>,
        ctx: &mut Context<'_>,
    ) {
        if self.timer == SendTimer::Persist {
            // The peer is alive and keeps its window closed: it may do so for ever (RFC 9293 3.8.6.1).
            self.progress_at = ctx.now;
            return;
        }
        let blocks = self.has_blocks(segment, arrival);
        if self.max == self.una && !blocks {
            return;
        }
        let duplicate = segment.sequence_len() == 0 && self.scaled(segment.window) == self.window;
        ctx.counters.duplicate_acks_in += u64::from(duplicate);
        let tells = if self.sack {
            self.has_blocks(segment, arrival) || self.loss.probe.end.is_some()
        } else {
            duplicate
        };
        if tells {
            self.learn(News::default(), segment, arrival, ctx);
        }
        if self.ecn.concerns(segment) {
            self.take_echo(segment, 0, ctx);
        }
    }

    /// Whether there is nothing but data on its way for the first time.
    #[inline]
    fn is_quiet(&self) -> bool {
        self.loss.is_untouched()
            || (self.loss.recovery.phase == Phase::Open
                && self.loss.probe.end.is_none()
                && self.queue.board().is_plain())
    }

    /// Whether the segment has options besides timestamps, and so most likely SACK blocks.
    #[inline]
    fn has_blocks(&self, segment: &Segment<'_>, arrival: &Arrival<'_>) -> bool {
        let timestamps = if arrival.echo.is_some() { TIMESTAMPS_BYTES } else { 0 };
        self.sack && segment.options.len() > timestamps
    }

    /// All that needs more than a glance. Returns whether the congestion window has had its share of the acknowledgment.
    #[cold]
    fn learn(
        &mut self,
        mut news: News,
        segment: &Segment<'_>,
        arrival: &Arrival<'_>,
        ctx: &mut Context<'_>,
    ) -> bool {
        if self.sack {
            self.read_blocks(&mut news, segment, arrival, ctx);
            if self.probe_acknowledged(news.advanced, news.blocks, news.duplicate) {
                // RFC 8985 7.4.1: a loss all the same, and the window answers to it.
                ctx.counters.tail_probe_recoveries += 1;
                self.loss.recovery.settle();
                self.congestion.on_loss(self.next.since(self.una), self.window_use, self.mss);
                self.ecn.reduced(self.next);
            }
        }
        let phase = self.loss.recovery.phase;
        if self.is_mistaken(&news, arrival) {
            ctx.counters.spurious_recoveries += 1;
            ctx.counters.spurious_timeouts += u64::from(phase == Phase::Timeout);
            self.queue.board_mut().forget_losses();
            self.congestion.on_spurious();
            self.ecn.forget_reduction();
            self.loss.recovery.settle();
            self.loss.recovery.end(self.una);
        } else if phase != Phase::Open && self.loss.recovery.is_complete(self.una) {
            self.loss.recovery.end(self.una);
            self.loss.rack.recovered();
            if phase == Phase::Fast {
                // RFC 6582 3.2 (3), first option, where it is not known what is on its way; else, as RFC 6675 and 6937 leave
                // the window, but with no larger burst than a connection may begin with.
                let burst = if self.sack { initial_window(self.mss) } else { 2 * self.mss };
                self.congestion.on_recovered(self.pipe(), burst);
            }
        } else {
            self.examine_timeout(&news);
        }
        let lost = if self.sack { self.detect_losses(ctx) } else { self.count_duplicates(&mut news) };
        if lost > 0 {
            self.losses_found(lost, news.delivered, ctx);
        }
        self.update_prr(news.delivered, news.advanced > 0 && lost == 0);
        phase == Phase::Fast || self.loss.recovery.phase == Phase::Fast || news.advanced == 0
    }

    /// RFC 2018 5, RFC 2883 4: the blocks that a segment reports. What cannot be true is passed over.
    fn read_blocks(
        &mut self,
        news: &mut News,
        segment: &Segment<'_>,
        arrival: &Arrival<'_>,
        ctx: &mut Context<'_>,
    ) {
        let mut blocks = SackBlocks::parse(segment.options);
        let blocks = blocks.as_mut_slice();
        news.blocks = !blocks.is_empty();
        ctx.counters.sacks_in += u64::from(news.blocks);
        let first = blocks.first().filter(|first| self.is_duplicate_report(first, blocks.get(1))).copied();
        if let Some(duplicate) = first {
            self.duplicate_reported(&duplicate, news, ctx);
        }
        let blocks = &mut blocks[usize::from(first.is_some())..];
        // They come by age; what one acknowledgment tells of is taken for arrived in order.
        blocks.sort_unstable_by_key(|block| block.start.since(self.una));
        for block in blocks {
            let reach = self.next.since(self.una);
            let (start, end) = (block.start.since(self.una), block.end.since(self.una));
            if start >= end || end > reach {
                ctx.counters.sack_blocks_ignored += 1;
                continue;
            }
            let (loss, trips) = (&mut *self.loss, &mut self.round_trips);
            self.queue.board_mut().sack(block.start, block.end, |piece| {
                news.delivered += piece.len();
                news.original |= !piece.again && loss.recovery.is_of_before(piece.end);
                loss.rack.arrived(piece, trips, arrival);
            });
        }
    }

    /// RFC 2883 4: the first block reports a duplicate if it lies before SND.UNA or within the second.
    fn is_duplicate_report(&self, block: &SackBlock, second: Option<&SackBlock>) -> bool {
        block.start.is_before(block.end)
            && (block.end.is_at_or_before(self.una)
                || second.is_some_and(|second| {
                    second.start.is_at_or_before(block.start) && block.end.is_at_or_before(second.end)
                }))
    }

    fn duplicate_reported(&mut self, block: &SackBlock, news: &mut News, ctx: &mut Context<'_>) {
        ctx.counters.duplicates_reported += 1;
        news.duplicate = Some(block.end);
        // A probe that was needless says nothing about the order in which segments arrive.
        if !self.loss.probe.is_again_until(block.end) {
            self.loss.rack.duplicate_reported(self.una, self.next);
        }
        news.needless = self.loss.recovery.duplicate_reported(block.start, block.end);
    }

    /// Whether recovery is or was mistaken: by reports of duplicates (RFC 3708), by an echo from before the first
    /// retransmission (RFC 3522), or by F-RTO's third step (RFC 5682 2.1).
    fn is_mistaken(&self, news: &News, arrival: &Arrival<'_>) -> bool {
        let recovery = &self.loss.recovery;
        if news.needless {
            return true;
        }
        if recovery.phase == Phase::Open || news.advanced == 0 {
            return false;
        }
        let complete = recovery.phase == Phase::Timeout || recovery.is_complete(self.una);
        let first = recovery.first_sent_again_at();
        (complete && first != Instant::NEVER && arrival.is_of_before(first))
            || (recovery.frto == Frto::SendNew && news.original)
    }

    /// F-RTO's second and third step, if the timeout is under examination (RFC 5682 2.1, 3.1).
    fn examine_timeout(&mut self, news: &News) {
        let can_send = self.queue.unsent() > 0 && self.window > self.next.since(self.una);
        let recovery = &mut self.loss.recovery;
        recovery.frto = match recovery.frto {
            Frto::SentAgain if news.advanced > 0 && can_send => Frto::SendNew,
            // Blocks alone decide nothing yet.
            Frto::SentAgain if news.advanced == 0 && news.blocks => Frto::SentAgain,
            Frto::SendNew => {
                // The loss was real (3a): one segment more than the two new ones.
                recovery.forced = true;
                Frto::Off
            }
            Frto::SentAgain | Frto::Off => Frto::Off,
        };
    }

    /// What RACK finds lost, in bytes.
    pub(super) fn detect_losses(&mut self, ctx: &mut Context<'_>) -> u32 {
        let recovering = self.loss.recovery.phase != Phase::Open;
        let smoothed = self.rto.smoothed().unwrap_or_default();
        let board = self.queue.board_mut();
        let (lost, look_again_at) =
            self.loss.rack.detect(board, &self.round_trips, recovering, smoothed, self.mss, ctx.now);
        self.loss.reorder_at = look_again_at;
        lost
    }

    /// `lost` bytes were found lost, with an acknowledgment of `delivered` bytes.
    pub(super) fn losses_found(&mut self, lost: u32, delivered: u32, ctx: &mut Context<'_>) {
        let open = self.loss.recovery.phase == Phase::Open;
        if open && self.is_withheld_only(lost) {
            self.loss.recovery.forced = true;
            return;
        }
        ctx.counters.losses_found += u64::from(lost.div_ceil(self.mss));
        if open {
            self.begin_fast(delivered, ctx);
        }
    }

    /// Without SACK: duplicates and partial acknowledgments tell what is lost (RFC 5681 3.2, RFC 6582 3.2).
    fn count_duplicates(&mut self, news: &mut News) -> u32 {
        let (una, mss) = (self.una, self.mss);
        if news.advanced == 0 {
            let flight = self.next.since(una);
            news.delivered = self.loss.recovery.duplicate_arrived(una, flight, mss);
            if !self.loss.recovery.duplicates_mean_loss(una) {
                return 0;
            }
        } else if self.loss.recovery.phase == Phase::Fast {
            news.delivered = self.loss.recovery.partial_arrived(news.advanced, mss);
            // RFC 6582 3.2 (3): the next hole is filled whatever the window says.
            self.loss.recovery.forced = true;
        } else {
            self.loss.recovery.forget_duplicates();
            return 0;
        }
        self.queue.board_mut().mark_first_lost(mss)
    }

    /// RFC 3168 6.1.2: an echo of a mark is answered as a loss would be, but nothing is sent again; an acknowledgment of `acked`
    /// bytes with one makes no window grow. Returns whether it has one.
    #[cold]
    fn take_echo(&mut self, segment: &Segment<'_>, acked: u32, ctx: &mut Context<'_>) -> bool {
        let due = self.ecn.is_answer_due(self.una);
        ctx.counters.congestion_echoes_in += u64::from(segment.ece);
        if segment.ece && due {
            ctx.counters.congestion_echoes_answered += 1;
            let flight = self.next.since(self.una) + acked;
            self.congestion.on_echo(flight, self.window_use, self.mss);
            self.ecn.reduced(self.next);
        }
        segment.ece
    }

    /// Fast recovery begins with an acknowledgment of `delivered` bytes.
    fn begin_fast(&mut self, delivered: u32, ctx: &mut Context<'_>) {
        ctx.counters.fast_retransmits += 1;
        let flight = self.next.since(self.una);
        if !self.ecn.has_answered(self.una) {
            self.congestion.on_loss(flight, self.window_use, self.mss);
            self.ecn.reduced(self.next);
        }
        let left = self.queue.board().sacked() + self.loss.recovery.duplicate_bytes();
        self.loss.recovery.begin_fast(self.una, self.next, flight.saturating_sub(left) + delivered);
        self.loss.probe.end = None;
    }

    /// What fast recovery lets out after an acknowledgment of `delivered` bytes.
    pub(super) fn update_prr(&mut self, delivered: u32, safe: bool) {
        if self.loss.recovery.phase == Phase::Fast && (delivered > 0 || self.loss.recovery.forced) {
            let (pipe, threshold) = (self.pipe(), self.congestion.window());
            self.loss.recovery.prr.arrived(delivered, pipe, threshold, self.mss, safe);
        }
    }
}

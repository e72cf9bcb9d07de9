//! What an acknowledgment does to the sending half: bytes that have arrived leave the queue, SACK blocks and duplicates
//! tell of others, losses are found, recovery begins, goes on, ends or proves mistaken, and the congestion window moves.

use super::congestion::{Ack, WindowUse};
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
        let mut rtt = None;
        // When the earliest of it left, if all of it was sent once.
        let mut sent_at = Some(Instant::NEVER);
        let (rack, recover) = (&mut self.rack, self.recovery.recover);
        self.queue.board_mut().acknowledge(ack, |piece| {
            sent_at = sent_at.filter(|_| !piece.again).map(|sent_at| sent_at.min(piece.sent_at));
            news.delivered += piece.len();
            if !piece.again {
                // The latest of all pieces counts.
                rtt = Some(arrival.now.since(piece.sent_at));
            }
            news.original |= !piece.again && piece.end.is_at_or_before(recover);
            rack.arrived(piece, arrival);
        });
        self.queue.acknowledge(bytes as usize);
        self.una = ack;
        self.urgent = self.urgent.filter(|end| end.is_after(ack));
        self.next = self.next.max(ack);
        self.take_rtt_sample(sent_at.filter(|&at| at != Instant::NEVER), arrival, ctx);
        self.progress_at = ctx.now;
        self.timeouts = 0;
        if let Some(mss) = self.black_hole.on_progress() {
            self.mss = mss;
        }
        let window_use = if self.congestion.in_slow_start() && pipe > self.congestion.window() / 2 {
            WindowUse::Limiting
        } else {
            self.window_use
        };
        let grows = if self.is_quiet() && !self.has_blocks(segment, arrival) {
            self.recovery.forget_duplicates();
            self.reorder_at = Instant::NEVER;
            true
        } else {
            !self.learn(news, segment, arrival, ctx)
        };
        if grows {
            let (sent, smoothed_rtt) = (self.max, self.rto.smoothed().unwrap_or_default());
            let (now, bytes) = (ctx.now, news.advanced);
            self.congestion
                .on_ack(&Ack { now, bytes, number: ack, sent, rtt, smoothed_rtt, window_use }, self.mss);
        }
        if self.timer == SendTimer::Acknowledgment && (self.sack || self.recovery.restarts_timer()) {
            // RFC 6298 (5.2), (5.3).
            self.timeout_at = ctx.now + self.rto.timeout();
        }
        self.probe.at = Instant::NEVER;
        // Whoever is above the mark has something queued, so this says that some of it has arrived, too.
        let low_water = queued > self.low_water_bytes && self.queue.len() <= self.low_water_bytes;
        Acked { bytes, low_water, fin }
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
        let tells =
            if self.sack { self.has_blocks(segment, arrival) || self.probe.end.is_some() } else { duplicate };
        if tells {
            self.learn(News::default(), segment, arrival, ctx);
        }
    }

    /// Whether there is nothing but data on its way for the first time.
    #[inline]
    fn is_quiet(&self) -> bool {
        self.recovery.phase == Phase::Open && self.probe.end.is_none() && self.queue.board().is_plain()
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
                self.recovery.settle();
                self.congestion.on_loss(self.next.since(self.una).min(self.congestion.window()), self.mss);
            }
        }
        let phase = self.recovery.phase;
        if self.is_mistaken(&news, arrival) {
            ctx.counters.spurious_recoveries += 1;
            self.queue.board_mut().forget_losses();
            self.congestion.on_spurious();
            self.recovery.settle();
            self.recovery.end(self.una);
        } else if phase != Phase::Open && self.recovery.recover.is_at_or_before(self.una) {
            self.recovery.end(self.una);
            self.rack.recovered();
            if phase == Phase::Fast {
                self.congestion.on_recovered(self.pipe(), self.mss);
            }
        } else {
            self.examine_timeout(&news);
        }
        let lost = if self.sack { self.detect_losses(ctx) } else { self.count_duplicates(&mut news) };
        if lost > 0 && self.recovery.phase == Phase::Open {
            self.begin_fast(news.delivered, ctx);
        }
        self.update_prr(news.delivered, news.advanced > 0 && lost == 0);
        phase == Phase::Fast || self.recovery.phase == Phase::Fast || news.advanced == 0
    }

    /// RFC 2018 5, RFC 2883 4: the blocks that a segment reports. What cannot be true is passed over.
    fn read_blocks(
        &mut self,
        news: &mut News,
        segment: &Segment<'_>,
        arrival: &Arrival<'_>,
        ctx: &mut Context<'_>,
    ) {
        let blocks = SackBlocks::parse(segment.options);
        for (place, block) in blocks.as_slice().iter().enumerate() {
            news.blocks = true;
            let second = blocks.as_slice().get(1).filter(|_| place == 0);
            if self.is_duplicate_report(block, place, second) {
                self.duplicate_reported(block, news, ctx);
                continue;
            }
            let reach = self.next.since(self.una);
            let (start, end) = (block.start.since(self.una), block.end.since(self.una));
            if start >= end || end > reach {
                ctx.counters.sack_blocks_ignored += 1;
                continue;
            }
            let (rack, recover) = (&mut self.rack, self.recovery.recover);
            self.queue.board_mut().sack(block.start, block.end, |piece| {
                news.delivered += piece.len();
                news.original |= !piece.again && piece.end.is_at_or_before(recover);
                rack.arrived(piece, arrival);
            });
        }
    }

    /// RFC 2883 4: the first block reports a duplicate if it lies before SND.UNA or within the second.
    fn is_duplicate_report(&self, block: &SackBlock, place: usize, second: Option<&SackBlock>) -> bool {
        place == 0
            && block.start.is_before(block.end)
            && (block.end.is_at_or_before(self.una)
                || second.is_some_and(|second| {
                    second.start.is_at_or_before(block.start) && block.end.is_at_or_before(second.end)
                }))
    }

    fn duplicate_reported(&mut self, block: &SackBlock, news: &mut News, ctx: &mut Context<'_>) {
        ctx.counters.duplicates_reported += 1;
        news.duplicate = Some(block.end);
        self.rack.duplicate_reported(self.una, self.next);
        news.needless = self.recovery.duplicate_reported(block.start, block.end);
    }

    /// Whether recovery is or was mistaken: by reports of duplicates (RFC 3708), by an echo from before the first
    /// retransmission (RFC 3522), or by F-RTO's third step (RFC 5682 2.1).
    fn is_mistaken(&self, news: &News, arrival: &Arrival<'_>) -> bool {
        let recovery = &self.recovery;
        if news.needless {
            return true;
        }
        if recovery.phase == Phase::Open || news.advanced == 0 {
            return false;
        }
        let complete = recovery.phase == Phase::Timeout || recovery.recover.is_at_or_before(self.una);
        let first = recovery.first_sent_again_at();
        (complete && first != Instant::NEVER && arrival.is_of_before(first))
            || (recovery.frto == Frto::SendNew && news.original)
    }

    /// F-RTO's second and third step, if the timeout is under examination (RFC 5682 2.1, 3.1).
    fn examine_timeout(&mut self, news: &News) {
        let can_send = self.queue.unsent() > 0 && self.window > self.next.since(self.una);
        let recovery = &mut self.recovery;
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
        let recovering = self.recovery.phase != Phase::Open;
        let smoothed = self.rto.smoothed().unwrap_or_default();
        let board = self.queue.board_mut();
        let (lost, look_again_at) = self.rack.detect(board, recovering, smoothed, self.mss, ctx.now);
        self.reorder_at = look_again_at;
        lost
    }

    /// Without SACK: duplicates and partial acknowledgments tell what is lost (RFC 5681 3.2, RFC 6582 3.2).
    fn count_duplicates(&mut self, news: &mut News) -> u32 {
        let (una, mss) = (self.una, self.mss);
        if news.advanced == 0 {
            let flight = self.next.since(una);
            news.delivered = self.recovery.duplicate_arrived(una, flight, mss);
            if !self.recovery.duplicates_mean_loss(una) {
                return 0;
            }
        } else if self.recovery.phase == Phase::Fast {
            news.delivered = self.recovery.partial_arrived(news.advanced, mss);
            // RFC 6582 3.2 (3): the next hole is filled whatever the window says.
            self.recovery.forced = true;
        } else {
            self.recovery.forget_duplicates();
            return 0;
        }
        self.queue.board_mut().mark_first_lost(mss)
    }

    /// Fast recovery begins with an acknowledgment of `delivered` bytes.
    pub(super) fn begin_fast(&mut self, delivered: u32, ctx: &mut Context<'_>) {
        ctx.counters.fast_retransmits += 1;
        let flight = self.next.since(self.una);
        // RFC 5681 3.2 (2): without what limited transmit has sent.
        self.congestion.on_loss(flight.min(self.congestion.window()), self.mss);
        let left = self.queue.board().sacked() + self.recovery.duplicate_bytes();
        self.recovery.begin_fast(self.una, self.next, flight.saturating_sub(left) + delivered);
        self.probe.end = None;
    }

    /// What fast recovery lets out after an acknowledgment of `delivered` bytes.
    pub(super) fn update_prr(&mut self, delivered: u32, safe: bool) {
        if self.recovery.phase == Phase::Fast && (delivered > 0 || self.recovery.forced) {
            let (pipe, threshold) = (self.pipe(), self.congestion.window());
            self.recovery.prr.arrived(delivered, pipe, threshold, self.mss, safe);
        }
    }
}

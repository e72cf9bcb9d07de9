//! The receiving half of a connection: RCV.NXT, the announced window, data in and out of order, and which
//! acknowledgment is owed. It knows nothing of the connection's state.

use super::ecn::{self, EcnReceiver};
use super::reassembly::ReceiveBuffer;
use super::sack_report::SackReport;
use super::{Context, Seq};
use crate::events::{AckDue, KeepError};
use crate::time::Instant;
use crate::wire::tcp_options::SackBlocks;

/// So many segments after one out of order are acknowledged at once each: the peer has lost something, so its window is
/// small, and a delay would be felt (RFC 5681 4.2 allows more acknowledgments than it asks for).
const PROMPT_ACKS: u8 = 16;

#[derive(Debug)]
pub(crate) struct ReceiveSide {
    /// RCV.NXT.
    pub(crate) next: Seq,
    /// RCV.NXT + RCV.WND as last announced; it never moves left (RFC 9293 3.8.6.2.2: SHLD-14).
    edge: Seq,
    /// Shift of the window field we send; zero unless both sides scale.
    pub(crate) scale: u8,
    /// The window last announced was zero.
    closed: bool,
    capacity: u32,
    mss: u32,
    pub(crate) buffer: ReceiveBuffer,
    /// Sequence number of a FIN that arrived before its turn.
    fin_at: Option<Seq>,
    /// RCV.UP: the octet after the urgent data, until the application has it.
    pub(super) urgent: Option<Seq>,
    /// Bytes lent from the last frame, which `keep` may still give back.
    lent: u32,
    /// Data in order may be lent; else it goes to the buffer, since nobody's frame holds it.
    pub(crate) lends: bool,
    /// The acknowledgment owed.
    pub(crate) ack: AckDue,
    /// When a delayed acknowledgment is due.
    pub(crate) ack_at: Instant,
    unacknowledged: u32,
    /// Segments that are still to be acknowledged at once.
    prompt_acks: u8,
    /// RFC 7323 4.3's Last.ACK.sent.
    pub(crate) last_ack_sent: Seq,
    /// What acknowledgments say of data out of order.
    pub(crate) report: SackReport,
    pub(crate) ecn: EcnReceiver,
    /// A duplicate acknowledgment is owed, which only a segment without data is (RFC 5681 2).
    pub(crate) pure_ack_due: bool,
}

/// What the text of a segment brought.
#[derive(Debug, Default)]
pub(crate) struct Text<'f> {
    /// In order, to be lent to the application.
    pub(crate) lent: &'f [u8],
    /// Something in order was added to the buffer.
    pub(crate) readable: bool,
    /// The peer's FIN is next in order, and is accepted with this.
    pub(crate) fin: bool,
}

impl ReceiveSide {
    pub(crate) fn new(peer_isn: Seq, capacity: u32, mss: u32, scale: u8, sack: bool) -> Self {
        let next = peer_isn + 1;
        Self {
            next,
            // The window field of a SYN is never scaled (RFC 7323 2.2).
            edge: next + capacity.min(65_535),
            closed: false,
            scale,
            capacity: capacity.min(65_535 << scale),
            mss,
            buffer: ReceiveBuffer::default(),
            fin_at: None,
            urgent: None,
            lent: 0,
            lends: true,
            ack: AckDue::None,
            ack_at: Instant::NEVER,
            unacknowledged: 0,
            prompt_acks: 0,
            last_ack_sent: next,
            report: SackReport::new(sack),
            ecn: EcnReceiver::new(ecn::Agreed::No),
            pure_ack_due: false,
        }
    }

    /// RCV.WND: what the peer may still send.
    #[inline]
    pub(crate) fn window(&self) -> u32 {
        self.edge.since(self.next)
    }

    /// RFC 9293 3.10.7.4, first check: is any of the segment in the window? With a closed window the segment at RCV.NXT
    /// passes as well, so that its acknowledgment is looked at; its data is cut off later.
    #[inline]
    pub(crate) fn is_acceptable(&self, sequence: Seq, sequence_len: u32) -> bool {
        if sequence == self.next {
            return true;
        }
        let window = self.window();
        sequence.is_within(self.next, window)
            || (sequence_len > 0
                && window > 0
                && (sequence + (sequence_len - 1)).is_within(self.next, window))
    }

    /// Takes the text and FIN of an acceptable segment (RFC 9293 3.10.7.4, seventh and eighth check).
    #[inline]
    pub(crate) fn accept<'f>(
        &mut self,
        sequence: Seq,
        payload: &'f [u8],
        with_fin: bool,
        ctx: &mut Context<'_>,
    ) -> Text<'f> {
        // The hot path: in order, nothing waiting, inside the window.
        if sequence == self.next
            && !with_fin
            && self.fin_at.is_none()
            && self.buffer.is_empty()
            && self.lends
            && payload.len() <= self.window() as usize
        {
            self.lend(payload, ctx);
            return Text { lent: payload, ..Text::default() };
        }
        self.accept_slowly(sequence, payload, with_fin, ctx)
    }

    #[inline]
    fn lend(&mut self, payload: &[u8], ctx: &mut Context<'_>) {
        let len = payload.len() as u32;
        self.next += len;
        self.lent = len;
        ctx.counters.bytes_in += u64::from(len);
        self.unacknowledged += len;
        // RFC 9293 3.8.6.3 (SHLD-18): at least every second full-sized segment.
        let at_once = self.unacknowledged >= 2 * self.mss || self.prompt_acks > 0;
        self.prompt_acks = self.prompt_acks.saturating_sub(1);
        let due = if at_once { AckDue::Now } else { AckDue::Delayed };
        self.owe_ack(due, ctx);
    }

    #[inline(never)]
    fn accept_slowly<'f>(
        &mut self,
        sequence: Seq,
        payload: &'f [u8],
        with_fin: bool,
        ctx: &mut Context<'_>,
    ) -> Text<'f> {
        self.lent = 0;
        let mut text = Text::default();
        // Cut off what came before.
        let (mut start, mut data) = (sequence, payload);
        if start.is_before(self.next) {
            let old = (self.next.since(start) as usize).min(data.len());
            data = &data[old..];
            start += old as u32;
            self.owe_ack(AckDue::Now, ctx);
            self.came_twice(sequence, start);
            if data.is_empty() && !(with_fin && start == self.next) {
                ctx.counters.duplicates_in += 1;
                return text;
            }
        }
        // Cut off what lies beyond the window, or beyond the end of the stream.
        let limit = self.fin_at.map_or(self.edge, |fin| self.edge.min(fin));
        let room = if start.is_before(limit) { limit.since(start) as usize } else { 0 };
        let cut = data.len() > room;
        data = &data[..data.len().min(room)];
        if with_fin && !cut && self.fin_at.is_none() {
            self.fin_at = Some(start + data.len() as u32);
        }

        let offset = start.since(self.next);
        if offset > 0 || cut {
            // RFC 5681 4.2: a duplicate acknowledgment at once tells the sender about the hole.
            self.owe_ack(AckDue::Now, ctx);
            self.pure_ack_due = true;
        }
        if !data.is_empty() {
            if offset == 0 && self.buffer.is_empty() && self.lends {
                self.lend(data, ctx);
                text.lent = data;
            } else {
                text.readable = self.store(offset, data, ctx);
            }
        }
        // At or before: a peer that sent data beyond its own FIN is taken at its word that this is the end.
        if self.fin_at.is_some_and(|fin| fin.is_at_or_before(self.next)) {
            self.fin_at = None;
            self.next += 1;
            // The FIN takes no buffer: the window moves along with it.
            self.edge = self.edge.max(self.next);
            // What lies behind the end belongs to nothing.
            let before = self.buffer.capacity();
            self.buffer.end();
            *ctx.buffered_bytes = *ctx.buffered_bytes + self.buffer.capacity() - before;
            self.owe_ack(AckDue::Now, ctx);
            text.fin = true;
        }
        text
    }

    /// Puts data into the buffer and tells whether RCV.NXT moved.
    fn store(&mut self, offset: u32, data: &[u8], ctx: &mut Context<'_>) -> bool {
        let before = self.buffer.capacity();
        // `growth` is the new capacity if there must be one, and the old one is given back.
        let grown = self.buffer.growth(offset as usize, data.len());
        let too_much = grown > 0 && *ctx.buffered_bytes + grown - before > ctx.config.max_buffered_bytes;
        let overlap = self.buffer.overlap(offset as usize, data.len());
        let inserted = if too_much { None } else { self.buffer.insert(offset as usize, data).ok() };
        *ctx.buffered_bytes = *ctx.buffered_bytes + self.buffer.capacity() - before;
        self.owe_ack(AckDue::Now, ctx);
        let Some(advanced) = inserted else {
            ctx.counters.dropped_no_buffer += 1;
            return false;
        };
        if let Some((start, end)) = overlap {
            self.came_twice(self.next + start as u32, self.next + end as u32);
        }
        if offset > 0 {
            ctx.counters.out_of_order_in += 1;
            self.prompt_acks = PROMPT_ACKS;
            self.buffer.note_recent(self.next + offset);
        }
        self.next += advanced as u32;
        ctx.counters.bytes_in += advanced as u64;
        // RFC 5681 4.2 again: at once when a hole is filled; but that one is no duplicate.
        advanced > 0
    }

    /// Bytes `start..end` came again: an acknowledgment without data reports them.
    pub(crate) fn came_twice(&mut self, start: Seq, end: Seq) {
        self.pure_ack_due |= self.report.came_twice(start, end);
    }

    /// An acknowledgment is owed.
    #[inline]
    pub(crate) fn owe_ack(&mut self, due: AckDue, ctx: &Context<'_>) {
        if self.ack == AckDue::None {
            self.ack_at = ctx.now + ctx.config.delayed_ack;
        }
        self.ack = self.ack.max(due);
    }

    /// A segment leaves: what acknowledgment and window field does it carry? Nothing is owed any more once it has left.
    #[inline]
    pub(crate) fn window_field(&mut self, ctx: &mut Context<'_>) -> u16 {
        let free = self.capacity.saturating_sub(self.buffer.ready().len() as u32);
        let possible = self.next + free;
        // RFC 9293 3.8.6.2.2: the window opens by a segment or half the buffer, or not at all.
        if possible.is_after(self.edge) && possible.since(self.edge) >= self.mss.min(self.capacity / 2) {
            self.edge = possible;
        }
        // Rounded up, so that the edge does not move left by the bits that scaling cuts off (RFC 7323 2.4).
        let field = self.window().div_ceil(1 << self.scale).min(65_535);
        self.edge = self.edge.max(self.next + (field << self.scale));
        ctx.counters.zero_windows_out += u64::from(field == 0 && !self.closed);
        self.closed = field == 0;
        field as u16
    }

    /// Whether telling the peer our window now would open it noticeably.
    fn window_update_due(&self) -> bool {
        let free = self.capacity.saturating_sub(self.buffer.ready().len() as u32);
        let possible = self.next + free;
        possible.is_after(self.edge) && possible.since(self.edge) >= (2 * self.mss).min(self.capacity / 2)
    }

    /// A segment left with our acknowledgment.
    #[inline]
    pub(crate) fn ack_sent(&mut self) {
        self.ack = AckDue::None;
        self.ack_at = Instant::NEVER;
        self.unacknowledged = 0;
        self.last_ack_sent = self.next;
        self.pure_ack_due = false;
    }

    /// A segment without data left with our acknowledgment and blocks.
    pub(crate) fn pure_ack_sent(&mut self) {
        self.ack_sent();
        self.report.sent();
    }

    /// What is to be said of data out of order, in at most `max` blocks.
    pub(crate) fn sack_blocks(&self, max: usize) -> SackBlocks {
        self.report.blocks(self.next, &self.buffer, max)
    }

    /// Another segment arrived: what was lent before can no longer be given back.
    #[inline]
    pub(crate) fn end_loan(&mut self) {
        self.lent = 0;
    }

    /// Takes back the tail of the bytes just lent.
    pub(crate) fn keep(
        &mut self,
        rest: &[u8],
        buffered_bytes: &mut usize,
        max_buffered_bytes: usize,
    ) -> Result<(), KeepError> {
        if rest.len() > self.lent as usize {
            return Err(KeepError::NotLent);
        }
        let before = self.buffer.capacity();
        if self.buffer.growth(0, rest.len()) + *buffered_bytes > max_buffered_bytes + before {
            return Err(KeepError::NoBuffer);
        }
        self.lent = 0;
        // They lie before RCV.NXT and the buffer is empty, or they would not have been lent; so they cannot be refused,
        // and the window has bounded them. RCV.NXT stays where it is: `insert` only advances the buffer's idea of it.
        let _ = self.buffer.insert(0, rest);
        *buffered_bytes = *buffered_bytes + self.buffer.capacity() - before;
        Ok(())
    }

    /// The application is done with `len` bytes of the buffer.
    pub(crate) fn consume(&mut self, len: usize, buffered_bytes: &mut usize) -> AckDue {
        let before = self.buffer.capacity();
        self.buffer.consume(len);
        *buffered_bytes = *buffered_bytes + self.buffer.capacity() - before;
        if !self.window_update_due() {
            return AckDue::None;
        }
        self.ack = AckDue::Now;
        if self.ack_at == Instant::NEVER {
            // No clock here: the next `expire` sends it unless `output` does.
            self.ack_at = Instant::ZERO;
        }
        AckDue::Now
    }
}

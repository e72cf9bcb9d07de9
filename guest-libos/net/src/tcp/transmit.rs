//! What a connection sends: pure acknowledgments, lost segments, new data as far as the windows allow, probes. Each
//! segment carries the acknowledgment. If the driver is full, the state is as if nothing had been tried.

use super::connection::{Connection, State};
use super::send_side::{Planned, SendTimer, segments};
use super::template::{Family, Fields, PayloadSum};
use super::{Context, Seq};
use crate::config::TxChecksum;
use crate::data::Data;
use crate::driver::{
    ChecksumRequest, Full, Gso, GsoKind, MAX_HEADER_BYTES, MAX_TSO_SEGMENTS, Payload, Transmit, TxSegment,
};
use crate::events::{AckDue, AckPolicy, End, Sent};
use crate::wire::checksum::{Sum, at_odd_offset, sum_bytes};
use crate::wire::tcp::{CHECKSUM_OFFSET, flags};

impl<D: Data> Connection<D> {
    /// Sends all that may be sent now.
    #[inline]
    pub(crate) fn output<T: Transmit<D>>(
        &mut self,
        ctx: &mut Context<'_>,
        tx: &mut T,
        policy: AckPolicy,
    ) -> Sent {
        let mut sent = Sent::default();
        if !self.is_open() {
            return sent;
        }
        if self.output_all(ctx, tx, policy, &mut sent).is_err() {
            sent.blocked = true;
            ctx.counters.driver_full += 1;
        }
        self.send.end_output(ctx);
        sent
    }

    #[inline]
    fn output_all<T: Transmit<D>>(
        &mut self,
        ctx: &mut Context<'_>,
        tx: &mut T,
        policy: AckPolicy,
        sent: &mut Sent,
    ) -> Result<(), Full> {
        if self.receive.pure_ack_due && policy != AckPolicy::Merge {
            self.output_pure_ack(ctx, tx, sent)?;
        }
        if self.send.queue.board().lost() > 0 {
            let max_payload = self.max_payload(ctx);
            while let Some((start, planned)) = self.send.plan_again(max_payload) {
                self.emit(ctx, tx, start, planned, sent)?;
                self.send.sent_again(start, planned, ctx);
            }
        }
        if self.send.has_unsent() {
            self.send.begin_output(ctx);
            let max_payload = self.max_payload(ctx);
            if self.send.is_withholding_due() {
                self.send.withhold(ctx);
            }
            while let Some(planned) = self.send.plan(self.max_payload_now(max_payload)) {
                self.emit(ctx, tx, self.send.next, planned, sent)?;
                self.send.sent(planned, ctx);
                if !self.send.has_unsent() {
                    break;
                }
            }
        }
        let pure_ack = match policy {
            AckPolicy::Merge => false,
            AckPolicy::IfDue => self.receive.ack == AckDue::Now,
            AckPolicy::Now => self.receive.ack != AckDue::None,
        };
        if pure_ack { self.output_pure_ack(ctx, tx, sent) } else { Ok(()) }
    }

    /// How the device cuts a frame of several segments.
    #[inline]
    fn gso(&self) -> Gso {
        let kind = match self.template.family() {
            Family::V4 => GsoKind::TcpIpv4,
            Family::V6 => GsoKind::TcpIpv6,
        };
        Gso { kind, mss: self.send.mss as u16 }
    }

    /// The largest payload of one frame: whole segments if the device cuts them.
    #[inline]
    fn max_payload(&self, ctx: &Context<'_>) -> usize {
        let (mss, tso) = (self.send.mss, ctx.config.tso_max_bytes);
        // A device that cuts a frame repeats its urgent pointer, which would lie further on each time.
        if tso <= mss || self.send.has_urgent() {
            return mss as usize;
        }
        (mss * (tso / mss).min(MAX_TSO_SEGMENTS)) as usize
    }

    /// The same for what leaves next.
    #[inline]
    fn max_payload_now(&self, max_payload: usize) -> usize {
        if self.send.ecn.is_cwr_due() { self.send.mss as usize } else { max_payload }
    }

    fn output_pure_ack<T: Transmit<D>>(
        &mut self,
        ctx: &mut Context<'_>,
        tx: &mut T,
        sent: &mut Sent,
    ) -> Result<(), Full> {
        let mut header = [0; MAX_HEADER_BYTES];
        let len = self.fill_ack(&mut header, ctx);
        let payload = self.send.queue.at_next(0);
        tx.transmit(TxSegment { header: &header[..len], payload, checksum: None, gso: None })?;
        self.receive.pure_ack_sent();
        ctx.counters.segments_out += 1;
        ctx.counters.pure_acks_out += 1;
        sent.segments += 1;
        Ok(())
    }

    /// Hands one segment that begins at `start` to the driver. The acknowledgment's state changes with it, the send side's is the caller's.
    #[inline]
    fn emit<T: Transmit<D>>(
        &mut self,
        ctx: &mut Context<'_>,
        tx: &mut T,
        start: Seq,
        planned: Planned,
        sent: &mut Sent,
    ) -> Result<(), Full> {
        let payload = if start == self.send.next {
            self.send.queue.at_next(planned.len)
        } else {
            self.send.queue.at(start.since(self.send.una) as usize, planned.len)
        };
        let last = start.since(self.send.una) as usize + planned.len == self.send.queue.len();
        let mut bits = flags::ACK | self.receive.ecn.flags();
        let ecn_capable = self.send.ecn.enabled && planned.len > 0 && self.send.is_new(start);
        let says_reduced = ecn_capable && self.send.ecn.is_cwr_due();
        if says_reduced {
            bits |= flags::CWR;
        }
        if planned.fin {
            bits |= flags::FIN;
        }
        if last && planned.len > 0 {
            bits |= flags::PSH;
        } else if planned.len < self.send.mss as usize {
            ctx.counters.small_segments_out += u64::from(planned.len > 0);
        }
        let urgent = if self.send.has_urgent() { self.send.urgent_pointer(start) } else { None };
        if urgent.is_some() {
            bits |= flags::URG;
        }
        let fields = Fields {
            sequence: start,
            acknowledgment: self.receive.next,
            flags: bits,
            window: self.receive.window_field(ctx),
            timestamps: self.timestamps.option(ctx.now),
        };
        let offload = ctx.config.tx_checksum == TxChecksum::Offload && planned.len > 0;
        let payload_sum = if offload {
            PayloadSum::Device
        } else {
            PayloadSum::Known(sum_payload(&payload, &mut ctx.counters.bytes_summed))
        };
        let mut header = [0; MAX_HEADER_BYTES];
        let header_len = self.template.fill(&mut header, &fields, &[], planned.len, payload_sum);
        if let Some(pointer) = urgent {
            self.template.set_urgent(&mut header, pointer, payload_sum);
        }
        if ecn_capable {
            self.template.set_ecn_capable(&mut header);
        }
        tx.transmit(TxSegment {
            header: &header[..header_len],
            payload,
            checksum: offload.then_some(ChecksumRequest {
                start: self.template.tcp_at() as u16,
                offset: CHECKSUM_OFFSET as u16,
            }),
            gso: (planned.len > self.send.mss as usize).then(|| self.gso()),
        })?;
        if says_reduced {
            self.send.ecn.cwr_sent();
        }
        self.receive.ack_sent();
        ctx.counters.segments_out += 1;
        if planned.len > 0 {
            ctx.counters.data_frames_out += 1;
            ctx.counters.data_segments_out += segments(planned.len, self.send.mss);
            ctx.counters.bytes_out += planned.len as u64;
        }
        sent.segments += 1;
        sent.bytes += planned.len;
        Ok(())
    }

    /// The FIN of a close in SYN-RECEIVED leaves.
    pub(crate) fn send_early_fin<T: Transmit<D>>(
        &mut self,
        ctx: &mut Context<'_>,
        tx: &mut T,
        sent: &mut Sent,
    ) -> Result<(), Full> {
        let fin = Planned { len: 0, fin: true };
        self.emit(ctx, tx, self.send.next, fin, sent)?;
        self.send.sent(fin, ctx);
        Ok(())
    }

    /// The send timer is due.
    #[cold]
    pub(crate) fn on_send_timer<T: Transmit<D>>(
        &mut self,
        ctx: &mut Context<'_>,
        tx: &mut T,
    ) -> TimerOutcome {
        if self.state == State::SynReceived {
            return self.on_syn_ack_timer(ctx, tx);
        }
        if self.is_given_up(ctx) {
            return TimerOutcome::Ended(End::TimedOut);
        }
        let sent = match self.send.timer {
            SendTimer::Off => return TimerOutcome::Done,
            SendTimer::Acknowledgment => self.on_acknowledgment_timer(ctx, tx),
            SendTimer::Persist => self.on_persist_timer(ctx, tx),
        };
        if sent.blocked { TimerOutcome::Blocked } else { TimerOutcome::Done }
    }

    /// An acknowledgment is late: RACK looks again, a tail is probed, or all is taken for lost.
    fn on_acknowledgment_timer<T: Transmit<D>>(&mut self, ctx: &mut Context<'_>, tx: &mut T) -> Sent {
        let probe_due = self.send.probe_at <= ctx.now;
        if let Some((start, planned)) = probe_due.then(|| self.send.plan_tail_probe()).flatten() {
            let mut sent = Sent::default();
            match self.emit(ctx, tx, start, planned, &mut sent) {
                Ok(()) => self.send.tail_probe_sent(start, planned, ctx),
                Err(Full) => ctx.counters.driver_full += 1,
            }
        } else if self.send.timeout_at <= ctx.now {
            self.send.on_timeout(ctx);
        } else if self.send.loss.reorder_at <= ctx.now {
            self.send.on_reorder_timer(ctx);
        }
        self.output(ctx, tx, AckPolicy::Merge)
    }

    fn on_persist_timer<T: Transmit<D>>(&mut self, ctx: &mut Context<'_>, tx: &mut T) -> Sent {
        let mut sent = self.output(ctx, tx, AckPolicy::Merge);
        if self.send.timer != SendTimer::Persist || sent.blocked {
            return sent;
        }
        let (start, planned) = self.send.plan_probe();
        match self.emit(ctx, tx, start, planned, &mut sent) {
            Ok(()) => self.send.probe_sent(start, planned, ctx),
            Err(Full) => ctx.counters.driver_full += 1,
        }
        self.send.back_off_persist(ctx);
        sent
    }

    fn on_syn_ack_timer<T: Transmit<D>>(&mut self, ctx: &mut Context<'_>, tx: &mut T) -> TimerOutcome {
        let retries = if self.is_active { ctx.config.syn_retries } else { ctx.config.syn_ack_retries };
        if self.send.rto.backoff() >= retries {
            return if self.is_active { TimerOutcome::Ended(End::TimedOut) } else { TimerOutcome::Forget };
        }
        self.send.syn_repeated(ctx);
        ctx.counters.timeouts += 1;
        match tx.transmit_control(&self.syn_ack(ctx.config, ctx.now)) {
            Ok(()) => {
                ctx.counters.retransmits += 1;
                ctx.counters.segments_out += 1;
            }
            // The timer comes again.
            Err(Full) => ctx.counters.driver_full += 1,
        }
        TimerOutcome::Done
    }
}

/// What the send timer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerOutcome {
    /// What there was to do.
    Done,
    /// The driver was full.
    Blocked,
    /// The connection is given up.
    Ended(End),
    /// A connection that the application never saw is given up.
    Forget,
}

/// The sum of a payload, from stored sums where the data has them.
pub(crate) fn sum_payload<D: Data>(payload: &Payload<'_, D>, bytes_summed: &mut u64) -> u16 {
    let mut sum = Sum::ZERO;
    let mut at = 0;
    for piece in payload.clone() {
        let piece_sum = piece.data.stored_sum(piece.offset, piece.len).unwrap_or_else(|| {
            *bytes_summed += piece.len as u64;
            sum_bytes(piece.bytes())
        });
        sum = sum.word(if at % 2 == 0 { piece_sum } else { at_odd_offset(piece_sum) });
        at += piece.len;
    }
    sum.fold()
}

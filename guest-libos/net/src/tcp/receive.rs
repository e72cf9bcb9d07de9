//! SEGMENT ARRIVES from SYN-RECEIVED on, in the order of RFC 9293 3.10.7.4, with RFC 5961's checks against blind
//! attackers. LISTEN and CLOSED (3.10.7.1, 3.10.7.2) are the stack's part, SYN-SENT is `open`'s, TIME-WAIT records are
//! `timewait`'s.

use super::connection::{Connection, State};
use super::ecn;
use super::rack::Arrival;
use super::{Context, Seq};
use crate::counters::DropReason;
use crate::data::Data;
use crate::events::{AckDue, End, Happened};
use crate::frame::ControlFrame;
use crate::time::Instant;
use crate::wire::tcp::{Control, Segment};
use crate::wire::tcp_options::Timestamps;

/// What became of a segment.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing to tell anybody.
    Drop(DropReason),
    /// Consumed; the answer is held back by a rate limit.
    Silence,
    /// Answer with this.
    Reply(ControlFrame<'static>),
    /// RFC 9293 3.5.2: answer with `<SEQ=SEG.ACK><CTL=RST>`.
    Reset(Seq),
    /// A connection that the application never saw is gone.
    Forget,
    /// Something for the application, which was written where the caller wants it.
    Events,
    /// The same, and the connection is gone. With a frame to be sent after that.
    Ended(End, Option<ControlFrame<'static>>),
}

/// Why an acknowledgment is not taken.
enum AckError {
    /// It is of nothing that was sent lately: a challenge ACK is due.
    NotOurs,
    /// It is of a segment that was withheld: the peer acknowledges what it has not received.
    Optimistic,
    /// It was taken, and the connection waited for nothing else.
    Last,
}

/// Why timestamps refuse a segment.
enum TimestampsError {
    /// The option is in use and the segment does not have it.
    Missing,
    /// An old duplicate.
    Old,
}

impl From<Option<ControlFrame<'static>>> for Verdict {
    fn from(reply: Option<ControlFrame<'static>>) -> Self {
        reply.map_or(Self::Silence, Self::Reply)
    }
}

impl<D: Data> Connection<D> {
    /// What it means for the application goes into `events`, in which nothing has happened yet.
    pub(crate) fn segment_arrives<'f>(
        &mut self,
        segment: &Segment<'f>,
        events: &mut Happened<'f>,
        ctx: &mut Context<'_>,
    ) -> Verdict {
        // First, check timestamps (RFC 7323 5.3) and the sequence number.
        self.receive.end_loan();
        let timestamps = match self.timestamps_of(segment, ctx.now) {
            Ok(timestamps) => timestamps,
            Err(TimestampsError::Missing) => return Verdict::Drop(DropReason::Unacceptable),
            Err(TimestampsError::Old) => {
                ctx.counters.old_timestamps_in += 1;
                // Its bytes may be of another connection: not reported as a duplicate.
                return self.unacceptable(&Segment { payload: &[], ..*segment }, events, ctx);
            }
        };
        if !self.receive.is_acceptable(segment.sequence, segment.sequence_len()) {
            return self.unacceptable(segment, events, ctx);
        }
        if let Some(timestamps) = timestamps {
            let last_ack_sent = self.receive.last_ack_sent;
            self.timestamps.note(timestamps.value, segment.sequence, last_ack_sent, ctx.now);
        }
        // Second, check the RST bit. Third would be security, which nobody has. Fourth, check the SYN bit.
        match segment.control {
            Control::Rst => return self.reset_arrives(segment, ctx),
            Control::Syn => return self.syn_arrives(segment, events, ctx),
            Control::None | Control::Fin => {}
        }
        self.keep_alive.heard(ctx.now);
        // Fifth, check the ACK field.
        let Some(ack) = segment.acknowledgment else { return Verdict::Drop(DropReason::Unacceptable) };
        let echo = timestamps.map(|timestamps| timestamps.echo);
        if self.state == State::SynReceived {
            if !(ack.is_after(self.send.una) && ack.is_at_or_before(self.send.next)) {
                return Verdict::Reset(ack);
            }
            self.open(segment, echo, events, ctx);
        }
        // One that opens is of our SYN alone, unless our FIN has left already.
        if !events.opened || ack != self.send.una {
            match self.acknowledgment_arrives(ack, echo, segment, events, ctx) {
                Ok(()) => {}
                Err(AckError::NotOurs) => return self.challenge_ack(ctx).into(),
                Err(AckError::Optimistic) => return self.refuse_optimist(ctx),
                Err(AckError::Last) => return Verdict::Ended(End::Closed, None),
            }
        }
        // Sixth, check the URG bit.
        self.receive.forget_old_urgent();
        if let Some(pointer) = segment.urgent
            && matches!(self.state, State::Established | State::FinWait1 | State::FinWait2)
        {
            events.urgent = self.receive.urgent_arrives(segment.sequence + u32::from(pointer));
        }
        self.text_arrives(segment, events, ctx);
        if self.state == State::TimeWait {
            return self.enter_time_wait(events, ctx);
        }
        self.conclude(events, ctx)
    }

    /// Our SYN was acknowledged: the handshake is over.
    pub(crate) fn open(
        &mut self,
        segment: &Segment<'_>,
        echo: Option<u32>,
        events: &mut Happened<'_>,
        ctx: &mut Context<'_>,
    ) {
        let arrival = Arrival { now: ctx.now, echo, timestamps: &self.timestamps };
        self.send.open(segment, self.send.una + 1, &arrival, ctx);
        // An application that opened may have closed before.
        self.state = if self.send.fin_queued { State::FinWait1 } else { State::Established };
        self.active_at = ctx.now;
        events.opened = true;
    }

    /// What the segment leaves to do.
    #[inline]
    pub(crate) fn conclude(&mut self, events: &mut Happened<'_>, ctx: &mut Context<'_>) -> Verdict {
        self.send.update_timer(ctx);
        events.reply = self.receive.ack;
        events.output_due = events.reply == AckDue::Now
            || self.send.plan_again(self.send.mss as usize).is_some()
            || (self.send.has_unsent() && self.send.plan(self.send.mss as usize).is_some());
        Verdict::Events
    }

    /// The segment's timestamps, if they are in use (RFC 7323 3.2, 5.2).
    #[inline]
    fn timestamps_of(
        &self,
        segment: &Segment<'_>,
        now: Instant,
    ) -> Result<Option<Timestamps>, TimestampsError> {
        if !self.timestamps.enabled || segment.control == Control::Rst {
            return Ok(None);
        }
        match Timestamps::parse(segment.options) {
            Some(timestamps) if self.timestamps.is_old(timestamps.value, now) => Err(TimestampsError::Old),
            // A SYN is answered by a challenge, with or without.
            None if segment.control != Control::Syn => Err(TimestampsError::Missing),
            timestamps => Ok(timestamps),
        }
    }

    /// "If an incoming segment is not acceptable, an acknowledgment should be sent in reply (unless the RST bit is set)".
    #[cold]
    fn unacceptable<'f>(
        &mut self,
        segment: &Segment<'f>,
        events: &mut Happened<'f>,
        ctx: &mut Context<'_>,
    ) -> Verdict {
        if segment.control == Control::Rst {
            return Verdict::Drop(DropReason::Unacceptable);
        }
        if segment.control == Control::Syn {
            return self.syn_arrives(segment, events, ctx);
        }
        ctx.counters.duplicates_in += 1;
        if segment.payload.is_empty() && segment.control != Control::Fin {
            // Acknowledging a bare acknowledgment can go back and forth without end.
            return self.challenge_ack(ctx).into();
        }
        if self.state == State::TimeWait {
            self.linger_at = ctx.now + ctx.config.time_wait;
        }
        let end = segment.sequence + segment.payload.len() as u32;
        if end.is_at_or_before(self.receive.next) {
            self.receive.came_twice(segment.sequence, end);
        }
        Verdict::Reply(self.ack_frame(ctx))
    }

    /// RFC 9293 3.10.7.4, fourth, with RFC 5961 4.2: a challenge ACK whatever the sequence number.
    #[cold]
    fn syn_arrives<'f>(
        &mut self,
        segment: &Segment<'f>,
        events: &mut Happened<'f>,
        ctx: &mut Context<'_>,
    ) -> Verdict {
        if self.state == State::SynReceived && segment.sequence == self.receive.next - 1 {
            if self.is_active && segment.acknowledgment == Some(self.send.una + 1) {
                // Both opened at once, and the peer's answer to our SYN says it all.
                if ecn::Agreed::by_syn_ack(segment, ctx.config.ecn, false) == ecn::Agreed::No {
                    self.agree_on_ecn(ecn::Agreed::No);
                }
                return self.open_by_syn_ack(segment, events, ctx);
            }
            if ecn::Agreed::by_syn(segment, ctx.config.ecn) == ecn::Agreed::No {
                // RFC 3168 6.1.1: the peer does without, and nothing of ours may be marked.
                self.agree_on_ecn(ecn::Agreed::No);
            }
            // The SYN again: the SYN-ACK was lost or is late. An ACK, as the letter has it, would not help the peer.
            if segment.acknowledgment.is_none() {
                self.send.early_fin_was_in_vain();
            }
            ctx.counters.segments_out += 1;
            return Verdict::Reply(self.syn_ack(ctx.config, ctx.now));
        }
        self.challenge_ack(ctx).into()
    }

    /// RFC 9293 3.10.7.4, second, with RFC 5961 3.2: only the exact sequence number resets.
    #[cold]
    fn reset_arrives(&mut self, segment: &Segment<'_>, ctx: &mut Context<'_>) -> Verdict {
        if segment.sequence != self.receive.next {
            return self.challenge_ack(ctx).into();
        }
        ctx.counters.resets_in += 1;
        if self.state == State::SynReceived && !self.is_active {
            return Verdict::Forget;
        }
        if self.state == State::SynReceived {
            let end = if self.has_closed_early() { End::Reset } else { End::Refused };
            return Verdict::Ended(end, None);
        }
        // RFC 1337: TIME-WAIT ignores it.
        if self.state == State::TimeWait {
            return Verdict::Silence;
        }
        Verdict::Ended(End::Reset, None)
    }

    /// RFC 9293 3.10.7.4, fifth, for the states from ESTABLISHED on.
    #[inline]
    fn acknowledgment_arrives(
        &mut self,
        ack: Seq,
        echo: Option<u32>,
        segment: &Segment<'_>,
        events: &mut Happened<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<(), AckError> {
        let send = &mut self.send;
        let arrival = Arrival { now: ctx.now, echo, timestamps: &self.timestamps };
        if ack == send.una {
            send.on_same_ack(segment, &arrival, ctx);
            send.update_window(segment, ack, ctx);
            return Ok(());
        }
        // RFC 5961 5.2: SND.UNA - MAX.SND.WND =< SEG.ACK =< SND.NXT, or the segment is somebody else's.
        if ack.is_after(send.max) || ack.is_before(send.una - send.max_window) {
            return Err(AckError::NotOurs);
        }
        if ack.is_before(send.una) {
            // An old acknowledgment, late; the segment's text may be new.
            return Ok(());
        }
        if send.is_optimistic(ack) {
            return Err(AckError::Optimistic);
        }
        let acked = send.acknowledge(ack, segment, &arrival, ctx);
        self.active_at = ctx.now;
        send.update_window(segment, ack, ctx);
        events.acked_bytes = acked.bytes;
        events.low_water = acked.low_water;
        if acked.fin { self.fin_acknowledged(ctx) } else { Ok(()) }
    }

    /// The peer acknowledges what it has not received: no acknowledgment of its will be believed again.
    #[cold]
    fn refuse_optimist(&mut self, ctx: &mut Context<'_>) -> Verdict {
        ctx.counters.optimistic_acks += 1;
        ctx.counters.segments_out += 1;
        ctx.counters.resets_out += 1;
        Verdict::Ended(End::OptimisticAck, Some(self.reset_frame()))
    }

    fn fin_acknowledged(&mut self, ctx: &Context<'_>) -> Result<(), AckError> {
        match self.state {
            State::FinWait1 => {
                self.state = State::FinWait2;
                self.linger_at = ctx.now + ctx.config.fin_wait_2;
            }
            State::Closing => self.state = State::TimeWait,
            State::LastAck => return Err(AckError::Last),
            _ => {}
        }
        Ok(())
    }

    /// RFC 9293 3.10.7.4, seventh and eighth: text and FIN.
    #[inline(always)]
    pub(crate) fn text_arrives<'f>(
        &mut self,
        segment: &Segment<'f>,
        events: &mut Happened<'f>,
        ctx: &mut Context<'_>,
    ) {
        let with_fin = segment.control == Control::Fin;
        if segment.payload.is_empty() && !with_fin {
            return;
        }
        if !matches!(self.state, State::Established | State::FinWait1 | State::FinWait2) {
            // The peer has closed: there cannot be more ("this should not occur").
            self.receive.owe_ack(AckDue::Now, ctx);
            return;
        }
        if self.state == State::FinWait2 {
            self.linger_at = ctx.now + ctx.config.fin_wait_2;
        }
        if !segment.payload.is_empty() && self.receive.ecn.data_arrives(segment, ctx.counters) {
            self.receive.owe_ack(AckDue::Now, ctx);
        }
        let text = self.receive.accept(segment.sequence, segment.payload, with_fin, ctx);
        if !text.lent.is_empty() || text.readable || text.fin {
            self.active_at = ctx.now;
        }
        events.data = text.lent;
        events.readable = text.readable;
        if text.fin {
            events.peer_closed = true;
            self.state = match self.state {
                State::Established => State::CloseWait,
                State::FinWait1 => State::Closing,
                _ => State::TimeWait,
            };
        }
    }

    /// Both sides have closed and ours was first. Usually nothing but a record is left of the connection.
    fn enter_time_wait(&mut self, events: &mut Happened<'_>, ctx: &mut Context<'_>) -> Verdict {
        if self.receive.buffer.ready().is_empty() {
            let last_ack = (self.receive.ack != AckDue::None).then(|| self.ack_frame(ctx));
            return Verdict::Ended(End::Closed, last_ack);
        }
        self.linger_at = ctx.now + ctx.config.time_wait;
        self.conclude(events, ctx)
    }
}

//! Active open: SEGMENT ARRIVES in SYN-SENT, in the order of RFC 9293 3.10.7.3, the SYN itself and its repetition. What
//! the application queued before the handshake is over leaves with the acknowledgment that completes it.

use super::connection::{Connection, State, UserTimeout};
use super::ecn::{self, EcnReceiver, EcnSender};
use super::keep_alive::KeepAliveState;
use super::negotiation::{Agreed, is_small};
use super::receive::Verdict;
use super::receive_side::ReceiveSide;
use super::send_side::SendSide;
use super::table::FlowKey;
use super::template::{Fields, HeaderTemplate, PayloadSum};
use super::timestamps::TimestampState;
use super::transmit::TimerOutcome;
use super::{Context, Seq};
use crate::config::{Config, Ecn};
use crate::counters::DropReason;
use crate::data::Data;
use crate::driver::{Full, Transmit};
use crate::events::{AckDue, End, Happened};
use crate::frame::ControlFrame;
use crate::time::Instant;
use crate::wire::tcp::{Control, Segment, flags};
use crate::wire::tcp_options::SynOptions;

impl<D: Data> Connection<D> {
    /// RFC 9293 3.10.1, active OPEN. The SYN is yet to leave.
    pub(crate) fn connect(
        key: FlowKey,
        isn: Seq,
        timestamp_offset: u32,
        template: HeaderTemplate,
        ctx: &Context<'_>,
    ) -> Self {
        // What the peer's SYN will say is not known: this is what a SYN without options would agree on.
        let agreed = Agreed::new(ctx.config, template.family(), &SynOptions::default());
        let mut send = SendSide::new(isn, &agreed, ctx);
        send.take_back_syn();
        let capacity = ctx.config.receive_window_bytes;
        Self {
            key,
            state: State::SynSent,
            send,
            receive: ReceiveSide::new(Seq::new(0), capacity, agreed.receive_mss(ctx.config), 0, false),
            template,
            agreed,
            timestamps: TimestampState::new(timestamp_offset, None, ctx.now),
            linger_at: Instant::NEVER,
            next_challenge_at: Instant::ZERO,
            active_at: ctx.now,
            keep_alive: KeepAliveState::new(ctx.now),
            user_timeout: UserTimeout::default(),
            blocked: false,
            is_active: true,
            asks: 0,
        }
    }

    /// Whether the next hop's Ethernet address is known; without it nothing can leave.
    pub(crate) fn has_next_hop(&self) -> bool {
        self.template.next_hop().is_unicast()
    }

    /// Whether the next SYN offers ECN. One that was not answered may have been dropped for it (RFC 3168 6.1.1.1).
    fn offers_ecn(&self, config: &Config) -> bool {
        config.ecn == Ecn::Ask && self.send.rto.backoff() == 0
    }

    /// What the SYNs agree on about ECN.
    pub(crate) fn agree_on_ecn(&mut self, agreed: ecn::Agreed) {
        self.agreed.ecn = agreed;
        (self.send.ecn, self.receive.ecn) = (EcnSender::new(agreed), EcnReceiver::new(agreed));
    }

    /// Our SYN: `<SEQ=ISS><CTL=SYN>` with all options that we know.
    fn syn(&self, config: &Config, now: Instant) -> ControlFrame<'static> {
        let options = Agreed::offer(config, self.template.family(), self.timestamps.clock(now));
        let mut bytes = [0; SynOptions::MAX_BYTES];
        let len = options.emit(&mut bytes);
        let fields = Fields {
            sequence: self.send.una,
            acknowledgment: Seq::new(0),
            flags: if self.offers_ecn(config) { flags::SYN | flags::ECE | flags::CWR } else { flags::SYN },
            window: self.receive.window().min(65_535) as u16,
            // Among the others.
            timestamps: None,
        };
        ControlFrame::build(&[], |out| {
            self.template.fill(out, &fields, &bytes[..len], 0, PayloadSum::Known(0))
        })
    }

    /// The first SYN leaves.
    pub(crate) fn send_syn<T: Transmit<D>>(&mut self, ctx: &mut Context<'_>, tx: &mut T) -> Result<(), Full> {
        tx.transmit_control(&self.syn(ctx.config, ctx.now))?;
        self.send.syn_sent(ctx);
        ctx.counters.segments_out += 1;
        Ok(())
    }

    /// The SYN was not answered in time.
    pub(crate) fn on_syn_timer<T: Transmit<D>>(&mut self, ctx: &mut Context<'_>, tx: &mut T) -> TimerOutcome {
        if self.send.rto.backoff() >= ctx.config.syn_retries {
            return TimerOutcome::Ended(End::TimedOut);
        }
        self.send.syn_repeated(ctx);
        ctx.counters.timeouts += 1;
        match tx.transmit_control(&self.syn(ctx.config, ctx.now)) {
            Ok(()) => {
                ctx.counters.retransmits += 1;
                ctx.counters.segments_out += 1;
            }
            // The timer comes again.
            Err(Full) => ctx.counters.driver_full += 1,
        }
        TimerOutcome::Done
    }

    /// RFC 9293 3.10.7.3. The SYN has left.
    #[cold]
    pub(crate) fn segment_arrives_in_syn_sent<'f>(
        &mut self,
        segment: &Segment<'f>,
        events: &mut Happened<'f>,
        ctx: &mut Context<'_>,
    ) -> Verdict {
        // First, check the ACK bit: only our SYN can be acknowledged.
        let acknowledged = match segment.acknowledgment {
            Some(ack) if ack == self.send.next => Some(ack),
            Some(_) if segment.control == Control::Rst => return Verdict::Drop(DropReason::Unacceptable),
            Some(ack) => {
                self.send.repeat_syn_soon(ctx);
                return Verdict::Reset(ack);
            }
            None => None,
        };
        // Second, check the RST bit. Third would be security. Fourth, check the SYN bit.
        match (segment.control, acknowledged) {
            (Control::Rst, Some(_)) => {
                ctx.counters.resets_in += 1;
                Verdict::Ended(End::Refused, None)
            }
            (Control::Syn, Some(_)) => {
                self.agree(segment, ctx);
                self.open_by_syn_ack(segment, events, ctx)
            }
            (Control::Syn, None) => {
                // Both open at once. Text is left for the peer to send again, once it may be delivered.
                self.agree(segment, ctx);
                self.state = State::SynReceived;
                self.send.syn_leaves_again(ctx);
                ctx.counters.segments_out += 1;
                Verdict::Reply(self.syn_ack(ctx.config, ctx.now))
            }
            // Fifth: neither SYN nor RST.
            _ => Verdict::Drop(DropReason::Unacceptable),
        }
    }

    /// Takes from the peer's SYN what a connection must know of it.
    fn agree(&mut self, syn: &Segment<'_>, ctx: &mut Context<'_>) {
        let options = SynOptions::parse(syn.options);
        ctx.counters.small_mss_in += u64::from(is_small(&options));
        let agreed = Agreed::new(ctx.config, self.template.family(), &options);
        let capacity = ctx.config.receive_window_bytes;
        let receive_mss = agreed.receive_mss(ctx.config);
        self.receive =
            ReceiveSide::new(syn.sequence, capacity, receive_mss, agreed.receive_scale, agreed.sack);
        self.timestamps.agree(options.timestamps.filter(|_| agreed.timestamps), ctx.now);
        self.send.agree(&agreed, ctx);
        self.agreed = agreed;
        let offers = self.offers_ecn(ctx.config);
        self.agree_on_ecn(match syn.acknowledgment {
            Some(_) => ecn::Agreed::by_syn_ack(syn, ctx.config.ecn, !offers),
            None if offers => ecn::Agreed::by_syn(syn, ctx.config.ecn),
            None => ecn::Agreed::No,
        });
    }

    /// The peer's SYN with an acknowledgment of ours: the connection is open, and an acknowledgment is due at once.
    pub(crate) fn open_by_syn_ack<'f>(
        &mut self,
        segment: &Segment<'f>,
        events: &mut Happened<'f>,
        ctx: &mut Context<'_>,
    ) -> Verdict {
        let options = SynOptions::parse(segment.options);
        let echo = options.timestamps.filter(|_| self.timestamps.enabled).map(|timestamps| timestamps.echo);
        self.open(segment, echo, events, ctx);
        self.receive.owe_ack(AckDue::Now, ctx);
        // "If there are other controls or text in the segment, then continue processing at the sixth step".
        let text = Segment { sequence: segment.sequence + 1, control: Control::None, ..*segment };
        self.text_arrives(&text, events, ctx);
        self.conclude(events, ctx)
    }
}

//! Explicit congestion notification (RFC 3168) of one connection: what SYNs agree on, marks that data arrives with and that
//! acknowledgments echo, and echoes that the congestion window answers.

use super::Seq;
use crate::config;
use crate::counters::Counters;
use crate::wire::Ecn;
use crate::wire::tcp::{Segment, flags};

/// What both SYNs agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Agreed {
    /// Nothing.
    #[default]
    No,
    /// Marks are echoed, and nothing of ours may be marked: one of our SYNs did not offer it (RFC 3168 6.1.1).
    Echo,
    /// Both.
    Full,
}

impl Agreed {
    /// By a SYN that asks for it. One that is marked itself comes from a path that writes what it likes into the field.
    pub(crate) fn by_syn(syn: &Segment<'_>, config: config::Ecn) -> Self {
        let asks = syn.ece && syn.cwr && syn.ecn == Ecn::NotCapable;
        if asks && config != config::Ecn::Never { Self::Full } else { Self::No }
    }

    /// By the answer to SYNs of ours of which `plain` did not offer it. An answer with both bits comes from a peer that returns
    /// what it does not know (RFC 3168 6.1.1).
    pub(crate) fn by_syn_ack(syn_ack: &Segment<'_>, config: config::Ecn, plain: bool) -> Self {
        match (syn_ack.ece && !syn_ack.cwr && config == config::Ecn::Ask, plain) {
            (false, _) => Self::No,
            (true, true) => Self::Echo,
            (true, false) => Self::Full,
        }
    }

    /// The flag of our SYN-ACK.
    pub(crate) fn answer(self) -> u8 {
        if self == Self::No { 0 } else { flags::ECE }
    }
}

/// What the sending half knows.
#[derive(Debug)]
pub(crate) struct EcnSender {
    /// New data may be marked.
    pub(crate) enabled: bool,
    /// The peer is to be told that the window was reduced.
    cwr_due: bool,
    /// It was reduced, and what was on its way then is not acknowledged yet.
    reduced: bool,
    /// SND.NXT at that time.
    end: Seq,
}

impl EcnSender {
    pub(crate) fn new(agreed: Agreed) -> Self {
        Self { enabled: agreed == Agreed::Full, cwr_due: false, reduced: false, end: Seq::new(0) }
    }

    /// Whether an acknowledgment is anything to us.
    #[inline]
    pub(crate) fn concerns(&self, segment: &Segment<'_>) -> bool {
        self.enabled && (segment.ece || self.reduced)
    }

    /// Whether an echo calls for a reduction while SND.UNA is `una`: once for what was on its way (RFC 3168 6.1.2).
    pub(crate) fn is_answer_due(&mut self, una: Seq) -> bool {
        self.reduced &= !una.is_after(self.end);
        !self.reduced
    }

    /// Whether a loss of what lies at `una` was answered for by an echo.
    pub(crate) fn has_answered(&self, una: Seq) -> bool {
        self.reduced && una.is_before(self.end)
    }

    /// The congestion window was reduced, for whatever reason, while SND.NXT is `next`.
    pub(crate) fn reduced(&mut self, next: Seq) {
        if self.enabled {
            (self.cwr_due, self.reduced, self.end) = (true, true, next);
        }
    }

    /// The reduction was taken back.
    pub(crate) fn forget_reduction(&mut self) {
        self.reduced = false;
    }

    /// Whether the next new data says that the window was reduced: in one segment, since a device that cuts a frame may
    /// repeat the bit in all of its segments.
    #[inline]
    pub(crate) fn is_cwr_due(&self) -> bool {
        self.cwr_due
    }

    pub(crate) fn cwr_sent(&mut self) {
        self.cwr_due = false;
    }
}

/// What the receiving half knows.
#[derive(Debug)]
pub(crate) struct EcnReceiver {
    enabled: bool,
    /// A mark has come, and no word that the window was reduced.
    echo: bool,
}

impl EcnReceiver {
    pub(crate) fn new(agreed: Agreed) -> Self {
        Self { enabled: agreed != Agreed::No, echo: false }
    }

    /// Data has arrived within the window. Returns whether it is the first with a mark, or the sender has just reduced its
    /// window and may wait for the acknowledgment of little.
    #[inline]
    pub(crate) fn data_arrives(&mut self, segment: &Segment<'_>, counters: &mut Counters) -> bool {
        if !self.enabled {
            return false;
        }
        counters.congestion_marks_in += u64::from(segment.ecn == Ecn::Congested);
        let before = self.echo;
        // RFC 3168 6.1.3: a mark on the segment that says so is a new one.
        self.echo = (before && !segment.cwr) || segment.ecn == Ecn::Congested;
        segment.cwr || self.echo != before
    }

    /// The flag of acknowledgments.
    #[inline]
    pub(crate) fn flags(&self) -> u8 {
        if self.echo { flags::ECE } else { 0 }
    }
}

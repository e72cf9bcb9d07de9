//! What is true of a connection between any two calls, whatever came in from the wire. Tests and fuzzers ask, by the feature
//! `check`; nothing else does.

use super::Seq;
use super::connection::{Connection, State};
use super::recovery::Phase;
use super::send_side::SendTimer;
use crate::config::Config;
use crate::data::Data;
use crate::events::AckDue;
use crate::time::Instant;

/// Where a connection stands in both sequence spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// SND.UNA, which never goes back.
    pub una: Seq,
    /// SND.NXT.
    pub next: Seq,
    /// The highest sequence number sent.
    pub max: Seq,
    /// RCV.NXT, which never goes back.
    pub receive_next: Seq,
    /// RCV.NXT + RCV.WND as last announced, which never moves left.
    pub receive_edge: Seq,
    /// The congestion window.
    pub congestion_window: u32,
    /// Bytes on their way, as far as we know (RFC 6675's pipe).
    pub pipe: u32,
    /// Which loss recovery is under way.
    pub recovery: Recovery,
}

/// Which loss recovery is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// None.
    Open,
    /// One that acknowledgments began.
    Fast,
    /// One that a retransmission timeout began.
    Timeout,
}

impl<D: Data> Connection<D> {
    pub(crate) fn numbers(&self) -> Numbers {
        Numbers {
            una: self.send.una,
            next: self.send.next,
            max: self.send.max,
            receive_next: self.receive.next,
            receive_edge: self.receive.next + self.receive.window(),
            congestion_window: self.send.congestion_window(),
            pipe: self.send.pipe(),
            recovery: match self.send.loss.recovery.phase {
                Phase::Open => Recovery::Open,
                Phase::Fast => Recovery::Fast,
                Phase::Timeout => Recovery::Timeout,
            },
        }
    }

    /// # Panics
    /// If something is not as it must be.
    pub(crate) fn check(&self, config: &Config) {
        self.check_send_side();
        self.check_receive_side(config);
        let woken = self.deadline(config) != Instant::NEVER || !self.waits_for_time();
        assert!(woken, "nothing would wake it in {:?}: {:?}", self.state, self.numbers());
    }

    /// # Panics
    /// If it sends packets larger than a link of so many bytes takes, or would after a black hole.
    pub(crate) fn check_path(&self, link_mtu: u16) {
        if !self.state.is_synchronized() {
            return;
        }
        let headers = u32::from(self.template.family().header_bytes() + self.agreed.option_bytes());
        let most = u32::from(link_mtu).saturating_sub(headers);
        let full = self.send.mss.max(self.send.loss.black_hole.full_mss());
        assert!(full <= most, "segments of {full} bytes where {most} fit");
    }

    fn check_send_side(&self) {
        let send = &self.send;
        let (flight, reach) = (send.next.since(send.una), send.max.since(send.una));
        assert!(flight <= reach && reach < 1 << 31, "una <= next <= max: {:?}", self.numbers());
        // A FIN, or the octet that probes a closed window, may lie beyond what the peer ever let us send.
        assert!(reach <= send.max_window.max(1) + 1, "{reach} bytes beyond una, {} allowed", send.max_window);
        assert!(send.mss > 0, "segments hold nothing");
        if !self.is_open() {
            let most = 1 + u32::from(self.has_closed_early());
            assert!(reach <= most, "more than a SYN has left, and the FIN of a close");
            return;
        }
        let board = send.queue.board();
        assert!(
            board.covers(send.una, send.next),
            "records from una to next: {:?} {board:?}",
            self.numbers()
        );
        assert!(board.sacked() + board.lost() <= flight, "more arrived or lost than was sent");
        assert!(board.len() <= 2 * super::scoreboard::MAX_RECORDS, "{} records", board.len());
        let (queued, sent) = (send.queue.len() as u64, (send.queue.len() - send.queue.unsent()) as u64);
        let fin = u64::from(flight) - sent;
        assert!(
            fin == 0 || (fin == 1 && send.fin_queued && sent == queued),
            "{flight} in flight of {queued} queued"
        );
        assert!(
            u64::from(reach) <= queued + u64::from(send.fin_queued),
            "what was sent is not there any more"
        );
        assert!(
            send.congestion_window() >= send.mss,
            "the congestion window is {}, less than a segment of {}",
            send.congestion_window(),
            send.mss
        );
    }

    fn check_receive_side(&self, config: &Config) {
        let receive = &self.receive;
        if self.state == State::SynSent {
            return;
        }
        let window = u64::from(receive.window());
        let most = u64::from(config.receive_window_bytes) + (1 << receive.scale);
        assert!(window <= most, "a window of {window} bytes is announced");
        let (ready, extent) = (receive.buffer.ready().len() as u64, receive.buffer.beyond() as u64);
        assert!(extent <= window, "{extent} bytes beyond RCV.NXT are kept, in a window of {window}");
        assert!(ready <= most, "{ready} bytes are kept");
        receive.buffer.check();
        assert!(receive.last_ack_sent.is_at_or_before(receive.next), "acknowledged what has not come");
        assert!(
            (receive.ack == AckDue::None) == (receive.ack_at == Instant::NEVER) || receive.ack == AckDue::Now
        );
    }

    /// Whether something must happen if neither the peer nor the application does anything.
    fn waits_for_time(&self) -> bool {
        let unacknowledged = self.send.max != self.send.una;
        !self.is_open()
            || self.state == State::FinWait2
            || unacknowledged
            || self.send.timer != SendTimer::Off
    }
}

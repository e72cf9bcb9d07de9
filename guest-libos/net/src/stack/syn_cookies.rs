//! SYNs that are answered without a place for them (RFC 4987 3.6), and acknowledgments that bring back what the place would
//! have remembered: in a flood of SYNs a client is served however long its round trip is.

use super::Stack;
use crate::config::SynCookies;
use crate::counters::DropReason;
use crate::data::Data;
use crate::events::Input;
use crate::frame::ControlFrame;
use crate::tcp::Context;
use crate::tcp::connection::{Connection, PeerSyn};
use crate::tcp::ecn;
use crate::tcp::negotiation::{Agreed, is_small};
use crate::tcp::syn_cookie;
use crate::tcp::table::FlowKey;
use crate::tcp::template::{Fields, PayloadSum};
use crate::tcp::timestamps::TimestampState;
use crate::time::Instant;
use crate::wire::ethernet::MacAddress;
use crate::wire::tcp::{Control, Segment, flags};
use crate::wire::tcp_options::{SynOptions, Timestamps};

impl<D: Data> Stack<D> {
    /// Whether the next SYN is answered by a cookie.
    pub(super) fn answers_by_cookie(&self) -> bool {
        match self.config.syn_cookies {
            SynCookies::Never => false,
            SynCookies::WhenFull => self.half_open >= self.config.max_half_open,
            SynCookies::Always => true,
        }
    }

    /// Answers a SYN and forgets it.
    pub(super) fn answer_by_cookie<'f>(
        &mut self,
        now: Instant,
        next_hop: MacAddress,
        key: FlowKey,
        syn: &Segment<'f>,
    ) -> Input<'f> {
        let mut options = SynOptions::parse(syn.options);
        self.counters.small_mss_in += u64::from(is_small(&options));
        options.timestamps = options.timestamps.filter(|_| self.config.timestamps);
        let options = syn_cookie::remembered(&options);
        let template = self.template(next_hop, key);
        let agreed = Agreed::new(&self.config, template.family(), &options);
        let flow = self.table.pairs.flow(key);
        let sequence = self.syn_cookies.make(flow, syn.sequence, agreed.peer_mss(), now);
        let clock = TimestampState::new(self.isn.timestamp_offset(flow), options.timestamps, now).clock(now);
        let ecn = if options.timestamps.is_some() {
            ecn::Agreed::by_syn(syn, self.config.ecn)
        } else {
            ecn::Agreed::No
        };
        let value = syn_cookie::timestamp(clock, &options, ecn);
        let timestamps = options.timestamps.map(|syn| Timestamps { value, echo: syn.value });
        let mut bytes = [0; SynOptions::MAX_BYTES];
        let len = agreed.answer(&self.config, timestamps).emit(&mut bytes);
        let fields = Fields {
            sequence,
            acknowledgment: syn.sequence + 1,
            flags: flags::SYN | flags::ACK | ecn.answer(),
            window: self.config.receive_window_bytes.min(65_535) as u16,
            // Among the others.
            timestamps: None,
        };
        self.counters.segments_out += 1;
        self.counters.syn_cookies_sent += 1;
        Input::Reply(ControlFrame::build(&[], |out| {
            template.fill(out, &fields, &bytes[..len], 0, PayloadSum::Known(0))
        }))
    }

    /// A segment for nobody may acknowledge a cookie: then there is a connection in SYN-RECEIVED that it is for, as if it had
    /// been there all the time.
    pub(super) fn cookie_returns(
        &mut self,
        now: Instant,
        next_hop: MacAddress,
        key: FlowKey,
        segment: &Segment<'_>,
    ) -> Result<bool, DropReason> {
        let (Control::None | Control::Fin, Some(ack)) = (segment.control, segment.acknowledgment) else {
            return Ok(false);
        };
        if !self.syn_cookies.is_expecting(now)
            || !self.is_listening(key)
            || self.time_wait.contains(self.table.pairs.flow(key), now)
        {
            return Ok(false);
        }
        if !self.cookie_bucket.take(now, self.config.syn_cookie_checks) {
            return Err(DropReason::CookieLimit);
        }
        let flow = self.table.pairs.flow(key);
        let (isn, peer_isn) = (ack - 1, segment.sequence - 1);
        let Some(mss) = self.syn_cookies.read(flow, peer_isn, isn, now) else {
            self.counters.syn_cookies_failed += 1;
            return Ok(false);
        };
        if self.table.len() >= self.config.max_connections as usize {
            // It comes again with data, or with the same.
            return Err(DropReason::ConnectionsFull);
        }
        self.counters.half_opened += 1;
        self.counters.syn_cookies_accepted += 1;
        let timestamps = Timestamps::parse(segment.options).filter(|_| self.config.timestamps);
        let syn = PeerSyn {
            sequence: peer_isn,
            options: syn_cookie::options(mss, timestamps),
            ecn: syn_cookie::ecn(timestamps),
        };
        let template = self.template(next_hop, key);
        let timestamp_offset = self.isn.timestamp_offset(flow);
        let ctx = Context {
            config: &self.config,
            counters: &mut self.counters,
            samples: &mut self.samples,
            buffered_bytes: &mut self.buffered_bytes,
            now,
        };
        let (_, connection) =
            self.table.insert(key, || Connection::accept(key, &syn, isn, timestamp_offset, template, &ctx));
        connection.send.leave_syn_untimed();
        // It opens with this segment: nobody gives way to it.
        self.half_open += 1;
        Ok(true)
    }
}

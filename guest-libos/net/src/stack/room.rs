//! Who gives way when places run out: the oldest half-open connection to a new SYN, and the one that has been silent for
//! longest to the application that asks for room. So neither a SYN flood nor clients that connect and say nothing keep
//! others out.

use super::Stack;
use crate::data::Data;
use crate::events::{ConnId, Evicted};
use crate::tcp::connection::Connection;
use crate::time::{Duration, Instant};

/// Places that one search for a silent connection looks at. With all of 8,192 places taken by silent clients any 64 of
/// them have one; beside busy ones the next call goes on where this one ended.
const SEARCH: usize = 64;

impl<D: Data> Stack<D> {
    /// Ends the most silent of some open connections, if it has made no progress for `silence`: nothing new came from the
    /// peer, nothing of ours was acknowledged. To be called while [`Self::connections`] nears `max_connections`. The
    /// identifier is gone with the call; no event follows.
    pub fn make_room(&mut self, now: Instant, silence: Duration) -> Option<Evicted> {
        self.end_silent(now, silence, |_| true)
    }

    /// The same of those whose peers have not acknowledged something that we sent or want to send: what they hold is needed.
    pub fn end_stalled(&mut self, now: Instant, silence: Duration) -> Option<Evicted> {
        self.end_silent(now, silence, |connection| connection.send.queue.len() > 0)
    }

    fn end_silent(
        &mut self,
        now: Instant,
        silence: Duration,
        which: impl Fn(&Connection<D>) -> bool,
    ) -> Option<Evicted> {
        let places = self.table.places();
        let mut oldest: Option<(ConnId, Instant)> = None;
        for _ in 0..SEARCH.min(places as usize) {
            self.search_at = if self.search_at + 1 < places { self.search_at + 1 } else { 0 };
            let Some((conn, connection)) = self.table.at(self.search_at) else { continue };
            let active_at = connection.active_at;
            if connection.is_open() && which(connection) && oldest.is_none_or(|(_, at)| active_at < at) {
                oldest = Some((conn, active_at));
            }
        }
        let (conn, _) = oldest.filter(|&(_, active_at)| now.since(active_at) >= silence)?;
        let reset = self.reset_frame(conn);
        self.counters.evicted += 1;
        self.forget(conn);
        Some(Evicted { conn, reset })
    }

    /// Remembers a connection that began its handshake, and makes room for it among those if need be.
    pub(super) fn half_open_begins(&mut self, conn: ConnId) {
        self.half_open += 1;
        if self.half_open_order.len() >= 2 * self.config.max_half_open as usize {
            let table = &self.table;
            self.half_open_order.retain(|&other| table.get(other).is_some_and(|other| !other.is_open()));
        }
        self.half_open_order.push_back(conn);
        while self.half_open > self.config.max_half_open {
            // Those that have opened or ended since are in the list, too.
            let Some(oldest) = self.half_open_order.pop_front() else { return };
            if self.table.get(oldest).is_some_and(|oldest| !oldest.is_open()) {
                self.counters.half_open_evicted += 1;
                self.forget(oldest);
            }
        }
    }
}

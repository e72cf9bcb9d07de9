//! Time passes: retransmissions, probes, delayed acknowledgments, the ends of connections and TIME-WAIT records.

use super::Stack;
use super::open::{on_opening_timer, suspect_neighbour};
use crate::data::Data;
use crate::driver::Transmit;
use crate::events::{AckDue, AckPolicy, ConnId, End, TimerEvent};
use crate::tcp::Context;
use crate::tcp::connection::{Connection, State};
use crate::tcp::transmit::TimerOutcome;
use crate::time::Instant;

/// Retransmissions in a row after which the application is told (RFC 9293 3.8.3, SHLD-10).
const R1: u8 = 3;

/// What became of a connection whose timer was due.
enum Fired {
    Alive,
    /// It was in vain for the R1-th time (RFC 9293 3.8.3).
    Retransmitting,
    Ended(End),
    /// The end of a connection that waited in TIME-WAIT for its application.
    Consumed,
    Forget,
}

/// Tells the peer that the connection is given up. A lost RST is repeated when the peer speaks again.
fn abort<D: Data, T: Transmit<D>>(connection: &Connection<D>, ctx: &mut Context<'_>, tx: &mut T) {
    if let Some(reset) = connection.abort_frame() {
        ctx.counters.segments_out += 1;
        ctx.counters.resets_out += 1;
        let _ = tx.transmit_control(&reset);
    }
}

impl<D: Data> Stack<D> {
    /// When to call [`Self::expire`] at the latest; `None` when no timer runs. It may be earlier than anything is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = self
            .wheel
            .next_deadline()
            .min(self.time_wait.next_deadline())
            .min(self.address.next_deadline())
            .min(self.next_rare_deadline());
        (deadline != Instant::NEVER).then_some(deadline)
    }

    /// The same of what is neither a connection nor was one.
    #[inline]
    fn next_rare_deadline(&self) -> Instant {
        self.reassembly
            .next_deadline()
            .min(self.path_mtus.next_deadline())
            .min(self.outbox.next_deadline())
            .min(self.resolver.next_deadline())
            .min(self.groups.next_deadline())
    }

    /// Does what is due at `now`, sends through `tx`, and tells `event` what applications must know. An event's
    /// connection is gone already.
    pub fn expire<T: Transmit<D>>(
        &mut self,
        now: Instant,
        tx: &mut T,
        mut event: impl FnMut(ConnId, TimerEvent),
    ) {
        self.expire_address(now, tx, &mut event);
        self.time_wait.expire(now);
        if self.next_rare_deadline() <= now {
            self.outbox.send(tx);
            self.expire_fragments(now, tx);
            self.expire_path_mtus(now);
            self.expire_link_mtu(now);
            self.expire_ipv6(now, tx);
            self.end_with_ipv6_addresses(&mut event);
            self.expire_groups(now, tx);
        }
        while let Some(index) = self.wheel.pop_expired(now) {
            let Some((conn, fired)) = self.fire(index, now, tx) else { continue };
            match fired {
                Fired::Alive => {}
                Fired::Retransmitting => event(conn, TimerEvent::Retransmitting),
                Fired::Ended(end) => {
                    self.finish(conn, end);
                    event(conn, TimerEvent::Ended(end));
                }
                Fired::Consumed => {
                    self.remember(conn, now);
                    self.finish(conn, End::Closed);
                    event(conn, TimerEvent::Ended(End::Closed));
                }
                Fired::Forget => {
                    self.counters.half_open_dropped += 1;
                    self.forget(conn);
                }
            }
        }
    }

    fn fire<T: Transmit<D>>(&mut self, index: u32, now: Instant, tx: &mut T) -> Option<(ConnId, Fired)> {
        let (conn, connection) = self.table.at(index)?;
        let mut ctx = Context {
            config: &self.config,
            counters: &mut self.counters,
            samples: &mut self.samples,
            buffered_bytes: &mut self.buffered_bytes,
            now,
        };
        if connection.linger_at <= now {
            let fired = match connection.state {
                State::TimeWait if connection.receive.buffer.ready().is_empty() => Fired::Consumed,
                State::TimeWait => Fired::Ended(End::Closed),
                State::SynSent => Fired::Ended(End::Cancelled),
                _ => Fired::Ended(End::TimedOut),
            };
            return Some((conn, fired));
        }
        let (mut blocked, mut fired) = (false, Fired::Alive);
        if connection.send.timer_at <= now {
            let before = connection.send.timeouts;
            let outcome = if connection.state == State::SynSent {
                on_opening_timer(connection, &mut self.resolver, &mut ctx, tx)
            } else {
                connection.on_send_timer(&mut ctx, tx)
            };
            match outcome {
                TimerOutcome::Done => {}
                TimerOutcome::Blocked => blocked = true,
                TimerOutcome::Ended(end) => return Some((conn, Fired::Ended(end))),
                TimerOutcome::Forget => return Some((conn, Fired::Forget)),
            }
            if connection.is_open() && before < R1 && connection.send.timeouts == R1 {
                fired = Fired::Retransmitting;
                suspect_neighbour(connection, &mut self.resolver, &mut ctx, tx);
            }
        }
        if connection.receive.ack_at <= now {
            // It has waited long enough; if the driver is full, it is due at the retry, and the timer need not come back.
            connection.receive.ack = AckDue::Now;
            connection.receive.ack_at = Instant::NEVER;
            blocked |= connection.output(&mut ctx, tx, AckPolicy::IfDue).blocked;
        }
        if connection.keep_alive_at() <= now {
            if !connection.keep_alive.probe(now) {
                abort(connection, &mut ctx, tx);
                return Some((conn, Fired::Ended(End::TimedOut)));
            }
            let probe = connection.keep_alive_probe(&mut ctx);
            // One that is lost here is a probe that was not answered.
            let _ = tx.transmit_control(&probe);
        }
        if connection.idle_at(ctx.config) <= now {
            if connection.can_send() && connection.send.queue.len() == 0 {
                // Nothing is owed to a peer that says nothing: an orderly end.
                self.established -= u32::from(connection.close());
                connection.active_at = now;
                blocked |= connection.output(&mut ctx, tx, AckPolicy::IfDue).blocked;
            } else {
                // It does not take what it asked for, or does not end.
                abort(connection, &mut ctx, tx);
                return Some((conn, Fired::Ended(End::TimedOut)));
            }
        }
        self.wheel.arm(index, connection.deadline(&self.config));
        if blocked {
            self.mark_blocked(conn);
        }
        Some((conn, fired))
    }

    /// Leaves a TIME-WAIT record behind.
    pub(super) fn remember(&mut self, conn: ConnId, now: Instant) {
        let Some(connection) = self.table.get(conn) else { return };
        let ctx = Context {
            config: &self.config,
            counters: &mut self.counters,
            samples: &mut self.samples,
            buffered_bytes: &mut self.buffered_bytes,
            now,
        };
        let (flow, record) = (self.table.pairs.flow(connection.key), connection.time_wait_record(&ctx));
        self.counters.time_wait_evicted += self.time_wait.insert(flow, record);
    }
}

//! What an application chooses for one connection while it lives.

use core::num::NonZeroU8;

use super::Stack;
use crate::data::Data;
use crate::events::{ConnId, StaleConnection};
use crate::options::{Coalesce, Dscp, KeepAlive};
use crate::tcp::connection::Connection;
use crate::time::Duration;

impl<D: Data> Stack<D> {
    fn set(&mut self, conn: ConnId, set: impl FnOnce(&mut Connection<D>)) -> Result<(), StaleConnection> {
        let connection = self.table.get_mut(conn).ok_or(StaleConnection)?;
        set(connection);
        let deadline = connection.deadline(&self.config);
        self.wheel.arm(conn.index, deadline);
        Ok(())
    }

    /// Asks a peer that says nothing for a sign of life, and ends the connection with `End::TimedOut` if none comes
    /// (RFC 9293 3.8.4). `None`, as every connection begins, does not ask.
    pub fn set_keep_alive(
        &mut self,
        conn: ConnId,
        keep_alive: Option<KeepAlive>,
    ) -> Result<(), StaleConnection> {
        self.set(conn, |connection| connection.keep_alive.set(keep_alive))
    }

    /// Says what becomes of segments that are not full, from the next [`Self::output`] on.
    pub fn set_coalesce(&mut self, conn: ConnId, coalesce: Coalesce) -> Result<(), StaleConnection> {
        self.set(conn, |connection| connection.send.coalesce = coalesce)
    }

    /// How long data of this connection may stay unacknowledged before it is given up, in place of
    /// `Config::user_timeout` (RFC 9293 3.8.3, R2). `None`: for ever.
    pub fn set_user_timeout(
        &mut self,
        conn: ConnId,
        timeout: Option<Duration>,
    ) -> Result<(), StaleConnection> {
        self.set(conn, |connection| connection.user_timeout.set(timeout))
    }

    /// Marks the segments of this connection with a codepoint from now on (RFC 9293 3.9.1.9).
    pub fn set_dscp(&mut self, conn: ConnId, dscp: Dscp) -> Result<(), StaleConnection> {
        self.set(conn, |connection| connection.template.set_dscp(dscp))
    }

    /// Gives the segments of this connection another time to live from now on (RFC 9293 3.9.2).
    pub fn set_time_to_live(&mut self, conn: ConnId, time_to_live: NonZeroU8) -> Result<(), StaleConnection> {
        self.set(conn, |connection| connection.template.set_time_to_live(time_to_live))
    }
}

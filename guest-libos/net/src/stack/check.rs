//! What is true of a stack between any two calls: its counts, its bounds, and each of its connections. Tests and fuzzers ask,
//! by the feature `check`; nothing else does.

use super::Stack;
use crate::data::Data;
use crate::events::ConnId;
use crate::tcp::check::Numbers;
use crate::tcp::connection::State;

impl<D: Data> Stack<D> {
    /// Where a connection stands in both sequence spaces.
    pub fn numbers(&self, conn: ConnId) -> Option<Numbers> {
        self.table.get(conn).map(|connection| connection.numbers())
    }

    /// The state of a connection, as RFC 9293 3.3.2 writes it.
    pub fn state_name(&self, conn: ConnId) -> Option<&'static str> {
        let connection = self.table.get(conn)?;
        Some(match connection.state {
            State::SynSent => "SYN-SENT",
            State::SynReceived if connection.has_closed_early() => "FIN-WAIT-1",
            State::SynReceived => "SYN-RECEIVED",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::CloseWait => "CLOSE-WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST-ACK",
            State::TimeWait => "TIME-WAIT",
        })
    }

    /// Looks at everything.
    ///
    /// # Panics
    /// If something is not as it must be.
    pub fn check(&self) {
        let config = &self.config;
        let (mut half_open, mut opening, mut established, mut buffered) = (0, 0, 0, 0);
        for (index, connection) in self.table.iter() {
            connection.check(config);
            connection.check_path(self.resolver.mtu_of_connections_to(
                config,
                connection.template.peer(),
                None,
            ));
            match (connection.state, connection.is_active) {
                (State::SynSent, _) | (State::SynReceived, true) => opening += 1,
                (State::SynReceived, false) => half_open += 1,
                (State::Established | State::CloseWait, _) => established += 1,
                _ => {}
            }
            buffered += connection.receive.buffer.capacity();
            let deadline = connection.deadline(config);
            assert!(
                self.wheel.fires_by(index, deadline),
                "nobody waits for connection {index}'s {deadline:?}"
            );
        }
        assert_eq!((self.half_open, self.opening, self.established), (half_open, opening, established));
        assert_eq!(self.buffered_bytes, buffered, "what receive buffers hold");
        assert!(buffered <= config.max_buffered_bytes, "{buffered} bytes are buffered");
        assert!(self.table.len() <= config.max_connections as usize);
        assert!(half_open <= config.max_half_open);
        assert!(self.half_open_order.len() <= 2 * config.max_half_open as usize + 1);
        self.time_wait.check();
        assert!(self.time_wait.len() <= config.max_time_wait as usize);
        assert!(self.blocked.len() <= 2 * self.table.places() as usize + 2);
        assert!(self.waiting.len() <= 2 * self.table.places() as usize + 2);
        assert!(self.resolver.arp.len() <= config.max_neighbours as usize);
        self.table.pairs.check(self.table.iter().map(|(_, connection)| connection.key));
        assert_eq!(self.resolver.ipv6.is_some(), config.ipv6.is_some());
        if let (Some(interface), Some(ipv6)) = (self.resolver.ipv6.as_deref(), &config.ipv6) {
            interface.check(config, ipv6);
        }
        assert!(self.reassembly.len() <= usize::from(config.max_reassemblies));
        self.reassembly.check();
        assert!(self.reassembly.cost_bytes() <= config.max_reassembly_bytes);
        assert!(self.path_mtus.len() <= usize::from(config.max_path_mtus));
        assert!(self.outbox.len() <= super::fragments::MAX_WAITING);
    }
}

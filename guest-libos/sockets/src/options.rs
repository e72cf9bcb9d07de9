//! What a program chooses for one stream.

use crate::tcp::TcpStream;
use core::num::NonZeroU8;
use exos_net::{Coalesce, ConnId, Dscp, Duration, KeepAlive, Stack};

use crate::state::{Bytes, Sockets, Stream};

/// One choice. Streams begin with Nagle's algorithm on, without keep-alive, and with the stack's timeout, codepoint and time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketOption {
    /// Whether small segments leave at once (TCP_NODELAY), wait for what is on its way (Nagle's algorithm), or wait for more to be
    /// written (TCP_CORK).
    Coalesce(Coalesce),
    /// Whether a silent peer is asked for a sign of life (SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).
    KeepAlive(Option<KeepAlive>),
    /// How long data may stay unacknowledged (TCP_USER_TIMEOUT); `None`: for ever.
    UserTimeout(Option<Duration>),
    /// IP_TOS's codepoint.
    Dscp(Dscp),
    /// IP_TTL.
    TimeToLive(NonZeroU8),
    /// Bytes that are taken from the writer before it waits (SO_SNDBUF).
    SendBuffer(usize),
    /// How long what was written may stay unacknowledged once the stream was dropped, before it is given up with a reset
    /// (SO_LINGER); zero resets at once. `None`: as long as the user timeout allows. Dropping never waits.
    Linger(Option<Duration>),
    /// Bytes that are held back for the reader, beside the stack's window (SO_RCVBUF).
    ReceiveBuffer(usize),
}

impl SocketOption {
    /// Tells the stack. Those that are none of its business were heeded before.
    pub(crate) fn apply(self, stack: &mut Stack<Bytes>, conn: ConnId) {
        // Stale means that the connection has ended, and its reader learns that.
        let _ = match self {
            Self::Coalesce(coalesce) => stack.set_coalesce(conn, coalesce),
            Self::KeepAlive(keep_alive) => stack.set_keep_alive(conn, keep_alive),
            Self::UserTimeout(timeout) => stack.set_user_timeout(conn, timeout),
            Self::Dscp(dscp) => stack.set_dscp(conn, dscp),
            Self::TimeToLive(hops) => stack.set_time_to_live(conn, hops),
            Self::SendBuffer(bytes) => stack.set_low_water(conn, bytes / 2),
            Self::ReceiveBuffer(_) | Self::Linger(_) => Ok(()),
        };
    }
}

impl Sockets {
    /// What streams begin with from now on, unless they choose something else.
    pub fn set_defaults(&self, options: &[SocketOption]) {
        self.state().defaults = options.into();
    }
}

impl Stream {
    /// Chooses something; the stack hears of it when the stream's wishes are carried out.
    pub(crate) fn set(&mut self, option: SocketOption) {
        match option {
            SocketOption::SendBuffer(bytes) => self.send_buffer_bytes = bytes.max(1),
            SocketOption::Linger(linger) => self.linger = linger,
            SocketOption::ReceiveBuffer(bytes) => self.receive_buffer_bytes = bytes.max(1),
            _ => {}
        }
        self.options.push(option);
    }
}

impl TcpStream {
    /// Chooses something for this stream, from the next round on.
    pub fn set(&mut self, option: SocketOption) {
        let mut state = self.sockets.state();
        state.stream(self.place).set(option);
        state.mark_dirty(self.place);
    }

    /// Whether small segments leave at once.
    pub fn set_nodelay(&mut self, nodelay: bool) {
        self.set(SocketOption::Coalesce(if nodelay { Coalesce::NoDelay } else { Coalesce::Nagle }));
    }
}

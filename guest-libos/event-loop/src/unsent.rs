//! Datagrams of the loop's own that cannot leave yet, for want of their next hop's Ethernet address or of room: they are tried
//! again a little later, a bounded number of times. Nothing else is repeated here.

use alloc::vec::Vec;
use core::net::SocketAddr;
use exos_net::{Data, Duration, Instant, SendDatagramError, Stack, Transmit};

const WAIT: Duration = Duration::from_millis(50);
const TRIES: u8 = 20;
/// Datagrams that wait; of more, the oldest are given up.
const MAX_WAITING: usize = 4;

#[derive(Debug)]
struct Waiting {
    from_port: u16,
    to: SocketAddr,
    bytes: Vec<u8>,
    again_at: Instant,
    tries_left: u8,
}

/// Datagrams that wait.
#[derive(Debug, Default)]
pub(crate) struct Unsent(Vec<Waiting>);

impl Unsent {
    /// Sends a datagram, now or a little later. An error says that it will not leave.
    pub(crate) fn send<D: Data, T: Transmit<D>>(
        &mut self,
        now: Instant,
        from_port: u16,
        to: SocketAddr,
        bytes: &[u8],
        stack: &mut Stack<D>,
        tx: &mut T,
    ) -> Result<(), SendDatagramError> {
        match stack.send_udp_bytes(now, from_port, to, bytes, tx) {
            Err(SendDatagramError::Unresolved | SendDatagramError::Full) => {
                if self.0.len() == MAX_WAITING {
                    self.0.remove(0);
                }
                let bytes = bytes.to_vec();
                self.0.push(Waiting { from_port, to, bytes, again_at: now + WAIT, tries_left: TRIES });
                Ok(())
            }
            sent => sent,
        }
    }

    /// Tries again what is due.
    pub(crate) fn retry<D: Data, T: Transmit<D>>(&mut self, now: Instant, stack: &mut Stack<D>, tx: &mut T) {
        self.0.retain_mut(|waiting| {
            if waiting.again_at > now {
                return true;
            }
            let sent = stack.send_udp_bytes(now, waiting.from_port, waiting.to, &waiting.bytes, tx);
            (waiting.again_at, waiting.tries_left) = (now + WAIT, waiting.tries_left - 1);
            let again = matches!(sent, Err(SendDatagramError::Unresolved | SendDatagramError::Full));
            again && waiting.tries_left > 0
        });
    }

    /// When [`Self::retry`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.0.iter().map(|waiting| waiting.again_at).min()
    }
}

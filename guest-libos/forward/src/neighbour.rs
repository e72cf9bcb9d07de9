//! Where on the link the server, or the gateway to it, is: asked for at the start, and again now and then, by ARP (RFC 826) or
//! Neighbor Discovery (RFC 4861).
//!
//! Only this one address is asked for. A client's frames say where it is.

use crate::address::{Address, Own, REQUEST_BYTES};
use crate::config::Mac;
use core::time::Duration;

/// From one unanswered request to the next (RFC 1122 2.3.2.1: at most one a second; RFC 4861 10: RETRANS_TIMER).
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// An address is asked for again after so long (RFC 1122 2.3.2.1 has "on the order of a minute", RFC 4861 10 REACHABLE_TIME).
const VALID: Duration = Duration::from_secs(30);
/// After so many requests without an answer it is not where it was, and after so many more nobody is there (RFC 4861 10: MAX_UNICAST_SOLICIT, MAX_MULTICAST_SOLICIT).
const UNANSWERED_MAX: u8 = 3;

/// What is known of the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// There.
    At(Mac),
    /// It was asked for and may still answer.
    Asked,
    /// It does not answer.
    Gone,
}

/// The next hop towards the server.
#[derive(Debug)]
pub(crate) struct Neighbour<A> {
    address: A,
    mac: Option<Mac>,
    unanswered: u8,
    /// When it is asked for next, and the earliest time for that.
    ask_at: Duration,
    ask_not_before: Duration,
}

impl<A: Address> Neighbour<A> {
    pub(crate) fn new(address: A) -> Self {
        Self { address, mac: None, unanswered: 0, ask_at: Duration::ZERO, ask_not_before: Duration::ZERO }
    }

    pub(crate) fn address(&self) -> A {
        self.address
    }

    /// Where it is on the link, if that is known.
    pub(crate) fn mac(&self) -> Option<Mac> {
        self.mac
    }

    #[inline(always)]
    pub(crate) fn known(&self) -> Known {
        match self.mac {
            Some(mac) => Known::At(mac),
            None if self.unanswered <= UNANSWERED_MAX => Known::Asked,
            None => Known::Gone,
        }
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.ask_at
    }

    /// Writes a request if it is time for one, and gives back its bytes.
    pub(crate) fn ask(
        &mut self,
        now: Duration,
        own: Own<A>,
        frame: &mut [u8; REQUEST_BYTES],
    ) -> Option<usize> {
        if now < self.ask_at {
            return None;
        }
        // Not there any more, it may be elsewhere (RFC 4861 7.3.3).
        if self.unanswered >= UNANSWERED_MAX && self.mac.take().is_some() {
            self.unanswered = 0;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.ask_at = now + ASK_AGAIN;
        self.ask_not_before = self.ask_at;
        Some(A::write_request(frame, own, self.address, self.mac))
    }

    /// It answered.
    pub(crate) fn confirm(&mut self, now: Duration, mac: Mac) {
        (self.mac, self.unanswered, self.ask_at) = (Some(mac), 0, now + VALID);
    }

    /// It answered, and did not say where it is: where it was.
    pub(crate) fn confirm_known(&mut self, now: Duration) {
        if let Some(mac) = self.mac {
            self.confirm(now, mac);
        }
    }

    /// Somebody says that it is there, unasked: so it is asked soon.
    pub(crate) fn tell(&mut self, now: Duration, mac: Mac) {
        if self.mac != Some(mac) {
            (self.mac, self.unanswered) = (Some(mac), 0);
            self.ask_at = now.max(self.ask_not_before);
        }
    }
}

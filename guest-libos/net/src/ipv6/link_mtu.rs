//! How large packets on the link may be (RFC 4861 6.3.4): what takes less counts at once. That there is room for more is for new
//! connections at once, and for those that there are when nobody has taken it back for a second: to tell all of them costs a
//! visit each, and anybody on the link can say now this and now that.

use crate::time::{Duration, Instant};

/// How long open connections wait before they send more than they do.
const GROW_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct LinkMtu {
    /// What a router says last; [`super::Ipv6Config::link_mtu`] before one does.
    pub(crate) said: u16,
    /// No open connection sends more.
    most_used: u16,
    /// When open connections may send more.
    grow_at: Instant,
}

impl LinkMtu {
    /// Of an interface that takes `link` bytes, on a link that takes `said` bytes as far as we know.
    pub(super) fn new(link: u16, said: u16) -> Self {
        Self { said, most_used: link, grow_at: Instant::NEVER }
    }

    /// What packets keep to on an interface that takes `link` bytes.
    pub(crate) fn now(&self, link: u16) -> u16 {
        self.said.min(link)
    }

    /// Somebody advertised something. Returns whether a connection may send more than that.
    pub(crate) fn advertised(&mut self, link: u16, now: Instant) -> bool {
        if self.now(link) > self.most_used && self.grow_at == Instant::NEVER {
            self.grow_at = now + GROW_AFTER;
        }
        self.now(link) < self.most_used
    }

    /// A connection was opened: it sends as much as may be sent now.
    pub(crate) fn used(&mut self, link: u16) {
        self.most_used = self.most_used.max(self.now(link));
    }

    /// All connections send as much as may be sent now.
    pub(crate) fn followed(&mut self, link: u16) {
        (self.most_used, self.grow_at) = (self.now(link), Instant::NEVER);
    }

    /// When open connections may send more than they do.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.grow_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: u16 = 1_500;

    /// How often all connections are told in a second of advertisements that contradict each other, with `opened` connections
    /// opened between.
    fn told(opened: bool) -> usize {
        let mut mtu = LinkMtu::new(LINK, u16::MAX);
        let mut told = 0;
        for number in 0..1_000 {
            mtu.said = if number % 2 == 0 { 1_280 } else { LINK };
            let now = Instant::from_millis(number);
            if mtu.advertised(LINK, now) || mtu.next_deadline() <= now {
                mtu.followed(LINK);
                told += 1;
            }
            if opened && number % 100 == 51 {
                mtu.used(LINK);
            }
        }
        told
    }

    #[test]
    fn who_contradicts_himself_has_connections_told_once_and_again_for_each_that_was_opened() {
        assert_eq!((told(false), told(true)), (1, 11));
    }

    #[test]
    fn larger_mtu_is_taken_up_after_a_second_though_others_have_opened_with_it() {
        let mut mtu = LinkMtu::new(LINK, u16::MAX);
        mtu.said = 1_280;
        assert!(mtu.advertised(LINK, Instant::ZERO));
        mtu.followed(LINK);
        mtu.said = 1_400;
        assert!(!mtu.advertised(LINK, Instant::ZERO));
        assert!(!mtu.advertised(LINK, Instant::from_millis(500)));
        mtu.used(LINK);
        assert!(!mtu.advertised(LINK, Instant::from_millis(900)));
        assert_eq!(mtu.next_deadline(), Instant::from_millis(1_000));
        mtu.followed(LINK);
        assert_eq!((mtu.next_deadline(), mtu.now(LINK)), (Instant::NEVER, 1_400));
    }
}

//! How large packets on the link may be (RFC 4861 6.3.4). For connections, what takes less counts at once, and that there is room
//! for more when nobody has said otherwise for a second: to tell all of them costs a visit each, and anybody on the link can say
//! now this and now that. Who says less and then less again within a second has them keep to the least of all links, from
//! where nothing can make them smaller. So they are told at most thrice a second, whatever is said.

use super::MIN_MTU;
use crate::time::{Duration, Instant};

/// How long what a router says must last.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct LinkMtu {
    /// What a router says last; [`super::Ipv6Config::link_mtu`] before one does.
    pub(crate) said: u16,
    /// What connections keep to, never more than was said.
    in_use: u16,
    /// What they may send at `grow_at`.
    grow_to: u16,
    grow_at: Instant,
    /// Until then, what takes still less is taken for the least.
    shrunk_until: Instant,
}

impl LinkMtu {
    /// Of an interface that takes `link` bytes, on a link that takes `said` bytes as far as we know.
    pub(super) fn new(link: u16, said: u16) -> Self {
        let in_use = said.min(link);
        Self { said, in_use, grow_to: in_use, grow_at: Instant::NEVER, shrunk_until: Instant::ZERO }
    }

    /// What packets keep to on an interface that takes `link` bytes.
    pub(crate) fn now(&self, link: u16) -> u16 {
        self.said.min(link)
    }

    /// What segments of connections keep to.
    pub(crate) fn in_use(&self) -> u16 {
        self.in_use
    }

    /// Somebody advertised something. Returns what connections kept to and the less that they must keep to, if it is less.
    pub(crate) fn advertised(&mut self, link: u16, now: Instant) -> Option<(u16, u16)> {
        let (was, said) = (self.in_use, self.now(link));
        if said < was {
            self.in_use = if now < self.shrunk_until { MIN_MTU } else { said };
            self.shrunk_until = now + SETTLED_AFTER;
        }
        if said <= self.in_use {
            (self.grow_to, self.grow_at) = (self.in_use, Instant::NEVER);
        } else if said != self.grow_to {
            (self.grow_to, self.grow_at) = (said, now + SETTLED_AFTER);
        }
        (self.in_use < was).then_some((was, self.in_use))
    }

    /// Connections keep to what may be sent now. Returns what they kept to, and that.
    pub(crate) fn follow(&mut self, link: u16) -> (u16, u16) {
        let is = self.now(link);
        (self.grow_to, self.grow_at) = (is, Instant::NEVER);
        (core::mem::replace(&mut self.in_use, is), is)
    }

    /// When connections may send more than they do.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.grow_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: u16 = 1_500;

    fn said(mtu: &mut LinkMtu, said: u16, millis: u64) -> Option<(u16, u16)> {
        mtu.said = said;
        mtu.advertised(LINK, Instant::from_millis(millis))
    }

    /// How often all connections are told in ten seconds in which somebody says something every millisecond.
    fn told(what: impl Fn(u64) -> u16) -> usize {
        let mut mtu = LinkMtu::new(LINK, u16::MAX);
        let mut told = 0;
        for millis in 0..10_000 {
            told += usize::from(said(&mut mtu, what(millis), millis).is_some());
            if mtu.next_deadline() <= Instant::from_millis(millis) {
                mtu.follow(LINK);
                told += 1;
            }
            assert!(mtu.in_use() >= MIN_MTU && mtu.in_use() <= mtu.now(LINK));
        }
        told
    }

    #[test]
    fn connections_are_told_at_most_thrice_a_second_whatever_is_said() {
        // This and that; less and less, and then nothing new for a second.
        assert_eq!(told(|millis| if millis % 2 == 0 { 1_280 } else { LINK }), 1);
        assert_eq!(told(|millis| LINK - (millis % 200) as u16), 2);
        let pausing = told(|millis| match millis % 1_250 {
            steps @ 0..220 => LINK - 1 - steps as u16,
            _ => LINK,
        });
        assert_eq!(pausing, 3 * 8);
        // What is said again is nothing new.
        assert_eq!(told(|millis| if millis == 0 { 1_280 } else { LINK }), 2);
    }

    #[test]
    fn larger_mtu_is_taken_up_when_nobody_said_otherwise_for_a_second() {
        let mut mtu = LinkMtu::new(LINK, u16::MAX);
        assert_eq!(said(&mut mtu, 1_280, 0), Some((1_500, 1_280)));
        assert_eq!(mtu.next_deadline(), Instant::NEVER);
        for (mtu_said, millis, grow_at) in [
            (1_400, 2_000, Some(3_000)),
            (1_400, 2_500, Some(3_000)),
            (1_500, 2_900, Some(3_900)),
            (1_400, 3_100, Some(4_100)),
            (1_280, 3_500, None),
            (1_400, 3_990, Some(4_990)),
        ] {
            assert_eq!(said(&mut mtu, mtu_said, millis), None);
            assert_eq!(mtu.next_deadline(), grow_at.map_or(Instant::NEVER, Instant::from_millis));
        }
        assert_eq!((mtu.follow(LINK), mtu.next_deadline()), ((1_280, 1_400), Instant::NEVER));
        assert_eq!(said(&mut mtu, 1_400, 6_000), None);
        assert_eq!(mtu.next_deadline(), Instant::NEVER);
    }

    #[test]
    fn less_and_less_within_a_second_is_taken_for_the_least_until_it_lasts() {
        let mut mtu = LinkMtu::new(LINK, u16::MAX);
        assert_eq!(said(&mut mtu, 1_450, 0), Some((1_500, 1_450)));
        assert_eq!(said(&mut mtu, 1_440, 1_000), Some((1_450, 1_440)));
        assert_eq!(said(&mut mtu, 1_430, 1_999), Some((1_440, 1_280)));
        assert_eq!(said(&mut mtu, 1_420, 2_000), None);
        assert_eq!(mtu.next_deadline(), Instant::from_millis(3_000));
        assert_eq!(mtu.follow(LINK), (1_280, 1_420));
    }
}

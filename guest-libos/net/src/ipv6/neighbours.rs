//! Neighbours and their Ethernet addresses (RFC 4861 7.2, 7.3): only whom we want to send to is in here, whatever others
//! tell of themselves, so that nobody fills it. Whether a neighbour is still there is learned from connections that get on
//! with it; one that is used otherwise is asked.

use core::net::Ipv6Addr;

use hashbrown::HashMap;

use crate::tcp::isn::FlowHash;
use crate::time::{Duration, Instant};
use crate::wire::ethernet::MacAddress;

/// RFC 4861 10, RETRANS_TIMER: a neighbour is asked at most once a second.
const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// REACHABLE_TIME: so long a neighbour is known to be there after a sign of it.
const REACHABLE_TIME: Duration = Duration::from_secs(30);
/// DELAY_FIRST_PROBE_TIME: so long a connection may take to show that the neighbour is there.
const DELAY_FIRST_PROBE_TIME: Duration = Duration::from_secs(5);
/// MAX_UNICAST_SOLICIT.
const MAX_UNICAST_SOLICIT: u8 = 3;

/// A question for a neighbour's Ethernet address, and from which address of ours: to itself where it is known, to its
/// group where it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) target: Ipv6Addr,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) source: Ipv6Addr,
}

/// RFC 4861 7.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Asked, and never heard.
    Incomplete,
    Reachable {
        until: Instant,
    },
    /// It was there once.
    Stale,
    /// It was sent to, and may show by itself that it is there.
    Delay {
        until: Instant,
    },
    /// It is being asked whether it is there.
    Probe {
        asked: u8,
        next_at: Instant,
    },
}

#[derive(Clone, Copy, Debug)]
struct Neighbour {
    /// All zero while it is `Incomplete`.
    mac: MacAddress,
    state: State,
    /// When it was asked by whoever waits for its address.
    asked_until: Instant,
    used_at: Instant,
}

impl Neighbour {
    fn is_known(&self) -> bool {
        self.state != State::Incomplete
    }
}

/// What came of somebody's word about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing is new, or nobody wanted to know.
    Nothing,
    /// The address is known now.
    New,
    /// The neighbour was at this address before.
    Moved(MacAddress),
}

/// What an advertisement says (RFC 4861 4.4).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advertised {
    pub(crate) mac: Option<MacAddress>,
    pub(crate) solicited: bool,
    pub(crate) overrides: bool,
}

#[derive(Debug)]
pub(crate) struct Neighbours {
    entries: HashMap<Ipv6Addr, Neighbour, FlowHash>,
    max: usize,
    /// When [`Self::poll`] has something to do, or earlier.
    wake_at: Instant,
}

impl Neighbours {
    pub(crate) fn new(max: usize, hash: FlowHash) -> Self {
        Self { entries: HashMap::with_hasher(hash), max, wake_at: Instant::NEVER }
    }

    pub(crate) fn last_known(&self, ip: Ipv6Addr) -> Option<MacAddress> {
        self.entries.get(&ip).filter(|neighbour| neighbour.is_known()).map(|neighbour| neighbour.mac)
    }

    /// Whether a router can be chosen before others (RFC 4861 6.3.6).
    pub(crate) fn is_reachable(&self, ip: Ipv6Addr) -> bool {
        self.last_known(ip).is_some()
    }

    /// The Ethernet address to send to now. What is stale is used, and looked after (RFC 4861 7.3.3).
    pub(crate) fn lookup(&mut self, ip: Ipv6Addr, now: Instant) -> Option<MacAddress> {
        let neighbour = self.entries.get_mut(&ip).filter(|neighbour| neighbour.is_known())?;
        neighbour.used_at = now;
        let is_stale = match neighbour.state {
            State::Stale => true,
            State::Reachable { until } => until <= now,
            _ => false,
        };
        if is_stale {
            let until = now + DELAY_FIRST_PROBE_TIME;
            neighbour.state = State::Delay { until };
            self.wake_at = self.wake_at.min(until);
        }
        Some(neighbour.mac)
    }

    /// Whether `ip` may be asked now by whoever wants its address.
    pub(crate) fn may_ask(&self, ip: Ipv6Addr, now: Instant) -> bool {
        match self.entries.get(&ip) {
            Some(neighbour) => neighbour.asked_until <= now,
            None => self.entries.len() < self.max || self.oldest(now).is_some(),
        }
    }

    /// `ip` was asked.
    pub(crate) fn asked(&mut self, ip: Ipv6Addr, now: Instant) {
        let asked_until = now + RETRANS_TIMER;
        if let Some(neighbour) = self.entries.get_mut(&ip) {
            neighbour.asked_until = asked_until;
            return;
        }
        if self.entries.len() >= self.max
            && let Some(oldest) = self.oldest(now)
        {
            self.entries.remove(&oldest);
        }
        let (mac, state) = (MacAddress([0; 6]), State::Incomplete);
        self.entries.insert(ip, Neighbour { mac, state, asked_until, used_at: now });
    }

    /// The entry that gives way to a new one: not one that was just asked.
    fn oldest(&self, now: Instant) -> Option<Ipv6Addr> {
        let idle = self.entries.iter().filter(|(_, neighbour)| neighbour.asked_until <= now);
        idle.min_by_key(|(ip, neighbour)| (neighbour.used_at, **ip)).map(|(&ip, _)| ip)
    }

    /// RFC 4861 7.2.5: `ip` advertises itself.
    pub(crate) fn advertised(&mut self, ip: Ipv6Addr, said: Advertised, now: Instant) -> Heard {
        let Some(neighbour) = self.entries.get_mut(&ip) else { return Heard::Nothing };
        let reachable = State::Reachable { until: now + REACHABLE_TIME };
        if !neighbour.is_known() {
            let Some(mac) = said.mac else { return Heard::Nothing };
            neighbour.mac = mac;
            neighbour.state = if said.solicited { reachable } else { State::Stale };
            return Heard::New;
        }
        let before = neighbour.mac;
        let mac = said.mac.unwrap_or(before);
        if mac != before && !said.overrides {
            if matches!(neighbour.state, State::Reachable { .. }) {
                neighbour.state = State::Stale;
            }
            return Heard::Nothing;
        }
        neighbour.mac = mac;
        if said.solicited {
            neighbour.state = reachable;
        } else if mac != before {
            neighbour.state = State::Stale;
        }
        if mac == before { Heard::Nothing } else { Heard::Moved(before) }
    }

    /// RFC 4861 6.3.4: a router that we use says where it is. There are few of them.
    pub(crate) fn router_spoke(&mut self, ip: Ipv6Addr, mac: MacAddress, now: Instant) -> Heard {
        if !self.entries.contains_key(&ip) && self.may_ask(ip, now) {
            self.asked(ip, now);
        }
        self.spoke(ip, mac)
    }

    /// RFC 4861 7.2.3: `ip` asks and says where it is.
    pub(crate) fn spoke(&mut self, ip: Ipv6Addr, mac: MacAddress) -> Heard {
        let Some(neighbour) = self.entries.get_mut(&ip) else { return Heard::Nothing };
        let (before, was_known) = (neighbour.mac, neighbour.is_known());
        if was_known && before == mac {
            return Heard::Nothing;
        }
        (neighbour.mac, neighbour.state) = (mac, State::Stale);
        if was_known { Heard::Moved(before) } else { Heard::New }
    }

    /// A connection gets on with `ip` at `mac`: it is there (RFC 4861 7.3.1).
    pub(crate) fn confirm(&mut self, ip: Ipv6Addr, mac: MacAddress, now: Instant) {
        if let Some(neighbour) = self.entries.get_mut(&ip)
            && neighbour.is_known()
            && neighbour.mac == mac
        {
            neighbour.state = State::Reachable { until: now + REACHABLE_TIME };
            neighbour.used_at = now;
        }
    }

    /// Nothing gets on with `ip` any more: it is asked where it is.
    pub(crate) fn suspect(&mut self, ip: Ipv6Addr, now: Instant) {
        if let Some(neighbour) = self.entries.get_mut(&ip)
            && neighbour.is_known()
            && !matches!(neighbour.state, State::Probe { .. })
        {
            neighbour.state = State::Probe { asked: 0, next_at: now };
            self.wake_at = Instant::ZERO;
        }
    }

    /// Who is to be asked now, at its last known address. A neighbour that does not answer is forgotten.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(Ipv6Addr, MacAddress)> {
        if self.wake_at > now {
            return None;
        }
        let (mut ask, mut wake_at) = (None, Instant::NEVER);
        self.entries.retain(|&ip, neighbour| {
            let due_at = match neighbour.state {
                State::Delay { until } => until,
                State::Probe { next_at, .. } => next_at,
                _ => return true,
            };
            if due_at > now || ask.is_some() {
                wake_at = wake_at.min(due_at);
                return true;
            }
            let asked = if let State::Probe { asked, .. } = neighbour.state { asked } else { 0 };
            if asked >= MAX_UNICAST_SOLICIT {
                return false;
            }
            let next_at = now + RETRANS_TIMER;
            neighbour.state = State::Probe { asked: asked + 1, next_at };
            wake_at = wake_at.min(next_at);
            ask = Some((ip, neighbour.mac));
            true
        });
        self.wake_at = wake_at;
        ask
    }

    /// # Panics
    /// If there are more than there may be, or one waits for time and nobody for it.
    #[cfg(feature = "check")]
    pub(super) fn check(&self) {
        assert!(self.entries.len() <= self.max, "{} neighbours", self.entries.len());
        for (ip, neighbour) in &self.entries {
            if let State::Delay { until: due_at } | State::Probe { next_at: due_at, .. } = neighbour.state {
                assert!(self.wake_at <= due_at, "nobody waits for what is due about {ip}");
            }
        }
    }

    /// When [`Self::poll`] has something to do, or a little earlier.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.wake_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    fn ip(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last)
    }

    const fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1_000)
    }

    fn answer(mac: MacAddress) -> Advertised {
        Advertised { mac: Some(mac), solicited: true, overrides: true }
    }

    fn known() -> Neighbours {
        let mut table = Neighbours::new(4, FlowHash::new([1; 16]));
        table.asked(ip(2), at(0));
        assert_eq!(table.advertised(ip(2), answer(MAC), at(0)), Heard::New);
        table
    }

    #[test]
    fn neighbour_that_nobody_asked_is_not_believed() {
        let mut table = Neighbours::new(4, FlowHash::new([1; 16]));
        assert_eq!(table.advertised(ip(2), answer(MAC), at(0)), Heard::Nothing);
        assert_eq!(table.spoke(ip(2), MAC), Heard::Nothing);
        assert_eq!((table.last_known(ip(2)), table.entries.len()), (None, 0));
        table.asked(ip(2), at(0));
        assert!(!table.may_ask(ip(2), Instant::from_millis(999)) && table.may_ask(ip(2), at(1)));
        // Without an address it says nothing.
        let empty = Advertised { mac: None, ..answer(MAC) };
        assert_eq!(table.advertised(ip(2), empty, at(0)), Heard::Nothing);
        assert_eq!(table.lookup(ip(2), at(0)), None);
    }

    #[test]
    fn neighbour_in_use_is_asked_at_its_address_unless_connections_confirm_it() {
        let mut table = known();
        assert_eq!(table.lookup(ip(2), at(29)), Some(MAC));
        assert_eq!(table.next_deadline(), Instant::NEVER);
        assert_eq!(table.lookup(ip(2), at(30)), Some(MAC));
        assert_eq!((table.next_deadline(), table.poll(at(34))), (at(35), None));
        table.confirm(ip(2), MAC, at(34));
        assert_eq!(table.poll(at(35)), None);
        // At another address than we know it is not the neighbour that gets on.
        table.lookup(ip(2), at(64));
        table.confirm(ip(2), OTHER, at(65));
        assert_eq!(table.poll(at(69)), Some((ip(2), MAC)));
    }

    #[test]
    fn neighbour_that_does_not_answer_three_questions_is_forgotten() {
        let mut table = known();
        table.suspect(ip(2), at(10));
        for second in 10..13 {
            assert_eq!(table.poll(at(second)), Some((ip(2), MAC)));
            assert_eq!((table.poll(at(second)), table.next_deadline()), (None, at(second + 1)));
            // Being suspected again does not begin anew.
            table.suspect(ip(2), at(second));
            assert_eq!(table.poll(at(second)), None);
        }
        assert_eq!(table.lookup(ip(2), at(12)), Some(MAC));
        assert_eq!((table.poll(at(13)), table.lookup(ip(2), at(13))), (None, None));
    }

    #[test]
    fn neighbour_that_answers_a_question_is_asked_no_more() {
        let mut table = known();
        table.suspect(ip(2), at(10));
        table.poll(at(10));
        table.advertised(ip(2), answer(MAC), at(10));
        assert_eq!((table.poll(at(20)), table.next_deadline()), (None, Instant::NEVER));
    }

    #[test]
    fn advertisement_without_override_does_not_move_a_neighbour() {
        let mut table = known();
        let meek = Advertised { overrides: false, ..answer(OTHER) };
        assert_eq!(table.advertised(ip(2), meek, at(1)), Heard::Nothing);
        // But it is asked sooner.
        assert_eq!(table.lookup(ip(2), at(1)), Some(MAC));
        assert_eq!(table.poll(at(6)), Some((ip(2), MAC)));
        assert_eq!(table.advertised(ip(2), answer(OTHER), at(7)), Heard::Moved(MAC));
        assert_eq!(table.lookup(ip(2), at(7)), Some(OTHER));
    }

    #[test]
    fn neighbour_that_asks_from_elsewhere_is_stale() {
        let mut table = known();
        assert_eq!(table.spoke(ip(2), MAC), Heard::Nothing);
        assert_eq!(table.spoke(ip(2), OTHER), Heard::Moved(MAC));
        assert_eq!(table.lookup(ip(2), at(1)), Some(OTHER));
        assert_eq!(table.poll(at(6)), Some((ip(2), OTHER)));
    }

    #[test]
    fn router_is_remembered_unasked_and_looked_after_when_it_is_used() {
        let mut table = Neighbours::new(1, FlowHash::new([1; 16]));
        assert_eq!(table.router_spoke(ip(2), MAC, at(0)), Heard::New);
        assert_eq!(table.router_spoke(ip(3), OTHER, at(0)), Heard::Nothing);
        assert_eq!((table.lookup(ip(2), at(1)), table.poll(at(6))), (Some(MAC), Some((ip(2), MAC))));
    }

    #[test]
    fn full_table_gives_up_the_one_unused_longest_and_never_one_just_asked() {
        let mut table = known();
        for last in 3..6 {
            table.asked(ip(last), at(5));
        }
        table.asked(ip(6), at(5));
        assert_eq!((table.entries.len(), table.last_known(ip(2))), (4, None));
        assert!(!table.may_ask(ip(7), at(5)) && table.may_ask(ip(7), at(6)));
    }

    #[test]
    fn neighbour_that_never_answered_is_neither_suspected_nor_confirmed() {
        let mut table = Neighbours::new(4, FlowHash::new([1; 16]));
        table.asked(ip(2), at(0));
        table.suspect(ip(2), at(0));
        table.confirm(ip(2), MacAddress([0; 6]), at(0));
        assert_eq!((table.poll(at(0)), table.lookup(ip(2), at(0))), (None, None));
        // Each question keeps the next one off.
        table.asked(ip(2), at(1));
        assert!(!table.may_ask(ip(2), at(1)) && table.may_ask(ip(2), at(2)));
    }

    #[test]
    fn neighbours_that_are_due_are_each_asked_in_time() {
        let mut table = known();
        table.asked(ip(3), at(0));
        table.advertised(ip(3), answer(OTHER), at(0));
        for last in [2, 3] {
            table.suspect(ip(last), at(1));
        }
        let mut asked = [table.poll(at(1)), table.poll(at(1))].map(|asked| asked.map(|(ip, _)| ip));
        asked.sort_unstable();
        assert_eq!((asked, table.poll(at(1))), ([Some(ip(2)), Some(ip(3))], None));
        // One that is waited for is not forgotten over another one that is due earlier.
        let mut table = known();
        table.asked(ip(3), at(0));
        table.advertised(ip(3), answer(OTHER), at(0));
        table.lookup(ip(2), at(30));
        table.lookup(ip(3), at(32));
        assert_eq!(table.poll(at(35)), Some((ip(2), MAC)));
        table.advertised(ip(2), answer(MAC), at(35));
        assert_eq!((table.poll(at(36)), table.poll(at(37))), (None, Some((ip(3), OTHER))));
    }

    #[test]
    fn what_is_said_unasked_is_used_and_looked_after_at_once() {
        // The first that is heard of it, and that it is elsewhere now.
        let unasked = |mac| Advertised { solicited: false, ..answer(mac) };
        let mut table = Neighbours::new(4, FlowHash::new([1; 16]));
        table.asked(ip(2), at(0));
        assert_eq!(table.advertised(ip(2), unasked(MAC), at(0)), Heard::New);
        assert_eq!((table.lookup(ip(2), at(0)), table.poll(at(5))), (Some(MAC), Some((ip(2), MAC))));
        let mut table = known();
        assert_eq!(table.advertised(ip(2), unasked(OTHER), at(1)), Heard::Moved(MAC));
        assert_eq!((table.lookup(ip(2), at(1)), table.poll(at(6))), (Some(OTHER), Some((ip(2), OTHER))));
        // Where it is already is no news, and who claims its place without override does not end a question.
        let mut table = known();
        assert_eq!(table.advertised(ip(2), answer(MAC), at(1)), Heard::Nothing);
        table.suspect(ip(2), at(1));
        table.poll(at(1));
        table.advertised(ip(2), Advertised { overrides: false, ..answer(OTHER) }, at(1));
        assert_eq!(table.poll(at(2)), Some((ip(2), MAC)));
    }

    #[test]
    fn neighbours_in_use_outlast_those_that_are_not() {
        let mut table = known();
        for last in 3..6 {
            table.asked(ip(last), at(1));
            table.advertised(ip(last), answer(OTHER), at(1));
        }
        // Sent to, and getting on.
        table.lookup(ip(2), at(2));
        table.confirm(ip(3), OTHER, at(2));
        for last in [6, 7] {
            table.asked(ip(last), at(3));
        }
        let kept: Vec<_> = (2..6).filter(|&last| table.last_known(ip(last)).is_some()).collect();
        assert_eq!(kept, [2, 3]);
    }
}

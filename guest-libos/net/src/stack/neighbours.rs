//! The hosts on the link that we send to of our own accord, and their Ethernet addresses (RFC 826, RFC 1122 2.3.2). Only
//! whom we want is asked, at most once a second each, and only who was asked or is in use is believed. Peers that speak
//! first are not in here: the frame that is answered says where it came from.

use core::net::Ipv4Addr;

use hashbrown::HashMap;

use crate::tcp::isn::FlowHash;
use crate::time::{Duration, Instant};
use crate::wire::ethernet::MacAddress;

/// RFC 1122 2.3.2.1: a host is asked at most once a second.
pub(super) const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// For so long an address is used after it was heard, or a connection was opened with it.
const REACHABLE: Duration = Duration::from_secs(60);
/// An address that was just heard is not replaced by the next claim.
const LOCK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Neighbour {
    mac: Option<MacAddress>,
    /// When it was last heard, or asked for the first time.
    heard_at: Instant,
    /// When it may be asked again, if it has not answered since it was asked.
    asked_until: Option<Instant>,
    /// Somebody told us, so it neither ages nor has to answer.
    is_given: bool,
}

impl Neighbour {
    fn is_fresh(&self, now: Instant) -> bool {
        self.mac.is_some() && (self.is_given || now.since(self.heard_at) < REACHABLE)
    }
}

/// What came of somebody's word about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing: nobody had asked, or nothing is new.
    Nothing,
    /// The address is known now.
    New,
    /// The host was at this address before.
    Moved(MacAddress),
}

#[derive(Debug)]
pub(super) struct Neighbours {
    entries: HashMap<Ipv4Addr, Neighbour, FlowHash>,
    max: usize,
}

impl Neighbours {
    /// A table of at most `max` hosts.
    pub(super) fn new(max: usize, hash: FlowHash) -> Self {
        Self { entries: HashMap::with_hasher(hash), max }
    }

    #[cfg(feature = "check")]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The address that was heard last, however long ago.
    pub(super) fn last_known(&self, ip: Ipv4Addr) -> Option<MacAddress> {
        self.entries.get(&ip)?.mac
    }

    /// The address to send to, if it is known well enough.
    pub(super) fn lookup(&self, ip: Ipv4Addr, now: Instant) -> Option<MacAddress> {
        self.entries.get(&ip).filter(|neighbour| neighbour.is_fresh(now))?.mac
    }

    /// Whether `ip` may be asked now.
    pub(super) fn may_ask(&self, ip: Ipv4Addr, now: Instant) -> bool {
        match self.entries.get(&ip) {
            Some(neighbour) => {
                !neighbour.is_given && neighbour.asked_until.is_none_or(|asked_until| asked_until <= now)
            }
            None => self.entries.len() < self.max || self.oldest(now).is_some(),
        }
    }

    /// `ip` was asked.
    pub(super) fn asked(&mut self, ip: Ipv4Addr, now: Instant) {
        let asked_until = Some(now + ASK_INTERVAL);
        if let Some(neighbour) = self.entries.get_mut(&ip) {
            neighbour.asked_until = asked_until;
            return;
        }
        self.make_room(now);
        self.entries.insert(ip, Neighbour { mac: None, heard_at: now, asked_until, is_given: false });
    }

    /// `ip` says that it is at `mac`. `is_wanted`: it is believed though it was not asked.
    pub(super) fn heard(&mut self, ip: Ipv4Addr, mac: MacAddress, is_wanted: bool, now: Instant) -> Heard {
        let Some(neighbour) = self.entries.get_mut(&ip) else {
            if !is_wanted {
                return Heard::Nothing;
            }
            self.make_room(now);
            self.entries
                .insert(ip, Neighbour { mac: Some(mac), heard_at: now, asked_until: None, is_given: false });
            return Heard::New;
        };
        let is_asked = neighbour.asked_until.is_some();
        if !is_wanted && !is_asked && !neighbour.is_fresh(now) {
            return Heard::Nothing;
        }
        let before = neighbour.mac;
        if before.is_some_and(|before| before != mac)
            && (neighbour.is_given || (!is_asked && now.since(neighbour.heard_at) < LOCK))
        {
            return Heard::Nothing;
        }
        (neighbour.mac, neighbour.heard_at, neighbour.asked_until) = (Some(mac), now, None);
        match before {
            Some(before) if before != mac => Heard::Moved(before),
            // Those that wait for it can be many, and would wait on if it had only aged.
            _ if is_asked || before.is_none() => Heard::New,
            _ => Heard::Nothing,
        }
    }

    /// Somebody who must know says that `ip` is at `mac`.
    pub(super) fn set(&mut self, ip: Ipv4Addr, mac: MacAddress) -> Heard {
        let given = Neighbour { mac: Some(mac), heard_at: Instant::ZERO, asked_until: None, is_given: true };
        if let Some(neighbour) = self.entries.get_mut(&ip) {
            let before = core::mem::replace(neighbour, given);
            return match before.mac {
                Some(before) if before != mac => Heard::Moved(before),
                Some(_) if before.is_given => Heard::Nothing,
                _ => Heard::New,
            };
        }
        self.make_room(Instant::NEVER);
        self.entries.insert(ip, given);
        Heard::New
    }

    /// A connection was opened with `ip` at `mac`: it is there.
    pub(super) fn confirm(&mut self, ip: Ipv4Addr, mac: MacAddress, now: Instant) {
        if let Some(neighbour) = self.entries.get_mut(&ip)
            && neighbour.mac == Some(mac)
        {
            // Those that wait for its answer go on waiting for that.
            neighbour.heard_at = now;
        }
    }

    /// The entry that gives way to a new one: not one that was just asked; a given one if there are no others.
    fn oldest(&self, now: Instant) -> Option<Ipv4Addr> {
        let idle = self
            .entries
            .iter()
            .filter(|(_, neighbour)| neighbour.asked_until.is_none_or(|asked_until| asked_until <= now));
        idle.min_by_key(|(ip, neighbour)| (neighbour.is_given, neighbour.heard_at, **ip)).map(|(&ip, _)| ip)
    }

    fn make_room(&mut self, now: Instant) {
        if self.entries.len() >= self.max
            && let Some(oldest) = self.oldest(now).or_else(|| self.entries.keys().next().copied())
        {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    const fn mac(last: u8) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, last])
    }

    const fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1_000)
    }

    fn table(max: usize) -> Neighbours {
        Neighbours::new(max, FlowHash::new([1; 16]))
    }

    #[test]
    fn neighbour_is_asked_once_a_second_until_it_answers() {
        let mut table = table(4);
        assert!(table.may_ask(ip(2), at(1)));
        table.asked(ip(2), at(1));
        assert!(!table.may_ask(ip(2), Instant::from_millis(1_999)));
        assert!(table.may_ask(ip(2), at(2)));
        assert_eq!(table.heard(ip(2), mac(2), false, at(2)), Heard::New);
        assert_eq!(table.lookup(ip(2), at(3)), Some(mac(2)));
    }

    #[test]
    fn neighbour_that_nobody_asked_is_not_believed() {
        let mut table = table(4);
        assert_eq!(table.heard(ip(2), mac(2), false, at(1)), Heard::Nothing);
        assert_eq!(table.last_known(ip(2)), None);
        assert_eq!(table.heard(ip(3), mac(3), true, at(1)), Heard::New);
    }

    #[test]
    fn neighbour_ages_unless_connections_confirm_it() {
        let mut table = table(4);
        table.asked(ip(2), at(1));
        table.heard(ip(2), mac(2), false, at(1));
        table.confirm(ip(2), mac(2), at(40));
        assert_eq!(table.lookup(ip(2), at(99)), Some(mac(2)));
        table.confirm(ip(2), mac(9), at(99));
        assert_eq!((table.lookup(ip(2), at(100)), table.last_known(ip(2))), (None, Some(mac(2))));
        // Too old to be followed unasked.
        assert_eq!(table.heard(ip(2), mac(9), false, at(101)), Heard::Nothing);
    }

    #[test]
    fn neighbour_in_use_may_move_but_not_at_once() {
        let mut table = table(4);
        table.asked(ip(2), at(1));
        table.heard(ip(2), mac(2), false, at(1));
        assert_eq!(table.heard(ip(2), mac(9), false, Instant::from_millis(1_500)), Heard::Nothing);
        assert_eq!(table.heard(ip(2), mac(9), false, at(2)), Heard::Moved(mac(2)));
        assert_eq!(table.lookup(ip(2), at(2)), Some(mac(9)));
    }

    #[test]
    fn given_neighbour_neither_ages_nor_follows_claims() {
        let mut table = table(4);
        assert_eq!(table.set(ip(2), mac(2)), Heard::New);
        assert_eq!(table.heard(ip(2), mac(9), true, at(1_000)), Heard::Nothing);
        assert_eq!(table.lookup(ip(2), at(10_000)), Some(mac(2)));
        assert!(!table.may_ask(ip(2), at(10_000)));
        assert_eq!(table.set(ip(2), mac(2)), Heard::Nothing);
        assert_eq!(table.set(ip(2), mac(3)), Heard::Moved(mac(2)));
    }

    #[test]
    fn full_table_gives_up_the_oldest_and_never_one_that_was_just_asked() {
        let mut table = table(2);
        table.asked(ip(2), at(1));
        table.heard(ip(2), mac(2), false, at(1));
        table.asked(ip(3), at(5));
        table.asked(ip(4), at(5));
        assert_eq!((table.entries.len(), table.last_known(ip(2))), (2, None));
        assert!(!table.may_ask(ip(5), at(5)));
        assert!(table.may_ask(ip(5), at(6)));
    }
}

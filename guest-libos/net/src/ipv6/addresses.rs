//! The interface's own addresses: how each comes to be used (RFC 4862 5.4), how long (5.5.4), and from which one a packet
//! leaves (RFC 6724 5).

use core::hash::Hasher;
use core::net::{IpAddr, Ipv6Addr};

use alloc::vec::Vec;
use siphasher::sip::SipHasher24;

use super::{InterfaceId, Ipv6Config, is_link_local};
use crate::time::{Duration, Instant};
use crate::wire::ethernet::MacAddress;
use crate::wire::ipv6::{link_local, solicited_node};
use crate::wire::ndisc::Nonce;

/// RFC 4861 10: between one question and the next.
const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// RFC 4862 5.4.2: the first question about a new address waits for up to a second, so that not all ask at once.
const MAX_DELAY: Duration = Duration::from_secs(1);
/// RFC 4862 5.5.3 (e): nobody shortens what is left to an address below this at once.
const TWO_HOURS: Duration = Duration::from_secs(7_200);
/// RFC 7217 6: how many addresses are tried where others have them already.
const MAX_COLLISIONS: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Others are being asked whether they have it.
    Tentative { probes_left: u8, due_at: Instant },
    /// In use.
    Assigned,
    /// Somebody else has it, so we do not.
    Duplicate,
}

#[derive(Clone, Copy, Debug)]
struct Address {
    ip: Ipv6Addr,
    state: State,
    /// Made by us from a prefix, after so many collisions; `None` was given.
    collisions: Option<u8>,
    /// Our question, so that we know it if it comes back (RFC 7527).
    nonce: Nonce,
    preferred_until: Instant,
    valid_until: Instant,
    /// Until then another claim of it is not told.
    quiet_until: Instant,
}

/// How long an address may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    pub(crate) preferred_until: Instant,
    pub(crate) valid_until: Instant,
}

impl Lifetimes {
    pub(crate) const FOREVER: Self = Self { preferred_until: Instant::NEVER, valid_until: Instant::NEVER };
}

/// What is to be asked about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) target: Ipv6Addr,
    pub(crate) nonce: Nonce,
}

#[derive(Debug)]
pub(crate) struct Addresses {
    list: Vec<Address>,
    max: usize,
    interface_id: InterfaceId,
    mac: MacAddress,
    probes: u8,
    /// Whether it is this stack that asks others about its addresses.
    speaks: bool,
    /// For delays and nonces.
    random: SipHasher24,
    drawn: u64,
    /// How often an address came, went or changed its state.
    pub(crate) changes: u32,
    /// The time of one is over, since the last [`Self::take_gone`].
    gone: bool,
}

impl Addresses {
    pub(crate) fn new(config: &Ipv6Config, mac: MacAddress, secret: [u8; 16]) -> Self {
        let &Ipv6Config { interface_id, probes, max_addresses, speaks, .. } = config;
        let mut random = SipHasher24::new_with_key(&secret);
        random.write(b"ipv6 addresses");
        Self {
            list: Vec::new(),
            max: max_addresses.into(),
            interface_id,
            mac,
            probes,
            speaks,
            random,
            drawn: 0,
            changes: 0,
            gone: false,
        }
    }

    fn draw(&mut self) -> u64 {
        let mut hasher = self.random;
        hasher.write_u64(self.drawn);
        self.drawn += 1;
        hasher.finish()
    }

    /// A time from `now` to [`MAX_DELAY`] later.
    pub(crate) fn random_delay(&mut self, now: Instant) -> Instant {
        now + Duration::from_micros(self.draw() % (MAX_DELAY.as_nanos() / 1_000))
    }

    /// The address in a /64 prefix that we make after so many collisions.
    fn made_of(&self, prefix: Ipv6Addr, collisions: u8) -> Ipv6Addr {
        let low = match self.interface_id {
            InterfaceId::FromMac => link_local(self.mac).to_bits() as u64,
            InterfaceId::Stable(secret) => {
                let mut hasher = SipHasher24::new_with_key(&secret);
                hasher.write(&prefix.octets()[..8]);
                hasher.write(&self.mac.0);
                hasher.write_u8(collisions);
                hasher.finish()
            }
        };
        Ipv6Addr::from_bits(prefix.to_bits() >> 64 << 64 | u128::from(low))
    }

    /// Begins to use an address that was given. Returns whether there was room.
    pub(crate) fn add(&mut self, ip: Ipv6Addr, now: Instant) -> bool {
        self.begin(ip, None, Lifetimes::FOREVER, now)
    }

    /// Begins to use an address of our own in a /64 prefix. Returns whether there was room.
    pub(crate) fn make(&mut self, prefix: Ipv6Addr, lifetimes: Lifetimes, now: Instant) -> bool {
        self.begin(self.made_of(prefix, 0), Some(0), lifetimes, now)
    }

    fn begin(&mut self, ip: Ipv6Addr, collisions: Option<u8>, lifetimes: Lifetimes, now: Instant) -> bool {
        if self.list.iter().any(|address| address.ip == ip) {
            return true;
        }
        if self.list.len() >= self.max {
            return false;
        }
        let state = match self.probes {
            0 => State::Assigned,
            // Whoever listens waits until the last moment at which the other one asks.
            probes_left if !self.speaks => State::Tentative { probes_left, due_at: now + MAX_DELAY },
            probes_left => State::Tentative { probes_left, due_at: self.random_delay(now) },
        };
        let [.., a, b, c, d, e, f] = self.draw().to_be_bytes();
        let Lifetimes { preferred_until, valid_until } = lifetimes;
        let nonce = [a, b, c, d, e, f];
        self.changes += 1;
        let quiet_until = Instant::ZERO;
        self.list.push(Address { ip, state, collisions, nonce, preferred_until, valid_until, quiet_until });
        true
    }

    /// RFC 4862 5.5.3 (d), (e): a router says how long addresses in this /64 prefix may be used. `false`: there is no room for
    /// another one. Those that were given, and the link-local one, have theirs from the start.
    pub(crate) fn prefix_advertised(&mut self, prefix: Ipv6Addr, lifetimes: Lifetimes, now: Instant) -> bool {
        let Lifetimes { preferred_until, valid_until } = lifetimes;
        let mut known = false;
        for address in &mut self.list {
            let of_prefix = (address.ip.to_bits() ^ prefix.to_bits()) >> 64 == 0;
            if !of_prefix || address.collisions.is_none() {
                continue;
            }
            known = true;
            address.preferred_until = preferred_until;
            let two_hours = now + TWO_HOURS;
            if valid_until > two_hours || valid_until > address.valid_until {
                address.valid_until = valid_until;
            } else if address.valid_until > two_hours {
                address.valid_until = two_hours;
            }
        }
        known || valid_until <= now || self.make(prefix, lifetimes, now)
    }

    /// Whether packets to `ip` are for us.
    #[inline]
    pub(crate) fn is_assigned(&self, ip: Ipv6Addr) -> bool {
        self.list.iter().any(|address| address.ip == ip && address.state == State::Assigned)
    }

    /// Those to which packets are for us.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.list.iter().filter(|address| address.state == State::Assigned).map(|address| address.ip)
    }

    /// Whether others are being asked about one of them.
    pub(crate) fn are_tentative(&self) -> bool {
        self.list.iter().any(|address| matches!(address.state, State::Tentative { .. }))
    }

    /// Whether we are asking others about `ip`.
    pub(crate) fn is_tentative(&self, ip: Ipv6Addr) -> bool {
        self.list.iter().any(|address| address.ip == ip && matches!(address.state, State::Tentative { .. }))
    }

    /// Whether a question about `ip` is one of ours that came back (RFC 7527 4.2).
    pub(crate) fn is_own_probe(&self, ip: Ipv6Addr, nonce: Option<Nonce>) -> bool {
        self.list.iter().any(|address| address.ip == ip && nonce == Some(address.nonce))
    }

    /// Whether we listen in `group` for questions about our addresses.
    pub(crate) fn is_listening(&self, group: Ipv6Addr) -> bool {
        let listens =
            |address: &Address| address.state != State::Duplicate && solicited_node(address.ip) == group;
        self.list.iter().any(listens)
    }

    /// Those of which others have heard: we use them, or have asked about them.
    pub(crate) fn known_to_others(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        let is_known = |address: &&Address| match address.state {
            State::Tentative { probes_left, .. } => probes_left < self.probes,
            State::Assigned => true,
            State::Duplicate => false,
        };
        self.list.iter().filter(is_known).map(|address| address.ip)
    }

    /// Whether `group` is that of an address of which others have heard.
    pub(crate) fn needs_group(&self, group: IpAddr) -> bool {
        self.known_to_others().any(|address| group == solicited_node(address))
    }

    /// The link-local address, if it is in use.
    pub(crate) fn link_local(&self) -> Option<Ipv6Addr> {
        let is_usable = |address: &&Address| address.state == State::Assigned && is_link_local(address.ip);
        self.list.iter().find(is_usable).map(|address| address.ip)
    }

    /// Somebody else has an address that we were about to use (RFC 4862 5.4.5): it stays unused. Of those that we made with a secret,
    /// another one takes its place (RFC 7217 5, step 3).
    pub(crate) fn collided(&mut self, ip: Ipv6Addr, now: Instant) {
        let Some(index) = self.list.iter().position(|address| address.ip == ip) else { return };
        let address = &mut self.list[index];
        address.state = State::Duplicate;
        self.changes += 1;
        let Address { collisions, preferred_until, valid_until, .. } = *address;
        if let (Some(collisions), InterfaceId::Stable(_)) = (collisions, self.interface_id)
            && collisions < MAX_COLLISIONS
        {
            let next = collisions + 1;
            self.list.remove(index);
            let lifetimes = Lifetimes { preferred_until, valid_until };
            self.begin(self.made_of(ip, next), Some(next), lifetimes, now);
        }
    }

    /// What is due: a question to be sent, or nothing. To be called until there is nothing.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Probe> {
        let before = self.list.len();
        self.list.retain(|address| address.valid_until > now);
        self.gone |= self.list.len() < before;
        self.changes += (before - self.list.len()) as u32;
        for address in &mut self.list {
            let State::Tentative { probes_left, due_at } = address.state else { continue };
            if due_at > now {
                continue;
            }
            let Some(probes_left) = probes_left.checked_sub(1) else {
                address.state = State::Assigned;
                self.changes += 1;
                continue;
            };
            address.state = State::Tentative { probes_left, due_at: now + RETRANS_TIMER };
            return Some(Probe { target: address.ip, nonce: address.nonce });
        }
        None
    }

    /// Whether the time of one is over, once.
    pub(crate) fn take_gone(&mut self) -> bool {
        core::mem::take(&mut self.gone)
    }

    /// Whether somebody's claim of an address that we use is news; for `interval` from then on it is none.
    pub(crate) fn is_claim_news(&mut self, ip: Ipv6Addr, now: Instant, interval: Duration) -> bool {
        let address = self.list.iter_mut().find(|address| address.ip == ip && now >= address.quiet_until);
        address.map(|address| address.quiet_until = now + interval).is_some()
    }

    /// When [`Self::poll`] has something to do.
    pub(crate) fn next_deadline(&self) -> Instant {
        let due = |address: &Address| match address.state {
            State::Tentative { due_at, .. } => due_at.min(address.valid_until),
            _ => address.valid_until,
        };
        self.list.iter().map(due).min().unwrap_or(Instant::NEVER)
    }

    /// RFC 6724 5, rules 1, 2, 3 and 8: the address from which packets to `destination` leave. None of ours is used beyond
    /// its scope.
    pub(crate) fn source_for(&self, destination: Ipv6Addr, now: Instant) -> Option<Ipv6Addr> {
        let wants_link_local = is_link_scope(destination);
        let usable = |address: &&Address| {
            address.state == State::Assigned && (wants_link_local || !is_link_local(address.ip))
        };
        let rank = |address: &&Address| {
            let matching = (address.ip.to_bits() ^ destination.to_bits()).leading_zeros();
            let same_scope = is_link_local(address.ip) == wants_link_local;
            (address.ip == destination, same_scope, address.preferred_until > now, matching)
        };
        self.list.iter().filter(usable).max_by_key(rank).map(|address| address.ip)
    }

    /// So many there are, in any state.
    #[cfg(feature = "check")]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Addresses in use, and those that somebody else has.
    pub(crate) fn iter(&self, now: Instant) -> impl Iterator<Item = Ipv6Address> + '_ {
        self.list.iter().map(move |address| Ipv6Address {
            ip: address.ip,
            state: match address.state {
                State::Tentative { .. } => AddressState::Tentative,
                State::Duplicate => AddressState::Duplicate,
                State::Assigned if address.preferred_until > now => AddressState::Preferred,
                State::Assigned => AddressState::Deprecated,
            },
        })
    }
}

/// Whether packets to `destination` stay on the link.
fn is_link_scope(destination: Ipv6Addr) -> bool {
    let octets = destination.octets();
    is_link_local(destination) || (octets[0] == 0xff && octets[1] & 0x0f <= 2)
}

/// An IPv6 address of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Address {
    /// The address.
    pub ip: Ipv6Addr,
    /// Whether it can be used.
    pub state: AddressState,
}

/// Whether an address can be used (RFC 4862 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressState {
    /// Not yet: others are being asked whether they have it.
    Tentative,
    /// Without reserve.
    Preferred,
    /// For what has begun with it; new connections of ours have another one, if there is one.
    Deprecated,
    /// No: somebody else on the link has it.
    Duplicate,
}

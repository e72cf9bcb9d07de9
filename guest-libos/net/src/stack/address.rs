//! Our address: there may be none yet; one is looked for on the link before or while it is used (RFC 5227 2.1), announced
//! (2.3), defended or given up (2.4), and removed. What takes time is done by `expire`.

use core::hash::Hasher;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use siphasher::sip::SipHasher24;

use super::Stack;
use super::arp::{arp_probe, arp_request};
use crate::config::{Config, ConfigError, OnConflict, Probing};
use crate::data::Data;
use crate::driver::Transmit;
use crate::events::{AddressConflict, ConflictOutcome, ConnId, End, Input, TimerEvent};
use crate::tcp::pairs::Pair;
use crate::time::{Duration, Instant};
use crate::wire::arp::{ArpPacket, Operation};
use crate::wire::ethernet::MacAddress;

/// The constants of RFC 5227 1.1 have its names.
const PROBE_WAIT: Duration = Duration::from_secs(1);
const PROBE_NUM: u8 = 3;
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(2);
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
const ANNOUNCE_NUM: u8 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
const MAX_CONFLICTS: u8 = 10;
const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(60);
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Conflicts that are kept until somebody asks: one for each of eight addresses that is made anew three times. The oldest
/// gives way.
const MAX_UNTOLD: usize = 32;
/// A driver that is full is tried again so soon.
const FULL_WAIT: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is due.
    Settled,
    /// So many times it was asked who has the address.
    Probing(u8),
    /// So many times everybody was told that we have it.
    Announcing(u8),
}

/// An address that is not in use yet.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    ip: Ipv4Addr,
    prefix_len: u8,
    gateway: Option<Ipv4Addr>,
}

/// What is going on about our address; the address in use is in `Config`.
#[derive(Debug)]
pub(super) struct AddressState {
    phase: Phase,
    /// When the next step of the phase is due.
    at: Instant,
    candidate: Option<Candidate>,
    /// The address is gone and its connections have not been ended yet.
    is_leaving: bool,
    /// Addresses in a row that somebody else had.
    conflicts: u8,
    /// When the last address was begun with.
    tried_at: Instant,
    /// Until then our address is not defended again.
    defend_at: Instant,
    /// Conflicts that nobody has asked for yet, the oldest first; of each address the last one.
    untold: VecDeque<AddressConflict>,
    /// Random numbers that were drawn.
    drawn: u32,
}

impl AddressState {
    fn new() -> Self {
        Self {
            phase: Phase::Settled,
            at: Instant::NEVER,
            candidate: None,
            is_leaving: false,
            conflicts: 0,
            tried_at: Instant::ZERO,
            defend_at: Instant::ZERO,
            untold: VecDeque::new(),
            drawn: 0,
        }
    }

    /// The address of `config` is begun with; one that is not used before it was probed is taken out of it.
    pub(super) fn begun(now: Instant, config: &mut Config) -> Self {
        let mut state = Self::new();
        if !config.has_address() {
            config.remove_address();
            return state;
        }
        state.begin(now, config);
        if config.probing == Probing::Before {
            let Config { ip, prefix_len, gateway, .. } = *config;
            state.candidate = Some(Candidate { ip, prefix_len, gateway });
            config.remove_address();
        }
        state
    }

    /// An address is tried from `now` on, or later if too many were others' already (RFC 5227 2.1.1).
    pub(super) fn begin(&mut self, now: Instant, config: &Config) {
        if config.probing == Probing::None {
            return;
        }
        let limited = self.conflicts >= MAX_CONFLICTS;
        let begin_at = if limited { now.max(self.tried_at + RATE_LIMIT_INTERVAL) } else { now };
        (self.phase, self.tried_at) = (Phase::Probing(0), begin_at);
        self.at = begin_at + self.random(Duration::ZERO, PROBE_WAIT, config);
    }

    fn settle(&mut self) {
        (self.phase, self.at, self.candidate) = (Phase::Settled, Instant::NEVER, None);
    }

    /// A random time between the two.
    fn random(&mut self, least: Duration, most: Duration, config: &Config) -> Duration {
        let mut hasher = SipHasher24::new_with_key(&config.secret);
        hasher.write(b"probe");
        hasher.write(&config.mac.0);
        hasher.write_u32(self.drawn);
        self.drawn = self.drawn.wrapping_add(1);
        Duration::from_nanos(least.as_nanos() + hasher.finish() % (most.as_nanos() - least.as_nanos() + 1))
    }

    /// Keeps a conflict until somebody asks.
    fn tell(&mut self, address: IpAddr, by: MacAddress, outcome: ConflictOutcome) {
        self.untold.retain(|conflict| conflict.address != address);
        if self.untold.len() >= MAX_UNTOLD {
            self.untold.pop_front();
        }
        self.untold.push_back(AddressConflict { address, by, outcome });
    }

    /// Whether `ip` is looked for on the link before it is used.
    pub(super) fn is_wanted(&self, ip: Ipv4Addr) -> bool {
        self.candidate.is_some_and(|candidate| candidate.ip == ip)
    }

    pub(super) fn next_deadline(&self) -> Instant {
        if self.is_leaving { Instant::ZERO } else { self.at }
    }
}

impl<D: Data> Stack<D> {
    /// Our address, while there is one in use.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.config.has_address().then_some(self.config.ip)
    }

    /// Whether an address is being looked for on the link before it is used ([`Probing::Before`]).
    pub fn is_probing(&self) -> bool {
        self.address.candidate.is_some()
    }

    /// From now on, or when nobody has answered for it (`Config::probing`), `ip` is our address: [`Self::address`] says when.
    /// For the address that we have, prefix and gateway are set and connections stay; another one is removed first, as by
    /// [`Self::remove_address`].
    pub fn set_address(
        &mut self,
        now: Instant,
        ip: Ipv4Addr,
        prefix_len: u8,
        gateway: Option<Ipv4Addr>,
    ) -> Result<(), ConfigError> {
        let wanted = Config { ip, prefix_len, gateway, ..self.config.clone() };
        wanted.check_address()?;
        if !wanted.has_address() {
            return Err(ConfigError::AddressNotUnicast);
        }
        let candidate = Candidate { ip, prefix_len, gateway };
        match &mut self.address.candidate {
            Some(same) if same.ip == ip => *same = candidate,
            _ if self.config.ip == ip => self.adopt(candidate),
            _ => {
                self.remove_address();
                self.address.candidate = Some(candidate);
                self.address.begin(now, &self.config);
                if !self.address.is_leaving && self.config.probing != Probing::Before {
                    self.adopt(candidate);
                }
            }
        }
        Ok(())
    }

    /// We have no address any more, and want none: nothing is answered from now on. Connections end with
    /// [`End::AddressLost`] in the next [`Self::expire`], which is due at once; their peers are not told.
    pub fn remove_address(&mut self) {
        self.address.settle();
        if self.config.has_address() {
            self.config.remove_address();
            self.address.is_leaving = true;
        }
    }

    fn adopt(&mut self, candidate: Candidate) {
        let Candidate { ip, prefix_len, gateway } = candidate;
        (self.config.ip, self.config.prefix_len, self.config.gateway) = (ip, prefix_len, gateway);
        self.address.candidate = None;
    }

    /// Who else has or claims an address of ours, once each time that something came of it: something for the log, and for who
    /// leased the address. To be called until there is nothing: each address has its own.
    pub fn take_address_conflict(&mut self) -> Option<AddressConflict> {
        self.address.untold.pop_front()
    }

    /// RFC 5227 2.1.1: while an address is not used yet, nobody may have it, or be about to.
    pub(super) fn arp_arrives_without_address(&mut self, packet: &ArpPacket) {
        let Some(candidate) = self.address.candidate else { return };
        let is_probe = packet.operation == Operation::Request && packet.sender_ip.is_unspecified();
        let has_it = packet.sender_ip == candidate.ip;
        let wants_it = is_probe && packet.target_ip == candidate.ip;
        if packet.sender_mac != self.config.mac && (has_it || wants_it) {
            self.give_up(candidate.ip, packet.sender_mac);
        }
    }

    /// Somebody else says that he has our address (RFC 5227 2.4).
    pub(super) fn address_claimed<'f>(&mut self, now: Instant, by: MacAddress) -> Input<'f> {
        if by == self.config.mac {
            return Input::Nothing;
        }
        let ip = self.config.ip;
        let defended = now < self.address.defend_at;
        // While it is asked for, whoever answers was there first and is not contradicted.
        let is_theirs = matches!(self.address.phase, Phase::Probing(_));
        if self.config.on_conflict == OnConflict::GiveUp && (defended || is_theirs) {
            self.give_up(ip, by);
            return Input::Nothing;
        }
        self.counters.arp_conflicts += 1;
        if defended {
            return Input::Nothing;
        }
        self.address.tell(ip.into(), by, ConflictOutcome::Kept);
        self.address.defend_at = now + DEFEND_INTERVAL;
        if is_theirs {
            self.address.settle();
            return Input::Nothing;
        }
        self.counters.arp_announcements += 1;
        Input::Reply(arp_request(&self.config, ip))
    }

    fn give_up(&mut self, address: Ipv4Addr, by: MacAddress) {
        self.counters.arp_conflicts += 1;
        self.address.conflicts = self.address.conflicts.saturating_add(1);
        self.address.tell(address.into(), by, ConflictOutcome::GivenUp);
        self.remove_address();
    }

    /// Somebody else has an IPv6 address: one that we were about to use and do not, or one that we use.
    pub(super) fn ipv6_address_claimed(
        &mut self,
        now: Instant,
        address: Ipv6Addr,
        by: MacAddress,
        outcome: ConflictOutcome,
    ) {
        self.counters.duplicate_addresses += 1;
        let interface = self.resolver.ipv6.as_deref_mut();
        let is_news = outcome == ConflictOutcome::GivenUp
            || interface
                .is_some_and(|interface| interface.addresses.is_claim_news(address, now, DEFEND_INTERVAL));
        if is_news {
            self.address.tell(address.into(), by, outcome);
        }
    }

    /// Ends the connections of an address that is gone, and asks or tells about the one that comes or is here.
    pub(super) fn expire_address<T: Transmit<D>>(
        &mut self,
        now: Instant,
        tx: &mut T,
        event: &mut impl FnMut(ConnId, TimerEvent),
    ) {
        if self.address.is_leaving {
            self.end_with_address(event);
            self.address.is_leaving = false;
            if let Some(candidate) = self.address.candidate.filter(|_| self.config.probing != Probing::Before)
            {
                self.adopt(candidate);
            }
        }
        if now < self.address.at {
            return;
        }
        if self.address.phase == Phase::Probing(PROBE_NUM) {
            if let Some(candidate) = self.address.candidate {
                self.adopt(candidate);
            }
            self.address.conflicts = 0;
            self.address.phase = Phase::Announcing(0);
        }
        let wanted = self.address.candidate.map_or(self.config.ip, |candidate| candidate.ip);
        let frame = match self.address.phase {
            Phase::Settled => return,
            Phase::Probing(_) => arp_probe(&self.config, wanted),
            Phase::Announcing(_) => arp_request(&self.config, wanted),
        };
        if tx.transmit_control(&frame).is_err() {
            self.counters.driver_full += 1;
            self.address.at = now + FULL_WAIT;
            return;
        }
        let (phase, wait) = match self.address.phase {
            Phase::Probing(sent) => {
                self.counters.arp_probes += 1;
                let last = sent + 1 == PROBE_NUM;
                let between = self.address.random(PROBE_MIN, PROBE_MAX, &self.config);
                (Phase::Probing(sent + 1), if last { ANNOUNCE_WAIT } else { between })
            }
            Phase::Announcing(sent) if sent + 1 < ANNOUNCE_NUM => {
                self.counters.arp_announcements += 1;
                (Phase::Announcing(sent + 1), ANNOUNCE_INTERVAL)
            }
            _ => {
                self.counters.arp_announcements += 1;
                self.address.settle();
                return;
            }
        };
        (self.address.phase, self.address.at) = (phase, now + wait);
    }

    /// Nothing is left of the address that is gone; what has IPv6 goes on.
    fn end_with_address(&mut self, event: &mut impl FnMut(ConnId, TimerEvent)) {
        self.end_those(|pair| pair.is_none(), event);
        self.time_wait.forget_ipv4();
        self.resolver.forget_ipv4(&self.config);
        self.outbox.forget_ipv4();
    }

    /// Ends the connections of IPv6 addresses whose time is over (RFC 4862 5.5.4), and what would leave from them. A record in
    /// TIME-WAIT is of both addresses, so it is right should ours come back.
    pub(super) fn end_with_ipv6_addresses(&mut self, event: &mut impl FnMut(ConnId, TimerEvent)) {
        let Some(interface) = self.resolver.ipv6.as_deref_mut() else { return };
        if !interface.addresses.take_gone() {
            return;
        }
        let addresses = &interface.addresses;
        self.outbox.retain_ipv6(|source| addresses.is_assigned(source));
        let used: Vec<_> = addresses.in_use().collect();
        self.end_those(|pair| pair.is_some_and(|pair| !used.contains(&pair.local)), event);
    }

    /// Ends the connections with such a pair of IPv6 addresses, or none.
    fn end_those(&mut self, ends: impl Fn(Option<Pair>) -> bool, event: &mut impl FnMut(ConnId, TimerEvent)) {
        for index in 0..self.table.places() {
            let Some((conn, connection)) = self.table.at(index) else { continue };
            let (key, is_known) = (connection.key, connection.is_open() || connection.is_active);
            if !ends(self.table.pairs.get(key)) {
                continue;
            }
            self.finish(conn, End::AddressLost);
            if is_known {
                event(conn, TimerEvent::Ended(End::AddressLost));
            }
        }
    }
}

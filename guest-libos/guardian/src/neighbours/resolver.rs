//! What is known of neighbours, and what is being asked: the state that RFC 4861 5.1 and 7.2.5 describe, kept for ARP as well.
//!
//! The guardian does not see what its clients send, so it cannot know that a neighbour is in use. Therefore nothing is looked for by
//! itself: whoever is in doubt asks again, and a neighbour that is stale is then looked for where it was (7.3.3, PROBE). Who did not answer
//! three times is forgotten.
//!
//! Questions are not neighbours yet, and lie in a place of their own, of which each environment has its share: who asks for
//! thousands that do not exist takes no place from a neighbour, and none from another's question.

use super::{NEIGHBOURS_MAX, Neighbour, Reachability};
use crate::request::Refusal;
use alloc::vec::Vec;
use core::net::IpAddr;
use exos_net::{Duration, Instant, MacAddress};

/// Open questions at a time, of all environments.
pub const OPEN_MAX: usize = 64;
/// How often somebody is asked for (RFC 4861 10, MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT).
const ASK_TIMES: u8 = 3;
/// How long an answer may take (RETRANS_TIMER).
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How long who has answered counts as there (REACHABLE_TIME).
const REACHABLE: Duration = Duration::from_secs(30);
/// How long it is remembered that nobody answered: until all who asked have heard, and not longer.
const UNANSWERED: Duration = Duration::from_secs(3);
/// When a question is tried again that cannot be sent yet.
const NOT_YET: Duration = Duration::from_millis(100);

/// How many questions each of so many environments may have open; a machine has no more of them than there are questions.
pub const fn share_of_open(environments: usize) -> usize {
    match environments {
        0 | 1 => OPEN_MAX,
        _ => OPEN_MAX / environments,
    }
}

/// What somebody says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advertised {
    pub(super) mac: Option<MacAddress>,
    pub(super) router: bool,
    pub(super) solicited: bool,
    pub(super) overrides: bool,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    neighbour: Neighbour,
    /// When it was last known to be there.
    confirmed: Instant,
    /// How many were learned before.
    order: u64,
    /// Somebody asked for it since it was last confirmed.
    wanted: bool,
}

/// A question. If its answer is known already, that is being looked for where it was.
#[derive(Clone, Copy, Debug)]
struct Open {
    ip: IpAddr,
    /// Environments that want to know, a bit each.
    askers: u64,
    asked: u8,
    due: Instant,
    /// Nobody answered.
    failed: bool,
}

#[derive(Debug)]
pub(super) struct Resolver {
    known: Vec<Known>,
    open: Vec<Open>,
    /// Open questions of one environment at most.
    share: usize,
    gateway: Option<IpAddr>,
    learned: u64,
    told: u64,
}

impl Resolver {
    pub(super) fn new(gateway: Option<IpAddr>, share: usize) -> Self {
        let (known, open) = (Vec::with_capacity(2 * NEIGHBOURS_MAX), Vec::with_capacity(OPEN_MAX));
        Self { known, open, share, gateway, learned: 0, told: 0 }
    }

    fn find(&mut self, ip: IpAddr) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.neighbour.ip == ip)
    }

    /// Somebody wants to know where a neighbour is.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        asker: u32,
        ip: IpAddr,
    ) -> Result<Option<MacAddress>, Refusal> {
        let known = self.find(ip).map(|known| {
            known.wanted = true;
            known.neighbour
        });
        match known {
            Some(Neighbour { mac, reachability: Reachability::Reachable, .. }) => Ok(Some(mac)),
            Some(Neighbour { mac, .. }) => {
                // Who has no question left still gets what is known.
                let _ = self.question(now, asker, ip);
                Ok(Some(mac))
            }
            None => self.question(now, asker, ip).map(|()| None),
        }
    }

    fn question(&mut self, now: Instant, asker: u32, ip: IpAddr) -> Result<(), Refusal> {
        let bit = 1u64.checked_shl(asker).unwrap_or(0);
        let open = self.open.iter().filter(|open| open.askers & bit != 0).count();
        if let Some(at) = self.open.iter().position(|open| open.ip == ip) {
            let question = &mut self.open[at];
            if question.failed {
                question.askers &= !bit;
                if question.askers == 0 {
                    self.open.swap_remove(at);
                }
                return Err(Refusal::Unreachable);
            }
            if question.askers & bit == 0 {
                if open >= self.share {
                    return Err(Refusal::Quota);
                }
                question.askers |= bit;
            }
            return Ok(());
        }
        if open >= self.share {
            return Err(Refusal::Quota);
        }
        // Each question is at least one environment's, so the shares leave room; this is for numbers that no environment has.
        if self.open.len() == OPEN_MAX || bit == 0 {
            return Err(Refusal::NoSpace);
        }
        self.open.push(Open { ip, askers: bit, asked: 0, due: now, failed: false });
        Ok(())
    }

    /// Whether the answer to a question about this address is awaited.
    pub(super) fn is_asked(&self, ip: IpAddr) -> bool {
        self.open.iter().any(|open| open.ip == ip && !open.failed)
    }

    /// Whether nobody answered for this address a moment ago.
    pub(super) fn is_unanswered(&self, ip: IpAddr) -> bool {
        self.open.iter().any(|open| open.ip == ip && open.failed)
    }

    /// Somebody says where it is (RFC 4861 7.2.5). Whether something is new.
    pub(super) fn advertised(&mut self, now: Instant, ip: IpAddr, said: Advertised) -> bool {
        let Some(known) = self.find(ip) else {
            // Nobody asked, or it does not say where: discarded in silence.
            let Some(mac) = said.mac.filter(|_| self.is_asked(ip)) else { return false };
            let reachability = if said.solicited { Reachability::Reachable } else { Reachability::Stale };
            return self.learn(now, Neighbour { ip, mac, router: said.router, reachability });
        };
        let before = known.neighbour;
        let neighbour = &mut known.neighbour;
        let elsewhere = said.mac.filter(|mac| *mac != neighbour.mac);
        if elsewhere.is_some() && !said.overrides {
            // I: another place, which is not to be believed; only that ours is right is in doubt now.
            neighbour.reachability = Reachability::Stale;
            return *neighbour != before;
        }
        // II.
        neighbour.mac = elsewhere.unwrap_or(neighbour.mac);
        neighbour.router = said.router;
        if said.solicited {
            neighbour.reachability = Reachability::Reachable;
            known.confirmed = now;
        } else if elsewhere.is_some() {
            neighbour.reachability = Reachability::Stale;
        }
        let changed = known.neighbour != before;
        if said.solicited {
            self.answered(ip);
        }
        changed
    }

    /// Somebody says who it is while it says something else (RFC 4861 7.2.3, RFC 826). Whether something is new; who is not known becomes
    /// so if `create`.
    pub(super) fn introduced(&mut self, now: Instant, ip: IpAddr, mac: MacAddress, create: bool) -> bool {
        if let Some(known) = self.find(ip) {
            let moved = known.neighbour.mac != mac;
            if moved {
                known.neighbour.mac = mac;
                known.neighbour.reachability = Reachability::Stale;
            }
            return moved;
        }
        let new = Neighbour { ip, mac, router: false, reachability: Reachability::Stale };
        (create || self.is_asked(ip)) && self.learn(now, new)
    }

    /// One that is not known. Whether there is a place for it.
    fn learn(&mut self, now: Instant, neighbour: Neighbour) -> bool {
        let ip = neighbour.ip;
        let wanted = self.answered(ip) || self.gateway == Some(ip);
        let known = Known { neighbour, confirmed: now, order: self.learned, wanted };
        let family = |other: &Known| other.neighbour.ip.is_ipv4() == ip.is_ipv4();
        if self.known.iter().filter(|other| family(other)).count() < NEIGHBOURS_MAX {
            self.known.push(known);
        } else {
            let gateway = self.gateway;
            let others = self.known.iter_mut().filter(|other| family(other));
            let oldest = others
                .filter(|other| Some(other.neighbour.ip) != gateway)
                .min_by_key(|other| (other.wanted, other.order));
            match oldest {
                // Who only passes by takes nothing away that somebody asked for.
                Some(oldest) if wanted || !oldest.wanted => *oldest = known,
                _ => return false,
            }
        }
        self.learned += 1;
        true
    }

    /// A question has its answer; whether there was one.
    fn answered(&mut self, ip: IpAddr) -> bool {
        let Some(at) = self.open.iter().position(|open| open.ip == ip) else { return false };
        self.told |= self.open.swap_remove(at).askers;
        true
    }

    /// Sends what is due, to all or to where the neighbour was; `send` says whether it could. Whether something has changed.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        mut send: impl FnMut(IpAddr, Option<MacAddress>) -> bool,
    ) -> bool {
        let mut changed = false;
        for known in &mut self.known {
            let there = known.neighbour.reachability == Reachability::Reachable;
            if there && now >= known.confirmed + REACHABLE {
                known.neighbour.reachability = Reachability::Stale;
                known.wanted = false;
                changed = true;
            }
        }
        let mut at = 0;
        while let Some(open) = self.open.get_mut(at) {
            at += 1;
            if now < open.due {
                continue;
            }
            let known = self.known.iter().position(|known| known.neighbour.ip == open.ip);
            if open.failed {
                at -= 1;
                self.open.swap_remove(at);
            } else if open.asked < ASK_TIMES {
                let sent = send(open.ip, known.map(|known| self.known[known].neighbour.mac));
                open.asked += u8::from(sent);
                open.due = now + if sent { ASK_INTERVAL } else { NOT_YET };
            } else if let Some(known) = known {
                // It was known, and is not there any more. Who asks now begins anew.
                self.known.swap_remove(known);
                at -= 1;
                self.told |= self.open.swap_remove(at).askers;
                changed = true;
            } else {
                (open.failed, open.due) = (true, now + UNANSWERED);
                self.told |= open.askers;
            }
        }
        changed
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        let open = self.open.iter().map(|open| open.due);
        let there = |known: &&Known| known.neighbour.reachability == Reachability::Reachable;
        open.chain(self.known.iter().filter(there).map(|known| known.confirmed + REACHABLE)).min()
    }

    pub(super) fn ended(&mut self, asker: u32) {
        for open in &mut self.open {
            open.askers &= !1u64.checked_shl(asker).unwrap_or(0);
        }
        self.open.retain(|open| open.askers != 0);
    }

    pub(super) fn askers(&self) -> u64 {
        self.open.iter().fold(0, |askers, open| askers | open.askers)
    }

    pub(super) fn take_told(&mut self) -> u64 {
        core::mem::take(&mut self.told)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Neighbour> {
        self.known.iter().map(|known| known.neighbour)
    }
}

//! The groups of one family that we are in, and when what is said of them (RFC 9776 5 and 7.2, RFC 9777 6 and 8.2): changes
//! at once and again, answers after a random time. Members want whatever source there is, so there are no lists of sources.
//! Nothing here reads or writes a message.

#[cfg(test)]
mod tests;

use core::fmt;
use core::hash::Hasher;
use core::net::IpAddr;

use alloc::vec::Vec;
use siphasher::sip::SipHasher24;

use crate::time::{Duration, Instant};
use crate::wire::membership::{Query, Record, Version};

/// RFC 9776 8.1, RFC 9777 9.1: how often a change is said unless whoever asks says otherwise.
const ROBUSTNESS: u8 = 2;
/// RFC 9776 8.11, RFC 9777 9.11: at most so long after it was said a change is said again.
const UNSOLICITED_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The same of the older versions (RFC 2236 8.10, RFC 2710 7.10).
const OLD_REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// RFC 9776 8.2: between one question to all and the next, unless it says otherwise.
const QUERY_INTERVAL_S: u32 = 125;
/// Whoever asks all the time is answered so often at most.
const ANSWER_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
struct Group {
    address: IpAddr,
    /// How often it was joined and not left.
    users: u32,
    /// An address of ours needs it.
    is_own: bool,
    /// How often the last change is still to be said.
    changes_left: u8,
    /// When somebody who asked for it is answered.
    answer_at: Instant,
}

impl Group {
    const fn is_member(&self) -> bool {
        self.users > 0 || self.is_own
    }

    /// Groups that everybody is in are not spoken of (RFC 9776 6), nor those that do not leave the host (RFC 9777 6).
    fn is_silent(&self) -> bool {
        match self.address {
            IpAddr::V4(group) => group == crate::wire::igmp::ALL_SYSTEMS,
            IpAddr::V6(group) => group == crate::wire::ipv6::ALL_NODES || group.octets()[1] & 0x0f <= 1,
        }
    }
}

/// Why a group was not joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// The address is no group's.
    NotAGroup,
    /// It is IPv6's, which is not spoken here.
    NoIpv6,
    /// `Config::max_groups` are joined.
    TooMany,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAGroup => {
                "the address is no group's; choose one from 224.0.0.1 to 239.255.255.255, or of ff01::/16 and up"
            }
            Self::NoIpv6 => "the interface has no IPv6; set ipv6 in its configuration",
            Self::TooMany => "too many groups are joined; leave one, or raise max_groups",
        })
    }
}

impl core::error::Error for JoinError {}

/// No room for another group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// What is to be said: of which group what, in the words of which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) group: IpAddr,
    pub(crate) record: Record,
}

#[derive(Debug)]
pub(crate) struct Membership {
    /// In the order of their addresses; those that were left stay until that has been said often enough.
    groups: Vec<Group>,
    /// Groups that may be joined, and those of our own addresses.
    max_joined: usize,
    max_own: usize,
    /// Whether anything is said.
    speaks: bool,
    version: Version,
    /// Until when somebody is there who speaks but these.
    oldest_until: Instant,
    older_until: Instant,
    robustness: u8,
    query_interval_s: u32,
    /// When changes are said, if there are any.
    change_at: Instant,
    /// When a question for all groups is answered.
    answer_all_at: Instant,
    /// Until then nobody is answered.
    quiet_until: Instant,
    random: SipHasher24,
    drawn: u64,
}

impl Membership {
    pub(crate) fn new(
        label: &[u8],
        max_joined: usize,
        max_own: usize,
        speaks: bool,
        secret: [u8; 16],
    ) -> Self {
        let mut random = SipHasher24::new_with_key(&secret);
        random.write(label);
        Self {
            groups: Vec::new(),
            max_joined,
            max_own,
            speaks,
            version: Version::Current,
            oldest_until: Instant::ZERO,
            older_until: Instant::ZERO,
            robustness: ROBUSTNESS,
            query_interval_s: QUERY_INTERVAL_S,
            change_at: Instant::NEVER,
            answer_all_at: Instant::NEVER,
            quiet_until: Instant::ZERO,
            random,
            drawn: 0,
        }
    }

    /// A time from `now` to so much later.
    fn random_until(&mut self, now: Instant, most: Duration) -> Instant {
        let mut hasher = self.random;
        hasher.write_u64(self.drawn);
        self.drawn += 1;
        now + Duration::from_nanos(hasher.finish() % (most.as_nanos() + 1))
    }

    fn place(&self, address: IpAddr) -> Result<usize, usize> {
        self.groups.binary_search_by_key(&address, |group| group.address)
    }

    fn get(&self, address: IpAddr) -> Option<&Group> {
        self.place(address).ok().map(|place| &self.groups[place])
    }

    /// Whether somebody has joined the group.
    pub(crate) fn is_joined(&self, address: IpAddr) -> bool {
        self.get(address).is_some_and(|group| group.users > 0)
    }

    /// The groups that somebody has joined.
    pub(crate) fn joined(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.groups.iter().filter(|group| group.users > 0).map(|group| group.address)
    }

    /// The groups of our own addresses.
    fn own(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.groups.iter().filter(|group| group.is_own).map(|group| group.address)
    }

    /// Somebody joins a group; it may have been joined before.
    pub(crate) fn join(&mut self, address: IpAddr, now: Instant) -> Result<(), TooMany> {
        if !self.is_joined(address) && self.joined().count() >= self.max_joined {
            return Err(TooMany);
        }
        self.change(address, now, |group| group.users = group.users.saturating_add(1));
        Ok(())
    }

    /// Somebody who has joined it leaves a group. Answers whether it was joined.
    pub(crate) fn leave(&mut self, address: IpAddr, now: Instant) -> bool {
        let joined = self.is_joined(address);
        if joined {
            self.change(address, now, |group| group.users -= 1);
        }
        joined
    }

    /// An address of ours needs the group from now on. Answers whether that is new to others.
    pub(crate) fn set_own(&mut self, address: IpAddr, now: Instant) -> bool {
        self.own().count() < self.max_own && self.change(address, now, |group| group.is_own = true)
    }

    /// No address of ours needs other groups than these any more.
    pub(crate) fn keep_own(&mut self, is_needed: impl Fn(IpAddr) -> bool, now: Instant) {
        loop {
            let gone = self.own().find(|&group| !is_needed(group));
            let Some(gone) = gone else { return };
            self.change(gone, now, |group| group.is_own = false);
        }
    }

    /// Changes who needs a group, and has it said if we are in it now and were not, or the other way round.
    fn change(&mut self, address: IpAddr, now: Instant, change: impl FnOnce(&mut Group)) -> bool {
        self.find_version(now);
        let place = self.place(address).unwrap_or_else(|place| {
            let group =
                Group { address, users: 0, is_own: false, changes_left: 0, answer_at: Instant::NEVER };
            self.groups.insert(place, group);
            place
        });
        let (was_member, robustness) = (self.groups[place].is_member(), self.robustness);
        let group = &mut self.groups[place];
        change(group);
        let is_new = group.is_member() != was_member;
        if !is_new {
            return false;
        }
        group.answer_at = Instant::NEVER;
        if !self.speaks || group.is_silent() {
            self.forget_left();
            return false;
        }
        group.changes_left = robustness;
        self.change_at = now;
        self.bound_left();
        true
    }

    /// Those that were left are not kept for longer than that has to be said.
    fn forget_left(&mut self) {
        self.groups.retain(|group| group.is_member() || group.changes_left > 0);
    }

    /// As many groups that were left wait as may be joined; whoever leaves more says it of one of them no more.
    fn bound_left(&mut self) {
        let left = |group: &Group| !group.is_member();
        if self.groups.iter().filter(|group| left(group)).count() > self.max_joined + self.max_own
            && let Some(place) = self.groups.iter().position(left)
        {
            self.groups.remove(place);
        }
    }

    /// Everything is said once more, as often as a change: it was said from nobody's address until now (RFC 3590 4).
    pub(crate) fn say_again(&mut self, now: Instant) {
        if !self.speaks {
            return;
        }
        self.find_version(now);
        for group in self.groups.iter_mut().filter(|group| group.is_member() && !group.is_silent()) {
            (group.changes_left, self.change_at) = (self.robustness, now);
        }
    }

    /// RFC 9776 7.2.1, RFC 9777 8.2.1: the oldest version is spoken that anybody who asks speaks. What is pending when that changes
    /// is not said any more.
    fn find_version(&mut self, now: Instant) {
        let version = match now {
            now if now < self.oldest_until => Version::Oldest,
            now if now < self.older_until => Version::Older,
            _ => Version::Current,
        };
        if version != self.version {
            self.version = version;
            self.answer_all_at = Instant::NEVER;
            self.change_at = Instant::NEVER;
            for group in &mut self.groups {
                (group.answer_at, group.changes_left) = (Instant::NEVER, 0);
            }
            self.forget_left();
        }
    }

    /// Somebody asks who is in a group, or in any. Answers whether that is for us to answer.
    pub(crate) fn query_arrives(&mut self, query: &Query, now: Instant) -> bool {
        let response = Duration::from_millis(query.max_response_ms.into());
        let interval = Duration::from_secs(u64::from(self.robustness) * u64::from(self.query_interval_s));
        let present = now + interval + response;
        match query.version {
            Version::Oldest => self.oldest_until = present,
            // RFC 9776 7.2.1: IGMPv2's questions for one group say nothing of who is there; MLDv1's do (RFC 9777 8.2.1).
            Version::Older if !matches!(query.group, Some(IpAddr::V4(_))) => self.older_until = present,
            Version::Older => {}
            Version::Current => {
                self.robustness = query.robustness.unwrap_or(ROBUSTNESS);
                self.query_interval_s = query.interval_s.unwrap_or(QUERY_INTERVAL_S);
            }
        }
        self.find_version(now);
        if !self.speaks {
            return false;
        }
        match query.group {
            None if self.version == Version::Current => {
                let at = self.random_until(now, response);
                self.answer_all_at = self.answer_all_at.min(at);
                true
            }
            None => {
                for place in 0..self.groups.len() {
                    self.answer(place, response, now);
                }
                true
            }
            Some(group) => self.place(group).is_ok_and(|place| self.answer(place, response, now)),
        }
    }

    fn answer(&mut self, place: usize, response: Duration, now: Instant) -> bool {
        let at = self.random_until(now, response);
        let group = &mut self.groups[place];
        let answers = group.is_member() && !group.is_silent();
        if answers {
            group.answer_at = group.answer_at.min(at);
        }
        answers
    }

    /// Somebody else says in the words of an older version that he is in the group: that is enough for those who speak them (RFC
    /// 2236 3, RFC 2710 4), and nothing to the current one.
    pub(crate) fn report_arrives(&mut self, address: IpAddr) {
        if self.version < Version::Current
            && let Ok(place) = self.place(address)
            && self.groups[place].is_member()
        {
            (self.groups[place].answer_at, self.groups[place].changes_left) = (Instant::NEVER, 0);
        }
    }

    /// When [`Self::poll`] has something to say, or a little earlier.
    pub(crate) fn next_deadline(&self) -> Instant {
        let answers = self.groups.iter().map(|group| group.answer_at);
        let answer_at = answers.fold(self.answer_all_at, Instant::min);
        // One that never comes is not put off either.
        self.change_at.min(answer_at.max(self.quiet_until))
    }

    /// Puts what is due into `out`, and answers the version to say it in.
    pub(crate) fn poll(&mut self, now: Instant, out: &mut Vec<Due>) -> Version {
        self.find_version(now);
        if self.change_at <= now {
            self.say_changes(now, out);
        }
        if self.quiet_until <= now {
            self.say_answers(now, out);
        }
        self.version
    }

    fn say_changes(&mut self, now: Instant, out: &mut Vec<Due>) {
        let mut more = false;
        for group in self.groups.iter_mut().filter(|group| group.changes_left > 0) {
            let record = if group.is_member() { Record::Joins } else { Record::Leaves };
            out.push(Due { group: group.address, record });
            group.changes_left -= 1;
            // RFC 2236 3, RFC 2710 4: that somebody leaves is said once.
            if record == Record::Leaves && self.version < Version::Current {
                group.changes_left = 0;
            }
            more |= group.changes_left > 0;
        }
        self.forget_left();
        let interval = match self.version {
            Version::Current => UNSOLICITED_REPORT_INTERVAL,
            _ => OLD_REPORT_INTERVAL,
        };
        self.change_at = if more { self.random_until(now, interval) } else { Instant::NEVER };
    }

    fn say_answers(&mut self, now: Instant, out: &mut Vec<Due>) {
        let all = self.answer_all_at <= now;
        let before = out.len();
        for group in &mut self.groups {
            if !(group.is_member() && !group.is_silent() && (all || group.answer_at <= now)) {
                continue;
            }
            group.answer_at = Instant::NEVER;
            out.push(Due { group: group.address, record: Record::IsMember });
        }
        if all {
            self.answer_all_at = Instant::NEVER;
        }
        if out.len() > before {
            self.quiet_until = now + ANSWER_INTERVAL;
        }
    }
}

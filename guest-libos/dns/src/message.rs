//! Messages (RFC 1035 4.1), read and written by the `domain` crate; what an answer means for the question.

use core::net::IpAddr;
use core::str::FromStr;

use alloc::boxed::Box;
use alloc::vec::Vec;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::message_builder::MessageBuilder;
use domain::base::{Message, Name, ParsedName, ToName};
use domain::dep::octseq::Array;
use domain::rdata::{A, Aaaa, Cname, Soa};

/// The most addresses that are taken from one answer.
pub const MAX_ADDRESSES: usize = 16;
/// The largest query: a header, the longest name, its type and class.
pub const MAX_QUERY_BYTES: usize = 12 + 255 + 4;
/// The most names that one answer leads through.
const MAX_ALIASES: usize = 8;
/// The largest answer: the names of a longer one could lead through so many compression pointers that reading them took seconds.
pub const MAX_ANSWER_BYTES: usize = 16_384;
/// The most records of a section that are looked at.
pub const MAX_RECORDS: usize = 256;

/// A name on the wire, without compression.
pub(crate) type Host = Name<Array<255>>;

/// What kind of addresses is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records (RFC 3596).
    V6,
}

impl Family {
    fn rtype(self) -> Rtype {
        match self {
            Self::V4 => Rtype::A,
            Self::V6 => Rtype::AAAA,
        }
    }
}

/// Reads a name as people write it, in lower case, with or without the dot at its end.
pub(crate) fn parse_name(text: &str) -> Option<Host> {
    let mut name = Host::from_str(text).ok().filter(|name| !name.is_root())?;
    name.make_canonical();
    Some(name)
}

/// A query with recursion desired.
pub(crate) fn query(id: u16, name: &Host, family: Family) -> Option<Array<MAX_QUERY_BYTES>> {
    let mut builder = MessageBuilder::from_target(Array::<MAX_QUERY_BYTES>::new()).ok()?;
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut questions = builder.question();
    questions.push((name, family.rtype(), Class::IN)).ok()?;
    Some(questions.finish())
}

/// What a server says to a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// These addresses, for so many seconds.
    Addresses { addresses: Vec<IpAddr>, ttl_secs: u32 },
    /// The name is another's, whose addresses the answer does not have.
    Alias { target: Box<Host> },
    /// There is no such name, for so many seconds (RFC 2308).
    NoSuchName { ttl_secs: u32 },
    /// The name has no such addresses.
    NoAddress { ttl_secs: u32 },
    /// The answer does not fit a datagram.
    Truncated,
    /// The server cannot or will not say.
    Refused(u8),
    /// The answer contradicts itself, or leads through too many names.
    Broken,
}

/// Reads an answer to the question of `family` addresses of `name`, asked with `id`. `None`: it is not one, or too large.
pub(crate) fn answer(bytes: &[u8], id: u16, name: &Host, family: Family) -> Option<Answer> {
    if bytes.len() > MAX_ANSWER_BYTES {
        return None;
    }
    let message = Message::from_slice(bytes).ok()?;
    let header = message.header();
    if !header.qr() || header.opcode() != Opcode::QUERY || header.id() != id {
        return None;
    }
    let question = message.sole_question().ok()?;
    if !question.qname().name_eq(name) || question.qtype() != family.rtype() || question.qclass() != Class::IN
    {
        return None;
    }
    if header.tc() {
        return Some(Answer::Truncated);
    }
    Some(match header.rcode() {
        Rcode::NOERROR => records(message, name, family).unwrap_or(Answer::Broken),
        Rcode::NXDOMAIN => Answer::NoSuchName { ttl_secs: negative_ttl(message) },
        other => Answer::Refused(other.to_int()),
    })
}

/// The addresses in the answer section, by way of its aliases (RFC 1034 3.6.2).
fn records(message: &Message<[u8]>, name: &Host, family: Family) -> Option<Answer> {
    let mut current = name.clone();
    let mut ttl_secs = u32::MAX;
    let mut is_alias = false;
    let records: Vec<_> = message.answer().ok()?.take(MAX_RECORDS).collect::<Result<_, _>>().ok()?;
    for _ in 0..=MAX_ALIASES {
        let mut addresses = Vec::new();
        let mut alias: Option<Host> = None;
        for record in &records {
            if record.class() != Class::IN || !record.owner().name_eq(&current) {
                continue;
            }
            let address = match (record.rtype(), family) {
                (Rtype::A, Family::V4) => IpAddr::from(record.to_record::<A>().ok()??.data().addr().octets()),
                (Rtype::AAAA, Family::V6) => {
                    IpAddr::from(record.to_record::<Aaaa>().ok()??.data().addr().octets())
                }
                (Rtype::CNAME, _) => {
                    let record = record.to_record::<Cname<ParsedName<&[u8]>>>().ok()??;
                    let mut target = record.data().cname().try_to_name::<Array<255>>().ok()?;
                    target.make_canonical();
                    // There is one at most (RFC 2181 10.1); a second is not looked at.
                    alias.get_or_insert(target);
                    ttl_secs = ttl_secs.min(record.ttl().as_secs());
                    continue;
                }
                _ => continue,
            };
            ttl_secs = ttl_secs.min(record.ttl().as_secs());
            if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if !addresses.is_empty() {
            return Some(Answer::Addresses { addresses, ttl_secs });
        }
        let Some(target) = alias else {
            if is_alias && soa_ttl(message).is_none() {
                return Some(Answer::Alias { target: Box::new(current) });
            }
            return Some(Answer::NoAddress { ttl_secs: negative_ttl(message) });
        };
        (current, is_alias) = (target, true);
    }
    None
}

/// RFC 2308 5: how long a negative answer holds, by the SOA record that comes with it; without one, not at all.
fn negative_ttl(message: &Message<[u8]>) -> u32 {
    soa_ttl(message).unwrap_or(0)
}

fn soa_ttl(message: &Message<[u8]>) -> Option<u32> {
    for record in message.authority().ok()?.take(MAX_RECORDS) {
        if let Some(soa) = record.ok()?.to_record::<Soa<ParsedName<&[u8]>>>().ok()? {
            return Some(soa.ttl().as_secs().min(soa.data().minimum().as_secs()));
        }
    }
    None
}

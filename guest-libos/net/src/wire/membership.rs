//! What IGMP and MLD have in common: routers and switches ask who is in which groups, and hosts say so. The bytes are `igmp`'s
//! and `mld`'s.

use core::fmt;
use core::net::IpAddr;

/// A generation of the protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// IGMPv1 (RFC 1112): nobody says that he leaves.
    Oldest,
    /// IGMPv2 (RFC 2236) and MLDv1 (RFC 2710): a message a group.
    Older,
    /// IGMPv3 (RFC 9776) and MLDv2 (RFC 9777): records, several in a message.
    Current,
}

/// Who is in this group, or in any?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// How it was asked, and so how whoever asks wants to be answered.
    pub version: Version,
    /// The group, whichever of its sources are named; `None`: all.
    pub group: Option<IpAddr>,
    /// Answers are spread over so many milliseconds.
    pub max_response_ms: u32,
    /// How often whoever asks wants everything to be said, where that is said (Querier's Robustness Variable).
    pub robustness: Option<u8>,
    /// Seconds between one question to all and the next, where that is said.
    pub interval_s: Option<u32>,
}

/// What a message of others tells a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A question.
    Query(Query),
    /// Somebody else is in the group, in the words of an older version.
    Report(IpAddr),
}

/// What a record says of a group (RFC 9776 4.2.12, RFC 9777 5.2.12), with an empty list of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// MODE_IS_EXCLUDE: we are in it, whoever sends.
    IsMember = 2,
    /// CHANGE_TO_INCLUDE_MODE: we are in it no more.
    Leaves = 3,
    /// CHANGE_TO_EXCLUDE_MODE: we are in it from now on.
    Joins = 4,
}

/// Why a packet is not a message that may be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Nothing that a host heeds.
    Unsupported,
    /// It may have crossed a router, or its sender is not on this link.
    OffLink,
    /// The checksum is wrong.
    Checksum,
    /// Of no version's length, or fields contradict each other.
    Malformed,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsupported => "the message is of a kind that is not handled here; it is dropped",
            Self::OffLink => "the message is not from this link; look for a forger",
            Self::Checksum => "the checksum is wrong; look for damage on the way",
            Self::Malformed => "the message contradicts itself; look at its length in a capture",
        })
    }
}

impl core::error::Error for Invalid {}

/// A code of `4 + mantissa_bits` bits: itself if its highest bit is clear, else a number with an exponent (RFC 9776 4.1.1, RFC
/// 9777 5.1.3).
pub(super) const fn decoded(code: u32, mantissa_bits: u32) -> u32 {
    if code >> (mantissa_bits + 3) == 0 {
        return code;
    }
    let exponent = (code >> mantissa_bits) & 7;
    let mantissa = code & ((1 << mantissa_bits) - 1);
    (mantissa | 1 << mantissa_bits) << (exponent + 3)
}

/// What the eight last bits before the number of sources say: how often, and how far apart.
pub(super) fn querier(flags_and_robustness: u8, interval_code: u8) -> (Option<u8>, Option<u32>) {
    let robustness = flags_and_robustness & 7;
    let interval_s = decoded(u32::from(interval_code), 4);
    ((robustness > 0).then_some(robustness), (interval_s > 0).then_some(interval_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_numbers_up_to_half_and_have_an_exponent_beyond() {
        let eight = [(0, 0), (127, 127), (128, 128), (0x8f, 248), (0x90, 256), (0xff, 31_744)];
        assert_eq!(eight.map(|(code, _)| decoded(code, 4)), eight.map(|(_, value)| value));
        let sixteen = [(10_000, 10_000), (0x7fff, 32_767), (0x8000, 32_768), (0xffff, 8_387_584)];
        assert_eq!(sixteen.map(|(code, _)| decoded(code, 12)), sixteen.map(|(_, value)| value));
    }

    #[test]
    fn querier_that_says_nothing_of_itself_says_zero() {
        assert_eq!(querier(0xf8, 0), (None, None));
        assert_eq!(querier(0x0f, 125), (Some(7), Some(125)));
    }
}

//! What is asked of a guardian and what it answers, as the four words of a message. Nothing else is said: who asks is known from
//! the kernel.

use core::net::{IpAddr, Ipv6Addr};
use exos_net::MacAddress;

/// Version of these words. A guardian refuses another one.
pub const VERSION: u32 = 2;

/// The words of a message.
pub type Words = [u64; 4];

/// A transport protocol's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// The number, not 0.
    pub number: u16,
}

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

impl Port {
    /// A TCP port.
    pub const fn tcp(number: u16) -> Self {
        Self { protocol: TCP, number }
    }

    /// A UDP port.
    pub const fn udp(number: u16) -> Self {
        Self { protocol: UDP, number }
    }

    const fn word(self) -> u64 {
        (self.protocol as u64) << 16 | self.number as u64
    }

    fn from_word(word: u64) -> Result<Self, Refusal> {
        let port = Self { protocol: (word >> 16) as u8, number: word as u16 };
        let known = matches!(port.protocol, TCP | UDP) && port.number != 0 && port.word() == word;
        if known { Ok(port) } else { Err(Refusal::NoSuchPort) }
    }
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The flow of a port.
    Reserve(Port),
    /// It needs that no more.
    Release(Port),
    /// The tables.
    Tables,
    /// Where a neighbour is on the link.
    Neighbour(IpAddr),
}

const RESERVE: u32 = 1;
const RELEASE: u32 = 2;
const TABLES: u32 = 3;
const NEIGHBOUR: u32 = 4;

impl Request {
    /// As it is sent.
    pub const fn words(self) -> Words {
        let (operation, [high, low]) = match self {
            Self::Reserve(port) => (RESERVE, [port.word(), 0]),
            Self::Release(port) => (RELEASE, [port.word(), 0]),
            Self::Tables => (TABLES, [0; 2]),
            Self::Neighbour(ip) => (NEIGHBOUR, ip_words(ip)),
        };
        [(VERSION as u64) << 32 | operation as u64, high, low, 0]
    }

    /// What somebody asks for.
    pub fn from_words(words: Words) -> Result<Self, Refusal> {
        if (words[0] >> 32) as u32 != VERSION {
            return Err(Refusal::OtherVersion);
        }
        match words[0] as u32 {
            RESERVE => Port::from_word(words[1]).map(Self::Reserve),
            RELEASE => Port::from_word(words[1]).map(Self::Release),
            TABLES => Ok(Self::Tables),
            NEIGHBOUR => Ok(Self::Neighbour(ip(words[1], words[2]))),
            _ => Err(Refusal::NoSuchRequest),
        }
    }
}

/// An address as two words, IPv4 as an IPv4-mapped IPv6 address.
pub(crate) const fn ip_words(ip: IpAddr) -> [u64; 2] {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

/// The inverse.
pub(crate) const fn ip(high: u64, low: u64) -> IpAddr {
    Ipv6Addr::from_bits((high as u128) << 64 | low as u128).to_canonical()
}

/// Where a neighbour is, as the number that is answered: 0, if that is not known yet.
pub fn mac_word(mac: Option<MacAddress>) -> u64 {
    mac.map_or(0, |MacAddress([a, b, c, d, e, f])| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
}

/// The inverse.
pub fn mac(word: u64) -> Option<MacAddress> {
    let [a, b, c, d, e, f, ..] = word.to_le_bytes();
    Some(MacAddress([a, b, c, d, e, f])).filter(|_| word != 0)
}

/// Why a guardian says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Refusal {
    /// The words are of another version than the guardian's.
    OtherVersion = 1,
    /// There is no such request.
    NoSuchRequest = 2,
    /// Not a port of TCP or UDP, or 0.
    NoSuchPort = 3,
    /// Somebody else has it.
    Taken = 4,
    /// It is not the client's.
    NotYours = 5,
    /// No room: in the guardian's tables, in the kernel's, or in the client's.
    NoSpace = 6,
    /// The guardian does not know the client, and so has no way to give it anything.
    Stranger = 7,
    /// The client has its share of this, of ports or of open questions.
    Quota = 8,
    /// The address is not one of a neighbour: not on the link, or the guardian's own.
    NotOnLink = 9,
    /// Nobody on the link answers for the address.
    Unreachable = 10,
    /// The guardian has no IPv6 address: somebody else has it.
    NoIpv6 = 11,
}

impl Refusal {
    const fn from_word(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::OtherVersion),
            2 => Some(Self::NoSuchRequest),
            3 => Some(Self::NoSuchPort),
            4 => Some(Self::Taken),
            5 => Some(Self::NotYours),
            6 => Some(Self::NoSpace),
            7 => Some(Self::Stranger),
            8 => Some(Self::Quota),
            9 => Some(Self::NotOnLink),
            10 => Some(Self::Unreachable),
            11 => Some(Self::NoIpv6),
            _ => None,
        }
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::OtherVersion => "the guardian speaks another version; build both from the same sources",
            Self::NoSuchRequest => "the guardian knows no such request; build both from the same sources",
            Self::NoSuchPort => "not a port of TCP or UDP",
            Self::Taken => "the port belongs to another environment",
            Self::NotYours => "the port is not this environment's",
            Self::NoSpace => "no room for another port",
            Self::Stranger => "the guardian does not know this environment; its parent has to ask",
            Self::Quota => "this environment has its share of ports or of open questions; give one back, or wait for an answer",
            Self::NotOnLink => "the address is no neighbour's; ask for the next hop that the routes name",
            Self::Unreachable => "nobody on the link answers for the address",
            Self::NoIpv6 => "another host on the link has the guardian's IPv6 address; give the machine another MAC address",
        })
    }
}

/// The answer: one number, or why not. What the number is depends on the request: a handle in the client's own table, for the flow
/// or for the tables' memory; a [`mac_word`].
pub const fn answer(result: Result<u64, Refusal>) -> Words {
    match result {
        Ok(value) => [0, value, 0, 0],
        Err(refusal) => [refusal as u64, 0, 0, 0],
    }
}

/// What the guardian answered. A refusal that this version does not know is [`Refusal::OtherVersion`].
pub fn result(words: Words) -> Result<u64, Refusal> {
    match words[0] {
        0 => Ok(words[1]),
        refusal => Err(Refusal::from_word(refusal).unwrap_or(Refusal::OtherVersion)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_comes_back_from_its_words() {
        let neighbour = |ip: &str| Request::Neighbour(ip.parse().expect("an address"));
        for request in [
            Request::Reserve(Port::tcp(80)),
            Request::Release(Port::udp(65535)),
            Request::Tables,
            neighbour("10.0.0.1"),
            neighbour("fe80::1"),
        ] {
            assert_eq!(Request::from_words(request.words()), Ok(request));
        }
    }

    #[test]
    fn words_of_another_version_or_kind_are_refused() {
        let [first, port, ..] = Request::Reserve(Port::tcp(80)).words();
        let refused = |words| Request::from_words(words).expect_err("refused");
        assert_eq!(refused([first + (1 << 32), port, 0, 0]), Refusal::OtherVersion);
        assert_eq!(refused([0; 4]), Refusal::OtherVersion);
        assert_eq!(refused([u64::from(VERSION) << 32, port, 0, 0]), Refusal::NoSuchRequest);
        for port in [0, 6 << 16, 80, 1 << 16 | 80, port | 1 << 24, u64::MAX] {
            assert_eq!(refused([first, port, 0, 0]), Refusal::NoSuchPort, "{port:#x}");
        }
    }

    #[test]
    fn answer_is_a_number_or_a_refusal() {
        assert_eq!(result(answer(Ok(7))), Ok(7));
        for number in 1..12 {
            let refusal = Refusal::from_word(number).expect("one of them");
            assert_eq!(result(answer(Err(refusal))), Err(refusal));
        }
        assert_eq!(result([12, 0, 0, 0]), Err(Refusal::OtherVersion));
    }

    #[test]
    fn place_of_a_neighbour_is_a_number_that_is_not_0() {
        let place = Some(MacAddress([2, 0, 0, 0, 0, 0]));
        assert_eq!((mac(mac_word(place)), mac(mac_word(None))), (place, None));
    }

    proptest::proptest! {
        #[test]
        fn any_words_are_understood_or_refused(mut words: [u64; 4], sound: bool) {
            if sound {
                words[0] = (u64::from(VERSION) << 32) | (words[0] % 6);
            }
            if let Ok(request) = Request::from_words(words) {
                let meant = match request {
                    Request::Tables => 1,
                    Request::Reserve(_) | Request::Release(_) => 2,
                    Request::Neighbour(_) => 3,
                };
                proptest::prop_assert_eq!(&request.words()[..meant], &words[..meant]);
            }
        }
    }
}

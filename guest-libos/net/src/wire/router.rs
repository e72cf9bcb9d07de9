//! What routers say (RFC 4861 4.1, 4.2, 4.6; RFC 4191; RFC 8106 5.1): solicitations out, advertisements in, with all that 6.1.2 wants
//! checked before anybody looks at them. Redirects are not read.

use core::net::Ipv6Addr;

use super::ethernet::MacAddress;
use super::ipv6::{ALL_ROUTERS, Ipv6Header, NextHeader, address_at};
use super::ndisc::{HOP_LIMIT, Invalid};
use super::{u16_at, u32_at};

/// Length of the solicitation that [`emit_solicitation`] writes.
pub const SOLICITATION_BYTES: usize = 16;
/// Type of an advertisement.
pub const ADVERTISEMENT: u8 = 134;

const SOLICITATION: u8 = 133;
/// What an advertisement begins with.
const FIXED_BYTES: usize = 16;
const SOURCE_LINK_ADDRESS: u8 = 1;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const NAME_SERVERS: u8 = 25;
/// Of an option with servers for names: what is before the addresses, without type and length.
const BEFORE_ADDRESSES: usize = 6;
const ADDRESS_BYTES: usize = 16;
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

/// A router's advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement<'f> {
    /// What packets should get as hop limit; 0 says nothing.
    pub hop_limit: u8,
    /// For so long it is a default router; 0: it is none.
    pub router_lifetime_s: u16,
    /// Where it is.
    pub source_mac: Option<MacAddress>,
    /// What packets on this link may be as large as.
    pub mtu: Option<u32>,
    options: &'f [u8],
}

/// A prefix that a router advertises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix; bits behind its length are zero.
    pub prefix: Ipv6Addr,
    /// Its length, 0 to 128.
    pub prefix_len: u8,
    /// Hosts with it are on the link.
    pub on_link: bool,
    /// Hosts may make themselves addresses with it.
    pub autonomous: bool,
    /// For so long; `u32::MAX` is for ever.
    pub valid_lifetime_s: u32,
    /// For so long without reserve.
    pub preferred_lifetime_s: u32,
}

impl<'f> Advertisement<'f> {
    /// Reads an ICMPv6 message.
    pub fn parse(ip: &Ipv6Header, bytes: &'f [u8]) -> Result<Self, Invalid> {
        if ip.next_header != NextHeader::Icmpv6 || bytes.first() != Some(&ADVERTISEMENT) {
            return Err(Invalid::Unsupported);
        }
        if ip.hop_limit != HOP_LIMIT {
            return Err(Invalid::HopLimit);
        }
        if !ip.pseudo_sum(bytes.len()).bytes(bytes).is_valid() {
            return Err(Invalid::Checksum);
        }
        let (fixed, options) = bytes.split_first_chunk::<FIXED_BYTES>().ok_or(Invalid::Malformed)?;
        if fixed[1] != 0 || !ip.source.is_unicast_link_local() {
            return Err(Invalid::Malformed);
        }
        let (mut source_mac, mut mtu) = (None, None);
        let mut rest = options;
        while !rest.is_empty() {
            let (kind, value, behind) = split_option(rest).ok_or(Invalid::Malformed)?;
            rest = behind;
            match kind {
                SOURCE_LINK_ADDRESS => {
                    let Ok(mac) = <[u8; 6]>::try_from(value) else { continue };
                    if !MacAddress(mac).is_unicast() {
                        return Err(Invalid::Malformed);
                    }
                    source_mac.get_or_insert(MacAddress(mac));
                }
                MTU if value.len() == 6 => {
                    mtu.get_or_insert(u32_at(value, 2));
                }
                _ => {}
            }
        }
        let (hop_limit, router_lifetime_s) = (fixed[4], u16_at(fixed, 6));
        Ok(Self { hop_limit, router_lifetime_s, source_mac, mtu, options })
    }

    /// The prefixes that it names; those whose length is impossible are passed over.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> + use<'f> {
        self.options().filter_map(|(kind, value)| {
            let is_prefix = kind == PREFIX && value.len() == 30 && value[0] <= 128;
            is_prefix.then(|| {
                let mask = u128::MAX.checked_shl(128 - u32::from(value[0])).unwrap_or(0);
                Prefix {
                    prefix: Ipv6Addr::from_bits(address_at(value, 14).to_bits() & mask),
                    prefix_len: value[0],
                    on_link: value[1] & ON_LINK != 0,
                    autonomous: value[1] & AUTONOMOUS != 0,
                    valid_lifetime_s: u32_at(value, 2),
                    preferred_lifetime_s: u32_at(value, 6),
                }
            })
        })
    }

    /// The servers for names that it names, each with the time for which it may be asked in seconds; `u32::MAX` is for ever. Options
    /// with half an address, or none, are passed over (RFC 8106 5.3.1).
    pub fn name_servers(&self) -> impl Iterator<Item = (Ipv6Addr, u32)> + use<'f> {
        let options = self.options().filter(|(kind, _)| *kind == NAME_SERVERS);
        let servers = options.filter_map(|(_, value)| {
            let (before, addresses) = value.split_at_checked(BEFORE_ADDRESSES)?;
            let (addresses, rest) = addresses.as_chunks::<ADDRESS_BYTES>();
            rest.is_empty().then(|| (u32_at(before, 2), addresses))
        });
        servers.flat_map(|(lifetime_s, addresses)| {
            addresses.iter().map(move |&octets| (Ipv6Addr::from(octets), lifetime_s))
        })
    }

    /// Types and values of its options.
    fn options(&self) -> impl Iterator<Item = (u8, &'f [u8])> + use<'f> {
        let mut rest = self.options;
        core::iter::from_fn(move || {
            let (kind, value, behind) = split_option(rest)?;
            rest = behind;
            Some((kind, value))
        })
    }
}

/// An option's type, its value, and what follows it. `None`: it has no length, or ends beyond the message.
fn split_option(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let len = usize::from(*bytes.get(1)?) * 8;
    let (option, behind) = bytes.split_at_checked(len)?;
    Some((bytes[0], option.get(2..)?, behind))
}

/// Writes a solicitation, to be sent from `source` to all routers.
pub fn emit_solicitation(source: Ipv6Addr, mac: MacAddress, out: &mut [u8; SOLICITATION_BYTES]) {
    out.fill(0);
    out[0] = SOLICITATION;
    out[8..10].copy_from_slice(&[SOURCE_LINK_ADDRESS, 1]);
    out[10..].copy_from_slice(&mac.0);
    let ip = Ipv6Header {
        source,
        destination: ALL_ROUTERS,
        next_header: NextHeader::Icmpv6,
        hop_limit: HOP_LIMIT,
    };
    let checksum = ip.pseudo_sum(SOLICITATION_BYTES).bytes(&out[..]).checksum();
    out[2..4].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv6::{ALL_NODES, link_local};
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use smoltcp::time::Duration;
    use smoltcp::wire::{
        EthernetAddress, Icmpv6Packet, Icmpv6Repr, NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr,
        NdiscRouterFlags,
    };

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    fn ip() -> Ipv6Header {
        let (source, destination) = (link_local(MAC), ALL_NODES);
        Ipv6Header { source, destination, next_header: NextHeader::Icmpv6, hop_limit: HOP_LIMIT }
    }

    fn prefix() -> Prefix {
        Prefix {
            prefix: "2001:db8:1:2::".parse().unwrap(),
            prefix_len: 64,
            on_link: true,
            autonomous: true,
            valid_lifetime_s: 86_400,
            preferred_lifetime_s: 14_400,
        }
    }

    /// An advertisement as smoltcp writes it.
    fn theirs(prefix: Prefix, mtu: Option<u32>) -> Vec<u8> {
        let mut flags = NdiscPrefixInfoFlags::empty();
        flags.set(NdiscPrefixInfoFlags::ON_LINK, prefix.on_link);
        flags.set(NdiscPrefixInfoFlags::ADDRCONF, prefix.autonomous);
        let repr = Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
            hop_limit: 61,
            flags: NdiscRouterFlags::empty(),
            router_lifetime: Duration::from_secs(1_800),
            reachable_time: Duration::ZERO,
            retrans_time: Duration::ZERO,
            lladdr: Some(EthernetAddress(MAC.0).into()),
            mtu,
            prefix_info: Some(NdiscPrefixInformation {
                prefix_len: prefix.prefix_len,
                flags,
                valid_lifetime: Duration::from_secs(prefix.valid_lifetime_s.into()),
                preferred_lifetime: Duration::from_secs(prefix.preferred_lifetime_s.into()),
                prefix: prefix.prefix,
            }),
        });
        let mut bytes = vec![0; repr.buffer_len()];
        let mut packet = Icmpv6Packet::new_unchecked(&mut bytes);
        repr.emit(&ip().source, &ip().destination, &mut packet, &Default::default());
        bytes
    }

    fn reseal(ip: &Ipv6Header, bytes: &mut [u8]) {
        bytes[2..4].fill(0);
        let checksum = ip.pseudo_sum(bytes.len()).bytes(bytes).checksum();
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    }

    #[test]
    fn advertisement_of_smoltcp_is_read() {
        let bytes = theirs(prefix(), Some(1_400));
        let read = Advertisement::parse(&ip(), &bytes).unwrap();
        assert_eq!((read.hop_limit, read.router_lifetime_s), (61, 1_800));
        assert_eq!((read.source_mac, read.mtu), (Some(MAC), Some(1_400)));
        assert_eq!(read.prefixes().collect::<Vec<_>>(), [prefix()]);
    }

    #[test]
    fn advertisement_from_beyond_the_link_is_invalid() {
        let bytes = theirs(prefix(), None);
        for hop_limit in [0, 64, 254] {
            let far = Ipv6Header { hop_limit, ..ip() };
            assert_eq!(Advertisement::parse(&far, &bytes), Err(Invalid::HopLimit));
        }
        let global = Ipv6Header { source: "2001:db8::1".parse().unwrap(), ..ip() };
        let mut resealed = bytes.clone();
        reseal(&global, &mut resealed);
        assert_eq!(Advertisement::parse(&global, &resealed), Err(Invalid::Malformed));
        let nobody = Ipv6Header { source: Ipv6Addr::UNSPECIFIED, ..ip() };
        reseal(&nobody, &mut resealed);
        assert_eq!(Advertisement::parse(&nobody, &resealed), Err(Invalid::Malformed));
    }

    #[test]
    fn broken_advertisement_is_invalid() {
        let good = theirs(prefix(), None);
        let mut flipped = good.clone();
        flipped[20] ^= 1;
        assert_eq!(Advertisement::parse(&ip(), &flipped), Err(Invalid::Checksum));
        for (at, to) in [(1, 1), (17, 0), (17, 200)] {
            let mut broken = good.clone();
            broken[at] = to;
            reseal(&ip(), &mut broken);
            assert_eq!(Advertisement::parse(&ip(), &broken), Err(Invalid::Malformed), "{at}");
        }
        let mut group = good.clone();
        group[18] |= 1;
        reseal(&ip(), &mut group);
        assert_eq!(Advertisement::parse(&ip(), &group), Err(Invalid::Malformed));
        let mut other = good;
        other[0] = 137;
        assert_eq!(Advertisement::parse(&ip(), &other), Err(Invalid::Unsupported));
    }

    #[test]
    fn bits_behind_the_prefix_are_cleared_and_impossible_lengths_passed_over() {
        let long = Prefix { prefix: "2001:db8:1:2::77".parse().unwrap(), ..prefix() };
        let bytes = theirs(long, None);
        let prefixes: Vec<_> = Advertisement::parse(&ip(), &bytes).unwrap().prefixes().collect();
        assert_eq!(prefixes, [prefix()]);
        let bytes = theirs(Prefix { prefix_len: 129, ..prefix() }, None);
        assert_eq!(Advertisement::parse(&ip(), &bytes).unwrap().prefixes().count(), 0);
    }

    /// With this option behind it, whose second byte says how long it is.
    fn with_option(option: &[u8]) -> Vec<u8> {
        let mut bytes = [&theirs(prefix(), None), option].concat();
        reseal(&ip(), &mut bytes);
        bytes
    }

    #[test]
    fn name_servers_are_read_and_options_with_half_an_address_or_none_passed_over() {
        let first: Ipv6Addr = "2001:db8::53".parse().unwrap();
        let second: Ipv6Addr = "fe80::53".parse().unwrap();
        let before = |units| [NAME_SERVERS, units, 0, 0, 0, 0, 2, 88];
        let both = [&before(5)[..], &first.octets(), &second.octets()].concat();
        let one = [&before(3)[..], &second.octets()].concat();
        let half = [&before(4)[..], &first.octets(), &second.octets()[..8]].concat();
        let servers = |option: &[u8]| -> Vec<_> {
            Advertisement::parse(&ip(), &with_option(option)).unwrap().name_servers().collect()
        };
        assert_eq!(servers(&both), [(first, 600), (second, 600)]);
        assert_eq!(
            servers(&[&before(1)[..], &half, &one, &both[..]].concat()),
            [(second, 600), (first, 600), (second, 600)]
        );
        assert_eq!(servers(&[]), []);
    }

    #[test]
    fn solicitation_is_read_by_smoltcp() {
        let mut out = [0; SOLICITATION_BYTES];
        emit_solicitation(link_local(MAC), MAC, &mut out);
        let packet = Icmpv6Packet::new_checked(&out[..]).unwrap();
        let read = Icmpv6Repr::parse(&link_local(MAC), &ALL_ROUTERS, &packet, &Default::default()).unwrap();
        let expected = NdiscRepr::RouterSolicit { lladdr: Some(EthernetAddress(MAC.0).into()) };
        assert_eq!(read, Icmpv6Repr::Ndisc(expected));
    }

    proptest! {
        #[test]
        fn advertisement_of_garbage_does_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 16..200)) {
            bytes[..2].copy_from_slice(&[ADVERTISEMENT, 0]);
            reseal(&ip(), &mut bytes);
            if let Ok(read) = Advertisement::parse(&ip(), &bytes) {
                prop_assert!(read.prefixes().count() < 16);
                prop_assert!(read.name_servers().count() < 12);
            }
        }
    }
}

//! What a server grants: an address for a time, and what goes with it.

use core::net::Ipv4Addr;

use alloc::string::String;
use alloc::vec::Vec;

use exos_net::Duration;
use smoltcp::wire::DhcpPacket;

use crate::message::option;

/// The most routes that are kept.
pub const MAX_ROUTES: usize = 16;
/// The most bytes of classless routes that are read: option 121 may be spread over several (RFC 3396).
const MAX_ROUTE_BYTES: usize = MAX_ROUTES * 9;
/// The least MTU that is believed: what every host must take (RFC 791).
const MIN_MTU: u16 = 576;

/// A route by RFC 3442.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network.
    pub network: Ipv4Addr,
    /// Length of its prefix, 0 to 32.
    pub prefix_len: u8,
    /// Who takes packets there; unspecified if the network is on the link.
    pub router: Ipv4Addr,
}

/// What a server grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// Length of the prefix that is on the link.
    pub prefix_len: u8,
    /// The way to everywhere else: the default among the classless routes if there are any, else the first router.
    pub gateway: Option<Ipv4Addr>,
    /// Servers for names, the first three.
    pub dns_servers: [Option<Ipv4Addr>; 3],
    /// The domain that short names are in.
    pub domain: Option<String>,
    /// The link's MTU.
    pub mtu: Option<u16>,
    /// Classless routes, the default among them (RFC 3442).
    pub routes: Vec<Route>,
    /// Who granted it.
    pub server: Ipv4Addr,
    /// For how long, from when it was asked for; `None` is for ever.
    pub lifetime: Option<Duration>,
    /// T1: after so long the server is asked to renew it.
    pub renew_after: Duration,
    /// T2: after so long anybody is.
    pub rebind_after: Duration,
}

/// The four bytes of an address at the beginning.
fn address(data: &[u8]) -> Option<Ipv4Addr> {
    data.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes)).filter(|address| !address.is_unspecified())
}

fn number(data: &[u8]) -> Option<u32> {
    data.try_into().ok().map(u32::from_be_bytes)
}

/// Whether a host can have it.
fn is_host(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

impl Lease {
    /// Reads what an offer or an acknowledgment grants; `known_server` is who it comes from if it does not say. `None`: it is
    /// no lease that anybody could use.
    pub(crate) fn read(packet: &DhcpPacket<&[u8]>, known_server: Option<Ipv4Addr>) -> Option<Self> {
        let (mut mask, mut router, mut dns_servers, mut domain) = (None, None, [None; 3], None);
        let (mut mtu, mut server, mut lifetime, mut t1, mut t2) = (None, None, None, None, None);
        let mut route_bytes = Vec::new();
        for option in packet.options() {
            let data = option.data;
            match option.kind {
                option::SUBNET_MASK => mask = number(data),
                option::ROUTER => router = address(data),
                option::DNS_SERVERS => {
                    let mut servers = data.chunks_exact(4).filter_map(address);
                    dns_servers = [servers.next(), servers.next(), servers.next()];
                }
                option::DOMAIN_NAME => domain = read_domain(data),
                option::MTU => {
                    let value = data.try_into().ok().map(u16::from_be_bytes);
                    mtu = value.filter(|&mtu| mtu >= MIN_MTU);
                }
                option::LEASE_TIME => lifetime = number(data),
                option::SERVER => server = address(data),
                option::RENEWAL_TIME => t1 = number(data),
                option::REBINDING_TIME => t2 = number(data),
                option::CLASSLESS_ROUTES if route_bytes.len() + data.len() <= MAX_ROUTE_BYTES => {
                    route_bytes.extend_from_slice(data);
                }
                _ => {}
            }
        }
        let leased = packet.your_ip();
        let lifetime_secs = lifetime.filter(|&secs| secs > 0)?;
        let prefix_len = prefix_len(mask, leased)?;
        let on_link = |address: &Ipv4Addr| {
            let differ = address.to_bits() ^ leased.to_bits();
            *address != leased && differ.checked_shr(32 - u32::from(prefix_len)).unwrap_or(0) == 0
        };
        let routes = read_routes(&route_bytes);
        // RFC 3442: with classless routes the router option does not count.
        let default = routes.iter().find(|route| route.prefix_len == 0).map(|route| route.router);
        let gateway = if routes.is_empty() { router } else { default };
        let host_bits = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
        let host = leased.to_bits() & host_bits;
        if !is_host(leased) || (prefix_len < 31 && (host == 0 || host == host_bits)) {
            return None;
        }
        let (t1, t2) = times(lifetime_secs, t1, t2);
        Some(Self {
            address: leased,
            prefix_len,
            gateway: gateway.filter(on_link),
            dns_servers,
            domain,
            mtu,
            routes,
            server: server.or(known_server)?,
            lifetime: (lifetime_secs != u32::MAX).then(|| Duration::from_secs(u64::from(lifetime_secs))),
            renew_after: Duration::from_secs(t1),
            rebind_after: Duration::from_secs(t2),
        })
    }
}

/// A mask has its ones before its zeros; without one the address's class says it (RFC 2131 does not; everybody sends one).
fn prefix_len(mask: Option<u32>, address: Ipv4Addr) -> Option<u8> {
    let mask = mask.unwrap_or(match address.octets()[0] {
        0..=127 => 0xff00_0000,
        128..=191 => 0xffff_0000,
        _ => 0xffff_ff00,
    });
    let len = mask.leading_ones();
    (len > 0 && mask.count_ones() == len).then_some(len as u8)
}

/// T1 and T2 in seconds: what the server says if it makes sense, else half and seven eighths (RFC 2131 4.4.5).
fn times(lifetime_secs: u32, t1: Option<u32>, t2: Option<u32>) -> (u64, u64) {
    let lifetime = u64::from(lifetime_secs);
    let t2 = t2.map(u64::from).filter(|&t2| t2 > 0 && t2 < lifetime).unwrap_or(lifetime * 7 / 8);
    let t1 = t1.map(u64::from).filter(|&t1| t1 > 0 && t1 < t2).unwrap_or((lifetime / 2).min(t2));
    (t1, t2)
}

/// Letters, digits, hyphens and dots; anything else is no domain.
fn read_domain(data: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(data).ok()?.trim_end_matches('\0');
    let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (!text.is_empty() && fits).then(|| text.into())
}

/// RFC 3442: prefix length, as many bytes of the network as that needs, router. What follows a broken one is not read.
fn read_routes(mut bytes: &[u8]) -> Vec<Route> {
    let mut routes = Vec::new();
    while let Some((&prefix_len, rest)) = bytes.split_first() {
        let significant = usize::from(prefix_len.div_ceil(8));
        if prefix_len > 32 || routes.len() >= MAX_ROUTES {
            break;
        }
        let (Some(network), Some(router)) = (rest.get(..significant), rest.get(significant..significant + 4))
        else {
            break;
        };
        let mut octets = [0; 4];
        octets[..significant].copy_from_slice(network);
        let router = router.first_chunk::<4>().map_or(Ipv4Addr::UNSPECIFIED, |bytes| Ipv4Addr::from(*bytes));
        routes.push(Route { network: octets.into(), prefix_len, router });
        bytes = &rest[significant + 4..];
    }
    routes
}

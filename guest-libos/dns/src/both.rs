//! What the answers to both questions about a name come to, for A and for AAAA records.

use core::net::{IpAddr, Ipv4Addr};

use alloc::vec::Vec;

use crate::resolver::Failure;

/// The addresses of both families, IPv6's first: a simple form of RFC 6724's rules for destinations, for who asks about families
/// only that it has an address of. One answer with addresses is enough. If there is none, what is said is what was wrong with
/// IPv6's, unless that is only that there are no such addresses.
pub fn merge(
    ipv6: Result<Vec<IpAddr>, Failure>,
    ipv4: Result<Vec<IpAddr>, Failure>,
) -> Result<Vec<IpAddr>, Failure> {
    match (ipv6, ipv4) {
        (Ok(mut addresses), Ok(ipv4)) => {
            addresses.extend(ipv4);
            Ok(addresses)
        }
        (Ok(addresses), Err(_)) | (Err(_), Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        (Err(Failure::NoAddress), Err(failure)) | (Err(failure), _) | (_, Err(failure)) => Err(failure),
    }
}

/// The first address that another host can have: neither unspecified nor loopback, no group's, and not IPv4's in the form of IPv6's.
pub fn first_host(addresses: &[IpAddr]) -> Result<IpAddr, Failure> {
    let first = addresses.iter().copied().find(|&address| is_host(address));
    first.ok_or(if addresses.is_empty() { Failure::NoAddress } else { Failure::NotAHost })
}

fn is_host(address: IpAddr) -> bool {
    let is_special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    let is_disguised = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    !is_special && !is_disguised && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

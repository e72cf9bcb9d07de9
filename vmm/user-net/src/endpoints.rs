//! Addresses and ports that the guest sees as its clients.
//!
//! Clients come from the gateway's address, as long as its ports last. A port is not used again soon, because the guest may
//! remember it in TIME-WAIT for a minute (RFC 9293 3.6.1): when the ports of one address are used up, the next address of
//! the network is taken.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::{GATEWAY_ADDRESS, GUEST_ADDRESS};

/// Ports of one address: 1024 to 65535.
const PORTS: u32 = 65536 - FIRST_PORT;
const FIRST_PORT: u32 = 1024;
/// Last octets of addresses: those of the network but its own and its broadcast address.
const OCTETS: u32 = 253;

/// Gives out one after the other.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    next: u32,
}

impl Endpoints {
    /// The next one that is not taken. `None` only if a great many are.
    pub(crate) fn next(&mut self, is_taken: impl Fn(SocketAddrV4) -> bool) -> Option<SocketAddrV4> {
        const TRIES: u32 = 4096;
        (0..TRIES).find_map(|_| {
            let number = self.next;
            self.next = (self.next + 1) % (OCTETS * PORTS);
            let endpoint = SocketAddrV4::new(address(number / PORTS), (FIRST_PORT + number % PORTS) as u16);
            (*endpoint.ip() != GUEST_ADDRESS && !is_taken(endpoint)).then_some(endpoint)
        })
    }
}

/// Addresses in the order of their use: the gateway's and those behind it.
fn address(number: u32) -> Ipv4Addr {
    let [a, b, c, gateway] = GATEWAY_ADDRESS.octets();
    let octet = (u32::from(gateway) - 1 + number) % (OCTETS + 1) + 1;
    Ipv4Addr::new(a, b, c, octet as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_begin_at_the_gateway_and_skip_the_guest() {
        let mut endpoints = Endpoints::default();
        let first = endpoints.next(|_| false).unwrap();
        assert_eq!(first, SocketAddrV4::new(GATEWAY_ADDRESS, 1024));
        let mut addresses = vec![*first.ip()];
        for _ in 0..OCTETS {
            endpoints.next += PORTS - 1;
            endpoints.next %= OCTETS * PORTS;
            addresses.extend(endpoints.next(|_| false).map(|endpoint| *endpoint.ip()));
        }
        assert!(!addresses.contains(&GUEST_ADDRESS));
        assert!(addresses.iter().all(|address| !matches!(address.octets()[3], 0 | 255)), "{addresses:?}");
        addresses.sort();
        addresses.dedup();
        assert!(addresses.len() > 250, "{}", addresses.len());
    }

    #[test]
    fn taken_endpoints_are_passed_over() {
        let mut endpoints = Endpoints::default();
        assert_eq!(endpoints.next(|endpoint| endpoint.port() < 2000).unwrap().port(), 2000);
        assert_eq!(endpoints.next(|_| true), None);
    }
}

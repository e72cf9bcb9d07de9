//! The IPv6 part of `--net`: `ip6=ADDRESS/BITS`, `ip6=auto`, `gw6=ADDRESS`.

use abi::boot::{Ipv6Config, ipv6};
use std::net::Ipv6Addr;

/// The least MTU of a link that carries IPv6 (RFC 8200 5).
pub(super) const MTU_BYTES_MIN: u16 = 1280;

/// What was said of IPv6.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ipv6Argument {
    address: Option<(Ipv6Addr, u8)>,
    /// What routers advertise is used.
    automatic: bool,
    gateway: Option<Ipv6Addr>,
}

impl Ipv6Argument {
    /// Takes what is behind `ip6=`.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        let wrong =
            || format!("ip6={text}: write it as ADDRESS/BITS, for example 2001:db8::2/64, or as auto");
        if text == "auto" {
            self.automatic = true;
            return Ok(());
        }
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let bits = bits.parse().ok().filter(|bits| (1..=128).contains(bits)).ok_or_else(wrong)?;
        let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
        if !is_host(address) {
            return Err(format!("ip6={text}: no host can have that address; choose one such as 2001:db8::2"));
        }
        if self.address.replace((address, bits)).is_some() {
            return Err("ip6=: one address can be given, beside auto; leave the other out".to_owned());
        }
        Ok(())
    }

    /// Takes what is behind `gw6=`.
    pub(super) fn set_gateway(&mut self, text: &str) -> Result<(), String> {
        let gateway = text.parse().ok().filter(|&gateway| is_host(gateway));
        self.gateway = Some(gateway.ok_or_else(|| {
            format!("gw6={text}: not the IPv6 address of a host; write it as fe80::1 or 2001:db8::1")
        })?);
        Ok(())
    }

    /// Whether anything was said.
    pub(super) fn is_said(&self) -> bool {
        self.is_on() || self.gateway.is_some()
    }

    /// Whether the guest speaks IPv6.
    pub(super) fn is_on(&self) -> bool {
        self.automatic || self.address.is_some()
    }

    /// Whether the parts go together.
    pub(super) fn check(&self) -> Result<(), String> {
        let Some(gateway) = self.gateway else { return Ok(()) };
        if !self.is_on() {
            return Err("gw6= is for a guest with IPv6; say ip6=auto or ip6=ADDRESS/BITS as well".to_owned());
        }
        let is_near = |(address, bits): (Ipv6Addr, u8)| {
            let mask = u128::MAX << (128 - u32::from(bits.max(1)));
            (address.to_bits() ^ gateway.to_bits()) & mask == 0 && address != gateway
        };
        if gateway.is_unicast_link_local() || self.address.is_some_and(is_near) {
            return Ok(());
        }
        Err(format!(
            "gw6={gateway}: not another host on the guest's link; give the router's link-local address (`ip -6 addr` there shows \
             it), or one in the guest's own prefix"
        ))
    }

    /// As the guest is told.
    pub(super) fn config(&self) -> Ipv6Config {
        let (address, bits) = self.address.unwrap_or((Ipv6Addr::UNSPECIFIED, 0));
        let mode = match (self.automatic, self.address) {
            (true, _) => ipv6::AUTOMATIC,
            (false, Some(_)) => ipv6::GIVEN,
            (false, None) => ipv6::OFF,
        };
        Ipv6Config {
            address: address.octets(),
            gateway: self.gateway.unwrap_or(Ipv6Addr::UNSPECIFIED).octets(),
            prefix_len: bits.into(),
            mode,
        }
    }

    /// An address for the host's end of a tap that exovm makes itself: the guest's neighbour, with the length of the prefix.
    pub(super) fn for_host(&self) -> Option<(Ipv6Addr, u8)> {
        let (address, bits) = self.address.filter(|&(_, bits)| bits < 127)?;
        if let Some(gateway) = self.gateway {
            return Some((gateway, bits));
        }
        let network = address.to_bits() >> (128 - bits) << (128 - bits);
        let host = [1, 2].map(|number| Ipv6Addr::from_bits(network + number));
        host.into_iter().find(|&host| host != address).map(|host| (host, bits))
    }
}

/// Whether a host can have the address.
fn is_host(address: Ipv6Addr) -> bool {
    let is_special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !is_special && address.to_ipv4_mapped().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(parts: &str) -> Result<Ipv6Argument, String> {
        let mut argument = Ipv6Argument::default();
        for part in parts.split(',') {
            let (key, value) = part.split_once('=').expect("a key");
            match key {
                "ip6" => argument.add(value)?,
                _ => argument.set_gateway(value)?,
            }
        }
        argument.check().map(|()| argument)
    }

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().expect(text)
    }

    #[test]
    fn parts_become_what_the_guest_is_told() {
        let off = Ipv6Argument::default();
        assert_eq!((off.config().mode, off.is_said()), (ipv6::OFF, false));
        let given = argument("ip6=2001:db8::2/64,gw6=2001:db8::1").expect("good").config();
        assert_eq!((given.address, given.prefix_len), (ip("2001:db8::2").octets(), 64));
        assert_eq!((given.gateway, given.mode), (ip("2001:db8::1").octets(), ipv6::GIVEN));
        let automatic = argument("ip6=auto").expect("good").config();
        assert_eq!((automatic.mode, automatic.address), (ipv6::AUTOMATIC, [0; 16]));
        let both = argument("ip6=auto,ip6=2001:db8::2/64,gw6=fe80::1").expect("good").config();
        assert_eq!((both.mode, both.gateway), (ipv6::AUTOMATIC, ip("fe80::1").octets()));
    }

    #[test]
    fn nonsense_says_what_to_write() {
        for (parts, expected) in [
            ("ip6=2001:db8::2", "ADDRESS/BITS"),
            ("ip6=10.0.0.2/24", "ADDRESS/BITS"),
            ("ip6=2001:db8::2/129", "ADDRESS/BITS"),
            ("ip6=2001:db8::2/0", "ADDRESS/BITS"),
            ("ip6=dhcp", "or as auto"),
            ("ip6=ff02::1/64", "no host can have"),
            ("ip6=::1/128", "no host can have"),
            ("ip6=::ffff:10.0.0.2/96", "no host can have"),
            ("ip6=2001:db8::2/64,ip6=2001:db8::3/64", "one address"),
            ("ip6=auto,gw6=2001:db8::1", "not another host"),
            ("ip6=2001:db8::2/64,gw6=2001:db8:1::1", "not another host"),
            ("ip6=2001:db8::2/64,gw6=2001:db8::2", "not another host"),
            ("gw6=fe80::1", "ip6=auto"),
            ("ip6=auto,gw6=ff02::2", "not the IPv6 address of a host"),
        ] {
            let error = argument(parts).expect_err(parts);
            assert!(error.contains(expected), "{parts}: {error}");
        }
    }

    #[test]
    fn host_of_a_tap_of_our_own_is_the_guests_neighbour() {
        let host = |parts| argument(parts).expect("good").for_host();
        assert_eq!(host("ip6=2001:db8::2/64"), Some((ip("2001:db8::1"), 64)));
        assert_eq!(host("ip6=2001:db8::1/64"), Some((ip("2001:db8::2"), 64)));
        assert_eq!(host("ip6=2001:db8::7/64,gw6=2001:db8::9"), Some((ip("2001:db8::9"), 64)));
        assert_eq!((host("ip6=auto"), host("ip6=2001:db8::1/128")), (None, None));
    }
}

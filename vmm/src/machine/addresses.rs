//! The IPv6 addresses of a guest's interface, as its library OS says. It is shown to people and never relied on.

use abi::boot::{Ipv6Status, address_state};
use std::net::Ipv6Addr;
use std::sync::atomic::Ordering;

/// An IPv6 address of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Address {
    /// The address.
    pub ip: Ipv6Addr,
    /// Whether it is used.
    pub state: Ipv6AddressState,
}

/// Whether an address is used (RFC 4862 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6AddressState {
    /// Not yet: others are being asked whether they have it.
    Tentative,
    /// Yes.
    Used,
    /// Yes, and no port is served there.
    Unserved,
    /// No: somebody else on the link has it.
    Duplicate,
}

impl Ipv6Address {
    /// Whether it is its interface's.
    pub fn is_used(&self) -> bool {
        matches!(self.state, Ipv6AddressState::Used | Ipv6AddressState::Unserved)
    }

    /// Reads one; `None`: there is none, or it is just being written.
    pub(super) fn read(status: &Ipv6Status) -> Option<Self> {
        let before = status.state.load(Ordering::Acquire);
        let halves = [&status.high, &status.low].map(|half| u128::from(half.load(Ordering::Acquire)));
        let state = match before {
            address_state::TENTATIVE => Ipv6AddressState::Tentative,
            address_state::USED => Ipv6AddressState::Used,
            address_state::UNSERVED => Ipv6AddressState::Unserved,
            address_state::DUPLICATE => Ipv6AddressState::Duplicate,
            _ => return None,
        };
        let is_whole = status.state.load(Ordering::Acquire) == before;
        is_whole.then_some(Self { ip: Ipv6Addr::from_bits(halves[0] << 64 | halves[1]), state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn read_takes_what_is_whole_and_known() {
        let status = |state: u32| Ipv6Status {
            high: AtomicU64::new(0x2001_0db8 << 32),
            low: AtomicU64::new(2),
            state: state.into(),
            reserved: 0,
        };
        let ip: Ipv6Addr = "2001:db8::2".parse().expect("an address");
        let used = Some(Ipv6Address { ip, state: Ipv6AddressState::Used });
        assert_eq!(Ipv6Address::read(&status(address_state::USED)), used);
        for (told, state) in [
            (address_state::DUPLICATE, Ipv6AddressState::Duplicate),
            (address_state::UNSERVED, Ipv6AddressState::Unserved),
        ] {
            assert_eq!(Ipv6Address::read(&status(told)).map(|address| address.state), Some(state));
        }
        assert_eq!(Ipv6Address::read(&status(address_state::NONE)), None);
        assert_eq!(Ipv6Address::read(&status(77)), None);
    }
}

//! What the machine is told of the interface's addresses: IPv6 addresses as they come and go, and who else claims one of ours.

use abi::boot::{IPV6_ADDRESSES, Ipv6Status, address_state};
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::sync::atomic::Ordering;
use exos_net::{AddressConflict, AddressState, ConflictOutcome, Data, Instant, Ipv6Address, Stack};
use exos_runtime::pages;

/// What has been told of IPv6 addresses.
#[derive(Debug, Default)]
pub(crate) struct Told {
    changes: u32,
    addresses: Vec<Ipv6Address>,
}

impl Told {
    /// Whether there is something new to tell.
    #[inline]
    pub(crate) fn is_behind<D: Data>(&self, stack: &Stack<D>) -> bool {
        stack.ipv6_changes() != self.changes
    }

    /// Tells it; `is_served`: there is a port at an address.
    #[cold]
    pub(crate) fn catch_up<D: Data>(
        &mut self,
        now: Instant,
        stack: &Stack<D>,
        is_served: impl Fn(Ipv6Addr) -> bool,
    ) {
        self.changes = stack.ipv6_changes();
        let addresses: Vec<_> = stack.ipv6_addresses(now).collect();
        for address in &addresses {
            let was = self.addresses.iter().find(|known| known.ip == address.ip);
            let was_used = was.is_some_and(|known| is_used(known.state));
            if is_used(address.state) && !was_used {
                log::info!("IPv6: our address is {}", address.ip);
            }
        }
        for gone in &self.addresses {
            if is_used(gone.state) && !addresses.iter().any(|address| address.ip == gone.ip) {
                log::info!("IPv6: {} is not our address any more: nobody advertises it", gone.ip);
            }
        }
        for (place, status) in pages::status().ipv6.iter().enumerate() {
            write(status, addresses.get(place), &is_served);
        }
        self.addresses = addresses;
    }
}

fn is_used(state: AddressState) -> bool {
    matches!(state, AddressState::Preferred | AddressState::Deprecated)
}

fn write(status: &Ipv6Status, address: Option<&Ipv6Address>, is_served: impl Fn(Ipv6Addr) -> bool) {
    status.state.store(address_state::NONE, Ordering::Release);
    let Some(address) = address else { return };
    let state = match address.state {
        AddressState::Tentative => address_state::TENTATIVE,
        AddressState::Duplicate => address_state::DUPLICATE,
        AddressState::Preferred | AddressState::Deprecated if is_served(address.ip) => address_state::USED,
        AddressState::Preferred | AddressState::Deprecated => address_state::UNSERVED,
    };
    let bits = address.ip.to_bits();
    status.high.store((bits >> 64) as u64, Ordering::Release);
    status.low.store(bits as u64, Ordering::Release);
    status.state.store(state, Ordering::Release);
}

/// Whether the stack knows all of its addresses that it will have soon.
pub(crate) fn are_settled<D: Data>(stack: &Stack<D>) -> bool {
    stack.ipv6_is_settled() && !stack.is_probing()
}

/// Whether one of them is in use.
pub(crate) fn has_any<D: Data>(now: Instant, stack: &Stack<D>) -> bool {
    stack.address().is_some() || stack.ipv6_addresses(now).any(|address| is_used(address.state))
}

/// Whether this one is.
pub(crate) fn uses<D: Data>(now: Instant, stack: &Stack<D>, ip: Ipv6Addr) -> bool {
    stack.ipv6_addresses(now).any(|address| address.ip == ip && is_used(address.state))
}

/// Says who has or claims addresses of ours, as far as that is news; the machine is told that an IPv4 address is not used.
pub(crate) fn tell_conflicts<D: Data>(stack: &mut Stack<D>) {
    while let Some(conflict) = stack.take_address_conflict() {
        if conflict.address.is_ipv4() && conflict.outcome == ConflictOutcome::GivenUp {
            pages::status().given_ipv4.store(address_state::DUPLICATE, Ordering::Relaxed);
        }
        log_conflict(&conflict);
    }
}

/// Says, once, that routers advertise more prefixes than there is room for.
pub(crate) fn tell_refused(told: u64, refused: u64) {
    if told == 0 && refused > 0 {
        log::warn!(
            "IPv6: routers advertise more prefixes than we take: {IPV6_ADDRESSES} addresses in all, the link-local and the given \
             one among them; see that nobody else advertises on this link"
        );
    }
}

/// Says that somebody else has or claims an address of ours.
pub(crate) fn log_conflict(conflict: &AddressConflict) {
    let AddressConflict { address, by, outcome } = conflict;
    match outcome {
        ConflictOutcome::Kept => {
            log::error!(
                "{by} claims our address {address}, which we keep: one of us must get another (here: ip= or ip6= of --net)"
            );
        }
        ConflictOutcome::GivenUp => {
            log::error!(
                "{by} has our address {address}, so we do not use it: give us another (ip= or ip6= of --net)"
            );
        }
    }
}

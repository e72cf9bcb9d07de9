//! Source ports of connections that we open: RFC 6056 3.3.3, a hash of the destination plus a counter. Ports to one
//! destination follow each other, so they come back as late as possible, and tell nobody else which come next.

use core::hash::Hasher;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;

use siphasher::sip::SipHasher24;

/// Chooses source ports.
#[derive(Debug)]
pub(crate) struct SourcePorts {
    secret: [u8; 16],
    /// Where the search for the next one begins, beside the destination's offset.
    next: u32,
}

impl SourcePorts {
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        let mut hasher = SipHasher24::new_with_key(&secret);
        hasher.write(b"first port");
        Self { secret, next: hasher.finish() as u32 }
    }

    /// F(remote address, remote port, secret).
    fn offset(&self, remote: SocketAddr) -> u32 {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(b"port");
        match remote.ip() {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write_u16(remote.port());
        hasher.finish() as u32
    }

    /// A port of `range` that `is_free`, or `None` if there is none.
    pub(crate) fn choose(
        &mut self,
        range: &RangeInclusive<u16>,
        remote: SocketAddr,
        mut is_free: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        let (first, count) =
            (*range.start(), u32::from(*range.end()).checked_sub(u32::from(*range.start()))? + 1);
        let offset = self.offset(remote);
        for _ in 0..count {
            let port = first + (self.next.wrapping_add(offset) % count) as u16;
            self.next = self.next.wrapping_add(1);
            if is_free(port) {
                return Some(port);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn remote(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 80).into()
    }

    #[test]
    fn ports_to_one_destination_do_not_repeat_before_all_were_used() {
        let mut ports = SourcePorts::new([1; 16]);
        let range = 50_000..=50_099;
        let mut seen: Vec<u16> =
            (0..100).map(|_| ports.choose(&range, remote(2), |_| true).unwrap()).collect();
        assert_eq!(ports.choose(&range, remote(2), |_| true), Some(seen[0]));
        seen.sort_unstable();
        assert_eq!(seen, range.collect::<Vec<_>>());
    }

    #[test]
    fn ports_in_use_are_passed_over_and_none_is_left_when_all_are() {
        let mut ports = SourcePorts::new([1; 16]);
        assert_eq!(ports.choose(&(7..=9), remote(2), |port| port == 8), Some(8));
        assert_eq!(ports.choose(&(7..=9), remote(2), |_| false), None);
        assert_eq!(ports.choose(&(65_535..=65_535), remote(2), |_| true), Some(65_535));
    }

    #[test]
    fn ports_differ_by_destination_and_secret() {
        let range = 1_024..=65_535;
        let first = |secret: u8, last| {
            let mut ports = SourcePorts { secret: [secret; 16], next: 0 };
            ports.choose(&range, remote(last), |_| true)
        };
        assert_ne!(first(1, 2), first(1, 3));
        assert_ne!(first(1, 2), first(2, 2));
    }
}

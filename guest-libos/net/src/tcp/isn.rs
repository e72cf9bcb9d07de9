//! Secrets and what is made of them: initial sequence numbers (RFC 6528), timestamp offsets and the hash of the connection tables. All
//! come from `Config::secret`, each with a key of its own, so learning one tells nothing about the other.

use core::hash::{BuildHasher, Hash, Hasher};
use core::net::IpAddr;

use siphasher::sip::{SipHasher13, SipHasher24};

use super::Seq;
use super::pairs::Pair;
use super::table::FlowKey;
use crate::time::Instant;

/// Both ends of a connection: what its secrets are made of. The key alone is not enough for IPv6, where it is another one
/// each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) key: FlowKey,
    /// Of IPv6.
    pub(crate) pair: Option<Pair>,
}

impl Flow {
    /// By a key.
    fn hash(self, key: &SipHasher24) -> u64 {
        match self.pair {
            None => key.hash(&self.key.0.to_le_bytes()),
            Some(_) => {
                let mut hasher = *key;
                self.write(&mut hasher);
                hasher.finish()
            }
        }
    }

    pub(crate) fn write(self, hasher: &mut impl Hasher) {
        match self.pair {
            None => hasher.write_u64(self.key.0),
            Some(pair) => {
                pair.hash(hasher);
                hasher.write_u16(self.key.peer_port());
                hasher.write_u16(self.key.local_port());
            }
        }
    }
}

/// Draws initial sequence numbers.
#[derive(Debug)]
pub(crate) struct IsnGenerator {
    numbers: SipHasher24,
    timestamps: SipHasher24,
}

/// A key of its own for what `label` says.
fn derive(secret: &[u8; 16], label: u8) -> SipHasher24 {
    let word = |half| SipHasher24::new_with_key(secret).hash(&[label, half]);
    SipHasher24::new_with_keys(word(0), word(1))
}

impl IsnGenerator {
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        Self { numbers: derive(&secret, b'n'), timestamps: derive(&secret, b't') }
    }

    /// What a connection's timestamps add to the clock (RFC 7323 5.4): the same whenever its addresses come again, so that
    /// they go on where those of the last connection ended (RFC 6191).
    pub(crate) fn timestamp_offset(&self, flow: Flow) -> u32 {
        flow.hash(&self.timestamps) as u32
    }

    /// RFC 6528 3: ISN = M + F(connection), M a clock that ticks every 4 microseconds.
    pub(crate) fn next(&self, flow: Flow, now: Instant) -> Seq {
        Seq::new(flow.hash(&self.numbers) as u32) + (now.as_nanos() / 4_000) as u32
    }
}

/// Identifies the fragments of a datagram (RFC 6864): a counter that for each peer begins somewhere else, so that nobody can
/// guess it from what he is sent (RFC 7739 5.3).
pub(crate) fn identification(secret: [u8; 16], peer: IpAddr, counter: u32) -> u32 {
    let mut hasher = SipHasher24::new_with_key(&secret);
    hasher.write(b"identification");
    match peer {
        IpAddr::V4(peer) => hasher.write(&peer.octets()),
        IpAddr::V6(peer) => hasher.write(&peer.octets()),
    }
    (hasher.finish() as u32).wrapping_add(counter)
}

/// Hashes connection keys with a secret, so that nobody outside can aim at one bucket. SipHash-1-3 would do it as well;
/// a multiplication folded to itself does it in a few cycles, and its results never leave the machine.
#[derive(Clone, Debug)]
pub(crate) struct FlowHash {
    addend: u64,
    factor: u64,
}

impl FlowHash {
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        let derive = |label: &[u8]| {
            let mut hasher = SipHasher13::new_with_key(&secret);
            hasher.write(label);
            hasher.finish()
        };
        Self { addend: derive(b"table addend"), factor: derive(b"table factor") | 1 }
    }
}

impl BuildHasher for FlowHash {
    type Hasher = FlowHasher;

    fn build_hasher(&self) -> FlowHasher {
        FlowHasher { keys: self.clone(), hash: 0 }
    }
}

pub(crate) struct FlowHasher {
    keys: FlowHash,
    hash: u64,
}

impl Hasher for FlowHasher {
    fn finish(&self) -> u64 {
        self.hash
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.hash ^ value ^ self.keys.addend) * u128::from(self.keys.factor);
        self.hash = product as u64 ^ (product >> 64) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;

    const fn flow(key: u64) -> Flow {
        Flow { key: FlowKey(key), pair: None }
    }

    #[test]
    fn secrets_of_ipv6_come_from_the_addresses_and_not_from_their_number() {
        let isn = IsnGenerator::new([7; 16]);
        let flow = |number, last: u16| {
            let peer = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last);
            let pair = Some(Pair { local: Ipv6Addr::LOCALHOST, peer });
            Flow { key: FlowKey::of_pair(number, 1_000, 80), pair }
        };
        let of = |flow| (isn.next(flow, Instant::ZERO), isn.timestamp_offset(flow));
        assert_eq!(of(flow(0, 1)), of(flow(7, 1)));
        assert_ne!(of(flow(0, 1)).0, of(flow(0, 2)).0);
        assert_ne!(of(flow(0, 1)).1, of(flow(0, 2)).1);
        let other_port = Flow { key: FlowKey::of_pair(0, 1_001, 80), ..flow(0, 1) };
        assert_ne!(of(flow(0, 1)), of(other_port));
    }

    #[test]
    fn isn_advances_with_the_clock_and_differs_by_connection_and_secret() {
        let isn = IsnGenerator::new([7; 16]);
        let (key, later) = (flow(1), Instant::from_micros(400));
        assert_eq!(isn.next(key, later).since(isn.next(key, Instant::ZERO)), 100);
        assert_ne!(isn.next(key, Instant::ZERO), isn.next(flow(2), Instant::ZERO));
        assert_ne!(isn.next(key, Instant::ZERO), IsnGenerator::new([8; 16]).next(key, Instant::ZERO));
    }

    #[test]
    fn timestamp_offset_differs_by_connection_and_secret_and_not_from_time_to_time() {
        let (first, other) = (IsnGenerator::new([7; 16]), IsnGenerator::new([8; 16]));
        let offset = first.timestamp_offset(flow(1));
        assert_eq!(offset, first.timestamp_offset(flow(1)));
        assert_ne!(offset, first.timestamp_offset(flow(2)));
        assert_ne!(offset, other.timestamp_offset(flow(1)));
    }

    #[test]
    fn flow_hash_spreads_neighbouring_ports() {
        let hash = FlowHash::new([3; 16]);
        let mut buckets = [0u32; 256];
        for port in 0..25_600u64 {
            buckets[(hash.hash_one(FlowKey(0x0a00_0001_0000_0050 | port << 16)) >> 56) as usize] += 1;
        }
        assert!(buckets.iter().all(|&count| count > 30 && count < 300), "{buckets:?}");
    }
}

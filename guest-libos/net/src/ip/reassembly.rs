//! Datagrams that arrive in fragments (RFC 791 3.2, RFC 815), kept piece by piece until they are whole. What a sender can
//! make us keep is bounded in datagrams, bytes, pieces and time; beyond its share a source pushes out its own, so that
//! service for others goes on. As RFC 5722 asks for IPv6, a datagram whose fragments overlap is given up, with all of it
//! that is still to come: whoever sends such wants to be read in two ways.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::config::Config;
use crate::time::{Duration, Instant};
use crate::wire::Ecn;
use crate::wire::ethernet::MacAddress;

/// The largest datagram, by the length field of its header.
const MAX_DATAGRAM_BYTES: usize = 65_535;
/// The most fragments of one datagram: 64 KiB over links of IPv4's least size for receivers, 576 bytes.
const MAX_FRAGMENTS: usize = 128;
/// What keeping a fragment costs beside its bytes.
pub(crate) const FRAGMENT_COST_BYTES: usize = 64;
/// One source may take a quarter of each bound.
pub(crate) const SOURCE_SHARE: usize = 4;
/// The most of a datagram's beginning that an ICMP error quotes: its header with all options and eight bytes.
pub(crate) const QUOTE_BYTES: usize = 68;

/// What fragments of one datagram have in common (RFC 791 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) identification: u32,
}

/// A fragment as it arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'f> {
    /// Where its payload belongs, in bytes.
    pub(crate) offset: usize,
    /// More follow behind it.
    pub(crate) more: bool,
    /// What the datagram carries, by the word of this fragment: that of the first counts (RFC 8200 4.5).
    pub(crate) next_header: u8,
    pub(crate) payload: &'f [u8],
    /// The packet from its header on, of which errors quote the beginning.
    pub(crate) packet: &'f [u8],
    /// Who sent it on the link.
    pub(crate) sender: MacAddress,
    pub(crate) ecn: Ecn,
}

/// The beginning of a datagram's first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    bytes: [u8; QUOTE_BYTES],
    len: u8,
}

impl Quote {
    pub(crate) fn new(packet: &[u8]) -> Self {
        let len = packet.len().min(QUOTE_BYTES);
        let mut bytes = [0; QUOTE_BYTES];
        bytes[..len].copy_from_slice(&packet[..len]);
        Self { bytes, len: len as u8 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A datagram that is whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) next_header: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) quote: Quote,
    /// Who sent its first fragment on the link.
    pub(crate) sender: MacAddress,
    /// Marked if any fragment was (RFC 3168 5.3).
    pub(crate) ecn: Ecn,
}

/// A datagram whose time is over, of which the first fragment is there: who sent it is told (RFC 792, time exceeded).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TimedOut {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) sender: MacAddress,
    pub(crate) quote: Quote,
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Kept, or known already.
    Kept,
    /// It was the last that was missing.
    Complete(Whole),
    /// Dropped, and with it what there was of its datagram.
    Refused,
    /// Dropped: it belongs to a datagram that was refused before.
    Ignored,
}

#[derive(Debug)]
struct Piece {
    offset: usize,
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }
}

#[derive(Debug)]
struct Datagram {
    key: Key,
    expires_at: Instant,
    /// In order of offsets, without overlaps.
    pieces: Vec<Piece>,
    /// Where the last fragment ends, once it is there.
    end: Option<usize>,
    first: Option<(Quote, MacAddress, u8)>,
    /// Of all fragments until now.
    ecn: Option<Ecn>,
    /// What it is charged with.
    cost_bytes: usize,
    refused: bool,
}

/// Why a fragment does not go with the others of its datagram.
#[derive(Debug, PartialEq, Eq)]
enum Misfit {
    /// The same again.
    Repeated,
    /// It overlaps another, or lies beyond the end, or there are too many.
    Wrong,
}

impl Datagram {
    fn received_bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes.len()).sum()
    }

    /// Where among the pieces `fragment` goes.
    fn place(&self, fragment: &Fragment<'_>) -> Result<usize, Misfit> {
        let end = fragment.offset + fragment.payload.len();
        let place = self.pieces.partition_point(|piece| piece.offset < fragment.offset);
        if let Some(piece) = self.pieces.get(place)
            && piece.offset == fragment.offset
            && piece.bytes == fragment.payload
            && fragment.more == (self.end != Some(end))
        {
            return Err(Misfit::Repeated);
        }
        let before = place.checked_sub(1).and_then(|before| self.pieces.get(before));
        let overlaps = before.is_some_and(|piece| piece.end() > fragment.offset)
            || self.pieces.get(place).is_some_and(|piece| piece.offset < end);
        // Nothing lies behind the last fragment, and there is one last fragment.
        let beyond = match (self.end, fragment.more) {
            (None, true) => false,
            (None, false) => place < self.pieces.len(),
            (Some(known), true) => end > known,
            (Some(_), false) => true,
        };
        if overlaps || beyond || self.pieces.len() >= MAX_FRAGMENTS {
            return Err(Misfit::Wrong);
        }
        Ok(place)
    }

    /// Nothing of it is wanted any more, until its time is over.
    fn refuse(&mut self) {
        self.pieces = Vec::new();
        self.first = None;
        self.refused = true;
        self.cost_bytes = 0;
    }

    fn into_whole(self) -> Option<Whole> {
        let (quote, sender, next_header) = self.first?;
        let mut payload = Vec::with_capacity(self.received_bytes());
        for piece in &self.pieces {
            payload.extend_from_slice(&piece.bytes);
        }
        Some(Whole { next_header, payload, quote, sender, ecn: self.ecn.unwrap_or_default() })
    }
}

/// RFC 3168 5.3: a mark on one fragment is one on the datagram, unless another could not have been marked: then somebody has
/// written into the field, and the datagram is given up.
fn merged(before: Option<Ecn>, ecn: Ecn) -> Option<Ecn> {
    match (before.unwrap_or(ecn), ecn) {
        (Ecn::Congested, Ecn::NotCapable) | (Ecn::NotCapable, Ecn::Congested) => None,
        (Ecn::Congested, _) | (_, Ecn::Congested) => Some(Ecn::Congested),
        (Ecn::NotCapable, _) | (_, Ecn::NotCapable) => Some(Ecn::NotCapable),
        (Ecn::Capable0 | Ecn::Capable1, before) => Some(before),
    }
}

/// All datagrams that are not whole yet, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    datagrams: Vec<Datagram>,
    /// What all are charged with.
    cost_bytes: usize,
    /// Datagrams that were refused, ran out of time or gave way (RFC 4293's ReasmFails).
    pub(crate) fails: u64,
}

impl Reassembly {
    /// Takes a fragment.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        config: &Config,
        key: Key,
        fragment: &Fragment<'_>,
    ) -> Outcome {
        let max_bytes = config.max_reassembly_bytes;
        let cost = fragment.payload.len() + FRAGMENT_COST_BYTES;
        let index = match self.datagrams.iter().position(|datagram| datagram.key == key) {
            Some(index) => index,
            None if config.max_reassemblies == 0 => {
                self.fails += 1;
                return Outcome::Refused;
            }
            None => self.begin(now, config, key),
        };
        let datagram = &mut self.datagrams[index];
        if datagram.refused {
            return Outcome::Ignored;
        }
        let place = match datagram.place(fragment) {
            Ok(place) => place,
            Err(Misfit::Repeated) => return Outcome::Kept,
            Err(Misfit::Wrong) => return self.refuse(index),
        };
        if !self.make_room(key, cost, max_bytes) {
            let index = self.datagrams.iter().position(|datagram| datagram.key == key);
            return index.map_or(Outcome::Refused, |index| self.refuse(index));
        }
        let Some(index) = self.datagrams.iter().position(|datagram| datagram.key == key) else {
            return Outcome::Refused;
        };
        let datagram = &mut self.datagrams[index];
        let Some(ecn) = merged(datagram.ecn, fragment.ecn) else { return self.refuse(index) };
        datagram.ecn = Some(ecn);
        let end = fragment.offset + fragment.payload.len();
        datagram.pieces.insert(place, Piece { offset: fragment.offset, bytes: fragment.payload.to_vec() });
        datagram.cost_bytes += cost;
        self.cost_bytes += cost;
        if fragment.offset == 0 {
            datagram.first = Some((Quote::new(fragment.packet), fragment.sender, fragment.next_header));
        }
        if !fragment.more {
            datagram.end = Some(end);
        }
        // Without overlaps, as many bytes as there are to be are all of them.
        if datagram.end != Some(datagram.received_bytes()) {
            return Outcome::Kept;
        }
        let datagram = self.remove(index);
        datagram.into_whole().map_or(Outcome::Refused, Outcome::Complete)
    }

    /// Begins a datagram and returns its place; if there are too many, of its source or in all, the oldest gives way.
    fn begin(&mut self, now: Instant, config: &Config, key: Key) -> usize {
        let max = usize::from(config.max_reassemblies);
        let share = max.div_ceil(SOURCE_SHARE);
        let of_source = |datagram: &Datagram| datagram.key.source == key.source;
        if self.datagrams.iter().filter(|datagram| of_source(datagram)).count() >= share {
            if let Some(oldest) = self.datagrams.iter().position(of_source) {
                self.give_way(oldest);
            }
        } else if self.datagrams.len() >= max {
            self.give_way(0);
        }
        self.datagrams.push(Datagram {
            key,
            expires_at: now + config.reassembly_timeout,
            pieces: Vec::new(),
            end: None,
            first: None,
            ecn: None,
            cost_bytes: 0,
            refused: false,
        });
        self.datagrams.len() - 1
    }

    /// Makes room for `cost` more bytes of the datagram `key`, and tells whether there is.
    fn make_room(&mut self, key: Key, cost: usize, max_bytes: usize) -> bool {
        let share = max_bytes / SOURCE_SHARE;
        let holds = |datagram: &Datagram| datagram.cost_bytes > 0 && datagram.key != key;
        loop {
            let of_source = self.datagrams.iter().filter(|datagram| datagram.key.source == key.source);
            let source_bytes: usize = of_source.map(|datagram| datagram.cost_bytes).sum();
            let oldest = if source_bytes + cost > share {
                self.datagrams
                    .iter()
                    .position(|datagram| holds(datagram) && datagram.key.source == key.source)
            } else if self.cost_bytes + cost > max_bytes {
                self.datagrams.iter().position(holds)
            } else {
                return true;
            };
            let Some(oldest) = oldest else { return false };
            self.give_way(oldest);
        }
    }

    fn give_way(&mut self, index: usize) {
        let gone = self.remove(index);
        self.fails += u64::from(!gone.refused);
    }

    fn refuse(&mut self, index: usize) -> Outcome {
        if let Some(datagram) = self.datagrams.get_mut(index) {
            self.cost_bytes -= datagram.cost_bytes;
            datagram.refuse();
            self.fails += 1;
        }
        Outcome::Refused
    }

    fn remove(&mut self, index: usize) -> Datagram {
        let datagram = self.datagrams.remove(index);
        self.cost_bytes -= datagram.cost_bytes;
        datagram
    }

    /// Forgets a datagram whose time is over, and says whom to tell, if anybody. `None`: there is no more.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Option<TimedOut>> {
        if self.datagrams.first()?.expires_at > now {
            return None;
        }
        let datagram = self.remove(0);
        self.fails += u64::from(!datagram.refused);
        let Key { source, destination, .. } = datagram.key;
        Some(datagram.first.map(|(quote, sender, _)| TimedOut { source, destination, sender, quote }))
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.datagrams.first().map_or(Instant::NEVER, |datagram| datagram.expires_at)
    }

    pub(crate) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// # Panics
    /// If pieces overlap, or are not all counted.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self) {
        for datagram in &self.datagrams {
            let mut end = 0;
            for piece in &datagram.pieces {
                assert!(end <= piece.offset, "pieces overlap");
                end = piece.end();
            }
            assert!(datagram.pieces.len() <= MAX_FRAGMENTS && end <= MAX_DATAGRAM_BYTES);
            let cost = datagram.received_bytes() + datagram.pieces.len() * FRAGMENT_COST_BYTES;
            assert_eq!(datagram.cost_bytes, cost);
        }
        assert_eq!(self.cost_bytes, self.datagrams.iter().map(|datagram| datagram.cost_bytes).sum::<usize>());
    }

    pub(crate) fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }
}

/// Whether a fragment can be part of any datagram: it brings something, ends at a multiple of eight bytes if more follow,
/// and does not end beyond the largest datagram, with a header of `header_len` bytes before it.
pub(crate) fn is_possible(offset: usize, payload_len: usize, more: bool, header_len: usize) -> bool {
    payload_len > 0
        && (!more || payload_len.is_multiple_of(8))
        && header_len + offset + payload_len <= MAX_DATAGRAM_BYTES
}

/// RFC 791 3.2 calls fifteen seconds the least; what is used today is thirty.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    fn key(identification: u32) -> Key {
        let (source, destination) = (Ipv4Addr::new(10, 0, 0, 2).into(), Ipv4Addr::new(10, 0, 0, 1).into());
        Key { source, destination, protocol: 17, identification }
    }

    fn config() -> Config {
        Config::new(MacAddress([2; 6]), Ipv4Addr::new(10, 0, 0, 1), 24, [1; 16])
    }

    /// A datagram by the byte: which fragments came, and what they said.
    #[derive(Default)]
    struct Model {
        parts: Vec<(usize, Vec<u8>, bool)>,
        refused: bool,
    }

    impl Model {
        fn insert(&mut self, offset: usize, bytes: &[u8], more: bool) -> Outcome {
            if self.refused {
                return Outcome::Ignored;
            }
            let new = (offset, bytes.to_vec(), more);
            if self.parts.contains(&new) {
                return Outcome::Kept;
            }
            self.parts.push(new);
            let mut said: [Option<u8>; 256] = [None; 256];
            let ends: Vec<usize> =
                self.parts.iter().filter(|part| !part.2).map(|part| part.0 + part.1.len()).collect();
            let mut wrong = ends.len() > 1;
            for (offset, bytes, _) in &self.parts {
                for (index, byte) in bytes.iter().enumerate() {
                    let at = offset + index;
                    wrong |= said[at].replace(*byte).is_some() || ends.first().is_some_and(|&end| at >= end);
                }
            }
            if wrong {
                self.refused = true;
                return Outcome::Refused;
            }
            match ends.first() {
                Some(&end) if said[..end].iter().all(Option::is_some) => {
                    let first = self.parts.iter().find(|part| part.0 == 0).map(|part| part.1.clone());
                    *self = Self::default();
                    Outcome::Complete(Whole {
                        next_header: 17,
                        ecn: Ecn::NotCapable,
                        payload: said[..end].iter().flatten().copied().collect(),
                        quote: Quote::new(&first.unwrap_or_default()),
                        sender: MacAddress([7; 6]),
                    })
                }
                _ => Outcome::Kept,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        /// Fragments of two datagrams, fitting, repeated, overlapping or contradicting each other.
        #[test]
        fn reassembly_equals_model(
            steps in proptest::collection::vec((0u32..2, 0usize..5, 1usize..4, 0u8..8, 0u8..12), 0..40)
        ) {
            let config = config();
            let mut reassembly = Reassembly::default();
            let mut models = [Model::default(), Model::default()];
            for (which, start, len, last, other) in steps {
                // Mostly the cut into pieces of sixteen bytes that the sender would have chosen.
                let (offset, len) = if other > 2 { (start / 2 * 16, 16) } else { (start * 8, len * 8) };
                let more = if other > 1 { offset < 32 } else { last > 1 };
                let bytes: Vec<u8> = (0..len).map(|i| (offset + i) as u8 ^ u8::from(other == 0)).collect();
                let fragment =
                    Fragment { offset, more, next_header: 17, payload: &bytes, packet: &bytes, sender: MacAddress([7; 6]), ecn: Ecn::NotCapable };
                let outcome = reassembly.insert(Instant::ZERO, &config, key(which), &fragment);
                let expected = models[which as usize].insert(offset, &bytes, more);
                prop_assert_eq!(outcome, expected);
                let held: usize = models.iter().filter(|model| !model.refused)
                    .flat_map(|model| &model.parts).map(|part| part.1.len() + FRAGMENT_COST_BYTES).sum();
                prop_assert_eq!(reassembly.cost_bytes(), held);
            }
        }
    }
}

//! Whatever comes, nothing panics, memory stays as it is, and only what belongs to a connection goes on.

use crate::common::*;
use crate::icmp::{Message, error};
use exos_forward::{Config, HEAD_BYTES, Meta, Outgoing, Verdict};
use proptest::prelude::*;
use proptest::sample::Index;

/// Bytes that are not as they should be.
fn changes() -> impl Strategy<Value = Vec<(Index, u8)>> {
    proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4)
}

fn change(bytes: &mut [u8], changes: Vec<(Index, u8)>) {
    for (at, value) in changes {
        let at = at.index(bytes.len());
        bytes[at] = value;
    }
}

/// Frames that are nearly right.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![Just(SYN), Just(ACK), Just(SYN | ACK), Just(FIN | ACK), Just(RST), any::<u8>()];
    let segment = (hosts(), any::<bool>(), flags, 1..20u16, any::<[u32; 2]>()).prop_map(
        |(hosts, from_client, flags, port, [a, b])| {
            let frame = if from_client {
                hosts.of_client(flags).port(port)
            } else {
                hosts.of_server(port * 3000, flags)
            };
            Frame { data: vec![1; 100], ..frame.numbers(a, b) }.bytes()
        },
    );
    let discovery = prop_oneof![Just(Discovery::solicitation()), Just(Discovery::advertisement())];
    let base = prop_oneof![4 => segment, 1 => discovery.prop_map(|discovery| discovery.bytes())];
    (base, changes(), any::<Index>(), 0..4u8).prop_map(|(mut bytes, changes, end, cut)| {
        change(&mut bytes, changes);
        if cut == 0 {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        bytes
    })
}

/// What comes next.
#[derive(Clone, Debug)]
enum Comes {
    Frame(Vec<u8>),
    /// An error about the frame that was sent last.
    Error {
        kind: u8,
        quote_bytes: Index,
        changes: Vec<(Index, u8)>,
        /// Its checksum is of what was changed.
        is_summed: bool,
    },
}

impl Comes {
    fn frame(self, last: &[u8]) -> Vec<u8> {
        let (kind, quote_bytes, changes, is_summed) = match self {
            Self::Frame(bytes) => return bytes,
            Self::Error { kind, quote_bytes, changes, is_summed } => (kind, quote_bytes, changes, is_summed),
        };
        let hosts = if last[12..14] == [8, 0] { IPV4 } else { IPV6 };
        let mut quote = last[14..=14 + quote_bytes.index(last.len() - 14)].to_vec();
        if is_summed {
            change(&mut quote, changes);
            return of_kind(hosts, kind, &quote);
        }
        let mut bytes = of_kind(hosts, kind, &quote);
        change(&mut bytes, changes);
        bytes
    }
}

fn of_kind(hosts: Hosts, kind: u8, quote: &[u8]) -> Vec<u8> {
    Message { header: (kind, 0, [0; 4]), ..error(hosts, quote) }.bytes()
}

fn comes() -> impl Strategy<Value = Comes> {
    let kind = prop::sample::select(vec![1, 2, 3, 3, 4, 11, 12]);
    prop_oneof![
        2 => nearly().prop_map(Comes::Frame),
        1 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(Comes::Frame),
        1 => (kind, any::<Index>(), changes(), any::<bool>())
            .prop_map(|(kind, quote_bytes, changes, is_summed)| Comes::Error { kind, quote_bytes, changes, is_summed }),
    ]
}

/// Whether a frame is an ICMP message whose checksum is right.
fn is_right_icmp(frame: &[u8]) -> bool {
    let (message, pseudo) = match frame {
        _ if frame.len() >= 42 && frame[12..15] == [8, 0, 0x45] && frame[23] == 1 => {
            let len_bytes = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            (frame.get(34..14 + len_bytes), vec![])
        }
        _ if frame.len() >= 62 && frame[12..14] == [0x86, 0xdd] && frame[14] >> 4 == 6 && frame[20] == 58 => {
            let len_bytes = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
            (frame.get(54..54 + len_bytes), [&frame[22..54], &frame[18..20], &[0, 58]].concat())
        }
        _ => return false,
    };
    let Some(message) = message else { return false };
    let words = [&pseudo, message].concat();
    let sum: u64 = words
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    sum != 0 && sum.is_multiple_of(0xFFFF)
}

proptest! {
    #[test]
    fn nothing_panics_and_what_goes_on_is_whole(
        frames in proptest::collection::vec(
            (comes(), any::<bool>(), proptest::option::of(any::<u16>()), 0..100u64), 1..100)
    ) {
        let mut bench = Bench::new(&Config { max_connections: 8, ..config() });
        let mut head = [0; HEAD_BYTES];
        let mut last = bench.forwarded(&Frame { data: vec![1; 100], ..IPV6.of_client(SYN) });
        for (comes, is_partial, segment_bytes, later) in frames {
            bench.now += seconds(later);
            bench.poll();
            let (is_error, frame) = (matches!(comes, Comes::Error { .. }), comes.frame(&last));
            let meta = if is_error { Meta::default() } else { Meta { is_partial, segment_bytes } };
            let was_right = is_right_icmp(&frame);
            let verdict = bench.forwarder.forward(bench.now, &frame, &mut head, meta);
            prop_assert!(bench.connections().iter().sum::<u32>() <= 2 * 8);
            let drops: u64 = bench.forwarder.counters().drops.iter().sum();
            prop_assert!(drops <= bench.forwarder.counters().frames_in);
            let Verdict::Send(outgoing) = verdict else { continue };
            let Outgoing { headers_bytes, rest_at, len_bytes, .. } = outgoing;
            prop_assert!(headers_bytes <= HEAD_BYTES && headers_bytes <= len_bytes);
            // What it does not have in its head it takes from the frame.
            prop_assert!(len_bytes == headers_bytes || rest_at + len_bytes - headers_bytes <= frame.len());
            prop_assert_eq!(&head[6..12], &OWN_MAC);
            let sent = [&head[..headers_bytes], outgoing.rest(&frame)].concat();
            prop_assert!(!is_error || was_right && is_right_icmp(&sent), "{:02x?}", sent);
            if !is_error {
                last = sent;
            }
        }
    }
}

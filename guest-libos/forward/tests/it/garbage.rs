//! Whatever comes, nothing panics, memory stays as it is, and only what belongs to a connection goes on.

use crate::common::*;
use exos_forward::{Config, HEAD_BYTES, Meta, Outgoing, Verdict};
use proptest::prelude::*;

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
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (base, changes, any::<prop::sample::Index>(), 0..4u8).prop_map(|(mut bytes, changes, end, cut)| {
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut == 0 {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        bytes
    })
}

proptest! {
    #[test]
    fn nothing_panics_and_what_goes_on_is_whole(
        frames in proptest::collection::vec((prop_oneof![nearly(), proptest::collection::vec(any::<u8>(), 0..200)],
            any::<bool>(), proptest::option::of(any::<u16>()), 0..100u64), 1..100)
    ) {
        let mut bench = Bench::new(&Config { max_connections: 8, ..config() });
        let mut head = [0; HEAD_BYTES];
        for (frame, is_partial, segment_bytes, later) in frames {
            bench.now += seconds(later);
            bench.poll();
            let verdict = bench.forwarder.forward(bench.now, &frame, &mut head, Meta { is_partial, segment_bytes });
            prop_assert!(bench.connections().iter().sum::<u32>() <= 2 * 8);
            let Verdict::Send(Outgoing { headers_bytes, len_bytes, .. }) = verdict else { continue };
            prop_assert!(headers_bytes <= HEAD_BYTES && headers_bytes <= len_bytes);
            // What it does not have in its head it takes from the frame.
            prop_assert!(len_bytes == headers_bytes || len_bytes <= frame.len());
            prop_assert_eq!(&head[6..12], &OWN_MAC);
            let drops: u64 = bench.forwarder.counters().drops.iter().sum();
            prop_assert!(drops <= bench.forwarder.counters().frames_in);
        }
    }
}

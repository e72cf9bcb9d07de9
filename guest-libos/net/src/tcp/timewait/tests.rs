//! Records one by one, their size, and any sequence of calls against a plain list.

use super::*;
use crate::tcp::pairs::Pair;
use crate::time::Duration;
use crate::wire::ethernet::MacAddress;
use core::net::Ipv6Addr;
use proptest::prelude::*;
use std::println;

fn config() -> Config {
    Config::new(MacAddress([2, 0, 0, 0, 0, 1]), [10, 0, 0, 1].into(), 24, [1; 16])
}

fn table(max: usize) -> TimeWaitTable {
    TimeWaitTable::new(max, [1; 16])
}

/// Between addresses of IPv4.
const fn flow(key: u64) -> Flow {
    Flow { key: FlowKey(key), pair: None }
}

fn record(expires_s: u64) -> TimeWaitRecord {
    TimeWaitRecord {
        sequence: Seq::new(500),
        acknowledgment: Seq::new(900),
        expires_at: Instant::from_millis(expires_s * 1000),
        timestamps: TimestampState::new(0, None, Instant::ZERO),
    }
}

fn segment(control: Control, sequence: u32) -> Segment<'static> {
    Segment {
        ece: false,
        cwr: false,
        ecn: crate::wire::Ecn::NotCapable,
        source_port: 1,
        destination_port: 2,
        sequence: Seq::new(sequence),
        urgent: None,
        acknowledgment: (control != Control::Syn).then_some(Seq::new(500)),
        control,
        window: 100,
        options: &[],
        payload: &[],
    }
}

#[test]
fn fin_that_is_not_the_peers_does_not_restart_the_wait() {
    let mut table = table(10);
    table.insert(flow(1), record(60));
    for sequence in [898, 900, 0] {
        let at_30 = Instant::from_millis(30_000);
        let answer = table.segment_arrives(flow(1), &segment(Control::Fin, sequence), at_30, &config());
        assert!(matches!(answer, Some(TimeWaitAnswer::Acknowledge { .. })), "{answer:?}");
    }
    assert_eq!(table.next_deadline(), Instant::from_millis(60_000));
}

#[test]
fn time_wait_repeated_fin_is_acknowledged_and_restarts_the_wait() {
    let mut table = table(10);
    table.insert(flow(1), record(60));
    let at_30 = Instant::from_millis(30_000);
    let answer = table.segment_arrives(flow(1), &segment(Control::Fin, 899), at_30, &config());
    let expected = TimeWaitAnswer::Acknowledge {
        sequence: Seq::new(500),
        acknowledgment: Seq::new(900),
        timestamps: None,
    };
    assert_eq!(answer, Some(expected));
    table.expire(Instant::from_millis(60_000));
    assert_eq!(table.len(), 1);
    table.expire(Instant::from_millis(90_000));
    assert_eq!((table.len(), table.next_deadline()), (0, Instant::NEVER));
}

#[test]
fn time_wait_rst_and_bare_ack_are_ignored() {
    let mut table = table(10);
    table.insert(flow(1), record(60));
    for control in [Control::Rst, Control::None] {
        let answer = table.segment_arrives(flow(1), &segment(control, 900), Instant::ZERO, &config());
        assert_eq!(answer, Some(TimeWaitAnswer::Ignore));
    }
    assert_eq!(table.len(), 1);
}

#[test]
fn time_wait_syn_reopens_only_with_a_later_sequence_number() {
    let mut table = table(10);
    table.insert(flow(1), record(60));
    let old = table.segment_arrives(flow(1), &segment(Control::Syn, 800), Instant::ZERO, &config());
    assert!(matches!(old, Some(TimeWaitAnswer::Acknowledge { .. })));
    let new = table.segment_arrives(flow(1), &segment(Control::Syn, 901), Instant::ZERO, &config());
    assert_eq!(new, Some(TimeWaitAnswer::Reopen { after: Seq::new(500) }));
    assert_eq!(table.len(), 0);
}

#[test]
fn time_wait_syn_with_later_timestamps_reopens_whatever_its_sequence_number() {
    let mut table = table(10);
    let recent = Some(Timestamps { value: 1_000, echo: 0 });
    let timestamps = TimestampState::new(0, recent, Instant::ZERO);
    let mut answer = |value: u32, sequence: u32| {
        table.insert(flow(1), TimeWaitRecord { timestamps, ..record(60) });
        let mut options = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        options[4..8].copy_from_slice(&value.to_be_bytes());
        let syn = Segment { options: &options, ..segment(Control::Syn, sequence) };
        let answer = table.segment_arrives(flow(1), &syn, Instant::ZERO, &config());
        matches!(answer, Some(TimeWaitAnswer::Reopen { .. }))
    };
    assert!(answer(1_001, 5));
    assert!(!answer(999, 5) && !answer(999, 901));
    assert!(!answer(1_000, 5) && answer(1_000, 901));
}

/// Of either family, whoever its peer is.
#[test]
fn time_wait_record_with_its_share_of_the_tables_takes_less_than_64_bytes() {
    // Just after it has grown, a hash table is filled to 7/16; each bucket has a number and a control byte.
    let (place, hash) = (size_of::<Place>(), ((size_of::<u32>() + 1) * 16).div_ceil(7));
    println!("{} bytes: {place} record, {hash} hash", place + hash);
    assert!(place + hash < 64);
}

#[test]
fn time_wait_of_ipv6_is_told_by_addresses_and_ports_and_not_by_their_number() {
    let flow = |number, peer: u128, port| Flow {
        key: FlowKey::of_pair(number, port, 80),
        pair: Some(Pair { local: Ipv6Addr::LOCALHOST, peer: Ipv6Addr::from_bits(peer) }),
    };
    let mut table = table(1_000);
    for peer in 0..10 {
        for port in 1..=10 {
            assert_eq!(table.insert(flow(7, peer, port), record(60)), 0);
        }
    }
    table.check();
    assert_eq!(table.len(), 100);
    assert!(table.contains(flow(8, 3, 4), Instant::ZERO));
    assert!(!table.contains(flow(7, 3, 11), Instant::ZERO) && !table.contains(flow(7, 10, 4), Instant::ZERO));
    // What has IPv6 goes on without our IPv4 address.
    table.insert(self::flow(1), record(60));
    table.forget_ipv4();
    table.check();
    assert!(table.len() == 100 && !table.contains(self::flow(1), Instant::ZERO));
}

#[test]
fn time_wait_of_the_same_flow_replaces_the_one_before() {
    let mut table = table(2);
    table.insert(flow(1), record(60));
    table.insert(flow(2), record(60));
    assert_eq!(table.insert(flow(1), record(61)), 0);
    table.check();
    table.expire(Instant::from_millis(60_000));
    assert!(table.len() == 1 && table.contains(flow(1), Instant::from_millis(60_000)));
}

proptest! {
    /// Connections that end, FINs that come again, SYNs that begin anew and time that passes, against a plain list.
    #[test]
    fn time_wait_equals_reference(
        steps in proptest::collection::vec((0u8..4, 0u64..12, 0u64..20_000), 0..200),
        max in 0usize..10,
    ) {
        let mut table = table(max);
        let mut reference: Vec<(u64, Instant)> = Vec::new();
        let mut now = Instant::ZERO;
        for (what, key, wait_ms) in steps {
            reference.retain(|&(_, at)| at > now);
            let known = reference.iter().position(|&(other, _)| other == key);
            let until = now + config().time_wait;
            match what {
                0 => {
                    let _ = known.map(|known| reference.remove(known));
                    let evicted = if max == 0 { 1 } else { u64::from(reference.len() == max) };
                    if max > 0 && reference.len() == max {
                        reference.remove(0);
                    }
                    if max > 0 {
                        reference.push((key, until));
                    }
                    prop_assert_eq!(table.insert(flow(key), TimeWaitRecord { expires_at: until, ..record(0) }), evicted);
                }
                1 => {
                    let answer = table.segment_arrives(flow(key), &segment(Control::Fin, 899), now, &config());
                    prop_assert_eq!(answer.is_some(), known.is_some());
                    if let Some(known) = known {
                        reference.remove(known);
                        reference.push((key, until));
                    }
                }
                2 => {
                    let answer = table.segment_arrives(flow(key), &segment(Control::Syn, 901), now, &config());
                    let reopens = matches!(answer, Some(TimeWaitAnswer::Reopen { .. }));
                    prop_assert_eq!(reopens, known.map(|known| reference.remove(known)).is_some());
                }
                _ => {
                    now += Duration::from_millis(wait_ms);
                    reference.retain(|&(_, at)| at > now);
                }
            }
            table.expire(now);
            table.check();
            prop_assert_eq!(table.len(), reference.len());
            prop_assert_eq!(table.next_deadline(), reference.first().map_or(Instant::NEVER, |&(_, at)| at));
            for key in 0..12 {
                let known = reference.iter().any(|&(other, _)| other == key);
                prop_assert_eq!(table.contains(flow(key), now), known);
            }
        }
    }
}

#[test]
fn time_wait_full_table_evicts_the_oldest() {
    let mut table = table(2);
    assert_eq!(table.insert(flow(1), record(60)), 0);
    assert_eq!(table.insert(flow(2), record(61)), 0);
    assert_eq!(table.insert(flow(3), record(62)), 1);
    let gone = table.segment_arrives(flow(1), &segment(Control::Fin, 899), Instant::ZERO, &config());
    assert_eq!((gone, table.len()), (None, 2));
}

#[test]
fn time_wait_restarts_do_not_grow_without_bound() {
    let mut table = table(4);
    table.insert(flow(1), record(60));
    for ms in 0..1_000 {
        let now = Instant::from_millis(ms);
        let _ = table.segment_arrives(flow(1), &segment(Control::Fin, 899), now, &config());
    }
    table.check();
    assert_eq!((table.len(), table.chunks.len(), table.chunks[0].len()), (1, 1, 1));
}

//! Records against a byte-by-byte reference.

use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// Shortly before the wrap.
const ISN: u32 = 0xffff_ff80;

fn seq(at: usize) -> Seq {
    Seq::new(ISN) + at as u32
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

#[test]
fn what_leaves_together_is_one_record_until_a_block_splits_it() {
    let mut board = Scoreboard::new();
    for segment in 0..10 {
        board.sent(seq(100 * segment), seq(100 * (segment + 1)), at(1));
    }
    assert_eq!(board.iter().count(), 1);
    board.sent(seq(1_000), seq(1_100), at(2));
    board.sack(seq(300), seq(500), |_| {});
    let shape: Vec<_> = board.iter().map(|record| (record.len(), record.fate, record.sent_at)).collect();
    let (flies, has) = (Fate::InFlight, Fate::Sacked);
    assert_eq!(shape, [(300, flies, at(1)), (200, has, at(1)), (500, flies, at(1)), (100, flies, at(2))]);
    // Blocks that grow do not make more records.
    board.sack(seq(300), seq(700), |piece| assert_eq!((piece.start, piece.end), (seq(500), seq(700))));
    board.sack(seq(200), seq(300), |_| {});
    assert_eq!(board.iter().map(Record::len).collect::<Vec<_>>(), [200, 500, 300, 100]);
}

#[test]
fn records_are_bounded_whatever_is_written_and_reported() {
    let mut board = Scoreboard::new();
    for byte in 0..5_000 {
        board.sent(seq(byte), seq(byte + 1), at(byte as u64));
    }
    assert_eq!(board.iter().count(), MAX_RECORDS);
    board.acknowledge(seq(500), |_| {});
    board.sent(seq(5_000), seq(50_000), at(9_000));
    for byte in 0..20_000 {
        board.sack(seq(5_001 + 2 * byte), seq(5_002 + 2 * byte), |_| {});
    }
    assert!(board.iter().count() <= MAX_RECORDS);
    while let Some((start, end)) = board.next_lost(1) {
        board.sent_again(start, end, at(10_000));
    }
    board.mark_lost(|_| true);
    while let Some((start, end)) = board.next_lost(1) {
        board.sent_again(start, end, at(11_000));
        assert!(board.iter().count() <= 2 * MAX_RECORDS);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Acknowledge(usize),
    Sack(usize, usize),
    Lose(usize),
    SendAgain(usize),
    ForgetSacks,
    ForgetLosses,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..60).prop_map(Step::Send),
        2 => (0usize..80).prop_map(Step::Acknowledge),
        4 => (0usize..150, 1usize..50).prop_map(|(start, len)| Step::Sack(start, len)),
        2 => (0usize..200).prop_map(Step::Lose),
        3 => (1usize..40).prop_map(Step::SendAgain),
        1 => Just(Step::ForgetSacks),
        1 => Just(Step::ForgetLosses),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Byte {
    fate: Fate,
    sent_at: u64,
    again: bool,
}

proptest! {
    /// The scoreboard against a list of bytes.
    #[test]
    fn scoreboard_equals_reference(steps in proptest::collection::vec(step(), 0..80)) {
        let mut board = Scoreboard::new();
        let mut bytes: Vec<Byte> = vec![];
        let mut una = 0;
        for (now, step) in (1..).zip(steps) {
            let next = una + bytes.len();
            match step {
                Step::Send(len) => {
                    board.sent(seq(next), seq(next + len), at(now));
                    bytes.extend(vec![Byte { fate: Fate::InFlight, sent_at: now, again: false }; len]);
                }
                Step::Acknowledge(len) => {
                    let len = len.min(bytes.len());
                    let news = bytes[..len].iter().filter(|byte| byte.fate != Fate::Sacked).count();
                    let mut told = 0;
                    board.acknowledge(seq(una + len), |piece| told += piece.len() as usize);
                    prop_assert_eq!(told, news);
                    bytes.drain(..len);
                    una += len;
                }
                Step::Sack(start, len) => {
                    let (start, end) = (start.min(bytes.len()), (start + len).min(bytes.len()));
                    let news = bytes[start..end].iter().filter(|byte| byte.fate != Fate::Sacked).count();
                    let mut told = 0;
                    board.sack(seq(una + start), seq(una + end), |piece| told += piece.len() as usize);
                    prop_assert_eq!(told, news);
                    bytes[start..end].iter_mut().for_each(|byte| byte.fate = Fate::Sacked);
                }
                Step::Lose(before) => {
                    // By age, as RACK does.
                    let age = now.saturating_sub(before as u64 / 4);
                    board.mark_lost(|record| record.sent_at <= at(age));
                    for byte in bytes.iter_mut().filter(|byte| byte.fate == Fate::InFlight && byte.sent_at <= age) {
                        byte.fate = Fate::Lost;
                    }
                }
                Step::SendAgain(max) => {
                    let first = bytes.iter().position(|byte| byte.fate == Fate::Lost);
                    let next_lost = board.next_lost(max as u32);
                    prop_assert_eq!(next_lost.map(|lost| lost.0), first.map(|first| seq(una + first)));
                    let Some((start, end)) = next_lost else { continue };
                    let first = first.unwrap();
                    let stretch = bytes[first..].iter().take_while(|byte| byte.fate == Fate::Lost).count();
                    prop_assert_eq!(end.since(start) as usize, stretch.min(max));
                    board.sent_again(start, end, at(now));
                    bytes[first..first + stretch.min(max)].fill(Byte { fate: Fate::InFlight, sent_at: now, again: true });
                }
                Step::ForgetSacks => {
                    // As after a timeout: all of it is lost and goes out again.
                    board.forget_sacks();
                    board.mark_lost(|_| true);
                    while let Some((start, end)) = board.next_lost(50) {
                        board.sent_again(start, end, at(now));
                    }
                    bytes.fill(Byte { fate: Fate::InFlight, sent_at: now, again: true });
                }
                Step::ForgetLosses => {
                    board.forget_losses();
                    for byte in bytes.iter_mut().filter(|byte| byte.fate == Fate::Lost) {
                        byte.fate = Fate::InFlight;
                    }
                }
            }
            prop_assert!(board.covers(seq(una), seq(una + bytes.len())), "{:?}", board);
            let told: Vec<(Fate, bool)> = board
                .iter()
                .flat_map(|record| vec![(record.fate, record.again && record.fate != Fate::Sacked); record.len() as usize])
                .collect();
            // Of what has arrived nobody needs to know when it was sent.
            let expected: Vec<(Fate, bool)> =
                bytes.iter().map(|byte| (byte.fate, byte.again && byte.fate != Fate::Sacked)).collect();
            prop_assert_eq!(told, expected);
        }
    }
}

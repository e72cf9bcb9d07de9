//! Messages: four words from one environment to another, the slice that goes with a call, and what becomes of those who wait when
//! the other side ends.

use crate::fixture::{Probe, said};

/// What the probe says, with as many spare places.
fn run(arguments: &[&str], spare: u32) -> Vec<String> {
    let probe = Probe::start(arguments, |config| {
        config.spare_environments = Some(spare);
        config.memory_bytes = Some(u64::from(64 + spare) << 20);
    });
    said(&probe.finish().held()).map(str::to_owned).collect()
}

#[test]
fn core_message_carries_words_both_ways_and_nothing_else() {
    assert_eq!(
        run(&["message-round-trip"], 3),
        [
            "the answer: Ok([51, 52, 53, 54])",
            "the child ended with 0 and got Stored { status: 0, from: 100000000, words: [41, 42, 43, 44], other: 0 }",
            "from 1 3 true: [1, 2, 3, 4]",
            "replied: Ok(())",
            "the child ended with 0 and got Stored { status: 0, from: 0, words: [fffffffffffffffe, fffffffffffffffd, \
             fffffffffffffffc, fffffffffffffffb], other: 0 }",
            "sent: Ok((false, [5, 6, 7, 8])), replied: Err(NotFound)",
            "the child ended with 0 and got 0",
            "sent: Ok((false, [5, 6, 7, 8])), replied: Err(NotFound)",
            "the child ended with 0 and got 0",
            "0 of 1000 calls with wrong answers",
        ]
    );
}

const REFUSALS: &[(&str, &str)] = &[
    ("to nobody", "[Err(NotFound), Err(NotFound)]"),
    ("to a number that was guessed", "[Err(NotFound), Err(NotFound)]"),
    ("to another generation", "[Err(NotFound), Err(NotFound)]"),
    ("to memory", "[Err(NotFound), Err(NotFound)]"),
    ("to the places", "[Err(NotFound), Err(NotFound)]"),
    ("to one without the right", "[Err(NotPermitted), Err(NotPermitted)]"),
    ("to what was dropped", "[Err(NotFound), Err(NotFound)]"),
    ("to who is gone", "[Err(NotFound), Err(NotFound)]"),
    ("to itself", "[Err(BadArgument), Err(BadArgument)]"),
    ("reply to one that was not received", "refused 7 times"),
    ("it is who one thought", "true"),
    ("reply to nobody", "[Err(NotFound), Err(NotFound)]"),
    ("reply to oneself", "[Err(NotFound), Err(NotFound)]"),
    ("reply to one that does not call", "[Err(NotFound), Err(NotFound)]"),
    ("reply to a number that cannot be", "[Err(NotFound), Err(NotFound)]"),
    ("reply to a large number", "[Err(NotFound), Err(NotFound)]"),
    ("reply to one that only sent", "[Err(NotFound), Err(NotFound)]"),
    ("reply to an earlier one in its place", "[Err(NotFound), Err(NotFound)]"),
    ("reply to a later one in its place", "[Err(NotFound), Err(NotFound)]"),
    ("reply", "Ok(())"),
    ("reply to the same again", "[Err(NotFound), Err(NotFound)]"),
    ("reply to who is gone", "[Err(NotFound), Err(NotFound)]"),
    ("reply to one that calls another", "0 taken"),
];

#[test]
fn core_message_without_a_right_and_answer_without_a_caller_are_refused() {
    let log = run(&["message-refusals"], 3);
    let answers: Vec<(&str, &str)> = log.iter().filter_map(|line| line.split_once(": ")).collect();
    assert_eq!(answers, REFUSALS);
}

#[test]
fn core_caller_learns_that_the_one_it_calls_has_ended() {
    const ENDED: &str = "ended with 0, got Stored { status: 10, from: 0, words: [0, 0, 0, 0], other: 0 }";
    let expected = [
        "still calls: true".to_owned(),
        format!("not received: {ENDED}"),
        "still calls: true".to_owned(),
        format!("received: {ENDED}"),
        format!("never started, and disowned: {ENDED}"),
        format!("exits: {ENDED}"),
        format!("faults: {ENDED}"),
    ];
    assert_eq!(run(&["message-ends"], 3), expected);
}

#[test]
fn core_messages_go_with_their_sender_and_are_not_lost_in_silence_with_their_receiver() {
    assert_eq!(
        run(&["message-sender-ends"], 3),
        [
            "waits: 1",
            "waits: 0, received: Err(NoMessage)",
            "reply to who is gone: Err(NotFound)",
            "in the same place: true",
            "reply to the one before: Err(NotFound)",
            "reply to it: Ok(())",
            "a sender ended with 0",
            "waits: 0, received: Err(NoMessage)",
            "sent: Ok(()), it waits: true",
            "lost: true",
            "the next: Err(Ended)",
            "and the next: Ok(()), none waits: true",
        ]
    );
}

#[test]
fn core_two_that_call_each_other_stop_nobody_else() {
    assert_eq!(
        run(&["message-loop"], 3),
        [
            "slept to the deadline: true",
            "both still call: true",
            "the other ended with 4 and got Stored { status: 10, from: 0, words: [0, 0, 0, 0], other: 0 }",
        ]
    );
}

#[test]
fn core_all_that_call_at_once_are_answered_once() {
    assert_eq!(
        run(&["message-crowd", "62"], 63),
        [
            "62 wait",
            "0 with wrong words, in order: true, then: Err(NoMessage)",
            "0 with wrong answers, 62 places, 62 rounds",
        ]
    );
}

#[test]
fn core_those_who_call_again_and_again_are_received_in_turn() {
    assert_eq!(run(&["message-fair"], 5), ["each had its share: true"]);
}

#[test]
fn core_slice_goes_with_the_call_and_ends_where_it_did() {
    assert_eq!(
        run(&["message-donation"], 3),
        ["0 wrong, mostly nobody else ran: true", "called: true, others ran: true"]
    );
}

#[test]
fn core_two_that_give_the_cpu_to_and_fro_leave_others_their_share() {
    assert_eq!(
        run(&["message-accomplices"], 3),
        ["call", "compute and call", "overrun and call", "overrun and yield", "call and yield", "yield"].map(
            |what| { format!("{what}: twenty sleeps took less than ten slices each: true, they live: true") }
        )
    );
}

#[test]
fn core_sent_message_waits_for_a_busy_receiver_and_a_second_is_refused() {
    assert_eq!(
        run(&["message-busy"], 3),
        [
            "the first: Ok(()), waits: true",
            "the second: Err(Busy)",
            "it sleeps: true, still waits: true",
            "woken: true, waits: false",
            "the second again: Ok(())",
            "ended with 0",
            "it got 0 [1, 2, 3, 4]",
            "it got 0 [5, 6, 7, 8]",
        ]
    );
}

#[test]
fn core_sent_messages_come_once_and_in_order() {
    assert_eq!(
        run(&["message-stress", "5", "600"], 7),
        ["3000 received, 0 out of order, then: Err(NoMessage)"]
    );
}

#[test]
fn core_waiting_for_messages_ends_by_message_deadline_or_wake_up() {
    const NOTHING: &str = "Stored { status: 11, from: 0, words: [0, 0, 0, 0], other: 0 }";
    let expected = [
        "nobody: Err(NoMessage), at the deadline: true".to_owned(),
        "woken: true, by a message: 1".to_owned(),
        "over one that is there: true".to_owned(),
        "still asleep: true".to_owned(),
        "called: Ok([11, 12, 13, 14])".to_owned(),
        format!("woken: 0, {NOTHING}"),
        format!("woken before: 0, {NOTHING}"),
        "woken while it called: 6".to_owned(),
    ];
    assert_eq!(run(&["message-sleep"], 3), expected);
}

#[test]
fn core_successor_in_a_place_finds_no_words() {
    assert_eq!(
        run(&["message-successor"], 3),
        [
            "in its page: [0, 0, 0, 0, 0, 0, 0], sent: 0",
            "in its registers: Stored { status: 0, from: 0, words: [0, 0, 0, 0], other: 0 }",
        ]
    );
}

//! What arrives, and what is refused.

use super::{Arguments, LONG_NS, Stored, own, pair, sender_of, soon};
use crate::child::{Child, Code, DATA_VA, call, derive, to_the_end};
use crate::{Case, HELD};
use abi::call::{Call, Error, state};
use abi::capability::{Handle, rights};
use abi::layout::KERNEL_PAGE_VA;
use alloc::vec::Vec;
use exos_runtime::message::{self, Message, Sender};
use exos_runtime::{kernel, pages};

pub(super) const CASES: &[Case] = &[
    ("message-round-trip", round_trip),
    ("message-refusals", refusals),
    ("message-crowd", crowd),
    ("message-successor", successor),
];

/// Both directions, with what is in every register afterwards.
fn round_trip(_: Arguments<'_>) -> Option<u32> {
    // The parent calls: the child keeps what it got, and answers.
    let receive = Code::new().fill().call(Call::MessageReceive, [0; 5]).store_message(8);
    let reply = receive.load([0x48, 0xBE], 0x51).load([0x48, 0xBA], 0x52).load([0x49, 0xBA], 0x53);
    let reply = reply.load([0x49, 0xB8], 0x54).gate(Call::MessageReply).exit_rax();
    let child = Child::make(reply)?;
    child.start(0).ok()?;
    child.becomes(state::RECEIVING)?;
    let answer = message::call(child.environment, [0x41, 0x42, 0x43, 0x44]);
    log::info!("probe: the answer: {answer:x?}");
    log::info!("probe: the child ended with {} and got {:x?}", child.wait(state::GONE)?, child.stored(8));
    // The child calls.
    let child = Child::make(
        Code::new().fill().call_by_word(Call::MessageCall, 0, [1, 2, 3, 4]).store_message(8).exit(0),
    )?;
    child.knows(own(), 0)?;
    child.start(0).ok()?;
    let Message { from, words } = message::receive(soon(LONG_NS)).ok()?;
    log::info!("probe: from {} {} {}: {words:?}", from.environment(), from.generation(), from.waits());
    log::info!("probe: replied: {:?}", message::reply(from, [!1, !2, !3, !4]));
    log::info!("probe: the child ended with {} and got {:x?}", child.wait(state::GONE)?, child.stored(8));
    // It sends without waiting, to one who receives and to one who does not yet.
    for receives in [true, false] {
        let send = Code::new().call_by_word(Call::MessageSend, 0, [5, 6, 7, 8]).store_message(8);
        let child = Child::make(send.call(Call::Sleep, [0; 5]).exit(0))?;
        child.knows(own(), 0)?;
        child.start(0).ok()?;
        if !receives {
            while message::waiting() == 0 {
                kernel::yield_to(Handle::NONE).ok()?;
            }
        }
        let answer = message::receive(soon(LONG_NS));
        let from = answer.map(|message| (message.from.waits(), message.words));
        log::info!("probe: sent: {from:?}, replied: {:?}", message::reply(answer.ok()?.from, [0; 4]));
        call(Call::Wake, [child.environment.0, 0, 0, 0, 0]).ok()?;
        log::info!("probe: the child ended with {} and got {}", child.wait(state::GONE)?, child.word_at(8));
    }
    // What passes through a server that goes round.
    let server = Child::make(Code::serve())?;
    server.start(0).ok()?;
    let mut wrong = 0;
    for round in 0..1000u64 {
        let words = [round, round << 32, !round, round.wrapping_mul(0x9E37_79B9_7F4A_7C15)];
        wrong +=
            u32::from(message::call(server.environment, words) != Ok(words.map(|word| word.wrapping_add(1))));
    }
    log::info!("probe: {wrong} of 1000 calls with wrong answers");
    server.destroy()?;
    Some(HELD)
}

/// What is refused, and with which error.
fn refusals(_: Arguments<'_>) -> Option<u32> {
    let page = pages::environment();
    // Whoever gets through to it is answered.
    let child = Child::make(Code::serve())?;
    child.start(0).ok()?;
    child.becomes(state::RECEIVING)?;
    let number = page.capabilities.environments;
    let gone = Child::make(Code::new().exit(0))?;
    gone.start(0).ok()?;
    gone.wait(state::GONE)?;
    let no_right =
        (1..64).find_map(|place| derive(child.environment, place, 1, rights::WAKE | rights::YIELD).ok())?;
    let dropped = (1..64).find_map(|place| derive(child.environment, place, 1, rights::CALL).ok())?;
    to_the_end(Call::CapabilityDrop, dropped).ok()?;
    let calls = [Call::MessageCall, Call::MessageSend];
    for (what, to) in [
        ("nobody", Handle::NONE),
        ("a number that was guessed", Handle::new(200, 1)),
        ("another generation", Handle::new(child.environment.slot(), child.environment.generation() + 1)),
        ("memory", page.capabilities.heap[0]),
        ("the places", number),
        ("one without the right", no_right),
        ("what was dropped", dropped),
        ("who is gone", gone.environment),
        ("itself", own()),
    ] {
        let answers = calls.map(|number| call(number, [to.0, 1, 2, 3, 4]));
        log::info!("probe: to {what}: {answers:?}");
    }
    // One that calls and has not been received; then it is; then it is answered; then it has ended.
    let caller = Child::make(Code::new().call_by_word(Call::MessageCall, 0, [0; 4]).exit(0))?;
    caller.knows(own(), 0)?;
    caller.start(0).ok()?;
    caller.becomes(state::CALLING)?;
    let replies = [Call::MessageReply, Call::MessageReplyReceive];
    let try_ = |what: &str, to: u64| {
        let answers = replies.map(|number| call(number, [to, 1, 2, 3, 4]));
        log::info!("probe: reply to {what}: {answers:?}");
    };
    let waiting = message::waiting();
    let place = waiting.trailing_zeros();
    let guesses = (1..8).map(|generation| message::reply(sender_of(place, generation), [0; 4]));
    let refused = guesses.filter(|answer| *answer == Err(Error::NotFound)).count();
    log::info!("probe: reply to one that was not received: refused {refused} times");
    let from = message::receive(soon(LONG_NS)).ok()?.from;
    log::info!(
        "probe: it is who one thought: {}",
        (1..8).contains(&from.generation()) && from.environment() == place
    );
    try_("nobody", 0);
    try_("oneself", sender_of(0, 1).0);
    try_("one that does not call", sender_of(1, 1).0);
    try_("a number that cannot be", from.0 | 64);
    try_("a large number", u64::MAX);
    try_("one that only sent", from.0 | Sender::SENT);
    try_("an earlier one in its place", from.0 - (1 << 32));
    try_("a later one in its place", from.0 + (1 << 32));
    log::info!("probe: reply: {:?}", message::reply(from, [0; 4]));
    try_("the same again", from.0);
    caller.wait(state::GONE)?;
    try_("who is gone", from.0);
    // Who calls somebody else is not ours to answer, whatever number it has.
    let received = Code::new().call(Call::MessageReceive, [0; 5]).call(Call::Sleep, [0; 5]);
    let (receiver, caller) = pair(received)?;
    receiver.start(0).ok()?;
    receiver.becomes(state::RECEIVING)?;
    caller.start(0).ok()?;
    caller.becomes(state::CALLING)?;
    let guesses = (1..8).flat_map(|place| (1..16).map(move |generation| sender_of(place, generation)));
    let taken = guesses.filter(|&guess| message::reply(guess, [0; 4]).is_ok()).count();
    log::info!("probe: reply to one that calls another: {taken} taken");
    receiver.destroy()?;
    Some(HELD)
}

/// `message-crowd CHILDREN`: as many call at once; each is received once and gets the answer to what it said.
fn crowd(arguments: Arguments<'_>) -> Option<u32> {
    let count = crate::number(arguments.next())? as usize;
    let mut children = Vec::new();
    for index in 0..count as u64 {
        let words = [index, index * 3, index << 40, !index];
        let child =
            Child::make(Code::new().call_by_word(Call::MessageCall, 0, words).store_message(8).exit(0))?;
        child.knows(own(), 0)?;
        child.start(0).ok()?;
        children.push(child);
    }
    for child in &children {
        child.becomes(state::CALLING)?;
    }
    log::info!("probe: {} wait", message::waiting().count_ones());
    let mut wrong = 0;
    let mut last = 0;
    let mut order = true;
    let mut next = message::receive(soon(LONG_NS));
    for received in 0..count {
        let Ok(Message { from, words: [a, b, c, d] }) = next else { break };
        wrong += u32::from([b, c, d] != [a * 3, a << 40, !a] || !from.waits());
        order &= from.environment() > last;
        last = from.environment();
        let answer = [a * 7, u64::from(from.environment()), received as u64, b];
        if received + 1 < count {
            next = message::reply_and_receive(from, answer);
        } else {
            message::reply(from, answer).ok()?;
        }
    }
    log::info!(
        "probe: {wrong} with wrong words, in order: {order}, then: {:?}",
        message::receive(soon(1000))
    );
    let mut places = 0u64;
    let mut rounds = 0u64;
    for (index, child) in (0u64..).zip(&children) {
        child.wait(state::GONE)?;
        let Stored { status, from, words: [a, b, c, d], other } = child.stored(8);
        wrong += u32::from([status, from, a, d, other] != [0, 0, index * 7, index * 3, 0]);
        places |= 1 << b;
        rounds |= 1 << c;
    }
    log::info!(
        "probe: {wrong} with wrong answers, {} places, {} rounds",
        places.count_ones(),
        rounds.count_ones()
    );
    Some(HELD)
}

/// Who gets a place finds no words of its predecessor's, neither in its registers nor in the kernel's page.
fn successor(_: Arguments<'_>) -> Option<u32> {
    let first = Child::make(Code::new().call_by_word(Call::MessageCall, 0, [0x77; 4]).exit(1))?;
    first.knows(own(), 0)?;
    first.start(0).ok()?;
    let from = message::receive(soon(LONG_NS)).ok()?.from;
    message::reply(from, [0x88; 4]).ok()?;
    first.wait(state::GONE)?;
    let mut code =
        Code::new().store_message(8).load([0x49, 0xB9], KERNEL_PAGE_VA).load([0x48, 0xBB], DATA_VA + 8 * 16);
    // The words of the resume page and of what waits: mov rax, [r9 + ..]; mov [rbx + ..], rax.
    for word in 0..10u8 {
        code = code.bytes(&[0x49, 0x8B, 0x41, 8 * word, 0x48, 0x89, 0x43, 8 * word]);
    }
    let second = Child::make(code.exit(0))?;
    second.start(0).ok()?;
    second.wait(state::GONE)?;
    // rax, rdx, rdi, rsi, r10, r8, and who waits; nothing was sent.
    let words: Vec<u64> = [3, 4, 5, 6, 7, 8, 9].iter().map(|at| second.word_at(16 + at)).collect();
    log::info!("probe: in its page: {words:?}, sent: {}", second.word_at(16) >> 32);
    log::info!("probe: in its registers: {:?}", second.stored(8));
    Some(HELD)
}

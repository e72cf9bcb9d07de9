//! Messages: a parent calls its children and is called by them. The children are a few instructions each; what they got lies in
//! their data page, where the parent looks.

use crate::child::{Child, Code, DATA_VA, call, derive, to_the_end};
use crate::{BROKEN, Case, HELD};
use abi::call::{Call, Error, sleep, state};
use abi::capability::{Handle, rights};
use abi::layout::KERNEL_PAGE_VA;
use alloc::vec::Vec;
use exos_runtime::message::{self, Message, Sender, sent};
use exos_runtime::{clock, kernel, pages};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[
    ("message-round-trip", round_trip),
    ("message-refusals", refusals),
    ("message-ends", ends),
    ("message-sender-ends", sender_ends),
    ("message-loop", loop_of_calls),
    ("message-crowd", crowd),
    ("message-fair", fair),
    ("message-donation", donation),
    ("message-accomplices", accomplices),
    ("message-busy", busy),
    ("message-stress", stress),
    ("message-sleep", sleeping),
    ("message-successor", successor),
];

/// What a child that waits for an answer has in its other registers.
const PATTERN: u64 = 0x5A5A_5A5A_5A5A_5A5A;
/// Longer than anything here takes.
const LONG_NS: u64 = 20_000_000_000;

/// What a child has written with [`Code::store_message`].
#[derive(Debug, PartialEq, Eq)]
struct Stored {
    status: u64,
    from: u64,
    words: [u64; 4],
    /// Whatever was in registers that carry nothing.
    other: u64,
}

impl Code {
    /// A call whose first argument is in the child's data page, at a word.
    fn call_by_word(self, number: Call, word: u64, words: [u64; 4]) -> Self {
        let [b, c, d, e] = words;
        self.load([0x48, 0xBE], b) // mov rsi, imm64, and so on
            .load([0x48, 0xBA], c)
            .load([0x49, 0xBA], d)
            .load([0x49, 0xB8], e)
            .load([0x48, 0xBF], DATA_VA + 8 * word)
            .bytes(&[0x48, 0x8B, 0x3F]) // mov rdi, [rdi]
            .gate(number)
    }

    /// Patterns in registers that carry nothing.
    fn fill(self) -> Self {
        self.load([0x48, 0xBB], PATTERN) // rbx
            .load([0x48, 0xBD], PATTERN) // rbp
            .load([0x49, 0xBB], PATTERN) // r11
            .load([0x49, 0xBC], PATTERN) // r12
            .load([0x49, 0xBD], PATTERN) // r13
            .load([0x49, 0xBE], PATTERN) // r14
            .load([0x49, 0xBF], PATTERN) // r15
    }

    /// All general registers but `rsp` go to the data page, from a word on.
    fn store_message(self, word: u64) -> Self {
        self.bytes(&[0x4C, 0x09, 0xCB]) // or rbx, r9
            .load([0x49, 0xB9], DATA_VA + 8 * word) // mov r9, imm64
            .bytes(&[0x49, 0x89, 0x01]) // mov [r9], rax
            .bytes(&[0x49, 0x89, 0x79, 8]) // rdi
            .bytes(&[0x49, 0x89, 0x71, 16]) // rsi
            .bytes(&[0x49, 0x89, 0x51, 24]) // rdx
            .bytes(&[0x4D, 0x89, 0x51, 32]) // r10
            .bytes(&[0x4D, 0x89, 0x41, 40]) // r8
            .bytes(&[0x48, 0x09, 0xEB, 0x48, 0x09, 0xCB]) // or rbx, rbp; or rbx, rcx
            .bytes(&[0x4C, 0x09, 0xDB, 0x4C, 0x09, 0xE3]) // or rbx, r11; or rbx, r12
            .bytes(&[0x4C, 0x09, 0xEB, 0x4C, 0x09, 0xF3]) // or rbx, r13; or rbx, r14
            .bytes(&[0x4C, 0x09, 0xFB]) // or rbx, r15
            .bytes(&[0x49, 0x89, 0x59, 48]) // mov [r9 + 48], rbx
    }

    /// Answers for ever: each word becomes one more.
    pub(crate) fn serve() -> Self {
        let receive = Self::new().call(Call::MessageReceive, [0; 5]);
        // test eax, eax; jne receive; inc rsi, rdx, r10, r8
        let again = -(receive.0.len() as i8 + 4);
        let answer = Self::new()
            .bytes(&[0x85, 0xC0, 0x75, again as u8])
            .bytes(&[0x48, 0xFF, 0xC6, 0x48, 0xFF, 0xC2, 0x49, 0xFF, 0xC2, 0x49, 0xFF, 0xC0])
            .gate(Call::MessageReplyReceive)
            .for_ever();
        receive.bytes(&answer.0)
    }

    /// Over and over again.
    pub(crate) fn for_ever(self) -> Self {
        let back = -(self.0.len() as i32 + 5);
        self.bytes(&[0xE9]).bytes(&back.to_le_bytes())
    }
}

impl Child {
    fn make(code: Code) -> Option<Self> {
        Self::new(code, rights::WRITE).ok()
    }

    /// Gives it a capability for another environment, and its handle for that in a word of its data page.
    fn knows(&self, other: Handle, word: usize) -> Option<Handle> {
        let give = [0, other.0, self.environment.0, u64::from(rights::CALL | rights::GIVE), 0];
        let handle = call(Call::CapabilityGive, give).ok()?;
        self.set_word_at(word, handle);
        Some(Handle(handle))
    }

    fn stored(&self, word: usize) -> Stored {
        Stored {
            status: self.word_at(word),
            from: self.word_at(word + 1),
            words: [2, 3, 4, 5].map(|at| self.word_at(word + at)),
            other: self.word_at(word + 6),
        }
    }

    /// Lets others run until it is in that state.
    pub(crate) fn becomes(&self, wanted: u64) -> Option<()> {
        for _ in 0..10_000 {
            if self.status().0 == wanted {
                return Some(());
            }
            kernel::yield_to(Handle::NONE).ok()?;
        }
        log::error!("probe: a child is in state {:?} and not in {wanted}", self.status());
        None
    }

    pub(crate) fn destroy(&self) -> Option<()> {
        call(Call::EnvironmentDestroy, [self.environment.0, 0, 0, 0, 0]).ok()?;
        self.wait(state::GONE).map(drop)
    }
}

fn own() -> Handle {
    let page = pages::environment();
    page.capabilities.neighbours[page.environment as usize]
}

fn soon(ns: u64) -> u64 {
    clock::tsc() + clock::Scale::new().ticks(ns)
}

/// The sender that a child is, which is the `generation`th in its place.
fn sender_of(number: u32, generation: u32) -> Sender {
    Sender::caller(number, generation)
}

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
    let child = Child::make(Code::new().call(Call::Sleep, [0; 5]).exit(0))?;
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

/// A caller, and one that it calls, which does not answer.
fn pair(receiver: Code) -> Option<(Child, Child)> {
    let receiver = Child::make(receiver)?;
    let caller =
        Child::make(Code::new().call_by_word(Call::MessageCall, 0, [9; 4]).store_message(8).exit(0))?;
    caller.knows(receiver.environment, 0)?;
    Some((receiver, caller))
}

fn log_end(what: &str, caller: &Child) -> Option<()> {
    let ended = caller.wait(state::GONE)?;
    log::info!("probe: {what}: ended with {ended}, got {:?}", caller.stored(8));
    Some(())
}

/// The one that is called ends, in each way and at each moment.
fn ends(_: Arguments<'_>) -> Option<u32> {
    let asleep = || Code::new().call(Call::Sleep, [0; 5]);
    let received = || Code::new().call(Call::MessageReceive, [0; 5]);
    for (what, code) in [("not received", asleep()), ("received", received().call(Call::Sleep, [0; 5]))] {
        let (receiver, caller) = pair(code)?;
        receiver.start(0).ok()?;
        receiver.becomes(if what == "received" { state::RECEIVING } else { state::ASLEEP })?;
        caller.start(0).ok()?;
        caller.becomes(state::CALLING)?;
        receiver.becomes(state::ASLEEP)?;
        // A wake-up does not end a call.
        call(Call::Wake, [caller.environment.0, 0, 0, 0, 0]).ok()?;
        for _ in 0..20 {
            kernel::yield_to(Handle::NONE).ok()?;
        }
        log::info!("probe: still calls: {}", caller.status().0 == state::CALLING);
        receiver.destroy()?;
        log_end(what, &caller)?;
    }
    let (receiver, caller) = pair(asleep())?;
    caller.start(0).ok()?;
    caller.becomes(state::CALLING)?;
    to_the_end(Call::CapabilityDrop, receiver.environment).ok()?;
    log_end("never started, and disowned", &caller)?;
    for (what, code) in [("exits", received().exit(3)), ("faults", received().bytes(&[0x0F, 0x0B]))] {
        let (receiver, caller) = pair(code)?;
        receiver.start(0).ok()?;
        receiver.becomes(state::RECEIVING)?;
        caller.start(0).ok()?;
        log_end(what, &caller)?;
    }
    Some(HELD)
}

/// The one that sends ends; and the one that was sent something.
fn sender_ends(_: Arguments<'_>) -> Option<u32> {
    let calls = || Code::new().call_by_word(Call::MessageCall, 0, [0; 4]).exit(0);
    // Before it is received.
    let caller = Child::make(calls())?;
    caller.knows(own(), 0)?;
    caller.start(0).ok()?;
    caller.becomes(state::CALLING)?;
    log::info!("probe: waits: {}", message::waiting().count_ones());
    caller.destroy()?;
    log::info!(
        "probe: waits: {}, received: {:?}",
        message::waiting().count_ones(),
        message::receive(soon(1000))
    );
    // After that; and one that gets its place is not answered in its stead.
    let caller = Child::make(calls())?;
    caller.knows(own(), 0)?;
    caller.start(0).ok()?;
    let from = message::receive(soon(LONG_NS)).ok()?.from;
    caller.destroy()?;
    log::info!("probe: reply to who is gone: {:?}", message::reply(from, [7; 4]));
    let next = Child::make(calls())?;
    next.knows(own(), 0)?;
    next.start(0).ok()?;
    let second = message::receive(soon(LONG_NS)).ok()?.from;
    log::info!("probe: in the same place: {}", second.environment() == from.environment());
    log::info!("probe: reply to the one before: {:?}", message::reply(from, [7; 4]));
    log::info!("probe: reply to it: {:?}", message::reply(second, [7; 4]));
    next.wait(state::GONE)?;
    // One that sent and has ended took that along.
    let sender = Child::make(Code::new().call_by_word(Call::MessageSend, 0, [0; 4]).exit_rax())?;
    sender.knows(own(), 0)?;
    sender.start(0).ok()?;
    log::info!("probe: a sender ended with {}", sender.wait(state::GONE)?);
    log::info!(
        "probe: waits: {}, received: {:?}",
        message::waiting().count_ones(),
        message::receive(soon(1000))
    );
    // Who was sent something ends.
    let receiver = Child::make(Code::new().call(Call::Sleep, [0; 5]))?;
    let other = Child::make(Code::serve())?;
    other.start(0).ok()?;
    other.becomes(state::RECEIVING)?;
    receiver.start(0).ok()?;
    receiver.becomes(state::ASLEEP)?;
    log::info!(
        "probe: sent: {:?}, it waits: {}",
        message::send(receiver.environment, [1; 4]),
        message::sent() == sent::WAITING
    );
    receiver.destroy()?;
    log::info!("probe: lost: {}", message::sent() == sent::LOST);
    // All that wait are woken when one is gone.
    other.becomes(state::RECEIVING)?;
    log::info!("probe: the next: {:?}", message::send(other.environment, [1; 4]));
    log::info!(
        "probe: and the next: {:?}, none waits: {}",
        message::send(other.environment, [1; 4]),
        message::sent() == sent::NOTHING
    );
    other.destroy()?;
    Some(HELD)
}

/// Two that call each other wait for ever, and nobody else does.
fn loop_of_calls(_: Arguments<'_>) -> Option<u32> {
    let code = || Code::new().call_by_word(Call::MessageCall, 0, [1; 4]).store_message(8).exit(4);
    let (first, second) = (Child::make(code())?, Child::make(code())?);
    first.knows(second.environment, 0)?;
    second.knows(first.environment, 0)?;
    first.start(0).ok()?;
    second.start(0).ok()?;
    first.becomes(state::CALLING)?;
    second.becomes(state::CALLING)?;
    // Nobody can run: the machine waits for the deadline.
    let deadline = soon(20_000_000);
    kernel::sleep(deadline, [sleep::NONE; 4]);
    log::info!("probe: slept to the deadline: {}", clock::tsc() >= deadline);
    let states = [first.status().0, second.status().0];
    log::info!("probe: both still call: {}", states == [state::CALLING; 2]);
    first.destroy()?;
    log::info!("probe: the other ended with {} and got {:?}", second.wait(state::GONE)?, second.stored(8));
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

/// Those who call again and again are received in turn.
fn fair(_: Arguments<'_>) -> Option<u32> {
    let mut children = Vec::new();
    for index in 0..4 {
        let code = Code::new().call_by_word(Call::MessageCall, 0, [index; 4]).for_ever();
        let child = Child::make(code)?;
        child.knows(own(), 0)?;
        child.start(0).ok()?;
        children.push(child);
    }
    for child in &children {
        child.becomes(state::CALLING)?;
    }
    let mut served = [0u32; 4];
    let mut next = message::receive(soon(LONG_NS)).ok()?;
    for _ in 0..400 {
        served[next.words[0] as usize % 4] += 1;
        next = message::reply_and_receive(next.from, [0; 4]).ok()?;
    }
    // The end of a slice may come in between.
    log::info!("probe: each had its share: {}", served.iter().all(|&times| times >= 80));
    for child in &children {
        child.destroy()?;
    }
    Some(HELD)
}

/// The slice goes with the call and comes back with the answer: nobody else runs in between, and all who wait do at its end.
fn donation(_: Arguments<'_>) -> Option<u32> {
    // inc [r9], for whoever has the CPU in between.
    let count = Code::new().load([0x49, 0xB9], DATA_VA).bytes(&[0x49, 0xFF, 0x01]);
    let count = || Code::new().bytes(&count.0).call(Call::Yield, [0; 5]).for_ever();
    let (before, server, behind) =
        (Child::make(count())?, Child::make(Code::serve())?, Child::make(count())?);
    server.start(0).ok()?;
    server.becomes(state::RECEIVING)?;
    before.start(0).ok()?;
    behind.start(0).ok()?;
    let others = || [before.word(), behind.word()];
    // The slice may be over just then: some tries.
    let (mut undisturbed, mut wrong) = (0, 0);
    for _ in 0..10 {
        kernel::yield_to(Handle::NONE).ok()?;
        let counted = others();
        wrong += u32::from(message::call(server.environment, [1, 2, 3, 4]) != Ok([2, 3, 4, 5]));
        undisturbed += u32::from(others() == counted);
    }
    log::info!("probe: {wrong} wrong, mostly nobody else ran: {}", undisturbed >= 5);
    // The end of the slice is where it was, however often it goes to and fro.
    let limit = soon(LONG_NS);
    let counted = others();
    let ran = || before.word() != counted[0] && behind.word() != counted[1];
    let mut calls = 0u64;
    while !ran() && clock::tsc() < limit {
        message::call(server.environment, [1, 2, 3, 4]).ok()?;
        calls += 1;
    }
    log::info!("probe: called: {}, others ran: {}", calls > 1, ran());
    for child in [&before, &server, &behind] {
        child.destroy()?;
    }
    Some(HELD)
}

/// Two that call each other without end and never give the CPU to anybody else: others have their share.
fn accomplices(_: Arguments<'_>) -> Option<u32> {
    let server = Child::make(Code::serve())?;
    let caller = Child::make(Code::new().call_by_word(Call::MessageCall, 0, [0; 4]).for_ever())?;
    caller.knows(server.environment, 0)?;
    server.start(0).ok()?;
    server.becomes(state::RECEIVING)?;
    caller.start(0).ok()?;
    let begun = clock::tsc();
    for _ in 0..20 {
        kernel::sleep(soon(1_000_000), [sleep::NONE; 4]);
    }
    let ms = clock::Scale::new().ns(clock::tsc() - begun) / 1_000_000;
    log::info!("probe: twenty sleeps took less than ten slices each: {}", ms < 2_000);
    let lives = |child: &Child| !matches!(child.status().0, state::GONE | state::ENDING);
    log::info!("probe: they live: {}", lives(&server) && lives(&caller));
    caller.destroy()?;
    server.destroy()?;
    Some(HELD)
}

/// A message waits for one that does not receive yet; a second one does not.
fn busy(_: Arguments<'_>) -> Option<u32> {
    let wakes = Code::new().call(Call::Sleep, [0; 5]).call(Call::MessageReceive, [0; 5]).store_message(8);
    let child = Child::make(wakes.call(Call::MessageReceive, [0; 5]).store_message(16).exit(0))?;
    child.start(0).ok()?;
    child.becomes(state::ASLEEP)?;
    log::info!(
        "probe: the first: {:?}, waits: {}",
        message::send(child.environment, [1, 2, 3, 4]),
        message::sent() == sent::WAITING
    );
    log::info!("probe: the second: {:?}", message::send(child.environment, [5, 6, 7, 8]));
    for _ in 0..20 {
        kernel::yield_to(Handle::NONE).ok()?;
    }
    log::info!(
        "probe: it sleeps: {}, still waits: {}",
        child.status().0 == state::ASLEEP,
        message::sent() == sent::WAITING
    );
    call(Call::Wake, [child.environment.0, 0, 0, 0, 0]).ok()?;
    // What was refused for want of room wakes when there is some.
    let limit = soon(LONG_NS);
    kernel::sleep(limit, [sleep::NONE; 4]);
    log::info!("probe: woken: {}, waits: {}", clock::tsc() < limit, message::sent() == sent::WAITING);
    log::info!("probe: the second again: {:?}", message::send(child.environment, [5, 6, 7, 8]));
    log::info!("probe: ended with {}", child.wait(state::GONE)?);
    for word in [8, 16] {
        let Stored { status, words, .. } = child.stored(word);
        log::info!("probe: it got {status} {words:?}");
    }
    Some(HELD)
}

/// `message-stress SENDERS EACH`: numbered messages from several, without waiting; none is lost, none comes twice.
fn stress(arguments: Arguments<'_>) -> Option<u32> {
    let senders = crate::number(arguments.next())?;
    let each = crate::number(arguments.next())?;
    let mut children = Vec::new();
    for index in 0..senders {
        // Word 1 counts. Whoever is refused sleeps until it is woken.
        let mut code = Code::new().load([0x49, 0xB9], DATA_VA + 8).bytes(&[0x49, 0x8B, 0x31]); // mov rsi, [r9]
        let end_at = code.0.len() + 9;
        code = code.bytes(&[0x48, 0x81, 0xFE]).bytes(&(each as u32).to_le_bytes()); // cmp rsi, each
        code = code.bytes(&[0x0F, 0x84, 0, 0, 0, 0]); // je end
        code = code.load([0x48, 0xBF], DATA_VA).bytes(&[0x48, 0x8B, 0x3F]); // mov rdi, [..]
        code = code.load([0x48, 0xBA], index).gate(Call::MessageSend);
        code = code.bytes(&[0x85, 0xC0, 0x0F, 0x85]); // test eax, eax; jne
        let next = Code::new().load([0x49, 0xB9], DATA_VA + 8).bytes(&[0x49, 0xFF, 0x01]); // inc [r9]
        code = code.bytes(&(next.0.len() as i32 + 5).to_le_bytes()).bytes(&next.0);
        let back = -(code.0.len() as i32 + 5);
        code = code.bytes(&[0xE9]).bytes(&back.to_le_bytes()).call(Call::Sleep, [0; 5]);
        let back = -(code.0.len() as i32 + 5);
        code = code.bytes(&[0xE9]).bytes(&back.to_le_bytes());
        let end = (code.0.len() - (end_at + 4)) as i32;
        code.0[end_at..end_at + 4].copy_from_slice(&end.to_le_bytes());
        // The last one is to be received, too, before its sender ends: mov eax, [r9 + 4]; test eax, eax; je done.
        let look = Code::new().load([0x49, 0xB9], KERNEL_PAGE_VA).bytes(&[0x41, 0x8B, 0x41, 4, 0x85, 0xC0]);
        let give_way = Code::new().call(Call::Yield, [0; 5]);
        let wait = look.bytes(&[0x74, give_way.0.len() as u8 + 2]).bytes(&give_way.0);
        let back = -(wait.0.len() as i8 + 2);
        let code = code.bytes(&wait.0).bytes(&[0xEB, back as u8]);
        let child = Child::make(code.exit(0))?;
        child.knows(own(), 0)?;
        child.start(0).ok()?;
        children.push(child);
    }
    let mut next = [0u64; 64];
    let mut wrong = 0;
    let mut received = 0;
    let limit = soon(LONG_NS);
    while received < senders * each {
        // Whoever ends wakes all who wait.
        let Ok(Message { from, words: [number, who, ..] }) = message::receive(limit) else {
            if clock::tsc() < limit {
                continue;
            }
            break;
        };
        received += 1;
        let expected = &mut next[who as usize % 64];
        wrong += u32::from(number != *expected || from.waits());
        *expected += 1;
    }
    log::info!(
        "probe: {received} received, {wrong} out of order, then: {:?}",
        message::receive(soon(1_000_000))
    );
    for child in &children {
        if child.wait(state::GONE)? != 0 {
            return Some(BROKEN);
        }
    }
    Some(HELD)
}

/// Waiting for messages and for other things at once; and how waiting for a message ends.
fn sleeping(_: Arguments<'_>) -> Option<u32> {
    let deadline = soon(20_000_000);
    log::info!(
        "probe: nobody: {:?}, at the deadline: {}",
        message::receive(deadline),
        clock::tsc() >= deadline
    );
    // A parent that sleeps over messages wakes for one, and not before.
    let at = soon(30_000_000);
    let late =
        Code::new().call(Call::Sleep, [at, 0, 0, 0, 0]).call_by_word(Call::MessageCall, 0, [6; 4]).exit(0);
    let child = Child::make(late)?;
    child.knows(own(), 0)?;
    child.start(0).ok()?;
    let limit = soon(LONG_NS);
    kernel::sleep(limit, [sleep::MESSAGE, sleep::NONE, sleep::NONE, sleep::NONE]);
    let now = clock::tsc();
    log::info!(
        "probe: woken: {}, by a message: {}",
        now >= at && now < limit,
        message::waiting().count_ones()
    );
    let from = message::receive(soon(LONG_NS)).ok()?.from;
    message::reply(from, [0; 4]).ok()?;
    child.wait(state::GONE)?;
    // A child that sleeps over messages has the CPU at once when it is called.
    let code = Code::new().call(Call::Sleep, [0, sleep::MESSAGE, 0, 0, 0]).call(Call::MessageReceive, [0; 5]);
    let child = Child::make(code.gate(Call::MessageReply).exit(0))?;
    child.start(0).ok()?;
    child.becomes(state::ASLEEP)?;
    for _ in 0..20 {
        kernel::yield_to(Handle::NONE).ok()?;
    }
    log::info!("probe: still asleep: {}", child.status().0 == state::ASLEEP);
    log::info!("probe: called: {:?}", message::call(child.environment, [11, 12, 13, 14]));
    child.wait(state::GONE)?;
    // A wake-up ends the waiting, also one that came before.
    let waits = || Code::new().call(Call::MessageReceive, [0; 5]).store_message(8).exit(0);
    let child = Child::make(waits())?;
    child.start(0).ok()?;
    child.becomes(state::RECEIVING)?;
    call(Call::Wake, [child.environment.0, 0, 0, 0, 0]).ok()?;
    log::info!("probe: woken: {}, {:?}", child.wait(state::GONE)?, child.stored(8));
    let child = Child::make(waits())?;
    child.start(0).ok()?;
    call(Call::Wake, [child.environment.0, 0, 0, 0, 0]).ok()?;
    log::info!("probe: woken before: {}, {:?}", child.wait(state::GONE)?, child.stored(8));
    // A wake-up that comes while one calls is there at the next sleep.
    let code = Code::new().call_by_word(Call::MessageCall, 0, [0; 4]).call(Call::Sleep, [0; 5]).exit(6);
    let child = Child::make(code)?;
    child.knows(own(), 0)?;
    child.start(0).ok()?;
    let from = message::receive(soon(LONG_NS)).ok()?.from;
    call(Call::Wake, [child.environment.0, 0, 0, 0, 0]).ok()?;
    message::reply(from, [0; 4]).ok()?;
    log::info!("probe: woken while it called: {}", child.wait(state::GONE)?);
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

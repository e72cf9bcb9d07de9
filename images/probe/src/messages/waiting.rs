//! Who waits for what, and who has the CPU meanwhile.

use super::{Arguments, LONG_NS, Stored, own, soon};
use crate::child::{Child, Code, DATA_VA, call};
use crate::{BROKEN, Case, HELD};
use abi::call::{Call, sleep, state};
use abi::capability::Handle;
use abi::layout::KERNEL_PAGE_VA;
use abi::slice::SLICE_MS;
use alloc::vec::Vec;
use exos_runtime::message::{self, Message, sent};
use exos_runtime::{clock, kernel, pages};

pub(super) const CASES: &[Case] = &[
    ("message-fair", fair),
    ("message-donation", donation),
    ("message-accomplices", accomplices),
    ("message-busy", busy),
    ("message-stress", stress),
    ("message-sleep", sleeping),
];

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
    // Who is preempted just before it calls misses some rounds of the others; who waits behind those who come later misses all.
    let fair = served.iter().all(|&times| times >= 25);
    log::info!("probe: each had its share: {fair}");
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

/// Two that give the CPU to and fro without end, and never to anybody else: others have their share.
fn accomplices(_: Arguments<'_>) -> Option<u32> {
    let call = || Code::new().call_by_word(Call::MessageCall, 0, [0; 4]).for_ever();
    // Answers, and gives the CPU to whoever is next, which is the one that calls.
    let answer = Code::new().call(Call::MessageReceive, [0; 5]).gate(Call::MessageReply);
    let answer = answer.call(Call::Yield, [0; 5]).for_ever();
    let give = || Code::new().call_by_word(Call::Yield, 0, [0; 4]).for_ever();
    // A slice may end while it counts down, and is over when it calls: mov ecx, ..; dec ecx; jne.
    let compute =
        Code::new().bytes(&[0xB9]).bytes(&3_000_000u32.to_le_bytes()).bytes(&[0xFF, 0xC9, 0x75, 0xFC]);
    let compute = compute.call_by_word(Call::MessageCall, 0, [0; 4]).for_ever();
    // Two slices and a half are over before it gives the rest of the third: rdtsc; shl rdx, 32; lea r12, [rax + rdx];
    // 1: rdtsc; shl rdx, 32; add rax, rdx; sub rax, r12; cmp rax, ..; jb 1b.
    let ticks = (pages::environment().tsc_khz * SLICE_MS * 5 / 2) as u32;
    let overrun = || {
        Code::new()
            .bytes(&[0x0F, 0x31, 0x48, 0xC1, 0xE2, 0x20, 0x4C, 0x8D, 0x24, 0x10])
            .bytes(&[0x0F, 0x31, 0x48, 0xC1, 0xE2, 0x20, 0x48, 0x01, 0xD0, 0x4C, 0x29, 0xE0, 0x48, 0x3D])
            .bytes(&ticks.to_le_bytes())
            .bytes(&[0x72, 0xEC])
    };
    let overrun_and_call = overrun().call_by_word(Call::MessageCall, 0, [0; 4]).for_ever();
    let overrun_and_yield = || overrun().call_by_word(Call::Yield, 0, [0; 4]).for_ever();
    for (what, first, second) in [
        ("call", Code::serve(), call()),
        ("compute and call", Code::serve(), compute),
        ("overrun and call", Code::serve(), overrun_and_call),
        ("overrun and yield", overrun_and_yield(), overrun_and_yield()),
        ("call and yield", answer, call()),
        ("yield", give(), give()),
    ] {
        let (first, second) = (Child::make(first)?, Child::make(second)?);
        second.knows(first.environment, 0)?;
        first.knows(second.environment, 0)?;
        first.start(0).ok()?;
        if !what.ends_with("yield") || what.starts_with("call") {
            first.becomes(state::RECEIVING)?;
        }
        second.start(0).ok()?;
        let begun = clock::tsc();
        for _ in 0..20 {
            kernel::sleep(soon(1_000_000), [sleep::NONE; 4]);
        }
        let ms = clock::Scale::new().ns(clock::tsc() - begun) / 1_000_000;
        let lives = |child: &Child| !matches!(child.status().0, state::GONE | state::ENDING);
        let live = lives(&first) && lives(&second);
        log::info!(
            "probe: {what}: twenty sleeps took less than ten slices each: {}, they live: {live}",
            ms < 2_000
        );
        // Whoever is left alone calls in vain without end, and ends for that.
        for child in [&second, &first] {
            let _ = kernel::raw(Call::EnvironmentDestroy, [child.environment.0, 0, 0, 0, 0]);
        }
        for child in [&second, &first] {
            child.wait(state::GONE)?;
        }
    }
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
    // One that is there already ends the sleep at once.
    let child = Child::make(Code::new().call_by_word(Call::MessageCall, 0, [7; 4]).exit(0))?;
    child.knows(own(), 0)?;
    child.start(0).ok()?;
    child.becomes(state::CALLING)?;
    kernel::sleep(limit, [sleep::MESSAGE, sleep::NONE, sleep::NONE, sleep::NONE]);
    log::info!("probe: over one that is there: {}", clock::tsc() < limit);
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

//! What becomes of those who wait when the other side ends.

use super::{Arguments, LONG_NS, own, pair, soon};
use crate::child::{Child, Code, call, to_the_end};
use crate::{Case, HELD};
use abi::call::{Call, sleep, state};
use abi::capability::Handle;
use exos_runtime::message::{self, sent};
use exos_runtime::{clock, kernel};

pub(super) const CASES: &[Case] =
    &[("message-ends", ends), ("message-sender-ends", sender_ends), ("message-loop", loop_of_calls)];

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

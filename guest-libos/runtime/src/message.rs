//! Messages to and from other environments: four words in registers. [`call`] waits for the answer, [`send`] does not; a server
//! goes round in [`reply_and_receive`]. Whoever waits for other things, too, sleeps over [`abi::call::sleep::MESSAGE`] or looks
//! at [`waiting`], which is a load, and receives when there is something.
//!
//! A call trusts the one that is called: it comes back with the answer or with that one's end, and nothing else ends it.

use crate::pages;
use abi::call::{Call, Error};
use abi::capability::Handle;
use abi::layout::GATE_VA;
pub use abi::message::{Sender, sent};
use core::arch::asm;
use core::sync::atomic::Ordering;

/// What a message carries.
pub type Words = [u64; 4];

/// A message that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it, by the kernel's word.
    pub from: Sender,
    /// What it carries.
    pub words: Words,
}

/// Sends words and waits for the answer. Needs `CALL`.
pub fn call(to: Handle, words: Words) -> Result<Words, Error> {
    gate(Call::MessageCall, to.0, words).map(|answer| answer.words)
}

/// Sends words without waiting for anything. Needs `CALL`. [`Error::Busy`] until the one before has been received, which makes us
/// look around when we sleep; [`Error::Ended`], once, if nobody will receive that any more: this one is not sent then. Before it
/// ends an environment waits until [`sent`] says that nothing is left: what has not been received goes with it.
pub fn send(to: Handle, words: Words) -> Result<(), Error> {
    let [a, b, c, d] = words;
    crate::kernel::raw(Call::MessageSend, [to.0, a, b, c, d]).map(drop)
}

/// What became of the last message that was sent: a value of [`sent`].
#[inline]
pub fn sent() -> u32 {
    pages::kernel().sent.load(Ordering::Acquire)
}

/// Whose messages wait to be received, a bit for each environment's number.
#[inline]
pub fn waiting() -> u64 {
    pages::kernel().waiting.load(Ordering::Acquire)
}

/// Waits for a message until the TSC reaches the deadline (0: none) or somebody wakes us: [`Error::NoMessage`]. May
/// return early with that.
pub fn receive(deadline_tsc: u64) -> Result<Message, Error> {
    gate(Call::MessageReceive, deadline_tsc, [0; 4])
}

/// Answers one that waits for it; [`Error::NotFound`] if it does not, any more.
pub fn reply(to: Sender, words: Words) -> Result<(), Error> {
    let [a, b, c, d] = words;
    crate::kernel::raw(Call::MessageReply, [to.0, a, b, c, d]).map(drop)
}

/// Answers, and waits for the next message. If there is nobody to answer, nothing is received either: [`Error::NotFound`].
pub fn reply_and_receive(to: Sender, words: Words) -> Result<Message, Error> {
    gate(Call::MessageReplyReceive, to.0, words)
}

/// One of the calls that bring a message: no register but the stack pointer and those of the message comes back.
fn gate(number: Call, first: u64, words: Words) -> Result<Message, Error> {
    let _span = exos_trace::span!("message");
    crate::kernel::count_call(number);
    let [a, b, c, d] = words;
    let (status, from);
    let mut words = [0; 4];
    // SAFETY: the gate page holds the gate instruction and `ret`; what the compiler may not lose is on the stack meanwhile; no
    // call lets the kernel write to the environment's memory.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "call {gate}",
            "pop rbp",
            "pop rbx",
            gate = in(reg) GATE_VA,
            inlateout("rax") number as u64 => status,
            inlateout("rdi") first => from,
            inlateout("rsi") a => words[0],
            inlateout("rdx") b => words[1],
            inlateout("r10") c => words[2],
            inlateout("r8") d => words[3],
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
            clobber_abi("sysv64"),
        );
    }
    exos_trace::guest::ledger().back(exos_trace::parts!("message", "asleep", "waiting for a vCPU"));
    crate::kernel::count_error(number, status);
    match Error::from_status(status) {
        None if status == 0 => Ok(Message { from: Sender(from), words }),
        None => Err(Error::NoSuchCall),
        Some(error) => Err(error),
    }
}

//! Messages: protected control transfer. Four words go from one environment to another in registers, and the slice goes with a
//! call and comes back with its answer. Words that have to wait lie in the sender's own part of the kernel, one call's and one
//! sent message's at most, so a receiver has nothing but a bit for each.

use super::Answer;
use crate::kernel::{Kernel, State};
use crate::schedule::GateFrame;
use abi::call::{Error, sleep};
use abi::capability::rights;
use abi::domain::DOMAINS;
use abi::message::{Sender, sent};
use core::convert::Infallible;
use core::sync::atomic::Ordering;
use xok_core::refuse;

/// An environment's part in messages: as a receiver, and as a sender.
#[derive(Clone, Copy)]
pub(crate) struct Mailbox {
    /// Who calls it and has not been received, a bit each.
    callers: u64,
    /// Whose sent message it has not received.
    senders: u64,
    /// Whom it received last: the next is looked for behind that one.
    last: u32,
    /// Whom it calls, while it does.
    callee: u32,
    /// That one has received the call.
    received: bool,
    /// It was refused to send another before this one was received, and wants to know when it is.
    crowded: bool,
    /// Who has not received what it sent.
    to: u32,
    /// The words of that. (Those of a call are in its kernel page, where nothing else is while it waits.)
    words: [u64; 4],
}

impl Mailbox {
    /// Of one that neither sent nor was sent anything.
    pub(crate) const EMPTY: Self = Self {
        callers: 0,
        senders: 0,
        last: 0,
        callee: 0,
        received: false,
        crowded: false,
        to: 0,
        words: [0; 4],
    };
}

/// Places in [`abi::environment::KernelPage::resume`]: of the status, the first argument, and the words.
const STATUS: usize = 2;
const FIRST: usize = 4;
const WORDS: [usize; 4] = [5, 3, 6, 7];

/// [`abi::call::Call::MessageCall`].
pub(super) extern "sysv64" fn call(to: u64, a: u64, b: u64, c: u64, d: u64, frame: &GateFrame) -> Answer {
    // SAFETY: the gate has just been passed.
    let Err(error) = unsafe { crate::kernel::enter() }.message_call(to, [a, b, c, d], frame);
    Answer::from(Err::<u64, _>(error))
}

/// [`abi::call::Call::MessageReceive`].
pub(super) extern "sysv64" fn receive(
    until: u64,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
    frame: &GateFrame,
) -> Answer {
    // SAFETY: the gate has just been passed.
    let kernel = unsafe { crate::kernel::enter() };
    kernel.receive(until, frame);
    kernel.hand_over(kernel.current)
}

/// [`abi::call::Call::MessageReplyReceive`].
pub(super) extern "sysv64" fn reply_receive(
    sender: u64,
    a: u64,
    b: u64,
    c: u64,
    d: u64,
    frame: &GateFrame,
) -> Answer {
    // SAFETY: the gate has just been passed.
    let Err(error) = unsafe { crate::kernel::enter() }.message_reply_receive(sender, [a, b, c, d], frame);
    Answer::from(Err::<u64, _>(error))
}

impl Kernel {
    #[inline(always)]
    fn message_call(&mut self, to: u64, words: [u64; 4], frame: &GateFrame) -> Result<Infallible, Error> {
        let receiver = self.receiver(to)?;
        let current = self.current;
        self.block(current, State::Calling, frame);
        self.calling |= 1 << current;
        let receives = self.environment(receiver).state == State::Receiving;
        let own = self.mailbox(current);
        own.callee = receiver;
        own.received = receives;
        if receives {
            let sender = self.sender(current);
            self.deliver(receiver, sender.0, words);
            self.unblock(receiver);
        } else {
            let resume = &self.kernel_page(current).resume;
            for (slot, word) in WORDS.into_iter().zip(words) {
                resume[slot].store(word, Ordering::Relaxed);
            }
            self.mailbox(receiver).callers |= 1 << current;
            self.notify(receiver);
        }
        self.hand_over(receiver)
    }

    /// [`abi::call::Call::MessageSend`].
    #[inline(always)]
    pub(super) fn message_send(&mut self, to: u64, words: [u64; 4]) -> Result<(), Error> {
        let receiver = self.receiver(to)?;
        let current = self.current;
        let own = &self.kernel_page(current).sent;
        match own.load(Ordering::Relaxed) {
            sent::NOTHING => {}
            sent::LOST => {
                own.store(sent::NOTHING, Ordering::Relaxed);
                return refuse(Error::Ended);
            }
            _ => {
                self.mailbox(current).crowded = true;
                return refuse(Error::Busy);
            }
        }
        if self.environment(receiver).state == State::Receiving {
            let sender = self.sender(current);
            self.deliver(receiver, sender.0 | Sender::SENT, words);
            self.unblock(receiver);
        } else {
            own.store(sent::WAITING, Ordering::Relaxed);
            let mailbox = self.mailbox(current);
            mailbox.to = receiver;
            mailbox.words = words;
            self.mailbox(receiver).senders |= 1 << current;
            self.notify(receiver);
        }
        if self.runnable & !self.running & (1 << receiver) != 0 {
            self.offer(receiver);
        }
        Ok(())
    }

    /// [`abi::call::Call::MessageReply`].
    #[inline(always)]
    pub(super) fn message_reply(&mut self, sender: u64, words: [u64; 4]) -> Result<(), Error> {
        let caller = self.who_waits(sender)?;
        self.answer(caller, words);
        self.offer(caller);
        Ok(())
    }

    #[inline(always)]
    fn message_reply_receive(
        &mut self,
        sender: u64,
        words: [u64; 4],
        frame: &GateFrame,
    ) -> Result<Infallible, Error> {
        let caller = self.who_waits(sender)?;
        self.answer(caller, words);
        self.receive(0, frame);
        self.hand_over(caller)
    }

    /// The environment that a message is for: another one, by a capability with that right.
    #[inline(always)]
    fn receiver(&mut self, to: u64) -> Result<u32, Error> {
        let receiver = self.other(to, rights::CALL)?;
        if receiver == self.current { refuse(Error::BadArgument) } else { Ok(receiver) }
    }

    /// The one that waits for an answer of the environment that runs, if that is who is meant.
    #[inline(always)]
    fn who_waits(&mut self, sender: u64) -> Result<u32, Error> {
        let caller = sender as u32;
        let current = self.current;
        if caller as usize >= DOMAINS {
            return refuse(Error::NotFound);
        }
        let environment = self.environment(caller);
        let waits = environment.state == State::Calling && environment.generation == (sender >> 32) as u32;
        let mailbox = self.mailbox(caller);
        if waits && mailbox.received && mailbox.callee == current {
            Ok(caller)
        } else {
            refuse(Error::NotFound)
        }
    }

    #[inline(always)]
    fn answer(&mut self, caller: u32, words: [u64; 4]) {
        self.deliver(caller, 0, words);
        self.calling &= !(1 << caller);
        self.unblock(caller);
    }

    /// The environment that runs gets a message, or waits for one.
    #[inline(always)]
    fn receive(&mut self, deadline_tsc: u64, frame: &GateFrame) {
        let current = self.current;
        let mailbox = *self.mailbox(current);
        let waiting = mailbox.callers | mailbox.senders;
        if waiting != 0 {
            let behind = waiting & (u64::MAX << mailbox.last << 1);
            let next = if behind != 0 { behind } else { waiting }.trailing_zeros();
            self.go_on_behind_the_gate(current, frame);
            return self.take(current, next);
        }
        if self.environment(current).woken {
            self.environment(current).woken = false;
            self.go_on_behind_the_gate(current, frame);
            return self.come_to_nothing(current, Error::NoMessage);
        }
        self.block(current, State::Receiving, frame);
        self.environment(current).deadline_tsc = deadline_tsc;
    }

    /// An environment gets the message of one that waits for that.
    fn take(&mut self, receiver: u32, from: u32) {
        let mailbox = self.mailbox(receiver);
        mailbox.last = from;
        let was_sent = mailbox.senders & (1 << from) != 0;
        let mut sender = self.sender(from);
        let words;
        if was_sent {
            sender.0 |= Sender::SENT;
            self.mailbox(receiver).senders &= !(1 << from);
            words = self.mailbox(from).words;
            self.sent_is(from, sent::NOTHING);
        } else {
            self.mailbox(receiver).callers &= !(1 << from);
            self.mailbox(from).received = true;
            let resume = &self.kernel_page(from).resume;
            words = WORDS.map(|slot| resume[slot].load(Ordering::Relaxed));
        }
        self.publish(receiver);
        self.deliver(receiver, sender.0, words);
    }

    /// What one goes on with: the registers of a message.
    #[inline(always)]
    fn deliver(&self, to: u32, first: u64, words: [u64; 4]) {
        let resume = &self.kernel_page(to).resume;
        resume[STATUS].store(0, Ordering::Relaxed);
        resume[FIRST].store(first, Ordering::Relaxed);
        for (slot, word) in WORDS.into_iter().zip(words) {
            resume[slot].store(word, Ordering::Relaxed);
        }
    }

    /// What one goes on with if nothing comes.
    pub(crate) fn come_to_nothing(&self, number: u32, error: Error) {
        self.deliver(number, 0, [0; 4]);
        self.kernel_page(number).resume[STATUS].store(error as u64, Ordering::Relaxed);
    }

    /// The environment that runs will go on where it called.
    #[inline(always)]
    fn go_on_behind_the_gate(&self, current: u32, frame: &GateFrame) {
        let resume = &self.kernel_page(current).resume;
        resume[0].store(frame.rip, Ordering::Relaxed);
        resume[1].store(frame.rsp, Ordering::Relaxed);
    }

    /// The environment that runs waits.
    #[inline(always)]
    fn block(&mut self, current: u32, state: State, frame: &GateFrame) {
        self.go_on_behind_the_gate(current, frame);
        self.environment(current).state = state;
        self.runnable &= !(1 << current);
        self.asleep |= 1 << current;
    }

    /// One that waited has got what it waited for. Whether somebody woke it meanwhile it learns when it sleeps.
    #[inline(always)]
    fn unblock(&mut self, number: u32) {
        self.environment(number).state = State::Runnable;
        self.asleep &= !(1 << number);
        self.runnable |= 1 << number;
    }

    /// Something came for an environment that does not receive: it can see that, and if it sleeps over that it can run.
    fn notify(&mut self, receiver: u32) {
        self.publish(receiver);
        let environment = self.environment(receiver);
        if environment.state == State::Asleep && environment.terms.contains(&sleep::MESSAGE) {
            self.unblock(receiver);
        }
    }

    fn publish(&mut self, receiver: u32) {
        let waiting = self.mailbox(receiver).callers | self.mailbox(receiver).senders;
        self.kernel_page(receiver).waiting.store(waiting, Ordering::Relaxed);
    }

    /// What became of a sent message; whoever was refused another one may try again.
    fn sent_is(&mut self, sender: u32, what: u32) {
        self.kernel_page(sender).sent.store(what, Ordering::Relaxed);
        if core::mem::take(&mut self.mailbox(sender).crowded) {
            self.wake_up(sender);
        }
    }

    /// Whether a message waits for an environment.
    pub(crate) fn has_message(&mut self, number: u32) -> bool {
        let mailbox = self.mailbox(number);
        mailbox.callers | mailbox.senders != 0
    }

    /// One that ends takes along what it sent and what it calls with.
    pub(crate) fn leave_messages(&mut self, number: u32) {
        let Mailbox { callee, to, .. } = *self.mailbox(number);
        if self.calling & (1 << number) != 0 {
            self.calling &= !(1 << number);
            self.mailbox(callee).callers &= !(1 << number);
            self.publish(callee);
        }
        if self.kernel_page(number).sent.load(Ordering::Relaxed) == sent::WAITING {
            self.mailbox(to).senders &= !(1 << number);
            self.publish(to);
        }
        self.mailbox(number).crowded = false;
        self.sent_is(number, sent::NOTHING);
    }

    /// One of those who wait for an environment that ended learns of it; whether there was one.
    pub(crate) fn release_step(&mut self, ended: u32) -> bool {
        let senders = self.mailbox(ended).senders;
        if senders != 0 {
            let sender = senders.trailing_zeros();
            self.mailbox(ended).senders = senders & (senders - 1);
            self.publish(ended);
            self.sent_is(sender, sent::LOST);
            self.wake_up(sender);
            return true;
        }
        let mut left = self.calling;
        while left != 0 {
            let caller = left.trailing_zeros();
            left &= left - 1;
            if self.mailbox(caller).callee == ended {
                self.mailbox(ended).callers &= !(1 << caller);
                self.publish(ended);
                self.calling &= !(1 << caller);
                self.unblock(caller);
                self.offer(caller);
                self.come_to_nothing(caller, Error::Ended);
                return true;
            }
        }
        false
    }

    #[inline(always)]
    fn sender(&mut self, number: u32) -> Sender {
        Sender::caller(number, self.environment(number).generation)
    }

    #[inline(always)]
    fn mailbox(&mut self, number: u32) -> &mut Mailbox {
        &mut self.mailboxes[number as usize % DOMAINS]
    }
}

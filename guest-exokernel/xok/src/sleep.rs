//! Who sleeps over what, and what ends that; and the turn that the kernel takes when nobody can run.

use crate::arch::{entry, tsc};
use crate::calls::Answer;
use crate::kernel::{Kernel, State};
use crate::machine::{Machine, Register, read_u16};
use crate::schedule::GateFrame;
use abi::call::{Error, sleep};
use abi::capability::{Kind, number, rights};
use abi::layout::PAGE_BYTES;
use abi::queue::QUEUE_OWNERS;
use core::sync::atomic::Ordering;

/// Device work is done at least this often for others' sake while somebody runs.
const TURN_TICKS: u64 = 1 << 21;
/// A deadline that has passed: the turn looks once and comes back.
const AT_ONCE: u64 = 1;

/// [`abi::call::Call::Sleep`].
pub(crate) extern "sysv64" fn sleep(
    deadline_tsc: u64,
    first: u64,
    second: u64,
    third: u64,
    fourth: u64,
    frame: &GateFrame,
) -> Answer {
    // SAFETY: the gate has just been passed.
    let kernel = unsafe { crate::kernel::enter() };
    let current = kernel.current;
    let environment = kernel.environment(current);
    environment.deadline_tsc = deadline_tsc;
    environment.terms = [first, second, third, fourth];
    kernel.set_resume(current, [frame.rip, frame.rsp, 0, 0, 0]);
    kernel.environment(current).state = State::Asleep;
    kernel.runnable &= !(1 << current);
    kernel.asleep |= 1 << current;
    if deadline_tsc == AT_ONCE && Machine::get().host().take_turns.load(Ordering::Relaxed) != 0 {
        kernel.turn(AT_ONCE);
    }
    kernel.schedule()
}

impl Kernel {
    /// Sleepers for whom something happened can run.
    pub(crate) fn look(&mut self) {
        let mut left = self.asleep & !self.calling;
        if left == 0 {
            return;
        }
        let now = tsc();
        let stop = Machine::get().host().stop.load(Ordering::Relaxed) != 0;
        while left != 0 {
            let sleeper = left.trailing_zeros();
            left &= left - 1;
            let environment = *self.environment(sleeper);
            let due = environment.deadline_tsc != 0 && environment.deadline_tsc <= now;
            if stop
                || due
                || environment.woken
                || (environment.state == State::Asleep
                    && environment.terms.iter().any(|&term| self.holds(sleeper, term)))
            {
                self.rouse(sleeper);
            }
        }
    }

    /// A sleeper can run.
    pub(crate) fn rouse(&mut self, sleeper: u32) {
        if self.environment(sleeper).state == State::Receiving {
            self.come_to_nothing(sleeper, Error::NoMessage);
        }
        let environment = self.environment(sleeper);
        environment.state = State::Runnable;
        environment.woken = false;
        self.kernel_page(sleeper).roused_tsc.store(tsc(), Ordering::Relaxed);
        self.asleep &= !(1 << sleeper);
        self.runnable |= 1 << sleeper;
        self.offer(sleeper);
    }

    /// Whether a term of [`abi::call::sleep`] holds. What makes no sense holds: its owner may look around.
    fn holds(&mut self, environment: u32, term: u64) -> bool {
        let expected = term as u16;
        match term >> sleep::KIND_SHIFT {
            sleep::NONE => false,
            sleep::QUEUE => self.moved(environment, term >> 16 & 0xFFFF, expected),
            sleep::QUEUES => {
                self.moved(environment, term >> 16 & 0xFF, expected)
                    || self.moved(environment, term >> 40 & 0xFF, (term >> 24) as u16)
            }
            sleep::WORD => {
                let capability = number(environment, (term >> 48 & 0xFF) as u32);
                let tree = self.tree();
                let entry = tree.entry(capability);
                let offset = (term >> 16 & 0xFFFF_FFFF) * 2;
                let readable = entry.kind == Kind::Memory as u8
                    && entry.rights & rights::READ != 0
                    && offset < entry.count.saturating_mul(PAGE_BYTES);
                !readable || read_u16(entry.start * PAGE_BYTES + offset) != expected
            }
            sleep::MESSAGE_KIND => self.has_message(environment),
            _ => true,
        }
    }

    /// Whether the used index of a queue is not this, or the queue is not the environment's.
    fn moved(&self, environment: u32, queue: u64, expected: u16) -> bool {
        let queue = queue as usize;
        // `struct virtq_used`: flags, index.
        queue >= QUEUE_OWNERS
            || !self.is_bound_by(queue, environment)
            || read_u16(self.queues[queue].used_gpa + 2) != expected
    }

    /// Nobody can run: waits for the devices, or for the earliest deadline.
    pub(crate) fn idle(&mut self) {
        let due = self.revocation.due_tsc();
        let mut deadline = if due == u64::MAX { 0 } else { due };
        let mut left = self.asleep & !self.calling & self.own().allowed;
        while left != 0 {
            let own = self.environment(left.trailing_zeros()).deadline_tsc;
            left &= left - 1;
            if own != 0 && (deadline == 0 || own < deadline) {
                deadline = own;
            }
        }
        if Machine::get().host().take_turns.load(Ordering::Relaxed) != 0 {
            self.turn(deadline);
        } else {
            self.idle |= 1 << self.vcpu;
            entry::idle(deadline);
        }
    }

    /// Somebody runs, and nobody else does the work of the devices that others wait for: now and then it is done in between.
    pub(crate) fn work_for_others(&mut self, number: u32) {
        let turns = Machine::get().host().take_turns.load(Ordering::Relaxed) != 0;
        let others = (self.runnable | self.asleep) & !(1 << number) != 0;
        if turns && others && tsc().wrapping_sub(self.last_turn_tsc) > TURN_TICKS {
            self.turn(AT_ONCE);
        }
    }

    pub(crate) fn turn(&mut self, deadline_tsc: u64) {
        Register::<u64>::at(Machine::get().boot().turn_gpa).write(deadline_tsc);
        self.last_turn_tsc = tsc();
    }

    /// [`abi::call::Call::Wake`].
    #[inline(always)]
    pub(crate) fn wake(&mut self, handle: u64) -> Result<(), Error> {
        let number = self.other(handle, rights::WAKE)?;
        self.wake_up(number);
        Ok(())
    }

    /// It looks around now if it sleeps, and otherwise does not fall asleep next time.
    #[inline(always)]
    pub(crate) fn wake_up(&mut self, number: u32) {
        if self.asleep & !self.calling & (1 << number) != 0 {
            self.rouse(number);
        } else {
            self.environment(number).woken = true;
        }
    }
}

//! Messages between environments: four words, in registers, from one to another that it may call.
//!
//! Words go out in `rsi`, `rdx`, `r10` and `r8`, with the receiver in `rdi`, and arrive in the same registers with the
//! [`Sender`] in `rdi`. The answer to a call arrives like that, too, with nothing in `rdi`. When a call is refused, or nothing
//! came, they hold zero. No memory of either side is read.
//!
//! Each environment has one call and one sent message under way at most, so what waits for a receiver is a bit for each
//! environment and nobody can exhaust anything. Those who wait are received one after the other, in the order of their numbers
//! from the last one on; of one environment, what it sent before what it calls with.

/// Who sent a message, by the kernel's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Sender(pub u64);

impl Sender {
    /// Bit of the word: it does not wait for an answer.
    pub const SENT: u64 = 1 << 31;

    /// One that calls and waits.
    pub const fn caller(environment: u32, generation: u32) -> Self {
        Self(environment as u64 | (generation as u64) << 32)
    }

    /// The number of the environment.
    pub const fn environment(self) -> u32 {
        self.0 as u32 & !(Self::SENT as u32)
    }

    /// Which of the environments that had this number one after the other.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether it waits for an answer.
    pub const fn waits(self) -> bool {
        self.0 & Self::SENT == 0
    }
}

/// What becomes of a message that was sent without waiting: values of [`crate::environment::KernelPage::sent`].
pub mod sent {
    /// It was received, or there was none: the next can be sent.
    pub const NOTHING: u32 = 0;
    /// It has not been received yet.
    pub const WAITING: u32 = 1;
    /// Its receiver ended without having received it.
    pub const LOST: u32 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_says_who_and_whether_it_waits() {
        let caller = Sender::caller(63, u32::MAX);
        assert_eq!((caller.environment(), caller.generation(), caller.waits()), (63, u32::MAX, true));
        let sender = Sender(caller.0 | Sender::SENT);
        assert_eq!((sender.environment(), sender.generation(), sender.waits()), (63, u32::MAX, false));
    }
}

//! What stands between an environment and everything that is not its own. The image `probe` tries one thing a run, and the
//! tests look at how its machine ends: with the fault report that they expect, or with the log lines that they expect.
//!
//! Tests called `core_…` also run on the emulated hardware-virtualised host, where SYSCALL raises the privilege and ring 0
//! runs natively.
//!
//! | module | what |
//! | --- | --- |
//! | [`fixture`] | runs the probe |
//! | [`instructions`] | instructions that ring 3 may not execute |
//! | [`memory`] | addresses that ring 3 may not read, write or execute |
//! | [`calls`] | kernel calls: registers, errors, the halt |
//! | [`queues`] | what a queue must not be bound to, and what a device must not be made to touch |
//! | [`disks`] | disks: what is read and written, and what is not |
//! | [`attacks`] | the list of attacks: all that the image tries, and what each got |
//! | [`environments`] | environments that do not trust each other |
//! | [`messages`] | messages between environments |
//! | [`beside`] | several environments from the start |
//! | [`arbitrary`] | every call with arbitrary arguments, and every table filled |
//! | [`storm`] | sleeping and being woken, many times |
//! | [`paging`] | an environment that pages for itself |
//! | [`revocation`] | what is asked back: who answers, who does not, who must not ask |
//! | [`load`] | ends, log, heap, spans, nonsense in the shared pages |

mod arbitrary;
mod attacks;
mod beside;
mod calls;
mod disks;
mod environments;
mod fixture;
mod instructions;
mod load;
mod memory;
mod messages;
mod paging;
mod queues;
mod revocation;
mod storm;
mod vcpus;

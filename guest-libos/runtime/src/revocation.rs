//! What we are asked to give back, giving it, and what was taken from us.

use crate::{kernel, pages};
use abi::call::{Call, Error};
use abi::capability::Handle;
use abi::revocation::{ASKS, LOSSES};
use core::sync::atomic::Ordering;

/// Something that is asked back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Our capability.
    pub capability: Handle,
    /// How many of its range we may keep, from the first on.
    pub keep: u64,
    /// When the kernel takes the rest.
    pub deadline_tsc: u64,
}

/// Something that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Our capability, or what it was.
    pub capability: Handle,
    /// The first of what was taken.
    pub start: u64,
    /// How many.
    pub count: u64,
    /// Number of its [`abi::capability::Kind`].
    pub kind: u8,
    /// One of [`abi::revocation::why`].
    pub why: u64,
}

/// Whether something is asked back: a look at one word.
#[inline]
pub fn is_asked() -> bool {
    pages::kernel().asked.load(Ordering::Acquire) != 0
}

/// What is asked back now.
pub fn asks() -> impl Iterator<Item = Ask> {
    let page = pages::kernel();
    let asked = page.asked.load(Ordering::Acquire);
    (0..ASKS).filter(move |slot| asked & 1 << slot != 0).map(|slot| {
        let ask = &page.asks[slot];
        Ask {
            capability: Handle(ask.capability.load(Ordering::Relaxed)),
            keep: ask.keep.load(Ordering::Relaxed),
            deadline_tsc: ask.deadline_tsc.load(Ordering::Relaxed),
        }
    })
}

/// Gives all of a capability's range back but its first `keep`; none: the capability. Whatever was there must be out of the way.
pub fn give_back(capability: Handle, keep: u64) -> Result<(), Error> {
    let number = if keep == 0 { Call::CapabilityDrop } else { Call::CapabilityTrim };
    while kernel::raw(number, [Handle::NONE.0, capability.0, keep, 0, 0])? != 0 {}
    Ok(())
}

/// Asks an environment to keep no more than `keep` of its capability, which came from `own`. How many it holds beyond that;
/// 0: it has given them back, or the kernel has taken them.
pub fn ask(
    own: Handle,
    environment: Handle,
    capability: Handle,
    keep: u64,
    grace_tsc: u64,
) -> Result<u64, Error> {
    kernel::raw(Call::CapabilityAsk, [own.0, environment.0, capability.0, keep, grace_tsc])
}

/// Reads what was taken, in order, each once.
#[derive(Debug, Default)]
pub struct Losses {
    read: u64,
    missed: u64,
}

impl Losses {
    /// How many could not be read any more: more came than are kept.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

impl Iterator for Losses {
    type Item = Loss;

    fn next(&mut self) -> Option<Loss> {
        let page = pages::kernel();
        loop {
            let lost = page.lost.load(Ordering::Acquire);
            let oldest = lost.saturating_sub(LOSSES as u64);
            if self.read < oldest {
                self.missed += oldest - self.read;
                self.read = oldest;
            }
            if self.read == lost {
                return None;
            }
            let record = &page.losses[self.read as usize % LOSSES];
            let what = record.what.load(Ordering::Relaxed);
            let loss = Loss {
                capability: Handle(record.capability.load(Ordering::Relaxed)),
                start: record.start.load(Ordering::Relaxed),
                count: record.count.load(Ordering::Relaxed),
                kind: what as u8,
                why: what >> 8 & 0xFF,
            };
            // Our slice may have ended in between, and the record been written over.
            core::sync::atomic::fence(Ordering::Acquire);
            if page.lost.load(Ordering::Relaxed) - self.read <= LOSSES as u64 {
                self.read += 1;
                return Some(loss);
            }
        }
    }
}

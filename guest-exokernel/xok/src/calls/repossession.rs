//! Taking what was not given back by the deadline, in steps, and saying so. What a step undoes is what a holder that gives its tail back
//! by itself has undone: both come here.

use super::revocation::{NOBODY, Trim, handle, holder};
use crate::kernel::{Kernel, State};
use abi::capability::{Kind, LEAVING};
use abi::layout::PAGE_BYTES;
use abi::paging::{ADDRESS, LARGE};
use abi::revocation::{ASKS, LOSSES, why};
use core::sync::atomic::Ordering;
use xok_core::capability::Reaching;

/// Derived capabilities that one step looks at.
const CHILDREN: u32 = 32;
/// Pages in a large page.
const LARGE_PAGES: u64 = abi::layout::LARGE_PAGE_BYTES / PAGE_BYTES;

impl Kernel {
    /// Something is taken from an environment by somebody else.
    pub(super) fn lose(&mut self, capability: u16, start: u64, count: u64, why: u64) {
        let entry = *self.tree().entry(capability);
        let page = self.kernel_page(holder(capability) as u32);
        let lost = page.lost.load(Ordering::Relaxed);
        let record = &page.losses[lost as usize % LOSSES];
        record.capability.store(handle(capability, entry.generation), Ordering::Relaxed);
        record.start.store(start, Ordering::Relaxed);
        record.count.store(count, Ordering::Relaxed);
        record.what.store(u64::from(entry.kind) | why << 8, Ordering::Relaxed);
        page.lost.store(lost + 1, Ordering::Release);
    }

    /// The same, of a whole capability.
    #[cold]
    pub(super) fn lose_all(&mut self, capability: u16, by: u32) {
        if self.environment(holder(capability) as u32).state == State::Ending {
            return;
        }
        let (start, count) = (self.tree().entry(capability).start, self.tree().entry(capability).count);
        self.lose(capability, start, count, if by == NOBODY { why::NOT_GIVEN } else { why::REVOKED });
    }

    /// A step of taking from somebody who has not answered by the deadline, if there is one. Between two steps others run.
    pub(crate) fn repossess(&mut self) {
        let now = crate::arch::tsc();
        if now < self.revocation.due_tsc {
            return;
        }
        let mut left = self.revocation.asked;
        while left != 0 {
            // First those behind the one that had the last step, then round.
            let behind = left & (u64::MAX << self.revocation.last << 1);
            let environment = if behind != 0 { behind } else { left }.trailing_zeros();
            left &= !(1 << environment);
            let mut done = false;
            for slot in 0..ASKS {
                let stands = self.revocation.stand[environment as usize] & 1 << slot != 0;
                if stands && self.revocation.asks[environment as usize][slot].deadline_tsc <= now {
                    self.take_step(environment, slot);
                    done = true;
                }
            }
            if done {
                self.revocation.last = environment;
                return;
            }
        }
    }

    fn take_step(&mut self, environment: u32, slot: usize) {
        if self.environment(environment).state == State::Ending {
            // All of it is being taken back.
            return;
        }
        let index = environment as usize;
        let ask = &mut self.revocation.asks[index][slot];
        let begun = core::mem::replace(&mut ask.taking, true);
        let mut trim = ask.trim;
        let capability = trim.capability - 1;
        let entry = *self.tree().entry(capability);
        if !begun {
            // So that it can look what it has lost, if it still can.
            self.wake_up(environment);
        }
        // Also if its holder has begun to drop it and does not go on.
        if trim.keep == 0 || entry.depth & LEAVING != 0 {
            self.drop_step(capability, NOBODY);
            return;
        }
        if !begun {
            self.lose(capability, entry.start + trim.keep, entry.count - trim.keep, why::NOT_GIVEN);
            if self.revocation.trims[index].capability == capability + 1 {
                self.revocation.trims[index] = Trim::NONE;
            }
        }
        self.trim_step(capability, &mut trim, NOBODY);
        self.revocation.asks[index][slot].trim = trim;
    }

    /// A step of undoing what was bound with the tail of a range or derived from it; whether it was the last.
    pub(super) fn trim_step(&mut self, capability: u16, trim: &mut Trim, by: u32) -> bool {
        let mut tree = self.tree();
        tree.begin_trimming(capability);
        let entry = *tree.entry(capability);
        let limit = entry.start + trim.keep;
        if !trim.children_gone {
            match tree.reaching(capability, limit, &mut trim.child, CHILDREN) {
                Reaching::Child(child) => {
                    let next = tree.entry(child).next;
                    if self.drop_step(child, by) {
                        trim.child = next;
                    }
                }
                Reaching::None => trim.children_gone = true,
                Reaching::Unknown => {}
            }
            return false;
        }
        let environment = holder(capability) as u32;
        let done = match Kind::from_number(entry.kind) {
            Some(Kind::Memory) => self.unmap_tail(environment, capability, limit, trim),
            Some(Kind::Queues) => self.unbind_tail(capability, limit),
            Some(Kind::Extent) => self.unextent_tail(environment, capability, trim),
            Some(Kind::Slices) => self.unslice_tail(capability, limit),
            _ => true,
        };
        if done {
            self.tree().end_trimming(capability, trim.keep);
            self.answered(capability);
        }
        done
    }

    /// Undoes mappings of pages from `limit` on, then what devices may do with them.
    fn unmap_tail(&mut self, environment: u32, capability: u16, limit: u64, trim: &mut Trim) -> bool {
        // Who unmapped everything before has nothing to wait for.
        if trim.va < xok_core::paging::END_VA && self.tree().entry(capability).bound > 0 {
            trim.va = self.unmap_some(environment, capability, trim.va, |entry| {
                let pages = if entry & LARGE != 0 { LARGE_PAGES } else { 1 };
                (entry & ADDRESS) / PAGE_BYTES + pages > limit
            });
            return false;
        }
        self.forbid_tail(environment, capability, limit, trim)
    }
}

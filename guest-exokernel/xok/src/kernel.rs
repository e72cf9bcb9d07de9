//! What the kernel keeps to itself: environments, who is bound to which queue, spare page tables. One vCPU, interrupts off:
//! whoever is in ring 0 has it alone.

use crate::calls::message::Mailbox;
use crate::machine::{Machine, read, write};
use crate::tables::Domain;
use abi::call::Error;
use abi::capability::{Capability, Handle, Kind, rights};
use abi::domain::DOMAINS;
use abi::environment::{KernelPage, Place};
use abi::queue::QUEUE_OWNERS;
use core::cell::UnsafeCell;
use core::sync::atomic::Ordering;
use xok_core::capability::{ENTRIES, Slots, Tree};
use xok_core::paging::Tables;
use xok_core::refuse;

/// What an environment is doing. From [`Self::New`] on it lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Nothing: the place is free.
    Free,
    /// Ended; what it held is being taken back.
    Ending,
    /// Made, not started.
    New,
    /// Runs, or could.
    Runnable,
    /// Waits for its terms.
    Asleep,
    /// Waits for a message.
    Receiving,
    /// Waits for the answer to its call.
    Calling,
}

impl State {
    /// Neither gone nor going.
    #[inline(always)]
    pub(crate) fn lives(self) -> bool {
        self >= Self::New
    }
}

/// One environment's part of the kernel. A power of two, so that finding one is a shift.
#[derive(Clone, Copy)]
#[repr(align(128))]
pub(crate) struct Environment {
    /// From the place, for short ways: root of the page tables, and the DMA domain.
    pub(crate) root_gpa: u64,
    pub(crate) domain: Domain,
    kernel_page_gpa: u64,
    pub(crate) state: State,
    /// Counts the environments that had this place. Odd: never 0, which stands for a place.
    pub(crate) generation: u32,
    pub(crate) exit_status: u32,
    /// Free slots of its table of capabilities.
    pub(crate) slots: Slots,
    /// Page tables that it may still have.
    pub(crate) tables_left: u32,
    /// Where a sweep of its page tables goes on.
    pub(crate) sweep_va: u64,
    /// Somebody called `Wake` while it did not sleep.
    pub(crate) woken: bool,
    pub(crate) deadline_tsc: u64,
    pub(crate) terms: [u64; 4],
    /// How often the timer found it still running after the end of its slice.
    pub(crate) told: u32,
}

const _: () = assert!(size_of::<Environment>() == 128);

/// A bound queue.
#[derive(Clone, Copy)]
pub(crate) struct BoundQueue {
    /// Where its used ring lies.
    pub(crate) used_gpa: u64,
    /// Number plus one of the capability that it was bound with; 0: it is not bound.
    pub(crate) with: u16,
}

/// Spare pages for page tables: those never used, and a list of others through their first words.
pub(crate) struct Pool {
    free_gpa: u64,
    next_gpa: u64,
    end_gpa: u64,
}

/// All of it.
pub(crate) struct Kernel {
    /// The tables of capabilities.
    capabilities: *mut [Capability; ENTRIES],
    /// Who runs.
    pub(crate) current: u32,
    /// Places that are free, a bit each.
    pub(crate) free: u64,
    /// Environments by state, a bit each.
    pub(crate) runnable: u64,
    pub(crate) asleep: u64,
    /// Those of `asleep` whom only an answer wakes.
    pub(crate) calling: u64,
    pub(crate) ending: u64,
    pub(crate) environments: [Environment; DOMAINS],
    pub(crate) mailboxes: [Mailbox; DOMAINS],
    pub(crate) queues: [BoundQueue; QUEUE_OWNERS],
    /// When the slice of whoever runs is over.
    pub(crate) slice_end_tsc: u64,
    /// When the device work was done last on the kernel's behalf.
    pub(crate) last_turn_tsc: u64,
    pool: Pool,
}

struct Cell(UnsafeCell<Kernel>);

// SAFETY: one vCPU, interrupts off in ring 0: there is nobody to share with.
unsafe impl Sync for Cell {}

static KERNEL: Cell = Cell(UnsafeCell::new(Kernel::new()));

/// The kernel, for the one who came into ring 0 just now.
///
/// # Safety
/// Once between an entry into ring 0 and its end.
pub(crate) unsafe fn enter() -> &'static mut Kernel {
    // SAFETY: the caller is the only one; see above.
    unsafe { &mut *KERNEL.0.get() }
}

impl Kernel {
    const fn new() -> Self {
        const ENVIRONMENT: Environment = Environment {
            root_gpa: 0,
            domain: Domain::NONE,
            kernel_page_gpa: 0,
            state: State::Free,
            generation: u32::MAX,
            exit_status: 0,
            slots: Slots { unused: 0, free: 0 },
            tables_left: 0,
            sweep_va: 0,
            woken: false,
            deadline_tsc: 0,
            terms: [0; 4],
            told: 0,
        };
        Self {
            capabilities: core::ptr::null_mut(),
            current: 0,
            free: 0,
            runnable: 0,
            asleep: 0,
            calling: 0,
            ending: 0,
            environments: [ENVIRONMENT; DOMAINS],
            mailboxes: [Mailbox::EMPTY; DOMAINS],
            queues: [BoundQueue { used_gpa: 0, with: 0 }; QUEUE_OWNERS],
            slice_end_tsc: 0,
            last_turn_tsc: 0,
            pool: Pool { free_gpa: 0, next_gpa: 0, end_gpa: 0 },
        }
    }

    /// Takes over what the VMM prepared.
    pub(crate) fn init(&mut self) {
        let boot = Machine::get().boot();
        self.pool.next_gpa = boot.table_pool.start_gpa;
        self.pool.end_gpa = boot.table_pool.end_gpa();
        self.capabilities =
            crate::machine::direct_map::<[Capability; ENTRIES]>(boot.capabilities_gpa).cast_mut();
        for (number, place) in Machine::get().places().iter().enumerate() {
            let environment = &mut self.environments[number];
            environment.root_gpa = place.root_gpa;
            environment.kernel_page_gpa = place.kernel_page_gpa;
            environment.domain = Domain::of(number as u32);
            environment.slots = Slots::new(number as u32, place.capabilities);
            environment.tables_left = place.tables_max;
            self.free |= 1 << number;
            if place.entry_va != 0 {
                self.make(number as u32);
                self.start(number as u32, place.entry_va, place.stack_va, 0);
            }
        }
        // The first to be chosen is the first.
        self.current = DOMAINS as u32 - 1;
    }

    /// A free place becomes an environment. What it had of the one before was reset when that was gone.
    #[inline(always)]
    pub(crate) fn make(&mut self, number: u32) {
        self.free &= !(1 << number);
        let environment = self.environment(number);
        environment.state = State::New;
        environment.generation = environment.generation.wrapping_add(2);
        environment.exit_status = 0;
    }

    /// A made one may run.
    pub(crate) fn start(&mut self, number: u32, entry_va: u64, stack_va: u64, argument: u64) {
        self.set_resume(number, [entry_va, stack_va, 0, 0, argument]);
        self.environment(number).state = State::Runnable;
        self.runnable |= 1 << number;
        self.count_alone();
        if self.slice_end_tsc == 0 {
            // Whoever runs was alone until now.
            self.begin_slice();
        }
    }

    /// Whether an environment besides the one that runs is left.
    pub(crate) fn has_others(&self) -> bool {
        (self.runnable | self.asleep) & !(1 << self.current) != 0
    }

    /// Where it goes on when it gets the CPU, with nothing in the registers that carry messages.
    pub(crate) fn set_resume(&self, number: u32, [rip, rsp, rax, rdx, rdi]: [u64; 5]) {
        let page = self.kernel_page(number);
        for (slot, word) in page.resume.iter().zip([rip, rsp, rax, rdx, rdi, 0, 0, 0]) {
            slot.store(word, Ordering::Relaxed);
        }
    }

    /// An environment alone takes its turns by itself; two sleep by kernel calls.
    pub(crate) fn count_alone(&self) {
        let live = self.runnable | self.asleep | self.ending;
        let alone = live & live.wrapping_sub(1) == 0;
        crate::arch::entry::set_alone(alone);
        let mut left = live & !self.ending;
        while left != 0 {
            let number = left.trailing_zeros();
            left &= left - 1;
            self.kernel_page(number).alone.store(u32::from(alone), Ordering::Relaxed);
            let at = self.place(number).turn_entry_gpa;
            let entry = read(at);
            write(at, if alone { entry | abi::paging::PRESENT } else { entry & !abi::paging::PRESENT });
        }
        // Whoever runs may have used the register a moment ago.
        crate::arch::flush_page(abi::layout::TURN_VA);
    }

    /// What is known of an environment. Numbers come from places, so they are in range.
    #[inline(always)]
    pub(crate) fn environment(&mut self, number: u32) -> &mut Environment {
        &mut self.environments[number as usize % DOMAINS]
    }

    /// What the VMM prepared of a place.
    #[inline]
    pub(crate) fn place(&self, number: u32) -> &'static Place {
        &Machine::get().places()[number as usize]
    }

    #[inline(always)]
    pub(crate) fn kernel_page(&self, number: u32) -> &'static KernelPage {
        let gpa = self.environments[number as usize % DOMAINS].kernel_page_gpa;
        // SAFETY: RAM that the VMM reserved for this page; all its fields are atomics.
        unsafe { &*crate::machine::direct_map::<KernelPage>(gpa) }
    }

    /// The tree of capabilities.
    #[inline(always)]
    pub(crate) fn tree(&mut self) -> Tree<'static> {
        // SAFETY: the VMM reserved the tables for the kernel, all bytes of them are valid entries, and `self` being borrowed
        // mutably nobody else is at them.
        Tree::new(unsafe { &mut *self.capabilities })
    }

    /// The environment for which a call is done: the caller, or one that it controls.
    #[inline(always)]
    pub(crate) fn subject(&mut self, handle: u64) -> Result<u32, Error> {
        if handle == Handle::NONE.0 { Ok(self.current) } else { self.controlled(handle) }
    }

    #[cold]
    fn controlled(&mut self, handle: u64) -> Result<u32, Error> {
        self.other(handle, rights::CONTROL)
    }

    /// The environment that a capability of the caller names, if that has these rights.
    #[inline(always)]
    pub(crate) fn other(&mut self, handle: u64, rights: u16) -> Result<u32, Error> {
        let number = self.tree().find(self.current, Handle(handle), Kind::Environment)?;
        self.named(number, rights)
    }

    /// The environment that a capability names, if it has these rights and the environment still is.
    #[inline(always)]
    pub(crate) fn named(&mut self, capability: u16, rights: u16) -> Result<u32, Error> {
        let tree = self.tree();
        tree.allow(capability, rights)?;
        let entry = tree.entry(capability);
        let (number, generation) = (entry.start as u32, entry.object);
        let environment = self.environment(number);
        // Whoever lives has a generation, and places have none.
        if environment.generation == generation && environment.state.lives() {
            Ok(number)
        } else {
            refuse(Error::NotFound)
        }
    }

    /// Page tables, with the supply of an environment.
    #[inline(always)]
    pub(crate) fn tables(&mut self, number: u32) -> PageTables<'_> {
        PageTables {
            pool: &mut self.pool,
            left: &mut self.environments[number as usize % DOMAINS].tables_left,
        }
    }
}

/// Physical memory as page tables see it.
pub(crate) struct PageTables<'a> {
    pool: &'a mut Pool,
    left: &'a mut u32,
}

impl Tables for PageTables<'_> {
    #[inline]
    fn read(&self, gpa: u64) -> u64 {
        read(gpa)
    }

    #[inline]
    fn write(&mut self, gpa: u64, entry: u64) {
        write(gpa, entry);
    }

    fn take(&mut self) -> Option<u64> {
        *self.left = self.left.checked_sub(1)?;
        let gpa = self.pool.free_gpa;
        if gpa != 0 {
            self.pool.free_gpa = read(gpa);
            write(gpa, 0);
            return Some(gpa);
        }
        let gpa = self.pool.next_gpa;
        if gpa >= self.pool.end_gpa {
            *self.left += 1;
            return None;
        }
        self.pool.next_gpa = gpa + abi::layout::PAGE_BYTES;
        Some(gpa)
    }

    fn give(&mut self, gpa: u64) {
        *self.left += 1;
        write(gpa, self.pool.free_gpa);
        self.pool.free_gpa = gpa;
    }
}

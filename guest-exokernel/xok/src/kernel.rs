//! What the kernel keeps to itself: environments, who is bound to which queue, spare page tables.
//! Interrupts are off and the lock is held (see [`crate::arch::vcpu`]): whoever is in ring 0 has it alone.

use crate::arch::probe::Gate;
use crate::arch::vcpu;
use crate::calls::message::Mailbox;
use crate::calls::revocation::Revocation;
use crate::machine::{Machine, read, write};
use crate::tables::Domain;
use crate::vcpus::{NOBODY, Vcpu};
use abi::boot::VCPUS_MAX;
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
    /// Nodes of the flow table that it may still carve.
    pub(crate) flows_left: u32,
    /// Where a sweep of its page tables goes on.
    pub(crate) sweep_va: u64,
    /// Somebody called `Wake` while it did not sleep.
    pub(crate) woken: bool,
    pub(crate) deadline_tsc: u64,
    pub(crate) terms: [u64; 4],
    /// How often the timer found it still running after the end of its slice.
    pub(crate) told: u32,
    /// vCPUs on which it may run, a bit each.
    pub(crate) vcpus: u8,
    /// Slices of each vCPU that are bound by it.
    pub(crate) slices: [u8; VCPUS_MAX],
    /// Those who share its slices, a bit each: itself, and whom it and they started.
    pub(crate) family: u64,
    /// Who of them had the last one.
    pub(crate) turn: u8,
    /// In whose family it is; [`NOBODY`]: it runs in what is left over.
    pub(crate) payer: u8,
    /// Who started it.
    pub(crate) starter: u8,
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
    /// The vCPU that is in ring 0, and who runs on it; [`NOBODY`] while it looks for somebody.
    pub(crate) vcpu: u32,
    pub(crate) current: u32,
    /// Places that are free, a bit each.
    pub(crate) free: u64,
    /// Environments by state, a bit each.
    pub(crate) runnable: u64,
    pub(crate) asleep: u64,
    /// Those of `asleep` whom only an answer wakes.
    pub(crate) calling: u64,
    pub(crate) ending: u64,
    /// Of which of them something was taken back last.
    pub(crate) last_ending: u32,
    /// With several vCPUs, those that run on one now; they are among the runnable or the ending.
    pub(crate) running: u64,
    /// vCPUs that halt because nobody could run there.
    pub(crate) idle: u8,
    pub(crate) vcpus: [Vcpu; VCPUS_MAX],
    /// What raises the privilege.
    pub(crate) gate: Gate,
    /// Whether there is more than one vCPU.
    pub(crate) several: bool,
    /// Whether there is one environment, which takes its turns by itself.
    pub(crate) alone: bool,
    pub(crate) environments: [Environment; DOMAINS],
    pub(crate) mailboxes: [Mailbox; DOMAINS],
    pub(crate) queues: [BoundQueue; QUEUE_OWNERS],
    /// When the device work was done last on the kernel's behalf.
    pub(crate) last_turn_tsc: u64,
    /// How often each environment's devices were drained, or begun to be.
    pub(crate) drains: [u32; DOMAINS],
    /// Asks that stand.
    pub(crate) revocation: Revocation,
    pool: Pool,
}

#[repr(transparent)]
pub(crate) struct Cell(UnsafeCell<Kernel>);

// SAFETY: whoever is in ring 0 has the lock, or is on the only vCPU with interrupts off: there is nobody to share with.
unsafe impl Sync for Cell {}

// The gate's stub writes who is here, under the lock.
pub(crate) static KERNEL: Cell = Cell(UnsafeCell::new(Kernel::new()));

/// The kernel, for the one who came through the gate just now.
///
/// # Safety
/// Once between an entry into ring 0 and its end, by who has the lock.
pub(crate) unsafe fn enter() -> &'static mut Kernel {
    // SAFETY: the caller is the only one; see above.
    unsafe { &mut *KERNEL.0.get() }
}

/// The kernel, for who came into ring 0 in another way: takes the lock.
///
/// # Safety
/// Once between an entry into ring 0 and its end.
pub(crate) unsafe fn lock() -> &'static mut Kernel {
    vcpu::lock();
    // SAFETY: the lock is held from here on.
    let kernel = unsafe { enter() };
    if kernel.several {
        (kernel.vcpu, kernel.current) = vcpu::here();
    }
    kernel
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
            flows_left: 0,
            sweep_va: 0,
            woken: false,
            deadline_tsc: 0,
            terms: [0; 4],
            told: 0,
            vcpus: 0,
            slices: [0; VCPUS_MAX],
            family: 0,
            turn: 0,
            payer: NOBODY as u8,
            starter: NOBODY as u8,
        };
        Self {
            capabilities: core::ptr::null_mut(),
            vcpu: 0,
            current: NOBODY,
            free: 0,
            runnable: 0,
            asleep: 0,
            calling: 0,
            ending: 0,
            last_ending: 0,
            running: 0,
            idle: 0,
            vcpus: [Vcpu::NEW; VCPUS_MAX],
            gate: Gate::Int3,
            several: false,
            alone: false,
            environments: [ENVIRONMENT; DOMAINS],
            mailboxes: [Mailbox::EMPTY; DOMAINS],
            queues: [BoundQueue { used_gpa: 0, with: 0 }; QUEUE_OWNERS],
            last_turn_tsc: 0,
            drains: [0; DOMAINS],
            revocation: Revocation::new(),
            pool: Pool { free_gpa: 0, next_gpa: 0, end_gpa: 0 },
        }
    }

    /// Takes over what the VMM prepared.
    pub(crate) fn init(&mut self, gate: Gate) {
        self.gate = gate;
        let boot = Machine::get().boot();
        self.pool.next_gpa = boot.table_pool.start_gpa;
        self.pool.end_gpa = boot.table_pool.end_gpa();
        self.capabilities =
            crate::machine::direct_map::<[Capability; ENTRIES]>(boot.capabilities_gpa).cast_mut();
        self.several = boot.vcpus > 1;
        for (number, place) in Machine::get().places().iter().enumerate() {
            let environment = &mut self.environments[number];
            environment.root_gpa = place.root_gpa;
            environment.kernel_page_gpa = place.kernel_page_gpa;
            environment.domain = Domain::of(number as u32);
            environment.slots = Slots::new(number as u32, place.capabilities);
            environment.tables_left = place.tables_max;
            environment.flows_left = place.flows_max;
            self.free |= 1 << number;
            if place.entry_va != 0 {
                self.make(number as u32);
                self.allow_on(number as u32, 1 << (place.vcpu % VCPUS_MAX as u32));
                self.bind_first_slices(number as u32, place.vcpu);
                self.start(number as u32, place.entry_va, place.stack_va, 0);
            }
        }
    }

    /// A free place becomes an environment. What it had of the one before was reset when that was gone.
    #[inline(always)]
    pub(crate) fn make(&mut self, number: u32) {
        self.free &= !(1 << number);
        let environment = self.environment(number);
        environment.state = State::New;
        environment.generation = environment.generation.wrapping_add(2);
        environment.exit_status = 0;
        environment.starter = NOBODY as u8;
    }

    /// A made one may run: where it has slices, or else on this vCPU in those of whoever starts it.
    pub(crate) fn start(&mut self, number: u32, entry_va: u64, stack_va: u64, argument: u64) {
        self.set_resume(number, [entry_va, stack_va, 0, 0, argument]);
        let starter = self.current as u8;
        let environment = self.environment(number);
        environment.state = State::Runnable;
        environment.starter = starter;
        if environment.payer == NOBODY as u8 {
            self.join_starter(number);
        }
        self.runnable |= 1 << number;
        if self.environment(number).vcpus == 0 {
            let payer = u32::from(self.environment(number).payer);
            let vcpus = if payer == NOBODY { 1 << self.vcpu } else { self.environment(payer).vcpus };
            self.allow_on(number, vcpus);
        }
        self.count_alone(Some(number));
        self.offer(number);
        if self.own().slice_end_tsc == 0 {
            // Whoever runs here was alone until now.
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

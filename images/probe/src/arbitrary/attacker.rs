//! A child that makes whatever calls its parent writes into its data page, and writes down what they answered.

use super::exhaust::{give_back, settle};
use super::random::Random;
use crate::binding::pages_for;
use crate::child::{Child, Code, DATA_VA};
use abi::boot::{Capabilities, DEVICE_BLOCK};
use abi::call::{Call, Error, state};
use abi::capability::{Handle, rights};
use abi::domain::DOMAINS;
use abi::layout::*;
use alloc::vec::Vec;
use exos_runtime::{kernel, pages};

/// Calls that it makes before it sleeps again.
pub(super) const BATCH: u64 = 24;
/// Pages of memory that it has besides its code and data.
const PAGES: u64 = 64;
/// How often it is woken out of one call before it is given up.
const PATIENCE: u32 = 3;
/// How often others run before it is given up. Others are its children and the neighbour.
const YIELDS: u32 = 400;

/// One call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) arguments: [u64; 5],
    pub(super) status: u64,
    pub(super) value: u64,
}

/// Words of the data page: how many requests are done, how many there are; then eight for each.
const DONE: usize = 0;
const COUNT: usize = 1;
const FIRST: usize = 8;
const WORDS: usize = 8;

const _: () = assert!(8 * (FIRST + WORDS * BATCH as usize) < PAGE_BYTES as usize - 64);

/// It, and what is known of its handles.
pub(super) struct Attacker {
    child: Child,
    /// Handles in its table, good once.
    handles: Vec<u64>,
    /// Its memory.
    first_page: u64,
    /// What of the parent's was given.
    parts: Vec<Handle>,
}

/// The program: makes the requests that are there, then sleeps. What it needs to know it has in memory, since some calls lose all
/// registers but the stack pointer.
fn program() -> Code {
    let at_request: &[u8] = &[
        0x48, 0x8B, 0x0B, // mov rcx, [rbx]
        0x48, 0xC1, 0xE1, 0x06, // shl rcx, 6
        0x4C, 0x8D, 0x64, 0x0B, 0x40, // lea r12, [rbx + rcx + 64]
    ];
    let gate = [&[0x48, 0xB9][..], &GATE_VA.to_le_bytes(), &[0xFF, 0xD1]].concat(); // mov rcx, gate; call rcx
    let data = [&[0x48, 0xBB][..], &DATA_VA.to_le_bytes()].concat(); // mov rbx, data
    let mut make = at_request.to_vec();
    make.extend([
        0x49, 0x8B, 0x04, 0x24, // mov rax, [r12]
        0x49, 0x8B, 0x7C, 0x24, 0x08, // mov rdi, [r12 + 8]
        0x49, 0x8B, 0x74, 0x24, 0x10, // mov rsi, [r12 + 16]
        0x49, 0x8B, 0x54, 0x24, 0x18, // mov rdx, [r12 + 24]
        0x4D, 0x8B, 0x54, 0x24, 0x20, // mov r10, [r12 + 32]
        0x4D, 0x8B, 0x44, 0x24, 0x28, // mov r8, [r12 + 40]
    ]);
    make.extend(&gate);
    make.extend(&data);
    make.extend(at_request);
    make.extend([
        0x49, 0x89, 0x44, 0x24, 0x30, // mov [r12 + 48], rax
        0x49, 0x89, 0x54, 0x24, 0x38, // mov [r12 + 56], rdx
        0x48, 0xFF, 0x03, // inc qword [rbx]
    ]);
    let mut code = data;
    code.extend([0x48, 0x8B, 0x0B, 0x48, 0x3B, 0x4B, 0x08]); // mov rcx, [rbx]; cmp rcx, [rbx + 8]
    code.extend([0x73, make.len() as u8 + 5]); // jae to the sleep
    code.extend(&make);
    code.push(0xE9); // jmp to the beginning
    code.extend((-(code.len() as i32 + 4)).to_le_bytes());
    let code = Code::new().bytes(&code).call(Call::Sleep, [0; 5]).bytes(&[0xE9]);
    let back = -(code.0.len() as i32 + 4);
    code.bytes(&back.to_le_bytes())
}

fn call(number: Call, arguments: [u64; 5]) -> Result<u64, Error> {
    kernel::raw(number, arguments)
}

impl Attacker {
    /// One that has a part of everything that its parent has.
    pub(super) fn new() -> Option<Self> {
        let own = &pages::environment().capabilities;
        let child = Child::new(program(), rights::WRITE | rights::DMA).ok()?;
        let first_page = pages_of_all_attackers()? / PAGE_BYTES;
        let mut attacker = Self { child, handles: Vec::new(), first_page, parts: Vec::new() };
        let all = rights::READ | rights::WRITE | rights::EXECUTE | rights::DMA | rights::GIVE;
        let derive = [0, own.heap[0].0, first_page, PAGES, u64::from(all)];
        let memory = call(Call::CapabilityDerive, derive).ok()?;
        attacker.give(memory, all);
        attacker.parts.push(Handle(memory));
        attacker.give_devices(own);
        // Places for children of its own, of which it may make the last two.
        if let Some((places, rights)) = derive_last_places(own.environments) {
            attacker.give(places, rights);
            attacker.parts.push(Handle(places));
        }
        attacker.handles.push(attacker.child.given.0);
        attacker.child.start(0).ok()?;
        Some(attacker)
    }

    fn give_devices(&mut self, own: &Capabilities) {
        for (index, device) in pages::environment().devices.iter().enumerate() {
            self.give(own.queues[index].0, rights::BIND | rights::GIVE);
            if device.kind == DEVICE_BLOCK {
                self.give(own.extents[index].0, rights::READ | rights::WRITE | rights::GIVE);
            }
            let all = rights::CARVE | rights::DIRECT | rights::SEND_ANY | rights::GIVE;
            self.give(own.flows[index].0, all);
        }
    }

    /// Gives what there is of it, with as many of these rights as there are.
    fn give(&mut self, capability: u64, wanted: u16) {
        if capability == Handle::NONE.0 {
            return;
        }
        let to = self.child.environment.0;
        let each = (0..16).map(|bit| 1 << bit).filter(|bit| wanted & bit != 0);
        let all = call(Call::CapabilityGive, [0, capability, to, u64::from(wanted), 0]);
        if let Ok(handle) = all {
            return self.handles.push(handle);
        }
        for right in each {
            if let Ok(handle) = call(Call::CapabilityGive, [0, capability, to, u64::from(right), 0]) {
                self.handles.push(handle);
            }
        }
    }

    /// A call with arguments of all kinds.
    pub(super) fn invent(&self, random: &mut Random, good: &[Request]) -> Request {
        let number = match random.below(32) {
            0 => random.number(),
            _ => random.pick(&Call::ALL).map_or(0, |call| *call as u64),
        };
        let mut arguments = [0; 5].map(|_| self.word(random));
        // As often as not for itself, where a call is for somebody.
        if random.below(2) == 0 {
            arguments[0] = 0;
        }
        let same: Vec<&Request> = good.iter().filter(|request| request.number == number).collect();
        if let (Some(before), 1..) = (random.pick(&same), random.below(4)) {
            let keep = arguments;
            arguments = before.arguments;
            for _ in 0..random.below(3) {
                let at = random.below(5) as usize;
                arguments[at] = keep[at];
            }
        }
        Request { number, arguments, status: 0, value: 0 }
    }

    fn word(&self, random: &mut Random) -> u64 {
        const ADDRESSES: [u64; 12] = [
            0,
            IMAGE_VA,
            DATA_VA,
            WINDOW_VA,
            STACK_TOP_VA,
            PAGES_VA,
            GATE_VA,
            RESUME_VA,
            PAGE_TABLES_VA,
            DOORBELL_VA,
            DIRECT_MAP_VA,
            KERNEL_VA,
        ];
        let handle = random.pick(&self.handles).copied().unwrap_or(0);
        match random.below(16) {
            0..=4 => handle,
            // The same slot in another use, another slot in the same.
            5 => handle.wrapping_add(1 << 32),
            6 => handle.wrapping_add(random.below(3)).wrapping_sub(1),
            7 => random.below(260) | random.below(6) << 32,
            8 => (1 << 40) + (random.below(1 << 12) << 12) + random.below(4),
            9 => (1 << 40) + (random.below(1 << 8) << 21) + random.below(8),
            10 => self.first_page + random.below(PAGES + 2),
            11 => (self.first_page + random.below(PAGES)) * PAGE_BYTES,
            12 => random.pick(&ADDRESSES).map_or(0, |va| va.wrapping_add(random.number() & 0x1FFF)),
            13 => random.below(1 << 16),
            14 => 1 << random.below(12),
            _ => random.number(),
        }
    }

    fn read(&self, word: usize) -> u64 {
        // SAFETY: inside the child's data page, a page of our heap.
        unsafe { self.child.data.add(word).read_volatile() }
    }

    fn write(&self, word: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.child.data.add(word).write_volatile(value) }
    }

    /// Lets it make these calls. Those that it made, and whether it can make more; `None`: it does not end.
    pub(super) fn make(&mut self, batch: &[Request]) -> Option<(Vec<Request>, bool)> {
        for (index, request) in batch.iter().enumerate() {
            let at = FIRST + WORDS * index;
            let words = core::iter::once(request.number).chain(request.arguments);
            words.enumerate().for_each(|(word, value)| self.write(at + word, value));
        }
        self.write(DONE, 0);
        self.write(COUNT, batch.len() as u64);
        let goes_on = self.run(batch.len() as u64)?;
        // It may have written there what it liked; what it did not do is not judged.
        let done = self.read(DONE).min(batch.len() as u64) as usize;
        let mut made = batch[..done].to_vec();
        for (index, request) in made.iter_mut().enumerate() {
            let at = FIRST + WORDS * index;
            (request.status, request.value) = (self.read(at + 6), self.read(at + 7));
            // Looks like a handle: a slot, and a generation.
            let is_handle = request.value >> 32 != 0 && request.value & 0xFFFF_FFFF < 256;
            if request.status == 0 && is_handle && self.handles.len() < 400 {
                self.handles.push(request.value);
            }
        }
        Some((made, goes_on))
    }

    /// Until all are done, or it is gone.
    fn run(&self, count: u64) -> Option<bool> {
        let (mut woken, mut last) = (0, 0);
        for _ in 0..YIELDS {
            match self.child.status().0 {
                state::GONE => return Some(false),
                state::RUNNABLE | state::ENDING => {}
                // Done, and asleep in its own sleep, or in one of the calls.
                _ if self.read(DONE) >= count => return Some(true),
                _ => {
                    woken = if self.read(DONE) == last { woken + 1 } else { 1 };
                    last = self.read(DONE);
                    if woken > PATIENCE {
                        return Some(false);
                    }
                    call(Call::Wake, [self.child.environment.0, 0, 0, 0, 0]).ok();
                }
            }
            kernel::yield_to(Handle::NONE).ok()?;
        }
        Some(false)
    }

    /// Ends it, if it has not ended, and takes everything back.
    pub(super) fn end(self) -> Option<()> {
        give_back(self.child.environment.0)?;
        give_back(self.child.part.0)?;
        self.parts.iter().try_for_each(|part| give_back(part.0))?;
        settle()
    }
}

/// The same pages for each of them: a heap gives nothing back here.
fn pages_of_all_attackers() -> Option<u64> {
    use core::sync::atomic::{AtomicU64, Ordering};
    static GPA: AtomicU64 = AtomicU64::new(0);
    if GPA.load(Ordering::Relaxed) == 0 {
        GPA.store(pages_for(PAGES * PAGE_BYTES)?, Ordering::Relaxed);
    }
    Some(GPA.load(Ordering::Relaxed))
}

/// A capability for the last two places, with all rights that there are to them.
fn derive_last_places(places: Handle) -> Option<(u64, u16)> {
    let try_ = |first: u64, count: u64, rights: u16| {
        call(Call::CapabilityDerive, [0, places.0, first, count, u64::from(rights)])
    };
    let derives = |first: u64, rights: u16| try_(first, 1, rights).ok().and_then(give_back).is_some();
    let last = (0..DOMAINS as u64).rev().find(|&number| derives(number, 0))?;
    let rights = (0..16).map(|bit| 1 << bit).filter(|&right| derives(last, right)).sum();
    try_(last.saturating_sub(1), 2, rights).ok().map(|handle| (handle, rights))
}

//! A child that makes whatever calls its parent writes into its data page, and writes down what they answered.

use super::companions::{Companions, Slices};
use super::exhaust::{give_back, settle};
use super::held::{Held, Holding};
use crate::child::{Child, Code, DATA_VA};
use abi::boot::{Capabilities, DEVICE_BLOCK};
use abi::call::{Call, Error, state};
use abi::capability::{Handle, Kind, rights};
use abi::domain::DOMAINS;
use abi::layout::*;
use abi::queue::QUEUES_PER_DEVICE;
use alloc::alloc::{Layout, alloc_zeroed};
use alloc::vec::Vec;
use exos_runtime::{kernel, pages};

/// Calls that it makes before it sleeps again.
pub(super) const BATCH: u64 = 12;
/// Pages of memory that it has besides its code and data: two large pages.
const PAGES: u64 = 2 * LARGE_PAGE_BYTES / PAGE_BYTES;
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
    /// What came in `rdi`: of a message, from whom it is.
    pub(super) first: u64,
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
    companions: Companions,
    slices: Option<Slices>,
    /// What it holds, or held once.
    pub(super) holding: Holding,
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
        0x49, 0x89, 0x3C, 0x24, // mov [r12], rdi
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
        let companions = Companions::new(&child)?;
        let holding = Holding::new(companions.handles());
        let mut attacker = Self { child, companions, slices: None, holding, parts: Vec::new() };
        let all = rights::READ | rights::WRITE | rights::EXECUTE | rights::DMA | rights::GIVE;
        let derive = [0, own.heap[0].0, first_page, PAGES, u64::from(all)];
        let memory = call(Call::CapabilityDerive, derive).ok()?;
        attacker.give(memory, Kind::Memory, all, (first_page, PAGES));
        attacker.parts.push(Handle(memory));
        attacker.give_devices(own);
        // Places for children of its own, of which it may make the last two.
        if let Some((places, rights, first)) = derive_last_places(own.environments) {
            attacker.give(places, Kind::Environment, rights, (first, 2));
            attacker.parts.push(Handle(places));
        }
        if let Some(slices) = Slices::new(own.slices[0]) {
            attacker.give(slices.part.0, Kind::Slices, rights::BIND | rights::GIVE, slices.range);
            attacker.slices = Some(slices);
        }
        let code = (attacker.child.gpa(0) / PAGE_BYTES - 1, 2);
        let rights = rights::READ | rights::WRITE | rights::EXECUTE | rights::DMA;
        attacker.holding.begin(Held::new(attacker.child.given.0, Kind::Memory, rights, code));
        attacker.child.start(0).ok()?;
        attacker.companions.start()?;
        Some(attacker)
    }

    fn give_devices(&mut self, own: &Capabilities) {
        for (index, device) in pages::environment().devices.iter().enumerate() {
            let queues = ((index * QUEUES_PER_DEVICE) as u64, device.queues.into());
            self.give(own.queues[index].0, Kind::Queues, rights::BIND | rights::GIVE, queues);
            if device.kind == DEVICE_BLOCK {
                let blocks = (0, device.capacity_blocks);
                let all = rights::READ | rights::WRITE | rights::GIVE;
                self.give(own.extents[index].0, Kind::Extent, all, blocks);
            }
            let all = rights::CARVE | rights::DIRECT | rights::SEND_ANY | rights::GIVE;
            self.give(own.flows[index].0, Kind::Flow, all, (0, 1));
        }
    }

    /// Gives what there is of it, with as many of these rights as there are.
    fn give(&mut self, capability: u64, kind: Kind, wanted: u16, range: (u64, u64)) {
        if capability == Handle::NONE.0 {
            return;
        }
        let to = self.child.environment.0;
        let each = (0..16).map(|bit| 1 << bit).filter(|bit| wanted & bit != 0);
        for rights in core::iter::once(wanted).chain(each) {
            if let Ok(handle) = call(Call::CapabilityGive, [0, capability, to, u64::from(rights), 0]) {
                self.holding.begin(Held::new(handle, kind, rights, range));
                if rights == wanted {
                    return;
                }
            }
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
            (request.first, request.status, request.value) =
                (self.read(at), self.read(at + 6), self.read(at + 7));
            if request.status == 0 {
                self.holding.note(request);
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
        self.companions.end()?;
        if let Some(slices) = self.slices {
            slices.end()?;
        }
        self.parts.iter().try_for_each(|part| give_back(part.0))?;
        settle()
    }
}

/// The same pages for each of them: a heap gives nothing back here.
fn pages_of_all_attackers() -> Option<u64> {
    use core::sync::atomic::{AtomicU64, Ordering};
    static GPA: AtomicU64 = AtomicU64::new(0);
    if GPA.load(Ordering::Relaxed) == 0 {
        let bytes = (PAGES * PAGE_BYTES) as usize;
        let layout = Layout::from_size_align(bytes, LARGE_PAGE_BYTES as usize).ok()?;
        // SAFETY: it is not nothing.
        let block = unsafe { alloc_zeroed(layout) };
        if block.is_null() {
            return None;
        }
        GPA.store(exos_runtime::dma::device_address(block, bytes)?, Ordering::Relaxed);
    }
    Some(GPA.load(Ordering::Relaxed))
}

/// A capability for the last two places, with all rights that there are to them, and the first of them.
fn derive_last_places(places: Handle) -> Option<(u64, u16, u64)> {
    let try_ = |first: u64, count: u64, rights: u16| {
        call(Call::CapabilityDerive, [0, places.0, first, count, u64::from(rights)])
    };
    let derives = |first: u64, rights: u16| try_(first, 1, rights).ok().and_then(give_back).is_some();
    let last = (0..DOMAINS as u64).rev().find(|&number| derives(number, 0))?;
    let rights = (0..16).map(|bit| 1 << bit).filter(|&right| derives(last, right)).sum();
    let first = last.saturating_sub(1);
    try_(first, 2, rights).ok().map(|handle| (handle, rights, first))
}

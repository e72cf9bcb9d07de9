//! Making other environments. A child's program is a few instructions in a page that its parent writes, so that it is just
//! what a case is about; its data lies in pages that both see.

use crate::binding::pages_for;
use abi::call::{ANY, Call, Error, map, sleep, state};
use abi::capability::{Handle, rights};
use abi::layout::*;
use alloc::alloc::{Layout, dealloc};
use alloc::vec::Vec;
use exos_runtime::{clock, kernel, pages};

/// Where a child's program lies, and its data page behind it.
pub(crate) const CODE_VA: u64 = IMAGE_VA;
pub(crate) const DATA_VA: u64 = CODE_VA + PAGE_BYTES;
const WORDS_OF_A_PAGE: usize = PAGE_BYTES as usize / 8;
/// How long a child may take.
const PATIENCE_MS: u64 = 40_000;
/// How long a parent sleeps between two looks. Longer than any child here computes, since those have no upcall that would
/// save them when their parent wants the CPU.
const POLL_MS: u64 = 10_000;

/// Instructions, as bytes.
pub(crate) struct Code(pub(crate) Vec<u8>);

impl Code {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn load(self, opcode: [u8; 2], value: u64) -> Self {
        self.bytes(&opcode).bytes(&value.to_le_bytes())
    }

    pub(crate) fn rax(self, value: u64) -> Self {
        self.load([0x48, 0xB8], value)
    }

    /// `rax` becomes what is at an address.
    pub(crate) fn read(self, va: u64) -> Self {
        self.rax(va).bytes(&[0x48, 0x8B, 0x00])
    }

    /// What `rdi` holds goes to an address.
    pub(crate) fn write_rdi(self, va: u64) -> Self {
        self.rax(va).bytes(&[0x48, 0x89, 0x38])
    }

    pub(crate) fn call(self, call: Call, arguments: [u64; 5]) -> Self {
        let [a, b, c, d, e] = arguments;
        self.load([0x48, 0xBF], a)
            .load([0x48, 0xBE], b)
            .load([0x48, 0xBA], c)
            .load([0x49, 0xBA], d)
            .load([0x49, 0xB8], e)
            .gate(call)
    }

    pub(crate) fn gate(self, call: Call) -> Self {
        self.rax(call as u64).load([0x48, 0xB9], GATE_VA).bytes(&[0xFF, 0xD1]) // call rcx
    }

    /// Ends with what `rax` holds as the status.
    pub(crate) fn exit_rax(self) -> Self {
        self.bytes(&[0x48, 0x89, 0xC7]).exit_rdi()
    }

    pub(crate) fn exit(self, status: u64) -> Self {
        self.rax(status).exit_rax()
    }

    /// Ends with the argument that it was started with, if it did not use `rdi`.
    pub(crate) fn exit_rdi(self) -> Self {
        self.rax(Call::Exit as u64).load([0x48, 0xB9], GATE_VA).bytes(&[0xFF, 0xE1]) // jmp rcx: needs no stack
    }
}

/// A child, and what it was given.
pub(crate) struct Child {
    pub(crate) environment: Handle,
    /// The part of the parent's heap that was given to it: code and data.
    pub(crate) part: Handle,
    /// The child's own handle for it.
    pub(crate) given: Handle,
    /// Where the parent sees the data page.
    pub(crate) data: *mut u64,
    /// Of code and data.
    pub(crate) pages: u64,
}

pub(crate) fn call(number: Call, arguments: [u64; 5]) -> Result<u64, Error> {
    kernel::raw(number, arguments)
}

impl Child {
    /// Makes one that can do with its data page what `access` says, and does not start it.
    pub(crate) fn new(code: Code, access: u16) -> Result<Self, Error> {
        Self::with_pages(code, access, 1)
    }

    /// The same with more pages of data, at most 63. Its stack grows down from the end of the first.
    pub(crate) fn with_pages(code: Code, access: u16, data_pages: u64) -> Result<Self, Error> {
        let own = &pages::environment().capabilities;
        let environment = call(Call::EnvironmentCreate, [own.environments.0, ANY, 0, 0, 0])?;
        let gpa = pages_for((1 + data_pages) * PAGE_BYTES).ok_or(Error::NoSpace)?;
        let at = (WINDOW_VA + gpa) as *mut u8;
        if code.0.len() as u64 > PAGE_BYTES {
            return Err(Error::BadArgument);
        }
        // SAFETY: fresh pages of the heap; the code is not longer than one.
        unsafe { core::ptr::copy_nonoverlapping(code.0.as_ptr(), at, code.0.len()) };
        let all = rights::READ | rights::WRITE | rights::EXECUTE | rights::DMA | rights::GIVE;
        let part = derive(own.heap[0], gpa / PAGE_BYTES, 1 + data_pages, all)?;
        let given = call(
            Call::CapabilityGive,
            [0, part.0, environment, u64::from(access | rights::READ | rights::EXECUTE), 0],
        )?;
        let write = if access & rights::WRITE != 0 { map::WRITE } else { 0 };
        map_all(environment, given, CODE_VA | map::EXECUTE, 0, 1)?;
        map_all(environment, given, DATA_VA | write, 1, data_pages)?;
        Ok(Self {
            environment: Handle(environment),
            part,
            given: Handle(given),
            data: (WINDOW_VA + gpa + PAGE_BYTES) as *mut u64,
            pages: 1 + data_pages,
        })
    }

    /// Ends it, if it has not ended, and gives back all that was made for it.
    pub(crate) fn release(self) -> Result<(), Error> {
        to_the_end(Call::CapabilityDrop, self.environment)?;
        self.release_memory()
    }

    /// The same for one whose environment was given back already.
    pub(crate) fn release_memory(self) -> Result<(), Error> {
        to_the_end(Call::CapabilityDrop, self.part)?;
        let layout = Layout::from_size_align((self.pages * PAGE_BYTES) as usize, PAGE_BYTES as usize);
        let layout = layout.map_err(|_| Error::BadArgument)?;
        // SAFETY: allocated by `pages_for` with this layout; the child has lost it, and `self` is gone.
        unsafe { dealloc((self.data as *mut u8).wrapping_sub(PAGE_BYTES as usize), layout) };
        Ok(())
    }

    pub(crate) fn start(&self, argument: u64) -> Result<(), Error> {
        call(Call::EnvironmentStart, [self.environment.0, CODE_VA, DATA_VA + PAGE_BYTES, argument, 0])
            .map(drop)
    }

    /// The state that it is in, and its exit status.
    pub(crate) fn status(&self) -> (u64, u32) {
        let answer = call(Call::EnvironmentStatus, [self.environment.0, 0, 0, 0, 0]).unwrap_or(u64::MAX);
        (answer & 0xFFFF_FFFF, (answer >> 32) as u32)
    }

    /// Lets it run until it sleeps.
    pub(crate) fn falls_asleep(&self) -> Option<()> {
        let end = clock::tsc() + clock::Scale::new().ticks(PATIENCE_MS * 1_000_000);
        while clock::tsc() < end {
            if self.status().0 == state::ASLEEP {
                return Some(());
            }
            kernel::yield_to(Handle::NONE).ok()?;
        }
        None
    }

    /// Lets others run until it is in that state; its exit status, or `None` if that takes too long.
    pub(crate) fn wait(&self, wanted: u64) -> Option<u32> {
        // The end of a child wakes everybody; until then it has the CPU to itself, most of the time.
        self.wait_polling(wanted, POLL_MS)
    }

    /// The same for those whom it does no harm that their parent wants the CPU now and then.
    pub(crate) fn wait_polling(&self, wanted: u64, poll_ms: u64) -> Option<u32> {
        let end = clock::tsc() + clock::Scale::new().ticks(PATIENCE_MS * 1_000_000);
        while clock::tsc() < end {
            let (state, status) = self.status();
            if state == wanted {
                return Some(status);
            }
            kernel::sleep(clock::tsc() + clock::Scale::new().ticks(poll_ms * 1_000_000), [sleep::NONE; 4]);
        }
        log::error!("probe: a child is in state {:?}", self.status());
        None
    }

    /// Other instructions, before it runs.
    pub(crate) fn set_code(&self, code: &Code) {
        let page = (self.data as *mut u8).wrapping_sub(PAGE_BYTES as usize);
        // SAFETY: the child's code page, which it does not run yet; the code is shorter.
        unsafe { core::ptr::copy_nonoverlapping(code.0.as_ptr(), page, code.0.len()) };
    }

    /// Instructions in its data page.
    pub(crate) fn set_data(&self, code: &Code) {
        // SAFETY: a page of the heap that nothing else uses yet; the code is shorter.
        unsafe { core::ptr::copy_nonoverlapping(code.0.as_ptr(), self.data.cast::<u8>(), code.0.len()) };
    }

    pub(crate) fn word(&self) -> u64 {
        self.word_at(0)
    }

    pub(crate) fn word_at(&self, index: usize) -> u64 {
        // SAFETY: a page of the heap that nothing else uses; the index stays inside.
        unsafe { self.data.add(index % WORDS_OF_A_PAGE).read_volatile() }
    }

    pub(crate) fn set_word_at(&self, index: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.data.add(index % WORDS_OF_A_PAGE).write_volatile(value) }
    }

    /// Where a data page lies, for devices.
    pub(crate) fn gpa(&self, page: u64) -> u64 {
        self.data as u64 - WINDOW_VA + page * PAGE_BYTES
    }

    /// Lets devices read and write all its pages for it.
    pub(crate) fn grant_to_devices(&self) -> Result<(), Error> {
        let grant =
            [self.environment.0, self.given.0, 0, self.pages, u64::from(rights::READ | rights::WRITE)];
        if call(Call::DmaGrant, grant)? == self.pages { Ok(()) } else { Err(Error::NoSpace) }
    }

    fn page(&self, page: u64) -> *mut [u8; PAGE_BYTES as usize] {
        self.data.wrapping_byte_add((page % (self.pages - 1) * PAGE_BYTES) as usize).cast()
    }

    /// One of its data pages, when it does not run.
    pub(crate) fn read_page(&self, page: u64) -> [u8; PAGE_BYTES as usize] {
        // SAFETY: the remainder is one of the pages that were made for it.
        unsafe { self.page(page).read_unaligned() }
    }

    pub(crate) fn write_page(&self, page: u64, bytes: &[u8; PAGE_BYTES as usize]) {
        // SAFETY: as above.
        unsafe { self.page(page).write_unaligned(*bytes) }
    }

    pub(crate) fn set_word(&self, value: u64) {
        self.set_word_at(0, value);
    }
}

fn map_all(environment: u64, memory: u64, va: u64, first: u64, pages: u64) -> Result<(), Error> {
    let done = call(Call::MemoryMap, [environment, memory, va, first, pages])?;
    if done == pages { Ok(()) } else { Err(Error::NoSpace) }
}

/// Gives a capability of our own to a child, with these rights; its handle there.
pub(crate) fn give(from: Handle, to: &Child, rights: u16) -> Result<Handle, Error> {
    call(Call::CapabilityGive, [0, from.0, to.environment.0, u64::from(rights), 0]).map(Handle)
}

pub(crate) fn derive(from: Handle, start: u64, count: u64, rights: u16) -> Result<Handle, Error> {
    call(Call::CapabilityDerive, [0, from.0, start, count, u64::from(rights)]).map(Handle)
}

/// Calls until nothing is left to do.
pub(crate) fn to_the_end(number: Call, capability: Handle) -> Result<u64, Error> {
    let mut calls = 1;
    while call(number, [0, capability.0, 0, 0, 0])? != 0 {
        calls += 1;
    }
    Ok(calls)
}

/// A capability for a child with these rights only.
pub(crate) fn derive_environment(child: &Child, rights: u16) -> Option<Handle> {
    // The number of the environment is the place that it got.
    (1..64).find_map(|number| derive(child.environment, number, 1, rights).ok())
}

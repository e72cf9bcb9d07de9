//! Memory of this process in which text, probes and their data lie as they do in a guest: below 2 GiB, a jump apart.

use crate::probe::assemble::{Trampoline, Wanted, jump, return_trampoline, trampoline};
use crate::probe::function::{Patchable, Text};
use crate::probe::histogram::BUCKETS;
use crate::probe::layout::{CODE_BYTES, Region, SHADOWS, Stacks, shadow, slot};
use abi::header::ImageHeader;
use exovm_image::program::{Access, Header, Program, Segment, Symbol};
use iced_x86::code_asm::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of text in an arena.
const TEXT_BYTES: u64 = 64 << 10;
const STEP: u64 = 16 << 20;
/// Behind the place that the probes of an image have.
static NEXT: AtomicU64 = AtomicU64::new(0x3800_0000);

/// Text, code and data.
pub(super) struct Arena {
    pub(super) text_va: u64,
    used: u64,
    code_used: u64,
    pub(super) region: Region,
    pub(super) program: Program,
    pub(super) patched: Vec<(u64, [u8; 5])>,
}

fn map(va: u64, bytes: u64) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    // SAFETY: an address that nothing of this process uses, or the call fails.
    let at = unsafe { libc::mmap(va as *mut libc::c_void, bytes as usize, rights, flags, -1, 0) };
    assert_eq!(at as u64, va, "{}", std::io::Error::last_os_error());
}

/// Writes to memory of an arena.
pub(super) fn write(va: u64, bytes: &[u8]) {
    // SAFETY: in this module's tests all addresses are those of arenas, which are never unmapped.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), va as *mut u8, bytes.len()) }
}

/// A word of an arena's memory.
pub(super) fn word(va: u64) -> u64 {
    // SAFETY: as above.
    unsafe { (va as *const u64).read_volatile() }
}

pub(super) fn set_word(va: u64, value: u64) {
    write(va, &value.to_ne_bytes());
}

impl Arena {
    /// As ring 3 has it.
    pub(super) fn user() -> Self {
        // No block of this process: nothing is known to be stale but what stood at the same place.
        Self::new(Stacks::One { block: 0, shift: 18 })
    }

    pub(super) fn new(stacks: Stacks) -> Self {
        let va = NEXT.fetch_add(STEP, Ordering::Relaxed);
        map(va, STEP / 2);
        let code_va = va + (4 << 20);
        let region = Region { code_va, data_va: code_va + CODE_BYTES, stacks };
        let returns = return_trampoline(&region).expect("assembles");
        write(code_va, &returns);
        let segment = Segment { va, len_bytes: TEXT_BYTES, bytes: Vec::new(), access: Access::Execute };
        let program = Program {
            entry_va: va,
            segments: vec![segment],
            symbols: Vec::new(),
            sites: Vec::new(),
            header: Header::Image(ImageHeader::CURRENT),
        };
        let code_used = returns.len() as u64;
        Self { text_va: va, used: 0, code_used, region, program, patched: Vec::new() }
    }

    /// Where the next function will lie.
    pub(super) fn next_va(&self) -> u64 {
        self.text_va + self.used
    }

    /// Adds a function; returns its address.
    pub(super) fn add(
        &mut self,
        code: impl FnOnce(&mut CodeAssembler, u64) -> Result<(), iced_x86::IcedError>,
    ) -> u64 {
        let va = self.next_va();
        let mut a = CodeAssembler::new(64).expect("64 bits");
        code(&mut a, va).expect("instructions");
        let bytes = a.assemble(va).expect("assembles");
        write(va, &bytes);
        let text = &mut self.program.segments[0].bytes;
        text.extend_from_slice(&bytes);
        self.program.symbols.push(Symbol { va, len_bytes: bytes.len() as u64, name: format!("f{va:x}") });
        let padding = bytes.len().next_multiple_of(16) - bytes.len();
        text.extend(std::iter::repeat_n(0xCC, padding));
        self.used += (bytes.len() + padding) as u64;
        va
    }

    pub(super) fn patchable(&self, va: u64) -> Result<Patchable, crate::probe::Refused> {
        let symbol = self.program.symbols.iter().find(|symbol| symbol.va == va).expect("added");
        Text::new(&self.program).patchable(symbol)
    }

    /// Probes a function.
    pub(super) fn probe(&mut self, va: u64, slot: usize, wanted: Wanted) -> Trampoline {
        let function = self.patchable(va).expect("can be patched");
        self.probe_that(&function, slot, wanted)
    }

    pub(super) fn probe_that(&mut self, function: &Patchable, slot: usize, wanted: Wanted) -> Trampoline {
        let at = self.region.code_va + self.code_used.next_multiple_of(16);
        let made = trampoline(&self.region, function, slot, wanted, at).expect("assembles");
        self.code_used = at + made.bytes.len() as u64 - self.region.code_va;
        assert!(self.code_used <= CODE_BYTES);
        write(made.va, &made.bytes);
        self.patched.push((function.va, function.original));
        write(function.va, &jump(function.va, made.va).expect("near"));
        made
    }

    /// As the VMM does it: the text as it was.
    pub(super) fn restore(&mut self) {
        for (va, original) in self.patched.drain(..) {
            write(va, &original);
        }
    }

    pub(super) fn number(&self, slot: usize, offset: u64) -> u64 {
        word(self.region.slot_va(slot) + offset)
    }

    pub(super) fn count(&self, slot: usize) -> u64 {
        self.number(slot, slot::COUNT)
    }

    pub(super) fn returns(&self, slot: usize) -> u64 {
        let in_buckets: u64 =
            (0..BUCKETS as u64).map(|bucket| self.number(slot, slot::HISTOGRAM + 8 * bucket)).sum();
        assert_eq!(in_buckets, self.number(slot, slot::RETURNS));
        in_buckets
    }

    pub(super) fn depth(&self) -> u32 {
        word(self.region.data_va + SHADOWS + shadow::DEPTH) as u32
    }
}

/// Calls a function of an arena.
pub(super) fn call(va: u64, a: u64, b: u64) -> u64 {
    // SAFETY: the address is that of a function of an arena, which takes two words and returns one.
    let function: extern "sysv64" fn(u64, u64) -> u64 = unsafe { std::mem::transmute(va as usize) };
    function(a, b)
}

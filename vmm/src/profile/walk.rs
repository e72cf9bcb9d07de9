//! Call stacks of a vCPU that stands still, read out of the guest's memory.
//!
//! Everything here may be wrong: registers, stacks and page tables are the guest's. So each step is checked and the number of
//! frames is bounded, and what does not make sense ends the stack and nothing else. Ring 3's words are read through pages that
//! ring 3 reaches, the kernel's through pages that it does not.
//!
//! - **Ring 3** keeps frame pointers: a chain that goes upwards in memory, each return address behind a call. A function that has not
//!   made its frame yet, or has none (`memcpy`), has its return address on top of the stack.
//! - **Ring 0** keeps none (a kernel call would be slower for it). But where its stack begins is known, and what lies on it are a
//!   few words: those are return addresses which point behind a call of the very function that the frame below is in. What cannot be
//!   told is left out, not guessed. At the stack's begin lies the interrupt frame, which leads to ring 3's own stack.

use crate::machine::boot::paging::{Owner, look_up};
use crate::tables::Memory;
use abi::header::KernelHeader;
use abi::layout::{GATE_VA, PAGE_BYTES, STACK_BYTES, USER_CODE_SELECTOR, USER_DATA_SELECTOR};
use exovm_image::container::Image;
use exovm_image::program::{Access, Header, Program, Symbol};
use vm_memory::{Bytes, GuestAddress};

/// Most frames of a stack.
pub(super) const FRAMES: usize = 64;
/// Most words of a kernel stack that are looked at.
const KERNEL_WORDS: u64 = 512;
/// Ring 3's addresses end here.
const USER_END_VA: u64 = 1 << 47;
/// `push rbp; mov rbp, rsp`: how a function that keeps a frame pointer begins.
const PROLOGUE: [u8; 4] = [0x55, 0x48, 0x89, 0xE5];
const RET: u8 = 0xC3;

/// The registers that a walk begins with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Registers {
    pub(super) rip: u64,
    pub(super) rsp: u64,
    pub(super) rbp: u64,
    /// The ring.
    pub(super) ring: u8,
    /// Root of the page tables.
    pub(super) root_gpa: u64,
}

/// The stack, the innermost frame first: addresses inside the calls, but for the first and where ring 3 was interrupted.
pub(super) fn stack(memory: &Memory, image: &Image, registers: &Registers) -> Vec<u64> {
    let mut walk = Walk { memory, image, root_gpa: registers.root_gpa, page: None, frames: Vec::new() };
    let Registers { rip, rsp, rbp, ring, .. } = *registers;
    match ring {
        0 => walk.kernel(rip, rsp, rbp),
        _ => walk.user(rip, rsp, rbp),
    }
    walk.frames
}

struct Walk<'a> {
    memory: &'a Memory,
    image: &'a Image,
    root_gpa: u64,
    /// The page that was translated last: most words of a stack lie in one.
    page: Option<(u64, Owner, u64)>,
    frames: Vec<u64>,
}

impl Walk<'_> {
    fn has_room(&self) -> bool {
        self.frames.len() < FRAMES
    }

    /// A word of a stack whose page is `owner`'s.
    fn word(&mut self, va: u64, owner: Owner) -> Option<u64> {
        let in_half = match owner {
            Owner::User => va < USER_END_VA,
            Owner::Kernel => va >= !(USER_END_VA - 1),
        };
        // An aligned word lies in one page.
        if !in_half || !va.is_multiple_of(8) {
            return None;
        }
        let page_va = va & !(PAGE_BYTES - 1);
        let gpa = match self.page {
            Some((known_va, known_owner, gpa)) if (known_va, known_owner) == (page_va, owner) => gpa,
            _ => {
                let mapped =
                    look_up(self.memory, self.root_gpa, page_va).filter(|found| found.owner == owner)?;
                self.page = Some((page_va, owner, mapped.gpa));
                mapped.gpa
            }
        };
        self.memory.read_obj(GuestAddress(gpa + (va - page_va))).ok()
    }

    fn user(&mut self, rip: u64, rsp: u64, rbp: u64) {
        self.frames.push(rip);
        let caller = self.caller_without_frame(rip, rsp);
        self.frames.extend(caller);
        self.user_frames(rbp);
    }

    /// Where a function returns to that has no frame at this moment.
    fn caller_without_frame(&mut self, rip: u64, rsp: u64) -> Option<u64> {
        let program = &self.image.program;
        let at = if rip & !(PAGE_BYTES - 1) == GATE_VA {
            rsp
        } else {
            let (symbol, offset) = program.symbol(rip)?;
            let has_frame = code(program, symbol.va, PROLOGUE.len()) == Some(&PROLOGUE);
            match offset {
                1 if has_frame => rsp.checked_add(8)?,
                0 => rsp,
                _ if !has_frame || code(program, rip, 1) == Some(&[RET]) => rsp,
                _ => return None,
            }
        };
        let return_va = self.word(at, Owner::User)?;
        (call_before(program, return_va).is_some()).then(|| return_va - 1)
    }

    /// The frames that a chain of frame pointers leads to.
    fn user_frames(&mut self, mut frame: u64) {
        while self.has_room() {
            let words = self
                .word(frame, Owner::User)
                .zip(frame.checked_add(8))
                .and_then(|(caller, next)| self.word(next, Owner::User).map(|return_va| (caller, return_va)));
            let Some((caller, return_va)) = words.filter(|(_, return_va)| self.is_return(*return_va)) else {
                return;
            };
            self.frames.push(return_va - 1);
            if caller <= frame {
                return;
            }
            frame = caller;
        }
    }

    /// Whether ring 3 can have been called from there. Of code that is not the image's own, only that it is code is known.
    fn is_return(&self, va: u64) -> bool {
        if va == 0 || va >= USER_END_VA {
            return false;
        }
        let program = &self.image.program;
        if code(program, va, 0).is_some() {
            return call_before(program, va).is_some();
        }
        look_up(self.memory, self.root_gpa, va)
            .is_some_and(|mapped| mapped.owner == Owner::User && mapped.executable)
    }

    fn kernel(&mut self, rip: u64, rsp: u64, rbp: u64) {
        self.frames.push(rip);
        let image = self.image;
        let Header::Kernel(header) = &image.kernel.header else { return };
        let Some(top) = top_of_stack(header, rsp) else { return };
        let mut function = image.kernel.symbol(rip).map(|(symbol, _)| symbol);
        let frame_va = top - 40;
        let mut at = rsp.next_multiple_of(8);
        // What ring 3 had in rbp is in rbp, or was put on the stack before everything else: the last found is it.
        let mut bases = vec![rbp];
        let end = top.min(at.saturating_add(8 * KERNEL_WORDS));
        while at < end {
            let Some(word) = self.word(at, Owner::Kernel) else { return };
            if at < frame_va {
                bases.push(word);
            }
            if let Some(caller) = caller_by(&image.kernel, word, function)
                && self.has_room()
            {
                self.frames.push(word - 1);
                function = Some(caller);
            }
            at += 8;
        }
        if rsp <= frame_va && end == top {
            self.below_the_kernel(frame_va, &bases);
        }
    }

    /// What ring 3 was at when it came into the kernel, by the interrupt frame: rip, cs, rflags, rsp, ss.
    fn below_the_kernel(&mut self, frame_va: u64, bases: &[u64]) {
        let words = [0, 1, 3, 4].map(|word| self.word(frame_va + 8 * word, Owner::Kernel));
        let [Some(rip), Some(cs), Some(rsp), Some(ss)] = words else { return };
        if (cs, ss) != (USER_CODE_SELECTOR.into(), USER_DATA_SELECTOR.into()) || !self.has_room() {
            return;
        }
        self.frames.push(rip);
        let caller = self.caller_without_frame(rip, rsp);
        self.frames.extend(caller);
        let mut is_base = |&base: &u64| {
            let near = (rsp..rsp.saturating_add(STACK_BYTES)).contains(&base);
            let return_va = near.then(|| self.word(base.checked_add(8)?, Owner::User)).flatten();
            return_va.is_some_and(|va| call_before(&self.image.program, va).is_some())
        };
        let first = bases.first().filter(|base| is_base(base));
        let Some(&base) = first.or_else(|| bases.iter().rev().find(|base| is_base(base))) else { return };
        self.user_frames(base);
    }
}

/// Where the stack that `rsp` is on begins.
fn top_of_stack(kernel: &KernelHeader, rsp: u64) -> Option<u64> {
    let stride = kernel.stack_stride_bytes;
    [kernel.stack_top_va, kernel.fault_stack_top_va].into_iter().find_map(|first| {
        // An empty stack is its own.
        let number = rsp.checked_sub(1)?.checked_sub(first - stride)? / stride;
        (number < abi::boot::VCPUS_MAX as u64).then(|| first + number * stride)
    })
}

/// The function of the kernel that a word on its stack returns to, if it can: behind a call through a table, or one of the function
/// that the frame below is in.
fn caller_by<'a>(kernel: &'a Program, word: u64, below: Option<&Symbol>) -> Option<&'a Symbol> {
    let called = match call_before(kernel, word)? {
        Call::Direct(target_va) => kernel.symbol(target_va).map(|(symbol, _)| symbol.va),
        Call::Indirect => below.map(|symbol| symbol.va),
    };
    let fits = called.is_some() && called == below.map(|symbol| symbol.va);
    kernel.symbol(word - 1).filter(|_| fits).map(|(symbol, _)| symbol)
}

/// A call instruction.
enum Call {
    /// Of this address.
    Direct(u64),
    /// By a register or a word in memory.
    Indirect,
}

/// The call that ends right before an address of the program's code.
fn call_before(program: &Program, va: u64) -> Option<Call> {
    const LONGEST: usize = 7;
    let start = va.checked_sub(LONGEST as u64)?;
    let bytes = code(program, start, LONGEST)?;
    if let [_, _, 0xE8, a, b, c, d] = *bytes {
        let target = va.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into());
        if code(program, target, 1).is_some() {
            return Some(Call::Direct(target));
        }
    }
    // FF /2, with whatever its addressing takes (SDM 2, CALL).
    let indirect = |length: usize| match bytes[LONGEST - length..] {
        [0xFF, modrm, ..] => modrm & 0x38 == 0x10 && length == indirect_length(&bytes[LONGEST - length..]),
        _ => false,
    };
    (2..=LONGEST).any(indirect).then_some(Call::Indirect)
}

/// Bytes of `FF /2` from its opcode on, by its ModRM and SIB bytes (SDM 2, 2.1.5).
fn indirect_length(bytes: &[u8]) -> usize {
    let (mode, rm) = (bytes[1] >> 6, bytes[1] & 7);
    if mode == 3 {
        return 2;
    }
    let sib = bytes.get(2).filter(|_| rm == 4);
    let displacement = match mode {
        0 if rm == 5 || sib.is_some_and(|sib| sib & 7 == 5) => 4,
        0 => 0,
        1 => 1,
        _ => 4,
    };
    2 + usize::from(rm == 4) + displacement
}

/// Bytes of a program's code.
fn code(program: &Program, va: u64, len: usize) -> Option<&[u8]> {
    let is_it = |segment: &&exovm_image::program::Segment| {
        segment.access == Access::Execute && (segment.va..segment.va + segment.len_bytes).contains(&va)
    };
    let segment = program.segments.iter().find(is_it)?;
    let at = (va - segment.va) as usize;
    segment.bytes.get(at..at.checked_add(len)?)
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;

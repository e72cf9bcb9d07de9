//! The code that a probe is made of: the trampoline to which a function's entry jumps, and the one to which measured calls
//! return. It keeps every register and flag, so that it does not matter what a function expects of its caller.
//!
//! Ring 3 runs an upcall between any two of these instructions, and it runs probed functions, too. So a counter is one
//! instruction, and an entry of the shadow stack is taken before it is filled and emptied before it is given back; what an upcall
//! pushes above that it has popped when it is over. In ring 0 interrupts are off, but several vCPUs count at once: there the
//! counters are locked, and each vCPU has a shadow stack of its own.

use super::function::Patchable;
use super::histogram::{BEYOND, POWERS};
use super::layout::{Region, SHADOWS, Stacks, shadow, slot};
use iced_x86::code_asm::*;
use iced_x86::{BlockEncoder, BlockEncoderOptions, Code, IcedError, Instruction, InstructionBlock};

/// What a probe does at each call, besides counting it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wanted {
    /// Measures until it returns.
    pub returns: bool,
    /// Keeps the arguments of the last calls.
    pub arguments: bool,
}

/// A trampoline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trampoline {
    /// Where it lies.
    pub(crate) va: u64,
    pub(crate) bytes: Vec<u8>,
    /// For each instruction of the function that it has instead: where that was, and where it is now.
    pub(crate) moved: Vec<(u64, u64)>,
}

/// A jump of five bytes.
pub(crate) const JUMP_BYTES: usize = 5;

/// The jump that is written over a function's entry; `None`: it does not reach that far.
pub(crate) fn jump(from_va: u64, to_va: u64) -> Option<[u8; JUMP_BYTES]> {
    let distance = to_va.wrapping_sub(from_va).wrapping_sub(JUMP_BYTES as u64) as i64;
    let [a, b, c, d] = i32::try_from(distance).ok()?.to_le_bytes();
    Some([0xE9, a, b, c, d])
}

/// Words that the trampolines push. The function's return address lies above them.
const PUSHED: i32 = 4;
/// And the return trampoline.
const PUSHED_AT_RETURN: i32 = 5;

/// Makes the trampoline of a function at `va`, which counts in `slot`.
pub(crate) fn trampoline(
    region: &Region,
    function: &Patchable,
    slot: usize,
    wanted: Wanted,
    va: u64,
) -> Result<Trampoline, IcedError> {
    let code = Coder { region, slot_va: region.slot_va(slot) };
    let mut a = CodeAssembler::new(64)?;
    if wanted == Wanted::default() {
        code.count_only(&mut a)?;
    } else {
        code.save(&mut a)?;
        code.count(&mut a, slot::COUNT)?;
        if wanted.arguments {
            code.keep_arguments(&mut a)?;
        }
        if wanted.returns {
            code.push_return(&mut a)?;
        }
        code.restore(&mut a)?;
    }
    let mut bytes = a.assemble(va)?;
    let at = va + bytes.len() as u64;
    let mut instructions = function.moved.clone();
    if !function.ends {
        let back = Instruction::with_branch(Code::Jmp_rel32_64, function.back_va())?;
        instructions.push(back);
    }
    let block = InstructionBlock::new(&instructions, at);
    let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let encoded = BlockEncoder::encode(64, block, options)?;
    let offsets = encoded.new_instruction_offsets.iter();
    let moved = function.moved.iter().zip(offsets);
    let moved = moved.map(|(instruction, offset)| (instruction.ip(), at + u64::from(*offset))).collect();
    bytes.extend(encoded.code_buffer);
    Ok(Trampoline { va, bytes, moved })
}

/// Makes the code to which measured calls return; it lies first of all.
pub(crate) fn return_trampoline(region: &Region) -> Result<Vec<u8>, IcedError> {
    let code = Coder { region, slot_va: 0 };
    let mut a = CodeAssembler::new(64)?;
    code.pop_return(&mut a)?;
    a.assemble(region.code_va)
}

/// What all the code needs to know.
struct Coder<'a> {
    region: &'a Region,
    slot_va: u64,
}

type Done = Result<(), IcedError>;

impl Coder<'_> {
    /// A word of the probe's slot. Both rings' data lies where 32 bits with a sign reach it.
    fn word(&self, offset: u64) -> AsmMemoryOperand {
        qword_ptr(self.slot_va + offset)
    }

    /// A displacement, as 32 bits with a sign.
    fn displacement(va: u64) -> i64 {
        va as i64
    }

    /// In the shadow stack that `base` leads to.
    fn depth(&self, base: AsmRegister64) -> AsmMemoryOperand {
        dword_ptr(base + Self::displacement(self.region.data_va + SHADOWS + shadow::DEPTH))
    }

    /// A word of the entry before the one that `index` (in bytes) says.
    fn entry_below(&self, base: AsmRegister64, index: AsmRegister64, word: u64) -> AsmMemoryOperand {
        let first = self.region.data_va + SHADOWS + shadow::ENTRIES;
        qword_ptr(base + index + Self::displacement(first - shadow::ENTRY_BYTES + word))
    }

    fn save_flags(&self, a: &mut CodeAssembler) -> Done {
        if self.region.is_shared() {
            return a.pushfq();
        }
        // POPFQ takes some twenty cycles, this three.
        a.lahf()?;
        a.seto(al)?;
        a.push(rax)
    }

    fn restore_flags(&self, a: &mut CodeAssembler) -> Done {
        if self.region.is_shared() {
            return a.popfq();
        }
        a.pop(rax)?;
        a.add(al, 0x7F)?;
        a.sahf()
    }

    /// Saves what the trampoline uses: [`PUSHED`] words.
    fn save(&self, a: &mut CodeAssembler) -> Done {
        a.push(rax)?;
        a.push(rcx)?;
        a.push(rdx)?;
        self.save_flags(a)
    }

    fn restore(&self, a: &mut CodeAssembler) -> Done {
        self.restore_flags(a)?;
        a.pop(rdx)?;
        a.pop(rcx)?;
        a.pop(rax)
    }

    fn count(&self, a: &mut CodeAssembler, offset: u64) -> Done {
        self.locked(a).inc(self.word(offset))
    }

    fn count_only(&self, a: &mut CodeAssembler) -> Done {
        if self.region.is_shared() {
            a.pushfq()?;
            self.count(a, slot::COUNT)?;
            return a.popfq();
        }
        a.push(rax)?;
        a.lahf()?;
        a.seto(al)?;
        self.count(a, slot::COUNT)?;
        a.add(al, 0x7F)?;
        a.sahf()?;
        a.pop(rax)
    }

    /// Writes the six registers to the ring. The call's number comes last, so that who reads knows what is complete.
    fn keep_arguments(&self, a: &mut CodeAssembler) -> Done {
        let ring = Self::displacement(self.slot_va + slot::RING);
        let word = |word: i64| qword_ptr(rcx + (ring + 8 * word));
        a.mov(eax, 1)?;
        self.locked(a).xadd(self.word(slot::CALLS), rax)?;
        a.mov(ecx, eax)?;
        a.and(ecx, slot::RING_CALLS as i32 - 1)?;
        a.shl(ecx, slot::CALL_BYTES.trailing_zeros())?;
        a.mov(word(0), 0)?;
        a.mov(word(1), rdi)?;
        a.mov(word(2), rsi)?;
        a.mov(word(3), rdx)?;
        a.mov(rdx, qword_ptr(rsp + 8 * 2))?; // rcx, as it was
        a.mov(word(4), rdx)?;
        a.mov(word(5), r8)?;
        a.mov(word(6), r9)?;
        a.lea(rdx, qword_ptr(rax + 1))?;
        a.push(rdx)?;
        a.rdtsc()?;
        a.shl(rdx, 32u32)?;
        a.or(rax, rdx)?;
        a.mov(word(7), rax)?;
        a.pop(rdx)?;
        a.mov(word(0), rdx)
    }

    /// `rcx` leads to the shadow stack of whoever runs this; where there is none, on to `none`.
    fn find_shadow(&self, a: &mut CodeAssembler, none: CodeLabel) -> Done {
        match self.region.stacks {
            Stacks::One { .. } => a.xor(ecx, ecx),
            Stacks::EachVcpu { lowest_va, shift } => {
                a.mov(rcx, rsp)?;
                a.sub(rcx, lowest_va as i32)?;
                a.shr(rcx, shift)?;
                a.cmp(rcx, abi::boot::VCPUS_MAX as i32)?;
                a.jae(none)?;
                a.shl(ecx, self.region.shadow_bytes().trailing_zeros())
            }
        }
    }

    /// Puts the return address onto the shadow stack and its trampoline in its place.
    fn push_return(&self, a: &mut CodeAssembler) -> Done {
        let at = rsp + 8 * PUSHED;
        let return_va = self.region.code_va as i32;
        let [mut look, mut drop_top, mut same, mut below, mut take, mut full, mut missed, mut done] =
            std::array::from_fn(|_| a.create_label());
        self.find_shadow(a, missed)?;

        // What is on top may be stale: a function that did not return. It is, if that stood where the address of this
        // call stands now, or below it on the same stack.
        a.set_label(&mut look)?;
        a.mov(eax, self.depth(rcx))?;
        a.shl(eax, 5)?;
        a.jz(take)?;
        a.mov(rdx, self.entry_below(rcx, rax, shadow::AT))?;
        a.cmp(rdx, shadow::FREED as i32)?;
        a.je(drop_top)?;
        a.lea(rax, qword_ptr(at))?;
        a.cmp(rdx, rax)?;
        a.je(same)?;
        a.jb(below)?;
        a.jmp(take)?;

        a.set_label(&mut same)?;
        // Unless one function went on in another by a jump: then both return through here.
        a.cmp(qword_ptr(at), return_va)?;
        a.je(take)?;
        a.jmp(drop_top)?;

        a.set_label(&mut below)?;
        a.xor(rdx, rax)?;
        match self.region.stacks {
            Stacks::One { block, shift } => {
                a.shr(rdx, shift)?;
                a.jnz(take)?;
                a.shr(rax, shift)?;
                a.cmp(rax, block as i32)?;
                a.jne(take)?;
            }
            Stacks::EachVcpu { shift, .. } => {
                a.shr(rdx, shift)?;
                a.jnz(take)?;
            }
        }
        a.set_label(&mut drop_top)?;
        a.mov(eax, self.depth(rcx))?;
        a.shl(eax, 5)?;
        a.mov(self.entry_below(rcx, rax, shadow::AT), 0)?;
        a.dec(self.depth(rcx))?;
        a.jmp(look)?;

        a.set_label(&mut take)?;
        a.mov(eax, 1)?;
        a.xadd(self.depth(rcx), eax)?;
        a.cmp(eax, self.region.shadow_entries() as i32)?;
        a.jae(full)?;
        a.inc(eax)?;
        a.shl(eax, 5)?;
        a.mov(rdx, qword_ptr(at))?;
        a.mov(self.entry_below(rcx, rax, shadow::RETURN), rdx)?;
        a.lea(rdx, qword_ptr(at))?;
        a.mov(self.entry_below(rcx, rax, shadow::SLOT), self.slot_va as i32)?;
        a.mov(self.entry_below(rcx, rax, shadow::AT), rdx)?;
        a.mov(qword_ptr(at), return_va)?;
        a.add(rcx, rax)?;
        a.rdtsc()?;
        a.shl(rdx, 32u32)?;
        a.or(rdx, rax)?;
        a.xor(eax, eax)?;
        a.mov(self.entry_below(rcx, rax, shadow::TSC), rdx)?;
        a.jmp(done)?;

        a.set_label(&mut full)?;
        a.dec(self.depth(rcx))?;
        a.set_label(&mut missed)?;
        self.count(a, slot::MISSED)?;
        // The label is that of what follows, the restoring.
        a.set_label(&mut done)
    }

    /// Finds where the call that returned came from, counts how long it took, and goes there.
    fn pop_return(&self, a: &mut CodeAssembler) -> Done {
        let at = rsp + 8 * PUSHED_AT_RETURN;
        let [mut search, mut found, mut top, mut counting, mut small, mut beyond, mut done, mut lost] =
            std::array::from_fn(|_| a.create_label());
        // The place of the return address, which RET has just taken.
        a.lea(rsp, qword_ptr(rsp - 8))?;
        a.push(r8)?;
        self.save(a)?;
        a.rdtsc()?;
        a.shl(rdx, 32u32)?;
        a.or(rdx, rax)?;
        self.find_shadow(a, lost)?;
        a.mov(eax, self.depth(rcx))?;
        a.shl(eax, 5)?;
        a.lea(r8, qword_ptr(at))?;

        a.set_label(&mut search)?;
        a.test(eax, eax)?;
        a.jz(lost)?;
        a.cmp(self.entry_below(rcx, rax, shadow::AT), r8)?;
        a.je(found)?;
        a.sub(eax, shadow::ENTRY_BYTES as i32)?;
        a.jmp(search)?;

        a.set_label(&mut found)?;
        a.sub(rdx, self.entry_below(rcx, rax, shadow::TSC))?;
        a.mov(r8, self.entry_below(rcx, rax, shadow::RETURN))?;
        a.mov(qword_ptr(at), r8)?;
        a.mov(r8, self.entry_below(rcx, rax, shadow::SLOT))?;
        a.shr(eax, 5)?;
        a.cmp(eax, self.depth(rcx))?;
        a.je(top)?;
        a.shl(eax, 5)?;
        a.mov(self.entry_below(rcx, rax, shadow::AT), shadow::FREED as i32)?;
        a.jmp(counting)?;
        a.set_label(&mut top)?;
        a.shl(eax, 5)?;
        a.mov(self.entry_below(rcx, rax, shadow::AT), 0)?;
        a.dec(self.depth(rcx))?;

        a.set_label(&mut counting)?;
        a.test(r8, r8)?;
        a.jz(done)?;
        self.locked(a).inc(qword_ptr(r8 + slot::RETURNS as i32))?;
        self.locked(a).add(qword_ptr(r8 + slot::CYCLES as i32), rdx)?;
        a.mov(rax, rdx)?;
        a.cmp(rdx, 4)?;
        a.jb(small)?;
        a.bsr(rcx, rdx)?;
        a.cmp(ecx, POWERS as i32)?;
        a.ja(beyond)?;
        a.sub(ecx, 2)?;
        a.shr(rax, cl)?;
        a.lea(eax, dword_ptr(rax + rcx * 4))?;
        a.set_label(&mut small)?;
        self.locked(a).inc(qword_ptr(r8 + rax * 8 + slot::HISTOGRAM as i32))?;
        a.jmp(done)?;
        a.set_label(&mut beyond)?;
        a.mov(eax, BEYOND as i32)?;
        a.jmp(small)?;

        a.set_label(&mut done)?;
        self.restore(a)?;
        a.pop(r8)?;
        a.ret()?;

        // Nobody knows where it came from: the guest has written to its shadow stack, or moved its stack.
        a.set_label(&mut lost)?;
        a.ud2()
    }

    /// What follows is locked, if others write at the same time.
    fn locked<'a>(&self, a: &'a mut CodeAssembler) -> &'a mut CodeAssembler {
        if self.region.is_shared() { a.lock() } else { a }
    }
}

//! What of a function may be moved to make room for a jump, and why not: its first instructions, and whether anything jumps
//! back into them.

use super::assemble::JUMP_BYTES;
use exovm_image::program::{Access, Program, Symbol};
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, OpKind,
    Register,
};
use std::collections::BTreeMap;
use std::ops::Range;

/// Why a function cannot be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The kernel's stubs run on stacks that are anybody's.
    #[error("is a label of the kernel's assembly, where no stack can be relied on; probe what it calls")]
    Label,
    /// It would overlap what comes behind.
    #[error("is shorter than the {JUMP_BYTES} bytes of a jump, and another function follows at once")]
    TooShort,
    /// Not x86 that is known.
    #[error("has an instruction at {va:#x} that cannot be decoded")]
    NotDecodable {
        /// Where.
        va: u64,
    },
    /// Its beginning is the target of a jump.
    #[error("is jumped into at {to:#x} from {from:#x}, where a jump to the probe would lie")]
    JumpedInto {
        /// From where, or where the table is.
        from: u64,
        /// To where.
        to: u64,
    },
    /// An instruction that does what it does only where it is.
    #[error("has an instruction at {va:#x} that only works where it is")]
    NotMovable {
        /// Where.
        va: u64,
    },
    /// The first instruction of a program, or assembly that is jumped to.
    #[error("is not called but begun with, so it does not return; probe it without --ret")]
    NotCalled,
}

/// A function whose beginning can be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Patchable {
    /// Its first address.
    pub(crate) va: u64,
    /// The instructions that go elsewhere.
    pub(crate) moved: Vec<Instruction>,
    /// The bytes that the jump replaces.
    pub(crate) original: [u8; JUMP_BYTES],
    /// All of the function is moved, and nothing goes on behind it.
    pub(crate) ends: bool,
}

impl Patchable {
    /// Where it goes on behind what was moved.
    pub(crate) fn back_va(&self) -> u64 {
        self.moved.last().map_or(self.va, Instruction::next_ip)
    }

    /// Addresses inside the jump, where nobody may stand when it is written.
    pub(crate) fn inside(&self) -> Range<u64> {
        self.va + 1..self.va + JUMP_BYTES as u64
    }
}

/// The code of a program and where its jumps lead.
pub(crate) struct Text<'p> {
    program: &'p Program,
    /// Target and place of every direct jump, by target.
    jumps: Vec<(u64, u64)>,
    /// Words of the data that are addresses of code, and where they lie, by address: tables of jumps.
    words: Vec<(u64, u64)>,
}

impl<'p> Text<'p> {
    /// Decodes all of it, which takes some milliseconds.
    pub(crate) fn new(program: &'p Program) -> Self {
        let mut jumps = Vec::new();
        let code = || program.segments.iter().filter(|segment| segment.access == Access::Execute);
        for segment in code() {
            // From one symbol to the next, so that data or padding between them cannot lead astray.
            let end = segment.va + segment.bytes.len() as u64;
            let mut starts: Vec<u64> = program.symbols.iter().map(|symbol| symbol.va).collect();
            starts.retain(|va| (segment.va..end).contains(va));
            starts.dedup();
            let ends = starts.iter().skip(1).copied().chain([end]);
            for (start, end) in starts.iter().copied().zip(ends) {
                let bytes = &segment.bytes[(start - segment.va) as usize..(end - segment.va) as usize];
                for instruction in Decoder::with_ip(64, bytes, start, DecoderOptions::NONE) {
                    let is_near = matches!(
                        instruction.op0_kind(),
                        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
                    );
                    if !instruction.is_invalid() && is_near {
                        jumps.push((instruction.near_branch_target(), instruction.ip()));
                    }
                }
            }
        }
        let mut words = Vec::new();
        for segment in program.segments.iter().filter(|segment| segment.access != Access::Execute) {
            for (index, word) in segment.bytes.chunks_exact(8).enumerate() {
                let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
                if code().any(|code| (code.va..code.va + code.len_bytes).contains(&word)) {
                    words.push((word, segment.va + 8 * index as u64));
                }
            }
        }
        jumps.sort_unstable();
        words.sort_unstable();
        Self { program, jumps, words }
    }

    /// Whether assembly returns as a function that was called does: by a plain RET. What an upcall or a jump enters leaves by others.
    pub(crate) fn returns(&self, symbol: &Symbol) -> bool {
        let bytes = self.bytes(symbol.va).unwrap_or_default();
        let bytes = &bytes[..bytes.len().min(symbol.len_bytes as usize)];
        let mut code = Decoder::with_ip(64, bytes, symbol.va, DecoderOptions::NONE).into_iter();
        code.any(|instruction| instruction.code() == Code::Retnq)
    }

    /// Bytes from an address of code or constants on, as the file has them.
    fn bytes(&self, va: u64) -> Option<&'p [u8]> {
        let covers = |segment: &&exovm_image::program::Segment| {
            (segment.va..segment.va + segment.bytes.len() as u64).contains(&va)
        };
        let segment = self.program.segments.iter().find(covers)?;
        Some(&segment.bytes[(va - segment.va) as usize..])
    }

    /// Looks at a function's beginning.
    pub(crate) fn patchable(&self, symbol: &Symbol) -> Result<Patchable, Refused> {
        let bytes = self.bytes(symbol.va).ok_or(Refused::NotDecodable { va: symbol.va })?;
        let next = self.program.symbols.partition_point(|other| other.va < symbol.va + symbol.len_bytes);
        let room = self.program.symbols.get(next).map_or(u64::MAX, |next| next.va - symbol.va);
        let room = bytes.len().min(room.min(usize::MAX as u64) as usize);
        let bytes = &bytes[..room];
        let len = room.min(symbol.len_bytes as usize);
        let Some(original) = bytes.first_chunk::<JUMP_BYTES>() else { return Err(Refused::TooShort) };
        let mut moved = Vec::new();
        let mut ends = false;
        let mut done = 0;
        for instruction in Decoder::with_ip(64, &bytes[..len], symbol.va, DecoderOptions::NONE) {
            let va = instruction.ip();
            if instruction.is_invalid() {
                return Err(Refused::NotDecodable { va });
            }
            if only_works_where_it_is(&instruction) {
                return Err(Refused::NotMovable { va });
            }
            done += instruction.len();
            // Who is in what it calls comes back to inside the jump.
            if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
                && done < JUMP_BYTES
            {
                return Err(Refused::NotMovable { va });
            }
            ends = never_goes_on(&instruction);
            moved.push(instruction);
            if done >= JUMP_BYTES || ends {
                break;
            }
        }
        // What is behind its end, up to the next function, must be what linkers fill gaps with.
        let is_padding = |byte: &u8| matches!(byte, 0xCC | 0x90);
        if done < JUMP_BYTES && !(ends && done == len && bytes[done..JUMP_BYTES].iter().all(is_padding)) {
            return Err(Refused::TooShort);
        }
        let patchable = Patchable { va: symbol.va, moved, original: *original, ends };
        self.check_jumps(symbol, &patchable)?;
        Ok(patchable)
    }

    /// Nothing may lead behind the first byte of the jump.
    fn check_jumps(&self, symbol: &Symbol, function: &Patchable) -> Result<(), Refused> {
        let inside = function.inside();
        for list in [&self.jumps, &self.words] {
            let first = list.partition_point(|(to, _)| *to < inside.start);
            if let Some(&(to, from)) = list.get(first).filter(|(to, _)| inside.contains(to)) {
                return Err(Refused::JumpedInto { from, to });
            }
        }
        // Tables of distances from their own beginning, if it jumps by any.
        let Some(bytes) = self.bytes(symbol.va) else { return Ok(()) };
        let bytes = &bytes[..bytes.len().min(symbol.len_bytes as usize)];
        let code = || Decoder::with_ip(64, bytes, symbol.va, DecoderOptions::NONE).into_iter();
        if !code().any(|instruction| instruction.flow_control() == FlowControl::IndirectBranch) {
            return Ok(());
        }
        let own = symbol.va..symbol.va + symbol.len_bytes;
        for table in code().flat_map(|instruction| addresses(&instruction)) {
            let entries = self.bytes(table).unwrap_or_default().chunks_exact(4);
            let targets = entries.map(|entry| {
                let distance = i32::from_le_bytes(entry.try_into().unwrap_or_default());
                table.wrapping_add_signed(distance.into())
            });
            if let Some(to) = targets.take_while(|to| own.contains(to)).find(|to| inside.contains(to)) {
                return Err(Refused::JumpedInto { from: table, to });
            }
        }
        Ok(())
    }
}

/// What in an instruction may be the address of a table.
fn addresses(instruction: &Instruction) -> impl Iterator<Item = u64> + use<> {
    // Of an operand relative to RIP this is the address, too.
    let memory = (instruction.memory_displ_size() > 1).then(|| instruction.memory_displacement64());
    let immediates = (0..instruction.op_count()).filter(|&operand| {
        matches!(
            instruction.op_kind(operand),
            OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64
        )
    });
    let immediates: Vec<u64> = immediates.map(|operand| instruction.immediate(operand)).collect();
    memory.into_iter().chain(immediates)
}

fn never_goes_on(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::Return
            | FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Exception
    )
}

/// Traps and gates are known by where they are; a halt goes with what is around it.
fn only_works_where_it_is(instruction: &Instruction) -> bool {
    matches!(
        instruction.code(),
        Code::Int3
            | Code::Int_imm8
            | Code::Int1
            | Code::Syscall
            | Code::Sysretq
            | Code::Hlt
            | Code::Sti
            | Code::Xbegin_rel32
    )
}

/// The registers that carry arguments, in their order.
pub(crate) const ARGUMENTS: [(Register, &str); 6] = [
    (Register::RDI, "rdi"),
    (Register::RSI, "rsi"),
    (Register::RDX, "rdx"),
    (Register::RCX, "rcx"),
    (Register::R8, "r8"),
    (Register::R9, "r9"),
];

/// How deep callees are followed to find which registers they read.
const DEPTH: u32 = 3;

/// The registers out of [`ARGUMENTS`] that a function reads before it writes them: its arguments, as far as its code tells.
pub(crate) fn reads(program: &Program, va: u64) -> Vec<&'static str> {
    let read = reads_of(program, va, DEPTH);
    ARGUMENTS
        .iter()
        .enumerate()
        .filter(|(index, _)| read & 1 << index != 0)
        .map(|(_, (_, name))| *name)
        .collect()
}

/// A bit for each of [`ARGUMENTS`].
fn bit(register: Register) -> u8 {
    let full = register.full_register();
    ARGUMENTS.iter().position(|(argument, _)| *argument == full).map_or(0, |index| 1 << index)
}

fn reads_of(program: &Program, va: u64, depth: u32) -> u8 {
    const ALL: u8 = 0x3F;
    let covers = |segment: &&exovm_image::program::Segment| {
        segment.access == Access::Execute
            && (segment.va..segment.va + segment.bytes.len() as u64).contains(&va)
    };
    let Some((symbol, _)) = program.symbol(va) else { return 0 };
    let Some(segment) = program.segments.iter().find(covers) else { return 0 };
    // A label of assembly goes as far as the next one.
    let next = program.symbols.partition_point(|other| other.va <= symbol.va);
    let next_va = program.symbols.get(next).map_or(u64::MAX, |next| next.va);
    let end_va = if symbol.len_bytes == 0 { next_va } else { symbol.va + symbol.len_bytes };
    let own = symbol.va..end_va;
    let mut info = InstructionInfoFactory::new();
    let mut read = 0;
    // For each address that was reached, what is written on every way there.
    let mut reached: BTreeMap<u64, u8> = BTreeMap::new();
    let mut next = vec![(va, 0u8)];
    while let Some((at, mut written)) = next.pop() {
        if !own.contains(&at) || reached.get(&at).is_some_and(|before| before & !written == 0) {
            continue;
        }
        written &= reached.get(&at).copied().unwrap_or(ALL);
        reached.insert(at, written);
        let bytes = &segment.bytes[(at - segment.va) as usize..];
        let instruction = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode();
        if instruction.is_invalid() {
            continue;
        }
        let mut writes = 0;
        for used in info.info(&instruction).used_registers() {
            let bit = bit(used.register());
            match used.access() {
                OpAccess::Write => writes |= bit,
                OpAccess::Read | OpAccess::CondRead => read |= bit & !written,
                OpAccess::ReadWrite | OpAccess::ReadCondWrite => {
                    read |= bit & !written;
                    writes |= bit;
                }
                _ => {}
            }
        }
        let callee = |target| if depth > 0 { reads_of(program, target, depth - 1) } else { 0 };
        let target = instruction.near_branch_target();
        match instruction.flow_control() {
            // Behind a call nothing is left of the arguments.
            FlowControl::Call => read |= callee(target) & !written,
            FlowControl::UnconditionalBranch if !own.contains(&target) => read |= callee(target) & !written,
            FlowControl::UnconditionalBranch => next.push((target, written | writes)),
            FlowControl::ConditionalBranch => {
                next.push((target, written | writes));
                next.push((instruction.next_ip(), written | writes));
            }
            FlowControl::Next => next.push((instruction.next_ip(), written | writes)),
            _ => {}
        }
        // They were all there, or will not be read any more.
        if read == ALL {
            break;
        }
    }
    read
}

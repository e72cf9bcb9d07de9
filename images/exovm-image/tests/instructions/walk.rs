//! Decodes every executable byte of a program, from function to function, and asks a rule about each instruction. It
//! relies on nothing but the symbols, and checks what it relies on: what it decodes must be what runs, so every branch
//! must lead to the beginning of an instruction that it has seen, and what no function covers must be filler.

use exovm_image::program::{Access, Program};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Formatter, Instruction, IntelFormatter, Mnemonic};
use std::collections::BTreeSet;
use std::fmt;

/// What the linker puts between functions, so that a jump to nowhere is noticed: `int3`.
const FILLER: u8 = 0xCC;

/// What a rule says of an instruction: `None`, or why it must not be there.
pub(crate) type Rule = fn(&Instruction) -> Option<&'static str>;

/// A run of executable bytes and the functions in it.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(crate) va: u64,
    pub(crate) bytes: Vec<u8>,
    /// Address, length (0: until the next one) and name, in ascending order.
    pub(crate) functions: Vec<(u64, u64, String)>,
}

/// Something that must not be there.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) va: u64,
    pub(crate) function: String,
    pub(crate) text: String,
    pub(crate) why: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x} in {}: {} ({})", self.va, self.function, self.text, self.why)
    }
}

/// One line for each finding.
pub(crate) fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

/// The executable parts of a program.
pub(crate) fn code_of(program: &Program) -> Vec<Code> {
    let executable = program.segments.iter().filter(|segment| segment.access == Access::Execute);
    executable
        .map(|segment| {
            let inside = segment.va..segment.va + segment.len_bytes;
            let symbols = program.symbols.iter().filter(|symbol| inside.contains(&symbol.va));
            let functions =
                symbols.map(|symbol| (symbol.va, symbol.len_bytes, symbol.name.clone())).collect();
            Code { va: segment.va, bytes: segment.bytes.clone(), functions }
        })
        .collect()
}

/// What a walk has seen.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) instructions: usize,
    pub(crate) findings: Vec<Finding>,
    starts: BTreeSet<u64>,
    /// Direct branches: from, to, in which function.
    branches: Vec<(u64, u64, String)>,
}

/// Walks over all code of a program.
pub(crate) fn walk(parts: &[Code], rule: Rule) -> Walk {
    let mut walk = Walk::default();
    for code in parts {
        walk.part(code, rule);
    }
    for (va, target, function) in std::mem::take(&mut walk.branches) {
        if !walk.starts.contains(&target) {
            let text = format!("branch to {target:#x}");
            walk.findings.push(Finding { va, function, text, why: "not the beginning of an instruction" });
        }
    }
    walk
}

impl Walk {
    fn part(&mut self, code: &Code, rule: Rule) {
        let code_end = code.va + code.bytes.len() as u64;
        let mut at = code.va;
        let mut functions = code.functions.iter().peekable();
        // The end of the function with a length that began last: labels inside of it have none.
        let mut sized_end = 0;
        while at < code_end {
            let mut name = "no function";
            let mut covered_end = at;
            while let Some((va, len, next)) = functions.next_if(|(va, ..)| *va <= at) {
                name = next;
                sized_end = sized_end.max(va + len);
                covered_end = code_end;
            }
            let end = functions.peek().map_or(code_end, |(va, ..)| *va);
            covered_end = if sized_end > at { sized_end.min(end) } else { covered_end.min(end) };
            let has_length = sized_end > at;
            let filler = self.function(code, name, at..covered_end, has_length, rule);
            self.filler(code, name, filler..end);
            at = end;
        }
    }

    /// Decodes a function. Returns where it ends: if it has no length, where filler begins.
    fn function(
        &mut self,
        code: &Code,
        name: &str,
        range: std::ops::Range<u64>,
        has_length: bool,
        rule: Rule,
    ) -> u64 {
        let offset = |va: u64| (va - code.va) as usize;
        let bytes = &code.bytes[offset(range.start)..offset(range.end)];
        let mut decoder = Decoder::with_ip(64, bytes, range.start, DecoderOptions::NONE);
        let mut goes_on = true;
        while decoder.can_decode() {
            let va = decoder.ip();
            let rest = &bytes[(va - range.start) as usize..];
            if !has_length && !goes_on && rest.iter().all(|&byte| byte == FILLER) {
                return va;
            }
            let instruction = decoder.decode();
            self.instructions += 1;
            self.starts.insert(va);
            let why = if instruction.is_invalid() { Some("no instruction") } else { rule(&instruction) };
            if let Some(why) = why {
                let bytes = &rest[..instruction.len().min(rest.len())];
                self.find(va, name, &instruction, bytes, why);
            }
            let direct = matches!(
                instruction.flow_control(),
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call
            );
            if direct && instruction.near_branch_target() != 0 {
                self.branches.push((va, instruction.near_branch_target(), name.to_owned()));
            }
            goes_on = !matches!(
                instruction.flow_control(),
                FlowControl::UnconditionalBranch
                    | FlowControl::IndirectBranch
                    | FlowControl::Return
                    | FlowControl::Exception
            );
        }
        range.end
    }

    fn find(&mut self, va: u64, function: &str, instruction: &Instruction, bytes: &[u8], why: &'static str) {
        let mut text: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        text.push_str("= ");
        IntelFormatter::new().format(instruction, &mut text);
        self.findings.push(Finding { va, function: function.to_owned(), text, why });
    }

    /// Between functions there is nothing that runs: `int3`, or what an assembler aligns with.
    fn filler(&mut self, code: &Code, name: &str, range: std::ops::Range<u64>) {
        let bytes = &code.bytes[(range.start - code.va) as usize..(range.end - code.va) as usize];
        let mut decoder = Decoder::with_ip(64, bytes, range.start, DecoderOptions::NONE);
        while decoder.can_decode() {
            let (va, instruction) = (decoder.ip(), decoder.decode());
            let at = (va - range.start) as usize;
            if bytes[at] != FILLER && instruction.mnemonic() != Mnemonic::Nop {
                let after = format!("behind {name}");
                let bytes = &bytes[at..(at + instruction.len()).min(bytes.len())];
                self.find(va, &after, &instruction, bytes, "code that no function covers");
            }
        }
    }
}

/// One function of these bytes, for self-tests.
#[cfg(test)]
pub(crate) fn function_of(bytes: &[u8]) -> Code {
    Code {
        va: 0x40_0000,
        bytes: bytes.to_vec(),
        functions: vec![(0x40_0000, bytes.len() as u64, "tested".to_owned())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bytes: &[u8], functions: &[(u64, u64)]) -> Code {
        let functions =
            functions.iter().map(|(offset, len)| (0x1000 + offset, *len, "f".to_owned())).collect();
        Code { va: 0x1000, bytes: bytes.to_vec(), functions }
    }

    fn whys(code: Code) -> Vec<&'static str> {
        walk(&[code], |_| None).findings.iter().map(|finding| finding.why).collect()
    }

    #[test]
    fn walk_int3_between_functions_is_filler() {
        assert_eq!(whys(code(&[0xC3, 0xCC, 0xCC, 0xC3], &[(0, 1), (3, 1)])), [""; 0]);
        // without lengths, as labels of assembly have none
        assert_eq!(whys(code(&[0xC3, 0xCC, 0xCC, 0xC3, 0xCC], &[(0, 0), (3, 0)])), [""; 0]);
    }

    #[test]
    fn walk_int3_that_can_be_reached_is_an_instruction() {
        let saw_int3 = |code: Code| {
            let rule: Rule = |instruction| (instruction.mnemonic() == Mnemonic::Int3).then_some("int3");
            !walk(&[code], rule).findings.is_empty()
        };
        assert!(saw_int3(code(&[0x90, 0xCC, 0xC3], &[(0, 3)])), "inside of a function");
        assert!(saw_int3(code(&[0xC3, 0xCC], &[(0, 2)])), "at its end, within its length");
        assert!(saw_int3(code(&[0x90, 0xCC], &[(0, 0)])), "behind an instruction that goes on");
        assert!(saw_int3(code(&[0xC3, 0xCC, 0x90, 0xC3], &[(0, 0)])), "not all up to the next function");
        assert!(saw_int3(code(&[0xC3, 0xCC], &[(0, 0), (1, 0)])), "a function that begins with it");
    }

    #[test]
    fn walk_code_that_no_function_covers_is_found() {
        assert_eq!(whys(code(&[0xC3, 0x0F, 0x05, 0xC3], &[(0, 1)])).len(), 2);
        assert_eq!(whys(code(&[0x0F, 0x05, 0xC3], &[(2, 1)])), ["code that no function covers"]);
    }

    #[test]
    fn walk_bytes_that_are_no_instruction_are_found() {
        assert_eq!(whys(code(&[0x06, 0xC3], &[(0, 2)])), ["no instruction"]);
        assert_eq!(whys(code(&[0x48], &[(0, 1)])), ["no instruction"]);
    }

    #[test]
    fn walk_branch_into_an_instruction_is_found() {
        // jmp to the second byte of `mov eax, imm32`, where a syscall hides
        let hidden = [0xEB, 0x01, 0xB8, 0x0F, 0x05, 0xC3, 0xC3, 0xC3];
        assert_eq!(whys(code(&hidden, &[(0, 8)])), ["not the beginning of an instruction"]);
        // a call to elsewhere
        let elsewhere = [0xE8, 0x00, 0x10, 0x00, 0x00, 0xC3];
        assert_eq!(whys(code(&elsewhere, &[(0, 6)])), ["not the beginning of an instruction"]);
    }
}

use super::*;
use crate::machine::boot::paging::{Mapping, PageTables};
use crate::machine::memory::{self, Placer};
use abi::layout::IMAGE_VA;
use abi::paging::NO_SLOT;

const MEMORY_BYTES: u64 = 16 << 20;
const STACK_VA: u64 = 0x7DFF_FFFF_0000;
const STACK_GPA: u64 = 8 << 20;
const PAGE: u64 = PAGE_BYTES;
const KERNEL_DATA_GPA: u64 = 9 << 20;
/// What the kernel maps where ring 3 has a page of its own, and a page that ring 3 does not reach.
const SECRET_VA: u64 = 0x7DFF_FFFE_0000;

/// A guest that stands still: page tables, a stack for each ring, the code of hello.
struct Still {
    memory: Memory,
    image: Image,
    root_gpa: u64,
    kernel_stack_top: u64,
}

impl Still {
    fn new() -> Self {
        let memory = memory::map(MEMORY_BYTES).expect("16 MiB");
        let image = crate::images::load("hello").expect("built in");
        let Header::Kernel(header) = &image.kernel.header else { panic!("a kernel") };
        let (top, stride) = (header.stack_top_va, header.stack_stride_bytes);
        let mut placer = Placer::new(4 << 20);
        let tables = PageTables::new(&memory, &mut placer).expect("fits");
        let mapping = |owner| Mapping { owner, access: Access::Write, slot: NO_SLOT };
        let mut map = |va, gpa, len, owner| {
            tables.map(&mut placer, va, gpa, len, mapping(owner)).expect("fits");
        };
        map(STACK_VA, STACK_GPA, 4 * PAGE, Owner::User);
        map(top - stride, KERNEL_DATA_GPA, stride, Owner::Kernel);
        map(SECRET_VA, KERNEL_DATA_GPA, PAGE, Owner::Kernel);
        let root_gpa = tables.root_gpa();
        Self { root_gpa, memory, image, kernel_stack_top: top }
    }

    fn put(&self, va: u64, words: &[u64]) {
        for (at, word) in (va..).step_by(8).zip(words) {
            let mapped = look_up(&self.memory, self.root_gpa, at).expect("mapped");
            self.memory.write_obj(*word, GuestAddress(mapped.gpa)).expect("memory");
        }
    }

    /// Addresses behind calls in the program, in different functions, and those functions.
    fn returns(&self, program: &Program) -> Vec<u64> {
        let segment =
            program.segments.iter().find(|segment| segment.access == Access::Execute).expect("code");
        let mut found: Vec<u64> = Vec::new();
        for va in (segment.va + 16..segment.va + segment.bytes.len() as u64).step_by(1) {
            let function = |va: u64| program.symbol(va).map(|(symbol, _)| symbol.va);
            let direct = matches!(call_before(program, va), Some(Call::Direct(target)) if function(target) == Some(target));
            if direct && found.last().is_none_or(|last| function(last - 1) != function(va - 1)) {
                found.push(va);
            }
        }
        found
    }

    fn user(&self, rip: u64, rsp: u64, rbp: u64) -> Vec<u64> {
        let registers = Registers { rip, rsp, rbp, ring: 3, root_gpa: self.root_gpa };
        stack(&self.memory, &self.image, &registers)
    }

    /// A place in the middle of a function that keeps a frame pointer.
    fn framed(&self) -> &Symbol {
        let program = &self.image.program;
        let is_framed = |symbol: &&Symbol| {
            code(program, symbol.va, PROLOGUE.len()) == Some(&PROLOGUE) && symbol.len_bytes > 16
        };
        program.symbols.iter().find(is_framed).expect("most do")
    }
}

#[test]
fn chain_of_frames_is_followed_to_its_end() {
    let still = Still::new();
    let returns = still.returns(&still.image.program);
    let rip = still.framed().va + 8;
    still.put(STACK_VA + 0x100, &[STACK_VA + 0x200, returns[0]]);
    still.put(STACK_VA + 0x200, &[STACK_VA + 0x1300, returns[1]]);
    still.put(STACK_VA + 0x1300, &[0, returns[2]]);
    let expected = [rip, returns[0] - 1, returns[1] - 1, returns[2] - 1];
    assert_eq!(still.user(rip, STACK_VA + 0x80, STACK_VA + 0x100), expected);
}

#[test]
fn function_that_has_no_frame_yet_or_any_more_has_its_caller_on_top_of_the_stack() {
    let still = Still::new();
    let returns = still.returns(&still.image.program);
    let function = still.framed().va;
    still.put(STACK_VA + 0x80, &[returns[0], returns[1]]);
    still.put(STACK_VA + 0x100, &[0, returns[2]]);
    let callers = |rip| still.user(rip, STACK_VA + 0x80, STACK_VA + 0x100)[1..].to_vec();
    // Before `push rbp`, before `mov rbp, rsp`, behind it.
    assert_eq!(callers(function), [returns[0] - 1, returns[2] - 1]);
    assert_eq!(callers(function + 1), [returns[1] - 1, returns[2] - 1]);
    assert_eq!(callers(function + 8), [returns[2] - 1]);
    let memcpy = still.image.program.symbols.iter().find(|symbol| symbol.name == "memcpy").expect("there");
    assert_eq!(callers(memcpy.va + 3), [returns[0] - 1, returns[2] - 1]);
}

#[test]
fn frames_that_make_no_sense_end_the_stack() {
    let still = Still::new();
    let returns = still.returns(&still.image.program);
    let rip = still.framed().va + 8;
    let good = returns[0];
    still.put(SECRET_VA + 0x100, &[0, good]);
    // To itself, downwards, to a return address that is none, to one in the middle of code.
    still.put(STACK_VA + 0x100, &[STACK_VA + 0x100, good]);
    still.put(STACK_VA + 0x200, &[STACK_VA + 0x100, good]);
    still.put(STACK_VA + 0x300, &[0, 7]);
    still.put(STACK_VA + 0x400, &[0, good + 1]);
    still.put(STACK_VA + 0x500, &[SECRET_VA + 0x100, good]);
    for (base, frames) in [
        (STACK_VA + 0x100, 2),
        (STACK_VA + 0x200, 2),
        (STACK_VA + 0x300, 1),
        (STACK_VA + 0x400, 1),
        (STACK_VA + 0x500, 2),
        (STACK_VA + 0x104, 1),
        (SECRET_VA + 0x100, 1),
        (STACK_VA + 4 * PAGE - 8, 1),
        (STACK_VA - 8, 1),
        (still.kernel_stack_top - 0x100, 1),
        (0, 1),
        (u64::MAX, 1),
        (u64::MAX - 7, 1),
        (1 << 47, 1),
        ((1 << 48) | (STACK_VA + 0x100), 1),
    ] {
        assert_eq!(still.user(rip, STACK_VA + 0x80, base).len(), frames, "{base:#x}");
    }
}

#[test]
fn stack_that_is_very_deep_is_cut() {
    let still = Still::new();
    let good = still.returns(&still.image.program)[0];
    for frame in 0..200 {
        let va = STACK_VA + 0x100 + 16 * frame;
        still.put(va, &[va + 16, good]);
    }
    let rip = still.framed().va + 8;
    assert_eq!(still.user(rip, STACK_VA + 0x80, STACK_VA + 0x100).len(), FRAMES);
}

#[test]
fn kernel_stack_is_followed_by_calls_that_fit_and_then_to_ring_3() {
    let still = Still::new();
    let (kernel, program) = (&still.image.kernel, &still.image.program);
    let of_program = still.returns(program);
    // A call of a function by another, which is itself called by a third.
    let returns = still.returns(kernel);
    let target = |va| match call_before(kernel, va) {
        Some(Call::Direct(target)) => target,
        _ => panic!("a direct call"),
    };
    let function = |va: u64| kernel.symbol(va).expect("a function").0.va;
    let (inner, outer) = returns
        .iter()
        .find_map(|&inner| {
            let outer =
                returns.iter().find(|&&outer| target(outer) == function(inner - 1) && outer != inner)?;
            Some((inner, *outer))
        })
        .expect("the kernel has calls three deep");
    let stale = *returns.iter().find(|&&va| target(va) != target(inner)).expect("many");
    let rip = target(inner);
    let top = still.kernel_stack_top;
    let (user_rsp, user_base) = (STACK_VA + 0x80, STACK_VA + 0x100);
    still.put(user_rsp, &[of_program[0]]);
    still.put(user_base, &[0, of_program[1]]);
    let frame = [GATE_VA + 1, USER_CODE_SELECTOR.into(), 0x202, user_rsp, USER_DATA_SELECTOR.into()];
    still.put(top - 40, &frame);
    // A word that is none, one that was left from another call, the two calls, what ring 3 had in its registers.
    still.put(top - 40 - 48, &[12345, stale, inner, 0, outer, user_base]);
    let registers = Registers { rip, rsp: top - 40 - 48, rbp: 77, ring: 0, root_gpa: still.root_gpa };
    let found = stack(&still.memory, &still.image, &registers);
    let expected = [rip, inner - 1, outer - 1, GATE_VA + 1, of_program[0] - 1, of_program[1] - 1];
    assert_eq!(found, expected, "{found:x?}");
    // With ring 3's base still in its register, and without anything that could be one.
    still.put(top - 48, &[0]);
    let found = stack(&still.memory, &still.image, &Registers { rbp: user_base, ..registers });
    assert_eq!(found, expected);
    let found = stack(&still.memory, &still.image, &registers);
    assert_eq!(found, expected[..5]);
    // An empty stack, and one whose begin is no interrupt frame.
    for (rsp, frames) in [(top, 1), (top - 48, 1)] {
        still.put(top - 40, &[1, 2, 3, 4, 5]);
        let found = stack(&still.memory, &still.image, &Registers { rsp, ..registers });
        assert_eq!(found.len(), frames, "{found:x?}");
    }
}

#[test]
fn kernel_stack_pointers_that_are_none_end_the_stack() {
    let still = Still::new();
    let rip = still.image.kernel.symbols[0].va;
    for rsp in [0, 7, STACK_VA, IMAGE_VA, u64::MAX, u64::MAX - 7, still.kernel_stack_top + 8, 1 << 63] {
        let registers = Registers { rip, rsp, rbp: rsp, ring: 0, root_gpa: still.root_gpa };
        assert_eq!(stack(&still.memory, &still.image, &registers), [rip], "{rsp:#x}");
    }
}

#[test]
fn calls_are_recognised_with_every_way_to_say_where() {
    for (bytes, length) in [
        (&[0xFF, 0xD0][..], 2),               // call rax
        (&[0xFF, 0x10], 2),                   // call [rax]
        (&[0xFF, 0x50, 8], 3),                // call [rax + 8]
        (&[0xFF, 0x14, 0x24], 3),             // call [rsp]
        (&[0xFF, 0x54, 0x24, 8], 4),          // call [rsp + 8]
        (&[0xFF, 0x90, 0, 1, 0, 0], 6),       // call [rax + 256]
        (&[0xFF, 0x15, 0, 1, 0, 0], 6),       // call [rip + 256]
        (&[0xFF, 0x94, 0xC8, 0, 1, 0, 0], 7), // call [rax + 8 * rcx + 256]
        (&[0xFF, 0x14, 0xC5, 0, 1, 0, 0], 7), // call [8 * rax + 256]
    ] {
        assert_eq!(indirect_length(bytes), length, "{bytes:x?}");
        assert_eq!(bytes.len(), length);
    }
}

proptest::proptest! {
    /// Whatever registers, stacks and page tables hold.
    #[test]
    fn walk_of_garbage_ends(
        words in proptest::collection::vec(proptest::num::u64::ANY, 64),
        pointers in proptest::array::uniform4(0u64..0x4000),
        registers in proptest::array::uniform4(proptest::num::u64::ANY),
        inside in proptest::bool::ANY,
        ring in 0u8..4,
    ) {
        let still = Still::new();
        let wild = |at: usize| if inside { STACK_VA + pointers[at] } else { registers[at] };
        for (index, &word) in words.iter().enumerate() {
            let near = STACK_VA + (word & 0x3FF8);
            still.put(STACK_VA + 64 * index as u64, &[if word % 3 == 0 { word } else { near }, near]);
            still.put(still.kernel_stack_top - 8 - 8 * index as u64, &[word]);
        }
        let root_gpa = if inside { still.root_gpa } else { registers[3] };
        let rsp = if ring == 0 && inside { still.kernel_stack_top - pointers[1] } else { wild(1) };
        let registers = Registers { rip: wild(0), rsp, rbp: wild(2), ring, root_gpa };
        let frames = stack(&still.memory, &still.image, &registers);
        proptest::prop_assert!(!frames.is_empty() && frames.len() <= FRAMES);
    }
}

//! What is left in a register when somebody else gets the CPU. One child fills every register that ring 3 can write, and gives
//! the CPU away; another looks, and its parent reads what it saw. All ways in which the first leaves are tried with all in which
//! the second comes, in both orders of their places.
//!
//! Filling is an XRSTOR of all components that the host has enabled, from an area of patterns, and looking is an XSAVE of the
//! same: so no component is forgotten, not even one that this code does not know.

use crate::child::{Child, Code, DATA_VA};
use crate::{BROKEN, Case, HELD};
use abi::call::{Call, Error, state};
use abi::capability::rights;
use abi::fault::REGISTER_NAMES;
use abi::layout::{GATE_VA, PAGE_BYTES, UPCALL_VA, USER_CODE_SELECTOR, USER_DATA_SELECTOR};
use abi::upcall::UpcallPage;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::fmt::{Arguments as Text, Write};
use core::mem::offset_of;

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[("registers-of-another", registers_of_another)];

/// How often each of the two goes round.
const ROUNDS: u64 = 3;
/// Pages of a child's data: one for words and stack, and one for each look (or for the area of patterns). It looks at its
/// start, and once or twice a round.
const DATA_PAGES: u64 = 2 + 2 * ROUNDS;
/// How long the parent sleeps between two looks at the two.
const POLL_MS: u64 = 20;

/// Words of the data page.
mod word {
    /// Where the next look goes.
    pub(super) const NEXT: usize = 0;
    pub(super) const ROUNDS: usize = 1;
    /// The way in which it gives the CPU away.
    pub(super) const WAY: usize = 2;
    /// Whether ring 3 may set the bases of `fs` and `gs`.
    pub(super) const BASES: usize = 3;
    pub(super) const FILLS: usize = 4;
}

/// Ways to give the CPU away.
mod way {
    pub(super) const SLEEP: u64 = 0;
    pub(super) const YIELD: u64 = 1;
    /// Computes until the upcall at the end of its slice, which yields.
    pub(super) const SLICE_END: u64 = 2;
    /// Computes and has no upcall.
    pub(super) const OVERRUN: u64 = 3;
    /// Faults and has no upcall.
    pub(super) const FAULT: u64 = 4;
    /// Faults, and its upcall yields.
    pub(super) const UPCALL: u64 = 5;
    pub(super) const EXIT: u64 = 6;
}

/// Where a look puts the registers that XSAVE does not know, in its page.
const WORDS_OFFSET: u64 = 0xE00;
/// Of them, in [`REGISTER_NAMES`]' order but for the last: 15 registers, `rflags`, `ds`, `es`, `fs`, `gs`, `ss`, bases of `fs` and `gs`.
const WORDS: usize = 23;
/// What `rflags` are when ring 3 is entered: interrupts, and the bit that is always 1.
const INITIAL_FLAGS: u64 = 0x202;
const INITIAL_CONTROL: u16 = 0x37F;
const INITIAL_MXCSR: u32 = 0x1F80;
/// Parts of the XSAVE area that are no register: MXCSR_MASK, what is software's, the header (SDM 13.4).
const NO_REGISTER: [core::ops::Range<usize>; 2] = [28..32, 464..576];
/// CPUID leaf of the extended state, and the number of PKRU among its components.
const CPUID_EXTENDED_STATE: u32 = 0xD;
const PKRU: u32 = 9;

unsafe extern "sysv64" {
    fn probe_forbidden_fill();
    fn probe_forbidden_look();
    static PROBE_FILL_BYTES: usize;
    static PROBE_LOOK_BYTES: usize;
}

global_asm!(
    ".section .text.probe_forbidden, \"ax\", @progbits",
    // The upcall page, for the ways that have one: rbx is the handler.
    ".macro upcalls",
    "movabs rax, {upcall}",
    "mov qword ptr [rax + {stack}], {data} + 0xE00",
    "cmp qword ptr [{data} + 16], {slice_end_way}",
    "jne 2f",
    "mov [rax + {slice_end}], rbx",
    "2:",
    "cmp qword ptr [{data} + 16], {upcall_way}",
    "jne 2f",
    "mov [rax + {fault}], rbx",
    "2:",
    ".endm",
    // The handler has done its work: the next upcall may come.
    ".macro handled",
    "movabs rax, {upcall}",
    "mov qword ptr [rax + {busy}], 0",
    "mov esp, {data} + 0x1000",
    ".endm",
    // rax: all components but tiles, of which a process has to ask the host for.
    ".macro components",
    "xor ecx, ecx",
    "xgetbv",
    "and eax, 0xFFF9FFFF",
    ".endm",
    ".macro gate number",
    "mov eax, \\number",
    "movabs rcx, {gate}",
    "call rcx",
    ".endm",
    ".macro goto_way number, label",
    "cmp qword ptr [{data} + 16], \\number",
    "je \\label",
    ".endm",

    ".globl probe_forbidden_fill",
    ".type probe_forbidden_fill, @function",
    "probe_forbidden_fill:",
    "lea rbx, [rip + 80f]",
    "upcalls",
    "30:",
    "dec qword ptr [{data} + 8]",
    "js 86f",
    "components",
    "mov [{data} + 0x1000 + 512], eax",
    "mov [{data} + 0x1000 + 516], edx",
    "xrstor64 [{data} + 0x1000]",
    "mov eax, {code_selector}",
    "mov ds, eax",
    "mov es, eax",
    "mov fs, eax",
    "mov gs, eax",
    "movabs rax, 0x123456789ABC",
    "cmp qword ptr [{data} + 24], 0",
    "je 2f",
    "wrfsbase rax",
    "wrgsbase rax",
    "2:",
    "inc qword ptr [{data} + 32]",
    ".irp register, rbx,rcx,rdx,rsi,rdi,rbp,r8,r9,r10,r11,r12,r13,r14,r15",
    "mov \\register, rax",
    ".endr",
    "goto_way {sleep_way}, 80f",
    "goto_way {yield_way}, 81f",
    "goto_way {slice_end_way}, 82f",
    "goto_way {overrun_way}, 82f",
    "goto_way {exit_way}, 85f",
    // Carry, parity, adjust, zero, sign, direction, overflow, nested task, alignment check, identification.
    "push 0x244ED7",
    "popfq",
    "ud2",
    "80:", // also the handler
    "goto_way {slice_end_way}, 81f",
    "goto_way {upcall_way}, 81f",
    "mov edi, 2", // a deadline that has passed
    "mov esi, 0",
    "mov edx, 0",
    "mov r10d, 0",
    "mov r8d, 0",
    "push 0x244ED7",
    "popfq",
    "gate {sleep}",
    "jmp 30b",
    "81:",
    "mov edi, 0",
    "push 0x244ED7",
    "popfq",
    "gate {yield_}",
    "handled",
    "jmp 30b",
    "82:",
    "push 0x244ED7",
    "popfq",
    "3:",
    "jmp 3b",
    "85:",
    "push 0x244ED7",
    "popfq",
    "86:",
    "mov edi, 0",
    "gate {exit}",
    ".Lprobe_fill_end:",
    ".size probe_forbidden_fill, . - probe_forbidden_fill",

    ".globl probe_forbidden_look",
    ".type probe_forbidden_look, @function",
    "probe_forbidden_look:",
    "call 90f",
    "lea rbx, [rip + 80f]",
    "upcalls",
    "30:",
    "dec qword ptr [{data} + 8]",
    "js 86f",
    "goto_way {sleep_way}, 83f",
    "goto_way {yield_way}, 84f",
    "goto_way {slice_end_way}, 82f",
    "ud2",
    "82:",
    "jmp 82b",
    "80:", // the handler
    "call 90f",
    "goto_way {slice_end_way}, 84f",
    "handled",
    "jmp 30b",
    "83:",
    "mov edi, 2",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "gate {sleep}",
    "call 90f",
    "jmp 30b",
    "84:",
    "xor edi, edi",
    "gate {yield_}",
    "call 90f",
    "handled",
    "jmp 30b",
    "86:",
    "xor edi, edi",
    "gate {exit}",
    // Notes all registers; changes them.
    "90:",
    ".set .Lword, {data} + 0x100",
    ".irp register, rax,rbx,rcx,rdx,rsi,rdi,rbp,r8,r9,r10,r11,r12,r13,r14,r15",
    "mov qword ptr [.Lword], \\register",
    ".set .Lword, .Lword + 8",
    ".endr",
    "pushfq",
    "pop qword ptr [.Lword]",
    "cld",
    ".irp register, ds,es,fs,gs,ss",
    ".set .Lword, .Lword + 8",
    "mov eax, \\register",
    "mov qword ptr [.Lword], rax",
    ".endr",
    "cmp qword ptr [{data} + 24], 0",
    "je 2f",
    "rdfsbase rax",
    "mov qword ptr [.Lword + 8], rax",
    "rdgsbase rax",
    "mov qword ptr [.Lword + 16], rax",
    "2:",
    "components",
    "mov rdi, [{data}]",
    "xsave64 [rdi]",
    "add rdi, {words_offset}",
    "mov esi, {data} + 0x100",
    "mov ecx, {words}",
    "rep movsq",
    "add qword ptr [{data}], 0x1000",
    "ret",
    ".Lprobe_look_end:",
    ".size probe_forbidden_look, . - probe_forbidden_look",
    ".section .rodata.probe_registers, \"a\", @progbits",
    ".balign 8",
    ".globl PROBE_FILL_BYTES, PROBE_LOOK_BYTES",
    "PROBE_FILL_BYTES: .quad .Lprobe_fill_end - probe_forbidden_fill",
    "PROBE_LOOK_BYTES: .quad .Lprobe_look_end - probe_forbidden_look",
    ".purgem upcalls",
    ".purgem handled",
    ".purgem components",
    ".purgem gate",
    ".purgem goto_way",
    ".text",
    data = const DATA_VA,
    upcall = const UPCALL_VA,
    gate = const GATE_VA,
    code_selector = const USER_CODE_SELECTOR as u64,
    stack = const offset_of!(UpcallPage, stack_va),
    slice_end = const offset_of!(UpcallPage, slice_end_va),
    fault = const offset_of!(UpcallPage, fault_va),
    busy = const offset_of!(UpcallPage, busy),
    words_offset = const WORDS_OFFSET,
    words = const WORDS,
    sleep_way = const way::SLEEP,
    yield_way = const way::YIELD,
    slice_end_way = const way::SLICE_END,
    overrun_way = const way::OVERRUN,
    upcall_way = const way::UPCALL,
    exit_way = const way::EXIT,
    sleep = const Call::Sleep as u64,
    yield_ = const Call::Yield as u64,
    exit = const Call::Exit as u64,
);

/// The ways of the one that fills: what it does, and the status with which it ends.
const LEAVES: &[(&str, u64, u32)] = &[
    ("sleeps", way::SLEEP, 0),
    ("yields", way::YIELD, 0),
    ("yields at the end of its slice", way::SLICE_END, 0),
    ("runs on", way::OVERRUN, 152),
    ("faults", way::FAULT, 134),
    ("yields in its fault upcall", way::UPCALL, 0),
    ("exits", way::EXIT, 0),
];

/// The ways of the one that looks, each of which looks at its start, too.
const COMES: &[(&str, u64)] =
    &[("slept", way::SLEEP), ("yielded", way::YIELD), ("computed", way::SLICE_END), ("faulted", way::UPCALL)];

/// As `format!`, whose code in the precompiled `alloc` would unwind.
fn text(arguments: Text<'_>) -> String {
    let mut text = String::new();
    // Cannot fail: a string takes everything.
    let _ = text.write_fmt(arguments);
    text
}

/// Who gets the lower place.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    FillerFirst,
    LookerFirst,
    /// The filler is gone, and the other gets its place.
    Successor,
}

/// Tries all pairs. A line for each way of leaving: what any other saw.
fn registers_of_another(_: Arguments<'_>) -> Option<u32> {
    let bases = may_set_bases().ok()?;
    log::info!("probe: ring 3 may set the bases of fs and gs: {bases}");
    let mut broken = false;
    for &(leaves, way, status) in LEAVES {
        let mut seen = String::new();
        for &(comes, look_way) in COMES {
            for order in [Order::FillerFirst, Order::LookerFirst, Order::Successor] {
                match pair(way, status, look_way, order, bases) {
                    Ok(different) if different.is_empty() => {}
                    Ok(different) => {
                        different.iter().for_each(|name| seen += &text(format_args!("{name} ")));
                        seen += &text(format_args!("by one that {comes}; "));
                    }
                    Err(why) => {
                        log::error!("probe: one that {leaves}, one that {comes}: {why}");
                        broken = true;
                    }
                }
            }
        }
        let seen = if seen.is_empty() { "nothing" } else { seen.trim_end() };
        log::info!("probe: registers of one that {leaves}: {seen}");
    }
    Some(if broken { BROKEN } else { HELD })
}

/// Whether RDFSBASE is an instruction here: a child that executes it tells.
fn may_set_bases() -> Result<bool, Error> {
    let child = Child::new(Code::new().bytes(&[0xF3, 0x48, 0x0F, 0xAE, 0xC0]).exit(0), rights::WRITE)?;
    child.start(0)?;
    let allowed = child.wait(state::GONE) == Some(0);
    child.release()?;
    Ok(allowed)
}

/// The two programs.
fn fill() -> Code {
    // SAFETY: a constant that the assembly above defines.
    code(probe_forbidden_fill, unsafe { PROBE_FILL_BYTES })
}

fn look() -> Code {
    // SAFETY: as above.
    code(probe_forbidden_look, unsafe { PROBE_LOOK_BYTES })
}

fn code(text: unsafe extern "sysv64" fn(), len_bytes: usize) -> Code {
    // SAFETY: text can be read, and so much of it is the function's.
    Code::new().bytes(unsafe { core::slice::from_raw_parts(text as *const u8, len_bytes) })
}

fn make(code: Code, way: u64, bases: bool) -> Result<Child, String> {
    let child = Child::with_pages(code, rights::WRITE, DATA_PAGES)
        .map_err(|error| text(format_args!("{error:?}")))?;
    child.set_word_at(word::NEXT, DATA_VA + PAGE_BYTES);
    child.set_word_at(word::ROUNDS, ROUNDS);
    child.set_word_at(word::WAY, way);
    child.set_word_at(word::BASES, bases.into());
    Ok(child)
}

/// One that fills and one that looks; the names of what the second saw and should not have.
fn pair(way: u64, status: u32, look_way: u64, order: Order, bases: bool) -> Result<Vec<String>, String> {
    let filler = || {
        let child = make(fill(), way, bases)?;
        child.write_page(1, &patterns());
        Ok::<_, String>(child)
    };
    let looker = || make(look(), look_way, bases);
    let start = |child: &Child| child.start(0).map_err(|error| text(format_args!("{error:?}")));
    let (filler, end, looker) = match order {
        Order::FillerFirst => {
            let (filler, looker) = (filler()?, looker()?);
            start(&filler)?;
            start(&looker)?;
            (filler, None, looker)
        }
        Order::LookerFirst => {
            let (looker, filler) = (looker()?, filler()?);
            start(&looker)?;
            start(&filler)?;
            (filler, None, looker)
        }
        Order::Successor => {
            let filler = filler()?;
            start(&filler)?;
            // Before its place and the status in it are another's.
            let end = filler.wait_polling(state::GONE, POLL_MS);
            let looker = looker()?;
            start(&looker)?;
            (filler, end, looker)
        }
    };
    let ends = (
        end.or_else(|| filler.wait_polling(state::GONE, POLL_MS)),
        looker.wait_polling(state::GONE, POLL_MS),
    );
    if ends != (Some(status), Some(0)) {
        return Err(text(format_args!("they ended with {ends:?}")));
    }
    let looks = (looker.word_at(word::NEXT) - DATA_VA) / PAGE_BYTES - 1;
    if filler.word_at(word::FILLS) == 0 || looks <= ROUNDS {
        return Err(text(format_args!("{} fills and {looks} looks", filler.word_at(word::FILLS))));
    }
    let mut different = Vec::new();
    for look in 1..=looks {
        compare(&looker.read_page(look), &mut different);
    }
    for child in [filler, looker] {
        child.release().map_err(|error| text(format_args!("{error:?}")))?;
    }
    Ok(different)
}

/// An XSAVE area in which nothing is as it is initially, and nothing that XRSTOR refuses.
fn patterns() -> [u8; PAGE_BYTES as usize] {
    let mut area = [0x5A; PAGE_BYTES as usize];
    // FCW: other rounding and precision, exceptions masked. FSW: conditions, none pending. FTW: all in use.
    area[..6].copy_from_slice(&[0x7F, 0x0C, 0x00, 0x47, 0xFF, 0]);
    // MXCSR: everything but DAZ, which not all have; MXCSR_MASK is not loaded.
    area[24..28].copy_from_slice(&0xFFBFu32.to_le_bytes());
    area[464..576].fill(0);
    // All keys but that of all pages here are without rights.
    let place = core::arch::x86_64::__cpuid_count(CPUID_EXTENDED_STATE, PKRU);
    if place.eax != 0 && (576..area.len() as u32 - 4).contains(&place.ebx) {
        area[place.ebx as usize..][..4].copy_from_slice(&0x5555_5554u32.to_le_bytes());
    }
    area
}

/// Adds the names of what is not in its initial state.
fn compare(page: &[u8; PAGE_BYTES as usize], different: &mut Vec<String>) {
    let mut add = |name: String| {
        if !different.contains(&name) {
            different.push(name);
        }
    };
    let (area, words) = page.split_at(WORDS_OFFSET as usize);
    let mut initial = [0; WORDS_OFFSET as usize];
    initial[..2].copy_from_slice(&INITIAL_CONTROL.to_le_bytes());
    initial[24..28].copy_from_slice(&INITIAL_MXCSR.to_le_bytes());
    for (at, _) in area.iter().zip(initial).enumerate().filter(|(_, (seen, initial))| *seen != initial) {
        if NO_REGISTER.iter().any(|range| range.contains(&at)) {
            continue;
        }
        add(match at {
            0..24 | 32..160 => "x87".into(),
            24..28 => "mxcsr".into(),
            160..416 => "xmm".into(),
            576..832 => "ymm".into(),
            _ => text(format_args!("state-at-{}", at & !63)),
        });
    }
    let others = ["rflags", "ds", "es", "fs", "gs", "ss", "fs-base", "gs-base"];
    let names = REGISTER_NAMES.iter().chain(&others);
    for (at, (name, word)) in names.zip(words.chunks_exact(8)).enumerate() {
        let value = word.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        let is_initial = match at {
            15 => value == INITIAL_FLAGS,
            16..=20 => value == u64::from(USER_DATA_SELECTOR),
            _ => value == 0,
        };
        if !is_initial {
            add(text(format_args!("{name}={value:#x}")));
        }
    }
}

//! Kernel calls with all registers in view: what comes back, what is preserved, what is refused, and the halt.

use crate::{BROKEN, Case, HELD, number};
use abi::call::{Call, Error};
use abi::layout::{DIRECT_MAP_VA, GATE_VA};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use exos_runtime::{clock, kernel};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[
    ("registers", registers),
    ("flags", flags),
    ("bad-call", bad_call),
    ("bad-stack", bad_stack),
    ("call-fault", call_fault),
    ("halt-deadline", halt_deadline),
];

/// General registers in the order of [`abi::fault::REGISTER_NAMES`], then the flags, then `rsp`.
const GENERAL: usize = 17;
const FLAGS: usize = 15;
const STACK_POINTER: usize = 16;

/// The registers before and after a call.
#[repr(C, align(16))]
struct Registers {
    general: [u64; GENERAL],
    mxcsr: u64,
    vectors: [[u64; 2]; 16],
}

/// What the assembly below reads and writes.
#[repr(transparent)]
struct Cell(UnsafeCell<Registers>);

// SAFETY: an environment has one thread.
unsafe impl Sync for Cell {}

impl Cell {
    const fn new() -> Self {
        Self(UnsafeCell::new(Registers { general: [0; GENERAL], mxcsr: 0, vectors: [[0; 2]; 16] }))
    }
}

static BEFORE: Cell = Cell::new();
static AFTER: Cell = Cell::new();
static GATE: u64 = GATE_VA;

unsafe extern "sysv64" {
    /// Loads every register from `BEFORE`, calls the gate, stores every register to `AFTER`.
    fn probe_call_with_all_registers();
}

global_asm!(
    ".type probe_call_with_all_registers, @function",
    "probe_call_with_all_registers:",
    "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
    "pushfq",
    "mov [rip + {before} + 8*16], rsp",
    "ldmxcsr [rip + {before} + 8*17]",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "movups xmm\\n, [rip + {before} + 8*18 + 16*\\n]",
    ".endr",
    "mov rbx, [rip + {before} + 8*1]",
    "mov rcx, [rip + {before} + 8*2]",
    "mov rdx, [rip + {before} + 8*3]",
    "mov rsi, [rip + {before} + 8*4]",
    "mov rdi, [rip + {before} + 8*5]",
    "mov rbp, [rip + {before} + 8*6]",
    "mov r8, [rip + {before} + 8*7]",
    "mov r9, [rip + {before} + 8*8]",
    "mov r10, [rip + {before} + 8*9]",
    "mov r11, [rip + {before} + 8*10]",
    "mov r12, [rip + {before} + 8*11]",
    "mov r13, [rip + {before} + 8*12]",
    "mov r14, [rip + {before} + 8*13]",
    "mov r15, [rip + {before} + 8*14]",
    "mov rax, [rip + {before}]",
    "push [rip + {before} + 8*15]",
    "popfq",
    "call [rip + {gate}]",
    "pushfq",
    "pop [rip + {after} + 8*15]",
    "mov [rip + {after}], rax",
    "mov [rip + {after} + 8*1], rbx",
    "mov [rip + {after} + 8*2], rcx",
    "mov [rip + {after} + 8*3], rdx",
    "mov [rip + {after} + 8*4], rsi",
    "mov [rip + {after} + 8*5], rdi",
    "mov [rip + {after} + 8*6], rbp",
    "mov [rip + {after} + 8*7], r8",
    "mov [rip + {after} + 8*8], r9",
    "mov [rip + {after} + 8*9], r10",
    "mov [rip + {after} + 8*10], r11",
    "mov [rip + {after} + 8*11], r12",
    "mov [rip + {after} + 8*12], r13",
    "mov [rip + {after} + 8*13], r14",
    "mov [rip + {after} + 8*14], r15",
    "mov [rip + {after} + 8*16], rsp",
    "stmxcsr [rip + {after} + 8*17]",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "movups [rip + {after} + 8*18 + 16*\\n], xmm\\n",
    ".endr",
    // Should rsp have changed, the report of the fault that follows is the finding.
    "popfq",
    "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
    "ret",
    ".size probe_call_with_all_registers, . - probe_call_with_all_registers",
    before = sym BEFORE,
    after = sym AFTER,
    gate = sym GATE,
);

/// Flags that a program may set and the kernel must neither fall over nor lose: carry, parity, adjust, zero, sign,
/// direction, overflow, nested task, alignment check, identification.
const SOFTWARE_FLAGS: u64 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x400 | 0x800 | 0x4000 | 0x4_0000 | 0x20_0000;
const NESTED_TASK: u64 = 0x4000;
/// Always set: the reserved bit and the interrupt flag.
const FIXED_FLAGS: u64 = 0x202;
/// Rounding towards zero, all exceptions masked: not the value that a processor starts with.
const MXCSR: u64 = 0x7F80;

/// A kernel call with these registers; what does not matter holds a pattern.
fn call(number: u64, arguments: [u64; 5], flags: u64) -> (&'static Registers, &'static Registers) {
    // SAFETY: an environment has one thread, and nobody holds a reference from an earlier call.
    let before = unsafe { &mut *BEFORE.0.get() };
    for (index, value) in before.general.iter_mut().enumerate() {
        *value = 0x1111_1111_1111_1111 * (index as u64 % 15 + 1);
    }
    for (index, vector) in before.vectors.iter_mut().enumerate() {
        *vector = [0x0101_0101_0101_0101 * (index as u64 + 1), !(index as u64)];
    }
    before.mxcsr = MXCSR;
    let [a, b, c, d, e] = arguments;
    // In the order of REGISTER_NAMES: rax 0, rdx 3, rsi 4, rdi 5, r8 7, r10 9.
    (before.general[0], before.general[5], before.general[4]) = (number, a, b);
    (before.general[3], before.general[9], before.general[7]) = (c, d, e);
    before.general[FLAGS] = flags | FIXED_FLAGS;
    // SAFETY: saves what the calling convention wants saved, and the call writes to no memory of the environment. The
    // alignment check has no effect, since CR0.AM is clear; the direction flag is restored before Rust goes on.
    unsafe {
        probe_call_with_all_registers();
        asm!("ldmxcsr [{}]", in(reg) &0x1F80u32, options(nostack, readonly));
        (&*BEFORE.0.get(), &*AFTER.0.get())
    }
}

/// A kernel call by number.
pub(crate) fn call_by_number(number: u64, arguments: [u64; 5]) -> Result<u64, Error> {
    let (_, after) = call(number, arguments, 0);
    match Error::from_status(after.general[0]) {
        None => Ok(after.general[3]),
        Some(error) => Err(error),
    }
}

/// What a call must keep, and what must come back zero; says what is wrong.
fn count_wrong(what: &str, before: &Registers, after: &Registers) -> u32 {
    const NAMES: [&str; GENERAL] = [
        "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
        "r15", "rflags", "rsp",
    ];
    const LOST: [&str; 7] = ["rcx", "rsi", "rdi", "r8", "r9", "r10", "r11"];
    let mut wrong = 0;
    for (index, name) in NAMES.into_iter().enumerate() {
        if name == "rax" || name == "rdx" {
            continue;
        }
        let expected = if LOST.contains(&name) { 0 } else { before.general[index] };
        // A program has no use for NT, and a host that interprets IRETQ loses it.
        let ignored = if name == "rflags" { NESTED_TASK } else { 0 };
        if (after.general[index] ^ expected) & !ignored != 0 {
            wrong += 1;
            log::error!("probe: {what}: {name} is {:#x} and not {expected:#x}", after.general[index]);
        }
    }
    if after.mxcsr as u32 != before.mxcsr as u32 {
        wrong += 1;
        log::error!("probe: {what}: mxcsr is {:#x}", after.mxcsr);
    }
    for (index, (before, after)) in before.vectors.iter().zip(&after.vectors).enumerate() {
        if before != after {
            wrong += 1;
            log::error!("probe: {what}: xmm{index} is {after:x?} and not {before:x?}");
        }
    }
    debug_assert!(after.general[STACK_POINTER] == before.general[STACK_POINTER]);
    wrong
}

/// After each kind of call every register is as [`abi::call`] says.
fn registers(_: Arguments<'_>) -> Option<u32> {
    let mut wrong = 0;
    let bind = [0, 0, 0, 1, 1];
    for (what, number, arguments) in [
        ("version", Call::Version as u64, [0; 5]),
        ("unknown call", 0xFFFF, [1, 2, 3, 4, 5]),
        ("refused bind", Call::QueueBind as u64, bind),
        ("refused unbind", Call::QueueUnbind as u64, [0, 77, 1, 0, 0]),
        // A deadline that has passed, and one that has not.
        ("halt", Call::Halt as u64, [1, 0, 0, 0, 0]),
        ("halt", Call::Halt as u64, [clock::tsc() + 1_000_000, 0, 0, 0, 0]),
    ] {
        let (before, after) = call(number, arguments, 0);
        wrong += count_wrong(what, before, after);
        log::info!("probe: {what}: status {} value {}", after.general[0], after.general[3]);
    }
    log::info!("probe: {wrong} registers wrong");
    Some(if wrong == 0 { HELD } else { BROKEN })
}

/// Flags that a program may set do not disturb a call, and are there when it returns.
fn flags(_: Arguments<'_>) -> Option<u32> {
    let mut wrong = 0;
    let each = (0..22).map(|bit| 1 << bit).filter(|flag| SOFTWARE_FLAGS & flag != 0);
    for flags in each.chain([0, SOFTWARE_FLAGS]) {
        let (before, after) = call(Call::Version as u64, [0; 5], flags);
        wrong += count_wrong("version", before, after);
        if (after.general[0], after.general[3]) != (0, u64::from(abi::VERSION)) {
            wrong += 1;
            log::error!("probe: with flags {flags:#x}: status {}", after.general[0]);
        }
    }
    log::info!("probe: {wrong} wrong with flags");
    Some(if wrong == 0 { HELD } else { BROKEN })
}

/// `bad-call NUMBER`: a call that does not exist is refused.
fn bad_call(arguments: Arguments<'_>) -> Option<u32> {
    let number = number(arguments.next())?;
    log::info!("probe: call {number:#x}: {:?}", call_by_number(number, [0x20_0000; 5]));
    Some(HELD)
}

/// `bad-stack RSP`: the kernel does not use the caller's stack, so a call with a bad one is served; the return is what
/// faults, in ring 3.
fn bad_stack(arguments: Arguments<'_>) -> Option<u32> {
    let rsp = match arguments.next()? {
        "kernel" => DIRECT_MAP_VA + 0x1000,
        "non-canonical" => 0x8000_0000_0000,
        "null" => 0,
        _ => return None,
    };
    log::info!("probe: call with rsp {rsp:#x}");
    // SAFETY: there is no way back, which is what the case is about: ring 3 faults, and that ends it.
    unsafe {
        asm!("mov rsp, {rsp}", "jmp {gate}", rsp = in(reg) rsp, gate = in(reg) GATE_VA, in("rax") Call::Version as u64,
            options(noreturn));
    }
}

/// `call-fault OFFSET`: enters the gate page elsewhere than at its beginning.
fn call_fault(arguments: Arguments<'_>) -> Option<u32> {
    let offset = number(arguments.next())?;
    // Where nothing is mapped.
    const NOWHERE_VA: u64 = 0x6660_0000_0000;
    log::info!("probe: gate page + {offset:#x}, with {NOWHERE_VA:#x}");
    // SAFETY: the page holds the gate instruction, `ret` and zeros; zeros are an instruction that writes to [rax], and faults.
    unsafe {
        asm!("call {va}", va = in(reg) GATE_VA + offset, inlateout("rax") NOWHERE_VA => _, clobber_abi("sysv64"));
    }
    log::info!("probe: returned");
    Some(HELD)
}

/// Halts until a deadline and looks how late it woke, some times. The log says the least and the most.
fn halt_deadline(arguments: Arguments<'_>) -> Option<u32> {
    let ahead_us = number(arguments.next())?;
    let rounds = number(arguments.next())?;
    let scale = clock::Scale::new();
    let (mut least_us, mut most_us, mut early) = (u64::MAX, 0, 0);
    for _ in 0..rounds {
        let deadline = clock::tsc() + scale.ticks(ahead_us * 1000);
        // May return early, by its contract; it must return.
        loop {
            kernel::halt(deadline);
            if clock::tsc() >= deadline {
                break;
            }
            early += 1;
        }
        let late_us = scale.ns(clock::tsc() - deadline) / 1000;
        least_us = least_us.min(late_us);
        most_us = most_us.max(late_us);
    }
    log::info!("probe: woke {least_us} to {most_us} us late, {early} times early");
    Some(HELD)
}

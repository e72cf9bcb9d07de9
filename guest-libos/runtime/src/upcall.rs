//! The end of a slice: save everything, give the CPU to others, and go on as if nothing had been.

use abi::call::Call;
use abi::layout::{GATE_VA, UPCALL_VA};
use abi::upcall::UpcallPage;
use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

/// Room for the extended registers of any processor so far (SDM 13.5; tiles are the largest).
const AREA_BYTES: usize = 16 << 10;
/// The entry's own stack: it calls the gate, and nothing else.
const STACK_BYTES: usize = 512;

/// Memory that only the code below uses.
#[repr(C, align(64))]
struct Bytes<const N: usize>([u8; N]);

// SAFETY: never accessed through this name. XRSTOR wants the header's unused bytes zero, which they stay.
#[unsafe(no_mangle)]
static mut EXOS_EXTENDED_REGISTERS: Bytes<AREA_BYTES> = Bytes([0; AREA_BYTES]);
// SAFETY: as above.
#[unsafe(no_mangle)]
static mut EXOS_UPCALL_STACK: Bytes<STACK_BYTES> = Bytes([0; STACK_BYTES]);

unsafe extern "sysv64" {
    fn exos_slice_end();
}

global_asm!(
    ".globl exos_slice_end",
    "exos_slice_end:",
    "mov eax, -1",
    "mov edx, -1",
    "xsave64 [rip + EXOS_EXTENDED_REGISTERS]",
    "mov eax, {yield_}",
    "xor edi, edi",
    "movabs rcx, {gate}",
    "call rcx",
    "mov eax, -1",
    "mov edx, -1",
    "xrstor64 [rip + EXOS_EXTENDED_REGISTERS]",
    // The interrupted stack, below what its function may use without saying so, takes what is loaded last. From there the
    // next upcall may come: it finds a context like any other.
    "movabs rax, {page}",
    "mov rcx, [rax + {frame} + 24]", // rsp
    "sub rcx, {red_zone} + 24",
    "mov rdx, [rax + {registers}]", // rax
    "mov [rcx], rdx",
    "mov rdx, [rax + {frame} + 16]", // rflags
    "mov [rcx + 8], rdx",
    "mov rdx, [rax + {frame}]", // rip
    "mov [rcx + 16], rdx",
    "mov rsp, rcx",
    "mov rbx, [rax + {registers} + 8*1]",
    "mov rcx, [rax + {registers} + 8*2]",
    "mov rdx, [rax + {registers} + 8*3]",
    "mov rsi, [rax + {registers} + 8*4]",
    "mov rdi, [rax + {registers} + 8*5]",
    "mov rbp, [rax + {registers} + 8*6]",
    "mov r8, [rax + {registers} + 8*7]",
    "mov r9, [rax + {registers} + 8*8]",
    "mov r10, [rax + {registers} + 8*9]",
    "mov r11, [rax + {registers} + 8*10]",
    "mov r12, [rax + {registers} + 8*11]",
    "mov r13, [rax + {registers} + 8*12]",
    "mov r14, [rax + {registers} + 8*13]",
    "mov r15, [rax + {registers} + 8*14]",
    "mov qword ptr [rax + {busy}], 0",
    "pop rax",
    "popfq",
    "ret {red_zone}",
    yield_ = const Call::Yield as u64,
    gate = const GATE_VA,
    page = const UPCALL_VA,
    frame = const offset_of!(UpcallPage, frame),
    registers = const offset_of!(UpcallPage, registers),
    busy = const offset_of!(UpcallPage, busy),
    red_zone = const 128,
);

/// The environment's own page.
pub fn page() -> &'static UpcallPage {
    // SAFETY: mapped for the environment's whole life; the kernel writes it, so all fields are atomics.
    unsafe { &*(UPCALL_VA as *const UpcallPage) }
}

/// From now on the end of a slice is nothing that the program notices.
pub(crate) fn init() {
    let stack = (&raw const EXOS_UPCALL_STACK).wrapping_add(1);
    page().stack_va.store(stack as u64, Ordering::Relaxed);
    let entry: unsafe extern "sysv64" fn() = exos_slice_end;
    page().slice_end_va.store(entry as usize as u64, Ordering::Relaxed);
}

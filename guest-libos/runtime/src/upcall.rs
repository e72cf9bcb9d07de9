//! The end of a slice: save everything, give the CPU to others, and go on as if nothing had been. And faults, for a program that
//! pages for itself: save everything, let it see to it, and go on.

use abi::call::Call;
use abi::layout::{GATE_VA, UPCALL_VA};
use abi::upcall::UpcallPage;
use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Room for the extended registers of any processor so far (SDM 13.5; tiles are the largest).
const AREA_BYTES: usize = 16 << 10;
/// The entries' own stack. At the end of a slice it is the gate's alone; the handler of faults takes what a disk driver takes.
const STACK_BYTES: usize = 16 << 10;

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
    fn exos_fault();
}

global_asm!(
    ".globl exos_slice_end",
    "exos_slice_end:",
    "mov eax, -1",
    "mov edx, -1",
    "xsave64 [rip + EXOS_EXTENDED_REGISTERS]",
    "call {slice_is_over}",
    "mov eax, {yield_}",
    "xor edi, edi",
    "movabs rcx, {gate}",
    "call rcx",
    "call {slice_begins}",
    "exos_upcall_return:",
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

    ".globl exos_fault",
    "exos_fault:",
    "mov eax, -1",
    "mov edx, -1",
    "xsave64 [rip + EXOS_EXTENDED_REGISTERS]",
    "call {handle_fault}",
    "jmp exos_upcall_return",
    handle_fault = sym handle_fault,
    slice_is_over = sym slice_is_over,
    slice_begins = sym slice_begins,
    yield_ = const Call::Yield as u64,
    gate = const GATE_VA,
    page = const UPCALL_VA,
    frame = const offset_of!(UpcallPage, frame),
    registers = const offset_of!(UpcallPage, registers),
    busy = const offset_of!(UpcallPage, busy),
    red_zone = const 128,
);

/// A fault of the program.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Exception vector.
    pub vector: u64,
    /// Its error code, or 0.
    pub error_code: u64,
    /// For a page fault, the address.
    pub address: u64,
}

/// What becomes of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The instruction is run again.
    GoOn,
    /// It ends with the report of this fault.
    End,
}

/// Sees to a fault. It runs in between two instructions of the program, so it must not use what the program may be in the middle
/// of; and what it touches itself must be there: a fault in it ends the environment.
pub type FaultHandler = fn(&Fault) -> Verdict;

static HANDLER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// From now on faults are this function's.
pub fn on_fault(handler: FaultHandler) {
    HANDLER.store(handler as *mut (), Ordering::Relaxed);
    let entry: unsafe extern "sysv64" fn() = exos_fault;
    page().fault_va.store(entry as usize as u64, Ordering::Relaxed);
}

extern "sysv64" fn slice_is_over() {
    exos_trace::guest::ledger().slice_is_over();
}

/// Back on a vCPU: what passed belongs to nothing that the program does.
extern "sysv64" fn slice_begins() {
    let stopped_tsc = page().address.load(Ordering::Relaxed);
    let parts = exos_trace::parts!("end of a slice", "asleep", "waiting for a vCPU");
    exos_trace::guest::ledger().slice_begins(stopped_tsc, parts);
}

extern "sysv64" fn handle_fault() {
    let _span = exos_trace::span!("page fault");
    let page = page();
    let fault = Fault {
        vector: page.vector.load(Ordering::Relaxed),
        error_code: page.error_code.load(Ordering::Relaxed),
        address: page.address.load(Ordering::Relaxed),
    };
    // SAFETY: the entry is only known to the kernel once `on_fault` has stored a function of this type.
    let handler: FaultHandler = unsafe { core::mem::transmute(HANDLER.load(Ordering::Relaxed)) };
    if handler(&fault) == Verdict::End {
        // The same again, and the kernel reports it.
        page.fault_va.store(0, Ordering::Relaxed);
    }
}

/// The environment's own page.
pub fn page() -> &'static UpcallPage {
    // SAFETY: mapped for the environment's whole life; the kernel writes it, so all fields are atomics.
    unsafe { &*(UPCALL_VA as *const UpcallPage) }
}

/// From now on the end of a slice is nothing that the program notices.
pub fn init() {
    let stack = (&raw const EXOS_UPCALL_STACK).wrapping_add(1);
    page().stack_va.store(stack as u64, Ordering::Relaxed);
    let entry: unsafe extern "sysv64" fn() = exos_slice_end;
    page().slice_end_va.store(entry as usize as u64, Ordering::Relaxed);
}

//! How the processor enters and leaves ring 0: the stubs of interrupts and the gate, and the way into ring 3. (What leads there is
//! in [`super::header`].)
//!
//! Exceptions, interrupts and `int3` arrive on the stack of TSS.RSP0 with the five words of the interrupt frame pushed;
//! SYSCALL builds the same frame itself, so that both leave by `iretq`: one way out, and none of SYSRET's pitfalls with
//! non-canonical addresses.

use super::{vcpu, write_msr};
use abi::boot::VCPUS_MAX;
use abi::layout::{GATE_VA, TIMER_VECTOR, USER_CODE_SELECTOR, USER_DATA_SELECTOR};
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU8, Ordering};

pub(super) const STACK_BYTES: usize = 16 << 10;
const IA32_LSTAR: u32 = 0xC000_0082;

/// A stack. Its alignment is its size, so that masking `rsp` leads to its lowest bytes, which are the vCPU's own.
#[repr(C, align(16384))]
pub(super) struct Stack([u8; STACK_BYTES]);

/// One for each vCPU.
pub(super) type Stacks = [Stack; VCPUS_MAX];

// SAFETY: never accessed through this name; the processor uses the memory as a stack. `.bss`, so nothing to load.
#[unsafe(no_mangle)]
pub(super) static mut XOK_STACK: Stacks = [const { Stack([0; STACK_BYTES]) }; VCPUS_MAX];
// SAFETY: as above.
#[unsafe(no_mangle)]
pub(super) static mut XOK_FAULT_STACK: Stacks = [const { Stack([0; STACK_BYTES]) }; VCPUS_MAX];

/// Set by the timer's interrupt.
// SAFETY: the name is the kernel's own; the entry stubs below use it.
#[unsafe(no_mangle)]
static XOK_TIMER_FIRED: AtomicU8 = AtomicU8::new(0);
/// One environment has the vCPU to itself.
// SAFETY: as above.
#[unsafe(no_mangle)]
static XOK_ALONE: AtomicU8 = AtomicU8::new(0);

/// The environment that runs ended in a kernel call that was for something else: it does not go on.
// SAFETY: as above.
#[unsafe(no_mangle)]
static XOK_LEFT: AtomicU8 = AtomicU8::new(0);

unsafe extern "C" {
    fn xok_syscall();
    fn xok_halt_once();
    fn xok_enter_ring3(rip: u64, rsp: u64) -> !;
    fn xok_resume(root_gpa: u64) -> !;
    fn xok_idle(deadline_tsc: u64) -> !;
    fn xok_again() -> !;
}

unsafe extern "sysv64" {
    /// [`abi::call::Call::Halt`].
    pub(crate) safe fn xok_call_halt(
        deadline_tsc: u64,
        _: u64,
        _: u64,
        _: u64,
        _: u64,
        frame: &crate::schedule::GateFrame,
    ) -> crate::calls::Answer;
}

/// What the exception stubs push.
pub(crate) use abi::fault::TrapFrame;

global_asm!(
    ".globl xok_start",
    "xok_start:", // rdi: boot page; rsi: number of the vCPU; rsp: top of its stack in XOK_STACK, set by the VMM
    "xor ebp, ebp",
    "test esi, esi",
    "jnz 2f",
    "call {start}",
    "ud2",
    "2:",
    "mov edi, esi",
    "call {start_other}",
    "ud2",

    // Ring 3 starts with nothing in its registers but its stack pointer.
    "xok_enter_ring3:", // rdi: rip, rsi: rsp
    "and rsp, -{stack_bytes}",
    "add rsp, {stack_bytes}",
    "mov byte ptr [rip + XOK_LOCK], 0",
    "push {user_data}",
    "push rsi",
    "push 0x202",
    "push {user_code}",
    "push rdi",
    "xor ebx, ebx",
    "xor ebp, ebp",
    "xor r12d, r12d",
    "xor r13d, r13d",
    "xor r14d, r14d",
    "xor r15d, r15d",
    "xor edx, edx",
    "xor eax, eax",
    "jmp xok_return",

    // The gate by trap.
    // What lies in the upper half of the address space that the gate's has, are the fixed pages; of those ring 3 executes the gate's
    // and the resume page, and one INT3 is in them. So half of the address says enough, without a register: where it is a
    // debugger's, all of them count.
    "xok_gate_int3:",
    "cld",
    "cmp dword ptr [rsp + 4], {gate_va} >> 32",
    "jne xok_stray_int3",
    "xok_call:",
    "cmp rax, {calls}",
    "jae xok_no_such_call",
    "mov rcx, r10",
    "mov r9, rsp",
    // Without SSE nobody minds that the stack is not aligned as a C function expects.
    "call [XOK_CALLS + rax * 8]",
    "cmp byte ptr [rip + XOK_LEFT], 0",
    "jne xok_left",
    "xok_return:", // rax and rdx hold the answer, the frame is on top
    "xor ecx, ecx",
    "xor esi, esi",
    "xor edi, edi",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "xor r10d, r10d",
    "xor r11d, r11d",
    "iretq",

    "xok_stray_int3:",
    "push 0",
    "push 3",
    "jmp xok_exception",

    // The gate by SYSCALL: rcx holds the return address, r11 the flags..
    "xok_syscall:",
    "mov [rip + XOK_SYSCALL_RSP], rsp",
    "lea rsp, [rip + XOK_STACK + {stack_bytes}]",
    "push {user_data}",
    "push [rip + XOK_SYSCALL_RSP]",
    "push r11",
    "push {user_code}",
    "push rcx",
    "movabs r11, {gate_va} + 2",
    "cmp rcx, r11",
    "je xok_call",
    "push 0",
    "push {stray_syscall}",
    "jmp xok_exception",

    "xok_syscall_probe:",
    "lea rsp, [rip + XOK_STACK + {stack_bytes}]",
    "call {syscall_raised}",
    "ud2",

    "xok_no_such_call:",
    "mov eax, {no_such_call}",
    "xor edx, edx",
    "jmp xok_return",

    // What it took back was what it lives by.
    "xok_left:",
    "call {schedule}",
    "ud2",

    // Call::Halt, the one that is on a warm path: rdi is the deadline. Only for an environment alone.
    ".globl xok_call_halt",
    "xok_call_halt:",
    "cmp byte ptr [rip + XOK_ALONE], 0",
    "jne xok_halt_until",
    "mov eax, {not_permitted}",
    "xor edx, edx",
    "ret",

    "xok_halt_until:",
    "test rdi, rdi",
    "jz 2f",
    "mov eax, edi",
    "mov rdx, rdi",
    "shr rdx, 32",
    "mov ecx, {tsc_deadline}",
    "wrmsr",
    "2:",
    // An interrupt that came while ring 3 was on its way here has left its mark.
    "mov r11, rsp",
    "and r11, -{stack_bytes}",
    "cmp byte ptr [r11 + {wake_pending}], 0",
    "jne 3f",
    "call xok_halt",
    "3:",
    "mov byte ptr [r11 + {wake_pending}], 0",
    "xor eax, eax",
    "xor edx, edx",
    "test rdi, rdi",
    "jz 4f",
    "mov ecx, {tsc_deadline}",
    "wrmsr",
    "4:",
    "ret",

    // Nobody can run here: halts without the lock, and looks again. The stack is given up.
    "xok_idle:", // rdi: deadline
    "and rsp, -{stack_bytes}",
    "add rsp, {stack_bytes}",
    "mov byte ptr [rip + XOK_LOCK], 0",
    "call xok_halt_until",
    "call xok_lock",
    "jmp xok_left",

    // Something is left to do that is not urgent: others may have the lock first. The stack is given up.
    "xok_again:",
    "and rsp, -{stack_bytes}",
    "add rsp, {stack_bytes}",
    "mov byte ptr [rip + XOK_LOCK], 0",
    "mov ecx, 16",
    "2:",
    "pause",
    "dec ecx",
    "jnz 2b",
    "call xok_lock",
    "jmp xok_left",

    // Another environment gets the CPU. The resume page clears all registers, those of ring 0 among them.
    "xok_resume:", // rdi: root of the page tables
    "mov cr3, rdi",
    "and rsp, -{stack_bytes}",
    "add rsp, {stack_bytes}",
    "mov byte ptr [rip + XOK_LOCK], 0",
    "mov eax, {user_data}",
    "push rax",
    "push 0",
    "push 0x202",
    "push {user_code}",
    "movabs rax, {resume_va}",
    "push rax",
    "iretq",

    "xok_halt_once:",
    "mov byte ptr [rip + XOK_TIMER_FIRED], 0",
    // The only halt there is. Between the two instructions no interrupt should be taken (SDM: the shadow of STI); where the host
    // takes one all the same, its handler has the halt skipped, or nothing would end it.
    "xok_halt:",
    "sti",
    "xok_halt_now:",
    "hlt",
    "cli",
    "ret",

    "xok_timer:",
    "mov byte ptr [rip + XOK_TIMER_FIRED], 1",
    "test byte ptr [rsp + 8], 3",
    "jz xok_end_of_interrupt",
    // The slice of whoever runs in ring 3 is over. Comes back if it may go on.
    "push 0",
    "push {timer_vector}",
    "cld",
    "call xok_push_registers",
    "lea rbx, [rip + {slice_end}]",
    "xok_interrupted:", // rbx: what is called with the frame, and comes back if ring 3 may go on
    "mov ecx, 0x80B", // x2APIC EOI
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "xok_handle:",
    "mov rdi, rsp",
    "and rsp, -16",
    "push rdi",
    "push rdi",
    "call rbx",
    "pop rsp",
    "pop rax",
    "pop rbx",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "pop rbp",
    "pop r8",
    "pop r9",
    "pop r10",
    "pop r11",
    "pop r12",
    "pop r13",
    "pop r14",
    "pop r15",
    "add rsp, 16",
    "iretq",

    "xok_wake:",
    "push rax",
    "push rcx",
    "push rdx",
    "mov rax, rsp",
    "and rax, -{stack_bytes}",
    "mov byte ptr [rax + {wake_pending}], 1",
    "jmp xok_end_of_interrupt_pushed",
    "xok_end_of_interrupt:",
    "push rax",
    "push rcx",
    "push rdx",
    "xok_end_of_interrupt_pushed:",
    "lea rax, [rip + xok_halt_now]",
    "cmp [rsp + 24], rax",
    "jne 2f",
    "inc qword ptr [rsp + 24]", // HLT is one byte
    "2:",
    "mov ecx, 0x80B", // x2APIC EOI
    "xor eax, eax",
    "xor edx, edx",
    "wrmsr",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "iretq",

    // All other exceptions: vector and error code are on the stack. Comes back from those of a debugger.
    "xok_exception:",
    "cld",
    "call xok_push_registers",
    "lea rbx, [rip + {exception}]",
    "jmp xok_handle",

    // Pushes all, in the order of TrapFrame, under the return address.
    "xok_push_registers:",
    "xchg r15, [rsp]",
    "push r14",
    "push r13",
    "push r12",
    "push r11",
    "push r10",
    "push r9",
    "push r8",
    "push rbp",
    "push rdi",
    "push rsi",
    "push rdx",
    "push rcx",
    "push rbx",
    "push rax",
    "jmp r15",

    ".section .bss",
    "XOK_SYSCALL_RSP: .quad 0",
    ".text",
    start = sym crate::start,
    start_other = sym crate::start_other,
    wake_pending = const vcpu::WAKE_PENDING,
    calls = const abi::call::CALLS,
    no_such_call = const abi::call::Error::NoSuchCall as u64,
    not_permitted = const abi::call::Error::NotPermitted as u64,
    schedule = sym crate::schedule::schedule,
    exception = sym crate::fault::exception,
    slice_end = sym crate::schedule::slice_end,
    timer_vector = const TIMER_VECTOR as u64,
    syscall_raised = sym super::probe::syscall_raised,
    stack_bytes = const STACK_BYTES,
    user_data = const USER_DATA_SELECTOR as u64,
    user_code = const USER_CODE_SELECTOR as u64,
    gate_va = const GATE_VA,
    resume_va = const abi::layout::RESUME_VA,
    tsc_deadline = const 0x6E0,
    stray_syscall = const crate::fault::VECTOR_STRAY_SYSCALL,
);

/// Leaves for ring 3 and never comes back: the stack is given up.
pub(crate) fn enter_ring3(rip: u64, rsp: u64) -> ! {
    // SAFETY: the stub resets the stack and goes to ring 3; whatever the addresses are, ring 3 can only hurt itself.
    unsafe { xok_enter_ring3(rip, rsp) }
}

/// Gives the CPU to the environment with these page tables, through the resume page. The stack is given up.
pub(crate) fn resume(root_gpa: u64) -> ! {
    // SAFETY: the root is of a place that the VMM prepared: it maps the kernel as every other does.
    unsafe { xok_resume(root_gpa) }
}

/// Halts until a device signals or the TSC reaches the deadline (0: none), then chooses anew who runs. The stack is given up,
/// and the lock while it halts.
pub(crate) fn idle(deadline_tsc: u64) -> ! {
    // SAFETY: whoever calls it keeps nothing of the kernel's state on its stack.
    unsafe { xok_idle(deadline_tsc) }
}

/// Whether the environment that runs may halt the vCPU.
pub(crate) fn set_alone(alone: bool) {
    XOK_ALONE.store(u8::from(alone), Ordering::Relaxed);
}

/// Chooses anew who runs, and gives the lock back for a moment before. The stack is given up.
pub(crate) fn again() -> ! {
    // SAFETY: as for `idle`.
    unsafe { xok_again() }
}

/// Whether the environment that runs goes on after the call that it is in.
pub(crate) fn set_left(left: bool) {
    XOK_LEFT.store(u8::from(left), Ordering::Relaxed);
}

/// From now on SYSCALL is a kernel call, on the vCPU that executes this.
pub(crate) fn use_syscall_gate(several: bool) {
    let entry: unsafe extern "C" fn() = if several { vcpu::xok_syscall_several } else { xok_syscall };
    // SAFETY: the address of the stub for SYSCALL.
    unsafe { write_msr(IA32_LSTAR, entry as usize as u64) }
}

/// Halts with interrupts on, once.
pub(crate) fn halt_once() {
    // SAFETY: both interrupt handlers only set a flag and keep all registers.
    unsafe { asm!("call {}", sym xok_halt_once) }
}

/// Whether the timer fired since the last [`halt_once`] began.
pub(crate) fn timer_fired() -> bool {
    XOK_TIMER_FIRED.load(Ordering::Relaxed) != 0
}

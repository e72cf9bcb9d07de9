//! What each vCPU has for itself, the lock that all share, and messages from one to another.
//!
//! Whoever is in ring 0 has the kernel's state to itself. With one vCPU that is so by nature; with several it takes
//! `XOK_LOCK`, and gives it back on its way to ring 3, into a halt or a turn. The gate of a machine with one vCPU knows nothing
//! of that (see [`share`]): a kernel call is seven instructions shorter there.
//!
//! The words of a vCPU are the lowest of its stack, so that whoever runs on it finds them by masking `rsp`.

use super::apic;
use super::entry::{STACK_BYTES, XOK_FAULT_STACK, XOK_STACK};
use abi::call::{CALLS, Error};
use abi::layout::{GATE_VA, KICK_VECTOR, USER_CODE_SELECTOR, USER_DATA_SELECTOR};
use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// A vCPU's own words.
#[repr(C)]
pub(crate) struct Words {
    /// Its number.
    number: AtomicU32,
    /// Who runs on it.
    current: AtomicU32,
    /// For the entry of SYSCALL: ring 3's stack pointer, and the top of the vCPU's stack.
    user_rsp: AtomicU64,
    stack_top: AtomicU64,
    /// Set by an interrupt that ends a halt: the next one returns at once.
    pub(super) wake_pending: AtomicU8,
    /// Set by another vCPU: forget all translations of ring 3's addresses. Cleared when that is done.
    flush: AtomicU8,
    /// Set by another vCPU: who runs here may have ended, or is not alone any more.
    look: AtomicU8,
}

/// Where an interrupt that ends a halt leaves its mark, from the lowest address of the stack.
pub(super) const WAKE_PENDING: usize = offset_of!(Words, wake_pending);

/// The lock: 1 while somebody has it. One lock, because every path under it is some hundred instructions.
// SAFETY: the name is the kernel's own; the entry stubs use it.
#[unsafe(no_mangle)]
static XOK_LOCK: AtomicU32 = AtomicU32::new(0);

/// Set when the first vCPU has made everything ready for the others.
static READY: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    fn xok_lock();
    fn xok_gate_int3_several();
    pub(super) fn xok_syscall_several();
    pub(super) fn xok_kick();
}

/// The words of a vCPU.
fn words(number: usize) -> &'static Words {
    let stacks = (&raw const XOK_STACK).cast::<u8>();
    // SAFETY: each stack's lowest bytes are set aside for this, aligned as the stack is; all fields are atomics.
    unsafe { &*stacks.add(number % abi::boot::VCPUS_MAX * STACK_BYTES).cast::<Words>() }
}

/// The same of its stack for faults that end all, where only the number is right.
fn fault_words(number: usize) -> &'static Words {
    let stacks = (&raw const XOK_FAULT_STACK).cast::<u8>();
    // SAFETY: as above.
    unsafe { &*stacks.add(number % abi::boot::VCPUS_MAX * STACK_BYTES).cast::<Words>() }
}

/// Who runs on the vCPU that executes this, on whichever of its stacks.
pub(crate) fn current_on_any_stack() -> u32 {
    words(own().number.load(Ordering::Relaxed) as usize).current.load(Ordering::Relaxed)
}

/// The words of the vCPU that executes this.
fn own() -> &'static Words {
    let rsp: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    // SAFETY: `rsp` is inside the vCPU's stack, which begins with its words; all fields are atomics.
    unsafe { &*((rsp & !(STACK_BYTES - 1)) as *const Words) }
}

/// Fills the words of the vCPU that begins here, and those of its stack for faults that end all.
pub(crate) fn begin(number: u32) {
    fault_words(number as usize).number.store(number, Ordering::Relaxed);
    let own = own();
    own.number.store(number, Ordering::Relaxed);
    own.current.store(crate::vcpus::NOBODY, Ordering::Relaxed);
    own.stack_top.store(core::ptr::from_ref(own) as u64 + STACK_BYTES as u64, Ordering::Relaxed);
}

/// The others may begin.
pub(crate) fn release_others() {
    READY.store(true, Ordering::Release);
}

/// Waits for [`release_others`].
pub(crate) fn wait_for_first() {
    while !READY.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
}

/// The number of the vCPU that executes this, and who runs on it.
pub(crate) fn here() -> (u32, u32) {
    let own = own();
    (own.number.load(Ordering::Relaxed), own.current.load(Ordering::Relaxed))
}

/// Remembers who runs on the vCPU that executes this.
pub(crate) fn set_current(environment: u32) {
    own().current.store(environment, Ordering::Relaxed);
}

/// Takes the lock. While it waits, it does for others what they wait for under the lock.
pub(crate) fn lock() {
    // SAFETY: the stub keeps all registers but those that a C function may lose.
    unsafe { asm!("call {}", sym xok_lock, clobber_abi("C")) };
}

/// Gives the lock back.
pub(crate) fn unlock() {
    XOK_LOCK.store(0, Ordering::Release);
}

/// Sends an interrupt to another vCPU: ends its halt.
pub(crate) fn kick(number: u32) {
    apic::send(number, u32::from(KICK_VECTOR));
}

/// Has another vCPU look: whether who runs there has ended, or is not alone any more.
pub(crate) fn have_look(number: u32) {
    // Exchanged, not stored: the message must not overtake it.
    words(number as usize).look.swap(1, Ordering::SeqCst);
    kick(number);
}

/// Has another vCPU leave the environment that runs there, which has ended, and waits until nothing of that executes any more.
pub(crate) fn stop(number: u32) {
    words(number as usize).look.swap(1, Ordering::SeqCst);
    // When that is done it is in the kernel, and sees what `look` is for before it goes back.
    flush_other(number);
}

/// The vCPU that executes this was asked by [`have_look`], and does.
pub(crate) fn looks() {
    own().look.store(0, Ordering::Relaxed);
}

/// Has another vCPU, where an environment runs, forget all translations, and waits until it did. Under the lock: the other one
/// is in ring 3, where the interrupt comes at once, or waits for the lock and sees to it.
pub(crate) fn flush_other(number: u32) {
    let other = words(number as usize);
    other.flush.swap(1, Ordering::SeqCst);
    kick(number);
    while other.flush.load(Ordering::Acquire) != 0 {
        core::hint::spin_loop();
    }
}

/// From now on the gate takes the lock: there are several vCPUs. Before the others begin.
pub(crate) fn share() {
    #[repr(C, packed)]
    struct Descriptor {
        limit: u16,
        base: u64,
    }
    let mut descriptor = Descriptor { limit: 0, base: 0 };
    // SAFETY: stores ten bytes there.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut descriptor, options(nostack)) };
    const BREAKPOINT: u64 = 3;
    let gate = (descriptor.base + 16 * BREAKPOINT) as *mut u64;
    let entry: unsafe extern "C" fn() = xok_gate_int3_several;
    let entry = entry as usize as u64;
    // An interrupt gate (SDM 6.14.1): the offset is in bits 15:0 and 63:48 of the first word and 31:0 of the second.
    const KEPT: u64 = 0x0000_FFFF_FFFF_0000;
    // SAFETY: the VMM put the table there, in memory that the kernel may write, and nobody is in ring 3.
    unsafe {
        gate.write_volatile((gate.read_volatile() & KEPT) | (entry & 0xFFFF) | (entry >> 16 & 0xFFFF) << 48);
        gate.add(1).write_volatile(entry >> 32);
    }
}

global_asm!(
    // Takes the lock; rax, rcx, rdx, rsi, rdi, r8, r10 stay as they are.
    "xok_lock:",
    "lock bts dword ptr [rip + XOK_LOCK], 0",
    "jc 2f",
    "ret",
    // Somebody has it: meanwhile this vCPU does what that one may be waiting for.
    "2:",
    "pause",
    "mov r9, rsp",
    "and r9, -{stack_bytes}",
    "cmp byte ptr [r9 + {flush}], 0",
    "je 3f",
    "mov r11, cr3",
    "mov cr3, r11",
    "mov byte ptr [r9 + {flush}], 0",
    "3:",
    "cmp dword ptr [rip + XOK_LOCK], 0",
    "jne 2b",
    "jmp xok_lock",

    // The gate by trap, as in a machine with one vCPU but for the lock.
    "xok_gate_int3_several:",
    "cld",
    "cmp dword ptr [rsp + 4], {gate_va} >> 32",
    "jne xok_stray_int3",
    "xok_call_several:",
    "call xok_lock",
    "mov r9, rsp",
    "and r9, -{stack_bytes}",
    "mov ecx, [r9 + {number}]",
    "mov [rip + {kernel} + {kernel_vcpu}], ecx",
    "mov ecx, [r9 + {current}]",
    "mov [rip + {kernel} + {kernel_current}], ecx",
    // Another vCPU may have ended it a moment ago.
    "mov r11, [rip + {kernel} + {kernel_ending}]",
    "bt r11, rcx",
    "jc xok_left",
    "cmp rax, {calls}",
    "jae 4f",
    "mov rcx, r10",
    "mov r9, rsp",
    "call [XOK_CALLS + rax * 8]",
    "cmp byte ptr [rip + XOK_LEFT], 0",
    "jne xok_left",
    "mov byte ptr [rip + XOK_LOCK], 0",
    "jmp xok_return",
    "4:",
    "mov byte ptr [rip + XOK_LOCK], 0",
    "mov eax, {no_such_call}",
    "xor edx, edx",
    "jmp xok_return",

    // The gate by SYSCALL: rcx holds the return address, r11 the flags.
    "xok_syscall_several:",
    "swapgs",
    "mov gs:[{user_rsp}], rsp",
    "mov rsp, gs:[{stack_top}]",
    "push {user_data}",
    "push gs:[{user_rsp}]",
    "swapgs",
    "push r11",
    "push {user_code}",
    "push rcx",
    "movabs r11, {gate_va} + 2",
    "cmp rcx, r11",
    "je xok_call_several",
    "push 0",
    "push {stray_syscall}",
    "jmp xok_exception",

    // Another vCPU wants something.
    "xok_kick:",
    "push rax",
    "push rcx",
    "push rdx",
    "mov rax, rsp",
    "and rax, -{stack_bytes}",
    "mov byte ptr [rax + {wake_pending}], 1",
    "cmp byte ptr [rax + {flush}], 0",
    "je 2f",
    "mov rcx, cr3",
    "mov cr3, rcx",
    "mov byte ptr [rax + {flush}], 0",
    "2:",
    "cmp byte ptr [rax + {look}], 0",
    "je xok_end_of_interrupt_pushed",
    // In ring 0 it is on its way to look anyway.
    "test byte ptr [rsp + 32], 3",
    "jz xok_end_of_interrupt_pushed",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "push 0",
    "push {kick_vector}",
    "cld",
    "call xok_push_registers",
    "lea rbx, [rip + {kicked}]",
    "jmp xok_interrupted",
    stack_bytes = const STACK_BYTES,
    gate_va = const GATE_VA,
    calls = const CALLS,
    no_such_call = const Error::NoSuchCall as u64,
    user_data = const USER_DATA_SELECTOR as u64,
    user_code = const USER_CODE_SELECTOR as u64,
    stray_syscall = const crate::fault::VECTOR_STRAY_SYSCALL,
    kick_vector = const KICK_VECTOR as u64,
    number = const offset_of!(Words, number),
    current = const offset_of!(Words, current),
    user_rsp = const offset_of!(Words, user_rsp),
    stack_top = const offset_of!(Words, stack_top),
    wake_pending = const WAKE_PENDING,
    flush = const offset_of!(Words, flush),
    look = const offset_of!(Words, look),
    kernel = sym crate::kernel::KERNEL,
    kernel_vcpu = const offset_of!(crate::kernel::Kernel, vcpu),
    kernel_current = const offset_of!(crate::kernel::Kernel, current),
    kernel_ending = const offset_of!(crate::kernel::Kernel, ending),
    kicked = sym crate::schedule::kicked,
);

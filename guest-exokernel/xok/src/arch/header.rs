//! What the VMM reads of the kernel before its first instruction: where it begins, its stacks, and the interrupt descriptor table
//! with the exceptions' stubs.

use super::entry::{STACK_BYTES, Stack, XOK_FAULT_STACK, XOK_STACK};
use super::vcpu;
use abi::header::{KERNEL_MAGIC, KernelHeader, VECTORS, Vector};
use abi::layout::{KICK_VECTOR, TIMER_VECTOR, WAKE_VECTOR};
use core::arch::global_asm;

unsafe extern "C" {
    fn xok_start();
    fn xok_syscall_probe();
    fn xok_gate_int3();
    fn xok_timer();
    fn xok_wake();
}

/// Declares the stubs of the exceptions and the table of their addresses.
macro_rules! exceptions {
    ($($vector:literal $name:ident $error:literal $ist:literal;)*) => {
        $(global_asm!(
            concat!(".globl ", stringify!($name)),
            concat!(stringify!($name), ":"),
            concat!(".if ", $error, " == 0"),
            "push 0",
            ".endif",
            concat!("push ", $vector),
            "jmp xok_exception",
        );)*
        unsafe extern "C" { $(fn $name();)* }
        const EXCEPTIONS: &[(u8, u8, unsafe extern "C" fn())] = &[$(($vector, $ist, $name)),*];
    };
}

exceptions! {
    0 xok_divide_error 0 0;
    1 xok_debug 0 0;
    2 xok_nmi 0 1;
    4 xok_overflow 0 0;
    5 xok_bound_range 0 0;
    6 xok_invalid_opcode 0 0;
    7 xok_device_not_available 0 0;
    8 xok_double_fault 1 1;
    10 xok_invalid_tss 1 0;
    11 xok_segment_not_present 1 0;
    12 xok_stack_fault 1 0;
    13 xok_general_protection 1 0;
    14 xok_page_fault 1 0;
    16 xok_x87_error 0 0;
    17 xok_alignment_check 1 0;
    18 xok_machine_check 0 1;
    19 xok_simd_error 0 0;
    21 xok_control_protection 1 0;
}

/// A function's address in a static: the linker fills it in.
#[repr(transparent)]
struct Address(unsafe extern "C" fn());
/// An address behind a stack.
#[repr(transparent)]
struct Top(*const Stack);

/// [`Vector`] with an address that the linker fills in; same shape.
#[repr(C)]
struct Gate {
    handler: Option<Address>,
    vector: u8,
    dpl: u8,
    ist: u8,
    reserved: [u8; 5],
}

/// [`KernelHeader`] with addresses that the linker fills in; same shape.
#[repr(C)]
struct Header {
    magic: u64,
    abi_version: u32,
    reserved: u32,
    entry: Address,
    stack_top: Top,
    fault_stack_top: Top,
    stack_stride_bytes: u64,
    syscall: Address,
    vectors: [Gate; VECTORS],
}

// SAFETY: constants that only the VMM reads, from the file.
unsafe impl Sync for Header {}

const _: () =
    assert!(size_of::<Header>() == size_of::<KernelHeader>() && size_of::<Gate>() == size_of::<Vector>());

#[used]
// SAFETY: the section is read by the VMM from the file; nothing else lies in it.
#[unsafe(link_section = ".exovm.kernel")]
static HEADER: Header = Header {
    magic: KERNEL_MAGIC,
    abi_version: abi::VERSION,
    reserved: 0,
    entry: Address(xok_start),
    stack_top: Top((&raw const XOK_STACK).cast::<Stack>().wrapping_add(1)),
    fault_stack_top: Top((&raw const XOK_FAULT_STACK).cast::<Stack>().wrapping_add(1)),
    stack_stride_bytes: STACK_BYTES as u64,
    syscall: Address(xok_syscall_probe),
    vectors: vectors(),
};

const fn vectors() -> [Gate; VECTORS] {
    const NONE: Gate = Gate { handler: None, vector: 0, dpl: 0, ist: 0, reserved: [0; 5] };
    let mut table = [NONE; VECTORS];
    let mut i = 0;
    while i < EXCEPTIONS.len() {
        let (vector, ist, handler) = EXCEPTIONS[i];
        table[i] = Gate { handler: Some(Address(handler)), vector, dpl: 0, ist, reserved: [0; 5] };
        i += 1;
    }
    table[i] = Gate { handler: Some(Address(xok_gate_int3)), vector: 3, dpl: 3, ist: 0, reserved: [0; 5] };
    table[i + 1] =
        Gate { handler: Some(Address(xok_timer)), vector: TIMER_VECTOR, dpl: 0, ist: 0, reserved: [0; 5] };
    table[i + 2] =
        Gate { handler: Some(Address(xok_wake)), vector: WAKE_VECTOR, dpl: 0, ist: 0, reserved: [0; 5] };
    table[i + 3] = Gate {
        handler: Some(Address(vcpu::xok_kick)),
        vector: KICK_VECTOR,
        dpl: 0,
        ist: 0,
        reserved: [0; 5],
    };
    table
}

//! The instructions that ring 3 may not execute, each in a function of its own. This is the one place in an image that
//! holds such instructions: the test that disassembles the images allows them in functions called `probe_forbidden_…` and
//! nowhere else.

use core::arch::global_asm;

/// Declares functions and the table of their names.
macro_rules! forbidden {
    ($($name:literal $symbol:ident $($line:literal)+;)*) => {
        global_asm!(".section .text.probe_forbidden, \"ax\", @progbits");
        $(global_asm!(
            concat!(".globl ", stringify!($symbol)),
            concat!(".type ", stringify!($symbol), ", @function"),
            concat!(stringify!($symbol), ":"),
            $($line,)+
            "ret",
            concat!(".size ", stringify!($symbol), ", . - ", stringify!($symbol)),
        );)*
        global_asm!(".text");
        unsafe extern "sysv64" { $(fn $symbol();)* }
        /// Name of the case, and the function that executes the instruction and, should it be executed, returns.
        pub(crate) const INSTRUCTIONS: &[(&str, unsafe extern "sysv64" fn())] = &[$(($name, $symbol)),*];
    };
}

forbidden! {
    // Entering the kernel from elsewhere than the gate page.
    "stray-int3" probe_forbidden_int3 "int3";
    "stray-int3-long" probe_forbidden_int3_long ".byte 0xCD, 3";
    "stray-syscall" probe_forbidden_syscall "mov eax, 0" "syscall";
    // Playing the processor or a device: these gates are the kernel's.
    "int-divide" probe_forbidden_int_divide "int 0";
    "int-page-fault" probe_forbidden_int_page_fault "int 14";
    "int-timer" probe_forbidden_int_timer "int 0x61";
    "int-unused" probe_forbidden_int_unused "int 0x80";
    // Raising the privilege through a selector.
    "iret-ring0" probe_forbidden_iret_ring0
        "lea rax, [rip + 2f]" "mov rcx, rsp" "push 0x18" "push rcx" "push 2" "push 0x10" "push rax" "iretq" "2:";
    "far-return-ring0" probe_forbidden_far_return_ring0 "lea rax, [rip + 2f]" "push 0x10" "push rax" "retfq" "2:";
    "load-kernel-data" probe_forbidden_load_kernel_data "mov eax, 0x18" "mov ss, eax";
    "sysret" probe_forbidden_sysret "lea rcx, [rip + 2f]" "mov r11d, 2" "sysretq" "2:";
    "swapgs" probe_forbidden_swapgs "swapgs";
    // Ports.
    "port-in" probe_forbidden_port_in "mov dx, 0x71" "in al, dx";
    "port-out" probe_forbidden_port_out "mov dx, 0x80" "out dx, al";
    "port-out-string" probe_forbidden_port_out_string "mov dx, 0x80" "mov rsi, rsp" "outsb";
    // The processor's state.
    "hlt" probe_forbidden_hlt "hlt";
    "cli" probe_forbidden_cli "cli";
    "sti" probe_forbidden_sti "sti";
    "rdmsr" probe_forbidden_rdmsr "mov ecx, 0xC0000082" "rdmsr";
    "wrmsr" probe_forbidden_wrmsr "mov ecx, 0xC0000082" "xor eax, eax" "xor edx, edx" "wrmsr";
    "lgdt" probe_forbidden_lgdt "lgdt [rsp]";
    "lidt" probe_forbidden_lidt "lidt [rsp]";
    "ltr" probe_forbidden_ltr "mov ax, 0x40" "ltr ax";
    "lldt" probe_forbidden_lldt "xor eax, eax" "lldt ax";
    "mov-from-cr3" probe_forbidden_mov_from_cr3 "mov rax, cr3";
    "mov-cr0" probe_forbidden_mov_cr0 "mov eax, 0x80010033" "mov cr0, rax";
    "mov-cr3" probe_forbidden_mov_cr3 "xor eax, eax" "mov cr3, rax";
    "mov-cr4" probe_forbidden_mov_cr4 "mov eax, 0x620" "mov cr4, rax";
    "mov-dr7" probe_forbidden_mov_dr7 "xor eax, eax" "mov dr7, rax";
    "mov-dr0" probe_forbidden_mov_dr0 "mov rax, rsp" "mov dr0, rax";
    "mov-dr3" probe_forbidden_mov_dr3 "mov rax, rsp" "mov dr3, rax";
    "mov-dr6" probe_forbidden_mov_dr6 "xor eax, eax" "mov dr6, rax";
    "mov-from-dr0" probe_forbidden_mov_from_dr0 "mov rax, dr0";
    "mov-from-dr6" probe_forbidden_mov_from_dr6 "mov rax, dr6";
    "mov-from-dr7" probe_forbidden_mov_from_dr7 "mov rax, dr7";
    "xsetbv" probe_forbidden_xsetbv "xor ecx, ecx" "mov eax, 3" "xor edx, edx" "xsetbv";
    "clts" probe_forbidden_clts "clts";
    "invlpg" probe_forbidden_invlpg "invlpg [rsp]";
    "wbinvd" probe_forbidden_wbinvd "wbinvd";
    // Not privileged, and not survivable either.
    "divide" probe_forbidden_divide "xor ecx, ecx" "xor edx, edx" "mov eax, 1" "div ecx";
    "invalid-opcode" probe_forbidden_invalid_opcode "ud2";
    "single-step" probe_forbidden_single_step "pushfq" "or qword ptr [rsp], 0x100" "popfq" "nop" "nop";
}

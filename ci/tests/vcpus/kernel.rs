//! A kernel in assembly, in the place of xok: each vCPU writes down how it found itself and halts for good with interrupts off;
//! one of them, when all others have, does what the test wants.

use abi::boot::{BootPage, VCPUS_MAX, control};
use abi::fault::{FaultRecord, KIND_PANIC};
use abi::header::KernelHeader;
use abi::layout::{DIRECT_MAP_VA, PAGE_BYTES, WAKE_VECTOR};
use core::arch::global_asm;
use exovm::machine::boot::{CONTROL_GPA, TURN_GPA};
use exovm::machine::{End, Machine, MachineConfig};
use exovm_image::container::Image;
use exovm_image::program::{Access, Header, Segment};
use std::mem::offset_of;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// What the one vCPU does after the others halted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Act {
    /// Halts, too.
    Halt = 0,
    /// Switches the machine off with status 7.
    PowerOff = 1,
    /// Reports that it gives up: "by N", with its number.
    Fault = 2,
    /// An exception without a table of handlers.
    TripleFault = 3,
    /// Makes KVM emulate what it cannot, with 0xC0DE000N in `rax`.
    Unknown = 4,
    /// Writes the turn register, without a deadline, and then switches the machine off with status 9.
    Turn = 5,
    /// Faults with a stack that is not there, so that its double fault comes; the handler notes the stack that it is on and
    /// switches the machine off with status 8.
    DoubleFault = 6,
    /// Says first where pages are to be cleared, lets the next vCPU say something else, then has them cleared.
    Clean = 7,
    /// Notes that it waits, halts with interrupts on, and switches the machine off with status 6 when the wake-up vector comes.
    Wait = 8,
}

/// What a vCPU wrote down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) alive: bool,
    pub(crate) rsp: u64,
    pub(crate) rdi: u64,
    pub(crate) cr3: u64,
    pub(crate) task_register: u64,
    pub(crate) kernel_gs_base: u64,
    pub(crate) rflags: u64,
    pub(crate) x2apic_id: u64,
    pub(crate) cpuid_apic_id: u64,
    pub(crate) fault_rsp: u64,
    pub(crate) waits: bool,
}

/// Where the notes lie: memory of nobody's, for no environment runs.
const NOTES_GPA: u64 = 24 << 20;
/// Bytes of the notes of one vCPU.
const NOTE_BYTES: u64 = 128;
/// Two pages that [`Act::Clean`] is about: filled here, the first is to be cleared.
pub(crate) const CLEANED_GPA: u64 = 25 << 20;
/// Where actor and action lie in the code: behind its first jump.
const PARAMETERS: usize = 2;
const MEMORY_BYTES: u64 = 32 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

// Position independent, and never executed here.
global_asm!(
    ".pushsection .rodata.vcpus_kernel, \"a\"",
    ".globl vcpus_kernel_start",
    ".globl vcpus_kernel_end",
    "vcpus_kernel_start:",
    ".byte 0xEB, 8",
    "201: .long 0", // the vCPU that acts
    "202: .long 0", // what it does
    "movabs r8, {direct_map}",
    "mov r9d, esi",
    "shl r9d, 7",
    "add r9, {notes}",
    "add r9, r8",
    "mov [r9 + 8], rsp",
    "mov [r9 + 16], rdi",
    "mov rax, cr3",
    "mov [r9 + 24], rax",
    "xor eax, eax",
    "str ax",
    "mov [r9 + 32], rax",
    "mov ecx, 0xC0000102",
    "rdmsr",
    "mov [r9 + 40], eax",
    "mov [r9 + 44], edx",
    "pushfq",
    "pop rax",
    "mov [r9 + 48], rax",
    "mov ecx, 0x1B",
    "rdmsr",
    "or eax, 0xC00",
    "wrmsr",
    "mov ecx, 0x802",
    "rdmsr",
    "mov [r9 + 56], rax",
    "mov eax, 1",
    "xor ecx, ecx",
    "cpuid",
    "shr ebx, 24",
    "mov [r9 + 64], rbx",
    "mov dword ptr [r9], 1",
    "cmp esi, [rip + 201b]",
    "je 210f",
    // The second of two that say where pages are to be cleared.
    "mov eax, [rip + 201b]",
    "inc eax",
    "cmp esi, eax",
    "jne 209f",
    "cmp dword ptr [rip + 202b], {clean}",
    "jne 209f",
    "movabs r10, {control_va}",
    "203: pause",
    "cmp dword ptr [r8 + {notes} + 120], 1",
    "jne 203b",
    "mov dword ptr [r10 + {clean_start}], {cleaned_page} + 1",
    "mov dword ptr [r8 + {notes} + 120], 2",
    "209: cli",
    "hlt",
    "jmp 209b",
    // The one that acts waits for all others.
    "210: mov edx, [r8 + rdi + {vcpus}]",
    "211: pause",
    "xor ecx, ecx",
    "lea rbx, [r8 + {notes}]",
    "212: cmp dword ptr [rbx], 1",
    "jne 211b",
    "add rbx, {note_bytes}",
    "inc ecx",
    "cmp ecx, edx",
    "jb 212b",
    // And a little, so that they are at their halt.
    "mov ecx, 500",
    "213: pause",
    "dec ecx",
    "jnz 213b",
    "movabs r10, {control_va}",
    "mov eax, [rip + 202b]",
    "cmp eax, {halt}",
    "je 209b",
    "cmp eax, {power_off_act}",
    "je 220f",
    "cmp eax, {fault_act}",
    "je 221f",
    "cmp eax, {triple_fault}",
    "je 222f",
    "cmp eax, {unknown}",
    "je 223f",
    "cmp eax, {turn}",
    "je 224f",
    "cmp eax, {double_fault}",
    "je 225f",
    "cmp eax, {clean}",
    "je 227f",
    "cmp eax, {wait}",
    "je 229f",
    "jmp 209b",
    "220: mov dword ptr [r10 + {power_off}], 7",
    "jmp 209b",
    "221: mov eax, esi",
    "imul eax, eax, {record_bytes}",
    "mov rbx, [r8 + rdi + {fault_gpa}]",
    "add rbx, rax",
    "add rbx, r8",
    "mov dword ptr [rbx + {record_kind}], {panic}",
    "mov qword ptr [rbx + {record_len}], 4",
    "mov eax, esi",
    "shl eax, 24",
    "add eax, 0x30207962", // "by 0"
    "mov [rbx + {record_message}], eax",
    "mov dword ptr [r10 + {fault}], 1",
    "jmp 209b",
    "222: push 0",
    "push 0",
    "lidt [rsp]",
    "ud2",
    "223: mov eax, 0xC0DE0000",
    "add eax, esi",
    "pxor xmm0, [r10]",
    "jmp 209b",
    "224: movabs r11, {turn_va}",
    "mov qword ptr [r11], 0",
    "mov dword ptr [r10 + {power_off}], 9",
    "jmp 209b",
    "225: sub rsp, 16",
    "sidt [rsp]",
    "mov rbx, [rsp + 2]",
    "lea rax, [rip + 226f]",
    "mov [rbx + 16 * 8], ax",
    "shr rax, 16",
    "mov [rbx + 16 * 8 + 6], ax",
    "shr rax, 16",
    "mov [rbx + 16 * 8 + 8], eax",
    "mov esp, 0x100000",
    "push 0",
    "226: mov [r9 + 72], rsp",
    "mov dword ptr [r10 + {power_off}], 8",
    "jmp 209b",
    "227: mov qword ptr [r8 + {cleaned}], -1",
    "mov qword ptr [r8 + {cleaned} + {page_bytes}], -1",
    "mov dword ptr [r10 + {clean_start}], {cleaned_page}",
    "mov dword ptr [r8 + {notes} + 120], 1",
    "228: pause",
    "cmp dword ptr [r8 + {notes} + 120], 2",
    "jne 228b",
    "mov dword ptr [r10 + {clean_pages}], 1",
    "mov dword ptr [r10 + {power_off}], 7",
    "jmp 209b",
    "229: sub rsp, 16",
    "sidt [rsp]",
    "mov rbx, [rsp + 2]",
    "lea rax, [rip + 231f]",
    "mov [rbx + 16 * {wake_vector}], ax",
    "shr rax, 16",
    "mov [rbx + 16 * {wake_vector} + 6], ax",
    "shr rax, 16",
    "mov [rbx + 16 * {wake_vector} + 8], eax",
    "mov ecx, 0x80F", // its APIC takes interrupts
    "mov eax, 0x1FF",
    "xor edx, edx",
    "wrmsr",
    "mov dword ptr [r9 + 80], 1",
    "230: sti",
    "hlt",
    "jmp 230b",
    "231: mov dword ptr [r10 + {power_off}], 6",
    "jmp 209b",
    "vcpus_kernel_end:",
    ".popsection",
    direct_map = const DIRECT_MAP_VA,
    notes = const NOTES_GPA,
    note_bytes = const NOTE_BYTES,
    vcpus = const offset_of!(BootPage, vcpus),
    fault_gpa = const offset_of!(BootPage, fault_gpa),
    control_va = const DIRECT_MAP_VA + CONTROL_GPA,
    turn_va = const DIRECT_MAP_VA + TURN_GPA,
    power_off = const control::POWER_OFF,
    fault = const control::FAULT,
    clean_start = const control::CLEAN_START,
    clean_pages = const control::CLEAN_PAGES,
    cleaned = const CLEANED_GPA,
    page_bytes = const PAGE_BYTES,
    cleaned_page = const CLEANED_GPA / PAGE_BYTES,
    record_bytes = const size_of::<FaultRecord>(),
    record_kind = const offset_of!(FaultRecord, kind),
    record_len = const offset_of!(FaultRecord, message_len),
    record_message = const offset_of!(FaultRecord, message),
    panic = const KIND_PANIC,
    halt = const Act::Halt as u32,
    power_off_act = const Act::PowerOff as u32,
    fault_act = const Act::Fault as u32,
    triple_fault = const Act::TripleFault as u32,
    unknown = const Act::Unknown as u32,
    turn = const Act::Turn as u32,
    double_fault = const Act::DoubleFault as u32,
    clean = const Act::Clean as u32,
    wait = const Act::Wait as u32,
    wake_vector = const WAKE_VECTOR as u32,
);

/// The code, with its parameters.
fn code(actor: u32, act: Act) -> Vec<u8> {
    unsafe extern "C" {
        static vcpus_kernel_start: u8;
        static vcpus_kernel_end: u8;
    }
    let (start, end) = (&raw const vcpus_kernel_start, &raw const vcpus_kernel_end);
    // SAFETY: both labels lie in one constant section, with nothing but initialised bytes between them.
    let bytes = unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) };
    let mut code = bytes.to_vec();
    code[PARAMETERS..PARAMETERS + 4].copy_from_slice(&actor.to_le_bytes());
    code[PARAMETERS + 4..PARAMETERS + 8].copy_from_slice(&(act as u32).to_le_bytes());
    code
}

/// An image whose kernel enters at that code; xok's own is still there, and its header but for the entry.
fn image(actor: u32, act: Act) -> (Image, KernelHeader) {
    let mut image = exovm::images::load("hello").expect("built in");
    let kernel = &mut image.kernel;
    let last = kernel.segments.last().expect("a kernel has segments");
    let va = (last.va + last.len_bytes).next_multiple_of(PAGE_BYTES);
    let bytes = code(actor, act);
    kernel.segments.push(Segment { va, len_bytes: bytes.len() as u64, bytes, access: Access::Execute });
    let Header::Kernel(header) = &mut kernel.header else { panic!("the kernel is a kernel") };
    header.entry_va = va;
    let header = **header;
    (image, header)
}

/// Held by tests with machines of [`MANY_VCPUS`], so that the name of such a machine's last thread is that of one machine.
pub(crate) static MANY: Mutex<()> = Mutex::new(());
/// As many as there can be.
pub(crate) const MANY_VCPUS: u32 = VCPUS_MAX as u32;

/// A machine that runs this kernel.
pub(crate) struct Bare {
    pub(crate) machine: Machine,
    pub(crate) header: KernelHeader,
}

impl Bare {
    /// Starts it; `actor` does `act`.
    pub(crate) fn start(vcpus: u32, actor: u32, act: Act) -> Self {
        exovm_test::host::require();
        let (image, header) = image(actor, act);
        let machine = Machine::start(MachineConfig {
            memory_bytes: Some(MEMORY_BYTES),
            vcpus: Some(vcpus),
            ..MachineConfig::new(image)
        });
        Self { machine: machine.unwrap_or_else(|error| panic!("{error}")), header }
    }

    /// One that waits in a turn without a deadline: if anything ends that, it ends the machine with status 9.
    pub(crate) fn in_a_turn() -> Self {
        let bare = Self::start(1, 0, Act::Turn);
        let started = Instant::now();
        while bare.machine.placement().turns() == 0 {
            assert!(started.elapsed() < PATIENCE, "{:x?}", bare.found());
            std::thread::sleep(Duration::from_millis(1));
        }
        bare
    }

    /// How it ended, by itself.
    pub(crate) fn end(&self) -> End {
        self.machine.wait(Some(PATIENCE)).unwrap_or_else(|| panic!("still running: {:x?}", self.found()))
    }

    /// What its report says.
    pub(crate) fn report(&self) -> String {
        match self.end() {
            End::Fault { report } => report,
            end => panic!("no fault: {end:?}"),
        }
    }

    /// Waits until all vCPUs have written down what they found.
    pub(crate) fn wait_until_alive(&self) {
        let started = Instant::now();
        while !self.found().iter().all(|found| found.alive) {
            assert!(started.elapsed() < PATIENCE, "{:x?}", self.found());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What each of its vCPUs found so far.
    pub(crate) fn found(&self) -> Vec<Found> {
        let word = |vcpu: u32, offset: u64| -> u64 {
            let gpa = NOTES_GPA + u64::from(vcpu) * NOTE_BYTES + offset;
            self.machine.memory().read_obj(GuestAddress(gpa)).expect("memory")
        };
        let found = |vcpu| Found {
            alive: word(vcpu, 0) & 1 != 0,
            rsp: word(vcpu, 8),
            rdi: word(vcpu, 16),
            cr3: word(vcpu, 24),
            task_register: word(vcpu, 32),
            kernel_gs_base: word(vcpu, 40),
            rflags: word(vcpu, 48),
            x2apic_id: word(vcpu, 56),
            cpuid_apic_id: word(vcpu, 64),
            fault_rsp: word(vcpu, 72),
            waits: word(vcpu, 80) != 0,
        };
        (0..self.machine.vcpus()).map(found).collect()
    }
}

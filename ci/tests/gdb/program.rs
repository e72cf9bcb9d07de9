//! Programs of a few instructions that hello runs instead of its own, and what of them lies in memory.

use abi::call::Call;
use abi::layout::GATE_VA;
use exovm::machine::Machine;
use exovm_ci::{Guest, GuestBuilder};
use exovm_image::container::Image;
use exovm_image::program::Access;

/// Where code of [`GuestBuilder::execute`] lies.
pub(crate) fn code_va() -> u64 {
    let image = exovm::images::load("hello").expect("built in");
    image.program.symbols.iter().max_by_key(|symbol| symbol.len_bytes).expect("functions").va
}

/// Adds one to rbx for ever: the addition, and the jump back.
pub(crate) const COUNT: [u8; 5] = [0x48, 0xFF, 0xC3, 0xEB, 0xFB];

/// The same, and gives the CPU away each time: inc rbx; push rbx; mov eax, yield; xor edi, edi; mov rcx, gate; call rcx; pop rbx;
/// jmp back.
pub(crate) fn count_and_yield() -> Vec<u8> {
    let call = (Call::Yield as u32).to_le_bytes();
    let gate = GATE_VA.to_le_bytes();
    let code = [
        &[0x48, 0xFF, 0xC3, 0x53, 0xB8][..],
        &call,
        &[0x31, 0xFF, 0x48, 0xB9],
        &gate,
        &[0xFF, 0xD1, 0x5B, 0xEB],
    ];
    let code = code.concat();
    let back = (code.len() as u8 + 1).wrapping_neg();
    [code, vec![back]].concat()
}

/// A guest that executes `code` in each of its environments.
pub(crate) fn guest(code: &[u8]) -> GuestBuilder {
    Guest::image("hello").no_network().execute(code)
}

/// The address of the image's function whose name ends so.
pub(crate) fn function(image: &Image, name: &str) -> u64 {
    let symbols = image.program.symbols.iter().chain(&image.kernel.symbols);
    let found = symbols.into_iter().find(|symbol| format!("{:#}", demangled(&symbol.name)).ends_with(name));
    found.unwrap_or_else(|| panic!("no function {name}")).va
}

fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// All that can be executed in the memory of a machine, as far as environments or the kernel have it mapped: their pages, read
/// behind every debugger's back.
pub(crate) fn text(machine: &Machine, image: &Image) -> Vec<u8> {
    use vm_memory::{Bytes, GuestAddress};
    let memory = machine.memory();
    let pause = machine.pause().expect("it runs");
    let root = pause.ask(0, |fd| fd.get_sregs().expect("registers").cr3).expect("it runs");
    let mut text = Vec::new();
    for segment in image.program.segments.iter().chain(&image.kernel.segments) {
        if segment.access != Access::Execute {
            continue;
        }
        for va in (segment.va..segment.va + segment.len_bytes).step_by(4096) {
            let gpa = exovm::machine::boot::paging::translate(memory, root, va).expect("mapped");
            let at = text.len();
            text.resize(at + 4096, 0);
            memory.read_slice(&mut text[at..], GuestAddress(gpa)).expect("memory");
        }
    }
    text
}

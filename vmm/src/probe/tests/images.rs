//! All functions of the kernel and of every image that is built in.

use super::arena::write;
use crate::probe::assemble::{Wanted, jump, return_trampoline, trampoline};
use crate::probe::function::Text;
use crate::probe::layout::{CODE_BYTES, Region};
use crate::probe::names::{Ring, all, program};
use exovm_image::container::Image;
use exovm_image::program::Header;
use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind};
use std::collections::BTreeMap;

/// What an instruction does, wherever it is: its targets are addresses, and short and long forms are the same.
fn meaning(instruction: &Instruction) -> String {
    let is_branch =
        matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    let mut same = *instruction;
    if is_branch {
        return format!("{:?} {:#x}", instruction.mnemonic(), instruction.near_branch_target());
    }
    same.set_ip(0);
    same.set_next_ip(0);
    if instruction.is_ip_rel_memory_operand() {
        return format!("{:?} {same} at {:#x}", instruction.code(), instruction.ip_rel_memory_address());
    }
    format!("{:?} {same}", instruction.code())
}

/// Each is patched into something that decodes to the same instructions, or refused with a reason.
fn check(name: &str, image: &Image, ring: Ring, region: &Region) {
    let program = program(image, ring);
    let text = Text::new(program);
    let functions: Vec<_> = all(image)
        .filter(|named| named.function.ring == ring && !(ring == Ring::Kernel && named.is_label))
        .collect();
    let mut refused: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut possible = 0;
    for named in &functions {
        let symbol = &named.symbol;
        let function = match text.patchable(symbol) {
            Ok(function) => function,
            Err(error) => {
                let kind = format!("{error:?}").split(' ').next().unwrap_or_default().to_owned();
                refused
                    .entry(kind)
                    .or_default()
                    .push(format!("{:#}", rustc_demangle::demangle(&symbol.name)));
                continue;
            }
        };
        possible += 1;
        for wanted in [false, true].map(|all| Wanted { returns: all, arguments: all }) {
            let va = region.code_va + CODE_BYTES / 2;
            let made = trampoline(region, &function, 0, wanted, va).expect(&symbol.name);
            assert!(made.bytes.len() <= 512, "{}: {} bytes", symbol.name, made.bytes.len());
            let start = made.moved.first().expect("at least one").1;
            let code = &made.bytes[(start - va) as usize..];
            let decoded: Vec<Instruction> =
                Decoder::with_ip(64, code, start, DecoderOptions::NONE).into_iter().collect();
            let expected: Vec<String> = function.moved.iter().map(meaning).collect();
            let found: Vec<String> = decoded.iter().take(expected.len()).map(meaning).collect();
            assert_eq!(found, expected, "{}", symbol.name);
            for ((from, to), (old, new)) in made.moved.iter().zip(function.moved.iter().zip(&decoded)) {
                assert_eq!((*from, *to), (old.ip(), new.ip()), "{}", symbol.name);
            }
            let rest: Vec<_> = decoded[expected.len()..].iter().map(meaning).collect();
            let back = format!("Jmp {:#x}", function.back_va());
            assert_eq!(rest, if function.ends { vec![] } else { vec![back] }, "{}", symbol.name);
            assert!(jump(function.va, va).is_some());
        }
    }
    println!("{name}: {possible} of {} functions can be probed", functions.len());
    for (reason, names) in &refused {
        println!("  {reason}: {}", names.join(", "));
    }
    assert!(possible * 100 >= functions.len() * 97, "{name}: {possible} of {}", functions.len());
}

#[test]
fn every_function_is_moved_as_it_is_or_refused() {
    for name in crate::images::names() {
        let image = crate::images::load(name).expect("built in");
        check(name, &image, Ring::Image, &Region::user());
    }
    let image = crate::images::load("hello").expect("built in");
    let Header::Kernel(header) = &image.kernel.header else { panic!("not a kernel") };
    check("kernel", &image, Ring::Kernel, &Region::kernel(header));
}

/// Real functions of an image, at their addresses, in this process: what they return is the same and all calls are counted.
#[test]
fn functions_of_an_image_do_what_they_did() {
    let image = crate::images::load("cheetah").expect("built in");
    let program = &image.program;
    let region = Region::user();
    let end = program.segments.iter().map(|segment| segment.va + segment.len_bytes).max().unwrap_or(0);
    let first = program.segments[0].va;
    for (va, bytes) in [(first, end - first), (region.code_va, CODE_BYTES + region.data_bytes())] {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: an address that nothing of this process uses, or the call fails.
        let at = unsafe { libc::mmap(va as *mut libc::c_void, bytes as usize, rights, flags, -1, 0) };
        assert_eq!(at as u64, va, "{}", std::io::Error::last_os_error());
    }
    for segment in &program.segments {
        write(segment.va, &segment.bytes);
    }
    let returns = return_trampoline(&region).expect("assembles");
    write(region.code_va, &returns);
    let text = Text::new(program);
    let mut next = region.code_va + returns.len() as u64;
    let names = ["memcpy", "memset", "memmove"];
    let mut functions = Vec::new();
    for (slot, name) in names.into_iter().enumerate() {
        let symbol = all(&image).find(|named| named.function.name == name).expect(name).symbol;
        let function = text.patchable(&symbol).expect(name);
        let wanted = Wanted { returns: true, arguments: true };
        let made = trampoline(&region, &function, slot, wanted, next.next_multiple_of(16)).expect(name);
        next = made.va + made.bytes.len() as u64;
        write(made.va, &made.bytes);
        write(function.va, &jump(function.va, made.va).expect("near"));
        functions.push(symbol.va);
    }
    let [memcpy, memset, memmove] = functions[..] else { panic!("three") };
    let three = |va: u64, a: u64, b: u64, c: u64| {
        // SAFETY: all of them take three words and return one.
        let function: extern "sysv64" fn(u64, u64, u64) -> u64 = unsafe { std::mem::transmute(va as usize) };
        function(a, b, c)
    };
    for length in 0..300usize {
        let from: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
        let mut to = vec![0xAA_u8; length + 1];
        let at = to.as_mut_ptr() as u64;
        assert_eq!(three(memcpy, at, from.as_ptr() as u64, length as u64), at);
        assert_eq!((&to[..length], to[length]), (&from[..], 0xAA));
        if length > 0 {
            three(memmove, at, at + 1, length as u64 - 1);
            three(memset, at, 7, length as u64);
            assert!(to[..length].iter().all(|&byte| byte == 7) && to[length] == 0xAA);
        }
    }
    let count = |slot: usize| super::arena::word(region.slot_va(slot));
    // memmove goes on in memcpy where it can.
    assert!(count(0) >= 300, "{}", count(0));
    assert_eq!([count(1), count(2)], [299, 299]);
}

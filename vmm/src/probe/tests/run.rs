//! What a function does through a patched entry is what it does without, and it is counted.

use super::arena::{Arena, call, set_word, word, write};
use crate::probe::assemble::Wanted;
use crate::probe::function::Refused;
use crate::probe::layout::{Stacks, slot};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

const COUNTED: Wanted = Wanted { returns: false, arguments: false };
const RETURNS: Wanted = Wanted { returns: true, arguments: false };
const ARGUMENTS: Wanted = Wanted { returns: false, arguments: true };
const ALL: Wanted = Wanted { returns: true, arguments: true };
const EVERY: [Wanted; 4] = [COUNTED, RETURNS, ARGUMENTS, ALL];

/// As compilers begin: push rbp; mov rbp, rsp.
fn framed(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.push(rbp)?;
    a.mov(rbp, rsp)
}

fn add(a: &mut CodeAssembler, _: u64) -> Result<(), IcedError> {
    framed(a)?;
    a.lea(rax, qword_ptr(rdi + rsi))?;
    a.pop(rbp)?;
    a.ret()
}

/// Fibonacci numbers, by calling itself through its entry.
fn fibonacci(a: &mut CodeAssembler, own_va: u64) -> Result<(), IcedError> {
    let mut small = a.create_label();
    framed(a)?;
    a.push(rbx)?;
    a.push(rdi)?;
    a.mov(rax, rdi)?;
    a.cmp(rdi, 2)?;
    a.jb(small)?;
    a.dec(rdi)?;
    a.call(own_va)?;
    a.mov(rbx, rax)?;
    a.mov(rdi, qword_ptr(rsp))?;
    a.sub(rdi, 2)?;
    a.call(own_va)?;
    a.add(rax, rbx)?;
    a.set_label(&mut small)?;
    a.pop(rdi)?;
    a.pop(rbx)?;
    a.pop(rbp)?;
    a.ret()
}

#[test]
fn call_is_counted_and_does_what_it_did() {
    for (slot, wanted) in EVERY.into_iter().enumerate() {
        let mut arena = Arena::user();
        let function = arena.add(add);
        arena.probe(function, slot, wanted);
        for number in 0..1000 {
            assert_eq!(call(function, number, 5), number + 5);
        }
        assert_eq!(arena.count(slot), 1000);
        assert_eq!(arena.returns(slot), if wanted.returns { 1000 } else { 0 });
        assert_eq!(arena.number(slot, slot::CALLS), if wanted.arguments { 1000 } else { 0 });
        assert_eq!((arena.depth(), arena.number(slot, slot::MISSED)), (0, 0));
        arena.restore();
        assert_eq!((call(function, 1, 2), arena.count(slot)), (3, 1000), "not counted any more");
    }
}

#[test]
fn recursion_is_measured_at_every_depth() {
    let mut arena = Arena::user();
    let function = arena.add(fibonacci);
    arena.probe(function, 0, ALL);
    assert_eq!(call(function, 15, 0), 610);
    assert_eq!((arena.count(0), arena.returns(0), arena.depth()), (1973, 1973, 0));
}

/// Calls itself as often as it is told, and then a function of the host's.
fn deep(a: &mut CodeAssembler, own_va: u64) -> Result<(), IcedError> {
    let mut end = a.create_label();
    framed(a)?;
    a.test(rdi, rdi)?;
    a.jz(end)?;
    a.dec(rdi)?;
    a.call(own_va)?;
    a.inc(rax)?;
    a.pop(rbp)?;
    a.ret()?;
    a.set_label(&mut end)?;
    a.xor(eax, eax)?;
    a.pop(rbp)?;
    a.ret()
}

#[test]
fn full_shadow_stack_is_missed_calls_and_nothing_else() {
    let mut arena = Arena::user();
    let function = arena.add(deep);
    arena.probe(function, 1, RETURNS);
    let entries = arena.region.shadow_entries();
    for _ in 0..3 {
        assert_eq!(call(function, 999, 0), 999);
        assert_eq!(arena.depth(), 0);
    }
    assert_eq!((arena.count(1), arena.returns(1)), (3000, 3 * entries));
    assert_eq!(arena.number(1, slot::MISSED), 3 * (1000 - entries));
}

#[test]
fn latency_is_what_the_function_takes() {
    let mut arena = Arena::user();
    // Waits until the TSC has gone on by what it is told.
    let function = arena.add(|a, _| {
        let mut again = a.create_label();
        framed(a)?;
        a.rdtsc()?;
        a.shl(rdx, 32u32)?;
        a.lea(rcx, qword_ptr(rax + rdx))?;
        a.add(rcx, rdi)?;
        a.set_label(&mut again)?;
        a.rdtsc()?;
        a.shl(rdx, 32u32)?;
        a.or(rax, rdx)?;
        a.cmp(rax, rcx)?;
        a.jb(again)?;
        a.pop(rbp)?;
        a.ret()
    });
    arena.probe(function, 0, RETURNS);
    const CYCLES: u64 = 200_000;
    for _ in 0..50 {
        call(function, CYCLES, 0);
    }
    let region = arena.region;
    let counts: [u64; 192] =
        std::array::from_fn(|bucket| word(region.slot_va(0) + slot::HISTOGRAM + 8 * bucket as u64));
    let buckets = crate::probe::histogram::buckets(&counts);
    assert!(buckets[0].least >= CYCLES * 3 / 4, "{buckets:?}");
    let median = crate::probe::percentile(&buckets, 0.5).expect("measured");
    assert!((CYCLES..2 * CYCLES).contains(&median), "{buckets:?}");
    assert!(arena.number(0, slot::CYCLES) >= 50 * CYCLES);
}

#[test]
fn floats_come_and_go() {
    let mut arena = Arena::user();
    let va = arena.add(|a, _| {
        a.addsd(xmm0, xmm1)?;
        a.mulsd(xmm0, xmm0)?;
        a.ret()
    });
    // SAFETY: the function above takes two numbers and returns one.
    let function: extern "sysv64" fn(f64, f64) -> f64 = unsafe { std::mem::transmute(va as usize) };
    arena.probe(va, 0, ALL);
    for number in 0..100 {
        let number = f64::from(number);
        assert_eq!(function(number, 0.5), (number + 0.5) * (number + 0.5));
    }
    assert_eq!((arena.count(0), arena.returns(0)), (100, 100));
}

#[test]
fn arguments_of_the_last_calls_are_kept() {
    let mut arena = Arena::user();
    let va = arena.add(add);
    // SAFETY: the function uses the first two of six words and returns one.
    let function: extern "sysv64" fn(u64, u64, u64, u64, u64, u64) -> u64 =
        unsafe { std::mem::transmute(va as usize) };
    arena.probe(va, 3, ALL);
    for n in 0..100u64 {
        assert_eq!(function(n, 2 * n, 3 * n, 4 * n, 5 * n, !n), 3 * n);
    }
    let ring = arena.region.slot_va(3) + slot::RING;
    for place in 0..slot::RING_CALLS {
        let at = |index: u64| word(ring + place * slot::CALL_BYTES + 8 * index);
        let number = at(0);
        assert!((85..=100).contains(&number) && (number - 1) % 16 == place, "{number} at {place}");
        let n = number - 1;
        let registers: [u64; 6] = std::array::from_fn(|index| at(1 + index as u64));
        assert_eq!(registers, [n, 2 * n, 3 * n, 4 * n, 5 * n, !n]);
    }
}

/// A function that writes down every register and the flags as it finds them, changes all that it may, and returns.
fn witness(a: &mut CodeAssembler, seen_va: u64) -> Result<(), IcedError> {
    let all = [rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15];
    for (index, register) in all.into_iter().enumerate() {
        a.mov(qword_ptr(seen_va + 8 * index as u64), register)?;
    }
    a.pushfq()?;
    a.pop(rax)?;
    a.mov(qword_ptr(seen_va + 8 * 15), rax)?;
    a.mov(rax, 0x1111_2222_3333_4444u64)?;
    a.mov(rdx, 0x5555_6666_7777_8888u64)?;
    a.mov(rcx, 0x99u64)?;
    a.mov(r8, 0x88u64)?;
    a.mov(r11, 0x77u64)?;
    // Carry, overflow and sign.
    a.push(0x897)?;
    a.popfq()?;
    a.ret()
}

/// Calls a function with something in every register and these flags, and writes down what it comes back with.
fn caller(a: &mut CodeAssembler, function: u64, flags: u32, seen_va: u64) -> Result<(), IcedError> {
    let kept = [rbx, rbp, r12, r13, r14, r15];
    for register in kept {
        a.push(register)?;
    }
    let all = [rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rax];
    for (index, register) in all.into_iter().enumerate() {
        a.mov(register, 0x0101_0101_0101_0101u64 * (index as u64 + 3))?;
    }
    a.push(flags as i32)?;
    a.popfq()?;
    a.call(function)?;
    for (index, register) in all.into_iter().enumerate() {
        a.mov(qword_ptr(seen_va + 8 * index as u64), register)?;
    }
    a.pushfq()?;
    a.pop(rax)?;
    a.mov(qword_ptr(seen_va + 8 * 15), rax)?;
    a.cld()?;
    for register in kept.into_iter().rev() {
        a.pop(register)?;
    }
    a.ret()
}

#[test]
fn every_register_and_flag_is_kept_on_the_way_in_and_out() {
    // Nothing; carry; parity; adjust; zero; sign; direction; overflow; all of them.
    const FLAGS: [u32; 9] = [0x202, 0x203, 0x206, 0x212, 0x242, 0x282, 0x602, 0xA02, 0xED7];
    // In both forms of the code.
    for stacks in [Stacks::One { block: 0, shift: 18 }, own_stack()] {
        for wanted in EVERY {
            let mut arena = Arena::new(stacks);
            let data = arena.text_va + (2 << 20);
            let function = arena.add(|a, _| witness(a, data));
            let callers: Vec<u64> = FLAGS
                .iter()
                .map(|&flags| arena.add(|a, _| caller(a, function, flags, data + 0x100)))
                .collect();
            let run = |va: u64| {
                call(va, 0, 0);
                std::array::from_fn::<u64, 48, _>(|index| word(data + 8 * index as u64))
            };
            let without: Vec<_> = callers.iter().map(|&va| run(va)).collect();
            for (flags, seen) in FLAGS.iter().zip(&without) {
                assert_eq!(seen[15], u64::from(*flags), "the caller sets them");
            }
            write(data, &[0; 0x200]);
            arena.probe(function, 2, wanted);
            let with: Vec<_> = callers.iter().map(|&va| run(va)).collect();
            assert_eq!(with, without, "{stacks:?} {wanted:?}");
            assert_eq!(arena.count(2), FLAGS.len() as u64);
            assert_eq!(arena.returns(2), if wanted.returns { FLAGS.len() as u64 } else { 0 });
            assert_eq!(arena.number(2, slot::MISSED), 0);
        }
    }
}

/// This thread's stack as vCPU 0's, as ring 0 has it. Its shadow stack lies at the beginning of the data.
fn own_stack() -> Stacks {
    let here = 0u64;
    let here = &raw const here as u64;
    // Addresses of ring 0 fit into 32 bits with a sign, those of this process do not: its stack is beyond every vCPU's, unless
    // a block is so large that all of them are in the first.
    assert!(here < 1 << 47);
    Stacks::EachVcpu { lowest_va: 0, shift: 47 }
}

#[test]
fn ring_0_counts_on_all_vcpus_at_once() {
    let mut arena = Arena::new(own_stack());
    let function = arena.add(add);
    arena.probe(function, 0, COUNTED);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100_000).for_each(|number| assert_eq!(call(function, number, 1), number + 1)));
        }
    });
    assert_eq!(arena.count(0), 400_000);
}

#[test]
fn first_instructions_that_refer_to_where_they_are_are_moved() {
    let mut arena = Arena::user();
    let data = arena.text_va + (2 << 20);
    set_word(data, 7);
    // A load relative to RIP.
    let load = arena.add(|a, va| {
        let mut here = a.create_label();
        let _ = va;
        a.mov(rax, qword_ptr(here))?;
        a.add(rax, rdi)?;
        a.ret()?;
        a.nop()?;
        a.set_label(&mut here)?;
        a.dq(&[35])
    });
    // A short jump forward, and a call as the first instruction.
    let jumps = arena.add(|a, _| {
        let mut other = a.create_label();
        a.test(rdi, rdi)?;
        a.jz(other)?;
        a.mov(eax, 1)?;
        a.ret()?;
        a.set_label(&mut other)?;
        a.mov(eax, 2)?;
        a.ret()
    });
    let calls = arena.add(|a, _| {
        a.call(jumps)?;
        a.add(eax, 10)?;
        a.ret()
    });
    let goes_on = arena.add(|a, _| a.jmp(jumps));
    let probed = [load, jumps, calls, goes_on];
    for (slot, va) in probed.into_iter().enumerate() {
        arena.probe(va, slot, ALL);
    }
    for _ in 0..10 {
        assert_eq!((call(load, 1, 0), call(load, 2, 0)), (36, 37));
        assert_eq!((call(jumps, 0, 0), call(jumps, 1, 0)), (2, 1));
        assert_eq!((call(calls, 0, 0), call(calls, 1, 0)), (12, 11));
        assert_eq!((call(goes_on, 0, 0), call(goes_on, 1, 0)), (2, 1));
    }
    for (slot, calls) in [20, 60, 20, 20].into_iter().enumerate() {
        assert_eq!((arena.count(slot), arena.returns(slot)), (calls, calls), "{slot}");
    }
    assert_eq!(arena.depth(), 0);
}

#[test]
fn function_that_cannot_be_patched_is_refused() {
    let mut arena = Arena::user();
    // Four bytes, and the next one follows at once.
    let loop_at_4 = arena.add(|a, _| {
        let mut again = a.create_label();
        a.push(rbp)?;
        a.mov(rbp, rsp)?;
        a.set_label(&mut again)?;
        a.dec(rdi)?;
        a.jnz(again)?;
        a.pop(rbp)?;
        a.ret()
    });
    let undefined = arena.add(|a, _| {
        a.nop()?;
        a.db(&[0x06, 0x06, 0x06, 0x06, 0x06])
    });
    let stray = arena.add(|a, _| {
        a.nop()?;
        a.syscall()?;
        a.ret()?;
        a.ret()
    });
    let short = arena.add(|a, _| {
        a.mov(eax, edi)?;
        a.ret()
    });
    assert_eq!(
        arena.patchable(loop_at_4),
        Err(Refused::JumpedInto { from: loop_at_4 + 7, to: loop_at_4 + 4 })
    );
    assert_eq!(arena.patchable(undefined), Err(Refused::NotDecodable { va: undefined + 1 }));
    assert_eq!(arena.patchable(stray), Err(Refused::NotMovable { va: stray + 1 }));
    assert!(arena.patchable(short).is_ok(), "behind it is padding");
    let next = arena.program.symbols.last().expect("added").clone();
    arena.program.symbols.push(exovm_image::program::Symbol { va: next.va + 3, len_bytes: 1, ..next });
    assert_eq!(arena.patchable(short), Err(Refused::TooShort));
    // A jump from elsewhere, and a table of jumps.
    let function = arena.add(add);
    assert!(arena.patchable(function).is_ok());
    let from = arena.add(|a, _| {
        a.nop()?;
        a.jmp(function + 1)
    });
    assert_eq!(arena.patchable(function), Err(Refused::JumpedInto { from: from + 1, to: function + 1 }));
}

#[test]
fn function_that_a_table_leads_into_is_refused() {
    let mut arena = Arena::user();
    let function = arena.add(add);
    let table = exovm_image::program::Segment {
        va: arena.text_va + (1 << 20),
        len_bytes: 16,
        bytes: [function, function + 4].iter().flat_map(|va| va.to_le_bytes()).collect(),
        access: exovm_image::program::Access::Read,
    };
    let from = table.va + 8;
    arena.program.segments.push(table);
    assert_eq!(arena.patchable(function), Err(Refused::JumpedInto { from, to: function + 4 }));
    // Distances from the table itself, in a function that jumps by one of them.
    let mut arena = Arena::user();
    let table = arena.text_va + (1 << 20);
    let function = arena.add(|a, _| {
        framed(a)?;
        a.lea(rax, qword_ptr(table))?;
        a.movsxd(rcx, dword_ptr(rax + rdi * 4))?;
        a.add(rax, rcx)?;
        a.jmp(rax)
    });
    let distances = [function + 9, function + 4].map(|va| (va.wrapping_sub(table) as i32).to_le_bytes());
    let bytes = distances.concat();
    let segment = exovm_image::program::Segment {
        va: table,
        len_bytes: 8,
        bytes,
        access: exovm_image::program::Access::Read,
    };
    arena.program.segments.push(segment);
    assert_eq!(arena.patchable(function), Err(Refused::JumpedInto { from: table, to: function + 4 }));
}

//! Calls that never return, returns in another order, and probes that go while their functions are on the stack.

use super::arena::{Arena, call, set_word, word};
use crate::probe::assemble::Wanted;
use crate::probe::layout::{SHADOWS, Stacks, shadow, slot};
use iced_x86::code_asm::*;

const RETURNS: Wanted = Wanted { returns: true, arguments: false };

/// Calls `inner`, which leaves past it: what Rust's unwinding or a longjmp would do. `outer(n)` does that n times, and returns n.
struct Leaver {
    arena: Arena,
    outer: u64,
}

fn leaver(mut arena: Arena) -> Leaver {
    let saved = arena.text_va + (2 << 20);
    let inner = arena.add(|a, _| {
        a.push(rbp)?;
        a.mov(rbp, rsp)?;
        a.mov(rsp, qword_ptr(saved))?;
        a.jmp(qword_ptr(saved + 8))
    });
    let middle = arena.add(|a, _| {
        a.push(rbp)?;
        a.mov(rbp, rsp)?;
        a.sub(rsp, 64)?;
        a.call(inner)?;
        a.ud2()
    });
    let outer = arena.add(|a, _| {
        let [mut again, mut back, mut end] = std::array::from_fn(|_| a.create_label());
        a.push(rbp)?;
        a.mov(rbp, rsp)?;
        a.push(rbx)?;
        a.push(r12)?;
        a.xor(ebx, ebx)?;
        a.mov(r12, rdi)?;
        a.set_label(&mut again)?;
        a.cmp(rbx, r12)?;
        a.jae(end)?;
        a.mov(qword_ptr(saved), rsp)?;
        a.lea(rax, qword_ptr(back))?;
        a.mov(qword_ptr(saved + 8), rax)?;
        a.call(middle)?;
        a.set_label(&mut back)?;
        a.inc(rbx)?;
        a.jmp(again)?;
        a.set_label(&mut end)?;
        a.mov(rax, rbx)?;
        a.pop(r12)?;
        a.pop(rbx)?;
        a.pop(rbp)?;
        a.ret()
    });
    arena.probe(outer, 0, RETURNS);
    arena.probe(middle, 1, RETURNS);
    arena.probe(inner, 2, RETURNS);
    Leaver { arena, outer }
}

#[test]
fn calls_that_never_return_use_nothing_up() {
    // A stack as a program's: one block of its size.
    const SHIFT: u32 = 18;
    let mut arena = Arena::user();
    let top = (arena.text_va + (3 << 20)).next_multiple_of(1 << SHIFT);
    arena.region.stacks = Stacks::One { block: ((top - 1) >> SHIFT) as u32, shift: SHIFT };
    let Leaver { mut arena, outer } = leaver(arena);
    let on_it = arena.add(|a, _| {
        a.push(rbx)?;
        a.mov(rbx, rsp)?;
        a.mov(rsp, top)?;
        a.call(outer)?;
        a.mov(rsp, rbx)?;
        a.pop(rbx)?;
        a.ret()
    });
    for _ in 0..3 {
        assert_eq!(call(on_it, 1000, 0), 1000);
    }
    assert_eq!([arena.count(0), arena.count(1), arena.count(2)], [3, 3000, 3000]);
    assert_eq!([arena.returns(0), arena.returns(1), arena.returns(2)], [3, 0, 0]);
    assert_eq!((arena.number(1, slot::MISSED), arena.number(2, slot::MISSED)), (0, 0));
    assert!(arena.depth() <= 3, "{}", arena.depth());
}

#[test]
fn stack_that_nobody_knows_may_fill_the_shadow_stack_and_does_no_harm() {
    let Leaver { arena, outer } = leaver(Arena::user());
    for _ in 0..3 {
        assert_eq!(call(outer, 1000, 0), 1000);
    }
    assert_eq!([arena.count(0), arena.count(1), arena.count(2)], [3, 3000, 3000]);
    let missed = [0, 1, 2].map(|slot| arena.number(slot, slot::MISSED));
    assert_eq!(arena.returns(0) + missed[0], 3);
    assert!(missed[1] > 2000, "{missed:?}");
}

#[test]
fn ring_0_forgets_what_lies_below_on_the_same_stack() {
    let Leaver { arena, outer } = leaver(Arena::new(Stacks::EachVcpu { lowest_va: 0, shift: 47 }));
    assert_eq!(call(outer, 1000, 0), 1000);
    assert_eq!([arena.count(0), arena.count(1), arena.count(2)], [1, 1000, 1000]);
    assert_eq!((arena.returns(0), arena.number(1, slot::MISSED)), (1, 0));
    assert!(arena.depth() <= 3, "{}", arena.depth());
    assert_eq!(call(outer, 0, 0), 0);
    assert_eq!(arena.depth(), 0, "the next call from further up has them all forgotten");
}

#[test]
fn stack_beyond_every_vcpu_is_missed() {
    let mut arena = Arena::new(Stacks::EachVcpu { lowest_va: 0, shift: 14 });
    let function = arena.add(|a, _| {
        a.lea(rax, qword_ptr(rdi + rsi))?;
        a.nop()?;
        a.ret()
    });
    arena.probe(function, 0, RETURNS);
    assert_eq!(call(function, 3, 4), 7);
    assert_eq!((arena.count(0), arena.number(0, slot::MISSED), arena.returns(0)), (1, 1, 0));
}

/// The probe goes, as the VMM does it, while the function is on the stack: called from inside it.
#[test]
fn call_returns_where_it_came_from_after_its_probe_has_gone() {
    extern "sysv64" fn detach(arena: *mut Arena) -> u64 {
        // SAFETY: the test below passes its arena, which it does not touch meanwhile.
        let arena = unsafe { &mut *arena };
        arena.restore();
        let shadow = arena.region.data_va + SHADOWS;
        for entry in 0..u64::from(arena.depth()) {
            set_word(shadow + shadow::ENTRIES + entry * shadow::ENTRY_BYTES + shadow::SLOT, 0);
        }
        u64::from(arena.depth())
    }
    let mut arena = Arena::user();
    let function = arena.add(|a, own_va| {
        let mut deeper = a.create_label();
        a.push(rbp)?;
        a.mov(rbp, rsp)?;
        a.dec(rsi)?;
        a.jnz(deeper)?;
        a.mov(rax, detach as *const () as u64)?;
        a.call(rax)?;
        a.pop(rbp)?;
        a.ret()?;
        a.set_label(&mut deeper)?;
        a.call(own_va)?;
        a.pop(rbp)?;
        a.ret()
    });
    for round in 0..100 {
        arena.probe(function, 0, RETURNS);
        let at = &raw mut arena;
        assert_eq!(call(function, at as u64, 5), 5, "five calls were on the stack");
        assert_eq!((arena.count(0), arena.returns(0), arena.depth()), (5 * (round + 1), 0, 0));
    }
    assert!(arena.patched.is_empty());
    assert_eq!(word(function) as u8, 0x55, "push rbp");
}

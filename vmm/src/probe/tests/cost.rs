//! What a probe costs a call in ring 3: the same code as in a guest, natively, with the function in the cache.
//! `cargo test -p exovm --lib probe::tests::cost -- --nocapture` prints it.

use super::arena::{Arena, call};
use crate::probe::assemble::Wanted;
use iced_x86::code_asm::*;

const CALLS: u64 = 10_000;
/// The fewest cycles of so many runs, since others want the CPU, too.
const RUNS: usize = 200;

/// Cycles of a call of a small function, in a loop.
fn cycles(wanted: Option<Wanted>) -> f64 {
    let mut arena = Arena::user();
    let function = arena.add(|a, _| {
        a.push(rbp)?;
        a.mov(rbp, rsp)?;
        a.lea(rax, qword_ptr(rdi + 1))?;
        a.pop(rbp)?;
        a.ret()
    });
    // Returns the cycles that so many calls took.
    let all = arena.add(|a, _| {
        let mut again = a.create_label();
        a.push(rbx)?;
        a.push(r12)?;
        a.mov(rbx, rdi)?;
        a.rdtsc()?;
        a.shl(rdx, 32u32)?;
        a.lea(r12, qword_ptr(rax + rdx))?;
        a.set_label(&mut again)?;
        a.call(function)?;
        a.dec(rbx)?;
        a.jnz(again)?;
        a.rdtsc()?;
        a.shl(rdx, 32u32)?;
        a.or(rax, rdx)?;
        a.sub(rax, r12)?;
        a.pop(r12)?;
        a.pop(rbx)?;
        a.ret()
    });
    if let Some(wanted) = wanted {
        arena.probe(function, 0, wanted);
    }
    let least = (0..RUNS).map(|_| call(all, CALLS, 0)).min().unwrap_or(0);
    assert_eq!(arena.count(0), if wanted.is_some() { CALLS * RUNS as u64 } else { 0 });
    least as f64 / CALLS as f64
}

#[test]
fn call_costs_less_than_a_hundred_cycles_more_without_ret() {
    let without = cycles(None);
    let more = |returns, arguments| cycles(Some(Wanted { returns, arguments })) - without;
    let [count, arguments, returns, all] =
        [more(false, false), more(false, true), more(true, false), more(true, true)];
    println!("cycles a call, beside the {without:.1} of a call of an empty function:");
    println!("  counted {count:.1}, with --args {arguments:.1}, with --ret {returns:.1}, with both {all:.1}");
    assert!(count < 100.0 && arguments < 100.0, "{count} {arguments}");
    assert!(returns < 400.0 && all < 400.0, "{returns} {all}");
}

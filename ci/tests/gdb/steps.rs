//! Single steps, in both rings.

use crate::client::{Client, RAX, RBX, RIP, RSP};
use crate::program::{code_va, count_and_yield, function, guest};
use abi::call::{Call, Error};
use abi::layout::{GATE_VA, KERNEL_VA};
use exovm::placement::IoMode;

#[test]
fn core_each_step_is_one_instruction() {
    // mov eax, 1; pushfq; pop rcx; xor eax, eax; jmp back to the beginning
    let code = [0xB8, 1, 0, 0, 0, 0x9C, 0x59, 0x31, 0xC0, 0xEB, 0xF5];
    let offsets = [0, 5, 6, 7, 9];
    let guest = guest(&code).launch();
    let mut gdb = Client::attach(guest.machine());
    assert_eq!(gdb.break_at(code_va()), "OK");
    gdb.go();
    gdb.stop();
    assert_eq!(gdb.unbreak(code_va()), "OK");
    for at in 0..40 {
        let registers = gdb.registers(1);
        let place = at % offsets.len();
        assert_eq!(registers.get(RIP) - code_va(), offsets[place]);
        assert_eq!(registers.get(RAX), u64::from(place != 0 && place != 4));
        if place == 3 {
            assert_eq!(
                registers.get(crate::client::RCX) & 0x100,
                0,
                "the program does not see that it is stepped"
            );
        }
        let stop = gdb.step(1);
        assert_eq!((stop.signal, stop.thread), (5, 1));
    }
    gdb.detach();
}

#[test]
fn core_memory_is_watched_by_steps() {
    // Adds to rbx a hundred times, then stores it, for ever: mov ecx, 100; inc rbx; loop; mov [rsp - 64], rbx; jmp
    let code = [0xB9, 100, 0, 0, 0, 0x48, 0xFF, 0xC3, 0xE2, 0xFB, 0x48, 0x89, 0x5C, 0x24, 0xC0, 0xEB, 0xEF];
    let guest = guest(&code).launch();
    let mut gdb = Client::attach(guest.machine());
    assert_eq!(gdb.break_at(code_va() + 15), "OK");
    gdb.go();
    gdb.stop();
    assert_eq!(gdb.unbreak(code_va() + 15), "OK");
    let before = gdb.registers(1);
    let watched = before.get(RSP) - 64;
    let value = gdb.word(1, watched).expect("the stack");
    let mut steps = 0;
    while gdb.word(1, watched) == Some(value) {
        gdb.step(1);
        steps += 1;
        assert!(steps < 1000);
    }
    assert_eq!(gdb.word(1, watched), Some(value + 100));
    assert_eq!(gdb.registers(1).get(RIP), code_va() + 15, "behind the instruction that wrote it");
    assert_eq!(steps, 1 + 1 + 200 + 1);
    gdb.detach();
}

/// Calls an environment that there is not, again and again: mov eax, call; xor edi, edi; mov rcx, gate; call rcx; inc rbx; jmp back.
fn caller() -> Vec<u8> {
    let call = (Call::MessageCall as u32).to_le_bytes();
    let gate = GATE_VA.to_le_bytes();
    let code = [&[0xB8][..], &call, &[0x31, 0xFF, 0x48, 0xB9], &gate, &[0xFF, 0xD1, 0x48, 0xFF, 0xC3, 0xEB]]
        .concat();
    let back = (code.len() as u8 + 1).wrapping_neg();
    [code, vec![back]].concat()
}
/// Where in it the gate is called.
const CALLS_OFFSET: u64 = 17;

#[test]
fn core_step_over_a_kernel_call_ends_behind_it() {
    for (vcpus, io) in [(1, IoMode::Turn), (2, IoMode::Thread)] {
        let guest = guest(&caller()).vcpus(vcpus).io(io).launch();
        let mut gdb = Client::attach(guest.machine());
        let calls = code_va() + CALLS_OFFSET;
        assert_eq!(gdb.break_at(calls), "OK");
        for _ in 0..3 {
            gdb.go();
            gdb.stop();
            let before = gdb.registers(1);
            gdb.step(1);
            assert_eq!(gdb.registers(1).get(RIP), GATE_VA);
            gdb.step(1);
            let after = gdb.registers(1);
            assert_eq!(after.get(RIP), calls + 2);
            assert_eq!((after.get(RBX), after.get(RSP)), (before.get(RBX), before.get(RSP)));
        }
        gdb.detach();
    }
}

#[test]
fn core_step_over_a_call_that_gives_the_cpu_away_ends_behind_it() {
    for environments in [1, 2] {
        let guest = guest(&count_and_yield()).environments(environments).launch();
        let mut gdb = Client::attach(guest.machine());
        let calls = code_va() + 21;
        assert_eq!(gdb.break_at(calls), "OK");
        gdb.go();
        let thread = gdb.stop().thread;
        assert_eq!(gdb.unbreak(calls), "OK");
        let before = gdb.registers(thread);
        gdb.step(thread);
        assert_eq!(gdb.registers(thread).get(RIP), GATE_VA);
        assert_eq!(gdb.step(thread).thread, thread);
        let after = gdb.registers(thread);
        assert_eq!((after.get(RIP), after.get(RSP)), (calls + 2, before.get(RSP)));
        assert_eq!(after.get(RBX), 0, "it had the CPU anew");
        gdb.detach();
    }
}

#[test]
fn core_kernel_is_stopped_at_a_function_and_stepped() {
    for (vcpus, io) in [(1, IoMode::Turn), (2, IoMode::Thread)] {
        let image = exovm::images::load("hello").expect("built in");
        let called = function(&image, "xok::calls::message::call");
        let guest = guest(&caller()).vcpus(vcpus).io(io).launch();
        let mut gdb = Client::attach(guest.machine());
        assert_eq!(gdb.break_at(called), "OK");
        let mut last = None;
        for _ in 0..5 {
            gdb.go();
            let stop = gdb.stop();
            assert!(stop.breakpoint, "{stop:?}");
            assert_eq!(stop.thread, 1, "the kernel, for environment 0");
            let registers = gdb.registers(1);
            assert_eq!((registers.get(RIP), registers.cs()), (called, 0x10));
            let count = registers.get(RBX);
            assert_eq!(last.map_or(count, |last: u64| last + 1), count);
            last = Some(count);
            // What the kernel keeps is to be seen, from there as from anywhere.
            assert_eq!(gdb.read(1, called, 4), gdb.read(1, called, 4));
            assert!(gdb.word(1, registers.get(RSP)).expect("its stack") >= KERNEL_VA);
            let mut steps = 0;
            while gdb.registers(1).cs() == 0x10 {
                gdb.step(1);
                steps += 1;
                assert!(steps < 100);
            }
            println!("{steps} steps to ring 3");
            assert!(steps > 5, "{steps}");
            // Behind the return from the gate, or the instruction after it.
            let registers = gdb.registers(1);
            assert_eq!(registers.get(RAX), Error::NotFound as u64);
        }
        assert_eq!(gdb.unbreak(called), "OK");
        gdb.detach();
    }
}

#[test]
fn core_environment_that_waits_is_stepped_when_its_turn_has_come() {
    // Two on one vCPU: one of them is always waiting.
    let guest = guest(&count_and_yield()).environments(2).launch();
    let mut gdb = Client::attach(guest.machine());
    let waiting = loop {
        let threads = gdb.threads();
        let waits =
            threads.iter().copied().find(|&thread| gdb.describe(thread).ends_with("waits for the CPU"));
        if let Some(thread) = waits {
            break thread;
        }
        gdb.go();
        std::thread::sleep(std::time::Duration::from_millis(30));
        gdb.interrupt();
    };
    let before = gdb.registers(waiting);
    assert_eq!(before.get(RBX), 0, "the kernel keeps nothing but where it goes on");
    let stop = gdb.step(waiting);
    assert_eq!((stop.thread, stop.breakpoint), (waiting, false));
    assert!(gdb.describe(waiting).contains("on vCPU 0"));
    gdb.detach();
}

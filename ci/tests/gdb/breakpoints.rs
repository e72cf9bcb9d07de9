//! Breakpoints.

use crate::client::{Client, R11, RBX, RIP};
use crate::program::{COUNT, code_va, count_and_yield, guest};
use abi::layout::{GATE_VA, RESUME_VA, STACK_TOP_VA};
use exovm::placement::IoMode;
use std::collections::BTreeMap;
use std::time::Duration;

const SIGTRAP: u8 = 5;
/// The first thread that is no environment.
const FIRST_OF_VCPUS: u64 = 1001;
/// Long enough for something that does not come.
const A_WHILE: Duration = Duration::from_millis(300);

#[test]
fn core_breakpoint_is_hit_each_time_and_all_registers_are_those_of_the_program() {
    // mov r11, 0x1122334455667788; then count.
    let code = [&[0x49, 0xBB, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11][..], &COUNT].concat();
    let at = code_va() + 10;
    let guest = guest(&code).launch();
    let mut gdb = Client::attach(guest.machine());
    assert_eq!(gdb.break_at(at), "OK");
    let mut last = None;
    for _ in 0..20 {
        gdb.go();
        let stop = gdb.stop();
        assert_eq!((stop.signal, stop.thread, stop.breakpoint), (SIGTRAP, 1, true));
        assert_eq!((gdb.threads(), gdb.describe(1).as_str()), (vec![1], "environment 0 on vCPU 0"));
        let registers = gdb.registers(1);
        assert_eq!(registers.get(RIP), at);
        assert_eq!(registers.get(R11), 0x1122_3344_5566_7788);
        assert_eq!((registers.cs(), registers.flags() & 0x100), (0x33, 0));
        // Once around each time.
        let count = registers.get(RBX);
        assert_eq!(last.map_or(count, |last: u64| last + 1), count);
        last = Some(count);
        assert_eq!(gdb.read(1, at, 5), COUNT, "breakpoints are not seen");
    }
    assert_eq!(gdb.unbreak(at), "OK");
    gdb.go();
    assert_eq!(gdb.stop_within(A_WHILE), None);
    gdb.interrupt();
    gdb.detach();
}

#[test]
fn core_breakpoint_in_shared_text_stops_each_environment_and_none_runs_past_it() {
    for (vcpus, io) in [(1, IoMode::Turn), (2, IoMode::Thread)] {
        let guest = guest(&count_and_yield()).environments(2).vcpus(vcpus).io(io).launch();
        let mut gdb = Client::attach(guest.machine());
        let at = code_va();
        let mut counts = BTreeMap::new();
        assert_eq!(gdb.break_at(at), "OK");
        for _ in 0..60 {
            gdb.go();
            let stop = gdb.stop();
            assert!(stop.breakpoint, "{stop:?}");
            let mut threads = gdb.threads();
            // A vCPU may be choosing whom to run.
            threads.retain(|&thread| thread < FIRST_OF_VCPUS);
            threads.sort_unstable();
            assert_eq!(threads, [1, 2]);
            // Where the others are, they have not gone past it since they were stopped there.
            let count = gdb.registers(stop.thread).get(RBX);
            let before = counts.insert(stop.thread, count);
            assert_eq!(before.map_or(count, |before: u64| before + 1), count, "{stop:?} with {vcpus} vCPUs");
        }
        assert_eq!(counts.len(), 2, "both came there: {counts:?}");
        gdb.detach();
    }
}

#[test]
fn core_there_is_no_breakpoint_where_nothing_is_executed_or_all_depends_on_it() {
    let guest = guest(&COUNT).launch();
    let mut gdb = Client::attach(guest.machine());
    for va in [0, 0x1000, GATE_VA, GATE_VA + 1, RESUME_VA, STACK_TOP_VA - 8, 0x8000_0000_0000, u64::MAX] {
        assert!(gdb.break_at(va).starts_with('E'), "{va:#x}");
        assert!(gdb.unbreak(va).starts_with('E'), "{va:#x}");
    }
    assert_eq!(gdb.read(1, 0x1000, 8), [0; 0]);
    assert!(gdb.write_memory(1, 0x1000, &[1]).starts_with('E'));
    gdb.detach();
}

#[test]
fn core_what_a_debugger_writes_the_guest_has() {
    // mov [rsp - 64], rbx; movq xmm3, rbx; count.
    let code =
        [&[0x48, 0x89, 0x5C, 0x24, 0xC0, 0x66, 0x48, 0x0F, 0x6E, 0xDB, 0x48, 0xFF, 0xC3, 0xEB, 0xF1][..]]
            .concat();
    let guest = guest(&code).launch();
    let mut gdb = Client::attach(guest.machine());
    let counts = code_va() + 10;
    assert_eq!(gdb.break_at(counts), "OK");
    gdb.go();
    gdb.stop();
    let mut registers = gdb.registers(1);
    assert_eq!(registers.xmm(3), registers.get(RBX));
    registers.set(RBX, 1 << 40);
    registers.set_xmm(5, 0x5555);
    assert_eq!(gdb.set_registers(1, &registers), "OK");
    gdb.go();
    gdb.stop();
    let registers = gdb.registers(1);
    assert_eq!(registers.get(RBX), (1 << 40) + 1);
    assert_eq!((registers.xmm(3), registers.xmm(5)), ((1 << 40) + 1, 0x5555));
    let saved_va = registers.get(crate::client::RSP) - 64;
    assert_eq!(gdb.word(1, saved_va), Some((1 << 40) + 1));
    assert_eq!(gdb.write_memory(1, saved_va, &7u64.to_le_bytes()), "OK");
    assert_eq!(gdb.word(1, saved_va), Some(7));
    // `inc rbx` becomes `dec rbx`, below a breakpoint.
    assert_eq!(gdb.write_memory(1, counts, &[0x48, 0xFF, 0xCB]), "OK");
    assert_eq!(gdb.read(1, counts, 3), [0x48, 0xFF, 0xCB]);
    gdb.go();
    gdb.stop();
    assert_eq!(gdb.registers(1).get(RBX), 1 << 40);
    gdb.detach();
}

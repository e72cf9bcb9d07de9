//! Whatever ends a session: text and registers are as they were, and the guest goes on.

use crate::client::{Client, RBX, RIP, Registers};
use crate::program::{COUNT, code_va, guest, text};
use exovm::debug::DebugError;
use exovm::machine::{End, Machine};
use exovm::placement::IoMode;
use exovm_image::container::Image;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// What a machine that runs `code` has for its text: what its image says.
fn image() -> Image {
    exovm::images::load("hello").expect("built in")
}

/// Where environment 0 is in its counting, when nobody steps it; the machine runs. A step that lay on a stack when its debugger
/// went is noticed at the next instruction, and only then gone.
fn count(machine: &Machine) -> u64 {
    let begun = Instant::now();
    loop {
        let pause = machine.pause().expect("it runs");
        let read = pause.ask(0, |fd| (fd.get_regs().expect("registers"), fd.get_sregs().expect("more")));
        let (general, system) = read.expect("it runs");
        let is_stepped = general.rflags & 0x100 != 0;
        let counts = system.cs.selector & 3 == 3 && (code_va()..code_va() + 5).contains(&general.rip);
        if counts && !is_stepped {
            return general.rbx;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "it is not where it counts ({:#x}), or is stepped for ever ({is_stepped})",
            general.rip
        );
    }
}

fn assert_counts(machine: &Machine) {
    let before = count(machine);
    std::thread::sleep(Duration::from_millis(5));
    assert_ne!(count(machine), before, "it goes on");
}

/// Once the end of a debugger has been noticed, the text is as it was before it, and the program counts.
fn assert_is_as_it_was(machine: &Machine, before: &[u8], after: &str) {
    let begun = Instant::now();
    while text(machine, &image()) != before {
        assert!(begun.elapsed() < PATIENCE, "the text is not as it was, after {after}");
    }
    assert_counts(machine);
}

/// Attaches, once the end of the one before has been noticed.
fn attach_again(machine: &Machine) -> Client {
    let begun = Instant::now();
    loop {
        match Client::try_attach(machine) {
            Ok(client) => return client,
            Err(error) => assert_eq!(error, DebugError::Taken),
        }
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Attaches to a machine, and stops it at the first instruction of its program, a jump to itself.
fn stopped_at_begin(machine: &Machine) -> Client {
    let mut gdb = Client::attach(machine);
    assert_eq!(gdb.break_at(code_va()), "OK");
    gdb.go();
    gdb.stop();
    gdb
}

/// Has it go on behind that jump. The registers that it was given.
fn go_behind_jump(gdb: &mut Client) -> Registers {
    let mut registers = gdb.registers(1);
    registers.set(RIP, code_va() + 2);
    assert_eq!(gdb.set_registers(1, &registers), "OK");
    gdb.go();
    registers
}

#[test]
fn core_debugger_that_goes_in_whatever_state_leaves_nothing() {
    for (vcpus, io) in [(1, IoMode::Turn), (2, IoMode::Thread)] {
        let guest = guest(&COUNT).vcpus(vcpus).io(io).launch();
        let machine = guest.machine();
        let before = text(machine, &image());
        let at = code_va();
        let kernel_at = crate::program::function(&image(), "xok::schedule::slice_end");
        for how in 0..7 {
            let mut gdb = attach_again(machine);
            assert_eq!(gdb.break_at(at), "OK");
            assert_eq!(gdb.break_at(at + 3), "OK");
            match how {
                0 => {}
                1 => {
                    gdb.go();
                    gdb.stop();
                }
                2 => {
                    gdb.go();
                    gdb.stop();
                    // And it is at the next one, or stepping over this one, when its debugger has gone.
                    gdb.go();
                }
                3 => {
                    assert_eq!(gdb.break_at(kernel_at), "OK");
                    gdb.go();
                }
                4 => {
                    gdb.go();
                    gdb.stop();
                    gdb.send("vCont;s:1");
                }
                5 => {
                    gdb.go();
                    gdb.stop();
                    assert_eq!(gdb.unbreak(at), "OK");
                    gdb.step(1);
                }
                _ => {
                    gdb.detach();
                    continue;
                }
            }
            drop(gdb);
            assert_is_as_it_was(machine, &before, &how.to_string());
            assert!(machine.wait(Some(Duration::ZERO)).is_none());
        }
    }
}

#[test]
fn core_int3_of_the_programs_own_is_a_fault_that_a_debugger_sees_before() {
    // nop; int3; ud2
    let code = [0x90, 0xCC, 0x0F, 0x0B];
    let alone = guest(&code).launch().wait().0;
    let told = "a gate instruction outside the gate page (int3)";
    assert!(matches!(&alone, End::Fault { report } if report.contains(told)), "{alone:?}");
    // Waits for its debugger: jmp to itself; then int3.
    let code = [0xEB, 0xFE, 0xCC, 0x0F, 0x0B];
    let guest = guest(&code).launch();
    let mut gdb = stopped_at_begin(guest.machine());
    let registers = go_behind_jump(&mut gdb);
    let stop = gdb.stop();
    assert_eq!((stop.signal, stop.thread, stop.breakpoint), (5, 1, false));
    assert_eq!(gdb.registers(1).get(RIP), code_va() + 3);
    assert!(gdb.set_registers(1, &registers).starts_with('E'), "it is past being changed");
    gdb.go();
    let last = gdb.next(PATIENCE).expect("an end");
    assert_eq!(last, "X06", "the machine ended with a fault");
    let (end, _) = guest.wait();
    assert!(matches!(&end, End::Fault { report } if report.contains(told)), "{end:?}");
}

#[test]
fn core_second_debugger_is_refused_and_the_next_one_is_not() {
    let guest = guest(&COUNT).launch();
    let machine = guest.machine();
    let gdb = Client::attach(machine);
    assert_eq!(machine.attach_debugger(UnixStream::pair().expect("sockets").0), Err(DebugError::Taken));
    gdb.detach();
    attach_again(machine).detach();
    assert_counts(machine);
}

#[test]
fn core_garbage_ends_the_session_and_nothing_else() {
    let guest = guest(&COUNT).launch();
    let machine = guest.machine();
    let before = text(machine, &image());
    let long = [b"$".as_slice(), &[b'a'; 100_000], b"#00"].concat();
    let packets: [&[u8]; 13] = [
        // All that is mapped, and more.
        b"+$m400000,ffffffffffffff#51",
        b"",
        b"GET / HTTP/1.0\r\n\r\n",
        b"$#00",
        b"$$$$$$####",
        b"+$m0,ffffffffffffffff#b5",
        b"+$vCont;s:ffffffffffffffff;c:p-1.-1#00",
        b"+$G00#d7",
        b"+$Z0,zz,zz#00",
        b"\x03\x03\x03",
        b"$qSupported:\xff\xfe;;;=#00",
        &long,
        &[0xFF; 5000],
    ];
    for packet in packets {
        let mut gdb = attach_again(machine);
        assert_eq!(gdb.break_at(code_va()), "OK");
        gdb.write(packet);
        drop(gdb);
        assert_is_as_it_was(machine, &before, &format!("{packet:02x?}"));
    }
}

#[test]
fn core_machine_that_ends_while_a_debugger_is_attached_tells_it() {
    // Exit with status 7: mov eax, exit; mov edi, 7; mov rcx, gate; jmp rcx. Before that it waits at a jump to itself.
    let exit = (abi::call::Call::Exit as u32).to_le_bytes();
    let gate = abi::layout::GATE_VA.to_le_bytes();
    let code =
        [&[0xEB, 0xFE, 0xB8][..], &exit, &[0xBF, 7, 0, 0, 0, 0x48, 0xB9], &gate, &[0xFF, 0xE1]].concat();
    let guest = guest(&code).launch();
    let mut gdb = stopped_at_begin(guest.machine());
    go_behind_jump(&mut gdb);
    assert_eq!(gdb.next(PATIENCE).expect("an end"), "W07");
    assert!(gdb.closes());
    assert_eq!(guest.wait().0, End::PowerOff { status: 7 });
}

#[test]
fn core_machine_that_is_stopped_while_it_stands_still_ends() {
    for vcpus in [1, 2] {
        let guest = guest(&COUNT).vcpus(vcpus).io(IoMode::Auto).launch();
        let gdb = stopped_at_begin(guest.machine());
        let begun = Instant::now();
        assert_eq!(guest.machine().end(Duration::from_millis(100)), End::Stopped);
        assert!(begun.elapsed() < PATIENCE);
        assert!(gdb.closes());
    }
}

#[test]
fn core_guest_that_computes_is_interrupted_and_goes_on_changed() {
    let guest = guest(&COUNT).launch();
    count(guest.machine());
    let mut gdb = Client::attach(guest.machine());
    gdb.go();
    std::thread::sleep(Duration::from_millis(20));
    let stop = gdb.interrupt();
    assert_eq!((stop.signal, stop.thread), (2, 1));
    let mut registers = gdb.registers(1);
    assert!((code_va()..code_va() + 5).contains(&registers.get(RIP)));
    registers.set(RBX, 1 << 60);
    assert_eq!(gdb.set_registers(1, &registers), "OK");
    gdb.detach();
    assert_counts(guest.machine());
    assert!(count(guest.machine()) > 1 << 60);
}

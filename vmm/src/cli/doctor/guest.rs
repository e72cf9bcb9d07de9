//! A machine that is booted for real, and measures what it costs to leave ring 3: with and without a network interface.

use super::finding::Finding;
use crate::backend::{Backend, BackendError, IoVec, IoVecMut, Offloads, Written};
use crate::images;
use crate::machine::{End, Machine, MachineConfig, NetSetup};
use crate::placement::IoMode;
use abi::boot::{Ipv4Config, Ipv6Config, NameServers, wake};
use abi::call::gate;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The image, its argument, and how often each thing is measured.
const IMAGE: &str = "probe";
const CASE: &str = "costs";
const ROUNDS: &str = "200";
/// How long the machine may take; emulated hosts are slow.
const PATIENCE: Duration = Duration::from_secs(20);
/// Waiting longer than this shows that it goes on.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);
/// A kernel call is less than a hundred instructions of ring 0. Where it takes as long as this many of ring 3, somebody
/// interprets them; measured where KVM does: some 290,000.
const INTERPRETED_ABOVE: f64 = 5_000.0;
/// An exit that costs more than this is worth a note: at 2.6 GHz, 130,000 of them are a second.
const EXIT_CYCLES_GOOD: u64 = 20_000;

/// A network interface on which nothing ever happens.
struct Silence;

impl Backend for Silence {
    fn write_frame(&mut self, _: &[IoVec<'_>]) -> Written {
        Written::Dropped
    }

    fn read_frame(&mut self, _: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        Ok(None)
    }

    fn set_offloads(&mut self, _: Offloads) -> Result<(), BackendError> {
        Ok(())
    }

    fn event_fd(&self) -> Option<RawFd> {
        None
    }
}

/// What a machine found out.
struct Measured {
    /// From the call that makes it to the first instruction of ring 3.
    boot: Duration,
    gate: u32,
    wake: u32,
    tsc_khz: u64,
    /// Median cycles.
    call_cycles: u64,
    turn_cycles: u64,
    thousand_cycles: u64,
}

pub(super) fn measure() -> Vec<Finding> {
    let (bare, with_nic) = match boot(None).and_then(|bare| Ok((bare, boot(Some(silent_nic()))?))) {
        Ok(measured) => measured,
        Err(error) => {
            let means = "kernel calls, exits and wake-ups could not be measured";
            return vec![Finding::bad("boot", format!("a machine does not run: {error}"), means)];
        }
    };
    vec![boot_time(&bare), ring_0(&bare), exit(&bare), turn(&with_nic), wake_up(&bare)]
}

fn silent_nic() -> NetSetup {
    let ipv4 = Ipv4Config { address: [10, 80, 0, 2], prefix_len: 24, ..Ipv4Config::default() };
    NetSetup {
        backend: Box::new(Silence),
        ipv4,
        ipv6: Ipv6Config::default(),
        name_servers: NameServers::default(),
        mac: [2, 0x78, 10, 80, 0, 2],
        mtu_bytes: 1500,
        queue_pairs: 1,
    }
}

fn boot(net: Option<NetSetup>) -> Result<Measured, String> {
    let image = images::load(IMAGE).map_err(|error| error.to_string())?;
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let sink = Arc::clone(&lines);
    let started_tsc = crate::account::ledger::now_tsc();
    let mut machine = Machine::start(MachineConfig {
        net,
        io: IoMode::Turn,
        vcpus: Some(1),
        arguments: vec![CASE.to_owned(), ROUNDS.to_owned()],
        log: Box::new(move |line| sink.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned())),
        ..MachineConfig::new(image)
    })
    .map_err(|error| error.to_string())?;
    wait(&machine);
    // Joins the threads, so that the log is complete.
    let end = machine.stop(Duration::ZERO);
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    match end {
        End::PowerOff { status: 0 } => {}
        End::PowerOff { status } => return Err(format!("the guest ended with status {status}")),
        End::Stopped => return Err(format!("the guest did not end within {} s", PATIENCE.as_secs())),
        End::Fault { report } => return Err(report),
    }
    let costs = lines.iter().find_map(|line| parse(line)).ok_or("the guest measured nothing")?;
    let status = &machine.pages().status;
    let entered =
        machine.phases().into_iter().find(|phase| phase.name == "library OS").map_or(0, |phase| phase.tsc);
    let ticks = entered.saturating_sub(started_tsc);
    Ok(Measured {
        boot: Duration::from_micros(ticks * 1000 / machine.tsc_khz().max(1)),
        gate: status.gate.load(Ordering::Relaxed),
        wake: status.wake.load(Ordering::Relaxed),
        tsc_khz: machine.tsc_khz(),
        call_cycles: costs[0],
        turn_cycles: costs[1],
        thousand_cycles: costs[2],
    })
}

fn wait(machine: &Machine) {
    let started = Instant::now();
    if machine.wait(Some(PROGRESS_AFTER)).is_none() {
        complain!("exovm: waiting for a small machine to measure itself, {} s at most", PATIENCE.as_secs());
        machine.wait(Some(PATIENCE.saturating_sub(started.elapsed())));
    }
}

/// The medians of "probe: costs call LEAST MEDIAN turn LEAST MEDIAN thousand LEAST MEDIAN".
fn parse(line: &str) -> Option<[u64; 3]> {
    let words: Vec<_> = line.split_once("probe: costs ")?.1.split_whitespace().collect();
    match words.as_slice() {
        ["call", _, call, "turn", _, turn, "thousand", _, thousand] => {
            Some([call.parse().ok()?, turn.parse().ok()?, thousand.parse().ok()?])
        }
        _ => None,
    }
}

impl Measured {
    /// "N cycles (M us)".
    fn cycles(&self, cycles: u64) -> String {
        format!("{cycles} cycles ({:.1} us)", cycles as f64 * 1000.0 / self.tsc_khz.max(1) as f64)
    }
}

fn boot_time(measured: &Measured) -> Finding {
    let ms = measured.boot.as_secs_f64() * 1000.0;
    Finding::good("boot", format!("a machine is in ring 3 after {ms:.1} ms"), "machines run")
        .value("boot_ms", ms)
}

fn ring_0(measured: &Measured) -> Finding {
    let gate = match measured.gate {
        gate::KIND_SYSCALL => "syscall",
        gate::KIND_INT3 => "int3",
        _ => "unknown",
    };
    let call = measured.cycles(measured.call_cycles);
    let ratio = measured.call_cycles as f64 * 1000.0 / measured.thousand_cycles.max(1) as f64;
    let finding = if ratio > INTERPRETED_ABOVE {
        let found = format!("interpreted by KVM; a kernel call (by {gate}) costs {call}");
        Finding::odd("ring-0", found, "the data path stays in ring 3 and runs at full speed; ring 0 does not")
            .slow("kernel calls, page faults and interrupts: tens of microseconds each")
            .todo(
                "for a native ring 0 use a host with VMX or SVM: bare metal, or a VM with nested virtualisation\n\
                 switched on",
            )
    } else {
        let found = format!("native; a kernel call (by {gate}) costs {call}");
        Finding::good("ring-0", found, "kernel calls cost what they should")
    };
    finding
        .value("gate", gate)
        .value("native", ratio <= INTERPRETED_ABOVE)
        .value("kernel_call_cycles", measured.call_cycles)
        .value("ring_3_cycles_per_1000_instructions", measured.thousand_cycles)
}

fn exit(measured: &Measured) -> Finding {
    let cycles = measured.turn_cycles;
    let found = format!("leaving the guest for the VMM and coming back costs {}", measured.cycles(cycles));
    let finding = if cycles <= EXIT_CYCLES_GOOD {
        Finding::good("exit", found, "cheap enough to leave the guest for each batch")
    } else {
        Finding::odd("exit", found, "expensive: exits must be few, and each must serve many frames")
            .slow("four to sixteen connections at once, where batches are small and each takes an exit")
            .todo("run --io auto (as if not given) keeps the guest inside where a second CPU is free")
    };
    finding.value("exit_cycles", cycles)
}

fn turn(measured: &Measured) -> Finding {
    let cycles = measured.turn_cycles;
    let found = format!("a turn that finds no work costs {}", measured.cycles(cycles));
    Finding::good("turn", found, "an exit, and one look at the network interface")
        .value("turn_cycles", cycles)
}

fn wake_up(measured: &Measured) -> Finding {
    let silent = measured.wake == wake::SILENT;
    let finding = if silent {
        let found = "a \"remote read\" message ends a halt without being delivered";
        Finding::good("wake", found, "a sleeping guest is woken without an interrupt")
    } else {
        let found = "a \"remote read\" message does not end a halt";
        Finding::odd("wake", found, "a sleeping guest is woken by an interrupt and its handler")
            .slow("each wake-up; where ring 0 is interpreted by tens of microseconds")
    };
    finding.value("silent", silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_from_the_line_that_has_them() {
        assert_eq!(parse("INFO  probe: costs call 1 2 turn 3 4 thousand 5 6"), Some([2, 4, 6]));
        assert_eq!(parse("INFO  probe: costs call 1 2"), None);
        assert_eq!(parse("INFO  probe: costs call 1 x turn 3 4 thousand 5 6"), None);
        assert_eq!(parse("INFO  hello"), None);
    }
}

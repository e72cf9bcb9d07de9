//! Cycles burnt where the test says, so that the account can be held against what is known: how many, and where.
//!
//! What is burnt is counted as it passes, without the gaps in which somebody else must have had the CPU; so what is known does not
//! depend on what else runs on the host.

use crate::{Case, HELD, number};
use abi::boot::phase;
use abi::trace::mode;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use exos_block::{Arming, DiskQueue};
use exos_nic::{Offload, QueuePair};
use exos_runtime::sleep::{Watch, alone};
use exos_runtime::upcall::{self, Fault, Verdict};
use exos_runtime::{clock, kernel, pages, turn};
use exos_virtqueue::guest::GuestHal;

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[("attribution", attribution)];

/// A gap between two looks at the clock that is longer may not be our own: another thread had the CPU, or another environment, or
/// the VMM; or the host had a tick, or, itself a guest, lost its CPU, which nobody is told.
const GAP_CYCLES: u64 = 100_000;
/// Burnt before the first step.
const BESIDE_NS: u64 = 50_000_000;
/// An address at which nothing is mapped, and what reads it.
const NOWHERE_VA: u64 = 1 << 43;
const READ_BYTES: u64 = 2;

/// What was burnt, and what passed meanwhile.
#[derive(Clone, Copy, Default)]
struct Burnt {
    own: u64,
    gaps: u64,
    away: u64,
    /// What KVM and the VMM say that they took of it.
    taken: u64,
}

impl Burnt {
    fn add(&mut self, other: Burnt) {
        self.own += other.own;
        self.gaps += other.gaps;
        self.away += other.away;
        self.taken += other.taken;
    }
}

impl fmt::Display for Burnt {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(text, "own {} gaps {} away {} taken {}", self.own, self.gaps, self.away, self.taken)
    }
}

/// What was taken of the vCPU's time in its life, in cycles.
fn taken() -> u64 {
    let time = pages::vcpu_time();
    let steal = clock::Scale::new().ticks(time.steal_ns.load(Ordering::Relaxed));
    steal + time.outside_cycles.load(Ordering::Relaxed)
}

/// Burns so many cycles.
#[inline(always)]
fn burn(cycles: u64) -> Burnt {
    let mut burnt = Burnt::default();
    let before = taken();
    let mut last = clock::tsc();
    while burnt.own < cycles {
        let now = clock::tsc();
        let passed = now - last;
        let stopped = upcall::page().address.load(Ordering::Relaxed);
        if passed < GAP_CYCLES {
            burnt.own += passed;
        } else if (last..now).contains(&stopped) {
            // Our slice was over. Up to there it was ours.
            burnt.gaps += stopped - last;
            burnt.away += now - stopped;
        } else {
            burnt.gaps += passed;
        }
        last = now;
    }
    burnt.taken = taken() - before;
    burnt
}

/// `attribution STEP...`: waits until somebody looks at the accounts, does the steps, and waits for the end. A step is a word of
/// parts: `span:ROUNDS:CYCLES`, `nested:..`, `none:..`, `fault:..`; `call:ROUNDS`; `turn:ROUNDS:US`, `halt:..`, `sleep:..`;
/// `send:DEVICE:ROUNDS`; `read:DEVICE:ROUNDS`, `write:..`, `flush:..`.
fn attribution(arguments: Arguments<'_>) -> Option<u32> {
    upcall::on_fault(burn_in_fault);
    log::info!("probe: waits to be looked at");
    while pages::host().trace.mode.load(Ordering::Acquire) & mode::ACCOUNT == 0 {
        core::hint::spin_loop();
    }
    // Until whoever looks has looked for the first time.
    {
        let _span = exos_trace::span!("burn beside");
        let burnt = burn(clock::Scale::new().ticks(BESIDE_NS));
        log::info!("probe: beside {burnt}");
    }
    for word in arguments {
        let mut parts = word.split(':');
        let name = parts.next()?;
        let (first, second) = (number(parts.next())?, number(parts.next()).unwrap_or(0));
        let burnt = match name {
            "span" | "nested" | "none" | "fault" => in_place(name, first, second)?,
            "call" => calls(first),
            "turn" | "halt" | "sleep" => waits(name, first, second)?,
            "send" => send(first, second)?,
            "read" | "write" | "flush" => disk(name, first, second)?,
            _ => return None,
        };
        log::info!("probe: {word} {burnt}");
    }
    let _span = exos_trace::span!("burn beside");
    // The test looks for this, and not into the log, which comes later.
    pages::stamp(phase::READY);
    while !turn::stop_wanted() {
        core::hint::spin_loop();
    }
    Some(HELD)
}

fn in_place(name: &str, rounds: u64, cycles: u64) -> Option<Burnt> {
    let (mut burnt, mut outer) = (Burnt::default(), Burnt::default());
    for _ in 0..rounds {
        match name {
            "span" => {
                let _span = exos_trace::span!("burn a");
                burnt.add(burn(cycles));
            }
            // What is known is the inner one's; the outer one has as much before and behind.
            "nested" => {
                let _span = exos_trace::span!("burn outer");
                outer.add(burn(cycles / 2));
                {
                    let _span = exos_trace::span!("burn inner");
                    burnt.add(burn(cycles));
                }
                outer.add(burn(cycles / 2));
            }
            "none" => burnt.add(burn(cycles)),
            "fault" => {
                FAULT_CYCLES.store(cycles, Ordering::Relaxed);
                // SAFETY: nothing is mapped there; the handler has the instruction skipped.
                unsafe { asm!("mov al, [rdi]", in("rdi") NOWHERE_VA, out("al") _, options(nostack)) };
                let of = |part: &AtomicU64| part.swap(0, Ordering::Relaxed);
                let [own, gaps, away, taken] = FAULT.each_ref().map(of);
                burnt.add(Burnt { own, gaps, away, taken });
            }
            _ => return None,
        }
    }
    if outer.own > 0 {
        log::info!("probe: outer {outer}");
    }
    Some(burnt)
}

static FAULT_CYCLES: AtomicU64 = AtomicU64::new(0);
/// What was burnt in the last fault, part by part.
static FAULT: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn burn_in_fault(fault: &Fault) -> Verdict {
    if fault.address != NOWHERE_VA {
        return Verdict::End;
    }
    let burnt = burn(FAULT_CYCLES.load(Ordering::Relaxed));
    for (part, cycles) in FAULT.iter().zip([burnt.own, burnt.gaps, burnt.away, burnt.taken]) {
        part.fetch_add(cycles, Ordering::Relaxed);
    }
    upcall::page().frame[0].fetch_add(READ_BYTES, Ordering::Relaxed);
    Verdict::GoOn
}

/// What the fastest takes is what each takes of its own.
fn calls(rounds: u64) -> Burnt {
    let (mut passed, mut fastest, before) = (0, u64::MAX, taken());
    for _ in 0..rounds {
        let start = clock::tsc();
        kernel::version();
        let call = clock::tsc() - start;
        passed += call;
        fastest = fastest.min(call);
    }
    let own = rounds * fastest;
    Burnt { own, gaps: passed - own, away: 0, taken: taken() - before }
}

/// What passes is known, whoever has the CPU.
fn waits(name: &str, rounds: u64, us: u64) -> Option<Burnt> {
    let mut burnt = Burnt::default();
    for _ in 0..rounds {
        let start = clock::tsc();
        let end = start + clock::Scale::new().ticks(us * 1000);
        while clock::tsc() < end {
            match name {
                "turn" => turn::take(end),
                "halt" => kernel::halt(end),
                "sleep" => kernel::sleep(end, [0; 4]),
                _ => return None,
            }
        }
        burnt.own += clock::tsc() - start;
    }
    Some(burnt)
}

/// Gives the CPU away until then, as the VMM wants it.
fn pause(ticks: u64) {
    let end = clock::tsc() + ticks;
    if !alone() {
        Watch::now().sleep(end);
    } else if turn::wanted() {
        turn::take(end);
    } else {
        kernel::halt(end);
    }
}

/// Frames to nowhere, each of which is sent before the next. What the backend burns the test knows.
fn send(device: u64, rounds: u64) -> Option<Burnt> {
    let entry = pages::environment().devices.get(device as usize)?;
    let config = exos_nic::Config::default();
    let mut nic: QueuePair<GuestHal, ()> =
        QueuePair::open(GuestHal, device as u32, entry, 0, &config).ok()?;
    // To everybody, of an experimental type (IEEE 802).
    let mut header = [0xFF; 14];
    header[6..12].copy_from_slice(&entry.mac[..6]);
    header[12..].copy_from_slice(&[0x88, 0xB5]);
    let body = vec![0u8; 64];
    let frame: Vec<u8> = header.iter().chain(&body).copied().collect();
    for _ in 0..rounds {
        nic.transmit.transmit(&frame, &[], Offload::None, ()).ok()?;
        nic.transmit.publish();
        while nic.transmit.pending() > 0 {
            nic.transmit.reclaim();
            while nic.receive.poll().is_some() {}
            if turn::wanted() && alone() {
                turn::take(1);
            } else if !alone() {
                pause(clock::Scale::new().ticks(100_000));
            }
        }
        while nic.receive.poll().is_some() {}
    }
    Some(Burnt::default())
}

fn disk(name: &str, device: u64, rounds: u64) -> Option<Burnt> {
    let entry = pages::environment().devices.get(device as usize)?;
    let mut disk: DiskQueue<GuestHal, Vec<Box<[u8]>>, u32> =
        DiskQueue::open(GuestHal, device as u32, entry, 0, 16).ok()?;
    for round in 0..rounds {
        let buffer = vec![vec![0; 4096].into_boxed_slice()];
        match name {
            "read" => disk.read(round % 8, buffer, 0).ok()?,
            "write" => disk.write(round % 8, buffer, 0).ok()?,
            _ => disk.flush(0).ok()?,
        }
        disk.publish();
        while disk.poll().is_none() {
            if turn::wanted() && alone() {
                turn::take(0);
            } else if disk.request_interrupts() == Arming::Sleep {
                pause(clock::Scale::new().ticks(1_000_000));
            }
            disk.suppress_interrupts();
        }
    }
    Some(Burnt::default())
}

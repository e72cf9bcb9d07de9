//! Work: the heap, the log, spans, the shared pages, and environments that do not end.

use crate::{BROKEN, Case, HELD, number};
use abi::boot::{HostPage, StatusPage, phase};
use abi::layout::{ACCOUNT_VA, LOG_VA, STATISTICS_VA, STATUS_VA, TRACE_VA};
use abi::log::LogRing;
use abi::statistics::StatisticsArea;
use abi::trace::{AccountArea, TraceRing};
use alloc::alloc::{Layout, alloc, dealloc};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use exos_runtime::{clock, kernel, pages, turn};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[
    ("exit", |arguments| number(arguments.next()).map(|status| status as u32)),
    ("panic", |_| panic!("as requested")),
    ("heap", heap),
    ("log-flood", log_flood),
    ("chatter", chatter),
    ("fault-at-stop", fault_at_stop),
    ("burn", burn),
    ("costs", costs),
    ("spans", spans),
    ("scribble", scribble),
    ("spin", |_| spin()),
    ("halt-forever", |_| halt_forever()),
    ("turns", turns),
];

/// Largest block that the heap case asks for first.
const BLOCK_BYTES: usize = 64 << 10;

/// Takes all of the heap, in blocks with a pattern each, looks at all patterns, gives every other block back, takes them
/// again, gives all back, and then takes the largest possible block, which shows that what was given back is whole again.
fn heap(_: Arguments<'_>) -> Option<u32> {
    let owned: u64 = pages::environment().heap.iter().map(|range| range.len_bytes).sum();
    let layout = Layout::from_size_align(BLOCK_BYTES, 64).ok()?;
    // Room for the list is taken first, so that a full heap needs none.
    let mut blocks: Vec<*mut u8> = Vec::with_capacity(owned as usize / BLOCK_BYTES + 1);
    let take_all = |blocks: &mut Vec<*mut u8>| {
        while blocks.len() < blocks.capacity() {
            // SAFETY: the layout's size is not zero.
            let block = unsafe { alloc(layout) };
            if block.is_null() {
                return;
            }
            // SAFETY: the block has BLOCK_BYTES bytes and nobody else has it.
            unsafe { block.write_bytes(pattern(block), BLOCK_BYTES) };
            blocks.push(block);
        }
    };
    take_all(&mut blocks);
    let first = blocks.len();
    let wrong = |blocks: &[*mut u8]| {
        let holds_pattern = |block: &&*mut u8| {
            // SAFETY: taken above with this size, filled, and not given back.
            let bytes = unsafe { core::slice::from_raw_parts(**block, BLOCK_BYTES) };
            bytes.iter().all(|&byte| byte == pattern(**block))
        };
        blocks.len() - blocks.iter().filter(holds_pattern).count()
    };
    let mut wrong_blocks = wrong(&blocks);
    let mut keep = Vec::with_capacity(0);
    core::mem::swap(&mut keep, &mut blocks);
    let mut index = 0;
    keep.retain(|&block| {
        index += 1;
        if index % 2 == 0 {
            // SAFETY: taken above with this layout, and forgotten here.
            unsafe { dealloc(block, layout) };
        }
        index % 2 == 1
    });
    take_all(&mut keep);
    let second = keep.len();
    wrong_blocks += wrong(&keep);
    for block in keep.drain(..) {
        // SAFETY: as above.
        unsafe { dealloc(block, layout) };
    }
    drop(keep);
    let mut large_bytes = owned as usize;
    loop {
        let large = Layout::from_size_align(large_bytes, 4096).ok()?;
        // SAFETY: the size is not zero: a heap that gives nothing ends the loop below.
        let block = unsafe { alloc(large) };
        if !block.is_null() {
            // SAFETY: taken with this layout a line ago.
            unsafe { dealloc(block, large) };
            break;
        }
        large_bytes -= 4096;
        if large_bytes == 0 {
            break;
        }
    }
    log::info!(
        "probe: heap of {owned} bytes: {} in blocks, {} after giving half back, {large_bytes} in one; {wrong_blocks} wrong",
        first * BLOCK_BYTES,
        second * BLOCK_BYTES
    );
    Some(if wrong_blocks == 0 { HELD } else { BROKEN })
}

/// What a block is filled with: tells blocks apart.
fn pattern(block: *mut u8) -> u8 {
    let address = block.addr();
    (address >> 16) as u8 ^ (address >> 8) as u8 ^ 0x5A
}

/// `log-flood LINES`: writes faster than anybody reads.
fn log_flood(arguments: Arguments<'_>) -> Option<u32> {
    let lines = number(arguments.next())?;
    for line in 0..lines {
        log::info!("probe: line {line} of {lines}");
    }
    log::info!("probe: that was all");
    Some(HELD)
}

/// `chatter PERIOD_US BYTES`: a line of that length every so often, numbered, until the VMM wants the machine to end.
fn chatter(arguments: Arguments<'_>) -> Option<u32> {
    let (period_us, len_bytes) = (number(arguments.next())?, number(arguments.next())?);
    let period_ticks = clock::Scale::new().ticks(period_us * 1000);
    let mut next = clock::tsc();
    let mut line = 0u64;
    pages::stamp(phase::READY);
    while !turn::stop_wanted() {
        log::info!("probe: {line} {:x<width$}", "", width = len_bytes as usize);
        line += 1;
        next += period_ticks;
        while clock::tsc() < next && !turn::stop_wanted() {
            kernel::halt(next);
        }
    }
    log::info!("probe: {line} lines");
    Some(HELD)
}

/// Does nothing until it is asked to stop, and then what is forbidden.
fn fault_at_stop(_: Arguments<'_>) -> Option<u32> {
    pages::stamp(phase::READY);
    while !turn::stop_wanted() {
        kernel::halt(clock::tsc() + 10_000_000);
    }
    // SAFETY: the instruction faults, which ends the environment: that is what the case is about.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}

/// `burn (SPAN CYCLES)...`, SPAN one of `a`, `b` and `none`: spends at least so many cycles in each, one after the other, once somebody
/// looks at the account.
fn burn(arguments: Arguments<'_>) -> Option<u32> {
    while pages::host().trace.mode.load(Ordering::Relaxed) & abi::trace::mode::ACCOUNT == 0 {
        core::hint::spin_loop();
    }
    while let Some(span) = arguments.next() {
        let cycles = number(arguments.next())?;
        let start = clock::tsc();
        match span {
            "a" => {
                let _span = exos_trace::span!("burn a");
                burn_for(cycles);
            }
            "b" => {
                let _span = exos_trace::span!("burn b");
                burn_for(cycles);
            }
            "none" => burn_for(cycles),
            _ => return None,
        }
        exos_trace::counter!("burnt", cycles);
        log::info!("probe: burnt {} cycles in {span}", clock::tsc() - start);
    }
    Some(HELD)
}

/// Called inside the span, so that it is the span that gets all of them.
fn burn_for(cycles: u64) {
    let end = clock::tsc() + cycles;
    while clock::tsc() < end {}
}

/// `costs ROUNDS`: what leaving ring 3 costs, in cycles: a kernel call, a turn whose deadline has passed; and, to compare,
/// a thousand instructions that stay. The log says the least and the median of each.
fn costs(arguments: Arguments<'_>) -> Option<u32> {
    let rounds = number(arguments.next())? as usize;
    let (call_least, call) = least_and_median(rounds, || {
        kernel::version();
    });
    let (turn_least, turn) = least_and_median(rounds, || turn::take(1));
    let (stay_least, stay) = least_and_median(rounds, thousand_instructions);
    log::info!("probe: costs call {call_least} {call} turn {turn_least} {turn} thousand {stay_least} {stay}");
    Some(HELD)
}

/// `spans`: until the VMM wants the machine to end, what a span costs in the mode that the VMM asks for at the time: the least of
/// many runs, a line each.
fn spans(_: Arguments<'_>) -> Option<u32> {
    const SPANS: u64 = 1000;
    const RUNS: usize = 200;
    let mode = &pages::host().trace.mode;
    pages::stamp(phase::READY);
    while !turn::stop_wanted() {
        let before = mode.load(Ordering::Relaxed);
        let _following = exos_trace::follow(1);
        let (least, _) = least_and_median(RUNS, || {
            for _ in 0..SPANS {
                let _span = exos_trace::span!("cost of a span");
            }
        });
        if mode.load(Ordering::Relaxed) == before {
            // In hundredths: a span that nobody looks at takes few cycles.
            log::info!("probe: spans {} {}", before & 0xFF, least * 100 / SPANS);
        }
    }
    Some(HELD)
}

/// Cycles of each round of `what`.
fn least_and_median(rounds: usize, mut what: impl FnMut()) -> (u64, u64) {
    let mut cycles: Vec<u64> = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = clock::tsc();
        what();
        cycles.push(clock::tsc() - start);
    }
    cycles.sort_unstable();
    (cycles.first().copied().unwrap_or(0), cycles.get(rounds / 2).copied().unwrap_or(0))
}

fn thousand_instructions() {
    // SAFETY: counts a register down, twice 500 instructions; no memory.
    unsafe {
        core::arch::asm!("2:", "sub {count}, 1", "jnz 2b", count = inout(reg) 500u64 => _, options(nomem, nostack));
    }
}

/// Fills everything that the VMM reads of an environment with nonsense, again and again, while the VMM reads it. The VMM
/// must neither believe it nor fall over it. `scribble CYCLES`.
fn scribble(arguments: Arguments<'_>) -> Option<u32> {
    let end = clock::tsc() + number(arguments.next())?;
    let pages = [
        (STATUS_VA, size_of::<StatusPage>()),
        (ACCOUNT_VA, size_of::<AccountArea>()),
        (STATISTICS_VA, size_of::<StatisticsArea>()),
        (TRACE_VA, size_of::<TraceRing>()),
        (LOG_VA, size_of::<LogRing>()),
    ];
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    while clock::tsc() < end {
        for (va, len_bytes) in pages {
            for word in 0..len_bytes / 8 {
                // xorshift64, and now and then a value at the end of the range
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let value = if random.is_multiple_of(16) { u64::MAX } else { random };
                // SAFETY: all are mapped writable for this environment, a whole number of words, and their content
                // may be anything: the library OS keeps nothing there that it would follow.
                unsafe { ((va as *mut u64).add(word)).write_volatile(value) };
            }
        }
    }
    Some(HELD)
}

fn spin() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

fn halt_forever() -> ! {
    loop {
        kernel::halt(0);
    }
}

/// Takes turns until the VMM wants the machine to end, which is what every image does when it is idle.
fn turns(_: Arguments<'_>) -> Option<u32> {
    let host: &HostPage = pages::host();
    let mut taken = 0u64;
    while host.stop.load(Ordering::Relaxed) == 0 {
        turn::take(clock::tsc() + 1_000_000);
        taken += 1;
    }
    log::info!("probe: {taken} turns");
    Some(HELD)
}

//! What an environment may do with a disk and what not, through the driver: a list of operations, each of which leaves a line
//! in the log. Blocks read are shown as a checksum, blocks written are filled from a number, so that the tests can compare
//! both with the image on the host.

use crate::{BROKEN, Case, HELD, number};
use abi::boot::DEVICE_BLOCK;
use abi::layout::PAGE_BYTES;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use exos_block::{Arming, Completion, DiskQueue, Failure};
use exos_runtime::{clock, kernel, pages, turn};
use exos_virtqueue::guest::GuestHal;

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;
/// Scattered pages.
type Pages = Vec<Box<[u8]>>;
type Disk = DiskQueue<GuestHal, Pages, u32>;

pub(crate) const CASES: &[Case] = &[("disk", disk)];

/// Descriptors of the queue.
const SIZE: u16 = 512;
/// How long a request may take.
const PATIENCE_MS: u64 = 20_000;

/// `disk DEVICE QUEUE OPERATION...`: opens a queue and does one operation after the other. An operation is a word whose parts
/// are separated by colons:
/// `read:START:BLOCKS`, `write:START:BLOCKS:SEED`, `flush`, `leave-flush` (does not wait for it), `discard:START:BLOCKS`, `batch:START:COUNT` (reads of one block,
/// published together), `until-refused:START:BLOCKS` and `until-read:START:BLOCKS` (reads until that is the outcome).
fn disk(arguments: Arguments<'_>) -> Option<u32> {
    let (device, queue) = (number(arguments.next())?, number(arguments.next())?);
    let entry = &pages::environment().devices[device as usize];
    log::info!("probe: {} blocks", entry.capacity_blocks);
    if entry.kind != DEVICE_BLOCK {
        log::error!("probe: device {device} is no disk");
        return Some(BROKEN);
    }
    let mut disk = match Disk::open(GuestHal, device as u32, entry, queue as u32, SIZE) {
        Ok(disk) => disk,
        Err(error) => {
            log::error!("probe: {error}");
            return Some(BROKEN);
        }
    };
    for word in arguments {
        let mut parts = word.split(':');
        let name = parts.next()?;
        let mut part = || number(parts.next());
        match name {
            "read" => read(&mut disk, word, part()?, part()?)?,
            "write" => write(&mut disk, word, part()?, part()?, part()?)?,
            "batch" => batch(&mut disk, word, part()?, part()?)?,
            "flush" => {
                let taken = disk.flush(0).map_err(|refused| refused.reason);
                outcome(&mut disk, word, taken)?;
            }
            "leave-flush" => {
                disk.flush(0).ok()?;
                disk.publish();
                // Time for whoever does the device work to take it.
                let end = clock::tsc() + clock::Scale::new().ticks(200_000_000);
                while clock::tsc() < end {
                    if turn::wanted() { turn::take(end) } else { core::hint::spin_loop() }
                }
            }
            "discard" => {
                let taken = disk.discard(part()?, part()?, 0).map_err(|refused| refused.reason);
                outcome(&mut disk, word, taken)?;
            }
            "until-refused" => until(&mut disk, word, part()?, part()?, Err(Failure::Io))?,
            "until-read" => until(&mut disk, word, part()?, part()?, Ok(()))?,
            _ => return None,
        }
    }
    log::info!("probe: end, fault: {:?}", disk.fault());
    Some(HELD)
}

/// Pages that hold `seed` where nothing else is read.
fn pages_of(blocks: u64, seed: u64) -> Pages {
    (0..blocks).map(|block| page(seed, block)).collect()
}

/// A page whose bytes say where they belong; the tests compute the same.
fn page(seed: u64, block: u64) -> Box<[u8]> {
    let mut page = vec![0; PAGE_BYTES as usize].into_boxed_slice();
    for (at, byte) in page.iter_mut().enumerate() {
        *byte = (seed.wrapping_mul(31) + block.wrapping_mul(17) + at as u64 * 7 + (at as u64 >> 8)) as u8;
    }
    page
}

/// FNV-1a, 64 bits.
fn checksum(pages: &Pages) -> u64 {
    let bytes = pages.iter().flat_map(|page| page.iter());
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3))
}

fn read(disk: &mut Disk, word: &str, start: u64, blocks: u64) -> Option<()> {
    if let Err(refused) = disk.read(start, pages_of(blocks, 99), 0) {
        log::info!("probe: {word}: not taken: {:?}", refused.reason);
        return Some(());
    }
    let done = wait(disk)?;
    match done.result {
        Ok(()) => log::info!("probe: {word}: {:016x}", checksum(&done.buffer?)),
        Err(failure) => log::info!("probe: {word}: {failure:?}"),
    }
    Some(())
}

fn write(disk: &mut Disk, word: &str, start: u64, blocks: u64, seed: u64) -> Option<()> {
    let taken = disk.write(start, pages_of(blocks, seed), 0).map_err(|refused| refused.reason);
    outcome(disk, word, taken)
}

/// Waits for a request without an answer of its own.
fn outcome(disk: &mut Disk, word: &str, taken: Result<(), exos_block::Reason>) -> Option<()> {
    if let Err(reason) = taken {
        log::info!("probe: {word}: not taken: {reason:?}");
        return Some(());
    }
    let done = wait(disk)?;
    log::info!("probe: {word}: {:?}", done.result);
    Some(())
}

fn batch(disk: &mut Disk, word: &str, start: u64, count: u64) -> Option<()> {
    for token in 0..count {
        if let Err(refused) = disk.read(start + token, pages_of(1, 99), token as u32) {
            log::info!("probe: {word}: not taken: {:?}", refused.reason);
            return Some(());
        }
    }
    let mut sums = vec![0; count as usize];
    for _ in 0..count {
        let done = wait(disk)?;
        if let Err(failure) = done.result {
            log::info!("probe: {word}: {failure:?}");
            return Some(());
        }
        *sums.get_mut(done.token as usize)? = checksum(&done.buffer?);
    }
    log::info!("probe: {word}: {sums:016x?}");
    Some(())
}

/// Reads the blocks until the outcome is the one that is waited for. It says "begins" after the first outcome that is not, so that
/// whoever changes something on that word knows that both were seen.
fn until(disk: &mut Disk, word: &str, start: u64, blocks: u64, wanted: Result<(), Failure>) -> Option<()> {
    let mut begun = false;
    let end = clock::tsc() + clock::Scale::new().ticks(PATIENCE_MS * 1_000_000);
    while clock::tsc() < end {
        disk.read(start, pages_of(blocks, 99), 0).ok()?;
        let done = wait(disk)?;
        if done.result == wanted {
            log::info!(
                "probe: {word}: {wanted:?}, {} before",
                if begun { "something else" } else { "nothing" }
            );
            return Some(());
        }
        if !begun {
            log::info!("probe: {word}: begins");
            begun = true;
        }
    }
    log::error!("probe: {word}: never");
    None
}

/// Publishes and waits for one completion: in turns, or, if the VMM works elsewhere, polling a little and then halted.
fn wait(disk: &mut Disk) -> Option<Completion<Pages, u32>> {
    disk.publish();
    let scale = clock::Scale::new();
    let end = clock::tsc() + scale.ticks(PATIENCE_MS * 1_000_000);
    loop {
        if let Some(done) = disk.poll() {
            return Some(done);
        }
        if let Some(fault) = disk.fault() {
            log::error!("probe: {fault}");
            return None;
        }
        if clock::tsc() > end {
            log::error!("probe: no completion");
            return None;
        }
        if turn::wanted() {
            turn::take(end);
        } else {
            if disk.request_interrupts() == Arming::Sleep && !turn::wanted() {
                kernel::halt(end);
            }
            disk.suppress_interrupts();
        }
    }
}

//! Extents: blocks beyond one's own, by real requests through a child's own queue; and requests that are under way while their
//! pages are taken back.

use crate::binding::pages_for;
use crate::child::{Child, Code, DATA_VA, derive, give, to_the_end};
use crate::queue::{NEXT, Queue, RING_PAGES, WRITE};
use crate::{Case, HELD};
use abi::boot::DEVICE_BLOCK;
use abi::call::{Call, Error, sleep};
use abi::capability::{Handle, rights};
use abi::layout::{PAGE_BYTES, WINDOW_VA};
use abi::queue::QUEUES_PER_DEVICE;
use exos_runtime::{clock, kernel, pages, turn};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] =
    &[("extent-attacks", extent_attacks), ("revoke-in-flight", revoke_in_flight), ("hanging", hanging)];

/// The child's blocks.
const FIRST: u64 = 8;
const COUNT: u64 = 4;
/// Sectors of a block (VIRTIO 1.3 5.2.6: sectors are of 512 bytes).
const SECTORS: u64 = 8;
/// VIRTIO_BLK_T_IN, _OUT, _DISCARD, _WRITE_ZEROES.
const IN: u32 = 0;
const OUT: u32 = 1;
const DISCARD: u32 = 11;
const ZEROES: u32 = 13;
/// Data pages of a child: words, header and status, data, and then the rings.
const HEADER_PAGE: u64 = 1;
const DATA_PAGE: u64 = 2;
const DATA_PAGES: u64 = 3;
const RINGS_PAGE: u64 = DATA_PAGE + DATA_PAGES;
/// What a status byte is before the device has written it.
const NO_STATUS: u8 = 0xEE;
const STATUS_OFFSET: u64 = 512;
/// What is in a page that nothing may be written into.
const MARK: u64 = 0x6B72_616D_6B72_616D;
/// Longer than the disk of the test takes for a read.
const LONG_MS: u64 = 1500;

/// Requests to the disk through the queue of a child.
struct Disk<'a> {
    child: &'a Child,
    queue: Queue,
    taken: u16,
}

impl Disk<'_> {
    /// What the device answers to one. `pages` of data from [`DATA_PAGE`] on.
    fn request(&mut self, kind: u32, sector: u64, pages: u32) -> u8 {
        let header = self.child.gpa(HEADER_PAGE);
        let data = self.child.gpa(DATA_PAGE);
        let (len_bytes, flags) = match kind {
            IN => (pages * PAGE_BYTES as u32, WRITE),
            OUT => (pages * PAGE_BYTES as u32, 0),
            _ => (16, 0),
        };
        // SAFETY: pages of the child's, which does not run; the device may read and write them at any time.
        unsafe {
            ((WINDOW_VA + header) as *mut [u64; 2]).write_volatile([kind.into(), sector]);
            ((WINDOW_VA + header + STATUS_OFFSET) as *mut u8).write_volatile(NO_STATUS);
            if kind != IN {
                // A range of a discard: sector, sectors and flags (VIRTIO 1.3 5.2.6).
                ((WINDOW_VA + data) as *mut [u64; 2]).write_volatile([sector, u64::from(pages) * SECTORS]);
            }
        }
        self.queue.descriptor(0, header, 16, NEXT, 1);
        self.queue.descriptor(1, data, len_bytes, flags | NEXT, 2);
        self.queue.descriptor(2, header + STATUS_OFFSET, 1, WRITE, 0);
        self.taken += 1;
        self.queue.offer(0, self.taken);
        self.queue.used(self.taken);
        // SAFETY: as above.
        unsafe { ((WINDOW_VA + header + STATUS_OFFSET) as *const u8).read_volatile() }
    }

    fn try_(&mut self, what: &str, kind: u32, block: u64, blocks: u32) {
        let status = self.request(kind, block.wrapping_mul(SECTORS), blocks);
        log::info!("probe: {what}: status {status}");
    }
}

fn disk() -> Option<usize> {
    pages::environment().devices.iter().position(|device| device.kind == DEVICE_BLOCK)
}

fn extent_attacks(_: Arguments<'_>) -> Option<u32> {
    let own = &pages::environment().capabilities;
    let device = disk()?;
    let all = own.extents[device];
    let capacity = pages::environment().devices[device].capacity_blocks;
    let child =
        Child::with_pages(Code::new().exit(0), rights::WRITE | rights::DMA, RINGS_PAGE + RING_PAGES).ok()?;
    child.grant_to_devices().ok()?;
    let who = child.environment.0;
    let first_queue = (device * QUEUES_PER_DEVICE) as u64;
    let queues = derive(own.queues[device], first_queue, 1, rights::BIND | rights::GIVE).ok()?;
    let queues = give(queues, &child, rights::BIND).ok()?;
    let part = derive(all, FIRST, COUNT, rights::READ | rights::WRITE | rights::GIVE).ok()?;
    let extent = give(part, &child, rights::READ | rights::GIVE).ok()?;
    // Of a slot in which the child has nothing.
    let mut others = all;
    for _ in 0..32 {
        others = derive(all, 0, 1, rights::READ).ok()?;
    }
    let try_ = |what: &str, answer: Result<u64, Error>| log::info!("probe: {what}: {:?}", answer.map(drop));
    let widen = |what: &str, start: u64, count: u64, rights: u16| {
        try_(what, kernel::raw(Call::CapabilityDerive, [who, extent.0, start, count, rights.into()]));
    };
    widen("derive the block before one's extent", FIRST - 1, 1, rights::READ);
    widen("derive the block behind it", FIRST + COUNT, 1, rights::READ);
    widen("derive more blocks than it has", FIRST, COUNT + 1, rights::READ);
    widen("derive blocks around the end", FIRST + 1, u64::MAX, rights::READ);
    widen("derive writing of what is only read", FIRST, 1, rights::WRITE);
    try_("bind no extent", kernel::raw(Call::ExtentBind, [who, 0, 0, 0, 0]));
    try_("bind memory as an extent", kernel::raw(Call::ExtentBind, [who, child.given.0, 0, 0, 0]));
    try_("bind another's extent", kernel::raw(Call::ExtentBind, [who, others.0, 0, 0, 0]));
    // Neither reading nor writing.
    let nothing = kernel::raw(Call::CapabilityDerive, [who, extent.0, FIRST, 1, 0]).ok()?;
    try_("bind an extent without rights", kernel::raw(Call::ExtentBind, [who, nothing, 0, 0, 0]));
    try_("unbind what is not bound", kernel::raw(Call::ExtentUnbind, [who, extent.0, 0, 0, 0]));
    let queue = Queue::of(child.environment, queues, first_queue, child.gpa(RINGS_PAGE))?;
    queue.bind().ok()?;
    let mut disk = Disk { child: &child, queue, taken: 0 };
    disk.try_("read before anything is bound", IN, FIRST, 1);
    try_("bind one's extent", kernel::raw(Call::ExtentBind, [who, extent.0, 0, 0, 0]));
    try_("bind it again", kernel::raw(Call::ExtentBind, [who, extent.0, 0, 0, 0]));
    disk.try_("read one's block", IN, FIRST, 1);
    disk.try_("read one's last block", IN, FIRST + COUNT - 1, 1);
    disk.try_("read the first block of the disk", IN, 0, 1);
    disk.try_("read the block before", IN, FIRST - 1, 1);
    disk.try_("read the block behind", IN, FIRST + COUNT, 1);
    disk.try_("read across the start", IN, FIRST - 1, 2);
    disk.try_("read across the end", IN, FIRST + COUNT - 2, 3);
    disk.try_("read behind the disk", IN, capacity, 1);
    disk.try_("read where blocks end", IN, u64::MAX / SECTORS, 1);
    disk.try_("write what is only read", OUT, FIRST, 1);
    disk.try_("write another's block", OUT, 0, 1);
    disk.try_("discard what is only read", DISCARD, FIRST, 1);
    disk.try_("discard another's blocks", DISCARD, 0, 4);
    disk.try_("fill another's blocks with zeros", ZEROES, 0, 4);
    try_("unbind it", kernel::raw(Call::ExtentUnbind, [who, extent.0, 0, 0, 0]));
    disk.try_("read after unbinding", IN, FIRST, 1);
    try_("bind it once more", kernel::raw(Call::ExtentBind, [who, extent.0, 0, 0, 0]));
    disk.try_("read once more", IN, FIRST, 1);
    to_the_end(Call::CapabilityRevoke, part).ok()?;
    disk.try_("read after it was revoked", IN, FIRST, 1);
    try_("bind what was revoked", kernel::raw(Call::ExtentBind, [who, extent.0, 0, 0, 0]));
    disk.queue.unbind().ok()?;
    Some(HELD)
}

/// A read from a slow disk is under way when its page is taken from devices: when the call has returned, the page is its next
/// owner's, and nothing arrives there any more.
fn revoke_in_flight(_: Arguments<'_>) -> Option<u32> {
    let own = &pages::environment().capabilities;
    for (what, by_drop, rings_too) in [
        ("capability dropped", true, false),
        ("rights of devices taken", false, false),
        ("its rings dropped, too", true, true),
    ] {
        let count = 1 + RING_PAGES;
        let rings = pages_for(count * PAGE_BYTES)?;
        let page = rings + RING_PAGES * PAGE_BYTES;
        // What is taken: the page, or all.
        let (start, count) = if rings_too { (rings, count) } else { (page, 1) };
        let header = pages_for(PAGE_BYTES)?;
        let all = rights::READ | rights::WRITE | rights::DMA;
        let part = derive(own.heap[0], start / PAGE_BYTES, count, all).ok()?;
        kernel::raw(Call::DmaGrant, [0, part.0, 0, count, 3]).ok()?;
        let queue = Queue::of(Handle::NONE, own.queues[0], 0, rings)?;
        queue.bind().ok()?;
        // SAFETY: a page of the heap that nobody else uses.
        unsafe { ((WINDOW_VA + header) as *mut [u64; 2]).write_volatile([IN.into(), FIRST * SECTORS]) };
        queue.descriptor(0, header, 16, NEXT, 1);
        queue.descriptor(1, page, PAGE_BYTES as u32, WRITE | NEXT, 2);
        queue.descriptor(2, header + STATUS_OFFSET, 1, WRITE, 0);
        queue.offer(0, 1);
        let under_way = queue.used(1) == 0;
        if by_drop {
            to_the_end(Call::CapabilityDrop, part).ok()?;
        } else {
            while kernel::raw(Call::DmaGrant, [0, part.0, 0, count, 0]) == Err(Error::Unfinished) {}
        }
        let words = (WINDOW_VA + start) as *mut u64;
        let count = (count * PAGE_BYTES) as usize / 8;
        for word in 0..count {
            // SAFETY: the page is ours alone from here on, if the kernel did what it says.
            unsafe { words.add(word).write_volatile(MARK) };
        }
        let end = clock::tsc() + clock::Scale::new().ticks(LONG_MS * 1_000_000);
        while clock::tsc() < end {
            turn::take(end);
        }
        // SAFETY: as above.
        let arrived = (0..count).filter(|&word| unsafe { words.add(word).read_volatile() } != MARK).count();
        log::info!("probe: read under way, {what}: under way {under_way}, then {arrived} words arrived");
        queue.unbind().ok()?;
    }
    Some(HELD)
}

/// Three reads of a disk that does not answer are under way when their pages are taken: nobody waits for that in the kernel, and
/// none of the calls says that it is done before it is; nor does giving back a range that they are a part of.
fn hanging(_: Arguments<'_>) -> Option<u32> {
    // inc [r9], in turn with us.
    let count = Code::new().load([0x49, 0xB9], DATA_VA).bytes(&[0x49, 0xFF, 0x01]);
    let other = Child::new(count.call(Call::Yield, [0; 5]).for_ever(), rights::WRITE).ok()?;
    other.start(0).ok()?;
    let own = &pages::environment().capabilities;
    let queue = Queue::of(Handle::NONE, own.queues[0], 0, pages_for(RING_PAGES * PAGE_BYTES)?)?;
    queue.bind().ok()?;
    let pause = || kernel::sleep(clock::tsc() + clock::Scale::new().ticks(100_000_000), [sleep::NONE; 4]);
    // Each is the second page of an outer range; of the last one the inner range is as long as that.
    let (mut outer, mut inner) = ([Handle::NONE; 3], [Handle::NONE; 3]);
    for number in 0..3u16 {
        let (start, header) = (pages_for(2 * PAGE_BYTES)?, pages_for(PAGE_BYTES)?);
        let (page, all) = (start + PAGE_BYTES, rights::READ | rights::WRITE | rights::DMA);
        let place = usize::from(number);
        outer[place] = derive(own.heap[0], start / PAGE_BYTES, 2, all).ok()?;
        let (first, count) = if number == 2 { (start, 2) } else { (page, 1) };
        inner[place] = derive(outer[place], first / PAGE_BYTES, count, all).ok()?;
        kernel::raw(Call::DmaGrant, [0, inner[place].0, 0, count, 3]).ok()?;
        // SAFETY: a page of the heap that nobody else uses.
        unsafe { ((WINDOW_VA + header) as *mut [u64; 2]).write_volatile([IN.into(), FIRST * SECTORS]) };
        let first = 3 * number;
        queue.descriptor(first, header, 16, NEXT, first + 1);
        queue.descriptor(first + 1, page, PAGE_BYTES as u32, WRITE | NEXT, first + 2);
        queue.descriptor(first + 2, header + STATUS_OFFSET, 1, WRITE, 0);
        queue.offer(first, number + 1);
        queue.ring();
        // The device takes it, and a thread of the disk begins.
        pause();
    }
    let trim = |range: Handle| kernel::raw(Call::CapabilityTrim, [0, range.0, 1, 0, 0]);
    let (mut unfinished, mut counted) = (trim(inner[2]) == Ok(1), 0);
    for _ in 0..10 {
        let before = other.word();
        unfinished &= kernel::raw(Call::DmaGrant, [0, inner[0].0, 0, 1, 0]) == Err(Error::Unfinished);
        unfinished &= kernel::raw(Call::CapabilityDrop, [0, inner[1].0, 0, 0, 0]) == Ok(1);
        // What is given back here is what devices are at for a range inside.
        unfinished &= trim(outer[1]) == Ok(1);
        unfinished &= trim(outer[2]) == Ok(1);
        kernel::yield_to(Handle::NONE).ok()?;
        counted += u32::from(other.word() > before);
    }
    log::info!("probe: unfinished: {unfinished}, the other ran meanwhile: {}", counted >= 9);
    // The host lets go when it reads that.
    let begun = clock::tsc();
    while kernel::raw(Call::DmaGrant, [0, inner[0].0, 0, 1, 0]) == Err(Error::Unfinished) {
        pause();
    }
    for range in [outer[1], outer[2]] {
        while trim(range).ok()? != 0 {}
    }
    let waited_ms = (clock::tsc() - begun) / pages::environment().tsc_khz;
    log::info!("probe: finished behind it: {}", (1..10_000).contains(&waited_ms));
    other.release().ok()?;
    Some(HELD)
}

//! Disks: what is read and written through the driver is what the image on the host holds, and nothing is read or written
//! that the environment does not hold.

use crate::fixture::{Probe, Wire, said, start_with_nic};
use abi::extent::{BLOCK_BYTES, ExtentEntry, READ, WRITE};
use abi::layout::{DIRECT_MAP_VA, MMIO_GPA};
use exovm::account::AccountSnapshot;
use exovm::backend::disk::{Access, RawFile, Store, Zeroing};
use exovm::backend::{IoVec, IoVecMut};
use exovm::machine::{DiskSetup, End, Machine};
use exovm::placement::IoMode;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

const BLOCK: usize = BLOCK_BYTES as usize;
/// Blocks of the images.
const BLOCKS: usize = 1024;

/// An image whose every block says which it is.
fn image_file() -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    let bytes: Vec<u8> = (0..BLOCKS * BLOCK).map(|at| (at / BLOCK * 13 + at % BLOCK * 5) as u8).collect();
    std::fs::write(file.path(), bytes).expect("room");
    file
}

/// Blocks of an image, from the host.
fn on_host(file: &NamedTempFile, start: usize, blocks: usize) -> Vec<u8> {
    let mut bytes = vec![0; blocks * BLOCK];
    file.as_file().read_exact_at(&mut bytes, (start * BLOCK) as u64).expect("within the image");
    bytes
}

/// As the probe shows what it read.
fn checksum(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3));
    format!("{hash:016x}")
}

/// What the probe writes.
fn written(seed: u64, blocks: usize) -> Vec<u8> {
    let byte = |block: u64, at: u64| (seed * 31 + block * 17 + at * 7 + (at >> 8)) as u8;
    (0..blocks as u64).flat_map(|block| (0..BLOCK_BYTES).map(move |at| byte(block, at))).collect()
}

fn setup(file: &NamedTempFile, access: Access) -> DiskSetup {
    DiskSetup::open(file.path(), access).expect("an image")
}

/// Does operations on a disk, with the device work placed as given. The answers and the account.
fn operate(
    file: &NamedTempFile,
    access: Access,
    io: IoMode,
    operations: &[&str],
) -> (Vec<String>, AccountSnapshot) {
    let arguments = [&["disk", "0", "0"], operations].concat();
    let probe = Probe::start(&arguments, |config| {
        config.disks = vec![setup(file, access)];
        config.io = io;
    });
    probe.wait();
    let account = probe.machine.account();
    let log = probe.finish().held();
    let mut lines: Vec<String> = said(&log).map(str::to_owned).collect();
    assert_eq!(lines.remove(0), format!("{BLOCKS} blocks"));
    assert_eq!(lines.pop().as_deref(), Some("end, fault: None"));
    (lines, account)
}

#[test]
fn core_disk_reads_what_the_image_holds() {
    let file = image_file();
    for io in [IoMode::Turn, IoMode::Thread, IoMode::Poll, IoMode::Auto] {
        let operations = ["read:0:1", "read:1023:1", "read:100:256", "batch:7:20"];
        let (lines, account) = operate(&file, Access::ReadWrite, io, &operations);
        let sums: Vec<String> = (7..27).map(|block| checksum(&on_host(&file, block, 1))).collect();
        let expected = [
            format!("read:0:1: {}", checksum(&on_host(&file, 0, 1))),
            format!("read:1023:1: {}", checksum(&on_host(&file, 1023, 1))),
            format!("read:100:256: {}", checksum(&on_host(&file, 100, 256))),
            format!("batch:7:20: [{}]", sums.join(", ")),
        ];
        assert_eq!(lines, expected, "{io:?}");
        assert_eq!(account.disk_counter(0, "reads"), Some(23), "{io:?}");
        let batches = account.disk_counter(0, "batches").expect("a counter");
        assert!(batches <= 23, "{io:?}: {batches}");
    }
}

#[test]
fn core_disk_write_is_in_the_image_and_nothing_else_changes() {
    for io in [IoMode::Turn, IoMode::Thread] {
        let file = image_file();
        let before = on_host(&file, 0, BLOCKS);
        let operations = ["write:5:1:3", "write:500:256:4", "read:500:256", "flush"];
        let (lines, account) = operate(&file, Access::ReadWrite, io, &operations);
        let expected = [
            "write:5:1:3: Ok(())".to_owned(),
            "write:500:256:4: Ok(())".to_owned(),
            format!("read:500:256: {}", checksum(&written(4, 256))),
            "flush: Ok(())".to_owned(),
        ];
        assert_eq!(lines, expected, "{io:?}");
        let mut wanted = before;
        wanted[5 * BLOCK..6 * BLOCK].copy_from_slice(&written(3, 1));
        wanted[500 * BLOCK..756 * BLOCK].copy_from_slice(&written(4, 256));
        assert!(on_host(&file, 0, BLOCKS) == wanted, "{io:?}: the image is as it should be");
        assert_eq!(account.disk_counter(0, "written bytes"), Some(257 * BLOCK_BYTES), "{io:?}");
    }
}

/// An image that counts how it is used. The disk's flush must arrive here, which in a file is `fdatasync`.
#[derive(Debug)]
struct Counting {
    file: RawFile,
    flushes: AtomicU64,
    reads: AtomicU64,
    /// Flushes wait for it, and reads if none is at hand.
    gate: Mutex<()>,
    nothing_at_hand: bool,
}

impl Counting {
    fn new(file: &NamedTempFile) -> Arc<Self> {
        let file = RawFile::open(file.path(), Access::ReadWrite).expect("an image");
        let nothing_at_hand = false;
        Arc::new(Self {
            file,
            flushes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            gate: Mutex::default(),
            nothing_at_hand,
        })
    }

    /// Every read waits.
    fn with_nothing_at_hand(file: &NamedTempFile) -> Arc<Self> {
        let store = Arc::into_inner(Self::new(file)).expect("made just now");
        Arc::new(Self { nothing_at_hand: true, ..store })
    }
}

impl Store for Counting {
    fn len_bytes(&self) -> u64 {
        self.file.len_bytes()
    }
    fn access(&self) -> Access {
        self.file.access()
    }
    fn read_at_once(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<Option<usize>> {
        if self.nothing_at_hand { Ok(None) } else { self.file.read_at_once(offset, pieces) }
    }
    fn read(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let _gate = self.nothing_at_hand.then(|| self.gate.lock());
        self.file.read(offset, pieces)
    }
    fn write(&self, offset: u64, pieces: &[IoVec<'_>]) -> io::Result<usize> {
        self.file.write(offset, pieces)
    }
    fn flush(&self) -> io::Result<()> {
        // The second one fails, as on a disk that is going.
        let before = self.flushes.fetch_add(1, Ordering::Relaxed);
        let _gate = self.gate.lock();
        match before {
            1 => Err(io::Error::from_raw_os_error(5)),
            _ => self.file.flush(),
        }
    }
    fn discard(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        self.file.discard(offset, len_bytes)
    }
    fn write_zeroes(&self, offset: u64, len_bytes: u64, zeroing: Zeroing) -> io::Result<()> {
        self.file.write_zeroes(offset, len_bytes, zeroing)
    }
}

#[test]
fn core_disk_flush_reaches_the_image_and_its_failure_the_guest() {
    let file = image_file();
    let store = Counting::new(&file);
    let disk = DiskSetup { store: Arc::clone(&store) as _ };
    let arguments = ["disk", "0", "0", "write:1:1:1", "flush", "flush", "flush"];
    let probe = Probe::start(&arguments, |config| config.disks = vec![disk]);
    probe.wait();
    let account = probe.machine.account();
    let log = probe.finish().held();
    let lines: Vec<&str> = said(&log).collect();
    let expected = ["write:1:1:1: Ok(())", "flush: Ok(())", "flush: Err(Io)", "flush: Ok(())"];
    assert_eq!(lines[1..5], expected);
    assert_eq!(store.flushes.load(Ordering::Relaxed), 3);
    assert_eq!(account.disk_counter(0, "flushes"), Some(2));
    assert_eq!(account.disk_counter(0, "host errors"), Some(1));
}

/// The guest gives its queue back while the host's disk does not answer.
#[test]
fn core_disk_that_hangs_holds_up_neither_the_account_nor_the_end_of_the_machine() {
    for io in [IoMode::Turn, IoMode::Thread] {
        let store = Counting::new(&image_file());
        let disk = DiskSetup { store: Arc::clone(&store) as _ };
        let arguments = ["disk", "0", "0", "leave-flush"];
        let probe;
        // Let go before the machine goes, which waits for its threads.
        let gate = store.gate.lock().expect("no panic");
        probe = Probe::start(&arguments, |config| {
            config.disks = vec![disk];
            config.io = io;
        });
        let begun = Instant::now();
        while store.flushes.load(Ordering::Relaxed) == 0
            || !said(&probe.log()).any(|line| line.starts_with("end"))
        {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", probe.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        // By now the guest asks for the reset.
        std::thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        let account = probe.machine.account();
        assert_eq!(
            (account.disk_counter(0, "handed over"), account.disk_counter(0, "flushes")),
            (Some(1), Some(0))
        );
        assert_eq!(probe.machine.end(Duration::from_millis(300)), End::Stopped);
        assert!(begun.elapsed() < Duration::from_secs(5), "{io:?}: {:?}", begun.elapsed());
        drop(gate);
    }
}

#[test]
fn core_disk_that_hangs_holds_up_who_takes_what_it_is_at_and_nobody_else() {
    for (io, vcpus) in [(IoMode::Turn, 1), (IoMode::Thread, 1), (IoMode::Thread, 2)] {
        let store = Counting::with_nothing_at_hand(&image_file());
        let disk = DiskSetup { store: Arc::clone(&store) as _ };
        let probe;
        // Let go before the machine goes, which waits for its threads.
        let gate = store.gate.lock().expect("no panic");
        probe = Probe::start(&["hanging"], |config| {
            config.disks = vec![disk];
            config.io = io;
            config.vcpus = Some(vcpus);
            config.environments = Some(1);
            config.spare_environments = Some(1);
        });
        let begun = Instant::now();
        while !said(&probe.log()).any(|line| line.starts_with("unfinished")) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{io:?}, {vcpus}: {:?}", probe.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(store.reads.load(Ordering::Relaxed), 3, "all are under way");
        drop(gate);
        probe.wait();
        let log = probe.finish().held();
        let lines: Vec<&str> = said(&log).collect();
        let expected = ["unfinished: true, the other ran meanwhile: true", "finished behind it: true"];
        assert_eq!(lines[..2], expected, "{io:?}, {vcpus} vCPUs");
    }
}

#[test]
fn core_disk_discard_gives_blocks_back_to_the_host() {
    let file = image_file();
    let allocated = || file.as_file().metadata().expect("metadata").blocks();
    file.as_file().sync_all().expect("synced");
    let before = allocated();
    let (lines, _) = operate(&file, Access::ReadWrite, IoMode::Turn, &["discard:512:512", "read:511:2"]);
    assert_eq!(lines[0], "discard:512:512: Ok(())");
    assert_eq!(lines[1], format!("read:511:2: {}", checksum(&on_host(&file, 511, 2))));
    let after = allocated();
    // `st_blocks` counts units of 512 bytes.
    assert!(after <= before - 512 * 8 + 64, "{before} -> {after}");
}

#[test]
fn core_disk_read_only_refuses_writes() {
    let file = image_file();
    let before = on_host(&file, 0, BLOCKS);
    let operations = ["write:0:1:1", "discard:0:1", "read:3:1"];
    let (lines, _) = operate(&file, Access::ReadOnly, IoMode::Turn, &operations);
    let expected = [
        "write:0:1:1: not taken: ReadOnly".to_owned(),
        "discard:0:1: not taken: NotNegotiated".to_owned(),
        format!("read:3:1: {}", checksum(&on_host(&file, 3, 1))),
    ];
    assert_eq!(lines, expected, "the driver knows");
    // And a driver that does not: types 1 (write), 11 (discard) and 13 (zeros).
    for (kind, status) in [(1, "0x1"), (11, "0x2"), (13, "0x2")] {
        let (lines, account) = raw_request(&file, Access::ReadOnly, [kind, GOOD_PAGE, BLOCK_BYTES, 0, 16, 2]);
        assert_eq!(lines, [format!("the device used 1 chains, status {status}"), GOOD_READ.to_owned()]);
        assert_eq!(account.disk_counter(0, "queues stopped"), Some(0));
    }
    assert!(on_host(&file, 0, BLOCKS) == before);
}

/// Memory of the machines that [`raw_request`] makes, and a page of their heap.
const MEMORY_BYTES: u64 = 64 << 20;
const GOOD_PAGE: u64 = 32 << 20;
/// What the probe says of the read that it ends with.
const GOOD_READ: &str = "the device used 1 chains, status 0x0";
/// VIRTQ_DESC_F_WRITE.
const DEVICE_WRITES: u64 = 2;

/// One request of the probe's own making: type, data address, data length, data flags, header length, status flags. What the
/// device answered to it and to the good one behind it.
fn raw_request(file: &NamedTempFile, access: Access, request: [u64; 6]) -> (Vec<String>, AccountSnapshot) {
    let words = request.map(|word| format!("{word:#x}"));
    let arguments: Vec<&str> = ["disk-request"].into_iter().chain(words.iter().map(String::as_str)).collect();
    let probe = Probe::start(&arguments, |config| {
        config.disks = vec![setup(file, access)];
        config.memory_bytes = Some(MEMORY_BYTES);
    });
    probe.wait();
    let account = probe.machine.account();
    let log = probe.finish().held();
    let lines: Vec<String> = said(&log).map(str::to_owned).collect();
    let (bindings, answers): (Vec<String>, Vec<String>) =
        lines.into_iter().partition(|line| line.starts_with("bind") || line.starts_with("unbind"));
    assert!(bindings.iter().all(|line| line.ends_with("Ok(())")), "{bindings:?}");
    (answers, account)
}

#[test]
fn core_disk_request_outside_the_domain_stops_the_queue_and_touches_nothing() {
    let file = image_file();
    let before = on_host(&file, 0, BLOCKS);
    let end = MEMORY_BYTES;
    for gpa in [0, 0x1000, end, end - 512, MMIO_GPA, DIRECT_MAP_VA, u64::MAX - 4095] {
        for (kind, flags) in [(0, DEVICE_WRITES), (1, 0)] {
            let request = [kind, gpa, BLOCK_BYTES, flags, 16, DEVICE_WRITES];
            let (lines, account) = raw_request(&file, Access::ReadWrite, request);
            assert_eq!(lines, ["the device used 0 chains, status 0xee", GOOD_READ], "{request:x?}");
            assert_eq!(account.disk_counter(0, "queues stopped"), Some(1), "{request:x?}");
        }
    }
    assert!(on_host(&file, 0, BLOCKS) == before);
}

#[test]
fn core_disk_request_without_header_or_status_stops_the_queue() {
    let file = image_file();
    for request in [
        [4, GOOD_PAGE, BLOCK_BYTES, DEVICE_WRITES, 15, DEVICE_WRITES], // a header that is too short
        [1, GOOD_PAGE, BLOCK_BYTES, 0, 16, 0],                         // no byte for the status
        [0, GOOD_PAGE, BLOCK_BYTES, DEVICE_WRITES, 16, 0],             // a status that cannot be written
        [1, GOOD_PAGE, 0, 0, 16, DEVICE_WRITES],                       // a descriptor of no bytes
    ] {
        let (lines, account) = raw_request(&file, Access::ReadWrite, request);
        assert_eq!(lines, ["the device used 0 chains, status 0xee", GOOD_READ], "{request:x?}");
        assert_eq!(account.disk_counter(0, "queues stopped"), Some(1), "{request:x?}");
    }
}

#[test]
fn core_disk_request_that_makes_no_sense_is_an_error_and_the_queue_goes_on() {
    let file = image_file();
    let before = on_host(&file, 0, BLOCKS);
    for (request, status) in [
        ([0, GOOD_PAGE, 512, DEVICE_WRITES, 16, DEVICE_WRITES], 1), // a sector, no block
        ([1, GOOD_PAGE, 4095, 0, 16, DEVICE_WRITES], 1),
        ([0, GOOD_PAGE, BLOCK_BYTES, 0, 16, DEVICE_WRITES], 1), // a read of what is to be written
        ([1, GOOD_PAGE, BLOCK_BYTES, DEVICE_WRITES, 16, DEVICE_WRITES], 1),
        ([4, GOOD_PAGE, BLOCK_BYTES, 0, 16, DEVICE_WRITES], 1), // a flush with data
        ([11, GOOD_PAGE, 8, 0, 16, DEVICE_WRITES], 1),          // half a segment
        ([0, GOOD_PAGE, 20 << 20, DEVICE_WRITES, 16, DEVICE_WRITES], 1), // more than one request may have
        ([99, GOOD_PAGE, BLOCK_BYTES, 0, 16, DEVICE_WRITES], 2),
        ([u64::from(u32::MAX), GOOD_PAGE, BLOCK_BYTES, 0, 16, DEVICE_WRITES], 2),
    ] {
        let (lines, account) = raw_request(&file, Access::ReadWrite, request);
        let expected = [format!("the device used 1 chains, status {status:#x}"), GOOD_READ.to_owned()];
        assert_eq!(lines, expected, "{request:x?}");
        assert_eq!(account.disk_counter(0, "queues stopped"), Some(0), "{request:x?}");
    }
    assert!(on_host(&file, 0, BLOCKS) == before);
}

/// Overwrites the environment's extent for its disk, as the kernel would: taken back first, granted last.
fn set_extent(machine: &Machine, start_block: u64, blocks: u64, rights: u32) {
    let gpa = machine.tables_at().extents_gpa;
    let entry = ExtentEntry { start_block, blocks, environment: 0, device: 0, rights, reserved: 0 };
    let memory = machine.memory();
    let blocks_at = GuestAddress(gpa + 8);
    memory.write_obj(0u64, blocks_at).expect("memory");
    memory.write_slice(ExtentEntry { blocks: 0, ..entry }.as_bytes(), GuestAddress(gpa)).expect("memory");
    memory.write_obj(blocks, blocks_at).expect("memory");
}

/// Starts the probe with operations on a disk and waits until its log has a line that begins so.
fn start_and_wait_for(file: &NamedTempFile, io: IoMode, operations: &[&str], line: &str) -> Probe {
    let arguments = [&["disk", "0", "0"], operations].concat();
    let probe = Probe::start(&arguments, |config| {
        config.disks = vec![setup(file, Access::ReadWrite)];
        config.io = io;
    });
    let end = Instant::now() + Duration::from_secs(30);
    while !said(&probe.log()).any(|said| said.starts_with(line)) {
        assert!(Instant::now() < end, "{:?}", probe.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    probe
}

#[test]
fn core_disk_extents_hold_from_the_next_request_on() {
    let file = image_file();
    let before = on_host(&file, 0, BLOCKS);
    for io in [IoMode::Turn, IoMode::Thread] {
        let operations = [
            "until-refused:10:1",
            "read:9:1",
            "read:8:2",
            "read:9:2",
            "write:8:1:7",
            "discard:8:1",
            "until-read:10:1",
        ];
        let probe = start_and_wait_for(&file, io, &operations, "until-refused:10:1: begins");
        set_extent(&probe.machine, 0, 10, READ);
        let end = Instant::now() + Duration::from_secs(30);
        while !said(&probe.log()).any(|line| line.starts_with("until-read:10:1: begins")) {
            assert!(Instant::now() < end, "{:?}", probe.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        set_extent(&probe.machine, 10, 1, READ | WRITE);
        let log = probe.finish().held();
        let lines: Vec<&str> = said(&log).collect();
        let expected = [
            "1024 blocks".to_owned(),
            "until-refused:10:1: begins".to_owned(),
            "until-refused:10:1: Err(Io), something else before".to_owned(),
            format!("read:9:1: {}", checksum(&before[9 * BLOCK..10 * BLOCK])),
            format!("read:8:2: {}", checksum(&before[8 * BLOCK..10 * BLOCK])),
            // Half of it is not the environment's.
            "read:9:2: Io".to_owned(),
            // It may read these, not write.
            "write:8:1:7: Err(Io)".to_owned(),
            "discard:8:1: Err(Io)".to_owned(),
            "until-read:10:1: begins".to_owned(),
            "until-read:10:1: Ok(()), something else before".to_owned(),
            "end, fault: None".to_owned(),
        ];
        assert_eq!(lines, expected, "{io:?}");
        assert!(on_host(&file, 0, BLOCKS) == before, "{io:?}");
    }
}

#[test]
fn core_disk_cut_short_underneath_is_an_error_and_the_machine_goes_on() {
    let file = image_file();
    let operations = ["until-refused:900:1", "write:901:1:3", "read:1:1"];
    let probe = start_and_wait_for(&file, IoMode::Turn, &operations, "until-refused:900:1: begins");
    file.as_file().set_len(800 * BLOCK_BYTES).expect("cut");
    let log = probe.finish().held();
    let lines: Vec<&str> = said(&log).collect();
    assert_eq!(lines[2], "until-refused:900:1: Err(Io), something else before");
    assert_eq!(lines[3], "write:901:1:3: Err(Io)");
    assert_eq!(lines[4], format!("read:1:1: {}", checksum(&on_host(&file, 1, 1))));
    assert_eq!(file.as_file().metadata().expect("metadata").len(), 800 * BLOCK_BYTES, "no hole was written");
}

#[test]
fn core_disks_beside_a_nic_have_numbers_of_their_own() {
    let (first, second) = (image_file(), image_file());
    second.as_file().write_all_at(&written(9, 1), 0).expect("room");
    let wire = Wire::default();
    for (device, file) in [("1", &first), ("2", &second)] {
        let arguments = ["disk", device, "3", "read:0:1", "write:2:1:5"];
        let probe = start_with_nic(&arguments, &wire, |config| {
            config.disks = vec![setup(&first, Access::ReadWrite), setup(&second, Access::ReadWrite)];
        });
        let log = probe.finish().held();
        let lines: Vec<&str> = said(&log).collect();
        assert_eq!(lines[1], format!("read:0:1: {}", checksum(&on_host(file, 0, 1))));
        assert_eq!(lines[2], "write:2:1:5: Ok(())");
        assert_eq!(on_host(file, 2, 1), written(5, 1));
    }
}

#[test]
fn core_disk_image_is_locked_as_long_as_the_machine_has_it() {
    let file = image_file();
    let probe = Probe::start(&["disk", "0", "0", "read:0:1"], |config| {
        config.disks = vec![setup(&file, Access::ReadWrite)];
    });
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let error = DiskSetup::open(file.path(), access).err().expect("locked").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    }
    probe.finish().held();
    let reader = setup(&file, Access::ReadOnly);
    let another = setup(&file, Access::ReadOnly);
    assert!(DiskSetup::open(file.path(), Access::ReadWrite).is_err(), "readers keep writers out");
    drop((reader, another));
    drop(setup(&file, Access::ReadWrite));
}

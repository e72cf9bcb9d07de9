//! The disk under requests that are well formed, mostly for blocks at the edges of what the driver holds: what each is answered, which
//! bytes move, and that nothing else changes, is what a disk as plain as possible says.

use super::disk::{AtHand, BLOCKS, InMemory, set_extent};
use super::driver::{Driver, Piece};
use super::guest::{self, BYTES, EXTENTS, Extent, Guest, OWN, OWN_GPA};
use super::ops::{BUFFERS, Worker};
use crate::input::Input;
use abi::domain::Rights;
use abi::extent::{BLOCK_BYTES, DISCARD_BLOCKS_MAX, READ, WRITE};
use exovm::device::virtio::QueueState;
use exovm::device::virtio::block::Block;
use exovm::tables::DmaDomain;
use std::time::{Duration, Instant};

/// Where a request's header lies, its status, and from which page on its data.
const HEADER_GPA: u64 = OWN_GPA + BUFFERS;
const STATUS_GPA: u64 = HEADER_GPA + 0x100;
const DATA_GPA: u64 = HEADER_GPA + BLOCK_BYTES;
/// Pages for data, of the driver's.
const PAGES: u64 = (BYTES - BUFFERS) / BLOCK_BYTES - 1;
/// Statuses: those of VIRTIO 1.3 5.2.6.
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
/// What is nothing's status.
const UNTOUCHED: u8 = 0xEE;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// What is known.
struct Model<'s> {
    driver: Driver<Block<DmaDomain>>,
    store: &'s InMemory,
    disk: Vec<u8>,
    /// What devices may do with the data pages.
    pages: [Rights; PAGES as usize],
    /// How often data was made up.
    fills: u8,
}

/// A request.
#[derive(Debug)]
struct Request {
    queue: u16,
    kind: u32,
    sector: u64,
    /// Its data: where, how much, and whether the device is to write it.
    gpa: u64,
    bytes: u64,
    writable: bool,
    /// What a discard or writing of zeros says besides, in that data.
    sectors: u32,
    flags: u32,
}

/// What becomes of one.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Status(u8),
    /// The chain is not one that the device may follow.
    Stopped,
}

pub(super) fn run(guest: Guest, device: Block<DmaDomain>, store: &InMemory, mut input: Input<'_>) {
    let driver = Driver::new(guest, device);
    let pages = [Rights::ReadWrite; PAGES as usize];
    let mut model = Model { driver, store, disk: store.content(), pages, fills: 0 };
    while !input.is_empty() {
        match input.below(8) {
            0 => model.change_extent(&mut input),
            1 => model.change_page(&mut input),
            2 => store.set_at_hand([AtHand::All, AtHand::Half, AtHand::Nothing][usize::from(input.below(3))]),
            _ => model.request(&mut input),
        }
        store.check();
    }
    model.driver.bench.guest.check();
}

impl Model<'_> {
    fn change_extent(&mut self, input: &mut Input<'_>) {
        let index = usize::from(input.below(EXTENTS as u8));
        let (start, blocks) = (input.below(BLOCKS as u8).into(), input.below(6).into());
        let (environment, device) = match input.below(8) {
            0 => (OWN + 1, 0),
            1 => (OWN, 1),
            _ => (OWN, 0),
        };
        let rights = [READ | WRITE, READ, WRITE, 0][usize::from(input.below(4))];
        set_extent(&mut self.driver.bench, index, Extent { environment, device, start, blocks, rights });
    }

    fn change_page(&mut self, input: &mut Input<'_>) {
        let page = u64::from(input.below(PAGES as u8));
        let rights = [Rights::ReadWrite, Rights::Read, Rights::Write, Rights::None];
        let rights = rights[usize::from(input.below(4))];
        self.driver.bench.guest.grant(DATA_GPA + page * BLOCK_BYTES, BLOCK_BYTES, rights);
        self.pages[page as usize] = rights;
    }

    /// Makes a request, and compares everything.
    fn request(&mut self, input: &mut Input<'_>) {
        let request = Request::read(input);
        let before = self.prepare(&request);
        let mut pieces = vec![Piece { gpa: HEADER_GPA, len: 16, writable: false }];
        // The data in one piece, or in two.
        let cut = if input.below(2) == 0 { 0 } else { u64::from(input.u16()).min(request.bytes) };
        for (at, len) in [(0, cut), (cut, request.bytes - cut)] {
            if len > 0 {
                let piece = Piece { gpa: request.gpa + at, len: len as u32, writable: request.writable };
                pieces.push(piece);
            }
        }
        pieces.push(Piece { gpa: STATUS_GPA, len: 1, writable: true });
        let expected = self.expect(&request);
        self.driver.post(request.queue, 0, &pieces);
        let (answer, written) = self.answer(request.queue);
        assert_eq!(answer, expected, "{request:x?} with {:?}", self.driver.bench.guest.extents);
        let data = self.driver.read(request.gpa, before.len());
        let moved = answer == Answer::Status(OK) && request.writable;
        if answer != Answer::Stopped {
            assert_eq!(u64::from(written), 1 + if moved { request.bytes } else { 0 }, "{request:x?}");
        }
        match request.kind {
            0 if moved => assert!(data == self.disk[self.range(&request)], "{request:x?}: other blocks"),
            8 if moved => assert!(data.starts_with(b"exovm-disk-0")),
            _ => assert!(data == before, "{request:x?}: memory has changed"),
        }
        if answer == Answer::Status(OK) {
            self.apply(&request, &data);
        }
        assert!(self.store.content() == self.disk, "{request:x?}: the disk is not what it should be");
    }

    /// Writes header and data; what is in the place of the data then, as far as it is the driver's.
    fn prepare(&mut self, request: &Request) -> Vec<u8> {
        self.fills = self.fills.wrapping_add(1);
        let own = request.bytes.min(OWN_GPA + BYTES - request.gpa) as usize;
        let mut data = vec![self.fills; own];
        if matches!(request.kind, 11 | 13) {
            let mut segment = request.sector.to_le_bytes().to_vec();
            segment.extend(request.sectors.to_le_bytes());
            segment.extend(request.flags.to_le_bytes());
            data.iter_mut().zip(segment).for_each(|(to, byte)| *to = byte);
        }
        let mut header = request.kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(request.sector.to_le_bytes());
        let guest = &self.driver.bench.guest;
        guest.write(request.gpa, &data);
        guest.write(HEADER_GPA, &header);
        guest.write(STATUS_GPA, &[UNTOUCHED]);
        data
    }

    /// What the queue gives back.
    fn answer(&mut self, queue: u16) -> (Answer, u32) {
        let end = Instant::now() + PATIENCE;
        loop {
            <Block<DmaDomain> as Worker>::work(&mut self.driver.bench);
            if let Some((head, written)) = self.driver.used(queue) {
                assert_eq!(head, 0, "a chain that there is not");
                return (Answer::Status(self.driver.read(STATUS_GPA, 1)[0]), written);
            }
            if matches!(self.driver.bench.function.queue_states()[usize::from(queue)], QueueState::Stopped(_))
            {
                assert_eq!(self.driver.read(STATUS_GPA, 1), [UNTOUCHED]);
                self.driver.reset(queue);
                return (Answer::Stopped, 0);
            }
            assert!(Instant::now() < end, "a request that is never answered");
            std::thread::yield_now();
        }
    }

    fn expect(&self, request: &Request) -> Answer {
        let pages = request.gpa / BLOCK_BYTES..(request.gpa + request.bytes).div_ceil(BLOCK_BYTES);
        let wanted = |page: u64| {
            let rights = page.checked_sub(DATA_GPA / BLOCK_BYTES).and_then(|at| self.pages.get(at as usize));
            match rights {
                Some(Rights::ReadWrite) => true,
                Some(Rights::Read) => !request.writable,
                Some(Rights::Write) => request.writable,
                _ => false,
            }
        };
        if request.bytes > 0 && !pages.clone().all(wanted) {
            return Answer::Stopped;
        }
        Answer::Status(self.expect_status(request))
    }

    fn expect_status(&self, request: &Request) -> u8 {
        let is_whole = |bytes: u64| bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES);
        let is_there = |bytes: u64| {
            is_whole(bytes)
                && request.sector.is_multiple_of(8)
                && request.sector / 8 + bytes / BLOCK_BYTES <= BLOCKS
        };
        let holds = |bytes: u64, rights: u32| {
            let start = request.sector / 8;
            self.driver.bench.guest.extents.allow(start..start + bytes / BLOCK_BYTES, rights)
        };
        let status = |good: bool| if good { OK } else { IO_ERROR };
        let data_to = |writable: bool| request.bytes == 0 || request.writable == writable;
        match request.kind {
            0 => status(data_to(true) && is_there(request.bytes) && holds(request.bytes, READ)),
            1 => status(data_to(false) && is_there(request.bytes) && holds(request.bytes, WRITE)),
            4 => status(request.bytes == 0),
            8 => status(request.bytes == 20 && request.writable),
            11 | 13 => {
                let bytes = u64::from(request.sectors) * 512;
                let good = request.bytes == 16
                    && !request.writable
                    && is_there(bytes)
                    && bytes <= DISCARD_BLOCKS_MAX * BLOCK_BYTES;
                match request.flags {
                    _ if !good => IO_ERROR,
                    0 => status(holds(bytes, WRITE)),
                    1 if request.kind == 13 => status(holds(bytes, WRITE)),
                    _ => UNSUPPORTED,
                }
            }
            _ => UNSUPPORTED,
        }
    }

    /// The bytes of the disk that are meant.
    fn range(&self, request: &Request) -> std::ops::Range<usize> {
        let bytes =
            if request.kind == 13 { u64::from(request.sectors) * 512 } else { request.bytes } as usize;
        let start = (request.sector * 512) as usize;
        start..start + bytes
    }

    fn apply(&mut self, request: &Request, data: &[u8]) {
        match request.kind {
            1 => {
                assert!(!guest::holds_foreign(data));
                let range = self.range(request);
                self.disk[range].copy_from_slice(data);
            }
            13 => {
                let range = self.range(request);
                self.disk[range].fill(0);
            }
            _ => {}
        }
    }
}

impl Request {
    fn read(input: &mut Input<'_>) -> Self {
        let kind = match input.below(12) {
            0..=2 => 0,
            3..=5 => 1,
            6 => 4,
            7 => 8,
            8 => 11,
            9 => 13,
            10 => u32::from(input.u8()),
            _ => input.u32(),
        };
        // Mostly whole blocks, one or a few.
        let (start, count, odd) = (u64::from(input.below(BLOCKS as u8 + 2)), 1 + input.below(3), input.u8());
        let sector = match odd >> 4 {
            0 => start * 8 + u64::from(input.below(8)),
            1 => input.u64() >> 8,
            _ => start * 8,
        };
        let mut bytes = match kind {
            0 | 1 => u64::from(count) * BLOCK_BYTES,
            8 => 20,
            11 | 13 => 16,
            _ => 0,
        };
        if odd & 15 == 0 {
            bytes = u64::from(input.u16()) % (4 * BLOCK_BYTES);
        }
        let sectors = if odd & 15 == 1 { input.u32() } else { u32::from(count) * 8 };
        let flags = if odd & 15 == 2 { input.u32() } else { u32::from(input.below(2)) };
        let writable = matches!(kind, 0 | 8) != (odd & 15 == 3);
        // Also behind the driver's last page, where the other's begin.
        let place = input.u8();
        let within = if place & 0x80 == 0 { 0 } else { u64::from(input.u8()) * 16 };
        let gpa = DATA_GPA + u64::from(place) % PAGES * BLOCK_BYTES + within;
        Self { queue: input.below(2).into(), kind, sector, gpa, bytes, writable, sectors, flags }
    }
}

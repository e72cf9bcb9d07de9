//! The VMM's devices in the hands of a hostile driver: everything that an environment and its kernel could write, in any order, with
//! device work in between. What the driver's domain does not allow must be as it was at the end.

mod guest;
mod ops;

use abi::extent::{READ, WRITE};
use exovm::backend::disk::{Access, Store, Zeroing};
use exovm::backend::iovec::{gather, scatter};
use exovm::backend::{Backend, BackendError, FRAME_BYTES_MAX, IoVec, IoVecMut, Offloads, Written};
use exovm::device::virtio::block::{self, Block, BlockConfig};
use exovm::device::virtio::console::{Begin, Console, HostPort, PortConfig, PortKind};
use exovm::device::virtio::net::{self, Net, NetConfig};
use exovm::tables::DmaDomain;
use guest::{Guest, OWN};
use ops::{Bench, Worker};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::input::Input;

/// A wire on which frames wait; what is sent is looked at and gone.
#[derive(Clone, Debug, Default)]
struct Wire(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl Backend for Wire {
    fn write_frame(&mut self, pieces: &[IoVec<'_>]) -> Written {
        let mut frame = vec![0; FRAME_BYTES_MAX];
        let len = gather(pieces, 0, &mut frame);
        assert!(!guest::holds_foreign(&frame[..len]), "foreign memory was sent");
        Written::Sent
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        let frame = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        Ok(frame.map(|frame| scatter(buffers, 0, &frame)))
    }

    fn set_offloads(&mut self, _: Offloads) -> Result<(), BackendError> {
        Ok(())
    }

    fn event_fd(&self) -> Option<RawFd> {
        None
    }
}

impl Worker for Net<DmaDomain, Wire> {
    fn work(bench: &mut Bench<Self>) {
        bench.function.work(&bench.ledger, net::Budget { send_frames: 16, receive_frames: 16 });
    }

    fn world(bench: &mut Bench<Self>, input: &mut Input<'_>) {
        let len = usize::from(input.u8());
        let mut frame = vec![0; 12];
        frame.extend_from_slice(input.bytes(len));
        let wire = bench.function.device().backend().clone();
        let mut frames = wire.0.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() < 16 {
            frames.push_back(frame);
        }
    }
}

/// The NIC.
pub fn net(bytes: &[u8]) {
    let mut guest = Guest::new();
    guest.guardian(OWN as u16, 0, 2);
    let config = NetConfig {
        device_index: 0,
        queue_pairs: 2,
        queue_size_max: 64,
        mac: [2, 0, 0, 0, 0, 1],
        mtu_bytes: 1500,
    };
    let device = Net::new(config, guest.tables.clone(), guest.tables.flows(), Wire::default());
    ops::run(guest, device.expect("possible"), bytes);
}

/// Blocks of the disk.
const BLOCKS: u64 = 16;
/// Those that the driver's environment holds, from the first on.
const OWN_BLOCKS: u64 = 8;

/// A disk in memory.
struct InMemory(Mutex<Vec<u8>>);

impl InMemory {
    fn with<R>(&self, offset: u64, act: impl FnOnce(&mut [u8]) -> R) -> io::Result<R> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = usize::try_from(offset).ok().filter(|offset| *offset <= bytes.len());
        let Some(offset) = offset else { return Err(io::ErrorKind::InvalidInput.into()) };
        Ok(act(&mut bytes[offset..]))
    }
}

impl Store for InMemory {
    fn len_bytes(&self) -> u64 {
        BLOCKS * 4096
    }

    fn access(&self) -> Access {
        Access::ReadWrite
    }

    fn read_at_once(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<Option<usize>> {
        self.read(offset, pieces).map(Some)
    }

    fn read(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<usize> {
        assert!(offset < OWN_BLOCKS * 4096, "a foreign block was read");
        self.with(offset, |bytes| scatter(pieces, 0, bytes))
    }

    fn write(&self, offset: u64, pieces: &[IoVec<'_>]) -> io::Result<usize> {
        self.with(offset, |bytes| gather(pieces, 0, bytes))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, _: Zeroing) -> io::Result<()> {
        self.with(offset, |bytes| {
            let len = bytes.len().min(len_bytes as usize);
            bytes[..len].fill(0);
        })
    }
}

impl Worker for Block<DmaDomain> {
    fn work(bench: &mut Bench<Self>) {
        bench.function.work(&bench.ledger, block::Budget::default());
    }

    fn world(bench: &mut Bench<Self>, input: &mut Input<'_>) {
        // The kernel changes what the environment holds of it.
        bench.guest.extent(
            1,
            OWN,
            u64::from(input.below(7)),
            u64::from(input.below(3)),
            u32::from(input.below(4)),
        );
    }
}

/// The disk.
pub fn block(bytes: &[u8]) {
    let guest = Guest::new();
    guest.extent(0, OWN, 0, OWN_BLOCKS - 2, READ | WRITE);
    let mut content = vec![0; (BLOCKS * 4096) as usize];
    guest::fill_foreign(&mut content[(OWN_BLOCKS * 4096) as usize..]);
    let store = Arc::new(InMemory(Mutex::new(content)));
    let event = EventFd::new(EFD_NONBLOCK).expect("an event descriptor");
    let config = BlockConfig { device_index: 0, queues: 2, queue_size_max: 64 };
    let extents = guest.tables.extents().clone();
    let device = Block::new(config, guest.tables.clone(), extents, Arc::clone(&store) as _, event);
    ops::run(guest, device.expect("possible"), bytes);
    let content = store.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (own, foreign) = content.split_at((OWN_BLOCKS * 4096) as usize);
    assert!(guest::is_foreign(foreign), "a foreign block was written");
    assert!(!guest::holds_foreign(own), "foreign memory was written to the disk");
}

/// Ports of the console.
const PORTS: [PortConfig; 2] = [
    PortConfig { name: "console", kind: PortKind::Console },
    PortConfig { name: "results", kind: PortKind::Stream },
];

impl Worker for Console<DmaDomain> {
    fn work(bench: &mut Bench<Self>) {
        bench.function.work(&bench.ledger);
    }

    fn world(bench: &mut Bench<Self>, input: &mut Input<'_>) {
        let ports: Vec<Arc<HostPort>> = bench.function.device().host_ports().to_vec();
        let port = &ports[usize::from(input.u8()) % ports.len()];
        let begin = if input.u8() & 1 == 0 { Begin::Unseen } else { Begin::Recent };
        let Ok(session) = port.attach(begin, Default::default()) else { return };
        let len = usize::from(input.u8());
        session.write(input.bytes(len));
        <Self as Worker>::work(bench);
        let mut seen = [0; 256];
        let count = session.peek(&mut seen);
        assert!(!guest::holds_foreign(&seen[..count]), "foreign memory was sent");
        session.advance(count);
    }
}

/// The host channel.
pub fn console(bytes: &[u8]) {
    let guest = Guest::new();
    let event = EventFd::new(EFD_NONBLOCK).expect("an event descriptor");
    let device = Console::new(0, &PORTS, guest.tables.clone(), event);
    ops::run(guest, device.expect("possible"), bytes);
}

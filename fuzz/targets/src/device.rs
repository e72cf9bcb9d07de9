//! The VMM's devices in the hands of a hostile driver: everything that an environment and its kernel could write, in any order, with
//! device work in between. What the driver's domain does not allow must be as it was at the end. Beside that, disk and console in the
//! hands of a driver that keeps to the rules and asks for anything: there a model says what each answer is.

mod channel;
mod channel_model;
mod disk;
mod disk_model;
mod driver;
mod guest;
mod ops;

pub use channel::console;
pub use disk::block;

use exovm::backend::iovec::{gather, scatter};
use exovm::backend::{Backend, BackendError, FRAME_BYTES_MAX, IoVec, IoVecMut, Offloads, Written};
use exovm::device::virtio::net::{self, Net, NetConfig};
use exovm::tables::DmaDomain;
use guest::{Guest, OWN};
use ops::{Bench, Worker};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::input::Input;

/// Whether the first byte says that the driver keeps to the rules, so that what the device must do is known to the bit. Otherwise
/// it does anything, and only what must never be is looked for.
fn keeps_to_the_rules(first: u8) -> bool {
    first >> 4 == 4
}

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
    let mut input = Input(bytes);
    let first = input.u8();
    ops::run(guest, device.expect("possible"), first, input);
}

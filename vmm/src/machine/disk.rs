//! The machine's disks.

use super::MachineError;
use super::boot::Grant;
use super::slots::Slots;
use crate::backend::disk::{Access, DiskError, RawFile, Store};
use crate::device::virtio::Binder;
use crate::device::virtio::block::{Block, BlockConfig, QUEUE_SIZE_MAX};
use crate::placement::Disk;
use crate::tables::{DmaDomain, Tables};
use abi::extent::{READ, WRITE};
use std::path::Path;
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::EventFd;

/// Queues offered: as many as the NIC has pairs.
const QUEUES: u16 = 4;

/// A disk of a machine.
pub struct DiskSetup {
    /// Where its blocks lie.
    pub store: Arc<dyn Store>,
}

impl DiskSetup {
    /// A raw image. It is locked from here on: exclusively if it may be written, shared if it is only read.
    pub fn open(path: &Path, access: Access) -> Result<Self, DiskError> {
        Ok(Self { store: Arc::new(RawFile::open(path, access)?) })
    }
}

/// Makes a disk and puts it into a slot. `finished` is written when it has something to complete that had to wait.
pub(super) fn attach(
    disk: DiskSetup,
    slots: &mut Slots<'_>,
    tables: &Arc<Tables>,
    finished: EventFd,
) -> Result<Arc<Mutex<Disk>>, MachineError> {
    let config =
        BlockConfig { device_index: slots.next_index(), queues: QUEUES, queue_size_max: QUEUE_SIZE_MAX };
    let rights = match disk.store.access() {
        Access::ReadOnly => READ,
        Access::ReadWrite => READ | WRITE,
    };
    let binder: Arc<dyn Binder<DmaDomain>> = Arc::clone(tables) as _;
    let device = Block::new(config, binder, tables.extents().clone(), disk.store, finished)?;
    // All of the disk is the first environment's, until there are more to divide it among.
    let grant = Grant::Extent { blocks: device.capacity_blocks(), rights };
    slots.attach(device, |function| function.device_entry(), grant)
}

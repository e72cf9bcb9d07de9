//! The machine's host channel: which ports there are.

use super::MachineError;
use super::boot::Grant;
use super::slots::Slots;
use crate::device::virtio::Binder;
use crate::device::virtio::console::{Console, HostPort, PortConfig, PortKind};
use crate::placement::Channel;
use crate::tables::{DmaDomain, Tables};
use std::sync::{Arc, Mutex, PoisonError};

/// The ports of every machine. `console` is for people (`exovm console`), `control` for a program that speaks to the image.
const PORTS: [PortConfig; 2] = [
    PortConfig { name: "console", kind: PortKind::Console },
    PortConfig { name: "control", kind: PortKind::Stream },
];

/// Makes the channel and puts it into a slot.
pub(super) fn attach(
    slots: &mut Slots<'_>,
    tables: &Arc<Tables>,
) -> Result<Arc<Mutex<Channel>>, MachineError> {
    let binder: Arc<dyn Binder<DmaDomain>> = Arc::clone(tables) as _;
    let device = Console::new(slots.next_index(), &PORTS, binder, slots.doorbell()?)?;
    slots.attach(device, |function| function.device_entry(), Grant::Queues)
}

/// The hosts' ends of its ports.
pub(super) fn host_ports(channel: &Mutex<Channel>) -> Vec<Arc<HostPort>> {
    channel.lock().unwrap_or_else(PoisonError::into_inner).device().host_ports()
}

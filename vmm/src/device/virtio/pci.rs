//! Virtio over PCI (VIRTIO 1.3 4.1): configuration space, the common configuration registers and the device status. One
//! memory window holds everything:
//!
//! | offset | what |
//! | --- | --- |
//! | 0x0000 | common configuration (4.1.4.3) |
//! | 0x1000 | ISR status (4.1.4.5) |
//! | 0x2000 | device configuration (4.1.4.6) |
//! | 0x3000 | MSI-X table |
//! | 0x3800 | MSI-X pending bits |
//! | 0x10000 + 4096 q | doorbell of queue q (4.1.4.4) |

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::VirtioDevice;
use crate::device::pci::{
    BarWindow, BarWrite, Capability, ConfigSpace, Identity, Interrupt, Msix, MsixRoutes, MsixState,
    PciFunction,
};

mod registers;

#[cfg(test)]
mod tests;

pub(super) use registers::Transport;
pub use registers::{NO_VECTOR, offset, status};

/// Bytes of the window.
pub const BAR_BYTES: u32 = 0x4_0000;
/// Where the common configuration lies in it.
pub const COMMON: u64 = 0x0000;
/// Where the ISR status lies.
const ISR: u64 = 0x1000;
/// Where the device configuration lies.
pub const DEVICE_CONFIG: u64 = 0x2000;
/// Where the MSI-X table lies.
pub const MSIX_TABLE: u64 = 0x3000;
/// Where the pending bits lie.
const MSIX_PENDING: u64 = 0x3800;
/// Where the doorbell of queue 0 lies.
pub const DOORBELLS: u64 = 0x1_0000;
/// `notify_off_multiplier`: a page, so that a doorbell can be mapped alone.
pub const DOORBELL_STRIDE: u32 = 4096;
/// Queues for which there are doorbells, and vectors for which there is a table.
const QUEUES_MAX: u16 = 32;

/// Red Hat, for virtio (4.1.2).
const VENDOR: u16 = 0x1AF4;
const CAPABILITY_VENDOR: u8 = 0x09;
const CAPABILITY_MSIX: u8 = 0x11;
/// MSI-X message control in its capability.
const MSIX_CONTROL: usize = 2;
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_FUNCTION_MASK: u16 = 1 << 14;

/// Where a device is on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciPlace {
    /// Device number; bus and function are 0.
    pub device_number: u8,
    /// Where the window shall lie: a multiple of [`BAR_BYTES`].
    pub bar_gpa: u32,
}

/// Why a function cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PciError {
    /// The BAR.
    #[error("a window at {bar_gpa:#x} is not possible; use a multiple of {BAR_BYTES:#x}, not 0")]
    Window {
        /// What was asked for.
        bar_gpa: u32,
    },
    /// One interrupt a queue and one for configuration changes.
    #[error("the device has {wanted} MSI-X vectors, not {given}")]
    Vectors {
        /// What there must be.
        wanted: u16,
        /// What was given.
        given: usize,
    },
    /// Doorbells.
    #[error("the device has {queues} queues; the window has doorbells for {QUEUES_MAX}")]
    Queues {
        /// What the device has.
        queues: u16,
    },
}

/// A virtio device as a PCI function.
pub struct VirtioPci<D> {
    place: PciPlace,
    config: ConfigSpace,
    msix_capability: usize,
    access_capability: usize,
    window: Arc<BarWindow>,
    pub(super) transport: Transport,
    pub(super) device: D,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// A function that does not decode its window yet. `interrupts` are one a queue, and one for configuration changes.
    pub fn new(
        device: D,
        place: PciPlace,
        interrupts: Vec<Arc<dyn Interrupt>>,
        routes: Arc<dyn MsixRoutes>,
    ) -> Result<Self, PciError> {
        let queues = device.queues();
        if place.bar_gpa == 0 || !place.bar_gpa.is_multiple_of(BAR_BYTES) {
            return Err(PciError::Window { bar_gpa: place.bar_gpa });
        }
        if queues > QUEUES_MAX {
            return Err(PciError::Queues { queues });
        }
        if interrupts.len() != usize::from(queues) + 1 {
            return Err(PciError::Vectors { wanted: queues + 1, given: interrupts.len() });
        }
        let identity = Identity {
            vendor: VENDOR,
            // 4.1.2.1: 0x1040 plus the device's number, a revision of at least 1, a subsystem of at least 0x40.
            device: 0x1040 + D::DEVICE_ID,
            revision: 1,
            class: D::CLASS,
            subsystem_vendor: VENDOR,
            subsystem: 0x40,
        };
        let capabilities = [
            vendor_capability(1, COMMON, 0x40, &[]),
            vendor_capability(
                2,
                DOORBELLS,
                QUEUES_MAX as u32 * DOORBELL_STRIDE,
                &DOORBELL_STRIDE.to_le_bytes(),
            ),
            vendor_capability(3, ISR, 1, &[]),
            vendor_capability(4, DEVICE_CONFIG, 0x100, &[]),
            access_capability(),
            msix_capability(queues + 1),
        ];
        let (config, offsets) = ConfigSpace::new(identity, BAR_BYTES, &capabilities);
        Ok(Self {
            place,
            config,
            msix_capability: offsets[5],
            access_capability: offsets[4],
            window: Arc::default(),
            transport: Transport::new(queues, device.queue_size_max(), Msix::new(interrupts, routes)),
            device,
        })
    }

    /// The device behind the registers.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device behind the registers.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Where it is on the bus.
    pub fn place(&self) -> PciPlace {
        self.place
    }

    /// The address of each queue's doorbell, for a 2-byte write, while the window lies where firmware put it. A doorbell that
    /// arrives as an MMIO exit is reported by the bus instead.
    pub fn doorbells(&self) -> Vec<(u64, u16)> {
        let doorbell = |queue| (self.doorbell_gpa(queue), queue);
        (0..self.device.queues()).map(doorbell).collect()
    }

    /// The address of one doorbell.
    pub(super) fn doorbell_gpa(&self, queue: u16) -> u64 {
        u64::from(self.place.bar_gpa) + DOORBELLS + u64::from(queue) * u64::from(DOORBELL_STRIDE)
    }

    /// What the device table says of any device: where its registers are, its queues and features.
    pub(super) fn place_entry(&self) -> abi::boot::Device {
        const { assert!(MSIX_TABLE < BAR_BYTES as u64) };
        let bar_gpa = u64::from(self.place.bar_gpa);
        abi::boot::Device {
            requester_id: u32::from(self.place.device_number) << 3,
            common_gpa: bar_gpa + COMMON,
            doorbell_gpa: self.doorbell_gpa(0),
            msix_table_gpa: bar_gpa + MSIX_TABLE,
            doorbell_stride_bytes: DOORBELL_STRIDE,
            queues: self.device.queues().into(),
            queue_size_max: self.device.queue_size_max().into(),
            features: self.accepted_features(),
            ..abi::boot::Device::default()
        }
    }

    /// The driver's features, once accepted.
    pub fn accepted_features(&self) -> u64 {
        self.transport.accepted_features()
    }

    /// Learns from configuration space what MSI-X shall do.
    fn update_msix(&mut self) {
        let control = self.config.word(self.msix_capability + MSIX_CONTROL);
        let state =
            MsixState { enabled: control & MSIX_ENABLE != 0, masked: control & MSIX_FUNCTION_MASK != 0 };
        if state != self.transport.msix.state() {
            self.transport.msix.set_state(state);
        }
    }

    /// Where the window into the BAR points (4.1.4.9): offset and length.
    fn access_window(&self) -> Option<(u64, usize)> {
        let at = self.access_capability;
        let dword = |at: usize| u32::from(self.config.word(at)) | u32::from(self.config.word(at + 2)) << 16;
        let (bar, offset, len) = (self.config.word(at + 4) as u8, dword(at + 8), dword(at + 12));
        let valid = bar == 0 && matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len) && offset < BAR_BYTES;
        valid.then_some((offset.into(), len as usize))
    }
}

/// A capability that says where a structure lies (4.1.4).
fn vendor_capability(kind: u8, offset: u64, len: u32, more: &[u8]) -> Capability {
    let mut body = vec![16 + more.len() as u8, kind, 0, 0, 0, 0];
    body.extend((offset as u32).to_le_bytes());
    body.extend(len.to_le_bytes());
    body.extend(more);
    Capability { id: CAPABILITY_VENDOR, body, writable: Vec::new() }
}

/// The window through which a driver without memory access reaches the BAR (4.1.4.9).
fn access_capability() -> Capability {
    let capability = vendor_capability(5, 0, 0, &[0; 4]);
    // bar, then id and padding, then offset and length.
    let writable = [[0, 0, 0xFF, 0].as_slice(), &[0, 0], &[0xFF; 8]].concat();
    Capability { writable, ..capability }
}

/// MSI-X (PCI Local Bus 3.0, 6.8.2).
fn msix_capability(vectors: u16) -> Capability {
    let mut body = (vectors - 1).to_le_bytes().to_vec();
    body.extend((MSIX_TABLE as u32).to_le_bytes());
    body.extend((MSIX_PENDING as u32).to_le_bytes());
    Capability {
        id: CAPABILITY_MSIX,
        body,
        writable: (MSIX_ENABLE | MSIX_FUNCTION_MASK).to_le_bytes().to_vec(),
    }
}

impl<D: VirtioDevice> PciFunction for VirtioPci<D> {
    fn config_read(&mut self, at: usize, data: &mut [u8]) {
        if at == self.access_capability + 16
            && let Some((offset, len)) = self.access_window()
            && len == data.len()
        {
            return self.bar_read(offset, data);
        }
        self.config.read(at, data);
    }

    fn config_write(&mut self, at: usize, data: &[u8]) {
        if at == self.access_capability + 16
            && let Some((offset, len)) = self.access_window()
            && len == data.len()
        {
            // A doorbell by this way is served by whoever looks at the queues next.
            self.bar_write(offset, data);
            return;
        }
        let changed = self.config.write(at, data);
        if changed.window {
            self.window.start_gpa.store(self.config.window_gpa(), Ordering::Release);
        }
        if changed.capability {
            self.update_msix();
        }
    }

    fn bar_read(&mut self, at: u64, data: &mut [u8]) {
        data.fill(0);
        match at {
            COMMON..ISR => self.transport.read_common((at - COMMON) as usize, data, &self.device),
            ISR..DEVICE_CONFIG => {
                if let (ISR, Some(first)) = (at, data.first_mut()) {
                    *first = self.transport.take_isr();
                }
            }
            DEVICE_CONFIG..MSIX_TABLE => self.device.read_config((at - DEVICE_CONFIG) as usize, data),
            MSIX_TABLE..MSIX_PENDING => self.transport.msix.read_table((at - MSIX_TABLE) as usize, data),
            MSIX_PENDING..DOORBELLS => self.transport.msix.read_pending((at - MSIX_PENDING) as usize, data),
            _ => {}
        }
    }

    fn bar_write(&mut self, at: u64, data: &[u8]) -> BarWrite {
        match at {
            COMMON..ISR => {
                self.transport.write_common((at - COMMON) as usize, data, &mut self.device);
                let register = (at - COMMON) as usize;
                if matches!(register, offset::QUEUE_ENABLE | offset::QUEUE_RESET | offset::DEVICE_STATUS) {
                    return BarWrite::Queues;
                }
            }
            MSIX_TABLE..MSIX_PENDING => self.transport.msix.write_table((at - MSIX_TABLE) as usize, data),
            DOORBELLS.. => {
                let queue = ((at - DOORBELLS) / u64::from(DOORBELL_STRIDE)) as u16;
                if queue < self.device.queues() {
                    return BarWrite::Doorbell { queue };
                }
            }
            _ => {}
        }
        BarWrite::Register
    }

    fn bar_window(&self) -> Arc<BarWindow> {
        Arc::clone(&self.window)
    }

    fn bar_bytes(&self) -> u64 {
        BAR_BYTES.into()
    }
}

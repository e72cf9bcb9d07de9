//! The common configuration registers (VIRTIO 1.3 4.1.4.3) and the device status behind them (2.1, 3.1).

use super::super::features::RING_RESET;
use super::super::{QueueConfig, QueueInterrupt, VirtioDevice};
use crate::device::pci::Msix;

/// Device status bits (2.1).
pub mod status {
    /// The driver has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// A queue stands still for an error of its driver. Gone when all such queues were reset.
    pub const NEEDS_RESET: u8 = 64;
    /// The driver gave up.
    pub const FAILED: u8 = 128;
}

/// Offsets of the registers.
pub mod offset {
    #![allow(missing_docs, reason = "the names are those of the specification")]
    pub const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub const DEVICE_FEATURE: usize = 0x04;
    pub const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub const DRIVER_FEATURE: usize = 0x0C;
    pub const CONFIG_MSIX_VECTOR: usize = 0x10;
    pub const NUM_QUEUES: usize = 0x12;
    pub const DEVICE_STATUS: usize = 0x14;
    pub const CONFIG_GENERATION: usize = 0x15;
    pub const QUEUE_SELECT: usize = 0x16;
    pub const QUEUE_SIZE: usize = 0x18;
    pub const QUEUE_MSIX_VECTOR: usize = 0x1A;
    pub const QUEUE_ENABLE: usize = 0x1C;
    pub const QUEUE_NOTIFY_OFF: usize = 0x1E;
    pub const QUEUE_DESC: usize = 0x20;
    pub const QUEUE_DRIVER: usize = 0x28;
    pub const QUEUE_DEVICE: usize = 0x30;
    pub const QUEUE_NOTIF_CONFIG_DATA: usize = 0x38;
    pub const QUEUE_RESET: usize = 0x3A;
}

/// `VIRTIO_MSI_NO_VECTOR`.
pub const NO_VECTOR: u16 = 0xFFFF;
/// ISR status: a queue; the configuration (4.1.4.5).
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// The registers of one queue.
#[derive(Clone, Copy, Debug)]
pub(in crate::device::virtio) struct Registers {
    config: QueueConfig,
    vector: u16,
    enabled: bool,
}

impl Registers {
    /// As after a reset (2.6.1).
    fn new(size: u16) -> Self {
        Self { config: QueueConfig { size, ..QueueConfig::default() }, vector: NO_VECTOR, enabled: false }
    }
}

/// Registers and interrupts of a function.
pub(in crate::device::virtio) struct Transport {
    pub(in crate::device::virtio) msix: Msix,
    queue_size_max: u16,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    config_vector: u16,
    status: u8,
    /// What the status was before the last reset.
    status_before_reset: u8,
    isr: u8,
    queue_select: u16,
    queues: Vec<Registers>,
}

impl Transport {
    pub(super) fn new(queues: u16, queue_size_max: u16, msix: Msix) -> Self {
        Self {
            msix,
            queue_size_max,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            status: 0,
            status_before_reset: 0,
            isr: 0,
            queue_select: 0,
            queues: vec![Registers::new(queue_size_max); usize::from(queues)],
        }
    }

    /// As after power-on. The MSI-X table is PCI's and stays.
    fn reset(&mut self) {
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.driver_features = 0;
        self.config_vector = NO_VECTOR;
        if self.status != 0 {
            self.status_before_reset = self.status;
        }
        self.status = 0;
        self.isr = 0;
        self.queue_select = 0;
        self.queues.fill(Registers::new(self.queue_size_max));
    }

    /// The driver's features, once accepted.
    pub(super) fn accepted_features(&self) -> u64 {
        if self.status & status::FEATURES_OK != 0 { self.driver_features } else { 0 }
    }

    /// Reads the ISR status, which clears it.
    pub(super) fn take_isr(&mut self) -> u8 {
        std::mem::take(&mut self.isr)
    }

    /// Shows the driver whether queues stand still, and interrupts it when that begins (2.1.1).
    pub(in crate::device::virtio) fn set_needs_reset(&mut self, needs_reset: bool) {
        let before = self.status;
        if needs_reset {
            self.status |= status::NEEDS_RESET;
        } else {
            self.status &= !status::NEEDS_RESET;
        }
        if self.status != before && needs_reset && self.status & status::DRIVER_OK != 0 {
            self.interrupt(self.config_vector, ISR_CONFIG);
        }
    }

    fn interrupt(&mut self, vector: u16, isr: u8) {
        // 4.1.4.5.1: the ISR status is for drivers without MSI-X.
        if self.msix.state().enabled {
            self.msix.signal(vector);
        } else {
            self.isr |= isr;
        }
    }

    /// A read of any width.
    pub(super) fn read_common(&self, at: usize, data: &mut [u8], device: &impl VirtioDevice) {
        let queue = self.queues.get(usize::from(self.queue_select));
        let mut bytes = [0u8; 0x40];
        let mut put = |at: usize, value: u64, len: usize| {
            bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        };
        let half = |features: u64, select: u32| match select {
            0 => features & 0xFFFF_FFFF,
            1 => features >> 32,
            _ => 0,
        };
        put(offset::DEVICE_FEATURE_SELECT, self.device_feature_select.into(), 4);
        put(offset::DEVICE_FEATURE, half(device.features(), self.device_feature_select), 4);
        put(offset::DRIVER_FEATURE_SELECT, self.driver_feature_select.into(), 4);
        put(offset::DRIVER_FEATURE, half(self.driver_features, self.driver_feature_select), 4);
        put(offset::CONFIG_MSIX_VECTOR, self.config_vector.into(), 2);
        put(offset::NUM_QUEUES, self.queues.len() as u64, 2);
        // 2.4.1: after a reset it reads 0 once the device has let go of everything.
        let leaving = self.status == 0 && (0..device.queues()).any(|queue| device.is_resetting(queue));
        let status = if leaving { self.status_before_reset } else { self.status };
        put(offset::DEVICE_STATUS, status.into(), 1);
        // Device configuration never changes.
        put(offset::CONFIG_GENERATION, 0, 1);
        put(offset::QUEUE_SELECT, self.queue_select.into(), 2);
        // 4.1.4.3.1: a queue that does not exist has size 0; queue_reset reads 1 until the reset is over.
        // queue_notif_config_data reads 0 always.
        if let Some(queue) = queue {
            put(offset::QUEUE_RESET, device.is_resetting(self.queue_select).into(), 2);
            put(offset::QUEUE_SIZE, queue.config.size.into(), 2);
            put(offset::QUEUE_MSIX_VECTOR, queue.vector.into(), 2);
            put(offset::QUEUE_ENABLE, queue.enabled.into(), 2);
            put(offset::QUEUE_NOTIFY_OFF, self.queue_select.into(), 2);
            put(offset::QUEUE_DESC, queue.config.descriptors_gpa, 8);
            put(offset::QUEUE_DRIVER, queue.config.available_gpa, 8);
            put(offset::QUEUE_DEVICE, queue.config.used_gpa, 8);
        }
        for (at, byte) in (at..).zip(data) {
            *byte = bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// A write of a whole register, or of half of a 64-bit one; others are ignored (4.1.3.1).
    pub(super) fn write_common(&mut self, at: usize, data: &[u8], device: &mut impl VirtioDevice) {
        let value = data.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        match (at, data.len()) {
            (offset::DEVICE_FEATURE_SELECT, 4) => self.device_feature_select = value as u32,
            (offset::DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select = value as u32,
            (offset::DRIVER_FEATURE, 4) => self.write_driver_feature(value),
            (offset::CONFIG_MSIX_VECTOR, 2) => self.config_vector = self.vector(value),
            (offset::DEVICE_STATUS, 1) => self.write_status(value as u8, device),
            (offset::QUEUE_SELECT, 2) => self.queue_select = value as u16,
            _ => self.write_queue(at, data.len(), value, device),
        }
    }

    /// 4.1.4.3.1: what is not in the table reads back as no vector.
    fn vector(&self, value: u64) -> u16 {
        if (value as usize) < self.msix.len() { value as u16 } else { NO_VECTOR }
    }

    fn write_driver_feature(&mut self, value: u64) {
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        match self.driver_feature_select {
            0 => self.driver_features = self.driver_features & !0xFFFF_FFFF | value,
            1 => self.driver_features = self.driver_features & 0xFFFF_FFFF | value << 32,
            _ => {}
        }
    }

    /// 3.1.1: bits are set in order and never cleared, but for all by a reset.
    fn write_status(&mut self, value: u8, device: &mut impl VirtioDevice) {
        if value == 0 {
            device.reset();
            self.reset();
            return;
        }
        let mut status = self.status | value & (status::ACKNOWLEDGE | status::DRIVER | status::FAILED);
        let ready = status::ACKNOWLEDGE | status::DRIVER;
        let wants = |bit| value & bit != 0 && self.status & bit == 0;
        if wants(status::FEATURES_OK) && status & ready == ready {
            let offered = self.driver_features & !device.features() == 0;
            if offered && device.accept_features(self.driver_features) {
                status |= status::FEATURES_OK;
            } else {
                tracing::warn!("features {:#x} were refused", self.driver_features);
            }
        }
        if wants(status::DRIVER_OK) && status & status::FEATURES_OK != 0 {
            status |= status::DRIVER_OK;
        }
        self.status = status;
    }

    /// Registers of the selected queue. The ring's place can be changed only while the queue is off.
    fn write_queue(&mut self, at: usize, len: usize, value: u64, device: &mut impl VirtioDevice) {
        let vector = self.vector(value);
        let number = self.queue_select;
        let size_max = self.queue_size_max;
        let Some(queue) = self.queues.get_mut(usize::from(number)) else { return };
        let low_half = |old: u64| old & !0xFFFF_FFFF | value;
        let high_half = |old: u64| old & 0xFFFF_FFFF | value << 32;
        match (at, len, queue.enabled) {
            (offset::QUEUE_MSIX_VECTOR, 2, _) => queue.vector = vector,
            (offset::QUEUE_RESET, 2, _) if value == 1 && self.driver_features & RING_RESET != 0 => {
                device.reset_queue(number);
                *queue = Registers::new(size_max);
                self.set_needs_reset(device.needs_reset());
            }
            (offset::QUEUE_SIZE, 2, false) => queue.config.size = value as u16,
            (offset::QUEUE_DESC, 8, false) => queue.config.descriptors_gpa = value,
            (offset::QUEUE_DRIVER, 8, false) => queue.config.available_gpa = value,
            (offset::QUEUE_DEVICE, 8, false) => queue.config.used_gpa = value,
            (offset::QUEUE_DESC, 4, false) => {
                queue.config.descriptors_gpa = low_half(queue.config.descriptors_gpa)
            }
            (offset::QUEUE_DRIVER, 4, false) => {
                queue.config.available_gpa = low_half(queue.config.available_gpa)
            }
            (offset::QUEUE_DEVICE, 4, false) => queue.config.used_gpa = low_half(queue.config.used_gpa),
            (0x24, 4, false) => queue.config.descriptors_gpa = high_half(queue.config.descriptors_gpa),
            (0x2C, 4, false) => queue.config.available_gpa = high_half(queue.config.available_gpa),
            (0x34, 4, false) => queue.config.used_gpa = high_half(queue.config.used_gpa),
            (offset::QUEUE_ENABLE, 2, false) if value == 1 && self.status & status::FEATURES_OK != 0 => {
                match device.enable_queue(number, queue.config) {
                    Ok(()) => queue.enabled = true,
                    Err(error) => tracing::error!(queue = number, "queue not enabled: {error}"),
                }
            }
            _ => {}
        }
    }
}

impl QueueInterrupt for Transport {
    #[inline]
    fn raise(&mut self, queue: u16) {
        if let Some(registers) = self.queues.get(usize::from(queue)) {
            self.interrupt(registers.vector, ISR_QUEUE);
        }
    }
}

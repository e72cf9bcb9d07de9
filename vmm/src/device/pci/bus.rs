//! One PCI bus: finds the function that an MMIO exit is meant for, by ECAM address (PCI Express 7.2.2) or by BAR.
//!
//! Accesses come from any vCPU thread. What nobody claims reads as ones and swallows writes, as on a real bus, and is
//! counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BarWindow, BarWrite, PciFunction};

/// Bytes of the ECAM window: one bus.
pub const ECAM_BYTES: u64 = 1 << 20;
/// Bytes of one function's configuration space.
const CONFIG_BYTES: u64 = 4096;
/// Device numbers of a bus.
const DEVICES: u8 = 32;

/// Why a function cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// No such number.
    #[error("PCI device number {device_number} does not exist; use 0 to 31")]
    NoSuchNumber {
        /// What was asked for.
        device_number: u8,
    },
    /// Taken.
    #[error("PCI device number {device_number} is taken; use another one")]
    Taken {
        /// What was asked for.
        device_number: u8,
    },
}

/// What a write met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmioWrite {
    /// A register of a device.
    Register,
    /// A register that lets queues come or go. Frames may wait in the backend for a queue that was enabled just now:
    /// whoever does the device work, and perhaps sleeps, must look again.
    Queues {
        /// Which device.
        device_number: u8,
    },
    /// A doorbell that was not caught by an ioeventfd: the device work has something to do.
    Doorbell {
        /// Which device.
        device_number: u8,
        /// Which queue.
        queue: u16,
    },
    /// Nothing.
    Unclaimed,
}

/// A function and what can be known of it without its lock.
struct Slot {
    device_number: u8,
    function: Arc<Mutex<dyn PciFunction>>,
    window: Arc<BarWindow>,
    bar_bytes: u64,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, dyn PciFunction + 'static> {
        // A panic elsewhere must not take the machine down; the function's state is plain data.
        self.function.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bus 0.
pub struct Bus {
    ecam_gpa: u64,
    slots: Vec<Slot>,
    unclaimed: AtomicU64,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Bus({} functions, ECAM at {:#x})", self.slots.len(), self.ecam_gpa)
    }
}

impl Bus {
    /// An empty bus whose configuration space lies at `ecam_gpa`.
    pub fn new(ecam_gpa: u64) -> Self {
        Self { ecam_gpa, slots: Vec::new(), unclaimed: AtomicU64::new(0) }
    }

    /// Puts a function at 00:`device_number`.0.
    pub fn attach(
        &mut self,
        device_number: u8,
        function: Arc<Mutex<dyn PciFunction>>,
    ) -> Result<(), BusError> {
        if device_number >= DEVICES {
            return Err(BusError::NoSuchNumber { device_number });
        }
        if self.slots.iter().any(|slot| slot.device_number == device_number) {
            return Err(BusError::Taken { device_number });
        }
        let (window, bar_bytes) = {
            let function = function.lock().unwrap_or_else(PoisonError::into_inner);
            (function.bar_window(), function.bar_bytes())
        };
        self.slots.push(Slot { device_number, function, window, bar_bytes });
        Ok(())
    }

    /// How many accesses nobody claimed.
    pub fn unclaimed(&self) -> u64 {
        self.unclaimed.load(Ordering::Relaxed)
    }

    /// A read of a vCPU.
    pub fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        data.fill(0xFF);
        match self.find(gpa, data.len()) {
            Some((slot, Place::Config(offset))) => slot.lock().config_read(offset, data),
            Some((slot, Place::Bar(offset))) => slot.lock().bar_read(offset, data),
            None => {
                self.unclaimed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A write of a vCPU.
    pub fn mmio_write(&self, gpa: u64, data: &[u8]) -> MmioWrite {
        match self.find(gpa, data.len()) {
            Some((slot, Place::Config(offset))) => {
                slot.lock().config_write(offset, data);
                MmioWrite::Register
            }
            Some((slot, Place::Bar(offset))) => match slot.lock().bar_write(offset, data) {
                BarWrite::Register => MmioWrite::Register,
                BarWrite::Queues => MmioWrite::Queues { device_number: slot.device_number },
                BarWrite::Doorbell { queue } => {
                    MmioWrite::Doorbell { device_number: slot.device_number, queue }
                }
            },
            None => {
                self.unclaimed.fetch_add(1, Ordering::Relaxed);
                MmioWrite::Unclaimed
            }
        }
    }

    /// Who claims `gpa..gpa + len`.
    fn find(&self, gpa: u64, len: usize) -> Option<(&Slot, Place)> {
        let ecam_offset = gpa.wrapping_sub(self.ecam_gpa);
        if ecam_offset < ECAM_BYTES {
            let offset = ecam_offset % CONFIG_BYTES;
            let function = ecam_offset / CONFIG_BYTES;
            let inside = offset + len as u64 <= CONFIG_BYTES && function.is_multiple_of(8);
            let slot = self.slots.iter().find(|slot| u64::from(slot.device_number) == function / 8);
            return slot.filter(|_| inside).map(|slot| (slot, Place::Config(offset as usize)));
        }
        self.slots.iter().find_map(|slot| {
            let start = slot.window.start_gpa.load(Ordering::Acquire);
            let offset = gpa.wrapping_sub(start);
            let inside = start != 0 && offset < slot.bar_bytes && len as u64 <= slot.bar_bytes - offset;
            inside.then_some((slot, Place::Bar(offset)))
        })
    }
}

/// Which part of a function is meant.
enum Place {
    Config(usize),
    Bar(u64),
}

//! What firmware and a driver's probe would do, done natively before the machine runs: BAR, MSI-X, features, DRIVER_OK, by
//! the same registers that a guest would write.

use super::pci::{BAR_BYTES, COMMON, VirtioPci, offset, status};
use super::{VirtioDevice, features};
use crate::device::pci::PciFunction;

/// Why a device did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// It does not answer where it was put.
    #[error("the device's window reads {size:#x} as its size instead of {BAR_BYTES:#x}")]
    Window {
        /// What was read.
        size: u32,
    },
    /// It takes none of the features.
    #[error("the device refuses the features {features:#x}; see the log for the reason")]
    Features {
        /// What was asked for.
        features: u64,
    },
    /// It does not become ready.
    #[error("the device stays at status {status:#x}")]
    NotReady {
        /// What was read.
        status: u8,
    },
}

/// Configuration space offsets.
const COMMAND: usize = 0x04;
const BAR0: usize = 0x10;
const CAPABILITIES: usize = 0x34;
/// Memory decoding, bus mastering, no interrupt pin.
const COMMAND_VALUE: u16 = 0x0406;

/// Drives a device to DRIVER_OK with as many of the wanted features as it has. Queues are left disabled; each has its own
/// MSI-X vector already (a queue reset takes that away, so who binds the queue again sets it again). Returns the features.
pub fn start<D: VirtioDevice>(function: &mut VirtioPci<D>, wanted: u64) -> Result<u64, StartError> {
    place_window(function)?;
    enable_msix(function);
    write::<1>(function, offset::DEVICE_STATUS, 0);
    write::<1>(function, offset::DEVICE_STATUS, status::ACKNOWLEDGE.into());
    write::<1>(function, offset::DEVICE_STATUS, (status::ACKNOWLEDGE | status::DRIVER).into());
    let mut offered = 0;
    for half in 0..2u64 {
        write::<4>(function, offset::DEVICE_FEATURE_SELECT, half);
        offered |= read::<4>(function, offset::DEVICE_FEATURE) << (32 * half);
    }
    let chosen = features::make_consistent(offered & (wanted | features::VERSION_1), D::REQUIREMENTS);
    for half in 0..2u64 {
        write::<4>(function, offset::DRIVER_FEATURE_SELECT, half);
        write::<4>(function, offset::DRIVER_FEATURE, chosen >> (32 * half) & 0xFFFF_FFFF);
    }
    let agreed = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
    write::<1>(function, offset::DEVICE_STATUS, agreed.into());
    if read::<1>(function, offset::DEVICE_STATUS) as u8 & status::FEATURES_OK == 0 {
        return Err(StartError::Features { features: chosen });
    }
    for queue in 0..read::<2>(function, offset::NUM_QUEUES) {
        write::<2>(function, offset::QUEUE_SELECT, queue);
        write::<2>(function, offset::QUEUE_MSIX_VECTOR, queue);
    }
    let ready = agreed | status::DRIVER_OK;
    write::<1>(function, offset::DEVICE_STATUS, ready.into());
    let status = read::<1>(function, offset::DEVICE_STATUS) as u8;
    if status == ready { Ok(chosen) } else { Err(StartError::NotReady { status }) }
}

/// Finds the window's size, puts it where it shall be, and lets it decode.
fn place_window<D: VirtioDevice>(function: &mut VirtioPci<D>) -> Result<(), StartError> {
    let mut bytes = [0; 4];
    function.config_write(BAR0, &[0xFF; 4]);
    function.config_read(BAR0, &mut bytes);
    let size = (!(u32::from_le_bytes(bytes) & !0xF)).wrapping_add(1);
    if size != BAR_BYTES {
        return Err(StartError::Window { size });
    }
    let bar_gpa = function.place().bar_gpa;
    function.config_write(BAR0, &bar_gpa.to_le_bytes());
    function.config_write(COMMAND, &COMMAND_VALUE.to_le_bytes());
    Ok(())
}

/// Switches MSI-X on; each vector stays masked until the kernel writes its entry.
fn enable_msix<D: VirtioDevice>(function: &mut VirtioPci<D>) {
    let mut byte = [0; 1];
    function.config_read(CAPABILITIES, &mut byte);
    // The list is the device's own and ends.
    while byte[0] != 0 {
        let at = usize::from(byte[0]);
        let mut header = [0; 4];
        function.config_read(at, &mut header);
        if header[0] == 0x11 {
            let control = u16::from_le_bytes([header[2], header[3]]) | 1 << 15;
            function.config_write(at + 2, &control.to_le_bytes());
        }
        byte[0] = header[1];
    }
}

/// Reads a common configuration register.
pub(super) fn read<const LEN: usize>(function: &mut impl PciFunction, at: usize) -> u64 {
    let mut bytes = [0; 8];
    function.bar_read(COMMON + at as u64, &mut bytes[..LEN]);
    u64::from_le_bytes(bytes)
}

/// Writes a common configuration register.
pub(super) fn write<const LEN: usize>(function: &mut impl PciFunction, at: usize, value: u64) {
    function.bar_write(COMMON + at as u64, &value.to_le_bytes()[..LEN]);
}

//! Configuration space of a function with one memory BAR (PCI Local Bus 3.0, 6.1): the bytes, and which of them the guest
//! may change.

/// Bytes that exist; the rest of the 4096 reads as zero.
const BYTES: usize = 256;
const COMMAND: usize = 0x04;
const COMMAND_MEMORY: u8 = 1 << 1;
const STATUS: usize = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const BAR0: usize = 0x10;
const CAPABILITIES_POINTER: usize = 0x34;
const FIRST_CAPABILITY: usize = 0x40;

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Base class, sub-class, interface.
    pub class: u32,
    /// Subsystem vendor.
    pub subsystem_vendor: u16,
    /// Subsystem.
    pub subsystem: u16,
}

/// A capability: its identifier and what follows the pointer to the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Identifier.
    pub id: u8,
    /// Bytes from offset 2 on.
    pub body: Vec<u8>,
    /// Which bits of the body the guest may change; shorter means: none of the rest.
    pub writable: Vec<u8>,
}

/// What a write changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigWrite {
    /// The window moved, or began or ceased to decode.
    pub window: bool,
    /// Something in a capability.
    pub capability: bool,
}

/// The bytes.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; BYTES],
    writable: [u8; BYTES],
}

impl ConfigSpace {
    /// A type 0 header with a 32-bit memory BAR 0 of `bar_bytes` (a power of two of at least 16) and no interrupt pin.
    /// Returns the offset of each capability besides.
    ///
    /// # Panics
    /// If the capabilities do not fit: they are chosen by the device's code, not by input.
    pub fn new(identity: Identity, bar_bytes: u32, capabilities: &[Capability]) -> (Self, Vec<usize>) {
        let mut space = Self { bytes: [0; BYTES], writable: [0; BYTES] };
        space.put(0x00, &identity.vendor.to_le_bytes());
        space.put(0x02, &identity.device.to_le_bytes());
        space.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        space.put(0x08, &[identity.revision]);
        space.put(0x09, &identity.class.to_le_bytes()[..3]);
        space.put(0x2C, &identity.subsystem_vendor.to_le_bytes());
        space.put(0x2E, &identity.subsystem.to_le_bytes());
        // Memory decoding, bus mastering, interrupt disable.
        space.writable[COMMAND..COMMAND + 2].copy_from_slice(&0x0406u16.to_le_bytes());
        // Cache line size and interrupt line are scratch registers for software.
        space.writable[0x0C] = 0xFF;
        space.writable[0x3C] = 0xFF;
        // The address bits below the size are zero for ever: that is how its size is found (6.2.5.1).
        space.writable[BAR0..BAR0 + 4].copy_from_slice(&(!(bar_bytes - 1)).to_le_bytes());
        let mut offsets = Vec::new();
        let (mut pointer, mut at) = (CAPABILITIES_POINTER, FIRST_CAPABILITY);
        for capability in capabilities {
            space.bytes[pointer] = at as u8;
            space.bytes[at] = capability.id;
            space.put(at + 2, &capability.body);
            space.writable[at + 2..at + 2 + capability.writable.len()].copy_from_slice(&capability.writable);
            offsets.push(at);
            pointer = at + 1;
            at = (at + 2 + capability.body.len()).next_multiple_of(4);
        }
        (space, offsets)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Reads; what does not exist is zero.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes what may be written.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> ConfigWrite {
        let before = self.window_gpa();
        let mut changed = ConfigWrite::default();
        for (at, byte) in (offset..BYTES).zip(data) {
            let value = self.bytes[at] & !self.writable[at] | byte & self.writable[at];
            changed.capability |= at >= FIRST_CAPABILITY && value != self.bytes[at];
            self.bytes[at] = value;
        }
        changed.window = self.window_gpa() != before;
        changed
    }

    /// Where the BAR's window lies; 0 while memory decoding is off.
    pub fn window_gpa(&self) -> u64 {
        if self.bytes[COMMAND] & COMMAND_MEMORY == 0 {
            return 0;
        }
        u32::from_le_bytes([
            self.bytes[BAR0],
            self.bytes[BAR0 + 1],
            self.bytes[BAR0 + 2],
            self.bytes[BAR0 + 3],
        ])
        .into()
    }

    /// A 16-bit register.
    pub fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let identity = Identity {
            vendor: 0x1AF4,
            device: 0x1041,
            revision: 1,
            class: 0x02_0000,
            subsystem_vendor: 0x1AF4,
            subsystem: 0x40,
        };
        let capability = |id| Capability { id, body: vec![5, 6, 7], writable: vec![0, 0x80] };
        ConfigSpace::new(identity, 0x4_0000, &[capability(9), capability(0x11)]).0
    }

    fn dword(space: &ConfigSpace, at: usize) -> u32 {
        let mut data = [0; 4];
        space.read(at, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn bar_sizing_shows_the_size_and_moves_the_window() {
        let mut space = space();
        space.write(BAR0, &[0xFF; 4]);
        assert_eq!(dword(&space, BAR0), 0xFFFC_0000);
        let moved = space.write(BAR0, &0xC010_0000u32.to_le_bytes());
        assert_eq!((moved.window, space.window_gpa()), (false, 0), "not decoding yet");
        let moved = space.write(COMMAND, &6u16.to_le_bytes());
        assert_eq!((moved.window, space.window_gpa()), (true, 0xC010_0000));
    }

    #[test]
    fn capabilities_are_a_list_and_only_their_writable_bits_change() {
        let mut space = space();
        assert_eq!(dword(&space, 0x34) & 0xFF, 0x40);
        assert_eq!(dword(&space, 0x40), 0x0605_4809);
        assert_eq!(dword(&space, 0x48) & 0xFFFF, 0x0011);
        assert!(space.write(0x40, &[0xFF; 8]).capability);
        assert_eq!(dword(&space, 0x40), 0x8605_4809);
        assert_eq!(dword(&space, 0x44), 7);
        space.write(0, &[0xFF; 4]);
        assert_eq!(dword(&space, 0), 0x1041_1AF4);
    }

    #[test]
    fn access_beyond_the_end_reads_zero_and_writes_nothing() {
        let mut space = space();
        assert_eq!(dword(&space, 0xFFE), 0);
        assert_eq!(space.write(0xFE, &[0xFF; 8]), ConfigWrite::default());
    }
}

//! What a thread of the VMM can be doing, and for which device.

use abi::boot::DEVICES;

/// What a VMM thread can be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Starting, stopping, and whatever is not named below.
    Other,
    /// Inside KVM_RUN and on a CPU: guest code, and what KVM does for it.
    Guest,
    /// Inside KVM_RUN and blocked: the guest halts.
    Halted,
    /// Handling an exit that is not a turn.
    Exit,
    /// Device work of the NIC, transmit side: rings, translation, checks.
    NetTransmit,
    /// Device work of the NIC, receive side: rings, translation, checks, flow look-up.
    NetReceive,
    /// System calls that write to the backend.
    BackendWrite,
    /// System calls that read from the backend.
    BackendRead,
    /// Device work of the host channel, both ways.
    Channel,
    /// Polling: ready to work and nothing there.
    Poll,
    /// Waiting until something happens, in a system call made for that.
    Wait,
    /// Blocked in the middle of something else: a lock that another thread has, a page that the host has to fetch.
    Blocked,
    /// Able to run, and another thread had the CPU: taken away, or not given at once after a wait.
    OffCpu,
    /// What somebody who looks at the machine has it do: samples, registers, breakpoints, records.
    Tools,
    /// Device work of a disk, by its number in the device table: rings, translation, checks, completions.
    Disk(u8),
    /// System calls that read from its image.
    DiskRead(u8),
    /// System calls that write to its image, or discard.
    DiskWrite(u8),
    /// System calls that make its image durable.
    DiskFlush(u8),
}

/// Buckets of which there is one.
const SINGLE: [Bucket; 14] = [
    Bucket::Other,
    Bucket::Guest,
    Bucket::Halted,
    Bucket::Exit,
    Bucket::NetTransmit,
    Bucket::NetReceive,
    Bucket::BackendWrite,
    Bucket::BackendRead,
    Bucket::Channel,
    Bucket::Poll,
    Bucket::Wait,
    Bucket::Blocked,
    Bucket::OffCpu,
    Bucket::Tools,
];
/// Those of which each disk has one.
const OF_A_DISK: [fn(u8) -> Bucket; 4] =
    [Bucket::Disk, Bucket::DiskRead, Bucket::DiskWrite, Bucket::DiskFlush];

impl Bucket {
    /// How many there are.
    pub const COUNT: usize = SINGLE.len() + OF_A_DISK.len() * DEVICES;

    /// Its place among all.
    #[inline]
    pub const fn index(self) -> usize {
        let (kind, device) = match self {
            Bucket::Other => return 0,
            Bucket::Guest => return 1,
            Bucket::Halted => return 2,
            Bucket::Exit => return 3,
            Bucket::NetTransmit => return 4,
            Bucket::NetReceive => return 5,
            Bucket::BackendWrite => return 6,
            Bucket::BackendRead => return 7,
            Bucket::Channel => return 8,
            Bucket::Poll => return 9,
            Bucket::Wait => return 10,
            Bucket::Blocked => return 11,
            Bucket::OffCpu => return 12,
            Bucket::Tools => return 13,
            Bucket::Disk(device) => (0, device),
            Bucket::DiskRead(device) => (1, device),
            Bucket::DiskWrite(device) => (2, device),
            Bucket::DiskFlush(device) => (3, device),
        };
        SINGLE.len() + device as usize % DEVICES * OF_A_DISK.len() + kind
    }

    /// The one in that place.
    pub fn at(index: usize) -> Self {
        match SINGLE.get(index) {
            Some(&bucket) => bucket,
            None => {
                let index = index - SINGLE.len();
                OF_A_DISK[index % OF_A_DISK.len()]((index / OF_A_DISK.len() % DEVICES) as u8)
            }
        }
    }

    /// All of them, by their places.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self::at)
    }

    /// Name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Bucket::Other => "vmm other",
            Bucket::Guest => "guest",
            Bucket::Halted => "halted",
            Bucket::Exit => "exit handling",
            Bucket::NetTransmit => "net transmit",
            Bucket::NetReceive => "net receive",
            Bucket::BackendWrite => "backend write",
            Bucket::BackendRead => "backend read",
            Bucket::Channel => "channel",
            Bucket::Poll => "poll",
            Bucket::Wait => "wait",
            Bucket::Blocked => "blocked",
            Bucket::OffCpu => "off CPU",
            Bucket::Tools => "tools",
            Bucket::Disk(_) => "disk requests",
            Bucket::DiskRead(_) => "disk read",
            Bucket::DiskWrite(_) => "disk write",
            Bucket::DiskFlush(_) => "disk flush",
        }
    }

    /// Name with the device's number.
    pub fn title(self) -> String {
        match self.device() {
            Some(device) => format!("{} (device {device})", self.name()),
            None => self.name().to_owned(),
        }
    }

    /// The device that the work is for, if there can be several like it: its number in the device table.
    pub fn device(self) -> Option<u8> {
        match self {
            Bucket::Disk(device)
            | Bucket::DiskRead(device)
            | Bucket::DiskWrite(device)
            | Bucket::DiskFlush(device) => Some(device),
            _ => None,
        }
    }

    /// Where the time goes that a thread is blocked in this one.
    pub(super) fn blocked(self) -> Self {
        match self {
            Bucket::Guest => Bucket::Halted,
            // Blocking is what they are about.
            Bucket::Wait
            | Bucket::BackendRead
            | Bucket::BackendWrite
            | Bucket::DiskRead(_)
            | Bucket::DiskWrite(_)
            | Bucket::DiskFlush(_) => self,
            _ => Bucket::Blocked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_own_bucket() {
        for (index, bucket) in Bucket::all().enumerate() {
            assert_eq!(bucket.index(), index, "{bucket:?}");
        }
        assert_eq!(Bucket::all().filter(|bucket| bucket.device() == Some(7)).count(), 4);
    }
}

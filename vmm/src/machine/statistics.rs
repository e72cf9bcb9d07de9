//! What KVM itself counts of a vCPU and of the machine, through its statistics files: exits, emulated instructions and the like (Linux
//! 5.14; Documentation/virt/kvm/api.rst 4.133).

use kvm_ioctls::{VcpuFd, VmFd};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

/// `_IO(KVMIO, 0xce)`.
const KVM_GET_STATS_FD: libc::c_ulong = 0xAECE;
/// `struct kvm_stats_header`: flags, size of a name, number of descriptors, and where identifier, descriptors and data lie.
const HEADER_BYTES: usize = 24;
/// `struct kvm_stats_desc` without the name behind it: flags, exponent, number of values, where the first lies in the data, size of a
/// bucket.
const DESCRIPTOR_BYTES: usize = 16;
/// More names than any kernel has.
const DESCRIPTORS_MAX: usize = 4096;
/// More values than any statistic has.
const VALUES_MAX: usize = 1024;

/// The statistics files of a machine. One that the host does not have is an error when it is asked.
#[derive(Debug)]
pub(crate) struct KvmStatistics {
    /// Of each vCPU.
    pub(crate) vcpus: Vec<io::Result<Statistics>>,
    /// Of the machine.
    pub(crate) vm: io::Result<Statistics>,
}

impl KvmStatistics {
    /// Opens them.
    pub(super) fn open(vm: &VmFd, vcpus: &[VcpuFd]) -> Self {
        Self { vcpus: vcpus.iter().map(Statistics::open).collect(), vm: Statistics::open(vm) }
    }
}

/// A statistics file.
#[derive(Debug)]
pub(crate) struct Statistics {
    file: File,
}

/// How a statistic changes: `KVM_STATS_TYPE_MASK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KvmKind {
    /// It only grows.
    Cumulative,
    /// It goes up and down.
    Instant,
    /// The most there ever was.
    Peak,
    /// Counts by powers of two: the first of values below 1, the second of 1, the third of 2 and 3.
    LogHistogram,
    /// A linear histogram, or what later kernels have.
    Other,
}

/// One statistic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KvmStatistic {
    /// KVM's name.
    pub(crate) name: String,
    /// How it changes.
    pub(crate) kind: KvmKind,
    /// "nanoseconds", "bytes", "cycles" or nothing.
    pub(crate) unit: &'static str,
    /// Its values; all but histograms have one.
    pub(crate) values: Vec<u64>,
}

impl KvmStatistic {
    /// The first value.
    pub(crate) fn value(&self) -> u64 {
        self.values.first().copied().unwrap_or(0)
    }
}

impl Statistics {
    /// Opens that of a vCPU or a machine. It can be read as long as this lives, also after the vCPU's end.
    pub(crate) fn open(of: &impl AsRawFd) -> io::Result<Self> {
        // SAFETY: takes no argument, and returns a descriptor of its own.
        let fd = unsafe { libc::ioctl(of.as_raw_fd(), KVM_GET_STATS_FD, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is nobody else's.
        Ok(Self { file: unsafe { File::from_raw_fd(fd) } })
    }

    /// The first value of each, by name.
    pub(crate) fn read(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.read_all()?.into_iter().map(|one| (one.name.clone(), one.value())).collect())
    }

    /// All of them.
    pub(crate) fn read_all(&self) -> io::Result<Vec<KvmStatistic>> {
        let mut header = [0; HEADER_BYTES];
        self.file.read_exact_at(&mut header, 0)?;
        let (name_bytes, count) = (word(&header, 4) as usize, word(&header, 8) as usize);
        let (descriptors_at, data_at) = (u64::from(word(&header, 16)), u64::from(word(&header, 20)));
        if count > DESCRIPTORS_MAX || name_bytes > DESCRIPTORS_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut descriptors = vec![0; count * (DESCRIPTOR_BYTES + name_bytes)];
        self.file.read_exact_at(&mut descriptors, descriptors_at)?;
        let mut all = Vec::with_capacity(count);
        for descriptor in descriptors.chunks_exact(DESCRIPTOR_BYTES + name_bytes) {
            let (fixed, name) = descriptor.split_at(DESCRIPTOR_BYTES);
            let size = usize::from(u16::from_le_bytes([fixed[6], fixed[7]])).clamp(1, VALUES_MAX);
            let mut bytes = vec![0; 8 * size];
            self.file.read_exact_at(&mut bytes, data_at + u64::from(word(fixed, 8)))?;
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            all.push(KvmStatistic {
                name: String::from_utf8_lossy(name).into_owned(),
                kind: kind(word(fixed, 0)),
                unit: unit(word(fixed, 0), i16::from_le_bytes([fixed[4], fixed[5]])),
                values: bytes.as_chunks().0.iter().map(|&value| u64::from_le_bytes(value)).collect(),
            });
        }
        Ok(all)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// `KVM_STATS_TYPE_*`.
fn kind(flags: u32) -> KvmKind {
    match flags & 0xF {
        0 => KvmKind::Cumulative,
        1 => KvmKind::Instant,
        2 => KvmKind::Peak,
        4 => KvmKind::LogHistogram,
        _ => KvmKind::Other,
    }
}

/// `KVM_STATS_UNIT_*`, with the exponent to the base of ten.
fn unit(flags: u32, exponent: i16) -> &'static str {
    match (flags >> 4 & 0xF, exponent) {
        (1, 0) => "bytes",
        (2, -9) => "nanoseconds",
        (3, 0) => "cycles",
        _ => "",
    }
}

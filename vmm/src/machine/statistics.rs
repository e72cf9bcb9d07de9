//! What KVM itself counts of a vCPU, through its statistics file: exits, emulated instructions and the like (Linux 5.14).

use kvm_ioctls::VcpuFd;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

/// `_IO(KVMIO, 0xce)`.
const KVM_GET_STATS_FD: libc::c_ulong = 0xAECE;
/// `struct kvm_stats_header`: flags, size of a name, number of descriptors, and where identifier, descriptors and data lie.
const HEADER_BYTES: usize = 24;
/// `struct kvm_stats_desc` without the name behind it: flags, exponent, number of values, where the first lies in the data.
const DESCRIPTOR_BYTES: usize = 16;
/// More names than any kernel has.
const DESCRIPTORS_MAX: usize = 4096;

/// A vCPU's statistics file.
#[derive(Debug)]
pub(crate) struct Statistics {
    file: File,
}

impl Statistics {
    /// Opens it. It can be read as long as this lives, also after the vCPU's end.
    pub(crate) fn open(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: takes no argument, and returns a descriptor of its own.
        let fd = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_GET_STATS_FD, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is nobody else's.
        Ok(Self { file: unsafe { File::from_raw_fd(fd) } })
    }

    /// The first value of each, by name.
    pub(crate) fn read(&self) -> io::Result<Vec<(String, u64)>> {
        let mut header = [0; HEADER_BYTES];
        self.file.read_exact_at(&mut header, 0)?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (name_bytes, count) = (word(4) as usize, word(8) as usize);
        let (descriptors_at, data_at) = (u64::from(word(16)), u64::from(word(20)));
        if count > DESCRIPTORS_MAX || name_bytes > DESCRIPTORS_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut descriptors = vec![0; count * (DESCRIPTOR_BYTES + name_bytes)];
        self.file.read_exact_at(&mut descriptors, descriptors_at)?;
        let mut values = Vec::with_capacity(count);
        for descriptor in descriptors.chunks_exact(DESCRIPTOR_BYTES + name_bytes) {
            let (fixed, name) = descriptor.split_at(DESCRIPTOR_BYTES);
            let offset = u32::from_le_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
            let mut value = [0; 8];
            self.file.read_exact_at(&mut value, data_at + u64::from(offset))?;
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            values.push((String::from_utf8_lossy(name).into_owned(), u64::from_le_bytes(value)));
        }
        Ok(values)
    }
}

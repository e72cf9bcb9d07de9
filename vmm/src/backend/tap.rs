//! The TAP backend: a network interface of the host. An edge: system calls and nothing else.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use super::{Backend, BackendError, HEADER_BYTES, IoVec, IoVecMut, Offloads, Written};
use crate::stat::metrics::{Metric, metrics};

/// Offloads of `TUNSETOFFLOAD` (linux/if_tun.h).
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;

/// Why a TAP cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name cannot be one.
    #[error("'{name}' cannot be an interface name: 1 to 15 bytes without '/' and spaces")]
    BadName {
        /// What was given.
        name: String,
    },
    /// The kernel offers no TAPs.
    #[error(
        "cannot open /dev/net/tun: {source}; load the module (sudo modprobe tun) or pass the device into the container"
    )]
    NoTun {
        /// How the open failed.
        source: io::Error,
    },
    /// There is no such interface.
    #[error("there is no interface {name} in this network namespace; make it with:\n{}", commands(.name))]
    Missing {
        /// Its name.
        name: String,
    },
    /// Somebody else has it open.
    #[error("interface {name} is in use by another process; end that one, or make a second interface:\n{}", commands(&format!("{:.14}2", .name)))]
    Busy {
        /// Its name.
        name: String,
    },
    /// It belongs to somebody else.
    #[error("no permission to open interface {name}; make it yours with:\n  sudo ip link delete {name}\n{}", commands(.name))]
    NoPermission {
        /// Its name.
        name: String,
    },
    /// It is another kind of interface.
    #[error("interface {name} is not a single-queue TAP; make one with:\n{}", commands(&format!("{:.12}tap", .name)))]
    NotTap {
        /// Its name.
        name: String,
    },
    /// Anything else.
    #[error("{what} on interface {name} failed: {source}")]
    System {
        /// Its name.
        name: String,
        /// Which call.
        what: &'static str,
        /// How.
        source: io::Error,
    },
}

/// The commands that make a TAP for the current user, for messages and help.
pub fn commands(name: &str) -> String {
    format!(
        "  sudo ip tuntap add dev {name} mode tap user $USER vnet_hdr\n  sudo ip addr add 10.80.0.1/24 dev {name}\n  \
         sudo ip link set dev {name} txqueuelen 4000 up"
    )
}

/// The name, if an interface can have it.
fn checked(name: &str) -> Result<&str, TapError> {
    let bad = name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', ' ', '%', '\0']);
    if bad { Err(TapError::BadName { name: name.into() }) } else { Ok(name) }
}

/// An open TAP. It lives in the network namespace in which it was opened, wherever the process goes.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    metrics: TapMetrics,
}

metrics! {
    /// What the system calls on a TAP came to.
    pub struct TapMetrics {
        /// Frames that the TAP took.
        pub tap_written_frames: u64,
        /// Writes that found no room; the frame is offered again.
        pub tap_writes_without_room: u64,
        /// Frames that the TAP refused: it is down, or the host does not understand the header.
        pub tap_refused_frames: u64,
        /// Frames read.
        pub tap_read_frames: u64,
        /// Reads that found no frame.
        pub tap_empty_reads: u64,
    }
}

impl Tap {
    /// Opens an existing interface.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let c_name = CString::new(checked(name)?).map_err(|_| TapError::BadName { name: name.into() })?;
        // TUNSETIFF would make an interface that does not exist; ours are made by their owner.
        // SAFETY: a valid string that ends with NUL.
        if unsafe { libc::if_nametoindex(c_name.as_ptr()) } == 0 {
            return Err(TapError::Missing { name: name.into() });
        }
        Self::attach(name)
    }

    /// Makes an interface that vanishes with the value.
    pub fn create(name: &str) -> Result<Self, TapError> {
        Self::attach(checked(name)?)
    }

    fn attach(name: &str) -> Result<Self, TapError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|source| TapError::NoTun { source })?;
        let mut request = request(name);
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which lives on this stack.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) } < 0 {
            let name = name.to_owned();
            let source = io::Error::last_os_error();
            return Err(match source.raw_os_error() {
                Some(libc::EBUSY) => TapError::Busy { name },
                Some(libc::EPERM | libc::EACCES) => TapError::NoPermission { name },
                Some(libc::EINVAL) => TapError::NotTap { name },
                _ => TapError::System { name, what: "TUNSETIFF", source },
            });
        }
        let tap = Self { file, name: name.into(), metrics: TapMetrics::default() };
        let header_bytes = HEADER_BYTES as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int, which lives on this stack.
        if unsafe { libc::ioctl(tap.file.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &header_bytes) } < 0 {
            return Err(tap.failed("TUNSETVNETHDRSZ"));
        }
        Ok(tap)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Largest IP packet of the interface, which must be visible from the calling thread's network namespace.
    pub fn mtu_bytes(&self) -> Result<u32, TapError> {
        let request = self.query(libc::SIOCGIFMTU, "SIOCGIFMTU")?;
        // SAFETY: SIOCGIFMTU fills this member of the union.
        Ok(unsafe { request.ifr_ifru.ifru_mtu }.unsigned_abs())
    }

    /// Whether the interface is up; frames sent to one that is down are lost.
    pub fn is_up(&self) -> Result<bool, TapError> {
        let request = self.query(libc::SIOCGIFFLAGS, "SIOCGIFFLAGS")?;
        // SAFETY: SIOCGIFFLAGS fills this member of the union.
        Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }) & libc::IFF_UP != 0)
    }

    /// Asks about the interface by its name.
    fn query(&self, number: libc::Ioctl, what: &'static str) -> Result<libc::ifreq, TapError> {
        // SAFETY: no pointers are passed.
        let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(self.failed("socket"));
        }
        // SAFETY: just opened, and owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut request = request(&self.name);
        // SAFETY: both queries read and write one ifreq, which lives on this stack.
        if unsafe { libc::ioctl(socket.as_raw_fd(), number as _, &mut request) } < 0 {
            return Err(self.failed(what));
        }
        Ok(request)
    }

    fn failed(&self, what: &'static str) -> TapError {
        TapError::System { name: self.name.clone(), what, source: io::Error::last_os_error() }
    }
}

/// An `ifreq` with the interface's name, which was checked for length.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: zero is a value of every member of ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

impl Backend for Tap {
    #[inline]
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        let pieces = IoVec::as_raw(frame);
        // SAFETY: the pieces are mapped while they are borrowed; the kernel only reads them.
        let written =
            unsafe { libc::writev(self.file.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int) };
        if written >= 0 {
            self.metrics.tap_written_frames += 1;
            return Written::Sent;
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS) => {
                self.metrics.tap_writes_without_room += 1;
                Written::WouldBlock
            }
            // EIO: the interface is down. EINVAL: the frame's header makes no sense to the host.
            _ => {
                self.metrics.tap_refused_frames += 1;
                Written::Dropped
            }
        }
    }

    #[inline]
    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        let pieces = IoVecMut::as_raw(buffers);
        // SAFETY: the pieces are mapped while they are borrowed, and may be written at any time.
        let read =
            unsafe { libc::readv(self.file.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int) };
        if let Ok(len) = usize::try_from(read) {
            self.metrics.tap_read_frames += 1;
            return Ok(Some(len));
        }
        let source = io::Error::last_os_error();
        match source.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => {
                self.metrics.tap_empty_reads += 1;
                Ok(None)
            }
            _ => Err(BackendError::System { what: "reading from the TAP", source }),
        }
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError> {
        let mut flags = 0;
        if offloads.checksum {
            flags |= TUN_F_CSUM;
            flags |= if offloads.tso4 { TUN_F_TSO4 } else { 0 };
            flags |= if offloads.tso6 { TUN_F_TSO6 } else { 0 };
        }
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        if unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD as _, flags) } < 0 {
            return Err(BackendError::System { what: "TUNSETOFFLOAD", source: io::Error::last_os_error() });
        }
        Ok(())
    }

    fn event_fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }

    fn counters(&self) -> Vec<Metric> {
        self.metrics.entries()
    }
}

#[cfg(test)]
mod tests;

//! TAP interfaces: made persistent by name, attached by name, removed. The descriptor speaks Ethernet frames behind a
//! 12-byte `virtio_net_hdr_v1` (VIRTIO 1.3 5.1.6), with checksum and TCP segmentation offload on.

use crate::{Interface, NetnsError};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Bytes of the header before each frame: `virtio_net_hdr_v1`, with `num_buffers`.
pub const VNET_HEADER_BYTES: usize = 12;

/// How many queues a TAP can have. All who attach to one TAP must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapQueues {
    /// One queue; a second process that attaches gets [`NetnsError::TapBusy`].
    Single,
    /// Each attachment is one more queue (`IFF_MULTI_QUEUE`).
    Multi,
}

// <linux/if_tun.h>; libc has the ioctl numbers and the interface flags, but not the offload bits.
const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;
const TUN_F_TSO6: libc::c_uint = 0x04;

/// Makes a TAP that stays until [`Interface::delete`] or until its network namespace ends.
pub fn create_tap(interface: &Interface, queues: TapQueues) -> Result<(), NetnsError> {
    let tap = open_queue(interface, queues)?;
    // SAFETY: TUNSETPERSIST takes its argument by value.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST as _, 1 as libc::c_ulong) };
    check(interface, "keep", result)
}

/// Attaches to a TAP by name, making it for as long as the descriptor lives if it does not exist. Non-blocking.
///
/// If the interface was up before, the kernel switches its carrier on a moment after this returns and drops what the
/// host sends until then.
pub fn attach_tap(interface: &Interface, queues: TapQueues) -> Result<File, NetnsError> {
    let tap = open_queue(interface, queues)?;
    let header_bytes = VNET_HEADER_BYTES as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads an int, which `header_bytes` is.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &header_bytes) };
    check(interface, "set the header size of", result)?;
    let offloads = libc::c_ulong::from(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6);
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD as _, offloads) };
    check(interface, "switch on the offloads of", result)?;
    Ok(tap)
}

/// Switches the offloads of an attached TAP off: every frame that comes out is a segment of its own with its checksum.
pub fn switch_offloads_off(interface: &Interface, tap: &File) -> Result<(), NetnsError> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD as _, 0 as libc::c_ulong) };
    check(interface, "switch off the offloads of", result)
}

fn open_queue(interface: &Interface, queues: TapQueues) -> Result<File, NetnsError> {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(NetnsError::TunDevice)?;
    // SAFETY: an all-zero ifreq is a valid value of that plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.name().bytes()) {
        *to = from as libc::c_char;
    }
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if queues == TapQueues::Multi {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which `request` is.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    if result != 0 {
        let source = io::Error::last_os_error();
        return Err(match source.raw_os_error() {
            Some(libc::EBUSY) => NetnsError::TapBusy(interface.name().to_owned()),
            // tun_set_iff: another kind of interface, or the other kind of queues.
            Some(libc::EINVAL) => NetnsError::TapMismatch(interface.name().to_owned()),
            _ => NetnsError::Interface {
                action: "open the TAP".into(),
                interface: interface.name().to_owned(),
                source,
            },
        });
    }
    Ok(tap)
}

fn check(interface: &Interface, action: &str, result: libc::c_int) -> Result<(), NetnsError> {
    if result == 0 {
        return Ok(());
    }
    Err(NetnsError::Interface {
        action: action.to_owned(),
        interface: interface.name().to_owned(),
        source: io::Error::last_os_error(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_namespace;
    use std::io::{Read, Write};
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    fn tap(name: &str, queues: TapQueues) -> Interface {
        let interface = Interface::named(name).unwrap();
        create_tap(&interface, queues).unwrap();
        interface
    }

    /// A UDP datagram from the host comes out of the TAP, and one written to the TAP reaches a host socket.
    #[test]
    fn attached_tap_carries_frames_both_ways() {
        in_namespace!(|| {
            let interface = tap("tap0", TapQueues::Single);
            interface.add_address("10.80.0.1".parse().unwrap(), 24).unwrap();
            interface.set_mtu(9000).unwrap();
            interface.set_transmit_queue_length(4000).unwrap();
            interface.up().unwrap();
            let settings = std::fs::read_to_string("/proc/self/net/route").unwrap();
            assert!(settings.contains("tap0\t0000500A"), "no route to 10.80.0.0: {settings}");

            let mut device = attach_tap(&interface, TapQueues::Single).unwrap();
            let socket = UdpSocket::bind("10.80.0.1:7000").unwrap();
            socket.set_broadcast(true).unwrap();
            // The carrier of a TAP that was up before it was attached comes a moment later; until then the host drops.
            let deadline = Instant::now() + Duration::from_secs(10);
            let mut frame = [0; 2048];
            let mut frame_bytes = 0;
            while !frame[..frame_bytes].ends_with(b"to the tap") {
                assert!(Instant::now() < deadline, "the datagram never came out of the TAP");
                socket.send_to(b"to the tap", "10.80.0.255:9").unwrap();
                std::thread::sleep(Duration::from_millis(1));
                frame_bytes = device.read(&mut frame).unwrap_or(0);
            }
            assert_eq!(frame_bytes, VNET_HEADER_BYTES + 14 + 20 + 8 + b"to the tap".len());

            let mac = &frame[VNET_HEADER_BYTES + 6..VNET_HEADER_BYTES + 12];
            device.write_all(&udp_frame_to_host(mac)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut text = [0; 16];
            let (n, from) = socket.recv_from(&mut text).unwrap();
            assert_eq!((&text[..n], from.to_string().as_str()), (&b"to the host"[..], "10.80.0.2:9"));
        });
    }

    #[test]
    fn attach_tap_held_single_queue_returns_tap_busy() {
        in_namespace!(|| {
            let interface = tap("tap0", TapQueues::Single);
            let _holder = attach_tap(&interface, TapQueues::Single).unwrap();
            let error = attach_tap(&interface, TapQueues::Single).unwrap_err();
            assert!(matches!(error, NetnsError::TapBusy(_)), "{error}");
        });
    }

    #[test]
    fn attach_tap_other_queue_kind_returns_tap_mismatch() {
        in_namespace!(|| {
            let interface = tap("tap0", TapQueues::Multi);
            let error = attach_tap(&interface, TapQueues::Single).unwrap_err();
            assert!(matches!(error, NetnsError::TapMismatch(_)), "{error}");
            let _first = attach_tap(&interface, TapQueues::Multi).unwrap();
            let _second = attach_tap(&interface, TapQueues::Multi).unwrap();
        });
    }

    #[test]
    fn delete_removes_a_persistent_tap() {
        in_namespace!(|| {
            let interface = tap("tap0", TapQueues::Single);
            assert!(interface.exists());
            interface.delete().unwrap();
            assert!(!interface.exists());
        });
    }

    /// Header, Ethernet, IPv4 and UDP (checksum 0: none, RFC 768) from 10.80.0.2:9 to 10.80.0.1:7000.
    fn udp_frame_to_host(mac: &[u8]) -> Vec<u8> {
        let payload = b"to the host";
        let udp_bytes = 8 + payload.len() as u16;
        let mut ip = vec![0x45, 0];
        ip.extend((20 + udp_bytes).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 80, 0, 2, 10, 80, 0, 1]);
        let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        ip[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        let mut frame = vec![0; VNET_HEADER_BYTES];
        frame.extend(mac);
        frame.extend([2, 0, 0, 0, 0, 2, 8, 0]);
        frame.extend(ip);
        frame.extend(
            9u16.to_be_bytes().into_iter().chain(7000u16.to_be_bytes()).chain(udp_bytes.to_be_bytes()),
        );
        frame.extend([0, 0]);
        frame.extend(payload);
        frame
    }
}

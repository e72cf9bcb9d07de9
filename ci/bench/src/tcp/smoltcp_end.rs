//! The session on smoltcp, on a TAP: as its documentation drives it, with every offload that the TAP and it both have.

use super::ends::{End, PORT};
use super::our_end::{MAC, SPIN_US};
use super::session::Session;
use crate::BenchError;
use crate::network::PREFIX_BITS;
use exos_net::{ChecksumRequest, Gso, GsoKind};
use exovm_netns::tap::VNET_HEADER_BYTES;
use exovm_netns::{Interface, TapQueues, attach_tap};
use exovm_tap_stack::{FRAME_BYTES_MAX, header};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use smoltcp::iface::{Config, Interface as Iface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::time::Duration;

/// Sockets that listen, or have a connection: each packet is shown to one after the other until one wants it.
const SOCKETS: usize = 8;
/// How long the loop sleeps at most.
const SLEEP_MAX: Duration = Duration::from_millis(50);
const ETHERNET_BYTES: usize = 14;
const MTU_BYTES: usize = 1_500;

pub(crate) fn serve(end: &End) -> Result<(), BenchError> {
    let name = end.tap.as_deref().unwrap_or_default();
    let tap = attach_tap(&Interface::named(name)?, TapQueues::Single)?;
    let mut device = Tap {
        tap,
        segments_are_offloaded: end.stack.segments_are_offloaded(),
        received: vec![0; FRAME_BYTES_MAX],
        sent: vec![0; FRAME_BYTES_MAX],
        frame_at: std::time::Instant::now(),
    };
    let start = std::time::Instant::now();
    let now = || Instant::from_micros(start.elapsed().as_micros() as i64);
    let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
    config.random_seed = u64::from(std::process::id());
    let mut iface = Iface::new(config, &mut device, now());
    let mut assigned = Ok(());
    iface.update_ip_addrs(|addresses| {
        assigned = addresses.push(IpCidr::new(end.address.into(), PREFIX_BITS));
    });
    if assigned.is_err() {
        return Err(BenchError::InvalidOptions("smoltcp has no room for an address".into()));
    }
    let mut sockets = SocketSet::new(Vec::new());
    let mut connections: Vec<_> = (0..SOCKETS).map(|_| Connection::new(&mut sockets, end)).collect();
    loop {
        iface.poll(now(), &mut device, &mut sockets);
        let mut worked = false;
        for connection in &mut connections {
            worked |= connection.work(sockets.get_mut(connection.handle));
        }
        if worked || device.frame_at.elapsed() < Duration::from_micros(SPIN_US) {
            continue;
        }
        let delay = iface.poll_delay(now(), &sockets).map_or(SLEEP_MAX, Duration::from);
        wait(&device.tap, delay.min(SLEEP_MAX))?;
    }
}

fn wait(tap: &File, time: Duration) -> Result<(), BenchError> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: time.as_nanos() as i64 };
    match poll(&mut [PollFd::new(tap, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(BenchError::system("wait for the TAP", error.into())),
    }
}

/// A socket and what is said on it.
struct Connection {
    handle: SocketHandle,
    session: Session,
}

impl Connection {
    fn new(sockets: &mut SocketSet<'_>, end: &End) -> Self {
        let buffer = || SocketBuffer::new(vec![0; end.buffer_bytes as usize]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_congestion_control(CongestionControl::Cubic);
        Self { handle: sockets.add(socket), session: Session::new() }
    }

    /// Reads and writes what is possible; answers whether anything was.
    fn work(&mut self, socket: &mut Socket<'_>) -> bool {
        if !socket.is_open() || socket.state() == State::TimeWait {
            socket.abort();
            self.session = Session::new();
            // A closed socket may listen.
            return socket.listen(PORT).is_ok();
        }
        let mut worked = false;
        while !self.session.output().is_empty() && socket.can_send() {
            let Ok(len) = socket.send_slice(self.session.output()) else { break };
            self.session.written(len);
            worked = true;
        }
        while self.session.output().is_empty() && socket.can_recv() {
            let session = &mut self.session;
            match socket.recv(|bytes| (bytes.len(), session.read(bytes))) {
                Ok(Ok(())) => worked = true,
                _ => {
                    socket.abort();
                    return true;
                }
            }
        }
        if socket.state() == State::CloseWait {
            socket.close();
            worked = true;
        }
        worked
    }
}

/// smoltcp's view of a TAP.
struct Tap {
    tap: File,
    segments_are_offloaded: bool,
    received: Vec<u8>,
    sent: Vec<u8>,
    /// When the last frame came.
    frame_at: std::time::Instant,
}

struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Sending<'a> {
    tap: &'a File,
    frame: &'a mut [u8],
    meta: PacketMeta,
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let frame = &mut self.frame[..VNET_HEADER_BYTES + len];
        let (vnet, packet) = frame.split_at_mut(VNET_HEADER_BYTES);
        let result = f(packet);
        vnet.copy_from_slice(&leave_checksum(packet, self.meta));
        // A full queue loses it, as any wire would.
        let _ = (&mut &*self.tap).write(frame);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

/// Leaves the checksum of a TCP segment to the TAP: its field gets the folded sum of the pseudo-header (VIRTIO 1.3 5.1.6.2).
fn leave_checksum(frame: &mut [u8], meta: PacketMeta) -> [u8; VNET_HEADER_BYTES] {
    const IPV4_BYTES: usize = 20;
    const TCP: usize = ETHERNET_BYTES + IPV4_BYTES;
    const CHECKSUM: usize = 16;
    let is_tcp = frame.len() >= TCP + 20 && frame[12..15] == [8, 0, 0x45] && frame[23] == 6;
    if !is_tcp {
        return [0; VNET_HEADER_BYTES];
    }
    let addresses = frame[26..TCP].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = addresses.sum::<u32>() + 6 + (frame.len() - TCP) as u32;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    frame[TCP + CHECKSUM..TCP + CHECKSUM + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    let headers_bytes = TCP + usize::from(frame[TCP + 12] >> 4) * 4;
    let request = ChecksumRequest { start: TCP as u16, offset: CHECKSUM as u16 };
    header::emit(
        Some(request),
        meta.segmentation_offload_size.map(|mss| Gso { kind: GsoKind::TcpIpv4, mss: mss.get() }),
        headers_bytes,
    )
}

impl Device for Tap {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        let len = (&self.tap).read(&mut self.received).ok()?;
        self.frame_at = std::time::Instant::now();
        let packet = self.received.get(VNET_HEADER_BYTES..len)?;
        let reply = Sending { tap: &self.tap, frame: &mut self.sent, meta: PacketMeta::default() };
        Some((Received(packet), reply))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending { tap: &self.tap, frame: &mut self.sent, meta: PacketMeta::default() })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU_BYTES + ETHERNET_BYTES;
        // The kernel on the other side of a TAP has verified, or never computed, what it hands out.
        capabilities.checksum.tcp = Checksum::None;
        if self.segments_are_offloaded {
            capabilities.segmentation.tcpv4 = NonZeroUsize::new(ETHERNET_BYTES + usize::from(u16::MAX));
        }
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leave_checksum_sums_the_pseudo_header_of_tcp_only() {
        let mut frame = vec![0; 14 + 20 + 20 + 3];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[23] = 6;
        frame[26..34].copy_from_slice(&[10, 80, 0, 2, 10, 80, 0, 1]);
        frame[34 + 12] = 5 << 4;
        let header = leave_checksum(&mut frame, PacketMeta::default());
        assert_eq!(header, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        // 0x0a50 + 0x0002 + 0x0a50 + 0x0001 + 6 + 23
        assert_eq!(frame[50..52], [0x14, 0xc0]);
        frame[23] = 17;
        assert_eq!(leave_checksum(&mut frame, PacketMeta::default()), [0; VNET_HEADER_BYTES]);
    }
}

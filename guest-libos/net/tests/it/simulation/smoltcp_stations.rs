//! The same two ends made of smoltcp, as its users get it without asking for anything: no congestion control, no timestamps.

use exos_net::{Duration, Instant};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp;
use smoltcp::time::Instant as PeerInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::smoltcp_device::SmoltcpDevice;
use super::stations::{Flow, PERIOD, PORT, RECEIVER_IP, RECEIVER_MAC, mac, stream};
use super::{BEGIN, LinkConfig, Network, Setup, Station};

/// A host with one socket.
struct Host {
    device: SmoltcpDevice,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

fn peer_time(at: Instant) -> PeerInstant {
    PeerInstant::from_micros(at.as_nanos().div_ceil(1_000) as i64)
}

impl Host {
    fn new(mac: [u8; 6], ip: [u8; 4], buffer_bytes: usize) -> Self {
        // Nothing on the way damages a frame, so nobody sums.
        let mut device = SmoltcpDevice::new(ChecksumCapabilities::ignored());
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        let mut interface = Interface::new(config, &mut device, peer_time(BEGIN));
        let [a, b, c, d] = ip;
        interface
            .update_ip_addrs(|addresses| addresses.push(IpCidr::new(IpAddress::v4(a, b, c, d), 24)).unwrap());
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer_bytes]);
        let mut sockets = SocketSet::new(Vec::new());
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // As it is by itself; a feature that anybody in the build has turns another one on.
        socket.set_congestion_control(tcp::CongestionControl::None);
        let handle = sockets.add(socket);
        Self { device, interface, sockets, handle }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn poll(&mut self, now: Instant) {
        self.interface.poll(peer_time(now), &mut self.device, &mut self.sockets);
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(peer_time(now), &self.sockets)?;
        Some(Instant::ZERO + Duration::from_micros(at.total_micros() as u64))
    }
}

pub(crate) struct Sender {
    host: Host,
    now: Instant,
    /// Bytes queued so far.
    queued: u64,
}

impl Sender {
    fn new(buffer_bytes: usize) -> Self {
        let mut host = Host::new(mac(0).0, [10, 0, 0, 2], buffer_bytes);
        let socket = host.sockets.get_mut::<tcp::Socket<'_>>(host.handle);
        socket.connect(host.interface.context(), (IpAddress::from(RECEIVER_IP), PORT), 50_000).unwrap();
        let mut sender = Self { host, now: BEGIN, queued: 0 };
        sender.work(BEGIN);
        sender
    }

    fn work(&mut self, now: Instant) {
        self.now = now;
        self.host.poll(now);
        let socket = self.host.sockets.get_mut::<tcp::Socket<'_>>(self.host.handle);
        while socket.can_send() {
            let place = (self.queued % PERIOD as u64) as usize;
            self.queued += socket.send_slice(&stream()[place..]).unwrap() as u64;
        }
        self.host.poll(now);
    }
}

impl Station for Sender {
    fn take(&mut self, _: Instant, frame: &[u8]) {
        self.host.device.received.push_back(frame.to_vec());
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        self.host.next_deadline(self.now)
    }

    /// After all that arrives at the same time, which it handles in one go.
    fn expire(&mut self, now: Instant) {
        self.work(now);
    }

    fn frames(&mut self) -> &mut Vec<Vec<u8>> {
        &mut self.host.device.sent
    }
}

pub(crate) struct Receiver {
    host: Host,
    now: Instant,
    flow: [Flow; 1],
}

impl Receiver {
    fn new(buffer_bytes: usize) -> Self {
        let mut host = Host::new(RECEIVER_MAC.0, RECEIVER_IP.octets(), buffer_bytes);
        host.socket().listen(PORT).unwrap();
        Self { host, now: BEGIN, flow: [Flow::default()] }
    }

    fn work(&mut self, now: Instant) {
        self.now = now;
        self.host.poll(now);
        let socket = self.host.sockets.get_mut::<tcp::Socket<'_>>(self.host.handle);
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    self.flow[0].check(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        self.host.poll(now);
    }
}

impl AsRef<[Flow]> for Receiver {
    fn as_ref(&self) -> &[Flow] {
        &self.flow
    }
}

impl Station for Receiver {
    fn take(&mut self, _: Instant, frame: &[u8]) {
        self.host.device.received.push_back(frame.to_vec());
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        self.host.next_deadline(self.now)
    }

    /// After all that arrives at the same time, which it handles in one go.
    fn expire(&mut self, now: Instant) {
        self.work(now);
    }

    fn frames(&mut self) -> &mut Vec<Vec<u8>> {
        &mut self.host.device.sent
    }
}

/// A flow of smoltcp's through these links, with buffers of `buffer_bytes` on both sides.
pub(crate) fn network(
    buffer_bytes: usize,
    forward: LinkConfig,
    backward: LinkConfig,
    seed: u64,
) -> Network<Sender, Receiver> {
    let setup = Setup {
        senders: Vec::new(),
        receiver: super::stations::config(),
        forward,
        backward,
        send_buffer_bytes: buffer_bytes,
        seed,
    };
    Network::of(vec![Sender::new(buffer_bytes)], Receiver::new(buffer_bytes), &setup)
}

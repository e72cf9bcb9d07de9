//! A guest in a test: an independent stack (smoltcp over Ethernet) at the other end of the wire, and frames made by hand.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use exovm_user_net::{
    Config, Counters, GATEWAY_ADDRESS, GUEST_ADDRESS, GUEST_MAC, GuestOffloads, HEADER_BYTES, MTU_BYTES,
    PREFIX_LEN, UserNet,
};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken,
};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

/// How long anything may take, on a busy host.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of Ethernet and IPv4 headers.
const BEFORE_TCP: u16 = 34;

/// What the guest's driver and stack leave to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offloads {
    /// Nothing: whole checksums, small segments.
    None,
    /// Checksums and segmentation, both ways.
    All,
}

/// Frames on their way, header first.
#[derive(Default)]
struct Wire {
    to_guest: VecDeque<Vec<u8>>,
    from_guest: VecDeque<Vec<u8>>,
    offloads: bool,
}

struct In(Vec<u8>);
struct Out<'a>(&'a mut Wire, PacketMeta);

impl RxToken for In {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0[HEADER_BYTES..])
    }
}

impl TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; HEADER_BYTES + len];
        let result = f(&mut frame[HEADER_BYTES..]);
        let is_tcp = frame[HEADER_BYTES + 12..][..2] == [8, 0] && frame[HEADER_BYTES + 23] == 6;
        if self.0.offloads && is_tcp {
            let mss = self.1.segmentation_offload_size.map_or(0, |mss| mss.get());
            frame[0] = 1;
            frame[1] = u8::from(mss != 0);
            let words = [if mss == 0 { 0 } else { BEFORE_TCP + 20 }, mss, BEFORE_TCP, 16];
            for (place, word) in frame[2..10].chunks_exact_mut(2).zip(words) {
                place.copy_from_slice(&word.to_le_bytes());
            }
        }
        self.0.from_guest.push_back(frame);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.1 = meta;
    }
}

impl Device for Wire {
    type RxToken<'a> = In;
    type TxToken<'a> = Out<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(In, Out<'_>)> {
        let frame = self.to_guest.pop_front()?;
        Some((In(frame), Out(self, PacketMeta::default())))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Out<'_>> {
        Some(Out(self, PacketMeta::default()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU_BYTES + 14;
        if self.offloads {
            capabilities.checksum = ChecksumCapabilities::ignored();
            capabilities.checksum.ipv4 = Checksum::Both;
            capabilities.segmentation.tcpv4 = NonZeroUsize::new(65535);
        }
        capabilities
    }
}

/// A network and a guest on it.
pub(crate) struct World {
    pub(crate) net: UserNet,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    started: Instant,
    /// Time that passed besides.
    skipped: Duration,
    /// The clock stands still there.
    stopped: Option<Duration>,
    /// The guest's frames are lost.
    pub(crate) guest_is_deaf: bool,
    /// Of the frames to the guest: the longest, header included, and what segments they were to be seen as.
    pub(crate) longest_bytes: usize,
    pub(crate) segment_sizes: BTreeSet<u16>,
}

/// A configuration that publishes what is written there.
pub(crate) fn publishing(publish: &[&str]) -> Config {
    Config {
        guest_mac: GUEST_MAC,
        publish: publish.iter().map(|text| text.parse().expect(text)).collect(),
        seed: 7,
        ..Config::default()
    }
}

impl World {
    /// A guest without offloads, to whose port 80 a free port of the host leads.
    pub(crate) fn new() -> Self {
        Self::with(publishing(&["0:80"]), Offloads::None)
    }

    pub(crate) fn with(config: Config, offloads: Offloads) -> Self {
        let mut net = UserNet::new(config).unwrap_or_else(|error| panic!("{error}"));
        let offloads = offloads == Offloads::All;
        net.set_offloads(GuestOffloads { checksum: offloads, tso4: offloads });
        let mut wire = Wire { offloads, ..Wire::default() };
        let mut config = smoltcp::iface::Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC)));
        config.random_seed = 99;
        let mut interface = Interface::new(config, &mut wire, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(GUEST_ADDRESS.into(), PREFIX_LEN)).expect("room for one");
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY_ADDRESS).expect("room for one");
        let sockets = SocketSet::new(Vec::new());
        let (started, skipped) = (Instant::now(), Duration::ZERO);
        let (longest_bytes, segment_sizes) = (0, BTreeSet::new());
        Self {
            net,
            wire,
            interface,
            sockets,
            started,
            skipped,
            stopped: None,
            guest_is_deaf: false,
            longest_bytes,
            segment_sizes,
        }
    }

    /// The host's address of what was published first.
    pub(crate) fn address(&self) -> SocketAddr {
        self.net.published()[0].host
    }

    pub(crate) fn now(&self) -> Duration {
        self.stopped.unwrap_or_else(|| self.started.elapsed()) + self.skipped
    }

    /// Whatever happens now happens at the same moment, until [`Self::start_clock`].
    pub(crate) fn stop_clock(&mut self) {
        self.stopped = Some(self.started.elapsed());
    }

    pub(crate) fn start_clock(&mut self) {
        self.stopped = None;
    }

    /// Lets time pass at once.
    pub(crate) fn skip(&mut self, time: Duration) {
        self.skipped += time;
    }

    pub(crate) fn counters(&self) -> Counters {
        self.net.counters()
    }

    /// A socket of the guest with buffers of this size.
    pub(crate) fn socket(&mut self, buffer_bytes: usize) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; buffer_bytes]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        self.sockets.add(socket)
    }

    /// A socket of the guest that waits for a client on `port`.
    pub(crate) fn listen(&mut self, port: u16) -> SocketHandle {
        let handle = self.socket(256 << 10);
        self.tcp(handle).listen(port).expect("it is closed");
        handle
    }

    /// A socket of the guest that connects.
    pub(crate) fn connect(&mut self, to: (std::net::Ipv4Addr, u16), local_port: u16) -> SocketHandle {
        let handle = self.socket(256 << 10);
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        let (ip, port) = to;
        socket
            .connect(self.interface.context(), (smoltcp::wire::IpAddress::from(ip), port), local_port)
            .expect("it is closed");
        handle
    }

    pub(crate) fn tcp(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(crate) fn state(&mut self, handle: SocketHandle) -> State {
        self.tcp(handle).state()
    }

    /// Moves frames until both sides have nothing to say. Returns how many went either way.
    pub(crate) fn exchange(&mut self) -> usize {
        let mut frames = 0;
        loop {
            let now = self.now();
            let before = frames;
            while let Some(frame) = self.net.output(now) {
                frames += 1;
                self.longest_bytes = self.longest_bytes.max(frame.len());
                self.segment_sizes.insert(u16::from_le_bytes([frame[4], frame[5]]));
                self.wire.to_guest.push_back(frame.to_vec());
            }
            if self.guest_is_deaf {
                self.wire.to_guest.clear();
            }
            let at = smoltcp::time::Instant::from_micros(now.as_micros() as i64);
            self.interface.poll(at, &mut self.wire, &mut self.sockets);
            while let Some(frame) = self.wire.from_guest.pop_front() {
                frames += 1;
                self.net.input(now, &frame);
            }
            if frames == before {
                return frames;
            }
        }
    }

    /// Moves frames until something is the case.
    #[track_caller]
    pub(crate) fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.exchange();
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "{what} does not come; {:#?}", self.counters());
            self.wait(Duration::from_millis(2));
        }
    }

    /// Sleeps until the network has something to say, or the time is over.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::BorrowedFd;
        // SAFETY: the network has the descriptor for as long as it is borrowed here.
        let fd = unsafe { BorrowedFd::borrow_raw(self.net.event_fd()) };
        let timeout = PollTimeout::try_from(time).expect("a short time");
        poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout).is_ok_and(|count| count > 0)
    }

    /// Moves frames until a socket is in a state.
    #[track_caller]
    pub(crate) fn until_state(&mut self, handle: SocketHandle, state: State) {
        self.until(&format!("{state}"), |world| (world.state(handle) == state).then_some(()));
    }

    /// Receives in the guest until there are so many bytes.
    #[track_caller]
    pub(crate) fn receive(&mut self, handle: SocketHandle, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.until(&format!("{count} bytes"), |world| {
            let socket = world.tcp(handle);
            while socket.can_recv() && bytes.len() < count {
                socket.recv(|new| (new.len(), bytes.extend_from_slice(new))).expect("it can");
            }
            (bytes.len() >= count).then_some(())
        });
        bytes
    }

    /// Waits for a frame of the network, which the guest does not get.
    #[track_caller]
    pub(crate) fn until_raw(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.now();
            if let Some(frame) = self.net.output(now) {
                return frame.to_vec();
            }
            assert!(Instant::now() < deadline, "no frame comes");
            self.wait(Duration::from_millis(2));
        }
    }

    /// Gives the network a frame made by hand, and takes what comes out.
    pub(crate) fn raw(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let now = self.now();
        self.net.input(now, frame);
        std::iter::from_fn(|| self.net.output(now).map(<[u8]>::to_vec)).collect()
    }
}

/// Bytes that are different everywhere.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

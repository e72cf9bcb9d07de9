//! The guardian's loop: frames that are nobody's, requests, and clients that have ended.

use crate::neighbours::{Interface, Neighbours};
use crate::ports::{Flows, Ports};
use crate::request::{self, Port, Refusal, Request, TCP, Words};
use crate::tables::{Page, Writer};
use abi::boot::{DEVICE_NET, phase};
use abi::call::{Call, state};
use abi::capability::{Handle, rights};
use abi::flow::{Level, ipv4};
use core::net::Ipv4Addr;
use exos_net::{Config, ConfigError, ControlFrame, Input, Instant, MacAddress, RxChecksum, RxMeta, Stack};
use exos_nic::{Arming, Interest, Offload, OpenError, Piece, QueuePair, TransmitQueue};
use exos_runtime::clock::{self, Scale};
use exos_runtime::message::{self, Message, Sender};
use exos_runtime::{kernel, pages, shared, sleep::Watch, turn};
use exos_virtqueue::guest::GuestHal;

/// How long the guardian sleeps at most: then it looks for clients that have ended, and asks for the gateway again.
const SLEEP_MS: u64 = 1_000;
/// Frames between two looks at messages.
const BATCH: usize = 64;

/// Why an environment cannot be the guardian.
#[derive(Debug)]
pub enum StartError {
    /// It holds no NIC with all its flows and an address: only the first environment of a machine with a network does.
    NothingToGuard,
    /// The queues cannot be bound.
    Nic(OpenError),
    /// The stack does not take the configuration.
    Stack(ConfigError),
    /// The kernel refused the pages or the flows.
    Kernel(abi::call::Error),
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NothingToGuard => f.write_str(
                "there is no network interface with an address; start the machine with --net tap=... or --net user",
            ),
            Self::Nic(error) => write!(f, "the NIC's queues cannot be bound: {error}"),
            Self::Stack(error) => write!(f, "the stack does not start: {error}"),
            Self::Kernel(error) => write!(f, "the kernel refused the guardian's own: {}", error.message()),
        }
    }
}

/// Guards the first NIC until the user wants the machine to end.
pub fn serve() -> Result<(), StartError> {
    let mut guardian = Guardian::start()?;
    pages::stamp(phase::READY);
    while !turn::stop_wanted() {
        guardian.round();
    }
    Ok(())
}

struct Guardian {
    nic: QueuePair<GuestHal, ()>,
    /// Answers ARP and pings, and refuses connections to ports that are nobody's.
    stack: Stack<&'static [u8]>,
    neighbours: Neighbours,
    ports: Ports<Kernel>,
    writer: Writer<'static>,
    tables: Handle,
    scale: Scale,
    /// When the gateway may be asked for again.
    ask_at_tsc: u64,
}

impl Guardian {
    fn start() -> Result<Self, StartError> {
        let environment = pages::environment();
        let index = pages::device_of_kind(DEVICE_NET).ok_or(StartError::NothingToGuard)?;
        let device = &environment.devices[index];
        let flow = environment.capabilities.flows[index];
        if flow == Handle::NONE || environment.ipv4.address == [0; 4] {
            return Err(StartError::NothingToGuard);
        }
        let nic = QueuePair::open(GuestHal, index as u32, device, 0, &exos_nic::Config::default());
        let nic = nic.map_err(StartError::Nic)?;
        pages::stamp(phase::NETWORK);
        let mut mac = [0; 6];
        mac.copy_from_slice(&device.mac[..6]);
        let interface = Interface {
            mac: MacAddress(mac),
            ip: Ipv4Addr::from(environment.ipv4.address),
            prefix_len: environment.ipv4.prefix_len as u8,
            gateway: Some(Ipv4Addr::from(environment.ipv4.gateway))
                .filter(|gateway| !gateway.is_unspecified()),
        };
        let mut secret = [0; 16];
        secret.copy_from_slice(&environment.entropy[..16]);
        let mut config = Config::new(interface.mac, interface.ip, interface.prefix_len, secret);
        config.gateway = interface.gateway;
        config.mtu = device.mtu_bytes as u16;
        let scale = Scale::new();
        let stack = Stack::new(config, now(scale)).map_err(StartError::Stack)?;
        let own = shared::Page::new().map_err(StartError::Kernel)?;
        let words: &'static Page = own.words;
        Ok(Self {
            nic,
            stack,
            neighbours: Neighbours::new(interface),
            ports: Ports::new(Kernel::new(flow, environment.ipv4.address)),
            writer: Writer::new(words, interface),
            tables: own.memory,
            scale,
            ask_at_tsc: 0,
        })
    }

    fn round(&mut self) {
        let watch = Watch::now().with_messages();
        let (frames, learned) = self.frames();
        let mut changed = learned;
        while message::waiting() != 0 {
            changed |= self.request();
        }
        changed |= self.look_for_ended();
        if changed {
            self.writer.publish(self.ports.iter(), self.neighbours.iter());
        }
        self.ask_for_gateway();
        self.nic.transmit.reclaim();
        self.nic.transmit.publish();
        if frames == 0 && message::waiting() == 0 {
            self.sleep(&watch);
        }
    }

    /// How many came, and whether somebody was learned.
    fn frames(&mut self) -> (usize, bool) {
        let now = now(self.scale);
        let (mut frames, mut learned) = (0, false);
        while frames < BATCH {
            let Some(frame) = self.nic.receive.poll() else { break };
            frames += 1;
            learned |= self.neighbours.learn(frame.bytes());
            // What the host sends itself has no checksum, and the device says so.
            let trusted = frame.checksum().is_trustworthy();
            let checksum = if trusted { RxChecksum::TransportValid } else { RxChecksum::Unknown };
            if let Input::Reply(reply) = self.stack.input(now, frame.bytes(), RxMeta { checksum }) {
                send(&mut self.nic.transmit, &reply);
            }
        }
        (frames, learned)
    }

    /// Receives one message; whether it changed anything.
    fn request(&mut self) -> bool {
        // There is one, or its sender has just ended: a moment that has passed.
        let Ok(Message { from, words }) = message::receive(1) else { return false };
        let (answer, changed) = match self.handle(from, words) {
            Ok((value, changed)) => (Ok(value), changed),
            Err(refusal) => (Err(refusal), false),
        };
        // Who does not wait, or not any more, does not hear it.
        let _ = message::reply(from, request::answer(answer));
        changed
    }

    fn handle(&mut self, from: Sender, words: Words) -> Result<(u64, bool), Refusal> {
        let client = from.environment();
        match Request::from_words(words)? {
            Request::Reserve(port) => self.ports.reserve(client, port).map(|handle| (handle, true)),
            Request::Release(port) => self.ports.release(client, port).map(|()| (0, true)),
            Request::Tables => give(self.tables, client, rights::READ).map(|handle| (handle, false)),
        }
    }

    /// Ports of clients that have ended are free again; whether there were any.
    fn look_for_ended(&mut self) -> bool {
        let mut owners = self.ports.iter().fold(0u64, |owners, (_, client)| owners | 1 << (client % 64));
        let mut changed = false;
        while owners != 0 {
            let client = owners.trailing_zeros();
            owners &= owners - 1;
            let status = kernel::raw(Call::EnvironmentStatus, [neighbour(client).0, 0, 0, 0, 0]);
            let lives =
                status.is_ok_and(|status| !matches!(status & 0xFFFF_FFFF, state::GONE | state::ENDING));
            if !lives {
                log::info!("environment {client} has ended; its ports are free");
                changed |= self.ports.ended(client);
            }
        }
        changed
    }

    fn ask_for_gateway(&mut self) {
        let Some(request) = self.neighbours.ask_for_gateway() else { return };
        let now = clock::tsc();
        if now < self.ask_at_tsc {
            return;
        }
        self.ask_at_tsc = now + self.scale.ticks(SLEEP_MS * 1_000_000);
        // Asked again in a while, if it is lost.
        let _ = self.nic.transmit.transmit(&request, &[], Offload::None, ());
    }

    /// Until a frame or a message comes, an environment has ended, or it is time to look.
    fn sleep(&mut self, watch: &Watch) {
        let deadline = clock::tsc() + self.scale.ticks(SLEEP_MS * 1_000_000);
        let armed = turn::wanted() || self.nic.request_interrupts(Interest::Receive) == Arming::Sleep;
        if armed && !self.nic.receive.is_ready() && !turn::stop_wanted() {
            watch.sleep(deadline);
        }
        self.nic.suppress_interrupts();
    }
}

fn send(transmit: &mut TransmitQueue<GuestHal, ()>, frame: &ControlFrame<'_>) {
    // What is lost is asked for again.
    let _ = transmit.transmit(frame.head(), &[Piece::Copy(frame.body())], Offload::None, ());
}

fn now(scale: Scale) -> Instant {
    Instant::from_nanos(scale.ns(clock::tsc()))
}

/// The capability for a client; none for a number that cannot be one's.
fn neighbour(client: u32) -> Handle {
    let neighbours = &pages::environment().capabilities.neighbours;
    neighbours.get(client as usize).copied().unwrap_or(Handle::NONE)
}

fn give(capability: Handle, client: u32, rights: u16) -> Result<u64, Refusal> {
    let to = neighbour(client);
    if to == Handle::NONE {
        return Err(Refusal::Stranger);
    }
    kernel::raw(Call::CapabilityGive, [0, capability.0, to.0, u64::from(rights), 0])
        .map_err(|_| Refusal::NoSpace)
}

/// Flows in the kernel: one for each port, below one for each protocol, below the interface's address.
struct Kernel {
    root: Handle,
    address: [u8; 4],
    host: Option<Handle>,
    /// TCP's and UDP's.
    protocols: [Option<Handle>; 2],
}

impl Kernel {
    const fn new(root: Handle, address: [u8; 4]) -> Self {
        Self { root, address, host: None, protocols: [None; 2] }
    }

    fn protocol(&mut self, protocol: u8) -> Result<Handle, Refusal> {
        let host = match self.host {
            Some(host) => host,
            None => carve(self.root, Level::DestinationPrefix as u64 | 128 << 8, ipv4(self.address))?,
        };
        self.host = Some(host);
        let at = usize::from(protocol != TCP);
        let flow = match self.protocols[at] {
            Some(flow) => flow,
            None => carve(host, Level::Protocol as u64, [0, protocol.into()])?,
        };
        self.protocols[at] = Some(flow);
        Ok(flow)
    }
}

fn carve(from: Handle, level: u64, [high, low]: [u64; 2]) -> Result<Handle, Refusal> {
    kernel::raw(Call::FlowCarve, [0, from.0, level, high, low]).map(Handle).map_err(|_| Refusal::NoSpace)
}

impl Flows for Kernel {
    type Flow = Handle;

    fn carve(&mut self, port: Port) -> Result<Handle, Refusal> {
        let protocol = self.protocol(port.protocol)?;
        carve(protocol, Level::DestinationPort as u64, [0, port.number.into()])
    }

    fn give(&mut self, flow: Handle, client: u32) -> Result<u64, Refusal> {
        give(flow, client, rights::CARVE | rights::DIRECT | rights::GIVE)
    }

    fn take_back(&mut self, flow: Handle) {
        // Bounded steps; the flow has one node and what its holder carved below.
        while kernel::raw(Call::CapabilityDrop, [0, flow.0, 0, 0, 0]).is_ok_and(|left| left != 0) {}
    }
}

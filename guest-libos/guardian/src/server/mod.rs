//! The guardian's loop: frames that are nobody's, requests, and clients that have ended.

mod kernel_flows;

use crate::neighbours::{AddressState, Interface, Neighbours, Random};
use crate::ports::Ports;
use crate::request::{self, Refusal, Request, Words};
use crate::tables::{Link, Page, Writer};
use abi::boot::{DEVICE_NET, EnvironmentPage, phase};
use abi::call::{Call, state};
use abi::capability::{Handle, rights};
use core::net::Ipv4Addr;
use exos_net::{Config, ConfigError, Duration, Input, Instant, MacAddress, RxChecksum, RxMeta, Stack};
use exos_nic::{Arming, Interest, Offload, OpenError, Piece, QueuePair};
use exos_runtime::clock::{self, Scale};
use exos_runtime::message::{self, Message, Sender};
use exos_runtime::{kernel, pages, shared, sleep::Watch, turn};
use exos_virtqueue::guest::GuestHal;
use kernel_flows::{KernelFlows, give, neighbour};

/// How long the guardian sleeps at most: then it looks for clients that have ended.
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
    ports: Ports<KernelFlows>,
    writer: Writer<'static>,
    tables: Handle,
    scale: Scale,
    /// What has become of the IPv6 address, as far as the log says it.
    said: AddressState,
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
        // Nobody lets its time pass; and what comes in fragments goes to whose flow it is.
        config.max_reassemblies = 0;
        let scale = Scale::new();
        let stack = Stack::new(config, now(scale)).map_err(StartError::Stack)?;
        let own = shared::Page::new().map_err(StartError::Kernel)?;
        let words: &'static Page = own.words;
        let clients = clients(environment);
        Ok(Self {
            nic,
            stack,
            neighbours: Neighbours::new(interface, clients + 1, random(environment), now(scale)),
            ports: Ports::new(KernelFlows::new(flow, environment.ipv4.address), clients),
            writer: Writer::new(words, interface),
            tables: own.memory,
            scale,
            said: AddressState::Tentative,
        })
    }

    fn round(&mut self) {
        let watch = Watch::now().with_messages();
        let (frames, mut changed) = self.frames();
        while message::waiting() != 0 {
            changed |= self.request();
        }
        changed |= self.look_for_ended();
        let Self { neighbours, nic, .. } = self;
        changed |= neighbours.tick(now(self.scale), |frame| {
            // What is lost is asked for again.
            let _ = nic.transmit.transmit(frame.bytes(), &[], Offload::None, ());
        });
        if changed {
            self.show();
        }
        self.tell();
        self.nic.transmit.reclaim();
        self.nic.transmit.publish();
        if frames == 0 && message::waiting() == 0 {
            self.sleep(&watch);
        }
    }

    /// How many came, and whether something is known now that was not.
    fn frames(&mut self) -> (usize, bool) {
        let now = now(self.scale);
        let (mut frames, mut changed) = (0, false);
        while frames < BATCH {
            let Some(frame) = self.nic.receive.poll() else { break };
            frames += 1;
            let heard = self.neighbours.hear(now, frame.bytes());
            changed |= heard.changed;
            // What the host sends itself has no checksum, and the device says so.
            let trusted = frame.checksum().is_trustworthy();
            let checksum = if trusted { RxChecksum::TransportValid } else { RxChecksum::Unknown };
            let transmit = &mut self.nic.transmit;
            // Of what is lost here the other side asks again.
            if let Some(reply) = heard.reply {
                let _ = transmit.transmit(reply.bytes(), &[], Offload::None, ());
            }
            if let Input::Reply(reply) = self.stack.input(now, frame.bytes(), RxMeta { checksum }) {
                let _ = transmit.transmit(reply.head(), &[Piece::Copy(reply.body())], Offload::None, ());
            }
        }
        (frames, changed)
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
            // A stranger could not be woken.
            Request::Neighbour(_) if neighbour(client) == Handle::NONE => Err(Refusal::Stranger),
            Request::Neighbour(ip) => {
                let mac = self.neighbours.ask(now(self.scale), client, ip)?;
                Ok((request::mac_word(mac), false))
            }
        }
    }

    /// What clients that have ended had is free again; whether they had ports.
    fn look_for_ended(&mut self) -> bool {
        let owners = self.ports.iter().fold(0u64, |owners, (_, client)| owners | 1 << (client % 64));
        // The guardian asks, too, and lives.
        let mut clients = (owners | self.neighbours.askers()) & !1;
        let mut changed = false;
        while clients != 0 {
            let client = clients.trailing_zeros();
            clients &= clients - 1;
            let status = kernel::raw(Call::EnvironmentStatus, [neighbour(client).0, 0, 0, 0, 0]);
            let lives =
                status.is_ok_and(|status| !matches!(status & 0xFFFF_FFFF, state::GONE | state::ENDING));
            if !lives {
                self.neighbours.ended(client);
                if self.ports.ended(client) {
                    log::info!("environment {client} has ended; its ports are free");
                    changed = true;
                }
            }
        }
        changed
    }

    /// Shows what is known now.
    fn show(&mut self) {
        let link = Link::from(&self.neighbours);
        self.writer.publish(self.ports.iter(), self.neighbours.iter(), link);
        if self.said != link.ipv6 {
            self.said = link.ipv6;
            let (address, state) = self.neighbours.address();
            match state {
                AddressState::Duplicate => log::warn!("{address} belongs to another host; no IPv6 here"),
                _ => log::info!("{address} is ours"),
            }
        }
    }

    /// Wakes those whose questions have come to an end.
    fn tell(&mut self) {
        let mut told = self.neighbours.take_told();
        while told != 0 {
            let client = told.trailing_zeros();
            told &= told - 1;
            // Who has ended meanwhile needs no waking.
            let _ = kernel::raw(Call::Wake, [neighbour(client).0, 0, 0, 0, 0]);
        }
    }

    /// Until a frame or a message comes, an environment has ended, or it is time to do something.
    fn sleep(&mut self, watch: &Watch) {
        let longest = now(self.scale) + Duration::from_millis(SLEEP_MS);
        let until = self.neighbours.next_due().map_or(longest, |due| due.min(longest));
        // A tick more: what is due at a nanosecond is due when the clock shows it.
        let deadline = self.scale.ticks(until.as_nanos()).saturating_add(self.scale.ticks(1_000));
        let armed = turn::wanted() || self.nic.request_interrupts(Interest::Receive) == Arming::Sleep;
        if armed && !self.nic.receive.is_ready() && !turn::stop_wanted() {
            watch.sleep(deadline);
        }
        self.nic.suppress_interrupts();
    }
}

/// How many may ask.
fn clients(environment: &EnvironmentPage) -> usize {
    let own = environment.environment as usize;
    let others = environment.capabilities.neighbours.iter().enumerate();
    others.filter(|(number, handle)| *number != own && **handle != Handle::NONE).count()
}

/// Bits that nobody on the link knows; the stack has others.
fn random(environment: &EnvironmentPage) -> Random {
    let [a, b, c, d, e, f, g, h] = core::array::from_fn(|at| environment.entropy[24 + at]);
    let delay = Duration::from_millis((u64::from(u16::from_le_bytes([g, h])) * 1000) >> 16);
    Random { nonce: [a, b, c, d, e, f], delay }
}

fn now(scale: Scale) -> Instant {
    Instant::from_nanos(scale.ns(clock::tsc()))
}

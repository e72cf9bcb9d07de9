//! The loop of a network service: polls the NIC, gives frames to the TCP/IP stack, lets the service answer, and when
//! nothing is left to do, hands the CPU to the device work.
//!
//! The service sees connections and bytes ([`Service`]); the specialist who wants to decide what is acknowledged when,
//! or what is merged with what, uses [`exos_net`] and [`exos_nic`] directly, as this crate does.
#![no_std]

extern crate alloc;

mod aside;
mod connection;
pub mod console;
pub mod disk;
mod service;
mod statistics;
mod transmit;
mod waiting;

use abi::boot::{DEVICE_NET, phase};
use abi::call::Error;
use aside::Aside;
use connection::{offer_kept, output, segment, send_control};
use console::{Answers, Console, Next};
use core::net::Ipv4Addr;
use disk::Disk;
use exos_net::{
    AckPolicy, Config, ConfigError, Duration, End, Input, Instant, ListenError, MacAddress, RxChecksum,
    RxMeta, Stack, TimerEvent, TxChecksum,
};
use exos_nic::{OpenError, QueuePair};
use exos_runtime::clock::{self, Scale};
use exos_runtime::{heap, pages, revocation, turn};
use exos_virtqueue::guest::GuestHal;
use service::{Asked, Resumed};
pub use service::{Io, Service};
use transmit::{Held, Sender};

/// Frames handled before transmit queue and timers get their turn.
const BATCH: usize = 64;
/// A connection without progress for so long is closed, or aborted if its peer does not take what it asked for. What nginx
/// and Apache do after 60 to 75 s by default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Of the connections allowed, one in so many is kept free by ending silent ones, so that clients who come find a place.
const RESERVE: usize = 64;
/// A connection without progress for so long may be ended when places run out.
const SILENCE: Duration = Duration::from_secs(1);
/// Of the heap, one part in so many may be taken by what peers have sent and the service has not read.
const BUFFERED_SHARE: u64 = 16;
/// Descriptors of the transmit queue.
const TRANSMIT_SIZE: u16 = 1024;
/// Descriptors that must be free for a batch to begin; otherwise the device gets time first.
const TRANSMIT_ROOM: usize = 256;

/// Why a service cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The machine has no network interface.
    NoNic,
    /// The interface has no address.
    NoAddress,
    /// The queues cannot be bound.
    Nic(OpenError),
    /// The stack does not take the configuration.
    Stack(ConfigError),
    /// The port cannot be listened on.
    Listen(ListenError),
    /// The console cannot be opened.
    Console(exos_channel::OpenError),
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoNic => f.write_str("the machine has no network interface; start it with --net tap=..."),
            Self::NoAddress => {
                f.write_str("the interface has no address; start the machine with --net tap=...,ip=...")
            }
            Self::Nic(error) => write!(f, "the NIC's queues cannot be bound: {error}"),
            Self::Stack(error) => write!(f, "the TCP/IP stack does not start: {error}"),
            Self::Listen(error) => write!(f, "cannot listen: {error}"),
            Self::Console(error) => write!(f, "the console cannot be opened: {error}"),
        }
    }
}

/// Serves `port` until the user wants the machine to end.
pub fn serve<S: Service>(service: &mut S, port: u16, max_connections: u32) -> Result<(), StartError> {
    EventLoop::start(service, None, Some(port), &Limits::of_server(max_connections))?.serve(port, None);
    Ok(())
}

/// Like [`serve`], for a service that reads from a disk.
pub fn serve_from<S: Service>(
    service: &mut S,
    disk: Disk,
    port: u16,
    max_connections: u32,
) -> Result<(), StartError> {
    EventLoop::start(service, Some(disk), Some(port), &Limits::of_server(max_connections))?.serve(port, None);
    Ok(())
}

/// Like [`serve_from`], where somebody else hears ARP: `gateway` says where the gateway is, if that is news. It is asked each time
/// round.
pub fn serve_behind<'s, S: Service>(
    service: &'s mut S,
    disk: Disk,
    port: u16,
    max_connections: u32,
    gateway: Gateway<'s>,
) -> Result<(), StartError> {
    let limits = Limits::of_server(max_connections);
    EventLoop::start(service, Some(disk), Some(port), &limits)?.serve(port, Some(gateway));
    Ok(())
}

/// Runs a service that listens on no port and begins its connections itself ([`Io::connect`]), until it has enough ([`Io::quit`])
/// or the user wants the machine to end. It is called first when [`Service::next_deadline`] says so. Connections end when the
/// service or the peer wants it, never because they are silent.
pub fn run_client<S: Service>(
    service: &mut S,
    max_connections: u32,
    receive_window_bytes: u32,
) -> Result<(), StartError> {
    let limits = Limits { max_connections, receive_window_bytes: Some(receive_window_bytes) };
    let mut event_loop = EventLoop::start(service, None, None, &limits)?;
    pages::stamp(phase::READY);
    event_loop.run();
    Ok(())
}

/// What bounds the stack.
struct Limits {
    max_connections: u32,
    /// As the stack has it by itself, if not said.
    receive_window_bytes: Option<u32>,
}

impl Limits {
    fn of_server(max_connections: u32) -> Self {
        Self { max_connections, receive_window_bytes: None }
    }
}

struct EventLoop<'s, S: Service> {
    service: &'s mut S,
    stack: Stack<S::Data>,
    nic: QueuePair<GuestHal, Held<S::Data>>,
    disk: Option<Disk>,
    scale: Scale,
    asked: Asked,
    /// What the packets of connections were.
    aside: Aside,
    console: Option<Console>,
    /// It listens: connections come without being asked for.
    listens: bool,
    /// Rounds since the statistics were last published.
    rounds: u32,
    /// Since when memory is asked back.
    asked_since_tsc: Option<u64>,
    /// Who knows where the gateway is, if this stack hears no ARP.
    gateway: Option<Gateway<'s>>,
}

/// Says where the gateway is, if that is news.
pub type Gateway<'a> = &'a mut dyn FnMut() -> Option<MacAddress>;

/// What the console's commands ask for.
struct Numbers<'a, S: Service> {
    service: &'a S,
    stack: &'a Stack<S::Data>,
}

impl<S: Service> Answers for Numbers<'_, S> {
    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        self.service.counters(each);
        self.stack.counters().iter().for_each(|(name, value)| each(name, value));
    }

    fn connections(&self) -> (usize, usize) {
        (self.stack.connections(), self.stack.config().max_connections as usize)
    }
}

impl<'s, S: Service> EventLoop<'s, S> {
    fn start(
        service: &'s mut S,
        disk: Option<Disk>,
        port: Option<u16>,
        limits: &Limits,
    ) -> Result<Self, StartError> {
        let environment = pages::environment();
        let index = pages::device_of_kind(DEVICE_NET).ok_or(StartError::NoNic)?;
        let device = &environment.devices[index];
        if environment.ipv4.address == [0; 4] {
            return Err(StartError::NoAddress);
        }
        let config = exos_nic::Config { transmit_size: TRANSMIT_SIZE, ..exos_nic::Config::default() };
        let nic = QueuePair::open(GuestHal, index as u32, device, 0, &config).map_err(StartError::Nic)?;
        pages::stamp(phase::NETWORK);
        let scale = Scale::new();
        let mut mac = [0; 6];
        mac.copy_from_slice(&device.mac[..6]);
        let mut secret = [0; 16];
        secret.copy_from_slice(&environment.entropy[..16]);
        let address = Ipv4Addr::from(environment.ipv4.address);
        let mut config = Config::new(MacAddress(mac), address, environment.ipv4.prefix_len as u8, secret);
        config.gateway =
            Some(Ipv4Addr::from(environment.ipv4.gateway)).filter(|gateway| !gateway.is_unspecified());
        config.mtu = device.mtu_bytes as u16;
        config.max_connections = limits.max_connections;
        config.receive_window_bytes = limits.receive_window_bytes.unwrap_or(config.receive_window_bytes);
        config.max_buffered_bytes = (pages::heap_bytes() / BUFFERED_SHARE) as usize;
        config.idle_timeout = port.map(|_| IDLE_TIMEOUT);
        config.tx_checksum = TxChecksum::Offload;
        config.tso_max_bytes = exos_net::MAX_TSO_BYTES;
        let mut stack = Stack::new(config, now(scale)).map_err(StartError::Stack)?;
        if let Some(port) = port {
            stack.listen(port).map_err(StartError::Listen)?;
        }
        let console = match S::CONSOLE {
            Some(name) => Console::open(name).map_err(StartError::Console)?,
            None => None,
        };
        Ok(Self {
            service,
            stack,
            nic,
            disk,
            scale,
            asked: Asked::new(),
            aside: Aside::new(limits.max_connections as usize),
            console,
            listens: port.is_some(),
            rounds: 0,
            asked_since_tsc: None,
            gateway: None,
        })
    }

    /// Says that `port` is served, and serves it.
    fn serve(mut self, port: u16, gateway: Option<Gateway<'s>>) {
        self.gateway = gateway;
        pages::status().port.store(u32::from(port), core::sync::atomic::Ordering::Relaxed);
        pages::stamp(phase::READY);
        self.run();
    }

    fn run(&mut self) {
        while !turn::stop_wanted() && !self.asked.quit {
            if let Some(mac) = self.gateway.as_mut().and_then(|gateway| gateway()) {
                self.stack.set_gateway_mac(mac);
            }
            let received = self.receive();
            if self.listens {
                self.make_room();
            }
            self.round();
            self.expire();
            self.transmit();
            if self.is_console_ready() {
                self.answer_console();
            }
            if revocation::is_asked() {
                self.answer_asks();
            } else {
                self.asked_since_tsc = None;
            }
            self.rounds += 1;
            if received == 0 || self.rounds >= statistics::ROUNDS {
                self.publish();
            }
            if received == 0 {
                self.idle();
            } else if self.nic.transmit.room() < TRANSMIT_ROOM && turn::wanted() {
                // Answers pile up: let the device send them before more is asked for. A deadline in the past: come back
                // at once.
                turn::take(1);
            }
        }
    }

    #[inline]
    fn is_console_ready(&mut self) -> bool {
        self.console.as_mut().is_some_and(Console::is_ready)
    }

    /// Answers what was typed at the console.
    #[cold]
    fn answer_console(&mut self) {
        let Some(console) = &mut self.console else { return };
        let numbers = Numbers { service: &*self.service, stack: &self.stack };
        self.asked.quit |= console.work(&numbers) == Next::Quit;
        if console.is_broken() {
            self.console = None;
        }
    }

    /// Gives back what is asked of the heap as soon as nobody uses it any more. What is on its way to a client, or from the disk,
    /// comes back when that is over; each of these ends the loop's sleep.
    #[cold]
    fn answer_asks(&mut self) {
        for ask in revocation::asks() {
            let Some(tail) = heap::tail(&ask) else { continue };
            if tail.close() > 0 {
                self.service.give_up(tail.start_va, tail.frames_before);
            }
            // Whoever takes nothing of what it asked for holds pages for as long as it likes. It is ended when half of the time has
            // passed.
            let now_tsc = clock::tsc();
            let since = *self.asked_since_tsc.get_or_insert(now_tsc);
            if tail.close() > 0
                && now_tsc - since > ask.deadline_tsc.saturating_sub(now_tsc)
                && let Some(evicted) = self.stack.end_stalled(now(self.scale), SILENCE)
            {
                self.service.ended(evicted.conn, End::TimedOut);
                send_control(&mut Sender(&mut self.nic.transmit), evicted.reset.as_ref());
            }
            match tail.give_back() {
                Ok(()) => {
                    log::info!("memory was asked back and given: {} frames are left", tail.frames_before)
                }
                // Some of it is in use, and the loop comes round.
                Err(Error::Busy) => {}
                Err(error) => log::error!("memory cannot be given back: {error:?}"),
            }
        }
    }

    /// Handles up to [`BATCH`] received frames.
    fn receive(&mut self) -> usize {
        let _span = exos_trace::span!("event loop");
        let now = now(self.scale);
        let unix_seconds = clock::unix_seconds();
        let mut frames = 0;
        while frames < BATCH {
            let Some(frame) = self.nic.receive.poll() else { break };
            frames += 1;
            let _following = exos_trace::follow(frame.subject());
            let checksum = if frame.checksum().is_trustworthy() {
                RxChecksum::TransportValid
            } else {
                RxChecksum::Unknown
            };
            let input = {
                let _span = exos_trace::span!("tcp input");
                self.stack.input(now, frame.bytes(), RxMeta { checksum })
            };
            let mut sender = Sender(&mut self.nic.transmit);
            match input {
                // No service binds UDP ports.
                Input::Nothing | Input::Datagram(_) | Input::DatagramError(_) => {}
                Input::Reply(reply) => {
                    // A lost ARP or ICMP answer is asked for again.
                    let _ = exos_net::Transmit::<S::Data>::transmit_control(&mut sender, &reply);
                }
                Input::Segment(events) => {
                    if events.opened {
                        self.aside.forget(events.conn);
                    }
                    let _going_on = if events.data.is_empty() && !events.readable {
                        let left_bytes = self.stack.unacked_bytes(events.conn);
                        self.aside.acknowledged(events.conn, left_bytes)
                    } else {
                        self.aside.note(events.conn);
                        None
                    };
                    let (disk, asked) = (self.disk.as_mut(), &mut self.asked);
                    let mut io = Io::new(&mut self.stack, disk, asked, self.scale, unix_seconds);
                    segment(self.service, &mut io, &mut sender, &events, now);
                }
            }
        }
        frames
    }

    /// Ends silent connections while places run out.
    #[inline]
    fn make_room(&mut self) {
        let max = self.stack.config().max_connections as usize;
        while self.stack.connections() > max - max / RESERVE {
            let Some(evicted) = self.stack.make_room(now(self.scale), SILENCE) else { return };
            self.service.ended(evicted.conn, End::TimedOut);
            send_control(&mut Sender(&mut self.nic.transmit), evicted.reset.as_ref());
        }
    }

    /// The service's own round, and the connections that it wants to go on with.
    #[inline]
    fn round(&mut self) {
        self.service_round();
        if !self.asked.resumed.is_empty() {
            self.resume();
            // What they asked the service for goes to the disk before anybody sleeps.
            self.service_round();
        }
    }

    #[inline]
    fn service_round(&mut self) {
        if self.disk.is_some() {
            let unix_seconds = clock::unix_seconds();
            let (disk, asked) = (self.disk.as_mut(), &mut self.asked);
            let mut io = Io::new(&mut self.stack, disk, asked, self.scale, unix_seconds);
            self.service.round(&mut io);
        }
    }

    /// Goes on with connections. What the service asks for meanwhile has its turn in the next round, so that nobody else
    /// waits for a service that asks without end.
    #[cold]
    fn resume(&mut self) {
        let now = now(self.scale);
        let unix_seconds = clock::unix_seconds();
        for Resumed { connection, cause } in core::mem::take(&mut self.asked.resumed) {
            if !self.stack.is_alive(connection) {
                continue;
            }
            let _following = self.aside.again(connection, cause);
            let _span = exos_trace::span!("service");
            let (disk, asked) = (self.disk.as_mut(), &mut self.asked);
            let mut io = Io::new(&mut self.stack, disk, asked, self.scale, unix_seconds);
            let mut ack = AckPolicy::IfDue;
            if self.service.resume(&mut io, connection) {
                offer_kept(self.service, &mut io, connection, &mut ack);
            }
            let mut sender = Sender(&mut self.nic.transmit);
            output(&mut io, &mut sender, connection, now, ack);
        }
    }

    /// Calls the service if its deadline has passed.
    #[inline]
    fn expire(&mut self) {
        if self.service.next_deadline().is_some_and(|deadline| deadline <= now(self.scale)) {
            let _span = exos_trace::span!("service");
            let unix_seconds = clock::unix_seconds();
            let (disk, asked) = (self.disk.as_mut(), &mut self.asked);
            self.service.expired(&mut Io::new(&mut self.stack, disk, asked, self.scale, unix_seconds));
        }
    }

    /// Sends what the service asked for outside of a connection's own events: SYNs and resets.
    #[cold]
    fn send_asked(&mut self, now: Instant) {
        let mut sender = Sender(&mut self.nic.transmit);
        for reset in self.asked.resets.drain(..) {
            send_control(&mut sender, Some(&reset));
        }
        for connection in self.asked.connected.drain(..) {
            // Stale only if the service aborted it.
            let _ = self.stack.output(connection, now, &mut sender, AckPolicy::IfDue);
        }
    }

    /// Publishes what was queued, and sends what had to wait.
    fn transmit(&mut self) {
        let _span = exos_trace::span!("event loop");
        let now = now(self.scale);
        self.nic.transmit.reclaim();
        if !self.asked.resets.is_empty() || !self.asked.connected.is_empty() {
            self.send_asked(now);
        }
        let mut sender = Sender(&mut self.nic.transmit);
        self.stack.retry_blocked(now, &mut sender);
        if self.stack.next_deadline().is_some_and(|deadline| deadline <= now) {
            let _span = exos_trace::span!("tcp timers");
            let service = &mut *self.service;
            self.stack.expire(now, &mut sender, |connection, event| {
                if let TimerEvent::Ended(how) = event {
                    service.ended(connection, how);
                }
            });
        }
        self.nic.transmit.publish();
        if let Some(disk) = &mut self.disk {
            disk.publish();
        }
    }
}

fn now(scale: Scale) -> Instant {
    Instant::from_nanos(scale.ns(clock::tsc()))
}

//! The loop of a network program: polls the NIC, gives frames to its [`Tenant`], lets it answer, and when nothing is left to do,
//! hands the CPU to the device work. The loop knows devices, the clock, the turn, the console and the machine's statistics, and
//! nothing of what is in a frame.
//!
//! | tenant | what it sees |
//! | --- | --- |
//! | a [`Service`] ([`serve`], [`run_client`]) | connections and bytes, on a stack that the loop's owner does not see |
//! | tasks on sockets (`sockets`, with the feature of that name) | streams |
//! | one of your own ([`run`]) | frames: the forwarder is one, with a [`Host`] beside it for what is about the link |
#![no_std]

extern crate alloc;

mod addresses;
mod aside;
mod connection;
pub mod console;
pub mod disk;
mod event_loop;
mod host;
mod interface;
mod leasing;
mod names;
mod random;
mod service;
mod serving;
#[cfg(feature = "sockets")]
pub mod sockets;
mod statistics;
mod tenant;
mod transmit;
mod unsent;
mod waiting;

use abi::options::BadValue;
use disk::Disk;
use event_loop::EventLoop;
use exos_net::{BindError, ConfigError, ListenError, MacAddress};
use exos_nic::OpenError;
pub use host::Host;
pub use interface::{Interface, is_option_of_stack};
pub use names::NameFailure;
pub use service::{Io, Resumes, Service};
use serving::{Limits, Serving};
pub use tenant::{Devices, Moment, TRANSMIT_SIZE, Tenant};

/// Why a program cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The machine has no network interface.
    NoNic,
    /// The interface has no address.
    NoAddress,
    /// Other hosts have all of its addresses.
    AddressesTaken,
    /// The queues cannot be bound.
    Nic(OpenError),
    /// An option of the image for the stack has a value that is none.
    Option(BadValue<'static>),
    /// The stack does not take the configuration.
    Stack(ConfigError),
    /// The port cannot be listened on.
    Listen(ListenError),
    /// The port of DHCP cannot be bound.
    Bind(BindError),
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
            Self::AddressesTaken => f.write_str(
                "other hosts on the link have our addresses, and none is left; start the machine with others (ip= or ip6= of --net)",
            ),
            Self::Nic(error) => write!(f, "the NIC's queues cannot be bound: {error}"),
            Self::Option(error) => write!(f, "{error}"),
            Self::Stack(error) => write!(f, "the TCP/IP stack does not start: {error}"),
            Self::Listen(error) => write!(f, "cannot listen: {error}"),
            Self::Bind(error) => write!(f, "DHCP has no port: {error}"),
            Self::Console(error) => write!(f, "the console cannot be opened: {error}"),
        }
    }
}

/// Runs a tenant on an interface, with a disk if it has one, until it is over or the user wants the machine to end.
pub fn run<T: Tenant>(tenant: &mut T, interface: &Interface, disk: Option<Disk>) -> Result<(), StartError> {
    EventLoop::open(tenant, interface, disk)?.run();
    Ok(())
}

/// Serves `port` until the user wants the machine to end.
pub fn serve<S: Service>(service: &mut S, port: u16, max_connections: u32) -> Result<(), StartError> {
    serve_all(service, None, port, max_connections, None)
}

/// Like [`serve`], for a service that reads from a disk.
pub fn serve_from<S: Service>(
    service: &mut S,
    disk: Disk,
    port: u16,
    max_connections: u32,
) -> Result<(), StartError> {
    serve_all(service, Some(disk), port, max_connections, None)
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
    serve_all(service, Some(disk), port, max_connections, Some(gateway))
}

fn serve_all<'s, S: Service>(
    service: &'s mut S,
    disk: Option<Disk>,
    port: u16,
    max_connections: u32,
    gateway: Option<Gateway<'s>>,
) -> Result<(), StartError> {
    let interface = Interface::first_of_any()?;
    let mut serving = Serving::start(service, &interface, Some(port), &Limits::of_server(max_connections))?;
    serving.set_gateway(gateway);
    run(&mut serving, &interface, disk)?;
    serving.result()
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
    let interface = Interface::first_of_any()?;
    let mut serving = Serving::start(service, &interface, None, &limits)?;
    run(&mut serving, &interface, None)?;
    serving.result()
}

/// Says where the gateway is, if that is news.
pub type Gateway<'a> = &'a mut dyn FnMut() -> Option<MacAddress>;

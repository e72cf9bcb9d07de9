//! The generator as a service of the event loop.

use alloc::boxed::Box;
use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use exos_event_loop::{Io, NameFailure, Service};
use exos_load::plan::{Host, Output};
use exos_load::{Ended, Generator, Network, NotConnected, Packets, Plan, Report};
use exos_net::{ConnId, ConnectError, Counters, End, Instant};
use exos_runtime::clock::{self, Scale};
use exos_runtime::say;

/// All requests are the same bytes.
type Request = &'static [u8];

/// How far it is known where the server is.
enum Lookup {
    /// Name servers are to be asked for this name.
    Wanted(String),
    /// They have been.
    Awaited,
    /// It is known.
    Done,
    /// They do not know.
    Failed(NameFailure),
}

pub(crate) struct Swamp {
    generator: Generator<ConnId>,
    request: Request,
    lookup: Lookup,
    /// No host's address until it is known.
    remote: SocketAddr,
    output: Output,
    packets: Packets,
    scale: Scale,
}

impl Swamp {
    pub(crate) fn new(plan: Plan, places: u32) -> Self {
        let (ip, lookup) = match &plan.target.host {
            Host::Address(ip) => (*ip, Lookup::Done),
            Host::Name(name) => (Ipv4Addr::UNSPECIFIED.into(), Lookup::Wanted(name.clone())),
        };
        Self {
            // The one request of the whole run.
            request: Box::leak(plan.request().into_boxed_slice()),
            lookup,
            remote: SocketAddr::new(ip, plan.target.port),
            output: plan.output,
            generator: Generator::new(plan, places as usize),
            packets: Packets::default(),
            scale: Scale::new(),
        }
    }

    pub(crate) fn report(&self) -> Report<'_> {
        self.generator.report(self.packets)
    }

    /// Why nobody was asked, if the server's name has no address.
    pub(crate) fn failure(&self) -> Option<NameFailure> {
        if let Lookup::Failed(failure) = self.lookup { Some(failure) } else { None }
    }

    fn now_ns(&self) -> u64 {
        self.scale.ns(clock::tsc())
    }

    fn network<'a, 'b>(&self, io: &'a mut Io<'b, Request>) -> Wire<'a, 'b> {
        Wire { io, remote: self.remote, request: self.request }
    }
}

impl Service for Swamp {
    type Data = Request;

    const CONSOLE: Option<&'static str> = Some("webswamp");
    const ASKS_NAMES: bool = true;

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        let report = self.report();
        each("asked", report.asked);
        each("answered", report.answered);
        each("errors", report.errors.total());
    }

    fn opened(&mut self, connection: ConnId) {
        self.generator.opened::<Wire<'_, '_>>(connection);
    }

    #[inline]
    fn input(&mut self, io: &mut Io<'_, Request>, connection: ConnId, bytes: &[u8]) -> usize {
        let now_ns = io.now().as_nanos();
        let mut network = self.network(io);
        self.generator.input(&mut network, connection, bytes, now_ns)
    }

    fn peer_closed(&mut self, io: &mut Io<'_, Request>, connection: ConnId) {
        let now_ns = io.now().as_nanos();
        let mut network = self.network(io);
        self.generator.peer_closed(&mut network, connection, now_ns);
    }

    fn ended(&mut self, connection: ConnId, how: End) {
        let how = match how {
            End::Closed | End::Cancelled => Ended::Closed,
            End::Refused => Ended::Refused,
            End::Unreachable | End::AddressLost => Ended::Unreachable,
            End::Reset | End::OptimisticAck => Ended::Reset,
            End::TimedOut => Ended::TimedOut,
        };
        let now_ns = self.now_ns();
        self.generator.ended::<Wire<'_, '_>>(connection, how, now_ns);
    }

    fn next_deadline(&self) -> Option<Instant> {
        match self.lookup {
            Lookup::Done => self.generator.next_deadline_ns().map(Instant::from_nanos),
            Lookup::Wanted(_) => Some(Instant::ZERO),
            Lookup::Awaited | Lookup::Failed(_) => None,
        }
    }

    fn resolved(&mut self, io: &mut Io<'_, Request>, result: Result<IpAddr, NameFailure>) {
        match result {
            Ok(ip) => {
                self.remote.set_ip(ip);
                if self.output == Output::Text {
                    say!("the server is at {}", self.remote);
                }
                self.lookup = Lookup::Done;
            }
            Err(failure) => {
                self.lookup = Lookup::Failed(failure);
                io.quit();
            }
        }
    }

    fn message(&mut self, bytes: &[u8]) -> Option<Request> {
        // One name is asked for in the whole run.
        Some(Box::leak(bytes.into()))
    }

    fn expired(&mut self, io: &mut Io<'_, Request>) {
        if let Lookup::Wanted(name) = &self.lookup {
            io.resolve(name);
            self.lookup = Lookup::Awaited;
            return;
        }
        let now_ns = io.now().as_nanos();
        let mut network = self.network(io);
        self.generator.expired(&mut network, now_ns);
        if let Some(progress) = self.generator.progress(now_ns)
            && self.output == Output::Text
        {
            say!("{progress}");
        }
        self.packets = packets(io.counters());
        if self.generator.is_over() {
            io.quit();
        }
    }
}

fn packets(counters: &Counters) -> Packets {
    Packets {
        frames_in: counters.frames_in,
        segments_in: counters.segments_in,
        frames_out: counters.segments_out,
        acks_out: counters.pure_acks_out,
        retransmitted: counters.retransmits,
    }
}

/// The stack, as the generator sees it. What is refused of a connection is so because it has ended, and then an event says that.
struct Wire<'a, 'b> {
    io: &'a mut Io<'b, Request>,
    remote: SocketAddr,
    request: Request,
}

impl Network for Wire<'_, '_> {
    type Connection = ConnId;

    fn place(connection: ConnId) -> usize {
        connection.index()
    }

    fn connect(&mut self) -> Result<ConnId, NotConnected> {
        self.io.connect(self.remote).map_err(|error| match error {
            ConnectError::ConnectionsFull | ConnectError::PortsInUse => NotConnected::NoRoom,
            ConnectError::NoRoute
            | ConnectError::NoAddress
            | ConnectError::NotAHost
            | ConnectError::NotOurAddress
            | ConnectError::AddressTentative
            | ConnectError::BeyondScope
            | ConnectError::Exists
            | ConnectError::PortZero => NotConnected::Unreachable,
        })
    }

    fn request(&mut self, connection: ConnId) {
        let _ = self.io.send(connection, self.request);
    }

    fn close(&mut self, connection: ConnId) {
        let _ = self.io.close(connection);
    }

    fn abort(&mut self, connection: ConnId) {
        self.io.abort(connection);
    }
}

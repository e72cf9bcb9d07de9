//! A service and the stack below it, as the loop's tenant: segments become the service's events, and what the service asks for
//! becomes segments.

use crate::addresses::Told;
use crate::aside::Aside;
use crate::connection::{offer_kept, output, segment, send_control};
use crate::disk::Disk;
use crate::leasing::Leasing;
use crate::names::Names;
use crate::service::{Asked, Io, Resumed, Service};
use crate::tenant::{Devices, Moment, Tenant, meta};
use crate::transmit::{Held, Sender};
use crate::{Gateway, Interface, StartError, addresses, statistics};
use abi::statistics::StatisticsArea;
use exos_net::{AckPolicy, ConnId, Duration, End, Input, Instant, Stack, TimerEvent};
use exos_nic::Frame;
use exos_runtime::clock::{self, Scale};

/// A connection without progress for so long is closed, or aborted if its peer does not take what it asked for. What nginx
/// and Apache do after 60 to 75 s by default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Of the connections allowed, one in so many is kept free by ending silent ones, so that clients who come find a place.
const RESERVE: usize = 64;
/// Who asks for names waits so long for a lease, which says whom to ask, where IPv6 addresses are there before it.
const LEASE_PATIENCE: Duration = Duration::from_secs(10);
/// A connection without progress for so long may be ended when places run out.
const SILENCE: Duration = Duration::from_secs(1);

/// What bounds the stack.
pub(crate) struct Limits {
    pub(crate) max_connections: u32,
    /// As the stack has it by itself, if not said.
    pub(crate) receive_window_bytes: Option<u32>,
}

impl Limits {
    pub(crate) fn of_server(max_connections: u32) -> Self {
        Self { max_connections, receive_window_bytes: None }
    }
}

/// A service on its stack.
pub(crate) struct Serving<'s, S: Service> {
    service: &'s mut S,
    stack: Stack<S::Data>,
    asked: Asked,
    /// What the packets of connections were.
    aside: Aside,
    /// It listens: connections come without being asked for.
    port: Option<u16>,
    /// Who knows where the gateway is, if this stack hears no ARP.
    gateway: Option<Gateway<'s>>,
    /// Where the address comes from, if nobody has set it.
    leasing: Option<Leasing>,
    /// Until then it is waited for; `None`: no longer.
    lease_by: Option<Instant>,
    /// Whom the service asks for names, if it does.
    names: Option<Names>,
    /// What the machine knows of IPv6 addresses.
    told: Told,
    /// There is an address, or was one, and no other is about to be there.
    is_ready: bool,
    /// Others have all addresses that there were to be.
    is_without_address: bool,
}

impl<'s, S: Service> Serving<'s, S> {
    /// A service that listens on a port, or on none.
    pub(crate) fn start(
        service: &'s mut S,
        interface: &Interface,
        port: Option<u16>,
        limits: &Limits,
    ) -> Result<Self, StartError> {
        let mut config = interface.stack_config(limits.max_connections)?;
        config.receive_window_bytes = limits.receive_window_bytes.unwrap_or(config.receive_window_bytes);
        config.idle_timeout = port.map(|_| IDLE_TIMEOUT);
        let now = crate::tenant::now(Scale::new());
        let mut stack = Stack::new(config, now).map_err(StartError::Stack)?;
        if let Some(port) = port {
            stack.listen(port).map_err(StartError::Listen)?;
        }
        let leasing = interface.asks_dhcp().then(|| Leasing::new(interface));
        if leasing.is_some() {
            Leasing::bind(&mut stack).map_err(StartError::Bind)?;
        }
        let (asked, aside) = (Asked::new(), Aside::new(limits.max_connections as usize));
        let is_ready = leasing.is_none() && addresses::are_settled(&stack);
        Ok(Self {
            service,
            stack,
            asked,
            aside,
            port,
            gateway: None,
            lease_by: (S::ASKS_NAMES && leasing.is_some()).then(|| now + LEASE_PATIENCE),
            leasing,
            names: S::ASKS_NAMES.then(|| Names::new(interface)),
            told: Told::default(),
            is_ready,
            is_without_address: false,
        })
    }

    /// Whether it ended because there was nothing left to serve at.
    pub(crate) fn result(&self) -> Result<(), StartError> {
        if self.is_without_address { Err(StartError::AddressesTaken) } else { Ok(()) }
    }

    pub(crate) fn set_gateway(&mut self, gateway: Option<Gateway<'s>>) {
        self.gateway = gateway;
        self.ask_for_gateway();
    }

    #[inline]
    fn ask_for_gateway(&mut self) {
        if let Some(mac) = self.gateway.as_mut().and_then(|gateway| gateway()) {
            self.stack.set_gateway_mac(mac);
        }
    }

    /// Ends silent connections while places run out.
    #[inline]
    fn make_room(&mut self, devices: &mut Devices<'_, Held<S::Data>>) {
        let max = self.stack.config().max_connections as usize;
        while self.stack.connections() > max - max / RESERVE {
            let Some(evicted) = self.stack.make_room(devices.now(), SILENCE) else { return };
            ended(self.service, &mut self.names, devices.now(), evicted.conn, End::TimedOut);
            send_control(&mut Sender(devices.transmit), evicted.reset.as_ref());
        }
    }

    /// The service's own round, and the connections that it wants to go on with.
    #[inline]
    fn round(&mut self, devices: &mut Devices<'_, Held<S::Data>>) {
        self.service_round(devices);
        if !self.asked.resumed.is_empty() {
            self.resume(devices);
            // What they asked the service for goes to the disk before anybody sleeps.
            self.service_round(devices);
        }
    }

    #[inline]
    fn service_round(&mut self, devices: &mut Devices<'_, Held<S::Data>>) {
        if let Some(disk) = devices.disk.as_deref_mut() {
            let unix_seconds = clock::unix_seconds();
            let mut io = Io::new(&mut self.stack, Some(disk), &mut self.asked, devices.scale, unix_seconds);
            self.service.round(&mut io);
        }
    }

    /// Goes on with connections. What the service asks for meanwhile has its turn in the next round, so that nobody else
    /// waits for a service that asks without end.
    #[cold]
    fn resume(&mut self, devices: &mut Devices<'_, Held<S::Data>>) {
        let Moment { now, unix_seconds } = Moment::now(devices.scale);
        for Resumed { connection, cause } in core::mem::take(&mut self.asked.resumed) {
            if !self.stack.is_alive(connection) {
                continue;
            }
            let _following = self.aside.again(connection, cause);
            let _span = exos_trace::span!("service");
            let disk = devices.disk.as_deref_mut();
            let mut io = Io::new(&mut self.stack, disk, &mut self.asked, devices.scale, unix_seconds);
            let mut ack = AckPolicy::IfDue;
            if self.service.resume(&mut io, connection) {
                offer_kept(self.service, &mut io, connection, &mut ack);
            }
            output(&mut io, &mut Sender(devices.transmit), connection, now, ack);
        }
    }

    /// Calls the service if its deadline has passed.
    #[inline]
    fn expire(&mut self, devices: &mut Devices<'_, Held<S::Data>>) {
        if self.service_deadline().is_some_and(|deadline| deadline <= devices.now()) {
            let _span = exos_trace::span!("service");
            let disk = devices.disk.as_deref_mut();
            let unix_seconds = clock::unix_seconds();
            self.service.expired(&mut Io::new(
                &mut self.stack,
                disk,
                &mut self.asked,
                devices.scale,
                unix_seconds,
            ));
        }
    }

    /// Asks for an address, and looks after it.
    #[cold]
    fn look_after_lease(&mut self, devices: &mut Devices<'_, Held<S::Data>>) {
        let now = devices.now();
        if let Some(leasing) = &mut self.leasing {
            leasing.work(now, &mut self.stack, &mut Sender(devices.transmit));
            if let (Some(names), Some(servers)) = (&mut self.names, leasing.take_name_servers()) {
                names.leased(servers);
            }
        }
    }

    /// Asks for the name that the service wants, and says what came of it.
    fn look_after_names(&mut self, devices: &mut Devices<'_, Held<S::Data>>) {
        let Some(names) = &mut self.names else { return };
        let now = devices.now();
        names.hear_routers(now, &self.stack);
        if let Some(name) = self.asked.name.take() {
            names.begin(now, &name, &self.stack);
        }
        let service = &mut *self.service;
        let question = |bytes: &[u8]| service.message(bytes);
        let result = names.work(now, &mut self.stack, &mut Sender(devices.transmit), question);
        let Some(result) = result else { return };
        let disk = devices.disk.as_deref_mut();
        let unix_seconds = clock::unix_seconds();
        let mut io = Io::new(&mut self.stack, disk, &mut self.asked, devices.scale, unix_seconds);
        self.service.resolved(&mut io, result);
    }

    /// Tells of addresses that came or went. Whoever waits for them goes on when all are there that will be soon.
    #[cold]
    fn look_after_addresses(&mut self, devices: &mut Devices<'_, Held<S::Data>>) {
        let now = devices.now();
        if self.told.is_behind(&self.stack) {
            self.told.catch_up(now, &self.stack, |_| true);
        }
        if self.lease_by.is_some_and(|by| by <= now) || self.stack.address().is_some() {
            self.lease_by = None;
        }
        if self.is_ready || self.lease_by.is_some() || !addresses::are_settled(&self.stack) {
            return;
        }
        // Who is told that it is ready is told at which address it is not.
        addresses::tell_conflicts(&mut self.stack);
        self.is_ready = addresses::has_any(now, &self.stack);
        self.is_without_address = !self.is_ready && self.leasing.is_none();
    }

    /// Before there was an address the service has nothing to do.
    #[inline]
    fn service_deadline(&self) -> Option<Instant> {
        if self.is_ready { self.service.next_deadline() } else { None }
    }

    /// Sends what the service asked for outside of a connection's own events: SYNs and resets.
    #[cold]
    fn send_asked(&mut self, now: Instant, sender: &mut Sender<'_, S::Data>) {
        for reset in self.asked.resets.drain(..) {
            send_control(sender, Some(&reset));
        }
        for connection in self.asked.connected.drain(..) {
            // Stale only if the service aborted it.
            let _ = self.stack.output(connection, now, sender, AckPolicy::IfDue);
        }
    }

    /// Sends what had to wait, and what timers ask for.
    fn transmit(&mut self, devices: &mut Devices<'_, Held<S::Data>>) {
        let now = devices.now();
        let mut sender = Sender(devices.transmit);
        if !self.asked.resets.is_empty() || !self.asked.connected.is_empty() {
            self.send_asked(now, &mut sender);
        }
        self.stack.retry_blocked(now, &mut sender);
        if self.stack.next_deadline().is_some_and(|deadline| deadline <= now) {
            let _span = exos_trace::span!("tcp timers");
            let (service, names) = (&mut *self.service, &mut self.names);
            self.stack.expire(now, &mut sender, |connection, event| {
                if let TimerEvent::Ended(how) = event {
                    ended(service, names, now, connection, how);
                }
            });
        }
    }
}

/// Tells whose connection it was that it is gone.
fn ended<S: Service>(service: &mut S, names: &mut Option<Names>, now: Instant, connection: ConnId, how: End) {
    if S::ASKS_NAMES
        && let Some(names) = names
        && names.stream_ended(now, connection)
    {
        return;
    }
    service.ended(connection, how);
}

impl<S: Service> Tenant for Serving<'_, S> {
    type Held = Held<S::Data>;

    fn console(&self) -> Option<&'static str> {
        S::CONSOLE
    }

    fn port(&self) -> Option<u16> {
        self.port
    }

    #[inline]
    fn input(&mut self, frame: &Frame<'_>, at: Moment, devices: &mut Devices<'_, Self::Held>) {
        let Moment { now, unix_seconds } = at;
        let input = {
            let _span = exos_trace::span!("tcp input");
            self.stack.input(now, frame.bytes(), meta(frame))
        };
        let mut sender = Sender(devices.transmit);
        match input {
            Input::Datagram(datagram) => {
                // No service binds UDP ports.
                let port = datagram.to.port();
                if let Some(leasing) = &mut self.leasing {
                    leasing.receive(now, port, &datagram.payload);
                }
                if S::ASKS_NAMES
                    && let Some(names) = &mut self.names
                {
                    names.receive(now, datagram.from, port, &datagram.payload);
                }
            }
            Input::DatagramError(error) => {
                if S::ASKS_NAMES
                    && let Some(names) = &mut self.names
                {
                    names.problem_arrives(&error);
                }
            }
            Input::Nothing => {}
            Input::Reply(reply) => {
                // A lost ARP or ICMP answer is asked for again.
                let _ = exos_net::Transmit::<S::Data>::transmit_control(&mut sender, &reply);
            }
            Input::Segment(events) => {
                if S::ASKS_NAMES
                    && let Some(names) = &mut self.names
                    && names.has_stream(events.conn)
                {
                    names.segment(now, &events, &mut self.stack, &mut sender);
                    return;
                }
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
                let disk: Option<&mut Disk> = devices.disk.as_deref_mut();
                let mut io = Io::new(&mut self.stack, disk, &mut self.asked, devices.scale, unix_seconds);
                segment(self.service, &mut io, &mut sender, &events, now);
            }
        }
    }

    #[inline]
    fn work(&mut self, devices: &mut Devices<'_, Self::Held>) {
        self.ask_for_gateway();
        if self.port.is_some() {
            self.make_room(devices);
        }
        self.round(devices);
        self.expire(devices);
        if S::ASKS_NAMES {
            self.look_after_names(devices);
        }
        self.transmit(devices);
        if self.leasing.is_some() {
            self.look_after_lease(devices);
        }
        if !self.is_ready || self.told.is_behind(&self.stack) {
            self.look_after_addresses(devices);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let is_name_wanted = S::ASKS_NAMES && self.asked.name.is_some();
        if !self.asked.resumed.is_empty() || !self.asked.connected.is_empty() || is_name_wanted {
            return Some(Instant::ZERO);
        }
        let lease_at = self.leasing.as_ref().and_then(Leasing::next_deadline);
        let names_at = self.names.as_ref().filter(|_| S::ASKS_NAMES).and_then(Names::next_deadline);
        [self.stack.next_deadline(), self.service_deadline(), lease_at, self.lease_by, names_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    #[inline]
    fn is_over(&self) -> bool {
        self.asked.quit || self.is_without_address
    }

    fn counters(&self, each: &mut dyn FnMut(&'static str, u64)) {
        self.service.counters(each);
        self.stack.counters().iter().for_each(|(name, value)| each(name, value));
    }

    fn connections(&self) -> (usize, usize) {
        (self.stack.connections(), self.stack.config().max_connections as usize)
    }

    fn publish(&mut self, area: &StatisticsArea) {
        statistics::publish(&mut self.stack, area);
        self.service.publish(area);
    }

    fn give_up(&mut self, start_va: usize, frames: usize) {
        self.service.give_up(start_va, frames);
    }

    fn end_stalled(&mut self, devices: &mut Devices<'_, Self::Held>) {
        if let Some(evicted) = self.stack.end_stalled(devices.now(), SILENCE) {
            ended(self.service, &mut self.names, devices.now(), evicted.conn, End::TimedOut);
            send_control(&mut Sender(devices.transmit), evicted.reset.as_ref());
        }
    }
}

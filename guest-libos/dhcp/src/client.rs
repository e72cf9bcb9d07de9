//! The client's states and times (RFC 2131 4.4, figure 5).

use core::net::Ipv4Addr;

use alloc::boxed::Box;
use alloc::string::String;

use exos_net::{Duration, Instant, MacAddress};

use crate::lease::Lease;
use crate::message::{Fields, Incoming, Kind, Outgoing};

/// RFC 2131 4.1: the first answer is waited for so long, and twice as long each time, give or take a second.
const FIRST_WAIT: Duration = Duration::from_secs(4);
const MAX_WAIT: Duration = Duration::from_secs(64);
/// So often an offer is asked for before others are looked for, and an address from before before it is forgotten.
const MAX_REQUESTS: u8 = 4;
const MAX_REBOOTS: u8 = 2;
/// RFC 2131 4.4.5: a renewal is not repeated faster.
const MIN_RENEWAL: Duration = Duration::from_secs(60);
/// RFC 2131 3.1 (5): after an address was declined, and here after a refusal as well.
const PAUSE: Duration = Duration::from_secs(10);

/// What the client must be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our Ethernet address.
    pub mac: MacAddress,
    /// The name that servers may enter for us; at most 63 bytes of it are sent.
    pub host_name: String,
    /// The address from before, to be asked for first.
    pub remembered: Option<Ipv4Addr>,
}

/// What there is to do.
#[derive(Clone, Debug)]
pub enum Event {
    /// Send this.
    Send(Box<Outgoing>),
    /// The address may be used, once nobody else on the link turns out to have it; or its lease was renewed.
    Leased(Lease),
    /// The address must not be used any more.
    Lost,
}

#[derive(Debug)]
enum State {
    /// Nothing yet, until then.
    Init(Instant),
    /// Offers are wanted.
    Selecting,
    /// An offer was taken.
    Requesting(Lease),
    /// The address from before was asked for.
    Rebooting(Ipv4Addr),
    Bound,
    Renewing,
    Rebinding,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    config: Config,
    state: State,
    transaction: u32,
    /// When this attempt to get an address began.
    began_at: Instant,
    /// Messages of this state that were sent.
    sent: u8,
    /// When the next is due.
    retry_at: Instant,
    /// When the last request left: what is granted counts from there.
    requested_at: Instant,
    lease: Option<(Lease, Instant)>,
    news: Option<Event>,
    /// To be sent before anything else.
    farewell: Option<Outgoing>,
}

impl Client {
    /// A client that begins with the first [`Self::poll`].
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: State::Init(Instant::ZERO),
            transaction: 0,
            began_at: Instant::ZERO,
            sent: 0,
            retry_at: Instant::ZERO,
            requested_at: Instant::ZERO,
            lease: None,
            news: None,
            farewell: None,
        }
    }

    /// The lease, while there is one.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref().map(|(lease, _)| lease)
    }

    /// What there is to do at `now`; to be called until it returns `None`. `random` must be fresh with each call.
    pub fn poll(&mut self, now: Instant, random: u32) -> Option<Event> {
        if let Some(farewell) = self.farewell.take() {
            return Some(Event::Send(Box::new(farewell)));
        }
        if let Some(news) = self.news.take() {
            return Some(news);
        }
        if let State::Init(until) = self.state {
            if now < until {
                return None;
            }
            self.begin(now, random);
        }
        self.age(now, random);
        if let Some(news) = self.news.take() {
            return Some(news);
        }
        if now < self.retry_at || matches!(self.state, State::Bound | State::Init(_)) {
            return None;
        }
        let exhausted = match self.state {
            State::Requesting(_) => self.sent >= MAX_REQUESTS,
            State::Rebooting(_) => self.sent >= MAX_REBOOTS,
            _ => false,
        };
        if exhausted {
            self.config.remembered = None;
            self.begin(now, random);
        }
        self.retry_at = now + self.wait(now, random);
        self.sent = self.sent.saturating_add(1);
        self.requested_at = now;
        Some(Event::Send(Box::new(self.message(now))))
    }

    /// An attempt to get an address begins.
    fn begin(&mut self, now: Instant, random: u32) {
        self.state = self.config.remembered.map_or(State::Selecting, State::Rebooting);
        (self.transaction, self.began_at, self.sent, self.retry_at) = (random, now, 0, now);
    }

    /// What time does to a lease (RFC 2131 4.4.5).
    fn age(&mut self, now: Instant, random: u32) {
        let Some((lease, granted_at)) = &self.lease else { return };
        let age = now.since(*granted_at);
        if lease.lifetime.is_none() {
            return;
        }
        if lease.lifetime.is_some_and(|lifetime| age >= lifetime) {
            self.lose(now);
        } else if age >= lease.rebind_after && !matches!(self.state, State::Rebinding) {
            self.state = State::Rebinding;
            (self.transaction, self.began_at, self.sent, self.retry_at) = (random, now, 0, now);
        } else if age >= lease.renew_after && matches!(self.state, State::Bound) {
            self.state = State::Renewing;
            (self.transaction, self.began_at, self.sent, self.retry_at) = (random, now, 0, now);
        }
    }

    /// The address is gone: begin anew at `again_at`.
    fn lose(&mut self, again_at: Instant) {
        if self.lease.take().is_some() {
            self.news = Some(Event::Lost);
        }
        self.config.remembered = None;
        self.state = State::Init(again_at);
    }

    /// How long an answer to the next message is waited for.
    fn wait(&self, now: Instant, random: u32) -> Duration {
        let half_until = |after: Duration| {
            let granted_at = self.lease.as_ref().map_or(now, |(_, granted_at)| *granted_at);
            let left = (granted_at + after).since(now).as_nanos();
            // The end itself is looked after by the lease's times.
            Duration::from_nanos(left / 2).max(MIN_RENEWAL)
        };
        match (&self.state, &self.lease) {
            (State::Renewing, Some((lease, _))) => half_until(lease.rebind_after),
            (State::Rebinding, Some((lease, _))) => half_until(lease.lifetime.unwrap_or_default()),
            _ => {
                let wait = FIRST_WAIT.as_nanos().saturating_mul(1 << self.sent.min(8));
                let jitter = u64::from(random) % 2_000_000_001;
                Duration::from_nanos(wait.min(MAX_WAIT.as_nanos()) + jitter - 1_000_000_000)
            }
        }
    }

    fn fields(&self, now: Instant, kind: Kind) -> Fields<'_> {
        let secs = now.since(self.began_at).as_micros() / 1_000_000;
        let name = self.config.host_name.as_str();
        Fields {
            kind,
            mac: self.config.mac,
            transaction: self.transaction,
            secs: secs.min(u64::from(u16::MAX)) as u16,
            client: Ipv4Addr::UNSPECIFIED,
            to: Ipv4Addr::BROADCAST,
            requested: None,
            server: None,
            host_name: name.get(..name.len().min(63)).unwrap_or_default(),
        }
    }

    /// The message of the state that we are in (RFC 2131 4.3.6, table 5).
    fn message(&self, now: Instant) -> Outgoing {
        let request = self.fields(now, Kind::Request);
        let fields = match (&self.state, &self.lease) {
            (State::Requesting(offer), _) => {
                Fields { requested: Some(offer.address), server: Some(offer.server), ..request }
            }
            (State::Rebooting(address), _) => Fields { requested: Some(*address), ..request },
            (State::Renewing, Some((lease, _))) => {
                Fields { client: lease.address, to: lease.server, ..request }
            }
            (State::Rebinding, Some((lease, _))) => Fields { client: lease.address, ..request },
            _ => self.fields(now, Kind::Discover),
        };
        fields.emit()
    }

    /// A message arrived at [`crate::CLIENT_PORT`]. What came of it is said by [`Self::poll`].
    pub fn receive(&mut self, now: Instant, bytes: &[u8]) {
        if matches!(self.state, State::Init(_) | State::Bound) {
            return;
        }
        let Some(message) = Incoming::read(bytes, self.transaction, self.config.mac) else { return };
        match (&self.state, message.kind) {
            (State::Selecting, Kind::Offer) => {
                if let Some(offer) = Lease::read(&message.packet, None) {
                    self.state = State::Requesting(offer);
                    (self.sent, self.retry_at) = (0, now);
                }
            }
            (State::Requesting(offer), Kind::Ack) if message.server == Some(offer.server) => {
                let address = offer.address;
                self.granted(&message, |lease| lease.address == address);
            }
            (State::Rebooting(address), Kind::Ack) => {
                let address = *address;
                self.granted(&message, |lease| lease.address == address);
            }
            (State::Renewing | State::Rebinding, Kind::Ack) => {
                let Some(address) = self.lease().map(|lease| lease.address) else { return };
                self.granted(&message, |lease| lease.address == address);
            }
            (State::Requesting(offer), Kind::Nak) if message.server == Some(offer.server) => {
                self.lose(now + PAUSE);
            }
            (State::Rebooting(_), Kind::Nak) => self.lose(now),
            (State::Renewing | State::Rebinding, Kind::Nak) => self.lose(now),
            _ => {}
        }
    }

    fn granted(&mut self, message: &Incoming<'_>, is_expected: impl Fn(&Lease) -> bool) {
        let known = self.lease().map(|lease| lease.server);
        let Some(lease) = Lease::read(&message.packet, known).filter(is_expected) else { return };
        self.news = Some(Event::Leased(lease.clone()));
        self.lease = Some((lease, self.requested_at));
        self.state = State::Bound;
    }

    /// Somebody else has the leased address (RFC 5227): the server is told, and after a while another is asked for.
    pub fn decline(&mut self, now: Instant) {
        if let Some((lease, _)) = &self.lease {
            let fields = self.fields(now, Kind::Decline);
            let fields =
                Fields { requested: Some(lease.address), server: Some(lease.server), secs: 0, ..fields };
            self.farewell = Some(fields.emit());
            self.lose(now + PAUSE);
        }
    }

    /// The leased address is not needed any more. [`Self::poll`] says what to send before the client is dropped; polled on, it
    /// would begin anew.
    pub fn release(&mut self, now: Instant) {
        if let Some((lease, _)) = &self.lease {
            let fields = self.fields(now, Kind::Release);
            let (client, to, server) = (lease.address, lease.server, Some(lease.server));
            self.farewell = Some(Fields { client, to, server, secs: 0, ..fields }.emit());
            self.lose(Instant::from_nanos(u64::MAX));
        }
    }

    /// When [`Self::poll`] has something to do; `None` when never.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.farewell.is_some() || self.news.is_some() {
            return Some(Instant::ZERO);
        }
        let lease_at = self.lease.as_ref().and_then(|(lease, granted_at)| {
            let lifetime = lease.lifetime?;
            Some(match self.state {
                State::Bound => *granted_at + lease.renew_after,
                State::Renewing => *granted_at + lease.rebind_after,
                _ => *granted_at + lifetime,
            })
        });
        let retry_at = match self.state {
            State::Init(until) => Some(until),
            State::Bound => None,
            _ => Some(self.retry_at),
        };
        let deadline = [lease_at, retry_at].into_iter().flatten().min();
        deadline.filter(|&at| at != Instant::from_nanos(u64::MAX))
    }
}

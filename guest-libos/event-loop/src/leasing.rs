//! The interface's address from a DHCP server (RFC 2131), while the loop runs: asked for, probed before it is used (RFC 5227),
//! renewed, declined if somebody else has it, and given up when its time is over.

use crate::Interface;
use crate::random::Random;
use alloc::boxed::Box;
use alloc::string::String;
use core::net::Ipv4Addr;
use core::sync::atomic::Ordering;
use exos_dhcp::{CLIENT_PORT, Client, Event, Lease, Outgoing};
use exos_net::{BindError, ConflictOutcome, Data, Duration, Instant, SendDatagramError, Stack, Transmit};
use exos_runtime::pages;

/// A message whose next hop was just asked for its Ethernet address is tried again so soon, and so often.
const UNSENT_WAIT: Duration = Duration::from_millis(50);
const UNSENT_TRIES: u8 = 20;

/// A client of DHCP servers, and what the machine knows of its address.
#[derive(Debug)]
pub(crate) struct Leasing {
    client: Client,
    random: Random,
    /// A message that could not leave, when to try again, and how often that will be done.
    unsent: Option<(Box<Outgoing>, Instant, u8)>,
    /// The address that the VMM was told.
    told: Option<Ipv4Addr>,
}

impl Leasing {
    /// Begins with the first [`Self::work`].
    pub(crate) fn new(interface: &Interface) -> Self {
        let config = exos_dhcp::Config { mac: interface.mac, host_name: String::new(), remembered: None };
        Self { client: Client::new(config), random: Random::new(interface), unsent: None, told: None }
    }

    /// Has the stack take what servers send.
    pub(crate) fn bind<D: Data>(stack: &mut Stack<D>) -> Result<(), BindError> {
        stack.bind_udp(CLIENT_PORT)
    }

    /// A datagram came to a port.
    pub(crate) fn receive(&mut self, now: Instant, port: u16, payload: &[u8]) {
        if port == CLIENT_PORT {
            self.client.receive(now, payload);
        }
    }

    /// Does what is due.
    pub(crate) fn work<D: Data, T: Transmit<D>>(&mut self, now: Instant, stack: &mut Stack<D>, tx: &mut T) {
        while let Some(conflict) = stack.take_address_conflict() {
            crate::addresses::log_conflict(&conflict);
            if conflict.outcome == ConflictOutcome::GivenUp && conflict.address.is_ipv4() {
                self.client.decline(now);
            }
        }
        if let Some((message, at, tries)) = self.unsent.take() {
            if at <= now {
                self.send(now, message, tries, stack, tx);
            } else {
                self.unsent = Some((message, at, tries));
            }
        }
        while let Some(event) = self.client.poll(now, self.random.next()) {
            match event {
                Event::Send(message) => self.send(now, message, UNSENT_TRIES, stack, tx),
                Event::Leased(lease) => use_lease(now, &lease, stack),
                Event::Lost => stack.remove_address(),
            }
        }
        let address = stack.address();
        if self.told != address {
            self.tell(address);
        }
    }

    /// What cannot leave for want of an Ethernet address, or of room, leaves a little later; nothing else is repeated here.
    fn send<D: Data, T: Transmit<D>>(
        &mut self,
        now: Instant,
        message: Box<Outgoing>,
        tries: u8,
        stack: &mut Stack<D>,
        tx: &mut T,
    ) {
        let sent = stack.send_udp_bytes(now, CLIENT_PORT, message.to.into(), message.bytes(), tx);
        let again = matches!(sent, Err(SendDatagramError::Unresolved | SendDatagramError::Full));
        if again && tries > 0 {
            self.unsent = Some((message, now + UNSENT_WAIT, tries - 1));
        }
    }

    /// The address in use is another one now, or none.
    fn tell(&mut self, address: Option<Ipv4Addr>) {
        match (address, self.client.lease()) {
            (Some(address), Some(Lease { prefix_len, lifetime: Some(lifetime), server, .. })) => {
                let seconds = lifetime.as_micros() / 1_000_000;
                log::info!("DHCP: our address is {address}/{prefix_len}, for {seconds} s from {server}");
            }
            (Some(address), _) => log::info!("DHCP: our address is {address}"),
            (None, _) => log::warn!("DHCP: we have no address any more"),
        }
        self.told = address;
        let bits = address.map_or(0, Ipv4Addr::to_bits);
        pages::status().address.store(bits, Ordering::Relaxed);
    }

    /// When [`Self::work`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let unsent_at = self.unsent.as_ref().map(|&(_, at, _)| at);
        [unsent_at, self.client.next_deadline()].into_iter().flatten().min()
    }
}

fn use_lease<D: Data>(now: Instant, lease: &Lease, stack: &mut Stack<D>) {
    if let Err(error) = stack.set_address(now, lease.address, lease.prefix_len, lease.gateway) {
        log::error!("DHCP: {} leased us {}: {error}", lease.server, lease.address);
    }
}

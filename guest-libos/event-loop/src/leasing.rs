//! The interface's address from a DHCP server (RFC 2131), while the loop runs: asked for, probed before it is used (RFC 5227),
//! renewed, declined if somebody else has it, and given up when its time is over.

use crate::Interface;
use crate::random::Random;
use crate::unsent::Unsent;
use alloc::string::String;
use core::net::Ipv4Addr;
use core::sync::atomic::Ordering;
use exos_dhcp::{CLIENT_PORT, Client, Event, Lease, Outgoing};
use exos_net::{BindError, ConflictOutcome, Data, Instant, Stack, Transmit};
use exos_runtime::pages;

/// A client of DHCP servers, and what the machine knows of its address.
#[derive(Debug)]
pub(crate) struct Leasing {
    client: Client,
    random: Random,
    unsent: Unsent,
    /// What the device takes.
    device_mtu: u16,
    /// Name servers of a lease that nobody has been told of.
    name_servers: Option<[Option<Ipv4Addr>; 3]>,
    /// The address that the VMM was told.
    told: Option<Ipv4Addr>,
}

impl Leasing {
    /// Begins with the first [`Self::work`].
    pub(crate) fn new(interface: &Interface) -> Self {
        let config = exos_dhcp::Config { mac: interface.mac, host_name: String::new(), remembered: None };
        let (random, unsent) = (Random::new(interface), Unsent::default());
        let device_mtu = interface.mtu();
        Self { client: Client::new(config), random, unsent, device_mtu, name_servers: None, told: None }
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
        self.unsent.retry(now, stack, tx);
        while self.client.next_deadline().is_some_and(|at| at <= now)
            && let Some(event) = self.client.poll(now, self.random.next() as u32)
        {
            match event {
                Event::Send(message) => self.send(now, &message, stack, tx),
                Event::Leased(lease) => self.use_lease(now, &lease, stack),
                Event::Lost => self.forget_lease(now, stack),
            }
        }
        let address = stack.address();
        if self.told != address {
            self.tell(address);
        }
    }

    fn send<D: Data, T: Transmit<D>>(
        &mut self,
        now: Instant,
        message: &Outgoing,
        stack: &mut Stack<D>,
        tx: &mut T,
    ) {
        // What does not leave is asked again, as what is lost.
        let _ = self.unsent.send(now, CLIENT_PORT, message.to.into(), message.bytes(), stack, tx);
    }

    fn use_lease<D: Data>(&mut self, now: Instant, lease: &Lease, stack: &mut Stack<D>) {
        self.name_servers = Some(lease.dns_servers);
        self.use_mtu(now, lease, stack);
        if let Err(error) = stack.set_address(now, lease.address, lease.prefix_len, lease.gateway) {
            log::error!("DHCP: {} leased us {}: {error}", lease.server, lease.address);
        }
    }

    /// What the lease said holds no longer than it.
    fn forget_lease<D: Data>(&mut self, now: Instant, stack: &mut Stack<D>) {
        stack.remove_address();
        self.name_servers = Some([None; 3]);
        self.use_device_mtu(now, stack);
    }

    /// What the link takes (RFC 2132 5.1): what the lease says, if the device takes that as well, else what the device takes.
    fn use_mtu<D: Data>(&self, now: Instant, lease: &Lease, stack: &mut Stack<D>) {
        let mtu = lease.mtu.filter(|&mtu| mtu <= self.device_mtu).unwrap_or(self.device_mtu);
        if mtu == stack.config().mtu {
            return;
        }
        match stack.set_mtu(now, mtu) {
            Ok(()) => log::info!("DHCP: packets are {mtu} bytes at most"),
            Err(error) => {
                log::warn!("DHCP: {} says an MTU of {mtu}, which is not used: {error}", lease.server);
                self.use_device_mtu(now, stack);
            }
        }
    }

    fn use_device_mtu<D: Data>(&self, now: Instant, stack: &mut Stack<D>) {
        // The stack began with it.
        let _ = stack.set_mtu(now, self.device_mtu);
    }

    /// The servers that are to be asked for names, if a lease has said so since the last time.
    pub(crate) fn take_name_servers(&mut self) -> Option<impl Iterator<Item = Ipv4Addr>> {
        self.name_servers.take().map(|servers| servers.into_iter().flatten())
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
        [self.unsent.next_deadline(), self.client.next_deadline()].into_iter().flatten().min()
    }
}

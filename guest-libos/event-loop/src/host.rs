//! The interface as a host on its link, for a tenant of frames that has connections of its own kind: it asks whether somebody else has
//! the interface's addresses, has a link-local one besides, answers who asks for them, and says in which groups that takes it.

use crate::addresses::{self, Told};
use crate::tenant::{Devices, Moment, meta};
use crate::{Interface, StartError, statistics};
use abi::boot::address_state;
use abi::statistics::StatisticsArea;
use core::net::IpAddr;
use core::sync::atomic::Ordering;
use exos_net::{ControlFrame, Counters, Full, Input, Instant, Stack, Transmit, TxSegment};
use exos_nic::{Frame, Offload, Piece, TransmitQueue};
use exos_runtime::clock::Scale;
use exos_runtime::pages;
use exos_virtqueue::guest::GuestHal;

/// What nobody sends: there are no connections.
type Nothing = &'static [u8];

/// A stack that listens on no port and connects to nobody.
#[derive(Debug)]
pub struct Host {
    stack: Stack<Nothing>,
    told: Told,
}

impl Host {
    /// Of an interface that has its address, or is to have none of IPv4.
    pub fn new(interface: &Interface) -> Result<Self, StartError> {
        let mut config = interface.stack_config(1)?;
        (config.max_half_open, config.max_time_wait, config.max_reassemblies) = (1, 0, 0);
        let now = crate::tenant::now(Scale::new());
        let stack = Stack::new(config, now).map_err(StartError::Stack)?;
        Ok(Self { stack, told: Told::default() })
    }

    /// Takes a frame that was received, and answers it.
    pub fn input<K: Default>(&mut self, frame: &Frame<'_>, at: Moment, devices: &mut Devices<'_, K>) {
        if let Input::Reply(reply) = self.stack.input(at.now, frame.bytes(), meta(frame)) {
            // A lost answer is asked for again.
            let _ = Sender(devices.transmit).transmit_control(&reply);
        }
    }

    /// Sends what is due, and tells the machine of addresses that came or went; `is_served`: the port of [`crate::Tenant::port`] is
    /// served at an address.
    pub fn work<K: Default>(&mut self, devices: &mut Devices<'_, K>, is_served: impl Fn(IpAddr) -> bool) {
        let now = devices.now();
        if self.stack.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.stack.expire(now, &mut Sender(devices.transmit), |_, _| {});
        }
        if self.told.is_behind(&self.stack) {
            self.told.catch_up(now, &self.stack, |address| is_served(address.into()));
        }
        addresses::tell_conflicts(&mut self.stack);
    }

    /// When [`Self::work`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.stack.next_deadline()
    }

    /// Whether an address is in use: nobody else has it, as far as was found out.
    pub fn uses(&self, address: IpAddr, now: Instant) -> bool {
        match address {
            IpAddr::V4(address) => self.stack.address() == Some(address),
            IpAddr::V6(address) => addresses::uses(now, &self.stack, address),
        }
    }

    /// Whether it is known of each address whether somebody else has it.
    pub fn is_settled(&self) -> bool {
        addresses::are_settled(&self.stack)
    }

    /// Tells the machine that the port is not served at the IPv4 address that the interface was given.
    pub fn tell_ipv4_unserved(&self) {
        pages::status().given_ipv4.store(address_state::UNSERVED, Ordering::Relaxed);
    }

    /// What it has seen and done.
    pub fn counters(&self) -> &Counters {
        self.stack.counters()
    }

    /// Copies that to where the VMM reads it.
    pub fn publish(&mut self, area: &StatisticsArea) {
        statistics::publish(&mut self.stack, area);
    }
}

/// The way to the NIC, of whole frames only.
struct Sender<'a, K>(&'a mut TransmitQueue<GuestHal, K>);

impl<K: Default> Transmit<Nothing> for Sender<'_, K> {
    fn transmit(&mut self, _: TxSegment<'_, Nothing>) -> Result<(), Full> {
        Err(Full)
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        let body = [Piece::Copy(frame.body())];
        self.0.transmit(frame.head(), &body, Offload::None, K::default()).map_err(|_| Full)
    }
}

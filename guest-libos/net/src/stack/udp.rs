//! UDP (RFC 768, RFC 1122 4.1): datagrams for ports that are bound are lent to the application, others answered with port
//! unreachable. Data to send is read where it is, as TCP's is.

use core::net::{IpAddr, SocketAddr, SocketAddrV4};

use alloc::borrow::Cow;

use super::Stack;
use super::input::Sender;
use crate::counters::DropReason;
use crate::data::Data;
use crate::driver::{RxChecksum, RxMeta};
use crate::events::{Datagram, DatagramError, Input};
use crate::frame::ControlFrame;
use crate::time::Instant;
use crate::wire::WireError;
use crate::wire::icmp::{self, Problem, Quoted};
use crate::wire::ipv4::{self, Ipv4Header, Protocol};
use crate::wire::udp::{self, UdpDatagram};

impl<D: Data> Stack<D> {
    /// A datagram arrives in `packet`. `verify`: the checksum is not known to be right.
    pub(super) fn udp_arrives<'f>(
        &mut self,
        now: Instant,
        sender: Sender,
        ip: &Ipv4Header,
        payload: &'f [u8],
        packet: &'f [u8],
        verify: bool,
    ) -> Result<Input<'f>, DropReason> {
        let datagram = self.readable(UdpDatagram::parse(payload, verify.then_some(ip)))?;
        if self.is_bound_udp(datagram.destination_port, ip.destination) {
            let (from, to) = (datagram.source_port, datagram.destination_port);
            return Ok(Input::Datagram(self.datagram(ip, from, to, Cow::Borrowed(datagram.payload))));
        }
        if ip.destination != self.config.ip {
            // RFC 1122 3.2.2: what was sent to everybody is not answered with errors.
            return Err(DropReason::NoPort);
        }
        Ok(self.nobody_at_port(now, sender, packet).map_or(Input::Nothing, Input::Reply))
    }

    /// RFC 2131 4.1: before we have an address, a DHCP server sends to the one that it offers. Nothing else that is not sent
    /// to our address is for us.
    #[cold]
    pub(super) fn offer_arrives<'f>(
        &mut self,
        ip: &Ipv4Header,
        payload: &'f [u8],
        meta: RxMeta,
    ) -> Result<Input<'f>, DropReason> {
        if self.config.has_address() || ip.protocol != Protocol::Udp {
            return Err(DropReason::NotForUs);
        }
        if !ipv4::is_host(ip.source) {
            return Err(DropReason::BadSource);
        }
        let verify = meta.checksum == RxChecksum::Unknown;
        let datagram = self.readable(UdpDatagram::parse(payload, verify.then_some(ip)))?;
        let (from, to) = (datagram.source_port, datagram.destination_port);
        if to != udp::DHCP_CLIENT_PORT || !self.is_bound_udp(to, ip.destination) {
            return Err(DropReason::NotForUs);
        }
        Ok(Input::Datagram(self.datagram(ip, from, to, Cow::Borrowed(datagram.payload))))
    }

    /// Counts what is no datagram.
    pub(super) fn readable<'f>(
        &mut self,
        parsed: Result<UdpDatagram<'f>, WireError>,
    ) -> Result<UdpDatagram<'f>, WireError> {
        parsed.inspect_err(|_| self.counters.datagrams_bad += 1)
    }

    /// RFC 1122 4.1.3.1: nobody is at the port.
    pub(super) fn nobody_at_port<'f>(
        &mut self,
        now: Instant,
        sender: Sender,
        packet: &'f [u8],
    ) -> Option<ControlFrame<'f>> {
        self.counters.count_drop(DropReason::NoPort);
        self.icmp_error(now, sender, icmp::PORT_UNREACHABLE, packet)
    }

    pub(super) fn datagram<'f>(
        &mut self,
        ip: &Ipv4Header,
        source_port: u16,
        port: u16,
        payload: Cow<'f, [u8]>,
    ) -> Datagram<'f> {
        self.counters.datagrams_in += 1;
        Datagram {
            from: SocketAddr::V4(SocketAddrV4::new(ip.source, source_port)),
            to: SocketAddr::new(IpAddr::V4(ip.destination), port),
            payload,
        }
    }

    /// RFC 1122 4.1.3.3: what came of a datagram that was sent from a port, if it is still bound.
    pub(super) fn udp_problem<'f>(
        &mut self,
        problem: Problem,
        quoted: &Quoted,
    ) -> Result<Input<'f>, DropReason> {
        if !self.is_ours(quoted.source) || !self.is_bound_udp(quoted.source_port, quoted.source) {
            return Err(DropReason::Unacceptable);
        }
        self.counters.datagram_errors_in += 1;
        Ok(Input::DatagramError(DatagramError {
            from: quoted.source,
            port: quoted.source_port,
            to: SocketAddr::new(quoted.destination, quoted.destination_port),
            problem,
        }))
    }
}

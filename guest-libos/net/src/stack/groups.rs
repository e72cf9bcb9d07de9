//! Groups that the application is in, and those of our IPv6 addresses (RFC 4291 2.8): which datagrams are for us, and what
//! routers and switches on the link are told of it (RFC 9776, RFC 9777; RFC 4862 5.4.2). When it is told is `multicast`'s part.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use alloc::vec::Vec;

use super::Stack;
use super::input::Sender;
use crate::config::Config;
use crate::counters::{Counters, DropReason};
use crate::data::Data;
use crate::driver::{RxChecksum, RxMeta, Transmit};
use crate::events::Input;
use crate::frame::ControlFrame;
use crate::multicast::{Due, JoinError, Membership};
use crate::time::Instant;
use crate::wire::WireError;
use crate::wire::ethernet::{self, EtherType, EthernetHeader, MacAddress};
use crate::wire::igmp;
use crate::wire::ipv4::{self, Ipv4Fragment, Ipv4Header, Protocol, Verify};
use crate::wire::ipv6::{Packet, multicast_mac, solicited_node};
use crate::wire::membership::{Invalid, Message, Version};
use crate::wire::mld;

impl From<Invalid> for DropReason {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::Unsupported => Self::Unsupported,
            Invalid::OffLink => Self::OffLink,
            Invalid::Checksum => Self::Checksum,
            Invalid::Malformed => Self::Malformed,
        }
    }
}

#[derive(Debug)]
pub(super) struct Groups {
    v4: Membership,
    v6: Membership,
    /// When there is something to say, or a little earlier.
    deadline: Instant,
    /// Where we speak from over IPv6.
    source: Option<Ipv6Addr>,
    /// What is due, and the bytes of its records: empty but for the memory.
    due: Vec<Due>,
    records: Vec<u8>,
}

impl Groups {
    pub(super) fn new(config: &Config) -> Self {
        let (max, speaks, secret) = (usize::from(config.max_groups), config.group_reports, config.secret);
        let max_own = config.ipv6.as_ref().map_or(0, |ipv6| usize::from(ipv6.max_addresses));
        Self {
            v4: Membership::new(b"igmp", max, 0, speaks, secret),
            v6: Membership::new(b"mld", max, max_own, speaks, secret),
            deadline: Instant::NEVER,
            source: None,
            due: Vec::new(),
            records: Vec::new(),
        }
    }

    fn of(&mut self, group: IpAddr) -> &mut Membership {
        if group.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    /// Whether datagrams to the group are for us, if they are IPv4's.
    fn is_in_v4(&self, group: Ipv4Addr) -> bool {
        group == igmp::ALL_SYSTEMS || self.v4.is_joined(group.into())
    }

    /// Whether the application has joined a group of IPv6's.
    pub(super) fn has_joined_v6(&self, group: Ipv6Addr) -> bool {
        self.v6.is_joined(group.into())
    }

    pub(super) fn next_deadline(&self) -> Instant {
        self.deadline
    }

    fn find_deadline(&mut self) {
        self.deadline = self.v4.next_deadline().min(self.v6.next_deadline());
    }
}

impl<D: Data> Stack<D> {
    /// Datagrams to `group` reach the ports that are bound for it from now on, and routers and switches are told by the next
    /// [`Self::expire`], which is due at once. Each call is undone by one of [`Self::leave_group`].
    pub fn join_group(&mut self, now: Instant, group: IpAddr) -> Result<(), JoinError> {
        match group {
            IpAddr::V6(_) if self.config.ipv6.is_none() => return Err(JoinError::NoIpv6),
            // RFC 4291 2.7: scope 0 is nobody's.
            IpAddr::V6(group) if group.is_multicast() && group.octets()[1] & 0x0f > 0 => {}
            // RFC 1112 4: 224.0.0.0 is nobody's.
            IpAddr::V4(group) if group.is_multicast() && group.octets() != [224, 0, 0, 0] => {}
            _ => return Err(JoinError::NotAGroup),
        }
        self.groups.of(group).join(group, now).map_err(|_| JoinError::TooMany)?;
        self.groups.find_deadline();
        Ok(())
    }

    /// Undoes one [`Self::join_group`]; with the last, others are told. Returns whether we were in the group.
    pub fn leave_group(&mut self, now: Instant, group: IpAddr) -> bool {
        let was_member = self.groups.of(group).leave(group, now);
        self.groups.find_deadline();
        was_member
    }

    /// The groups that were joined.
    pub fn groups(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.groups.v4.joined().chain(self.groups.v6.joined())
    }

    /// A datagram of IPv4 in a frame to a group, or to a group in a frame to us (a switch may have changed it).
    #[cold]
    pub(super) fn group_datagram_arrives<'f>(
        &mut self,
        now: Instant,
        ethernet: (MacAddress, MacAddress),
        bytes: &'f [u8],
        meta: RxMeta,
    ) -> Result<Input<'f>, DropReason> {
        let (source_mac, to_mac) = ethernet;
        let verify = if meta.checksum == RxChecksum::AllValid { Verify::Done } else { Verify::Here };
        let parsed = Ipv4Header::parse(bytes, verify);
        if let Err(error @ (WireError::Malformed | WireError::Checksum)) = parsed {
            return Err(error.into());
        }
        let packet = Ipv4Fragment::parse(bytes)?;
        let group = packet.destination;
        let is_for_us = self.groups.is_in_v4(group)
            && (to_mac == igmp::multicast_mac(group) || to_mac == self.config.mac);
        if !is_for_us {
            return Err(DropReason::NotForUs);
        }
        match parsed {
            Ok((ip, payload)) if ip.protocol == Protocol::Udp => {
                if !ipv4::is_host(ip.source) || self.config.is_ours(ip.source) {
                    return Err(DropReason::BadSource);
                }
                let sender = Sender { mac: source_mac, ip: ip.source };
                self.udp_arrives(now, sender, &ip, payload, bytes, meta.checksum == RxChecksum::Unknown)
            }
            Ok(_) => Err(DropReason::NotForUs),
            Err(WireError::Fragment) => self.fragment_arrives(now, source_mac, bytes),
            Err(_) => self.igmp_arrives(now, &packet),
        }
    }

    /// Whether a datagram to `address` is for us, in whatever frame it came.
    pub(super) fn is_for_us(&self, address: Ipv4Addr) -> bool {
        self.config.is_ours(address) || self.groups.is_in_v4(address)
    }

    /// What is said about groups; nothing of it is answered at once.
    #[cold]
    pub(super) fn igmp_arrives<'f>(
        &mut self,
        now: Instant,
        packet: &Ipv4Fragment<'_>,
    ) -> Result<Input<'f>, DropReason> {
        // A switch that asks has no address.
        let is_possible = ipv4::is_host(packet.source) || packet.source.is_unspecified();
        if !is_possible || self.config.is_ours(packet.source) {
            return Err(DropReason::BadSource);
        }
        let message = igmp::parse(packet)?;
        self.group_message_arrives(now, &message, Groups::v4)
    }

    /// The same over IPv6.
    #[cold]
    pub(super) fn mld_arrives<'f>(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        message: &[u8],
    ) -> Result<Input<'f>, DropReason> {
        let message = mld::parse(packet, message)?;
        self.group_message_arrives(now, &message, Groups::v6)
    }

    fn group_message_arrives<'f>(
        &mut self,
        now: Instant,
        message: &Message,
        of: fn(&mut Groups) -> &mut Membership,
    ) -> Result<Input<'f>, DropReason> {
        let membership = of(&mut self.groups);
        match message {
            Message::Query(query) => {
                if !membership.query_arrives(query, now) {
                    return Err(DropReason::NotForUs);
                }
                self.counters.group_queries_in += 1;
            }
            Message::Report(group) => membership.report_arrives(*group),
        }
        self.groups.find_deadline();
        Ok(Input::Nothing)
    }

    /// Says what is due of groups.
    pub(super) fn expire_groups<T: Transmit<D>>(&mut self, now: Instant, tx: &mut T) {
        self.follow_addresses(now);
        if self.groups.deadline > now {
            return;
        }
        let Groups { v4, v6, due, records, source, .. } = &mut self.groups;
        let link = self.config.mtu;
        let mtu_v6 = self.resolver.ipv6.as_deref().map_or(link, |interface| interface.link_mtu.now(link));
        let mut mouth = Mouth { config: &self.config, mtu_v6, counters: &mut self.counters, records, tx };
        let version = v4.poll(now, due);
        mouth.say_igmp(version, due);
        due.clear();
        let version = v6.poll(now, due);
        mouth.say_mld(version, source.unwrap_or(Ipv6Addr::UNSPECIFIED), due);
        due.clear();
        self.groups.find_deadline();
    }

    /// The groups of our own addresses are those that the interface has now (RFC 4291 2.8). From nobody's address what was said
    /// may not have been heard: it is said again from the first that is ours.
    pub(super) fn follow_addresses(&mut self, now: Instant) {
        let Some(interface) = self.resolver.ipv6.as_deref() else { return };
        let groups = &mut self.groups;
        groups.v6.keep_own(|group| interface.addresses.needs_group(group), now);
        for address in interface.addresses.known_to_others() {
            groups.v6.set_own(solicited_node(address).into(), now);
        }
        let source = interface.addresses.link_local();
        if source.is_some() && source != groups.source {
            groups.v6.say_again(now);
        }
        groups.source = source;
        groups.find_deadline();
    }

    /// RFC 4862 5.4.2: before others are asked about an address, switches hear where the answers are to go.
    pub(super) fn join_before_probe<T: Transmit<D>>(&mut self, target: Ipv6Addr, now: Instant, tx: &mut T) {
        if self.groups.v6.set_own(solicited_node(target).into(), now) {
            self.expire_groups(now, tx);
        }
    }
}

impl Groups {
    fn v4(&mut self) -> &mut Membership {
        &mut self.v4
    }

    fn v6(&mut self) -> &mut Membership {
        &mut self.v6
    }
}

/// Where what is said leaves.
struct Mouth<'a, T> {
    config: &'a Config,
    /// What the link takes of IPv6, as a router may have said.
    mtu_v6: u16,
    counters: &'a mut Counters,
    records: &'a mut Vec<u8>,
    tx: &'a mut T,
}

impl<T> Mouth<'_, T> {
    fn say_igmp<D: Data>(&mut self, version: Version, due: &[Due])
    where
        T: Transmit<D>,
    {
        if version < Version::Current {
            for due in due {
                let IpAddr::V4(group) = due.group else { continue };
                let mut message = [0; igmp::HEADER_BYTES];
                if let Some(to) = igmp::emit_old(version, due.record, group, &mut message) {
                    self.send_igmp(to, &message, &[]);
                }
            }
            return;
        }
        let room = usize::from(self.config.mtu) - igmp::IP_HEADER_BYTES - igmp::HEADER_BYTES;
        for due in due.chunks(room / igmp::RECORD_BYTES) {
            let mut records = core::mem::take(self.records);
            for due in due {
                let IpAddr::V4(group) = due.group else { continue };
                records.extend_from_slice(&igmp::emit_record(due.record, group));
            }
            let mut message = [0; igmp::HEADER_BYTES];
            igmp::emit_report(&records, &mut message);
            self.send_igmp(igmp::REPORT_ROUTERS, &message, &records);
            records.clear();
            *self.records = records;
        }
    }

    fn send_igmp<D: Data>(&mut self, to: Ipv4Addr, message: &[u8; igmp::HEADER_BYTES], records: &[u8])
    where
        T: Transmit<D>,
    {
        let source = self.config.ip;
        let mac = igmp::multicast_mac(to);
        self.send(mac, EtherType::Ipv4, records, |out| {
            let (ip, rest) = out.split_at_mut(igmp::IP_HEADER_BYTES);
            if let Some(ip) = ip.first_chunk_mut() {
                igmp::emit_ip(source, to, message.len() + records.len(), ip);
            }
            rest[..message.len()].copy_from_slice(message);
            igmp::IP_HEADER_BYTES + message.len()
        });
    }

    fn say_mld<D: Data>(&mut self, version: Version, source: Ipv6Addr, due: &[Due])
    where
        T: Transmit<D>,
    {
        if version < Version::Current {
            for due in due {
                let IpAddr::V6(group) = due.group else { continue };
                let ip = mld::header(source, mld::old_destination(due.record, group));
                let mut message = [0; mld::OLD_BYTES];
                mld::emit_old(&ip, due.record, group, &mut message);
                self.send_mld(&ip, &message, &[]);
            }
            return;
        }
        let room = usize::from(self.mtu_v6) - mld::IP_HEADER_BYTES - mld::REPORT_BYTES;
        for due in due.chunks(room / mld::RECORD_BYTES) {
            let mut records = core::mem::take(self.records);
            for due in due {
                let IpAddr::V6(group) = due.group else { continue };
                records.extend_from_slice(&mld::emit_record(due.record, group));
            }
            let ip = mld::header(source, mld::REPORT_ROUTERS);
            let mut message = [0; mld::REPORT_BYTES];
            mld::emit_report(&ip, &records, &mut message);
            self.send_mld(&ip, &message, &records);
            records.clear();
            *self.records = records;
        }
    }

    fn send_mld<D: Data>(&mut self, ip: &crate::wire::ipv6::Ipv6Header, message: &[u8], records: &[u8])
    where
        T: Transmit<D>,
    {
        self.send(multicast_mac(ip.destination), EtherType::Ipv6, records, |out| {
            let (headers, rest) = out.split_at_mut(mld::IP_HEADER_BYTES);
            if let Some(headers) = headers.first_chunk_mut() {
                mld::emit_ip(ip, message.len() + records.len(), headers);
            }
            rest[..message.len()].copy_from_slice(message);
            mld::IP_HEADER_BYTES + message.len()
        });
    }

    /// What is lost here is as if the link had lost it.
    fn send<D: Data>(
        &mut self,
        mac: MacAddress,
        ether_type: EtherType,
        body: &[u8],
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) where
        T: Transmit<D>,
    {
        let source = self.config.mac;
        let frame = ControlFrame::build(body, |out| {
            let (header, rest) = out.split_at_mut(ethernet::HEADER_BYTES);
            if let Some(header) = header.first_chunk_mut() {
                EthernetHeader { destination: mac, source, ether_type }.emit(header);
            }
            ethernet::HEADER_BYTES + fill(rest)
        });
        let is_out = self.tx.transmit_control(&frame).is_ok();
        self.counters.group_reports_out += u64::from(is_out);
    }
}

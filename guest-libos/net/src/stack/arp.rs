//! ARP (RFC 826) packets in and out, and the defence of our address (RFC 5227 2.4).

use core::net::Ipv4Addr;

use super::Stack;
use super::input::Sender;
use crate::config::Config;
use crate::counters::DropReason;
use crate::data::Data;
use crate::events::Input;
use crate::frame::ControlFrame;
use crate::time::{Duration, Instant};
use crate::wire::arp::{self, ArpPacket, Operation};
use crate::wire::ethernet::{self, EtherType, EthernetHeader, MacAddress};

/// RFC 5227 1.1, DEFEND_INTERVAL: who claims our address is contradicted at most so often.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

impl<D: Data> Stack<D> {
    #[cold]
    pub(super) fn arp_arrives<'f>(&mut self, now: Instant, payload: &[u8]) -> Result<Input<'f>, DropReason> {
        let packet = ArpPacket::parse(payload)?;
        if packet.sender_ip == self.config.ip {
            return Ok(self.address_claimed(now, packet.sender_mac));
        }
        let is_for_us = packet.target_ip == self.config.ip;
        let is_gateway = Some(packet.sender_ip) == self.config.gateway;
        if self.config.is_on_link(packet.sender_ip) {
            let heard =
                self.neighbours.heard(packet.sender_ip, packet.sender_mac, is_gateway && is_for_us, now);
            self.neighbour_heard(packet.sender_ip, packet.sender_mac, heard);
        }
        if packet.operation != Operation::Request || !is_for_us {
            return Ok(Input::Nothing);
        }
        self.counters.arp_replies += 1;
        let reply = ArpPacket {
            operation: Operation::Reply,
            sender_mac: self.config.mac,
            sender_ip: self.config.ip,
            target_mac: packet.sender_mac,
            target_ip: packet.sender_ip,
        };
        Ok(Input::Reply(arp_frame(&self.config, packet.sender_mac, &reply)))
    }

    /// RFC 5227 2.4 (c): we keep our address, and let people see it now and then.
    fn address_claimed<'f>(&mut self, now: Instant, by: MacAddress) -> Input<'f> {
        if by == self.config.mac {
            return Input::Nothing;
        }
        self.counters.arp_conflicts += 1;
        if now < self.defend_at {
            return Input::Nothing;
        }
        self.conflict = Some(by);
        self.defend_at = now + DEFEND_INTERVAL;
        Input::Reply(arp_request(&self.config, self.config.ip))
    }

    /// Who else claims our address, once each time that we contradicted: something for the log.
    pub fn take_address_conflict(&mut self) -> Option<MacAddress> {
        self.conflict.take()
    }

    /// The Ethernet address to answer at: the gateway's for peers beyond it, as far as we know it, else the one that the
    /// frame came from.
    pub(super) fn next_hop(&self, sender: Sender) -> Result<MacAddress, DropReason> {
        if self.config.is_on_link(sender.ip) {
            return Ok(sender.mac);
        }
        let gateway = self.config.gateway.ok_or(DropReason::NoRoute)?;
        Ok(self.neighbours.last_known(gateway).unwrap_or(sender.mac))
    }

    pub(super) fn emit_ethernet(&self, destination: MacAddress, ether_type: EtherType, out: &mut [u8]) {
        if let Some(out) = out.first_chunk_mut() {
            EthernetHeader { destination, source: self.config.mac, ether_type }.emit(out);
        }
    }
}

/// Asks everybody who has `target`; for our own address it is the announcement of RFC 5227 3.
pub(super) fn arp_request(config: &Config, target: Ipv4Addr) -> ControlFrame<'static> {
    let request = ArpPacket {
        operation: Operation::Request,
        sender_mac: config.mac,
        sender_ip: config.ip,
        target_mac: MacAddress([0; 6]),
        target_ip: target,
    };
    arp_frame(config, MacAddress::BROADCAST, &request)
}

fn arp_frame(config: &Config, destination: MacAddress, packet: &ArpPacket) -> ControlFrame<'static> {
    ControlFrame::build(&[], |out| {
        let (header, rest) = out.split_at_mut(ethernet::HEADER_BYTES);
        if let Some(out) = header.first_chunk_mut() {
            EthernetHeader { destination, source: config.mac, ether_type: EtherType::Arp }.emit(out);
        }
        if let Some(out) = rest.first_chunk_mut() {
            packet.emit(out);
        }
        ethernet::HEADER_BYTES + arp::PACKET_BYTES
    })
}

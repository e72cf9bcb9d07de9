//! ARP (RFC 826) packets in and out.

use core::net::Ipv4Addr;

use super::Stack;
use super::input::Sender;
use crate::config::Config;
use crate::counters::DropReason;
use crate::data::Data;
use crate::events::Input;
use crate::frame::ControlFrame;
use crate::time::Instant;
use crate::wire::arp::{self, ArpPacket, Operation};
use crate::wire::ethernet::{self, EtherType, EthernetHeader, MacAddress};

impl<D: Data> Stack<D> {
    #[cold]
    pub(super) fn arp_arrives<'f>(&mut self, now: Instant, payload: &[u8]) -> Result<Input<'f>, DropReason> {
        let packet = ArpPacket::parse(payload)?;
        if !self.config.has_address() {
            self.arp_arrives_without_address(&packet);
            return Ok(Input::Nothing);
        }
        if packet.sender_ip == self.config.ip {
            return Ok(self.address_claimed(now, packet.sender_mac));
        }
        let is_for_us = packet.target_ip == self.config.ip;
        let is_gateway = Some(packet.sender_ip) == self.config.gateway;
        if self.config.is_on_link(packet.sender_ip) {
            let heard =
                self.resolver.arp.heard(packet.sender_ip, packet.sender_mac, is_gateway && is_for_us, now);
            self.neighbour_heard(packet.sender_ip.into(), packet.sender_mac, heard);
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

    /// The Ethernet address to answer at: the gateway's for peers beyond it, as far as we know it, else the one that the
    /// frame came from.
    pub(super) fn next_hop(&self, sender: Sender) -> Result<MacAddress, DropReason> {
        if self.config.is_on_link(sender.ip) {
            return Ok(sender.mac);
        }
        let gateway = self.config.gateway.ok_or(DropReason::NoRoute)?;
        Ok(self.resolver.arp.last_known(gateway).unwrap_or(sender.mac))
    }

    pub(super) fn emit_ethernet(&self, destination: MacAddress, ether_type: EtherType, out: &mut [u8]) {
        if let Some(out) = out.first_chunk_mut() {
            EthernetHeader { destination, source: self.config.mac, ether_type }.emit(out);
        }
    }
}

/// Asks everybody who has `target`; for our own address it is the announcement of RFC 5227 3.
pub(super) fn arp_request(config: &Config, target: Ipv4Addr) -> ControlFrame<'static> {
    request_from(config, config.ip, target)
}

/// The same from nobody: a probe (RFC 5227 1.1), which changes nothing in anybody's memory.
pub(super) fn arp_probe(config: &Config, target: Ipv4Addr) -> ControlFrame<'static> {
    request_from(config, Ipv4Addr::UNSPECIFIED, target)
}

fn request_from(config: &Config, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> ControlFrame<'static> {
    let (operation, sender_mac, target_mac) = (Operation::Request, config.mac, MacAddress([0; 6]));
    let request = ArpPacket { operation, sender_mac, sender_ip, target_mac, target_ip };
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

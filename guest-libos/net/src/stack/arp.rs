//! ARP (RFC 826) and the way back: who is answered at which Ethernet address. There is no cache of neighbours but the
//! gateway's entry: this side only answers, and the frame that it answers says where it came from.

use super::Stack;
use super::input::Sender;
use crate::counters::DropReason;
use crate::data::Data;
use crate::events::Input;
use crate::frame::ControlFrame;
use crate::wire::arp::{self, ArpPacket, Operation};
use crate::wire::ethernet::{self, EtherType, EthernetHeader, MacAddress};

impl<D: Data> Stack<D> {
    #[cold]
    pub(super) fn arp_arrives<'f>(&mut self, payload: &[u8]) -> Result<Input<'f>, DropReason> {
        let packet = ArpPacket::parse(payload)?;
        if packet.sender_ip == self.config.ip {
            // RFC 5227 2.4: we keep our address and let people see it.
            self.counters.arp_conflicts += 1;
            return Ok(Input::Nothing);
        }
        if Some(packet.sender_ip) == self.config.gateway {
            self.gateway_mac = Some(packet.sender_mac);
        }
        if packet.operation != Operation::Request || packet.target_ip != self.config.ip {
            return Ok(Input::Nothing);
        }
        let reply = ArpPacket {
            operation: Operation::Reply,
            sender_mac: self.config.mac,
            sender_ip: self.config.ip,
            target_mac: packet.sender_mac,
            target_ip: packet.sender_ip,
        };
        self.counters.arp_replies += 1;
        Ok(Input::Reply(ControlFrame::build(&[], |out| {
            let (header, rest) = out.split_at_mut(ethernet::HEADER_BYTES);
            self.emit_ethernet(packet.sender_mac, EtherType::Arp, header);
            if let Some(out) = rest.first_chunk_mut() {
                reply.emit(out);
            }
            ethernet::HEADER_BYTES + arp::PACKET_BYTES
        })))
    }

    /// The Ethernet address to answer at: the gateway's for peers beyond it, as far as we know it, else the one that the
    /// frame came from.
    pub(super) fn next_hop(&self, sender: Sender) -> Result<MacAddress, DropReason> {
        if self.config.is_on_link(sender.ip) {
            return Ok(sender.mac);
        }
        if self.config.gateway.is_none() {
            return Err(DropReason::NoRoute);
        }
        Ok(self.gateway_mac.unwrap_or(sender.mac))
    }

    pub(super) fn emit_ethernet(&self, destination: MacAddress, ether_type: EtherType, out: &mut [u8]) {
        if let Some(out) = out.first_chunk_mut() {
            EthernetHeader { destination, source: self.config.mac, ether_type }.emit(out);
        }
    }
}

//! Where on the link the server, or the gateway to it, is (RFC 826): asked for at the start, and again now and then.
//!
//! Only this one address is asked for. A client's frames say where it is.

use crate::config::Mac;
use crate::wire::{TYPE_ARP, put_u16, put_u32, u16_at, u32_at};
use core::time::Duration;

/// Bytes of an ARP packet in an Ethernet frame without padding.
pub(crate) const ARP_FRAME_BYTES: usize = 42;
const BROADCAST: Mac = [0xFF; 6];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// From one unanswered request to the next (RFC 1122 2.3.2.1: at most one a second).
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// An address is asked for again after so long (RFC 1122 2.3.2.1 has "on the order of a minute").
const VALID: Duration = Duration::from_secs(30);
/// After so many requests without an answer nobody is there.
const UNANSWERED_MAX: u8 = 3;

/// Who we are on the link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) mac: Mac,
    pub(crate) address: u32,
}

/// What is known of the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// There.
    At(Mac),
    /// It was asked for and may still answer.
    Asked,
    /// It does not answer.
    Gone,
}

/// The next hop towards the server.
#[derive(Debug)]
pub(crate) struct Neighbour {
    address: u32,
    mac: Option<Mac>,
    unanswered: u8,
    /// When it is asked for next.
    ask_at: Duration,
}

/// What an ARP packet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arp {
    /// A request for our address: the frame is its answer now.
    Answer,
    /// It said something, or nothing.
    Heard,
    /// No ARP for Ethernet and IPv4.
    Malformed,
}

impl Neighbour {
    pub(crate) fn new(address: u32) -> Self {
        Self { address, mac: None, unanswered: 0, ask_at: Duration::ZERO }
    }

    pub(crate) fn known(&self) -> Known {
        match self.mac {
            Some(mac) => Known::At(mac),
            None if self.unanswered <= UNANSWERED_MAX => Known::Asked,
            None => Known::Gone,
        }
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.ask_at
    }

    /// Writes a request if it is time for one.
    pub(crate) fn ask(&mut self, now: Duration, own: Own, frame: &mut [u8; ARP_FRAME_BYTES]) -> bool {
        if now < self.ask_at {
            return false;
        }
        if self.unanswered >= UNANSWERED_MAX {
            self.mac = None;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.ask_at = now + ASK_AGAIN;
        frame[..6].copy_from_slice(&BROADCAST);
        put_u16(frame, 14, 1);
        put_u16(frame, 16, 0x0800);
        (frame[18], frame[19]) = (6, 4);
        write(frame, REQUEST, own, [0; 6], self.address);
        true
    }

    /// Reads an ARP packet, and makes an answer of a request for us.
    pub(crate) fn hear(&mut self, now: Duration, own: Own, frame: &mut [u8]) -> Arp {
        if frame.len() < ARP_FRAME_BYTES
            || u16_at(frame, 14) != 1
            || u16_at(frame, 16) != 0x0800
            || frame[18..20] != [6, 4]
        {
            return Arp::Malformed;
        }
        let sender: Mac = [frame[22], frame[23], frame[24], frame[25], frame[26], frame[27]];
        let (sender_address, target_address) = (u32_at(frame, 28), u32_at(frame, 38));
        let is_one_station = sender[0] & 1 == 0 && sender != [0; 6] && sender != own.mac;
        if sender_address == self.address && is_one_station {
            (self.mac, self.unanswered, self.ask_at) = (Some(sender), 0, now + VALID);
        }
        if u16_at(frame, 20) != REQUEST || target_address != own.address || !is_one_station {
            return Arp::Heard;
        }
        frame[..6].copy_from_slice(&sender);
        write(frame, REPLY, own, sender, sender_address);
        Arp::Answer
    }
}

/// Writes what differs from packet to packet.
fn write(frame: &mut [u8], operation: u16, own: Own, target: Mac, target_address: u32) {
    frame[6..12].copy_from_slice(&own.mac);
    put_u16(frame, 12, TYPE_ARP);
    put_u16(frame, 20, operation);
    frame[22..28].copy_from_slice(&own.mac);
    put_u32(frame, 28, own.address);
    frame[32..38].copy_from_slice(&target);
    put_u32(frame, 38, target_address);
}

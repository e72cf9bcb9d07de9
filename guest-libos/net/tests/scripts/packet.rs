//! Segments as scripts write them, to bytes and back. It is written apart from the stack's own wire formats, and `language` holds it against smoltcp's, so that a mistake in one does not hide itself in the other.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use crate::ip::{self, Unwrapped};

/// Control bits by the letter that scripts write, in the order in which they are printed.
const FLAGS: [(char, u8); 8] =
    [('S', 2), ('F', 1), ('R', 4), ('P', 8), ('U', 32), ('E', 64), ('C', 128), ('A', 16)];
pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;
pub(crate) const URG: u8 = 32;

pub(crate) fn flags(letters: &str) -> Option<u8> {
    if letters == "-" {
        return Some(0);
    }
    letters.chars().try_fold(0, |bits, letter| {
        let &(_, bit) = FLAGS.iter().find(|&&(known, _)| known == letter)?;
        (bits & bit == 0).then_some(bits | bit)
    })
}

fn letters(bits: u8) -> String {
    let text: String = FLAGS.iter().filter(|&&(_, bit)| bits & bit != 0).map(|&(letter, _)| letter).collect();
    if text.is_empty() { "-".into() } else { text }
}

/// One TCP option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TcpOption {
    End,
    Nop,
    Mss(u16),
    WindowScale(u8),
    SackPermitted,
    /// Blocks relative to the stream they describe.
    Sack(Vec<(u32, u32)>),
    /// TSval and TSecr; `None` in an expectation is any value.
    Timestamp(Option<u32>, Option<u32>),
    /// Bytes as they are, kind and length included.
    Raw(Vec<u8>),
}

impl fmt::Display for TcpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("eol"),
            Self::Nop => f.write_str("nop"),
            Self::Mss(mss) => write!(f, "mss {mss}"),
            Self::WindowScale(shift) => write!(f, "ws {shift}"),
            Self::SackPermitted => f.write_str("sackok"),
            Self::Sack(blocks) => {
                f.write_str("sack")?;
                blocks.iter().try_for_each(|(start, end)| write!(f, " {start}:{end}"))
            }
            Self::Timestamp(value, echo) => {
                let show = |value: &Option<u32>| value.map_or("*".into(), |value| value.to_string());
                write!(f, "ts {} {}", show(value), show(echo))
            }
            Self::Raw(bytes) => {
                f.write_str("raw ")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// What differs in a script from the usual around the TCP segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Around {
    pub(crate) ttl: Option<u8>,
    pub(crate) tos: Option<u8>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: Option<IpAddr>,
    pub(crate) link_broadcast: bool,
    pub(crate) ip_options: Vec<u8>,
    pub(crate) bad_checksum: bool,
}

/// A TCP segment with relative numbers, as sent by a peer or as expected of the host. What is `None` in an expectation
/// is not compared, except `ack` with the A bit and `options`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tcp {
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: Option<u32>,
    pub(crate) len: u32,
    pub(crate) window: Option<u16>,
    pub(crate) urgent: Option<u16>,
    pub(crate) options: Vec<TcpOption>,
    pub(crate) any_options: bool,
    pub(crate) local_port: Option<u16>,
    pub(crate) around: Around,
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", letters(self.flags), self.seq)?;
        if self.len > 0 {
            write!(f, " len {}", self.len)?;
        }
        if let Some(ack) = self.ack {
            write!(f, " ack {ack}")?;
        }
        if let Some(window) = self.window {
            write!(f, " win {window}")?;
        }
        if let Some(urgent) = self.urgent {
            write!(f, " urg {urgent}")?;
        }
        self.options.iter().try_for_each(|option| write!(f, " {option}"))?;
        if self.any_options {
            f.write_str(" options *")?;
        }
        if let Some(ttl) = self.around.ttl {
            write!(f, " ttl {ttl}")?;
        }
        if let Some(tos) = self.around.tos {
            write!(f, " tos {tos}")?;
        }
        Ok(())
    }
}

impl Tcp {
    /// Whether `seen`, of which everything is known, is what `self` expects; else what differs.
    pub(crate) fn matches(&self, seen: &Self) -> Result<(), String> {
        let mut differences = String::new();
        let mut compare =
            |name: &str, expected: &dyn fmt::Display, actual: &dyn fmt::Display, equal: bool| {
                if !equal {
                    let _ = write!(differences, "\n    {name}: expected {expected}, actual {actual}");
                }
            };
        compare("flags", &letters(self.flags), &letters(seen.flags), self.flags == seen.flags);
        compare("seq", &self.seq, &seen.seq, self.seq == seen.seq);
        compare("len", &self.len, &seen.len, self.len == seen.len);
        let show = |value: Option<u32>| value.map_or("none".to_string(), |value| value.to_string());
        if self.ack.is_some() || self.flags & ACK != 0 {
            compare("ack", &show(self.ack), &show(seen.ack), self.ack == seen.ack);
        }
        let optional = [
            ("win", self.window.map(u32::from), seen.window.map(u32::from)),
            ("urg", self.urgent.map(u32::from), seen.urgent.map(u32::from)),
            ("ttl", self.around.ttl.map(u32::from), seen.around.ttl.map(u32::from)),
            ("tos", self.around.tos.map(u32::from), seen.around.tos.map(u32::from)),
        ];
        for (name, expected, actual) in optional {
            if expected.is_some() {
                compare(name, &show(expected), &show(actual), expected == actual);
            }
        }
        let list = |options: &[TcpOption]| {
            options.iter().map(|option| option.to_string()).collect::<Vec<_>>().join(" ")
        };
        let same = self.options.len() == seen.options.len()
            && self.options.iter().zip(&seen.options).all(|(expected, actual)| same_option(expected, actual));
        if !self.any_options {
            compare("options", &list(&self.options), &list(&seen.options), same);
        }
        if differences.is_empty() { Ok(()) } else { Err(differences) }
    }
}

fn same_option(expected: &TcpOption, actual: &TcpOption) -> bool {
    match (expected, actual) {
        (TcpOption::Timestamp(value, echo), TcpOption::Timestamp(actual_value, actual_echo)) => {
            value.is_none_or(|value| Some(value) == *actual_value)
                && echo.is_none_or(|echo| Some(echo) == *actual_echo)
        }
        _ => expected == actual,
    }
}

/// Addresses and initial sequence numbers of one peer's traffic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoints {
    pub(crate) host_ip: IpAddr,
    pub(crate) peer_ip: IpAddr,
    pub(crate) peer_port: u16,
    pub(crate) local_port: u16,
    pub(crate) peer_isn: u32,
    pub(crate) host_isn: u32,
}

/// Byte `position` (1 is the first) of the stream from the peer or to it.
pub(crate) fn pattern(from_peer: bool, position: u32) -> u8 {
    let salt = if from_peer { 0x55 } else { 0 };
    (position.wrapping_mul(2_654_435_761) >> 24) as u8 ^ salt
}

impl TcpOption {
    fn emit(&self, ends: &Endpoints, out: &mut Vec<u8>) {
        match self {
            Self::End => out.push(0),
            Self::Nop => out.push(1),
            Self::Mss(mss) => {
                out.extend([2, 4]);
                out.extend(mss.to_be_bytes());
            }
            Self::WindowScale(shift) => out.extend([3, 3, *shift]),
            Self::SackPermitted => out.extend([4, 2]),
            Self::Sack(blocks) => {
                out.extend([5, (2 + 8 * blocks.len()) as u8]);
                for (start, end) in blocks {
                    out.extend(ends.host_isn.wrapping_add(*start).to_be_bytes());
                    out.extend(ends.host_isn.wrapping_add(*end).to_be_bytes());
                }
            }
            Self::Timestamp(value, echo) => {
                out.extend([8, 10]);
                out.extend(value.unwrap_or(0).to_be_bytes());
                out.extend(echo.unwrap_or(0).to_be_bytes());
            }
            Self::Raw(bytes) => out.extend(bytes),
        }
    }

    /// Reads the options of a segment of the host. Whatever is not as RFC 9293 3.2 has it is an error: padding that is
    /// not zero (MUST-69), a length that does not fit.
    fn parse_all(mut bytes: &[u8], ends: &Endpoints) -> Result<Vec<Self>, String> {
        let word = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let mut options = Vec::new();
        while let [kind, rest @ ..] = bytes {
            match (kind, rest) {
                (0, padding) => {
                    if padding.iter().any(|&byte| byte != 0) {
                        return Err(format!("the options are padded with {padding:?}, not with zeros"));
                    }
                    return Ok(options);
                }
                (1, _) => bytes = rest,
                (_, &[len, ..]) if len >= 2 && usize::from(len) <= bytes.len() => {
                    let (option, after) = bytes.split_at(usize::from(len));
                    bytes = after;
                    options.push(match (kind, &option[2..]) {
                        (2, &[high, low]) => Self::Mss(u16::from_be_bytes([high, low])),
                        (3, &[shift]) => Self::WindowScale(shift),
                        (4, &[]) => Self::SackPermitted,
                        (5, blocks) if !blocks.is_empty() && blocks.len() % 8 == 0 => Self::Sack(
                            blocks
                                .chunks(8)
                                .map(|block| {
                                    let relative = |bytes| word(bytes).wrapping_sub(ends.peer_isn);
                                    (relative(&block[..4]), relative(&block[4..]))
                                })
                                .collect(),
                        ),
                        (8, values) if values.len() == 8 => {
                            Self::Timestamp(Some(word(values)), Some(word(&values[4..])))
                        }
                        _ => Self::Raw(option.to_vec()),
                    });
                }
                _ => return Err(format!("option {kind} has a length that does not fit: {bytes:?}")),
            }
        }
        Ok(options)
    }
}

/// The frame of a segment from the peer.
pub(crate) fn build(tcp: &Tcp, ends: &Endpoints, window: u16) -> Vec<u8> {
    let source = tcp.around.source.unwrap_or(ends.peer_ip);
    let destination = tcp.around.destination.unwrap_or(ends.host_ip);
    let mut options = Vec::new();
    tcp.options.iter().for_each(|option| option.emit(ends, &mut options));
    options.resize(options.len().next_multiple_of(4), 0);
    let mut bytes = Vec::new();
    bytes.extend(ends.peer_port.to_be_bytes());
    bytes.extend(tcp.local_port.unwrap_or(ends.local_port).to_be_bytes());
    bytes.extend(ends.peer_isn.wrapping_add(tcp.seq).to_be_bytes());
    bytes.extend(tcp.ack.map_or(0, |ack| ends.host_isn.wrapping_add(ack)).to_be_bytes());
    bytes.extend([((20 + options.len()) as u8 / 4) << 4, tcp.flags]);
    bytes.extend(tcp.window.unwrap_or(window).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(tcp.urgent.unwrap_or(0).to_be_bytes());
    bytes.extend(options);
    // A SYN takes the place of byte 0.
    let first = tcp.seq + u32::from(tcp.flags & SYN != 0);
    bytes.extend((0..tcp.len).map(|i| pattern(true, first.wrapping_add(i))));
    let checksum = ip::checksum(source, destination, 6, &bytes);
    let checksum = if tcp.around.bad_checksum { checksum ^ 0x0100 } else { checksum };
    bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
    ip::frame(&tcp.around, source, destination, 6, &bytes)
}

/// A segment of the host's, taken apart; numbers are absolute until `relative`.
pub(crate) struct Seen<'f> {
    pub(crate) ip: Unwrapped<'f>,
    pub(crate) ports: (u16, u16),
    pub(crate) seq: u32,
    pub(crate) flags: u8,
    tcp: &'f [u8],
}

impl<'f> Seen<'f> {
    /// Checks everything that holds for every frame.
    pub(crate) fn parse(frame: &'f [u8]) -> Result<Self, String> {
        let fail = |what: &str| format!("the host sent a frame with {what}: {frame:02x?}");
        let ip = ip::unwrap(frame).map_err(fail)?;
        let tcp = ip.tcp().map_err(fail)?;
        Ok(Self {
            ip,
            ports: (u16::from_be_bytes([tcp[0], tcp[1]]), u16::from_be_bytes([tcp[2], tcp[3]])),
            seq: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
            flags: tcp[13],
            tcp,
        })
    }

    /// The segment as a script writes it. The payload must be the host's stream at its place.
    pub(crate) fn relative(&self, ends: &Endpoints) -> Result<Tcp, String> {
        let tcp = self.tcp;
        let header_len = usize::from(tcp[12] >> 4) * 4;
        let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let half = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let payload = &tcp[header_len..];
        let seq = self.seq.wrapping_sub(ends.host_isn);
        let first = seq.wrapping_add(u32::from(self.flags & SYN != 0));
        if let Some(at) =
            (0..payload.len()).find(|&i| payload[i] != pattern(false, first.wrapping_add(i as u32)))
        {
            return Err(format!("byte {} of the stream is not what was sent", first as usize + at));
        }
        let has_ack = self.flags & ACK != 0;
        if (!has_ack && word(8) != 0) || (self.flags & URG == 0 && half(18) != 0) {
            return Err("the ACK or urgent field is set without its bit".into());
        }
        Ok(Tcp {
            flags: self.flags,
            seq,
            ack: has_ack.then(|| word(8).wrapping_sub(ends.peer_isn)),
            len: payload.len() as u32,
            window: Some(half(14)),
            urgent: (self.flags & URG != 0).then(|| half(18)),
            options: TcpOption::parse_all(&tcp[20..header_len], ends)?,
            any_options: false,
            local_port: None,
            around: Around { ttl: Some(self.ip.ttl), tos: Some(self.ip.tos), ..Around::default() },
        })
    }
}

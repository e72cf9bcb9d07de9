//! Frames from those that nobody trusts: a guest on the user network, and a network around exos-net.

use crate::input::Input;
use exos_net::{
    AckPolicy, Config, ConnId, ControlFrame, Duration, Full, Input as Came, Instant, MacAddress, RxChecksum,
    RxMeta, Stack, Transmit, TxSegment,
};
use exovm_user_net::{
    Config as UserConfig, GATEWAY_ADDRESS, GATEWAY_MAC, GUEST_ADDRESS, GUEST_MAC, GuestOffloads, UserNet,
};
use std::net::Ipv4Addr;

/// Bytes of an Ethernet and an IPv4 header.
const BEFORE_TRANSPORT: usize = 34;

/// Between whom a frame goes.
pub(crate) struct Ends {
    pub(crate) from: ([u8; 6], Ipv4Addr),
    pub(crate) to: ([u8; 6], Ipv4Addr),
}

/// A frame that is good up to where the bytes say otherwise: addresses, lengths and checksums fit. Otherwise everything would end at
/// the first check. `near`: sequence and acknowledgment numbers that the other side waits for.
pub(crate) fn frame(input: &mut Input<'_>, ends: &Ends, near: (u32, u32)) -> Vec<u8> {
    let kind = input.below(8);
    let mut frame = [&ends.to.0[..], &ends.from.0].concat();
    if kind == 0 {
        let len = usize::from(input.u8());
        return input.bytes(len).to_vec();
    }
    if kind == 1 {
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + input.below(2)]);
        frame.extend(ends.from.0);
        frame.extend(ends.from.1.octets());
        frame.extend([0; 6]);
        frame.extend(ends.to.1.octets());
        return frame;
    }
    let protocol = [6, 6, 6, 6, 17, 1][usize::from(kind) - 2];
    frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend(ends.from.1.octets());
    frame.extend(ends.to.1.octets());
    match protocol {
        6 => {
            // Few ports, so that segments meet connections.
            frame.extend((1000 + u16::from(input.below(4))).to_be_bytes());
            frame.extend((80 + u16::from(input.u8() == 0)).to_be_bytes());
            let (sequence, acknowledgment) = if kind < 5 {
                let mut close = |number: u32| number.wrapping_add(u32::from(input.u8())).wrapping_sub(4);
                (close(near.0), close(near.1))
            } else {
                (input.u32(), input.u32())
            };
            frame.extend(sequence.to_be_bytes());
            frame.extend(acknowledgment.to_be_bytes());
            let options = usize::from(input.below(4)) * 4;
            frame.push(((5 + options / 4) as u8) << 4);
            frame.push(input.u8());
            frame.extend(input.u16().to_be_bytes());
            frame.extend([0; 4]);
            let bytes = input.bytes(options);
            frame.extend(bytes);
            frame.extend(std::iter::repeat_n(1, options - bytes.len()));
        }
        17 => {
            frame.extend((1000 + u16::from(input.below(4))).to_be_bytes());
            frame.extend(
                [53, 80, 0][usize::from(input.below(3))..][..1]
                    .iter()
                    .flat_map(|&port: &u16| port.to_be_bytes()),
            );
            frame.extend([0; 4]);
        }
        _ => frame.extend([8, 0, 0, 0, 0, 1, 0, 1]),
    }
    let payload = usize::from(input.u8());
    frame.extend(input.bytes(payload));
    let len = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    if protocol == 17 {
        frame[38..40].copy_from_slice(&(len - 20).to_be_bytes());
    }
    // A few bytes that are not as they should be, and then the checksums.
    for _ in 0..input.below(3) {
        let at = usize::from(input.u16()) % frame.len();
        frame[at] ^= input.u8();
    }
    if input.below(8) != 0 {
        finish(&mut frame, protocol);
    }
    frame
}

/// The sequence number that the sender of a TCP segment waits for, and an acknowledgment of all that it sent, SYN included.
pub(crate) fn expected(frame: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    let tcp = match (frame.get(12..14)?, frame.get(20)?, frame.get(23)?) {
        ([8, 0], _, 6) => 34,
        ([0x86, 0xdd], 6, _) => 54,
        _ => return None,
    };
    Some((number(tcp + 8)?, number(tcp + 4)?.wrapping_add(1)))
}

/// The Internet checksum (RFC 1071) of some bytes.
pub(crate) fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn finish(frame: &mut [u8], protocol: u8) {
    frame[24..26].fill(0);
    let sum = checksum(&[&frame[14..BEFORE_TRANSPORT]]);
    frame[24..26].copy_from_slice(&sum);
    let at = BEFORE_TRANSPORT
        + match protocol {
            6 => 16,
            17 => 6,
            _ => 2,
        };
    frame[at..at + 2].fill(0);
    let len = ((frame.len() - BEFORE_TRANSPORT) as u16).to_be_bytes();
    let pseudo = [&frame[26..34], &[0, protocol], &len].concat();
    let sum = match protocol {
        1 => checksum(&[&frame[BEFORE_TRANSPORT..]]),
        _ => checksum(&[&pseudo, &frame[BEFORE_TRANSPORT..]]),
    };
    frame[at..at + 2].copy_from_slice(&sum);
}

/// The user backend. Nobody leaves: the guest may not go to the outside, and nothing of the host is published.
pub fn user_net(bytes: &[u8]) {
    let mut input = Input(bytes);
    let config = UserConfig { guest_mac: GUEST_MAC, seed: 1, ..UserConfig::default() };
    let Ok(mut net) = UserNet::new(config) else { return };
    let features = input.u8();
    net.set_offloads(GuestOffloads { checksum: features & 1 != 0, tso4: features & 2 != 0 });
    let ends = Ends { from: (GUEST_MAC, GUEST_ADDRESS), to: (GATEWAY_MAC, GATEWAY_ADDRESS) };
    let mut now = std::time::Duration::ZERO;
    let mut near = (4, 4);
    while !input.is_empty() {
        now += std::time::Duration::from_millis(u64::from(input.below(4)) * 40);
        let header = input.below(8) == 0;
        let mut whole = if header { input.bytes(12).to_vec() } else { Vec::new() };
        whole.resize(12, 0);
        whole.extend(frame(&mut input, &ends, near));
        net.input(now, &whole);
        for _ in 0..32 {
            let Some(answer) = net.output(now) else { break };
            assert!(answer.len() >= 12 + 14, "an answer is a frame");
            near = expected(&answer[12..]).unwrap_or(near);
            // An answer to a question by ARP goes to whoever asked.
            let is_ipv4 = answer[24..26] == [8, 0];
            assert!(!is_ipv4 || answer[12..18] == GUEST_MAC, "an answer goes to the guest");
        }
        assert!(net.connections() <= 4096 && net.sessions() <= 4096, "what a guest can open is bounded");
    }
}

/// A device that takes everything, sometimes.
#[derive(Default)]
struct Nic {
    full: bool,
    /// What the last frame makes its sender wait for.
    near: (u32, u32),
}

impl Transmit<&'static [u8]> for Nic {
    fn transmit(&mut self, segment: TxSegment<'_, &'static [u8]>) -> Result<(), Full> {
        let mut payload = vec![0; segment.payload.len()];
        assert_eq!(segment.payload.copy_to(&mut payload), Some(payload.len()), "what is sent is there");
        self.near = expected(segment.header).unwrap_or(self.near);
        if self.full { Err(Full) } else { Ok(()) }
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        let mut bytes = vec![0; frame.len()];
        assert_eq!(frame.copy_to(&mut bytes), Some(bytes.len()));
        self.near = expected(&bytes).unwrap_or(self.near);
        if self.full { Err(Full) } else { Ok(()) }
    }
}

const SERVER: ([u8; 6], Ipv4Addr) = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: ([u8; 6], Ipv4Addr) = ([2, 0, 0, 0, 0, 2], Ipv4Addr::new(10, 0, 0, 2));
const MAX_BUFFERED: usize = 20_000;

/// exos-net with an application that does this and that.
pub fn stack(bytes: &[u8]) {
    static DATA: [u8; 4000] = [0x55; 4000];
    let mut input = Input(bytes);
    let mut config = Config::new(MacAddress(SERVER.0), SERVER.1, 24, *b"0123456789abcdef");
    config.max_connections = 8;
    config.max_half_open = 4;
    config.max_time_wait = 4;
    config.max_buffered_bytes = MAX_BUFFERED;
    let mut now = Instant::from_nanos(1);
    let Ok(mut stack) = Stack::<&'static [u8]>::new(config, now) else { return };
    stack.listen(80).expect("a free port");
    let mut nic = Nic::default();
    let mut open: Vec<ConnId> = Vec::new();
    let ends = Ends { from: CLIENT, to: SERVER };
    while !input.is_empty() {
        match input.below(8) {
            0..=3 => {
                let frame = frame(&mut input, &ends, nic.near);
                let trusted =
                    if input.u8() & 1 == 0 { RxChecksum::Unknown } else { RxChecksum::TransportValid };
                match stack.input(now, &frame, RxMeta { checksum: trusted }) {
                    Came::Nothing | Came::Datagram(_) | Came::DatagramError(_) => {}
                    Came::Reply(reply) => drop(Transmit::<&'static [u8]>::transmit_control(&mut nic, &reply)),
                    Came::Segment(events) => {
                        let conn = events.conn;
                        if events.opened {
                            assert!(!open.contains(&conn), "opened twice");
                            open.push(conn);
                        }
                        assert!(open.contains(&conn), "events of an unknown connection");
                        if events.ended.is_some() {
                            open.retain(|other| *other != conn);
                        } else if !events.data.is_empty() {
                            let rest = usize::from(input.u8()).min(events.data.len());
                            let _ = stack.keep(conn, &events.data[rest..]);
                        }
                    }
                }
            }
            4 => now += Duration::from_millis(u64::from(input.u16())),
            5 => nic.full = input.u8() & 1 != 0,
            _ => {
                let what = input.below(6);
                let Some(&conn) = open.get(usize::from(input.u8()) % open.len().max(1)) else { continue };
                match what {
                    0 => drop(stack.send(conn, &DATA[..usize::from(input.u16()) % DATA.len()])),
                    1 => drop(stack.close(conn)),
                    2 => {
                        stack.abort(conn);
                        open.retain(|other| *other != conn);
                    }
                    3 => drop(stack.consume(conn, usize::from(input.u16()))),
                    _ => drop(stack.output(conn, now, &mut nic, AckPolicy::Now)),
                }
            }
        }
        stack.retry_blocked(now, &mut nic);
        let before = open.len();
        let mut ended = Vec::new();
        stack.expire(now, &mut nic, |conn, event| {
            if let exos_net::TimerEvent::Ended(_) = event {
                ended.push(conn);
            }
        });
        open.retain(|conn| !ended.contains(conn));
        assert!(before >= open.len());
        assert!(stack.connections() <= 8 && stack.half_open() <= 4 && stack.time_wait() <= 4, "bounds hold");
        assert!(stack.buffered_bytes() <= MAX_BUFFERED, "what peers can make us keep is bounded");
    }
}

//! Frames to the forwarder, from clients, the servers, routers and anybody, over IPv4 and IPv6.

use crate::adversary::frames::{self, is_whole_ipv4, sums_are_right};
use crate::input::Input;
use crate::network::{Ends, checksum, expected, frame};
use exos_forward::{Config, Forwarder, HEAD_BYTES, Meta, Network, Offload, Outgoing, REQUEST_BYTES, Verdict};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const OWN: ([u8; 6], Ipv4Addr) = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: ([u8; 6], Ipv4Addr) = ([2, 0, 0, 0, 0, 2], Ipv4Addr::new(10, 0, 0, 2));
const SERVER: ([u8; 6], Ipv4Addr) = ([2, 0, 0, 0, 0, 3], Ipv4Addr::new(10, 0, 0, 3));
const MAX: u32 = 8;

/// Where the transport header begins over IPv4, and over IPv6.
const TRANSPORT: usize = 34;
const TRANSPORT6: usize = 54;

/// What goes on is whole, from us, and as right as it came; what is remembered is bounded.
pub fn forward(bytes: &[u8]) {
    let mut input = Input(bytes);
    let config = Config {
        max_connections: MAX,
        ipv4: Some(Network::new(OWN.1, 24, (SERVER.1, 80))),
        ipv6: Some(Network::new(ipv6(OWN.1), 64, (ipv6(SERVER.1), 80))),
        ..Config::new(OWN.0, 80, *b"0123456789abcdef")
    };
    let Ok(mut forwarder) = Forwarder::new(&config) else { return };
    let (mut now, mut near) = (Duration::ZERO, (4, 4));
    let (mut head, mut request) = ([0; HEAD_BYTES], [0; REQUEST_BYTES]);
    // The ports by which the servers know the client that was forwarded last.
    let (mut port, mut port6) = (0u16, 0u16);
    // The segment that went on last.
    let mut sent = Vec::new();
    while !input.is_empty() {
        let from_server = input.below(2) == 1;
        let ends = Ends { from: if from_server { SERVER } else { CLIENT }, to: OWN };
        let mut came = frame(&mut input, &ends, near);
        let is_tcp = is_whole_ipv4(&came) && came[23] == 6 && came.len() >= 54;
        let is_ipv6 = input.below(2) == 1;
        if from_server && is_tcp && input.below(8) != 0 {
            // As an answer to what went there.
            let port = if is_ipv6 { port6 } else { port };
            came[34..36].copy_from_slice(&80u16.to_be_bytes());
            came[36..38].copy_from_slice(&port.to_be_bytes());
            frames::finish(&mut came);
        }
        if is_ipv6 && is_whole_ipv4(&came) {
            came = over_ipv6(&came);
            damage(&mut input, &mut came);
        } else if is_ipv6 && input.below(4) == 0 {
            came = solicitation(&mut input);
        }
        match input.below(8) {
            0 | 4 => now += Duration::from_secs(u64::from(input.u16())),
            1 | 5 if !sent.is_empty() => came = error(&mut input, &sent),
            _ => {}
        }
        let was_right = is_right(&came);
        let before = forwarder.counters().frames_in;
        let verdict = forwarder.forward(now, &came, &mut head, Meta::default());
        assert_eq!(forwarder.counters().frames_in, before + 1, "each frame is counted");
        if let Verdict::Send(outgoing) = verdict {
            let Outgoing { headers_bytes, rest_at, len_bytes, offload } = outgoing;
            assert!(headers_bytes <= HEAD_BYTES && headers_bytes <= len_bytes);
            let rest_bytes = len_bytes - headers_bytes;
            assert!(rest_bytes == 0 || rest_at + rest_bytes <= came.len(), "the rest is the frame's");
            let goes = [&head[..headers_bytes], outgoing.rest(&came)].concat();
            assert_eq!(goes[6..12], OWN.0, "it is from us");
            assert_eq!(offload, Offload::None, "nobody asked for more");
            assert!(!was_right || is_right(&goes), "right checksums stay right: {goes:02x?}");
            let source_port = |at: usize| u16::from_be_bytes([goes[at], goes[at + 1]]);
            if goes[..6] == SERVER.0 && is_whole_ipv4(&goes) && goes[23] == 6 {
                port = source_port(TRANSPORT);
            }
            if goes[..6] == SERVER.0 && is_whole_ipv6(&goes) && goes[20] == 6 {
                port6 = source_port(TRANSPORT6);
            }
            if let Some(numbers) = expected(&goes) {
                (near, sent) = (numbers, goes);
            }
        }
        for _ in 0..4 {
            let Some(len_bytes) = forwarder.poll(now, &mut request) else { break };
            assert_eq!(request[6..12], OWN.0);
            assert!(request[12..14] == [8, 6] && len_bytes == 42 || is_right(&request[..len_bytes]));
        }
        assert!(
            forwarder.connections().iter().sum::<u32>() <= 2 * MAX && forwarder.connections_max() <= 2 * MAX
        );
    }
}

/// Whether a frame is an IP packet with TCP or ICMP whose lengths and checksums are right.
fn is_right(frame: &[u8]) -> bool {
    if is_whole_ipv4(frame) {
        return frame.len() >= 54 && [1, 6].contains(&frame[23]) && sums_are_right(frame);
    }
    is_whole_ipv6(frame) && transport_sum(frame) == [0; 2]
}

fn is_whole_ipv6(frame: &[u8]) -> bool {
    frame.len() >= TRANSPORT6 + 8
        && frame[12..14] == [0x86, 0xdd]
        && frame[14] >> 4 == 6
        && [6, 58].contains(&frame[20])
        && usize::from(u16::from_be_bytes([frame[18], frame[19]])) == frame.len() - TRANSPORT6
}

/// The checksum of a transport message over IPv6; 0 if it contains the right one.
fn transport_sum(frame: &[u8]) -> [u8; 2] {
    checksum(&[&frame[22..54], &[0, frame[20]], &frame[18..20], &frame[TRANSPORT6..]])
}

/// 2001:db8::ADDRESS.
fn ipv6(address: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(address.to_bits()))
}

/// The same packet over IPv6, with checksums that are as right as they were; ICMP becomes ICMPv6.
fn over_ipv6(frame: &[u8]) -> Vec<u8> {
    let was_right = is_right(frame);
    let mut new = frame[..12].to_vec();
    let protocol = if frame[23] == 1 { 58 } else { frame[23] };
    new.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    new.extend(((frame.len() - TRANSPORT) as u16).to_be_bytes());
    new.extend([protocol, frame[22]]);
    for at in [26, 30] {
        let address = Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
        new.extend(ipv6(address).octets());
    }
    new.extend(&frame[TRANSPORT..]);
    if protocol == 58 && new.get(TRANSPORT6) == Some(&8) {
        new[TRANSPORT6] = 128;
    }
    if was_right {
        finish(&mut new);
    }
    new
}

/// Gives a whole packet over IPv6 its checksum.
fn finish(frame: &mut [u8]) {
    let at = TRANSPORT6 + if frame[20] == 6 { 16 } else { 2 };
    if frame.len() >= at + 2 {
        frame[at..at + 2].fill(0);
        let sum = transport_sum(frame);
        frame[at..at + 2].copy_from_slice(&sum);
    }
}

/// A few bytes that are not as they should be, some of them with a checksum that fits.
fn damage(input: &mut Input<'_>, frame: &mut [u8]) {
    for _ in 0..input.below(3) {
        let at = usize::from(input.u16()) % frame.len();
        frame[at] ^= input.u8();
    }
    if input.below(4) == 0 && is_whole_ipv6(frame) {
        finish(frame);
    }
}

/// An error about a segment that we sent, which it quotes to some length and perhaps not as it was.
fn error(input: &mut Input<'_>, sent: &[u8]) -> Vec<u8> {
    let (from, to) = ([CLIENT, SERVER][usize::from(input.below(2))], OWN);
    let is_ipv4 = sent[12..14] == [8, 0];
    let (mut frame, kinds) = if is_ipv4 {
        (frames::headers((to.0, from.0), from.1.into(), to.1.into(), 1), [3, 11, 12, 3])
    } else {
        (frames::headers((to.0, from.0), ipv6(from.1).into(), ipv6(to.1).into(), 58), [1, 2, 3, 4])
    };
    frame.extend([kinds[usize::from(input.below(4))], input.below(8), 0, 0, 0, 0, 5, 0x78]);
    let quote = &sent[14..];
    frame.extend(&quote[..usize::from(input.u8()).min(quote.len())]);
    frames::finish(&mut frame);
    for _ in 0..input.below(3) {
        let at = usize::from(input.u16()) % frame.len();
        frame[at] ^= input.u8();
    }
    if input.below(2) == 0 && frames::is_whole(&frame) {
        frames::finish(&mut frame);
    }
    frame
}

/// A neighbour that asks for us or answers, and lies here and there.
fn solicitation(input: &mut Input<'_>) -> Vec<u8> {
    let (from, kind, option) = if input.below(2) == 0 { (CLIENT, 135, 1) } else { (SERVER, 136, 2) };
    let target = if kind == 135 { OWN } else { SERVER };
    let mut frame = [&OWN.0[..], &from.0, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]].concat();
    frame.extend(ipv6(from.1).octets());
    frame.extend(ipv6(OWN.1).octets());
    frame.extend([kind, 0, 0, 0, 0x60, 0, 0, 0]);
    frame.extend(ipv6(target.1).octets());
    frame.extend([option, 1]);
    frame.extend(from.0);
    finish(&mut frame);
    damage(input, &mut frame);
    frame
}

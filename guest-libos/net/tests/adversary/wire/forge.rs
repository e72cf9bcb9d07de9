//! What an adversary makes up out of what it has seen: segments that nearly fit, fields rewritten on the way, ICMP errors that
//! quote what is on its way, ARP lies. Checksums are right: what is wrong with a frame is never that.

use std::net::{IpAddr, Ipv4Addr};

use super::choices::Choices;
use super::forge_v6;
pub(crate) use super::forge_v6::extended;
use super::frames::{
    ACK, FIN, IP, RST, SYN, Segment, URG, finish, fragment, headers, is_ipv6, is_whole, options, transport,
    u32_at,
};
use super::hosts::{Family, OTHER, OTHER_V6, OWN_MAC, any as any_address, mac, v4};
use super::station::PORT;

/// The last segments that left each station, oldest first.
#[derive(Default)]
pub(crate) struct Seen {
    frames: [Vec<Vec<u8>>; 2],
}

impl Seen {
    const MOST: usize = 8;

    pub(crate) fn remember(&mut self, number: usize, frame: &[u8]) {
        let frames = &mut self.frames[number];
        if frames.len() == Self::MOST {
            frames.remove(0);
        }
        frames.push(frame.to_vec());
    }

    pub(super) fn any(&self, number: usize, choices: &mut Choices<'_>) -> Option<&Vec<u8>> {
        let frames = &self.frames[number];
        if frames.is_empty() { None } else { Some(&frames[choices.below(frames.len())]) }
    }
}

/// A number near one of those that matter to a receiver.
fn near(numbers: &[u32], choices: &mut Choices<'_>) -> u32 {
    let base = choices.of(numbers);
    match choices.below(6) {
        0 => base,
        1 => base.wrapping_add(u32::from(choices.u8()) % 8),
        2 => base.wrapping_sub(u32::from(choices.u8()) % 8),
        3 => base.wrapping_add(u32::from(choices.u16())),
        4 => base.wrapping_sub(u32::from(choices.u16())),
        _ => choices.u32(),
    }
}

/// Options: what was seen, lies about SACK, timestamps and segment size, or anything.
fn forged_options(seen: &Segment<'_>, base: u32, choices: &mut Choices<'_>) -> Vec<u8> {
    let mut bytes = if choices.below(3) == 0 { Vec::new() } else { seen.options.to_vec() };
    if choices.once_in(2) {
        let timestamps = options(seen.options).flatten().find(|(kind, _)| *kind == 8);
        if let (Some((_, content)), true) = (timestamps, choices.once_in(2)) {
            bytes = vec![1, 1, 8, 10];
            for at in [0, 4] {
                bytes.extend(near(&[u32_at(content, at)], choices).to_be_bytes());
            }
        }
        if choices.once_in(2) {
            let blocks = 1 + choices.below(3);
            bytes.extend([1, 1, 5, 2 + 8 * blocks as u8]);
            for _ in 0..2 * blocks {
                bytes.extend(near(&[base, seen.acknowledgment], choices).to_be_bytes());
            }
        }
    }
    match choices.below(12) {
        1 => bytes = [&[2, 4][..], &u16::from(choices.u8()).to_be_bytes()].concat(),
        2 => bytes = vec![3, 3, choices.u8() % 20, 4, 2, 1, 2, 4, 5, 180],
        3 => (0..4 * choices.below(10)).for_each(|_| bytes.push(choices.u8())),
        _ => {}
    }
    bytes.truncate(40);
    bytes
}

/// A segment to station `to` that fits what was seen, more or less.
fn segment(seen: &Seen, to: usize, choices: &mut Choices<'_>) -> Option<Vec<u8>> {
    static TEXT: [u8; 3_000] = [0xaa; 3_000];
    let from = 1 - to;
    let mine = Segment::parse(seen.any(from, choices)?)?;
    let theirs = seen.any(to, choices).and_then(|frame| Segment::parse(frame));
    let theirs = theirs.filter(|theirs| theirs.destination == mine.source).unwrap_or(Segment {
        sequence: mine.acknowledgment,
        acknowledgment: mine.end(),
        ..mine
    });
    let window = theirs.acknowledgment.wrapping_add(u32::from(theirs.window));
    let sequence = near(&[theirs.acknowledgment, mine.sequence, mine.end(), window], choices);
    let acknowledgment = near(&[theirs.end(), theirs.sequence, mine.acknowledgment], choices);
    let flags = choices.of(&[
        ACK,
        ACK,
        ACK,
        ACK | FIN,
        RST,
        RST | ACK,
        SYN,
        SYN | ACK,
        ACK | URG,
        0,
        ACK | 8,
        0xff,
        FIN | RST,
    ]);
    let window = choices.of(&[0, 1, mine.window, 65_535, 400]);
    let len = choices.of(&[0, 0, 1, 8, 100, 536, 1_460, 3_000]);
    let options = forged_options(&mine, theirs.sequence, choices);
    let forged =
        Segment { sequence, acknowledgment, flags, window, options: &options, payload: &TEXT[..len], ..mine };
    let mut frame = forged.emit(mac(to), if choices.once_in(4) { OWN_MAC } else { mac(from) });
    if flags & URG != 0 {
        let at = transport(&frame);
        frame[at + 18] = choices.u8();
        frame[at + 19] = choices.u8();
        finish(&mut frame);
    }
    Some(frame)
}

/// A SYN of somebody else, who answers nothing.
fn syn(family: Family, to: usize, choices: &mut Choices<'_>) -> Vec<u8> {
    let is_v6 = family.choose_v6(choices);
    let family = if is_v6 { Family::V6 } else { Family::V4 };
    let other: IpAddr = if is_v6 { OTHER_V6.into() } else { OTHER.into() };
    let source = if choices.once_in(2) { other } else { any_address(family, 1 - to, choices) };
    let syn = Segment {
        source: (source, 61_000 + u16::from(choices.u8())),
        destination: (any_address(family, to, choices), PORT),
        sequence: choices.u32(),
        acknowledgment: 0,
        flags: SYN,
        window: choices.u16(),
        options: &[],
        payload: &[],
    };
    syn.emit(mac(to), OWN_MAC)
}

/// An ICMP message to station `to`, about something that it has sent.
fn icmp(seen: &Seen, to: usize, choices: &mut Choices<'_>) -> Option<Vec<u8>> {
    let quoted = seen.any(to, choices)?;
    if is_ipv6(quoted) {
        return Some(forge_v6::icmp(quoted, to, choices));
    }
    let from = choices.of(&[v4(1 - to), OTHER]);
    let mut frame = headers((mac(to), OWN_MAC), from.into(), v4(to).into(), 1);
    frame[IP + 6] = 0;
    let (kind, code) = choices.of(&[
        (3, 4),
        (3, 4),
        (3, 0),
        (3, 1),
        (3, 2),
        (3, 3),
        (3, 13),
        (4, 0),
        (5, 1),
        (11, 0),
        (12, 0),
        (8, 0),
    ]);
    frame.extend([kind, code, 0, 0, 0, 0]);
    frame.extend(choices.of(&[0u16, 1, 68, 296, 576, 577, 1_000, 1_400, 1_500, 65_535]).to_be_bytes());
    let len = choices.of(&[28, 20, 27, 40, 60, 0, usize::MAX]);
    let begin = frame.len();
    frame.extend(quoted[IP..].iter().take(len));
    if choices.once_in(4) && frame.len() > begin {
        let at = begin + choices.below(frame.len() - begin);
        frame[at] ^= choices.u8();
    }
    finish(&mut frame);
    Some(frame)
}

/// A claim about somebody's Ethernet address.
fn arp(to: usize, choices: &mut Choices<'_>) -> Vec<u8> {
    let destination = choices.of(&[mac(to), [0xff; 6]]);
    let mut frame = [&destination[..], &OWN_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + choices.u8() % 2]].concat();
    // Where the claim is believed traffic goes to the other station all the same: there are only two ends here.
    frame.extend(choices.of(&[OWN_MAC, mac(1 - to), [0xff; 6], [0; 6]]));
    frame.extend(choices.of(&[v4(1 - to), v4(to), OTHER, Ipv4Addr::UNSPECIFIED]).octets());
    frame.extend([0; 6]);
    frame.extend(choices.of(&[v4(to), v4(1 - to), OTHER]).octets());
    frame
}

/// Something made up for station `to`.
pub(crate) fn make_up(seen: &Seen, family: Family, to: usize, choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let frame = match choices.below(10) {
        0 => return Vec::new(),
        1 if family.choose_v6(choices) => Some(forge_v6::neighbours(to, choices)),
        1 => Some(arp(to, choices)),
        2 | 3 => icmp(seen, to, choices),
        4 => Some(syn(family, to, choices)),
        _ => segment(seen, to, choices),
    };
    let Some(frame) = frame else { return Vec::new() };
    if choices.once_in(8) && is_whole(&frame) {
        let mut parts = fragments(&frame, true, choices);
        if is_ipv6(&frame) && choices.once_in(3) {
            // Headers before the fragment header, and fragments in fragments.
            parts.iter_mut().for_each(|part| *part = extended(part, true, choices));
        }
        return parts;
    }
    if is_ipv6(&frame) && choices.once_in(6) {
        return vec![extended(&frame, true, choices)];
    }
    vec![frame]
}

/// Another frame in the place of one on its way: a field or two rewritten.
pub(crate) fn rewrite(frame: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if !is_whole(&frame) {
        return frame;
    }
    let begin = transport(&frame);
    for _ in 0..1 + choices.below(2) {
        // Sequence and acknowledgment number, flags, window, urgent pointer, options, text, type of service, life time.
        let at =
            begin + choices.of(&[4, 6, 7, 8, 10, 11, 13, 14, 15, 18, 19, 20, 22, 24, 26, 28, 31, 32, 40]);
        if let Some(byte) = frame.get_mut(at) {
            *byte = if choices.once_in(2) { choices.u8() } else { byte.wrapping_add(1) };
        }
        if choices.once_in(16) {
            frame[IP + 1] = choices.u8();
            let life_time = if is_ipv6(&frame) { IP + 7 } else { IP + 8 };
            frame[life_time] = choices.u8();
        }
    }
    finish(&mut frame);
    frame
}

/// A datagram in fragments, out of order; `overlapping`: with lies where they meet.
pub(crate) fn fragments(frame: &[u8], overlapping: bool, choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let (len, identification) = (frame.len() - transport(frame), u32::from(choices.u16()));
    let mut pieces = Vec::new();
    let mut at = 0;
    // The first holds the TCP header, or it would be refused (RFC 1858).
    let mut most = 24 + 8 * choices.below(100);
    while at < len && pieces.len() < 64 {
        let end = (at + most).min(len);
        pieces.push(fragment(frame, at, end, identification));
        if overlapping && at >= 8 && choices.once_in(3) {
            pieces.push(fragment(frame, at - 8, end, identification));
        }
        at = end;
        most = 8 + 8 * choices.below(100);
    }
    if choices.once_in(2) {
        pieces.reverse();
    }
    pieces
}

/// A segment cut in two, as a device or a middlebox does it.
pub(crate) fn split(frame: &[u8], choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let Some(segment) = Segment::parse(frame) else { return vec![frame.to_vec()] };
    let (len, ends) = (segment.payload.len(), (frame_mac(frame, 0), frame_mac(frame, 6)));
    if len < 2 || segment.flags & (SYN | RST | URG) != 0 {
        return vec![frame.to_vec()];
    }
    let at = 1 + usize::from(choices.u16()) % (len - 1);
    let first = Segment { flags: segment.flags & !(FIN | 8), payload: &segment.payload[..at], ..segment };
    let sequence = segment.sequence.wrapping_add(at as u32);
    let second = Segment { sequence, payload: &segment.payload[at..], ..segment };
    [first, second].map(|segment| segment.emit(ends.0, ends.1)).to_vec()
}

/// Two segments that follow each other as one, as a device does that merges what it receives.
pub(crate) fn merge(one: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let (first, second) = (Segment::parse(one)?, Segment::parse(other)?);
    let fits = first.source == second.source
        && first.destination == second.destination
        && first.end() == second.sequence
        && first.flags & !8 == ACK
        && second.flags & !(8 | FIN) == ACK
        && !first.payload.is_empty()
        && !second.payload.is_empty();
    let payload = [first.payload, second.payload].concat();
    let segment = Segment { sequence: first.sequence, payload: &payload, ..second };
    (fits && payload.len() < 60_000).then(|| segment.emit(frame_mac(one, 0), frame_mac(one, 6)))
}

fn frame_mac(frame: &[u8], at: usize) -> [u8; 6] {
    frame[at..at + 6].try_into().expect("six bytes")
}

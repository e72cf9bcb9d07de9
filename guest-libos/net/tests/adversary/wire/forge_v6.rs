//! What an adversary makes up about IPv6: errors that quote what is on its way, lies about neighbours, routers and prefixes,
//! headers between IPv6's and what it carries.

use std::net::{IpAddr, Ipv6Addr};

use super::choices::Choices;
use super::frames::{ICMPV6, IP, TRANSPORT_V6, finish, finish_len, headers, source};
use super::hosts::{ALL_NODES, OTHER_V6, OWN_MAC, link_local, mac, made, multicast_mac, solicited_node, v6};

/// Prefixes that routers advertise: the stations' own, another, that of no router.
const PREFIXES: [[u16; 4]; 4] =
    [[0x2001, 0xdb8, 0, 0], [0x2001, 0xdb8, 0, 1], [0x2001, 0xdb8, 0, 2], [0xfe80, 0, 0, 0]];

/// An ICMPv6 message to station `to`, about something that it has sent (RFC 4443 3), or an echo request.
pub(super) fn icmp(quoted: &[u8], to: usize, choices: &mut Choices<'_>) -> Vec<u8> {
    let from = choices.of(&[v6(1 - to), OTHER_V6, link_local(1 - to)]);
    let asked = match source(quoted) {
        IpAddr::V6(asked) if !choices.once_in(4) => asked,
        _ => choices.of(&[v6(to), link_local(to), ALL_NODES]),
    };
    let to_mac = if asked.is_multicast() { multicast_mac(asked) } else { mac(to) };
    let mut frame = headers((to_mac, OWN_MAC), from.into(), asked.into(), ICMPV6);
    let kinds = [(2, 0), (2, 0), (2, 0), (1, 0), (1, 1), (1, 3), (1, 4), (1, 6), (3, 0), (3, 1)];
    let others = [(4, 0), (4, 1), (4, 2), (128, 0), (129, 0), (0, 0), (100, 0), (200, 0)];
    let (kind, code) = if choices.once_in(3) { choices.of(&others) } else { choices.of(&kinds) };
    frame.extend([kind, code, 0, 0]);
    let mtus = [0, 68, 1_279, 1_280, 1_281, 1_400, 1_499, 1_500, 9_000, 65_536 + 1_280, u32::MAX];
    frame.extend(choices.of(&mtus).to_be_bytes());
    let len = choices.of(&[60, 40, 48, 47, 80, 0, 1_232, usize::MAX]);
    let begin = frame.len();
    frame.extend(quoted[IP..].iter().take(len));
    if choices.once_in(4) && frame.len() > begin {
        let at = begin + choices.below(frame.len() - begin);
        frame[at] ^= choices.u8();
    }
    finish(&mut frame);
    frame
}

/// A lifetime in seconds: all but for ever are over before patience with a calm wire is.
fn lifetime(choices: &mut Choices<'_>) -> u32 {
    choices.of(&[0, 1, 30, 600, 7_200, 7_201, 9_000, u32::MAX])
}

/// A claim about neighbours, routers and prefixes (RFC 4861 4).
pub(super) fn neighbours(to: usize, choices: &mut Choices<'_>) -> Vec<u8> {
    let someone = |choices: &mut Choices<'_>| {
        choices.of(&[
            v6(1 - to),
            link_local(1 - to),
            v6(to),
            link_local(to),
            OTHER_V6,
            made(PREFIXES[1], to),
            Ipv6Addr::UNSPECIFIED,
            ALL_NODES,
        ])
    };
    let kind = choices.of(&[134, 135, 136, 136, 134, 137, 133, 135]);
    let from = if kind == 134 { link_local(1 - to) } else { someone(choices) };
    let asked = someone(choices);
    let mut body = vec![kind, 0, 0, 0];
    match kind {
        133 => body.extend([0; 4]),
        134 => {
            body.extend([64, choices.u8()]);
            body.extend((lifetime(choices).min(9_000) as u16).to_be_bytes());
            body.extend([0; 8]);
        }
        _ => {
            body.extend([choices.u8(), 0, 0, 0]);
            body.extend(asked.octets());
            if kind == 137 {
                body.extend(someone(choices).octets());
            }
        }
    }
    for _ in 0..choices.below(4) {
        option(&mut body, choices);
    }
    let destination = match choices.below(6) {
        0 => ALL_NODES,
        1 => solicited_node(asked),
        2 => someone(choices),
        3 => link_local(to),
        _ => v6(to),
    };
    let to_mac = if destination.is_multicast() { multicast_mac(destination) } else { mac(to) };
    let mut frame = headers((to_mac, OWN_MAC), from.into(), destination.into(), ICMPV6);
    frame[IP + 7] = if choices.once_in(8) { choices.u8() } else { 255 };
    frame.extend(body);
    finish(&mut frame);
    frame
}

/// An option of such a message, right or not.
fn option(body: &mut Vec<u8>, choices: &mut Choices<'_>) {
    // Where the claim is believed traffic goes to the other station all the same: there are only two ends here.
    let macs = [OWN_MAC, mac(0), mac(1), [0; 6], [0xff; 6]];
    match choices.below(7) {
        0 | 1 => body.extend([&[2, 1][..], &choices.of(&macs)].concat()),
        2 => body.extend([&[1, 1][..], &choices.of(&macs)].concat()),
        3 => {
            body.extend([3, 4, choices.of(&[64, 64, 64, 0, 48, 128, 129]), choices.of(&[0xc0, 0x80, 0x40])]);
            body.extend(lifetime(choices).to_be_bytes());
            body.extend(lifetime(choices).to_be_bytes());
            body.extend([0; 4]);
            body.extend(made(choices.of(&PREFIXES), 0).octets());
        }
        4 => {
            body.extend([5, 1, 0, 0]);
            body.extend(choices.of(&[1_280u32, 1_279, 1_400, 1_500, 9_000, 0, u32::MAX]).to_be_bytes());
        }
        5 => body.extend([14, 1, choices.u8(), 0, 0, 0, 0, 0]),
        _ => (0..8).for_each(|_| body.push(choices.u8())),
    }
}

/// A packet with more headers before what it carries (RFC 8200 4): such as change nothing, or any.
pub(crate) fn extended(frame: &[u8], lies: bool, choices: &mut Choices<'_>) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for _ in 0..1 + choices.below(if lies { 10 } else { 3 }) {
        // The next one stands before those that are there: a hop-by-hop header that is not the first is none.
        let kinds: &[u8] = if lies { &[60, 43, 44, 0, 60, 51, 59, 253] } else { &[60, 43, 44, 60] };
        let kind = choices.of(kinds);
        insert(&mut frame, kind, lies, choices);
    }
    if choices.once_in(3) {
        insert(&mut frame, 0, lies, choices);
    }
    finish_len(&mut frame);
    frame
}

/// Puts a header right behind IPv6's.
fn insert(frame: &mut Vec<u8>, kind: u8, lies: bool, choices: &mut Choices<'_>) {
    let mut header = vec![frame[IP + 6], 0];
    match kind {
        // A fragment that is all of it (RFC 6946), or a part of something.
        44 => {
            let place = if lies && choices.once_in(2) { choices.u16() } else { 0 };
            header.extend(place.to_be_bytes());
            header.extend([0, 0, 0, choices.u8()]);
        }
        // A route whose end this is.
        43 => {
            header.extend([choices.u8() % 5, if lies { choices.u8() % 3 } else { 0 }]);
            header.extend([0; 4]);
        }
        _ if lies => {
            header[1] = choices.of(&[0, 0, 0, 1, 2, 255]);
            // Options of every kind of "what if you do not know it", of right and wrong lengths.
            let kind = choices.of(&[1, 0, 5, 0x1e, 0x5e, 0x9e, 0xde, 0xc2]);
            header.extend([kind, choices.of(&[4, 2, 0, 6, 250])]);
            header.resize(8 + 8 * usize::from(header[1] % 3), choices.u8() % 2);
        }
        _ => {
            // Padding.
            let len = 8 * (1 + choices.below(3));
            header[1] = (len / 8 - 1) as u8;
            header.extend([1, (len - 4) as u8]);
            header.resize(len, 0);
        }
    }
    frame.splice(TRANSPORT_V6..TRANSPORT_V6, header);
    frame[IP + 6] = kind;
}

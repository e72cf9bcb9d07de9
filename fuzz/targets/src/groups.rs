//! What routers and hosts say of groups to exos-net, beside an application that joins and leaves them.

use crate::input::Input;
use exos_net::{
    Config, ControlFrame, Duration, Full, Instant, Ipv6Config, MacAddress, RxMeta, Stack, Transmit, TxSegment,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OWN: [u8; 4] = [10, 0, 0, 1];
const MAX_GROUPS: u16 = 3;
/// Messages that may leave in a second: twenty answers of either family, in the words of the older versions one for each group, and
/// what the application does.
const MAX_ANSWERS: u64 = 2 * 20 * (MAX_GROUPS as u64 + 2);

/// Counts what leaves, and looks that it is what it seems.
#[derive(Default)]
struct Listener(u64);

impl Transmit<&'static [u8]> for Listener {
    fn transmit(&mut self, _: TxSegment<'_, &'static [u8]>) -> Result<(), Full> {
        unreachable!("nobody sends data")
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        let bytes = [frame.head(), frame.body()].concat();
        assert!(bytes[0] & 1 == 1 && bytes.len() <= 14 + 1_500, "to a group, and it fits the link");
        let hops = if bytes[12..14] == [8, 0] { bytes[22] } else { bytes[21] };
        let is_question = bytes[12..14] == [0x86, 0xdd] && bytes[20] == 58;
        assert!(hops == 1 || (is_question && hops == 255), "it stays on the link");
        self.0 += u64::from(!is_question);
        Ok(())
    }
}

/// The Internet checksum (RFC 1071) of some words.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes = parts.concat();
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u64 = bytes.chunks(2).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// One of few groups, everybody's and one of nobody's among them.
fn group(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    match number {
        0 => (Ipv4Addr::new(224, 0, 0, 1), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
        1 => (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
        2 => (Ipv4Addr::new(10, 0, 0, 1), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1)),
        number => (Ipv4Addr::new(239, 0, 0, number), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, number.into())),
    }
}

/// A message whose beginning and checksums are right unless the bytes say otherwise.
fn message(input: &mut Input<'_>) -> Vec<u8> {
    let (is_ipv6, to, about) = (input.below(2) == 1, group(input.below(8)), group(input.below(8)));
    let len = usize::from(input.below(80));
    let kinds = if is_ipv6 { [130, 131, 132, 143] } else { [0x11, 0x12, 0x16, 0x22] };
    let (kind, code) = (kinds[usize::from(input.below(8)).saturating_sub(4)], input.u8());
    let mut body = if is_ipv6 {
        [&[kind, 0, 0, 0, 0, code, 0, 0][..], &about.1.octets()].concat()
    } else {
        [&[kind, code, 0, 0][..], &about.0.octets()].concat()
    };
    body.extend(input.bytes(len));
    let mut frame = if is_ipv6 {
        let to = to.1.octets();
        let mut frame =
            [&[0x33, 0x33][..], &to[12..], &[2, 0, 0, 0, 0, 9, 0x86, 0xdd, 0x60, 0, 0, 0]].concat();
        frame.extend((8 + body.len() as u16).to_be_bytes());
        frame.extend([0, 1]);
        frame.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9).octets());
        frame.extend(to);
        let pseudo = [&frame[22..], &[0, 0, 0, body.len() as u8, 0, 0, 0, 58]].concat();
        let sum = checksum(&[&pseudo, &body]);
        body[2..4].copy_from_slice(&sum);
        frame.extend([58, 0, 5, 2, 0, 0, 1, 0]);
        frame
    } else {
        let to = to.0.octets();
        let mut frame = vec![1, 0, 0x5e, to[1] & 0x7f, to[2], to[3], 2, 0, 0, 0, 0, 9, 8, 0];
        frame.extend([0x46, 0xc0, 0, 24 + body.len() as u8, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 9]);
        frame.extend(to);
        frame.extend([0x94, 4, 0, 0]);
        let sum = checksum(&[&frame[14..]]);
        frame[24..26].copy_from_slice(&sum);
        let sum = checksum(&[&body]);
        body[2..4].copy_from_slice(&sum);
        frame
    };
    frame.extend(body);
    if input.below(4) == 0 {
        let at = usize::from(input.u8()) % frame.len();
        frame[at] ^= input.u8();
    }
    frame
}

/// Whatever arrives: groups are those that were joined, and answers are bounded, however much is asked.
pub fn groups(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut config = Config::new(MacAddress(OWN_MAC), OWN.into(), 24, *b"0123456789abcdef");
    config.max_groups = MAX_GROUPS;
    config.ipv6 = Some(Ipv6Config { router_advertisements: false, ..Ipv6Config::default() });
    let mut now = Instant::from_millis(1);
    let Ok(mut stack) = Stack::<&'static [u8]>::new(config, now) else { return };
    let (mut listener, mut joined, mut changes) = (Listener::default(), Vec::<IpAddr>::new(), 0);
    let begin = now;
    while !input.is_empty() {
        let which = group(input.below(8));
        let which = if input.below(2) == 1 { which.1.into() } else { IpAddr::V4(which.0) };
        match input.below(8) {
            0 => {
                if stack.join_group(now, which).is_ok() {
                    joined.push(which);
                }
                changes += 1;
            }
            1 => {
                let at = joined.iter().position(|other| *other == which);
                assert_eq!(
                    stack.leave_group(now, which),
                    at.is_some(),
                    "who has joined can leave, and nobody else"
                );
                at.map(|at| joined.swap_remove(at));
                changes += 1;
            }
            _ => {
                let frame = message(&mut input);
                let _ = stack.input(now, &frame, RxMeta::default());
            }
        }
        now += Duration::from_millis(u64::from(input.below(200)));
        stack.expire(now, &mut listener, |_, _| {});
        assert!(stack.next_deadline().is_none_or(|deadline| deadline > now), "what is due has been done");
        let mut expected = joined.clone();
        expected.sort();
        expected.dedup();
        assert_eq!(stack.groups().collect::<Vec<_>>(), expected);
        let passed = now.since(begin).as_nanos() / 1_000_000_000 + 1;
        // A change is said seven times at most, and the addresses' own are few.
        let most = passed * MAX_ANSWERS + 7 * (changes + 4) * (u64::from(MAX_GROUPS) + 2);
        assert!(listener.0 <= most, "{} messages after {passed} s and {changes} changes", listener.0);
    }
}

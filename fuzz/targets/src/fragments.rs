//! Datagrams to exos-net in fragments of any size and order, over both families, several sources at once, some of which lie
//! where pieces meet.

use crate::adversary::frames::{IP, TRANSPORT_V6, finish, finish_ip, finish_len};
use crate::input::Input;
use exos_net::{
    Config, ControlFrame, Duration, Full, Input as Came, Instant, Ipv6Config, MacAddress, RxMeta, Stack,
    Transmit, TxSegment,
};
use std::collections::HashSet;
use std::net::Ipv6Addr;

const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PORT: u16 = 53;
const MAX_REASSEMBLIES: u16 = 6;
const MAX_BYTES: usize = 20_000;
const UDP: u8 = 17;

struct Nothing;

impl Transmit<&'static [u8]> for Nothing {
    fn transmit(&mut self, _: TxSegment<'_, &'static [u8]>) -> Result<(), Full> {
        Ok(())
    }

    fn transmit_control(&mut self, _: &ControlFrame<'_>) -> Result<(), Full> {
        Ok(())
    }
}

/// Byte `at` of an honest datagram's payload. Its UDP header has no checksum.
fn honest(at: usize, len: u16) -> u8 {
    let header = [0, 99, 0, PORT as u8, (len >> 8) as u8, len as u8, 0, 0];
    header.get(at).copied().unwrap_or((at * 7 + at / 256) as u8)
}

fn v6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into())
}

/// A part of somebody's datagram of `len` bytes.
struct Part {
    source: u8,
    identification: u8,
    len: u16,
    /// In units of eight bytes.
    place: u16,
    end: usize,
    more: bool,
    protocol: u8,
    lies: bool,
}

impl Part {
    /// The bytes of it, of `whole` if they are honest.
    fn bytes<'a>(&self, whole: impl Fn(usize) -> u8 + 'a) -> impl Iterator<Item = u8> + 'a {
        let (start, end, mask) = (8 * usize::from(self.place), self.end, if self.lies { 0xff } else { 0 });
        (start.min(end)..end).map(move |at| whole(at) ^ mask)
    }

    fn ethernet(&self, ether_type: [u8; 2]) -> Vec<u8> {
        [&OWN_MAC[..], &[2, 0, 0, 0, 0, self.source], &ether_type].concat()
    }

    fn ipv4(&self) -> Vec<u8> {
        let mut frame = self.ethernet([8, 0]);
        frame.extend([0x45, 0, 0, 0, 0, self.identification]);
        frame.extend((if self.more { 0x2000 } else { 0 } | self.place).to_be_bytes());
        frame.extend([64, self.protocol, 0, 0, 10, 0, 0, self.source, 10, 0, 0, 1]);
        frame.extend(self.bytes(|at| honest(at, self.len)));
        finish_len(&mut frame);
        finish_ip(&mut frame);
        frame
    }

    /// An IPv6 packet without extension headers; here UDP has a checksum (RFC 8200 8.1).
    fn whole_ipv6(&self) -> Vec<u8> {
        let mut frame = self.ethernet([0x86, 0xdd]);
        frame.extend([0x60, 0, 0, 0, 0, 0, UDP, 64]);
        frame.extend(v6(self.source).octets());
        frame.extend(v6(1).octets());
        frame.extend((0..usize::from(self.len)).map(|at| honest(at, self.len)));
        finish(&mut frame);
        frame
    }

    /// The fragment header comes behind another one, or not.
    fn ipv6(&self, before: u8) -> Vec<u8> {
        let whole = self.whole_ipv6();
        let mut frame = whole[..TRANSPORT_V6].to_vec();
        frame[IP + 6] = 44;
        if let Some(&kind) = [0, 60, 43].get(usize::from(before)) {
            frame[IP + 6] = kind;
            // Options: padding. A route: its end.
            frame.extend([44, 0, 1, if kind == 43 { 0 } else { 4 }, 0, 0, 0, 0]);
        }
        let place = self.place << 3 | u16::from(self.more);
        frame.extend(
            [&[self.protocol, 0][..], &place.to_be_bytes(), &[0, 0, 0, self.identification]].concat(),
        );
        frame.extend(self.bytes(|at| whole[TRANSPORT_V6 + at]));
        finish_len(&mut frame);
        frame
    }
}

fn stack(now: Instant) -> Option<Stack<&'static [u8]>> {
    let mut config = Config::new(MacAddress(OWN_MAC), [10, 0, 0, 1].into(), 24, *b"0123456789abcdef");
    config.max_reassemblies = MAX_REASSEMBLIES;
    config.max_reassembly_bytes = MAX_BYTES;
    config.max_buffered_bytes = MAX_BYTES;
    config.group_reports = false;
    let addresses = vec![(v6(1), 64)];
    let quiet = Ipv6Config { addresses, probes: 0, router_advertisements: false, ..Ipv6Config::default() };
    config.ipv6 = Some(quiet);
    let mut stack = Stack::new(config, now).ok()?;
    stack.bind_udp(PORT).expect("a free port");
    Some(stack)
}

/// Whatever arrives, what is delivered has no holes and no mixture; memory is bounded.
pub fn fragments(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut now = Instant::from_millis(1);
    let Some(mut stack) = stack(now) else { return };
    // Datagrams that somebody has lied about, by family, source and identification.
    let mut lied = HashSet::new();
    while !input.is_empty() {
        let (from, identification) = (input.below(6), input.below(4));
        let (source, is_v6) = (2 + from % 3, from >= 3);
        let len = [8, 40, 200, 1_500, 9_000][usize::from(input.below(5))] + u16::from(input.below(16));
        let place = usize::from(input.u8()) * [1, 1, 8, 64][usize::from(input.below(4))];
        let size = [8, 16, 64, 512, 1_480, 10_000][usize::from(input.below(6))]
            + usize::from(input.below(9) % 8 * 8);
        let what = input.u8();
        let end = (place * 8 + size).min(usize::from(len));
        let lies = what & 7 == 7;
        let more = end < usize::from(len) || what & 0xc0 == 0xc0;
        let protocol = if what & 0x38 == 0x38 { 6 } else { UDP };
        let place = (place & 0x1fff) as u16;
        let part = Part { source, identification, len, place, end, more, protocol, lies };
        if lies {
            lied.insert((is_v6, source, identification));
        }
        let frame = if is_v6 { part.ipv6(input.below(8)) } else { part.ipv4() };
        match stack.input(now, &frame, RxMeta::default()) {
            Came::Datagram(datagram) => {
                // Datagrams of several lengths go by the same identification: what the header says is one of them.
                let len = (datagram.payload.len() + 8) as u16;
                let is_whole =
                    datagram.payload.iter().enumerate().all(|(at, &byte)| byte == honest(8 + at, len));
                assert!(
                    is_whole || lied.contains(&(is_v6, source, identification)),
                    "an honest datagram is delivered as it was sent"
                );
                assert_eq!(datagram.from.is_ipv6(), is_v6);
            }
            came => {
                // RFC 6946: what is all of it has nothing to do with fragments, whatever came before.
                assert!(
                    place > 0 || more || lies || protocol != UDP,
                    "it is whole, and not delivered: {frame:02x?}"
                );
                if let Came::Reply(reply) = came {
                    assert_eq!(reply.head()[..6], frame[6..12], "an answer to who asked");
                }
            }
        }
        if what & 3 == 3 {
            now += Duration::from_millis(u64::from(input.u16()));
        }
        stack.expire(now, &mut Nothing, |_, _| {});
        stack.check();
        assert!(
            stack.reassemblies() <= usize::from(MAX_REASSEMBLIES) && stack.reassembly_bytes() <= MAX_BYTES
        );
    }
    // Nothing is waited for without end.
    now += Duration::from_secs(60);
    stack.expire(now, &mut Nothing, |_, _| {});
    assert_eq!((stack.reassemblies(), stack.reassembly_bytes(), stack.next_deadline()), (0, 0, None));
}

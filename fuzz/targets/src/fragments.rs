//! Datagrams to exos-net in fragments of any size and order, several sources at once, some of which lie where pieces meet.

use crate::adversary::frames::{IP, TRANSPORT, finish_ip};
use crate::input::Input;
use exos_net::{
    Config, ControlFrame, Duration, Full, Input as Came, Instant, MacAddress, RxMeta, Stack, Transmit,
    TxSegment,
};
use std::collections::HashSet;

const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PORT: u16 = 53;
const MAX_REASSEMBLIES: u16 = 6;
const MAX_BYTES: usize = 20_000;

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

/// Whatever arrives, what is delivered has no holes and no mixture; memory is bounded.
pub fn fragments(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut config = Config::new(MacAddress(OWN_MAC), [10, 0, 0, 1].into(), 24, *b"0123456789abcdef");
    config.max_reassemblies = MAX_REASSEMBLIES;
    config.max_reassembly_bytes = MAX_BYTES;
    config.max_buffered_bytes = MAX_BYTES;
    let mut now = Instant::from_millis(1);
    let Ok(mut stack) = Stack::<&'static [u8]>::new(config, now) else { return };
    stack.bind_udp(PORT).expect("a free port");
    // Datagrams that somebody has lied about, by source and identification.
    let mut lied = HashSet::new();
    while !input.is_empty() {
        let (source, identification) = (2 + input.below(3), input.below(4));
        let len = [8, 40, 200, 1_500, 9_000][usize::from(input.below(5))] + u16::from(input.below(16));
        let place = usize::from(input.u8()) * [1, 1, 8, 64][usize::from(input.below(4))];
        let size = [8, 16, 64, 512, 1_480][usize::from(input.below(5))] + usize::from(input.below(9) % 8 * 8);
        let what = input.u8();
        let offset = place * 8;
        let end = (offset + size).min(usize::from(len));
        let (lies, protocol) = (what & 7 == 7, if what & 0x38 == 0x38 { 6 } else { 17 });
        if lies {
            lied.insert((source, identification));
        }
        let mut frame =
            [&OWN_MAC[..], &[2, 0, 0, 0, 0, source, 8, 0, 0x45, 0, 0, 0, 0, identification]].concat();
        let more = if end < usize::from(len) || what & 0xc0 == 0xc0 { 0x2000 } else { 0 };
        frame.extend((more | (place & 0x1fff) as u16).to_be_bytes());
        frame.extend([64, protocol, 0, 0, 10, 0, 0, source, 10, 0, 0, 1]);
        let byte = |at| honest(at, len) ^ if lies { 0xff } else { 0 };
        frame.extend((offset.min(end)..end).map(byte));
        let total = (frame.len() - IP) as u16;
        frame[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
        finish_ip(&mut frame);
        assert!(frame.len() >= TRANSPORT);
        if let Came::Datagram(datagram) = stack.input(now, &frame, RxMeta::default()) {
            // Datagrams of several lengths go by the same identification: what the header says is one of them.
            let len = (datagram.payload.len() + 8) as u16;
            let whole = datagram.payload.iter().enumerate().all(|(at, &byte)| byte == honest(8 + at, len));
            assert!(
                whole || lied.contains(&(source, identification)),
                "an honest datagram is delivered as it was sent"
            );
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

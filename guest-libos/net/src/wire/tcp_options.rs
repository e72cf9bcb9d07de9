//! TCP options: those of a SYN (segment size, window scale, SACK permitted, timestamps), and the two that other segments
//! carry, timestamps (RFC 7323 3) and SACK blocks (RFC 2018 3). Whatever follows a malformed option is ignored
//! (RFC 9293 3.1: MUST-7 asks only not to crash).

use super::u32_at;
use crate::tcp::Seq;

/// The largest shift count of the window scale option (RFC 7323 2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;
/// The timestamps option as it is sent: two no-operations, then kind, length and two numbers.
pub const TIMESTAMPS_BYTES: usize = 12;
/// The most SACK blocks that options have room for: four, or three beside timestamps.
pub const MAX_SACK_BLOCKS: usize = 4;

/// What timestamps look like when the numbers after them are aligned (RFC 7323 appendix A), as everybody sends them.
pub(crate) const ALIGNED_TIMESTAMPS: [u8; 4] = [NOP, NOP, KIND_TIMESTAMPS, 10];

const END: u8 = 0;
const NOP: u8 = 1;
const KIND_MSS: u8 = 2;
const KIND_WINDOW_SCALE: u8 = 3;
const KIND_SACK_PERMITTED: u8 = 4;
const KIND_SACK: u8 = 5;
const KIND_TIMESTAMPS: u8 = 8;

/// Options one after the other: kind and content.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.0 {
                [] | [END, ..] => return None,
                [NOP, ref rest @ ..] => self.0 = rest,
                [kind, len, ..] if len >= 2 && usize::from(len) <= self.0.len() => {
                    let (option, rest) = self.0.split_at(usize::from(len));
                    self.0 = rest;
                    return Some((kind, &option[2..]));
                }
                _ => {
                    self.0 = &[];
                    return None;
                }
            }
        }
    }
}

/// The timestamps option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamps {
    /// TSval: the sender's clock, in ticks of its own.
    pub value: u32,
    /// TSecr: the TSval it echoes; meaningless without an acknowledgment.
    pub echo: u32,
}

impl Timestamps {
    /// The timestamps among a segment's options.
    #[inline]
    pub fn parse(options: &[u8]) -> Option<Self> {
        if options.len() >= TIMESTAMPS_BYTES && options[..4] == ALIGNED_TIMESTAMPS {
            return Some(Self { value: u32_at(options, 4), echo: u32_at(options, 8) });
        }
        Self::search(options)
    }

    #[cold]
    fn search(options: &[u8]) -> Option<Self> {
        Options(options).find_map(|(kind, content)| Self::read(kind, content))
    }

    fn read(kind: u8, content: &[u8]) -> Option<Self> {
        (kind == KIND_TIMESTAMPS && content.len() == 8)
            .then(|| Self { value: u32_at(content, 0), echo: u32_at(content, 4) })
    }

    fn emit(self, out: &mut [u8]) {
        out[..4].copy_from_slice(&self.value.to_be_bytes());
        out[4..8].copy_from_slice(&self.echo.to_be_bytes());
    }
}

/// Bytes `start..end` of the stream, of which a receiver says that it has them. `start` lies before `end` only if the
/// sender is honest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlock {
    /// The first sequence number.
    pub start: Seq,
    /// The sequence number after the last one.
    pub end: Seq,
}

/// The blocks of a SACK option, the first of them about the segment that caused it (RFC 2018 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlocks {
    blocks: [SackBlock; MAX_SACK_BLOCKS],
    len: u8,
}

impl SackBlocks {
    /// The most bytes [`Self::emit`] writes.
    pub const MAX_BYTES: usize = 4 + 8 * MAX_SACK_BLOCKS;

    /// The blocks among a segment's options; none if there is no such option.
    pub fn parse(options: &[u8]) -> Self {
        let mut parsed = Self::default();
        let content = Options(options).find(|&(kind, content)| kind == KIND_SACK && content.len() % 8 == 0);
        for block in content.map_or(&[][..], |(_, content)| content).chunks_exact(8) {
            parsed.push(SackBlock { start: Seq::new(u32_at(block, 0)), end: Seq::new(u32_at(block, 4)) });
        }
        parsed
    }

    /// Adds a block behind the others; false if there is no room.
    pub fn push(&mut self, block: SackBlock) -> bool {
        let Some(place) = self.blocks.get_mut(usize::from(self.len)) else { return false };
        *place = block;
        self.len += 1;
        true
    }

    /// The blocks in their order.
    pub fn as_slice(&self) -> &[SackBlock] {
        &self.blocks[..usize::from(self.len)]
    }

    /// The same, to be brought into another order.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [SackBlock] {
        &mut self.blocks[..usize::from(self.len)]
    }

    /// Writes the option, aligned by no-operations in front, and returns its length: nothing without blocks.
    pub fn emit(&self, out: &mut [u8; Self::MAX_BYTES]) -> usize {
        if self.len == 0 {
            return 0;
        }
        out[..4].copy_from_slice(&[NOP, NOP, KIND_SACK, 2 + 8 * self.len]);
        for (block, out) in self.as_slice().iter().zip(out[4..].chunks_exact_mut(8)) {
            out[..4].copy_from_slice(&block.start.value().to_be_bytes());
            out[4..].copy_from_slice(&block.end.value().to_be_bytes());
        }
        4 + 8 * usize::from(self.len)
    }
}

/// The options of a SYN that we act on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynOptions {
    /// Maximum segment size (RFC 9293 3.7.1).
    pub mss: Option<u16>,
    /// Window scale shift (RFC 7323 2), at most [`MAX_WINDOW_SCALE`].
    pub window_scale: Option<u8>,
    /// SACK blocks may be sent (RFC 2018 2).
    pub sack_permitted: bool,
    /// Timestamps (RFC 7323 3).
    pub timestamps: Option<Timestamps>,
}

impl SynOptions {
    /// The most bytes [`Self::emit`] writes.
    pub const MAX_BYTES: usize = 20;

    /// Reads options.
    pub fn parse(options: &[u8]) -> Self {
        let mut parsed = Self::default();
        for (kind, content) in Options(options) {
            match (kind, content) {
                (KIND_MSS, &[high, low]) => parsed.mss = Some(u16::from_be_bytes([high, low])),
                (KIND_WINDOW_SCALE, &[shift]) => parsed.window_scale = Some(shift.min(MAX_WINDOW_SCALE)),
                (KIND_SACK_PERMITTED, []) => parsed.sack_permitted = true,
                (KIND_TIMESTAMPS, _) => parsed.timestamps = Timestamps::read(kind, content),
                _ => {}
            }
        }
        parsed
    }

    /// Writes the options, padded to a multiple of four bytes, and returns their length.
    pub fn emit(&self, out: &mut [u8; Self::MAX_BYTES]) -> usize {
        let mut len = 0;
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            out[..4].copy_from_slice(&[KIND_MSS, 4, high, low]);
            len = 4;
        }
        let permitted = [KIND_SACK_PERMITTED, 2];
        if let Some(timestamps) = self.timestamps {
            out[len..len + 4].copy_from_slice(&ALIGNED_TIMESTAMPS);
            if self.sack_permitted {
                // In place of the two no-operations.
                out[len..len + 2].copy_from_slice(&permitted);
            }
            timestamps.emit(&mut out[len + 4..]);
            len += TIMESTAMPS_BYTES;
        } else if self.sack_permitted {
            out[len..len + 2].copy_from_slice(&[NOP, NOP]);
            out[len + 2..len + 4].copy_from_slice(&permitted);
            len += 4;
        }
        if let Some(shift) = self.window_scale {
            out[len..len + 4].copy_from_slice(&[NOP, KIND_WINDOW_SCALE, 3, shift]);
            len += 4;
        }
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIMESTAMPS: Timestamps = Timestamps { value: 0x0102_0304, echo: 9 };

    #[test]
    fn syn_options_of_linux_are_read() {
        let options = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 9, 1, 3, 3, 7];
        let expected = SynOptions {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(TIMESTAMPS),
        };
        assert_eq!(SynOptions::parse(&options), expected);
        let mut out = [0; SynOptions::MAX_BYTES];
        assert_eq!((expected.emit(&mut out), out), (20, options));
    }

    #[test]
    fn syn_options_invalid_length_ends_list() {
        assert_eq!(SynOptions::parse(&[3, 3, 15, 2, 0, 5, 180]).window_scale, Some(MAX_WINDOW_SCALE));
        assert_eq!(SynOptions::parse(&[2, 1, 5, 180, 3, 3, 7, 0]), SynOptions::default());
        assert_eq!(SynOptions::parse(&[2, 200, 5, 180]), SynOptions::default());
        assert_eq!(SynOptions::parse(&[2]), SynOptions::default());
        assert_eq!(SynOptions::parse(&[4, 3, 0, 8, 4, 1, 2]), SynOptions::default());
    }

    #[test]
    fn timestamps_are_found_aligned_or_not_and_only_whole() {
        let aligned = [1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 9];
        assert_eq!(Timestamps::parse(&aligned), Some(TIMESTAMPS));
        assert_eq!(Timestamps::parse(&[8, 10, 1, 2, 3, 4, 0, 0, 0, 9, 1, 1]), Some(TIMESTAMPS));
        assert_eq!(Timestamps::parse(&[5, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 9]), Some(TIMESTAMPS));
        assert_eq!(Timestamps::parse(&aligned[..8]), None);
        assert_eq!(Timestamps::parse(&[8, 9, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Timestamps::parse(&[0, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 9]), None);
    }

    #[test]
    fn sack_blocks_of_wrong_length_are_none() {
        assert_eq!(SackBlocks::parse(&[5, 6, 1, 2, 3, 4]).as_slice(), []);
        assert_eq!(SackBlocks::parse(&[5, 18, 1, 2, 3, 4]).as_slice(), []);
        let both = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 5, 10, 0, 0, 0, 5, 0, 0, 0, 9];
        let block = SackBlock { start: Seq::new(5), end: Seq::new(9) };
        assert_eq!(SackBlocks::parse(&both).as_slice(), [block]);
    }

    proptest! {
        #[test]
        fn syn_options_emit_then_parse_returns_same(
            mss: Option<u16>, shift in proptest::option::of(0u8..=14), sack_permitted: bool,
            timestamps: Option<(u32, u32)>,
        ) {
            let timestamps = timestamps.map(|(value, echo)| Timestamps { value, echo });
            let options = SynOptions { mss, window_scale: shift, sack_permitted, timestamps };
            let mut out = [0; SynOptions::MAX_BYTES];
            let len = options.emit(&mut out);
            prop_assert_eq!(SynOptions::parse(&out[..len]), options);
            prop_assert_eq!((Timestamps::parse(&out[..len]), len % 4), (timestamps, 0));
        }

        #[test]
        fn sack_blocks_emit_then_parse_returns_same(edges in proptest::collection::vec(any::<(u32, u32)>(), 0..6)) {
            let mut blocks = SackBlocks::default();
            for (place, &(start, end)) in edges.iter().enumerate() {
                let block = SackBlock { start: Seq::new(start), end: Seq::new(end) };
                prop_assert_eq!(blocks.push(block), place < MAX_SACK_BLOCKS);
            }
            let mut out = [0; SackBlocks::MAX_BYTES];
            let len = blocks.emit(&mut out);
            prop_assert_eq!((SackBlocks::parse(&out[..len]), len % 4), (blocks, 0));
        }

        #[test]
        fn options_garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..44)) {
            let timestamps = Timestamps::parse(&bytes);
            prop_assert!(timestamps.is_none() || bytes.len() >= 10);
            let _ = (SynOptions::parse(&bytes), SackBlocks::parse(&bytes));
        }
    }
}

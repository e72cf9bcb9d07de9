//! What we tell a sender about data out of order (RFC 2018 4), most recent first, and about data that came twice
//! (RFC 2883). The blocks themselves are the receive buffer's runs, and it knows which of them grew last.

use super::Seq;
use super::reassembly::ReceiveBuffer;
use crate::wire::tcp_options::{SackBlock, SackBlocks};

/// The state of one connection's reports. Inert unless SACK was negotiated.
#[derive(Debug, Default)]
pub(crate) struct SackReport {
    enabled: bool,
    /// Bytes that came twice, to be reported once.
    duplicate: Option<SackBlock>,
}

impl SackReport {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, ..Self::default() }
    }

    /// Bytes `start..end` came again. Returns whether that is to be reported.
    pub(crate) fn came_twice(&mut self, start: Seq, end: Seq) -> bool {
        if self.enabled && start.is_before(end) {
            self.duplicate = Some(SackBlock { start, end });
        }
        self.enabled
    }

    /// The blocks of an acknowledgment of `next`, at most `max` of them.
    pub(crate) fn blocks(&self, next: Seq, buffer: &ReceiveBuffer, max: usize) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        if !self.enabled {
            return blocks;
        }
        if let Some(duplicate) = self.duplicate {
            blocks.push(duplicate);
        }
        if !buffer.has_holes() {
            return blocks;
        }
        let first = blocks.as_slice().len();
        let by_age = buffer.recent().filter_map(|recent| buffer.run_at(recent.since(next) as usize));
        for (start, end) in by_age.chain(buffer.runs_backwards()) {
            let block = SackBlock { start: next + start as u32, end: next + end as u32 };
            if blocks.as_slice().len() < max && !blocks.as_slice()[first..].contains(&block) {
                blocks.push(block);
            }
        }
        blocks
    }

    /// An acknowledgment with the blocks has left.
    pub(crate) fn sent(&mut self) {
        self.duplicate = None;
    }
}
